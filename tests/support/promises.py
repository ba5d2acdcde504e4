"""What must hold in whatever order requests meet.

Told from outside, by what the store was asked and said, and by what was answered to whom: nothing here
knows how sessions are kept, only what is promised of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from minisession import Session
from minisession.stores.base import TOMBSTONE

KEPT = "no acknowledged change is lost, unless a later one or a deletion replaced it, or its session had ended"
DEAD = "no destroyed, expired or replaced id ever gives data or a user again"
ONE_HEIR = "at most one successor inherits from an id"
NEW_ID = "no user without a new id"
READS = "requests that only read write no data"
REAL = "every Set-Cookie names a session that existed when its request last stored or touched it"
LATE = "a request that comes with an id just replaced does not overwrite the new one's cookie"
OVER = "after all responses, in any order, no browser holds a session that its user ended"
INVARIANTS = (KEPT, DEAD, ONE_HEIR, NEW_ID, READS, REAL, LATE, OVER)

DELETED: Final = object()
Changes = Mapping[str, Any]  # key: its new value, DELETED, or a function of the old value
Call = tuple[Any, ...]  # verb, id, ...


@dataclass(frozen=True, eq=False)
class Request:
    """What a request does, and what is expected of it."""

    does: str
    page: Callable[[Session, Any], Changes | None]  # takes a `replay.Tape`, too; returns what it changed
    rolling: bool = False
    reads: bool = False  # and nothing else
    user: str | None = None  # whose session it makes
    keeps: bool = False  # that session inherits
    ends: bool = False  # the session is over when this is answered
    ends_all_of: str | None = None  # and so is every session of this user...
    spares: bool = False  # ...but its own
    sends: bool = False  # it may change the cookie even if it comes late


@dataclass(eq=False)
class Life:
    """What there is to know of an id."""

    born: int  # at which step
    user: str | None
    expires_at: float
    parent: Life | None  # whose data it inherits
    changes: list[tuple[int, int, Changes]] = field(default_factory=list)  # made and acknowledged at these steps
    ended: str = ""  # how
    buried_until: float = 0  # a tombstone is in its place; a logout with the old id takes it away
    announced: bool = False  # a Set-Cookie named it

    def family(self) -> list[Life]:
        """Return whom it inherits from, eldest first, and itself."""
        return [*(self.parent.family() if self.parent else ()), self]

    def possible(self) -> dict[str, list[Any]]:
        """Return, by key, what can be in it if no acknowledged change is lost: one value, but for deletions.

        The change acknowledged last is there.  But one that was made in ignorance of a deletion gives way
        to it: it cannot undo it, and what others made of the key since may stand.
        """
        possible: dict[str, list[Any]] = {}
        deletions: dict[str, list[int]] = {}
        for made, acknowledged, changes in (change for life in self.family() for change in life.changes):
            for key, change in changes.items():
                after, deleted = [], deletions.setdefault(key, [])
                for before in possible.get(key, [DELETED]):
                    ignorant = any(made < step for step in deleted)
                    if ignorant:
                        after.append(before)
                    if not ignorant or before is not DELETED or len(deleted) > 1:  # of two, either may be the one
                        after.append(change(0 if before is DELETED else before) if callable(change) else change)
                possible[key] = after
                if change is DELETED:
                    deleted.append(acknowledged)
        return possible


class Trip:
    """A request on its way, as the journal sees it."""

    def __init__(self, request: Request, cookie: str | None, step: int) -> None:
        self.request = request
        self.cookie = cookie  # the id that it was sent with
        self.id = cookie  # whose session it has now
        self.steps = [step]  # when it was sent, and when it got each of the store's answers
        self.parent: Life | None = None  # the session that it found
        self.late = False  # it found a tombstone
        self.wrote: set[str] = set()  # ids that it stored or touched
        self.swept = step  # when it last listed a user's sessions


class Violation(AssertionError):
    """A promise is broken; the story tells how it came."""

    def __init__(self, invariant: str, why: str) -> None:
        super().__init__(f"{invariant}; but {why}")
        self.invariant = invariant
        self.story = ""

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.story}"


class Journal:
    """Follows one schedule."""

    def __init__(self, checks: Counter[str], *, strict: bool = False) -> None:
        self.checks, self.strict = checks, strict
        self.lives: dict[str, Life] = {}
        self.step = 0
        self.ended: list[Callable[[Life], bool]] = []  # by their users; these and what inherits from them

    def hold(self, invariant: str, holds: bool, why: str) -> None:
        self.checks[invariant] += 1
        if not holds:
            raise Violation(invariant, why)

    def called(self, trip: Trip, call: Call, answer: Any, now: float) -> None:
        """Note what the store was asked, and said."""
        verb, id = call[:2]
        life, request = self.lives.get(id), trip.request
        trip.steps.append(self.step)
        self.hold(READS, verb in ("load", "touch") or not request.reads, f"a reader calls {verb}")
        match call:
            case "load", _ if life:
                found = answer is not None and answer.data != TOMBSTONE
                self.hold(DEAD, not (found and life.ended), f"{id}, which was {life.ended}, is loaded")
                if len(trip.steps) == 2:  # its first call
                    trip.parent = life if found else None
                    trip.late = now < life.buried_until
                    trip.id = id if found or trip.late else None
            case "ids", _:
                trip.swept = self.step
            case _ if not answer:
                pass
            case "create", _, _, expires_at, user:
                parent = trip.parent if request.keeps else None
                whose = request.user or (parent.user if parent else None)
                self.hold(NEW_ID, life is None and user == whose, f"{id} is created for {user}")
                self.lives[id] = Life(self.step, whose, expires_at, parent)
                trip.id = id
                trip.wrote.add(id)
            case "delete", _ if life:
                life.ended, life.buried_until = life.ended or "destroyed", 0
            case "replace", _, _, b"", until if life:  # the tombstone
                life.ended, life.buried_until = life.ended or "replaced", until
            case ("replace", _, _, _, expires_at, user) | ("touch", _, _, expires_at, user) if life:
                self.hold(DEAD, verb == "touch" or not life.ended, f"{id}, which was {life.ended}, is stored again")
                self.hold(NEW_ID, user == life.user, f"{id}, which was {life.user}'s, becomes {user}'s")
                if not life.ended:
                    life.expires_at = expires_at
                    trip.wrote.add(id)
        self.passed(now)  # a request that waited for longer than a lifetime stores what has expired

    def saved(self, trip: Trip, made: int, changes: Changes) -> None:
        """Note that changes are acknowledged, which the request had made after so many answers."""
        if not changes:
            return
        life = None if trip.id is None else self.lives[trip.id]
        self.hold(KEPT, life is not None, f"{dict(changes)} is acknowledged and stored nowhere")
        if life is not None and not life.ended:
            life.changes.append((trip.steps[made], self.step, changes))

    def responded(self, trip: Trip, answered: bool, cookie: str | None) -> None:
        """Note the response, and the id that it sets."""
        request = trip.request
        if cookie:
            self.hold(REAL, cookie in trip.wrote, f"the cookie of {cookie} is sent, which had ended")
            self.hold(LATE, request.sends or not trip.late, f"the cookie of {cookie} is sent")
            self.lives[cookie].announced = True
        if answered and request.ends and trip.cookie is not None:
            ended = self.lives[trip.cookie]
            if self.strict or ended.ended != "replaced":  # the one narrowing: see test_interleavings.py
                self.ended.append(lambda life: ended in life.family())
        if answered and request.ends_all_of:
            user, swept = request.ends_all_of, trip.swept
            spared = self.lives.get(trip.id or "") if request.spares else None

            def was_there(life: Life) -> bool:
                return life.user == user and life.born < swept and life is not spared

            for id, life in self.lives.items():
                self.hold(OVER, bool(life.ended) or not was_there(life), f"{id} is left")
            self.ended.append(lambda life: life.user == user and any(map(was_there, life.family())))

    def passed(self, now: float) -> None:
        """Note what has expired."""
        for life in self.lives.values():
            if life.expires_at <= now:
                life.ended = life.ended or "expired"

    def over(self, held: str | None, look: Callable[[str], tuple[dict[str, Any], str | None]]) -> None:
        """Check, after all responses, what the browser holds and what each id gives."""
        for id, life in self.lives.items():
            found, user = look(id)
            data = dict(found)
            if life.ended:
                self.hold(DEAD, (data, user) == ({}, None), f"{id}, which was {life.ended}, gives {data} of {user}")
            else:
                for key, values in life.possible().items():
                    self.hold(KEPT, data.pop(key, DELETED) in values, f"{id} has not {key} = {values[-1]}")
                self.hold(KEPT, not data, f"{id} has {data}, which nobody stored")
                self.hold(NEW_ID, user == life.user, f"{id}, which was {life.user}'s, is {user}'s")
            heirs = [heir for heir in self.lives.values() if heir.parent is life and (heir.announced or not heir.ended)]
            self.hold(ONE_HEIR, len(heirs) + (not life.ended) <= 1, f"{id} has {len(heirs)}, or lives on beside one")
        if held in self.lives and not self.lives[held].ended:
            for ended in self.ended:
                self.hold(OVER, not ended(self.lives[held]), f"it holds {held}")
