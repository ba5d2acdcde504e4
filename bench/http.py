"""Over HTTP: each app under waitress on one CPU, and beside it, on the other, `wrk` with four connections.

Each round asks every server in turn, an app right after its bare one; the ratio of the two is taken within
the round.  On one CPU a server's threads share what there is, so the ratio is that of CPU time per request.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import peers
from .processes import kept, median, running, shuffled, significant, spread

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECTIONS = 4
THREADS = 4
SERVER_CPU, LOAD_CPU = 0, 1
PAGES = ("read", "write")

# Starlette is no WSGI app: waitress cannot serve it, and another server would be another measurement.
WSGI_PEERS = [name for name, peer in peers.PEERS.items() if "memory" in peer.stores and name != "starlette"]
NODE_PEERS = {"express-session": "express-session, node:http", "express": "express-session, Express"}


def run(quick: bool) -> dict[str, Any]:
    """Return requests per second, latencies and the ratio to the bare app, of reads and of writes.

    Raises:
        RuntimeError: wrk is not there, or an app answered what it should not.
    """
    if shutil.which("wrk") is None:
        raise RuntimeError("wrk is needed: apt install wrk, or https://github.com/wg/wrk")
    rounds, seconds = (1, 1) if quick else (7, 2)
    names = [*WSGI_PEERS, *(NODE_PEERS if shutil.which("node") else ())]
    with ExitStack() as stack:
        sites = {name: stack.enter_context(_site(name)) for name in names}
        measured = measure(sites, rounds, seconds)
    return {
        "unit": "requests per second",
        "setting": f"{CONNECTIONS} connections, {THREADS} threads, {rounds} rounds of {seconds} s, medians",
        "versions": {"waitress": version("waitress"), "wrk": _wrk_version(), "python": platform.python_version()},
        "rows": [row(name, page, measured[name]) for page in PAGES for name in names],
    }


class Load(NamedTuple):
    """What wrk has measured: requests per second, and seconds."""

    rate: float
    p50: float
    p99: float


class Site(NamedTuple):
    """A peer's two servers."""

    app: int  # the port
    bare: int
    cookie: str


def measure(sites: dict[str, Site], rounds: int, seconds: int) -> dict[str, dict[str, list[Load]]]:
    """Return each site's loads, round by round: bare, and each page."""
    measured: dict[str, dict[str, list[Load]]] = {name: {half: [] for half in ("bare", *PAGES)} for name in sites}
    for name in shuffled([*sites], 1):  # V8 compiles, caches are filled
        for half in measured[name]:
            load(sites[name], half, 1)
    for name in shuffled([*sites], rounds):
        for half, loads in measured[name].items():
            loads.append(load(sites[name], half, seconds))
    return measured


def row(name: str, page: str, loads: dict[str, list[Load]]) -> dict[str, Any]:
    """Return a line of the table."""
    rates = [each.rate for each in loads[page]]
    bare = [each.rate for each in loads["bare"]]
    ratios = [with_ / without for with_, without in zip(rates, bare, strict=True)]
    return {
        "peer": NODE_PEERS.get(name) or peers.PEERS[name].title,
        "page": page,
        "rate": median(rates),
        "spread": spread(rates),
        "bare_rate": median(bare),
        "ratio": median(ratios),
        "ratio_spread": spread(ratios),
        "cost_us": significant(1e6 * (1 / median(rates) - 1 / median(bare))),
        "p50_us": median([each.p50 * 1e6 for each in loads[page]]),
        "p99_us": median([each.p99 * 1e6 for each in loads[page]]),
        "bare_p50_us": median([each.p50 * 1e6 for each in loads["bare"]]),
        "bare_p99_us": median([each.p99 * 1e6 for each in loads["bare"]]),
    }


# The load


def load(site: Site, half: str, seconds: int) -> Load:
    """Ask for one page for so long, over and over."""
    port, page = (site.bare, "read") if half == "bare" else (site.app, half)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-H", f"Cookie: {site.cookie}"]
    url = f"http://127.0.0.1:{port}/{page}"
    done = subprocess.run(kept([*command, url], LOAD_CPU), capture_output=True, text=True, check=True)
    return parsed(done.stdout)


def parsed(report: str) -> Load:
    """Return what wrk's report says.

    Raises:
        RuntimeError: requests failed.
    """
    failed = re.search(r"^ +(Socket errors|Non-2xx or 3xx responses): .*", report, re.M)
    if failed is not None:
        raise RuntimeError(f"wrk: {failed[0].strip()}")
    rate = re.search(r"^Requests/sec: +([\d.]+)$", report, re.M)
    latencies = dict(re.findall(r"^ +(50|99)% +([\d.]+[a-z]+)$", report, re.M))
    if rate is None or latencies.keys() != {"50", "99"}:
        raise RuntimeError(f"wrk: no report in {report!r}")
    return Load(float(rate[1]), _seconds(latencies["50"]), _seconds(latencies["99"]))


def _seconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m|h)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}[unit]


def _wrk_version() -> str:
    words = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout.split()
    return words[1] if len(words) > 1 else "unknown"


# The servers


@contextmanager
def _site(name: str) -> Iterator[Site]:
    """Serve a peer's apps, and log in."""
    with _server(name, "app") as app, _server(name, "bare") as bare:
        yield Site(app, bare, checked(app))


@contextmanager
def _server(name: str, half: str) -> Iterator[int]:
    if name in NODE_PEERS:
        command = ["node", str(Path(__file__).parent / "node" / "server.js"), name, half]
    else:
        command = [sys.executable, "-m", "bench.http", name, half]
    site = json.dumps({"SECRET": peers.SECRET, "USER": peers.USER, "DATA": peers.DATA})
    with running(
        command,
        SERVER_CPU,
        env={**os.environ, "BENCH_SITE": site, "NODE_ENV": "production"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


def checked(port: int) -> str:
    """Log in and write, and see that pages need the session and that it holds what it should; return the cookie."""
    _, cookie = _get(port, "/login")
    _, written = _get(port, "/write", cookie)
    cookie = written or cookie  # of those in which all is
    told, _ = _get(port, "/show", cookie)
    data = json.loads(told or b"{}")
    if data.get("visits", 0) <= peers.DATA["visits"] or {**data, **peers.DATA, "visits": data["visits"]} != data:
        raise RuntimeError(f"the session holds {data}")
    if _get(port, "/read", cookie)[0] != b"ok" or _get(port, "/read")[0] is not None:
        raise RuntimeError("a page that needs the session is not there with it, or is without")
    return cookie


def _get(port: int, path: str, cookie: str = "") -> tuple[bytes | None, str]:
    """Return the page, None where there is none, and the cookie that came along."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
        response = connection.getresponse()
        body = response.read()
        set_cookie = response.getheader("Set-Cookie", "")
        return body if response.status == 200 else None, set_cookie.partition(";")[0]
    finally:
        connection.close()


def _serve(name: str, half: str) -> None:
    from waitress.server import create_server

    logging.getLogger("waitress").setLevel(logging.CRITICAL)  # it warns of each request that waits for a thread
    server = create_server(getattr(peers.make(name), half), host="127.0.0.1", port=0, threads=THREADS)
    print(server.effective_port, flush=True)
    server.run()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
