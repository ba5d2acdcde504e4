"""The rows of security.md that only a real server proves: waitress, and the standard library's."""

# tests are named after their rows

from __future__ import annotations

import io
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.validate import validator

import pytest

from minisession import Cookie, MemoryStore, Session, SessionMiddleware, StoreUnavailable, get_session

from ..support.browser import SECRET
from ..support.rows import row
from ..support.tools import need_module

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

Environ = dict[str, Any]
Serve = Callable[[Any], AbstractContextManager[int]]

PLAIN = [("Content-Type", "text/plain")]
SOON = 10  # seconds, within which what is to happen has happened, or never will


@contextmanager
def waitress(app: Any) -> Iterator[int]:
    """Serve the app with waitress; yield the port."""
    wasyncore = need_module("waitress.wasyncore")
    server = need_module("waitress.server").create_server(app, host="127.0.0.1", port=0, threads=4)
    stopped = threading.Event()

    def run() -> None:
        while not stopped.is_set():
            wasyncore.loop(timeout=SOON, map=server._map, count=1)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield server.effective_port
    finally:  # the workers first, which use the trigger; then the loop, and then nobody uses the sockets
        server.task_dispatcher.shutdown()
        stopped.set()
        server.pull_trigger()
        thread.join(SOON)
        wasyncore.close_all(server._map)
        assert not thread.is_alive()


class Quiet(WSGIRequestHandler):
    def log_message(self, *arguments: Any) -> None: ...


@contextmanager
def simple_server(app: Any) -> Iterator[int]:
    """Serve the app with ``wsgiref.simple_server``; yield the port."""
    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(SOON)


@contextmanager
def cheroot(app: Any) -> Iterator[int]:
    """Serve the app with CherryPy's server; yield the port."""
    server = need_module("cheroot.wsgi").Server(("127.0.0.1", 0), app, numthreads=4)
    server.expiration_interval = 0.01  # seconds until it notices that it is stopped
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server.bind_addr[1]
    finally:
        server.stop()
        thread.join(SOON)


class Client:
    """A browser with one connection and one cookie."""

    def __init__(self, port: int) -> None:
        self.connection = HTTPConnection("127.0.0.1", port, timeout=SOON)
        self.cookie = ""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.connection.close()

    def send(self, path: str = "/", **options: Any) -> HTTPResponse:
        """Send a request; return the response with its body yet to be read."""
        method, headers = options.pop("method", "GET"), options.pop("headers", {})
        if self.cookie:
            headers = {**headers, "Cookie": self.cookie}
        self.connection.request(method, path, headers=headers, **options)
        response = self.connection.getresponse()
        self.cookie = (response.getheader("Set-Cookie") or self.cookie).partition(";")[0]
        return response

    def get(self, path: str = "/", **options: Any) -> bytes:
        return self.send(path, **options).read()


def wrapped(app: Any, **options: Any) -> SessionMiddleware:
    return SessionMiddleware(app, secret=SECRET, cookie=Cookie(secure="auto"), **options)


def counted(environ: Environ) -> bytes:
    """Count this visit; the count is the page."""
    session = get_session(environ)
    session["visits"] = session.get("visits", 0) + 1
    return b"visit %d" % session["visits"]


def listing(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    page = counted(environ)
    start_response("200 OK", list(PLAIN))
    return [page]


def generating(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", list(PLAIN))
    yield b""
    yield counted(environ)
    yield b""


def writing(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    write = start_response("200 OK", list(PLAIN))
    write(counted(environ))
    return []


@row("W1", "W3", "W5")
@pytest.mark.parametrize("serve", [waitress, simple_server, cheroot])
@pytest.mark.parametrize("app", [listing, generating, writing])
@pytest.mark.parametrize("lint", [True, False], ids=["linted", "plain"])
def test_every_kind_of_app_has_its_session_on_every_server(serve: Serve, app: Any, lint: bool) -> None:
    """Three visits, one cookie, the right count each time."""
    site = validator(wrapped(validator(app))) if lint else wrapped(app)
    with serve(site) as port:
        cookies = set()
        with Client(port) as client:
            for visit in (1, 2, 3):
                assert client.get() == b"visit %d" % visit
                cookies.add(client.cookie)
        with Client(port) as stranger:
            assert stranger.get() == b"visit 1"
    assert len(cookies) == 1


@row("W2")
def test_each_block_reaches_the_client_before_the_next_is_made() -> None:
    """A page that shows its progress; each side waits for the other, so that a buffer in between would stall both."""
    arrived = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", list(PLAIN))
        yield b""
        yield counted(environ)
        yield b"in time" if arrived.wait(SOON) else b"too late"

    with waitress(validator(wrapped(validator(app)))) as port, Client(port) as client:
        response = client.send()
        assert response.read1() == b"visit 1"
        arrived.set()
        assert response.read() == b"in time"


class Closing:
    """A body that tells when it was closed, and counts."""

    def __init__(self, body: Any) -> None:
        self.body, self.closes, self.closed = body, 0, threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.body)

    def close(self) -> None:
        try:
            if hasattr(self.body, "close"):
                self.body.close()
        finally:
            self.closes += 1
            self.closed.set()


@row("W8")
@pytest.mark.parametrize("hang_up", [(1, 0), (0, 0)], ids=["reset", "closed"])
def test_a_client_that_hangs_up_midway_has_its_session_saved_and_the_body_closed(hang_up: tuple[int, int]) -> None:
    """A download that is broken off: what was counted stays counted, and the file does not stay open."""
    inside: list[Closing] = []
    outside: list[Closing] = []

    def endless(session: Session) -> Iterator[bytes]:
        while True:
            session["blocks"] = session.get("blocks", 0) + 1
            yield b"x" * 65536

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/download":
            return listing(environ, start_response)
        start_response("200 OK", list(PLAIN))
        inside.append(Closing(endless(get_session(environ))))
        return inside[0]

    store = MemoryStore()
    site = wrapped(app, store=store)

    def watched(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        outside.append(Closing(site(environ, start_response)))
        return outside[-1]

    with waitress(watched) as port, Client(port) as client:
        client.get()
        with socket.create_connection(("127.0.0.1", port), SOON) as raw:
            raw.sendall(b"GET /download HTTP/1.1\r\nHost: x\r\nCookie: %s\r\n\r\n" % client.cookie.encode())
            assert raw.recv(65536).startswith(b"HTTP/1.1 200 OK")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", *hang_up))
        assert outside[1].closed.wait(SOON)
    assert inside[0].closes == 1
    (id,) = store.ids()
    stored = store.load(id)
    assert stored is not None
    assert json.loads(stored.data)["blocks"] >= 1


@row("W9", "P22")
def test_a_page_in_a_list_keeps_its_length_and_the_connection() -> None:
    """An iterator in its place would be sent in chunks, and cost a connection per request."""
    with waitress(wrapped(listing)) as port, Client(port) as client:
        sockets = set()
        for visit in (1, 2):
            response = client.send()
            assert response.getheader("Content-Length") == "7"
            assert response.getheader("Connection") != "close"
            assert response.read() == b"visit %d" % visit
            sockets.add(client.connection.sock)
        assert len(sockets) == 1


@row("W10", "P22")
def test_a_file_reaches_the_server_as_the_file_it_is() -> None:
    """waitress sends its own wrapper from the main loop, without a thread and without reading it into memory."""
    content = os.urandom(10_000_000)
    file = io.BytesIO(content)
    given: list[Any] = []
    received: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        counted(environ)
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        given.append(environ["wsgi.file_wrapper"](file))
        return given[0]  # type: ignore[no-any-return]  # a file wrapper has no type

    site = wrapped(app)

    def watched(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        received.append(site(environ, start_response))
        return received[0]  # type: ignore[no-any-return]  # a file wrapper has no type

    with waitress(watched) as port, Client(port) as client:
        response = client.send()
        assert response.read() == content
        assert response.getheader("Content-Length") == str(len(content))
        assert client.cookie
    assert received[0] is given[0]
    assert file.closed


def pipelined(port: int, *requests: tuple[bytes, bytes]) -> list[bytes]:
    """Send all these (request line, cookie) on one connection at once; return the responses as they come."""
    head = b"%s HTTP/1.1\r\nHost: x\r\nCookie: %s\r\nConnection: %s\r\n\r\n"
    kinds = [b"keep-alive"] * (len(requests) - 1) + [b"close"]
    with socket.create_connection(("127.0.0.1", port), SOON) as raw:
        raw.sendall(b"".join(head % (*request, kind) for request, kind in zip(requests, kinds, strict=True)))
        with raw.makefile("rb") as answers:
            return answers.read().split(b"HTTP/1.1 ")[1:]


@row("W11")
@pytest.mark.parametrize(
    "method",
    [
        b"GET",
        b"HEAD",
    ],
)
def test_a_503_leaves_the_connection_in_step(method: bytes) -> None:
    """waitress sends what it is given, also after HEAD: the client would take it for the next response."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/down":
            raise StoreUnavailable("down")
        return listing(environ, start_response)

    with waitress(wrapped(app)) as port:
        refused, served = pipelined(port, (method + b" /down", b""), (b"GET /", b""))
    assert refused.startswith(b"503 ")
    assert refused.endswith(b"\r\n\r\n") is (method == b"HEAD")
    assert served.startswith(b"200 ")
    assert served.endswith(b"visit 1")


@row("W17")
def test_an_upload_in_chunks_arrives_as_it_was_sent() -> None:
    """A middleware that read the body, or believed Content-Length, would cut it."""
    upload = os.urandom(1_000_000)

    def echo(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        counted(environ)
        start_response("200 OK", list(PLAIN))
        return [environ["wsgi.input"].read(len(upload) + 1)]

    with waitress(validator(wrapped(validator(echo)))) as port, Client(port) as client:
        blocks = (upload[at : at + 10_000] for at in range(0, len(upload), 10_000))
        headers = {"Transfer-Encoding": "chunked"}
        assert client.get(method="POST", body=blocks, headers=headers, encode_chunked=True) == upload
        assert client.cookie


def remembering(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the first path that this session saw, and how often it was here."""
    session = get_session(environ)
    page = str(session.setdefault("first", environ["PATH_INFO"])).encode() + b" " + counted(environ)
    start_response("200 OK", list(PLAIN))
    return [page]


@row("W24", "P19")
def test_visitors_on_kept_connections_see_themselves_alone() -> None:
    """Threads and connections serve many visitors in turn: nothing of one may be there for the next."""

    def visit(port: int, name: str) -> None:
        with Client(port) as client:
            for number in range(1, 501):
                assert client.get(f"/{name}") == b"/%s visit %d" % (name.encode(), number)

    with waitress(wrapped(remembering)) as port, ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(visit, port, name) for name in ("ada", "bob", "cy", "di")]:
            done.result()


@row("W24")
def test_pipelined_requests_of_two_visitors_are_told_apart() -> None:
    """A proxy may send both on one connection, and not wait in between."""
    with waitress(wrapped(remembering)) as port:
        cookies = []
        for name in ("ada", "bob"):
            with Client(port) as client:
                client.get(f"/{name}")
                cookies.append(client.cookie.encode())
        pages = pipelined(port, *((b"GET /x", cookie) for cookie in cookies * 2))
    found = [page.rpartition(b"\r\n\r\n")[2] for page in pages]
    assert found == [b"/ada visit 2", b"/bob visit 2", b"/ada visit 3", b"/bob visit 3"]
