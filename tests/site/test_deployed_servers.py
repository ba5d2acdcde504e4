"""docs/deployment.md: each server that it names is started as it says, and serves sessions."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPResponse
from pathlib import Path

import pytest

from ..support.deployed import SERVERS, Server, apache, file, over_tls, serving
from ..wsgi.test_servers import SOON, Client

MYAPP = """
import os

from minisession import get_session

DOWNLOAD = os.path.join(os.path.dirname(__file__), "download")
PLAIN = [("Content-Type", "text/plain")]


def app(environ, start_response):
    session, page, head = get_session(environ), environ["PATH_INFO"], environ["REQUEST_METHOD"] == "HEAD"
    if page == "/login":
        session.regenerate(user="ada")
    session["visits"] = session.get("visits", 0) + 1
    if page == "/stream":
        start_response("200 OK", PLAIN)
        return counted(session)
    if page == "/write":
        write = start_response("200 OK", PLAIN)
        for line in lines():
            write(line)
        return []
    if page == "/file":
        start_response("200 OK", [*PLAIN, ("Content-Length", str(os.path.getsize(DOWNLOAD)))])
        return environ.get("wsgi.file_wrapper", blocks)(File(DOWNLOAD))
    if page == "/204":
        start_response("204 No Content", [])
        return []
    if page == "/304":
        start_response("304 Not Modified", [("ETag", '"1"')])
        return []
    text = f"{session.user} {session['visits']} {session.get('line')} {os.getpid()}\\n".encode()
    start_response("200 OK", [*PLAIN, ("Content-Length", str(len(text)))])
    return [] if head else [text]


def lines():
    for number in range(3):
        yield b"line %d\\n" % number


def counted(session):
    for number, line in enumerate(lines()):
        session["line"] = number
        yield line


class File:
    # All that a file wrapper asks of a file.
    def __init__(self, path):
        file = open(path, "rb")
        self.read, self.close = file.read, file.close


def blocks(file):
    return iter(lambda: file.read(65536), b"")
"""


FILES = {"wsgi.py": file("wsgi.py"), "myapp.py": MYAPP, "download": "0123456789abcdef" * 65536}  # 1 MiB


@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
def test_a_server_of_the_page_serves_sessions(server: Server, tmp_path: Path) -> None:
    """Started once for all of it, so that a server that is missing is one skip."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    with serving(server, tmp_path) as port:
        assert_sessions(partial(Client, port), keeps=server.keeps, processes=server.processes)


def test_greenlets_of_an_app_that_was_preloaded_get_their_own_answers(tmp_path: Path) -> None:
    """gevent patches the process when the store is there already, and its first greenlets share what it had."""
    from ..support.redis_server import redis_server  # which skips this test alone, if there is none

    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    gevent = SERVERS["gunicorn, gevent"]
    command = gevent.command.replace("--workers=2", "--workers=1 --preload")
    assert command != gevent.command

    def visits(port: int, number: int) -> list[bytes]:
        with Client(port) as client:
            client.send(f"/login?{number}").read()
            return [client.get().partition(b" None ")[0] for _ in range(40)]

    server = gevent._replace(command=command)
    with redis_server() as redis, serving(server, tmp_path, redis.url) as port, ThreadPoolExecutor(12) as pool:
        found = list(pool.map(partial(visits, port), range(12)))
    assert found == [[b"ada %d" % visit for visit in range(2, 42)]] * 12


def test_apache_serves_sessions() -> None:
    """It ends the TLS itself."""
    with apache(FILES) as (port, home):
        assert_sessions(partial(over_tls, port, home), keeps=True, processes=True)


def assert_sessions(connect: Callable[[], Client], *, keeps: bool, processes: bool) -> None:
    """Log in, and have the session on every kind of response after it."""
    with connect() as client:

        def send(path: str, method: str = "GET") -> tuple[HTTPResponse, bytes]:
            if not keeps:
                client.connection.close()  # uWSGI does not say that it has closed it
            response = client.send(path, method=method)
            return response, response.read()

        def get(path: str) -> bytes:
            return send(path)[1]

        assert get("/login").startswith(b"ada 1 ")
        kept = client.connection.sock
        for visit in (2, 3):
            assert get("/").startswith(b"ada %d " % visit)
        assert not keeps or kept is client.connection.sock is not None

        assert get("/stream") == b"line 0\nline 1\nline 2\n"
        assert get("/").startswith(b"ada 5 2 ")  # what the body changed while it was sent
        assert get("/write") == b"line 0\nline 1\nline 2\n"
        assert get("/file") == FILES["download"].encode()
        for status in (204, 304):
            response, body = send(f"/{status}")
            assert (response.status, body) == (status, b"")
        response, body = send("/", "HEAD")
        assert (response.status, body) == (200, b"")
        page = get("/")
        assert page.startswith(b"ada 11 2 ")
        assert int(response.headers["Content-Length"]) == len(page)
        cookie = client.cookie

    workers: set[str] = set()
    deadline = time.monotonic() + SOON
    with ThreadPoolExecutor(8) as pool:
        while len(workers) < 1 + processes and time.monotonic() < deadline:
            workers.update(pool.map(partial(worker, connect, cookie), range(16)))
    assert len(workers) == 1 + processes


def worker(connect: Callable[[], Client], cookie: str, _: int) -> str:
    """Visit once; return the process that has answered."""
    with connect() as client:
        client.cookie = cookie
        user, _visits, _line, pid = client.get(headers={"Connection": "close"}).decode().split()
        assert user == "ada"
        return pid
