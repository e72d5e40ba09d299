"""What the embedded Kafka runs on: ports that are kept, and jars that are fetched once."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from streams.kafka_files import PORTS, KafkaMissing, cache_folder, choose_ports, jars_present, kafka_jars

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, and nothing that Maven has fetched before."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, NOWHERE)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("M2_REPO", str(tmp_path / "maven"))


def test_a_kept_port_stays_until_another_process_takes_it(tmp_path: Path) -> None:
    first = choose_ports(tmp_path, configured=0)
    assert first.broker != first.controller
    assert {first.broker, first.controller} <= set(PORTS)
    assert choose_ports(tmp_path, configured=0) == first
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", first.broker))
        foreign.listen()
        second = choose_ports(tmp_path, configured=0)
        assert second.broker not in (first.broker, first.controller)
        assert second.controller == first.controller
    assert choose_ports(tmp_path, configured=0) == second


def test_a_configured_port_never_doubles_as_the_controller_port(tmp_path: Path) -> None:
    first = choose_ports(tmp_path, configured=0)
    second = choose_ports(tmp_path, configured=first.controller)
    assert second.broker == first.controller
    assert second.controller != first.controller


@pytest.mark.usefixtures("offline")
def test_kafka_that_cannot_be_fetched_is_a_sentence_about_the_network(tmp_path: Path) -> None:
    steps: list[str] = []
    with pytest.raises(KafkaMissing, match=r"Apache Kafka 4\.4\.0 is not yet on this machine .* connect this machine"):
        kafka_jars(tmp_path / "cache", steps.append)
    assert steps == ["fetching Apache Kafka 4.4.0 (44 MB, once)"]
    assert jars_present(tmp_path / "cache") == []


def test_jars_that_are_known_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    known = cache_folder()
    kafka_jars(known)
    monkeypatch.setenv("https_proxy", NOWHERE)
    steps: list[str] = []
    jars = kafka_jars(known, steps.append)
    assert steps == []
    assert any("kafka-clients" in jar.name for jar in jars)
    assert any("log4j-slf4j-impl" in jar.name for jar in jars)


def test_a_jar_that_was_removed_is_noticed(tmp_path: Path) -> None:
    jar = Path(shutil.copy(kafka_jars(cache_folder())[0], tmp_path))
    (tmp_path / "jars.json").write_text(f'["{jar}"]')
    assert jars_present(tmp_path) == [jar]
    jar.unlink()
    assert jars_present(tmp_path) == []
