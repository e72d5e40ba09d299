"""The doctor: what is well, what is not, and that each failing check says what helps."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from schemas.settings import Database, Kafka, Learn, Model, Settings
from streams.doctor import Finding, examine
from streams.kafka_files import free_port


def findings(settings: Settings) -> dict[str, Finding]:
    found = examine(settings)
    named = {finding.name: finding for finding in found}
    assert len(named) == len(found), "a name stands for one finding"
    for finding in found:
        assert bool(finding.remedy) == (finding.status != "ok"), finding
    return named


def test_a_sound_machine_has_no_failure(broker: str, tmp_path: Path) -> None:
    found = findings(Settings(data=str(tmp_path / "new"), kafka=Kafka(broker=broker)))
    assert list(found) == ["python", "memory", "gpu", "data folder", "disk", "broker", "database", "encoder"]
    assert [finding for finding in found.values() if finding.status == "failed"] == []
    assert not (tmp_path / "new").exists(), "the doctor changes nothing"


def test_the_embedded_kafka_is_looked_at_where_no_broker_is_configured(broker: str, tmp_path: Path) -> None:
    assert broker
    found = findings(Settings(data=str(tmp_path)))
    assert {name: found[name].status for name in ("java", "kafka", "port")} == dict.fromkeys(
        ("java", "kafka", "port"), "ok"
    )
    assert "broker" not in found


def test_a_taken_port_is_named_with_its_holder(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
        server.listen()
        port = server.getsockname()[1]
        found = findings(Settings(data=str(tmp_path), kafka=Kafka(port=port)))["port"]
    assert found.status == "failed"
    assert f"port {port}" in found.detail
    assert f"process {os.getpid()} " in found.detail


def test_an_absent_broker_fails_with_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.doctor.CLUSTER_SECONDS", 0.1)
    found = findings(Settings(data=str(tmp_path), kafka=Kafka(broker="127.0.0.1:1")))["broker"]
    assert found.status == "failed"
    assert "127.0.0.1:1" in found.detail


def test_a_database_that_answers_is_well_and_its_password_stays_hidden(postgres: str, tmp_path: Path) -> None:
    url = postgres.replace("postgres@", "postgres:hush@")
    found = findings(Settings(data=str(tmp_path), database=Database(url=url)))["database"]
    assert found.status == "ok"
    assert "hush" not in found.detail
    assert "postgres:***@" in found.detail


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://u:hush@127.0.0.1:1/x", "nonsense hush", "nosuch://u:hush@h/x", "oracle://u:hush@h/x"]
)
def test_a_database_that_cannot_be_used_fails_and_its_password_stays_hidden(url: str, tmp_path: Path) -> None:
    found = findings(Settings(data=str(tmp_path), database=Database(url=url)))["database"]
    assert found.status == "failed"
    assert "hush" not in found.detail + found.remedy


def test_a_file_that_is_no_database_fails(tmp_path: Path) -> None:
    (tmp_path / "headstream.db").write_bytes(b"not a database" * 100)
    assert findings(Settings(data=str(tmp_path)))["database"].status == "failed"


def test_a_data_folder_that_is_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = findings(Settings(data=str(tmp_path / "file")))["data folder"]
    assert found.status == "failed"


def test_a_demanded_gpu_that_is_absent_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert findings(Settings(data=str(tmp_path), learn=Learn(device="cuda")))["gpu"].status == "failed"
    absent = findings(Settings(data=str(tmp_path)))["gpu"]
    assert (absent.status, absent.detail) == ("ok", "no GPU was found; the CPU is used")


@pytest.mark.parametrize(
    ("encoder", "status"),
    [
        ("", "ok"),
        ("{folder}", "failed"),
        ("{folder}/model", "ok"),
        ("nobody/nothing", "warning"),
        ("a/b/c/d", "failed"),
    ],
)
def test_the_encoder_is_looked_for_where_the_configuration_says(encoder: str, status: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    model = Model(encoder=encoder.format(folder=tmp_path))
    assert findings(Settings(data=str(tmp_path), model=model))["encoder"].status == status
