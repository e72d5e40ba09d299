"""The report as a page: every figure, nothing from elsewhere, and names that are only text."""

from __future__ import annotations

import re
from pathlib import Path

from tests.streams.reports import eleven_models, hostile_report, page, report, stressed, three_models


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
        "Second half of the tests": [
            ["model", "recall@10", "headstream"],
            ["headstream", "0.410", ""],
            ["sasrec", "0.350", "x 1.17"],
            ["popularity", "0.170", "x 2.41"],
        ],
        "recall@10 by scenario": [
            ["model", "shop", "news"],
            ["headstream", "0.400", "-"],
            ["sasrec", "0.450", "-"],
            ["popularity", "0.200", "-"],
        ],
        "Forgetting": [
            ["model", "forgetting", "backward transfer", "final average"],
            ["headstream", "0.150", "-0.150", "0.500"],
            ["popularity", "0.000", "0.000", "0.200"],
        ],
    }  # fmt: skip


def test_the_best_of_each_column_is_strong_on_the_page(tmp_path: Path) -> None:
    assert page(stressed(three_models()), tmp_path).strong == [
        "0.360", "0.180", "0.120", "0.090", "0.260", "0.360", "0.460", "0.200", "0.880", "250k",
        "0.410",
        "0.450",
        "0.500", "0.000", "0.000",
    ]  # fmt: skip


def test_the_page_says_what_was_evaluated_and_how_to_read_it(tmp_path: Path) -> None:
    text = page(report(three_models()), tmp_path).text
    assert "Evaluation on movielens" in text
    assert "100,000 events, 81,234 of them tested; mean over seeds 0, 1, 2; 1,834 MB" in text
    assert "first a test, then a lesson" in text
    assert "among the 10 that the model would have shown" in text
    assert "drawn anew 1,000 times" in text


def test_the_page_says_how_many_events_were_held_out_and_what_forgetting_is(tmp_path: Path) -> None:
    text = page(stressed(three_models()), tmp_path).text
    assert "81,234 of them tested, and 4,321 held out" in text
    assert "one block each, the smallest first" in text


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
