"""What goes wrong around sessions: stores that break, clocks that jump, floods, and servers that are stopped.

What SQLite and Redis do when they are broken is in their own tests; here is what any store shows.
"""

from __future__ import annotations

import gc
import os
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from minisession import (
    MemoryStore,
    Session,
    SessionError,
    SessionMiddleware,
    SQLiteStore,
    StoreUnavailable,
    get_session,
)

from ..support.browser import SECRET, Clock
from ..support.faults import Fault, Faulty, does_it_and_denies, does_it_and_fails, has_a_bug, refuses
from ..support.rows import row
from ..support.site import Site, data
from ..wsgi.test_servers import PLAIN, SOON, Client, Environ, counted, waitress, wrapped
from ..wsgi.test_wsgi import Body, Exchange, Work, as_list, bare, every_shape, nothing, put, streaming, unavailable

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

Shape = Callable[[Work], "WSGIApplication"]

ROOT = Path(__file__).parents[2]
YEAR = 365.25 * 86400  # seconds
OLD_SECRET = "the secret before this one, as long"


# Each call of each request, broken in each way


class Case(NamedTuple):
    """A request of Ada, who is logged in, or of somebody new."""

    work: Work
    known: bool = True
    options: Mapping[str, Any] = MappingProxyType({})
    late: bool = False  # works once the headers are out
    twice: Any = None  # what there is if the work is done twice


def add(session: Session) -> None:
    session["n"] += 1


def count_up(session: Session) -> None:
    session.transact(add)


def save_and_go_on(session: Session) -> None:
    session["n"] = 1
    session.save()
    session["m"] = 1


def reload(session: Session) -> None:
    session["n"] = 1
    session.reload()


def log_in(session: Session) -> None:
    session.regenerate(user="bob")


def log_in_and_save(session: Session) -> None:
    session.regenerate(user="bob")
    session.save()
    session["m"] = 1


def log_in_and_leave(session: Session) -> None:
    session.regenerate(user="bob")
    session.save()
    session.destroy()


def new_id(session: Session) -> None:
    session.regenerate(keep=True)


def leave_and_begin(session: Session) -> None:
    session.destroy()
    session.regenerate()
    session["n"] = 1


def overtaken(work: Work, by: Work) -> Work:
    """Return what a page does that another request overtakes, once."""

    def page(session: Session) -> None:
        work(session)
        environ = session._exchange.environ
        assert environ is not None
        if (other := environ.pop("test.other", None)) is not None:
            Exchange(other(as_list(by)), environ["HTTP_COOKIE"]).run()

    return page


CASES = {
    "read": Case(lambda session: session.get("n")),
    "write": Case(put(n=1)),
    "nested": Case(lambda session: session["list"].append(1)),
    "delete": Case(lambda session: session.pop("n")),
    "remember": Case(lambda session: setattr(session.cookie, "max_age", 60)),
    "save": Case(save_and_go_on),
    "reload": Case(reload),
    "touch": Case(Session.touch),
    "transact": Case(count_up, twice={"n": 2, "list": []}),
    "login": Case(log_in),
    "login, save": Case(log_in_and_save),
    "login, logout": Case(log_in_and_leave),
    "new id": Case(new_id),
    "logout": Case(Session.destroy),
    "logout, begin": Case(leave_and_begin),
    "write, overtaken": Case(overtaken(put(n=1), put(m=1))),
    "write, overtaken by a logout": Case(overtaken(put(n=1), Session.destroy)),
    "new id, overtaken": Case(overtaken(new_id, put(m=1))),
    "new id, overtaken by another": Case(overtaken(new_id, new_id)),
    "first write": Case(put(n=1), known=False),
    "first login": Case(log_in, known=False),
    "first transact": Case(lambda session: session.transact(put(n=1)), known=False),
    "first visit, kept": Case(nothing, known=False, options={"save_uninitialized": True}),
    "rolling": Case(lambda session: session.get("n"), options={"rolling": True}),
    "rolling, unused": Case(nothing, options={"rolling": True}),
    "resave, unused": Case(nothing, options={"resave": True}),
    "old secret": Case(lambda session: session.get("n"), options={"secret": [OLD_SECRET, SECRET]}),
    "late": Case(put(n=1), late=True),
    "late, overtaken": Case(overtaken(put(n=1), put(m=1)), late=True),
    "late transact": Case(count_up, late=True, twice={"n": 2, "list": []}),
}

FAULTS: list[tuple[Fault, bool]] = [
    (refuses, False),
    (refuses, True),
    (does_it_and_fails, False),
    (does_it_and_fails, True),
    (does_it_and_denies, False),
    (has_a_bug, False),
]


class Page(Body, list[bytes]):
    """A body that is a list."""


class World:
    """A site, one request, and what becomes of it."""

    def __init__(self, case: Case, shape: Shape) -> None:
        self.case, self.shape = case, streaming if case.late else shape
        self.clock = Clock()
        self.memory = MemoryStore(clock=self.clock)
        self.store = Faulty(self.memory)
        self.bodies: list[Body] = []
        self.error: Exception | None = None

        def begin(session: Session) -> None:
            session.regenerate(user="ada")
            session.update(n=0, list=[])

        ada = SessionMiddleware(as_list(begin), secret=SECRET, store=self.memory, clock=self.clock)
        self.before = self.cookie = Exchange(ada).run().cookie if case.known else ""
        self.clock.advance(5000)  # a touch is due

    def around(self, app: WSGIApplication, store: Any) -> SessionMiddleware:
        return SessionMiddleware(app, **{"secret": SECRET, "store": store, "clock": self.clock, **self.case.options})

    def app(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        body = self.shape(self.case.work)(environ, start_response)
        self.bodies.append(Page(body) if isinstance(body, list) else Body(body))
        return self.bodies[-1]

    def run(self) -> World:
        environ = {"test.other": lambda app: self.around(app, self.memory)}
        self.exchange = Exchange(self.around(self.app, self.store), self.before, **environ)
        try:
            self.exchange.run()
        except Exception as error:
            self.error = error
        if self.exchange.all("set-cookie"):
            self.cookie = self.exchange.cookie
        return self

    def seen_with(self, cookie: str) -> tuple[str | None, dict[str, Any]]:
        """Return whom the site takes a browser with this cookie for, and what its session has."""
        found: list[Any] = []
        look = as_list(lambda session: found.append((session.user, dict(session))))
        store = Faulty(self.memory)
        store.break_at(1, lambda touch, *arguments: False)  # looking must change nothing
        Exchange(SessionMiddleware(look, secret=[SECRET, OLD_SECRET], store=store, clock=self.clock), cookie).run()
        return found[0]  # type: ignore[no-any-return]  # a pair, put there above


@row("P9")
@every_shape
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_whichever_call_fails_the_answer_is_whole_and_true(
    case: Case, shape: Shape, caplog: pytest.LogCaptureFixture
) -> None:
    """503, and the cookie is as it was; or 200, and what was done is there.  No logout by accident."""
    flawless = World(case, shape)
    states = [flawless.seen_with(flawless.before)]  # of the session as it was, from call to call
    flawless.store.after_each = lambda: states.append(flawless.seen_with(flawless.before))
    flawless.run()
    assert (flawless.error, flawless.exchange.status) == (None, "200 OK")
    done = flawless.seen_with(flawless.cookie)
    for number, verb in enumerate(flawless.store.verbs):
        for fault, for_good in FAULTS:
            if verb == "load" and fault is does_it_and_denies:  # then there is no session: who could tell?
                continue
            caplog.clear()
            world = World(case, shape)
            world.store.break_at(number, fault, for_good=for_good)
            check(world.run(), fault, states, done, [line.levelname for line in caplog.records])
            if verb == "touch" and fault is not has_a_bug and not for_good and case.work is not Session.touch:
                assert world.exchange.status == "200 OK"  # it was a courtesy


def check(world: World, fault: Fault, states: list[Any], done: Any, told: list[str]) -> None:
    exchange, error, late = world.exchange, world.error, world.case.late
    assert [body.closed for body in world.bodies] == [1] * len(world.bodies)
    if error is not None:  # reached the server: before the headers left, unless the app had sent them
        assert exchange.starts == late
        assert late or fault in (has_a_bug, does_it_and_denies)
        assert isinstance(error, ZeroDivisionError if fault is has_a_bug else SessionError)
    elif exchange.status == "200 OK":
        assert exchange.text == (b"halfmore" if late else b"hello")
        seen = world.seen_with(world.cookie)
        if seen != done and not (fault is does_it_and_denies and seen[1] == world.case.twice):
            assert late or fault is does_it_and_denies
            assert told[-1] == ("ERROR" if late else "WARNING")  # "changes ... not stored"
    else:
        assert unavailable(exchange)
    if exchange.cookie == "connect.sid=":
        assert world.seen_with(world.before) == (None, {})
    if fault is not does_it_and_denies:
        assert world.seen_with(world.before) in states


@row("S4")
def test_a_logout_that_failed_takes_no_cookie_away_though_the_app_goes_on() -> None:
    """The session lives: without its cookie, its user could not try again."""
    site = Site()
    site.store.store = faulty = Faulty(site.store.store)
    browser = site.browser()
    browser.visit(log_in)
    faulty.break_at(len(faulty.verbs) + 1, refuses)

    def page(session: Session) -> None:
        with pytest.raises(StoreUnavailable):
            session.destroy()

    browser.visit(page)

    assert browser.set_cookie is None
    assert browser.visit(lambda session: session.user) == "bob"


# Waiting


@row("S2", "P18")
@pytest.mark.parametrize("verb", ["load", "rotate"])
def test_a_store_that_hangs_holds_up_none_but_its_own_request(verb: str) -> None:
    """Until its time limit, and then it is a 503.  Nothing of ours is locked meanwhile."""
    world = World(CASES["login"], as_list)
    hangs, goes_on = threading.Event(), threading.Event()

    def hang(method: Callable[..., Any], *arguments: Any) -> None:
        hangs.set()
        assert goes_on.wait(SOON)
        raise StoreUnavailable("no answer in time")

    world.store.break_at(["load", "rotate"].index(verb), hang)
    thread = threading.Thread(target=world.run)
    thread.start()
    assert hangs.wait(SOON)
    bob = Exchange(world.around(as_list(log_in), world.store)).run().cookie
    assert Exchange(world.around(as_list(put(n=1)), world.store), bob).run().status == "200 OK"
    calls = len(world.store.verbs)
    assert Exchange(world.around(as_list(nothing), world.store), world.before).run().status == "200 OK"
    assert len(world.store.verbs) == calls
    goes_on.set()
    thread.join(SOON)

    assert unavailable(world.exchange)
    assert world.seen_with(world.before) == ("ada", {"n": 0, "list": []})


@row("T2")
def test_pages_that_stream_hold_nothing_of_the_store(tmp_path: Path) -> None:
    """Three slow downloads, and the fourth thread still writes; at their ends they write, too."""
    go_on = threading.Event()

    def download(environ: Environ) -> Iterator[bytes]:
        yield counted(environ)
        assert go_on.wait(SOON)
        get_session(environ)["finished"] = True
        yield b", to the end"

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", list(PLAIN))
        return download(environ) if environ["PATH_INFO"] == "/download" else [counted(environ)]

    store = SQLiteStore(tmp_path / "sessions.db", synchronous="NORMAL")
    with ExitStack() as stack:
        port = stack.enter_context(waitress(wrapped(app, store=store)))
        *slow, other = (stack.enter_context(Client(port)) for _ in range(4))
        responses = [client.send("/download") for client in slow]
        assert [response.read1() for response in responses] == [b"visit 1"] * 3
        assert [other.get(), other.get()] == [b"visit 1", b"visit 2"]
        go_on.set()
        assert [response.read() for response in responses] == [b", to the end"] * 3
    stored = [store.load(id) for id in store.ids()]
    assert sorted(b"finished" in found.data for found in stored if found) == [False, True, True, True]
    store.close()


# Clocks


@row("T1")
@pytest.mark.parametrize(
    "jump", [3600, -50, -3600, -56 * YEAR, 75 * YEAR], ids=["1 h", "-50 s", "-1 h", "1970", "2101"]
)
@pytest.mark.parametrize("midway", [False, True], ids=["between requests", "during one"])
def test_a_clock_that_jumps_breaks_nothing_and_lengthens_no_life(jump: float, midway: bool) -> None:
    """A session may end early; its limit counts from its beginning or from the jump, whichever is earlier."""
    site = Site(absolute_timeout=7200)
    browser = site.browser()
    browser.visit(log_in)
    site.clock.advance(100)

    def page(session: Session) -> None:
        session["n"] = 1
        site.clock.advance(jump * midway)

    site.clock.advance(jump * (not midway))
    browser.visit(page)

    def age(session: Session) -> float:
        return float(site.clock() - session.created_at.timestamp())

    left = 7200 - max(0, 100 + jump)
    for _ in range(8):
        assert browser.visit(lambda session: session.user) == ("bob" if left > 0 else None)
        assert browser.visit(age) >= 0
        site.clock.advance(abs(left) / 8)
    assert browser.visit(lambda session: session.user) is None


@row("T1")
@pytest.mark.parametrize("skew", [5, -5])
def test_servers_whose_clocks_differ_share_a_session_to_its_limit(skew: float) -> None:
    """By ten seconds: neither ends it early by more, or keeps it longer."""
    clock = Clock()
    store = MemoryStore(clock=clock)
    sites = [Site(store=store, clock=lambda by=by: clock() + by, absolute_timeout=3600) for by in (skew, -skew)]
    cookie = None
    for number in range(60):
        browser = sites[number % 2].browser(cookie)
        browser.visit(put(n=number))
        cookie = cookie or browser.cookie
        assert browser.visit(lambda session: session["n"]) == number
        clock.advance(59.8)
    clock.advance(3600 + 10 - 60 * 59.8)
    assert [site.browser(cookie).visit(data) for site in sites] == [{}, {}]


# Floods


FLOOD = int(os.environ.get("MINISESSION_FLOOD", "20000"))


@row("T3", "P20")
def test_a_flood_of_anonymous_visitors_takes_no_more_memory_and_logs_nobody_out(
    count: Callable[[str], None],
) -> None:
    """Each request is a new session, as from a robot that fills carts; ``MINISESSION_FLOOD=1000000`` for more."""
    clock = Clock()
    store = MemoryStore(max_sessions=FLOOD // 20, clock=clock)
    site = Site(clock=clock, store=store)
    canary = site.browser()
    canary.visit(log_in)
    robot = bare(as_list(put(cart=["apples", "pears"])), store=store, clock=clock)
    blocks = []
    for turn in range(10):
        for _ in range(FLOOD // 10):
            list(robot({"wsgi.url_scheme": "https"}, lambda status, headers, exc_info=None: lambda block: None))
            clock.advance(0.001)
        if turn > 1:  # full
            gc.collect()
            blocks.append(sys.getallocatedblocks())

    assert len(store) == FLOOD // 20
    assert max(blocks) - blocks[0] < FLOOD // 20  # less than one block for each session that is kept
    assert canary.visit(lambda session: session.user) == "bob"
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    grown = max(blocks) - blocks[0]
    count(f"flood: {FLOOD:,} new sessions, {len(store):,} kept; {grown:+,} blocks of memory, a peak of {most} MB")


# Servers that are stopped

SERVER = """
import signal, sys
from waitress.server import create_server
from demo.app import app

if sys.argv[1] == "politely":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
server = create_server(app, host="127.0.0.1", port=0, threads=4)
print(server.effective_port, flush=True)
server.run()
"""


@contextmanager
def demo(store: Path, stops: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Serve the demo in a process; yield it, and its port."""
    environ = {**os.environ, "SESSION_STORE": f"sqlite:///{store}", "SESSION_SECRET": SECRET}
    command = [sys.executable, "-c", SERVER, stops]
    with subprocess.Popen(command, env=environ, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server, int(server.stdout.readline())
        finally:
            server.kill()


def views(client: Client) -> int:
    found = re.search(rb"<dt>Views</dt><dd><code>(\d+)", client.get("/secureplace"))
    assert found
    return int(found[1])


@row("T6", "P9")
@pytest.mark.parametrize("stops", ["politely", "at once"])
def test_what_was_answered_before_a_server_was_stopped_is_there_when_it_starts_again(
    tmp_path: Path, stops: str
) -> None:
    """SIGTERM while three visitors load pages as fast as they can; each page says how many it was."""
    under_way = threading.Barrier(4)

    def visit(client: Client) -> int:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        client.get("/login", method="POST", body="username=admin&password=letmein", headers=form)
        answered = 0
        with suppress(OSError, HTTPException):  # the server is stopped
            while True:
                answered = views(client)
                if answered == 10:
                    under_way.wait(SOON)
        return answered

    with demo(tmp_path / "sessions.db", stops) as (server, port), ThreadPoolExecutor(3) as pool:
        clients = [Client(port) for _ in range(3)]
        visits = [pool.submit(visit, client) for client in clients]
        under_way.wait(SOON)
        server.terminate()
        answered = [visit.result() for visit in visits]
    with demo(tmp_path / "sessions.db", stops) as (_, port):
        for client, last in zip(clients, answered, strict=True):
            client.connection.close()
            with Client(port) as again:
                again.cookie = client.cookie
                assert views(again) in (last + 1, last + 2)  # of one, only the answer may have been lost
