"""The account of a warm start in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from streams.warm import WarmReport


def print_warm_report(report: WarmReport, console: Console) -> None:
    console.print(_scenarios(report))
    for sentence in _sentences(report):
        console.print(Text(sentence), soft_wrap=True)


def _scenarios(report: WarmReport) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("scenario")
    for heading in ("events", "tested", "recall@10"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, each in report.scenarios.items():
        recall = "-" if each.recall is None else f"{each.recall:.3f}"
        table.add_row(Text(name), f"{each.events:,}", f"{each.tested:,}", recall)
    return table


def _sentences(report: WarmReport) -> list[str]:
    kept = (
        "there was no validation"
        if report.best_epoch is None
        else f"kept epoch {report.best_epoch} of {report.epochs[-1].epoch}"
        + ("" if report.recall is None else f", recall@10 {report.recall:.4f} on events that it had not learnt from")
    )
    sentences = [
        f"{report.source}: {report.learnt:,} events and {report.items:,} items in {report.seconds:.0f} s; {kept}"
    ]
    if report.stopped:
        sentences.append(
            f"stopped: the best so far is kept; {report.events - report.learnt:,} of the newest events are not learnt"
        )
    if report.refused:
        reasons = ", ".join(f"{count:,} {code}" for code, count in report.refused.items())
        sentences.append(f"rows that were refused: {reasons}")
    sentences.append(f"LEARN will begin from {report.checkpoint}, once the items topic has brought the items")
    return sentences
