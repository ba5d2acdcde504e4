"""Histories of requests, made at random, played on a site, and made smaller where two sites differ."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any, Protocol, TypeVar

from minisession import SessionError

T = TypeVar("T")
Step = tuple[Any, ...]  # the name of one of `Player`'s methods, and its arguments
Request = tuple[tuple[Any, ...], "list[Step] | None", "list[Step] | None"]  # cookies; steps before the headers; after
History = list[tuple[float, Request]]  # seconds that pass before it

FORGED, UNKNOWN = "forged", "signed, and in no store"
PASSED = (0, 0, 0, 1, 14, 15, 40, 60, 99, 100)  # lifetimes are 50, 60, 100 and 150, and a tombstone's is 15
USERS: tuple[dict[str, Any], ...] = ({}, {"user": "ada"}, {"user": "bob"}, {"user": None})
STEPS: list[list[Step]] = [  # one of these, and of that, one
    [("look",)],
    [("put", key, value) for key in "ab" for value in (1, True, "x")],
    [("pop", key) for key in ("a", "b", "cart")],
    [("fill", 1), ("fill", 2)],
    [("hold",)],
    [("fill_held", 3), ("fill_held", 4)],
    [("do", "save")],
    [("do", verb) for verb in ("touch", "reload", "destroy", "clear")],
    [("name",)],
    [("regenerate", {"keep": keep, **user}) for keep in (True, True, False) for user in USERS],
    [("count", fails, None) for fails in (False, True)],
    [("end_all", user, keep) for user in ("ada", "bob") for keep in (True, False)],
    [("wait", seconds) for seconds in PASSED[3:]],
    [("set_max_age", age) for age in (None, 50, 150)],
]
# Of the jar: 0 is the last.
COOKIES = (*[(0,)] * 6, (1,), (2,), (0, 1), (1, 0), (2, 1), (FORGED,), (FORGED, 0), (UNKNOWN, 0))
BEGINNINGS: list[list[Step] | None] = [
    [("put", "a", 0), ("fill", 0)],
    [("regenerate", {"user": "ada"}), ("put", "a", 0), ("fill", 0)],
    None,
]


def history(choose: random.Random) -> History:
    """Return a visitor's first request, and a few more."""
    first: Request = ((), choose.choice(BEGINNINGS), None)
    more = [(choose.choice(PASSED), request(choose, 2)) for _ in range(choose.randint(1, 5))]
    return [(0, first), *more]


def request(choose: random.Random, least: int, *, overtaken: bool = True) -> Request:
    """Return a request, with at least so many steps; others may overtake it."""

    def step() -> Step:
        what = choose.random()
        if not overtaken or what > 0.16:
            return choose.choice(choose.choice(STEPS))
        other = request(choose, 1, overtaken=False)
        return ("other", other) if what < 0.12 else ("count", False, other)

    def steps(chance: float) -> list[Step] | None:
        return [step() for _ in range(choose.randint(least, 7))] if choose.random() < chance else None

    return choose.choice(COOKIES), steps(0.85), steps(0.15)


def smallest(history: T, fails: Callable[[T], object]) -> T:
    """Return a history that fails, too, and does not with any one thing less."""
    while (smaller := next(filter(fails, _smaller(history)), None)) is not None:
        history = smaller
    return history


def _smaller(thing: Any) -> Iterator[Any]:
    if isinstance(thing, list):
        yield from (thing[:at] + thing[at + 1 :] for at in range(len(thing)))
    if isinstance(thing, (list, tuple)):
        for at, part in enumerate(thing):
            yield from (type(thing)([*thing[:at], less, *thing[at + 1 :]]) for less in _smaller(part))


class Site(Protocol):
    """What a history is played on."""

    now: float
    made: int  # ids so far

    def has(self, id: str) -> Any:
        """Return all that is stored under an id, and when it ends."""

    def serve(self, ids: list[str], page: Any, later: Any) -> str | None:
        """Serve a request with these cookies; return the id in its ``Set-Cookie``: "" removes it, None is no header."""

    def end_all_of(self, user: str, keep: Any) -> int:
        """End the sessions of a user, but for this one."""
        ...


class Player:
    """Plays histories, and writes down all that a page can see."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.jar = [""]  # every id that the browser had, latest last; "" is none
        self.held: list[Any] = []  # a value of the session's, kept by the page
        self.seen: list[Any] = []

    def play(self, history: History) -> None:
        for passed, request in history:
            self.wait(None, passed)
            self.other(None, request)

    def _page(self, steps: list[Step] | None) -> Callable[[Any], None] | None:
        def page(session: Any) -> None:
            outer, self.held = self.held, []
            for name, *arguments in steps or ():
                try:
                    result = getattr(self, name)(session, *arguments)
                except (SessionError, KeyError) as error:
                    result = type(error).__name__
                self.seen.append((name, result))
            self.held = outer

        return None if steps is None else page

    # The steps

    def look(self, session: Any) -> Any:
        times = session.created_at, session.expires_at, session.cookie.max_age or 0
        moments = [round(time.timestamp() if isinstance(time, datetime) else time) for time in times]
        return sorted(session.items()), session.user, session.is_new, session.cookie.original_max_age, *moments

    def put(self, session: Any, key: str, value: Any) -> None:
        session[key] = value

    def pop(self, session: Any, key: str) -> Any:
        return session.pop(key)

    def fill(self, session: Any, value: int) -> None:
        session.setdefault("cart", []).append(value)

    def hold(self, session: Any) -> None:
        self.held = [session["cart"]]

    def fill_held(self, session: Any, value: int) -> None:
        for cart in self.held:
            cart.append(value)

    def set_max_age(self, session: Any, seconds: float | None) -> None:
        session.cookie.max_age = seconds

    def do(self, session: Any, verb: str) -> None:
        getattr(session, verb)()

    def name(self, session: Any) -> Any:
        return session.id

    def regenerate(self, session: Any, arguments: dict[str, Any]) -> None:
        session.regenerate(**arguments)

    def count(self, session: Any, fails: bool, other: Request | None) -> Any:
        """Transact; in its first run another request may overtake it."""
        runs: list[dict[str, Any]] = []

        def count(session: Any) -> None:
            runs.append(dict(session))
            session["n"] = session.get("n", 0) + 1
            if other and len(runs) == 1:
                self.other(session, other)
            if fails:
                raise ValueError

        with suppress(ValueError):
            session.transact(count)
        return len(runs), session.get("n")

    def end_all(self, session: Any, user: str, keep: bool) -> int:
        return self.site.end_all_of(user, session if keep else None)

    def other(self, session: Any, request: Request) -> None:
        cookies, early, late = request
        ids = [which if isinstance(which, str) else self.jar[-1 - which % len(self.jar)] for which in cookies]
        sent = self.site.serve([id for id in ids if id], self._page(early), self._page(late))
        self.seen.append(("Set-Cookie", sent))
        if sent is not None:
            self.jar.append(sent)

    def wait(self, session: Any, seconds: float) -> None:
        self.site.now += seconds
