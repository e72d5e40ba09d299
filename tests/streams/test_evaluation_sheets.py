"""Figures that a report has not, and what stands in their place."""

from __future__ import annotations

from learner.outcomes import Forgetting
from streams.evaluation_sheets import sheets_of
from tests.streams.reports import figures, kept, report


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
