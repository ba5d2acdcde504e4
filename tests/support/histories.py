"""Histories of requests, made at random, played on a site, and made smaller where two sites differ."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Protocol, TypeVar

from minisession import SessionError, StoreUnavailable

T = TypeVar("T")
Step = tuple[Any, ...]  # the name of one of `Player`'s methods, and its arguments
Steps = list[Step] | None
Request = tuple[tuple[Any, ...], Steps, Steps, Steps]  # cookies; steps before the headers, in the body, at its close
History = list[tuple[float, float, Request]]  # seconds that pass before it; how far ahead its server's clock is

FORGED, UNKNOWN = "forged", "signed, and in no store"
PASSED = (0, 0, 0, 1, 14, 15, 40, 60, 99, 100, 0.0006)  # lifetimes are 50, 60, 100 and 150, a tombstone's 15
AHEAD = (*[0] * 6, 4, 4, 6)
USERS: tuple[dict[str, Any], ...] = ({}, {"user": "ada"}, {"user": "bob"}, {"user": None})
FAILURES = ("raises", "is unfit", "is too large", "is down", "is lost")
STEPS: list[list[Step]] = [  # one of these, and of that, one
    [("look",)],
    [("put", key, value) for key in "ab" for value in (1, True, "x")],
    [("pop", key) for key in ("a", "b", "cart")],
    [("fill", 1), ("fill", 2), ("nest", 1), ("nest", 2)],
    [("set_inside", key, 1) for key in "xyz"],
    [("turn",)],
    [("hold", key) for key in ("cart", "cart", "dict", "a")],
    [("hold_nested", key) for key in ("cart", "dict")],
    [("fill_held", 3), ("fill_held", 4)],
    [("fill_held", 5), ("fill_held", 6)],
    [("put_own", key) for key in ("a", "cart", "dict")],
    [("fill_own", 7), ("nest_own",), ("share", "a"), ("share", "dict")],
    [("do", "save")],
    [("do", verb) for verb in ("touch", "reload", "destroy", "clear")],
    [("name",)],
    [("regenerate", {"keep": keep, **user}) for keep in (True, True, False) for user in USERS],
    [("count", fails, None) for fails in ("", "", *FAILURES)],
    [("end_all", user, keep) for user in ("ada", "bob") for keep in (True, False)],
    [("end_one", user, which) for user in ("ada", "bob") for which in (0, 1)],
    [("wait", seconds) for seconds in PASSED[3:]],
    [("set_max_age", age) for age in (None, 50, 150)],
]
# Of the jar: 0 is the last.
COOKIES = (*[(0,)] * 6, (1,), (2,), (0, 1), (1, 0), (2, 1), (FORGED,), (FORGED, 0), (UNKNOWN, 0))
BEGINNINGS: list[list[Step] | None] = [
    [("put", "a", 0), ("fill", 0)],
    [("regenerate", {"user": "ada"}), ("put", "a", 0), ("fill", 0)],
    [("regenerate", {"user": "ada"}), ("set_inside", "z", 0), ("nest", 0), ("nest", 0)],
    None,
]


def history(choose: random.Random) -> History:
    """Return a visitor's first request, and a few more."""
    first: Request = ((), choose.choice(BEGINNINGS), None, None)
    more = [(choose.choice(PASSED), choose.choice(AHEAD), request(choose, 2)) for _ in range(choose.randint(1, 5))]
    return [(0, 0, first), *more]


def request(choose: random.Random, least: int, *, overtaken: bool = True) -> Request:
    """Return a request, with at least so many steps; others may overtake it."""

    def step() -> Step:
        what = choose.random()
        if not overtaken or what > 0.18:
            return choose.choice(choose.choice(STEPS))
        other = request(choose, 1, overtaken=False)
        if what > 0.16:
            return ("job", other[0], other[1])
        return ("other", other) if what < 0.12 else ("count", choose.choice(("", "is lost", "raises")), other)

    def steps(chance: float) -> list[Step] | None:
        return [step() for _ in range(choose.randint(least, 7))] if choose.random() < chance else None

    return choose.choice(COOKIES), steps(0.85), steps(0.15), steps(0.1)


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

    clock: Any  # the store's, to which seconds are added
    ahead: float  # by which that of the server that answers is ahead of it
    down: bool  # the store refuses to write

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""

    def ids(self) -> list[str]:
        """Return whatever is stored under an id that is not a tombstone's."""
        ...

    def has(self, id: str) -> tuple[Any, str | None]:
        """Return all that is stored under an id, and when it ends; and who inherited from it."""
        ...

    def serve(self, ids: list[str], page: Any, later: Any, last: Any) -> str | None:
        """Serve a request with these cookies; return the id in its ``Set-Cookie``: "" removes it, None is no header."""

    def work(self, ids: list[str], page: Any) -> None:
        """Run a page on the session that these cookies stand for, outside of a response."""

    def end_all_of(self, user: str, keep: Any) -> int:
        """End the sessions of a user, but for this one."""
        ...

    def end_one_of(self, user: str, id: str) -> bool:
        """End a session of a user's."""
        ...


class Player:
    """Plays histories, and writes down all that a page can see."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.jar = [""]  # every id that the browser had, latest last; "" is none
        self.names: dict[str, int] = {}  # ids, in the order in which they appear: sites need not count alike
        self.held: list[Any] = []  # values of the session's, kept by the request
        self.own: list[Any] = [0]  # the app's, which it may assign
        self.seen: list[Any] = []

    def play(self, history: History) -> None:
        for passed, ahead, request in history:
            self.wait(None, passed)
            self.site.ahead = ahead
            self.other(None, request)
            self.seen.append(("the app's own", json.dumps(self.own)))
        self._look_into_the_store()

    def _look_into_the_store(self) -> None:
        ids = [*self.names]
        for id in ids:
            stored, heir = self.site.has(id)
            self.seen.append((stored, heir and self._named(heir)))
            if heir and heir not in ids:
                ids.append(heir)
        rest = (str(self.site.has(id)) for id in {*self.site.ids()} - {*ids})
        self.seen.append(sorted(rest))

    def _named(self, id: str) -> int:
        return self.names.setdefault(id, len(self.names))

    def _page(self, steps: list[Step] | None, held: list[Any]) -> Callable[[Any], None] | None:
        def page(session: Any) -> None:
            outer, self.held = self.held, held
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
        data = json.dumps(sorted(session.items()))
        return data, session.user, session.is_new, session.cookie.original_max_age, *moments

    def put(self, session: Any, key: str, value: Any) -> None:
        session[key] = value

    def pop(self, session: Any, key: str) -> Any:
        return json.dumps(session.pop(key))

    def fill(self, session: Any, value: int) -> None:
        fill(session.setdefault("cart", []), value)

    def nest(self, session: Any, value: int) -> None:
        fill(session.setdefault("cart", []), {"in": [value]})

    def set_inside(self, session: Any, key: str, value: int) -> None:
        inside = session.setdefault("dict", {"x": 0, "y": [0]})
        if isinstance(inside, dict):
            inside[key] = value

    def turn(self, session: Any) -> None:
        """Change the order of a nested dict's keys, and nothing else."""
        if isinstance(inside := session["dict"], dict) and inside:
            first = next(iter(inside))
            inside[first] = inside.pop(first)

    def hold(self, session: Any, key: str) -> None:
        self.held.append(session[key])

    def hold_nested(self, session: Any, key: str) -> None:
        outer = session[key]
        inside = outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ()
        self.held.extend(value for value in inside if isinstance(value, (list, dict)))

    def fill_held(self, session: Any, value: int) -> None:
        for held in self.held:
            fill(held, value)

    def put_own(self, session: Any, key: str) -> None:
        session[key] = self.own

    def fill_own(self, session: Any, value: int) -> None:
        fill(self.own, value)

    def nest_own(self, session: Any) -> None:
        """Put the app's own object into one of the session's."""
        if (cart := session["cart"]) is not self.own:
            fill(cart, self.own)

    def share(self, session: Any, key: str) -> None:
        """Let an object stand under two keys."""
        session[key] = session["cart"]

    def set_max_age(self, session: Any, seconds: float | None) -> None:
        session.cookie.max_age = seconds

    def do(self, session: Any, verb: str) -> None:
        getattr(session, verb)()

    def name(self, session: Any) -> Any:
        return self._named(session.id)

    def regenerate(self, session: Any, arguments: dict[str, Any]) -> None:
        session.regenerate(**arguments)

    def count(self, session: Any, fails: str, other: Request | None) -> Any:
        """Transact; in its first run, or in all of them, another request may overtake it; and it may fail."""
        runs: list[str] = []
        result = ""

        def count(session: Any) -> None:
            runs.append(json.dumps(sorted(session.items())))
            session["n"] = session.get("n", 0) + 1
            fill(session.setdefault("cart", []), len(runs))
            self.held.append(session["cart"])
            if other and (len(runs) == 1 or fails == "is lost"):
                self.other(session, other)
            if fails == "raises":
                raise ValueError
            if fails == "is unfit":
                session["b"] = unfit = [0]
                unfit.append({"a set"})  # type: ignore[arg-type]  # that is the point
            if fails == "is too large":
                session["a"] = "x" * 70_000
            self.site.down = fails == "is down"

        try:
            session.transact(count)
        except (ValueError, TypeError, StoreUnavailable) as error:
            result = type(error).__name__
        finally:
            self.site.down = False
        return result, runs, session.get("n")

    def end_all(self, session: Any, user: str, keep: bool) -> int:
        return self.site.end_all_of(user, session if keep else None)

    def end_one(self, session: Any, user: str, which: int) -> bool:
        return self.site.end_one_of(user, self.jar[-1 - which % len(self.jar)])

    def other(self, session: Any, request: Request) -> None:
        cookies, *pages = request
        held: list[Any] = []
        sent = self.site.serve(self._ids(cookies), *(self._page(steps, held) for steps in pages))
        self.seen.append(("Set-Cookie", sent and self._named(sent)))
        if sent is not None:
            self.jar.append(sent)

    def job(self, session: Any, cookies: tuple[Any, ...], steps: Steps) -> None:
        """Work on a session outside of a response."""
        self.site.work(self._ids(cookies), self._page(steps or [], []))

    def _ids(self, cookies: tuple[Any, ...]) -> list[str]:
        ids = (which if isinstance(which, str) else self.jar[-1 - which % len(self.jar)] for which in cookies)
        return [id for id in ids if id]

    def wait(self, session: Any, seconds: float) -> None:
        self.site.pass_time(seconds)


def fill(thing: Any, value: Any) -> None:
    """Add to a list, or a dict; nothing else can be added to, and what is long enough is not."""
    if isinstance(thing, list) and len(thing) < 9:
        thing.append(value)
    elif isinstance(thing, dict):
        thing["f"] = value
