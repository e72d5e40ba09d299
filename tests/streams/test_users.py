"""What is remembered of a user."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import Event
from schemas.packed import unpack, unpack_times
from schemas.records import OtherVersion
from schemas.settings import Serve
from schemas.tables import Table
from streams.store import Store, StoredUser, open_engine
from streams.users import CLICKS_KEPT, SHOWN_KEPT, User, UserCache

LIMITS = Serve(seen=4, event_ids=3)
LENGTH = 5


def event(item: str = "i1", *, weight: float = 1.0, time: float = 0.0, event_id: str | None = None) -> Event:
    return Event(user_id="u", item_id=item, event="view", weight=weight, time=time, event_id=event_id)


def test_an_example_holds_the_history_as_it_was_before_its_event() -> None:
    user = User()
    user.apply(event("a", time=1.0), "shop", LIMITS, LENGTH)
    user.apply(event("b", time=2.0), "video", LIMITS, LENGTH)
    example = user.example(event("c", time=3.0), "shop", 4, 99, repeat=False)
    assert unpack(example.history) == ["a", "b"]
    assert unpack_times(example.history_times) == (1, 2)
    assert (example.partition, example.offset, example.item_id, unpack(example.excluded)) == (4, 99, "c", ["a"])


def test_the_history_given_to_an_example_is_the_newest_part() -> None:
    user = User()
    for item in "abc":
        user.apply(event(item), "shop", LIMITS, 2)
    example = user.example(event("d"), "shop", 0, 0, repeat=False)
    assert unpack(example.history) == ["b", "c"]
    assert len(unpack_times(example.history_times)) == 2


def test_what_stood_above_the_chosen_item_was_passed_over_once() -> None:
    user = User()
    user.show("shop", "list", 0.0, "abcde")
    seen = []
    for item, scenario, weight in (
        ("x", "shop", 1.0),  # from no list of ours
        ("c", "video", 1.0),  # that list was another scenario's
        ("b", "shop", -1.0),  # a dislike chooses nothing
        ("c", "shop", 1.0),
        ("a", "shop", 1.0),
        ("e", "shop", 1.0),
    ):
        chosen = event(item, weight=weight)
        example = user.example(chosen, scenario, 0, 0, repeat=True, impressions=True)
        assert user.example(chosen, scenario, 0, 0, repeat=True).passed_over == ""
        seen.append(unpack(example.passed_over))
        user.apply(chosen, scenario, LIMITS, LENGTH)
    assert seen == [[], [], [], ["a", "b"], [], ["d"]]


@given(st.lists(st.sampled_from("abcde"), unique=True), st.sampled_from("abcde"))
def test_a_list_is_parted_at_the_chosen_item_and_nowhere_else(shown: list[str], item: str) -> None:
    user = User()
    user.show("shop", "list", 0.0, shown)
    at = shown.index(item) if item in shown else -1
    passed_over = user.passed_over(event(item), "shop")
    user.apply(event(item), "shop", LIMITS, LENGTH)
    assert unpack(passed_over) == shown[: max(0, at)]
    assert [unpack(user.passed_over(event(each), "shop")) for each in shown[at + 1 :]] == [
        shown[at + 1 : later] for later in range(at + 1, len(shown))
    ]
    assert [user.passed_over(event(each), "shop") for each in shown[: at + 1]] == [""] * (at + 1)


def clicks(user: User, *events: tuple[str, float, str | None]) -> list[bool]:
    """Which of these (item, time, list that is named) count as clicks, with a window of 100 seconds."""
    return [user.click(event(item, time=time), "shop", named, 100.0) for item, time, named in events]


def test_an_act_on_an_item_of_the_newest_list_is_a_click_once_and_within_the_window() -> None:
    user = User()
    assert clicks(user, ("a", 0.0, None)) == [False]  # no list was ever sent
    user.show("shop", "first", 1000.0, "abc")
    assert clicks(user, ("a", 1001.0, None), ("a", 1002.0, None), ("b", 1100.0, None)) == [True, False, True]
    assert clicks(user, ("c", 1101.0, None), ("x", 1001.0, None)) == [False, False]  # too late; not in the list
    assert clicks(user, ("c", 999.0, None)) == [True]  # a producer's clock may be slow
    user.show("shop", "second", 2000.0, "abc")
    assert clicks(user, ("a", 2001.0, None)) == [True]  # of another list
    assert not user.click(event("b", time=2001.0), "video", None, 100.0)
    assert not user.click(event("b", weight=-1.0, time=2001.0), "shop", None, 100.0)


def test_a_list_that_an_event_names_is_the_one_that_was_clicked() -> None:
    user = User()
    user.show("shop", "newest", 1000.0, "abc")
    assert clicks(user, ("z", 9000.0, "older"), ("z", 9001.0, "older"), ("y", 9002.0, "older")) == [True, False, True]
    assert clicks(user, ("a", 1001.0, "newest"), ("a", 1002.0, None)) == [True, False]


def test_a_long_list_is_remembered_by_its_top() -> None:
    user = User()
    user.show("shop", "long", 0.0, [f"i{number}" for number in range(1000)])
    assert len(unpack(user.shown["shop"].items)) == SHOWN_KEPT


def test_a_dislike_excludes_for_good_and_is_no_taste() -> None:
    user = User()
    user.apply(event("a", weight=-1.0), "shop", LIMITS, LENGTH)
    user.apply(event("a", weight=3.0), "shop", LIMITS, LENGTH)
    assert unpack(user.excluded("shop", repeat=True)) == unpack(user.excluded("shop", repeat=False)) == ["a"]
    assert unpack(user.excluded("video", repeat=False)) == []
    user.apply(event("b"), "shop", LIMITS, LENGTH)
    user.apply(event("b", weight=-1.0), "shop", LIMITS, LENGTH)
    assert unpack(user.excluded("shop", repeat=True)) == unpack(user.excluded("shop", repeat=False)) == ["a", "b"]
    disliked = User()
    disliked.apply(event("b", weight=-1.0), "shop", LIMITS, LENGTH)
    assert unpack(disliked.items) == []


def test_items_acted_on_may_return_only_where_repeats_are_allowed() -> None:
    user = User()
    user.apply(event("a"), "shop", LIMITS, LENGTH)
    assert unpack(user.excluded("shop", repeat=False)) == ["a"]
    assert unpack(user.excluded("shop", repeat=True)) == []


def test_an_example_says_what_may_return_in_its_scenario_and_nowhere_else() -> None:
    user = User()
    user.apply(event("a"), "shop", LIMITS, LENGTH)
    user.apply(event("b"), "video", LIMITS, LENGTH)
    used = [
        unpack(user.example(event("c"), scenario, 0, 0, repeat=repeat).used)
        for scenario, repeat in (("shop", True), ("video", True), ("news", True), ("shop", False))
    ]
    assert used == [["a"], ["b"], [], []]
    user.apply(event("a", weight=-1.0), "shop", LIMITS, LENGTH)
    assert unpack(user.example(event("c"), "shop", 0, 0, repeat=True).used) == []


def test_an_event_id_is_forgotten_after_as_many_others_as_are_kept() -> None:
    user = User()
    for number in range(3):
        user.apply(event(event_id=f"e{number}"), "shop", LIMITS, LENGTH)
    assert all(user.has_event_id(f"e{number}") for number in range(3))
    user.apply(event(event_id="e3"), "video", LIMITS, LENGTH)
    assert not user.has_event_id("e0")
    assert user.has_event_id("e3")


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["shop", "video"]), st.booleans()), max_size=60))
def test_a_state_never_grows_past_its_caps(acts: list[tuple[int, str, bool]]) -> None:
    user = User()
    for number, (item, scenario, liked) in enumerate(acts):
        user.show(scenario, str(number), 0.0, [f"i{item}"])
        user.click(event(f"i{item}"), scenario, None, 1.0)
        user.apply(event(f"i{item}", weight=1.0 if liked else -1.0, event_id=str(number)), scenario, LIMITS, LENGTH)
    assert len(unpack(user.items)) == len(unpack_times(user.times)) <= LENGTH
    assert all(len(unpack(acted)) <= LIMITS.seen for acted in (*user.used.values(), *user.disliked.values()))
    assert len(user.event_ids) <= 8 * LIMITS.event_ids
    assert len(user.clicked) <= 8 * CLICKS_KEPT
    assert len(user.shown) <= 2


@pytest.fixture
def store(tmp_path: Path) -> Store:
    engine = open_engine(f"sqlite:///{tmp_path / 'users.db'}")
    Table.metadata.create_all(engine)
    return Store(engine, "serve", "me")


def test_what_a_failed_batch_did_to_users_is_gone_once_the_cache_is_cleared(store: Store) -> None:
    cache = UserCache(store, 10)
    cache.load(["u"])["u"].apply(event("a"), "shop", LIMITS, LENGTH)
    cache.clear()
    assert cache.load(["u"])["u"].items == ""
    store.close()


def test_a_committed_state_is_read_again_only_after_it_was_changed_elsewhere(store: Store) -> None:
    """Case E29: what another worker knows of a user is known to the next batch here, before anything is published."""
    cache = UserCache(store, 10)
    users = cache.load(["u"])
    users["u"].apply(event("a"), "shop", LIMITS, LENGTH)
    rows = cache.rows(users)
    with store.engine.begin() as connection:
        store.save_users(connection, rows)
    cache.keep(rows)
    with store.engine.begin() as connection:
        connection.execute(sa.text("UPDATE users SET state = 'never read'"))
    assert unpack(cache.load(["u"])["u"].items) == ["a"]
    assert cache.rows(users)["u"].version == 2
    with store.engine.begin() as connection:
        store.save_users(connection, {"u": StoredUser(b"\x90", 2)})
    assert cache.load(["u"])["u"] == User()
    assert cache.rows(users)["u"].version == 3
    store.close()


def test_a_state_that_another_version_wrote_is_named(store: Store) -> None:
    with store.engine.begin() as connection:
        store.save_users(connection, {"ann": StoredUser(b"\x90", 1), "bob": StoredUser(b"\x91\x01", 1)})
    assert UserCache(store, 2).load(["ann"])["ann"] == User()  # what is left out has its default
    with pytest.raises(OtherVersion, match="the state of a user was written by another version"):
        UserCache(store, 2).load(["bob"])
    store.close()


def test_only_who_has_a_row_has_one(store: Store) -> None:
    cache = UserCache(store, 10)
    users = cache.load(["ann", "bob"])
    rows = cache.rows({"ann": users["ann"]})
    with store.engine.begin() as connection:
        store.save_users(connection, rows)
    cache.keep(rows)
    assert [cache.has_row(name) for name in ("ann", "bob")] == [True, False]
    store.close()


def test_the_cache_keeps_the_users_used_last(store: Store) -> None:
    cache = UserCache(store, 2)
    for name in ("a", "b", "c"):
        cache.keep(cache.rows(cache.load([name])))
    assert len(cache) == 2
    store.close()


def test_an_example_says_since_when_its_user_is_known() -> None:
    user = User()
    assert user.example(event("a", time=5.0), "shop", 0, 0, repeat=False).user_since == 5.0
    user.apply(event("a", time=5.0), "shop", LIMITS, 20)
    user.apply(event("b", time=3.0), "shop", LIMITS, 20)  # late, and all the same the first
    assert user.example(event("c", time=9.0), "shop", 0, 0, repeat=False).user_since == 3.0
