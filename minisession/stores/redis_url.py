"""From a URL to connections; a URL that is wrong is an error at construction."""

from __future__ import annotations

import os
import queue
import re
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from redis import VERSION, BlockingConnectionPool, ConnectionPool

from .. import checks
from .redis_deadline import patient
from .redis_node import NEVER

Address = tuple[str, int]

FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")

NO_URL = (
    "not a Redis URL: redis://[[user]:password@]host[:port][/database][?option=value], rediss://…,"
    " unix://[[user]:password@]/path, or redis+cluster://host[:port],host[:port]…"
)

# No CLIENT SETINFO, which is two round trips for every connection.
SILENT: dict[str, Any] = (
    {"driver_info": None} if VERSION[:2] >= (7, 2) else {"lib_name": None, "lib_version": None}
)


class Limits(NamedTuple):
    """The seconds that a call may wait, for each kind of wait, and the number of connections."""

    connect_timeout: float
    read_timeout: float
    pool_timeout: float
    max_connections: int

    def check(self) -> None:
        """Raise a TypeError or a ValueError that names the limit that is wrong."""
        for name, limit in self._asdict().items():
            check = checks.count if name == "max_connections" else checks.seconds
            check(name, limit)


class Target(NamedTuple):
    """What a URL stands for.

    Attributes:
        seeds: a Cluster's nodes; empty for a single node.
        seconds: the time that a call may take.
        pool: returns new connections to what the URL names, or to this host and port.
    """

    seeds: list[Address]
    seconds: float
    pool: Callable[..., ConnectionPool]


class Free:
    """A pool's connections that are free, the last used first, and None in the place of new ones.

    As `queue.LifoQueue`, which redis-py would take, but each step is one of C's: an exception that
    a signal raises in the midst of that one leaves its lock taken, and all later calls hang.
    """

    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        # redis-py looks at this, too.
        self.queue: list[Any] = []
        # Looked up now, as gevent may have replaced it since.
        self._turns: queue.SimpleQueue[None] = queue.SimpleQueue()

    def put_nowait(self, item: object) -> None:
        """Add one, or raise `queue.Full`."""
        if len(self.queue) >= self.maxsize:
            raise queue.Full
        self.queue.append(item)
        self._turns.put(None)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take one, or raise `queue.Empty` after so many seconds."""
        self._turns.get(block, timeout)
        return self.queue.pop()


def target(url: str, limits: Limits) -> Target:
    """Return what a URL stands for.

    Raises:
        TypeError, ValueError: it is not Redis', or has an option that redis-py does not know, or a
            file that is not there.  The message does not quote it, as it may hold a password.
    """
    url, clustered = re.subn(r"\A(rediss?)\+cluster:", r"\1:", url)
    options = {
        "socket_connect_timeout": limits.connect_timeout,
        "socket_timeout": limits.read_timeout,
        "max_connections": limits.max_connections,
        "timeout": limits.pool_timeout,
        "retry": NEVER,
        "protocol": 2,
        # hiredis takes TLS' session tickets for unrequested data, unless an answer has come after
        # them.
        **({} if url.startswith("rediss:") else SILENT),
    }
    try:
        url, seeds = _with_one_host(url, clustered=bool(clustered))
        model: Any = BlockingConnectionPool.from_url(url, **options)
    except ValueError:
        # The cause may quote the password.
        raise ValueError(NO_URL) from None
    connection_class, kwargs = model.connection_class, model.connection_kwargs
    must_not_decode(kwargs)
    must_have_files(kwargs)
    must_be_known(connection_class, kwargs)
    waits = kwargs["socket_connect_timeout"], kwargs["socket_timeout"], model.timeout

    def pool(**address: Any) -> Any:
        make: Any = BlockingConnectionPool
        return make(
            max_connections=model.max_connections,
            timeout=model.timeout,
            connection_class=patient(connection_class),
            queue_class=Free,
            **{**kwargs, **address},
        )

    return Target(seeds, sum(waits), pool)


def _with_one_host(url: str, *, clustered: bool) -> tuple[str, list[Address]]:
    """Return the URL with the first of its hosts, and a Cluster's seeds."""
    parsed = urlsplit(url)
    if parsed.scheme != "unix":
        # redis-py takes /shop for database 0, and /1/2 for 12.
        if int(parsed.path.removeprefix("/") or 0) and clustered:
            raise ValueError("a Cluster has one database")
    elif not parsed.path:
        raise ValueError("a socket has a path")
    login, at, hosts = parsed.netloc.rpartition("@")
    if not clustered:
        if "," in hosts:
            raise ValueError("only a Cluster has several hosts")
        return url, []
    parts = [urlsplit(f"//{host}") for host in hosts.split(",")]
    seeds = [(part.hostname or "localhost", part.port or 6379) for part in parts]
    first = f"{login}{at}{hosts.split(',', maxsplit=1)[0]}"
    return urlunsplit(parsed._replace(netloc=first)), seeds


def must_be_known(connection_class: Callable[..., object], options: dict[str, Any]) -> None:
    """Raise a TypeError where redis-py does not know an option: now, not at the first request."""
    try:
        connection_class(**options)
    except TypeError as error:
        raise TypeError(f"a Redis URL has an option that redis-py does not know: {error}") from None


def must_not_decode(options: dict[str, Any]) -> None:
    """Raise a TypeError where replies would be decoded."""
    if options.get("decode_responses"):
        raise TypeError(
            "the client decodes what it reads, and records are bytes: make it with"
            " decode_responses=False"
        )


def must_have_files(options: dict[str, Any]) -> None:
    """Raise a ValueError where a file of TLS' is not there."""
    for name in FILES:
        path = options.get(name)
        if path is not None and not os.path.exists(path):
            raise ValueError(f"{name}: there is no {path}")
