"""Ranking: what it may return, in which order, and that asking changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from index.exact import ExactIndex
from learner import covisitation, covisited, ranking
from learner.items import ItemTable
from learner.mixer import FEATURES
from learner.outcomes import COLD_USES
from learner.ranking import (
    COVISITED,
    NEURAL,
    NEWCOMER_BONUS,
    OWN,
    POPULAR,
    Clocks,
    Question,
    Ranking,
    ScenarioModel,
    Search,
    as_batch,
    find,
    order,
    rank,
    reasons,
    warm_up,
)
from learner.shelf import search_shelf
from tests.learner.builders import START, assert_near, random_texts, small_model

SIZES = small_model()
CLOCKS = Clocks(clock=50.0, scenario_clock=20.0)
SHOP, NEWS = 0, 1


@pytest.fixture(scope="module")
def table() -> ItemTable:
    """Forty items, the even ones eligible in the shop, all in the news; the first ten have behaviour."""
    items = ItemTable(("shop", "news"), SIZES)
    vectors = torch.nn.functional.pad(random_texts(40), (0, 0))[:, : SIZES.dimension]
    for number in range(40):
        row = items.add(f"item-{number}")
        items.vectors[row] = 4 * torch.nn.functional.normalize(vectors[number], dim=0)
        items.set_eligible(f"item-{number}", ("shop", "news") if number % 2 == 0 else ("news",))
    generator = torch.Generator().manual_seed(1)
    history = torch.randint(1, 11, (50, 5), generator=generator)
    target = torch.randint(1, 11, (50,), generator=generator)
    items.covisitation.update(history.masked_fill(history == target[:, None], 0), target, 50.0)
    items.popularity.update(SHOP, target[:20], 0.0)
    items.popularity.update(NEWS, target[20:], 0.0)
    return items


@pytest.fixture(scope="module")
def model() -> ScenarioModel:
    return ScenarioModel.blank(SIZES)


def question(history: Sequence[int] = (), excluded: Sequence[int] = ()) -> Question:
    times = [START - 60 * (len(history) - place) for place in range(len(history))]
    return Question(history=history, times=times, now=START, excluded=excluded)


def ranked(
    model: ScenarioModel,
    table: ItemTable,
    questions: Sequence[Question],
    scenario: int = SHOP,
    allowed: Tensor | None = None,
    minimum: int = 10,
    search: Search | None = None,
) -> Ranking:
    search = search or search_shelf(table, scenario)
    return rank(model, table, scenario, CLOCKS, questions, search, allowed, minimum)


def found(ranking: Ranking, user: int = 0) -> list[int]:
    return [row for row in ranking.rows[user].tolist() if row]


ROWS = st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(
    asked=st.lists(
        st.tuples(st.lists(ROWS, max_size=7), st.lists(ROWS, max_size=45, unique=True)), min_size=1, max_size=4
    ),
    scenario=st.sampled_from([SHOP, NEWS]),
    allowed=st.none() | st.lists(ROWS, max_size=30, unique=True),
    minimum=st.integers(0, 40),
)
def test_it_returns_enough_of_what_may_be_returned_and_nothing_else(
    model: ScenarioModel,
    table: ItemTable,
    asked: list[tuple[list[int], list[int]]],
    scenario: int,
    allowed: list[int] | None,
    minimum: int,
) -> None:
    among = None if allowed is None else torch.tensor(allowed, dtype=torch.long)
    questions = [question(history, excluded) for history, excluded in asked]
    ranking = ranked(model, table, questions, scenario, among, minimum)
    for user, (_, excluded) in enumerate(asked):
        permitted = set(table.eligible[scenario].nonzero().flatten().tolist()) - set(excluded)
        permitted &= permitted if allowed is None else set(allowed)
        rows = found(ranking, user)
        assert set(rows) <= permitted
        assert len(rows) == len(set(rows)) >= min(minimum, len(permitted))
        scores = ranking.scores[user]
        assert scores[: len(rows)].isfinite().all() and (scores[len(rows) :] == -torch.inf).all()
        assert (scores[: len(rows)].diff() <= 0).all()
        assert (ranking.origin[user, : len(rows)] > 0).all()


def test_before_any_learning_the_ranking_is_similarity(model: ScenarioModel) -> None:
    items = ItemTable(("shop", "news"), SIZES)
    vectors = torch.eye(SIZES.dimension).repeat(3, 1) + 0.01 * random_texts(24)[:, : SIZES.dimension]
    for number, vector in enumerate(4 * vectors):
        items.vectors[items.add(f"item-{number}")] = vector
        items.set_eligible(f"item-{number}", ("shop",))
    ranking = ranked(model, items, [question([1], excluded=[1])])
    assert set(found(ranking)[:2]) == {9, 17}  # the two others along the first axis


def test_whoever_asks_beside_you_changes_nothing_for_you(model: ScenarioModel, table: ItemTable) -> None:
    questions = [question([1, 5]), question([], excluded=[2, 3, 4]), question([7, 7, 9, 2, 4, 6, 8], excluded=[9])]
    together = ranked(model, table, questions)
    for user, each in enumerate(questions):
        alone = ranked(model, table, [each])
        assert found(alone) == found(together, user)
        size = len(found(alone))
        assert_near(alone.scores[0, :size], together.scores[user, :size])


def test_ranking_changes_no_state(model: ScenarioModel, table: ItemTable) -> None:
    before = {name: tensor.clone() for name, tensor in {**table.state(), **model.state_dict()}.items()}
    random_state = torch.get_rng_state()
    ranked(model, table, [question([1, 2, 3], excluded=[4])])
    reasons(table, [question([1, 2, 3])], [[5, 6]])
    after = {**table.state(), **model.state_dict()}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(random_state, torch.get_rng_state())


def test_the_neural_score_is_the_inner_product_and_the_bias(model: ScenarioModel, table: ItemTable) -> None:
    asked = question([1, 2, 3])
    ranking = ranked(model, table, [asked])
    batch = as_batch([asked], SIZES.history, torch.device("cpu"))
    query = model.query(table.vectors[batch.history], batch.history > 0, batch.gaps)[0]
    rows = ranking.rows[0]
    expected = table.vectors[rows] @ query + table.bias[SHOP, rows]
    assert_near(ranking.neural[0], expected)


def test_each_candidate_says_who_brought_it(model: ScenarioModel, table: ItemTable) -> None:
    ranking = ranked(model, table, [question([1, 2, 3])], NEWS)
    origin = dict(zip(ranking.rows[0].tolist(), ranking.origin[0].tolist(), strict=True))
    top = table.popularity.top(NEWS, table.eligible[NEWS], SIZES.popular_candidates, CLOCKS.scenario_clock).tolist()
    assert {row for row, bits in origin.items() if bits & POPULAR} == set(top)
    history = torch.tensor([[0, 0, 1, 2, 3]])
    together = table.covisitation.score(history, CLOCKS.clock).top(SIZES.covisited_candidates)[0].tolist()
    assert {row for row, bits in origin.items() if bits & COVISITED} == set(together) - {0}
    assert sum(1 for bits in origin.values() if bits & NEURAL) == SIZES.neural_candidates


def test_a_candidate_that_the_user_had_before_says_how_long_ago(model: ScenarioModel, table: ItemTable) -> None:
    asked = Question(history=[2, 4, 2], times=[START - 3600, START, START], now=START, excluded=[])
    batch = as_batch([asked, question()], SIZES.history, torch.device("cpu"))
    candidates = find(model, table, NEWS, CLOCKS, batch, search_shelf(table, NEWS), minimum=40)
    at = [FEATURES.index("own"), FEATURES.index("own_gap")]
    own = {int(row): each for row, each in zip(candidates.rows[0], candidates.features[0][:, at].tolist(), strict=True)}
    newest = (float(batch.gaps[0, -1]) - 12) / 6
    assert own[2] == own[4] == pytest.approx([1.0, newest])
    assert all(each == [0.0, 0.0] for row, each in own.items() if row not in (2, 4))
    assert not candidates.features[1][:, at].any()


def test_what_the_user_has_used_is_a_candidate_where_it_may_return(model: ScenarioModel, table: ItemTable) -> None:
    plain = ranked(model, table, [question([1, 2, 3])], NEWS)
    listed = set(plain.rows[0].tolist())
    forgotten = next(row for row in table.eligible[NEWS].nonzero().flatten().tolist() if row not in listed)
    hidden = next(row for row in range(1, table.allocated) if not table.eligible[NEWS, row])
    asked = replace(question([1, 2, 3]), used=[hidden, forgotten, 3])
    batch = as_batch([asked, question()], SIZES.history, torch.device("cpu"))
    candidates = find(model, table, NEWS, CLOCKS, batch, search_shelf(table, NEWS))
    rows = candidates.rows[0].tolist()
    assert hidden not in rows
    place = rows.index(forgotten)
    assert candidates.origin[0, place] == OWN
    at = [FEATURES.index("own"), FEATURES.index("own_gap")]
    assert candidates.features[0, place, at].tolist() == [1.0, 2.0]
    # The history knows better when it was.
    assert candidates.features[0, rows.index(3), at][1] < 2.0
    assert not (candidates.origin[1] & OWN).any()


@pytest.mark.parametrize(("known", "share"), [(0, 0.0), (1, 1 / 3), (2, 2 / 3), (3, 1.0)])
def test_a_newcomer_is_raised_the_more_the_fewer_of_them_a_list_has(
    model: ScenarioModel, known: int, share: float
) -> None:
    shelf = ItemTable(("shop",), SIZES)
    for name in ("one", "two", "three"):
        shelf.add(name)
        shelf.set_eligible(name, ("shop",))
    shelf.popularity.update(SHOP, torch.arange(1, known + 1).repeat(COLD_USES), 0.0)
    shelf.popularity.update(SHOP, torch.arange(known + 1, 4).repeat(COLD_USES - 1), 0.0)
    batch = as_batch([question()], SIZES.history, torch.device("cpu"))
    candidates = find(model, shelf, SHOP, CLOCKS, batch, search_shelf(shelf, SHOP), minimum=3)
    new = candidates.rows > known
    torch.testing.assert_close(candidates.bonus, NEWCOMER_BONUS * share * new)
    by_score = (model.mixer(candidates.features, 0) + candidates.bonus).sort(descending=True, stable=True).indices
    assert torch.equal(order(model, candidates).rows, candidates.rows.gather(1, by_score))


def test_any_index_gives_the_same_ranking(model: ScenarioModel, table: ItemTable) -> None:
    rows = table.eligible[NEWS].nonzero().flatten()
    index = ExactIndex(SIZES.dimension)
    index.upsert(rows, table.vectors[rows], table.bias[NEWS, rows])

    def search(queries: Tensor, k: int, excluded: Tensor | None, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
        hits = index.search(queries, k, excluded=excluded, allowed=allowed)
        return hits.ids, hits.scores

    questions = [question([1, 5], excluded=[1, 5]), question()]
    allowed = torch.arange(1, 30)
    by_index = ranked(model, table, questions, NEWS, allowed, search=search)
    by_table = ranked(model, table, questions, NEWS, allowed)
    assert [found(by_index, user) for user in range(2)] == [found(by_table, user) for user in range(2)]


def test_an_empty_shelf_gives_an_empty_list(model: ScenarioModel) -> None:
    items = ItemTable(("shop", "news"), SIZES)
    assert ranked(model, items, [question(), question()]).rows.shape == (2, 0)
    items.add("hidden")
    assert found(ranked(model, items, [question([1])])) == []


def test_nobody_asks_and_nothing_is_answered(model: ScenarioModel, table: ItemTable) -> None:
    assert len(ranked(model, table, []).rows) == 0


def test_a_dumped_model_ranks_the_same(table: ItemTable) -> None:
    model = ScenarioModel.blank(SIZES)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    loaded = ScenarioModel.blank(SIZES)
    loaded.load(model.dump())
    questions = [question([1, 2, 3]), question()]
    before, after = ranked(model, table, questions), ranked(loaded, table, questions)
    assert torch.equal(before.rows, after.rows) and torch.equal(before.scores, after.scores)


def test_a_history_is_cut_to_its_newest_items() -> None:
    batch = as_batch([question([9, 1, 2, 3, 4, 5]), question([7])], 5, torch.device("cpu"))
    assert batch.history.tolist() == [[1, 2, 3, 4, 5], [0, 0, 0, 0, 7]]
    assert (batch.gaps > 0).tolist() == (batch.history > 0).tolist()


def test_the_reason_is_what_was_used_together_before_what_is_alike() -> None:
    items = ItemTable(("shop", "news"), SIZES)
    for name in ("bread", "loaf", "butter", "stone", "knife"):
        items.add(name)
    bread, loaf, butter, stone, knife = items.rows(["bread", "loaf", "butter", "stone", "knife"])
    items.vectors[bread, 0] = items.vectors[loaf, 0] = 1.0
    items.vectors[knife, 1] = items.vectors[butter, 2] = 1.0
    items.covisitation.update(torch.tensor([[bread]]), torch.tensor([butter]), 1.0)
    asked = question([bread, knife])
    assert reasons(items, [asked], [[butter, loaf, stone]]) == [["bread", "bread", None]]
    assert reasons(items, [question()], [[butter]]) == [[None]]
    lists = [[butter, loaf, stone], [stone], [butter]]
    together = reasons(items, [asked, asked, question()], lists)
    assert together == [["bread", "bread", None], [None], [None]]
    assert reasons(items, [asked], [[]]) == [[]]


def test_weights_of_another_size_are_refused_by_name() -> None:
    dumped = ScenarioModel.blank(SIZES).dump()
    with pytest.raises(RuntimeError, match="size mismatch"):
        ScenarioModel.blank(small_model(dimension=16)).load(dumped)


def test_the_warm_up_compiles_all_that_a_ranking_needs(model: ScenarioModel, table: ItemTable) -> None:
    """Arguments of one kind, whatever their sizes: a loop that was compiled once never is again."""
    warm_up(SIZES)
    for questions in ([question()], [question([1, 2, 3], excluded=[4, 5])] * 7):
        lists = [row[:5] for row in ranked(model, table, questions, allowed=torch.arange(1, 30)).rows.tolist()]
        reasons(table, questions, lists)
    loops = {
        "_score": covisitation,
        "_speakers": covisitation,
        "_top": covisited,
        "_look_up": covisited,
        "_keep": ranking,
        "_note_own_use": ranking,
    }
    assert {name: len(vars(module)[name].signatures) for name, module in loops.items()} == dict.fromkeys(loops, 1)
