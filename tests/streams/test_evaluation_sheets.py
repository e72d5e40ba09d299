"""What the sheets show of a report, and what stands in the place of a figure that it has not."""

from __future__ import annotations

import msgspec

from learner.outcomes import Forgetting, Ratio
from streams.evaluation_sheets import sheets_of
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
