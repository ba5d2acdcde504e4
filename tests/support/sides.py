"""Two sites on one Redis, Express under Node and ours under waitress, and a browser that visits both.

A page of either site is a list of verbs, carried out in order on the session.  The words are the same on
both sides, so that a story is written once and told in both directions.  `Visitor.meanwhile` is the verb
that makes a request inside another's page: one that overtakes it, as in `site`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields
from email.message import Message
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

from minisession import Cookie, Session, SessionMiddleware, Store, get_session

from ..wsgi.test_servers import SOON, waitress
from .browser import SECRET
from .tools import need_folder, need_program

EXPRESS = Path(__file__).parents[1] / "express"
INSTALL = "npm install --prefix tests/express"

Options = dict[str, Any]
_ATTRIBUTES = {field.name for field in fields(Cookie)}


def _verb(name: str) -> Callable[..., list[Any]]:
    return lambda *arguments: [name, *arguments]


data = _verb("data")  # everything that is the app's
put = _verb("put")
drop = _verb("drop")
login = _verb("login")  # a new id, and the user in the data; here, session.user as well
logout = _verb("logout")
regenerate = _verb("regenerate")
renew = _verb("renew")  # a new id, with the data kept
save = _verb("save")
reload = _verb("reload")
touch = _verb("touch")
remember = _verb("remember")  # seconds
left = _verb("left")  # seconds
members = _verb("members")  # Express': every name that its session objects have from the start
member = _verb("member")  # ours: an attribute of the session


def _visit(port: int, path: str, headers: dict[str, str], page: Sequence[list[Any]]) -> tuple[Message, list[Any]]:
    """Return the response's headers, and what each verb returned."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=SOON)) as connection:
        connection.request("POST", path, json.dumps(page), headers)
        response = connection.getresponse()
        body = response.read()
    assert response.status == 200, body.decode()
    return response.headers, json.loads(body)


class Side(NamedTuple):
    """A site: where it is, and what it calls its options."""

    name: str
    port: int
    words: Callable[[Options], Options] = dict
    path: str = "/"


class Visitor:
    """A browser: one cookie, for both sides, since cookies know no ports."""

    def __init__(self, cookie: str | None = None) -> None:
        self.cookie = cookie
        self.headers = Message()  # the last response's

    def at(self, side: Side, *page: list[Any], **options: Any) -> Any:
        """Visit a page of a side that is configured so; return what its last verb returned."""
        self.headers, results = _visit(side.port, side.path, self._headers(side, options), page)
        if self.set_cookie is not None:
            pair = self.set_cookie.partition(";")[0]
            self.cookie = None if pair.endswith("=") else pair
        return results[-1] if page else None

    def meanwhile(self, side: Side, *page: list[Any], **options: Any) -> list[Any]:
        """Return the verb that visits another page with the cookie of now, while its own page is being made."""
        return ["meanwhile", side.port, self._headers(side, options), page]

    def _headers(self, side: Side, options: Options) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "X-Forwarded-Proto": "https",  # for sides that believe it
            "X-Options": json.dumps(side.words(options)),
        }
        return {**headers, "Cookie": self.cookie} if self.cookie else headers

    @property
    def set_cookie(self) -> str | None:
        """What the last response told about the cookie."""
        return self.headers["Set-Cookie"]

    def twin(self) -> Visitor:
        """Return another tab, or a thief."""
        return Visitor(self.cookie)

    @property
    def id(self) -> str:
        """The id that the cookie carries."""
        assert self.cookie is not None
        return self.cookie.removeprefix("connect.sid=s%3A").partition(".")[0]


# Express


def in_express(options: Options) -> Options:
    """Translate minisession's options."""
    names = {"max_age": "maxAge", "httponly": "httpOnly", "samesite": "sameSite"}
    cookie = {names.get(name, name): options.pop(name) for name in _ATTRIBUTES & options.keys()}
    if "maxAge" in cookie:
        cookie["maxAge"] *= 1000
    return {"secret": SECRET, "resave": False, "saveUninitialized": False, "cookie": cookie, **options}


def node_modules() -> str:
    """Return the folder with Express in it."""
    return need_folder(os.environ.get("MINISESSION_NODE_MODULES") or str(EXPRESS / "node_modules"), INSTALL)


@contextmanager
def node(script: Path, **environ: str) -> Iterator[int]:
    """Run a script that serves, and prints its port once it does; yield the port."""
    environ = {**os.environ, "NODE_PATH": node_modules(), **environ}
    # The script ends with its stdin, and so with us, however we end.
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([need_program("node"), str(script)], env=environ, **pipes) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


@contextmanager
def express(redis_url: str) -> Iterator[Side]:
    """Serve Express' side."""
    with node(EXPRESS / "server.js", REDIS_URL=redis_url) as port:
        yield Side("express", port, in_express)


# Ours


def in_python(options: Options) -> Options:
    """Put Express' defaults in the place of ours, so that both sides have the same cookie."""
    cookie = {name: options.pop(name) for name in _ATTRIBUTES & options.keys()}
    return {"secret": SECRET, "cookie": {"secure": False, "samesite": None, **cookie}, **options}


def _login(session: Session, user: str) -> None:
    session.regenerate(user=user)
    session["user"] = user


VERBS: dict[str, Callable[..., Any]] = {
    "data": dict,
    "put": Session.__setitem__,
    "drop": Session.__delitem__,
    "login": _login,
    "logout": Session.destroy,
    "regenerate": Session.regenerate,
    "renew": lambda session: session.regenerate(keep=True),
    "save": Session.save,
    "reload": Session.reload,
    "touch": Session.touch,
    "remember": lambda session, seconds: setattr(session.cookie, "max_age", seconds),
    "left": lambda session: session.cookie.max_age,
    "member": lambda session, name: str(getattr(session, name)),
    "meanwhile": lambda _, port, headers, page: _visit(port, "/", headers, page)[1],
}


def pages(verbs: dict[str, Callable[..., Any]]) -> Any:
    """Make a WSGI app of these verbs."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        session = get_session(environ)
        page = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        results = [verbs[verb](session, *arguments) for verb, *arguments in page]
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(results).encode()]

    return app


@contextmanager
def minisession(store: Store) -> Iterator[Side]:
    """Serve our side."""

    @cache
    def configured(text: str) -> SessionMiddleware:
        options = json.loads(text)
        if "now" in options:
            now = options.pop("now")
            options["clock"] = lambda: now
        return SessionMiddleware(pages(VERBS), store=store, **{**options, "cookie": Cookie(**options["cookie"])})

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        return configured(environ["HTTP_X_OPTIONS"])(environ, start_response)

    with waitress(app) as port:
        yield Side("minisession", int(port), in_python)
