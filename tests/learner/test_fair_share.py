"""A user who floods a scenario teaches no more than a share of it, and whoever makes ids up pushes nothing out."""

from __future__ import annotations

import msgspec
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.fair_share import FEW, WINDOW, FairShare
from learner.hold_out import Placed
from learner.online import OnlineLearner
from learner.replay import user_hash
from schemas.records import Example
from tests.learner.builders import NAMES, put, small_learner, small_settings, stream


def of(users: list[str]) -> list[Placed]:
    one = stream(NAMES, 1)[0]
    return [(msgspec.structs.replace(one, user_id=user), 1) for user in users]


def taken(share: FairShare, users: list[str], scenario: int = 0) -> list[str]:
    return [example.user_id for example, _ in share.take(scenario, of(users))]


def test_where_few_are_active_nobody_is_too_much() -> None:
    share = FairShare(1, 0.02)
    users = [f"u{number % FEW}" for number in range(3 * WINDOW)] + ["u0"] * WINDOW
    assert taken(share, users) == users
    assert share.refused == 0


def test_a_user_who_does_most_of_all_gets_a_share_and_the_others_all_of_theirs() -> None:
    share = FairShare(2, 0.02)
    honest = [f"u{number % 200}" for number in range(4000)]
    users = [user for each in honest for user in ("flood", "flood", "flood", each)]
    found = taken(share, users)
    assert [user for user in found if user != "flood"] == honest
    assert found[-WINDOW:].count("flood") <= WINDOW * FEW / 200
    assert share.refused == len(users) - len(found)
    assert taken(share, ["flood"] * 10, scenario=1) == ["flood"] * 10  # each scenario by itself


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 400))
def test_one_that_was_restored_or_cut_in_pieces_takes_the_same(seed: int, piece: int) -> None:
    generator = np.random.default_rng(seed)
    users = [f"u{int(number)}" for number in generator.zipf(1.3, 2500) % 300]
    whole = taken(FairShare(1, 0.02), users)
    share, found = FairShare(1, 0.02), []
    for start in range(0, len(users), piece):
        again = FairShare(1, 0.02)
        again.load(share.state())
        share = again
        found += taken(share, users[start : start + piece])
    assert found == whole


def test_an_erased_user_leaves_no_trace_in_it() -> None:
    share = FairShare(1, 0.02)
    taken(share, ["ann", "bob"] * 50)
    assert share.forget_user(user_hash("ann")) == 50
    assert share.forget_user(user_hash("ann")) == 0
    assert not (share.state()["user"] == user_hash("ann")).any()
    assert taken(share, ["bob"] * WINDOW) == ["bob"] * WINDOW


def flooded(user_share: float, honest_examples: int) -> tuple[OnlineLearner, float]:
    """A learner of whose examples nine in ten are one user's, all on one item, and that item's share of popularity."""
    learner = small_learner(small_settings(user_share=user_share))
    put(learner, NAMES)
    honest: list[Example] = stream(NAMES, honest_examples)
    offset, examples = 0, []
    for number, each in enumerate(honest):
        for user, item in [("flood", NAMES[0])] * 9 + [(f"u{number % 250}", each.item_id)]:
            examples.append(msgspec.structs.replace(each, user_id=user, item_id=item, offset=offset))
            offset += 1
    assert learner.learn("shop", examples) == len(examples)
    row = learner.table.row_of[NAMES[0]]
    return learner, float(learner.table.popularity.log_share(0, torch.tensor([row])).exp())


def test_one_users_flood_hardly_moves_what_is_popular_and_learnt() -> None:
    learner, share = flooded(0.02, 700)
    assert share < 0.4  # most of which is from before the window knew how many users there are
    assert learner.fair_share.refused > 0.8 * 9 * 700
    assert flooded(1.0, 100)[1] > 0.7


def test_made_up_ids_take_few_rows_and_an_item_that_has_a_record_gets_one_all_the_same() -> None:
    learner = small_learner(small_settings(model={"unlisted_items": 3, "items": 40}))
    put(learner, NAMES)
    known = len(learner.table)
    learner.learn("shop", [msgspec.structs.replace(each, item_id=f"junk-{number}")
                           for number, each in enumerate(stream(NAMES, 200))])  # fmt: skip
    assert len(learner.table) == known + 3
    assert learner.run.left_out == 197
    put(learner, ["junk-0", "new-1", "new-2"])  # one of them exists, and makes room for another
    learner.learn("shop", [msgspec.structs.replace(each, item_id="junk-9", offset=1000) for each in stream(NAMES, 1)])
    assert {"junk-9", "new-1", "new-2"} <= learner.table.row_of.keys()
    assert len(learner.table) == known + 6
