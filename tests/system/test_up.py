"""`headstream up`: one machine's worth of processes, from the first start over kills to the last Ctrl-C.

The tests share one running system, in this order.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from confluent_kafka import KafkaError, Message, Producer

from schemas.configuration import load
from streams.status import ScenarioStatus, read_scenarios
from streams.store import Store, database_url, open_engine
from tests.system.installation import HEADSTREAM, headstream, here, until

DATA = ("--data", "data")


class Up:
    """A running `headstream up`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        written = folder / "headstream.toml"
        self.settings = load(written if written.exists() else None, {}, {"data": str(folder / "data")})
        self.output = (folder / "up.log").open("w")
        self.process = subprocess.Popen(
            [*HEADSTREAM, "up", *DATA],
            cwd=folder,
            env=here(HEADSTREAM_GATEWAY_PORT="0", HEADSTREAM_STOP_SECONDS="4"),
            stderr=self.output,
            start_new_session=True,
        )

    def endpoints(self) -> Any:
        path = self.folder / "data" / "endpoints.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def pid(self, name: str) -> int:
        pid: int = self.endpoints()["processes"][name]["pid"]
        return pid

    def ready(self) -> bool:
        processes = self.endpoints().get("processes", {})
        return bool(processes) and all(
            each["state"] == "ready" and psutil.pid_exists(each["pid"]) for each in processes.values()
        )

    def kill(self, *names: str) -> dict[str, int]:
        """Kill these processes; returns who they were."""
        killed = {name: self.pid(name) for name in names}
        for pid in killed.values():
            os.kill(pid, signal.SIGKILL)
        return killed

    def replaced(self, killed: dict[str, int]) -> bool:
        """Whether others are ready in their places, and told."""
        return self.ready() and all(self.pid(name) != pid for name, pid in killed.items())

    def scenarios(self) -> dict[str, ScenarioStatus]:
        """What the database says of each scenario; unlike `status`, it does not need the broker."""
        engine = open_engine(database_url(self.settings))
        try:
            return read_scenarios(self.settings, Store(engine, "headstream.serve", "test"))
        finally:
            engine.dispose()

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(30)
        self.output.close()
        return code


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("up"))
    try:
        until(running.ready, "up is ready")
        yield running
    finally:
        if running.process.poll() is None:
            running.interrupt()


def test_up_says_where_everything_is(up: Up) -> None:
    endpoints = up.endpoints()
    assert endpoints["broker"].startswith("127.0.0.1:")
    assert httpx.get(endpoints["gateway"] + "/health").json() == {"status": "alive"}
    assert endpoints["gateway"] in (up.folder / "up.log").read_text()
    assert set(endpoints["processes"]) == {"broker", "serve", "learn", "gateway"}
    for name in ("serve", "learn", "gateway"):
        assert "headstream_ready 1.0\n" in httpx.get(endpoints["processes"][name]["address"] + "/metrics").text
    for each in endpoints["processes"].values():
        assert psutil.pid_exists(each["pid"])


def test_replay_status_and_watch_work_on_a_running_system(up: Up) -> None:
    lines = [
        {
            "user_id": f"u{number % 7}",
            "item_id": f"i{number % 11}",
            "event": "click",
            "timestamp": 1_700_000_000 + number,
        }
        for number in range(200)
    ]
    (up.folder / "history.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    items = [{"item_id": f"i{number}", "title": f"Thing number {number}"} for number in range(11)]
    (up.folder / "items.jsonl").write_text("\n".join(json.dumps(item) for item in items))
    headstream("replay", "history.jsonl", "--items", "items.jsonl", "--scenario", "shop", *DATA, cwd=up.folder)
    until(lambda: up.scenarios()["shop"]["examples"] == 200, "all is learnt")
    status = json.loads(headstream("status", "--json", *DATA, cwd=up.folder).stdout)["scenarios"]["shop"]
    assert (status["events"], status["examples"], status["lag"]) == (200, 200, 0)
    assert status["model"]["version"] > 0
    watched = headstream("watch", "shop", "--json", "--from-beginning", "--count", "3", *DATA, cwd=up.folder)
    assert [json.loads(line)["scenario"] for line in watched.stdout.splitlines()] == ["shop"] * 3
    assert "headstream.events.shop" in headstream("status", *DATA, cwd=up.folder).stdout


def test_each_process_is_killed_in_the_middle_of_a_stream_and_every_event_counts_once(up: Up) -> None:
    """DESIGN §5, invariants 1 and 3; the producer goes on while its broker is away, as clients do."""
    address, topic, third = up.endpoints()["broker"], "headstream.events.video", 1000
    producer = Producer({"bootstrap.servers": address, "enable.idempotence": True, "log_level": 2})
    acknowledged: list[int] = []

    def publish(numbers: range) -> None:
        for number in numbers:
            body = {"user_id": f"u{number % 97}", "item_id": f"i{number % 11}", "event": "click", "event_id": number}

            def delivered(error: KafkaError | None, _message: Message, number: int = number) -> None:
                assert error is None
                acknowledged.append(number)

            producer.produce(topic, json.dumps(body), body["user_id"], on_delivery=delivered)
            producer.poll(0)

    def applied() -> int:
        return up.scenarios()["video"]["events"]

    publish(range(third))
    until(lambda: producer.flush(0.1) == 0 and applied() > 100, "the stream is under way")
    publish(range(third, 2 * third))
    broker = up.kill("broker")
    before = applied()
    assert before < 2 * third
    until(lambda: up.endpoints()["processes"]["broker"]["state"] == "restarting", "its end is told")
    until(lambda: up.replaced(broker), "the broker is replaced")
    assert up.endpoints()["broker"] == address
    until(lambda: applied() > before, "SERVE goes on")
    publish(range(2 * third, 3 * third))
    workers = up.kill("serve", "learn", "gateway")
    assert applied() < 3 * third
    assert producer.flush(60) == 0
    assert sorted(acknowledged) == list(range(3 * third))
    until(lambda: up.replaced(workers), "SERVE, LEARN and GATEWAY are replaced")
    until(lambda: up.scenarios()["video"]["examples"] >= 3 * third, "all is learnt")
    found = json.loads(headstream("status", "--json", *DATA, cwd=up.folder).stdout)
    video = found["scenarios"]["video"]
    assert (video["events"], video["examples"], video["lag"]) == (3 * third, 3 * third, 0)
    # A producer may publish twice what was on its way when its broker died; nothing else is a repetition.
    published = sum(each["end"] for each in found["topics"][topic].values())
    assert (video["duplicates"], found["dead_letters"]) == (published - 3 * third, {})
    assert up.ready()


def test_a_second_up_on_the_same_folder_is_refused_by_name(up: Up) -> None:
    message = headstream("up", *DATA, cwd=up.folder, code=1).stderr
    assert "data" in message
    assert up.ready()


def test_an_up_whose_port_is_taken_says_so_before_it_starts_anything(up: Up, tmp_path: Path) -> None:
    port = str(urlsplit(up.endpoints()["gateway"]).port)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTREAM_GATEWAY_PORT", port)
        message = headstream("up", *DATA, cwd=tmp_path, code=1).stderr
    assert f"port {port}" in message and "gateway.port" in message
    assert not (tmp_path / "data").exists()


def test_ctrl_c_stops_everything_even_what_is_stuck_and_leaves_no_process(up: Up) -> None:
    family = up.family()
    assert len(family) >= 3
    os.kill(up.pid("learn"), signal.SIGSTOP)
    assert up.interrupt() == 0
    assert not [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    assert "learn did not stop in time and is killed" in (up.folder / "up.log").read_text()
    assert not (up.folder / "data" / "endpoints.json").exists()
