"""PEP 3333, by the rows W1 to W24, A1 and A3 to A5, against a server that refuses all it may refuse."""

from __future__ import annotations

import functools
import gc
import io
import itertools
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, cast
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

from minisession import (
    Cookie,
    MemoryStore,
    Session,
    SessionConflict,
    SessionError,
    SessionGone,
    SessionMiddleware,
    SessionTooLarge,
    StoreUnavailable,
    get_session,
)

from ..core.test_lifecycle import Down
from ..support.browser import SECRET, SpyStore
from ..support.rows import row

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
Work = Callable[[Session], object]

PLAIN = [("Content-Type", "text/plain")]
OURS = {"set-cookie", "vary", "cache-control"}


# A server


class Exchange:
    """One request, served strictly: what PEP 3333 lets a server refuse, this one refuses."""

    def __init__(self, app: Any, cookie: str = "", /, **environ: Any) -> None:
        self.app = app
        defaults = {"SCRIPT_NAME": "", "PATH_INFO": "/", "QUERY_STRING": "", "wsgi.url_scheme": "https"}
        self.environ: Environ = {**defaults, **environ}
        if cookie:
            self.environ["HTTP_COOKIE"] = cookie
        setup_testing_defaults(self.environ)
        self.status = ""
        self.headers: Headers = []
        self.blocks: list[bytes] = []
        self.starts = 0
        self.headers_sent = False
        self.body: Any = None

    def start(self, status: str, headers: Headers, exc_info: Any = None, /) -> Callable[[bytes], object]:
        try:
            if exc_info is not None and self.headers_sent:
                raise exc_info[1].with_traceback(exc_info[2])
            if exc_info is None and self.status:
                raise AssertionError("start_response was called twice")
        finally:
            exc_info = None
        assert type(headers) is list
        self.starts += 1
        self.status, self.headers = status, list(headers)
        return self.write

    def write(self, block: bytes) -> None:
        assert type(block) is bytes, f"a block is {block!r}"
        assert self.status, "a block came before start_response"
        self.headers_sent = self.headers_sent or block != b""
        self.blocks.append(block)

    def call(self) -> Exchange:
        """Call the app, and take nothing of its body."""
        self.body = self.app(self.environ, self.start)
        return self

    def take(self, blocks: int | None = None) -> Exchange:
        """Take that many blocks, or all."""
        for block in itertools.islice(self.body, blocks):
            self.write(block)
        if blocks is None:
            assert self.status, "the body ended without start_response"
        return self

    def close(self) -> None:
        body, self.body = self.body, None  # kept, it would be a cycle of this server's making
        if hasattr(body, "close"):
            body.close()

    def run(self, blocks: int | None = None) -> Exchange:
        """Serve the whole request; of the body, that many blocks, or all."""
        try:
            return self.call().take(blocks)
        finally:
            self.close()

    @property
    def text(self) -> bytes:
        return b"".join(self.blocks)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    @property
    def cookie(self) -> str:
        """What the browser sends from here on."""
        return "; ".join(value.partition(";")[0] for value in self.all("set-cookie"))


def lint(app: WSGIApplication) -> WSGIApplication:
    """Return ``app`` under the linter of PEP 3333; but a list stays a list, which that one would wrap."""

    def linted(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        returned: list[Any] = []

        def keep(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            returned.append(app(environ, start_response))
            return cast("Iterable[bytes]", returned[0])

        body: Any = validator(keep)(environ, start_response)
        if type(returned[0]) is not list:
            return cast("Iterable[bytes]", body)
        list(body)
        body.close()
        return cast("Iterable[bytes]", returned[0])

    return linted


def linted(app: WSGIApplication, **options: Any) -> WSGIApplication:
    """Return ``app`` with its sessions, linted on both sides."""
    options.setdefault("secret", SECRET)
    return validator(SessionMiddleware(lint(app), **options))


def bare(app: Any, **options: Any) -> SessionMiddleware:
    """Return ``app`` with its sessions, where the linter would be in the way."""
    options.setdefault("secret", SECRET)
    return SessionMiddleware(app, **options)


# Apps, each made of the work that it does on its session


def as_list(work: Work) -> WSGIApplication:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        work(get_session(environ))
        start_response("200 OK", list(PLAIN))
        return [b"hello"]

    return app


def as_generator(work: Work) -> WSGIApplication:
    """Lazy: nothing runs before the server asks for the first block."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        work(get_session(environ))
        start_response("200 OK", list(PLAIN))
        yield b"hello"

    return app


def as_write(work: Work) -> WSGIApplication:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", list(PLAIN))
        work(get_session(environ))
        write(b"hello")
        return []

    return app


every_shape = pytest.mark.parametrize("shape", [as_list, as_generator, as_write])


class Body:
    """An iterable that counts its closes, and may fail as it is closed."""

    def __init__(self, blocks: Iterable[bytes], fails: Exception | None = None) -> None:
        self.blocks, self.fails, self.closed = blocks, fails, 0

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.blocks)

    def close(self) -> None:
        self.closed += 1
        if self.fails is not None:
            raise self.fails


def returning(body: Any, work: Work = lambda session: None, status: str = "200 OK") -> WSGIApplication:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        work(get_session(environ))
        start_response(status, list(PLAIN))
        return cast("Iterable[bytes]", body)

    return app


def put(**data: Any) -> Work:
    return lambda session: session.update(data)


def nothing(session: Session) -> None:
    """Use the session in no way."""


def read(session: Session) -> None:
    session.get("n")


def remember(session: Session) -> None:
    session.cookie.max_age = 60


def throw(error: BaseException) -> NoReturn:
    raise error


def visitor(store: Any, **data: Any) -> str:
    """Return the cookie of a session that has these data."""
    return Exchange(bare(as_list(put(**data)), store=store)).run().cookie


def stored(store: Any, cookie: str, **options: Any) -> dict[str, Any]:
    """Return what the session behind the cookie has now."""
    found: dict[str, Any] = {}
    Exchange(bare(as_list(lambda session: found.update(session)), store=store, **options), cookie).run()
    return found


class Failing(SpyStore):
    """A store of which some verbs fail, once told to."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error or StoreUnavailable("down")
        self.down: tuple[str, ...] = ()

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        method = super().__getattr__(verb)
        return (lambda *arguments, **more: throw(self.error)) if verb in self.down else method


ALL = ("load", "create", "replace", "touch", "rotate", "heir", "delete")


# W: the rows of PEP 3333


class AppClass:
    """PEP 3333's example of an app that is a class: it starts its response as it is iterated."""

    def __init__(self, environ: Environ, start_response: StartResponse) -> None:
        self.environ, self.start = environ, start_response

    def __iter__(self) -> Iterator[bytes]:
        get_session(self.environ)["n"] = 1
        self.start("200 OK", list(PLAIN))
        yield b"hello"


@row("W1")
@pytest.mark.parametrize("app", [as_generator(put(n=1)), AppClass])
def test_a_session_changed_on_the_first_iteration_is_saved(app: Any) -> None:
    """A lazy app has neither run nor called start_response when it returns."""
    store = MemoryStore()
    exchange = Exchange(linted(app, store=store)).run()
    assert exchange.text == b"hello"
    assert stored(store, exchange.cookie) == {"n": 1}


@row("W2", "P22")
def test_every_block_leaves_before_the_next_is_made() -> None:
    """A middleware must not delay blocks, read ahead, or join them: chat and progress pages live of it."""
    events: list[str] = []

    class Recorder(Exchange):
        def write(self, block: bytes) -> None:
            super().write(block)
            events.append(f"sent {block!r}")

    def ticking() -> Iterator[bytes]:
        for block in (b"1", b"", b"", b"2"):
            events.append(f"made {block!r}")
            yield block

    Recorder(linted(returning(ticking(), put(n=1)))).run()
    assert events == [f"{did} {block!r}" for block in (b"1", b"", b"", b"2") for did in ("made", "sent")]


@row("W2")
def test_an_endless_body_is_served_block_by_block() -> None:
    """Whoever reads the body to its end before passing it on never answers."""
    assert Exchange(linted(returning(itertools.repeat(b"x"), put(n=1)))).run(blocks=5).text == b"xxxxx"


@row("W3")
def test_headers_wait_for_the_first_non_empty_block() -> None:
    """Until then the app may still change its session, and its status."""
    store = MemoryStore()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", list(PLAIN))
        yield b""
        get_session(environ)["n"] = 1
        yield b""
        yield b"x"

    exchange = Exchange(linted(app, store=store)).run()
    assert exchange.blocks == [b"x"]
    assert stored(store, exchange.cookie) == {"n": 1}


@row("W3")
def test_headers_of_a_body_without_blocks_leave_at_its_end() -> None:
    """A generator that never yields is a response, too."""
    store = MemoryStore()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", list(PLAIN))
        yield b""
        get_session(environ)["n"] = 1

    exchange = Exchange(linted(app, store=store)).run()
    assert (exchange.status, exchange.text) == ("200 OK", b"")
    assert stored(store, exchange.cookie) == {"n": 1}


@row("W4")
def test_calling_the_app_consumes_nothing_of_its_body() -> None:
    """A server may want to do something else before it lets a slow body run."""
    ran: list[Session] = []
    exchange = Exchange(linted(as_generator(ran.append))).call()
    assert (ran, exchange.starts) == ([], 0)
    assert exchange.take().text == b"hello"
    exchange.close()
    assert len(ran) == 1


@row("W5")
def test_the_first_write_commits_and_sends_the_headers() -> None:
    """What write() has sent, a cookie can no longer follow."""
    store = SpyStore()
    seen: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", list(PLAIN))
        get_session(environ)["n"] = 1
        seen.append(exchange.starts)
        write(b"")
        seen.extend([exchange.starts, store.verbs])
        write(b"1")
        write(b"2")
        return [b"3", b"4"]

    exchange = Exchange(linted(app, store=store))
    assert exchange.run().blocks == [b"", b"1", b"2", b"3", b"4"]
    assert seen == [0, 1, ["create"]]
    assert stored(store, exchange.cookie) == {"n": 1}


@row("W6")
def test_a_second_start_without_exc_info_is_an_error() -> None:
    """PEP 3333: it is fatal; the session of such an app is not stored."""
    store = SpyStore()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        get_session(environ)["n"] = 1
        start_response("200 OK", list(PLAIN))
        start_response("200 OK", list(PLAIN))
        return [b"hello"]

    exchange = Exchange(linted(app, store=store))
    with pytest.raises(AssertionError, match="second time"):
        exchange.run()
    assert (exchange.starts, store.verbs) == (0, [])


@row("W6")
@pytest.mark.parametrize("written", [None, b""], ids=["before the headers", "after an empty write"])
def test_an_error_page_replaces_what_was_not_sent_yet(written: bytes | None) -> None:
    """One cookie and one Vary, whichever response the browser gets."""
    store = MemoryStore()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", [*PLAIN, ("X-Stale", "yes")])
        get_session(environ)["n"] = 1
        try:
            if written is not None:
                write(written)
            raise RuntimeError("a bug")
        except RuntimeError:
            start_response("500 Oops", [*PLAIN, ("Vary", "Accept")], sys.exc_info())
        return [b"sorry"]

    exchange = Exchange(linted(app, store=store)).run()
    assert (exchange.status, exchange.text) == ("500 Oops", b"sorry")
    assert exchange.all("vary") == ["Accept, Cookie"]
    assert len(exchange.all("set-cookie")) == 1
    assert exchange.all("x-stale") == []
    assert stored(store, exchange.cookie) == {"n": 1}


@row("W6", "P22")
def test_an_error_after_the_headers_comes_back_as_itself() -> None:
    """The server aborts the response with it; its traceback still leads to the bug."""
    original = RuntimeError("a bug")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", list(PLAIN))
        get_session(environ)["n"] = 1
        yield b"half"
        try:
            throw(original)
        except RuntimeError:
            start_response("500 Oops", list(PLAIN), sys.exc_info())

    exchange = Exchange(linted(app))
    with pytest.raises(RuntimeError) as caught:
        exchange.run()
    assert caught.value is original
    assert caught.traceback[-1].name == "throw"
    assert (exchange.status, len(exchange.all("set-cookie"))) == ("200 OK", 1)


def raises(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    get_session(environ)["n"] = 1
    raise RuntimeError("a bug")


def raises_midway(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", list(PLAIN))
    get_session(environ).get("n")
    yield b"half"
    raise RuntimeError("a bug")


def shows_an_error_page(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    get_session(environ).get("n")
    start_response("200 OK", list(PLAIN))
    try:
        raise RuntimeError("a bug")
    except RuntimeError:
        start_response("500 Oops", list(PLAIN), sys.exc_info())
    return [b"sorry"]


def reports_too_late(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", list(PLAIN))
    get_session(environ).get("n")
    yield b"half"
    try:
        raise RuntimeError("a bug")
    except RuntimeError:
        start_response("500 Oops", list(PLAIN), sys.exc_info())


class Pulled:
    """An iterator that keeps what it was given, as hand-written ones do."""

    def __init__(self, environ: Environ, start_response: StartResponse) -> None:
        self.environ, self.start, self.left = environ, start_response, 2

    def __iter__(self) -> Pulled:
        return self

    def __next__(self) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise StopIteration
        if self.left:
            get_session(self.environ).get("n")
            self.start("200 OK", list(PLAIN))
        return b"hello"


@row("W7")
@pytest.mark.parametrize(
    "app",
    [
        raises,
        raises_midway,
        shows_an_error_page,
        reports_too_late,
        *(shape(read) for shape in (as_list, as_generator, as_write)),
        Pulled,
    ],
    ids=[
        "raises", "raises midway", "error page", "error too late", "list", "generator", "write", "kept start_response",
    ],
)  # fmt: skip
def test_a_response_leaves_no_cycle_behind(app: Any) -> None:
    """A cycle holds the request's environ, its upload and its session until the collector comes by."""
    store = MemoryStore()
    cookie = visitor(store, n=1)
    serve = bare(app, store=store)

    def responses(count: int) -> None:
        for _ in range(count):
            with suppress(RuntimeError):
                Exchange(serve, cookie).run()

    responses(10)
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        responses(2000)
        grown = len(gc.get_objects()) - before
        unreachable = gc.collect()
    finally:
        gc.enable()
    assert grown < 100
    assert unreachable < 100


@row("W7")
def test_the_environ_is_freed_with_its_response() -> None:
    """The app's exc_info, our session and the environ know each other; none may keep the others."""

    class Upload(io.BytesIO):
        pass

    gc.collect()
    gc.disable()
    try:
        upload = Upload()
        held = sys.getrefcount(upload)
        Exchange(bare(as_generator(put(n=1))), **{"wsgi.input": upload}).run()
        assert sys.getrefcount(upload) == held
    finally:
        gc.enable()


def test_what_an_app_keeps_of_a_response_says_that_it_is_complete() -> None:
    """What the server gave is let go, so that it need not be known to be safe to call."""
    kept: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        get_session(environ).get("n")
        kept.extend((start_response, start_response("200 OK", list(PLAIN))))
        return [b"hello"]

    Exchange(bare(app)).run()
    start, write = kept

    for late, arguments in ((start, ("200 OK", list(PLAIN))), (write, (b"more",))):
        with pytest.raises(AssertionError, match="response is complete"):
            late(*arguments)


def test_nor_does_it_store_anything() -> None:
    """Where the server closed a response whose headers had not left, the session is not stored by a late write."""
    store, kept = SpyStore(), list[Any]()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        get_session(environ)["n"] = 1
        kept.append(start_response("200 OK", list(PLAIN)))
        return Body([b"hello"])

    Exchange(bare(app, store=store)).run(0)
    with pytest.raises(AssertionError, match="response is complete"):
        kept[0](b"more")

    assert store.verbs == []


@row("W8", "P22")
@pytest.mark.parametrize(
    ("take", "broken", "kept"),
    [
        (None, None, {"n": 1, "before": 1, "after": 1}),
        (None, "app", {"n": 1, "before": 1}),
        (None, "server", {"n": 1, "before": 1}),
        (1, None, {"n": 1, "before": 1}),
        (0, None, {"n": 1}),
    ],
    ids=["normal", "app error", "server error", "client disconnect", "never started"],
)
def test_the_body_is_closed_once_and_the_session_committed(
    take: int | None, broken: str | None, kept: dict[str, int]
) -> None:
    """However a response ends, its files and connections are freed, and what was done to a session stays done."""
    store = MemoryStore()
    cookie = visitor(store, n=0)
    bodies: list[Body] = []

    class Wire(Exchange):
        def write(self, block: bytes) -> None:
            super().write(block)
            if broken == "server":
                raise ConnectionResetError("the client has gone")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        session = get_session(environ)
        session["n"] = 1
        start_response("200 OK", list(PLAIN))

        def blocks() -> Iterator[bytes]:
            session["before"] = 1
            yield b"1"
            session["after"] = 1
            if broken == "app":
                raise RuntimeError("a bug")
            yield b"2"

        bodies.append(Body(blocks()))
        return bodies[0]

    exchange = Wire(linted(app, store=store), cookie)
    try:
        exchange.run(take)
    except (RuntimeError, ConnectionResetError):
        assert broken
    else:
        assert not broken
    assert bodies[0].closed == 1
    assert stored(store, cookie) == kept


@row("W8")
def test_a_second_close_does_nothing() -> None:
    """PEP 3333 has servers close once; one that does it again must not close the app's files twice."""
    store = SpyStore()
    body = Body([b"x"])
    response: Any = Exchange(bare(returning(body, put(n=1)), store=store)).call().body
    list(response)
    response.close()
    assert store.verbs == ["create"]
    response.close()
    assert (body.closed, store.verbs) == (1, [])


def test_what_is_changed_after_the_first_close_is_not_stored_by_a_second() -> None:
    store = MemoryStore()
    cookie, held = visitor(store, items=[]), list[Any]()
    app = bare(returning(Body([b"x"]), lambda session: held.append(session["items"])), store=store)
    response: Any = Exchange(app, cookie).call().body
    list(response)
    response.close()
    held[0].append("late")
    response.close()
    assert stored(store, cookie) == {"items": []}


@pytest.mark.parametrize(("fails", "kept"), [(None, {"n": 0, "late": 1}), (ZeroDivisionError(), {"n": 0})])
def test_what_changed_before_a_close_that_fails_is_not_stored(fails: Exception | None, kept: dict[str, int]) -> None:
    """As after any exception of the app; what was stored as the headers left is."""
    store = MemoryStore()
    cookie = visitor(store, n=0)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        session = get_session(environ)
        start_response("200 OK", list(PLAIN))

        def blocks() -> Iterator[bytes]:
            yield b"1"
            session["late"] = 1
            yield b"2"

        return Body(blocks(), fails)

    with suppress(ZeroDivisionError):
        Exchange(bare(app, store=store), cookie).run(2)
    assert stored(store, cookie) == kept


@row("W8")
@pytest.mark.parametrize("work", [put(n=1), lambda session: session.regenerate(user="ada")], ids=["data", "a user"])
def test_a_new_session_whose_response_never_started_is_not_stored(work: Work, caplog: pytest.LogCaptureFixture) -> None:
    """Its cookie can reach nobody, and records without an owner are a leak; but never a silent one."""
    store = SpyStore()
    Exchange(linted(returning(Body([b"x"]), work), store=store)).run(blocks=0)
    assert store.verbs == []
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@row("W8")
def test_a_lifetime_whose_response_never_started_is_stored() -> None:
    """As data are: the session exists, and the browser has its cookie."""
    store = SpyStore()
    cookie = visitor(store, n=0)
    Exchange(linted(returning(Body([b"x"]), remember), store=store), cookie).run(blocks=0)
    assert store.verbs == ["create", "load", "replace"]


@row("W8")
@pytest.mark.parametrize(
    "work",
    [
        remember,
        pytest.param(lambda session: (remember(session), session.destroy())),
        lambda session: (session.update(n=1), session.destroy()),
        lambda session: (session.update(n=1), session.clear()),
        lambda session: session.regenerate(),
    ],
    ids=[
        "max_age of a new session",
        "max_age, destroyed",
        "changed, destroyed",
        "set and cleared",
        "a new id for none",
    ],
)
@every_shape
def test_nothing_is_reported_lost_that_nobody_wanted_kept(
    shape: Callable[[Work], WSGIApplication], work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in the log that is none teaches operators to ignore the others."""
    Exchange(linted(shape(work))).run()
    assert caplog.text == ""


@row("W9")
@pytest.mark.parametrize("body", [[b"hello"], [], [b"a", b"b"], (b"hello",)])
def test_a_list_comes_out_as_the_same_list(body: list[bytes]) -> None:
    """Servers take Content-Length from a list of one; wrapped, it costs that and keep-alive."""
    store = MemoryStore()
    exchange = Exchange(bare(returning(body, put(n=1)), store=store)).call()
    assert exchange.body is body
    assert stored(store, exchange.cookie) == {"n": 1}


@row("W10")
def test_a_file_comes_out_as_the_same_file() -> None:
    """Servers recognise their own wrapper, and send the file without reading it."""
    files: list[FileWrapper] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        get_session(environ)["n"] = 1
        start_response("200 OK", list(PLAIN))
        files.append(environ["wsgi.file_wrapper"](io.BytesIO(b"hello")))
        return files[0]

    store = MemoryStore()
    exchange = Exchange(bare(app, store=store), **{"wsgi.file_wrapper": FileWrapper}).call()
    assert exchange.body is files[0]
    exchange.take().close()
    assert exchange.text == b"hello"
    assert files[0].filelike.closed
    assert stored(store, exchange.cookie) == {"n": 1}


@row("W11")
@pytest.mark.parametrize(
    ("method", "status", "headers", "body"),
    [
        ("HEAD", "200 OK", [*PLAIN, ("Content-Length", "5")], []),
        ("GET", "204 No Content", [], []),
        ("GET", "304 Not Modified", [("ETag", '"1"')], []),
        ("GET", "101 Switching Protocols", PLAIN, []),
        ("GET", "200 OK", [*PLAIN, ("Content-Length", "0")], [b""]),
        ("GET", "200 OK", PLAIN, []),
        ("POST", "302 Found", [*PLAIN, ("Location", "/")], []),
    ],
)
def test_a_response_without_content_still_carries_the_cookie(
    method: str, status: str, headers: Headers, body: list[bytes]
) -> None:
    """A login is answered by a redirect; nothing but our three headers is added to it."""
    store = MemoryStore()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        get_session(environ)["n"] = 1
        start_response(status, list(headers))
        return body

    exchange = Exchange(linted(app, store=store), REQUEST_METHOD=method).run()
    assert (exchange.status, exchange.blocks) == (status, body)
    assert exchange.headers[:-3] == headers
    assert (exchange.all("vary"), exchange.all("cache-control")) == (["Cookie"], ["no-store"])
    assert stored(store, exchange.cookie) == {"n": 1}


@row("W12")
def test_the_apps_header_list_stays_as_it_is() -> None:
    """Apps keep such lists in modules: they must not gather the cookies of all visitors."""
    shared: Headers = [*PLAIN, ("Set-Cookie", "theme=dark"), ("Set-Cookie", "lang=de"), ("Vary", "Accept")]
    before = list(shared)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        get_session(environ)["n"] = 1
        start_response("200 OK", shared)
        return [b"hello"]

    serve = linted(app)
    for _ in range(1000):
        exchange = Exchange(serve).run()
        cookies = exchange.all("set-cookie")
        assert cookies[:2] == ["theme=dark", "lang=de"]  # neither folded nor dropped
        assert len(cookies) == 3
    assert shared == before


@row("W13")
@pytest.mark.parametrize(
    ("work", "down"),
    [
        (put(n="\r\nSet-Cookie: a=b\x00ü日"), ()),
        (lambda session: session.destroy(), ()),
        (lambda session: session.regenerate(user="\r\nX: y"), ()),
        (put(n=1), ALL),
    ],
    ids=["set", "removed", "regenerated", "503"],
)
def test_headers_are_clean_native_text(work: Work, down: tuple[str, ...]) -> None:
    """Whatever is in a session, no header can be split by it."""
    store = Failing()
    cookie = visitor(store, n=0)
    store.down = down
    options = Cookie(max_age=60, domain="example.com", path="/a%20b", priority="High", partitioned=True)
    exchange = Exchange(linted(as_list(work), store=store, cookie=options, rolling=True), cookie).run()
    assert bool(exchange.cookie) is not bool(down)
    assert type(exchange.status) is str
    for text in itertools.chain([exchange.status], *exchange.headers):
        assert type(text) is str
        assert not re.search(r"[\x00-\x1f\x7f]", text)
        text.encode("latin-1")


@row("W14")
def test_the_environ_gets_namespaced_keys_and_stays_a_dict() -> None:
    """An app finds what its server put there, and nothing of ours under a name that may be somebody's."""
    seen: Environ = {}

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        assert type(environ) is dict
        seen.update(environ)
        start_response("200 OK", list(PLAIN))
        return []

    exchange = Exchange(bare(app))
    before = dict(exchange.environ)
    exchange.run()
    assert {key: seen[key] for key in before} == before
    assert all(key.startswith("minisession.") for key in seen.keys() - before.keys())


@row("W14")
@every_shape
def test_a_session_reached_through_a_copy_of_the_environ_is_saved(shape: Callable[[Work], WSGIApplication]) -> None:
    """Routers and mounts hand copies on."""
    store = MemoryStore()
    inner = shape(put(n=1))
    exchange = Exchange(linted(lambda environ, start: inner(dict(environ), start), store=store)).run()
    assert stored(store, exchange.cookie) == {"n": 1}


@row("W15")
@pytest.mark.parametrize(
    "meddle",
    [dict.clear, lambda environ: environ.update({key: "mine" for key in environ if key.startswith("minisession")})],
    ids=["cleared", "overwritten"],
)
def test_the_session_is_saved_whatever_becomes_of_the_environ(meddle: Callable[[Environ], object]) -> None:
    """PEP 3333: an app may do with the environ as it likes."""
    store = MemoryStore()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        get_session(environ)["n"] = 1
        meddle(environ)
        start_response("200 OK", list(PLAIN))
        yield b"hello"

    exchange = Exchange(linted(app, store=store)).run()
    assert stored(store, exchange.cookie) == {"n": 1}


class Site:
    """An app that is an instance, and one that is its method."""

    def __call__(self, environ: Environ, start_response: StartResponse, /) -> Iterable[bytes]:
        return as_list(put(n=1))(environ, start_response)

    serve = __call__


def with_work(work: Work, environ: Environ, start_response: StartResponse, /) -> Iterable[bytes]:
    return as_list(work)(environ, start_response)


@row("W16")
@pytest.mark.parametrize(
    "app",
    [as_list(put(n=1)), Site(), Site().serve, AppClass, functools.partial(with_work, put(n=1))],
    ids=["function", "instance", "method", "class", "partial"],
)
def test_any_callable_is_an_app_and_is_called_by_position(app: Any) -> None:
    """PEP 3333 names the arguments of nobody; `Exchange.start` takes its own by position only."""
    store = MemoryStore()
    exchange = Exchange(bare(app, store=store)).run()
    assert exchange.text == b"hello"
    assert stored(store, exchange.cookie) == {"n": 1}


class Upload:
    """An input that knows who reads it."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self, size: int) -> bytes:
        self.reads += 1
        return b"x" * size

    def readline(self, size: int = -1) -> NoReturn:
        raise AssertionError("not asked for")

    readlines = __iter__ = readline


class Errors:
    """The least that PEP 3333 asks of ``wsgi.errors``."""

    def write(self, text: str) -> NoReturn:
        raise AssertionError(f"nobody but the app writes here: {text}")

    def flush(self) -> None: ...

    def writelines(self, lines: Iterable[str]) -> None: ...


@row("W17")
def test_input_and_errors_are_the_apps_alone() -> None:
    """A middleware that reads a form has eaten the app's upload."""
    upload = Upload()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        get_session(environ)["n"] = 1
        assert upload.reads == 0
        start_response("200 OK", list(PLAIN))
        return [environ["wsgi.input"].read(1_000_000)]

    extra = {"wsgi.input": upload, "wsgi.errors": Errors(), "REQUEST_METHOD": "POST", "CONTENT_LENGTH": "1000000"}
    assert Exchange(linted(app), **extra).run().text == b"x" * 1_000_000
    assert upload.reads == 1


@row("W18")
def test_several_processes_over_one_processes_memory_are_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each process would know a part of the visitors: they seem logged out at random."""
    serve = linted(as_list(put(n=1)))
    for _ in range(3):
        Exchange(serve, **{"wsgi.multiprocess": True}).run()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "MemoryStore" in caplog.text


@row("W18")
def test_a_process_per_request_works_and_no_thread_is_started() -> None:
    """Under ``run_once`` (CGI) nothing would be left to run it."""
    before = threading.enumerate()
    store = MemoryStore()
    flags = {"wsgi.run_once": True, "wsgi.multithread": False}
    exchange = Exchange(linted(as_list(put(n=1)), store=store), **flags).run()
    assert stored(store, exchange.cookie) == {"n": 1}
    assert threading.enumerate() == before


@row("W19", "P22")
@every_shape
def test_only_our_three_headers_are_added(shape: Callable[[Work], WSGIApplication]) -> None:
    """Hop-by-hop headers and Content-Length are the server's business."""
    without = Exchange(SessionMiddleware(shape(nothing), secret=SECRET)).run()
    with_one = Exchange(linted(shape(put(n=1)))).run()
    assert without.headers == PLAIN
    assert [header for header in with_one.headers if header not in PLAIN] == with_one.headers[len(PLAIN) :]
    assert {name.lower() for name, _ in with_one.headers[len(PLAIN) :]} == OURS
    assert (without.status, without.blocks) == (with_one.status, with_one.blocks)


@row("W20")
@pytest.mark.parametrize(
    ("script", "path"), [("", "/foo"), ("/foo", ""), ("", "/foobar"), ("", "/a/../foo"), ("/mount", "/foo"), ("", "/")]
)
def test_the_path_is_the_browsers_rule_and_no_gate(script: str, path: str) -> None:
    """Express' own gate takes /foobar for /foo; a browser that sends the cookie has decided already."""
    store = MemoryStore()
    serve = linted(as_list(put(n=1)), store=store, cookie=Cookie(path="/foo"))
    exchange = Exchange(serve, SCRIPT_NAME=script, PATH_INFO=path).run()
    assert "; Path=/foo;" in exchange.all("set-cookie")[0] + ";"
    again = Exchange(serve, exchange.cookie, SCRIPT_NAME=script, PATH_INFO=path).run()
    assert again.cookie == ""
    assert stored(store, exchange.cookie) == {"n": 1}


@row("W21")
@every_shape
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_process_is_not_swallowed(
    shape: Callable[[Work], WSGIApplication], error: type[BaseException]
) -> None:
    """Ctrl-C and sys.exit() are no errors of the app; the unfinished request stores nothing."""
    store = SpyStore()

    def work(session: Session) -> None:
        session["n"] = 1
        raise error

    with pytest.raises(error):
        Exchange(linted(shape(work), store=store)).run()
    assert store.verbs == []


@row("W21")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), RuntimeError()])
def test_the_body_is_closed_when_the_store_is_interrupted(error: Any) -> None:
    """Nobody else can close it: the server never sees it."""
    store = Failing(error)
    store.down = ALL

    class Files(Body, list[bytes]):
        pass

    body = Files([b"x"])
    with pytest.raises(type(error)):
        Exchange(bare(returning(body, put(n=1)), store=store)).run()
    assert body.closed == 1


def test_what_ends_the_process_as_the_body_of_a_failed_response_is_closed_is_not_swallowed() -> None:
    store = Failing()
    store.down = ALL

    class Files(Body, list[bytes]):
        def close(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Exchange(bare(returning(Files([b"x"]), put(n=1)), store=store)).run()


@row("W22", "P17")
@every_shape
def test_a_page_that_ignores_its_session_costs_nothing(shape: Callable[[Work], WSGIApplication]) -> None:
    """No store call, no header, no id, no cookie configuration asked for: with a cookie as without."""
    store = SpyStore()
    cookie = visitor(store, n=1)
    assert store.verbs == ["create"]

    def unasked(environ: Environ) -> NoReturn:
        raise AssertionError("asked for nothing")

    serve = linted(shape(nothing), store=store, genid=unasked, cookie=unasked)
    for cookies in ("", cookie, "connect.sid=s%3Aforged.x"):
        exchange = Exchange(serve, cookies).run()
        assert (exchange.headers, exchange.text) == (PLAIN, b"hello")
    assert store.verbs == []


@row("W23")
@every_shape
def test_middlewares_of_two_names_nest(shape: Callable[[Work], WSGIApplication]) -> None:
    """Two cookies, two sessions; the app has the inner one, and what is between them the outer."""
    outer_store, inner_store = MemoryStore(), MemoryStore()
    inner = bare(shape(put(n="inner")), store=inner_store, name="inner")

    def between(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        get_session(environ)["n"] = "outer"
        return inner(environ, start_response)

    exchange = Exchange(linted(between, store=outer_store)).run()
    assert sorted(value.partition("=")[0] for value in exchange.all("set-cookie")) == ["connect.sid", "inner"]
    assert exchange.all("vary") == ["Cookie"]
    assert exchange.all("cache-control") == ["no-store"]
    assert exchange.text == b"hello"
    assert stored(outer_store, exchange.cookie) == {"n": "outer"}
    assert stored(inner_store, exchange.cookie, name="inner") == {"n": "inner"}


@row("W23")
@every_shape
def test_a_second_middleware_of_the_same_name_steps_aside(shape: Callable[[Work], WSGIApplication]) -> None:
    """An app factory and a deployment may both wrap; two would send two cookies of one name."""
    outer, inner = SpyStore(), SpyStore()
    exchange = Exchange(linted(bare(shape(put(n=1)), store=inner), store=outer)).run()
    assert (outer.verbs, inner.verbs) == (["create"], [])
    assert len(exchange.all("set-cookie")) == 1
    assert stored(outer, exchange.cookie) == {"n": 1}


@row("W23")
def test_an_app_that_calls_itself_through_its_middleware_is_warned_of_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its store and secret are the same, and the inner page has the outer one's session."""
    store = MemoryStore()

    def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/inner":
            return as_list(put(n=1))(environ, start_response)
        return serve({**environ, "PATH_INFO": "/inner"}, start_response)

    serve = bare(app, store=store)
    exchange = Exchange(serve, PATH_INFO="/").run()
    assert (stored(store, exchange.cookie), caplog.records) == ({"n": 1}, [])


@row("W23")
def test_an_environ_used_again_starts_a_session_of_its_own() -> None:
    """Error-document middlewares serve a second page from one environ, when the first is through."""
    store = MemoryStore()
    serve = bare(as_list(put(n=1)), store=store)
    first = Exchange(serve).run()
    second = Exchange(serve, **first.environ).run()
    assert "" != second.cookie != first.cookie
    assert stored(store, second.cookie) == {"n": 1}


@row("W24")
def test_interleaved_requests_share_nothing() -> None:
    """Two bodies that are served in turns, as event-driven servers do: each stores its own."""
    store = MemoryStore()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", list(PLAIN))
        get_session(environ)["who"] = environ["PATH_INFO"]
        yield environ["PATH_INFO"].encode()
        get_session(environ)["late"] = environ["PATH_INFO"]
        yield environ["PATH_INFO"].encode()

    serve = linted(app, store=store)
    pair = [Exchange(serve, PATH_INFO=path).call() for path in ("/ada", "/bob")]
    for _ in range(2):
        for exchange in pair:
            exchange.take(1)
    for exchange, path in zip(pair, ("/ada", "/bob"), strict=True):
        exchange.take().close()
        assert exchange.text == path.encode() * 2
        assert stored(store, exchange.cookie) == {"who": path, "late": path}


# A: what apps do wrong


def before_start(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    get_session(environ)["n"] = 1
    throw(environ["test.error"])


def after_start(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", list(PLAIN))
    get_session(environ)["n"] = 1
    throw(environ["test.error"])


def on_first_next(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    yield from before_start(environ, start_response)


def after_an_empty_block(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", list(PLAIN))
    get_session(environ)["n"] = 1
    yield b""
    throw(environ["test.error"])


def midway(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", list(PLAIN))
    yield b"half"
    get_session(environ)["n"] = 1
    throw(environ["test.error"])


def after_a_write(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", list(PLAIN))(b"half")
    get_session(environ)["n"] = 1
    throw(environ["test.error"])


@row("A1")
@pytest.mark.parametrize("app", [before_start, after_start, on_first_next, after_an_empty_block, midway, after_a_write])
@pytest.mark.parametrize("error", [RuntimeError("a bug"), StoreUnavailable("down")], ids=["bug", "store"])
def test_an_app_that_raises_stores_nothing(app: WSGIApplication, error: Exception) -> None:
    """Half of what a request was to do is worse than nothing; its exception reaches the server as it is.

    Unless it is the store's, and a 503 can still be sent.
    """
    store = SpyStore()
    cookie = visitor(store, n=0)
    exchange = Exchange(linted(app, store=store), cookie, **{"test.error": error})
    if isinstance(error, StoreUnavailable) and app not in (midway, after_a_write):
        assert exchange.run().status == "503 Service Unavailable"
    else:
        with pytest.raises(type(error)) as caught:
            exchange.run()
        assert caught.value is error
    assert not {"replace", "touch", "create"} & set(store.verbs[1:])
    assert stored(store, cookie) == {"n": 0}


@row("A1")
def test_what_a_failing_app_did_by_its_verbs_stays_done() -> None:
    """A logout that then fails to render is still a logout; regenerate() alone was a plan for the response."""
    store = MemoryStore()

    def fails_after(work: Work) -> str:
        cookie = visitor(store, n=0)
        with pytest.raises(RuntimeError):
            Exchange(linted(as_list(lambda session: (work(session), throw(RuntimeError()))), store=store), cookie).run()
        return cookie

    def save(session: Session) -> None:
        session["n"] = 1
        session.save()
        session["n"] = 2

    def regenerate_and_save(session: Session) -> None:
        session.regenerate(keep=True)
        session.save()

    assert stored(store, fails_after(lambda session: session.destroy())) == {}
    assert stored(store, fails_after(save)) == {"n": 1}
    assert stored(store, fails_after(regenerate_and_save)) == {}
    assert stored(store, fails_after(lambda session: session.regenerate())) == {"n": 0}


@row("A1")
@pytest.mark.parametrize("exc_info", [False, True])
def test_an_error_page_that_the_app_completes_stores(exc_info: bool) -> None:
    """Its "5 wrong passwords" count would be lost otherwise: the app has said what it wants."""
    store = MemoryStore()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        get_session(environ)["n"] = 1
        try:
            raise RuntimeError("a bug")
        except RuntimeError:
            if exc_info:
                start_response("500 Oops", list(PLAIN), sys.exc_info())
            else:
                start_response("500 Oops", list(PLAIN))
        return [b"sorry"]

    exchange = Exchange(linted(app, store=store)).run()
    assert exchange.status == "500 Oops"
    assert stored(store, exchange.cookie) == {"n": 1}


@row("A3")
def test_a_failing_close_reaches_the_server_after_the_commit() -> None:
    """The headers are out and the session is stored by then; late changes of a failed body are dropped."""
    store = MemoryStore()
    error = OSError("disk")
    body = Body([b"x"], fails=error)
    exchange = Exchange(linted(returning(body, put(n=1)), store=store))
    with pytest.raises(OSError, match="disk") as caught:
        exchange.run()
    assert caught.value is error
    assert body.closed == 1
    assert stored(store, exchange.cookie) == {"n": 1}


@row("A3")
def test_the_bodys_own_error_is_not_lost_to_its_close() -> None:
    """As on a bare server: the one that close() raises names the other as its context."""
    bug = RuntimeError("a bug")
    body = Body((throw(bug) for _ in "x"), fails=OSError("disk"))
    with pytest.raises(OSError, match="disk") as caught:
        Exchange(linted(returning(body, put(n=1)))).run()
    assert caught.value.__context__ is bug


@row("A3")
def test_a_close_that_fails_after_the_store_did_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The visitor gets the 503, the operator both errors."""
    store = Failing()
    store.down = ALL

    class Files(Body, list[bytes]):
        pass

    exchange = Exchange(bare(returning(Files([b"x"], fails=OSError("disk")), put(n=1)), store=store)).run()
    assert exchange.status == "503 Service Unavailable"
    assert "disk" in caplog.text


def mistaken(body: Any, starts: int = 1) -> WSGIApplication:
    """Return an app that breaks a rule; it runs without the middleware, too."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ.get("minisession.session", {})["n"] = 1
        for _ in range(starts):
            start_response("200 OK", list(PLAIN))
        return cast("Iterable[bytes]", body)

    return app


@row("A4")
@pytest.mark.parametrize(
    ("app", "stores"),
    [
        (mistaken(None), False),
        (mistaken(5), False),
        (mistaken("text"), True),
        (mistaken(["text"]), True),
        (mistaken(itertools.repeat("text")), True),
        (mistaken(itertools.repeat(5)), True),
        pytest.param(
            mistaken(itertools.repeat(None)),
            True
        ),
        (mistaken([], starts=0), False),
        (mistaken(itertools.repeat(b"x"), starts=0), False),
        (mistaken([], starts=2), False),
    ],
    ids=[
        "None", "int", "str", "str in a list", "yields str", "yields int", "yields None",
        "no start", "block without start", "two starts",
    ],
)  # fmt: skip
def test_an_app_that_breaks_the_rules_fails_as_it_would_without_us(app: WSGIApplication, stores: bool) -> None:
    """The error names the app's mistake and not a middleware; the next request finds everything in order."""
    store = SpyStore()
    errors: list[type[BaseException]] = []
    for served in (app, bare(app, store=store)):
        with pytest.raises((TypeError, AssertionError)) as caught:
            Exchange(served).run()
        errors.append(caught.type)
    assert errors[0] is errors[1]
    assert store.verbs == (["create"] if stores else [])
    assert Exchange(linted(as_list(put(n=1)), store=store)).run().text == b"hello"


@row("A4")
@pytest.mark.parametrize("body", [[], itertools.repeat(b"x")])
def test_an_app_that_never_starts_a_response_changes_no_session(body: Any) -> None:
    """It was not completed: it counts as one that raised."""
    store = MemoryStore()
    cookie = visitor(store, n=0)
    with pytest.raises(AssertionError):
        Exchange(bare(mistaken(body, starts=0), store=store), cookie).run()
    assert stored(store, cookie) == {"n": 0}


def streaming(late: Work, early: Work = nothing) -> WSGIApplication:
    """Return an app that does its work once its headers are out."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        session = get_session(environ)
        early(session)
        start_response("200 OK", list(PLAIN))
        yield b"half"
        late(session)
        yield b"more"

    return app


@row("A5", "P10")
@pytest.mark.parametrize(
    ("early", "late", "kept"),
    [
        (nothing, put(m=1), {"n": 0, "m": 1}),
        (read, put(m=1), {"n": 0, "m": 1}),
        (put(n=5), put(m=1), {"n": 5, "m": 1}),
        (put(n=5), put(n=2), {"n": 2}),
        (put(n=5), lambda session: session.clear(), {}),
    ],
)
@pytest.mark.parametrize("taken", [None, 2], ids=["to the end", "all but the end"])
def test_a_late_change_of_an_existing_session_is_saved_as_the_body_ends(
    early: Work, late: Work, kept: dict[str, int], taken: int | None
) -> None:
    """Before the server knows that it has ended, or at close where the server does not ask for the end."""
    store = MemoryStore()
    cookie = visitor(store, n=0)
    exchange = Exchange(linted(streaming(late, early), store=store), cookie).call().take(taken)
    assert (stored(store, cookie) == kept) is (taken is None)
    exchange.close()
    assert stored(store, cookie) == kept


@row("A5", "P10")
@pytest.mark.parametrize("late", [remember, lambda session: session.regenerate()], ids=["max_age", "regenerate"])
def test_what_needs_a_cookie_is_refused_after_the_headers(late: Work) -> None:
    """The store would say one thing and the browser another."""
    store = SpyStore()
    cookie = visitor(store, n=0)
    with pytest.raises(SessionError, match="headers are out"):
        Exchange(linted(streaming(late), store=store), cookie).run()
    assert store.verbs == ["create", "load"]


@row("A5")
def test_a_nested_late_change_is_saved_too() -> None:
    """Nobody assigns anything when they append."""
    store = MemoryStore()
    cookie = visitor(store, cart=["tea"])
    Exchange(linted(streaming(lambda session: session["cart"].append("milk")), store=store), cookie).run()
    assert stored(store, cookie) == {"cart": ["tea", "milk"]}


@row("A5")
def test_a_session_made_before_the_headers_can_be_changed_after_them() -> None:
    """Its cookie is on the way."""
    store = MemoryStore()
    exchange = Exchange(linted(streaming(put(late=1), early=put(n=1)), store=store)).run()
    assert stored(store, exchange.cookie) == {"n": 1, "late": 1}


@row("A5")
@pytest.mark.parametrize(
    "late",
    [
        put(n=1),
        lambda session: session.clear(),
        lambda session: session.regenerate(),
        lambda session: session.save(),
        lambda session: session.id,
        lambda session: session.transact(nothing),
        remember,
    ],
    ids=["set", "clear", "regenerate", "save", "id", "transact", "max_age"],
)
def test_a_session_that_begins_after_the_headers_is_refused_there_and_then(late: Work) -> None:
    """Its cookie cannot reach the browser: an error on the line that does it, never a silent loss."""
    store = SpyStore()
    exchange = Exchange(linted(streaming(late), store=store))
    with pytest.raises(SessionError, match="headers are out"):
        exchange.run()
    assert (exchange.text, store.verbs) == (b"half", [])


@row("A5")
@every_shape
@pytest.mark.parametrize(
    "late",
    [
        put(m=1),
        lambda session: session.clear(),
        lambda session: session.pop("n"),
        lambda session: session.regenerate(),
        lambda session: session.transact(nothing),
        remember,
    ],
    ids=["set", "clear", "pop", "regenerate", "transact", "max_age"],
)
def test_a_change_after_the_end_is_refused(shape: Callable[[Work], WSGIApplication], late: Work) -> None:
    """A thread that outlives its request would lose what it writes."""
    store = MemoryStore()
    cookie = visitor(store, n=0)
    kept: list[Session] = []

    def work(session: Session) -> None:
        kept.append(session)
        session.get("n")

    Exchange(linted(shape(work), store=store), cookie).run()
    with pytest.raises(SessionError):
        late(kept[0])
    assert stored(store, cookie) == {"n": 0}


@row("A5", "P10")
def test_a_late_change_that_cannot_be_stored_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The response is out, so nobody can be told but the operator; the server is not failed for it."""
    store = Failing()
    cookie = visitor(store, n=0)
    store.down = ("replace",)
    Exchange(linted(streaming(put(n=1)), store=store), cookie).run()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "StoreUnavailable" in caplog.text


@row("A5")
def test_a_session_that_ends_while_its_body_streams_is_told_of_by_its_verbs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And by nothing else, though the app still holds a list of its data."""
    store = MemoryStore()
    cookie = visitor(store, items=[1])
    said: list[str] = []

    def work(session: Session) -> None:
        session["items"].append(2)
        session.save()
        store.delete(session.id)
        for verb in (Session.touch, Session.save, Session.reload, lambda session: session.transact(nothing)):
            with pytest.raises(SessionGone):
                verb(session)
        said.append("gone")

    Exchange(linted(streaming(work), store=store), cookie).run()
    assert said == ["gone"]
    assert caplog.records == []


# 503


def unavailable(exchange: Exchange) -> bool:
    """Tell whether the browser got our 503, whole and alone."""
    lengths = exchange.all("content-length")
    return (
        exchange.status.startswith("503 ")
        and exchange.starts == 1
        and lengths == [str(len(exchange.text))]
        and exchange.all("retry-after") != []
        and not exchange.all("set-cookie")
    )


@row("S4")
@every_shape
@pytest.mark.parametrize("down", ["load", "replace"])
@pytest.mark.parametrize("error", [StoreUnavailable("down"), SessionConflict("32 times")])
def test_503_says_that_the_session_could_not_be_had_or_kept(
    shape: Callable[[Work], WSGIApplication], down: str, error: Exception
) -> None:
    """An empty session instead would log the visitor out; a 200 would be a lie about what was saved."""
    store = Failing(error)
    cookie = visitor(store, n=0)
    store.down = (down,)
    exchange = Exchange(linted(shape(put(n=1)), store=store), cookie).run()
    assert unavailable(exchange)
    store.down = ()
    assert stored(store, cookie) == {"n": 0}


@every_shape
def test_503_to_a_head_request_has_no_body(shape: Callable[[Work], WSGIApplication]) -> None:
    """Not every server drops it, and on a kept connection it is taken for the next response."""
    store = Failing()
    store.down = ALL
    exchange = Exchange(linted(shape(put(n=1)), store=store), REQUEST_METHOD="HEAD").run()
    assert (exchange.status, exchange.text) == ("503 Service Unavailable", b"")
    assert int(exchange.all("content-length")[0]) > 0


@pytest.mark.parametrize("kind", [Body, type("Files", (Body, list), {})], ids=["iterable", "list"])
def test_503_closes_the_apps_body_once(kind: Any) -> None:
    """Its files and connections would stay open: of the list, the server knows nothing."""
    store = Failing()
    store.down = ("create",)
    body = kind([b"never sent"])
    assert unavailable(Exchange(validator(bare(returning(body, put(n=1)), store=store))).run())
    assert body.closed == 1


def test_503_closes_a_file_that_is_not_sent() -> None:
    """As the server would have, had it got the file."""
    store = Failing()
    store.down = ("create",)
    file = FileWrapper(io.BytesIO(b"never sent"))
    exchange = Exchange(bare(returning(file, put(n=1)), store=store), **{"wsgi.file_wrapper": FileWrapper})
    assert unavailable(exchange.run())
    assert file.filelike.closed


def test_503_replaces_a_page_that_was_begun_but_not_sent() -> None:
    """start_response was called and leading blocks were empty: the server knows of neither."""
    store = Failing()
    store.down = ALL

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", list(PLAIN))
        yield b""
        get_session(environ)["n"] = 1
        yield b"hello"

    exchange = Exchange(linted(app, store=store)).run()
    assert unavailable(exchange)
    assert b"hello" not in exchange.text


def test_503_is_too_late_once_headers_are_out() -> None:
    """The server cuts the response, as for any error of the app."""
    store = Failing()
    cookie = visitor(store, n=0)
    store.down = ALL
    exchange = Exchange(linted(streaming(read), store=store), cookie)
    with pytest.raises(StoreUnavailable):
        exchange.run()
    assert (exchange.status, exchange.text, exchange.starts) == ("200 OK", b"half", 1)


@row("P17")
@every_shape
@pytest.mark.parametrize(
    ("options", "carries"),
    [
        ({}, True),
        ({"rolling": True}, True),
        ({"resave": True}, True),
        ({"save_uninitialized": True}, True),
        pytest.param({"save_uninitialized": True}, False),
    ],
)
def test_503_is_not_for_pages_that_do_not_use_the_session(
    shape: Callable[[Work], WSGIApplication], options: dict[str, bool], carries: bool
) -> None:
    """A store that is down takes the session pages with it, and not the whole site."""
    store = Failing()
    cookie = visitor(store, n=0) if carries else ""
    store.down = ALL
    exchange = Exchange(linted(shape(nothing), store=store, **options), cookie).run()
    assert (exchange.status, exchange.cookie, exchange.text) == ("200 OK", "", b"hello")


@every_shape
def test_503_is_not_for_a_touch_that_fails(shape: Callable[[Work], WSGIApplication]) -> None:
    """The visitor has read what they came for; the session ends a little earlier."""
    store = Failing()
    cookie = visitor(store, n=0)
    store.down = ("touch",)
    exchange = Exchange(linted(shape(read), store=store, rolling=True), cookie).run()
    assert (exchange.status, exchange.cookie) == ("200 OK", "")


@every_shape
@pytest.mark.parametrize(
    ("value", "error"), [("x" * 70_000, SessionTooLarge), ("now unserialisable", TypeError)], ids=["too large", "bytes"]
)
def test_503_is_not_for_the_apps_own_mistakes(
    shape: Callable[[Work], WSGIApplication], value: str, error: type[Exception]
) -> None:
    """A session too large is a bug to be seen, and trying again would not mend it."""
    store = Failing()
    cookie = visitor(store, n=[])

    def work(session: Session) -> None:
        session["n"].append(value if error is SessionTooLarge else value.encode())

    exchange = Exchange(linted(shape(work), store=store), cookie)
    with pytest.raises(error):
        exchange.run()
    assert exchange.starts == 0
    assert stored(store, cookie) == {"n": []}


# Headers


@row("P14")
@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ([], ["Cookie"]),
        (["Accept"], ["Accept, Cookie"]),
        (["Accept", "Accept-Language"], ["Accept", "Accept-Language, Cookie"]),
        ([""], ["Cookie"]),
        ([" "], ["Cookie"]),
        (["accept,COOKIE"], ["accept,COOKIE"]),
        (["cookie", "Accept"], ["cookie", "Accept"]),
        (["X-Cookie"], ["X-Cookie, Cookie"]),
        (["*"], ["*"]),
        (["Accept, *"], ["Accept, *"]),
    ],
)
@pytest.mark.parametrize("name", ["Vary", "vary"])
@pytest.mark.parametrize("work", [put(n=1), read], ids=["writes", "reads"])
def test_vary_names_the_cookie_once(given: list[str], sent: list[str], name: str, work: Work) -> None:
    """A cache must not show one visitor's page to another; RFC 9110 knows one list, over all its fields."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        work(get_session(environ))
        # First of all headers, or last.
        given_to = [(name, value) for value in given]
        start_response("200 OK", [*given_to, *PLAIN] if name == "Vary" else [*PLAIN, *given_to])
        return [b"hello"]

    exchange = Exchange(linted(app)).run()
    assert exchange.all("vary") == sent
    assert {key for key, _ in exchange.headers if key.lower() == "vary"} == {name if given else "Vary"}


@pytest.mark.parametrize("options", [{}, {"rolling": True}])
def test_vary_names_the_cookie_where_the_session_could_not_be_had(options: dict[str, bool]) -> None:
    """A cache would show everyone the page that the app makes while its store is down."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        with suppress(StoreUnavailable):
            get_session(environ).get("name")
        start_response("200 OK", list(PLAIN))
        return [b"hello"]

    visitor = Exchange(linted(as_list(put(n=1)))).run().cookie
    down = linted(app, store=Down(MemoryStore(), "load"), **options)
    assert Exchange(down, visitor).run().all("vary") == ["Cookie"]


@pytest.mark.parametrize("options", [{}, {"rolling": True}, {"save_uninitialized": True}], ids=str)
@pytest.mark.parametrize("looks", [True, False])
def test_an_app_that_edits_its_environ_changes_nothing(options: dict[str, bool], looks: bool) -> None:
    """A visitor whose cookie was taken out of it would get another session in the place of theirs."""
    store = SpyStore()
    visitor = Exchange(bare(as_list(put(n=1)), store=store)).run().cookie

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        del environ["HTTP_COOKIE"]
        if looks:
            assert get_session(environ)["n"] == 1
        start_response("200 OK", list(PLAIN))
        return [b"hello"]

    exchange = Exchange(bare(app, store=store, **options), visitor).run()
    assert exchange.cookie == (visitor if options.get("rolling") else "")
    assert [verb for verb, _ in store.calls].count("create") == 1


def test_a_first_look_when_the_response_is_complete_is_an_error() -> None:
    """It would load, and could touch, what no response stands for any more."""
    kept: list[Session] = []
    store = SpyStore()
    Exchange(bare(as_list(kept.append), store=store)).run()

    with pytest.raises(SessionError, match="the response is complete"):
        kept[0].get("n")
    assert store.calls == []


def test_a_503_after_head_has_no_body_whatever_the_app_makes_of_the_method() -> None:
    """It would be taken for the next response."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["REQUEST_METHOD"] = "GET"
        return as_list(put(n=1))(environ, start_response)

    exchange = Exchange(bare(app, store=Down(MemoryStore(), "create")), REQUEST_METHOD="HEAD").run()
    assert (exchange.status, exchange.text) == ("503 Service Unavailable", b"")


@row("P14")
@pytest.mark.parametrize(
    ("work", "given", "sent"),
    [
        (put(n=1), [], ["no-store"]),
        (lambda session: session.destroy(), [], ["no-store"]),
        (put(n=1), [("cache-control", "public")], ["public"]),
        (read, [], []),
        (nothing, [], []),
    ],
    ids=["set", "removed", "the app's own", "read", "ignored"],
)
def test_a_response_with_a_cookie_is_not_cached(work: Work, given: Headers, sent: list[str]) -> None:
    """Unless the app has said what is to be done with it."""
    store = MemoryStore()
    cookie = visitor(store, m=1) if sent == ["no-store"] else ""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        work(get_session(environ))
        start_response("200 OK", [*PLAIN, *given])
        return [b"hello"]

    exchange = Exchange(linted(app, store=store, rolling=bool(cookie)), cookie).run()
    assert exchange.all("cache-control") == sent


def test_an_untouched_response_keeps_the_very_headers() -> None:
    """Nothing is copied for a page that has no part in sessions."""
    headers = list(PLAIN)
    got: list[Headers] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", headers)
        return [b"hello"]

    exchange = Exchange(bare(app))
    start: Callable[..., Any] = exchange.start

    def spy(status: str, headers: Headers, exc_info: Any = None, /) -> Any:
        got.append(headers)
        return start(status, headers)

    exchange.start = spy  # type: ignore[method-assign]  # to see what the server is given
    exchange.run()
    assert got[0] is headers
