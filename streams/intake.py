"""The intake: rows of a history as the items and events that serving would make of them, or why it would not."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from schemas.decoding import Invalid
from schemas.events import Event, decode_event
from schemas.items import Item, decode_item
from schemas.settings import Settings
from streams.route import Route, Survey
from streams.sources import Row


class TakenItem(NamedTuple):
    """An item as LEARN will see it, and the value of its record."""

    item: Item
    value: bytes


class TakenEvent(NamedTuple):
    """An event as SERVE will see it, the value of its record, and the time (epoch seconds) that it was checked at."""

    scenario: str
    event: Event
    value: bytes
    received: float


class Intake:
    """Takes rows in along a route.

    Attributes:
        counts: of what was odd but taken, as `decode_event` counts it.
    """

    def __init__(self, settings: Settings, route: Route, survey: Survey) -> None:
        self._route = route
        self._survey = survey
        self._weights = {name: each.events for name, each in settings.scenarios.items()}
        self.counts: Counter[str] = Counter()

    def item(self, row: Row) -> TakenItem | Invalid:
        if isinstance(row.record, Invalid):
            return row.record
        where = self._scenarios_of(row, row.record)
        value = encode(row.record if where is None else {**row.record, "scenarios": where})
        if isinstance(value, Invalid):
            return value
        item = decode_item(value, time.time(), Counter())
        return item if isinstance(item, Invalid) else TakenItem(item, value)

    def event(self, row: Row) -> TakenEvent | Invalid:
        if isinstance(row.record, Invalid):
            return row.record
        scenario = self._route.of(row)
        if isinstance(scenario, Invalid):
            return scenario
        value = encode(row.record)
        if isinstance(value, Invalid):
            return value
        received = time.time()
        event = decode_event(value, received, scenario, self._weights[scenario], self.counts)
        return event if isinstance(event, Invalid) else TakenEvent(scenario, event, value, received)

    def _scenarios_of(self, row: Row, record: Mapping[str, Any]) -> list[str] | None:
        """Where an item belongs: in the one scenario of all, or where it or its source says, or where it was used."""
        if self._route.scenario is not None:
            return [self._route.scenario]
        if row.scenario is not None:
            return [row.scenario]
        if "scenarios" in record:
            return None
        places = self._survey.places.get(str(record.get("item_id")), frozenset())
        return sorted(places & self._route.configured) or None


_encode = msgspec.json.Encoder().encode


def encode(record: Mapping[str, Any]) -> bytes | Invalid:
    """A record's value, or why there can be none."""
    try:
        return _encode(record)
    except UnicodeEncodeError:
        return Invalid("not-utf8", "the row holds bytes that are not UTF-8")
    except OverflowError:
        # Integers of more than 64 bits are ids; as text they are the same ids.
        return encode({name: str(value) if isinstance(value, int) else value for name, value in record.items()})
    except (TypeError, RecursionError) as error:
        return Invalid("not-json", f"the row cannot be written as JSON: {error}")
