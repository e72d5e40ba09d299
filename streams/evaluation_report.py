"""The evaluation report: what an evaluation found, as tables in a terminal, as pictures, and as one page."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from io import BytesIO
from math import ceil, isnan, nan
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, TypedDict
from xml.etree import ElementTree

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from learner.outcomes import COLD_USES, DEPTH, RESAMPLES, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS = "headstream"
"""The model that the others are compared with."""

NAME_CELLS = 18
"""Widest column of names in a terminal; longer names take several lines."""

HEADING_CELLS = 12
"""Widest heading in a terminal; longer ones, such as names of scenarios, take several lines."""

LABEL_LENGTH = 24
"""Characters of a name that fit beside a picture."""

LEAST_WIDTH = 7.2
"""Inches: the titles fit into so many."""

DOTS_PER_INCH = 150
PAGE_DOTS_PER_INCH = 96

# Okabe and Ito 2008: colour-blind readers can tell them apart, and on white as on black; their yellow and black aren't.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
Dashes = tuple[int, tuple[float, ...]]
# Nothing in the first is a whole line.
DASHES: tuple[Dashes, ...] = ((0, ()), (0, (4, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
# Of all that is drawn and isn't data; the page takes the colour of its text instead.
INK = "#1f2429"

ABBREVIATIONS = (
    f"Best of a column bold. headstream x 1.04: its recall is 1.04 times that of the model in the row. "
    f"cold: items used fewer than {COLD_USES} times before. coverage: share of the items that stood in some list. "
    f"1st, 2nd, 3rd third: recall@{DEPTH} in each third of the stream. ex./s: examples tested and learnt per second."
)
FORGETTING_NOTE = (
    "The scenarios came one block after the other. mean forgetting: recall right after a scenario's own block minus "
    "its recall at the end, mean over all but the last; less is better. final average: recall at the end, mean of all."
)
GUIDE = (
    ("Prequential", "Every event is first a test, then a lesson: each model makes its list before it sees what the "
     "person did, and only then learns from it. So no model is tested on what it has already seen."),
    (f"recall@{DEPTH}", f"The share of events whose item was among the {DEPTH} that the model would have shown. 0.250 "
     "means: in one case of four."),
    ("95 % interval", f"How much of a recall is luck in who came by. The users were drawn anew {RESAMPLES:,} times, "
     "each with all of its events; in 95 of 100 draws the recall lay within the interval. Where the intervals of two "
     "models lie apart, the difference is hardly chance."),
    (f"NDCG@{DEPTH} and MRR@{DEPTH}", "As recall, but an item counts for more the higher it stood in the list: in full "
     "when it stood first; MRR falls faster further down."),
    ("top-1", "The share of events whose item stood first."),
    (f"cold recall@{DEPTH}", f"Recall on new items alone: those that were used fewer than {COLD_USES} times before."),
    ("coverage", "The share of all items that may be recommended that stood in some list. A low one says that everyone "
     "is shown the same few."),
    ("Thirds", "Recall in the first, second and last third of the stream: whether a model gets better as it learns."),
    ("Examples per second", "Tested and learnt, of the model's own time."),
    ("headstream", "x 1.04 means: the recall of headstream is 1.04 times that of the model in the row."),
)  # fmt: skip


def print_report(report: Report, console: Console) -> None:
    """Print the tables; one that is wider than the console goes on in another below it, so that no number wraps."""
    console.print(Text(f"{_plain(report.source)}: {_facts(report)}"))
    for sheet in _sheets(report):
        console.print()
        console.print(Text(sheet.title, style="bold"))
        for table in _tables(sheet, console.width):
            console.print(table)
        if sheet.note:
            console.print(Text(sheet.note, style="dim"))
    console.print()
    console.print(Text(ABBREVIATIONS, style="dim"))


def write_pictures(report: Report, folder: Path) -> list[Path]:
    """Write each picture that the report has figures for as a PNG into the folder.

    Returns:
        The files: quality over time, the models' recall, and the forgetting if the report has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with _drawing():
        for picture in _pictures(report):
            figure = picture.draw()
            figure.suptitle(f"{picture.title}\n{_short(report.source, 40)}", color=INK)
            path = folder / f"{picture.name}.png"
            figure.savefig(path, dpi=DOTS_PER_INCH, facecolor="white")
            paths.append(path)
    return paths


def write_page(report: Report, path: Path) -> None:
    """Write the report as one HTML file that loads nothing from elsewhere."""
    with _drawing():
        pictures = {each.name: _figure(each) for each in _pictures(report)}
    sections = [_section(sheet, pictures.get(sheet.picture, "")) for sheet in _sheets(report)]
    guide = "\n".join(f"<div><dt>{escape(term)}</dt><dd>{escape(meaning)}</dd></div>" for term, meaning in GUIDE)
    title = escape(f"Evaluation on {_plain(report.source)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{escape(_facts(report))}</p>
<details open>
<summary>How to read this</summary>
<dl>
{guide}
</dl>
</details>
{"".join(sections)}</main>
</body>
</html>
""",
        encoding="utf-8",
    )


STYLE = """
:root { --ink: #1f2429; --quiet: #5b6670; --line: #d7dce1; --paper: #ffffff; --ours: #fdf1e8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaee; --quiet: #9aa5b0; --line: #39424b; --paper: #14181c; --ours: #33261c; }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 0.5rem; }
p, dd, figcaption { max-width: 46rem; overflow-wrap: anywhere; }
.note, figcaption { color: var(--quiet); font-size: 0.875rem; }
summary { font-weight: 600; cursor: pointer; }
dl { margin: 0.5rem 0; columns: 2 24rem; column-gap: 2rem; }
dl div { break-inside: avoid; padding-bottom: 0.5rem; }
dt { font-weight: 600; }
dd { margin: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: max-content; font-size: 0.8125rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.45rem; border-bottom: 1px solid var(--line); text-align: right; }
td { white-space: nowrap; }
thead th { vertical-align: bottom; }
thead span { display: inline-block; width: min-content; min-width: 3rem; max-width: 9rem; overflow-wrap: break-word; }
tr > :first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
tbody th { font-weight: 400; max-width: 10rem; overflow-wrap: anywhere; }
.ours > *, .ours > :first-child { background: var(--ours); }
figure { margin: 1.5rem 0 0; }
svg { display: block; height: auto; width: 100%; }
"""


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


class Stroke(TypedDict):
    """How matplotlib is to draw a line."""

    color: str
    linestyle: Dashes
    linewidth: float
    zorder: float


@dataclass(frozen=True)
class Picture:
    """A picture that can be drawn.

    Attributes:
        name: of its file, without the ending.
    """

    name: str
    title: str
    draw: Callable[[], Figure]


def _facts(report: Report) -> str:
    seeds = ", ".join(map(str, report.seeds))
    averaged = f"mean over seeds {seeds}" if len(report.seeds) > 1 else f"seed {seeds}"
    counts = f"{report.events:,} events, {report.tested:,} of them tested"
    return f"{counts}; {averaged}; {report.memory_megabytes:,.0f} MB of memory at the peak"


def _sheets(report: Report) -> Iterator[Sheet]:
    models = _by_recall(report)
    names = [_plain(model) for model in models]
    yield Sheet("All tested events", "recall", names, _overall(report, models))
    scenarios = _scenarios(report)
    recalls = [[report.models[model].scenarios.get(scenario) for model in models] for scenario in scenarios]
    yield Sheet(
        f"recall@{DEPTH} by scenario",
        "quality",
        names,
        [_measure(_plain(scenario), _plain(scenario), each) for scenario, each in zip(scenarios, recalls, strict=True)],
    )
    if report.forgetting:
        models = _forgetful(report)
        matrices = [report.forgetting[model] for model in models]
        columns = [
            _measure("mean forgetting", "mean\nforgetting", list(map(mean_forgetting, matrices)), best=min),
            _measure("final average", "final\naverage", [fmean(matrix[-1]) for matrix in matrices]),
        ]
        yield Sheet("Forgetting", "forgetting", [_plain(model) for model in models], columns, FORGETTING_NOTE)


def _overall(report: Report, models: list[str]) -> list[Column]:
    found = [report.models[model] for model in models]
    intervals = [f"{_number(low)}–{_number(high)}" for low, high in (each.interval for each in found)]
    columns = [
        _measure(f"recall@{DEPTH}", f"recall\n@{DEPTH}", [each.recall for each in found]),
        Column("95\N{NO-BREAK SPACE}% interval", "95 %\ninterval", intervals),
    ]
    if OURS in models and len(models) > 1:
        ours = report.models[OURS].recall
        ratios = ["" if model == OURS else _ratio(ours, report.models[model].recall) for model in models]
        columns.append(Column(OURS, "head-\nstream", ratios))
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


def mean_forgetting(matrix: list[list[float]]) -> float | None:
    """Recall right after a scenario's block minus recall at the end, mean over all scenarios but the last.

    Lopez-Paz and Ranzato 2017, Gradient episodic memory, https://arxiv.org/abs/1706.08840 (there as backward transfer,
    with the other sign).

    Args:
        matrix: recall after each block (rows) on each scenario (columns), both in the same order.

    Returns:
        None if there are no two blocks.
    """
    if len(matrix) < 2:
        return None
    return fmean(matrix[number][number] - matrix[-1][number] for number in range(len(matrix) - 1))


def _number(value: float) -> str:
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
    show: Callable[[float], str] = _number,
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


def _by_recall(report: Report) -> list[str]:
    return sorted(report.models, key=lambda model: -report.models[model].recall)


def _forgetful(report: Report) -> list[str]:
    """The models whose forgetting was measured, in order of recall."""
    known = [model for model in _by_recall(report) if model in report.forgetting]
    return known + [model for model in report.forgetting if model not in report.models]


def _scenarios(report: Report) -> list[str]:
    return list(dict.fromkeys(scenario for each in report.models.values() for scenario in each.scenarios))


def _plain(name: str) -> str:
    """The name without characters that move a terminal's cursor, turn the text around or can't stand in a page."""
    return "".join(
        each if each.isprintable() else " " if each.isspace() else "\N{REPLACEMENT CHARACTER}" for each in name
    )


def _short(name: str, length: int = LABEL_LENGTH) -> str:
    name = _plain(name)
    return name if len(name) <= length else f"{name[: length - 1]}…"


# In a terminal.


def _tables(sheet: Sheet, room: int) -> Iterator[Table]:
    """The sheet in as few tables as there must be for each to fit into so many cells, the models in each."""
    names = min(NAME_CELLS, max((cell_len(model) for model in sheet.models), default=1))
    columns = sheet.columns
    roomy = names + sum(_cells(column) + 2 for column in columns) <= room
    gap = 2 if roomy else 1
    while columns:
        count = _fitting(columns, room - names, gap)
        yield _table(sheet.models, names, columns[:count], gap)
        columns = columns[count:]


def _fitting(columns: Sequence[Column], room: int, gap: int) -> int:
    """How many of the first columns fit into so many cells; at least one."""
    for count, column in enumerate(columns):
        room -= gap + _cells(column)
        if room < 0:
            return max(1, count)
    return len(columns)


def _cells(column: Column) -> int:
    """The column's width: no number wraps, a heading may."""
    heading = max(min(cell_len(line), HEADING_CELLS) for line in column.short.splitlines() or [""])
    return max([heading, *map(cell_len, column.cells)])


def _table(models: list[str], names: int, columns: Sequence[Column], gap: int) -> Table:
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("model", vertical="bottom", width=max(names, len("model")), overflow="fold")
    for column in columns:
        table.add_column(
            Text(column.short, justify="right", overflow="fold"), justify="right", width=_cells(column), overflow="fold"
        )
    for row, model in enumerate(models):
        cells = [Text(column.cells[row], style="bold" if row in column.best else "") for column in columns]
        table.add_row(Text(model), *cells)
    return table


# On the page.


def _section(sheet: Sheet, figure: str) -> str:
    head = "".join(f'<th scope="col"><span>{escape(column.heading)}</span></th>' for column in sheet.columns)
    rows = "\n".join(_row(sheet, row) for row in range(len(sheet.models)))
    return f"""<section>
<h2>{escape(sheet.title)}</h2>
{f'<p class="note">{escape(sheet.note)}</p>' if sheet.note else ""}
<div class="wide" tabindex="0" role="region" aria-label="{escape(sheet.title)}">
<table>
<thead><tr><th scope="col">model</th>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>
{figure}
</section>
"""


def _row(sheet: Sheet, row: int) -> str:
    cells = [
        f"<td><strong>{escape(column.cells[row])}</strong></td>"
        if row in column.best
        else f"<td>{escape(column.cells[row])}</td>"
        for column in sheet.columns
    ]
    mark = ' class="ours"' if sheet.models[row] == OURS else ""
    return f'<tr{mark}><th scope="row">{escape(sheet.models[row])}</th>{"".join(cells)}</tr>'


def _figure(picture: Picture) -> str:
    figure = picture.draw()
    return f"""<figure>
<div class="wide" tabindex="0" role="region" aria-label="{escape(picture.title)}">
{_svg(figure, picture.name)}
</div>
<figcaption>{escape(picture.title)}</figcaption>
</figure>"""


def _svg(figure: Figure, name: str) -> str:
    """The figure as an element of the page, its text as text, its ink the colour of the page's text."""
    stream = BytesIO()
    figure.savefig(stream, format="svg", transparent=True)
    root = ElementTree.fromstring(stream.getvalue())
    for child in [each for each in root if each.tag.endswith("}metadata")]:
        root.remove(child)
    for element in root.iter():
        # In HTML the names of SVG stand for themselves, and two figures may not share an id.
        element.tag = _local(element.tag)
        element.attrib = {_local(key): _own(_local(key), value, name) for key, value in element.attrib.items()}
    width = figure.get_figwidth() * PAGE_DOTS_PER_INCH
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        # Narrower, its letters would be too small to read: rather let it be moved sideways.
        "style": f"min-width: {0.67 * width:.0f}px; max-width: {1.1 * width:.0f}px",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _local(qualified: str) -> str:
    return qualified.rpartition("}")[2]


def _own(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return value.replace("#", f"#{name}-", 1)
    return value.replace("url(#", f"url(#{name}-").replace(INK, "currentColor")


# In pictures.


@contextmanager
def _drawing() -> Iterator[None]:
    """Settings while pictures are made, and written."""
    # Imported where pictures are made and nowhere above: it takes half a second, at every start of every process.
    import matplotlib

    settings = matplotlib.rc_context(
        {
            "text.parse_math": False,  # A name may have two dollar signs.
            "svg.fonttype": "none",
            "svg.hashsalt": OURS,
            "font.size": 9,
            "axes.titlesize": 9,
            "figure.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    )
    with settings, warnings.catch_warnings():
        # A name in a script that the font hasn't: boxes in a PNG, and as it should be on the page.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def _pictures(report: Report) -> Iterator[Picture]:
    if not report.models:
        return
    stretches = max((len(curve) for each in report.models.values() for curve in each.curve.values()), default=0)
    if stretches:
        title = f"recall@{DEPTH} over the stream, by scenario (smoothed over three of {stretches} stretches)"
        yield Picture("quality", title, lambda: _draw_quality(report))
    yield Picture("recall", f"recall@{DEPTH} on all tested events, with 95 % intervals", lambda: _draw_recall(report))
    if report.forgetting:
        title = f"recall@{DEPTH} on each scenario after each block, its own framed (brighter is better)"
        yield Picture("forgetting", title, lambda: _draw_forgetting(report))


def _draw_quality(report: Report) -> Figure:
    from matplotlib.lines import Line2D

    models, scenarios = _by_recall(report), _scenarios(report)
    strokes = _strokes(report)
    across = _across(len(scenarios))
    down = ceil(len(scenarios) / across)
    legend_columns = max(4, 2 * across)
    figure = _new_figure(3.4 * across, 2.1 * down + 0.2 * ceil(len(models) / legend_columns) + 0.8)
    for number, (axes, scenario) in enumerate(zip(_panels(figure, len(scenarios)), scenarios, strict=True)):
        for model in models:
            _draw_curve(axes, report.models[model].curve.get(scenario, []), strokes[model])
        axes.set_title(_short(scenario, 40), loc="left")
        axes.set_xlim(0, 100)
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=INK, alpha=0.12)
        if number % across == 0:
            axes.set_ylabel(f"recall@{DEPTH}")
        if number + across >= len(scenarios):
            axes.set_xlabel("tested events so far, %")
    handles = [Line2D([], [], **strokes[model]) for model in models]
    labels = list(map(_short, models))
    figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns, frameon=False, handlelength=3)
    return figure


def _draw_curve(axes: Axes, curve: list[float | None], stroke: Stroke) -> None:
    heights = _smooth(curve)
    middles = [100 * (number + 0.5) / len(curve) for number in range(len(curve))]
    # A point without neighbours has no line to be seen by.
    axes.plot(middles, heights, **stroke, marker="o", markersize=3, markevery=_alone(heights))


def _draw_recall(report: Report) -> Figure:
    models = _by_recall(report)
    strokes = _strokes(report)
    figure = _new_figure(LEAST_WIDTH, 0.3 * len(models) + 1.3)
    axes = figure.subplots()
    rows = range(len(models))
    recalls = [report.models[model].recall for model in models]
    axes.barh(rows, recalls, height=0.62, color=[strokes[model]["color"] for model in models])
    lows, highs = zip(*(report.models[model].interval for model in models), strict=True)
    axes.hlines(rows, lows, highs, color=INK, linewidth=1.2)
    axes.plot([*lows, *highs], [*rows, *rows], linestyle="none", marker="|", markersize=6, color=INK)
    for row, (recall, high) in enumerate(zip(recalls, highs, strict=True)):
        axes.annotate(
            _number(recall), (max(recall, high), row), xytext=(6, 0), textcoords="offset points", va="center", color=INK
        )
    axes.set_yticks(rows, list(map(_short, models)))
    axes.set_ylim(len(models) - 0.4, -0.6)
    # Room for the number at the end of the longest bar.
    axes.set_xlim(0, 1.12 * max([*recalls, *highs]) or 1)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"recall@{DEPTH}")
    axes.set_ylabel("model")
    return figure


def _draw_forgetting(report: Report) -> Figure:
    models = _forgetful(report)
    blocks = [_short(block, 16) for block in report.blocks]
    across = _across(len(models))
    down = ceil(len(models) / across)
    # A number of three places and its margins in each cell.
    width, height = max(2.0, 0.46 * len(blocks)), max(1.0, 0.28 * len(blocks))
    figure = _new_figure(across * width + 1.8, down * (height + 0.35) + 1.5)
    highest = (
        max((recall for model in models for row in report.forgetting[model] for recall in row), default=0.0) or 1.0
    )
    for number, (axes, model) in enumerate(zip(_panels(figure, len(models)), models, strict=True)):
        _draw_matrix(axes, report.forgetting[model], highest)
        axes.set_title(_short(model), loc="left")
        axes.set_xticks(
            [place + 0.5 for place in range(len(blocks))], blocks, rotation=40, ha="right", rotation_mode="anchor"
        )
        axes.set_yticks([place + 0.5 for place in range(len(blocks))], blocks)
        axes.tick_params(length=0, labelleft=number % across == 0, labelbottom=number // across == down - 1)
    figure.supxlabel(f"recall@{DEPTH} on the scenario", fontsize=9)
    figure.supylabel("after the block of", fontsize=9)
    return figure


def _draw_matrix(axes: Axes, matrix: list[list[float]], highest: float) -> None:
    from matplotlib.patches import Rectangle

    # Rectangles and not an image, so that the page has them sharp at every size.
    axes.pcolormesh(matrix, cmap="cividis", vmin=0, vmax=highest)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    for row, recalls in enumerate(matrix):
        for column, recall in enumerate(recalls):
            shade = "white" if recall < 0.5 * highest else "black"
            axes.text(column + 0.5, row + 0.5, _number(recall), ha="center", va="center", fontsize=7.5, color=shade)
            if row == column:
                axes.add_patch(Rectangle((column + 0.06, row + 0.08), 0.88, 0.84, fill=False, edgecolor=shade))


def _new_figure(width: float, height: float) -> Figure:
    """Of so many inches, or the width of its title; pyplot would keep every figure until it is told not to."""
    from matplotlib.figure import Figure

    return Figure(figsize=(max(width, LEAST_WIDTH), height), layout="constrained")


def _across(panels: int) -> int:
    """Columns of so many panels."""
    return 2 if panels in (2, 4) else min(3, max(1, panels))


def _panels(figure: Figure, count: int) -> list[Axes]:
    across = _across(count)
    return [figure.add_subplot(ceil(count / across), across, number + 1) for number in range(count)]


def _strokes(report: Report) -> dict[str, Stroke]:
    """How each model's line is drawn, the same in all pictures; ours first and thick, and no two alike up to 24."""
    models = sorted(report.models, key=lambda model: model != OURS)
    return {
        model: {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
            "linewidth": 2.4 if model == OURS else 1.2,
            "zorder": 3 if model == OURS else 2,
        }
        for number, model in enumerate(models)
    }


def _smooth(curve: list[float | None]) -> list[float]:
    """The mean of each stretch and its neighbours; not a number where the stretch itself has no events."""
    return [
        nan if recall is None else fmean(each for each in curve[max(0, number - 1) : number + 2] if each is not None)
        for number, recall in enumerate(curve)
    ]


def _alone(heights: list[float]) -> list[bool]:
    missing = [True, *map(isnan, heights), True]
    return [
        before and not here and after for before, here, after in zip(missing, missing[1:], missing[2:], strict=False)
    ]
