"""The sheets of an evaluation report: what an evaluation found, as tables that have no form yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from learner.outcomes import DEPTH, Report

OURS = "headstream"
"""The model that the others are compared with."""

RATIOS_NOTE = (
    "times: the recall of headstream over that of the model in the row. The interval is of the ratio itself: in each "
    "draw of users both were tested on the same ones. Where all of it lies above 1, headstream is better, and hardly "
    "by chance."
)

CLICKS_NOTE = (
    "Refused is what was disliked, at once or after a try, or passed over in a list from which another item was taken. "
    f"What stands among the first {DEPTH} of a model's list, or first of all, it says will be taken; all else it says "
    "will not. accuracy: of taken and refused items, the share of which it is right. precision: of what it says will "
    "be taken, the share that was, and not disliked later. recall: of what was so taken, the share that it says will "
    "be. F1: harmonic mean of precision and recall."
)

LABEL_LENGTH = 24
"""Characters of a name that fit beside a picture."""

FORGETTING_NOTE = (
    "After the warm-up the scenarios came in one block each, the smallest first. After each block all were tested on "
    "events that no model ever learns. forgetting: of each scenario but the last, the best recall after an earlier "
    "block minus that at the end, mean; less is better. backward transfer: of the same, recall at the end minus that "
    "after its own block; more is better. final average: recall at the end, mean of all scenarios."
)


@dataclass(frozen=True)
class Column:
    """Figures of all models.

    Attributes:
        heading: in full.
        short: for a terminal; a newline may be in it.
        cells: one for each model.
        best: the rows to point out.
    """

    heading: str
    short: str
    cells: list[str]
    best: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Sheet:
    """A table, as yet without a form: a row for each model.

    Attributes:
        picture: name of the one that shows the same.
        note: what a reader has to know to read it.
    """

    title: str
    picture: str
    models: list[str]
    columns: list[Column]
    note: str = ""


def facts(report: Report) -> str:
    seeds = ", ".join(map(str, report.seeds))
    averaged = f"mean over seeds {seeds}" if len(report.seeds) > 1 else f"seed {seeds}"
    counts = f"{report.events:,} events, {report.tested:,} of them tested"
    if report.refused:
        counts += f", {report.refused:,} items refused"
    if report.held_out:
        counts += f", and {report.held_out:,} held out"
    return f"{counts}; {averaged}; {report.memory_megabytes:,.0f} MB of memory at the peak"


def sheets_of(report: Report) -> Iterator[Sheet]:
    models = by_recall(report)
    names = [plain(model) for model in models]
    yield Sheet("All tested events", "recall", names, _overall(report, models))
    if report.ratios:
        yield _ratios(report, [model for model in models if model in report.ratios])
    yield _second_half(report, models)
    if report.refused:
        yield _clicks(report, models)
    scenarios = scenarios_of(report)
    recalls = [[report.models[model].scenarios.get(scenario) for model in models] for scenario in scenarios]
    yield Sheet(
        f"recall@{DEPTH} by scenario",
        "quality",
        names,
        [_measure(plain(scenario), plain(scenario), each) for scenario, each in zip(scenarios, recalls, strict=True)],
    )
    if report.forgetting:
        models = forgetful(report)
        kept = [report.forgetting[model] for model in models]
        columns = [
            _measure("forgetting", "forget-\nting", [each.forgetting for each in kept], best=min),
            _measure("backward transfer", "backward\ntransfer", [each.backward_transfer for each in kept]),
            _measure("final average", "final\naverage", [each.final_average for each in kept]),
        ]
        yield Sheet("Forgetting", "forgetting", [plain(model) for model in models], columns, FORGETTING_NOTE)


def _overall(report: Report, models: list[str]) -> list[Column]:
    found = [report.models[model] for model in models]
    intervals = [f"{three_places(low)}–{three_places(high)}" for low, high in (each.interval for each in found)]
    columns = [
        _measure(f"recall@{DEPTH}", f"recall\n@{DEPTH}", [each.recall for each in found]),
        Column("95\N{NO-BREAK SPACE}% interval", "95 %\ninterval", intervals),
    ]
    if OURS in models and len(models) > 1:
        columns.append(_beside_ours(report.models[OURS].recall, models, [each.recall for each in found]))
    thirds = [[each.thirds[part] for each in found] for part in range(3)]
    columns += [
        _measure(f"NDCG@{DEPTH}", f"NDCG\n@{DEPTH}", [each.ndcg for each in found]),
        _measure(f"MRR@{DEPTH}", f"MRR\n@{DEPTH}", [each.mrr for each in found]),
        _measure("top-1", "top-1", [each.top for each in found]),
        _measure(f"cold recall@{DEPTH}", f"cold\n@{DEPTH}", [each.cold_recall for each in found]),
        _measure("coverage", "cover-\nage", [each.coverage for each in found]),
        _measure("first third", "1st\nthird", thirds[0]),
        _measure("second third", "2nd\nthird", thirds[1]),
        _measure("last third", "3rd\nthird", thirds[2]),
        _measure("examples/s", "ex./s", [each.examples_per_second for each in found], show=_speed),
    ]
    return columns


def _ratios(report: Report, models: list[str]) -> Sheet:
    found = [report.ratios[model] for model in models]
    columns = [
        Column("times", "times", [three_places(each.value) for each in found]),
        Column(
            "95\N{NO-BREAK SPACE}% interval",
            "95 %\ninterval",
            [f"{three_places(low)}–{three_places(high)}" for low, high in (each.interval for each in found)],
        ),
    ]
    return Sheet(f"{OURS} beside each other model", "", [plain(model) for model in models], columns, RATIOS_NOTE)


def _second_half(report: Report, models: list[str]) -> Sheet:
    recalls = [report.models[model].second_half for model in models]
    columns = [_measure(f"recall@{DEPTH}", f"recall\n@{DEPTH}", recalls)]
    if OURS in models and len(models) > 1:
        ours = report.models[OURS].second_half
        columns.append(_beside_ours(ours, models, recalls))
    return Sheet("Second half of the tests", "", [plain(model) for model in models], columns)


def _beside_ours(ours: float, models: list[str], recalls: list[float]) -> Column:
    ratios = ["" if model == OURS else _ratio(ours, recall) for model, recall in zip(models, recalls, strict=True)]
    return Column(OURS, "head-\nstream", ratios)


def _clicks(report: Report, models: list[str]) -> Sheet:
    columns = []
    for by in report.models[models[0]].clicks:
        found = [report.models[model].clicks[by] for model in models]
        columns += [
            _measure(f"{by} accuracy", f"{by}\naccuracy", [each.accuracy for each in found]),
            _measure(f"{by} precision", f"{by}\nprecision", [each.precision for each in found]),
            _measure(f"{by} recall", f"{by}\nrecall", [each.recall for each in found]),
            _measure(f"{by} F1", f"{by}\nF1", [each.f1 for each in found]),
        ]
    return Sheet("Taken or refused", "", [plain(model) for model in models], columns, CLICKS_NOTE)


def three_places(value: float) -> str:
    # Minus nothing is nothing.
    return f"{round(value, 3) + 0.0:.3f}"


def _speed(value: float) -> str:
    return f"{value:,.0f}" if value < 100_000 else f"{value / 1000:,.0f}k"


def _ratio(ours: float, other: float) -> str:
    if not other:
        return "-"
    ratio = ours / other
    return f"x {ratio:.2f}" if ratio < 10 else f"x {ratio:,.0f}"


def _measure(
    heading: str,
    short: str,
    values: Sequence[float | None],
    show: Callable[[float], str] = three_places,
    best: Callable[[list[float]], float] = max,
) -> Column:
    """A column with its best pointed out, if there is more than one model to choose from."""
    known = [value for value in values if value is not None]
    winner = best(known) if len(known) > 1 else None
    return Column(
        heading,
        short,
        ["-" if value is None else show(value) for value in values],
        frozenset(row for row, value in enumerate(values) if winner is not None and value == winner),
    )


def by_recall(report: Report) -> list[str]:
    return sorted(report.models, key=lambda model: -report.models[model].recall)


def forgetful(report: Report) -> list[str]:
    """The models whose forgetting was measured, in order of recall."""
    known = [model for model in by_recall(report) if model in report.forgetting]
    return known + [model for model in report.forgetting if model not in report.models]


def scenarios_of(report: Report) -> list[str]:
    return list(dict.fromkeys(scenario for each in report.models.values() for scenario in each.scenarios))


def plain(name: str) -> str:
    """The name without characters that move a terminal's cursor, turn the text around or can't stand in a page."""
    return "".join(
        each if each.isprintable() else " " if each.isspace() else "\N{REPLACEMENT CHARACTER}" for each in name
    )


def short(name: str, length: int = LABEL_LENGTH) -> str:
    name = plain(name)
    return name if len(name) <= length else f"{name[: length - 1]}…"
