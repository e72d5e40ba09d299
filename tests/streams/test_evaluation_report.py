"""The evaluation report: every figure where a person looks for it, whatever the names and whatever is missing."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from learner.outcomes import WINDOWS, Figures, Report
from streams.evaluation_report import mean_forgetting, print_report, write_page, write_pictures

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
FORGETTING = {
    "headstream": [[0.5, 0.1, 0.0], [0.4, 0.6, 0.1], [0.3, 0.5, 0.7]],
    "popularity": [[0.2, 0.2, 0.2], [0.1, 0.2, 0.2], [0.2, 0.2, 0.2]],
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
    forgetting: dict[str, list[list[float]]] | None = None,
) -> Report:
    return Report(
        source=source, events=100_000, tested=81_234, seeds=list(seeds), models=models, memory_megabytes=1834.4,
        blocks=list(blocks), forgetting=forgetting or {},
    )  # fmt: skip


def three_models() -> dict[str, Figures]:
    """In another order than that of recall."""
    return {
        "popularity": figures(0.12, {"shop": 0.2, "news": None}, cold=None, speed=250_000.0),
        "headstream": figures(0.36, {"shop": 0.4, "news": None}),
        "sasrec": figures(0.3, {"shop": 0.45, "news": None}, cold=0.2, speed=None),
    }


def stressed(models: dict[str, Figures]) -> Report:
    return report(models, blocks=("shop", "news", "video"), forgetting=FORGETTING)


def eleven_models() -> Report:
    """As large as an evaluation becomes."""
    scenarios = ["shop", "news", "video", "music-discovery", "travel & leisure"]
    names = ["headstream", "decayed-popularity", *(f"rival-{number}" for number in range(1, 10))]
    models = {
        name: figures(0.5 - number / 50, dict.fromkeys(scenarios, 0.4 - number / 50), speed=99_999.0)
        for number, name in enumerate(names)
    }
    matrix = [[0.1 * (row + column) for column in range(5)] for row in range(5)]
    return report(models, blocks=tuple(scenarios), forgetting=dict.fromkeys(names, matrix))


def hostile_report() -> Report:
    models = {name: figures(0.2, dict.fromkeys(HOSTILE, 0.2)) for name in HOSTILE}
    forgetting = {HOSTILE[0]: [[0.1] * len(HOSTILE)] * len(HOSTILE)}
    return report(models, "<script>$x^$</script>\x1b[2J", blocks=tuple(HOSTILE), forgetting=forgetting)


def printed(found: Report, width: int = 100) -> str:
    console = Console(file=StringIO(), width=width)
    print_report(found, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


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


def size(picture: Path) -> tuple[int, int]:
    """Width and height in dots, as a PNG's first chunk has them."""
    head = picture.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", head[16:])


# In a terminal.


def test_the_models_are_printed_in_order_of_recall_with_all_their_figures_and_nothing_for_what_is_not_known() -> None:
    text = printed(report(three_models()))
    assert text.startswith(
        "movielens: 100,000 events, 81,234 of them tested; mean over seeds 0, 1, 2; 1,834 MB of memory at the\npeak\n"
    )
    assert lines(text)[3:13] == [
        ["All", "tested", "events"],
        ["recall", "95", "%", "head-", "NDCG", "MRR", "cold", "cover-", "1st", "2nd", "3rd"],
        ["model", "@10", "interval", "stream", "@10", "@10", "top-1", "@10", "age", "third", "third", "third", "ex./s"],
        ["headstream", "0.360", "0.350–0.380",
         "0.180", "0.120", "0.090", "0.125", "0.640", "0.260", "0.360", "0.460", "2,500"],
        ["sasrec", "0.300", "0.290–0.320", "x", "1.20",
         "0.150", "0.100", "0.075", "0.200", "0.700", "0.200", "0.300", "0.400", "-"],
        ["popularity", "0.120", "0.110–0.140", "x", "3.00",
         "0.060", "0.040", "0.030", "-", "0.880", "0.020", "0.120", "0.220", "250k"],
        [],
        ["recall@10", "by", "scenario"],
        ["model", "shop", "news"],
        ["headstream", "0.400", "-"],
    ]  # fmt: skip


def test_numbers_are_flush_right_under_their_heading() -> None:
    text = printed(report(three_models())).splitlines()
    ends = {line.index(" news") + 5 for line in text if line.startswith("model") and "news" in line}
    rows = text[text.index("recall@10 by scenario") + 2 :][:3]
    assert {len(row.rstrip()) for row in rows} == ends


def test_the_best_of_each_column_is_bold_and_no_other() -> None:
    console = Console(file=StringIO(), width=100, force_terminal=True, color_system="standard")
    print_report(report(three_models()), console)
    bold = re.findall(r"\x1b\[1m *([\d.,k]+)\x1b", console.file.getvalue())  # type: ignore[attr-defined]
    assert bold == [
        "0.360", "0.180", "0.120", "0.090", "0.260", "0.360", "0.460", "0.200", "0.880", "250k", "0.450",
    ]  # fmt: skip


def test_one_model_has_no_rival_and_is_best_at_nothing() -> None:
    console = Console(file=StringIO(), width=100, force_terminal=True, color_system="standard")
    print_report(report({"headstream": figures(0.25, {"shop": 0.25})}, seeds=(7,)), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "; seed 7; " in text
    assert "0.240–0.270" in text
    assert not re.findall(r"\x1b\[1m *[\d.]+\x1b", text)
    assert "head-" not in text


def test_without_headstream_there_are_no_ratios() -> None:
    models = three_models()
    del models["headstream"]
    assert "head-" not in printed(report(models))


def test_the_ratio_to_a_model_that_found_nothing_is_left_out() -> None:
    models = {"headstream": figures(0.25, {}), "random": figures(0.0, {})}
    (row,) = (line for line in lines(printed(report(models))) if line[:2] == ["random", "0.000"])
    assert row[2:4] == ["-0.010–0.020", "-"]


def test_forgetting_is_printed_if_it_was_measured_and_less_of_it_is_better() -> None:
    text = printed(stressed(three_models()))
    rows = lines(text.partition("Forgetting\n")[2])[:4]
    assert rows == [
        ["mean", "final"],
        ["model", "forgetting", "average"],
        ["headstream", "0.150", "0.500"],
        ["popularity", "0.000", "0.200"],
    ]
    assert "Forgetting" not in printed(report(three_models()))


def test_forgetting_is_the_mean_loss_since_each_block_but_the_last() -> None:
    assert mean_forgetting([[0.5, 0.0, 0.0], [0.4, 0.6, 0.0], [0.2, 0.7, 0.9]]) == pytest.approx(0.1)
    assert mean_forgetting([[0.5]]) is None


def test_eleven_models_fit_into_100_columns_with_a_line_each() -> None:
    text = printed(eleven_models())
    assert max(map(len, text.splitlines())) <= 100
    overall = [line for line in lines(text) if line and line[0] == "rival-9" and "–" in "".join(line)]
    assert overall == [
        ["rival-9", "0.300", "0.290–0.320", "x", "1.67",
         "0.150", "0.100", "0.075", "0.125", "0.700", "0.200", "0.300", "0.400", "99,999"],
    ]  # fmt: skip


@pytest.mark.parametrize("width", [40, 60, 80])
def test_in_a_narrow_terminal_a_table_goes_on_below_and_no_number_is_cut(width: int) -> None:
    narrow, wide = printed(eleven_models(), width), printed(eleven_models(), 200)
    assert max(map(len, narrow.splitlines())) <= width

    def numbers(text: str) -> list[str]:
        tables = text.partition("All tested")[2].partition("Best of")[0]
        return sorted(re.findall(r"\d\.\d{3}|\d+,\d{3}|x \d\.\d\d", tables))

    assert numbers(narrow) == numbers(wide)


def test_names_neither_move_the_cursor_nor_are_taken_for_markup() -> None:
    text = printed(hostile_report(), 300)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert {"[red]x[/]", "$a^$", "_under", "映画"} <= {word for line in lines(text) for word in line}


# In pictures.


def test_the_pictures_are_png_files_of_a_size_that_fits_a_screen(tmp_path: Path) -> None:
    paths = write_pictures(eleven_models(), tmp_path / "new" / "folder")
    assert [path.relative_to(tmp_path / "new" / "folder").as_posix() for path in paths] == [
        "quality.png", "recall.png", "forgetting.png",
    ]  # fmt: skip
    for width, height in map(size, paths):
        assert 1000 <= width <= 2000
        assert 500 <= height <= 2000


def test_there_is_no_picture_of_forgetting_that_was_not_measured(tmp_path: Path) -> None:
    paths = write_pictures(report(three_models()), tmp_path)
    assert [path.name for path in paths] == ["quality.png", "recall.png"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)


@pytest.mark.parametrize(
    "found",
    [
        hostile_report(),
        report({"headstream": figures(0.25, {"shop": 0.25})}),
        report({"headstream": figures(0.0, {"shop": None, "news": None})}),
        report({"headstream": figures(0.3, {"shop": 0.3}, curve={"shop": [None, 0.3, None, 0.2, 0.4]})}),
        report({"headstream": figures(0.3, {"shop": 0.3})}, blocks=("shop",), forgetting={"headstream": [[0.3]]}),
    ],
    ids=["hostile names", "one model", "no events", "gaps", "one block"],
)
def test_pictures_and_page_are_made_of_whatever_was_found(found: Report, tmp_path: Path) -> None:
    for path in write_pictures(found, tmp_path):
        assert min(size(path)) > 200
    assert page(found, tmp_path).tags.count("svg") == 2 + bool(found.forgetting)


def test_a_report_without_models_has_no_pictures(tmp_path: Path) -> None:
    assert write_pictures(report({}), tmp_path) == []
    assert "svg" not in page(report({}), tmp_path).tags
    assert "81,234" in printed(report({}))


def test_a_model_has_the_same_colour_in_every_panel_and_in_the_legend_that_stands_once(tmp_path: Path) -> None:
    models = {name: figures(0.3, {"shop": 0.2, "news": 0.3, "video": 0.4}) for name in ("headstream", "sasrec")}
    found = page(report(models), tmp_path)
    for colour in ("#d55e00", "#0072b2"):
        drawn = [style for style in found.values("style") if f"stroke: {colour}" in style and "fill: none" in style]
        assert len(drawn) == 3 + 1


def test_matplotlib_is_loaded_only_when_pictures_are_made() -> None:
    code = "import sys, streams.evaluation_report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# On the page.


def test_the_page_has_every_table_with_every_figure(tmp_path: Path) -> None:
    found = page(stressed(three_models()), tmp_path)
    assert found.tables == {
        "All tested events": [
            ["model", "recall@10", "95\u00a0% interval", "headstream", "NDCG@10", "MRR@10", "top-1", "cold recall@10",
             "coverage", "first third", "second third", "last third", "examples/s"],
            ["headstream", "0.360", "0.350–0.380", "", "0.180", "0.120", "0.090", "0.125",
             "0.640", "0.260", "0.360", "0.460", "2,500"],
            ["sasrec", "0.300", "0.290–0.320", "x 1.20", "0.150", "0.100", "0.075", "0.200",
             "0.700", "0.200", "0.300", "0.400", "-"],
            ["popularity", "0.120", "0.110–0.140", "x 3.00", "0.060", "0.040", "0.030", "-",
             "0.880", "0.020", "0.120", "0.220", "250k"],
        ],
        "recall@10 by scenario": [
            ["model", "shop", "news"],
            ["headstream", "0.400", "-"],
            ["sasrec", "0.450", "-"],
            ["popularity", "0.200", "-"],
        ],
        "Forgetting": [
            ["model", "mean forgetting", "final average"],
            ["headstream", "0.150", "0.500"],
            ["popularity", "0.000", "0.200"],
        ],
    }  # fmt: skip


def test_the_best_of_each_column_is_strong_on_the_page(tmp_path: Path) -> None:
    assert page(stressed(three_models()), tmp_path).strong == [
        "0.360", "0.180", "0.120", "0.090", "0.260", "0.360", "0.460", "0.200", "0.880", "250k",
        "0.450",
        "0.500", "0.000",
    ]  # fmt: skip


def test_the_page_says_what_was_evaluated_and_how_to_read_it(tmp_path: Path) -> None:
    text = page(report(three_models()), tmp_path).text
    assert "Evaluation on movielens" in text
    assert "100,000 events, 81,234 of them tested; mean over seeds 0, 1, 2; 1,834 MB" in text
    assert "first a test, then a lesson" in text
    assert "among the 10 that the model would have shown" in text
    assert "drawn anew 1,000 times" in text


def test_the_page_without_forgetting_does_not_speak_of_it(tmp_path: Path) -> None:
    assert "orget" not in page(report(three_models()), tmp_path).source


def test_the_pictures_on_the_page_have_their_text_as_text(tmp_path: Path) -> None:
    found = page(stressed(three_models()), tmp_path)
    assert found.tags.count("svg") == 3
    assert found.tags.count("text") > 50
    for word in ("tested events so far, %", "after the block of", "popularity", "0.700"):
        assert word in found.text


def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    found = page(eleven_models(), tmp_path)
    assert "http:" not in found.source
    assert "https:" not in found.source
    assert not {"script", "link", "img", "image", "iframe", "object", "embed", "base"} & set(found.tags)
    assert not found.values("src")
    assert all(value.startswith("#") for value in found.values("href"))
    assert all(start == "#" for start in re.findall(r"url\((.)", found.source))
    assert "@import" not in found.source
    assert "default-src 'none'; style-src 'unsafe-inline'" in found.values("content")


def test_no_two_elements_of_the_page_share_an_id_and_every_reference_is_to_one(tmp_path: Path) -> None:
    found = page(eleven_models(), tmp_path)
    ids = found.values("id")
    assert len(ids) == len(set(ids))
    assert {value[1:] for value in found.values("href")} <= set(ids)
    assert set(re.findall(r"url\(#([^)]*)\)", found.source)) <= set(ids)


def test_the_page_is_dark_where_the_reader_wants_it_dark_and_the_pictures_follow(tmp_path: Path) -> None:
    found = page(report(three_models()), tmp_path)
    assert "@media (prefers-color-scheme: dark)" in found.source
    assert "currentColor" in found.source
    assert "#1f2429" not in found.source.partition("</style>")[2]


def test_names_on_the_page_are_text_whatever_is_in_them(tmp_path: Path) -> None:
    found = page(hostile_report(), tmp_path)
    assert "script" not in found.tags
    assert not found.values("onload")
    assert "Evaluation on <script>$x^$</script>\ufffd[2J" in found.text
    assert found.tables["recall@10 by scenario"][0] == [
        "model", "<script>alert(1)</script>", '" onload="x', "$a^$ & $_{b}$", "_under", "[red]x[/]",
        "\ufffd[31m \ufffd\ufffd", "映画", "",
    ]  # fmt: skip
    assert "\0" not in found.source
    assert "\x1b" not in found.source
