"""Every order in which two requests of one session can meet at the store, and very many of three.

``MINISESSION_SCHEDULES=20000`` tries all schedules of nearly all threes, and others by chance: 1,400,000 in
five minutes.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import pytest

from minisession import MemoryStore, Session, SQLiteStore, destroy_sessions_of
from minisession.lifecycle import Lifecycle
from minisession.stores.base import TOMBSTONE

from ..support import explorer
from ..support.browser import Clock
from ..support.explorer import Explorer, Scenario, World
from ..support.promises import (
    DEAD,
    DELETED,
    INVARIANTS,
    KEPT,
    LATE,
    NEW_ID,
    ONE_HEIR,
    OVER,
    READS,
    REAL,
    Changes,
    Request,
)
from ..support.replay import Tape
from ..support.tools import need_module

LONG = "MINISESSION_SCHEDULES" in os.environ
SCHEDULES = int(os.environ.get("MINISESSION_SCHEDULES", "60"))  # of three requests
SEED = 4

# What requests do


def begin(user: str | None) -> Callable[[Session, Tape], Changes]:
    def page(session: Session, tape: Tape) -> Changes:
        if user:
            session.regenerate(user=user)
        session.update({"k": 0, "n": 0, "cart": []})
        return {"k": 0, "n": 0, "cart": []}

    return page


def write(key: str | None) -> Callable[[Session, Tape], Changes]:
    def page(session: Session, tape: Tape) -> Changes:
        session[key or tape.name] = tape.name
        return {key or tape.name: tape.name}

    return page


def delete(session: Session, tape: Tape) -> Changes:
    return {} if session.pop("k", None) is None else {"k": DELETED}


def fill_cart(session: Session, tape: Tape) -> Changes:
    session.setdefault("cart", []).append(tape.name)
    return {"cart": list(session["cart"])}


def count_up(session: Session, tape: Tape) -> None:
    session.transact(lambda session: session.update(n=session.get("n", 0) + 1))
    tape.saved(n=lambda n: n + 1)


def save_then_go_on(session: Session, tape: Tape) -> Changes:
    session["early"] = tape.name
    session.save()
    tape.saved(early=tape.name)
    session["late"] = tape.name
    return {"late": tape.name}


def look(session: Session, tape: Tape) -> None:
    dict(session)


def regenerate(**how: Any) -> Callable[[Session, Tape], None]:
    return lambda session, tape: session.regenerate(**how)


def log_out(session: Session, tape: Tape) -> None:
    session.destroy()


def log_out_everywhere(session: Session, tape: Tape) -> None:
    destroy_sessions_of(tape, "ada")


def log_out_the_others(session: Session, tape: Tape) -> None:
    destroy_sessions_of(tape, "ada", keep=session)


READ = Request("read", look, reads=True)
READ_ROLLING = Request("read, rolling", look, reads=True, rolling=True)
WRITE = Request("write k", write("k"))
WRITE_OWN = Request("write a key of its own", write(None))
WRITE_ROLLING = Request("write a key of its own, rolling", write(None), rolling=True)
DELETE = Request("delete k", delete)
CART = Request("change the cart inside", fill_cart)
TRANSACT = Request("transact", count_up)
SAVE = Request("save, then go on", save_then_go_on)
TOUCH = Request("touch", lambda session, tape: session.touch(), reads=True)
REGENERATE = Request("regenerate", regenerate(), sends=True)
REGENERATE_KEEP = Request("regenerate, keep", regenerate(keep=True), sends=True, keeps=True)
LOGIN = Request("bob's login", regenerate(user="bob"), sends=True, user="bob")
LOGIN_KEEP = Request("bob's login, keep", regenerate(keep=True, user="bob"), sends=True, user="bob", keeps=True)
LOGOUT = Request("logout", log_out, ends=True)
EVERYWHERE = Request("end all of ada's", log_out_everywhere, ends_all_of="ada")
OTHERS = Request("end ada's others", log_out_the_others, ends_all_of="ada", spares=True)
REQUESTS = (
    *(READ, READ_ROLLING, WRITE, WRITE_OWN, WRITE_ROLLING, DELETE, CART, TRANSACT, SAVE, TOUCH),
    *(REGENERATE, REGENERATE_KEEP, LOGIN, LOGIN_KEEP, LOGOUT, EVERYWHERE, OTHERS),
)

ADAS = Request("ada's login", begin("ada"), user="ada")
NOBODYS = Request("a visit", begin(None))
BEGINNINGS = (ADAS, NOBODYS, None)


def memory(clock: Clock) -> MemoryStore:
    return MemoryStore(max_sessions=1000, clock=clock)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "minisession")


# Every order


@pytest.mark.parametrize("first", BEGINNINGS, ids=["ada's", "nobody's", "no session"])
def test_nothing_is_lost_and_nobody_let_in_whatever_the_order_of_two(
    first: Request | None, count: Callable[[str], None]
) -> None:
    """All schedules of all pairs, while the clock may go on at any moment."""
    explored = Explorer(memory)
    pairs = [Scenario(first, pair) for pair in combinations_with_replacement(REQUESTS, 2)]
    for pair in pairs:
        assert explored.all(pair)

    assert {*explored.checks} == {*INVARIANTS}
    count(f"{len(pairs)} pairs of requests and a clock, {first.does if first else 'nothing'} before: all {explored}")


def test_nothing_is_lost_and_nobody_let_in_in_many_orders_of_three(count: Callable[[str], None]) -> None:
    """All schedules of three, up to a bound, and some by chance, with the clock and other beginnings."""
    explored, choose, whole = Explorer(memory), random.Random(SEED), 0
    threes = list(combinations_with_replacement(REQUESTS, 3))
    for three in threes:
        explored.some(Scenario(choose.choice(BEGINNINGS), three), SCHEDULES // 20, choose)
    followed = threes if LONG else choose.sample(threes, 250)
    for three in followed:
        whole += explored.all(Scenario(ADAS, three, clock=False), most=SCHEDULES)

    count(
        f"{len(threes)} threes by chance (seed {SEED}), {len(followed)} in up to {SCHEDULES} orders,"
        f" {whole} in all: {explored}"
    )


class Emptied:
    """Opens a store once, and empties it for each schedule."""

    def __init__(self, open_store: Callable[[Callable[[], float]], Any]) -> None:
        self.clock = Clock()
        self.store = open_store(lambda: self.clock())

    def __call__(self, clock: Clock) -> Any:
        self.clock = clock
        self.store.clear()
        return self.store


def test_in_sqlite_the_order_of_two_is_of_no_matter_either(tmp_path: Path, count: Callable[[str], None]) -> None:
    """All schedules again, against the real file."""
    opened = Emptied(lambda clock: SQLiteStore(tmp_path / "sessions.db", synchronous="NORMAL", clock=clock))
    explored = Explorer(opened)
    for pair in combinations_with_replacement(REQUESTS, 2):
        assert explored.all(Scenario(ADAS, pair))
    opened.store.close()

    count(f"SQLite: all pairs, {explored}")


def test_in_redis_the_order_of_two_is_of_no_matter_either(count: Callable[[str], None]) -> None:
    """Its own clock goes, so time passes for nobody."""
    from ..support.redis_server import redis_server  # which skips this test alone, if there is none

    redis = need_module("minisession.stores.redis")
    with redis_server() as server:
        opened = Emptied(lambda clock: redis.RedisStore(server.url, clock=clock))
        explored = Explorer(opened)
        for pair in combinations_with_replacement(REQUESTS, 2):
            assert explored.all(Scenario(ADAS, pair, clock=False))
        opened.store.close()

    count(f"Redis: all pairs, {explored}")


class Ends(Explorer):
    """Collects how schedules end."""

    def __init__(self) -> None:
        super().__init__(memory)
        self.ends: set[str] = set()

    def end(self, world: World) -> None:
        stored = {id: world.store.load(id) for id in sorted(world.journal.lives)}
        self.ends.add(f"{world.jar} {stored}")
        super().end(world)


@pytest.mark.parametrize("requests", [(SAVE, REGENERATE_KEEP), (WRITE, LOGIN_KEEP, DELETE), (SAVE, LOGOUT, LOGIN)])
def test_what_is_left_out_as_the_same_in_another_order_is_the_same(
    requests: tuple[Request, ...], monkeypatch: pytest.MonkeyPatch, count: Callable[[str], None]
) -> None:
    """The explorer claims which steps are independent; without the claim the same ends are found."""
    scenario = Scenario(ADAS, requests, clock=len(requests) == 2)
    few, every = Ends(), Ends()
    few.all(scenario)
    monkeypatch.setattr(explorer, "independent", lambda one, other: False)
    every.all(scenario)

    assert few.ends == every.ends
    count(f"{scenario}: {few.schedules:,} schedules stand for {every.schedules:,}, and end in {len(few.ends)} ways")


# The one promise that is narrowed


def test_a_logout_that_comes_after_the_id_was_replaced_does_not_reach_the_heir() -> None:
    """All that `OVER` leaves out, and why.

    One request gives the session a new id and keeps it (``regenerate(keep=True)``), and another, sent
    with the old id, logs out when the old record has been replaced.  It can end no more than the
    tombstone, and that is the empty record, which connect-redis reads as absent: it names no heir.  If
    the heir's cookie is the last to arrive, the browser is logged in.  With the logout at the store
    first, the heir dies before its cookie is sent; and `destroy_sessions_of` finds every heir.
    """
    strict = Explorer(memory, strict=True)
    found = [strict.find(Scenario(ADAS, (request, LOGOUT), clock=False)) for request in (REGENERATE_KEEP, LOGIN_KEEP)]

    assert [violation.invariant for violation in found] == [OVER, OVER]
    assert found[0].story.endswith(
        " → A load x → A create a → A bury x → B load x: a tombstone"
        " → B's answer arrives: the cookie is removed → A's answer arrives: the browser holds a"
    )
    for requests in combinations_with_replacement(REQUESTS, 2):
        if not (LOGOUT in requests and any(request.keeps for request in requests)):
            strict.all(Scenario(ADAS, requests, clock=False))


# Without its protections


class WithoutCompare(MemoryStore):
    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        stored = self.load(id)
        return stored is not None and super().replace(id, stored.data, data, expires_at, user)


class WithoutGone(MemoryStore):
    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        return self.create(id, data, expires_at, user) or super().replace(id, seen, data, expires_at, user)


class WithoutSeenInTouch(MemoryStore):
    def touch(self, id: str, seen: bytes, expires_at: float, user: str | None = None) -> bool:
        stored = self.load(id)
        return stored is not None and super().touch(id, stored.data, expires_at, user)


class WithoutTombstone(MemoryStore):
    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        replaced = super().replace(id, seen, data, expires_at, user)
        if replaced and data == TOMBSTONE:
            self.delete(id)
        return replaced


def without_merge(lifecycle: pytest.MonkeyPatch) -> None:
    lifecycle.setattr("minisession.lifecycle.merge", lambda base, ours, theirs: ours)


def without_burial(lifecycle: pytest.MonkeyPatch) -> None:
    lifecycle.setattr(Lifecycle, "_bury", lambda self, visit: None)


def without_new_id(lifecycle: pytest.MonkeyPatch) -> None:
    lifecycle.setattr(Lifecycle, "regenerate", lambda self, visit, keep, user: setattr(visit, "user", user))


def without_touch(lifecycle: pytest.MonkeyPatch) -> None:
    lifecycle.setattr(Lifecycle, "_touch_if_due", lambda self, visit: self._replace(visit))


def without_more_sweeps(lifecycle: pytest.MonkeyPatch) -> None:
    lifecycle.setattr("minisession.users.MAX_SWEEPS", 1)


@pytest.mark.parametrize(
    ("protection", "requests", "broken"),
    [
        (without_merge, (WRITE_OWN, WRITE_OWN), KEPT),
        (WithoutCompare, (WRITE_OWN, WRITE_OWN), KEPT),
        (WithoutGone, (WRITE, LOGOUT), DEAD),
        (WithoutSeenInTouch, (READ_ROLLING, LOGIN), REAL),
        (WithoutTombstone, (WRITE, LOGIN), LATE),
        (without_burial, (READ, REGENERATE_KEEP), ONE_HEIR),
        (without_new_id, (READ, LOGIN), NEW_ID),
        (without_touch, (READ, READ), READS),
        (without_more_sweeps, (REGENERATE_KEEP, EVERYWHERE), OVER),
    ],
)
def test_without_a_protection_the_explorer_finds_what_breaks(
    protection: Any, requests: tuple[Request, ...], broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it would find it where the protection has a hole."""
    store = memory
    if isinstance(protection, type):
        store = lambda clock: protection(max_sessions=1000, clock=clock)  # noqa: E731  # shorter than a def, and clear
    else:
        protection(monkeypatch)

    assert Explorer(store).find(Scenario(ADAS, requests)).invariant == broken
