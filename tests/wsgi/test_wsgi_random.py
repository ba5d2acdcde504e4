"""Apps made at random, good and bad, on the strict server: with sessions they behave as they do without.

``MINISESSION_APPS=100000`` tries so many.
"""

from __future__ import annotations

import logging
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from minisession import SessionError, get_session

from ..support.rows import row
from .test_wsgi import OURS, Environ, Exchange, Headers, bare

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

APPS = int(os.environ.get("MINISESSION_APPS", "3000"))
SEED = 4
PLAIN = [("Content-Type", "text/plain")]
DEEDS = ("start", "start", "start again", "write", "write nothing", "fail", "read", "change", "idle")


class Spec(NamedTuple):
    """What an app does."""

    at_once: list[str]  # as it is called
    shape: str
    blocks: list[bytes]
    later: list[str | bytes]  # as its body is iterated, after the blocks
    close: str


def spec(choose: random.Random) -> Spec:
    def some(*things: Any) -> list[Any]:
        return [choose.choice(things) for _ in range(choose.randint(0, 4))]

    at_once = some(*DEEDS)
    # An empty block before start_response is a mistake that the middleware forgives.
    empty = (b"",) if any(deed.startswith("start") for deed in at_once) else ()
    return Spec(
        at_once,
        choose.choice(("list", "tuple", "generator", "object", "object")),
        some(b"a", b"bc", *empty),
        some(*DEEDS, b"y", b"y", *empty),
        choose.choice(("none", "works", "fails")),
    )


def app_of(spec: Spec, closed: list[str], *, sessions: bool) -> WSGIApplication:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write: list[Callable[[bytes], object]] = []

        def do(deed: str) -> None:
            match deed:
                case "start":
                    write[:] = [start_response("200 OK", list(PLAIN))]
                case "start again":
                    try:
                        raise LookupError("what went wrong")
                    except LookupError:
                        write[:] = [start_response("500 Oops", [*PLAIN, ("X", "y")], sys.exc_info())]
                case "write" | "write nothing" if write:
                    write[0](b"w" if deed == "write" else b"")
                case "fail":
                    raise ZeroDivisionError("the app's own")
                case "read" if sessions:
                    len(get_session(environ))
                case "change" if sessions:
                    with suppress(SessionError):  # too late
                        get_session(environ)["k"] = 1

        def body() -> Iterator[bytes]:
            yield from spec.blocks
            for deed in spec.later:
                if isinstance(deed, bytes):
                    yield deed
                else:
                    do(deed)

        class Body:
            def __iter__(self) -> Iterator[bytes]:
                return body()

        class Closing(Body):
            def close(self) -> None:
                closed.append("closed")
                if spec.close == "fails":
                    raise OSError("the body's own")

        for deed in spec.at_once:
            do(deed)
        if spec.shape in ("list", "tuple"):
            return list(spec.blocks) if spec.shape == "list" else tuple(spec.blocks)
        if spec.shape == "generator":
            return body()
        return Body() if spec.close == "none" else Closing()

    return app


class Outcome(NamedTuple):
    """What a server and its client see."""

    error: type[Exception] | None
    text: bytes
    closed: list[str]
    head: tuple[str, Headers] | None  # None where the server sends a 500 of its own


def outcome(spec: Spec, around: Callable[[WSGIApplication], Any], *, sessions: bool) -> Outcome:
    closed: list[str] = []
    exchange, error = Exchange(around(app_of(spec, closed, sessions=sessions))), None
    try:
        exchange.run()
    except Exception as raised:
        error = type(raised)
    headers = [header for header in exchange.headers if header[0].lower() not in OURS]
    head = None if error and not exchange.text else (exchange.status, headers)
    return Outcome(error, exchange.text, closed, head)


@row("P22")
def test_with_sessions_an_app_behaves_as_it_does_without(caplog: pytest.LogCaptureFixture) -> None:
    """Blocks, errors, headers and closes."""
    caplog.set_level(logging.CRITICAL, "minisession")
    for number in range(APPS):
        tried = spec(random.Random(f"{SEED} {number}"))
        assert outcome(tried, bare, sessions=True) == outcome(tried, lambda app: app, sessions=False), tried
