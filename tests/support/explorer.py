"""Every order in which requests can meet at the store, tried one after the other.

A step is a store call, with all that its request does until the next one or the response; or a
``Set-Cookie`` that arrives at the browser; or time that passes.  A schedule says whose step is next.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any

from minisession.stores.base import TOMBSTONE, Stored

from .browser import Clock
from .promises import Call, Journal, Request, Trip, Violation
from .replay import LIFETIME, Code, Part, Sent

# They pass before the requests are sent, and again as a step: what none has used by then expires.
TICKS = 0.4 * LIFETIME, 0.7 * LIFETIME
LATE_TICKS = 0.6 * LIFETIME, 0.45 * LIFETIME  # less is left than half of the lifetime, and half is more than the step
SHORT_TICKS = 0.4 * LIFETIME, 0.16 * LIFETIME  # tombstones expire, and nothing else does
CLOCK = "clock"
READS = {"load", "heir", "ids", "stands"}

LOOK = Request("look", lambda session, tape: setattr(tape, "result", (dict(session), session.user)))


@dataclass(frozen=True)
class Scenario:
    """Requests that one browser sends at the same time, with the cookie that the first one gave it."""

    first: Request | None
    requests: tuple[Request, ...]
    clock: bool = True  # time passes, too
    ticks: tuple[float, float] = TICKS

    def __str__(self) -> str:
        requests = zip("XABC", (self.first, *self.requests), strict=False)
        return ", ".join(f"{name} = {request.does}" for name, request in requests if request)


class Traveller(Trip):
    """A request of one schedule."""

    def __init__(self, part: Part, step: int) -> None:
        super().__init__(part.sent.request, part.sent.id, step)
        self.part = part
        self.arrived = False  # its answer, at the browser


class World:
    """One schedule: a store, a clock, a browser's jar, and requests under way."""

    def __init__(self, code: Code, store: Any, clock: Clock, scenario: Scenario, journal: Journal) -> None:
        self.code, self.store, self.clock, self.journal = code, store, clock, journal
        self.tick, self.second_tick = scenario.ticks
        self.jar: str | None = None
        self.trips: dict[str, Traveller] = {}
        self.schedule: list[str] = []
        self.story: list[tuple[str, Call, Any]] = []
        self.clock_goes = False
        if scenario.first:
            self._send("X", scenario.first)
            while self.ready():
                self.go("X")
        self._pass(self.tick)
        for name, request in zip("ABC", scenario.requests, strict=False):
            self._send(name, request)
        self.clock_goes = scenario.clock
        self.schedule.clear()

    def ready(self) -> dict[str, Call]:
        """Return whose step can be next, and what it would be."""
        steps: dict[str, Call] = {}
        for name, trip in self.trips.items():
            if trip.part.asks:
                steps[name] = trip.part.asks
            elif trip.part.cookie is not None and not trip.arrived:
                steps[name] = ("arrives",)
        if self.clock_goes and steps:
            steps[CLOCK] = ("passes",)
        return steps

    def go(self, name: str) -> None:
        """Take one step."""
        self.journal.step += 1
        self.schedule.append(name)
        if name == CLOCK:
            self.clock_goes = False
            self._pass(self.second_tick)
            return
        trip = self.trips[name]
        call = trip.part.asks
        if call is None:
            trip.arrived = True
            self.jar = trip.part.cookie or None
            self.story.append((name, ("arrives",), self.jar))
            return
        answer = self._ask(call)
        self.story.append((name, call, answer))
        self.journal.called(trip, call, answer, self.clock.now)
        trip.part = self.code.run_on(trip.part, answer, self.clock.now)
        self._note(trip)

    def end(self) -> None:
        """Look at every session with the cookie that it has, or had."""
        self.journal.over(self.jar, self._look)

    def _pass(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.journal.passed(self.clock.now)
        self.story.append((CLOCK, ("passes", seconds), None))

    def _send(self, name: str, request: Request) -> None:
        part = self.code.start(Sent(name, request, self.jar, self.clock.now))
        trip = self.trips[name] = Traveller(part, self.journal.step)
        self.journal.trips.append(trip)
        self._note(trip)

    def _note(self, trip: Traveller) -> None:
        trip.asks = trip.part.asks
        for made, changes in trip.part.saves:
            self.journal.saved(trip, made, changes)
        if not trip.part.asks:
            part = trip.part
            self.journal.responded(trip, part.answered, part.cookie, part.result, self.clock.now)

    def _ask(self, call: Call) -> Any:
        verb, *arguments = call
        if verb == "ids":
            return tuple(self.store.ids(*arguments))
        if verb == "stands":
            return stands(self.store.load(*arguments))
        if verb == "rotate":
            return self.store.rotate(*arguments[:-1], inherits=arguments[-1])
        return getattr(self.store, verb)(*arguments)

    def _look(self, id: str) -> Any:
        part = self.code.start(Sent("L", LOOK, id, self.clock.now))
        while part.asks:
            part = self.code.run_on(part, self._ask(part.asks), self.clock.now)
        return part.result

    def __str__(self) -> str:
        return " → ".join(told(*step) for step in self.story)


def stands(stored: Stored | None) -> bool:
    """Return whether a listing gives an id that it has found, and now looks at: it misses no rotation."""
    return stored is not None


def told(name: str, step: Call, answer: Any) -> str:
    """Return a step as a line of a story."""
    verb, *arguments = step
    if name == CLOCK:
        return f"{arguments[0]:.0f} s pass"
    if verb == "arrives":
        return f"{name}'s answer arrives: " + (f"the browser holds {answer}" if answer else "the cookie is removed")
    ending = ""
    if verb == "rotate":
        ending = f" to {arguments[2]}"
    if verb in ("ids", "heir"):
        ending = f": {(answer if isinstance(answer, str) else ', '.join(answer or ())) or 'none'}"
    elif answer is None or answer is False:
        ending += ": nothing there" if verb in ("load", "delete") else ": refused"
    elif verb == "load" and answer.data == TOMBSTONE:
        ending = ": a tombstone"
    return f"{name} {verb} {arguments[0]}{ending}"


def independent(one: Call, other: Call) -> bool:
    """Return whether two requests' steps come to the same in either order."""
    verbs = {one[0], other[0]}
    if "passes" in verbs:
        return False
    if "arrives" in verbs:
        return len(verbs) == 2
    return verbs <= READS or not ("ids" in verbs or ids_of(one) & ids_of(other))


def ids_of(call: Call) -> set[str]:
    return {call[1], call[3]} if call[0] == "rotate" else {call[1]}


class Explorer:
    """Tries schedules, and counts them and what was checked."""

    def __init__(self, open_store: Callable[[Clock], Any], *, strict: bool = False) -> None:
        self.open_store, self.strict = open_store, strict
        self.code = Code()
        self.schedules = 0
        self.checks: Counter[str] = Counter()

    def __str__(self) -> str:
        return f"{self.schedules:,} schedules, {self.checks.total():,} checks of {len(self.checks)} invariants"

    def all(self, scenario: Scenario, most: float = inf) -> bool:
        """Try every schedule, or one for all that differ in the order of independent steps; False: over ``most``.

        A step that has been tried sleeps in the schedules that go on with others, until one is taken that
        it depends on: before that it would come to the same (sleep sets, of partial-order reduction).
        """
        most += self.schedules
        pending: list[tuple[list[str], frozenset[str]]] = [([], frozenset())]
        while pending:
            if self.schedules >= most:
                return False
            schedule, asleep = pending.pop()
            with self._world(scenario) as world:
                for name in schedule:
                    world.go(name)
                while steps := world.ready():
                    awake = [name for name in steps if name not in asleep]
                    if not awake:
                        break
                    name = awake[0]
                    if len(awake) > 1:
                        pending.append((world.schedule[:], asleep | {name}))
                    asleep = frozenset(other for other in asleep if independent(steps[other], steps[name]))
                    world.go(name)
                else:
                    self.end(world)
        return True

    def some(self, scenario: Scenario, number: int, choose: random.Random) -> None:
        """Try schedules at random."""
        for _ in range(number):
            with self._world(scenario) as world:
                while steps := world.ready():
                    world.go(choose.choice([*steps]))
                self.end(world)

    def find(self, scenario: Scenario) -> Violation:
        """Return the first violation that comes; it is an AssertionError if there is none."""
        try:
            self.all(scenario)
        except Violation as violation:
            return violation
        raise AssertionError(f"no violation in {self}: {scenario}")

    def end(self, world: World) -> None:
        """Check what has to hold in the end."""
        world.end()
        self.schedules += 1

    @contextmanager
    def _world(self, scenario: Scenario) -> Iterator[World]:
        clock = Clock()
        journal = Journal(self.checks, LIFETIME / 2, strict=self.strict)
        world = World(self.code, self.open_store(clock), clock, scenario, journal)
        try:
            yield world
        except Violation as violation:
            violation.story = f"{scenario}\n{world}"
            raise
