"""The evaluation report as pictures, by matplotlib."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, isnan, nan
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, TypedDict

from learner.outcomes import DEPTH, Matrix, Report
from streams.evaluation_sheets import OURS, by_recall, forgetful, scenarios_of, short, three_places

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_WIDTH = 7.2
"""Inches: the titles fit into so many."""

DOTS_PER_INCH = 150

# Okabe and Ito 2008: colour-blind readers can tell them apart, and on white as on black; their yellow and black aren't.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
Dashes = tuple[int, tuple[float, ...]]
# Nothing in the first is a whole line.
DASHES: tuple[Dashes, ...] = ((0, ()), (0, (4, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
# Of all that is drawn and isn't data; the page takes the colour of its text instead.
INK = "#1f2429"


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


def write_pictures(report: Report, folder: Path) -> list[Path]:
    """Write each picture that the report has figures for as a PNG into the folder.

    Returns:
        The files: quality over time, the models' recall, and the forgetting if the report has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with drawing():
        for picture in pictures_of(report):
            figure = picture.draw()
            figure.suptitle(f"{picture.title}\n{short(report.source, 40)}", color=INK)
            path = folder / f"{picture.name}.png"
            figure.savefig(path, dpi=DOTS_PER_INCH, facecolor="white")
            paths.append(path)
    return paths


@contextmanager
def drawing() -> Iterator[None]:
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


def pictures_of(report: Report) -> Iterator[Picture]:
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

    models, scenarios = by_recall(report), scenarios_of(report)
    strokes = _strokes(report)
    across = _across(len(scenarios))
    down = ceil(len(scenarios) / across)
    legend_columns = max(4, 2 * across)
    figure = _new_figure(3.4 * across, 2.1 * down + 0.2 * ceil(len(models) / legend_columns) + 0.8)
    for number, (axes, scenario) in enumerate(zip(_panels(figure, len(scenarios)), scenarios, strict=True)):
        for model in models:
            _draw_curve(axes, report.models[model].curve.get(scenario, []), strokes[model])
        axes.set_title(short(scenario, 40), loc="left")
        axes.set_xlim(0, 100)
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=INK, alpha=0.12)
        if number % across == 0:
            axes.set_ylabel(f"recall@{DEPTH}")
        if number + across >= len(scenarios):
            axes.set_xlabel("tested events so far, %")
    handles = [Line2D([], [], **strokes[model]) for model in models]
    labels = list(map(short, models))
    figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns, frameon=False, handlelength=3)
    return figure


def _draw_curve(axes: Axes, curve: list[float | None], stroke: Stroke) -> None:
    heights = _smooth(curve)
    middles = [100 * (number + 0.5) / len(curve) for number in range(len(curve))]
    # A point without neighbours has no line to be seen by.
    axes.plot(middles, heights, **stroke, marker="o", markersize=3, markevery=_alone(heights))


def _draw_recall(report: Report) -> Figure:
    models = by_recall(report)
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
            three_places(recall),
            (max(recall, high), row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=INK,
        )
    axes.set_yticks(rows, list(map(short, models)))
    axes.set_ylim(len(models) - 0.4, -0.6)
    # Room for the number at the end of the longest bar.
    axes.set_xlim(0, 1.12 * max([*recalls, *highs]) or 1)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"recall@{DEPTH}")
    axes.set_ylabel("model")
    return figure


def _draw_forgetting(report: Report) -> Figure:
    models = forgetful(report)
    blocks = [short(block, 16) for block in report.blocks]
    across = _across(len(models))
    down = ceil(len(models) / across)
    # A number of three places and its margins in each cell.
    width, height = max(2.0, 0.46 * len(blocks)), max(1.0, 0.28 * len(blocks))
    figure = _new_figure(across * width + 1.8, down * (height + 0.35) + 1.5)
    cells = [cell for model in models for row in report.forgetting[model].matrix for cell in row]
    highest = max((recall for recall in cells if recall is not None), default=0.0) or 1.0
    for number, (axes, model) in enumerate(zip(_panels(figure, len(models)), models, strict=True)):
        _draw_matrix(axes, report.forgetting[model].matrix, highest)
        axes.set_title(short(model), loc="left")
        axes.set_xticks(
            [place + 0.5 for place in range(len(blocks))], blocks, rotation=40, ha="right", rotation_mode="anchor"
        )
        axes.set_yticks([place + 0.5 for place in range(len(blocks))], blocks)
        axes.tick_params(length=0, labelleft=number % across == 0, labelbottom=number // across == down - 1)
    figure.supxlabel(f"recall@{DEPTH} on the scenario", fontsize=9)
    figure.supylabel("after the block of", fontsize=9)
    return figure


def _draw_matrix(axes: Axes, matrix: Matrix, highest: float) -> None:
    from matplotlib.patches import Rectangle

    # Rectangles and not an image, so that the page has them sharp at every size.
    axes.pcolormesh(
        [[nan if recall is None else recall for recall in row] for row in matrix], cmap="cividis", vmin=0, vmax=highest
    )
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    for row, recalls in enumerate(matrix):
        for column, recall in enumerate(recalls):
            shade = INK if recall is None else "white" if recall < 0.5 * highest else "black"
            text = "-" if recall is None else three_places(recall)
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7.5, color=shade)
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
