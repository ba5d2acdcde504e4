"""Ending a user's sessions while one of them is given a new id, again and again: none is missed.

``MINISESSION_SWEEPS=1000`` ends so many sessions that are replaced without a pause, on each store.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from minisession import (
    ListingStore,
    MemoryStore,
    SessionConflict,
    SessionMiddleware,
    SQLiteStore,
    destroy_session,
    destroy_sessions_of,
    get_session,
)
from minisession.stores import base

from ..support.browser import SECRET
from ..support.rows import row
from ..support.tools import need_module

SWEEPS = int(os.environ.get("MINISESSION_SWEEPS", "50"))
STORES = str(Path(base.__file__).parent)
SOON = 10  # seconds, within which what is to happen has happened, or never will
BLOCKED = 0.02  # seconds, after which a request is taken to wait for a lock that the listing has


@contextmanager
def memory_store(folder: Path) -> Iterator[ListingStore]:
    yield MemoryStore()


@contextmanager
def sqlite_store(folder: Path) -> Iterator[ListingStore]:
    store = SQLiteStore(folder / "sessions.db", synchronous="NORMAL")
    yield store
    store.close()


@contextmanager
def redis_store(folder: Path) -> Iterator[ListingStore]:
    from ..support.redis_server import redis_server  # which skips this test alone, if there is none

    redis = need_module("minisession.stores.redis")
    with redis_server() as server:
        store = redis.RedisStore(server.url)
        yield store
        store.close()


@pytest.fixture(params=[memory_store, sqlite_store, redis_store])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ListingStore]:
    with request.param(tmp_path) as store:
        yield store


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "minisession")


class Device:
    """A user's only one: logged in, and with a page that gives its session a new id."""

    def __init__(self, store: ListingStore, number: int) -> None:
        self.app = SessionMiddleware(self._serve, secret=SECRET, store=store)
        self.cookie, self.owner = "", f"user {number}"
        self.visit(lambda session: session.regenerate(user=self.owner))

    def visit(self, page: Callable[[Any], Any]) -> Any:
        sent: dict[str, str] = {}
        environ = {"wsgi.url_scheme": "https", "HTTP_COOKIE": self.cookie, "test.page": page}
        [result] = self.app(environ, lambda status, headers, exc_info=None: sent.update(headers) or bytes)
        self.cookie = sent.get("Set-Cookie", self.cookie).partition(";")[0]
        return result

    def replace_id(self) -> bool:
        """Be given a new id; return whether there was a session."""

        def page(session: Any) -> bool:
            if user := session.user:
                session.regenerate(keep=True)
            return user is not None

        return bool(self.visit(page))

    @property
    def user(self) -> Any:
        return self.visit(lambda session: session.user)

    @property
    def handle(self) -> str:
        id = self.cookie.removeprefix("connect.sid=s%3A").rpartition(".")[0]
        return sha256(id.encode()).hexdigest()[:16]

    def _serve(self, environ: Any, start_response: Any) -> Any:
        result = environ["test.page"](get_session(environ))
        start_response("200 OK", [])
        return [result]


class Thief(threading.Thread):
    """Has the device's session replaced, without a pause, as long as there is one."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device, self.under_way, self.stopped, self.replaced = device, threading.Event(), False, 0

    def run(self) -> None:
        while not self.stopped and self.device.replace_id():
            self.replaced += 1
            if self.replaced == 3:
                self.under_way.set()


class Meanwhile:
    """Lets another thread do something when this one comes to a certain line of the stores' code.

    Where the other one has to wait for a lock that this one has, both go on.
    """

    def __init__(self, line: int, does: Callable[[], object]) -> None:
        self.left = line
        self.thread = threading.Thread(target=does)

    @property
    def came(self) -> bool:
        return self.left <= 0

    def __enter__(self) -> Meanwhile:
        self.before = sys.gettrace()  # coverage's
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self.before)
        if self.came:
            self.thread.join(SOON)
            assert not self.thread.is_alive()

    def _call(self, frame: Any, event: str, _: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(STORES) else None

    def _line(self, frame: Any, event: str, _: Any) -> Any:
        if event == "line" and not self.came:
            self.left -= 1
            if self.came:
                self.thread.start()
                self.thread.join(BLOCKED)
        return self._line


def everywhere(store: ListingStore, device: Device) -> bool:
    destroy_sessions_of(store, device.owner)
    return True


def that_one(store: ListingStore, device: Device) -> bool:
    return destroy_session(store, device.owner, device.handle)


@row("C16")
@pytest.mark.parametrize("end", [everywhere, that_one])
def test_a_new_id_does_not_save_a_session_at_whatever_line_of_the_store_it_comes(
    end: Callable[[ListingStore, Device], bool], store: ListingStore, count: Callable[[str], None]
) -> None:
    line, ended, came = 0, 0, True
    while came:
        line += 1
        device = Device(store, line)
        with Meanwhile(line, device.replace_id) as meanwhile:
            over = end(store, device)
        ended += over
        assert not over or device.user is None, f"line {line}: the session lives"
        came = meanwhile.came

    assert ended
    count(f"{type(store).__name__}, {end.__name__}: a new id at each of {line - 1} lines of the store's code")


@row("C16")
def test_a_session_that_is_replaced_without_a_pause_is_ended(
    store: ListingStore, count: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    survivors = conflicts = replaced = 0
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads take turns more often
    try:
        for number in range(SWEEPS):
            device = Device(store, number)
            thief = Thief(device)
            thief.start()
            assert thief.under_way.wait(SOON)
            conflict = True
            with suppress(SessionConflict):
                destroy_sessions_of(store, device.owner)
                conflict = False
            if conflict:
                conflicts += 1
                destroy_sessions_of(store, device.owner)
            thief.stopped = True
            thief.join(SOON)
            survivors += thief.is_alive() or device.user is not None
            replaced += thief.replaced
    finally:
        sys.setswitchinterval(interval)

    count(
        f"{type(store).__name__}: {SWEEPS:,} calls of destroy_sessions_of against a session that was replaced"
        f" {replaced:,} times meanwhile: {survivors} survivors, {conflicts / SWEEPS:.1%} SessionConflict"
    )
    assert survivors == 0
    assert conflicts <= max(1, SWEEPS // 100)
