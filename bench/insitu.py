"""What a session costs where it is used: CPU time of the app's call on waitress' worker threads, under load.

In a loop everything that a request touches is in the CPU's caches.  Here waitress' own work and three other
threads lie between two requests, so that everything takes longer, the floor included.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from time import thread_time_ns
from typing import Any, NamedTuple

from . import candidates, http
from .driving import WSGI
from .timing import Effort, shuffled

NAMES = (candidates.OURS, "django", "beaker", "flask-session", candidates.FLOOR)
SIZES: dict[Effort, tuple[int, int]] = {"quick": (2, 1), "short": (4, 3), "full": (7, 3)}
"""So many processes of each app, one after the other, and rounds in each: where a process' code and data happen to lie
in memory changes some peers' figures by a tenth."""
SECONDS = 1  # of load, for each page of an app in a round
TOOK = "/took"
"""The page of `Meter` itself."""


class Took(NamedTuple):
    """How many requests an app has served, and how long its call took on the CPU: their mean, in µs."""

    requests: int
    mean: float


class Meter:
    """An app that measures another: the call, the iteration of what it returned, and its end."""

    def __init__(self, app: WSGI) -> None:
        self._app = app
        self._took: list[int] = []  # ns

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Serve one request, of whose time nothing is the server's."""
        if environ["PATH_INFO"] == TOOK:
            return self._report(start_response)
        began = thread_time_ns()
        returned = self._app(environ, start_response)
        blocks = [*returned]
        if hasattr(returned, "close"):
            returned.close()
        self._took.append(thread_time_ns() - began)
        return blocks

    def _report(self, start_response: Callable[..., object]) -> list[bytes]:
        """Say what was measured since the last report."""
        took, self._took = self._took, []
        body = json.dumps([len(took), sum(took) / 1000 / max(1, len(took))]).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]


def run(effort: Effort, names: Iterable[str] = NAMES, pages: Sequence[str] = http.PAGES) -> dict[str, Any]:
    """Return what requests took in each round, in µs of CPU time.

    Args:
        effort: how long to measure.
        names: the peers to measure; always beside the floor.
        pages: of `http.PAGES`; always beside the app without sessions.

    Raises:
        RuntimeError: wrk is not there, or an app answered what it should not.
    """
    if shutil.which("wrk") is None:
        raise RuntimeError(http.NO_WRK)
    names = list(dict.fromkeys([*names, candidates.FLOOR]))
    processes, rounds = SIZES[effort]
    took: dict[str, dict[str, list[float]]] = {name: {page: [] for page in (candidates.BARE, *pages)} for name in names}
    for number in range(processes):
        print(f"in situ: process {number + 1} of {processes}", file=sys.stderr)
        with ExitStack() as stack:
            sites = {name: stack.enter_context(http.site(name, "insitu")) for name in names}
            for site in sites.values():
                measure(site, candidates.BARE)  # to warm it up; the others have been asked by each visitor
            for name in shuffled(names, rounds):
                for page in shuffled([*took[name]], 1):
                    took[name][page].append(measure(sites[name], page).mean)
    packages = {package for name in names for package in candidates.packages(name)}
    return {
        "setting": (
            f"{http.CONNECTIONS} connections, {http.THREADS} threads, medians of {processes * rounds} rounds"
            f" of {SECONDS} s in {processes} processes"
        ),
        "versions": {**{package: version(package) for package in (*packages, "waitress")}, "wrk": http.wrk_version()},
        "rounds": took,
    }


def measure(site: http.Site, page: str) -> Took:
    """Let wrk ask for one page, over and over; return what its requests took.

    Raises:
        RuntimeError: others were measured than wrk has sent.
    """
    port = (site.bare if page == candidates.BARE else site.app).port
    http.get(port, TOOK)  # and forget what went before
    report = http.load(site, page, SECONDS).report
    took = Took(*json.loads(http.get(port, TOOK)[0] or b""))
    if not 0 <= took.requests - report.requests <= http.CONNECTIONS:  # those that wrk did not wait for
        raise RuntimeError(f"wrk has sent {report.requests} requests, and {took.requests} were measured")
    return took


if __name__ == "__main__":
    http.serve(Meter(getattr(candidates.make(sys.argv[1]), sys.argv[2])))
