"""The doctor's findings as a person reads them: a line each, and below what is not well, what helps."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from streams.doctor import Finding

MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "failed": "[red]failed[/]"}


def print_findings(findings: Sequence[Finding], out: Console) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for each in findings:
        table.add_row(MARKS[each.status], each.name, each.detail)
        if each.status != "ok" and each.remedy:
            table.add_row("", "", f"[dim]{each.remedy}[/]")
    out.print(table)
