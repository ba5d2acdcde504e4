"""`RedisStore`: sessions in Redis or Valkey, under connect-redis' keys and in its form.

::

    sess:<id>                       the record, a string; b"" with a TTL is a tombstone
    minisession:heir:{sess:<id>}    of a tombstone: the id that inherited from it
    minisession:user:sess:<user>    a sorted set of the user's ids, by when each was last refreshed

On one node each verb is one command, and most are scripts: `redis_scripts` says what they do.  In a
Cluster a script can have the keys of one slot only, so the user's index is written in a step of its
own, before the record.

A list, a hash or the like under ``sess:<id>`` is not a session, and left as it is: absent to
`load`, taken to `create`, never what was seen.  So is an empty string without a TTL.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import SessionConflict, StoreUnavailable
from ..limited import Limited
from . import redis_scripts as lua
from .base import TOMBSTONE_LIFE, Stored
from .redis_link import BATCH, Limits, Refusal, connect, cursor_and_page, nonsense

if TYPE_CHECKING:
    from redis import Redis
    from redis.cluster import RedisCluster

MAX_LIFE = 10 * 365 * 86400
"""Seconds.  Every key has a TTL, so that whatever is forgotten goes some day."""

GRACE = 60
"""Seconds.  A login under way has its entry in the user's index, and no record yet."""

SAMPLE = 64
"""Entries looked at when a user's index has grown by 32, so that the dead stay the fewer."""

TICK = 0.004
"""Seconds.  A listing begins so much later, so that Redis' milliseconds tell what was before it."""

MAX_HEIRS = 1000
"""Rotations of a session that `clear` follows in a Cluster, one after the other."""

HEIRS = b"minisession:heir:"

LIFE = TOMBSTONE_LIFE * 1000

HASH_TAG = re.compile(rb"[^{]*\{[^}]+\}")


class Entry(NamedTuple):
    """What is written under the key of a user's index: an id, and how many ms it will live."""

    key: bytes
    ttl: int
    id: str


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
        self._together = (
            self._redis.together
        )  # whether a script may have any keys, or those of one slot only
        self._tell = Limited(logging.getLogger("minisession"), monotonic)

    # The verbs

    def load(self, id: str) -> Stored | None:
        """Return the record, or None."""
        match self._eval(lua.LOAD, [self._key(id)]):
            case [bytes(data), -1]:
                return Stored(data, inf) if data else None
            case [bytes(data), int(ttl)] if ttl >= 0:
                return Stored(data, self._clock() + ttl / 1000)
            case [None | bytes(), int()]:
                return None
            case 0:
                self._tell(
                    logging.WARNING,
                    "session not loaded: its key in Redis holds a list, a hash or a set",
                )
                return None
        raise nonsense()

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        """Store a new record, after its entry in the user's index."""
        key, ttl = self._key(id), self._ttl(expires_at)
        if not ttl:
            return self._redis.run(("EXISTS", key)) == [0]
        return self._write(lua.CREATE, key, (ttl, id, data), self._entry(id, ttl, user))

    def replace(
        self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None
    ) -> bool:
        """Store ``data`` if the record is still ``seen``, after its entry in the user's index."""
        key, ttl = self._key(id), self._ttl(expires_at)
        if not (seen and ttl):
            return self._drop(key, seen)
        if not data:
            return self._is_done(lua.BURY, [key], seen, ttl)
        return self._write(lua.REPLACE, key, (seen, ttl, id, data), self._entry(id, ttl, user))

    def touch(self, id: str, seen: bytes, expires_at: float, user: str | None = None) -> bool:
        """Move the expiry if the record is still ``seen``, after its entry in the user's index."""
        key, ttl = self._key(id), self._ttl(expires_at)
        if not (seen and ttl):
            return self._drop(key, seen)
        return self._write(lua.TOUCH, key, (seen, ttl, id), self._entry(id, ttl, user))

    def rotate(
        self,
        old: str,
        seen: bytes,
        new: str,
        data: bytes,
        expires_at: float,
        user: str | None = None,
        *,
        inherits: bool,
    ) -> bool:
        """Replace ``old``, if its record is still ``seen``, by a record under ``new``.

        One step on one node.  In a Cluster they are three: the new record is created, the old one
        buried, and where that fails, the new one deleted.  A crash between the first two leaves the
        old session alive, and a record that no cookie names and that expires.
        """
        if not seen:
            return False
        heir, ttl = new if inherits else "", self._ttl(expires_at)
        keys = [self._key(old), self._key(new), self._heir_key(old)]
        arguments = (seen, ttl, new, data, LIFE, heir)
        done = self._at_once(lua.ROTATE, keys, arguments, self._entry(new, ttl, user))
        if done is not None:
            return done
        if not self.create(new, data, expires_at, user):
            return False
        buried = False
        try:
            buried = self._bury(old, seen, heir)
        finally:
            if not buried:
                with suppress(StoreUnavailable):  # no cookie names it, and it expires
                    self._drop(self._key(new), data)
        return buried

    def heir(self, id: str) -> str | None:
        """Return the id that inherited from a tombstone, or None."""
        asked = ("EVAL", lua.STATES, 1, self._key(id), LIFE), ("GET", self._heir_key(id))
        match self._redis.run(*asked, foreign=True):
            case [[int(state)], bytes(heir)] if state > 0:
                return heir.decode()
        return None

    def delete(self, id: str) -> bool:
        """Delete the record; its entry in its user's index is pruned later."""
        return self._is_done(lua.DELETE, [self._key(id)])

    def close(self) -> None:
        """Close our connections; a client that was given stays open."""
        self._redis.close()

    # Listing

    def ids(self, user: str | None = None) -> Iterator[str]:
        """Yield the ids of live sessions; while Redis resizes its tables, it may name one twice.

        A session that is rotated meanwhile is named by its old id where that is met as a tombstone.
        """
        begun = self._begin()
        if user is None:
            for ids in self._scan():
                yield from _texts(self._look(ids, begun)[0])
        else:
            index = self._indexes + user.encode()
            for ids in self._pages(index):
                listed, absent = self._look(ids, begun)
                self._prune(index, absent, -GRACE)
                yield from _texts(listed)

    def purge(self) -> int:
        """Prune all users' indexes and return how many entries; Redis itself frees records."""
        return self._sweep(self._begin(), -GRACE)

    def clear(self) -> int:
        """End every session under the prefix, also if rotated meanwhile; return how many."""
        begun, cleared = self._begin(), 0
        for ids in self._scan():
            listed, _ = self._look(ids, begun)
            ended = self._redis.batch([("EVAL", lua.DELETE, 1, self._prefix + id) for id in listed])
            moved = [id for id, end in zip(listed, ended, strict=True) if end != 1]
            cleared += len(listed) - len(moved) + sum(map(self._end_heir, _texts(moved)))
        self._sweep(begun, begun / 1000 if self._together else -GRACE)
        return cleared

    # Inside

    def _key(self, id: str) -> bytes:
        return self._prefix + id.encode()

    def _heir_key(self, id: str) -> bytes:
        """Return a key in the slot of the record: of a key with braces, what they hold decides."""
        key = self._key(id)
        return HEIRS + (key if HASH_TAG.match(key) else b"{%b}" % key)

    def _ttl(self, expires_at: float) -> int:
        """Return the milliseconds left, at least 1; 0 where the time has come.

        They are relative, so that Redis' clock need not be ours.
        """
        left = min(expires_at - self._clock(), MAX_LIFE)
        return max(1, round(left * 1000)) if left > 0 else 0

    def _eval(self, script: str, keys: list[bytes], *arguments: Any) -> Any:
        [reply] = self._redis.run(("EVAL", script, len(keys), *keys, *arguments))
        return reply

    def _is_done(self, script: str, keys: list[bytes], *arguments: Any) -> bool:
        return _done(self._eval(script, keys, *arguments)) > 0

    def _entry(self, id: str, ttl: int, user: str | None) -> Entry | None:
        return Entry(self._indexes + user.encode(), ttl, id) if ttl and user is not None else None

    def _write(
        self, script: str, key: bytes, arguments: tuple[Any, ...], entry: Entry | None
    ) -> bool:
        """Run a script that writes a record, after its entry in the user's index."""
        done = self._at_once(script, [key], arguments, entry)
        if done is not None or entry is None:
            return bool(done)
        entered = _done(self._eval(lua.ENTER, [entry.key], entry.ttl, entry.id))
        done = self._is_done(script, [key], *arguments)
        if entered and not done:
            self._redis.run(("ZREM", entry.key, entry.id))  # or another's session would be listed
        elif entered == 2:
            self._prune_some(entry.key)
        return done

    def _at_once(
        self, script: str, keys: list[bytes], arguments: tuple[Any, ...], entry: Entry | None
    ) -> bool | None:
        """Run a script with the user's index too; None where no script can have all these keys."""
        if entry is not None:
            keys = [*keys, entry.key]
        if len(keys) > 1 and not self._together:
            return None
        try:
            done = _done(self._eval(script, keys, *arguments))
        except Refusal as refused:
            if refused.code != "CROSSSLOT":
                raise
            self._together = False
            return None
        if entry is not None and done == 2:
            self._prune_some(entry.key)
        return done > 0

    def _bury(self, id: str, seen: bytes, heir: str) -> bool:
        """Make the record a tombstone that knows its heir, if it is still ``seen``."""
        key, heir_key = self._key(id), self._heir_key(id)
        try:
            return self._is_done(lua.BURY, [key, heir_key], seen, LIFE, heir)
        except Refusal as refused:
            # The slot is being moved, or a brace in the id has put the two keys apart.
            if refused.code not in ("TRYAGAIN", "CROSSSLOT"):
                raise
        if not self._is_done(lua.BURY, [key], seen, LIFE):
            return False
        self._redis.run(("SET", heir_key, heir, "PX", LIFE) if heir else ("DEL", heir_key))
        return True

    def _drop(self, key: bytes, seen: bytes) -> bool:
        """Delete a record that is still ``seen``; a tombstone never is."""
        return seen != b"" and self._is_done(lua.DROP, [key], seen)

    def _end_heir(self, id: str) -> bool:
        """End the session that has come of a tombstone, also while it goes on being rotated."""
        done = self._end_at_once(id) if self._together else self._end_by_steps(id)
        if done == 2:
            raise SessionConflict("a session was given new ids faster than it could be ended")
        return done == 1

    def _end_at_once(self, id: str) -> int:
        return _done(self._eval(lua.END, [self._key(id)], HEIRS, self._prefix))

    def _end_by_steps(self, id: str) -> int:
        for _ in range(MAX_HEIRS):
            # One round trip a step, or one would never catch up with rotations without a pause.
            delete = ("EVAL", lua.DELETE, 1, self._key(id))
            match self._redis.run(delete, ("GET", self._heir_key(id))):
                case [0, bytes(heir)]:
                    id = heir.decode()
                case [int(done), None | bytes()]:
                    return done
        return 2

    def _begin(self) -> int:
        """Return Redis' time in ms, and let it pass: what is rotated from here on is so later."""
        begun = self._redis.time()
        time.sleep(TICK)
        return begun

    def _scan(self) -> Iterator[list[bytes]]:
        for keys in self._redis.scan(self._prefix, "string"):
            yield [key[len(self._prefix) :] for key in keys]

    def _look(self, ids: list[bytes], begun: int) -> tuple[list[bytes], list[bytes]]:
        """Return which sessions lived when a listing began, and which have no record at all."""
        found = list(zip(ids, self._live(ids), strict=True))
        listed = [id for id, state in found if state < 0 or state > begun + 1]
        return listed, [id for id, state in found if not state]

    def _live(self, ids: list[bytes]) -> list[int]:
        """Return of each whether it lives, as `redis_scripts.STATES` says it."""
        keys = [self._prefix + id for id in ids]
        if self._together:
            states = [self._eval(lua.STATES, keys, LIFE)] if keys else []
        else:
            states = self._redis.batch([("EVAL", lua.STATES, 1, key, LIFE) for key in keys])
        found = [state for some in states if isinstance(some, list) for state in some]
        if len(found) != len(ids) or any(type(state) is not int for state in found):
            raise nonsense()
        return found

    def _sweep(self, begun: int, since: float) -> int:
        pruned = 0
        for index in chain.from_iterable(self._redis.scan(self._indexes, "zset")):
            for ids in self._pages(index):
                pruned += self._prune(index, self._look(ids, begun)[1], since)
        return pruned

    def _pages(self, index: bytes) -> Iterator[list[bytes]]:
        """Yield the ids in a user's index, in batches."""
        cursor = None
        while cursor != b"0":
            cursor, entries = cursor_and_page(
                self._redis.run(("ZSCAN", index, cursor or b"0", "COUNT", BATCH))
            )
            yield entries[::2]

    def _prune(self, index: bytes, absent: list[bytes], since: float) -> int:
        """Drop entries that were not refreshed ``since``, and return how many.

        In seconds by Redis' clock; from 0 down, before now.
        """
        pruned = self._eval(lua.PRUNE, [index], since, *absent) if absent else 0
        if type(pruned) is not int:
            raise nonsense()
        return pruned

    def _prune_some(self, index: bytes) -> None:
        """Look at some entries, at random, so that the work does not grow with the index."""
        with suppress(StoreUnavailable):  # the session is stored
            (some,) = self._redis.run(("ZRANDMEMBER", index, SAMPLE))
            self._prune(index, self._look(some, 0)[1], -GRACE)


def _done(reply: Any) -> int:
    """Return what a script that writes has answered."""
    if type(reply) is int and reply in (0, 1, 2):
        return reply
    raise nonsense()


def _texts(ids: Iterable[bytes]) -> Iterator[str]:
    for id in ids:
        with suppress(UnicodeDecodeError):  # somebody else's key: no cookie can name it
            yield id.decode()
