"""`MemoryStore`: its verbs, what is evicted, and what it costs in entries and steps, never in seconds."""

from __future__ import annotations

import dis
import gc
import random
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from math import inf
from typing import Any, NamedTuple
from zlib import crc32

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from minisession import MemoryStore, StoreUnavailable
from minisession.stores import memory, memory_order
from minisession.stores.base import TOMBSTONE, TOMBSTONE_LIFE, ListingStore
from minisession.stores.memory import FREED_PER_CALL, SHARD_SIZE

from ..support.browser import Clock
from ..support.memory_store import entries, ordered, parts, sound, steps, watched
from ..support.rows import row

HOUR = 3600.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock=clock)


def full(clock: Clock, *sessions: tuple[str, str | None]) -> MemoryStore:
    """A store with no room but for these sessions, given with their users."""
    store = MemoryStore(max_sessions=len(sessions), clock=clock)
    for id, user in sessions:
        assert store.create(id, b"data", clock() + HOUR, user)
    return store


def victim(store: MemoryStore, user: str | None = None) -> str:
    """Create one session too many, and return which had to go."""
    before = set(store.ids())
    assert store.create("one too many", b"data", inf, user)
    assert "one too many" in store.ids()
    (gone,) = before - set(store.ids())
    return gone


def listed(store: MemoryStore, user: str | None = None) -> list[str]:
    sound(store)
    return sorted(store.ids(user))


class TestVerbs:
    def test_what_was_created_is_loaded(self, store: MemoryStore, clock: Clock) -> None:
        assert store.load("id") is None
        assert store.create("id", b"data", clock() + HOUR)
        assert store.load("id") == (b"data", clock() + HOUR)

    def test_an_id_that_is_taken_is_not_created_again(self, store: MemoryStore) -> None:
        assert store.create("id", b"first", inf)
        assert not store.create("id", b"second", inf)
        assert store.load("id") == (b"first", inf)

    def test_only_what_was_seen_is_replaced(self, store: MemoryStore) -> None:
        assert not store.replace("id", TOMBSTONE, b"new", inf)
        store.create("id", b"old", inf)
        assert not store.replace("id", b"other", b"new", inf)
        assert store.replace("id", b"old", b"new", HOUR * 1e6)
        assert store.load("id") == (b"new", HOUR * 1e6)

    def test_only_what_was_seen_is_touched(self, store: MemoryStore) -> None:
        assert not store.touch("id", b"data", inf)
        store.create("id", b"data", HOUR * 1e6)
        assert not store.touch("id", b"other", inf)
        assert store.touch("id", b"data", inf)
        assert store.load("id") == (b"data", inf)

    def test_what_was_deleted_is_gone(self, store: MemoryStore) -> None:
        store.create("id", b"data", inf, "ann")
        assert store.delete("id")
        assert not store.delete("id")
        assert (store.load("id"), list(store.ids()), list(store.ids("ann")), len(store)) == (None, [], [], 0)

    def test_closing_forgets_nothing(self, store: MemoryStore) -> None:
        store.create("id", b"data", inf)
        store.close()
        assert store.load("id") == (b"data", inf)

    def test_it_is_a_listing_store(self, store: MemoryStore) -> None:
        listing: ListingStore = store  # mypy is the test
        assert list(listing.ids()) == []

    @pytest.mark.parametrize(
        ("arguments", "error", "named"),
        [
            ({"max_sessions": 0}, ValueError, "max_sessions"),
            ({"max_sessions": -1}, ValueError, "max_sessions"),
            ({"max_sessions": 1.5}, TypeError, "max_sessions"),
            ({"max_sessions": True}, TypeError, "max_sessions"),
            ({"max_sessions": None}, TypeError, "max_sessions"),
            ({"max_bytes": 0}, ValueError, "max_bytes"),
            ({"max_bytes": 1e6}, TypeError, "max_bytes"),
            ({"clock": 12.0}, TypeError, "clock"),
        ],
    )
    def test_a_wrong_argument_is_named(self, arguments: dict[str, Any], error: type[Exception], named: str) -> None:
        with pytest.raises(error, match=named):
            MemoryStore(**arguments)


class TestExpiry:
    VERBS: tuple[Callable[[MemoryStore], object], ...] = (
        lambda store: store.load("id"),
        lambda store: store.replace("id", b"data", b"new", inf),
        lambda store: store.touch("id", b"data", inf),
        lambda store: store.delete("id"),
        lambda store: list(store.ids()),
        lambda store: list(store.ids("ann")),
    )

    @pytest.mark.parametrize("verb", VERBS)
    def test_a_record_is_absent_to_every_verb_the_moment_it_expires(
        self, store: MemoryStore, clock: Clock, verb: Callable[[MemoryStore], object]
    ) -> None:
        store.create("id", b"data", clock() + 10, "ann")
        clock.advance(9.999)
        assert verb(store)
        store.clear()
        store.create("id", b"data", clock() + 10, "ann")
        clock.advance(10)
        assert not verb(store)

    def test_an_expired_id_can_be_created_again(self, store: MemoryStore, clock: Clock) -> None:
        store.create("id", b"old", clock() + 10, "ann")
        clock.advance(10)
        assert store.create("id", b"new", clock() + 10)
        assert store.load("id") == (b"new", clock() + 10)
        assert (list(store.ids("ann")), len(store)) == ([], 1)

    def test_a_record_created_too_late_was_never_there(self, store: MemoryStore, clock: Clock) -> None:
        for late in (0.0, 1.0, HOUR, clock(), 1e300, inf):
            assert store.create("id", b"data", clock() - late)
            assert store.load("id") is None
        assert len(store) == 0

    @row("T7")
    def test_a_touched_session_outlives_those_it_came_with(self, store: MemoryStore, clock: Clock) -> None:
        """Its place in the order may lag behind, and must not end it."""
        for n in range(85):
            store.create(f"{n}", b"data", clock() + HOUR)
        store.touch("7", b"data", clock() + 2 * HOUR)
        store.touch("8", b"data", inf)
        clock.advance(HOUR)
        assert (store.load("x"), sorted(store.ids()), len(store)) == (None, ["7", "8"], 2)
        store.touch("7", b"data", clock() + 3 * HOUR)
        clock.advance(2 * HOUR)
        assert (store.load("x"), sorted(store.ids())) == (None, ["7", "8"])
        clock.advance(HOUR)
        assert (store.load("x"), len(store)) == (None, 1)

    def test_a_shortened_session_is_freed_at_its_new_time(self, store: MemoryStore, clock: Clock) -> None:
        for before in (HOUR, inf):
            store.create("id", b"data", clock() + before)
            store.touch("id", b"data", clock() + 10)
            clock.advance(9)
            assert (store.load("other"), len(store)) == (None, 1)
            clock.advance(1)
            assert (store.load("other"), len(store)) == (None, 0)

    def test_what_expired_is_freed_by_the_next_call_whatever_its_neighbours(
        self, store: MemoryStore, clock: Clock
    ) -> None:
        """To the second, in any order, and with sessions that are touched and shortened before and after."""
        rng = random.Random(1)
        expiry = {f"{n}": clock() + rng.choice([15, 100, 1000]) * rng.random() for n in range(500)}
        for id, expires_at in expiry.items():
            store.create(id, b"data", expires_at)
        while expiry:
            clock.advance(0.25)
            store.load("x")
            expiry = {id: expires_at for id, expires_at in expiry.items() if expires_at > clock()}
            assert len(store) == len(expiry)
            if expiry:
                id = rng.choice(list(expiry))
                expiry[id] = clock() + 10 * rng.random()
                assert store.touch(id, b"data", expiry[id])

    def test_what_is_not_yet_freed_is_absent_all_the_same(self, clock: Clock) -> None:
        """One call frees only some of those that expire in the same second."""
        store = full(clock, *((f"{n}", "ann" if n % 40 == 0 else None) for n in range(3000)))
        clock.advance(HOUR)
        assert store.load("1999") is None
        assert not store.replace("1998", b"data", b"new", inf)
        assert not store.touch("1997", b"data", inf)
        assert not store.delete("1996")
        assert not store.rotate("1994", b"data", "new", b"new", inf, inherits=True)
        assert list(store.ids()) == list(store.ids("ann")) == []
        assert store.create("1995", b"new", inf)
        assert len(store) > 1000
        store.purge()
        assert (list(store.ids()), list(store.ids("ann")), len(store)) == (["1995"], [], 1)

    def test_what_lives_stays_while_others_are_not_yet_freed(self, clock: Clock) -> None:
        """Each of these calls comes upon it when more has expired than one call frees."""
        store = full(clock, *((f"{n}", None) for n in range(3000)))
        clock.advance(HOUR - 1)
        for id in ("a", "b"):
            store.create(id, b"data", inf)
        clock.advance(1)
        assert not store.create("a", b"new", inf)
        assert store.heir("a") is None
        assert store.touch("a", b"data", inf)
        assert not store.rotate("a", b"data", "b", b"new", inf, inherits=True)
        assert store.rotate("a", b"data", "c", b"new", inf, inherits=True)
        assert store.rotate("b", b"data", "999", b"new", inf, inherits=True)  # that has expired
        assert len(store) > 2000
        assert listed(store) == ["999", "c"]

    @row("T1")
    def test_a_clock_that_jumps_back_ends_no_session(self, store: MemoryStore, clock: Clock) -> None:
        store.create("a", b"data", clock() + HOUR)
        clock.advance(-24 * HOUR)
        store.create("b", b"data", clock() + HOUR)
        assert sorted(store.ids()) == ["a", "b"]
        clock.advance(HOUR)
        assert (store.load("x"), list(store.ids()), len(store)) == (None, ["a"], 1)
        clock.advance(24 * HOUR)
        assert (store.load("x"), len(store)) == (None, 0)

    @pytest.mark.parametrize("expires_at", [5e-324, 1e-300, 1.0, 1e300, sys.float_info.max, 2**40, inf])
    def test_any_time_is_a_time(self, expires_at: float) -> None:
        clock = Clock(0.0)
        store = MemoryStore(clock=clock)
        assert store.create("id", b"data", expires_at)
        assert store.load("id") == (b"data", expires_at)
        clock.now = -1e308
        assert store.touch("id", b"data", expires_at)
        clock.now = min(expires_at, sys.float_info.max)
        assert (store.load("id") is None) == (expires_at < inf)


class TestTombstones:
    @pytest.fixture
    def buried(self, clock: Clock) -> MemoryStore:
        """A full store, in which ``a`` was replaced by ``c``."""
        store = full(clock, ("a", "ann"), ("b", None))
        assert store.rotate("a", b"data", "c", b"data", clock() + HOUR, "ann", inherits=True)
        return store

    def test_a_tombstone_is_not_a_session(self, buried: MemoryStore, clock: Clock) -> None:
        assert buried.load("a") == (TOMBSTONE, clock() + TOMBSTONE_LIFE)
        assert (listed(buried), listed(buried, "ann"), len(buried)) == (["b", "c"], ["c"], 2)

    def test_a_tombstone_refuses_its_id_until_it_expires(self, buried: MemoryStore, clock: Clock) -> None:
        clock.advance(TOMBSTONE_LIFE - 0.001)
        assert not buried.create("a", b"data", inf)
        assert not buried.rotate("b", b"data", "a", b"data", inf, inherits=True)
        clock.advance(0.001)
        assert buried.create("a", b"data", inf)

    def test_tombstones_and_heirs_take_neither_sessions_nor_bytes(self, clock: Clock) -> None:
        store = MemoryStore(max_sessions=2, max_bytes=8, clock=clock)
        for id in ("a", "b"):
            store.create(id, b"data", clock() + HOUR)
        for n in range(100):
            assert store.rotate(f"{n - 1}" if n else "a", b"data", f"{n}", b"data", clock() + HOUR, inherits=True)
        assert (listed(store), len(store)) == (["99", "b"], 2)
        assert store.load("50") == (TOMBSTONE, clock() + TOMBSTONE_LIFE)

    def test_a_tombstone_is_not_evicted(self, buried: MemoryStore, clock: Clock) -> None:
        for n in range(10):
            buried.create(f"{n}", b"data", inf)
        assert buried.load("a") == (TOMBSTONE, clock() + TOMBSTONE_LIFE)
        assert buried.heir("a") == "c"

    def test_a_tombstone_is_freed_like_a_session_but_not_counted(self, buried: MemoryStore, clock: Clock) -> None:
        clock.advance(TOMBSTONE_LIFE)
        assert buried.purge() == 0
        assert (buried.load("a"), buried.heir("a")) == (None, None)
        buried.rotate("c", b"data", "d", b"data", inf, inherits=True)
        assert buried.clear() == 2
        assert buried.load("c") is None

    def test_only_a_tombstone_has_an_heir_and_only_if_it_was_to_inherit(self, clock: Clock, store: MemoryStore) -> None:
        for id in ("a", "b"):
            store.create(id, b"data", clock() + HOUR, "ann")
        store.rotate("a", b"data", "heir \ud800", b"data", clock() + HOUR, inherits=True)
        store.rotate("b", b"data", "new", b"data", clock() + HOUR, inherits=False)
        assert [store.heir(id) for id in ("a", "b", "heir \ud800", "new", "none")] == ["heir \ud800", *[None] * 4]
        clock.advance(TOMBSTONE_LIFE)
        assert store.heir("a") is None

    def test_what_is_empty_was_never_seen(self, buried: MemoryStore) -> None:
        for id in ("a", "b", "none"):
            assert not buried.replace(id, TOMBSTONE, b"new", inf)
            assert not buried.touch(id, TOMBSTONE, inf)
            assert not buried.rotate(id, TOMBSTONE, "new", b"new", inf, inherits=True)
        assert not buried.delete("a")
        assert listed(buried) == ["b", "c"]


class TestEviction:
    def test_what_expired_goes_first(self, clock: Clock) -> None:
        """Also the most recently used, the user's own, and one whose neighbours have years left."""
        store = full(clock, ("a", None), ("b", "ann"), ("c", "bob"), ("d", None))
        store.touch("c", b"data", clock() + 10, "bob")
        clock.advance(10)
        assert store.create("new", b"data", inf, "ann")
        assert sorted(store.ids()) == ["a", "b", "d", "new"]

    def test_what_has_expired_goes_before_what_has_no_user(self, clock: Clock) -> None:
        """Also where more has expired than one call frees."""
        store = full(clock, *((f"{n}", f"user {n}") for n in range(300)), ("a", None))
        clock.advance(10)
        for n in range(300):
            store.touch(f"{n}", b"data", clock() + 10, f"user {n}")
        clock.advance(10)
        store._max_bytes = 4 * 302  # so that the 128 that are freed in any case are not enough
        assert store.create("new", b"x" * 4 * 150, inf)
        assert listed(store) == ["a", "new"] or len(store) > 2
        assert store.load("a")

    def test_many_expired_sessions_make_room_for_many(self, clock: Clock) -> None:
        store = full(clock, *((f"{n}", None) for n in range(1000)))
        clock.advance(10)
        for n in range(500):
            store.touch(f"{n}", b"data", clock() + 1)
        clock.advance(1)
        for n in range(500):
            store.create(f"new {n}", b"data", inf)
        assert len([id for id in store.ids() if not id.startswith("new")]) == 500

    def test_next_what_has_no_user_and_would_end_first(self, clock: Clock) -> None:
        store = full(clock, ("ann's", "ann"), ("a", None), ("b", None))
        assert store.touch("a", b"data", clock() + 2 * HOUR)
        assert victim(store, "ann") == "b"

    @pytest.mark.parametrize(
        "use",
        [
            lambda store, end: store.touch("a", b"data", end),
            lambda store, end: store.replace("a", b"data", b"new", end),
            lambda store, end: store.rotate("a", b"data", "a2", b"data", end, inherits=True),
        ],
    )
    @pytest.mark.parametrize("longer", [1, 60, HOUR, inf])
    def test_a_session_that_is_made_to_live_longer_ends_later(
        self, clock: Clock, use: Callable[[MemoryStore, float], object], longer: float
    ) -> None:
        """However little longer: its place may lag behind, but not against one that it meets."""
        store = full(clock, ("a", None), ("b", None))
        assert use(store, clock() + HOUR + longer)
        assert victim(store) == "b"

    @pytest.mark.parametrize(
        "attempt",
        [
            lambda store: store.load("a"),
            lambda store: store.create("a", b"data", inf),
            lambda store: store.touch("a", b"other", inf),
            lambda store: store.replace("a", b"other", b"new", inf),
            lambda store: store.rotate("a", b"other", "new", b"new", inf, inherits=True),
            lambda store: list(store.ids()),
        ],
    )
    def test_what_fails_and_what_reads_protects_nothing(
        self, clock: Clock, attempt: Callable[[MemoryStore], object]
    ) -> None:
        store = full(clock, ("a", None), ("b", None))
        attempt(store)
        assert victim(store) == "a"

    def test_next_the_users_own_that_would_end_first(self, clock: Clock) -> None:
        """The newest, if that is the one."""
        store = full(clock, ("bob's", "bob"), ("ann 1", "ann"), ("ann 2", "ann"))
        store.touch("ann 2", b"data", clock() + HOUR - 1, "ann")
        store.touch("bob's", b"data", clock() + 1, "bob")
        assert victim(store, "ann") == "ann 2"
        assert store.create("ann 3", b"data", inf, "ann")
        assert listed(store) == ["ann 3", "bob's", "one too many"]

    def test_else_whichever_would_end_first(self, clock: Clock) -> None:
        for user in (None, "eve"):
            store = full(clock, ("bob's", "bob"), ("ann's", "ann"))
            store.touch("ann's", b"data", clock() + 1, "ann")
            assert victim(store, user) == "ann's"

    def test_a_login_protects_a_session_and_a_logout_exposes_it(self, clock: Clock) -> None:
        store = full(clock, ("a", None), ("b", None), ("c", "ann"))
        store.replace("a", b"data", b"data", inf, "ann")
        assert victim(store) == "b"
        store.replace("c", b"data", b"data", inf, None)
        store.delete("one too many")
        store.create("d", b"data", inf)
        assert victim(store) == "c"

    def test_what_would_end_first_is_found_however_many_there_are(self, clock: Clock) -> None:
        rng = random.Random(2)
        size = 2 * SHARD_SIZE
        store = full(clock, *((f"{n}", None) for n in range(size)))
        ends = {f"{n}": clock() + rng.choice([HOUR, 2 * HOUR, 9 * HOUR]) * (1 + rng.random()) for n in range(size)}
        for id in rng.sample(sorted(ends), size):
            store.touch(id, b"data", ends[id])
        for n, id in enumerate(sorted(ends, key=lambda id: ends[id])[: size // 2]):
            assert store.load(id)
            store.create(f"new {n}", b"data", inf)
            assert store.load(id) is None
        sound(store)

    @row("T3", "T9")
    def test_a_login_in_a_full_store_keeps_what_it_logs_in(self, clock: Clock) -> None:
        """`regenerate` gives a session another id: neither that nor the new one is in the way."""
        store = full(clock, ("a", None), *((f"{n}", f"user {n}") for n in range(10)))
        assert store.rotate("a", b"data", "b", b"more data", clock() + HOUR, "ann", inherits=True)
        assert listed(store, "ann") == ["b"]
        assert len(store) == 11

    @row("T9")
    @pytest.mark.parametrize("user", [None, "ann"])
    def test_a_rotation_evicts_nothing_for_the_number_of_sessions(self, clock: Clock, user: str | None) -> None:
        store = full(clock, *((f"{n}", (None, "ann", "bob")[n % 3]) for n in range(9)))
        for n in range(9):
            assert store.rotate(f"{n}", b"data", f"new {n}", b"data", clock() + HOUR, user, inherits=n % 2 == 0)
        assert listed(store) == [f"new {n}" for n in range(9)]

    def test_a_full_store_replaces_without_evicting(self, clock: Clock) -> None:
        store = full(clock, ("a", None), ("b", None))
        assert store.replace("a", b"data", b"new", inf, "ann")
        assert not store.create("b", b"data", inf)
        assert sorted(store.ids()) == ["a", "b"]

    def test_one_session_has_room_in_a_store_for_one(self, clock: Clock) -> None:
        store = full(clock, ("a", "ann"))
        assert victim(store) == "a"
        assert len(store) == 1
        assert store.rotate("one too many", b"data", "another", b"data", inf, "bob", inherits=True)
        assert listed(store) == ["another"]


class TestShare:
    """No user holds more than a hundredth of the sessions, or 100 if that is more."""

    @pytest.fixture
    def at_share(self, clock: Clock) -> MemoryStore:
        """With 100 of ann's sessions, of which ``0`` ends first."""
        store = MemoryStore(max_sessions=1000, clock=clock)
        for n in range(100):
            store.create(f"{n}", b"data", clock() + HOUR + n, "ann")
        store.create("other", b"data", clock() + 1, "bob")
        store.create("anonymous", b"data", clock() + 1)
        return store

    @row("P20")
    @pytest.mark.parametrize(
        "joins",
        [
            lambda store: store.create("new", b"data", inf, "ann"),
            lambda store: store.replace("other", b"data", b"new!", inf, "ann"),
            lambda store: store.touch("anonymous", b"data", inf, "ann"),
            lambda store: store.rotate("anonymous", b"data", "new", b"data", inf, "ann", inherits=True),
        ],
    )
    def test_one_more_takes_the_place_of_the_users_own_that_would_end_first(
        self, at_share: MemoryStore, joins: Callable[[MemoryStore], object]
    ) -> None:
        at_share.touch("0", b"data", inf, "ann")
        assert joins(at_share)
        assert len(listed(at_share, "ann")) == 100
        assert at_share.load("1") is None
        assert at_share.load("0")

    def test_a_user_has_no_more_where_all_sessions_are_the_users(self, clock: Clock) -> None:
        store = MemoryStore(max_sessions=1000, clock=clock)
        for n in range(101):
            assert store.create(f"{n}", b"data", clock() + HOUR + n, "ann")
        assert len(store) == 100
        assert store.load("0") is None

    @row("T3")
    @pytest.mark.parametrize(
        "stays",
        [
            lambda store: store.replace("0", b"data", b"new!", inf, "ann"),
            lambda store: store.touch("0", b"data", 2e9, "ann"),
            lambda store: store.rotate("0", b"data", "new", b"data", 2e9, "ann", inherits=True),
            lambda store: store.create("new", b"data", inf, "bob"),
            lambda store: store.create("new", b"data", inf),
        ],
    )
    def test_what_is_the_users_already_costs_none_of_the_others(
        self, at_share: MemoryStore, stays: Callable[[MemoryStore], object]
    ) -> None:
        assert stays(at_share)
        assert len(listed(at_share, "ann")) == 100
        assert at_share.load("other")
        assert at_share.load("anonymous")

    def test_what_has_expired_or_left_counts_no_more(self, at_share: MemoryStore, clock: Clock) -> None:
        at_share.delete("50")
        at_share.rotate("51", b"data", "bob's", b"data", inf, "bob", inherits=True)
        clock.advance(HOUR + 1)  # the ends of 0 and 1
        for n in range(4):
            at_share.create(f"new {n}", b"data", inf, "ann")
        assert len(listed(at_share, "ann")) == 100
        assert at_share.load("2")

    @row("T11")
    @pytest.mark.parametrize(("sessions", "share"), [(1, 100), (9_999, 100), (10_000, 100), (30_000, 300)])
    def test_a_share_is_a_hundredth_or_a_hundred(self, clock: Clock, sessions: int, share: int) -> None:
        store = MemoryStore(max_sessions=sessions, clock=clock)
        store._max_sessions = 1000  # a share is what counts here
        for n in range(share + 50):
            store.create(f"{n}", b"data", clock() + HOUR + n % 7, "ann")
            store.create(f"bob {n}", b"data", inf, "bob")
        assert len(listed(store, "ann")) == len(listed(store, "bob")) == share

    @row("T11")
    @pytest.mark.parametrize("lifetimes", [[HOUR], [HOUR, 9 * HOUR, 300 * HOUR]])
    def test_a_login_costs_no_more_the_larger_the_share(
        self, clock: Clock, lifetimes: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So many sessions as one may have are neither looked through nor sorted at each login."""
        # Python's own hash is another one in each process, and with it the neighbours in an order.
        hashed = lambda text: crc32(text if isinstance(text, bytes) else text.encode())  # noqa: E731  # two kinds of text
        monkeypatch.setattr(memory, "hash", hashed, raising=False)

        def most_steps(sessions: int) -> int:
            store = MemoryStore(max_sessions=sessions, clock=clock)
            for n in range(sessions // 100 + 50):
                clock.advance(0.1)
                store.create(f"{n}", b"data", clock() + lifetimes[n % len(lifetimes)], "ann")
                store.create(f"bob {n}", b"data", clock() + HOUR, f"bob {n}")
            assert len(list(store.ids("ann"))) == sessions // 100
            ends = [clock() + lifetimes[n % len(lifetimes)] for n in range(100)]
            calls = [partial(store.create, f"x {n}", b"data", end, "ann") for n, end in enumerate(ends)]
            return max(steps(store, call) for call in calls)

        assert most_steps(100_000) < 2 * most_steps(10_000)


class TestBytes:
    """No more bytes of records than ``max_bytes``."""

    @pytest.fixture
    def store(self, clock: Clock) -> MemoryStore:
        """Full to the byte, with ``a`` ending first."""
        store = MemoryStore(max_bytes=100, clock=clock)
        for n, id in enumerate("abcde"):
            store.create(id, b"x" * 20, clock() + HOUR + n, "ann")
        return store

    def test_what_fits_evicts_nothing(self, store: MemoryStore, clock: Clock) -> None:
        assert listed(store) == [*"abcde"]
        assert store.touch("a", b"x" * 20, inf, "a user with a name that is longer than any record")
        assert store.replace("b", b"x" * 20, b"y" * 20, inf)
        assert store.rotate("c", b"x" * 20, "f", b"z" * 20, inf, "bob", inherits=True)
        assert listed(store) == [*"abdef"]

    @row("T3")
    @pytest.mark.parametrize(
        ("grows", "left"),
        [
            (lambda store: store.create("new", b"y" * 30, inf, "eve"), ["c", "d", "e", "new"]),
            (lambda store: store.replace("c", b"x" * 20, b"y" * 50, inf, "eve"), ["c", "d", "e"]),
            (lambda store: store.rotate("d", b"x" * 20, "new", b"y" * 50, inf, inherits=True), ["c", "e", "new"]),
            (lambda store: store.rotate("a", b"x" * 20, "new", b"y" * 30, inf, inherits=True), ["c", "d", "e", "new"]),
        ],
    )
    def test_what_grows_makes_as_much_room_as_it_needs(
        self, store: MemoryStore, grows: Callable[[MemoryStore], object], left: list[str]
    ) -> None:
        assert grows(store)
        assert listed(store) == left

    @row("T9")
    def test_no_call_evicts_what_it_writes(self, store: MemoryStore) -> None:
        assert store.replace("a", b"x" * 20, b"y" * 90, inf, "ann")
        assert listed(store) == ["a"]
        assert store.rotate("a", b"y" * 90, "b", b"z" * 100, 1.0, inherits=True)
        assert store.create("c", b"z" * 100, inf)
        assert listed(store) == ["c"]

    @row("T11")
    @pytest.mark.parametrize(
        "grows",
        [
            lambda store: store.create("new", b"y" * 101, inf),
            lambda store: store.replace("a", b"x" * 20, b"y" * 101, inf),
            lambda store: store.rotate("a", b"x" * 20, "new", b"y" * 101, inf, inherits=True),
        ],
    )
    def test_what_would_never_fit_is_refused_before_anything_is_evicted(
        self, store: MemoryStore, grows: Callable[[MemoryStore], object]
    ) -> None:
        with pytest.raises(StoreUnavailable, match="max_bytes=100"):
            grows(store)
        assert listed(store) == [*"abcde"]

    def test_what_has_expired_gives_its_bytes_back(self, store: MemoryStore, clock: Clock) -> None:
        clock.advance(HOUR + 2)
        assert store.create("new", b"y" * 60, inf)
        assert listed(store) == ["d", "e", "new"]

    @row("P20")
    def test_anonymous_sessions_make_room_before_those_of_users(self, store: MemoryStore, clock: Clock) -> None:
        store.touch("e", b"x" * 20, clock() + 9 * HOUR)
        assert store.create("new", b"y" * 30, inf)
        assert listed(store) == [*"bcd", "new"]


class TestListing:
    def test_a_users_sessions_are_listed_and_no_others(self, store: MemoryStore) -> None:
        for n in range(5):
            store.create(f"{n}", b"data", inf, "ann")
            store.create(f"bob {n}", b"data", inf, "bob")
        store.load("0")
        store.touch("1", b"data", inf, "ann")
        store.delete("3")
        assert listed(store, "ann") == ["0", "1", "2", "4"]
        assert listed(store, "nobody") == listed(store, "") == []

    @pytest.mark.parametrize("user", ["", " ", "@", "\0", "\ud800", "\udfff\ud800", "é😀", "u" * 100_000])
    def test_any_str_is_a_user(self, store: MemoryStore, user: str) -> None:
        store.create("a", b"data", inf, user)
        store.create("b", b"data", inf, user + "!")
        store.create("c", b"data", inf)
        assert store.rotate("b", b"data", "d", b"data", inf, user, inherits=True)
        assert (listed(store, user), store.load("d")) == (["a", "d"], (b"data", inf))

    def test_a_session_that_changes_hands_is_listed_with_the_new_users(self, store: MemoryStore) -> None:
        for id, user in (("a", "ann"), ("b", "ann"), ("c", "bob"), ("d", None)):
            store.create(id, b"data", inf, user)
        assert store.replace("a", b"data", b"new", inf, "bob")
        assert store.touch("d", b"data", inf, "bob")
        assert store.touch("b", b"data", inf, None)
        assert (listed(store, "ann"), listed(store, "bob")) == ([], ["a", "c", "d"])

    def test_every_session_is_listed_once(self, clock: Clock) -> None:
        size = 3 * SHARD_SIZE
        store = full(clock, *((f"{n}", None) for n in range(size)))
        assert sorted(store.ids()) == sorted(f"{n}" for n in range(size))

    @pytest.mark.parametrize(("user", "size"), [(None, 3 * SHARD_SIZE), ("ann", 800)])
    def test_listing_goes_on_while_others_change(self, clock: Clock, user: str | None, size: int) -> None:
        """What stays from beginning to end is listed exactly once, and nothing raises."""
        store = MemoryStore(max_sessions=10 * SHARD_SIZE, clock=clock)
        for n in range(size):
            store.create(f"{n}", b"data", inf, user)
        listed = []
        for n, id in enumerate(store.ids(user)):
            listed.append(id)
            store.delete(f"{2 * n + 1}")
            store.touch(f"{2 * n}", b"data", inf, user)
            store.create(f"new {n}", b"data", inf)
        assert len(listed) == len(set(listed))
        assert {f"{n}" for n in range(0, size, 2)} <= set(listed)

    @pytest.mark.parametrize("user", [None, "ann"])
    def test_a_session_that_is_rotated_while_it_is_listed_is_not_missed(self, clock: Clock, user: str | None) -> None:
        """Into a part that was listed before, where it comes by its old id, or into one that comes later."""
        store = MemoryStore(max_sessions=100 * SHARD_SIZE, clock=clock)
        size = 300
        for n in range(size):
            store.create(f"{n}", b"data", inf, "ann")
            store.create(f"{n} before", b"data", inf, "ann")
            store.rotate(f"{n} before", b"data", f"{n} of bob", b"data", inf, "bob", inherits=True)
        found = []
        for turn, id in enumerate(store.ids(user)):
            found.append(id)
            for n in range(size if turn in (0, 1, 10, 200, 290) else 0):
                past = [f"{n}", *(f"{n} after {t}" for t in (0, 1, 10, 200, 290) if t < turn)]
                assert store.replace(past[-1], b"data", b"more", inf, "ann")
                assert store.rotate(past[-1], b"more", f"{n} after {turn}", b"data", inf, "ann", inherits=True)
        assert {id.split(" ")[0] for id in found if "bob" not in id} == {f"{n}" for n in range(size)}
        assert not [id for id in found if "before" in id]
        assert len(found) == len(set(found)) < 4 * size

    @pytest.mark.parametrize("user", [None, "ann"])
    def test_a_listing_is_bounded_however_often_others_rotate(self, clock: Clock, user: str | None) -> None:
        """Of all the ids that a session has meanwhile, the first is listed, and the last at most."""
        store = MemoryStore(max_sessions=100 * SHARD_SIZE, clock=clock)
        end = clock() + HOUR
        for id in ("0", "other"):
            store.create(id, b"data", end, "ann")
        listing = store.ids(user)
        found = [next(listing)]
        for n in range(1000):
            assert store.rotate(f"{n}", b"data", f"{n + 1}", b"data", end, "ann", inherits=True)
            # In its place, or not.
            assert store.touch(f"{n + 1}", b"data", end + n % 2 * HOUR, "ann")
        found += listing
        assert {"0", "other"} <= set(found) <= {"0", "other", "1000"}

    def test_a_listing_shows_nobody_elses_session(self, store: MemoryStore) -> None:
        for id in ("a", "b", "c"):
            store.create(id, b"data", inf, "ann")
        listing = store.ids("ann")
        assert next(listing) == "a"
        store.touch("b", b"data", inf, "bob")
        assert list(listing) == ["c"]

    @pytest.mark.parametrize("user", [None, "ann"])
    def test_a_listing_survives_clear(self, clock: Clock, user: str | None) -> None:
        store = full(clock, *((f"{n}", user) for n in range(2 * SHARD_SIZE)))
        listing = store.ids(user)
        next(listing)
        store.clear()
        store.create("new", b"data", inf)
        assert len(list(listing)) < 2 * SHARD_SIZE

    def test_purge_frees_what_expired_and_says_how_many(self, store: MemoryStore, clock: Clock) -> None:
        for n in range(1000):
            store.create(f"{n}", b"data", clock() + (10 if n % 2 else HOUR), "ann")
        store.touch("1", b"data", inf, "ann")
        clock.advance(10)
        assert store.purge() == 499
        assert store.purge() == 0
        assert len(store) == len(list(store.ids("ann"))) == 501

    def test_clear_forgets_everything_and_says_how_many(self, store: MemoryStore, clock: Clock) -> None:
        empty = entries(store)
        for n in range(1000):
            store.create(f"{n}", b"data", (clock() + 10, clock() + HOUR, inf)[n % 3], (None, "ann")[n % 2])
        store.rotate("1", b"data", "new", b"data", inf, "ann", inherits=True)
        assert store.clear() == 1000
        assert store.clear() == len(store) == len(list(store.ids())) == len(list(store.ids("ann"))) == 0
        assert entries(store) == empty
        assert store.create("1", b"data", inf, "ann")
        assert listed(store, "ann") == ["1"]

    def test_what_is_loaded_while_another_thread_clears_is_there_or_not(self, store: MemoryStore) -> None:
        """`load` takes no lock: the dict that it was about to look into is not taken from under it."""

        class Id(str):
            def __hash__(self) -> int:
                store.clear()  # as another thread may, in the middle of a call
                return str.__hash__(self)

        store.create("id", b"data", inf)
        assert store.load(Id("id")) in ((b"data", inf), None)
        assert store.load("id") is None


class TestCost:
    """Requirements about time, put as counts: a machine that is busy does not change those."""

    def test_a_use_keeps_nothing_of_what_it_came_with(self, clock: Clock) -> None:
        """Each request brings a copy of its id; kept, it would be a fifth more memory."""
        store = MemoryStore(clock=clock)
        store.create("an id of 32 characters, or nearly", b"1", clock() + 60, "ada")
        id = "an id of 32 characters, or nearl" + "y" * len(store)
        known = sys.getrefcount(id)

        assert store.load(id)
        assert store.replace(id, b"1", b"2", clock() + 61, "ada")
        assert store.touch(id, b"2", clock() + 62, "ada")

        assert sys.getrefcount(id) == known

    @pytest.mark.parametrize("user", [None, "ada"])
    def test_a_write_that_moves_nothing_takes_few_steps(self, clock: Clock, user: str | None) -> None:
        """Where a session ends but a little later, nothing that leads to it is touched."""
        store = full(clock, *((f"{n}", user) for n in range(90)))
        before = [dict(part) for order in store._orders for *_, part in order.pieces]
        assert steps(store, lambda: store.replace("7", b"data", b"more data", clock() + HOUR + 30, user)) < 30
        assert steps(store, lambda: store.touch("8", b"data", clock() + HOUR + 30, user)) < 30
        assert steps(store, lambda: store.load("8")) < 10
        assert before == [part for order in store._orders for *_, part in order.pieces]
        sound(store)

    @pytest.mark.parametrize(
        ("code", "records", "attributes"),
        [
            (MemoryStore.replace, 1, ["_bytes"]),
            (MemoryStore.rotate, 2, ["_bytes", "_unsettled"]),
            (MemoryStore._put, 1, ["_live", "_bytes", "_unsettled"]),
        ],
    )
    def test_no_signal_comes_between_a_record_and_what_is_counted(
        self, code: Callable[..., object], records: int, attributes: list[str]
    ) -> None:
        """CPython looks for signals after calls and jumps; there is neither."""
        steps = [step for step in dis.get_instructions(code) if step.opname != "CACHE"]
        subscripts = [n for n, step in enumerate(steps) if step.opname == "STORE_SUBSCR"]
        assert len(subscripts) == records
        steps = steps[subscripts[0] : subscripts[-1] + 1 + 2 * len(attributes)]
        assert [step.argval for step in steps if step.opname == "STORE_ATTR"] == attributes
        assert {step.opname[:9] for step in steps} == {"STORE_SUB", "STORE_ATT", "LOAD_FAST"}

    @pytest.mark.parametrize("verb", ["load", "create"])
    def test_a_call_frees_a_few_and_a_thousand_calls_free_a_hundred_thousand(self, clock: Clock, verb: str) -> None:
        store = MemoryStore(clock=clock)
        for n in range(100_000):
            store.create(f"{n}", b"data", clock() + 1)
        clock.advance(2)
        for n in range(1000):
            before = len(store)
            if verb == "load":
                store.load("99999" if n == 0 else "absent")
            else:
                store.create(f"new {n}", b"data", inf)
            assert before - len(store) <= FREED_PER_CALL - (verb == "create")
        assert len(store) == (0 if verb == "load" else 1000)

    def test_expiries_that_come_one_by_one_are_freed_one_by_one(self, store: MemoryStore, clock: Clock) -> None:
        """No batches: nobody waits for a bucket to fill up."""
        for n in range(1000):
            store.create(f"{n}", b"data", clock() + HOUR + n)
        clock.advance(HOUR - 1)
        for n in range(1000):
            clock.advance(1)
            store.load("absent")
            assert len(store) == 999 - n

    @row("T3")
    @pytest.mark.parametrize("size", [10, 1000])
    @pytest.mark.parametrize(
        "flood", ["logins that log out", "waves", "regenerate", "eviction", "touch", "short lives"]
    )
    def test_a_flood_leaves_nothing_behind(self, clock: Clock, size: int, flood: str) -> None:
        """What the store is made of is bounded by what lives in it, not by what has come and gone."""
        store = full(clock, *((f"{n}", (None, "ann", f"user {n}")[n % 3]) for n in range(size)))
        if flood != "eviction":
            store.delete("0")
        before = entries(store)
        for n in range(10_000):
            clock.advance(0.1 if flood in ("regenerate", "short lives") else 0.01)
            if flood == "logins that log out":
                store.create(f"new {n}", b"data", clock() + HOUR, "bob")
                store.delete(f"new {n}")
            elif flood == "waves":
                store.touch("1", b"data", clock() + HOUR * (n % 7), "ann")
                store.create(f"new {n}", b"data", clock() + HOUR * (n % 7), "bob")
                store.delete(f"new {n - size // 2}")
            elif flood == "regenerate":
                store.create(f"new {n}", b"data", clock() + HOUR, "bob")
                store.rotate(f"new {n}", b"data", f"newer {n}", b"data", clock() + HOUR, "bob", inherits=True)
            elif flood == "eviction":
                store.create(f"new {n}", b"data", clock() + HOUR, (None, "bob")[n % 2])
            elif flood == "touch":
                store.touch(f"{n % size}", b"data", clock() + HOUR * (n % 7 + 1), ("ann", None)[n % 2])
            else:
                store.create(f"new {n}", b"data", clock() + 1)
        graves = 150 if flood == "regenerate" else 0
        assert entries(store) <= 2 * before + 15 * graves + 200

    @row("T10")
    @pytest.mark.parametrize("user", [None, "user {}", "user {}00"])
    def test_no_part_is_large(self, clock: Clock, user: str | None) -> None:
        """A large dict stops all threads when it is resized, and a large piece when it is sorted."""
        store = full(clock, *((f"{n}", user and user.format(n % 1000)) for n in range(5 * SHARD_SIZE)))
        assert max(len(part) for part in parts(store) if isinstance(part, dict)) < 12_000
        sound(store)

    @row("T10")
    @pytest.mark.parametrize(
        ("call", "most"),
        [
            (lambda store, clock: store.create("new", b"data", clock() + HOUR), 20_000),
            (lambda store, clock: store.create("new", b"data", clock() + HOUR, "eve"), 20_000),
            (lambda store, clock: store.rotate("9", b"used", "new", b"used", clock() + HOUR, inherits=True), 250),
            (lambda store, clock: clock.advance(9 * HOUR) or store.load("9"), 10_000),
            (lambda store, clock: clock.advance(9 * HOUR) or store.create("new", b"data", inf), 10_000),
            (lambda store, clock: next(store.ids()), 60),
            (lambda store, clock: next(store.ids("ann")), 600),
            (lambda store, clock: store.delete("9"), 250),
        ],
    )
    def test_no_call_takes_more_steps_the_more_sessions_there_are(
        self, clock: Clock, call: Callable[[MemoryStore, Clock], object], most: int
    ) -> None:
        """Not even after every session was used."""
        taken = []
        for size in (2_000, 20_000):
            store = full(clock, *((f"{n}", "ann" if n % (size // 90) == 0 else None) for n in range(size)))
            clock.advance(HOUR / 200)
            for n in range(size):
                user = "ann" if n % (size // 90) == 0 else None
                assert store.replace(f"{n}", b"data", b"used", clock() + HOUR, user)
            taken.append(steps(store, lambda: call(store, clock)))  # noqa: B023  # called at once
        assert taken[1] <= 1.5 * taken[0] + 60
        assert max(taken) <= most

    @row("T10")
    def test_purge_lets_others_in(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        store = full(clock, *((f"{n}", None) for n in range(2000)))
        clock.advance(HOUR)
        held = [2000]

        def others(seconds: float) -> None:
            assert not store._lock.locked()
            held.append(len(store))

        monkeypatch.setattr(time, "sleep", others)
        assert store.purge() == 2000
        assert len(held) > 2000 / FREED_PER_CALL
        assert all(before - after <= FREED_PER_CALL for before, after in pairwise(held))

    def test_clear_is_one_short_step_and_frees_the_memory_bit_by_bit_afterwards(self, clock: Clock) -> None:
        store = full(clock, *((f"{n}", (None, "ann")[n % 100 == 0]) for n in range(20_000)))
        pieces = sum(len(order.pieces) for order in store._orders)
        locked: list[bool] = []
        with watched(store, lambda: locked.append(store._lock.locked())):
            assert store.clear() == 20_000
        assert sum(locked) < 100
        assert len(locked) - sum(locked) > 2 * pieces

    @pytest.mark.skipif(
        sys.implementation.name != "cpython" or sys.version_info >= (3, 14),
        reason="CPython 3.14 and later track every dict",
    )
    def test_the_garbage_collector_does_not_walk_the_sessions(self, clock: Clock) -> None:
        """It would stop the world for as long as there are sessions."""
        size = 2 * SHARD_SIZE
        store = full(clock, *((f"{n}", (None, "ann", f"user {n}")[n % 3]) for n in range(size)))
        for n in range(0, size, 2):
            store.load(f"{n}")
            store.replace(f"{n}", b"data", b"new", clock() + HOUR, "bob")
        walked = sum(len(part) for part in parts(store) if gc.is_tracked(part))
        assert walked < size / 10

    def test_every_verb_holds_the_lock_while_it_looks_and_while_it_writes(self) -> None:
        """Compare and set is one step; threads alone would miss a lock that is not there, most of the time."""
        held: list[bool] = []
        store: MemoryStore

        def clock() -> float:
            held.append(store._lock.locked())
            return 0.0

        store = MemoryStore(clock=clock)
        store.create("id", b"data", 1.0, "ann")
        store.replace("id", b"data", b"new", 1.0)
        store.touch("id", b"new", 1.0)
        store.rotate("id", b"new", "new", b"new", 1.0, inherits=True)
        store.heir("id")
        store.delete("new")
        assert held == [True] * 6

    def test_counters_stay_exact_under_eight_threads(self, clock: Clock) -> None:
        """And nothing of the store is out of step afterwards, with listings and evictions going on."""
        store = MemoryStore(max_sessions=50, clock=clock)
        for n in range(4):
            store.create(f"counter {n}", b"0", inf, "ann")

        def count(thread: int) -> None:
            for n in range(500):
                id = f"counter {n % 4}"
                while True:
                    stored = store.load(id)
                    assert stored is not None
                    if store.replace(id, stored.data, b"%d" % (int(stored.data) + 1), inf, "ann"):
                        break
                store.create(f"{thread} {n}", b"data", clock() + n % 5 - 1)
                store.rotate(f"{thread} {n}", b"data", f"{thread} {n} again", b"more", inf, "bob", inherits=True)
                store.delete(f"{(thread + 1) % 8} {n - 3}")
                if n % 100 == 0:
                    assert len(list(store.ids("ann"))) == 4
                    ids = list(store.ids())
                    assert len(ids) == len(set(ids))
                    store.purge()

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        failures: list[BaseException] = []
        try:
            threads = [threading.Thread(target=run, args=(count, n, failures)) for n in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert failures == []
        assert [store.load(f"counter {n}") for n in range(4)] == [(b"1000", inf)] * 4
        store.purge()
        assert len(store) == len(list(store.ids())) <= 50
        sound(store)


def run(body: Callable[[int], None], thread: int, failures: list[BaseException]) -> None:
    try:
        body(thread)
    except BaseException as error:
        failures.append(error)


IDS = st.sampled_from("abcdefgh")
USERS = st.sampled_from([None, None, "ann", "bob"])
DATA = st.sampled_from([b"1", b"2", b"22", b"333"])
SEEN = st.sampled_from([b"1", b"2", b"22", b"333", TOMBSTONE])
LIVES = st.sampled_from([-1.0, 0.0, 0.25, 1.0, 15.0, 15.125, 15.5, 100.0, HOUR, 24 * HOUR, inf])
STEPS = st.sampled_from([0.25, 0.75, 1.0, 15.0, 60.0, HOUR, 25 * HOUR])


class Record(NamedTuple):
    """What a model has under an id: a session, or a tombstone with its heir."""

    data: bytes
    ends: float
    user: str | None = None
    heir: str | None = None


class Model(RuleBasedStateMachine):
    """`MemoryStore` beside the plainest thing that obeys the rules: one dict."""

    SHARE = 5
    BYTES = 14

    def __init__(self) -> None:
        super().__init__()
        memory.HALVES = (2, 2, 2, 2)
        self.clock = Clock()
        self.records: dict[str, Record] = {}
        self.another_size(3)

    def teardown(self) -> None:
        memory.HALVES = HALVES

    @precondition(lambda self: not self.records)
    @rule(size=st.integers(3, 8))
    def another_size(self, size: int) -> None:
        self.size = size
        self.store = MemoryStore(max_sessions=size, max_bytes=self.BYTES, clock=self.clock)
        self.store._max_of_user = self.SHARE

    # The model

    def expire(self) -> None:
        self.records = {id: record for id, record in self.records.items() if record.ends > self.clock()}

    def sessions(self) -> dict[str, Record]:
        return {id: record for id, record in self.records.items() if record.data}

    def of(self, user: str | None) -> list[str]:
        return [id for id, record in self.sessions().items() if record.user == user]

    def make_room(self, id: str, data: bytes, user: str | None) -> None:
        """For a record under an id, which is there already or is new."""
        before = self.records.get(id)
        if user is not None and (before is None or before.user != user) and len(self.of(user)) >= self.SHARE:
            self.evict(id, self.of(user))
        while self.is_full(id, data):
            self.evict(id, self.of(None), self.of(user) if user is not None else [], list(self.sessions()))

    def is_full(self, id: str, data: bytes) -> bool:
        others = [record for other, record in self.sessions().items() if other != id]
        return len(others) >= self.size or sum(len(record.data) for record in others) + len(data) > self.BYTES

    def evict(self, spared: str, *groups: list[str]) -> None:
        ids = next(ids for group in groups if (ids := [id for id in group if id != spared]))
        del self.records[min(ids, key=lambda id: (self.records[id].ends, id))]

    def put(self, id: str, record: Record) -> None:
        self.records[id] = record
        self.expire()  # it may have been stored too late

    # Both

    @rule(id=IDS)
    def load(self, id: str) -> None:
        assert self.store.load(id) == (self.records[id][:2] if id in self.records else None)
        assert self.store.heir(id) == (self.records[id].heir if id in self.records else None)

    @rule(id=IDS, data=DATA, life=LIVES, user=USERS)
    def create(self, id: str, data: bytes, life: float, user: str | None) -> None:
        ends = self.clock() + life
        assert self.store.create(id, data, ends, user) == (id not in self.records)
        if id not in self.records:
            self.make_room(id, data, user)
            self.put(id, Record(data, ends, user))

    @rule(id=IDS, seen=SEEN, data=DATA, life=LIVES, user=USERS, touch=st.booleans())
    def replace(self, id: str, seen: bytes, data: bytes, life: float, user: str | None, touch: bool) -> None:
        ends, data = self.clock() + life, seen if touch else data
        same = id in self.sessions() and self.records[id].data == seen
        done = self.store.touch(id, seen, ends, user) if touch else self.store.replace(id, seen, data, ends, user)
        assert done == same
        if same:
            self.make_room(id, data, user)
            self.put(id, Record(data, ends, user))

    @rule(old=IDS, seen=SEEN, new=IDS, data=DATA, life=LIVES, user=USERS, inherits=st.booleans())
    def rotate(
        self, old: str, seen: bytes, new: str, data: bytes, life: float, user: str | None, inherits: bool
    ) -> None:
        ends = self.clock() + life
        same = old in self.sessions() and self.records[old].data == seen and new not in self.records
        assert self.store.rotate(old, seen, new, data, ends, user, inherits=inherits) == same
        if same:
            self.make_room(old, data, user)
            self.put(old, Record(TOMBSTONE, self.clock() + TOMBSTONE_LIFE, None, new if inherits else None))
            self.put(new, Record(data, ends, user))

    @rule(id=IDS, data=st.just(b"x" * (BYTES + 1)))
    def refuse(self, id: str, data: bytes) -> None:
        if id not in self.records:
            with pytest.raises(StoreUnavailable):
                self.store.create(id, data, inf)

    @rule(id=IDS)
    def delete(self, id: str) -> None:
        assert self.store.delete(id) == (id in self.sessions())
        if id in self.sessions():
            del self.records[id]

    @rule(seconds=STEPS)
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.expire()

    @rule(seconds=STEPS)
    def the_clock_jumps_back(self, seconds: float) -> None:
        self.store.purge()  # no promise says whether what had expired lives again
        self.clock.advance(-seconds)

    @rule()
    def purge(self) -> None:
        held = len(self.store)
        assert self.store.purge() == held - len(self.sessions())

    @rule()
    def clear(self) -> None:
        self.store.purge()
        assert self.store.clear() == len(self.sessions())
        self.records.clear()

    @invariant()
    def both_list_the_same(self) -> None:
        assert sorted(self.store.ids()) == sorted(self.sessions())
        assert sorted(self.store.ids("ann")) == sorted(self.of("ann"))
        assert sorted(self.store.ids("bob")) == sorted(self.of("bob"))

    @invariant()
    def it_is_sound_and_never_more_than_full(self) -> None:
        sound(self.store)
        assert len(self.sessions()) <= len(self.store) <= self.size


HALVES = memory.HALVES

TestModel = Model.TestCase
TestModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


class TestOrder:
    """`Order` beside a sorted list."""

    @given(
        st.lists(st.tuples(st.booleans(), st.integers(0, 20).map(float), st.sampled_from("abcdefghijklmnop"))),
        st.integers(1, 4),
    )
    @example([(True, 5.0, "b"), (True, 5.0, "a")], 1)
    @example(
        [(n > 0, abs(n), id) for n, id in [(5.0, "a"), (6.0, "b"), (7.0, "c"), (-5.0, "a"), (2.0, "d"), (-1.0, "e")]], 1
    )
    def test_an_order_is_a_sorted_list(self, changes: list[tuple[bool, float, str]], half: int) -> None:
        order, pairs = memory_order.Order(half), list[tuple[float, str]]()
        for adds, key, id in changes:
            if adds and id not in [other for _, other in pairs]:
                order.add(key, id)
                pairs = sorted([*pairs, (key, id)])
            elif not adds:
                order.discard(key, id)
                pairs = [pair for pair in pairs if pair != (key, id)]
            assert order.first() == next(iter(pairs), None)
            assert order.after(key, id) == next((pair for pair in pairs if pair > (key, id)), None)
            near = [pair for pair in pairs if (key, id) < pair and pair[0] <= key + 3]
            assert order.after(key, id, key + 3) == next(iter(near), None)
            assert sorted(order.between(4.5, 9.5)) == sorted(id for key, id in pairs if 4.5 < key < 9.5)
            number = len([key for key, _ in pairs if 4.5 < key < 9.5])
            assert order.count_between(4.5, 9.5) == number or number <= 2 * half
            ordered(order)

    @given(st.lists(st.tuples(st.floats(allow_nan=False), st.text(min_size=1))))
    def test_any_key_and_any_id_has_its_place(self, pairs: list[tuple[float, str]]) -> None:
        order = memory_order.Order(42)
        there = {id: key for key, id in pairs}
        for id, key in there.items():
            order.add(key, id)
        for key, id in sorted((key, id) for id, key in there.items()):
            assert order.first() == (key, id)
            order.discard(key, id)
        assert order.first() is None
        assert [piece for _, _, piece in order.pieces] == [{}]
