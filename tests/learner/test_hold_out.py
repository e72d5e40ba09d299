"""The hold-out: a share of the stream that is tested and kept, and that nothing learns from."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.hold_out import divide, is_drawn
from learner.online import OnlineLearner
from learner.probes import Key
from schemas.records import Example
from schemas.settings import Settings
from tests.learner.builders import NAMES, everything, example, put, small_learner, small_settings, stream

SHOP, NEWS = (0, 0), (1, 0)
ALL = torch.ones(40, dtype=torch.bool)
EXAMPLES = stream(NAMES, 300)


def settings(share: float = 0.1, rows: int = 1000, micro_batch: int = 8) -> Settings:
    return small_settings(probe_share=share, probe_rows=rows, micro_batch=micro_batch)


def taught(given: Settings, examples: list[Example] = EXAMPLES) -> OnlineLearner:
    learner = small_learner(given)
    put(learner, NAMES)
    learner.learn("shop", examples)
    return learner


def recalls(learner: OnlineLearner) -> dict[Key, float]:
    found = learner.probes.test(lambda scenario, asked: {"served": learner.examiner.rank(scenario, asked).rows})
    return found.get("served", {})


@given(st.lists(st.integers(0, 299), max_size=4).map(sorted), st.integers(0, 40))
def test_however_the_stream_is_cut_the_same_examples_are_held_out(cuts: list[int], room: int) -> None:
    placed = [(each, NAMES.index(each.item_id) + 1) for each in EXAMPLES]
    whole, rest = divide(placed, ALL, room, "shop", 0.1, 0)
    held, learnt = [], []
    for start, end in zip([0, *cuts], [*cuts, len(placed)], strict=True):
        some, others = divide(placed[start:end], ALL, room - len(held), "shop", 0.1, 0)
        held += some
        learnt += others
    assert (held, learnt) == (whole, rest)
    assert len(whole) <= room
    assert sorted([*whole, *rest], key=lambda pair: pair[0].offset) == placed


def test_the_share_is_that_of_the_stream_and_another_for_each_seed_and_scenario() -> None:
    many = [example("a", offset=offset) for offset in range(20_000)]
    drawn = {
        key: {each.offset for each in many if is_drawn(each, *key)}
        for key in (("shop", 0.01, 0), ("shop", 0.01, 1), ("news", 0.01, 0), ("shop", 0.02, 0))
    }
    assert all(150 < len(some) < 250 for some in list(drawn.values())[:3])
    assert drawn["shop", 0.01, 0] < drawn["shop", 0.02, 0]
    assert len(drawn["shop", 0.01, 0] & drawn["shop", 0.01, 1]) < 20
    assert len(drawn["shop", 0.01, 0] & drawn["news", 0.01, 0]) < 20
    assert not any(is_drawn(each, "shop", 0.0, 0) for each in many)
    assert all(is_drawn(each, "shop", 1.0, 0) for each in many)


def test_what_could_be_no_test_is_learnt() -> None:
    shown = example("a", offset=0)
    others = [
        example("a", offset=1, weight=-1.0),
        example("a", ["a"], offset=2),
        example("b", offset=3),
    ]
    eligible = torch.tensor([False, True, False])
    placed = [(each, 1 if each.item_id == "a" else 2) for each in (shown, *others)]
    held, learnt = divide(placed, eligible, 10, "shop", 1.0, 0)
    assert ([each for each, _ in held], [each for each, _ in learnt]) == ([shown], others)


def test_from_what_is_held_out_nothing_learns(tmp_path: Path) -> None:
    holding = taught(settings(micro_batch=1))
    held = {each.offset for each in EXAMPLES if is_drawn(each, "shop", 0.1, 0)}
    assert holding.probes.size(SHOP) == len(held) > 20
    never = taught(settings(rows=0, micro_batch=1), [each for each in EXAMPLES if each.offset not in held])
    ours, theirs = everything(holding, tmp_path / "1"), everything(never, tmp_path / "2")
    differing = {name for name in ours if name not in theirs or not torch.equal(ours[name], theirs[name])}
    assert {name.split("/")[0] for name in differing} == {"probes", "forgetting"}  # what was held out, and when
    assert holding.run.step == never.run.step == 300 - len(held)


def test_what_is_held_out_is_tested_and_past_as_any_other() -> None:
    holding = taught(settings(share=1.0))
    (shop, _) = holding.versions.republish().weights
    assert (shop.examples, shop.tested, holding.run.step) == (300, 300, 0)
    assert shop.trained_through == {"headstream.events.shop:0": 299}
    assert holding.learn("shop", EXAMPLES) == 0
    assert holding.probes.size(SHOP) == 300


def test_a_set_that_is_full_takes_no_more_and_all_is_learnt() -> None:
    holding = taught(settings(share=1.0, rows=16))
    assert (holding.probes.size(SHOP), holding.run.step) == (16, (300 - 16 + 7) // 8)


def test_the_sets_are_ranked_by_one_call_which_changes_nothing(tmp_path: Path) -> None:
    holding = taught(settings())
    before = everything(holding, tmp_path / "1")
    found = recalls(holding)
    assert found.keys() == {SHOP}
    assert 0.2 < found[SHOP] <= 1  # of thirty items, less what was used last, ten by chance are .4
    after = everything(holding, tmp_path / "2")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_forgotten_user_is_in_no_probe_set() -> None:
    holding = taught(settings())
    size, replayed = holding.probes.size(SHOP), len(holding._replay)
    gone = holding.forget_user("user-3")
    assert size > holding.probes.size(SHOP)
    assert sum(gone) == size - holding.probes.size(SHOP) + replayed - len(holding._replay)
    assert holding.forget_user("user-3") == (0, 0)


def test_a_removed_item_is_in_no_probe_set() -> None:
    holding = taught(settings())
    row = holding.table.row_of["item-3"]
    assert any((tensor == row).any() for name, tensor in rows_of(holding).items())
    holding.remove_item("item-3")
    assert not any((tensor == row).any() for name, tensor in rows_of(holding).items())


def rows_of(learner: OnlineLearner) -> dict[str, torch.Tensor]:
    """What of the probe sets names items."""
    named = ("history", "excluded", "used", "target")
    return {name: tensor for name, tensor in learner.probes.state().items() if name.endswith(named)}


def test_probe_sets_go_with_their_scenarios_when_others_come_and_go(tmp_path: Path) -> None:
    holding = taught(settings())
    holding.learn("news", stream(NAMES, 200, seed=1))
    expected, kept = recalls(holding), holding.probes.size(NEWS)
    assert expected.keys() == {SHOP, NEWS}
    holding.save(tmp_path / "1", {})
    given = settings()
    changed = {"travel": given.scenarios["shop"], "news": given.scenarios["news"]}
    other = small_learner(msgspec.structs.replace(given, scenarios=changed))
    other.restore(tmp_path / "1")
    assert (other.probes.keys, other.probes.size((1, 0))) == ([(1, 0)], kept)
    assert recalls(other)[1, 0] == expected[NEWS]


def test_a_checkpoint_from_before_there_were_probe_sets_is_gone_on_from(tmp_path: Path) -> None:
    taught(settings(rows=0)).save(tmp_path / "1", {})
    later = small_learner(settings(share=1.0))
    later.restore(tmp_path / "1")
    later.learn("shop", stream(NAMES, 20, seed=3, first=300))
    assert later.probes.size(SHOP) == 20
