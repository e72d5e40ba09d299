"""Evaluation reports for tests: of few and of many models, with and without forgetting, with hostile names."""

from __future__ import annotations

from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from statistics import fmean

from rich.console import Console

from learner.outcomes import WINDOWS, Figures, Forgetting, Matrix, Report
from streams.evaluation_page import write_page
from streams.evaluation_table import print_report

HOSTILE = [
    "<script>alert(1)</script>",
    '" onload="x',
    "$a^$ & $_{b}$",
    "_under",
    "[red]x[/]",
    "\x1b[31m\n\0\u202e",
    "映画",
    "",
]


def kept(matrix: Matrix) -> Forgetting:
    """What a matrix without holes comes to, by the definitions."""
    before, end, ended = matrix[:-1], matrix[-1], range(len(matrix) - 1)
    lost = [max(row[number] or 0 for row in before) - (end[number] or 0) for number in ended]
    won = [(end[number] or 0) - (matrix[number][number] or 0) for number in ended]
    return Forgetting(
        matrix=matrix,
        forgetting=fmean(lost) if lost else None,
        backward_transfer=fmean(won) if won else None,
        final_average=fmean(recall or 0 for recall in end),
    )


FORGETTING = {
    "headstream": kept([[0.5, 0.1, 0.0], [0.4, 0.6, 0.1], [0.3, 0.5, 0.7]]),
    "popularity": kept([[0.2, 0.2, 0.2], [0.1, 0.2, 0.2], [0.2, 0.2, 0.2]]),
}


def figures(
    recall: float,
    scenarios: dict[str, float | None],
    cold: float | None = 0.125,
    speed: float | None = 2500.0,
    curve: dict[str, list[float | None]] | None = None,
) -> Figures:
    """Figures that tell their recall: NDCG is a half of it, MRR a third, top-1 a quarter."""
    return Figures(
        recall=recall,
        interval=(recall - 0.01, recall + 0.02),
        second_half=recall + 0.05,
        ndcg=recall / 2,
        mrr=recall / 3,
        top=recall / 4,
        cold_recall=cold,
        coverage=1 - recall,
        scenarios=scenarios,
        thirds=[recall - 0.1, recall, recall + 0.1],
        curve=curve or {name: [each] * WINDOWS for name, each in scenarios.items()},
        examples_per_second=speed,
    )


def report(
    models: dict[str, Figures],
    source: str = "movielens",
    seeds: tuple[int, ...] = (0, 1, 2),
    blocks: tuple[str, ...] = (),
    forgetting: dict[str, Forgetting] | None = None,
    held_out: int = 0,
) -> Report:
    return Report(
        source=source, events=100_000, tested=81_234, seeds=list(seeds), models=models, memory_megabytes=1834.4,
        held_out=held_out, blocks=list(blocks), forgetting=forgetting or {},
    )  # fmt: skip


def three_models() -> dict[str, Figures]:
    """In another order than that of recall."""
    return {
        "popularity": figures(0.12, {"shop": 0.2, "news": None}, cold=None, speed=250_000.0),
        "headstream": figures(0.36, {"shop": 0.4, "news": None}),
        "sasrec": figures(0.3, {"shop": 0.45, "news": None}, cold=0.2, speed=None),
    }


def stressed(models: dict[str, Figures]) -> Report:
    return report(models, blocks=("shop", "news", "video"), forgetting=FORGETTING, held_out=4321)


def eleven_models() -> Report:
    """As large as an evaluation becomes."""
    scenarios = ["shop", "news", "video", "music-discovery", "travel & leisure"]
    names = ["headstream", "decayed-popularity", *(f"rival-{number}" for number in range(1, 10))]
    models = {
        name: figures(0.5 - number / 50, dict.fromkeys(scenarios, 0.4 - number / 50), speed=99_999.0)
        for number, name in enumerate(names)
    }
    matrix: Matrix = [[0.1 * (row + column) for column in range(5)] for row in range(5)]
    return report(models, blocks=tuple(scenarios), forgetting=dict.fromkeys(names, kept(matrix)))


def hostile_report() -> Report:
    models = {name: figures(0.2, dict.fromkeys(HOSTILE, 0.2)) for name in HOSTILE}
    forgetting = {HOSTILE[0]: kept([[0.1] * len(HOSTILE)] * len(HOSTILE))}
    return report(models, "<script>$x^$</script>\x1b[2J", blocks=tuple(HOSTILE), forgetting=forgetting)


def printed(found: Report, width: int = 100) -> str:
    console = Console(file=StringIO(), width=width)
    print_report(found, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


class Page(HTMLParser):
    """What a browser would find on a page: its tables by heading, its text, its tags and their attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.strong: list[str] = []
        self._open: list[str] = []
        self._title = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in {"meta", "br"}:
            self._open.append(tag)
        if tag == "h2":
            self._title = ""
        elif tag == "table":
            self.tables[self._title] = []
        elif tag == "tr":
            self.tables[self._title].append([])
        elif tag in {"td", "th"}:
            self.tables[self._title][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if "h2" in self._open:
            self._title += data
        elif "td" in self._open or "th" in self._open:
            self.tables[self._title][-1][-1] += data
        if "strong" in self._open:
            self.strong.append(data)

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


def page(found: Report, folder: Path) -> Page:
    write_page(found, folder / "page.html")
    return Page(folder / "page.html")
