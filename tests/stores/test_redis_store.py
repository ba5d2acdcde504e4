"""`RedisStore`: the contract, connect-redis' layout, users' indexes, round trips, and what Redis refuses."""

# some tests are named after their rows

from __future__ import annotations

import logging
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import traceback
import unittest
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import chain, combinations_with_replacement
from itertools import count as counting
from math import inf
from pathlib import Path
from typing import Any

import pytest

import minisession
from minisession import Session, StoreUnavailable, destroy_sessions_of
from minisession.stores.base import TOMBSTONE, ListingStore, Store
from minisession.testing import StoreContract

from ..core.test_interleavings import ADAS, LONG, REQUESTS, SEED
from ..support.browser import Clock
from ..support.explorer import Explorer, Scenario
from ..support.ports import free_port
from ..support.redis_server import (  # skips where redis-py is missing
    SOON,
    Cut,
    RedisServer,
    Wire,
    redis_server,
)
from ..support.site import Page, Site, put
from ..support.tools import need_program

import redis  # isort: skip
from redis.crc import key_slot  # isort: skip
from redis.sentinel import Sentinel  # isort: skip
from minisession.stores import redis_listing as module  # isort: skip
from minisession.stores.redis import RedisStore  # isort: skip
from ..support.rows import row

HOUR = 3600.0
DAY = 24 * HOUR
TEN_YEARS = 10 * 365 * DAY


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    running.client.flushall()
    return running


@pytest.fixture
def clock() -> Clock:
    """Any time will do: Redis is told what is left."""
    return Clock()


@pytest.fixture
def store(server: RedisServer, clock: Clock) -> Iterator[RedisStore]:
    store = RedisStore(server.url, clock=clock)
    yield store
    store.close()


def index(server: RedisServer, user: str = "ann") -> set[bytes]:
    """Return the entries of a user's index."""
    return set(server.client.zrange(f"minisession:user:sess:{user}", 0, -1))


def make_old(server: RedisServer, seconds: float, user: str = "ann") -> None:
    """Make the entries of a user's index so old."""
    key = f"minisession:user:sess:{user}"
    for id in server.client.zrange(key, 0, -1):
        server.client.zincrby(key, -seconds, id)


class RedisContract(StoreContract):
    server: RedisServer

    @pytest.fixture(autouse=True)
    def _server(self, server: RedisServer) -> None:
        self.server, self.clock = server, Clock()

    def now(self) -> float:
        return self.clock()

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.server.age(seconds)

    def make_store(self) -> Store:
        self.server.client.flushall()
        return self.connect()

    def open_again(self, store: Store) -> Store:
        return self.connect()

    def connect(self) -> Store:
        raise NotImplementedError


class TestByURL(RedisContract, unittest.TestCase):
    tick = 5.0

    def connect(self) -> Store:
        return RedisStore(self.server.url, clock=self.clock, prefix="s[e]ss?*^-\\:")


class TestByClient(RedisContract, unittest.TestCase):
    tick = 5.0

    def connect(self) -> Store:
        """With the newer protocol, of which the URLs make no use."""
        client = redis.Redis(port=self.server.port, protocol=3)
        self.addCleanup(client.close)
        return RedisStore(client, clock=self.clock)


class TestConnectRedisLayout:
    def test_the_record_is_a_string_under_sess_and_the_id(self, store: RedisStore, server: RedisServer) -> None:
        store.create("id", b"data", store._clock() + HOUR)
        assert server.client.keys() == [b"sess:id"]
        assert server.client.get("sess:id") == b"data"
        assert HOUR - 5 < server.client.ttl("sess:id") <= HOUR

    def test_what_connect_redis_stored_is_a_session(self, store: RedisStore, server: RedisServer, clock: Clock) -> None:
        server.client.set("sess:id", b"data", ex=86400)
        stored = store.load("id")
        assert stored is not None
        assert stored.data == b"data"
        assert abs(stored.expires_at - clock() - DAY) < 5
        assert store.replace("id", b"data", b"new", clock() + HOUR)
        assert server.client.get("sess:id") == b"new"

    @row("F9")
    def test_a_key_without_ttl_has_no_limit_until_it_is_given_one(
        self, store: RedisStore, server: RedisServer, clock: Clock
    ) -> None:
        """connect-redis with disableTTL."""
        server.client.set("sess:id", b"data")
        assert store.load("id") == (b"data", inf)
        assert store.touch("id", b"data", clock() + HOUR)
        assert server.client.ttl("sess:id") > 0

    def test_it_expires_by_itself(self, store: RedisStore, clock: Clock) -> None:
        store.create("id", b"data", clock() + 0.05)
        until = time.monotonic() + SOON
        while store.load("id") is not None:
            assert time.monotonic() < until
        assert store.create("id", b"data", clock() + 0.05)

    def test_a_record_that_expires_while_it_is_read_is_absent(
        self, store: RedisStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its data were there still, and its TTL no more."""
        monkeypatch.setattr(store._redis, "run", lambda *commands: [[b"data", -2]])
        assert store.load("id") is None

    def test_an_empty_record_is_a_tombstone(self, store: RedisStore, server: RedisServer, clock: Clock) -> None:
        store.create("id", b"data", clock() + HOUR, "ann")
        assert store.rotate("id", b"data", "new", b"data", clock() + HOUR, "ann", inherits=True)
        assert server.client.mget("sess:id", "minisession:heir:{sess:id}") == [b"", b"new"]
        for key in ("sess:id", "minisession:heir:{sess:id}"):
            assert 14 < server.client.ttl(key) <= 15
        assert (list(store.ids()), list(store.ids("ann"))) == (["new"], ["new"])

    def test_an_empty_string_without_ttl_is_nothing_of_ours(
        self, store: RedisStore, server: RedisServer, clock: Clock
    ) -> None:
        server.client.set("sess:id", b"")
        server.client.set("minisession:heir:{sess:id}", b"new")
        assert (store.load("id"), store.heir("id"), store.delete("id")) == (None, None, False)
        assert not store.create("id", b"data", clock() + HOUR)
        assert (list(store.ids()), store.clear(), server.client.get("sess:id")) == ([], 0, b"")

    @pytest.mark.parametrize(
        ("prefix", "id", "heir"),
        [
            ("sess:", "id", "{sess:id}"),
            ("sess:", "{tag}id", "sess:{tag}id"),
            ("{tag}:", "id", "{tag}:id"),
            ("sess:", "x{y", "{sess:x{y}"),
            ("sess:", "}{tag}", "sess:}{tag}"),
            ("sess:", "x}y", "{sess:x}y}"),
            ("sess:", "{}y", "{sess:{}y}"),
        ],
    )
    def test_the_heir_is_in_the_slot_of_its_record(
        self, server: RedisServer, clock: Clock, prefix: str, id: str, heir: str
    ) -> None:
        """Where that can be: no hash tag can hold a brace that closes it."""
        store = RedisStore(server.url, prefix=prefix, clock=clock)
        store.create(id, b"data", clock() + HOUR)
        assert store.rotate(id, b"data", "new", b"data", clock() + HOUR, inherits=True)
        assert server.client.get(f"minisession:heir:{heir}") == b"new"
        apart = key_slot(f"minisession:heir:{heir}".encode()) != key_slot(f"{prefix}{id}".encode())
        assert apart == (id in ("x}y", "{}y"))
        assert store.heir(id) == "new"
        store.close()

    @row("T1")
    @pytest.mark.parametrize("skew", [-DAY, DAY])
    def test_redis_clock_need_not_be_ours(self, server: RedisServer, skew: float) -> None:
        store = RedisStore(server.url, clock=lambda: time.time() + skew)
        store.create("id", b"data", time.time() + skew + HOUR, "ann")
        assert HOUR - 5 < server.client.ttl("sess:id") <= HOUR
        assert HOUR - 5 < server.client.ttl("minisession:user:sess:ann") <= HOUR
        assert list(store.ids("ann")) == ["id"]
        store.close()

    @row("S9")
    def test_every_write_sends_a_ttl_from_a_millisecond_to_ten_years(
        self, store: RedisStore, server: RedisServer, clock: Clock
    ) -> None:
        """``PX 0`` is an error, ``PEXPIRE -1`` a deletion, and a key without TTL stays for ever."""
        with server.watched() as commands:
            for number, left in enumerate([inf, 1e300, TEN_YEARS + 1, 60.5, 0.001, 1e-9, 5e-324]):
                at = inf if left == inf else clock() + left
                for user in (None, "ann"):
                    id = f"{number}{user}"
                    store.create(id, b"data", at, user)
                    store.replace(id, b"data", b"new", at, user)
                    store.touch(id, b"new", at, user)
            for past in (0.0, 0.001, HOUR, inf):
                store.create("past", b"data", clock() - past, "ann")
                server.client.set("sess:past", b"data")
                store.touch("past", b"data", clock() - past, "ann")
                store.replace("past", b"data", b"new", clock() - past, "ann")
        ttls = []
        for words in commands:
            match words:
                case ["SET", key, _, "PX", ttl, *_] if key.startswith("sess:"):
                    ttls.append(int(ttl))
                case ["PEXPIRE", _, ttl]:
                    ttls.append(int(ttl))
                case ["SET", "sess:past", "data"]:
                    pass  # ours
                case ["SET" | "EXPIRE" | "PEXPIREAT" | "PERSIST", *_]:
                    pytest.fail(f"sent {words}")
        # Of each three writes of four long lives; and at least the first of three that end after a millisecond.
        assert len(ttls) >= 2 * (4 * 3 + 3)
        assert (min(ttls), max(ttls)) == (1, TEN_YEARS * 1000)
        assert 60500 in ttls

    @row("S9")
    def test_what_expires_now_is_deleted_if_it_is_what_was_seen(
        self, store: RedisStore, server: RedisServer, clock: Clock
    ) -> None:
        store.create("id", b"data", clock() + HOUR)
        assert not store.replace("id", b"other", b"new", clock())
        assert not store.touch("id", b"other", clock() - HOUR)
        assert not store.create("id", b"new", clock())
        assert server.client.get("sess:id") == b"data"
        assert store.touch("id", b"data", clock())
        assert not server.client.exists("sess:id")
        assert store.create("id", b"new", clock() - HOUR)
        assert not server.client.exists("sess:id")

    @row("C2", "C4")
    def test_apps_with_different_prefixes_do_not_see_each_other(
        self, store: RedisStore, server: RedisServer, clock: Clock
    ) -> None:
        others = [RedisStore(server.url, prefix=prefix, clock=clock) for prefix in ("ses?:", "s*:", "SESS:", "[s]ess:")]
        for other in (store, *others):
            assert other.create("id", other._prefix, clock() + HOUR, "ann")
        server.client.set("unrelated", "mine")
        for other in (store, *others):
            assert list(other.ids()) == list(other.ids("ann")) == ["id"]
        assert others[1].clear() == 1
        assert others[1].load("id") is None
        assert len([other for other in (store, *others) if list(other.ids("ann")) == ["id"]]) == 4
        assert server.client.get("unrelated") == b"mine"
        for other in others:
            other.close()

    @row("F9")
    def test_other_peoples_keys_under_our_prefix_are_left_alone(
        self, store: RedisStore, server: RedisServer, clock: Clock
    ) -> None:
        store.create("id", b"data", clock() + HOUR, "ann")
        server.client.set(b"sess:\xff", b"not UTF-8")
        server.client.hset("sess:hash", "field", "value")
        assert list(store.ids()) == ["id"]
        assert store.purge() == 0
        store.clear()
        assert server.client.hgetall("sess:hash") == {b"field": b"value"}

    @row("F9")
    def test_a_users_index_that_is_not_ours_is_an_outage_of_that_users_logins(
        self, store: RedisStore, server: RedisServer, clock: Clock
    ) -> None:
        """A session that no list names would survive "log out everywhere"."""
        server.client.set("minisession:user:sess:bob", "a string")
        calls: list[Callable[[], object]] = [
            lambda: store.create("bob's", b"data", clock() + HOUR, "bob"),
            lambda: list(store.ids("bob")),
        ]
        for call in calls:
            with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
                call()
        assert store.create("ann's", b"data", clock() + HOUR, "ann")
        assert server.client.get("minisession:user:sess:bob") == b"a string"

    def test_it_is_a_listing_store(self, store: RedisStore) -> None:
        listing: ListingStore = store  # mypy is the test
        assert list(listing.ids()) == []


OTHERS: dict[str, Callable[[Any, str], object]] = {
    "list": lambda client, key: client.rpush(key, "data"),
    "hash": lambda client, key: client.hset(key, "data", "data"),
    "set": lambda client, key: client.sadd(key, "data"),
    "sorted set": lambda client, key: client.zadd(key, {"data": 1}),
    "stream": lambda client, key: client.xadd(key, {"data": "data"}),
}


@row("F9")
@pytest.mark.parametrize("put_other", OTHERS.values(), ids=OTHERS)
def test_a_key_of_another_type_is_no_session_and_left_alone(
    server: RedisServer, store: RedisStore, clock: Clock, put_other: Callable[[Any, str], object]
) -> None:
    """Absent to `load`, taken to `create`, and to the other verbs not what was seen."""
    put_other(server.client, "sess:id")
    as_it_was = server.client.dump("sess:id")
    for at in (clock() + HOUR, clock()):  # when a record would be stored until then, and when it would be deleted
        for user in (None, "ann"):
            answers = [
                store.load("id"),
                store.create("id", b"new", at, user),
                *(store.replace("id", seen, b"new", at, user) for seen in (b"data", b"", b"WRONGTYPE")),
                store.rotate("id", b"data", "new", b"new", at, user, inherits=True),
                store.touch("id", b"data", at, user),
                store.delete("id"),
            ]
            assert answers == [None, False, False, False, False, False, False, False]
    assert (list(store.ids()), list(store.ids("ann"))) == ([], [])
    assert (server.client.dump("sess:id"), server.client.ttl("sess:id")) == (as_it_was, -1)


@row("F9", "F10")
def test_a_users_list_may_name_a_key_of_another_type(server: RedisServer, store: RedisStore, clock: Clock) -> None:
    """Or nobody could end this user's other sessions."""
    for id in ("live", "other"):
        store.create(id, b"data", clock() + HOUR, "ann")
    server.client.delete("sess:other")
    server.client.rpush("sess:other", "data")
    assert destroy_sessions_of(store, "ann") == 1
    assert server.client.lrange("sess:other", 0, -1) == [b"data"]
    make_old(server, 61)
    assert (list(store.ids("ann")), index(server)) == ([], set())


class TestAUsersIndex:
    def test_its_ttl_is_that_of_the_longest_session(self, store: RedisStore, server: RedisServer, clock: Clock) -> None:
        """Or a short session's end would hide the long ones."""
        for id, left in [("a", HOUR), ("b", DAY), ("c", 60.0)]:
            store.create(id, b"data", clock() + left, "ann")
        assert HOUR < server.client.ttl("minisession:user:sess:ann") <= DAY
        store.touch("c", b"data", clock() + 2 * DAY, "ann")
        assert DAY < server.client.ttl("minisession:user:sess:ann") <= 2 * DAY

    def test_the_index_is_written_before_the_record(self, store: RedisStore, server: RedisServer, clock: Clock) -> None:
        """A session without an entry would survive "log out everywhere"."""
        with server.watched() as commands:
            store.create("id", b"data", clock() + HOUR, "ann")
            store.replace("id", b"data", b"new", clock() + HOUR, "ann")
            store.touch("id", b"new", clock() + HOUR, "ann")
        writes = [words[0] for words in commands if words[0] in ("ZADD", "SET") or words[:2] == ["PEXPIRE", "sess:id"]]
        assert writes == ["ZADD", "SET", "ZADD", "SET", "ZADD", "PEXPIRE"]

    @row("C9")
    def test_a_process_killed_between_index_and_record_leaves_an_entry_that_goes(
        self, store: RedisStore, server: RedisServer, clock: Clock
    ) -> None:
        with Wire(server.port) as wire:
            scripts = counting()

            def killed(chunk: bytes) -> bytes:
                if next(scripts):
                    raise Cut(b"")
                return chunk

            wire.sent = killed
            dying = RedisStore(wire.url, clock=clock)
            dying._together = False  # as where a server answers CROSSSLOT: else it is one step
            with pytest.raises(StoreUnavailable):
                dying.create("id", b"data", clock() + HOUR, "ann")
            dying.close()
        until = time.monotonic() + SOON
        while index(server) != {b"id"}:
            assert time.monotonic() < until
        assert (list(store.ids("ann")), store.load("id"), index(server)) == ([], None, {b"id"})
        make_old(server, 61)
        assert list(store.ids("ann")) == []
        assert index(server) == set()

    @row("F10")
    def test_entries_are_pruned_when_their_record_is_gone_and_no_login_can_be_under_way(
        self, store: RedisStore, server: RedisServer, clock: Clock
    ) -> None:
        for id in ("live", "deleted", "buried"):
            store.create(id, b"data", clock() + HOUR, "ann")
        store.delete("deleted")
        assert store.rotate("buried", b"data", "heir", b"data", clock() + HOUR, inherits=True)
        make_old(server, 55)
        assert (store.purge(), list(store.ids("ann"))) == (0, ["live"])
        assert len(index(server)) == 3
        make_old(server, 6)
        assert store.purge() == 1
        assert index(server) == {b"live", b"buried"}  # a listing under way needs what has just been rotated
        server.age(15)
        assert store.purge() == 1
        assert index(server) == {b"live"}

    @row("C9")
    def test_a_login_that_overtakes_the_pruning_keeps_its_entry(
        self, store: RedisStore, server: RedisServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The record was not there when pruning looked; by the time it removes, there is."""
        store.create("id", b"data", clock() + HOUR, "ann")
        store.delete("id")
        make_old(server, 61)
        look = store._look

        def looks(ids: list[bytes], begun: int) -> tuple[list[bytes], list[bytes]]:
            found = look(ids, begun)
            store.create("id", b"again", clock() + HOUR, "ann")
            return found

        monkeypatch.setattr(store, "_look", looks)
        assert list(store.ids("ann")) == []
        monkeypatch.undo()
        assert list(store.ids("ann")) == ["id"]

    def test_logging_in_and_out_for_years_does_not_fill_the_index(
        self, store: RedisStore, server: RedisServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody lists, and nobody purges."""
        monkeypatch.setattr(module, "GRACE", 0)
        for number in range(100):
            store.create(f"device {number}", b"data", clock() + HOUR, "ann")
        for number in range(500):
            store.create(f"{number}", b"data", clock() + HOUR, "ann")
            store.delete(f"{number}")
        assert 100 <= len(index(server)) < 250
        assert len(list(store.ids("ann"))) == 100

    def test_a_login_stands_when_the_pruning_after_it_fails(
        self, store: RedisStore, server: RedisServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(31):
            store.create(f"{number}", b"data", clock() + HOUR, "ann")

        def fails(keys: list[bytes]) -> list[bytes]:
            raise StoreUnavailable("just now")

        monkeypatch.setattr(store, "_live", fails)
        assert store.create("31", b"data", clock() + HOUR, "ann")

    @row("F10")
    def test_thousands_of_sessions_are_listed_in_batches(
        self, store: RedisStore, server: RedisServer, clock: Clock
    ) -> None:
        with server.client.pipeline(transaction=False) as pipe:
            for number in range(3000):
                pipe.set(f"sess:{number}", b"data")
                pipe.zadd("minisession:user:sess:ann", {f"{number}": int(time.time())})
            pipe.execute()
        expected = {f"{number}" for number in range(3000)}
        assert set(store.ids()) == set(store.ids("ann")) == expected
        listing = store.ids("ann")
        with server.counted() as commands:
            next(listing)
        assert commands["strlen"] < 1000
        assert store.clear() == 3000
        assert server.client.keys() == []


class TestListingMeanwhile:
    """Sessions that are given new ids while a listing is on its way."""

    @pytest.fixture
    def rotated(self, store: RedisStore, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bool], None]:
        """Arrange that "ann's" is rotated each time that a listing has read ids, and has not looked at them yet."""
        live = store._live

        def arrange(id: str, inherits: bool) -> None:
            ids = chain([id], (f"{id}{number}" for number in counting(1)))
            current = [next(ids)]
            store.create(id, b"data", clock() + HOUR, "ann")

            def looks(listed: list[bytes]) -> list[int]:
                new = next(ids)
                store.rotate(current[0], b"data", new, b"data", clock() + HOUR, "ann", inherits=inherits)
                current[0] = new
                return live(listed)

            monkeypatch.setattr(store, "_live", looks)

        return arrange

    @pytest.mark.parametrize("user", [None, "ann"])
    @pytest.mark.parametrize("inherits", [True, False])
    def test_a_session_is_listed_by_an_id_that_it_has_had_since_the_listing_began(
        self, store: RedisStore, rotated: Callable[[str, bool], None], user: str | None, *, inherits: bool
    ) -> None:
        """Between the index and the records, every time."""
        rotated("ann's", inherits)
        assert list(store.ids(user)) == ["ann's"]
        assert list(store.ids(user)) == ["ann's1"]

    @pytest.mark.parametrize("user", [None, "ann"])
    def test_what_was_a_tombstone_when_the_listing_began_is_skipped(
        self, store: RedisStore, clock: Clock, user: str | None
    ) -> None:
        """However short a time before."""
        store.create("0", b"data", clock() + HOUR, "ann")
        for number in range(100):
            store.rotate(f"{number}", b"data", f"{number + 1}", b"data", clock() + HOUR, "ann", inherits=True)
            assert list(store.ids(user)) == [f"{number + 1}"]

    def test_clear_ends_a_session_however_often_it_is_rotated_meanwhile(
        self, store: RedisStore, server: RedisServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two new ids, between the look at it and its end."""
        for id in ("ann's", "other"):
            store.create(id, b"data", clock() + HOUR, "ann")
        look = store._look

        def looks(ids: list[bytes], begun: int) -> tuple[list[bytes], list[bytes]]:
            found = look(ids, begun)
            for old, new in (("ann's", "ann's 1"), ("ann's 1", "ann's 2")):
                store.rotate(old, b"data", new, b"data", clock() + HOUR, "ann", inherits=True)
            return found

        monkeypatch.setattr(store, "_look", looks)
        assert store.clear() == 2
        monkeypatch.undo()
        assert (list(store.ids()), list(store.ids("ann"))) == ([], [])

    def test_clear_leaves_the_index_of_a_login_that_comes_after_it_began(
        self, store: RedisStore, server: RedisServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Or "log out everywhere" would not find it."""
        store.create("ann's", b"data", clock() + HOUR, "ann")
        look = store._look

        def looks(ids: list[bytes], begun: int) -> tuple[list[bytes], list[bytes]]:
            found = look(ids, begun)
            store.create("late", b"data", clock() + HOUR, "ann")
            return found

        monkeypatch.setattr(store, "_look", looks)
        assert store.clear() == 1
        monkeypatch.undo()
        assert list(store.ids("ann")) == ["late"]


@pytest.fixture(scope="module")
def alone() -> Iterator[RedisServer]:
    """A Cluster of one node."""
    with redis_server("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as server:
        server.client.execute_command("CLUSTER ADDSLOTSRANGE 0 16383")
        until = time.monotonic() + SOON
        while server.client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":  # Redis takes two seconds
            assert time.monotonic() < until
            time.sleep(0.01)
        yield server


class TestWhereKeysMayNotMeetInAScript:
    """CROSSSLOT: a server of a Cluster that is asked like one node, or a proxy."""

    @pytest.fixture
    def store(self, alone: RedisServer, clock: Clock) -> Iterator[RedisStore]:
        alone.client.flushall()
        store = RedisStore(alone.url, clock=clock)
        yield store
        store.close()

    def test_each_is_written_by_itself_the_index_first(self, store: RedisStore, clock: Clock) -> None:
        assert store.create("id", b"data", clock() + HOUR, "ann")
        assert not store.create("id", b"other", clock() + HOUR, "bob")
        assert store.replace("id", b"data", b"new", clock() + HOUR, "ann")
        assert store.touch("id", b"new", clock() + HOUR, "ann")
        assert (list(store.ids("ann")), list(store.ids("bob"))) == (["id"], [])

    @pytest.mark.parametrize("user", [None, "ann"])
    @pytest.mark.parametrize("old", ["old", "o}ld"])
    def test_rotation_goes_by_steps(self, store: RedisStore, clock: Clock, old: str, user: str | None) -> None:
        at = clock() + HOUR
        store.create(old, b"data", at, user)
        assert store.create("taken", b"other's", at)
        assert not store.rotate(old, b"data", "taken", b"new", at, user, inherits=True)
        assert not store.rotate(old, b"not this", "new", b"new", at, user, inherits=True)
        assert (store.load("new"), sorted(store.ids())) == (None, sorted([old, "taken"]))
        assert store.rotate(old, b"data", "new", b"new", at, user, inherits=True)
        assert (store.heir(old), sorted(store.ids())) == ("new", ["new", "taken"])
        assert store.rotate("new", b"new", "newer", b"new", at, user, inherits=False)
        assert (store.heir("new"), sorted(store.ids())) == (None, ["newer", "taken"])
        assert not store.rotate("new", b"new", "newest", b"new", at, user, inherits=True)

    def test_where_the_burial_fails_the_new_record_goes(
        self, store: RedisStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whether or not the old one is buried by then: the browser is not told the new id."""
        store.create("old", b"data", clock() + HOUR)

        def fails(*arguments: object) -> bool:
            raise StoreUnavailable("just now")

        monkeypatch.setattr(store, "_bury", fails)
        with pytest.raises(StoreUnavailable):
            store.rotate("old", b"data", "new", b"new", clock() + HOUR, inherits=True)
        assert list(store.ids()) == ["old"]


LOAD = {"eval": 1, "get": 1, "pttl": 1}
ENTER = {"time": 1, "zadd": 1, "pttl": 1}


class TestRoundTrips:
    """Counted by Redis, for requests through the middleware."""

    @pytest.fixture
    def site(self, store: RedisStore, clock: Clock) -> Site:
        store.load("connected")
        return Site(store=store, clock=clock)

    @staticmethod
    def login(session: Session) -> None:
        session.regenerate(user="ann")
        session["name"] = "Ann"

    def count(self, site: Site, server: RedisServer, page: Page | None, *, user: bool = False, passed: int = 1) -> Any:
        """Return what a visit of this page costs a browser that has a session."""
        visitor = site.browser()
        visitor.visit(self.login if user else put("n", 0))
        server.age(passed)
        with server.counted() as commands:
            visitor.visit(page)
        return commands

    def test_an_untouched_request_costs_nothing(self, site: Site, server: RedisServer) -> None:
        assert self.count(site, server, None) == {"trips": 0}

    def test_a_first_visit_that_only_looks_costs_nothing(self, site: Site, server: RedisServer) -> None:
        with server.counted() as commands:
            site.browser().visit(lambda session: session.get("n"))
        assert commands == {"trips": 0}

    def test_a_read_is_one(self, site: Site, server: RedisServer) -> None:
        assert self.count(site, server, lambda session: session["n"]) == {"trips": 1, **LOAD}

    def test_a_read_whose_touch_is_due_is_two(self, site: Site, server: RedisServer) -> None:
        commands = self.count(site, server, lambda session: session["n"], passed=3600)
        assert commands == {"trips": 2, "eval": 2, "get": 2, "pttl": 1, "pexpire": 1}

    def test_a_write_is_two(self, site: Site, server: RedisServer) -> None:
        assert self.count(site, server, put("n", 1)) == {"trips": 2, "eval": 2, "get": 2, "pttl": 1, "set": 1}

    def test_a_users_write_is_two_with_its_index(self, site: Site, server: RedisServer) -> None:
        commands = self.count(site, server, put("n", 1), user=True)
        assert commands == {"trips": 2, **ENTER, "eval": 2, "get": 2, "pttl": 2, "set": 1, "pexpire": 1}

    def test_a_login_of_an_anonymous_browser_is_one(self, site: Site, server: RedisServer) -> None:
        with server.counted() as commands:
            site.browser().visit(self.login)
        assert commands == {"trips": 1, **ENTER, "eval": 1, "exists": 1, "zcard": 1, "pexpire": 1, "set": 1}

    def test_a_logout_is_two(self, site: Site, server: RedisServer) -> None:
        commands = self.count(site, server, lambda session: session.destroy(), user=True)
        assert commands == {"trips": 2, **LOAD, "eval": 2, "strlen": 1, "del": 1}

    @pytest.mark.parametrize("inherits", [True, False])
    def test_a_new_id_is_one(self, store: RedisStore, server: RedisServer, clock: Clock, *, inherits: bool) -> None:
        """Beside the look at the session, which every request has made by then."""
        for user, entered in ((None, {}), ("ann", {**ENTER, "zcard": 1, "pexpire": 1})):
            store.create(f"old of {user}", b"data", clock() + HOUR)
            with server.counted() as commands:
                store.rotate(f"old of {user}", b"data", f"new of {user}", b"", clock() + HOUR, user, inherits=inherits)
            heir = {"set": 3} if inherits else {"set": 2, "del": 1}
            assert commands == {"trips": 1, "eval": 1, "get": 1, "exists": 1, **heir, **entered}

    def test_connecting_costs_none(self, server: RedisServer, clock: Clock) -> None:
        """No HELLO, no CLIENT SETINFO, no PING."""
        store = RedisStore(server.url, clock=clock)
        with server.counted() as commands:
            store.load("id")
        assert commands == {"trips": 1, **LOAD}
        store.close()


class Aged:
    """A store for a clock that is told the time: what Redis holds grows older with it."""

    def __init__(self, server: RedisServer) -> None:
        self.server, self.clock, self.seen = server, Clock(), 0.0
        self.store = RedisStore(server.url, clock=lambda: self.clock())

    def __call__(self, clock: Clock) -> Aged:
        """Begin anew."""
        self.clock, self.seen = clock, clock()
        self.server.client.flushall()
        return self

    def __getattr__(self, verb: str) -> Any:
        if self.clock() > self.seen:
            self.server.age(self.clock() - self.seen)
            self.seen = self.clock()
        return getattr(self.store, verb)


def test_the_order_of_two_requests_is_of_no_matter(
    server: RedisServer, count: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """All schedules of some pairs; of all pairs, where the long tests run."""
    caplog.set_level(logging.CRITICAL, "minisession")
    opened = Aged(server)
    explored = Explorer(opened)
    pairs = list(combinations_with_replacement(REQUESTS, 2))
    for pair in pairs if LONG else random.Random(SEED).sample(pairs, 10):
        assert explored.all(Scenario(ADAS, pair))
    opened.store.close()
    count(f"Redis: {explored}")


class TestArguments:
    def test_anything_but_a_url_or_a_client_is_refused(self, server: RedisServer) -> None:
        for wrong in (None, 6379, b"redis://localhost", object(), RedisStore):
            with pytest.raises(TypeError, match=r"a URL, a redis\.Redis"):
                RedisStore(wrong)  # type: ignore[arg-type]

    @row("O22")
    @pytest.mark.parametrize(
        "url",
        [
            "",
            "localhost",
            "http://localhost",
            "redis:/localhost",
            "redis://:hunter2",
            "redis://h:hunter2",
            "redis+x://h",
            "redis://:hunter2@h/shop",
            "redis+cluster://:hunter2@h/1/2",
            "redis+cluster://:hunter2@h/3",
            "unix://",
            "unix://:hunter2@",
        ],
    )
    def test_what_is_no_url_of_redis_is_refused_without_the_password_in_it(self, url: str) -> None:
        with pytest.raises(ValueError, match="not a Redis URL: redis://") as refused:
            RedisStore(url)
        assert "hunter2" not in "".join(traceback.format_exception(refused.value))

    @row("O22")
    def test_an_option_that_redis_py_does_not_know_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"redis-py does not know: .*colour"):
            RedisStore("redis://localhost?colour=red")

    def test_a_client_that_decodes_is_refused(self, server: RedisServer) -> None:
        with redis.Redis(port=server.port, decode_responses=True) as client:
            for wrong in (client, f"{server.url}?decode_responses=True"):
                with pytest.raises(TypeError, match="decode_responses=False"):
                    RedisStore(wrong)

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ({"prefix": b"sess:"}, TypeError),
            ({"prefix": None}, TypeError),
            ({"clock": 5}, TypeError),
            ({"monotonic": "x"}, TypeError),
            ({"connect_timeout": None}, TypeError),
            ({"read_timeout": "1"}, TypeError),
            ({"pool_timeout": True}, TypeError),
            ({"connect_timeout": 0}, ValueError),
            ({"read_timeout": -1.0}, ValueError),
            ({"pool_timeout": inf}, ValueError),
            ({"max_connections": 0}, ValueError),
            ({"max_connections": 1.0}, TypeError),
            ({"max_connections": True}, TypeError),
        ],
    )
    def test_a_wrong_argument_is_named(self, arguments: dict[str, Any], error: type[Exception]) -> None:
        with pytest.raises(error, match=next(iter(arguments))):
            RedisStore("redis://localhost", **arguments)

    def test_options_in_the_url_are_redis_pys(self, server: RedisServer) -> None:
        store = RedisStore(f"redis://127.0.0.1:{server.port}/2?client_name=shop")
        store.create("id", b"data", inf)
        (shop,) = [client for client in server.client.client_list() if client["name"] == "shop"]
        assert shop["db"] == "2"
        store.close()

    def test_closing_leaves_a_client_that_was_given_open(self, server: RedisServer) -> None:
        with redis.Redis(port=server.port) as client:
            store = RedisStore(client)
            store.load("id")
            held = [connection["id"] for connection in server.client.client_list()]
            store.close()
            client.ping()
            assert [connection["id"] for connection in server.client.client_list()] == held

    def test_closing_closes_connections_of_ours(self, server: RedisServer) -> None:
        store = RedisStore(f"{server.url}?client_name=ours")
        store.load("id")
        store.close()
        until = time.monotonic() + SOON
        while any(client["name"] == "ours" for client in server.client.client_list()):
            assert time.monotonic() < until

    @row("S7")
    def test_the_master_that_sentinel_names_will_do(self, server: RedisServer, tmp_path: Path) -> None:
        port = free_port()
        (tmp_path / "sentinel.conf").write_text(
            f"port {port}\nbind 127.0.0.1\nsentinel monitor shop 127.0.0.1 {server.port} 1\n"
        )
        sentinel = subprocess.Popen(
            [server.program, "sentinel.conf", "--sentinel"], cwd=tmp_path, stdout=subprocess.DEVNULL
        )
        try:
            with redis.Redis(port=port) as client:
                until = time.monotonic() + SOON
                while refusal(client.ping):
                    assert time.monotonic() < until
                    time.sleep(0.005)
            sentinels: Any = Sentinel([("127.0.0.1", port)])  # type: ignore[no-untyped-call]  # redis-py's
            store = RedisStore(sentinels.master_for("shop"))
            assert store.create("id", b"data", inf, "ann")
            assert (list(store.ids("ann")), server.client.get("sess:id")) == (["id"], b"data")
            for client in (sentinels.sentinels[0], sentinels.master_for("shop")):
                client.close()
        finally:
            sentinel.kill()
            sentinel.wait()

    def test_tls_verifies_the_certificate(self, tmp_path: Path) -> None:
        key, cert = f"{tmp_path}/key", f"{tmp_path}/cert"
        subprocess.run(
            [
                *(need_program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
                *("-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
                *("-keyout", key, "-out", cert),
            ],
            check=True,
            capture_output=True,
        )
        port = free_port()
        options = ["--tls-port", str(port), "--tls-key-file", key, "--tls-cert-file", cert, "--tls-auth-clients", "no"]
        with redis_server(*options) as server:
            store = RedisStore(f"rediss://127.0.0.1:{port}?ssl_ca_certs={cert}")
            assert store.create("id", b"data", inf)
            assert server.client.get("sess:id") == b"data"
            store.close()
            stranger = RedisStore(f"rediss://127.0.0.1:{port}")
            with pytest.raises(StoreUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
                stranger.load("id")
            stranger.close()

    def test_a_unix_socket(self, server: RedisServer) -> None:
        store = RedisStore(f"unix://{server.socket}?db=3")
        assert store.create("id", b"data", inf)
        assert [client["addr"] for client in server.client.client_list() if client["db"] == "3"] == [
            f"{server.socket}:0"
        ]
        store.close()

    def test_without_redis_py_the_import_says_what_to_install(self) -> None:
        code = f"import sys; sys.path.insert(0, {str(Path(minisession.__file__).parent.parent)!r})"
        code += "; import minisession.stores.redis"
        done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
        missing = "RedisStore needs redis-py, the package redis, from version 5 on: pip install 'redis>=5'"
        assert f"ImportError: {missing} (" in done.stderr

    def test_an_app_starts_while_its_redis_does(self) -> None:
        port = free_port()
        for scheme in ("redis", "redis+cluster"):
            store = RedisStore(f"{scheme}://:hunter2@127.0.0.1:{port}")
            for _ in range(2):
                with pytest.raises(StoreUnavailable) as down:
                    store.load("id")
            assert "hunter2" not in str(down.value)
            store.close()


# What Redis refuses, and what no Redis would answer


@contextmanager
def readonly(server: RedisServer) -> Iterator[str]:
    server.client.replicaof("127.0.0.1", "1")
    try:
        yield "You can't write against a read only replica"
    finally:
        server.client.replicaof("NO", "ONE")


@contextmanager
def configured(server: RedisServer, option: str, value: object) -> Iterator[None]:
    before = server.client.config_get(option)[option]
    server.client.config_set(option, value)
    try:
        yield
    finally:
        server.client.config_set(option, before)


@contextmanager
def without_its_master(server: RedisServer) -> Iterator[str]:
    with configured(server, "replica-serve-stale-data", "no"), readonly(server):
        yield "Link with MASTER is down"


@contextmanager
def without_replicas(server: RedisServer) -> Iterator[str]:
    with configured(server, "min-replicas-to-write", 1):
        yield "NOREPLICAS"


@contextmanager
def out_of_memory(server: RedisServer) -> Iterator[str]:
    with configured(server, "maxmemory", 1):
        yield "used memory > 'maxmemory'"


@contextmanager
def locked_out(server: RedisServer) -> Iterator[str]:
    with redis.Redis(port=server.port) as inside:
        inside.config_set("requirepass", "hunter2")
        try:
            inside.client_kill_filter(_type="normal", skipme=True)
            yield "Authentication required"
        finally:
            inside.execute_command("AUTH", "hunter2")
            inside.config_set("requirepass", "")


@contextmanager
def without_permission(server: RedisServer) -> Iterator[str]:
    server.client.execute_command("ACL", "SETUSER", "default", "-@all", "+acl")
    try:
        yield "permissions"
    finally:
        server.client.execute_command("ACL", "SETUSER", "default", "+@all")


@contextmanager
def busy(server: RedisServer) -> Iterator[str]:
    def spin() -> None:
        with redis.Redis(port=server.port, socket_timeout=SOON) as client, suppress(redis.RedisError):
            client.eval("while true do end", 0)

    with configured(server, "busy-reply-threshold", 1):
        thread = threading.Thread(target=spin)
        thread.start()
        try:
            until = time.monotonic() + SOON
            while "BUSY" not in refusal(server.client.ping):
                assert time.monotonic() < until
            yield "BUSY"
        finally:
            server.client.script_kill()
            thread.join(SOON)


def refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except redis.RedisError as error:
        return str(error)
    return ""


READS = (lambda store: store.load("id"),)
WRITES = (
    lambda store: store.create("new", b"data", inf),
    lambda store: store.create("new", b"data", inf, "ann"),
    lambda store: store.replace("id", b"data", b"other", inf),
    lambda store: store.touch("id", b"data", inf, "ann"),
)
DELETES = (lambda store: store.delete("id"),)


class TestRefusals:
    @row("S4")
    @pytest.mark.parametrize(
        ("trouble", "verbs"),
        [
            (readonly, (*WRITES, *DELETES)),
            (without_its_master, READS),
            (without_replicas, (*WRITES, *DELETES)),
            (out_of_memory, WRITES),
            (locked_out, (*READS, *WRITES, *DELETES)),
            (without_permission, (*READS, *WRITES, *DELETES)),
            (busy, (*READS, *WRITES, *DELETES)),
        ],
    )
    def test_a_refusal_is_an_outage_nothing_is_stored_and_it_ends_by_itself(
        self,
        store: RedisStore,
        server: RedisServer,
        trouble: Callable[[RedisServer], AbstractContextManager[str]],
        verbs: tuple[Callable[[Store], object], ...],
    ) -> None:
        store.create("id", b"data", inf)
        with trouble(server) as words:
            for verb in verbs:
                with pytest.raises(StoreUnavailable, match=re.escape(words)) as refused:
                    verb(store)
                assert "sess:" not in "".join(traceback.format_exception(refused.value))
        assert store.load("new") is None
        stored = store.load("id")
        assert stored is not None
        assert stored.data == b"data"
        assert store.replace("id", b"data", b"new", inf, "ann")

    @row("S4")
    def test_a_wrong_password_is_an_outage(self, server: RedisServer) -> None:
        store = RedisStore(f"redis://ann:hunter2@127.0.0.1:{server.port}")
        with pytest.raises(StoreUnavailable, match="invalid username-password") as refused:
            store.load("id")
        assert "hunter2" not in "".join(traceback.format_exception(refused.value))
        store.close()

    @row("S4")
    def test_a_redis_that_is_loading_is_an_outage(self) -> None:
        with redis_server() as server:
            store = RedisStore(server.url)
            for number in range(200):
                server.client.set(f"{number}", "x")
            store.create("id", b"data", inf)
            server.client.save()
            server.kill()
            server.start("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024", wait=False)
            until = time.monotonic() + SOON
            refusals: set[str] = set()
            while not refusals & {""}:
                assert time.monotonic() < until
                try:
                    refusals.add("" if store.load("id") else "gone")
                except StoreUnavailable as error:
                    refusals.add(str(error))
            assert any("loading the dataset" in refusal for refusal in refusals)
            assert "gone" not in refusals
            store.close()

    @row("S4")
    def test_a_redis_that_cannot_write_its_file_is_an_outage(self) -> None:
        """MISCONF: a full disk, as a rule.  Reading goes on."""
        with redis_server("--save", "3600 1000000") as server:
            store = RedisStore(server.url)
            store.create("id", b"data", inf)
            shutil.rmtree(server.folder)  # where it would write
            server.client.bgsave()
            until = time.monotonic() + SOON
            while server.client.info("persistence")["rdb_last_bgsave_status"] == "ok":
                assert time.monotonic() < until
                time.sleep(0.01)
            verbs: tuple[Callable[[Store], object], ...] = (*WRITES, *DELETES)
            for verb in verbs:
                with pytest.raises(StoreUnavailable, match="MISCONF"):
                    verb(store)
            stored = store.load("id")
            assert stored is not None
            assert stored.data == b"data"
            store.close()

    @row("S4")
    def test_a_cluster_is_told_from_a_node(self) -> None:
        with redis_server("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as server:
            store = RedisStore(server.url)
            with pytest.raises(StoreUnavailable, match="Hash slot not served"):
                store.load("id")
            store.close()

    @row("S7")
    def test_after_a_failover_a_new_connection_is_made(self, server: RedisServer) -> None:
        """An address that names the new master now, and connections that still lead to the old one."""
        with redis_server() as other, Wire(server.port) as wire:
            store = RedisStore(wire.url)
            assert store.create("id", b"data", inf)
            with readonly(server):
                wire.to = other.port
                with pytest.raises(StoreUnavailable, match="read only"):
                    store.create("new", b"data", inf)
                assert store.create("new", b"data", inf)
            assert other.client.exists("sess:new")
            store.close()

    def test_an_unknown_command_does_not_put_the_id_into_the_message(self) -> None:
        with redis_server("--rename-command", "EVAL", "") as server:
            store = RedisStore(server.url)
            with pytest.raises(StoreUnavailable, match="unknown command 'EVAL'") as refused:
                store.load(SECRET_ID)
            assert "s3cret" not in "".join(traceback.format_exception(refused.value))
            store.close()

    @row("S5")
    def test_scripts_may_be_flushed_between_any_two_calls(
        self, store: RedisStore, server: RedisServer, clock: Clock
    ) -> None:
        at = clock() + HOUR
        calls: list[Callable[[], object]] = [
            lambda: store.create("id", b"data", at, "ann"),
            lambda: store.replace("id", b"data", b"new", at, "ann"),
            lambda: store.touch("id", b"new", at, "ann"),
            lambda: list(store.ids("ann")),
            lambda: store.rotate("id", b"new", "heir", b"data", at, "ann", inherits=True),
            lambda: store.heir("id"),
            lambda: store.delete("heir"),
        ]
        for call in calls:
            server.client.script_flush()
            with server.counted() as commands:
                assert call()
            assert commands["trips"] <= 3  # ids() asks for the time, and looks at the index, then at the records

    @row("S6")
    def test_when_memory_is_full_logging_out_works_and_saving_fails_cleanly(
        self, store: RedisStore, server: RedisServer, clock: Clock
    ) -> None:
        at = clock() + HOUR
        for id in ("read", "written", "deleted", "buried"):
            store.create(id, b"data", at)
        with out_of_memory(server):
            with pytest.raises(StoreUnavailable, match="maxmemory"):
                store.create("new", b"data", at)
            with pytest.raises(StoreUnavailable, match="maxmemory"):
                store.replace("written", b"data", b"x", at)
            assert store.touch("read", b"data", at + 1)
            assert store.delete("deleted")
            assert store._bury("buried", b"data", "heir")
            for inherits in (True, False):
                with pytest.raises(StoreUnavailable, match="maxmemory"):
                    store.rotate("written", b"data", "new", b"x", at, "ann", inherits=inherits)
            assert server.client.mget("sess:read", "sess:written", "sess:deleted", "sess:buried") == [
                *(b"data", b"data", None, TOMBSTONE),
            ]
            assert store.heir("buried") == "heir"
        assert server.client.keys("*new*") == []


class Impostor:
    """A server that answers everything with the same bytes, in pieces, and hangs up if told to."""

    def __init__(self, answer: bytes, size: int, *, hang_up: bool) -> None:
        self.answer, self.size, self.hang_up = answer, size, hang_up
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                with connection, suppress(OSError):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connection.recv(65536)
                    for start in range(0, len(self.answer), self.size):
                        connection.sendall(self.answer[start : start + self.size])
                    if not self.hang_up:
                        connection.recv(1)

    def __enter__(self) -> Impostor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(SOON)


SECRET_ID = "s3cret-id"  # not in the lines that tracebacks show

NONSENSE = [
    b"",
    b"\r\n",
    b"$",
    b"$\r\n",
    b"$-2\r\n",
    b"$x\r\n",
    b"$5\r\nab",
    b"$9999999999\r\n",
    b"*",
    b"*-1\r\n",
    b"*2\r\n",
    b"*x\r\n",
    b"*9999999999\r\n",
    b":",
    b":\r\n:\r\n",
    b":5\r\n:5\r\n",
    b":x\r\n",
    b"+OK\r\n+OK\r\n",
    b"-\r\n-\r\n",
    b"$4\r\ndata\r\n+soon\r\n",
    b"$4\r\ndata\r\n:x\r\n",
    b"$4\r\ndata\r\n$-1\r\n",
    b"$4\r\ndata\r\n*1\r\n:5\r\n",
    b"-ERR unknown command 'GET', with args beginning with: 'sess:s3cret'\r\n:5\r\n",
    b"-MOVED\r\n",
    b"-MOVED x y\r\n",
    b"-MOVED 1 h:p\r\n",
    b"-ASK 1 127.0.0.1\r\n",
    b"-\xff\xfe\r\n:5\r\n",
    b"\xff\xfe\r\n",
    b">2\r\n+message\r\n+x\r\n",
    b"%1\r\n*0\r\n+x\r\n",
    b"~1\r\n+x\r\n",
    b"_\r\n_\r\n",
    b"#t\r\n",
    b"|1\r\n+a\r\n+b\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"SSH-2.0-OpenSSH_9\r\n",
    b"s3cret\r\n",
    b"$1" + b"0" * 400 + b"\r\n",
    b":1" + b"0" * 5000 + b"\r\n",
    b"*1\r\n" * 2000,
    b"*1\r\n" * 200_000,
    b"\0" * 5000,
]


@row("S10")
@pytest.mark.parametrize("hang_up", [True, False], ids=["hangs up", "waits"])
@pytest.mark.parametrize("answer", NONSENSE, ids=lambda answer: repr(answer[:40]))
def test_nonsense_is_an_outage_and_nothing_else(answer: bytes, hang_up: bool) -> None:
    for size in (len(answer) + 1, 1) if len(answer) < 100 else (len(answer) + 1,):
        with Impostor(answer, size, hang_up=hang_up) as impostor:
            store = RedisStore(impostor.url, read_timeout=0.02)
            with pytest.raises(StoreUnavailable) as failed:
                store.load(SECRET_ID)
            assert "s3cret" not in "".join(traceback.format_exception(failed.value))
            store.close()


@row("S10")
@pytest.mark.parametrize(
    "answer",
    [
        b":5\r\n:5\r\n",
        b"$4\r\ndata\r\n$4\r\ndata\r\n",
        b"+QUEUED\r\n+QUEUED\r\n",
        b"*-1\r\n*-1\r\n",
        b"*0\r\n*0\r\n",
        b"*2\r\n:0\r\n*0\r\n",
        b"*2\r\n$1\r\n0\r\n*1\r\n:1\r\n",
    ],
)
def test_nonsense_acknowledges_nothing(answer: bytes) -> None:
    """Answers of other commands: nothing is taken for stored, and what lists sessions fails as what loads them does."""
    verbs: list[Callable[[RedisStore], object]] = [
        lambda store: store.create(SECRET_ID, b"data", inf) and "created",
        lambda store: store.create(SECRET_ID, b"data", inf, "ann") and "created",
        lambda store: store.replace(SECRET_ID, b"data", b"new", inf, "ann") and "replaced",
        lambda store: next(store.ids(), None),
        lambda store: next(store.ids("ann"), None),
    ]
    for verb in verbs:
        with Impostor(answer, len(answer) + 1, hang_up=True) as impostor:
            store = RedisStore(impostor.url, read_timeout=0.02)
            with suppress(StoreUnavailable):
                assert not verb(store)
            store.close()
