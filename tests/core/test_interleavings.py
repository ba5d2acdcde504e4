"""Every order in which two requests of one session can meet at the store, and very many of three.

``MINISESSION_SCHEDULES=100`` follows every three in up to 100 orders, and pairs in all: 390,000 schedules in a
minute and a half.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from minisession import MemoryStore, Session, SQLiteStore, destroy_session, destroy_sessions_of, lifecycle
from minisession.lifecycle import Lifecycle
from minisession.stores.base import TOMBSTONE
from minisession.visit import Visit

from ..support import explorer
from ..support.browser import Clock
from ..support.explorer import LATE_TICKS, SHORT_TICKS, TICKS, Explorer, Scenario, World
from ..support.promises import (
    DEAD,
    DELETED,
    IN_TIME,
    INVARIANTS,
    KEPT,
    LATE,
    LOGS_IN,
    MINE,
    NEW_ID,
    OVER,
    READS,
    REAL,
    Changes,
    Request,
)
from ..support.replay import Tape
from ..support.rows import row
from ..support.tools import need_module

LONG = "MINISESSION_SCHEDULES" in os.environ
SCHEDULES = int(os.environ.get("MINISESSION_SCHEDULES", "60"))  # of three requests
MOST = 10_000 if LONG else 120  # of two requests that come late in their session's life
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


def count_in_vain(session: Session, tape: Tape) -> None:
    def fail(session: Session) -> None:
        session["n"] = -1
        raise ValueError

    with suppress(ValueError):
        session.transact(fail)


def hold_the_cart(session: Session, tape: Tape) -> Changes:
    """What was taken from the session before others' changes came is the session's still."""
    cart = session.setdefault("cart", [])
    session[tape.name] = tape.name
    session.save()
    tape.saved(**{tape.name: tape.name})
    cart.append(tape.name)
    return {"cart": list(cart)}


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


def replace_and_write(session: Session, tape: Tape) -> Changes:
    session.regenerate(keep=True)
    session[tape.name] = tape.name
    return {tape.name: tape.name}


def replace_twice(session: Session, tape: Tape) -> None:
    session.regenerate(keep=True)
    session.save()
    session.regenerate(keep=True)


def log_out(session: Session, tape: Tape) -> None:
    session.destroy()


def log_out_everywhere(session: Session, tape: Tape) -> None:
    destroy_sessions_of(tape, "ada")


def log_out_the_others(session: Session, tape: Tape) -> None:
    destroy_sessions_of(tape, "ada", keep=session)


def log_out_the_others_and_replace(session: Session, tape: Tape) -> None:
    destroy_sessions_of(tape, "ada", keep=session)
    session.regenerate(keep=True)


def log_out_one(session: Session, tape: Tape) -> None:
    """As from another device, where the list shows the handle of this one."""
    tape.result = destroy_session(tape, "ada", sha256(b"x").hexdigest()[:16])


READ = Request("read", look, reads=True)
READ_ROLLING = Request("read, rolling", look, reads=True, rolling=True)
WRITE = Request("write k", write("k"))
WRITE_OWN = Request("write a key of its own", write(None))
WRITE_ROLLING = Request("write a key of its own, rolling", write(None), rolling=True)
WRITE_OUTSIDE = Request("write a key of its own, outside", write(None), outside=True)
DELETE = Request("delete k", delete)
CART = Request("change the cart inside", fill_cart)
TRANSACT = Request("transact", count_up)
SAVE = Request("save, then go on", save_then_go_on)
TOUCH = Request("touch", lambda session, tape: session.touch(), reads=True)
HOLD = Request("hold the cart, save, change it", hold_the_cart)
IN_VAIN = Request("transact, in vain", count_in_vain, reads=True)
REGENERATE = Request("regenerate", regenerate(), sends=True, ends=True)
SUDO = Request("regenerate, keep", regenerate(keep=True), sends=True, keeps=True)
SUDO_WRITE = Request("regenerate, keep, write a key of its own", replace_and_write, sends=True, keeps=True)
SUDO_TWICE = Request("regenerate, keep, twice", replace_twice, sends=True, keeps=True)
DROP = Request("keep all but the user", regenerate(keep=True, user=None), sends=True, keeps=True, drops=True, ends=True)
LOGIN = Request("bob's login", regenerate(user="bob"), sends=True, user="bob", ends=True)
LOGIN_KEEP = Request("bob's login, keep", regenerate(keep=True, user="bob"), sends=True, user="bob", keeps=True)
LOGIN_AGAIN = Request("ada's login, keep", regenerate(keep=True, user="ada"), sends=True, user="ada", keeps=True)
LOGOUT = Request("logout", log_out, ends=True)
DEVICE = Request("end this one of ada's", log_out_one, ends=True, ends_one_of="ada")
EVERYWHERE = Request("end all of ada's", log_out_everywhere, ends_all_of="ada")
OTHERS = Request("end ada's others", log_out_the_others, ends_all_of="ada", spares=True)
OTHERS_SUDO = Request(
    *("end ada's others, regenerate, keep", log_out_the_others_and_replace),
    sends=True, keeps=True, ends_all_of="ada", spares=True,
)  # fmt: skip
REQUESTS = (
    *(READ, READ_ROLLING, WRITE, WRITE_OWN, WRITE_ROLLING, WRITE_OUTSIDE, DELETE),
    *(CART, HOLD, TRANSACT, IN_VAIN, SAVE, TOUCH),
    *(REGENERATE, SUDO, SUDO_WRITE, SUDO_TWICE, DROP, LOGIN, LOGIN_KEEP, LOGIN_AGAIN),
    *(LOGOUT, DEVICE, EVERYWHERE, OTHERS, OTHERS_SUDO),
)

ADAS = Request("ada's login", begin("ada"), user="ada")
NOBODYS = Request("a visit", begin(None))
BEGINNINGS = (ADAS, NOBODYS, None)


def memory(clock: Clock) -> MemoryStore:
    return MemoryStore(max_sessions=1000, clock=clock)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.CRITICAL, "minisession")
    monkeypatch.setattr("minisession.lifecycle.LONGEST_PAUSE", 0)


# Every order


@row("C15", "P4", "P5", "P8")
@pytest.mark.parametrize("first", BEGINNINGS, ids=["ada's", "nobody's", "no session"])
def test_nothing_is_lost_and_nobody_let_in_whatever_the_order_of_two(
    first: Request | None, count: Callable[[str], None]
) -> None:
    """All schedules of all pairs, while the clock may go on at any moment."""
    explored = Explorer(memory)
    pairs = [Scenario(first, pair) for pair in combinations_with_replacement(REQUESTS, 2)]
    for pair in pairs:
        assert explored.all(pair)

    assert {*explored.checks, IN_TIME} == {*INVARIANTS}
    count(f"{len(pairs)} pairs of requests and a clock, {first.does if first else 'nothing'} before: all {explored}")


def test_nothing_is_lost_and_nobody_let_in_in_many_orders_of_three(count: Callable[[str], None]) -> None:
    """All schedules of three, up to a bound, and some by chance, with the clock and other beginnings."""
    explored, choose, whole = Explorer(memory), random.Random(SEED), 0
    threes = list(combinations_with_replacement(REQUESTS, 3))
    for three in threes:
        ticks = choose.choice((TICKS, LATE_TICKS, SHORT_TICKS))
        explored.some(Scenario(choose.choice(BEGINNINGS), three, ticks=ticks), SCHEDULES // 20, choose)
    followed = threes if LONG else choose.sample(threes, 250)
    for three in followed:
        whole += explored.all(Scenario(ADAS, three, clock=False), most=SCHEDULES)

    count(
        f"{len(threes)} threes by chance (seed {SEED}), {len(followed)} in up to {SCHEDULES} orders,"
        f" {whole} in all: {explored}"
    )


@row("C20")
def test_a_request_that_came_in_time_keeps_its_session_in_whatever_order(count: Callable[[str], None]) -> None:
    """Less than half of the lifetime is left when it comes, and before it is answered the rest would run out."""
    explored, whole = Explorer(memory), 0
    pairs = [*combinations_with_replacement(REQUESTS, 2)]
    for pair in pairs:
        whole += explored.all(Scenario(ADAS, pair, ticks=LATE_TICKS), most=MOST)

    assert {*explored.checks} == {*INVARIANTS}
    count(f"{len(pairs)} pairs late in their session's life, up to {MOST} orders, {whole} in all: {explored}")


def pairs_for_a_real_store() -> list[tuple[Request, Request]]:
    """Return all pairs, or a part: files and servers take their time."""
    pairs = [*combinations_with_replacement(REQUESTS, 2)]
    return pairs if LONG else random.Random(SEED).sample(pairs, 120)


class Emptied:
    """Opens a store once, and empties it for each schedule: by ``clear``, where that takes tombstones, too."""

    def __init__(
        self, open_store: Callable[[Callable[[], float]], Any], empty: Callable[[], object] | None = None
    ) -> None:
        self.clock = Clock()
        self.store = open_store(lambda: self.clock())
        self.empty = empty or self.store.clear

    def __call__(self, clock: Clock) -> Any:
        self.clock = clock
        self.empty()
        return self.store


def test_in_sqlite_the_order_of_two_is_of_no_matter_either(tmp_path: Path, count: Callable[[str], None]) -> None:
    """All schedules again, against the real file."""
    opened = Emptied(lambda clock: SQLiteStore(tmp_path / "sessions.db", synchronous="NORMAL", clock=clock))
    explored = Explorer(opened)
    for pair in (pairs := pairs_for_a_real_store()):
        assert explored.all(Scenario(ADAS, pair))
    opened.store.close()

    count(f"SQLite: {len(pairs)} pairs, {explored}")


def test_in_redis_the_order_of_two_is_of_no_matter_either(count: Callable[[str], None]) -> None:
    """Its own clock goes, so time passes for nobody."""
    from ..support.redis_server import redis_server  # which skips this test alone, if there is none

    redis = need_module("minisession.stores.redis")
    with redis_server() as server:
        opened = Emptied(lambda clock: redis.RedisStore(server.url, clock=clock), server.client.flushall)
        explored = Explorer(opened)
        for pair in (pairs := pairs_for_a_real_store()):
            assert explored.all(Scenario(ADAS, pair, clock=False))
        opened.store.close()

    count(f"Redis: {len(pairs)} pairs, {explored}")


class Ends(Explorer):
    """Collects how schedules end."""

    def __init__(self) -> None:
        super().__init__(memory)
        self.ends: set[str] = set()

    def end(self, world: World) -> None:
        stored = {id: world.store.load(id) for id in sorted(world.journal.lives)}
        self.ends.add(f"{world.jar} {stored}")
        super().end(world)


@pytest.mark.parametrize("requests", [(SAVE, SUDO), (SUDO, DEVICE), (WRITE, LOGIN_KEEP, DELETE), (SAVE, LOGOUT, LOGIN)])
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


def test_a_logout_that_comes_when_the_tombstone_is_gone_does_not_reach_the_heir() -> None:
    """All that `OVER` leaves out, and why.

    One request gives the session a new id and keeps it (``regenerate(keep=True)``), and another, sent
    with the old id, logs out when that has been a tombstone for 15 seconds: nothing is left of it that
    leads to the heir.  If the heir's cookie is the last to arrive, the browser is logged in.
    """
    strict = Explorer(memory, strict=True)
    late = [strict.find(Scenario(ADAS, (request, LOGOUT))) for request in (SUDO, LOGIN_KEEP)]

    assert [violation.invariant for violation in late] == [OVER, OVER]
    assert all(" s pass" in violation.story for violation in late)
    for requests in combinations_with_replacement(REQUESTS, 2):
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
        return stored is not None and (not stored.data or super().touch(id, stored.data, expires_at, user))


class Rotating(MemoryStore):
    """What `rotate` does is `_rotate`'s to say."""

    def rotate(
        self,
        old: str,
        seen: bytes,
        new: str,
        data: bytes,
        expires_at: float,
        user: str | None = None,
        *,
        inherits: bool,
    ) -> bool:
        return self._rotate(old, seen, inherits, (new, data, expires_at, user))

    def _rotate(self, old: str, seen: bytes, inherits: bool, record: Any) -> bool:
        return super().rotate(old, seen, *record, inherits=inherits)


class WithoutTombstone(Rotating):
    def _rotate(self, old: str, seen: bytes, inherits: bool, record: Any) -> bool:
        return self.load(old) == (seen, ANY) and self.delete(old) and self.create(*record)


class WithoutBurial(Rotating):
    def _rotate(self, old: str, seen: bytes, inherits: bool, record: Any) -> bool:
        return self.load(old) == (seen, ANY) and self.create(*record)


class WithoutCompareInRotate(Rotating):
    def _rotate(self, old: str, seen: bytes, inherits: bool, record: Any) -> bool:
        stored = self.load(old)
        return stored is not None and super()._rotate(old, stored.data, inherits, record)


class WithoutHeir(Rotating):
    """Nobody inherits."""

    def _rotate(self, old: str, seen: bytes, inherits: bool, record: Any) -> bool:
        return super()._rotate(old, seen, False, record)


class HeirsNotFollowed(MemoryStore):
    def heir(self, id: str) -> str | None:
        return None


class TombstoneIsAnEnd(MemoryStore):
    """One that is there to be deleted, and counts."""

    def delete(self, id: str) -> bool:
        return self.load(id) == (TOMBSTONE, ANY) or super().delete(id)


def without_merge(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("minisession.shelf.merge", lambda base, ours, theirs: ours)


def without_place(patch: pytest.MonkeyPatch) -> None:
    """A merge puts other lists and dicts in the place of those that the app holds."""
    patch.setattr(Visit, "adopt", lambda self, data: setattr(self, "data", data))


def without_new_id(patch: pytest.MonkeyPatch) -> None:
    def regenerate(self: Visit, keep: bool, user: Any, now: float) -> None:
        self.user, self.max_age_set = user, True

    patch.setattr(Visit, "regenerate", regenerate)


def without_touch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lifecycle, "_touch_once", lambda self, visit: self._until_done(visit, self.shelf.write))


def without_early_touch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lifecycle, "EARLY_TOUCH", 0.0)


def without_restoring(patch: pytest.MonkeyPatch) -> None:
    """What a transact leaves that failed stays."""
    patch.setattr(Visit, "snapshot", lambda self: lambda: None)


def without_user(patch: pytest.MonkeyPatch) -> None:
    """Whoever an heir belongs to."""
    patch.setattr("minisession.users._is_of", lambda user, stored: stored is not None)


def without_keeping(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("minisession.users.ids_of", lambda session: set())


def forgetful_listing(patch: pytest.MonkeyPatch) -> None:
    """What was rotated between the two halves of one listing is not in it."""
    patch.setattr(explorer, "stands", lambda stored: stored is not None and stored.data != TOMBSTONE)


@pytest.mark.parametrize(
    ("protection", "requests", "broken"),
    [
        (without_merge, (WRITE_OWN, WRITE_OWN), KEPT),
        (WithoutCompare, (WRITE_OWN, WRITE_OWN), KEPT),
        (WithoutGone, (WRITE, LOGOUT), DEAD),
        (WithoutSeenInTouch, (READ_ROLLING, LOGIN), REAL),
        (WithoutTombstone, (WRITE, LOGIN), LATE),
        (WithoutBurial, (READ, SUDO), DEAD),
        (WithoutCompareInRotate, (WRITE_OWN, SUDO), KEPT),
        (WithoutHeir, (SUDO, LOGOUT), OVER),
        (HeirsNotFollowed, (SUDO, LOGOUT), OVER),
        (HeirsNotFollowed, (SUDO, REGENERATE), OVER),
        (HeirsNotFollowed, (SUDO, DEVICE), OVER),
        (HeirsNotFollowed, (LOGIN_AGAIN, LOGIN_AGAIN), LOGS_IN),
        (TombstoneIsAnEnd, (SUDO, LOGOUT), OVER),
        (TombstoneIsAnEnd, (SUDO, DEVICE), OVER),
        (without_place, (CART, HOLD), KEPT),
        (without_new_id, (READ, LOGIN), NEW_ID),
        (without_touch, (READ, READ), READS),
        (without_early_touch, (WRITE, READ), IN_TIME),
        (without_restoring, (READ, IN_VAIN), READS),
        (without_user, (LOGIN_KEEP, EVERYWHERE), MINE),
        (without_keeping, (READ, OTHERS), MINE),
        (forgetful_listing, (SUDO, EVERYWHERE), OVER),
    ],
)
def test_without_a_protection_the_explorer_finds_what_breaks(
    protection: Any, requests: tuple[Request, ...], broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it would find it where the protection has a gap."""
    store = memory
    if isinstance(protection, type):
        store = lambda clock: protection(max_sessions=1000, clock=clock)  # noqa: E731  # shorter than a def, and clear
    else:
        protection(monkeypatch)

    ticks = LATE_TICKS if broken == IN_TIME else TICKS
    assert Explorer(store).find(Scenario(ADAS, requests, ticks=ticks)).invariant == broken
