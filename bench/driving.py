"""Requests without a server: WSGI apps are called as they are, ASGI apps through a shim."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, NamedTuple

WSGI = Callable[[dict[str, Any], Any], Iterable[bytes]]

OTHERS = "_ga=GA1.2.1284.1732; theme=dark"
"""The cookies that other programs have set; ours comes last."""


class Answer(NamedTuple):
    """A response; ``set_cookie`` is the header's value, if there is one."""

    status: int
    body: str
    set_cookie: str | None


def environ(path: str) -> dict[str, Any]:
    """Return a GET over https, as a server would hand it over."""
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "www.example.com",
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "HTTP_HOST": "www.example.com",
        "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
        "HTTP_ACCEPT": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "HTTP_ACCEPT_LANGUAGE": "en",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def carrying(cookie: str | None) -> str:
    """Return the Cookie header of a browser that has ``cookie`` (``name=value``) of ours, and others'."""
    return OTHERS if cookie is None else f"{OTHERS}; {cookie}"


def pair(set_cookie: str) -> str:
    """Return the ``name=value`` of a ``Set-Cookie``."""
    return set_cookie.partition(";")[0].strip()


def send(app: WSGI, path: str, cookies: str) -> Answer:
    """Send one request, and look at what comes back."""
    started: list[Any] = []
    body = app({**environ(path), "HTTP_COOKIE": cookies}, lambda *args: started.append(args))
    text = b"".join(body).decode()
    getattr(body, "close", lambda: None)()
    status, headers = started[-1][:2]
    ours = [value for name, value in headers if name.lower() == "set-cookie"]
    return Answer(int(status[:3]), text, ours[-1] if ours else None)


def seconds(app: WSGI, path: str, cookies: Iterable[str]) -> float:
    """Return how long it takes to send a request with each of these Cookie headers, one after the other.

    Each request has its own environ, which dies with it: what the garbage collector finds is what it would
    find under a server.
    """
    template = environ(path)
    begin = perf_counter()
    for cookie in cookies:
        request = template.copy()
        request["HTTP_COOKIE"] = cookie
        body = app(request, _start_response)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()
    return perf_counter() - begin


def _start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
    return _write


def _write(data: bytes) -> None:
    pass


def as_wsgi(asgi: Any) -> WSGI:
    """Return a WSGI app that calls an ASGI app which waits for nothing but us."""
    request = {"type": "http.request", "body": b"", "more_body": False}

    async def receive() -> dict[str, Any]:
        return request

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": environ["REQUEST_METHOD"],
            "scheme": environ["wsgi.url_scheme"],
            "path": environ["PATH_INFO"],
            "root_path": "",
            "query_string": b"",
            "headers": [
                (b"host", environ["HTTP_HOST"].encode("latin-1")),
                (b"cookie", environ["HTTP_COOKIE"].encode("latin-1")),
            ],
        }
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        try:
            asgi(scope, receive, send).send(None)
        except StopIteration:
            start, *blocks = sent
        else:
            raise RuntimeError("the app waits for something that never comes")
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
        start_response(f"{start['status']} ", headers)
        return [block["body"] for block in blocks]

    return app
