"""A link to one Redis on which no call waits for long.

The exchanges are redis-py's, by its public API, except for three things.  redis-py repeats commands
whose answer was lost, although they may have been carried out: here, none is repeated.  It gives a
connection back when an exchange was broken off, so that the next call would read another's answer:
here, it is closed.  And it changes replies by the names of their commands: here, it does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from redis import ConnectionError as RedisConnectionError
from redis import ConnectionPool, Redis, RedisError
from redis import TimeoutError as RedisTimeout
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, ResponseError
from redis.retry import Retry

from .redis_deadline import Budget
from .redis_gate import HASTE, Gate
from .redis_replies import Busy, checked, code_of, cursor_and_page, milliseconds, unavailable

Command = tuple[Any, ...]

# Keys in one round trip of a listing.
BATCH = 250

FAILURES = (
    *(RedisError, RedisClusterException, OSError),
    # redis-py's, where it was answered nonsense.
    *(ValueError, TypeError, OverflowError, RecursionError),
    # redis-py's, where another thread has closed the connection.
    AttributeError,
)

NEVER = Retry(NoBackoff(), 0)

INFO = ("INFO", "memory")

_HASTY = Budget(HASTE)


# The connection that this thread, or greenlet, has taken, and its own way to repeat.  Not a
# threading.local: see `redis_deadline`.  One visitor's answer would be another's.
_taken: ContextVar[tuple[Any, Any] | None] = ContextVar("taken", default=None)


class Lent:
    """A pool for redis-py's client, whose returned connection stays with the caller for a moment.

    The caller knows whether the exchange was whole, and ends it by `settle`.
    """

    def __init__(self, pool: ConnectionPool, now: Callable[[], float]) -> None:
        self._pool, self._now = pool, now
        # When a connection was last taken or given back.
        self.moved_at = now()

    def get_connection(self, *args: Any, **options: Any) -> Any:
        """Take a connection that repeats nothing."""
        try:
            connection: Any = self._pool.get_connection(*args, **options)
        except RedisConnectionError as error:
            if str(error).startswith(("No connection available", "Too many connections")):
                raise Busy(
                    f"Redis: all {self._pool.max_connections} connections of this process are in"
                    " use; threads or greenlets that outnumber them need a larger max_connections"
                ) from None
            raise
        _taken.set((connection, connection.retry))
        self.moved_at = self._now()
        connection.retry = NEVER
        return connection

    def release(self, connection: Any) -> None:
        """Do nothing yet."""

    def settle(self, *, whole: bool) -> None:
        """Give back what was taken; closed, if an answer may still come."""
        taken = _taken.get()
        _taken.set(None)
        if taken is not None:
            connection, retry = taken
            connection.retry = retry
            try:
                if not whole:
                    connection.disconnect()
            finally:
                self._pool.release(connection)
                self.moved_at = self._now()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


class Line:
    """A client of redis-py's for a pool, which is treated as `Lent` says."""

    def __init__(self, pool: ConnectionPool, now: Callable[[], float]) -> None:
        self.pool = pool
        self.lent = Lent(pool, now)
        as_pool: Any = self.lent
        self._client: Any = Redis(connection_pool=as_pool)
        self._client.response_callbacks.clear()

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send the commands; return the replies, the errors that Redis answered among them."""
        whole = False
        try:
            replies = self._one(*commands) if len(commands) == 1 else self._many(commands)
            whole = True
            return replies
        finally:
            self.lent.settle(whole=whole)

    def _one(self, command: Command) -> list[Any]:
        try:
            return [self._client.execute_command(*command)]
        except ResponseError as error:
            return [error]

    def _many(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = pipeline.execute(raise_on_error=False)
        return replies


class Node:
    """One Redis, or the one that Sentinel calls the master.

    Args:
        pool: connections to it.
        seconds: the time that a call may take.
        monotonic: the time.
        look: is shown once what INFO says of its memory.
        renew: returns a pool without the idle ones; None if the connections are not ours.
    """

    # A script may have any keys.
    together = True

    def __init__(
        self,
        pool: ConnectionPool,
        seconds: float,
        monotonic: Callable[[], float],
        look: Callable[[object], None],
        renew: Callable[[], ConnectionPool] | None = None,
    ) -> None:
        self.budget = Budget(seconds)
        self._now = monotonic
        self._line = Line(pool, monotonic)
        self._renew = renew
        # Only connections of ours can make haste.
        self._gate = Gate(monotonic, hasty=renew is not None)
        self._look: Callable[[object], None] | None = look

    def run(self, *commands: Command, foreign: bool = False) -> list[Any]:
        """Carry the commands out in this order, in one round trip; return their replies.

        Raises:
            StoreUnavailable: they may have been carried out, or not.  With ``foreign``, a key of
                another type does not raise it, but is `FOREIGN`.
        """
        return checked(self.ask(commands), foreign)

    def batch(self, commands: list[Command]) -> list[Any]:
        """Carry many commands out, in any order; a key of another type is `FOREIGN`."""
        return self.run(*commands, foreign=True) if commands else []

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """As `run`, with the errors that Redis answered among the replies."""
        (begun, hasty), look = self._gate.enter(), self._look
        try:
            # The first call's additional question is part of its round trip.
            asked = commands if look is None else [*commands, INFO]
            budget = _HASTY if hasty else self.budget
            replies = budget.spend(self._line.exchange, asked)
        except Busy:
            self._gate.not_tried()
            # No call keeps one for so long: exceptions that signals raised have lost them.
            if self._now() - self._line.lent.moved_at > self.budget.seconds:
                self._anew()
            raise
        except RedisTimeout as error:
            if self._gate.in_vain(begun):
                # Whatever made one connection hang may have cut off all idle ones.
                self._anew()
            raise unavailable(error) from None
        except FAILURES as error:
            self._gate.answered()
            raise unavailable(error) from None
        self._gate.answered()
        if look is not None:
            self._look = None
            look(replies.pop())
        self._mind_failover(replies)
        return replies

    def scan(self, prefix: bytes, type: str) -> Iterator[list[bytes]]:
        """Yield the keys of this type that begin with this, in batches."""
        pattern = re.sub(rb"([*?\[\]\\])", rb"\\\1", prefix) + b"*"
        cursor = None
        while cursor != b"0":
            scan = ("SCAN", cursor or b"0", "MATCH", pattern, "COUNT", BATCH, "TYPE", type)
            cursor, keys = cursor_and_page(self.run(scan))
            yield keys

    def time(self) -> int:
        """Return its time in ms."""
        return milliseconds(self.run(("TIME",)))

    def close(self) -> None:
        """Close the connections, if they are ours."""
        if self._renew is not None:
            self._line.pool.disconnect()

    def _anew(self) -> None:
        if self._renew is not None:
            self._line = Line(self._renew(), self._now)

    def _mind_failover(self, replies: list[Any]) -> None:
        """After a failover, send no call over an old connection: a new one finds the new master."""
        errors = (code_of(reply) for reply in replies if isinstance(reply, ResponseError))
        if not {"READONLY", "MASTERDOWN"}.isdisjoint(errors):
            self._anew()
            if self._renew is None:
                # A BlockingConnectionPool of an older redis-py closes all or none.
                with suppress(TypeError):
                    self._line.pool.disconnect(inuse_connections=False)
