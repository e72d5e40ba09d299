"""The comparison over several data sets: what it concludes from the runs, and what it says where data is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.data_sets import (
    DataSet,
    Prepared,
    chosen,
    hated_share,
    known_sets,
    lines,
    scenarios_of,
    summary,
)
from learner.evaluation import Marks, Results, Stream
from learner.outcomes import DEPTH, Examined
from streams.evaluate import read_examples
from streams.sources import open_history


def results(places: dict[str, list[int]]) -> Results:
    """Eight events of eight users, the first four in the shop, the others in the news; each third item is cold."""
    scenario = np.repeat([0, 1], 4)
    exam = Examined(scenario, np.arange(8), np.arange(8) % 3 == 0, np.zeros(8, np.bool_))
    marks = {name: Marks(places=[np.array(each)]) for name, each in places.items()}
    return Results(exam, marks, items=20, probes=0, fingerprints={})


def test_it_names_the_best_rival_and_the_scenarios_that_lag() -> None:
    never = DEPTH
    found = summary(
        ["shop", "news"],
        [
            results(
                {
                    "headstream": [0, 1, 2, 3, never, never, never, never],
                    "decayed-popularity": [never, never, never, 0, 0, 0, 0, 0],
                    "item-knn": [0, never, never, never, never, never, never, never],
                }
            )
        ],
    )
    assert found["recall@10"] == {"headstream": 0.5, "decayed-popularity": 0.625, "item-knn": 0.125}
    assert found["best rival"]["model"] == "decayed-popularity"  # type: ignore[index]
    assert found["best rival"]["ratio"] == pytest.approx(0.8)  # type: ignore[index]
    assert found["cold ratio to item-knn"] == pytest.approx(2.0)
    beside = found["beside decayed popularity"]
    assert isinstance(beside, dict)
    assert {name: each["below"] for name, each in beside.items()} == {"shop": False, "news": True}
    assert next(line for line in lines("both", found) if "BELOW" in line).split()[0] == "news"


def test_figures_are_means_over_the_seeds() -> None:
    runs = [results({"headstream": [place] * 8}) for place in (0, DEPTH)]
    assert summary(["shop", "news"], runs)["recall@10"] == {"headstream": 0.5}


def test_the_second_half_is_told_beside_the_whole_and_so_is_the_ratio_to_a_tower_that_stands_still() -> None:
    never = DEPTH
    found = summary(
        ["shop", "news"],
        [
            results(
                {
                    "headstream": [0, 0, never, never, 0, 0, 0, never],
                    "static": [0, never, 0, never, 0, never, never, 0],
                }
            )
        ],
    )
    assert found["recall@10"] == {"headstream": 5 / 8, "static": 4 / 8}
    assert found["second half recall@10"] == {"headstream": 3 / 4, "static": 2 / 4}
    assert found["ratio to static"] == {"all": 5 / 4, "second half": 3 / 2}
    assert any("ratio to static" in line and "1.5" in line for line in lines("both", found))


def test_without_data_it_says_so_and_ends(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="kuairand_like_hate: no such folder"):
        chosen(known_sets(tmp_path, None), ["kuairand"])
    with pytest.raises(SystemExit, match="netflix; allowed are"):
        chosen(known_sets(tmp_path, None), ["netflix"])


def test_hated_items_are_listed_only_where_hates_are_not_heard(tmp_path: Path) -> None:
    """Case E32."""
    rows = ["user_id,item_id,timestamp,scenario,event"]
    for turn in range(80):
        user, item = f"u{turn % 5}", f"i{turn % 4}"
        rows.append(f"{user},{item},{turn * 10},feed,view")
        if turn % 4 == 3:
            rows.append(f"{user},{item},{turn * 10 + 1},feed,hate")
    (tmp_path / "events.csv").write_text("\n".join(rows) + "\n")
    each = DataSet("small", str(tmp_path), dislikes=True)
    history = open_history(each.source, items=None, event=None)
    read = read_examples(scenarios_of(each, history, None), history, None, None)
    stream = Stream(read.items, torch.zeros(len(read.items), 8), read.examples, warm=30)
    data = Prepared(read.settings, stream)
    assert hated_share(each, data, None, True) == 0.0
    assert hated_share(each, data, None, False) > 0.1
