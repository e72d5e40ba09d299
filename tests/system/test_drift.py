"""Tastes that shift are told of on the drift topic, and what was measured is there to be looked back on."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.packed import pack, pack_times
from schemas.records import Example, encode
from schemas.reports import DriftReport, decode_report
from streams.history import History
from streams.store import database_url, open_engine
from tests.system.conftest import environment
from tests.system.installation import Installation, until

BEFORE, AFTER = 4200, 3300
ITEMS, LIKED = 120, 10


@pytest.fixture
def watched(broker: str, prefix: str, tmp_path: Path) -> Iterator[Installation]:
    """LEARN runs, and probe sets are tested every other second."""
    more = {"HEADSTREAM_LEARN_CHECKPOINT_SECONDS": "2", "HEADSTREAM_LEARN_COALESCE_MILLISECONDS": "5"}
    made = Installation(tmp_path, environment(broker, prefix, tmp_path) | more)
    made.start("learn")
    try:
        yield made
    finally:
        made.close()


def act(installation: Installation, first: int, count: int, items: range) -> None:
    """Examples as SERVE would make them: of users of five events each, on whatever of these items they had not."""
    generator, began = random.Random(first), time.time() - 60
    for offset in range(first, first + count, 5):
        met: list[str] = []
        for number, item in enumerate(generator.sample(items, 5)):
            example = Example(
                partition=0,
                offset=offset + number,
                user_id=f"user-{offset}",
                time=began + number,
                event="click",
                item_id=f"thing-{item}",
                weight=1.0,
                history=pack(met),
                history_times=pack_times([began + place for place in range(number)]),
                excluded=pack(met),
            )
            met.append(example.item_id)
            installation.send(installation.topics.examples("shop"), encode(example), "shop")
    installation.flush()


def reports(installation: Installation) -> list[DriftReport]:
    return [decode_report(record.value()) for record in installation.records(installation.topics.drift)]


def test_a_shift_of_tastes_raises_one_alarm_for_each_signal(watched: Installation) -> None:
    for number in range(ITEMS):
        watched.item(f"thing-{number}", f"Thing {number}")
    watched.flush()
    act(watched, 0, BEFORE, range(LIKED))
    until(lambda: watched.scenarios()["shop"]["examples"] == BEFORE, "what came before is learnt")
    assert [each for each in reports(watched) if each.status == "alarm"] == []
    act(watched, BEFORE, AFTER, range(LIKED, ITEMS))
    wanted = {("recall@10", "page"), ("popularity_shift", "note")}
    until(
        lambda: wanted <= {(each.signal, each.severity) for each in reports(watched) if each.status == "alarm"},
        f"alarms: {wanted}",
    )
    found = [each for each in reports(watched) if each.status == "alarm"]
    assert {each.scenario for each in found} == {"shop"}
    assert len({each.signal for each in found}) == len(found)  # one for each shift
    fallen = next(each for each in found if each.signal == "recall@10")
    assert fallen.value is not None and fallen.reference is not None and fallen.threshold is not None
    assert fallen.reference - fallen.value >= fallen.threshold
    assert fallen.report_id.endswith(":shop:recall@10:1")

    engine = open_engine(database_url(watched.settings))
    history, now = History(engine), time.time()
    try:
        kept = until(lambda: history.reports(scenario="shop"), "reports are kept")
        assert {each.report_id for each in found} <= {each.report_id for each in kept}
        series = history.series("shop", ["recall@10", "log_loss", "new_users", "step_milliseconds"], now - 600, now)
        assert all(series.points.values())
        assert sum(point.observations for point in series.points["recall@10"]) > BEFORE / 2
        cells = until(lambda: history.probe_recalls("shop"), "the matrix is kept")
        assert {cell.window for cell in cells} == {0}
    finally:
        engine.dispose()
    assert "Traceback" not in watched.log("learn")
