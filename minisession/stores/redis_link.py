"""Links to Redis, on which nobody waits for long: one node, or a Cluster.

The connections are redis-py's, and so is a Cluster's map; the exchanges are ours.  redis-py's own would
repeat commands whose answer was lost.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from inspect import Parameter, signature
from itertools import groupby
from math import isfinite
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..errors import StoreUnavailable

try:
    from redis import BlockingConnectionPool, ConnectionPool, Redis, RedisError
    from redis import TimeoutError as RedisTimeout
    from redis.backoff import NoBackoff
    from redis.cluster import RedisCluster
    from redis.connection import AbstractConnection
    from redis.exceptions import (
        AskError,
        ClusterCrossSlotError,
        InvalidResponse,
        MasterDownError,
        MovedError,
        ReadOnlyError,
        RedisClusterException,
        ResponseError,
        TryAgainError,
    )
    from redis.retry import Retry
except ImportError as error:
    raise ImportError(
        "RedisStore needs redis-py, the package redis, from version 5 on:"
        f" pip install 'redis>=5' ({error})"
    ) from error

BATCH = 250  # keys in one round trip of a listing
PAUSE = (
    0.3  # seconds in which nobody waits for a node that has just kept somebody waiting for nothing
)
PATIENCE = 1.0  # seconds until the one call that tries again is taken for lost
MAX_REDIRECTIONS = 5  # of one command, by a Cluster that is moving its slots

FAILURES = (
    *(RedisError, RedisClusterException, OSError),
    *(
        ValueError,
        TypeError,
        OverflowError,
        RecursionError,
    ),  # redis-py's, where it was answered nonsense
    AttributeError,  # redis-py's, where another thread has closed the connection
)

Command = tuple[Any, ...]

FOREIGN = False
"""A reply, where asked for: the key holds a list, a hash, or whatever else is not ours."""


class Refusal(StoreUnavailable):
    """Redis answered with an error: nothing of that command was done.

    Attributes:
        code: the error's first word, such as ``OOM``.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Limits(NamedTuple):
    """How long a call may wait, in seconds, for what; and how many connections there may be."""

    connect_timeout: float
    read_timeout: float
    pool_timeout: float
    max_connections: int

    def check(self) -> None:
        """Raise a TypeError or a ValueError that names a limit which is none."""
        for name, limit in self._asdict().items():
            kind, unit = (
                (int, "an int")
                if name == "max_connections"
                else ((int, float), "a number of seconds")
            )
            if isinstance(limit, bool) or not isinstance(limit, kind):
                raise TypeError(f"{name} must be {unit}, not {limit!r}")
            if not (limit > 0 and isfinite(limit)):
                raise ValueError(f"{name} must be positive and finite, not {limit!r}")


def connect(
    url_or_client: str | Redis | RedisCluster, limits: Limits, monotonic: Callable[[], float]
) -> Node | Cluster:
    """Return a link; nothing is sent yet, so that an app starts while its Redis does."""
    limits.check()
    if isinstance(url_or_client, Redis):
        pool = url_or_client.connection_pool
        _must_not_decode(pool.connection_kwargs)
        return Node(pool, monotonic)
    if isinstance(url_or_client, RedisCluster):
        _must_not_decode(url_or_client.nodes_manager.connection_kwargs)
        return Cluster(lambda: url_or_client, monotonic)
    if not isinstance(url_or_client, str):
        raise TypeError(
            f"a URL, a redis.Redis or a redis.cluster.RedisCluster is needed, not {type(url_or_client)}"
        )
    url, clustered = re.subn(r"\A(rediss?)\+cluster:", r"\1:", url_or_client)
    options = {
        "socket_connect_timeout": limits.connect_timeout,
        "socket_timeout": limits.read_timeout,
        "max_connections": limits.max_connections,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        # hiredis takes TLS' session tickets for data that nobody asked for, unless an answer has come after them.
        **({} if url.startswith("rediss:") else _SILENT),
    }
    make = partial(BlockingConnectionPool.from_url, url, timeout=limits.pool_timeout, **options)
    try:
        pool = make()
        if not url.startswith("unix:"):
            int(
                urlsplit(url).path.removeprefix("/") or 0
            )  # redis-py takes /shop for database 0, and /1/2 for 12
    except ValueError:  # it may quote the password
        raise ValueError(
            "not a Redis URL: redis://[[user]:password@]host[:port][/database][?option=value], rediss://…,"
            " unix://[[user]:password@]/path, or redis+cluster://…"
        ) from None
    _must_not_decode(pool.connection_kwargs)
    pool.connection_class(
        **pool.connection_kwargs
    )  # an option that redis-py does not know is a TypeError, and now
    if clustered:
        return Cluster(
            partial(RedisCluster.from_url, url, require_full_coverage=False, **options),
            monotonic,
            ours=True,
        )
    return Node(pool, monotonic, make)


def _must_not_decode(options: dict[str, Any]) -> None:
    if options.get("decode_responses"):
        raise TypeError(
            "the client decodes what it reads, and records are bytes: make it with decode_responses=False"
        )


class Gate:
    """Spares callers the wait for a node that keeps them waiting: a circuit breaker.

    Whoever has waited for nothing shuts it.  `PAUSE` later one call is let in, and no other while that
    waits; when it is answered, all are.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._now = monotonic
        self._shut_until = 0.0  # 0: open.  There is no lock here, which a fork could copy locked

    def enter(self) -> None:
        """Raise StoreUnavailable if it is shut."""
        if self._shut_until:
            now = self._now()
            if now < self._shut_until:
                raise StoreUnavailable("Redis: it did not answer in time a moment ago")
            self._shut_until = now + PATIENCE

    def shut(self) -> None:
        """Let nobody in for a while."""
        self._shut_until = self._now() + PAUSE

    def open(self) -> None:
        """Let everybody in."""
        self._shut_until = 0.0


class Node:
    """One Redis, or the one that Sentinel calls the master.

    Args:
        pool: connections to it.
        monotonic: the time.
        renew: returns a pool without those that idle; None if the connections are not ours.
    """

    together = True
    """A script may have any keys."""

    def __init__(
        self,
        pool: ConnectionPool,
        monotonic: Callable[[], float],
        renew: Callable[[], ConnectionPool] | None = None,
    ) -> None:
        self.pool = pool
        self._renew = renew
        self._gate = Gate(monotonic)

    def run(self, *commands: Command, foreign: bool = False) -> list[Any]:
        """Carry the commands out in this order, in one round trip; return their replies.

        Raises:
            StoreUnavailable: they may have been carried out, or not.  With ``foreign``, a key of another
                type is none, but `FOREIGN`.
        """
        return _checked(self.ask(commands), foreign)

    def batch(self, commands: list[Command]) -> list[Any]:
        """Carry many commands out, in any order; a key of another type is `FOREIGN`."""
        return self.run(*commands, foreign=True)

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """As `run`, with the errors that Redis answered among the replies."""
        self._gate.enter()
        try:
            replies = _exchange(self.pool, commands)
        except RedisTimeout as error:
            self._gate.shut()
            if self._renew is not None:
                self.pool = (
                    self._renew()
                )  # what made one connection hang may have cut off all that idle
            raise _unavailable(error) from None
        except FAILURES as error:
            self._gate.open()
            raise _unavailable(error) from None
        self._gate.open()
        return replies

    def scan(self, prefix: bytes, type: str) -> Iterator[list[bytes]]:
        """Yield the keys that begin so, and are of this type, in batches."""
        pattern = re.sub(rb"([*?\[\]\\])", rb"\\\1", prefix) + b"*"
        cursor = None
        while cursor != b"0":
            scan = ("SCAN", cursor or b"0", "MATCH", pattern, "COUNT", BATCH, "TYPE", type)
            cursor, keys = cursor_and_page(self.run(scan))
            yield keys

    def time(self) -> int:
        """Return its time in ms."""
        match self.run(("TIME",)):
            case [[bytes(seconds), bytes(micros)]] if seconds.isdigit() and micros.isdigit():
                return int(seconds) * 1000 + int(micros) // 1000
        raise nonsense()

    def close(self) -> None:
        """Close the connections, if they are ours."""
        if self._renew is not None:
            self.pool.disconnect()


class Cluster:
    """A Redis Cluster.

    Until redis-py 7.4, fetching the map cuts off other calls to the node that is asked for it.

    Args:
        make: connects to it, when that is needed, and returns redis-py's client.
        monotonic: the time.
        ours: the client is to be closed.
    """

    together = False

    def __init__(
        self,
        make: Callable[[], RedisCluster],
        monotonic: Callable[[], float],
        *,
        ours: bool = False,
    ) -> None:
        self._make, self._now, self._ours = make, monotonic, ours
        self._made: Any = None  # a RedisCluster, whose types are partial
        self._gate = Gate(monotonic)
        self._nodes: dict[str, Node] = {}
        self._refresh_at = 0.0

    def run(self, *commands: Command, foreign: bool = False) -> list[Any]:
        """Carry the commands out in this order, neighbours on one node in one round trip; return their replies.

        Raises:
            StoreUnavailable: they may have been carried out, or some of them, or none.  `FOREIGN` as in `Node`.
        """
        replies: list[Any] = []
        try:
            for home, neighbours in groupby(commands, self._home):
                asked = list(neighbours)
                answers = self._node(home).ask(asked)
                replies += _checked(
                    [self._follow(*pair) for pair in zip(asked, answers, strict=True)], foreign
                )
        except StoreUnavailable:
            self._refresh()
            raise
        return replies

    def batch(self, commands: list[Command]) -> list[Any]:
        """Carry many commands out, node by node; a key of another type is `FOREIGN`."""
        order = sorted(range(len(commands)), key=lambda n: str(self._home(commands[n]).name))
        replies = dict(
            zip(order, self.run(*(commands[n] for n in order), foreign=True), strict=True)
        )
        return [replies[n] for n in range(len(commands))]

    def scan(self, prefix: bytes, type: str) -> Iterator[list[bytes]]:
        """Yield the keys that begin so, and are of this type, of one master after the other."""
        for home in self._client.get_primaries():
            yield from self._node(home).scan(prefix, type)

    def time(self) -> int:
        """Return in ms what time it is at least on every master that answers."""
        times = []
        for home in self._client.get_primaries():
            with suppress(StoreUnavailable):
                times.append(self._node(home).time())
        if not times:
            raise StoreUnavailable("Redis Cluster: no master answers")
        return min(times)

    def close(self) -> None:
        """Close the client, if it is ours."""
        if self._ours and self._made is not None:
            self._made.close()

    @property
    def _client(self) -> Any:
        if self._made is None:
            self._gate.enter()
            try:
                self._made = self._make()
            except FAILURES as error:
                self._gate.shut()
                raise _unavailable(error) from None
            self._gate.open()
        return self._made

    def _home(self, command: Command) -> Any:
        """Return redis-py's node for a command's key."""
        try:
            return self._client.get_node_from_key(command[3 if command[0] == "EVAL" else 1])
        except RedisClusterException as error:  # no node has its slot
            raise _unavailable(error) from None

    def _node(self, home: Any) -> Node:
        pool = self._client.get_redis_connection(home).connection_pool
        node = self._nodes.get(home.name)
        if node is None or node.pool is not pool:
            node = self._nodes[home.name] = Node(
                pool, self._now, partial(_idle_closed, pool) if self._ours else None
            )
        return node

    def _follow(self, command: Command, reply: Any) -> Any:
        """Go where the Cluster says that the key is (MOVED), or may be already (ASK)."""
        for _ in range(MAX_REDIRECTIONS):
            if not isinstance(reply, AskError):  # the base of MovedError, too
                return reply
            moved = isinstance(reply, MovedError)
            if moved:
                self._refresh()
            home = self._client.get_node(reply.host, reply.port)
            if home is None:
                break
            reply = self._node(home).ask([command] if moved else [("ASKING",), command])[-1]
        raise StoreUnavailable("Redis Cluster: a key is being moved")

    def _refresh(self) -> None:
        """Have the map of slots fetched, by a thread: it may ask nodes that are gone, and nobody is to wait."""
        now = self._now()
        if self._made is not None and now >= self._refresh_at:
            self._refresh_at = now + 10  # should the thread get lost, as in a fork
            threading.Thread(target=self._fetch_map, daemon=True).start()

    def _fetch_map(self) -> None:
        with suppress(*FAILURES):
            self._made.nodes_manager.initialize()
        self._refresh_at = self._now() + PAUSE


def _idle_closed(pool: ConnectionPool) -> ConnectionPool:
    pool.disconnect(inuse_connections=False)
    return pool


def _exchange(pool: ConnectionPool, commands: Sequence[Command]) -> list[Any]:
    """Send the commands in one write; return the replies, the errors that Redis answered among them."""
    connection: Any = pool.get_connection(*_NAMELESS)
    try:
        connection.send_packed_command([_packed(commands)])
        replies = [_reply(connection) for _ in commands]
        if any(isinstance(reply, (ReadOnlyError, MasterDownError)) for reply in replies):
            connection.disconnect()  # a new one finds the new master
        return replies
    except BaseException:
        connection.disconnect()  # or an answer that comes late is taken for another command's
        raise
    finally:
        pool.release(connection)


def _packed(commands: Sequence[Command]) -> bytes:
    """Return the commands as Redis wants them; redis-py's takes three times as long, and cuts up what is long."""
    parts = []
    for command in commands:
        parts.append(b"*%d\r\n" % len(command))
        for word in command:
            data = word if isinstance(word, bytes) else str(word).encode()
            parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


def _checked(replies: list[Any], foreign: bool) -> list[Any]:
    for number, reply in enumerate(replies):
        if isinstance(reply, ResponseError):
            if not (foreign and str(reply).startswith("WRONGTYPE")):
                raise Refusal(str(_unavailable(reply)), reply_code(reply))
            replies[number] = FOREIGN
    return replies


def reply_code(reply: ResponseError) -> str:
    """Return the first word of what Redis answered, which redis-py may have cut off."""
    known = {ClusterCrossSlotError: "CROSSSLOT", TryAgainError: "TRYAGAIN"}
    return known.get(type(reply)) or str(reply).partition(" ")[0]


def cursor_and_page(replies: list[Any]) -> tuple[bytes, list[bytes]]:
    """Return what SCAN or ZSCAN answered."""
    match replies:
        case [[bytes(cursor), [*page]]] if all(isinstance(one, bytes) for one in page):
            return cursor, page
    raise nonsense()


def nonsense() -> StoreUnavailable:
    """Return the error for a reply that is none to what was asked."""
    return StoreUnavailable("Redis: it answered what was not asked")


def _unavailable(error: Exception) -> StoreUnavailable:
    """Say what is wrong without what an error may quote: ids and data."""
    told = isinstance(error, (RedisError, RedisClusterException)) and not isinstance(
        error, InvalidResponse
    )
    text = str(error).partition(", with args")[0] if told else "no answer that could be understood"
    return StoreUnavailable(f"Redis: {text} ({type(error).__name__})")


# Where versions of redis-py differ, from 5 to 8

_NAMELESS = (
    ("_",)
    if signature(ConnectionPool.get_connection).parameters["command_name"].default
    is Parameter.empty
    else ()
)
_SILENT: dict[str, Any] = (  # no CLIENT SETINFO, which is two round trips for every connection
    {"driver_info": None}
    if "driver_info" in signature(AbstractConnection.__init__).parameters
    else {"lib_name": None, "lib_version": None}
)
