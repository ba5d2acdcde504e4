"""What a session costs a request, in process: an app with sessions minus the same app without.

All peers are measured in the same rounds, in an order drawn anew for each, so that whatever else the machine
does hits all of them alike.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from .checks import Wrong, check
from .floor import STEPS
from .peers import NODE, PEERS
from .processes import HERE, Worker, node, python, worker
from .timing import Effort, shuffled

SCENARIOS = ("untouched", "cookie", "read", "write", "login", "regenerate", "logout")
PEERS_IN_MEMORY = {name: peer for name, peer in {**PEERS, **NODE}.items() if "memory" in peer.stores}
NO_IDS = "signed cookie"  # the kind of peers that have none to regenerate


class Size(NamedTuple):
    """So many processes of each peer, one after the other, and rounds in each."""

    processes: int
    rounds: int
    seconds: float  # that a measurement takes
    loops: int  # requests of each scenario under the profiler


SIZES: dict[Effort, Size] = {
    "quick": Size(1, 3, 0.002, 500),
    "short": Size(3, 3, 0.03, 20_000),
    "full": Size(3, 7, 0.06, 50_000),
}


def run(effort: Effort, names: Iterable[str] = PEERS_IN_MEMORY) -> dict[str, Any]:
    """Return every round's figures, in microseconds.

    Args:
        effort: how long to measure.
        names: the peers to measure; always beside the floor.
    """
    size = SIZES[effort]
    left_out = {name: missing for name in names if (missing := _missing(name))}
    result: dict[str, Any] = {"versions": {}, "checks": {}, "left_out": left_out, "rounds": {}, "profile": {}}
    for number in range(size.processes):
        with ExitStack() as stack:
            measured = [name for name in [*names, "floor"] if name not in left_out]
            workers = {name: stack.enter_context(worker(_command(name), 0)) for name in measured}
            if number == 0:
                _ask_first(workers, size, result)
            _measure(workers, size, result["rounds"], f"process {number + 1} of {size.processes}")
    return result


def _command(name: str) -> list[str]:
    return node("worker.js", name, "memory") if name in NODE else python("worker", name)


def _missing(name: str) -> str | None:
    """Return what is not installed, and how it is."""
    if name in NODE:
        if shutil.which("node") is None:
            return "no node on the PATH"
        if not (HERE / "node" / "node_modules").is_dir():
            return "npm install --prefix bench/node"
        return None
    try:
        for package in PEERS[name].packages if name in PEERS else ():
            version(package)
    except PackageNotFoundError as error:
        return f"pip install {error.name}"
    return None


def _ask_first(workers: dict[str, Worker], size: Size, result: dict[str, Any]) -> None:
    for name, peer in [*workers.items()]:
        result["versions"].update(peer.ask("versions"))
        if name == "floor":
            continue
        try:
            result["checks"][name] = check(peer, PEERS_IN_MEMORY[name].kind != NO_IDS)
        except Wrong as wrong:
            result["left_out"][name] = str(wrong)
            del workers[name]
    for name, why in result["left_out"].items():
        print(f"in process: without {name}: {why}", file=sys.stderr)
    if "minisession" in workers:
        for scenario in SCENARIOS:
            result["profile"][scenario] = workers["minisession"].ask("profile", scenario=scenario, loops=size.loops)


Rounds = dict[str, dict[str, dict[str, list[float]]]]
"""By name, scenario, and "with" or "without": microseconds of each round."""


def _measure(workers: dict[str, Worker], size: Size, rounds: Rounds, where: str) -> None:
    todo = [(name, scenario) for name in workers for scenario in scenarios_of(name)]
    loops = {each: _calibrated(workers[each[0]], each[1], size.seconds) for each in todo}
    for number in range(size.rounds):
        print(f"in process: {where}, round {number + 1} of {size.rounds}", file=sys.stderr)
        for each in shuffled(todo, 1):
            name, scenario = each
            found = rounds.setdefault(name, {}).setdefault(scenario, {"with": [], "without": []})
            for bare in shuffled((False, True), 1):
                took = workers[name].ask("time", scenario=scenario, bare=bare, loops=loops[each][bare])
                found["without" if bare else "with"].append(round(took * 1e6, 4))


def scenarios_of(name: str) -> Iterable[str]:
    """Return what is measured of a peer; of the floor, its steps."""
    if name == "floor":
        return STEPS
    return [each for each in SCENARIOS if each != "regenerate" or PEERS_IN_MEMORY[name].kind != NO_IDS]


def _calibrated(peer: Worker, scenario: str, seconds: float) -> dict[bool, int]:
    """Return how many requests take ``seconds``, without sessions (True) and with."""

    def enough(bare: bool) -> int:
        loops = 10
        while (took := peer.ask("time", scenario=scenario, bare=bare, loops=loops)) * loops < seconds / 4:
            loops *= 4
        return max(10, int(seconds / took))

    return {bare: enough(bare) for bare in (True, False)}
