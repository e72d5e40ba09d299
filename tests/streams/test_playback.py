"""Every row of a history is published or accounted for, and what cannot work is said before anything is published."""

from __future__ import annotations

import socket
from io import StringIO
from pathlib import Path
from threading import Event as Signal
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition
from rich.console import Console

from schemas.topics import Topics
from streams.administration import BrokerUnreachable, end_offsets, ensure_topics
from streams.playback import NothingTaken, Pace, PlaybackReport, Refusal, play
from streams.route import UnknownEvents
from tests.streams.builders import event, settings_of


def write(path: Path, *lines: object) -> str:
    path.write_text(
        "".join((each if isinstance(each, str) else msgspec.json.encode(each).decode()) + "\n" for each in lines)
    )
    return str(path)


def records_of(broker: str, topic: str) -> list[tuple[bytes | None, Any]]:
    """Key and decoded value of all records that a topic holds, partition by partition."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "tests", "enable.auto.commit": False})
    found: list[tuple[bytes | None, Any]] = []
    try:
        for (_, partition), end in sorted(end_offsets(broker, [topic]).items()):
            consumer.assign([TopicPartition(topic, partition, 0)])
            for _ in range(end):
                message = consumer.poll(20)
                assert message is not None, f"{topic} has fewer records than it says"
                found.append((message.key(), msgspec.json.decode(message.value() or b"null")))
    finally:
        consumer.close()
    return found


# Pace


def test_events_are_due_as_far_apart_as_their_times_divided_by_the_speed() -> None:
    pace = Pace(10.0)
    assert pace.wait_seconds(1000.0, now=5.0) == 0.0
    assert pace.wait_seconds(1020.0, now=5.5) == pytest.approx(1.5)
    assert pace.wait_seconds(1010.0, now=7.0) == 0.0
    assert pace.wait_seconds(1100.0, now=7.0) == pytest.approx(8.0)


def test_at_full_speed_nothing_waits() -> None:
    pace = Pace(None)
    assert [pace.wait_seconds(time, now=0.0) for time in (1.0, 1e9)] == [0.0, 0.0]


def test_a_report_names_refused_lines_and_goes_into_json() -> None:
    report = PlaybackReport(
        source="x.csv", taken=1234, scenarios={"shop": 1234}, clamped=2,
        refused={"bad-id": Refusal(30, (3, 7), "item_id is empty")},
        items=5, items_refused={}, seconds=2.0, stopped=False, notices=(),
    )  # fmt: skip
    console = Console(file=StringIO(), width=40)
    report.print(console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1,234 events published in 2.0 s (617/s): shop 1,234; 5 items" in printed
    assert "30 events refused, bad-id: item_id is empty (lines 3, 7, …)" in printed
    assert msgspec.json.decode(msgspec.json.encode(report.as_dict()))["refused"]["bad-id"]["lines"] == [3, 7]


# On a real Kafka


def test_good_rows_arrive_and_bad_ones_are_counted_by_reason_with_their_lines(
    broker: str, prefix: str, tmp_path: Path
) -> None:
    """Case E25."""
    settings = settings_of(prefix)
    source = write(
        tmp_path / "history.jsonl",
        event("a/b", timestamp=5, event_id="e1", value=4.5, scenario="shop"),
        event(42, scenario="video", recommendation_id="r", context={"page": 1}, colour="red"),
        "not json",
        event("", scenario="shop"),
        event("é" * 150, scenario="shop"),
        {"item_id": "i", "event": "view", "scenario": "shop"},
        event("u", name="veiw", scenario="shop"),
        event("u", scenario="shpo"),
        event("u", timestamp="yesterday", scenario="shop"),
        event("..", timestamp="2022-06-24 21:20:11", scenario="shop"),
        event("\N{ROCKET} %2F?#", timestamp="2999-01-01T00:00:00Z", scenario="shop"),
    )
    report = play(settings, broker, source, stop=Signal())
    assert (report.taken, report.scenarios, report.clamped) == (4, {"shop": 3, "video": 1}, 1)
    assert {code: refusal.lines for code, refusal in report.refused.items()} == {
        "bad-id": (4, 5), "not-json": (3,), "wrong-type": (6,), "unknown-event": (7,), "unknown-scenario": (8,),
        "bad-time": (9,),
    }  # fmt: skip
    topics = Topics(settings)
    assert records_of(broker, topics.events("video")) == [
        (b"42", {**event(42), "recommendation_id": "r", "context": {"page": 1}})
    ]
    shop = dict(records_of(broker, topics.events("shop")))
    assert shop == {
        b"a/b": event("a/b", timestamp=5, event_id="e1", value=4.5),
        b"..": event("..", timestamp="2022-06-24 21:20:11"),
        "\N{ROCKET} %2F?#".encode(): event("\N{ROCKET} %2F?#", timestamp="2999-01-01T00:00:00Z"),
    }


def test_items_go_first_each_to_where_it_belongs(broker: str, prefix: str, tmp_path: Path) -> None:
    settings = settings_of(prefix)
    write(tmp_path / "items.csv", "item_id,title,categories", "i,Tea,hot|drink", ",nothing,", "far%2F away,,")
    write(
        tmp_path / "events.jsonl",
        *(event(user, scenario=scenario) for user, scenario in (("u", "video"), ("v", "video"), ("w", "vidoe"))),
    )
    report = play(settings, broker, str(tmp_path), stop=Signal())
    assert (report.items, report.taken) == (2, 2)
    assert {code: refusal.lines for code, refusal in report.items_refused.items()} == {"bad-id": (3,)}
    found = dict(records_of(broker, Topics(settings).items))
    assert found == {
        b"i": {"item_id": "i", "title": "Tea", "categories": ["hot", "drink"], "scenarios": ["video"]},
        b"far%2F away": {"item_id": "far%2F away"},
    }
    play(settings, broker, str(tmp_path), scenario="shop", stop=Signal())
    again = [item for key, item in records_of(broker, Topics(settings).items) if key == b"far%2F away"]
    assert again[-1] == {"item_id": "far%2F away", "scenarios": ["shop"]}


def test_nothing_is_published_when_events_are_not_configured(broker: str, prefix: str, tmp_path: Path) -> None:
    settings = settings_of(prefix)
    topics = Topics(settings)
    ensure_topics(broker, topics.all(), 1)
    (tmp_path / "items.csv").write_text("item_id\ni\n")
    source = write(tmp_path / "events.csv", "favori,UserId,ItemId", "favori,1,2", "favori,3,4")
    with pytest.raises(UnknownEvents):
        play(settings, broker, source, scenario="shop", stop=Signal())
    assert records_of(broker, topics.items) == []
    report = play(settings, broker, source, scenario="shop", event="like", stop=Signal())
    assert report.taken == 2
    assert {value["event"] for _, value in records_of(broker, topics.events("shop"))} == {"like"}


def test_a_history_of_which_nothing_is_taken_is_no_success(broker: str, prefix: str, tmp_path: Path) -> None:
    """Case E25."""
    source = write(tmp_path / "history.csv", "user_id,item_id,event", ",i,view", ",i,view")
    with pytest.raises(NothingTaken, match=r"2 events refused, bad-id: user_id is empty \(lines 2, 3\)"):
        play(settings_of(prefix), broker, source, scenario="shop", stop=Signal())


def test_a_limit_ends_the_playback_and_progress_is_shown(broker: str, prefix: str, tmp_path: Path) -> None:
    settings = settings_of(prefix)
    source = write(tmp_path / "history.jsonl", *(event(f"u{number}") for number in range(50)))
    console = Console(file=StringIO(), width=120)
    report = play(settings, broker, source, scenario="shop", limit=20, progress=console, stop=Signal())
    assert (report.taken, report.stopped) == (20, False)
    assert "20/20" in console.file.getvalue()  # type: ignore[attr-defined]
    assert len(records_of(broker, Topics(settings).events("shop"))) == 20


class StopAtWait(Signal):
    """A stop that is asked for as soon as the playback waits for an event to be due."""

    waited: float | None = None

    def wait(self, timeout: float | None = None) -> bool:
        self.waited = timeout
        self.set()
        return True


def test_a_stop_ends_a_slow_playback_at_once_and_what_was_sent_has_arrived(
    broker: str, prefix: str, tmp_path: Path
) -> None:
    settings = settings_of(prefix)
    times = (1000, 1000, 1000, 5000, 9000)
    source = write(tmp_path / "history.jsonl", *(event(f"u{n}", timestamp=time) for n, time in enumerate(times)))
    stop = StopAtWait()
    report = play(settings, broker, source, scenario="shop", speed=2.0, stop=stop)
    assert (report.taken, report.stopped) == (3, True)
    assert stop.waited == pytest.approx(2000, abs=60)
    assert {key for key, _ in records_of(broker, Topics(settings).events("shop"))} == {b"u0", b"u1", b"u2"}


def test_a_broker_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, prefix: str, tmp_path: Path) -> None:
    monkeypatch.setattr("streams.playback.CONNECT_SECONDS", 1.0)
    source = write(tmp_path / "history.jsonl", event("u"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BrokerUnreachable, match=address):
            play(settings_of(prefix), address, source, scenario="shop", stop=Signal())
