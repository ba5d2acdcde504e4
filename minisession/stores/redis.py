"""`RedisStore`: sessions in Redis or Valkey, under the keys and in the form that connect-redis uses.

::

    sess:<id>                       the record, a string; b"" is a tombstone
    minisession:user:sess:<user>    a sorted set of the user's ids, by when each was last refreshed

Every command and every script touches one key, as Cluster wants it.  Scripts compare bytes and never
decode a record.  They are sent in full: EVAL takes as long as EVALSHA (measured), and no restart, failover
or ``SCRIPT FLUSH`` can have lost them.

A list, a hash or the like under ``sess:<id>`` is no session, and left as it is: absent to `load`, taken to
`create`, never what was seen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING

from ..errors import StoreUnavailable
from ..limited import Limited
from .base import Stored
from .redis_link import BATCH, Command, Limits, connect, cursor_and_page, nonsense

if TYPE_CHECKING:
    from redis import Redis
    from redis.cluster import RedisCluster

MAX_LIFE = 10 * 365 * 86400  # seconds; every key has a TTL, so that whatever is forgotten goes some day
GRACE = 60  # seconds; a login under way has its entry in the user's index, and no record yet
SAMPLE = 64  # entries looked at when a user's index has grown by 32, so that the dead stay the fewer

# What `pcall` returns of a list or a hash is an error, and equals no string.
REPLACE = """\
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1"""  # DEL is allowed when memory is full, and after it SET is: a tombstone always finds its place

TOUCH = """\
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])"""

DROP = """\
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])"""

ENTER = """\
local added = redis.call('ZADD', KEYS[1], redis.call('TIME')[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return {added, redis.call('ZCARD', KEYS[1]) % 32}"""  # 0: look whether some can go

PRUNE = """\
local before, pruned = redis.call('TIME')[1] - ARGV[1], 0
for i = 2, #ARGV do
  local refreshed = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if refreshed and tonumber(refreshed) <= before then pruned = pruned + redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return pruned"""


class RedisStore:
    """Sessions in Redis 6.2 or later, or in Valkey, for any number of processes and machines.

    A hung Redis costs a call no more than the three time limits together, 1 s, and the calls after it
    nothing: they fail at once until one of them, 0.3 s later, has tried again.  Nothing is repeated,
    since a command whose answer was lost may have been carried out.  In a Cluster (redis-py 7.4 or later)
    each node is treated so by itself; where a user's index and the record are on two nodes, a login takes
    two round trips.

    Redis replicates after it has answered: a failover may lose the changes of its last moments.

    Args:
        url_or_client: ``redis://``, ``rediss://``, ``unix://`` or ``redis+cluster://``, with options of
            redis-py's behind ``?``; or a client: `redis.Redis`, also what Sentinel's ``master_for``
            returns, or `redis.cluster.RedisCluster`.  A client keeps the limits it was made with (by
            default, redis-py's wait 5 s and try ten times to connect), and `close` leaves it open.
        prefix: what the keys of sessions begin with.  Where several prefixes share a database, none may
            begin with another.
        connect_timeout: seconds to connect, to each of the host's addresses.  A Redis that is up accepts
            within milliseconds; this leaves room for one lost packet.
        read_timeout: seconds to wait for an answer.  Longer than Redis' usual pauses (a fork, a large
            deletion), and short of what a visitor takes for an outage.
        pool_timeout: seconds to wait for a connection while all are in use; in a Cluster, nobody waits.
        max_connections: connections at most, of each process to each node: more than servers have threads.
        clock: the time, in Unix seconds.
        monotonic: the time by which pauses are measured, in seconds.

    Raises:
        TypeError, ValueError: at construction, naming what was wrong and the mend.
    """

    def __init__(
        self,
        url_or_client: str | Redis | RedisCluster,
        *,
        prefix: str = "sess:",
        connect_timeout: float = 0.25,
        read_timeout: float = 0.5,
        pool_timeout: float = 0.25,
        max_connections: int = 50,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not isinstance(prefix, str):
            raise TypeError(f"prefix must be a str, not {prefix!r}")
        self._prefix = prefix.encode()
        self._indexes = b"minisession:user:" + self._prefix
        self._clock = clock
        limits = Limits(connect_timeout, read_timeout, pool_timeout, max_connections)
        self._redis = connect(url_or_client, limits, monotonic)
        self._tell = Limited(logging.getLogger("minisession"), monotonic)

    # The five verbs

    def load(self, id: str) -> Stored | None:
        """Return the record, or None."""
        key = self._prefix + id.encode()
        match self._redis.run(("GET", key), ("PTTL", key), foreign=True):
            case [bytes(data), -1]:
                return Stored(data, inf)
            case [bytes(data), int(ttl)] if ttl >= 0:
                return Stored(data, self._clock() + ttl / 1000)
            case [None | bytes(), int()]:
                return None  # there was none, or it expired between the two
            case [False, int()]:  # FOREIGN
                self._tell(logging.WARNING, "session not loaded: its key in Redis is somebody else's list, hash or set")
                return None
        raise nonsense()

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        """Store a new record, after its entry in the user's index."""
        key, ttl = self._prefix + id.encode(), self._ttl(expires_at)
        if not ttl:
            return self._redis.run(("EXISTS", key)) == [0]
        entry = self._entry(id, user, ttl)
        *entered, done = self._redis.run(*entry, ("SET", key, data, "PX", ttl, "NX"))
        match entered:
            case [[1, _]] if done is None:
                self._redis.run(("ZREM", entry[0][3], id.encode()))  # or another's session would be listed
            case [[_, 0]]:
                self._prune_some(entry[0][3])
        if done not in (b"OK", None):
            raise nonsense()
        return done is not None

    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        """Store ``data`` if the record is still ``seen``, after its entry in the user's index."""
        key, ttl = self._prefix + id.encode(), self._ttl(expires_at)
        if not ttl:
            return self._drop(key, seen)
        entry = self._entry(id, user, ttl)
        return self._redis.run(*entry, ("EVAL", REPLACE, 1, key, seen, data, ttl))[-1:] == [1]

    def touch(self, id: str, seen: bytes, expires_at: float, user: str | None = None) -> bool:
        """Move the expiry if the record is still ``seen``, after its entry in the user's index."""
        key, ttl = self._prefix + id.encode(), self._ttl(expires_at)
        if not ttl:
            return self._drop(key, seen)
        entry = self._entry(id, user, ttl)
        return self._redis.run(*entry, ("EVAL", TOUCH, 1, key, seen, ttl))[-1:] == [1]

    def delete(self, id: str) -> bool:
        """Forget the record; its entry in its user's index is pruned later."""
        [record] = self._redis.run(("GETDEL", self._prefix + id.encode()), foreign=True)
        return isinstance(record, bytes)

    def close(self) -> None:
        """Close our connections; a client that was given stays open."""
        self._redis.close()

    # Listing

    def ids(self, user: str | None = None) -> Iterator[str]:
        """Yield the ids of live sessions; while Redis resizes its tables, it may name one twice."""
        if user is None:
            for keys in self._redis.scan(self._prefix, "string"):
                yield from _texts(self._live([key[len(self._prefix) :] for key in keys]))
        else:
            for live, _ in self._walk(self._indexes + user.encode(), GRACE):
                yield from _texts(live)

    def purge(self) -> int:
        """Prune all users' indexes and return how many entries; records are freed by Redis itself."""
        return self._sweep(GRACE)

    def clear(self) -> int:
        """Forget every session under the prefix, and return how many there were."""
        cleared = 0
        for keys in self._redis.scan(self._prefix, "string"):
            cleared += len(self._live([key[len(self._prefix) :] for key in keys]))
            self._redis.batch([("DEL", key) for key in keys])
        self._sweep(0)
        return cleared

    # Inside

    def _ttl(self, expires_at: float) -> int:
        """Return the milliseconds left, at least 1; 0 where the time has come.

        They are relative, so that Redis' clock need not be ours.
        """
        left = min(expires_at - self._clock(), MAX_LIFE)
        return max(1, round(left * 1000)) if left > 0 else 0

    def _drop(self, key: bytes, seen: bytes) -> bool:
        return self._redis.run(("EVAL", DROP, 1, key, seen)) == [1]

    def _entry(self, id: str, user: str | None, ttl: int) -> list[Command]:
        return [] if user is None else [("EVAL", ENTER, 1, self._indexes + user.encode(), id.encode(), ttl)]

    def _live(self, ids: list[bytes]) -> list[bytes]:
        sizes = self._redis.batch([("STRLEN", self._prefix + id) for id in ids])
        return [id for id, size in zip(ids, sizes, strict=True) if size]

    def _sweep(self, grace: int) -> int:
        indexes = (index for keys in self._redis.scan(self._indexes, "zset") for index in keys)
        return sum(pruned for index in indexes for _, pruned in self._walk(index, grace))

    def _walk(self, index: bytes, grace: int) -> Iterator[tuple[list[bytes], int]]:
        """Yield an index's live ids, in batches, each with how many dead ones were pruned."""
        cursor = None
        while cursor != b"0":
            cursor, entries = cursor_and_page(self._redis.run(("ZSCAN", index, cursor or b"0", "COUNT", BATCH)))
            yield self._prune(index, entries[::2], grace)

    def _prune(self, index: bytes, ids: list[bytes], grace: int) -> tuple[list[bytes], int]:
        live = self._live(ids)
        dead = set(ids).difference(live)
        return live, self._redis.run(("EVAL", PRUNE, 1, index, grace, *dead))[0] if dead else 0

    def _prune_some(self, index: bytes) -> None:
        """Look at some entries, at random, so that the work does not grow with the index."""
        with suppress(StoreUnavailable):  # the session is stored
            (some,) = self._redis.run(("ZRANDMEMBER", index, SAMPLE))
            self._prune(index, some, GRACE)


def _texts(ids: Iterable[bytes]) -> Iterator[str]:
    for id in ids:
        with suppress(UnicodeDecodeError):  # somebody else's key: no cookie can name it
            yield id.decode()
