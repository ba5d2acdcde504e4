"""What a request costs, counted instead of timed: steps of the interpreter, HMACs, and texts of JSON.

The limits are a twentieth above the most that was counted on Python 3.10 to 3.13; what takes that much more
was not meant, or is worth a new limit in the commit that needs it.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from minisession import MemoryStore, Session, SessionMiddleware, get_session
from minisession.wire import record, signing

from ..support.browser import SECRET, Clock, SpyStore

Page = Callable[[Session], object]
DATA = {"name": "Ada", "roles": ["editor", "reviewer"], "cart": {"A-1024": 2}, "theme": "dark", "visits": 7}


class Site:
    """One page, and a visitor with a cookie among others, or with none."""

    def __init__(self) -> None:
        self.store = SpyStore(MemoryStore(clock=Clock()))
        self.app = SessionMiddleware(self.page, secret=SECRET, store=self.store, clock=Clock())
        self.work: Page | None = None
        self.counted: Counter[str] = Counter()

    def page(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if self.work:
            self.work(get_session(environ))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    def visit(self, work: Page | None, cookie: str = "") -> str:
        """Return the cookie that the browser has afterwards."""
        self.work = work
        environ: dict[str, Any] = {"wsgi.url_scheme": "https", "HTTP_COOKIE": f"theme=dark; ga=1; {cookie}"}
        setup_testing_defaults(environ)
        sent: list[tuple[str, str]] = []
        start: Any = lambda status, headers: sent.extend(headers)  # noqa: E731  # a def would be longer
        coverages = sys.gettrace()
        sys.settrace(self._trace)
        try:
            self.app(environ, start)
        finally:
            sys.settrace(coverages)
        return next((value.partition(";")[0] for name, value in sent if name == "Set-Cookie"), cookie)

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        frame.f_trace_opcodes = frame.f_globals.get("__name__", "").startswith("minisession")
        self.counted[event] += frame.f_trace_opcodes
        return self._trace


def read(session: Session) -> None:
    assert session["theme"] == "dark"


def write(session: Session) -> None:
    session["visits"] += 1


def log_in(session: Session) -> None:
    session.regenerate(user="ada")
    session.update(DATA)


def new_id(session: Session) -> None:
    session.regenerate(keep=True)


def log_out(session: Session) -> None:
    session.destroy()


REQUESTS: dict[str, Page | None] = {
    "untouched": None, "read": read, "write": write, "login": log_in, "regenerate": new_id, "logout": log_out,
}  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "calls", "steps"),
    [
        ("untouched", 6, 200),
        ("read", 25, 1100),
        ("write", 45, 1900),
        ("login", 70, 2722),
        ("regenerate", 60, 2713),
        ("logout", 42, 1636),
    ],
)
def test_a_request_takes_few_steps(request_: str, calls: int, steps: int, count: Callable[[str], None]) -> None:
    """Python functions called, and bytecodes run, by all that is between the server and the page."""
    site = Site()
    for _ in range(2):  # the first of its kind fills caches
        cookie = site.visit(log_in if request_ != "login" else None)
        site.visit(read if cookie else None, cookie)  # most visitors have been here before
        site.counted.clear()
        site.visit(REQUESTS[request_], cookie)

    counted = site.counted
    count(f"{request_}: {counted['call']} calls of Python functions, {counted['opcode']} bytecodes")
    assert 0 < counted["call"] <= calls
    assert 0 < counted["opcode"] <= steps


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("untouched", Counter()),
        ("read", Counter(load=1, hmac=1, json_in=1)),
        ("write", Counter(load=1, replace=1, hmac=1, json_in=1, json_out=1)),
        ("login", Counter(create=1, hmac=1, json_out=1)),
        ("regenerate", Counter(load=1, rotate=1, hmac=2, json_in=1, json_out=1)),
        ("logout", Counter(load=1, delete=1, hmac=1, json_in=1)),
    ],
)
def test_nothing_is_done_twice(request_: str, expected: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One HMAC to verify and one to sign; a record is parsed once, and written once if it is to be stored."""
    site = Site()
    cookie = site.visit(log_in if request_ != "login" else None)
    site.store.calls.clear()
    done: Counter[str] = Counter()

    def counting(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            done[what] += 1
            return function(*arguments)

        return counted

    monkeypatch.setattr(signing, "_signature", counting("hmac", signing._signature))
    monkeypatch.setattr(record, "decode", counting("json_in", record.decode))
    monkeypatch.setattr(record, "encode", counting("json_out", record.encode))
    site.visit(REQUESTS[request_], cookie)

    assert done + Counter(site.store.verbs) == expected


def test_a_request_leaves_nothing_to_the_garbage_collector() -> None:
    """No cycle, whose collection would stop all threads: what a request needed is gone when it is over."""
    site = Site()
    cookie = site.visit(log_in)
    gc.collect()
    gc.disable()
    try:
        for work in (None, read, write):
            for _ in range(50):
                site.visit(work, cookie)
        assert gc.collect() == 0
    finally:
        gc.enable()
