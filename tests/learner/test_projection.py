"""The projection and what texts contribute to item vectors."""

from __future__ import annotations

import math

import pytest
import torch

from learner import texts as texts_module
from learner.items import ItemTable
from learner.projection import FEWEST_TEXTS, ITEM_NORM, Projection
from learner.texts import ItemTexts
from tests.learner.builders import CPU, ENCODER_DIMENSION, assert_near, random_texts, small_model


def projection(dimension: int = 8, seed: int = 0) -> Projection:
    return Projection(ENCODER_DIMENSION, dimension, torch.Generator().manual_seed(seed), CPU)


def assert_orthonormal(basis: torch.Tensor) -> None:
    assert_near(basis @ basis.T, torch.eye(len(basis)))


@pytest.mark.parametrize("dimension", [4, 8, 12, 20])
def test_it_is_orthonormal_before_and_after_fitting(dimension: int) -> None:
    it = projection(dimension)
    assert_orthonormal(it.basis)
    assert it.fit(random_texts(100))
    assert_orthonormal(it.basis)
    assert it.apply(random_texts(3)).shape == (3, dimension)


def test_texts_that_differ_in_few_directions_still_give_a_whole_basis() -> None:
    it = projection()
    texts = torch.zeros(100, ENCODER_DIMENSION)
    texts[:, 0] = 1.0
    texts[:, 1] = torch.linspace(-1, 1, 100)
    assert it.fit(texts)
    assert_orthonormal(it.basis)
    assert it.basis[0, 1].abs() > 0.999  # the direction in which they differ comes first
    assert it.apply(texts).isfinite().all()


def test_texts_that_are_all_alike_project_to_finite_vectors() -> None:
    it = projection()
    assert it.fit(torch.ones(100, ENCODER_DIMENSION))
    assert it.apply(torch.ones(2, ENCODER_DIMENSION)).isfinite().all()


def test_item_vectors_have_a_useful_length_either_way() -> None:
    it, texts = projection(), random_texts(500)
    for _ in range(2):
        assert math.isclose(it.apply(texts).norm(dim=1).mean().item(), ITEM_NORM, rel_tol=0.1)
        it.fit(texts)


def test_fewer_texts_than_directions_need_are_not_fitted() -> None:
    it = projection()
    before = it.basis.clone()
    texts = torch.cat([random_texts(FEWEST_TEXTS - 1), torch.zeros(50, ENCODER_DIMENSION)])
    assert not it.fit(texts)
    assert torch.equal(it.basis, before)


def test_no_text_is_the_zero_vector_before_and_after() -> None:
    it, nothing = projection(), torch.zeros(1, ENCODER_DIMENSION)
    assert it.apply(nothing).abs().sum() == 0
    it.fit(random_texts(100))
    assert it.apply(nothing).abs().sum() == 0


def test_the_same_texts_give_the_same_basis_in_any_start() -> None:
    first, second = projection(seed=1), projection(seed=2)
    for it in (first, second):
        it.fit(random_texts(100))
    assert torch.equal(first.basis, second.basis)


def test_a_saved_projection_projects_the_same() -> None:
    first, second = projection(seed=1), projection(seed=2)
    first.fit(random_texts(100))
    second.load(first.state())
    assert torch.equal(first.apply(random_texts(5)), second.apply(random_texts(5)))


def known(count: int) -> tuple[ItemTable, ItemTexts, list[int]]:
    table = ItemTable(("shop",), small_model())
    texts = ItemTexts(projection(), table)
    rows = [table.add(f"item-{number}") for number in range(count)]
    texts.put(rows, random_texts(count))
    return table, texts, rows


def test_what_was_learnt_of_an_item_outlives_a_change_of_its_text_and_of_the_projection() -> None:
    table, texts, rows = known(100)
    plain_table, plain, _ = known(100)
    learnt = torch.full((8,), 0.5)
    table.vectors[rows[3]] += learnt
    for each in (texts, plain):
        each.put([rows[3]], random_texts(1, seed=7))
        assert each.settle()
        each.put([rows[3]], random_texts(1, seed=8))
    assert_near(table.vectors[rows[3]], plain_table.vectors[rows[3]] + learnt)
    assert_near(table.vectors[rows[4]], plain_table.vectors[rows[4]])


def test_the_projection_settles_once() -> None:
    table, texts, rows = known(10)
    before = table.vectors.clone()
    assert not texts.settle()
    texts.put([table.add(f"late-{number}") for number in range(100)], random_texts(100, seed=3))
    assert not texts.settle()
    assert torch.equal(table.vectors[rows], before[rows])


def test_the_projection_settles_by_itself_once_there_are_enough_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts_module, "ENOUGH_TEXTS", 80)
    table, texts, rows = known(79)
    before = table.vectors.clone()
    row = table.add("the eightieth")
    assert texts.put([row], random_texts(1, seed=4))
    assert not torch.equal(table.vectors[rows], before[rows])
    assert "texts" not in texts.state()
    assert not texts.settle()
    assert not texts.put([table.add("one more")], random_texts(1, seed=5))


def test_a_text_that_is_not_finite_is_no_text() -> None:
    table, texts, rows = known(2)
    texts.put([rows[0]], torch.full((1, ENCODER_DIMENSION), torch.nan))
    assert table.vectors[rows[0]].abs().max() < 1e-6


def test_texts_follow_the_table_as_it_grows() -> None:
    table, texts, rows = known(100)
    for number in range(2000):
        table.add(f"more-{number}")
    last = table.add("last")
    texts.put([last], random_texts(1, seed=5))
    assert texts.settle()
    assert table.vectors[last].norm() > 1
    texts.forget(last)
    table.remove("last")
    texts.put([table.add("next")], torch.zeros(1, ENCODER_DIMENSION))
    assert table.vectors[table.rows(["next"])].abs().sum() == 0
    assert len(rows) == 100
