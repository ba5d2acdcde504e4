"""Bodies that reach the server as they are, changes after ``write()``, and what the log says of headers."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest

from minisession import MemoryStore, SessionConflict, SessionMiddleware, get_session

from ..support.browser import SECRET
from ..support.rows import row
from .test_wsgi import PLAIN, Environ, Exchange, Failing, as_list, bare, put, stored, visitor

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

OTHER_SECRET = "another secret, that is long enough as well"


class Handed:
    """What a server whose file wrapper is a function recognises."""

    def __init__(self, file: Any, size: int = 8192) -> None:
        self.file = file

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.file.read, b"")


class Factory:
    def make(self, file: Any, size: int = 8192) -> Handed:
        return Handed(file, size)


def as_function(file: Any, size: int = 8192) -> Handed:
    return Handed(file, size)


every_wrapper = pytest.mark.parametrize(
    "wrapper", [Handed, FileWrapper, as_function, Factory().make], ids=["class", "wsgiref's", "function", "method"]
)


def a_file(environ: Environ) -> Any:
    return environ["wsgi.file_wrapper"](io.BytesIO(b"file"), 4096)


BODIES: dict[str, Callable[[Environ], Any]] = {
    "nothing": lambda environ: [],
    "a list": lambda environ: [b"list"],
    "a tuple": lambda environ: (b"tuple",),
    "a generator": lambda environ: iter([b"generator"]),
    "a file": a_file,
}


@row("W10", "P22")
@every_wrapper
def test_what_the_file_wrapper_returned_reaches_the_server_as_itself(wrapper: Any) -> None:
    """It need not be a class: uWSGI's and mod_wsgi's are functions, and send the file without Python."""
    given: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        get_session(environ)["n"] = 1
        start_response("200 OK", list(PLAIN))
        given.append(a_file(environ))
        return given[0]  # type: ignore[no-any-return]  # whatever the server made

    exchange = Exchange(bare(app), **{"wsgi.file_wrapper": wrapper}).call()
    assert exchange.body is given[0]
    assert exchange.cookie


@row("W10")
def test_of_several_files_each_would_pass() -> None:
    """And what the wrapper did not return is streamed, and stores late changes."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", list(PLAIN))
        first = a_file(environ)
        a_file(environ)
        return first if environ["PATH_INFO"] == "/first" else Handed(io.BytesIO(b"x"))

    for path, passes in (("/first", True), ("/other", False)):
        exchange = Exchange(bare(app), **{"wsgi.file_wrapper": as_function, "PATH_INFO": path}).call()
        assert isinstance(exchange.body, Handed) is passes


@row("A5", "P10")
@pytest.mark.parametrize("kind", BODIES)
@every_wrapper
def test_a_change_after_write_is_stored_whatever_the_app_returns(kind: str, wrapper: Any) -> None:
    """The headers are out with the first block, and the session is not done."""
    store = MemoryStore()
    cookie = visitor(store, n=0)

    def app(environ: Environ, start_response: StartResponse) -> Any:
        write = start_response("200 OK", list(PLAIN))
        write(b"first, ")
        get_session(environ)["n"] += 1
        return BODIES[kind](environ)

    Exchange(bare(app, store=store), cookie, **{"wsgi.file_wrapper": wrapper}).run()

    assert stored(store, cookie) == {"n": 1}


@row("A5")
@pytest.mark.parametrize("kind", BODIES)
def test_a_change_after_write_that_cannot_be_stored_is_logged(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    store = Failing()
    cookie = visitor(store, n=0)
    store.down = ("replace",)

    def app(environ: Environ, start_response: StartResponse) -> Any:
        write = start_response("200 OK", list(PLAIN))
        write(b"first, ")
        get_session(environ)["n"] += 1
        return BODIES[kind](environ)

    Exchange(bare(app, store=store), cookie, **{"wsgi.file_wrapper": Handed}).run()

    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "not stored" in caplog.text


# Late changes


@row("W5")
def test_a_server_without_write_is_no_silence() -> None:
    """hypercorn's and bjoern's start_response return nothing; an app that writes learns of it, as without us."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", list(PLAIN))
        write(b"lost")
        return []

    environ: Environ = {}
    setup_testing_defaults(environ)
    with pytest.raises(TypeError, match="returned no write"):
        SessionMiddleware(app, secret=SECRET)(environ, lambda *_: None)  # type: ignore[arg-type]  # as theirs


@row("A5", "P10")
@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_late_change_is_stored_before_the_server_knows_of_the_end(size: int) -> None:
    """A server that tells the client first, and calls close() later, may serve the next request in between."""
    store = MemoryStore()
    cookie = visitor(store, line=-1)

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        session = get_session(environ)
        start_response("200 OK", list(PLAIN))
        for _ in range(size):
            yield b"."
        session["line"] = size

    exchange = Exchange(bare(app, store=store), cookie).call()
    for _ in exchange.body:
        assert stored(store, cookie) == {"line": -1}
    assert stored(store, cookie) == {"line": size}
    exchange.close()


@row("A5", "P10")
def test_and_again_at_close_if_anything_has_changed_since() -> None:
    store = MemoryStore()
    cookie = visitor(store, n=0)

    class Body:
        def __init__(self, session: Any) -> None:
            self.session = session

        def __iter__(self) -> Iterator[bytes]:
            yield b"x"
            self.session["n"] = 1

        def close(self) -> None:
            self.session["closed"] = True

    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", list(PLAIN))
        return Body(get_session(environ))

    exchange = Exchange(bare(app, store=store), cookie).call().take()
    assert stored(store, cookie) == {"n": 1}
    exchange.close()
    assert stored(store, cookie) == {"n": 1, "closed": True}


# What is said


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@row("W23")
def test_a_second_middleware_of_the_same_name_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """Its store, secret and timeouts count for nothing, which no one would guess."""
    store, unused = MemoryStore(), MemoryStore()
    inner = SessionMiddleware(as_list(put(n=1)), secret=OTHER_SECRET, store=unused, idle_timeout=1)
    app = SessionMiddleware(inner, secret=SECRET, store=store)
    for _ in range(3):
        Exchange(app).run()

    assert (len(list(store.ids())), len(list(unused.ids()))) == (3, 0)
    [line] = warnings_of(caplog)
    assert "'connect.sid'" in line


def test_one_of_another_name_is_not(caplog: pytest.LogCaptureFixture) -> None:
    inner = SessionMiddleware(as_list(put(n=1)), secret=OTHER_SECRET, name="admin.sid")
    Exchange(SessionMiddleware(inner, secret=SECRET)).run()

    assert warnings_of(caplog) == []


def responding(*headers: tuple[str, str], **data: Any) -> WSGIApplication:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        get_session(environ).update(data)
        start_response("200 OK", [*PLAIN, *headers])
        return []

    return app


@pytest.mark.parametrize(
    ("value", "told"),
    [("public, max-age=60", True), ("max-age=60, PUBLIC", True), ("private", False), ("no-store", False)],
)
def test_a_public_response_with_our_cookie_is_told_of_once(
    value: str, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A cache would hand one visitor's session to others; but the header is the app's, and stays."""
    app = bare(responding(("Cache-Control", value), n=1))
    for _ in range(2):
        assert Exchange(app).run().all("cache-control") == [value]

    assert len(warnings_of(caplog)) == told


def test_a_public_response_without_our_cookie_is_not(caplog: pytest.LogCaptureFixture) -> None:
    Exchange(bare(responding(("Cache-Control", "public")))).run()

    assert warnings_of(caplog) == []


@row("W12")
def test_a_cookie_of_our_name_that_the_app_sets_is_told_of_once_and_ours_comes_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = bare(responding(("Set-Cookie", "connect.sid=mine; Path=/x"), ("Set-Cookie", "other=1"), n=1))
    for _ in range(2):
        sent = Exchange(app).run().all("set-cookie")
        assert [value.partition("=")[0] for value in sent] == ["connect.sid", "other", "connect.sid"]
        assert sent[2].startswith("connect.sid=s%3A")

    [line] = warnings_of(caplog)
    assert "connect.sid" in line


def test_a_cookie_of_another_name_is_not(caplog: pytest.LogCaptureFixture) -> None:
    Exchange(bare(responding(("Set-Cookie", "other=1"), ("Set-Cookie", "not.connect.sid=1"), n=1))).run()

    assert warnings_of(caplog) == []


@row("C5")
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_conflict_without_end_is_not_called_an_outage(method: str) -> None:
    """What the visitor can do is the same; what the operator looks for is not."""
    store = Failing(SessionConflict("others were faster"))
    store.down = ("create",)
    exchange = Exchange(bare(as_list(put(n=1)), store=store), REQUEST_METHOD=method).run()

    assert exchange.status == "503 Service Unavailable"
    assert (b"other requests kept changing this session" in exchange.text) is (method == "GET")
    assert b"did not answer" not in exchange.text
