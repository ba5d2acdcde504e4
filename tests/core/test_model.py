"""Whatever a visitor's requests do, one after the other and one inside another: it is as the model has it.

``MINISESSION_HISTORIES=1000000`` tries so many, in 20 minutes.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from minisession import (
    Cookie,
    MemoryStore,
    SessionMiddleware,
    SQLiteStore,
    StoreUnavailable,
    destroy_session,
    destroy_sessions_of,
    get_session,
)
from minisession.wire import cookies, record
from minisession.wire.signing import Signer

from ..support.browser import SECRET, Clock
from ..support.histories import FORGED, History, Player, history, smallest
from ..support.model import Model, Options
from ..support.rows import row
from .test_interleavings import (
    Emptied,
    HeirsNotFollowed,
    TombstoneIsAnEnd,
    WithoutBurial,
    WithoutCompare,
    WithoutCompareInRotate,
    WithoutGone,
    WithoutHeir,
    WithoutSeenInTouch,
    WithoutTombstone,
    without_early_touch,
    without_merge,
    without_place,
    without_restoring,
    without_touch,
)

HISTORIES = int(os.environ.get("MINISESSION_HISTORIES", "2500"))
SEED = 4
START = 1_800_000_000.0

OpenStore = Callable[[Clock], Any]


class Real:
    """The middleware, behind what the model has."""

    def __init__(self, options: Options, open_store: OpenStore) -> None:
        self.clock, self.ahead, self.made, self.signer = Clock(START), 0.0, 0, Signer(SECRET)
        self.store, self.down = open_store(self.clock), False
        given = asdict(options)
        cookie = Cookie(max_age=given.pop("max_age"))
        self.app = SessionMiddleware(
            self._app, secret=SECRET, store=Refusing(self), cookie=cookie, clock=self._now, genid=self._new_id, **given
        )

    def _now(self) -> float:
        return self.clock() + self.ahead

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def serve(self, ids: list[str], page: Any, later: Any, last: Any) -> str | None:
        environ: dict[str, Any] = {"wsgi.url_scheme": "https", "HTTP_COOKIE": self._header(ids)}
        environ["test.pages"] = page, later, last
        headers: dict[str, str] = {}
        body: Any = self.app(environ, lambda status, given, exc_info=None: headers.update(given) or bytes)
        list(body)
        if hasattr(body, "close"):
            body.close()
        sent = headers.get("Set-Cookie")
        return None if sent is None else sent.partition(";")[0].partition("s%3A")[2].rpartition(".")[0]

    def work(self, ids: list[str], page: Any) -> None:
        with self.app.session_from(self._header(ids)) as session:
            page(session)

    def _header(self, ids: list[str]) -> str:
        values = [f"s:id-1.{'x' * 43}" if id == FORGED else self.signer.sign(id) for id in ids]
        return "; ".join(cookies.pair("connect.sid", value) for value in values)

    def end_all_of(self, user: str, keep: Any) -> int:
        return destroy_sessions_of(self.store, user, keep=keep)

    def end_one_of(self, user: str, id: str) -> bool:
        return destroy_session(self.store, user, sha256(id.encode()).hexdigest()[:16])

    def ids(self) -> list[str]:
        return [*self.store.ids()]

    def has(self, id: str) -> tuple[Any, str | None]:
        stored, heir = self.store.load(id), self.store.heir(id)
        if stored is None or not stored.data:
            return stored and round(stored.expires_at), heir
        found = record.decode(stored.data)
        data = sorted((key, json.dumps(value)) for key, value in found.data.items())
        return (data, *found[1:], round(stored.expires_at)), heir

    def _new_id(self, environ: dict[str, Any]) -> str:
        self.made += 1
        return f"id-{self.made}"

    def _app(self, environ: dict[str, Any], start_response: Any) -> Any:
        page, later, last = environ["test.pages"]
        if page is not None:
            page(get_session(environ))
        start_response("200 OK", [])
        return [] if later is last is None else Body(get_session(environ), later, last)


class Refusing:
    """A site's store, which refuses to write while it is down."""

    def __init__(self, site: Real) -> None:
        self._site = site

    def __getattr__(self, verb: str) -> Any:
        if self._site.down and verb != "load":
            raise StoreUnavailable("the disk is full")
        return getattr(self._site.store, verb)


class Body:
    """A streaming body: changes the session before its end, and as it is closed."""

    def __init__(self, session: Any, later: Any, last: Any) -> None:
        self._session, self._last = session, last
        self._chunks = self._stream(later)

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def _stream(self, later: Any) -> Iterator[bytes]:
        yield b"begun"
        if later is not None:
            later(self._session)

    def close(self) -> None:
        if self._last is not None:
            self._last(self._session)


def memory(clock: Clock) -> MemoryStore:
    return MemoryStore(max_sessions=1000, clock=clock)


def difference(options: Options, open_store: OpenStore, history: History) -> str:
    """Return where the real code and the model part; "" if they do not."""
    told = []
    for site in (Real(options, open_store), Model(options, START)):
        player = Player(site)
        player.play(history)
        told.append(player.seen)
    for number, (seen, expected) in enumerate(zip_longest(*told)):
        if seen != expected:
            return f"step {number}: {seen}, and not {expected}"
    return ""


def any_options(choose: random.Random) -> Options:
    return Options(
        rolling=choose.random() < 0.3,
        resave=choose.random() < 0.2,
        save_uninitialized=choose.random() < 0.2,
        max_age=choose.choice((None, None, 60)),
        absolute_timeout=choose.choice((None, None, 150)),
    )


def first_difference(histories: int, open_store: OpenStore = memory) -> str:
    for number in range(histories):
        choose = random.Random(f"{SEED} {number}")
        options = any_options(choose)
        differs = partial(difference, options, open_store)
        if differs(tried := history(choose)):
            tried = smallest(tried, differs)
            return f"history {number}, {options}, {tried}: {differs(tried)}"
    return ""


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.CRITICAL, "minisession")
    monkeypatch.setattr("minisession.lifecycle.LONGEST_PAUSE", 0)


@row("P8")
def test_whatever_requests_do_it_is_what_the_model_does(count: Callable[[str], None]) -> None:
    assert first_difference(HISTORIES) == ""
    count(f"{HISTORIES:,} histories of requests, made at random (seed {SEED}): as the model has them")


def test_sqlite_is_as_the_model_has_it(tmp_path: Path) -> None:
    opened = Emptied(lambda clock: SQLiteStore(tmp_path / "sessions.db", synchronous="NORMAL", clock=clock))
    assert first_difference(HISTORIES // 10, opened) == ""
    opened.store.close()


def test_redis_is_as_the_model_has_it() -> None:
    from ..support.redis_server import redis_server  # which skips this test alone, if there is none

    with redis_server() as server:
        opened = Emptied(lambda clock: Aged(server, clock))
        assert first_difference(HISTORIES // 20, opened) == ""
        opened.store.close()


class Aged:
    """What Redis holds grows older with the clock."""

    def __init__(self, server: Any, clock: Callable[[], float]) -> None:
        self.server, self.clock, self.then = server, clock, START
        self.store = importlib.import_module("minisession.stores.redis").RedisStore(server.url, clock=clock)

    def clear(self) -> None:
        """Forget tombstones, too."""
        self.server.client.flushall()
        self.then = self.clock()

    def __getattr__(self, verb: str) -> Any:
        if self.clock() > self.then:
            self.server.age(self.clock() - self.then)
            self.then = self.clock()
        return getattr(self.store, verb)


def clocks_that_agree(patch: pytest.MonkeyPatch) -> None:
    """Another server's clock is taken to be ours."""
    patch.setattr("minisession.expiry.CLOCK_DIFFERENCE", 0)


@pytest.mark.parametrize(
    "protection",
    [
        *(without_merge, without_place, without_touch, without_early_touch, without_restoring, clocks_that_agree),
        *(WithoutCompare, WithoutGone, WithoutSeenInTouch, WithoutTombstone),
        *(WithoutBurial, WithoutCompareInRotate, WithoutHeir, HeirsNotFollowed, TombstoneIsAnEnd),
    ],
)
def test_without_a_protection_a_difference_is_found(protection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by the explorer, whose protections they are."""
    store = memory
    if isinstance(protection, type):
        store = lambda clock: protection(max_sessions=1000, clock=clock)  # noqa: E731  # shorter than a def, and clear
    else:
        protection(monkeypatch)

    assert "and not" in first_difference(HISTORIES, store)
