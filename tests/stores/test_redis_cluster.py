"""`RedisStore` on a Redis Cluster of three masters: the contract, redirections, and a node that is gone."""

from __future__ import annotations

import threading
import time
import unittest
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import Any

import pytest

from minisession import StoreUnavailable, destroy_sessions_of
from minisession.stores.base import Store
from minisession.testing import StoreContract

from ..support.browser import Clock
from ..support.ports import free_port
from ..support.redis_masters import Cluster, home_of, id_on, redis_masters, slot_of, user_on
from ..support.redis_server import SOON  # skips where redis-py is missing
from ..support.site import Site

from redis.cluster import RedisCluster  # isort: skip
from redis.exceptions import MovedError  # isort: skip
from minisession.stores.redis import RedisStore  # isort: skip
from minisession.stores import redis_cluster, redis_deadline  # isort: skip
from minisession.stores.redis_deadline import Budget, PatientSocket  # isort: skip
from minisession.stores.redis_node import Line  # isort: skip
from ..support.rows import row

LIMIT = 1.0  # seconds that a node which is gone costs a request
SLACK = 1.0  # seconds for a machine that is busy with other things


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    with redis_masters() as cluster:
        yield cluster


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    for node in running.nodes:
        node.client.flushall()
    return running


@pytest.fixture
def store(cluster: Cluster) -> Iterator[RedisStore]:
    store = RedisStore(cluster.url, read_timeout=0.1)
    store.load("connected")
    yield store
    store.close()


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the ports of the nodes that are asked, one for each round trip."""
    ports: list[int] = []
    exchange = Line.exchange

    def counting(line: Any, commands: Any) -> Any:
        if commands[0][0] != "CLUSTER":  # the map is fetched by the way
            ports.append(line.pool.connection_kwargs["port"])
        return exchange(line, commands)

    monkeypatch.setattr(Line, "exchange", counting)
    return ports


class TestContract(StoreContract, unittest.TestCase):
    tick = 5.0
    cluster: Cluster

    @pytest.fixture(autouse=True)
    def _cluster(self, cluster: Cluster) -> None:
        self.cluster, self.clock = cluster, Clock()

    def now(self) -> float:
        return self.clock()

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for node in self.cluster.nodes:
            node.age(seconds)

    def make_store(self) -> Store:
        for node in self.cluster.nodes:
            node.client.flushall()
        return RedisStore(self.cluster.url, clock=self.clock)

    def open_again(self, store: Store) -> Store:
        client = RedisCluster("127.0.0.1", self.cluster.nodes[1].port)
        self.addCleanup(client.close)
        return RedisStore(client, clock=self.clock)


def test_a_client_that_decodes_is_refused(cluster: Cluster) -> None:
    with (
        RedisCluster("127.0.0.1", cluster.nodes[0].port, decode_responses=True) as client,
        pytest.raises(TypeError, match="decode_responses=False"),
    ):
        RedisStore(client)


def test_closing_leaves_a_client_that_was_given_open(cluster: Cluster) -> None:
    with RedisCluster("127.0.0.1", cluster.nodes[0].port) as client:
        store = RedisStore(client)
        store.create("id", b"data", inf)
        store.close()
        assert client.get("sess:id") == b"data"


def test_a_login_is_two_round_trips_for_the_record_waits_for_its_entry_in_the_index(
    cluster: Cluster, store: RedisStore, trips: list[int]
) -> None:
    ports = [node.port for node in cluster.nodes]
    for index, record in ((0, 0), (1, 0), (0, 2)):
        trips.clear()
        id, user = id_on(record, f"{index}"), user_on(index)
        assert store.create(id, b"data", inf, user)
        assert trips == [ports[index], ports[record]]
        trips.clear()
        assert store.load(id) is not None
        assert trips == [ports[record]]


def test_a_process_killed_between_index_and_record_leaves_an_entry_that_goes(
    cluster: Cluster, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    id, user = id_on(1), user_on(0)
    exchange = Line.exchange

    def dying(line: Any, commands: Any) -> Any:
        if line.pool.connection_kwargs["port"] == cluster.nodes[1].port:
            raise SystemExit
        return exchange(line, commands)

    with monkeypatch.context() as killed:
        killed.setattr(Line, "exchange", dying)
        with pytest.raises(SystemExit):
            store.create(id, b"data", inf, user)
    key, client = f"minisession:user:sess:{user}", cluster.nodes[0].client
    assert (list(store.ids(user)), client.zrange(key, 0, -1)) == ([], [id.encode()])
    client.zincrby(key, -61, id)
    assert (list(store.ids(user)), client.zrange(key, 0, -1)) == ([], [])


@row("F9")
def test_a_key_of_another_type_is_a_new_session_and_left_alone(cluster: Cluster) -> None:
    """Also where the list of a user's sessions names it, from another node."""
    store, user = RedisStore(cluster.url), user_on(0)
    site = Site(store=store, clock=time.time)
    browsers = [site.browser() for _ in range(2)]
    for browser in browsers:
        browser.visit(lambda session: session.regenerate(user=user))
    key = f"sess:{browsers[0].id}"
    node = cluster.nodes[home_of(key)].client
    node.delete(key)
    node.rpush(key, "data")
    assert browsers[0].visit(lambda session: (session.is_new, session.user)) == (True, None)
    assert destroy_sessions_of(store, user) == 1
    assert browsers[0].visit(lambda session: session.update(n=1)) is None
    assert (node.lrange(key, 0, -1), browsers[0].id in key) == ([b"data"], False)
    store.close()


class TestMovingSlots:
    @pytest.fixture
    def slot(self, cluster: Cluster) -> Iterator[int]:
        """A slot of the first node, which gets it back."""
        slot = slot_of(f"sess:{id_on(0)}")
        yield slot
        for node in cluster.nodes:
            node.client.flushall()
            node.client.execute_command("CLUSTER SETSLOT", slot, "STABLE")
        cluster.give(slot, 0)

    @row("S8")
    def test_a_key_that_has_moved_is_found_and_from_then_on_at_once(
        self, cluster: Cluster, store: RedisStore, slot: int, trips: list[int]
    ) -> None:
        """MOVED."""
        id, ports = id_on(0), [node.port for node in cluster.nodes]
        store.load(id)
        cluster.give(slot, 1)
        trips.clear()
        assert store.create(id, b"data", inf)
        assert store.replace(id, b"data", b"new", inf)
        stored = store.load(id)
        assert stored is not None
        assert stored.data == b"new"
        assert trips[:2] == [ports[0], ports[1]]
        until = time.monotonic() + SOON
        while trips != [ports[1]]:  # until the map is there
            assert time.monotonic() < until
            trips.clear()
            store.load(id)
        assert cluster.nodes[1].client.get(f"sess:{id}") == b"new"

    @row("S8", "S12")
    def test_a_key_that_is_moving_is_found_on_either_side(
        self, cluster: Cluster, store: RedisStore, slot: int, trips: list[int]
    ) -> None:
        """ASK: the first node has what has not moved yet, the second what has, and what is new."""
        id = id_on(0)
        store.create(id, b"data", inf)
        first, second = cluster.nodes[0].client, cluster.nodes[1].client
        second.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", cluster.names[0])
        first.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", cluster.names[1])
        assert store.replace(id, b"data", b"still here", inf)
        first.execute_command("MIGRATE", "127.0.0.1", cluster.nodes[1].port, f"sess:{id}", 0, 1000)
        assert store.replace(id, b"still here", b"gone over", inf)
        stored = store.load(id)
        assert stored is not None
        assert stored.data == b"gone over"
        assert store.delete(id)
        assert store.create(id, b"new", inf)
        assert (first.keys(), cluster.nodes[0].port in trips) == ([], True)

    @row("S8")
    def test_nothing_is_done_twice_where_one_of_two_commands_has_moved(
        self, cluster: Cluster, store: RedisStore, slot: int
    ) -> None:
        """The index of the user, and not the record: repeating both would find the id taken."""
        user = next(user for user in map(str, range(10**6)) if slot_of(f"minisession:user:sess:{user}") == slot)
        cluster.give(slot, 1)
        assert store.create(id_on(0, "another "), b"data", inf, user)
        assert list(store.ids(user)) == [id_on(0, "another ")]

    @row("S8")
    def test_a_key_that_is_sent_from_node_to_node_is_an_outage(
        self, cluster: Cluster, store: RedisStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for port in (cluster.nodes[1].port, free_port()):  # one that it knows, one that it does not

            def always(line: Any, commands: Any, port: int = port) -> Any:
                return [MovedError(f"1 127.0.0.1:{port}") for _ in commands]

            monkeypatch.setattr(Line, "exchange", always)
            with pytest.raises(StoreUnavailable, match="being moved"):
                store.load("id")

    @row("S8")
    @pytest.mark.parametrize("bounces", range(9))
    def test_a_key_that_nodes_send_to_and_fro_is_found_once_they_agree(
        self, cluster: Cluster, store: RedisStore, monkeypatch: pytest.MonkeyPatch, bounces: int
    ) -> None:
        """Two redirections are followed at once, and each further one after twice the time."""
        store.create(id_on(0), b"data", inf)
        pauses, _ = self.to_and_fro(cluster, store, monkeypatch, bounces, seconds=1.0)
        stored = store.load(id_on(0))
        assert stored is not None
        assert stored.data == b"data"
        assert pauses == [0, 0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32][:bounces]

    @pytest.mark.parametrize(("seconds", "followed"), [(1.0, 8), (0.2, 6), (0.02, 3), (0.01, 2)])
    def test_nodes_that_do_not_agree_in_the_time_that_a_call_has_are_an_outage(
        self, cluster: Cluster, store: RedisStore, monkeypatch: pytest.MonkeyPatch, seconds: float, followed: int
    ) -> None:
        """A pause that would take all that is left is not begun: no node is asked with no time for the answer."""
        pauses, asked = self.to_and_fro(cluster, store, monkeypatch, 100, seconds)
        with pytest.raises(StoreUnavailable, match="being moved"):
            store.load(id_on(0))
        assert (len(pauses), len(asked)) == (followed, followed + 1)

    def to_and_fro(
        self, cluster: Cluster, store: RedisStore, patched: pytest.MonkeyPatch, bounces: int, seconds: float
    ) -> tuple[list[float], list[Any]]:
        """Have two nodes send so many commands to each other, and the last to the first; pauses alone take time.

        Returns: the pauses, and what the nodes were asked, as they come.
        """
        link: Any = store._redis
        link.budget = Budget(seconds)
        pauses, asked = list[float](), list[Any]()
        exchange, ports = Line.exchange, [node.port for node in cluster.nodes]

        def bouncing(line: Any, commands: Any) -> Any:
            if commands[0][0] == "CLUSTER":  # the map is fetched by the way
                return exchange(line, commands)
            asked.append(commands)
            if len(asked) > bounces:
                return exchange(line, commands)
            port = ports[len(asked) % 2 if len(asked) < bounces else 0]
            return [MovedError(f"{slot_of(f'sess:{id_on(0)}')} 127.0.0.1:{port}") for _ in commands]

        patched.setattr(Line, "exchange", bouncing)
        patched.setattr(redis_cluster, "sleep", pauses.append)
        patched.setattr(redis_deadline, "monotonic", lambda: sum(pauses))
        return pauses, asked

    @row("S8")
    def test_a_slot_that_no_node_has_is_an_outage_of_its_keys_alone(
        self, cluster: Cluster, store: RedisStore, slot: int
    ) -> None:
        try:
            for node in cluster.nodes:
                node.client.execute_command("CLUSTER DELSLOTS", slot)
            until = time.monotonic() + SOON
            while "not covered" not in refusal(store, id_on(0)):  # at first the node says so, and then the map
                assert time.monotonic() < until
            assert store.create(id_on(1), b"data", inf)
        finally:
            cluster.nodes[0].client.execute_command("CLUSTER ADDSLOTS", slot)


class TestANodeThatIsGone:
    @row("S8")
    def test_it_fails_its_own_keys_soon_then_at_once_and_no_others(self, cluster: Cluster, store: RedisStore) -> None:
        ids = [id_on(number) for number in range(3)]
        for id in ids:
            store.create(id, b"data", inf)
        cluster.nodes[1].pause()
        try:
            took = sorted(fails(store, ids[1]) for _ in range(20))
            assert took[10] < 0.05
            assert took[-1] < LIMIT + SLACK
            assert store.load(ids[0]) is not None
            assert store.load(ids[2]) is not None
        finally:
            cluster.nodes[1].go_on()
        begin = time.monotonic()
        while not answers(store, ids[1]):
            assert time.monotonic() - begin < LIMIT + SLACK
            time.sleep(0.01)

    @row("S8")
    def test_a_request_waits_for_one_node_at_most(self, cluster: Cluster) -> None:
        """Not for those, too, that might know who has taken the keys over."""
        store = RedisStore(cluster.url)
        store.load("connected")
        for node in cluster.nodes:
            node.pause()
        try:
            with ThreadPoolExecutor(8) as threads:
                took = sorted(threads.map(lambda number: fails(store, f"{number}"), range(40)))
            assert took[10] < 0.1
            assert took[-1] < 1.5 * LIMIT
        finally:
            for node in cluster.nodes:
                node.go_on()
        store.close()

    def test_connections_that_idled_meanwhile_are_not_tried_one_after_the_other(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They may have been cut off in silence."""
        store = RedisStore(f"{cluster.url}?client_name=ours", read_timeout=0.05)
        node, all_at_once, send = cluster.nodes[1], threading.Barrier(4, timeout=SOON), PatientSocket.sendall

        def connections() -> int:
            return sum(client["name"] == "ours" for client in node.client.client_list())

        def waiting(sock: Any, data: Any) -> None:
            if b"EVAL" in data:
                all_at_once.wait()
            send(sock, data)

        store.load(id_on(1))
        with monkeypatch.context() as patched, ThreadPoolExecutor(4) as threads:
            patched.setattr(PatientSocket, "sendall", waiting)
            list(threads.map(lambda _: store.load(id_on(1)), range(4)))
        assert connections() == 4
        node.pause()
        fails(store, id_on(1))
        node.go_on()
        until = time.monotonic() + SOON
        while connections():
            assert time.monotonic() < until
        store.close()

    @row("S8")
    def test_a_killed_node_fails_its_own_keys(self, cluster: Cluster, store: RedisStore) -> None:
        """The last test: it does not come back."""
        cluster.nodes[2].kill()
        assert fails(store, id_on(2)) < LIMIT + SLACK
        assert store.create(id_on(0), b"data", inf)


def refusal(store: RedisStore, id: str) -> str:
    with pytest.raises(StoreUnavailable) as refused:
        store.load(id)
    return str(refused.value)


def answers(store: RedisStore, id: str) -> bool:
    try:
        return store.load(id) is not None
    except StoreUnavailable:
        return False


def fails(store: RedisStore, id: str) -> float:
    """Load in vain; return the seconds that it took."""
    begin = time.monotonic()
    assert not answers(store, id)
    return time.monotonic() - begin
