"""The evaluation report in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from learner.outcomes import COLD_USES, DEPTH, Report
from streams.evaluation_sheets import Column, Sheet, facts, plain, sheets_of

NAME_CELLS = 18
"""Widest column of names in a terminal; longer names take several lines."""

HEADING_CELLS = 12
"""Widest heading in a terminal; longer ones, such as names of scenarios, take several lines."""

ABBREVIATIONS = (
    f"Best of a column bold. headstream x 1.04: its recall is 1.04 times that of the model in the row. "
    f"cold: items used fewer than {COLD_USES} times before. coverage: share of the items that stood in some list. "
    f"1st, 2nd, 3rd third: recall@{DEPTH} in each third of the stream. ex./s: examples tested and learnt per second."
)


def print_report(report: Report, console: Console) -> None:
    """Print the tables; one that is wider than the console goes on in another below it, so that no number wraps."""
    console.print(Text(f"{plain(report.source)}: {facts(report)}"))
    for sheet in sheets_of(report):
        console.print()
        console.print(Text(sheet.title, style="bold"))
        for table in _tables(sheet, console.width):
            console.print(table)
        if sheet.note:
            console.print(Text(sheet.note, style="dim"))
    console.print()
    console.print(Text(ABBREVIATIONS, style="dim"))


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
