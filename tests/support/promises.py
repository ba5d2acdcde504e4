"""What must hold in whatever order requests meet.

Told from outside, by what the store was asked and said, and by what was answered to whom: nothing here
knows how sessions are kept, only what is promised of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from minisession import Session
from minisession.stores.base import TOMBSTONE, TOMBSTONE_LIFE

KEPT = "no acknowledged change is lost, unless a later one or a deletion replaced it, or its session had ended"
DEAD = "no destroyed, expired or replaced id ever gives data or a user again"
ONE_HEIR = "at most one successor inherits from an id"
NEW_ID = "no user without a new id"
READS = "requests that only read write no data"
REAL = "every Set-Cookie names a session that existed when its request last stored or touched it"
LATE = "a request that comes with an id just replaced does not overwrite the new one's cookie"
OVER = "after all responses, in any order, no browser holds a session that its user ended"
MINE = "what ends a user's sessions ends no session of another user, and not the one that it keeps"
LOGS_IN = "a login that is answered logs in, unless the session that it would have kept had ended"
IN_TIME = "a request that came in time does not lose its session within half its lifetime"
INVARIANTS = (KEPT, DEAD, ONE_HEIR, NEW_ID, READS, REAL, LATE, OVER, MINE, LOGS_IN, IN_TIME)

DELETED: Final = object()
OURS = ("cookie", "minisession")  # members of a record that are not the app's
Changes = Mapping[str, Any]  # key: its new value, DELETED, or a function of the old value
Call = tuple[Any, ...]  # verb, id, ...


@dataclass(frozen=True, eq=False)
class Request:
    """What a request does, and what is expected of it."""

    does: str
    page: Callable[[Session, Any], Changes | None]  # takes a `replay.Tape`, too; returns what it changed
    rolling: bool = False
    outside: bool = False  # it is a job, and nothing is answered
    reads: bool = False  # and nothing else
    user: str | None = None  # whose session it makes
    keeps: bool = False  # that session inherits
    drops: bool = False  # it inherits everything but the user
    ends: bool = False  # the session is over when this is answered; if its result is False, it was before
    ends_all_of: str | None = None  # and so is every session of this user...
    spares: bool = False  # ...but its own
    ends_one_of: str | None = None  # the session is over if it is this user's
    sends: bool = False  # it may change the cookie even if it comes late

    @property
    def copies(self) -> bool:
        """A new session may stand beside the heir that another has made, with the data that this one had."""
        return self.keeps and (self.user is not None or self.drops)


@dataclass(eq=False)
class Life:
    """What there is to know of an id."""

    born: int  # at which step
    user: str | None
    expires_at: float
    parent: Life | None  # whose data it inherits
    copied: Life | None = None  # of whose data it has what its request had seen
    records: list[bytes] = field(default_factory=list)  # all that were stored under it
    changes: list[tuple[int, int, Changes]] = field(default_factory=list)  # made and acknowledged at these steps
    ended: str = ""  # how
    buried_until: float = 0  # a tombstone is in its place
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

    def once_had(self, data: dict[str, Any]) -> bool:
        """Return whether one of its records had these data, and no others."""
        records = [json.loads(record) for record in self.records]
        return any({key: record[key] for key in record if key not in OURS} == data for record in records)


class Trip:
    """A request on its way, as the journal sees it."""

    def __init__(self, request: Request, cookie: str | None, step: int) -> None:
        self.request = request
        self.cookie = cookie  # the id that it was sent with
        self.id = cookie  # whose session it has now
        self.steps = [step]  # when it was sent, and with each answer of the store, as of when it knows the data
        self.found: Life | None = None  # the session that it found
        self.looked_at = 0.0  # when that was
        self.asks: Call | None = None  # what it waits for
        self.late = False  # it found a tombstone
        self.wrote: set[str] = set()  # ids that it stored or touched
        self.swept = step  # when it last listed a user's sessions
        self.lived: set[Life] = set()  # what lived then
        self.kept: str | None = None  # and which of them it keeps


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

    def __init__(self, checks: Counter[str], covered: float, *, strict: bool = False) -> None:
        self.checks, self.covered, self.strict = checks, covered, strict
        self.lives: dict[str, Life] = {}
        self.trips: list[Trip] = []
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
        knows = verb == "load" or (answer and verb in ("create", "replace", "touch", "rotate"))
        trip.steps.append(self.step if knows else trip.steps[-1])
        self.hold(READS, verb in ("load", "touch") or not request.reads, f"a reader calls {verb}")
        match call:
            case "load", _ if life:
                found = answer is not None and answer.data != TOMBSTONE
                self.hold(DEAD, not (found and life.ended), f"{id}, which was {life.ended}, is loaded")
                if len(trip.steps) == 2:  # its first call
                    trip.found, trip.looked_at = life if found else None, now
                    trip.late = now < life.buried_until
                    trip.id = id if found or trip.late else None
            case "ids", _:
                trip.swept, trip.lived = self.step, {life for life in self.lives.values() if not life.ended}
                trip.kept = trip.id if request.spares else None
            case _ if not answer:
                pass
            case "create", _, data, expires_at, user:
                copied = trip.found if request.copies else None
                self._born(trip, id, data, user, Life(self.step, request.user, expires_at, None, copied))
            case "rotate", _, _, new, data, expires_at, user, inherits if life:
                self.hold(DEAD, not life.ended, f"{id}, which was {life.ended}, is replaced")
                parent = life if request.keeps else None
                self.hold(ONE_HEIR, inherits == request.keeps, f"{new} inherits from {id}, or does not")
                whose = request.user or (life.user if request.keeps and not request.drops else None)
                self._born(trip, new, data, user, Life(self.step, whose, expires_at, parent))
                life.ended, life.buried_until = "replaced", now + TOMBSTONE_LIFE
            case "delete", _ if life:
                self.hold(MINE, self._may_end(trip, id, life), f"{id} of {life.user} is ended")
                life.ended = life.ended or "destroyed"
            case ("replace", _, _, data, expires_at, user) | ("touch", _, data, expires_at, user) if life:
                self.hold(DEAD, verb == "touch" or not life.ended, f"{id}, which was {life.ended}, is stored again")
                self.hold(NEW_ID, user == life.user, f"{id}, which was {life.user}'s, becomes {user}'s")
                if not life.ended:
                    life.expires_at = expires_at
                    life.records.append(data)
                    trip.wrote.add(id)
        self._expire(now)  # a request that waited for longer than a lifetime stores what has expired

    def _born(self, trip: Trip, id: str, data: bytes, user: str | None, life: Life) -> None:
        self.hold(NEW_ID, id not in self.lives and user == life.user, f"{id} is created for {user}")
        self.lives[id] = life
        life.records.append(data)
        trip.id = id
        trip.wrote.add(id)

    def _may_end(self, trip: Trip, id: str, life: Life) -> bool:
        request = trip.request
        user = request.ends_all_of or request.ends_one_of
        return user is None or (life.user == user and id != trip.kept)

    def saved(self, trip: Trip, made: int, changes: Changes) -> None:
        """Note that changes are acknowledged, which the request had made after so many answers."""
        if not changes:
            return
        life = None if trip.id is None else self.lives[trip.id]
        self.hold(KEPT, life is not None, f"{dict(changes)} is acknowledged and stored nowhere")
        if life is not None and not life.ended:
            life.changes.append((trip.steps[made], self.step, changes))

    def responded(self, trip: Trip, answered: bool, cookie: str | None, result: Any, now: float) -> None:
        """Note the response, and the id that it sets."""
        request = trip.request
        if cookie:
            self.hold(REAL, cookie in trip.wrote, f"the cookie of {cookie} is sent, which had ended")
            self.hold(LATE, request.sends or not trip.late, f"the cookie of {cookie} is sent")
            self.lives[cookie].announced = True
        if answered and request.user:
            found = trip.found
            heirs = [life for life in self.lives.values() if found in life.family() and not life.ended]
            gone = found and found.ended and not (heirs and now < found.buried_until)
            self.hold(LOGS_IN, bool(cookie or gone), f"{request.user} gets no session")
        # The one narrowing: what leads from an old id to the new one is forgotten with the tombstone.
        replaced = [life for life in self.lives.values() if life.ended == "replaced"]
        forgotten = {life for life in replaced if life.buried_until <= now and not self.strict}

        def leads(old: Life, new: Life) -> bool:
            family = new.family()
            return old in family and forgotten.isdisjoint(family[family.index(old) : -1])

        ended, user = self.lives.get(trip.cookie or ""), request.ends_one_of
        if (
            answered
            and request.ends
            and ended
            and (result is not False or (ended in trip.lived and ended.user == user))
        ):
            if request.drops:
                user = ended.user or "nobody at all"
            self._end(lambda life: leads(ended, life) and (user is None or life.user == user))
        if answered and request.ends_all_of:
            everybody, swept, spared = request.ends_all_of, trip.swept, self.lives.get(trip.kept or "")

            def was_there(life: Life) -> bool:
                return life.user == everybody and life.born < swept and life is not spared

            self._end(
                lambda life: (
                    life.user == everybody and any(was_there(older) and leads(older, life) for older in life.family())
                )
            )

    def _end(self, is_over: Callable[[Life], bool]) -> None:
        for id, life in self.lives.items():
            self.hold(OVER, bool(life.ended) or not is_over(life), f"{id} is left")
        self.ended.append(is_over)

    def passed(self, now: float) -> None:
        """Note that time has passed."""
        expired = self._expire(now)
        for trip in self.trips:
            # One that is just about to touch it may be too late.
            if trip.found and trip.asks and trip.asks[0] != "touch" and now < trip.looked_at + self.covered:
                self.hold(IN_TIME, trip.found not in expired, "a request that came in time loses it")

    def _expire(self, now: float) -> list[Life]:
        expired = [life for life in self.lives.values() if life.expires_at <= now and not life.ended]
        for life in expired:
            life.ended = "expired"
        return expired

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
                stored = life.copied.once_had(data) if life.copied else not data
                self.hold(KEPT, stored, f"{id} has {data}, which no request stored")
                self.hold(NEW_ID, user == life.user, f"{id}, which was {life.user}'s, is {user}'s")
            heirs = [heir for heir in self.lives.values() if heir.parent is life and (heir.announced or not heir.ended)]
            self.hold(ONE_HEIR, len(heirs) + (not life.ended) <= 1, f"{id} has {len(heirs)}, or lives on beside one")
        if held in self.lives and not self.lives[held].ended:
            for ended in self.ended:
                self.hold(OVER, not ended(self.lives[held]), f"it holds {held}")
