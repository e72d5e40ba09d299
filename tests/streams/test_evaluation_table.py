"""The report in a terminal: every figure where a person looks for it, whatever the names and the width."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console

from streams.evaluation_table import print_report
from tests.streams.reports import eleven_models, figures, hostile_report, printed, report, stressed, three_models


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_the_models_are_printed_in_order_of_recall_with_all_their_figures_and_nothing_for_what_is_not_known() -> None:
    text = printed(report(three_models()))
    assert text.startswith(
        "movielens: 100,000 events, 81,234 of them tested; mean over seeds 0, 1, 2; 1,834 MB of memory at the\npeak\n"
    )
    assert lines(text)[3:20] == [
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
        ["Second", "half", "of", "the", "tests"],
        ["recall", "head-"],
        ["model", "@10", "stream"],
        ["headstream", "0.410"],
        ["sasrec", "0.350", "x", "1.17"],
        ["popularity", "0.170", "x", "2.41"],
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
        "0.360", "0.180", "0.120", "0.090", "0.260", "0.360", "0.460", "0.200", "0.880", "250k", "0.410", "0.450",
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
        ["forget-", "backward", "final"],
        ["model", "ting", "transfer", "average"],
        ["headstream", "0.150", "-0.150", "0.500"],
        ["popularity", "0.000", "0.000", "0.200"],
    ]
    assert "Forgetting" not in printed(report(three_models()))


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
