"""`MemoryStore`: its verbs, who is evicted, and what it costs in entries, never in seconds."""

from __future__ import annotations

import gc
import random
import sys
import threading
from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from minisession import MemoryStore
from minisession.stores.base import TOMBSTONE, ListingStore
from minisession.stores.memory import BUCKET_SIZE, FREED_PER_CALL, SHARD_SIZE

from ..support.browser import Clock

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
    """Create one session too many, and tell who had to go."""
    before = set(store.ids())
    assert store.create("one too many", b"data", inf, user)
    assert "one too many" in store.ids()
    (gone,) = before - set(store.ids())
    return gone


def entries(store: MemoryStore) -> int:
    """Count every entry of every dict, list and heap that the store is made of."""
    return sum(len(part) for part in parts(store))


def parts(store: MemoryStore) -> list[Any]:
    found: list[Any] = []
    todo: list[Any] = [vars(store)]
    while todo:
        part = todo.pop()
        if isinstance(part, dict | list):
            found.append(part)
            todo += part.values() if isinstance(part, dict) else part
        elif type(part).__module__ == "minisession.stores.memory" and part is not store:
            todo.append(vars(part))
    return found


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
        assert not store.replace("id", b"", b"new", inf)
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

    def test_a_touched_session_outlives_those_it_came_with(self, store: MemoryStore, clock: Clock) -> None:
        """It stays in their bucket until that is due, and must not be freed with it."""
        for n in range(BUCKET_SIZE):
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
        store = full(clock, *((f"{n}", "ann") for n in range(2000)))
        clock.advance(HOUR)
        assert store.load("1999") is None
        assert not store.replace("1998", b"data", b"new", inf)
        assert not store.touch("1997", b"data", inf)
        assert not store.delete("1996")
        assert list(store.ids()) == []
        assert store.create("1995", b"new", inf)
        assert len(store) > 1000
        store.purge()
        assert (list(store.ids()), list(store.ids("ann")), len(store)) == (["1995"], [], 1)

    def test_a_clock_that_jumps_back_kills_nobody(self, store: MemoryStore, clock: Clock) -> None:
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
    def test_a_tombstone_is_no_session(self, clock: Clock) -> None:
        store = full(clock, ("a", "ann"), ("b", None))
        assert store.replace("a", b"data", TOMBSTONE, clock() + 15, "ann")
        assert store.load("a") == (TOMBSTONE, clock() + 15)
        assert (list(store.ids()), list(store.ids("ann")), len(store)) == (["b"], [], 1)

    def test_a_tombstone_refuses_its_id_until_it_expires(self, store: MemoryStore, clock: Clock) -> None:
        store.create("id", TOMBSTONE, clock() + 15)
        clock.advance(14)
        assert not store.create("id", b"data", inf)
        clock.advance(1)
        assert store.create("id", b"data", inf)

    def test_a_tombstone_takes_nobodys_place_and_is_not_evicted(self, clock: Clock) -> None:
        store = full(clock, ("a", None), ("b", None))
        assert store.create("grave", TOMBSTONE, clock() + 15)
        store.replace("a", b"data", TOMBSTONE, clock() + 15)
        store.create("c", b"data", inf)
        assert sorted(store.ids()) == ["b", "c"]
        for n in range(10):
            store.create(f"{n}", b"data", inf)
        assert (store.load("a"), store.load("grave")) == ((TOMBSTONE, clock() + 15),) * 2

    def test_a_tombstone_is_freed_like_a_session_but_not_counted(self, store: MemoryStore, clock: Clock) -> None:
        store.create("a", TOMBSTONE, clock() + 15)
        store.create("b", TOMBSTONE, clock() + HOUR)
        clock.advance(15)
        assert store.purge() == 0
        assert store.create("a", b"data", inf)
        assert store.clear() == 1
        assert store.load("b") is None

    def test_a_tombstone_that_becomes_a_session_needs_room_like_one(self, clock: Clock) -> None:
        store = full(clock, ("a", None), ("b", None))
        store.create("grave", TOMBSTONE, inf)
        assert store.replace("grave", TOMBSTONE, b"data", inf)
        assert (sorted(store.ids()), len(store)) == (["b", "grave"], 2)


class TestEviction:
    def test_what_expired_goes_first(self, clock: Clock) -> None:
        """Also the most recently used, the user's own, and one whose neighbours have years left."""
        store = full(clock, ("a", None), ("b", "ann"), ("c", "bob"), ("d", None))
        store.touch("c", b"data", clock() + 10, "bob")
        clock.advance(10)
        assert store.create("new", b"data", inf, "ann")
        assert sorted(store.ids()) == ["a", "b", "d", "new"]

    def test_what_will_expire_in_a_moment_does_not_go_first(self, clock: Clock) -> None:
        store = full(clock, ("a", None), ("b", None))
        store.touch("b", b"data", clock() + 10)
        clock.advance(9.999)
        assert victim(store) == "a"

    def test_many_expired_sessions_make_room_for_many(self, clock: Clock) -> None:
        store = full(clock, *((f"{n}", None) for n in range(1000)))
        clock.advance(10)
        for n in range(500):
            store.touch(f"{n}", b"data", clock() + 1)
        clock.advance(1)
        for n in range(500):
            store.create(f"new {n}", b"data", inf)
        assert len([id for id in store.ids() if not id.startswith("new")]) == 500

    def test_next_the_least_recently_used_without_a_user(self, clock: Clock) -> None:
        store = full(clock, ("ann's", "ann"), ("a", None), ("b", None))
        assert victim(store, "ann") == "a"

    @pytest.mark.parametrize(
        "use",
        [
            lambda store: store.load("a"),
            lambda store: store.touch("a", b"data", inf),
            lambda store: store.replace("a", b"data", b"new", inf),
        ],
    )
    def test_to_load_touch_or_replace_is_to_use(self, clock: Clock, use: Callable[[MemoryStore], object]) -> None:
        store = full(clock, ("a", None), ("b", None))
        assert use(store)
        assert victim(store) == "b"

    @pytest.mark.parametrize(
        "attempt",
        [
            lambda store: store.create("a", b"data", inf),
            lambda store: store.touch("a", b"other", inf),
            lambda store: store.replace("a", b"other", b"new", inf),
            lambda store: list(store.ids()),
        ],
    )
    def test_what_fails_and_what_lists_is_no_use(self, clock: Clock, attempt: Callable[[MemoryStore], object]) -> None:
        store = full(clock, ("a", None), ("b", None))
        attempt(store)
        assert victim(store) == "a"

    def test_next_the_oldest_of_the_same_user_however_recently_used(self, clock: Clock) -> None:
        store = full(clock, ("bob's", "bob"), ("ann 1", "ann"), ("ann 2", "ann"))
        store.load("ann 1")
        assert victim(store, "ann") == "ann 1"

    def test_else_the_least_recently_used(self, clock: Clock) -> None:
        sessions = (("bob's", "bob"), ("ann's", "ann"))
        for user in (None, "eve"):
            store = full(clock, *sessions)
            store.load("bob's")
            assert victim(store, user) == "ann's"

    def test_a_login_protects_a_session_and_a_logout_exposes_it(self, clock: Clock) -> None:
        store = full(clock, ("a", None), ("b", None), ("c", "ann"))
        store.replace("a", b"data", b"data", inf, "ann")
        assert victim(store) == "b"
        store.replace("c", b"data", b"data", inf, None)
        store.delete("one too many")
        store.create("d", b"data", inf)
        assert victim(store) == "c"

    def test_the_least_recently_used_is_found_across_shards(self, clock: Clock) -> None:
        """Each shard has an order of its own; the store's is exact, through loads and deletes too."""
        rng = random.Random(2)
        size = 2 * SHARD_SIZE
        store = full(clock, *((f"{n}", None) for n in range(size)))
        order = [f"{n}" for n in range(size)]
        for id in rng.sample(order, size // 2):
            store.load(id)
            order.remove(id)
            order.append(id)
        for n in range(size // 2):
            if n % 3 == 0:
                store.delete(order.pop(rng.randrange(len(order))))
            else:
                store.create(f"new {n}", b"data", inf)
                if len(order) == size:
                    assert store._records[hash(order[0]) % store._shards].get(order.pop(0)) is None
                order.append(f"new {n}")
        assert sorted(store.ids()) == sorted(order)

    def test_a_full_store_replaces_without_evicting(self, clock: Clock) -> None:
        store = full(clock, ("a", None), ("b", None))
        assert store.replace("a", b"data", b"new", inf, "ann")
        assert not store.create("b", b"data", inf)
        assert sorted(store.ids()) == ["a", "b"]

    def test_one_session_has_room_in_a_store_for_one(self, clock: Clock) -> None:
        store = full(clock, ("a", "ann"))
        assert victim(store) == "a"
        assert len(store) == 1


class TestListing:
    def test_a_users_sessions_come_oldest_first(self, store: MemoryStore) -> None:
        for n in range(5):
            store.create(f"{n}", b"data", inf, "ann")
            store.create(f"bob {n}", b"data", inf, "bob")
        store.load("0")
        store.touch("1", b"data", inf, "ann")
        store.delete("3")
        assert list(store.ids("ann")) == ["0", "1", "2", "4"]
        assert list(store.ids("nobody")) == list(store.ids("")) == []

    def test_a_session_that_changes_hands_moves_to_the_end_of_the_new_users(self, store: MemoryStore) -> None:
        for id, user in (("a", "ann"), ("b", "ann"), ("c", "bob"), ("d", None)):
            store.create(id, b"data", inf, user)
        assert store.replace("a", b"data", b"new", inf, "bob")
        assert store.touch("d", b"data", inf, "bob")
        assert store.touch("b", b"data", inf, None)
        assert (list(store.ids("ann")), list(store.ids("bob"))) == ([], ["c", "a", "d"])

    def test_every_session_is_listed_once(self, clock: Clock) -> None:
        size = 3 * SHARD_SIZE
        store = full(clock, *((f"{n}", None) for n in range(size)))
        assert sorted(store.ids()) == sorted(f"{n}" for n in range(size))

    @pytest.mark.parametrize("user", [None, "ann"])
    def test_listing_goes_on_while_others_change(self, clock: Clock, user: str | None) -> None:
        """What stays from beginning to end is listed exactly once, and nothing raises."""
        size = 3 * SHARD_SIZE
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
        assert store.clear() == 1000
        assert store.clear() == len(store) == len(list(store.ids())) == len(list(store.ids("ann"))) == 0
        assert entries(store) < empty + 500
        assert store.create("1", b"data", inf, "ann")
        assert list(store.ids("ann")) == ["1"]


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
                store.replace(f"new {n - 1}", b"data", TOMBSTONE, clock() + 15)
            elif flood == "eviction":
                store.create(f"new {n}", b"data", clock() + HOUR, (None, "bob")[n % 2])
            elif flood == "touch":
                store.touch(f"{n % size}", b"data", clock() + HOUR * (n % 7 + 1), ("ann", None)[n % 2])
            else:
                store.create(f"new {n}", b"data", clock() + 1)
        graves = 150 if flood == "regenerate" else 0
        assert entries(store) <= 2 * before + 15 * graves + 200

    def test_no_dict_is_large(self, clock: Clock) -> None:
        """A large one stops the world when it is resized; one user with all sessions must not make one."""
        store = full(clock, *((f"{n}", "ann") for n in range(20 * SHARD_SIZE)))
        assert max(len(part) for part in parts(store) if isinstance(part, dict)) < 1.5 * SHARD_SIZE

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

        class Seen(bytes):
            def __ne__(self, other: object) -> bool:
                held.append(store._lock.locked())
                return bytes(self) != other

        def clock() -> float:
            held.append(store._lock.locked())
            return 0.0

        store = MemoryStore(clock=clock)
        store.create("id", b"data", 1.0, "ann")
        store.load("id")
        store.replace("id", Seen(b"data"), b"new", 1.0)
        store.touch("id", Seen(b"new"), 1.0)
        list(store.ids())
        list(store.ids("ann"))
        store.delete("id")
        assert len(held) >= 7
        assert all(held)

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
                store.delete(f"{(thread + 1) % 8} {n - 3}")
                if n % 100 == 0:
                    assert len(list(store.ids("ann"))) == 4
                    assert len(list(store.ids())) <= 100
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


def run(body: Callable[[int], None], thread: int, failures: list[BaseException]) -> None:
    try:
        body(thread)
    except BaseException as error:
        failures.append(error)


IDS = st.sampled_from("abcdefgh")
USERS = st.sampled_from([None, None, "ann", "bob"])
DATA = st.sampled_from([b"1", b"2", b"1", b"2", TOMBSTONE])
LIVES = st.sampled_from([-1.0, 0.0, 0.25, 1.0, 15.0, 15.5, 100.0, HOUR, 24 * HOUR, inf])
STEPS = st.sampled_from([0.25, 0.75, 1.0, 15.0, 60.0, HOUR, 25 * HOUR])


class Model(RuleBasedStateMachine):
    """`MemoryStore` beside the plainest thing that obeys the rules: one dict, and two lists of ids."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.size = 3
        self.store = MemoryStore(max_sessions=3, clock=self.clock)
        self.records: dict[str, tuple[bytes, float, str | None]] = {}
        self.used: list[str] = []  # least recently first
        self.owned: list[str] = []  # in the order in which they became their user's

    @precondition(lambda self: not self.records)
    @rule(size=st.integers(3, 5))
    def another_size(self, size: int) -> None:
        self.size = size
        self.store = MemoryStore(max_sessions=size, clock=self.clock)

    # The model

    def expire(self) -> None:
        for id in [id for id, (_, expires_at, _) in self.records.items() if expires_at <= self.clock()]:
            self.forget(id)

    def forget(self, id: str) -> None:
        del self.records[id]
        self.used = [other for other in self.used if other != id]
        self.owned = [other for other in self.owned if other != id]

    def put(self, id: str, data: bytes, expires_at: float, user: str | None) -> None:
        user = user if data else None
        if self.records.get(id, (b"", 0.0, None))[2] != user or user is None:
            self.owned = [other for other in self.owned if other != id] + [id] * (user is not None)
        self.records[id] = data, expires_at, user
        self.used = [other for other in self.used if other != id] + [id] * bool(data)
        self.expire()  # it may have been stored too late

    def make_room(self, id: str, data: bytes, user: str | None) -> None:
        if data and len(self.used) == self.size and id not in self.used:
            anonymous = [other for other in self.used if self.records[other][2] is None]
            same = [other for other in self.owned if self.records[other][2] == user]
            self.forget((anonymous or same or self.used)[0])

    def users(self, user: str) -> list[str]:
        return [id for id in self.owned if self.records[id][2] == user]

    # Both

    @rule(id=IDS)
    def load(self, id: str) -> None:
        assert self.store.load(id) == (self.records[id][:2] if id in self.records else None)
        if id in self.used:
            self.used.remove(id)
            self.used.append(id)

    @rule(id=IDS, data=DATA, life=LIVES, user=USERS)
    def create(self, id: str, data: bytes, life: float, user: str | None) -> None:
        expires_at = self.clock() + life
        assert self.store.create(id, data, expires_at, user) == (id not in self.records)
        if id not in self.records:
            self.make_room(id, data, user)
            self.put(id, data, expires_at, user)

    @rule(id=IDS, seen=DATA, data=DATA, life=LIVES, user=USERS)
    def replace(self, id: str, seen: bytes, data: bytes, life: float, user: str | None) -> None:
        expires_at = self.clock() + life
        same = id in self.records and self.records[id][0] == seen
        assert self.store.replace(id, seen, data, expires_at, user) == same
        if same:
            self.make_room(id, data, user)
            self.put(id, data, expires_at, user)

    @rule(id=IDS, seen=DATA, life=LIVES, user=USERS)
    def touch(self, id: str, seen: bytes, life: float, user: str | None) -> None:
        expires_at = self.clock() + life
        same = id in self.records and self.records[id][0] == seen
        assert self.store.touch(id, seen, expires_at, user) == same
        if same:
            self.put(id, seen, expires_at, user)

    @rule(id=IDS)
    def delete(self, id: str) -> None:
        assert self.store.delete(id) == (id in self.records)
        if id in self.records:
            self.forget(id)

    @rule(seconds=STEPS)
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.expire()

    @rule(seconds=STEPS)
    def the_clock_jumps_back(self, seconds: float) -> None:
        self.store.purge()  # whether what had expired lives again is nobody's promise
        self.clock.advance(-seconds)

    @rule()
    def purge(self) -> None:
        held = len(self.store)
        assert self.store.purge() == held - len(self.used)

    @rule()
    def clear(self) -> None:
        self.store.purge()
        assert self.store.clear() == len(self.used)
        for id in list(self.records):
            self.forget(id)

    @invariant()
    def both_list_the_same(self) -> None:
        assert sorted(self.store.ids()) == sorted(self.used)
        assert list(self.store.ids("ann")) == self.users("ann")
        assert list(self.store.ids("bob")) == self.users("bob")

    @invariant()
    def it_is_never_more_than_full(self) -> None:
        assert len(self.used) <= len(self.store) <= self.size


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
