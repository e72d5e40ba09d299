"""What the sheets show of a report, and what stands in the place of a figure that it has not."""

from __future__ import annotations

import msgspec

from learner.outcomes import Clicks, Forgetting, Ratio
from streams.evaluation_sheets import facts, sheets_of
from tests.streams.reports import figures, kept, report, three_models


def test_what_was_not_tested_is_shown_as_nothing_and_is_best_at_nothing() -> None:
    untested = Forgetting(matrix=[[None]], forgetting=None, backward_transfer=None, final_average=None)
    models = {"headstream": figures(0.3, {"shop": 0.3}), "naive": figures(0.2, {"shop": 0.2})}
    found = report(models, blocks=("shop",), forgetting={"headstream": untested, "naive": kept([[0.5]])})
    *_, sheet = sheets_of(found)
    assert [(column.cells, column.best) for column in sheet.columns] == [
        (["-", "-"], frozenset()),
        (["-", "-"], frozenset()),
        (["-", "0.500"], frozenset()),
    ]


def test_ratios_are_shown_with_their_own_intervals_for_the_models_that_have_them() -> None:
    ratios = {"popularity": Ratio(value=3.0, interval=(2.9, 3.125))}
    found = msgspec.structs.replace(report(three_models()), ratios=ratios)
    (sheet,) = (each for each in sheets_of(found) if each.title == "headstream beside each other model")
    assert sheet.models == ["popularity"]
    assert [column.cells for column in sheet.columns] == [["3.000"], ["2.900–3.125"]]


def test_taken_and_refused_are_told_apart_where_anything_was_refused() -> None:
    ten, one = (
        Clicks(accuracy=0.5, precision=0.75, recall=0.6, f1=2 / 3),
        Clicks(accuracy=0.25, precision=None, recall=0.0, f1=0.0),
    )
    models = {
        name: msgspec.structs.replace(each, clicks={"top-10": ten, "top-1": one})
        for name, each in three_models().items()
    }
    found = msgspec.structs.replace(report(models), refused=1234)
    (sheet,) = (each for each in sheets_of(found) if each.title == "Taken or refused")
    assert sheet.models == ["headstream", "sasrec", "popularity"]
    assert [(column.heading, column.cells[0]) for column in sheet.columns] == [
        ("top-10 accuracy", "0.500"),
        ("top-10 precision", "0.750"),
        ("top-10 recall", "0.600"),
        ("top-10 F1", "0.667"),
        ("top-1 accuracy", "0.250"),
        ("top-1 precision", "-"),
        ("top-1 recall", "0.000"),
        ("top-1 F1", "0.000"),
    ]
    assert "81,234 of them tested, 1,234 items refused" in facts(found)
    assert "refused" not in facts(report(models))
    assert all(each.title != "Taken or refused" for each in sheets_of(report(models)))
