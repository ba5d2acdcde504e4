"""`RedisStore` on each engine that there is: Debian's Redis, and the newest Valkey that is a package of Python's.

Slots that are being moved are held so by hand: under a real reshard a request is rarely so unlucky.
"""

from __future__ import annotations

import threading
import time
import unittest
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from minisession import StoreUnavailable, destroy_sessions_of
from minisession.stores.base import TOMBSTONE, Store
from minisession.testing import StoreContract

from ..support.browser import Clock
from ..support.redis_masters import Cluster, home_of, redis_masters, slot_of, valkey_server
from ..support.redis_server import SOON, RedisServer, redis_server
from ..support.rows import row
from ..support.site import Site, put

from minisession.stores.redis import RedisStore  # isort: skip  # after redis_server, which skips without redis-py

ENGINES: dict[str, Callable[[], str | None]] = {"Redis": lambda: None, "Valkey": valkey_server}

HOUR = 3600.0


@pytest.fixture(scope="module")
def valkey() -> Iterator[RedisServer]:
    with redis_server(program=valkey_server()) as server:
        yield server


class TestValkey(StoreContract, unittest.TestCase):
    """Redis is tested in test_redis_store."""

    tick = 5.0

    @pytest.fixture(autouse=True)
    def _server(self, valkey: RedisServer) -> None:
        self.server, self.clock = valkey, Clock()

    def now(self) -> float:
        return self.clock()

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.server.age(seconds)

    def make_store(self) -> Store:
        self.server.client.flushall()
        return RedisStore(self.server.url, clock=self.clock)

    def open_again(self, store: Store) -> Store:
        return RedisStore(self.server.url, clock=self.clock)


@pytest.fixture(scope="module", params=ENGINES)
def running(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with redis_masters(ENGINES[request.param]()) as cluster:
        yield cluster


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    for node in running.nodes:
        node.client.flushall()
    return running


@pytest.fixture
def store(cluster: Cluster) -> Iterator[RedisStore]:
    store = RedisStore(cluster.url)
    yield store
    store.close()


TAG = "{ann}"  # puts records into one slot; the index of user TAG is there as well


@pytest.fixture(params=["here", "on its way", "there"])
def moving(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Callable[[], None]]:
    """Hold the slot of `TAG` in the state between two masters; what it had by then, stays, half goes, or goes."""
    slot, source = slot_of(TAG), home_of(TAG)
    target = (source + 1) % 3

    def begin() -> None:
        cluster.open(slot, source, target)
        if request.param == "there":
            cluster.move(slot, source, target)
        elif request.param == "on its way":
            for key in cluster.nodes[source].client.execute_command("CLUSTER GETKEYSINSLOT", slot, 1):
                cluster.nodes[source].client.execute_command(
                    *("MIGRATE", "127.0.0.1", cluster.nodes[target].port, key, 0, 5000)
                )

    yield begin
    for node in cluster.nodes:
        node.client.flushall()
    cluster.stable(slot)
    cluster.give(slot, source)


class TestASlotThatIsBeingMoved:
    """`CLUSTER SETSLOT … MIGRATING` and `IMPORTING`: as an interrupted reshard leaves it, for good."""

    @pytest.mark.parametrize("inherits", [True, False])
    @pytest.mark.parametrize("user", [None, TAG])
    def test_a_session_is_given_new_ids(
        self, store: RedisStore, moving: Callable[[], None], user: str | None, *, inherits: bool
    ) -> None:
        """Burying deleted first, and was then refused the tombstone: every login lost its session."""
        at = time.time() + HOUR
        assert store.create(f"{TAG}0", b"data", at, user)
        moving()
        for number in range(5):
            old, new = f"{TAG}{number}", f"{TAG}{number + 1}"
            assert store.rotate(old, b"data", new, b"data", at, user, inherits=inherits)
            found = [store.load(old), store.load(new)]
            assert [stored.data for stored in found if stored is not None] == [TOMBSTONE, b"data"]
            assert store.heir(old) == (new if inherits else None)
            assert not store.rotate(old, b"data", f"{TAG}x", b"data", at, user, inherits=inherits)
        assert user is None or list(store.ids(user)) == [f"{TAG}5"]

    def test_every_verb_does_what_it_does_elsewhere(self, store: RedisStore, moving: Callable[[], None]) -> None:
        at = time.time() + HOUR
        for number in range(4):
            assert store.create(f"{TAG}{number}", b"data", at, TAG)
        moving()
        for number in range(4):
            assert not store.create(f"{TAG}{number}", b"other", at, TAG)
            assert store.replace(f"{TAG}{number}", b"data", b"new", at, TAG)
            assert store.touch(f"{TAG}{number}", b"new", at, TAG)
        assert store.create(f"{TAG}4", b"new", at, TAG)
        assert sorted(store.ids(TAG)) == [f"{TAG}{number}" for number in range(5)]
        assert store.delete(f"{TAG}0")
        assert not store.delete(f"{TAG}0")
        assert (store.load(f"{TAG}0"), store.heir(f"{TAG}0")) == (None, None)
        assert destroy_sessions_of(store, TAG) == 4
        assert list(store.ids(TAG)) == []

    def test_burying_works_with_full_memory(
        self, cluster: Cluster, store: RedisStore, moving: Callable[[], None]
    ) -> None:
        """The tombstone may not find a place; the session ends all the same."""
        store.create(f"{TAG}0", b"data", time.time() + HOUR)
        moving()
        for node in cluster.nodes:
            node.client.config_set("maxmemory", 1)
        try:
            with suppress(StoreUnavailable):
                store._bury(f"{TAG}0", b"data", "")
            stored = store.load(f"{TAG}0")
            assert stored is None or stored.data == TOMBSTONE
        finally:
            for node in cluster.nodes:
                node.client.config_set("maxmemory", 0)

    def test_pruning_does_not_fail_on_the_entry_that_was_the_last(
        self, cluster: Cluster, store: RedisStore, moving: Callable[[], None]
    ) -> None:
        """With it goes the index, and what is not there can be asked for nowhere but at the target."""
        for number in range(3):
            store.create(f"{TAG}{number}", b"data", time.time() + HOUR, TAG)
            store.delete(f"{TAG}{number}")
        moving()
        for node in cluster.nodes:
            index = f"minisession:user:sess:{TAG}"
            with suppress(Exception):  # it is on one of them
                for number in range(3):
                    node.client.execute_command("ASKING")
                    node.client.zincrby(index, -100, f"{TAG}{number}")
        assert list(store.ids(TAG)) == []


@row("S12")
def test_nothing_is_lost_and_nothing_revived_while_slots_move(cluster: Cluster, count: Callable[[str], None]) -> None:
    """A reshard, slot after slot and back, under requests that read, write, log in, rotate and log out everywhere."""
    # An answer takes its time on a busy machine.
    store = RedisStore(cluster.url, read_timeout=SOON)
    site = Site(store=store, clock=time.time)
    names = [f"user {number}" for number in range(4)]
    over, told = threading.Event(), Counter[str]()
    wrong: list[str] = []

    def visit(name: str) -> None:
        try:
            use(name)
        except Exception as error:
            wrong.append(repr(error))

    def use(name: str) -> None:
        browser, number, turn = site.browser(), 0, 0
        browser.visit(lambda session: session.regenerate(user=name))
        while not over.is_set():
            turn += 1
            if turn % 50 == 0:
                before = browser.twin()
                ended = destroy_sessions_of(store, name)
                told["ended"] += ended
                seen = before.visit(lambda session: session.user)
                if seen is not None or ended != 1:
                    wrong.append(f"{name}: {ended} ended, then {seen}")
                browser, number = site.browser(), 0
                browser.visit(lambda session: session.regenerate(user=name))
            elif turn % 5 == 0:
                before = browser.twin()
                browser.visit(lambda session: session.regenerate(keep=True))
                told["rotated"] += 1
                if before.visit(lambda session: session.user) is not None:
                    wrong.append(f"{name}: the old id lives")
            else:
                number += 1
                found = browser.visit(lambda session: (session.user, session.get("n", 0)))
                if found != (name, number - 1):
                    wrong.append(f"{name}: {found} instead of {number - 1}")
                browser.visit(put("n", number))
            told["requests"] += 1

    slots = range(0, 5460, 20)
    with ThreadPoolExecutor(4) as threads:
        visits = [threads.submit(visit, name) for name in names]
        try:
            begun = time.monotonic()
            for source, target in ((0, 1), (1, 0)):
                for slot in slots:
                    cluster.open(slot, source, target)
                    cluster.move(slot, source, target)
                    cluster.give(slot, target)
                    told["slots"] += 1
            took = time.monotonic() - begun
        finally:
            over.set()
        for done in visits:
            done.result(30)
    count(
        f"{told['slots']} slots moved under load in {took:.1f} s: {told['requests']} requests,"
        f" {told['rotated']} rotations, {told['ended']} ended everywhere; {len(wrong)} wrong"
    )
    store.close()
    assert wrong == []
