"""Who is in a control group is fixed, and anyone can work it out."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from schemas.control_group import in_control_group

USERS = [f"u-{number:05d}" for number in range(5000)]


def group(scenario: str, share: float) -> set[str]:
    return {user for user in USERS if in_control_group(user, scenario, share)}


def test_a_share_of_the_users_is_in_it() -> None:
    assert 0.18 < len(group("shop", 0.2)) / len(USERS) < 0.22
    assert group("shop", 0.0) == set()
    assert group("shop", 1.0) == set(USERS)


def test_who_is_in_it_stays_in_it_as_the_share_grows() -> None:
    assert group("shop", 0.1) < group("shop", 0.3) < group("shop", 0.5)


def test_each_scenario_draws_a_group_of_its_own() -> None:
    both = group("shop", 0.2) & group("news", 0.2)
    assert 0.02 < len(both) / len(USERS) < 0.06


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.floats(0, 1))
def test_it_is_what_its_description_says(user: str, share: float) -> None:
    digest = hashlib.blake2b(b"shop\0" + user.encode(), digest_size=8).hexdigest()
    assert in_control_group(user, "shop", share) == (int(digest, 16) / 2**64 < share)
