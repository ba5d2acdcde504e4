"""`RedisStore`: sessions in Redis or Valkey, under connect-redis' keys and in its form.

::

    sess:<id>                       the record, a string; b"" with a TTL is a tombstone
    minisession:heir:{sess:<id>}    of a tombstone: the id that inherited from it
    minisession:user:sess:<user>    a sorted set of the user's ids, by when each was last refreshed

On one node each verb is one command, and most are scripts: `redis_scripts` says what they do.  In a
Cluster a script can have the keys of one slot only, so the user's index is written in a step of its
own, before the record.

A list, a hash or the like under ``sess:<id>`` is not a session, and is left as it is: absent to
`load`, taken to `create`, and never what was seen.  So is an empty string without a TTL.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import checks
from ..errors import StoreUnavailable
from ..journal import Journal
from . import redis_scripts as lua
from .base import Stored
from .redis_link import connect
from .redis_listing import LIFE, Listing, done_of
from .redis_replies import Refusal, evicts, nonsense
from .redis_url import Limits

if TYPE_CHECKING:
    from redis import Redis
    from redis.cluster import RedisCluster

# Seconds.  Every key has a TTL, so that nothing that is forgotten stays forever.
MAX_LIFE = 10 * 365 * 86400

log = logging.getLogger("minisession")


class Entry(NamedTuple):
    """What is written under the key of a user's index: an id, and how many ms it will live."""

    key: bytes
    ttl: int
    id: str


class RedisStore(Listing):
    """Sessions in Redis 6.2 or later, or in Valkey, for any number of processes and machines.

    A call takes no longer than its three time limits together, 1 s, for all that it waits for.
    Where Redis hangs, later calls cost nothing: they fail at once until one of them, 0.3 s later,
    has tried again.  No command is repeated, since one whose answer was lost may have been carried
    out.

    In a Cluster this applies to each node separately.  A user's index and the record may be on two
    nodes, so a login takes two round trips, and a new id takes three.

    Redis replicates after it has answered: a failover may lose the changes of the last moments.

    Args:
        url_or_client: ``redis://``, ``rediss://``, ``unix://`` or ``redis+cluster://``, with
            options of redis-py's behind ``?``; a Cluster's URL may name several of its nodes, with
            commas.  Or a client: `redis.Redis`, also what Sentinel's ``master_for`` returns, or
            `redis.cluster.RedisCluster`.  A client keeps the limits it was made with (by default,
            redis-py waits for 5 s and tries several times to connect), and `close` leaves it open.
        prefix: what the keys of sessions begin with.  Where several prefixes share a database, none
            may begin with another.
        connect_timeout: seconds to connect, to each of the host's addresses.  A Redis that is up
            accepts within milliseconds; the default leaves room for one lost packet.
        read_timeout: seconds to wait for an answer.  Longer than Redis' usual pauses (a fork, a
            large deletion), and shorter than what a visitor takes for an outage.
        pool_timeout: seconds to wait for a connection while all are in use.
        max_connections: connections at most, of each process to each node: more than servers have
            threads, or greenlets.
        clock: the time, in Unix seconds.
        monotonic: the time by which pauses are measured, in seconds.

    Raises:
        TypeError, ValueError: at construction, with what was wrong, and the fix.
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
        checks.function("clock", clock)
        checks.function("monotonic", monotonic)
        self._clock = clock
        limits = Limits(connect_timeout, read_timeout, pool_timeout, max_connections)
        self._journal = Journal(monotonic)
        self._warned = False
        link = connect(url_or_client, limits, monotonic, self._look_at_memory)
        super().__init__(link, prefix.encode())

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
                self._journal.warning(
                    "session not loaded: its key in Redis holds a list, a hash or a set"
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

        This is one step on one node.  In a Cluster there are three: the new record is created, the
        old one buried, and if that fails, the new one deleted.  A crash between the first two
        leaves the old session alive, and a record that no cookie names and that expires.
        """
        if not seen:
            return False
        heir, ttl = new if inherits else "", self._ttl(expires_at)
        keys = [self._key(old), self._key(new), self._heir_key(self._key(old))]
        arguments = (seen, ttl, new, data, LIFE, heir)
        done = self._at_once(lua.ROTATE, keys, arguments, self._entry(new, ttl, user))
        if done is not None:
            return done
        steps = self._rotate_in_steps
        return self._redis.budget.spend(steps, old, seen, new, data, expires_at, user, heir)

    def heir(self, id: str) -> str | None:
        """Return the id that inherited from a tombstone, or None."""
        asked = ("EVAL", lua.STATES, 1, self._key(id), LIFE), ("GET", self._heir_key(self._key(id)))
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

    # Inside

    def _look_at_memory(self, reply: object) -> None:
        policy = evicts(reply)
        if policy is not None and not self._warned:
            self._warned = True
            log.warning(
                "Redis evicts by maxmemory-policy %s: when its memory is full, sessions end early,"
                " and a user's list of sessions may go before they do; set it to noeviction",
                policy,
            )

    def _ttl(self, expires_at: float) -> int:
        """Return the milliseconds left, at least 1; 0 where the time has come.

        They are relative, so that Redis' clock need not be ours.
        """
        left = min(expires_at - self._clock(), MAX_LIFE)
        return max(1, round(left * 1000)) if left > 0 else 0

    def _entry(self, id: str, ttl: int, user: str | None) -> Entry | None:
        return Entry(self._indexes + user.encode(), ttl, id) if ttl and user is not None else None

    def _write(
        self, script: bytes, key: bytes, arguments: tuple[Any, ...], entry: Entry | None
    ) -> bool:
        """Run a script that writes a record, after its entry in the user's index."""
        done = self._at_once(script, [key], arguments, entry)
        if done is not None or entry is None:
            return bool(done)
        return self._redis.budget.spend(self._write_in_steps, script, key, arguments, entry)

    def _write_in_steps(
        self, script: bytes, key: bytes, arguments: tuple[Any, ...], entry: Entry
    ) -> bool:
        entered = done_of(self._eval(lua.ENTER, [entry.key], entry.ttl, entry.id))
        done = self._is_done(script, [key], *arguments)
        if entered and not done:
            # Otherwise another user's session would be listed.
            self._redis.run(("ZREM", entry.key, entry.id))
        elif entered == 2:
            self._prune_some(entry.key)
        return done

    def _rotate_in_steps(
        self, old: str, seen: bytes, new: str, data: bytes, expires_at: float,
        user: str | None, heir: str,
    ) -> bool:  # fmt: skip
        if not self.create(new, data, expires_at, user):
            return False
        buried = False
        try:
            buried = self._bury(old, seen, heir)
        finally:
            if not buried:
                # If it stays, it expires, and no cookie names it.
                with suppress(StoreUnavailable):
                    self._drop(self._key(new), data)
        return buried

    def _at_once(
        self, script: bytes, keys: list[bytes], arguments: tuple[Any, ...], entry: Entry | None
    ) -> bool | None:
        """Run a script with the user's index too; None where no script can have all these keys."""
        if entry is not None:
            keys = [*keys, entry.key]
        if len(keys) > 1 and not self._together:
            return None
        try:
            done = done_of(self._eval(script, keys, *arguments))
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
        key, heir_key = self._key(id), self._heir_key(self._key(id))
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
