"""The three-way merge, by cases and by properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisession.merge import changed, merge

from ..support.rows import row

CASES = [
    ("nobody changed", {"k": 1}, {"k": 1}, {"k": 1}, {"k": 1}),
    ("we changed", {"k": 1}, {"k": 2}, {"k": 1}, {"k": 2}),
    ("they changed", {"k": 1}, {"k": 1}, {"k": 2}, {"k": 2}),
    ("both changed: the later save", {"k": 1}, {"k": 2}, {"k": 3}, {"k": 2}),
    ("we deleted", {"k": 1}, {}, {"k": 1}, {}),
    ("they deleted", {"k": 1}, {"k": 1}, {}, {}),
    ("both deleted", {"k": 1}, {}, {}, {}),
    ("we deleted, they changed: deleted", {"k": 1}, {}, {"k": 2}, {}),
    ("we changed, they deleted: deleted", {"k": 1}, {"k": 2}, {}, {}),
    ("both added", {}, {"k": 1}, {"k": 2}, {"k": 1}),
    ("different keys", {}, {"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
    ("1 to True is a change", {"k": 1}, {"k": 1}, {"k": True}, {"k": True}),
    ("1 to 1.0 is a change", {"k": 1}, {"k": 1.0}, {"k": 1}, {"k": 1.0}),
    ("they sorted", {"k": {"b": 1, "a": 2}}, {"k": {"b": 1, "a": 2}}, {"k": {"a": 2, "b": 1}}, {"k": {"a": 2, "b": 1}}),
    ("we sorted", {"k": {"b": 1, "a": 2}}, {"k": {"a": 2, "b": 1}}, {"k": {"b": 1, "a": 2}}, {"k": {"a": 2, "b": 1}}),
    ("the order of an object's keys is none", {"k": {"a": 1, "b": 2}}, {"k": {"b": 2, "a": 1}}, {"k": 3}, {"k": 3}),
]


@row("C4")
@pytest.mark.parametrize(("base", "ours", "theirs", "merged"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_merge(base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any], merged: dict[str, Any]) -> None:
    """Compared by repr, to which 1 and True differ."""
    assert repr(sorted(merge(base, ours, theirs).items())) == repr(sorted(merged.items()))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.just(1.0) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("xy", max_size=1), inner, max_size=2),
    max_leaves=4,
)
sessions = st.dictionaries(st.sampled_from("abcd"), values, max_size=4)


@row("C3")
@given(sessions, sessions, sessions)
def test_every_key_is_as_one_side_has_it(base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Whole values, never a mix; and a side that changed nothing decides nothing."""
    merged = merge(base, ours, theirs)

    for key in {*base, *ours, *theirs}:
        mine, other = changed(base, ours, key), changed(base, theirs, key)
        if (mine and key not in ours) or (other and key not in theirs):
            assert key not in merged
        elif mine:
            assert not changed(ours, merged, key)
        else:
            assert not changed(theirs, merged, key)


@given(sessions, sessions)
def test_with_one_side_idle_the_other_wins(base: dict[str, Any], side: dict[str, Any]) -> None:
    """No conflict, no surprise."""
    assert repr(sorted(merge(base, side, base).items())) == repr(sorted(side.items()))
    assert sorted(merge(base, base, side)) == sorted(side)


def test_what_nobody_changed_stays_the_same_object() -> None:
    """The app may hold it, and change it next."""
    cart: list[int] = []

    assert merge({"cart": []}, {"cart": cart}, {"cart": [], "new": 1})["cart"] is cart
