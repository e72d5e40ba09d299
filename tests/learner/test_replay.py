"""The replay memory: bounded, fair over time and scenarios, and able to forget."""

from __future__ import annotations

import hypothesis.strategies as st
import torch
from hypothesis import given, settings

from learner.replay import Replay, TrainingBatch, user_hash

LENGTH = 4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lessons(targets: list[int], scenario: int = 0) -> TrainingBatch:
    """Each with its target's number in every place, so that a mixed-up row shows."""
    target = torch.tensor(targets)
    history = target[:, None].repeat(1, LENGTH) + torch.arange(LENGTH)
    return TrainingBatch(
        scenario=torch.full_like(target, scenario),
        history=history,
        gaps=history % 20 + 1,
        target=target,
        weight=target.float(),
    )


def add(replay: Replay, targets: list[int], scenario: int = 0, generator: torch.Generator | None = None) -> None:
    users = [user_hash(f"user-{target % 3}") for target in targets]
    replay.add(scenario, lessons(targets, scenario), users, generator or seeded())


def assert_whole(batch: TrainingBatch) -> None:
    expected = lessons(batch.target.tolist())
    assert torch.equal(batch.history, expected.history)
    assert torch.equal(batch.gaps, expected.gaps)
    assert torch.equal(batch.weight, expected.weight)


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 20)), max_size=12), seed=st.integers(0, 9))
def test_it_never_holds_more_than_its_quota_nor_less_than_it_could(sizes: list[tuple[int, int]], seed: int) -> None:
    replay, generator = Replay(3, 10, LENGTH), seeded(seed)
    met = [0, 0, 0]
    for scenario, size in sizes:
        first = 1000 * scenario + met[scenario] + 1
        add(replay, list(range(first, first + size)), scenario, generator)
        met[scenario] += size
    assert [replay.filled(scenario) for scenario in range(3)] == [min(10, count) for count in met]
    drawn = replay.sample(60, generator)
    assert_whole(drawn)
    assert torch.equal(drawn.scenario, (drawn.target - 1) // 1000)


def test_every_part_of_the_stream_is_kept_alike() -> None:
    kept = torch.zeros(1000)
    for seed in range(60):
        replay, generator = Replay(1, 100, LENGTH), seeded(seed)
        for start in range(1, 1001, 50):
            add(replay, list(range(start, start + 50)), generator=generator)
        kept[replay.state()["target"][0].long() - 1] += 1
    tenths = kept.view(10, 100).mean(1) / 60
    assert (tenths - 0.1).abs().max() < 0.02


def test_a_quiet_scenario_is_replayed_as_often_as_a_busy_one() -> None:
    replay = Replay(3, 50, LENGTH)
    add(replay, list(range(1, 51)), 0)
    add(replay, [7], 2)
    counts = replay.sample(2000, seeded()).scenario.bincount(minlength=3)
    assert counts[1] == 0
    assert abs(int(counts[0]) - 1000) < 100


def test_an_empty_memory_gives_nothing() -> None:
    drawn = Replay(2, 5, LENGTH).sample(8, seeded())
    assert len(drawn) == 0
    assert drawn.history.shape == (0, LENGTH)


def test_a_row_takes_less_than_200_bytes_at_the_usual_length() -> None:
    assert Replay(1, 1, 20).bytes_per_row == 116


def test_a_forgotten_item_is_in_no_target_and_no_history() -> None:
    replay = Replay(1, 30, LENGTH)
    add(replay, list(range(1, 21)))
    replay.forget_item(10)
    state = replay.state()
    assert replay.filled(0) == 19
    assert 10 not in state["target"].tolist()[0]
    assert 10 not in state["history"].flatten().tolist()
    assert (state["gaps"][0, :19] == 0).sum() == 3  # it stood in three histories, and now is a pad there
    add(replay, [50])
    assert replay.filled(0) == 20


def test_a_forgotten_user_leaves_no_row() -> None:
    replay = Replay(2, 30, LENGTH)
    add(replay, list(range(1, 21)), 0)
    add(replay, list(range(1001, 1008)), 1)
    gone = user_hash("user-1")
    assert replay.forget_user(gone) == 7 + 2
    assert gone not in replay.state()["user"].flatten().tolist()
    assert_whole(replay.sample(100, seeded()))
    assert replay.forget_user(gone) == 0


def test_a_user_hash_is_stable_and_never_the_empty_one() -> None:
    assert user_hash("ada") == user_hash("ada") != user_hash("bob")
    assert all(user_hash(str(number)) != 0 for number in range(100))
    assert -(2**63) <= user_hash("ada") < 2**63


def test_a_saved_memory_goes_on_alike() -> None:
    replay, again = Replay(2, 10, LENGTH), Replay(2, 10, LENGTH)
    add(replay, list(range(1, 30)))
    again.load({name: tensor.clone() for name, tensor in replay.state().items()})
    for each in (replay, again):
        add(each, list(range(30, 60)), generator=seeded(5))
    assert all(torch.equal(tensor, again.state()[name]) for name, tensor in replay.state().items())
