"""How `RedisStore` is linked to Redis: what a call waits for, what is kept open, what is said, what is repeated."""

from __future__ import annotations

import itertools
import logging
import queue
import subprocess
import sys
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context, copy_context
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minisession import StoreUnavailable
from minisession.stores.base import Store
from minisession.testing import StoreContract

from ..support.browser import Clock
from ..support.interruptions import interrupted
from ..support.ports import free_port
from ..support.redis_masters import Cluster, id_on, redis_masters, slot_of, user_on
from ..support.redis_server import SOON, Cut, RedisServer, Wire, redis_server
from ..support.rows import row
from ..support.tools import need_program

import redis  # isort: skip  # after redis_server, which skips without redis-py
from redis.backoff import NoBackoff  # isort: skip
from redis.cluster import RedisCluster  # isort: skip
from redis.retry import Retry  # isort: skip
from minisession.stores.redis import RedisStore  # isort: skip
from minisession.stores.redis_cluster import Cluster as ClusterLink  # isort: skip
from minisession.stores import redis_cluster, redis_deadline, redis_url  # isort: skip
from minisession.stores.redis_deadline import Budget  # isort: skip
from minisession.stores.redis_gate import PATIENCE, PAUSE, Gate  # isort: skip
from minisession.stores.redis_node import Lent, Line, Node  # isort: skip
from minisession.stores.redis_url import Free  # isort: skip

BUDGET = 1.0  # seconds that a call may take
SLACK = 0.6  # seconds for a machine that is busy with other things


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    running.client.flushall()
    return running


@pytest.fixture(scope="module")
def masters() -> Iterator[Cluster]:
    with redis_masters() as cluster:
        yield cluster


@pytest.fixture
def cluster(masters: Cluster) -> Cluster:
    for node in masters.nodes:
        node.client.flushall()
    return masters


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def failing(call: Callable[[], object]) -> tuple[float, str]:
    """Call in vain; return the seconds that it took, and what was said."""
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable) as failed:
        call()
    return time.monotonic() - begun, str(failed.value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("certificate")
    key, cert = f"{folder}/key", f"{folder}/cert"
    subprocess.run(
        [
            *(need_program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", key, "-out", cert),
        ],
        check=True,
        capture_output=True,
    )
    return key, cert


class TestTheTimeOfACall:
    """One limit for all that it waits for."""

    @pytest.mark.parametrize("clustered", [False, True])
    def test_it_holds_where_each_exchange_of_a_new_connection_is_just_in_time(
        self, certificate: tuple[str, str], count: Callable[[str], None], *, clustered: bool
    ) -> None:
        """TLS, AUTH, SELECT and the command, each answered 0.45 s late: 2.9 s, when each had a limit of its own."""
        key, cert = certificate
        port = free_port()
        options = ["--tls-port", str(port), "--tls-key-file", key, "--tls-cert-file", cert, "--tls-auth-clients", "no"]
        options += ["--requirepass", "hunter2"]
        if clustered:
            options += ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]

        def late(chunk: bytes) -> bytes:
            time.sleep(0.45)
            return chunk

        with redis_server(*options) as server, Wire(port) as wire:
            wire.answered = late
            scheme, database = ("rediss+cluster", "") if clustered else ("rediss", "3")
            url = f"{scheme}://:hunter2@127.0.0.1:{wire.port}/{database}?ssl_ca_certs={cert}"
            store = RedisStore(url)
            took, _ = failing(lambda: store.load("id"))
            count(f"a fresh {scheme} connection, each answer 0.45 s late: {took:.2f} s")
            assert took < BUDGET + SLACK
            assert server.process is not None
            store.close()

    def test_it_holds_for_an_answer_that_comes_byte_by_byte(self, server: RedisServer) -> None:
        server.client.set("sess:id", b"data" * 100)
        with Wire(server.port) as wire:
            trickling = threading.Event()

            def trickle(chunk: bytes) -> bytes:
                trickling.set()
                far = wire._sockets[0]
                for byte in chunk:
                    time.sleep(0.05)
                    far.sendall(bytes([byte]))
                return b""

            wire.answered = trickle
            store = RedisStore(wire.url)
            took, said = failing(lambda: store.load("id"))
            assert trickling.is_set()
            assert took < BUDGET + SLACK
            assert "Timeout" in said
            store.close()

    def test_in_a_cluster_the_steps_of_a_verb_share_it(self, cluster: Cluster) -> None:
        """An index and two records on three nodes, of which each answers just in time: not all three do."""
        wires = {node.port: Wire(node.port) for node in cluster.nodes}

        def remap(address: tuple[str, int]) -> tuple[str, int]:
            return "127.0.0.1", wires[address[1]].port

        store = RedisStore(cluster.url)
        link: Any = store._redis
        link._remap = remap
        at = time.time() + 3600
        assert store.create(id_on(1), b"data", at)
        for number in range(3):
            store.load(id_on(number, "warm"))

        def late(chunk: bytes) -> bytes:
            time.sleep(0.45)
            return chunk

        for wire in wires.values():
            wire.answered = late
        took, _ = failing(
            lambda: store.rotate(id_on(1), b"data", id_on(2, "new"), b"data", at, user_on(0), inherits=True)
        )
        assert took < BUDGET + SLACK
        store.close()
        for wire in wires.values():
            wire.close()


class TestTheGate:
    """By a clock that is told the time."""

    def test_a_call_that_waits_in_vain_shuts_it_for_a_while(self) -> None:
        clock = Clock()
        gate = Gate(clock)
        begun, hasty = gate.enter()
        assert not hasty
        clock.advance(0.5)
        assert gate.in_vain(begun)
        with pytest.raises(StoreUnavailable):
            gate.enter()
        clock.advance(PAUSE)
        gate.enter()
        with pytest.raises(StoreUnavailable):
            gate.enter()
        clock.advance(PATIENCE)
        gate.enter()
        gate.answered()
        gate.enter()

    def test_not_while_others_are_answered(self) -> None:
        """One reply in two thousand that got lost turned a fifth of all calls into 503s."""
        clock = Clock()
        gate = Gate(clock)
        begun, _ = gate.enter()
        for _ in range(50):
            clock.advance(0.01)
            gate.answered()
        assert not gate.in_vain(begun)
        gate.enter()

    def test_but_where_the_others_fell_silent_as_well(self) -> None:
        """The first of those that were under way when a node began to hang."""
        clock = Clock()
        gate = Gate(clock)
        begun, _ = gate.enter()
        clock.advance(0.01)
        gate.answered()
        clock.advance(0.49)
        assert gate.in_vain(begun)

    def test_one_call_tries_again_in_haste_while_it_is_shut(self) -> None:
        """Where one process makes one call at a time, nothing else shows that only an answer was lost."""
        clock = Clock()
        gate = Gate(clock, hasty=True)
        assert gate.in_vain(gate.enter()[0])
        begun, hasty = gate.enter()
        assert hasty
        with pytest.raises(StoreUnavailable):
            gate.enter()
        assert gate.in_vain(begun)
        with pytest.raises(StoreUnavailable):
            gate.enter()
        clock.advance(PAUSE)
        begun, hasty = gate.enter()
        assert not hasty
        assert gate.in_vain(begun)
        with pytest.raises(StoreUnavailable):
            gate.enter()

    def test_an_answer_in_haste_lets_all_in(self) -> None:
        gate = Gate(Clock(), hasty=True)
        gate.in_vain(gate.enter()[0])
        gate.enter()
        gate.answered()
        assert [gate.enter()[1] for _ in range(3)] == [False] * 3

    def test_one_that_was_not_tried_leaves_its_turn_to_the_next(self) -> None:
        clock = Clock()
        gate = Gate(clock)
        gate.in_vain(gate.enter()[0])
        clock.advance(PAUSE)
        gate.enter()
        gate.not_tried()
        gate.enter()


class TestASignal:
    """Its handler may raise in the midst of a call, as a time limit's does."""

    @row("T8")
    def test_it_leaves_no_limit_behind(self) -> None:
        """Else all later calls of the thread have waited for all of their time before they begin."""
        files = {str(redis_deadline.__file__)}
        behind: list[int] = []
        for line in itertools.count(1):
            if not interrupted(self.spend, line, files):
                break
            if redis_deadline.left() != inf:
                behind.append(line)
                redis_deadline._until.set(inf)
        # The last takes the limit away, where no signal comes: nothing was called since.
        assert behind == [line - 1]
        assert line > 9

    @staticmethod
    def spend() -> None:
        outer, inner = Budget(20), Budget(10)
        outer.spend(inner.spend, redis_deadline.left)

    @row("T8")
    def test_it_leaves_no_lock_taken(self) -> None:
        """Else all later calls hang.  It may cost a connection."""
        files = {str(module.__file__) for module in (redis_url, queue, threading)}
        for line in itertools.count(1):
            free = Free(3)
            for number in range(2):
                free.put_nowait(number)
            taken = list[int]()

            def call(free: Free = free, taken: list[int] = taken) -> None:
                taken.append(free.get(timeout=0))
                free.put_nowait(2)

            was_interrupted = interrupted(call, line, files)
            other = threading.Thread(target=call, daemon=True)
            other.start()
            other.join(SOON)
            assert not other.is_alive()
            if not was_interrupted:
                break
        assert line > 4
        assert taken == [1, 2]  # the last used first

    @row("T8")
    def test_it_leaves_no_fetch_of_a_clusters_map_that_others_wait_for(self) -> None:
        """Or one call waits, for as long as it may, and the next one fetches."""
        files = {str(redis_cluster.__file__)}
        for line in itertools.count(1):
            link = ClusterLink([], 0.01, time.monotonic, lambda address: pytest.fail("there is no node"))
            if not interrupted(link._fetch_first, line, files):
                break
            with pytest.raises(StoreUnavailable):
                link._fetch_first()
            assert not link._fetching
        assert line > 5

    @row("T8")
    def test_connections_that_it_has_lost_are_made_anew(self, server: RedisServer) -> None:
        """As no call may keep one for longer than it may take; while one was taken just now, it is in use."""
        store = RedisStore(server.url, max_connections=2, pool_timeout=0.01)
        lent: Any = store._redis._line.lent  # type: ignore[union-attr]  # of one node
        for _ in range(2):
            lent._pool.get_connection(*(["GET"] if redis.VERSION < (5, 3) else []))
        for _ in range(2):
            assert "all 2 connections" in failing(lambda: store.load("id"))[1]
        lent.moved_at -= 10
        assert "all 2 connections" in failing(lambda: store.load("id"))[1]
        assert store.load("id") is None
        store.close()


class TestGreenlets:
    """They share a thread, and each has a context of its own, also where gevent came after this was imported."""

    def test_each_gives_back_what_it_has_taken(self) -> None:
        """Else two would read from one connection, and a visitor would get another's session."""
        back: list[Any] = []
        pool: Any = SimpleNamespace(get_connection=lambda: SimpleNamespace(retry=None), release=back.append)
        lent = Lent(pool, time.monotonic)
        one, other = copy_context(), copy_context()
        first, second = one.run(lent.get_connection), other.run(lent.get_connection)

        one.run(lambda: lent.settle(whole=True))
        other.run(lambda: lent.settle(whole=True))
        assert [connection is first for connection in back] == [True, False]
        assert back[1] is second

    def test_each_has_a_limit_of_its_own(self) -> None:
        def look() -> float:
            return Context().run(redis_deadline.left)

        assert Budget(20).spend(look) == inf


class TestAllConnectionsInUse:
    """Neither an outage of Redis', nor a reason to fetch a Cluster's map."""

    @contextmanager
    def held(self, wire: Wire, store: RedisStore, id: str) -> Iterator[None]:
        asked, answer = threading.Event(), threading.Event()

        def hold(chunk: bytes) -> bytes:
            asked.set()
            answer.wait(SOON)
            return chunk

        wire.sent = hold
        with ThreadPoolExecutor(1) as threads:
            slow = threads.submit(store.load, id)
            assert asked.wait(SOON)
            try:
                yield
            finally:
                answer.set()
                assert slow.result(SOON) is None
        wire.sent = bytes

    def test_the_error_names_the_option(self, server: RedisServer) -> None:
        with Wire(server.port) as wire:
            store = RedisStore(wire.url, max_connections=1, pool_timeout=0.05, read_timeout=5)
            with self.held(wire, store, "slow"):
                _, said = failing(lambda: store.load("id"))
            assert "all 1 connections" in said
            assert "max_connections" in said
            assert store.load("id") is None
            store.close()

    def test_a_client_that_was_given_says_the_same(self, server: RedisServer) -> None:
        with Wire(server.port) as wire, redis.Redis(port=wire.port, max_connections=1, socket_timeout=5) as client:
            store = RedisStore(client)
            with self.held(wire, store, "slow"):
                _, said = failing(lambda: store.load("id"))
            assert "all 1 connections" in said

    def test_in_a_cluster_a_call_waits_for_a_connection_too_and_the_map_stays(self, cluster: Cluster) -> None:
        store = RedisStore(cluster.url, max_connections=1, pool_timeout=0.5, read_timeout=5)
        store.load(id_on(1))
        link: Any = store._redis
        node = next(node for address, node in link._nodes.items() if address[1] == cluster.nodes[1].port)
        lent = node._line.lent
        lent.get_connection(*(["GET"] if redis.VERSION < (5, 3) else []))
        refreshed = link._refresh_at
        took, said = failing(lambda: store.load(id_on(1)))
        assert took >= 0.5
        assert "max_connections" in said
        assert link._refresh_at == refreshed
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(store.load, id_on(1))
            lent.settle(whole=True)
            assert waiting.result(SOON) is None
        store.close()


class TestAClientThatWasGiven:
    @pytest.mark.parametrize("pool", [redis.ConnectionPool, redis.BlockingConnectionPool])
    def test_nothing_is_repeated_though_it_repeats_and_it_goes_on_repeating(
        self, server: RedisServer, pool: Any
    ) -> None:
        """An answer that was lost: the command may have been carried out, and was."""
        with Wire(server.port) as wire:
            retry = Retry(NoBackoff(), 3)
            client = redis.Redis(
                connection_pool=pool(port=wire.port, retry=retry, retry_on_error=[redis.ConnectionError])
            )
            store = RedisStore(client)
            store.load("id")
            lost = [True]

            def losing(chunk: bytes) -> bytes:
                if lost:
                    lost.pop()
                    raise Cut(b"")
                return chunk

            wire.answered = losing
            with pytest.raises(StoreUnavailable):
                store.create("id", b"data", inf)
            assert server.client.get("sess:id") == b"data"
            client.ping()  # connected again
            lost.append(True)
            assert client.get("sess:id") == b"data"  # the second time
            client.connection_pool.disconnect()

    def test_after_a_failover_its_idle_connections_are_not_used_again(self, server: RedisServer) -> None:
        with Wire(server.port) as wire, redis.Redis(port=wire.port) as client, redis_server() as other:
            store = RedisStore(client)
            assert store.create("id", b"data", inf)
            server.client.replicaof("127.0.0.1", "1")
            try:
                wire.to = other.port
                with pytest.raises(StoreUnavailable, match="read only"):
                    store.create("new", b"data", inf)
                assert store.create("new", b"data", inf)
            finally:
                server.client.replicaof("NO", "ONE")


class TestTheMapOfACluster:
    @pytest.fixture
    def fetched(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Collect the ports that are asked for it."""
        ports: list[int] = []
        exchange = Line.exchange

        def watching(line: Any, commands: Any) -> Any:
            if commands[0] == ("CLUSTER", "SLOTS"):
                ports.append(line.pool.connection_kwargs["port"])
            return exchange(line, commands)

        monkeypatch.setattr(Line, "exchange", watching)
        return ports

    def test_of_64_first_calls_one_fetches_it(
        self, cluster: Cluster, fetched: list[int], count: Callable[[str], None]
    ) -> None:
        store = RedisStore(cluster.url)
        together = threading.Barrier(64)

        def first(number: int) -> object:
            together.wait(SOON)
            return store.load(id_on(number % 3))

        begun = time.monotonic()
        with ThreadPoolExecutor(64) as threads:
            assert set(threads.map(first, range(64))) == {None}
        count(f"64 first calls of a Cluster: the map fetched {len(fetched)} time, {time.monotonic() - begun:.3f} s")
        assert len(fetched) == 1
        store.close()

    def test_who_waits_for_it_waits_no_longer_than_a_call_may(self, cluster: Cluster, fetched: list[int]) -> None:
        store = RedisStore(cluster.url)
        cluster.nodes[0].pause()
        try:
            with ThreadPoolExecutor(16) as threads:
                took = max(threads.map(lambda number: failing(lambda: store.load(f"{number}"))[0], range(16)))
        finally:
            cluster.nodes[0].go_on()
        assert took < BUDGET + SLACK
        store.close()

    def test_a_process_forked_while_it_is_fetched_fetches_its_own(self, cluster: Cluster) -> None:
        store = RedisStore(cluster.url)
        link: Any = store._redis
        link._fetching[0] = threading.Event()  # the parent's, that never ends here
        assert store.load("id") is None
        store.close()

    def test_another_seed_is_asked_where_the_first_is_down(self, cluster: Cluster) -> None:
        down, up = free_port(), cluster.nodes[1].port
        store = RedisStore(f"redis+cluster://127.0.0.1:{down},127.0.0.1:{up}/")
        assert store.create("id", b"data", inf)
        store.close()

    @pytest.mark.parametrize(
        ("hosts", "seeds"),
        [
            ("one,two:6380", [("one", 6379), ("two", 6380)]),
            ("one", [("one", 6379)]),
            ("[::1]:7000,one", [("::1", 7000), ("one", 6379)]),
            ("ann:a,b@one:1,two:2", [("one", 1), ("two", 2)]),
        ],
    )
    def test_seeds_are_named_with_commas(self, hosts: str, seeds: list[tuple[str, int]]) -> None:
        link: Any = RedisStore(f"rediss+cluster://{hosts}/?ssl_check_hostname=false")._redis
        assert link._seeds == seeds

    def test_one_node_has_one_host(self) -> None:
        with pytest.raises(ValueError, match="not a Redis URL"):
            RedisStore("redis://one,two/")

    def test_redirections_lead_to_nodes_that_it_does_not_have(self, cluster: Cluster) -> None:
        """MOVED and ASK, to a master that has just joined."""
        store = RedisStore(cluster.url)
        link: Any = store._redis
        store.load(id_on(0))
        slot = slot_of(f"sess:{id_on(0)}")
        known = {address: node for address, node in link._nodes.items() if address[1] == cluster.nodes[0].port}
        link._nodes.clear()
        link._nodes.update(known)
        try:
            cluster.open(slot, 0, 1)
            assert store.create(id_on(0), b"data", inf)
            assert cluster.nodes[1].client.execute_command("CLUSTER COUNTKEYSINSLOT", slot) == 1
            cluster.give(slot, 1)
            link._nodes.clear()
            link._nodes.update(known)
            assert store.load(id_on(0)) is not None
        finally:
            for node in cluster.nodes:
                node.client.flushall()
            cluster.stable(slot)
            cluster.give(slot, 0)
            store.close()

    def test_a_node_that_does_not_say_its_host_has_that_of_the_one_asked(self, cluster: Cluster) -> None:
        """``unknown-endpoint``: behind NAT, or before a node knows its address."""
        slot = slot_of(f"sess:{id_on(0)}")
        for node in cluster.nodes:
            node.client.config_set("cluster-preferred-endpoint-type", "unknown-endpoint")
        store = RedisStore(cluster.url)
        try:
            cluster.open(slot, 0, 1)
            assert store.create(id_on(0), b"data", inf)
            cluster.give(slot, 1)
            assert store.load(id_on(0)) is not None
            assert store.create(id_on(2), b"data", inf)
        finally:
            for node in cluster.nodes:
                node.client.config_set("cluster-preferred-endpoint-type", "ip")
                node.client.flushall()
            cluster.stable(slot)
            cluster.give(slot, 0)
            store.close()

    def test_addresses_are_those_that_a_client_maps_them_to(self, cluster: Cluster) -> None:
        """Also in redirections."""
        wires = {node.port: Wire(node.port) for node in cluster.nodes}

        def remap(address: tuple[str, int]) -> tuple[str, int]:
            return "127.0.0.1", wires[address[1]].port

        slot = slot_of(f"sess:{id_on(0)}")
        client = RedisCluster("127.0.0.1", cluster.nodes[0].port, address_remap=remap)
        store = RedisStore(client)
        try:
            cluster.open(slot, 0, 1)
            assert store.create(id_on(0), b"data", inf)
            assert store.load(id_on(0)) is not None
            assert all(wire.connections for wire in (wires[cluster.nodes[0].port], wires[cluster.nodes[1].port]))
        finally:
            for node in cluster.nodes:
                node.client.flushall()
            cluster.stable(slot)
            client.close()
            store.close()
            for wire in wires.values():
                wire.close()

    @pytest.mark.parametrize("given", [False, True])
    def test_close_closes_every_connection(self, cluster: Cluster, *, given: bool) -> None:
        client = RedisCluster("127.0.0.1", cluster.nodes[0].port, client_name="ours") if given else None
        if client is not None:
            known: Any = client  # whose types are partial
            for node in known.get_nodes():
                known.get_redis_connection(node).connection_pool.disconnect()
        store = RedisStore(client or f"{cluster.url}?client_name=ours")
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda number: store.load(id_on(number % 3)), range(48)))
        assert named(cluster, "ours") >= 3
        store.close()
        eventually(lambda: named(cluster, "ours") == 0)
        if client is not None:
            client.close()

    def test_a_map_that_is_being_fetched_leaves_no_connection_behind(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = RedisStore(f"{cluster.url}?client_name=ours")
        store.load("id")
        link: Any = store._redis
        fetch = link._fetch

        def closing() -> Any:
            store.close()
            return fetch()

        monkeypatch.setattr(link, "_fetch", closing)
        link._fetch_again()
        eventually(lambda: named(cluster, "ours") == 0)

    def test_connections_to_a_node_that_has_left_are_closed(self, cluster: Cluster) -> None:
        store = RedisStore(f"{cluster.url}?client_name=ours", read_timeout=0.2, connect_timeout=0.1)
        link: Any = store._redis
        store.load(id_on(0))
        with redis_server() as other:
            stranger = ("127.0.0.1", other.port)
            link._node(stranger).run(("GET", "x"))
            assert [client["name"] for client in other.client.client_list()].count("ours") == 1
            link._refresh()
            eventually(lambda: stranger not in link._nodes)
            eventually(lambda: all(client["name"] != "ours" for client in other.client.client_list()))
        assert {address[1] for address in link._nodes} <= {node.port for node in cluster.nodes}
        store.close()


def named(cluster: Cluster, name: str) -> int:
    return sum(client["name"] == name for node in cluster.nodes for client in node.client.client_list())


class TestListingWhileSlotsMove:
    """A key may leave a master that was not looked at yet for one that was."""

    @pytest.fixture(params=["given over", "on its way", "on its way before"])
    def moved(self, request: pytest.FixtureRequest, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        """An id that is moved from the last master to the first, once the first has been listed."""
        order = sorted(cluster.nodes, key=lambda node: node.port)
        first, last = (cluster.nodes.index(node) for node in (order[0], order[-1]))
        id = id_on(last)
        slot = slot_of(f"sess:{id}")
        scan, done = Node.scan, list[bool]()
        layout, opened = ClusterLink._layout, list[bool]()

        def looking(link: Any) -> Any:
            """A reshard that was interrupted: nothing shows that keys move now."""
            if request.param == "on its way before" and not opened:
                opened.append(True)
                cluster.open(slot, last, first)
            return layout(link)

        def scanning(node: Any, prefix: bytes, type: str) -> Iterator[list[bytes]]:
            yield from scan(node, prefix, type)
            if not done:
                done.append(True)
                if not opened:
                    cluster.open(slot, last, first)
                cluster.move(slot, last, first)
                if request.param == "given over":
                    cluster.give(slot, first)

        monkeypatch.setattr(Node, "scan", scanning)
        monkeypatch.setattr(ClusterLink, "_layout", looking)
        yield id
        monkeypatch.undo()
        for node in cluster.nodes:
            node.client.flushall()
        cluster.stable(slot)
        cluster.give(slot, last)

    @row("S12")
    @pytest.mark.parametrize("clear", [False, True])
    def test_it_is_listed_and_cleared(self, cluster: Cluster, moved: str, *, clear: bool) -> None:
        store = RedisStore(cluster.url)
        store.create(moved, b"data", inf)
        if clear:
            assert store.clear() == 1
            assert store.load(moved) is None
        else:
            assert set(store.ids()) == {moved}
        store.close()

    @row("S12")
    def test_while_nothing_moves_each_is_listed_once(self, cluster: Cluster) -> None:
        store = RedisStore(cluster.url)
        for number in range(30):
            store.create(f"{number}", b"data", inf)
        assert sorted(store.ids()) == sorted(map(str, range(30)))
        store.close()

    @row("S12")
    def test_slots_that_do_not_come_to_rest_are_an_outage(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = RedisStore(cluster.url)
        layouts = iter(range(1000))
        address = ("127.0.0.1", cluster.nodes[0].port)
        monkeypatch.setattr(ClusterLink, "_layout", lambda link: {address: b"%d" % next(layouts)})
        with pytest.raises(StoreUnavailable, match="go on moving"):
            list(store.ids())
        store.close()


LEAST = (
    "~sess:* ~minisession:* +get +pttl +set +exists +eval +zadd +zcard +zscore +zrem +time +pexpire +del +getdel"
    " +strlen +scan +zscan +zrandmember +select"
)


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisServer]:
    with redis_server() as server:
        server.client.execute_command("ACL SETUSER", "shop", "on", ">hunter2", *LEAST.split())
        yield server


class TestWithTheLeastRights(StoreContract, unittest.TestCase):
    """What docs/stores.md says that the store needs, and no more."""

    tick = 5.0

    @pytest.fixture(autouse=True)
    def _server(self, guarded: RedisServer) -> None:
        self.server, self.clock = guarded, Clock()
        self.url = f"redis://shop:hunter2@127.0.0.1:{guarded.port}/0"

    def now(self) -> float:
        return self.clock()

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.server.age(seconds)

    def make_store(self) -> Store:
        self.server.client.flushall()
        return RedisStore(self.url, clock=self.clock)

    def open_again(self, store: Store) -> Store:
        return RedisStore(self.url, clock=self.clock)


def test_in_a_cluster_the_rights_are_those_and_three_more(cluster: Cluster) -> None:
    for node in cluster.nodes:
        rights = (*LEAST.split(), "+cluster|slots", "+cluster|nodes", "+asking")
        node.client.execute_command("ACL SETUSER", "shop", "reset", "on", ">hunter2", *rights)
    store = RedisStore(f"redis+cluster://shop:hunter2@127.0.0.1:{cluster.nodes[0].port}")
    slot, at = slot_of(f"sess:{id_on(0)}"), time.time() + 3600
    try:
        assert store.create(id_on(0), b"data", at, "ann")
        assert store.rotate(id_on(0), b"data", id_on(1), b"data", at, "ann", inherits=True)
        assert store.heir(id_on(0)) == id_on(1)
        assert list(store.ids()) == list(store.ids("ann")) == [id_on(1)]
        cluster.open(slot, 0, 1)
        assert store.create(id_on(0, "x"), b"data", at)
        assert store.purge() == 0
        assert store.clear() == 2
    finally:
        for node in cluster.nodes:
            node.client.flushall()
            node.client.execute_command("ACL DELUSER", "shop")
        cluster.stable(slot)
        store.close()


class TestWhatIsRefused:
    @pytest.fixture
    def shop(self, server: RedisServer) -> Iterator[RedisStore]:
        """A store whose user may write records and their heirs, and no index."""
        rights = ["~sess:*", "~minisession:heir:*", *(word for word in LEAST.split() if word.startswith("+"))]
        server.client.execute_command("ACL SETUSER", "shop", "reset", "on", ">hunter2", *rights)
        store = RedisStore(f"redis://shop:hunter2@127.0.0.1:{server.port}")
        yield store
        store.close()
        server.client.execute_command("ACL DELUSER", "shop")

    @row("S13")
    @pytest.mark.parametrize("together", [True, False])
    def test_where_the_index_is_refused_the_record_is_not_stored(
        self, shop: RedisStore, server: RedisServer, *, together: bool
    ) -> None:
        """It would survive "log out everywhere"."""
        shop._together = together
        shop.create("old", b"data", inf)
        as_it_was = server.client.pttl("sess:old")
        verbs: list[Callable[[], object]] = [
            lambda: shop.create("new", b"data", inf, "ann"),
            lambda: shop.replace("old", b"data", b"other", inf, "ann"),
            lambda: shop.touch("old", b"data", time.time() + 60, "ann"),
            lambda: shop.rotate("old", b"data", "new", b"other", inf, "ann", inherits=True),
        ]
        for verb in verbs:
            with pytest.raises(StoreUnavailable, match=r"(?i)permission"):
                verb()
        assert server.client.keys() == [b"sess:old"]
        assert server.client.get("sess:old") == b"data"
        assert abs(server.client.pttl("sess:old") - as_it_was) < 1000 * SOON

    @pytest.mark.parametrize("command", ["get", "strlen"])
    def test_what_a_script_may_not_look_at_is_not_taken_for_absent(self, server: RedisServer, command: str) -> None:
        """A logout that finds nothing says so, and one that may not look is an outage."""
        server.client.execute_command("ACL SETUSER", "shop", "reset", "on", ">hunter2", *LEAST.split(), f"-{command}")
        store = RedisStore(f"redis://shop:hunter2@127.0.0.1:{server.port}")
        server.client.set("sess:id", b"data", ex=60)
        verbs: dict[str, list[Callable[[], object]]] = {
            "get": [lambda: store.load("id"), lambda: store.touch("id", b"data", inf)],
            "strlen": [lambda: store.delete("id"), lambda: list(store.ids())],
        }
        for verb in verbs[command]:
            with pytest.raises(StoreUnavailable):
                verb()
        store.close()
        server.client.execute_command("ACL DELUSER", "shop")


class TestWhatEvicts:
    @pytest.fixture
    def limited(self, server: RedisServer) -> Iterator[Callable[[str], None]]:
        def limit(policy: str) -> None:
            server.client.config_set("maxmemory", "1gb")
            server.client.config_set("maxmemory-policy", policy)

        yield limit
        server.client.config_set("maxmemory", 0)
        server.client.config_set("maxmemory-policy", "noeviction")

    @row("S13")
    @pytest.mark.parametrize(
        ("policy", "warned"),
        [
            ("noeviction", 0),
            ("volatile-ttl", 0),
            ("allkeys-lru", 1),
            ("allkeys-lfu", 1),
            ("allkeys-random", 1),
            ("volatile-lru", 1),
            ("volatile-lfu", 1),
            ("volatile-random", 1),
        ],
    )
    def test_a_policy_that_may_evict_users_indexes_is_warned_of_once(
        self,
        server: RedisServer,
        limited: Callable[[str], None],
        caplog: pytest.LogCaptureFixture,
        policy: str,
        warned: int,
    ) -> None:
        limited(policy)
        store = RedisStore(server.url)
        for _ in range(3):
            store.load("id")
        lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert [policy in line for line in lines] == [True] * warned
        store.close()

    def test_nothing_is_said_where_memory_has_no_limit_or_may_not_be_looked_at(
        self, server: RedisServer, limited: Callable[[str], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        server.client.config_set("maxmemory-policy", "allkeys-lru")
        store = RedisStore(server.url)
        assert store.load("id") is None
        store.close()
        limited("allkeys-lru")
        server.client.execute_command("ACL SETUSER", "shop", "reset", "on", ">hunter2", *LEAST.split())
        store = RedisStore(f"redis://shop:hunter2@127.0.0.1:{server.port}")
        assert store.load("id") is None
        assert caplog.records == []
        store.close()
        server.client.execute_command("ACL DELUSER", "shop")

    def test_the_look_takes_no_round_trip(self, server: RedisServer) -> None:
        store = RedisStore(server.url)
        with server.counted() as commands:
            store.load("id")
            store.load("id")
        assert commands["trips"] == 2
        store.close()

    def test_it_looks_once(self, server: RedisServer) -> None:
        store = RedisStore(server.url)
        with server.watched() as commands:
            for _ in range(3):
                store.load("id")
        assert [words[0] for words in commands].count("INFO") == 1
        store.close()


class TestAtConstruction:
    @pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"])
    @pytest.mark.parametrize("scheme", ["rediss", "rediss+cluster"])
    def test_a_file_that_is_not_there_is_an_error(self, tmp_path: Path, scheme: str, option: str) -> None:
        with pytest.raises(ValueError, match=f"{option}: there is no {tmp_path}/missing"):
            RedisStore(f"{scheme}://:hunter2@localhost?{option}={tmp_path}/missing")

    def test_of_a_part_that_redis_py_misses_its_own_error_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not that redis-py was missing."""
        code = f"""
import builtins, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
real = builtins.__import__
def without(name, *arguments, **options):
    if name == "redis":
        raise ModuleNotFoundError("No module named 'needed'", name="needed")
    return real(name, *arguments, **options)
builtins.__import__ = without
import minisession.stores.redis
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "ModuleNotFoundError: No module named 'needed'" in done.stderr
        assert "RedisStore needs" not in done.stderr
