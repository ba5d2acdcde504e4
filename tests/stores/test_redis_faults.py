"""What a Redis that is killed, hung, cut off or full does to a site: little, not for long, and nothing silently."""

# tests are named after their rows

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count as counting
from itertools import cycle
from math import inf
from typing import TYPE_CHECKING, Any

import pytest

from minisession import Session, StoreUnavailable, get_session

from ..support.browser import Clock, SpyStore
from ..support.redis_server import SOON, Cut, RedisServer, Wire, redis_server  # skips where redis-py is missing
from ..support.site import Page, Site, data, put
from ..wsgi.test_servers import PLAIN, Client, Environ, waitress, wrapped

import redis  # isort: skip
from redis.backoff import NoBackoff  # isort: skip
from redis.connection import Connection  # isort: skip
from redis.retry import Retry  # isort: skip
from minisession.stores import redis_gate as gate  # isort: skip
from minisession.stores.redis import RedisStore  # isort: skip
from minisession.stores.redis_deadline import PatientSocket  # isort: skip
from minisession.stores.redis_url import SILENT  # isort: skip
from minisession.stores.redis_gate import PATIENCE, PAUSE  # isort: skip
from ..support.rows import row

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

SECONDS = float(os.environ.get("MINISESSION_SOAK_SECONDS", "0"))  # the soak goes on for; at least once around
LIMIT = 1.0  # seconds that a hung Redis costs a request, and within which the site is back
SLACK = 1.0  # seconds for a machine that is busy with other things


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    running.client.flushall()
    return running


def fails(store: RedisStore, id: str = "id") -> float:
    """Load in vain; return the seconds that it took."""
    begin = time.monotonic()
    with pytest.raises(StoreUnavailable):
        store.load(id)
    return time.monotonic() - begin


class TestHangs:
    @row("S2", "P18")
    def test_a_hung_redis_costs_one_call_its_limits_and_the_others_nothing(self, server: RedisServer) -> None:
        monotonic = Clock()
        store = RedisStore(server.url, read_timeout=0.1, monotonic=monotonic)
        store.create("id", b"data", inf)
        server.pause()
        try:
            assert 0.09 < fails(store) < LIMIT
            assert sum(fails(store) for _ in range(100)) < 0.1
            monotonic.advance(PAUSE)
            assert 0.09 < fails(store) < LIMIT
            assert sum(fails(store) for _ in range(100)) < 0.1
        finally:
            server.go_on()
        assert fails(store) < 0.05
        monotonic.advance(PAUSE)
        for _ in range(3):
            assert store.load("id") is not None
        store.close()

    @row("S2")
    def test_while_one_call_tries_again_the_others_go_on_failing_at_once(self, server: RedisServer) -> None:
        monotonic = Clock()
        store = RedisStore(server.url, read_timeout=0.2, monotonic=monotonic)
        server.pause()
        try:
            fails(store)
            monotonic.advance(PAUSE)
            with ThreadPoolExecutor(8) as threads:
                took = sorted(threads.map(lambda _: fails(store), range(8)))
        finally:
            server.go_on()
        assert took[-1] > 0.19
        assert took[-2] < 0.1
        store.close()

    @row("S2")
    def test_a_call_that_never_came_back_to_say_so_does_not_close_the_store_for_ever(self, server: RedisServer) -> None:
        """A worker that was killed while it tried."""
        monotonic = Clock()
        store = RedisStore(server.url, read_timeout=0.05, monotonic=monotonic)
        server.pause()
        fails(store)
        server.go_on()
        monotonic.advance(PAUSE)
        node: Any = store._redis
        node._gate.enter()
        fails(store)
        monotonic.advance(PATIENCE)
        assert store.load("id") is None
        store.close()

    @row("S1")
    def test_a_redis_that_refuses_connections_is_asked_every_time(self, server: RedisServer) -> None:
        """It costs nothing, and the first call after its return succeeds."""
        with redis_server() as other:
            store = RedisStore(other.url, monotonic=Clock())
            other.kill()
            for _ in range(3):
                assert fails(store) < 0.2
            other.start()
            assert store.load("id") is None
            store.close()

    @row("S1")
    def test_a_hung_redis_that_is_killed_and_started_is_back_at_the_next_call(self) -> None:
        monotonic = Clock()
        with redis_server() as server:
            store = RedisStore(server.url, read_timeout=0.05, monotonic=monotonic)
            server.pause()
            fails(store)
            server.kill()
            monotonic.advance(PAUSE)
            fails(store)
            server.start()
            assert store.load("id") is None
            store.close()

    def test_connections_that_idled_meanwhile_are_not_tried_one_after_the_other(
        self, server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A machine that lost its power sends no farewell: each of its connections would cost a time limit."""
        all_at_once, send = threading.Barrier(8, timeout=SOON), PatientSocket.sendall

        def waiting(sock: Any, data: Any) -> None:
            all_at_once.wait()
            send(sock, data)

        store = RedisStore(f"{server.url}?client_name=ours", read_timeout=0.05)
        with monkeypatch.context() as patched, ThreadPoolExecutor(8) as threads:
            patched.setattr(PatientSocket, "sendall", waiting)
            list(threads.map(lambda _: store.load("id"), range(8)))
        ours = [client for client in server.client.client_list() if client["name"] == "ours"]
        server.pause()
        fails(store)
        server.go_on()
        until = time.monotonic() + SOON
        while any(client["name"] == "ours" for client in server.client.client_list()):
            assert time.monotonic() < until
        assert len(ours) == 8
        store.close()

    @row("T2")
    def test_all_connections_in_use_is_an_outage_soon_and_no_breaker(self, server: RedisServer) -> None:
        """Threads that outnumber the connections wait a little, and fail without closing the store."""
        with Wire(server.port) as wire:
            store = RedisStore(wire.url, max_connections=1, pool_timeout=0.05, read_timeout=5)
            asked, answer = threading.Event(), threading.Event()

            def held(chunk: bytes) -> bytes:
                asked.set()
                answer.wait(SOON)
                return chunk

            wire.sent = held
            with ThreadPoolExecutor(1) as threads:
                slow = threads.submit(store.load, "slow")
                assert asked.wait(SOON)
                assert 0.04 < fails(store) < LIMIT
                answer.set()
                assert slow.result(SOON) is None
            assert store.load("id") is None
            assert wire.connections == 1
            store.close()

    @row("S3")
    @pytest.mark.parametrize("length", [0, 1, 20, 406])
    def test_an_answer_that_breaks_off_is_an_outage_and_the_next_call_connects_anew(
        self, server: RedisServer, length: int
    ) -> None:
        server.client.set("sess:id", b"data" * 100)
        with Wire(server.port) as wire:
            store = RedisStore(wire.url)

            def breaking_off(chunk: bytes) -> bytes:
                raise Cut(chunk[:length])

            wire.answered = breaking_off
            fails(store)
            wire.answered = bytes
            assert store.load("id") == (b"data" * 100, inf)
            assert wire.connections == 2
            store.close()

    @pytest.mark.parametrize("when", ["waits", "is about to wait"])
    def test_a_store_that_is_closed_while_a_request_waits_fails_that_request(
        self, server: RedisServer, monkeypatch: pytest.MonkeyPatch, when: str
    ) -> None:
        """A worker that is told to stop."""
        asked, closed, limit = threading.Event(), threading.Event(), PatientSocket._limit
        sent = threading.local()

        def held(sock: Any) -> None:
            """Sending comes first; when it looks whether there is anything to read, it does not wait."""
            if sock._timeout != 0 and getattr(sent, "once", False):
                asked.set()
                closed.wait(0.05 if when == "waits" else SOON)
            sent.once = sock._timeout != 0
            limit(sock)

        monkeypatch.setattr(PatientSocket, "_limit", held)
        store = RedisStore(server.url, read_timeout=SOON)
        with ThreadPoolExecutor(1) as threads:
            if when == "waits":
                server.pause()
            try:
                waiting = threads.submit(fails, store)
                assert asked.wait(SOON)
                time.sleep(0.1 if when == "waits" else 0)
                store.close()
                closed.set()
                assert waiting.result(SOON) < SOON
            finally:
                server.go_on()


@row("S3", "P19")
@pytest.mark.parametrize("given", ["URL", "client"])
def test_an_answer_that_comes_too_late_is_nobody_elses(
    server: RedisServer, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each user's record holds their own name, and every third answer or so comes after its reader has gone."""
    monkeypatch.setattr(gate, "PAUSE", 0.0)  # nobody is kept from asking on
    answers = counting()

    def late(chunk: bytes) -> bytes:
        if next(answers) % 3 == 0:
            time.sleep(0.08)
        return chunk

    def visit(user: int) -> set[bool]:
        return {is_served(f"user {user}") for _ in range(15)}

    def is_served(user: str) -> bool:
        try:
            stored = store.load(user)
            assert stored is not None
            assert stored.data == user.encode()
            assert store.touch(user, stored.data, inf, user)
        except StoreUnavailable:
            return False
        return True

    for user in range(4):
        server.client.set(f"sess:user {user}", f"user {user}")
    options: dict[str, Any] = {"protocol": 2, "retry": Retry(NoBackoff(), 0), **SILENT}
    with Wire(server.port) as wire, redis.Redis(port=wire.port, socket_timeout=0.05, **options) as client:
        store = RedisStore(client) if given == "client" else RedisStore(wire.url, read_timeout=0.05)
        wire.answered = late
        with ThreadPoolExecutor(4) as threads:
            assert set().union(*threads.map(visit, range(4))) == {True, False}
        store.close()


@row("S3", "T8")
def test_a_request_that_is_interrupted_between_two_answers_leaves_none_behind(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C, or a server's own time limit that is raised inside the worker."""
    with redis.Redis(port=server.port) as client:
        store = RedisStore(client)
        for id in ("a", "b"):
            store.create(id, id.encode(), inf)
        interrupted = iter([False, True])
        reply = Connection.read_response

        def interrupting(connection: Connection, *arguments: object, **options: object) -> object:
            if next(interrupted, False):
                raise KeyboardInterrupt
            return reply(connection, *arguments, **options)

        monkeypatch.setattr(Connection, "read_response", interrupting)
        with pytest.raises(KeyboardInterrupt):
            store.heir("a")
        stored = store.load("b")
        assert stored is not None
        assert stored.data == b"b"


@row("S11", "P19")
def test_processes_forked_from_one_that_is_connected_do_not_share_its_connection(server: RedisServer) -> None:
    """Servers that fork their workers after the app was loaded, and used."""
    code = """
import os, sys, threading, time
from minisession.stores.redis import RedisStore

store = RedisStore(sys.argv[1])
end = time.time() + 600
for name in range(5):
    assert store.create(f"{name}", b"record %d" % name, end, f"{name}")

def work(name):
    for _ in range(200):
        stored = store.load(f"{name}")
        assert stored is not None and stored.data == b"record %d" % name, stored
        assert store.touch(f"{name}", stored.data, end, f"{name}")

children = []
for name in range(1, 5):
    child = os.fork()
    if not child:
        status = 1
        try:
            work(name)
            status = 0
        finally:
            os._exit(status)
    children.append(child)
work(0)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0, 0]
"""
    subprocess.run([sys.executable, "-c", code, server.url], check=True, timeout=60)


@row("C10")
def test_no_touch_brings_back_what_was_deleted(server: RedisServer) -> None:
    store = RedisStore(server.url)
    with ThreadPoolExecutor(3) as threads:
        for turn in range(300):
            id = f"{turn}"
            store.create(id, b"data", inf, "ann")
            touching = threads.submit(store.touch, id, b"data", inf, "ann")
            replacing = threads.submit(store.replace, id, b"data", b"data", inf, "ann")
            assert threads.submit(store.delete, id).result(SOON)
            touching.result(SOON)
            replacing.result(SOON)
    assert server.client.keys("sess:*") == []
    assert list(store.ids("ann")) == []
    store.close()


# A failover


@contextmanager
def replicated(*options: str) -> Iterator[tuple[RedisServer, RedisServer, Wire]]:
    """Yield a master, its replica, and the wire between them."""
    at_once = ("--repl-diskless-sync-delay", "0")
    with redis_server(*at_once, *options) as master, redis_server(*at_once) as replica, Wire(master.port) as wire:
        follow(replica, wire.port)
        yield master, replica, wire
        replica.client.replicaof("NO", "ONE")


def all_is_replicated(master: RedisServer) -> bool:
    master.client.set("the last", "write")  # of this connection, for which WAIT waits
    return bool(master.client.wait(1, 1000 * SOON) == 1)


def follow(replica: RedisServer, port: int) -> None:
    replica.client.replicaof("127.0.0.1", port)
    until = time.monotonic() + SOON
    while replica.client.info("replication")["master_link_status"] != "up":
        assert time.monotonic() < until
        time.sleep(0.01)


@contextmanager
def parted(wire: Wire) -> Iterator[None]:
    """Let nothing through, and tell neither side."""
    over = threading.Event()

    def held(chunk: bytes) -> bytes:
        assert over.wait(2 * SOON)
        raise Cut(b"")

    wire.sent = wire.answered = held
    try:
        yield
    finally:
        over.set()


def log_in(name: str) -> Page:
    return lambda session: session.regenerate(user=name)


def user(session: Session) -> str | None:
    return session.user


@row("S7", "P19")
def test_what_a_failover_loses_is_lost_and_the_old_master_wins_nothing_back() -> None:
    """Redis acknowledges before it replicates: a logout can be undone, a write, a login.  No more than that.

    The old master is not dead but cut off, and one server goes on with it, until it becomes a replica.
    """
    with replicated() as (master, replica, wire):
        old, new = RedisStore(master.url), RedisStore(replica.url)
        moving = SpyStore(old)
        site, left_behind = Site(store=moving, clock=time.time), Site(store=old, clock=time.time)
        ada, bob, carl, dora = (site.browser() for _ in range(4))
        for browser, name in ((ada, "ada"), (bob, "bob"), (dora, "dora")):
            browser.visit(log_in(name))
            browser.visit(put("n", 1))
        assert all_is_replicated(master)
        ada_before, ids = ada.twin(), {browser.id for browser in (ada, bob)}

        def fail_over(session: Session) -> None:
            """What happens while two requests are under way that have loaded from the old master."""
            assert session["n"] == 2
            replica.client.replicaof("NO", "ONE")
            moving.store = new
            assert ada_before.visit(user) == "ada"
            assert bob.twin().visit(data) == {"n": 1}
            assert (carl.visit(user), carl.visit(data)) == (None, {})
            bob.twin().visit(put("m", 1))
            dora.twin().visit(lambda session: session.destroy())
            left_behind.browser(bob.cookie).visit(put("n", 3))
            follow(master, replica.port)
            session["late"] = 1

        with parted(wire):
            ada.visit(lambda session: session.destroy())
            bob.visit(put("n", 2))
            carl.visit(log_in("carl"))
            dora.visit(lambda session: (session.update(n=2), bob.visit(fail_over)))

        assert bob.visit(data) == {"n": 1, "m": 1, "late": 1}
        assert (bob.set_cookie, dora.set_cookie) == (None, None)
        assert (bob.visit(user), dora.visit(user), carl.visit(user)) == ("bob", None, None)
        assert set(new.ids()) == ids
        late = left_behind.browser(bob.cookie)
        late.get(extra_environ={"test.page": put("n", 4), "test.results": []}, status=503)
        assert bob.visit(data)["n"] == 1
        old.close()
        new.close()


@row("S7")
def test_a_master_that_must_have_a_replica_acknowledges_nothing_for_long_without_one() -> None:
    """With ``min-replicas-to-write`` a failover loses no more than the last moments; reading goes on."""
    options = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "2")
    with replicated(*options) as (master, replica, wire):
        old, new = RedisStore(master.url), RedisStore(replica.url)
        store = SpyStore(old)
        browser = Site(store=store, clock=time.time).browser()
        browser.visit(log_in("ada"))
        before = browser.cookie
        assert all_is_replicated(master)

        def refused(page: Page) -> bool:
            environ = {"test.page": page, "test.results": []}
            return bool(browser.get(extra_environ=environ, expect_errors=True).status_code == 503)

        with parted(wire):
            until = time.monotonic() + SOON
            while not refused(lambda session: session.update(n=session.get("n", 0) + 1)):
                assert time.monotonic() < until
                time.sleep(0.05)
            assert all(refused(page) for page in (put("n", 2), log_in("bob"), lambda session: session.destroy()))
            assert (browser.cookie, browser.visit(user)) == (before, "ada")
            replica.client.replicaof("NO", "ONE")
            store.store = new
            assert browser.visit(user) == "ada"
            browser.visit(lambda session: session.destroy())
        assert (browser.cookie, list(new.ids())) == (None, [])
        old.close()
        new.close()


# The soak


def site(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    page = environ["PATH_INFO"]
    if page == "/static":
        body = b"static"
    else:
        session = get_session(environ)
        if page == "/count":
            session["count"] = session.get("count", 0) + 1
        body = b"%d" % session.get("count", 0)
    start_response("200 OK", list(PLAIN))
    return [body]


class Visitor:
    """Makes 25 requests a second, and keeps a journal of what the site told: the only truth that counts."""

    def __init__(self) -> None:
        self.count = 0  # the last that a 200 showed
        self.unknown = 0  # counts since then that were answered 503, and may have been stored all the same
        self.answers: list[tuple[float, float, str, int]] = []  # begun, took, page, status
        self.wrong: list[str] = []

    def stay(self, port: int, leave: threading.Event) -> None:
        with Client(port) as client:
            for page in cycle(["/count", "/static", "/read", "/static"]):
                begun = time.monotonic()
                response = client.send(page)
                body, headers = response.read(), response.headers
                self.note(page, response.status, body, headers.get("Retry-After"), headers.get("Set-Cookie"))
                self.answers.append((begun, time.monotonic() - begun, page, response.status))
                if leave.wait(max(0.0, begun + 0.04 - time.monotonic())):
                    return

    def note(self, page: str, status: int, body: bytes, retry: str | None, cookie: str | None) -> None:
        if page == "/static":
            right = (status, body) == (200, b"static")
        elif status == 200:
            least = self.count + (page == "/count")
            right = least <= int(body) <= least + self.unknown and (cookie is None or int(body) == 1)
            self.count, self.unknown = int(body), 0
        else:
            right = (status, retry, cookie) == (503, "5", None)
            self.unknown += page == "/count"
        if not right:
            self.wrong.append(f"{page}: {status} {body!r} {cookie}, after {self.count} and {self.unknown} unknown")

    def is_served_since(self, moment: float) -> bool:
        """Tell whether its session has worked in a request that it began after this."""
        return any(begun > moment and page != "/static" and ok == 200 for begun, _, page, ok in self.answers[-50:])


@contextmanager
def killed(server: RedisServer) -> Iterator[None]:
    server.kill()
    yield
    server.start()


@contextmanager
def hung(server: RedisServer) -> Iterator[None]:
    server.pause()
    yield
    server.go_on()


@contextmanager
def readonly(server: RedisServer) -> Iterator[None]:
    server.client.replicaof("127.0.0.1", "1")
    yield
    server.client.replicaof("NO", "ONE")


@contextmanager
def full(server: RedisServer) -> Iterator[None]:
    server.client.config_set("maxmemory", 1)
    yield
    server.client.config_set("maxmemory", 0)


@contextmanager
def flushed(server: RedisServer) -> Iterator[None]:
    server.client.script_flush()
    yield
    server.client.script_flush()


@row("S1", "S2", "S4", "S5", "S6", "P18")
def test_a_site_goes_on_while_its_redis_has_troubles(
    count: Callable[[str], None],
) -> None:
    """Eight visitors, 200 requests a second on four threads, and Redis is killed, hung, read-only, full, flushed."""
    visitors = [Visitor() for _ in range(8)]
    leave = threading.Event()
    back: dict[str, float] = {}

    def until_all_are_served() -> float:
        begin = time.monotonic()
        while not all(visitor.is_served_since(begin) for visitor in visitors):
            assert time.monotonic() - begin < SOON
            time.sleep(0.005)
        return time.monotonic() - begin

    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server, ThreadPoolExecutor(8) as threads:
        store = RedisStore(server.url)
        with waitress(wrapped(site, store=store)) as port:
            staying = [threads.submit(visitor.stay, port, leave) for visitor in visitors]
            try:
                until_all_are_served()
                end = time.monotonic() + SECONDS
                for trouble in cycle([killed, hung, readonly, full, flushed]):
                    with trouble(server):
                        time.sleep(0.6)  # of visits: a real Redis knows no clock but the wall's
                    back[trouble.__name__] = max(until_all_are_served(), back.get(trouble.__name__, 0.0))
                    if trouble is flushed and time.monotonic() > end:
                        break
            finally:
                leave.set()
            for stayed in staying:
                stayed.result(SOON)
        store.close()
    answers = [answer for visitor in visitors for answer in visitor.answers]
    slowest = max(took for _, took, *_ in answers)
    count(
        f"Redis in trouble: {len(answers)} answers, the slowest after {slowest:.2f} s; sessions were back after "
        + ", ".join(f"{seconds:.2f} s ({trouble})" for trouble, seconds in back.items())
    )
    assert [line for visitor in visitors for line in visitor.wrong] == []
    assert {status for *_, status in answers} == {200, 503}
    assert max(back.values()) < LIMIT + SLACK
    assert slowest < LIMIT + SLACK
