"""The route of a playback: what a first reading finds in a history, and the scenario that each row goes into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from schemas.decoding import Invalid
from schemas.errors import ExplainedError
from schemas.settings import Settings
from streams.sources import History, Row

NAMES_COUNTED = 10_000


class ScenarioUnclear(ExplainedError):
    """It cannot be told which scenarios the events are for."""

    def __init__(self, source: str, found: Mapping[str, int], configured: Iterable[str]) -> None:
        self.source, self.found, self.configured = source, dict(found), tuple(configured)
        names = _some(f'"{name}" ({count:,} rows)' for name, count in sorted(found.items(), key=lambda each: -each[1]))
        says = f"its events are of the scenarios {names}" if found else "its events name no scenario"
        add = ", or add its scenarios to headstream.toml, each as a section scenarios.NAME" if found else ""
        super().__init__(
            f"{source}: {says}; configured are {', '.join(self.configured)}. "
            f"Say --scenario NAME to put everything into one of these{add}. Nothing was published."
        )


class ScenarioNotConfigured(ExplainedError):
    """The scenario that everything should go into does not exist."""

    def __init__(self, scenario: str, configured: Iterable[str]) -> None:
        self.scenario, self.configured = scenario, tuple(configured)
        super().__init__(f'scenario "{scenario}" is not configured; allowed are {", ".join(self.configured)}')


class UnknownEvents(ExplainedError):
    """Rows speak of kinds of events that their scenario does not know; nothing was published."""

    def __init__(self, source: str, found: Mapping[tuple[str, str], int], settings: Settings) -> None:
        self.source, self.found = source, dict(found)
        most = sorted(found.items(), key=lambda each: -each[1])
        names = _some(f'"{name}" in scenario "{scenario}" ({count:,} rows)' for (scenario, name), count in most)
        scenario, name = most[0][0]
        super().__init__(
            f"{source}: events that no scenario's configuration lists: {names}. Give each a weight in headstream.toml, "
            f'such as "{name}" = 1.0 among the events of scenarios.{scenario}, or say --event NAME to take all rows '
            f"for one of {', '.join(settings.scenarios[scenario].events)}. Nothing was published."
        )


@dataclass
class Survey:
    """What a first reading finds.

    Attributes:
        names: rows by scenario and event, as the source has them.
        places: for each item the scenarios of its events.
    """

    rows: int = 0
    names: Counter[tuple[str | None, str]] = field(default_factory=Counter)
    places: dict[str, frozenset[str]] = field(default_factory=dict)

    def scenarios(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for (scenario, _), count in self.names.items():
            if scenario is not None:
                found[scenario] += count
        return found


def look_through(rows: Iterable[Row]) -> Survey:
    """Read once without publishing, so that what the configuration does not know is known before."""
    survey = Survey()
    shared: dict[frozenset[str], frozenset[str]] = {}  # many items have few combinations of scenarios
    for row in rows:
        survey.rows += 1
        record = row.record
        if isinstance(record, Invalid):
            continue
        name = record.get("event")
        if isinstance(name, str) and name:
            key = (row.scenario, name)
            if key in survey.names or len(survey.names) < NAMES_COUNTED:
                survey.names[key] += 1
        if row.scenario is not None:
            item_id = str(record.get("item_id"))
            known = survey.places.get(item_id, frozenset())
            if row.scenario not in known:
                places = known | {row.scenario}
                survey.places[item_id] = shared.setdefault(places, places)
    return survey


@dataclass(frozen=True)
class Route:
    """Where rows go: all into one scenario, or each into its own.

    Attributes:
        scenario: the one; None is each its own.
    """

    scenario: str | None
    configured: frozenset[str]
    notices: tuple[str, ...] = ()

    def of(self, row: Row) -> str | Invalid:
        if self.scenario is not None:
            return self.scenario
        if row.scenario in self.configured:
            return row.scenario
        known = ", ".join(sorted(self.configured))
        return Invalid("unknown-scenario", f'scenario "{row.scenario or ""}" is not one of {known}')


def choose_route(history: History, survey: Survey, settings: Settings, scenario: str | None) -> Route:
    """Decide where everything goes, or say why that cannot be decided.

    A scenario or an event that a single row names is a slip of that row, which is then refused alone; one that several
    rows name is meant, and publishing around it would lose it in silence.

    Raises:
        ScenarioNotConfigured, ScenarioUnclear, UnknownEvents
    """
    configured = frozenset(settings.scenarios)
    if scenario is not None and scenario not in configured:
        raise ScenarioNotConfigured(scenario, settings.scenarios)
    found = survey.scenarios()
    known = configured & found.keys()
    if scenario is not None:
        route = Route(scenario, configured)
    elif known and all(count == 1 for name, count in found.items() if name not in configured):
        route = Route(None, configured)
    elif history.home is not None:
        home = history.home if history.home in configured else next(iter(settings.scenarios))
        notice = f'its own scenarios ({", ".join(sorted(found))}) are not configured: everything goes into "{home}"'
        route = Route(home, configured, (notice,))
    elif not found and len(configured) == 1:
        (only,) = configured
        route = Route(only, configured, (f'everything goes into "{only}", the only scenario',))
    else:
        raise ScenarioUnclear(history.name, found, settings.scenarios)
    _check_events(history, survey, settings, route)
    return route


def _check_events(history: History, survey: Survey, settings: Settings, route: Route) -> None:
    unknown: Counter[tuple[str, str]] = Counter()
    any_known = False
    for (own, name), count in survey.names.items():
        target = route.scenario or own
        if target not in route.configured or target is None:
            continue
        if name in settings.scenarios[target].events:
            any_known = True
        else:
            unknown[target, name[:80]] += count
    meant = {key: count for key, count in unknown.items() if count > 1 or not any_known}
    if meant:
        raise UnknownEvents(history.name, meant, settings)


def _some(names: Iterable[str], most: int = 10) -> str:
    shown = list(names)
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
