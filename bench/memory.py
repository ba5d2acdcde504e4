"""Sessions in memory: their size, what their number does to a request, and what happens when all expire at once.

Each peer is filled through its app, in a process of its own.  To let sessions expire, its clock is moved:
`time.time` is another before the peer is imported.  Times are of the CPU.
"""

from __future__ import annotations

import gc
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import Any, NamedTuple

import psutil

from . import candidates, peers
from .driving import OTHERS, carrying, pair, seconds, send
from .processes import Worker, answer, node, python, worker
from .timing import Effort, Took, median, shuffled, significant, spread, timed

FEW = 1000  # sessions, from which the size is counted and with which reading is compared


class Extent(NamedTuple):
    """How many sessions, of ours also how many more, and how often they are read and replaced by others."""

    many: int
    most: int
    rounds: int
    reads: int
    generations: int


EXTENTS: dict[Effort, Extent] = {
    "quick": Extent(5_000, 10_000, 3, 1_000, 5),
    "short": Extent(100_000, 1_000_000, 7, 2_000, 1),
    "full": Extent(100_000, 1_000_000, 11, 3_000, 5),
}

HELD: dict[str, Callable[[Any], int]] = {  # how many entries a store has, live or not
    candidates.OURS: len,
    candidates.USERS: len,
    "beaker": lambda namespaces: len(namespaces.dict),
    "django": lambda cache: len(cache._cache),
    "flask-session": lambda cache: len(cache._cache),
    candidates.FLOOR: len,
}


class Case(NamedTuple):
    """A peer, and how many sessions it is to hold."""

    name: str
    sessions: int

    def row(self, **figures: Any) -> dict[str, Any]:
        """Return a line of a table."""
        return {"peer": candidates.TITLES[self.name], "sessions": self.sessions, **figures}


def run(effort: Effort) -> dict[str, Any]:
    """Return tables: size, reading, expiry and generations, of 100,000 sessions; of ours, of 1,000,000 too."""
    extent = EXTENTS[effort]
    names = [*HELD, *(["express-session"] if shutil.which("node") else [])]
    full = [*(Case(name, extent.many) for name in names), Case(candidates.OURS, extent.most)]
    with ExitStack() as stack:
        sites = {case: stack.enter_context(_site(case)) for case in [*full, *(Case(name, FEW) for name in names)]}
        sizes = {case: fill(site, case) for case, site in sites.items()}
        read: dict[Case, list[float]] = {case: [] for case in sites}
        for case in shuffled([*sites], extent.rounds):
            read[case].append(sites[case].ask("read", requests=extent.reads))
        versions = {package: number for site in sites.values() for package, number in site.ask("versions").items()}
    lives = {case: generations(case, extent.generations) for case in full}
    return {
        "setting": (
            f"189 bytes of JSON, medians of {extent.rounds} rounds of {extent.reads} reads"
            f" and of {extent.generations} generations"
        ),
        "versions": versions,
        "tables": {
            "size": [size(case, sizes[case], used(case)) for case in full],
            "reading": [reading(case, read) for case in full],
            "expiry": [expiry(case, lives[case]) for case in full],
            "generations": [growth(case, lives[case]) for case in full],
        },
    }


def fill(site: Worker, case: Case, every: int = 100) -> Any:
    """Create a case's sessions."""
    return site.ask("fill", few=FEW, sessions=case.sessions - FEW, every=every)


def used(case: Case) -> float:
    """Return how many bytes larger a session is when it has been read and written."""
    with _site(case) as site:
        fill(site, case, every=2)
        return float(site.ask("use", few=FEW))


def generations(case: Case, times: int) -> list[dict[str, Any]]:
    """Fill a store and let all expire, several times; return what each time was like."""
    lived = []
    with _site(case, moved=True) as site:
        for _ in range(times):
            full = fill(site, case)["after"]
            site.ask("forward", seconds=peers.LIFETIME + 1)
            if site.ask("alive"):
                raise RuntimeError(f"{case.name}: sessions outlive their time")
            freed = site.ask("free", most=max(case.sessions // 50, FEW))
            lived.append({"full": full, **freed, "freed": site.ask("rss")})
    return lived


def size(case: Case, filled: dict[str, float], grown: float) -> dict[str, Any]:
    """Return how much memory a session is, new and used, and how long it takes to make, with the app and without."""
    new = (filled["after"] - filled["before"]) / (case.sessions - FEW)
    return case.row(
        rss_bytes=round(new),
        used_bytes=round(new + grown),
        create_us=significant(filled["create"] * 1e6),
        create_cost_us=significant((filled["create"] - filled["bare"]) * 1e6),
    )


def reading(case: Case, read: dict[Case, list[float]]) -> dict[str, Any]:
    """Return how long it takes to read, without the app, beside the same where there are few sessions."""
    many, few = read[case], read[Case(case.name, FEW)]
    return case.row(
        read_us=median([took * 1e6 for took in many]),
        spread=spread(many),
        read_of_few_us=median([took * 1e6 for took in few]),
        ratio=median([a / b for a, b in zip(many, few, strict=True)]),
    )


def expiry(case: Case, lived: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the longest request while all had expired, how many it took to free them, and how many were left."""
    return case.row(
        longest_ms=median([each["longest"]["cpu"] * 1e3 for each in lived]),
        longest_wall_ms=median([each["longest"]["wall"] * 1e3 for each in lived]),
        requests=lived[0]["requests"],
        left=lived[0]["left"],
    )


def growth(case: Case, lived: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the memory in use when all were live and when all were freed, first and last, in MB."""
    first, last = lived[0], lived[-1]
    return case.row(
        full_mb=round(first["full"] / 1e6),
        freed_mb=round(first["freed"] / 1e6),
        last_full_mb=round(last["full"] / 1e6),
        last_freed_mb=round(last["freed"] / 1e6),
        growth=significant(last["full"] / first["full"]),
    )


@contextmanager
def _site(case: Case, *, moved: bool = False) -> Iterator[Worker]:
    if case.name in peers.NODE:
        command = node("memory.js", case.name, "memory", str(peers.LIFETIME))
    else:
        command = python("memory", case.name, str(case.sessions), *(["moved"] if moved else []))
    with worker(command, 0) as site:
        yield site


# In the worker


class Clock:
    """The time, which can be moved forward."""

    def __init__(self) -> None:
        self.now, self.ahead = time.time, 0.0

    def __call__(self) -> float:
        """Return it, in Unix seconds."""
        return self.now() + self.ahead


class Site:
    """A peer's apps, and cookies of a sample of the sessions in its store."""

    def __init__(self, name: str, sessions: int, clock: Clock) -> None:
        peers.NEVER_FULL = sessions + FEW  # a `MemoryStore` is laid out for as many as it may hold
        self.app, self.bare, clear = candidates.make(name)
        self.store = getattr(clear, "__self__")  # noqa: B009  # it is a method, though its type does not say so
        self.name, self.clock = name, clock
        self.cookies: list[str] = []

    def versions(self) -> dict[str, str]:
        """Return the versions of the peer's packages."""
        return {package: version(package) for package in candidates.packages(self.name)}

    def fill(self, few: int, sessions: int, every: int) -> dict[str, float]:
        """Create a few sessions, then the others; keep a cookie of one in ``every``."""
        self.create(few, 2)
        before = self.rss()
        if sessions:
            self.cookies.clear()
        create = self.create(sessions, every)
        bare = timed(self.bare, "/login", [OTHERS] * 1000).cpu
        return {"create": create, "bare": bare, "before": before, "after": self.rss()}

    def create(self, sessions: int, every: int) -> float:
        """Log visitors in; return the seconds that one takes."""
        took = []
        for _ in range(sessions // every):
            took.append(timed(self.app, "/login", [OTHERS] * (every - 1)).cpu)
            self.cookies.append(pair(send(self.app, "/login", OTHERS).set_cookie or ""))
        return statistics.fmean(took or [0])

    def read(self, requests: int) -> float:
        """Read sessions of the sample, in any order; return the seconds that it takes beyond the app."""
        cookies = [carrying(random.choice(self.cookies)) for _ in range(requests)]
        return timed(self.app, "/read", cookies).cpu - timed(self.bare, "/read", cookies).cpu

    def use(self, few: int) -> float:
        """Read and write each session of the sample, a few first; return the bytes by which one of the others grew."""
        before = 0
        for n in range(0, len(self.cookies), few):
            for page in ("/read", "/write"):
                seconds(self.app, page, map(carrying, self.cookies[n : n + few]))
            after = self.rss()  # at once, so that there is no more garbage than there was
            before = before or after
        return (after - before) / (len(self.cookies) - few)

    def rss(self) -> int:
        """Return the resident memory, in bytes, without garbage."""
        gc.collect()
        return int(psutil.Process().memory_info().rss)

    def held(self) -> int:
        """Return how many entries the store has."""
        return HELD[self.name](self.store)

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.ahead += seconds

    def alive(self) -> bool:
        """Return whether the first session of the sample is still there."""
        try:
            return peers.DATA["email"] in send(self.app, "/show", carrying(self.cookies[0])).body
        except KeyError:  # the floor's answer
            return False

    def free(self, most: int) -> dict[str, Any]:
        """Log new visitors in until none of those before is left in the store, or so many have come."""
        longest, requests, left = Took(0, 0), 0, self.held()
        while left > 0 and requests < most:
            took = timed(self.app, "/login", [OTHERS])
            longest = Took(max(longest.wall, took.wall), max(longest.cpu, took.cpu))
            requests += 1
            left = self.held() - requests
        return {"requests": requests, "left": left, "longest": longest._asdict()}


def main(name: str, sessions: str, moved: str = "") -> None:
    """Be a worker."""
    clock = Clock()
    if moved:
        time.time = clock
    answer(Site(name, int(sessions), clock))


if __name__ == "__main__":
    main(*sys.argv[1:])
