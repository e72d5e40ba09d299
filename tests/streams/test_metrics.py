"""Metrics: labels are bounded, what is counted once is there from the start, and a port that is taken is named."""

from __future__ import annotations

import re
import socket
import urllib.request
from pathlib import Path

import pytest

from schemas.decoding import CODES
from schemas.settings import Metrics, Settings
from streams import metrics

ROOT = Path(__file__).parents[2]


def value(name: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(f"headstream_{name}", labels)


def test_every_code_of_a_refusal_is_known() -> None:
    sources = [path.read_text() for path in (ROOT / "schemas").glob("*.py")]
    sources.append((ROOT / "streams" / "serve.py").read_text())
    used = {code for text in sources for code in re.findall(r'(?:Refused|Invalid)\(\s*"([a-z-]+)"', text)}
    assert used == set(CODES)


def test_what_may_be_counted_is_there_at_0_before_it_happens() -> None:
    settings = Settings(scenarios={"metrics-a": Settings().scenarios["shop"]})
    metrics.begin_serve(settings)
    metrics.begin_learn(settings)
    events = "headstream.events.metrics-a"
    assert value("events_total", scenario="metrics-a") == 0
    assert value("clicks_total", scenario="metrics-a", group="control") == 0
    assert value("dead_letters_total", topic=events, code="not-json") == 0
    assert value("drift_alarms_total", scenario="metrics-a", signal="click_rate") == 0


def test_a_batch_is_counted_as_it_is_tallied() -> None:
    topic = "headstream.events.metrics-b"
    tallies = {
        topic: {(0, "events"): 3, (1, "events"): 4, (0, "control_clicks"): 2, (1, "dead:not-json"): 5, (0, "nulls"): 9},
        "headstream.requests": {(0, "dead:made-up-elsewhere"): 6},
    }
    before = value("dead_letters_total", topic="headstream.requests", code="other") or 0
    metrics.count_batch({topic: "metrics-b"}, tallies)
    assert value("events_total", scenario="metrics-b") == 7
    assert value("clicks_total", scenario="metrics-b", group="control") == 2
    assert value("dead_letters_total", topic=topic, code="not-json") == 5
    assert (value("dead_letters_total", topic="headstream.requests", code="other") or 0) - before == 6


def test_an_alarm_is_counted_by_scenario_and_signal() -> None:
    metrics.count_alarm("metrics-c", "click_rate")
    assert value("drift_alarms_total", scenario="metrics-c", signal="click_rate") == 1


def test_serve_and_learn_can_be_known_to_share_a_lineage() -> None:
    metrics.set_model("metrics-d", "0123abcd-0000-0000-0000-000000000000", 7, 99, 1000.0)
    assert value("model_lineage", scenario="metrics-d") == 0x0123ABCD
    metrics.set_model("metrics-d", "", 0, 0, 0.0)
    assert value("model_lineage", scenario="metrics-d") == 0


def test_they_are_offered_on_a_free_port_of_loopback_unless_told_otherwise() -> None:
    address = metrics.offer(Settings(), "serve")
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as answer:
        assert b"headstream_batch_seconds" in answer.read()
    assert b"headstream_batch_seconds" in metrics.exposition()


def test_a_port_that_is_taken_is_named_with_its_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(metrics.PortTaken, match=rf"127\.0\.0\.1:{port}: .*metrics\.learn_port"):
            metrics.offer(Settings(metrics=Metrics(learn_port=port)), "learn")
