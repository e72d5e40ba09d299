"""What `docker compose up` starts becomes well by its own health checks: all but what only an image brings."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import sqlalchemy as sa

from streams.kafka_files import free_port
from tests.compose import health_check, services
from tests.prometheus import FOLDER
from tests.system.conftest import Composed
from tests.system.installation import here, until


def is_well(service: str, port: str | int, here_port: int, **environment: str) -> bool:
    """Whether the service's own health check passes, at the port that it has here."""
    command = [word.replace(str(port), str(here_port)) for word in health_check(service)]
    return subprocess.run(command, env=here(**environment), capture_output=True, timeout=60).returncode == 0


def test_serve_learn_and_gateway_become_well(composed: Composed) -> None:
    keys = {
        "serve": "HEADSTREAM_METRICS_SERVE_PORT",
        "learn": "HEADSTREAM_METRICS_LEARN_PORT",
        "gateway": "HEADSTREAM_GATEWAY_PORT",
    }
    ports = {name: free_port() for name in keys}
    there = {name: services()[name]["environment"][key] for name, key in keys.items()}
    assert not any(is_well(name, there[name], port) for name, port in ports.items())
    for name, key in keys.items():
        composed.start(name, **{key: str(ports[name])})
    for name, port in ports.items():
        until(lambda name=name, port=port: is_well(name, there[name], port), f"{name} is well")
    composed.kill("learn")
    assert not is_well("learn", there["learn"], ports["learn"])


def test_the_health_check_of_the_database_passes_on_one(postgres: str) -> None:
    url = sa.make_url(postgres)
    assert is_well("postgres", "never", 0, PGHOST=str(url.host), PGPORT=str(url.port))
    assert not is_well("postgres", "never", 0, PGHOST=str(url.host), PGPORT="1")


def test_prometheus_becomes_well_with_the_folder_that_it_is_given(tmp_path: Path) -> None:
    port = free_port()
    mounted = shutil.copytree(FOLDER, tmp_path / "etc")
    replaced = {
        "/etc/prometheus": str(mounted),
        "=/prometheus": f"={tmp_path}/data",
        "0.0.0.0:9090": f"127.0.0.1:{port}",
    }
    arguments = services()["prometheus"]["command"]
    for name, host in replaced.items():
        arguments = [each.replace(name, host) for each in arguments]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(["prometheus", *arguments], env=dict(os.environ), stdout=log, stderr=log)
    try:
        until(lambda: is_well("prometheus", 9090, port), "Prometheus is well", 60)
    finally:
        process.terminate()
        process.wait(20)
    assert "Completed loading of configuration file" in (tmp_path / "log").read_text()
