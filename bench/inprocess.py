"""What a session costs a request, in process: an app with sessions minus the same app without.

All peers are measured in the same rounds, in an order that is drawn anew for each: whatever else the
machine does hits all of them alike.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, NamedTuple

from .checks import check
from .floor import STEPS
from .peers import NODE, PEERS
from .workers import Missing, Worker

SCENARIOS = ("untouched", "cookie", "read", "write", "login", "regenerate", "logout")


class Effort(NamedTuple):
    """How long to measure: ``processes`` of each peer, one after the other, ``rounds`` in each."""

    processes: int
    rounds: int
    seconds: float  # of each of a round's measurements
    samples: int  # of the profile, for each scenario


FULL = Effort(3, 7, 0.06, 4000)
QUICK = Effort(1, 3, 0.005, 200)


def run(quick: bool = False, peers: Iterable[str] = ()) -> dict[str, Any]:
    """Measure; the result is for `report`, and holds every round, in microseconds.

    Args:
        quick: to see that it works; the figures are worth little.
        peers: only these.
    """
    effort = QUICK if quick else FULL
    in_memory = [name for name, peer in {**PEERS, **NODE}.items() if "memory" in peer.stores]
    names = [name for name in in_memory if name in peers or not peers]
    result: dict[str, Any] = {"peers": {}, "floor": {}, "profile": {}, "missing": {}}
    for number in range(effort.processes):
        with ExitStack() as stack:
            workers = []
            for name in [*names, "floor"]:
                try:
                    workers.append(stack.enter_context(Worker(name)))
                except Missing as reason:
                    result["missing"][name] = str(reason)
            _measure(workers, effort, result, number)
    return result
