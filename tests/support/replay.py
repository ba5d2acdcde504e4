"""A request as a function of what the store answers: the real middleware, stopped and run on at will, without threads.

A request that waits for the store is one that an exception has stopped at its first call without an answer.
To run it on is to run it again from its start with one answer more.  What it does after some answers has
to be found out only once, which makes trying thousands of orders cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from minisession import Cookie, Session, SessionGone, SessionMiddleware, get_session
from minisession.wire import cookies
from minisession.wire.signing import Signer

from .browser import SECRET
from .promises import Call, Changes, Request

LIFETIME = 100  # seconds
Answers = tuple[tuple[Call, Any, float], ...]  # what was asked, what the store said, and when


class Sent(NamedTuple):
    """A request as it leaves the browser."""

    name: str
    request: Request
    id: str | None  # its cookie's
    now: float


class Waiting(BaseException):
    """Stops a request where it asks what is not yet answered."""


class Tape:
    """A store that answers what it answered before, and stops the request at the first new question."""

    def play(self, name: str, now: float, answers: Answers) -> None:
        self.name, self.now, self.answers = name, now, answers
        self.place = self.made = 0
        self.asked: Call | None = None
        self.saves: list[tuple[int, Changes]] = []
        self.result: Any = None

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        return partial(self._ask, verb)

    def ids(self, user: str | None = None) -> Iterator[str]:
        """List as a store does that looks again at what it has found: names, and then each of them."""
        for id in self._ask("ids", user):
            if self._ask("stands", id):
                yield id

    def _ask(self, *call: Any, **named: Any) -> Any:
        call = (*call, *named.values())
        if self.place == len(self.answers):
            self.asked = self.asked or call  # what cleans up behind the exception asks, too
            raise Waiting
        before, answer, self.now = self.answers[self.place]
        assert call == before, "a request is a function of what the store answers, and this one is not"
        self.place += 1
        return answer

    def new_id(self, _: Any) -> str:
        """Return "a" for request A; then "a2", "a3", …"""
        self.made += 1
        return self.name.lower() + (str(self.made) if self.made > 1 else "")

    def saved(self, **changes: Any) -> None:
        """Note, for a page, changes that are acknowledged before the response is."""
        self.saves.append((self.place, changes))


@dataclass
class Part:
    """What a request does after its last answer."""

    sent: Sent
    answers: Answers
    asks: Call | None  # what it waits for; None: it has responded
    answered: bool  # and was not refused
    saves: list[tuple[int, Changes]]  # what is acknowledged, and how many answers there were when it was changed
    cookie: str | None  # the id in the response's Set-Cookie; "" where that removes it
    result: Any
    after: dict[tuple[Any, float], Part] = field(default_factory=dict)  # one answer more, and when it came


class Code:
    """The code under test."""

    def __init__(self) -> None:
        self.tape = Tape()
        self.signer = Signer(SECRET)
        self.apps = {rolling: self._app(rolling) for rolling in (False, True)}
        self.starts: dict[Sent, Part] = {}

    def start(self, sent: Sent) -> Part:
        """Run a request until it waits for the store."""
        if sent not in self.starts:
            self.starts[sent] = self._run(sent, ())
        return self.starts[sent]

    def run_on(self, part: Part, answer: Any, now: float) -> Part:
        """Give it the answer."""
        key = (answer, now)
        if key not in part.after:
            assert part.asks is not None
            part.after[key] = self._run(part.sent, (*part.answers, (part.asks, answer, now)))
        return part.after[key]

    def _run(self, sent: Sent, answers: Answers) -> Part:
        name, request, id, now = sent
        environ: dict[str, Any] = {"wsgi.url_scheme": "https", "test.request": request}
        if id is not None:
            environ["HTTP_COOKIE"] = cookies.pair("connect.sid", self.signer.sign(id))
        headers: dict[str, str] = {}

        def start_response(status: str, given: list[tuple[str, str]], exc_info: Any = None) -> Any:
            assert status == "200 OK"
            headers.update(given)

        answered = False
        self.tape.play(name, now, answers)
        app = self.apps[request.rolling]
        with suppress(Waiting, SessionGone):
            if request.outside:
                with app.session_from(environ.get("HTTP_COOKIE", "")) as session:
                    environ["test.changed"] = self._run_page(session, request)
            else:
                app(environ, start_response)
            answered = True
        saves = [save for save in self.tape.saves if save[0] == len(answers)]
        if answered:
            saves.append(environ["test.changed"])
        cookie = headers.get("Set-Cookie")
        if cookie is not None:
            cookie = cookie.partition(";")[0].partition("s%3A")[2].rpartition(".")[0]
        return Part(sent, answers, self.tape.asked, answered, saves, cookie, self.tape.result)

    def _app(self, rolling: bool) -> SessionMiddleware:
        return SessionMiddleware(
            self._serve,
            secret=SECRET,
            store=self.tape,
            cookie=Cookie(secure="auto"),
            rolling=rolling,
            idle_timeout=LIFETIME,
            genid=self.tape.new_id,
            clock=lambda: self.tape.now,
        )

    def _serve(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["test.changed"] = self._run_page(get_session(environ), environ["test.request"])
        start_response("200 OK", [])
        return []

    def _run_page(self, session: Session, request: Request) -> tuple[int, Changes]:
        changes = request.page(session, self.tape) or {}
        return self.tape.place, changes
