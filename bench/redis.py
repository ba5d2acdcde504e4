"""Sessions in Redis: microseconds, commands and round trips, beside what redis-py alone takes.

A redis-server of its own, which keeps nothing, is on one CPU; the peers, each in a process of its own, take
turns on the other.
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import Any, NamedTuple

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from . import candidates, peers
from .driving import OTHERS, carrying, pair, send
from .processes import Worker, answer, node, python, running, worker
from .timing import Effort, Took, median, shuffled, spread, timed

CLIENT_CPU, SERVER_CPU = 0, 1
STARTING = 10  # seconds within which Redis is up
TTL = int(peers.LIFETIME)

SIZES: dict[Effort, tuple[int, int]] = {"quick": (3, 20), "short": (9, 100), "full": (21, 100)}
"""So many rounds, and requests in each."""
PAGES = {"cookie": "/untouched", "read": "/read", "write": "/write", "login": "/login", "regenerate": "/regenerate"}
NAMES = [
    candidates.USERS,
    *(name for name, peer in peers.PEERS.items() if "redis" in peer.stores),
    "express-session",
    candidates.FLOOR,
]
TITLES = {**candidates.TITLES, candidates.FLOOR: "redis-py and JSON"}


class Cost(NamedTuple):
    """What a request takes beyond the same app without sessions, in seconds."""

    wall: float
    cpu: float


class Sent(NamedTuple):
    """What Redis has got of a request."""

    commands: dict[str, float]
    trips: int  # rounded: now and then Redis reads for nothing


def run(effort: Effort) -> dict[str, Any]:
    """Return a table for each page.

    Raises:
        RuntimeError: redis-server is not there.
    """
    if shutil.which("redis-server") is None:
        raise RuntimeError("redis-server is needed")
    rounds, requests = SIZES[effort]
    names = [name for name in NAMES if name not in peers.NODE or shutil.which("node")]
    with ExitStack() as stack:
        url = stack.enter_context(server())
        redis = stack.enter_context(Redis.from_url(url))
        sites = {name: stack.enter_context(_site(name, url)) for name in names}
        cases = [(name, page) for name in names for page in PAGES]
        sent = {(name, page): count(redis, sites[name], page) for name, page in cases}
        costs: dict[tuple[str, str], list[Cost]] = {case: [] for case in cases}
        for name, page in shuffled(cases, rounds):
            redis.flushall()
            costs[name, page].append(measure(sites[name], page, requests))
        versions = {"redis-server": redis.info("server")["redis_version"]}
        for site in sites.values():
            versions.update(site.ask("versions"))
    return {
        "setting": f"{rounds} rounds of {requests} requests, medians",
        "versions": versions,
        "tables": {
            page: [row(name, sent[name, page], costs[name, page], costs[candidates.FLOOR, page]) for name in names]
            for page in PAGES
        },
    }


def row(name: str, sent: Sent, costs: list[Cost], floor: list[Cost]) -> dict[str, Any]:
    """Return a line of a table; ratios are to the floor in the same round, where there is one."""
    pairs = list(zip(costs, floor, strict=True)) if sent.trips else []
    return {
        "peer": TITLES[name],
        "wall_us": median([cost.wall * 1e6 for cost in costs]),
        "cpu_us": median([cost.cpu * 1e6 for cost in costs]),
        "spread": spread([cost.wall for cost in costs]),
        "ratio": median([cost.wall / least.wall for cost, least in pairs]) if pairs else None,
        "cpu_ratio": median([cost.cpu / least.cpu for cost, least in pairs]) if pairs else None,
        "trips": sent.trips,
        "commands": ", ".join(f"{command} {times:g}" for command, times in sorted(sent.commands.items())),
    }


def measure(site: Worker, page: str, requests: int) -> Cost:
    """Let one peer send some requests, and as many to its bare app."""
    site.ask("prepare", page=PAGES[page], requests=requests)
    with_, without = Took(**site.ask("go", bare=False)), Took(**site.ask("go", bare=True))
    return Cost(with_.wall - without.wall, with_.cpu - without.cpu)


def count(redis: Any, site: Worker, page: str, requests: int = 20) -> Sent:
    """Let Redis count the commands of a request, those of scripts too, and the reads that it takes."""
    site.ask("prepare", page=PAGES[page], requests=requests)
    redis.config_resetstat()
    before = redis.info("stats")["total_reads_processed"]
    site.ask("go", bare=False)
    reads = redis.info("stats")["total_reads_processed"] - before - 1  # this one
    stats = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in redis.info("commandstats").items()}
    ours = ("info", "config|resetstat")
    return Sent({name: calls / requests for name, calls in stats.items() if name not in ours}, round(reads / requests))


@contextmanager
def server() -> Iterator[str]:
    """Run a redis-server for as long as the block lasts; yield its URL."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, server_at(port, folder):
        yield f"redis://127.0.0.1:{port}/0"


def free_port() -> int:
    """Return one that nothing listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def server_at(port: int, folder: str) -> Iterator[Any]:
    """Run a redis-server, which has what was SAVEd in the folder, for as long as the block lasts; yield a client."""
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", folder, "--save", ""]
    with Redis(port=port) as client, running([*command, "--logfile", "log"], SERVER_CPU) as process:
        until = time.monotonic() + STARTING
        while not _answers(client):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("redis-server does not start")
            time.sleep(0.01)
        yield client


def _answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except RedisConnectionError:
        return False


@contextmanager
def _site(name: str, url: str) -> Iterator[Worker]:
    command = node("redis.js", name, url) if name in peers.NODE else python("redis", name, url)
    with worker(command, CLIENT_CPU) as site:
        yield site


# In the worker


class Site:
    """A peer's apps, and the cookies of the requests to come."""

    def __init__(self, name: str, url: str) -> None:
        self.packages = candidates.packages(name)
        self.app, self.bare, _ = candidates.make(name, url)
        self.page = ""
        self.cookies: list[str] = []

    def versions(self) -> dict[str, str]:
        """Return the versions of the peer's packages, and of redis-py."""
        return {**{package: version(package) for package in self.packages}, "redis-py": version("redis")}

    def prepare(self, page: str, requests: int) -> None:
        """Connect, warm up, and make sessions for as many requests to a page."""
        self.page = page
        same = self.logged_in()
        timed(self.app, "/write", [same] * (requests // 10 + 1))
        if page == "/login":
            self.cookies = [OTHERS] * requests
        elif page == "/regenerate":
            self.cookies = [self.logged_in() for _ in range(requests)]
        else:
            self.cookies = [same] * requests

    def go(self, bare: bool) -> dict[str, float]:
        """Send the requests; return how long one takes."""
        return timed(self.bare if bare else self.app, self.page, self.cookies)._asdict()

    def logged_in(self) -> str:
        """Return what a visitor sends who has just logged in."""
        return carrying(pair(send(self.app, "/login", OTHERS).set_cookie or ""))


class Floor:
    """The commands alone, with the data as JSON."""

    def __init__(self, url: str) -> None:
        self.redis: Any = Redis.from_url(url)
        self.key = ""
        self.page: Callable[[], object] = self.login
        self.requests = 0

    def versions(self) -> dict[str, str]:
        """Return redis-py's."""
        return {"redis-py": version("redis")}

    def prepare(self, page: str, requests: int) -> None:
        """Connect, and store a session."""
        self.page, self.requests = getattr(self, page[1:]), requests
        self.login()

    def go(self, bare: bool) -> dict[str, float]:
        """Send the commands; return how long those of a page take."""
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(0 if bare else self.requests):
            self.page()
        return {
            "wall": (time.perf_counter() - wall) / self.requests,
            "cpu": (time.process_time() - cpu) / self.requests,
        }

    def untouched(self) -> None:
        """Send nothing."""

    def read(self) -> Any:
        """GET."""
        return json.loads(self.redis.get(self.key))

    def write(self) -> None:
        """GET and SET."""
        self.redis.set(self.key, json.dumps(self.read()), ex=TTL)

    def login(self) -> None:
        """SET."""
        self.key = secrets.token_urlsafe(24)
        self.redis.set(self.key, json.dumps(peers.DATA), ex=TTL)

    def regenerate(self) -> None:
        """GET, then SET and DEL at once."""
        data, old = self.read(), self.key
        self.key = secrets.token_urlsafe(24)
        self.redis.pipeline(transaction=False).set(self.key, json.dumps(data), ex=TTL).delete(old).execute()


if __name__ == "__main__":
    answer(Floor(sys.argv[2]) if sys.argv[1] == candidates.FLOOR else Site(*sys.argv[1:]))
