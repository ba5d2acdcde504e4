"""Stories with browsers and threads: the races that sessions are known to lose, and do not lose here.

Those that a store could lose, on each of ours.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from minisession import MemoryStore, Session, SQLiteStore
from minisession.stores.memory import FREED_PER_CALL

from ..support.browser import Clock, SpyStore
from ..support.rows import row
from ..support.site import Site, data, put
from ..support.tools import need_module

THREADS = 8


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    need_module("redis")
    with importlib.import_module("tests.support.redis_server").redis_server() as server:
        yield server.url


@pytest.fixture(params=["memory", "sqlite", "redis"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    store: Any = MemoryStore()
    if request.param == "sqlite":
        file = request.getfixturevalue("tmp_path") / "sessions.db"
        store = SQLiteStore(file, timeout=10, synchronous="NORMAL")
    elif request.param == "redis":
        url = request.getfixturevalue("redis_url")
        store = importlib.import_module("minisession.stores.redis").RedisStore(url, read_timeout=10)
        store.clear()
    yield Site(store=SpyStore(store), clock=time.time)
    store.close()


def live(site: Site) -> int:
    """Return how many sessions there are."""
    return len(list(site.store.store.ids()))


def together(number: int, request: Callable[[int], Any]) -> None:
    """Run ``request(0)``, ``request(1)``, … at once."""
    with ThreadPoolExecutor(number) as pool:
        list(pool.map(request, range(number)))


@row("C1", "P8")
def test_eight_threads_that_write_eight_keys_lose_none(site: Site) -> None:
    """Every one has loaded before any saves: the case in which the others lose seven of eight."""
    browser = site.browser()
    browser.visit(put("start", 0))
    rounds = 20
    for turn in range(rounds):
        loaded = threading.Barrier(THREADS, timeout=30)

        def write(number: int, turn: int = turn, loaded: threading.Barrier = loaded) -> None:
            def page(session: Session) -> None:
                session[f"{turn}.{number}"] = number
                loaded.wait()

            browser.twin().visit(page)

        together(THREADS, write)

    assert len(browser.visit(data)) == 1 + rounds * THREADS


@row("C3")
def test_eight_threads_count_exactly(site: Site) -> None:
    """`transact` runs again where another came in between."""
    browser = site.browser()
    browser.visit(put("n", 0))
    each = 25

    def count(session: Session) -> None:
        session["n"] += 1

    def work(_: int) -> None:
        twin = browser.twin()
        for _ in range(each):
            twin.visit(lambda session: session.transact(count))

    together(THREADS, work)

    assert browser.visit(lambda session: session["n"]) == THREADS * each


@row("C2", "P5")
def test_a_logout_is_never_undone_by_a_slow_writer(site: Site) -> None:
    """30 of 30 stay logged out, whichever cookie is tried; the writer was in flight during the logout."""
    revived = 0
    for _ in range(30):
        browser = site.browser()
        browser.visit(lambda session: session.regenerate(user="ada"))
        stolen = browser.twin()
        slow = browser.twin()
        written, over = threading.Event(), threading.Event()

        def write(session: Session, written: threading.Event = written, over: threading.Event = over) -> None:
            session["slow"] = 1
            written.set()
            assert over.wait(30)

        writer = threading.Thread(target=slow.visit, args=(write,))
        writer.start()
        assert written.wait(30)
        browser.visit(lambda session: session.destroy())
        over.set()
        writer.join(30)
        for visitor in (browser, slow, stolen):
            revived += visitor.visit(lambda session: session.user) is not None

    assert revived == 0
    assert live(site) == 0


@row("C7", "P4")
def test_a_planted_id_is_worth_nothing_after_the_login(site: Site) -> None:
    """Session fixation: whoever planted the id must not follow the user in."""
    attacker = site.browser()
    attacker.visit(put("trap", 1))
    victim = site.browser(attacker.cookie)

    victim.visit(lambda session: session.regenerate(user="ada"))

    assert victim.visit(lambda session: session.user) == "ada"
    assert attacker.visit(lambda session: (session.user, dict(session))) == (None, {})
    attacker.visit(put("trap", 2))
    assert attacker.set_cookie is None
    assert victim.visit(data) == {}


@row("C13", "P9")
def test_a_login_is_visible_to_the_very_next_request(site: Site) -> None:
    """The store is written before the headers leave, so no browser can be faster than its session."""
    browser = site.browser()
    stored: list[int] = []

    def server(environ: dict[str, Any], start_response: Any) -> Any:
        def started(*response: Any) -> Any:
            stored.append(live(site))
            return start_response(*response)

        return site.app(environ, started)

    browser.client.app = server
    browser.visit(lambda session: session.regenerate(user="ada"))

    assert stored == [1]
    assert browser.visit(lambda session: session.user) == "ada"


@row("C14")
def test_threads_of_one_request_share_its_session(site: Site) -> None:
    """Also where they look at it first at the same time."""
    browser = site.browser()
    browser.visit(put("start", 0))

    def page(session: Session) -> None:
        ready = threading.Barrier(THREADS, timeout=30)

        def write(number: int) -> None:
            ready.wait()
            session[str(number)] = number

        together(THREADS, write)

    browser.visit(page)

    assert len(browser.visit(data)) == 1 + THREADS


@row("T7")
def test_a_hundred_thousand_expired_sessions_are_gone_a_thousand_requests_later() -> None:
    """A few at every call: never a sweep."""
    clock = Clock()
    store = MemoryStore(clock=clock)
    for number in range(100_000):
        store.create(str(number), b"{}", clock() + 1)
    site = Site(clock=clock, store=Counting(store))
    browser = site.browser()
    browser.visit(put("k", 1))
    clock.advance(2)

    for _ in range(1000):
        browser.visit(data)

    assert len(store) == 1
    assert 0 < site.store.most_freed <= FREED_PER_CALL
    assert browser.visit(data) == {"k": 1}


class Counting:
    """A store that counts what each call frees."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.verbs: list[str] = []
        self.most_freed = 0

    def __getattr__(self, verb: str) -> Any:
        def call(*arguments: Any) -> Any:
            before = len(self.store)
            answer = getattr(self.store, verb)(*arguments)
            self.most_freed = max(self.most_freed, before - len(self.store))
            return answer

        return call


@row("P19")
def test_two_visitors_never_share(site: Site) -> None:
    """The first thing to get right."""
    ada, bob = site.browser(), site.browser()
    ada.visit(put("name", "ada"))
    bob.visit(put("name", "bob"))

    assert (ada.visit(data), bob.visit(data)) == ({"name": "ada"}, {"name": "bob"})
    assert ada.cookie != bob.cookie


def test_a_shared_cache_never_gets_a_cookie() -> None:
    """Responses that set it are not stored, those that depend on it vary."""
    browser = Site().browser()
    headers = []
    for page in (put("k", 1), data, None):
        browser.visit(page)
        headers.append((browser.response.headers.get("Cache-Control"), browser.response.headers.get("Vary")))

    assert headers == [("no-store", "Cookie"), (None, "Cookie"), (None, None)]


@row("T3")
def test_a_flood_of_anonymous_visitors_leaves_the_users_logged_in() -> None:
    """A full store drops what is used least and has no user."""
    clock = Clock()
    site = Site(clock=clock, store=MemoryStore(max_sessions=10, clock=clock))
    user = site.browser()
    user.visit(lambda session: session.regenerate(user="ada"))
    for number in range(50):
        site.browser().visit(put("n", number))

    assert user.visit(lambda session: session.user) == "ada"
    assert len(site.store) == 10
