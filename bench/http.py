"""Over HTTP: each app under waitress on one CPU, and beside it, on the other, `wrk` with four connections.

Each round asks every server in turn, an app right after its bare one, and the ratio of the two is taken
within the round.  The load keeps the server's CPU busy, so that throughput is the reciprocal of CPU time per
request; that is measured as well, since other work on the machine does not count as such.
"""

from __future__ import annotations

import http.client
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import Any, NamedTuple

import psutil

from . import candidates, peers
from .driving import WSGI, carrying
from .processes import HERE, kept, node, python, running
from .timing import Effort, median, shuffled, significant, spread

CONNECTIONS = 4
VISITORS = 200  # who ask in turn, so that no cache holds one session alone
THREADS = 4
SERVER_CPU, LOAD_CPU = 0, 1
PAGES = ("read", "write")
SIZES: dict[Effort, tuple[int, int]] = {"quick": (1, 1), "short": (5, 1), "full": (7, 2)}
"""So many rounds, and seconds of load in each."""
NO_WRK = "wrk is needed: https://github.com/wg/wrk, or a package of your system"

# Starlette is no WSGI app: waitress cannot serve it, and another server would be another measurement.
NAMES = [
    *(name for name, peer in peers.PEERS.items() if "memory" in peer.stores and name != "starlette"),
    *peers.NODE,
    candidates.FLOOR,
]


class Server(NamedTuple):
    """Where a server listens, and its process."""

    port: int
    process: psutil.Process


class Site(NamedTuple):
    """A peer's two servers, and the cookies of sessions."""

    app: Server
    bare: Server
    cookies: Sequence[str]


class Report(NamedTuple):
    """What wrk says: requests, how many in a second, and how many seconds they took."""

    requests: int
    rate: float
    p50: float
    p99: float


class Load(NamedTuple):
    """What wrk says, and the CPU time that the server took for a request, in seconds."""

    report: Report
    cpu: float


def run(effort: Effort) -> dict[str, Any]:
    """Return a table for each page.

    Raises:
        RuntimeError: wrk is not there, or an app answered what it should not.
    """
    if shutil.which("wrk") is None:
        raise RuntimeError(NO_WRK)
    rounds, seconds = SIZES[effort]
    names = [name for name in NAMES if name not in peers.NODE or shutil.which("node")]
    with ExitStack() as stack:
        sites = {name: stack.enter_context(site(name)) for name in names}
        loads: dict[str, dict[str, list[Load]]] = {
            name: {page: [] for page in (candidates.BARE, *PAGES)} for name in names
        }
        for name in shuffled(names, rounds):
            for page, measured in loads[name].items():
                if name in peers.NODE or not measured:
                    load(sites[name], page, 1)  # caches are filled, and V8 compiles, as it does after each pause
                measured.append(load(sites[name], page, seconds))
    return {
        "setting": f"{CONNECTIONS} connections, {THREADS} threads, medians of {rounds} rounds of {seconds} s",
        "versions": {"waitress": version("waitress"), "wrk": wrk_version()},
        "tables": {
            page: [row(name, loads[name][candidates.BARE], loads[name][page]) for name in names] for page in PAGES
        },
    }


def row(name: str, bare: Sequence[Load], loads: Sequence[Load]) -> dict[str, Any]:
    """Return a line of a table."""
    pairs = list(zip(loads, bare, strict=True))
    return {
        "peer": candidates.TITLES[name],
        "rate": median([load.report.rate for load in loads]),
        "spread": spread([load.report.rate for load in loads]),
        "bare_rate": median([load.report.rate for load in bare]),
        "ratio": median([with_.report.rate / without.report.rate for with_, without in pairs]),
        "cpu_ratio": median([without.cpu / with_.cpu for with_, without in pairs]),
        "cpu_cost_us": median([(with_.cpu - without.cpu) * 1e6 for with_, without in pairs]),
        "p50_us": median([load.report.p50 * 1e6 for load in loads]),
        "p99_us": median([load.report.p99 * 1e6 for load in loads]),
        "bare_p99_us": median([load.report.p99 * 1e6 for load in bare]),
    }


# The load


def load(site: Site, page: str, seconds: int) -> Load:
    """Ask for one page for so many seconds, over and over, each session in turn."""
    server, path = (site.bare, "/read") if page == candidates.BARE else (site.app, f"/{page}")
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(HERE / "visitors.lua")]
    command.append(f"http://127.0.0.1:{server.port}{path}")
    cookies = {**os.environ, "COOKIES": "\n".join(map(carrying, site.cookies))}
    before = server.process.cpu_times()
    done = subprocess.run(kept(command, LOAD_CPU), capture_output=True, text=True, check=True, env=cookies)
    after = server.process.cpu_times()
    report = parsed(done.stdout)
    return Load(report, (after.user - before.user + after.system - before.system) / report.requests)


def parsed(output: str) -> Report:
    """Return what wrk says.

    Raises:
        RuntimeError: requests failed.
    """
    failed = re.search(r"^ +(Socket errors|Non-2xx or 3xx responses): .*", output, re.M)
    if failed is not None:
        raise RuntimeError(f"wrk: {failed[0].strip()}")
    requests = re.search(r"^ +(\d+) requests in ", output, re.M)
    rate = re.search(r"^Requests/sec: +([\d.]+)$", output, re.M)
    latencies = dict(re.findall(r"^ +(50|99)% +([\d.]+[a-z]+) *$", output, re.M))
    if requests is None or rate is None or latencies.keys() != {"50", "99"}:
        raise RuntimeError(f"wrk: no report in {output!r}")
    return Report(int(requests[1]), float(rate[1]), _seconds(latencies["50"]), _seconds(latencies["99"]))


def _seconds(text: str) -> float:
    number, unit = re.findall(r"[\d.]+|[a-z]+", text)
    return significant(float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}[unit])


def wrk_version() -> str:
    """Return it as wrk says it."""
    words = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout.split()
    return words[1]


# The servers


@contextmanager
def site(name: str, module: str = "http") -> Iterator[Site]:
    """Serve a peer's apps by one of our modules, which prints its port; and log in."""
    with server(name, "app", module) as app, server(name, "bare", module) as bare:
        yield Site(app, bare, [checked(app.port) for _ in range(VISITORS)])


@contextmanager
def server(name: str, half: str, module: str = "http") -> Iterator[Server]:
    """Serve one of a peer's apps for as long as the block lasts."""
    command = node("server.js", name, half) if name in peers.NODE else python(module, name, half)
    with running(command, SERVER_CPU, stderr=subprocess.DEVNULL) as process:  # where tracebacks go that are wanted
        assert process.stdout is not None
        yield Server(int(process.stdout.readline()), psutil.Process(process.pid))


def checked(port: int) -> str:
    """Log in, write and read, and see that the session has it; return the cookie."""
    _, cookie = get(port, "/login")
    before, _ = get(port, "/show", cookie)
    _, written = get(port, "/write", cookie)
    cookie = written or cookie
    after, _ = get(port, "/show", cookie)
    if after is None or after == before or peers.DATA["email"].encode() not in after:
        raise RuntimeError(f"the session holds {after!r}, and before the write {before!r}")
    if get(port, "/read", cookie)[0] != b"ok" or get(port, "/read")[0] is not None:
        raise RuntimeError("the page that needs a session is not there with one, or is there without")
    return cookie


def get(port: int, path: str, cookie: str = "") -> tuple[bytes | None, str]:
    """Return the page, None where there is none, and the cookie that came with it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
        response = connection.getresponse()
        body, set_cookie = response.read(), response.getheader("Set-Cookie", "")
        return body if response.status == 200 else None, set_cookie.partition(";")[0]
    finally:
        connection.close()


def serve(app: WSGI) -> None:
    """Be a server, and print its port."""
    from waitress.server import create_server

    logging.getLogger("waitress").setLevel(logging.CRITICAL)  # it warns of each request that waits for a thread
    server = create_server(app, host="127.0.0.1", port=0, threads=THREADS)
    print(server.effective_port, flush=True)
    server.run()


if __name__ == "__main__":
    serve(getattr(candidates.make(sys.argv[1]), sys.argv[2]))
