"""The live index, seen from outside: items come, change and go under load while compactions run."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from schemas.recommendations import Recommendation
from tests.system.installation import Installation, until

ITEMS = 300
SUBJECTS = ("kettle", "lantern", "saddle", "violin", "anchor", "mirror")
EVERYTHING = 1000


@pytest.fixture
def busy(alone: Installation) -> Iterator[Installation]:
    """An installation whose shop has an IVF segment after its first items, and whose users never rest."""
    ivf = {"HEADSTREAM_INDEX_KIND": "ivf", "HEADSTREAM_INDEX_DELTA_ITEMS": "10"}
    alone.start("serve", **ivf)
    alone.start("learn")
    for number in range(ITEMS):
        subject = SUBJECTS[number % len(SUBJECTS)]
        alone.item(f"i{number}", f"{subject} number {number}", categories=[subject], scenarios=["shop"])
    alone.flush()
    until(lambda: len(everything(alone)) == ITEMS, "all items are known")
    stop = threading.Event()

    def act() -> None:
        turn = 0
        while not stop.wait(0.02):
            alone.event("shop", f"u{turn % 40}", f"i{turn * 7 % ITEMS}")
            turn += 1

    users = threading.Thread(target=act)
    users.start()
    yield alone
    stop.set()
    users.join()
    alone.flush()


def ids(found: Recommendation) -> list[str]:
    return [item.item_id for item in found.items]


def everything(shop: Installation, **more: object) -> list[str]:
    """All that somebody who is new can be recommended."""
    return ids(shop.answer("shop", "nobody", k=EVERYTHING, **more))


def test_items_come_change_and_go_under_load_while_compactions_run(busy: Installation) -> None:
    def compactions() -> int:
        index = busy.scenarios()["shop"]["index"]
        return index["compactions"] if index and index["kind"] == "ivf" else 0

    before = until(compactions, "the first lists are there")
    until(lambda: compactions() > before, "they are compacted while events come")

    busy.item("new", "a telescope for the garden", categories=["optics"], scenarios=["shop"])
    busy.flush()
    until(lambda: "new" in everything(busy), "the new item is recommended")
    assert everything(busy, categories=["optics"]) == ["new"]

    busy.item("new", "a saddle for a pony", categories=["saddle"], scenarios=["shop"])
    busy.flush()
    until(lambda: "new" in everything(busy, categories=["saddle"]), "it is found where it belongs now")
    assert everything(busy, categories=["optics"]) == []
    assert everything(busy).count("new") == 1

    before = compactions()
    busy.item("new", "a saddle for a pony", categories=["saddle"], scenarios=["shop"], hidden=True)
    busy.flush()
    until(lambda: "new" not in everything(busy), "the hidden item is gone")
    until(lambda: compactions() > before, "a compaction has run since")
    found = everything(busy)
    assert sorted(found) == sorted(f"i{number}" for number in range(ITEMS))

    busy.item("new", "a saddle for a pony", categories=["saddle"], scenarios=["shop"])
    busy.flush()
    until(lambda: "new" in everything(busy), "it is back")
    before = compactions()
    busy.send(busy.topics.items, None, "new")
    busy.flush()
    until(lambda: "new" not in everything(busy), "it is deleted")
    until(lambda: compactions() > before, "a compaction has run since")
    assert sorted(everything(busy)) == sorted(f"i{number}" for number in range(ITEMS))

    shop = busy.status()["scenarios"]["shop"]["index"]
    assert shop["why"] == 'index.kind is "ivf"'
    assert "Traceback" not in busy.log("serve") + busy.log("learn")
