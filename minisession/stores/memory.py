"""`MemoryStore`: sessions in this process, bounded, without a thread, a sweep or a pause.

The records are the truth.  Each is one dict entry, so that `load` needs no lock.  `Order` leads to
them: by when they end, and by whose they are.  What ends first is freed first, and evicted first.

A change is one assignment: to records, counts, and what the orders have yet to follow.  CPython
lets no signal in between.  Where an exception (a signal's, a `RecursionError`, a `MemoryError`)
keeps the orders from following, they do so in the next call that takes the lock.

What grows is a dict of str, bytes and float, which CPython's garbage collector does not walk, and
one of many small ones: a large one stops all threads when it grows.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from math import inf

from .. import checks
from ..errors import StoreUnavailable
from .base import TOMBSTONE_LIFE, Stored
from .memory_order import Key, Order

# Records that a call frees, or brings up to date, which takes less than a millisecond.
FREED_PER_CALL = 128

# Entries on average; a dict of that size grows in 0.3 ms.
SHARD_SIZE = 8192

# Half of the largest piece of an order: what a dict of 128 slots holds, or of 64.  Larger ones are
# less work for the garbage collector; of users, one holds less than what a user may have.
HALVES = 85, 85, 85, 42

# A record's key is when it ends, as its place in the order says.  It may lag behind by so much of
# the time that is left, so that most writes need not move it.
LAG = 0.01

# A record is packed: when it ends; its key (of a tombstone: which rotation made it); which rotation
# gave it its id, if one did; where the data begin; its owner (of a tombstone: its heir); its data.
_HEAD = struct.Struct("=ddQI")
_HEAD_SIZE = _HEAD.size
_head_of: Callable[[bytes], tuple[float, float, int, int]] = _HEAD.unpack_from
_ABSENT = _HEAD.pack(-inf, -inf, 0, _HEAD_SIZE)

# By this, a user's sessions lie together among those of others: a hash of the user, and the key.
_user_key = struct.Struct(">qd").pack

_Clock = Callable[[], float]


class MemoryStore:
    """Sessions in one process, for any number of threads: the default.

    They end with the process, and other processes do not see them.  What has expired is freed as
    sessions are used, a bounded number a call.

    Args:
        max_sessions: sessions held at most, of which no user has more than a hundredth (or 100).
        max_bytes: bytes of their records at most.  A full store drops what has expired; else the
            session without a user that would end first; else the same user's that would; else
            whichever would.
        clock: the time, in Unix seconds.
    """

    in_process = True

    def __init__(
        self, *, max_sessions: int = 100_000, max_bytes: int = 2**28, clock: _Clock = time.time
    ) -> None:
        checks.count("max_sessions", max_sessions)
        checks.count("max_bytes", max_bytes)
        checks.function("clock", clock)
        self._max_sessions, self._max_bytes, self._clock = max_sessions, max_bytes, clock
        self._max_of_user = max(100, max_sessions // 100)
        self._shards, self._rotations = max_sessions // SHARD_SIZE + 1, 0
        # What the orders have yet to follow: ids, their records, and those in their place.
        self._unsettled: tuple[tuple[str, bytes, bytes], ...] = ()
        self._lock = threading.Lock()
        # Nothing ends before `_due`.
        (self._records, self._orders), self._live, self._bytes, self._due = self._empty(), 0, 0, inf

    def _empty(self) -> tuple[list[dict[str, bytes]], list[Order]]:
        """Return no records, and their orders: without a user, with one, tombstones, by user."""
        return [{} for _ in range(self._shards)], [Order(half) for half in HALVES]

    def __len__(self) -> int:
        """Return how many sessions are held; what has expired and is not yet freed counts."""
        with self._lock:
            self._settle()
            return self._live

    # The verbs

    def load(self, id: str) -> Stored | None:
        """Return the record, or None."""
        now = self._clock()
        if self._due <= now:
            with self._lock:
                self._free(now)
        packed = self._records[hash(id) % self._shards].get(id, _ABSENT)
        end, _, _, start = _head_of(packed)
        return Stored(packed[start:], end) if end > now else None

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        """Store a new record, in the place of others if the store is full."""
        with self._lock:
            now, owner, was = self._begin(user, id)
            if was is not _ABSENT:
                return False
            self._make_room(id, was, len(data), owner, now)
            new = _HEAD.pack(expires_at, expires_at, 0, _HEAD_SIZE + len(owner)) + owner + data
            return self._put(id, was, new, 1, len(data))

    def replace(
        self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None
    ) -> bool:
        """Store ``data`` if the record is still ``seen``."""
        with self._lock:
            now, owner, was = self._begin(user, id)
            _, key, born, start = _head_of(was)
            if not seen or was[start:] != seen:
                return False
            records, more = self._records[hash(id) % self._shards], len(data) - len(seen)
            fits = was[_HEAD_SIZE:start] == owner and self._bytes + more <= self._max_bytes
            if fits and 0 <= expires_at - key <= LAG * (expires_at - now):
                new = _HEAD.pack(expires_at, key, born, start) + owner + data
                # Nothing that leads there changes.
                records[id], self._bytes = new, self._bytes + more
                return True
            self._make_room(id, was, len(data), owner, now)
            new = _HEAD.pack(expires_at, expires_at, born, _HEAD_SIZE + len(owner)) + owner + data
            # Each request brings a copy of its id, and one is enough.
            records.get(probe := _Probe(id))
            return self._put(probe.met, was, new, 0, more)

    def touch(self, id: str, seen: bytes, expires_at: float, user: str | None = None) -> bool:
        """Move the expiry if the record is still ``seen``."""
        return self.replace(id, seen, seen, expires_at, user)

    def rotate(
        self, old: str, seen: bytes, new: str, data: bytes, expires_at: float,
        user: str | None = None, *, inherits: bool,
    ) -> bool:  # fmt: skip
        """Store ``data`` under ``new``, a tombstone under ``old``, if that is still ``seen``."""
        with self._lock:
            now, owner, was = self._begin(user, old, new)
            _, _, born, start = _head_of(was)
            news = self._records[hash(new) % self._shards]
            if not seen or was[start:] != seen or new in news:
                return False
            olds, more = self._records[hash(old) % self._shards], len(data) - len(seen)
            self._make_room(old, was, len(data), owner, now)
            self._rotations = turn = self._rotations + 1
            fresh = _HEAD.pack(expires_at, expires_at, turn, _HEAD_SIZE + len(owner)) + owner + data
            heir = new.encode("utf-8", "surrogatepass") if inherits else b""
            tombstone = _HEAD.pack(now + TOMBSTONE_LIFE, turn, born, _HEAD_SIZE + len(heir)) + heir
            more, steps = self._bytes + more, ((new, _ABSENT, fresh), (old, was, tombstone))
            # The new one first: where `load` sees a tombstone, it sees the heir as well.
            news[new], olds[old], self._bytes, self._unsettled = fresh, tombstone, more, steps
            return self._settle()

    def heir(self, id: str) -> str | None:
        """Return the id that inherited from a tombstone, or None."""
        with self._lock:
            _, _, was = self._begin(None, id)
        heir = was[_HEAD_SIZE:] if len(was) == _head_of(was)[3] else b""
        return heir.decode("utf-8", "surrogatepass") or None

    def delete(self, id: str) -> bool:
        """Delete the record; a tombstone stays."""
        with self._lock:
            _, _, was = self._begin(None, id)
            size = len(was) - _head_of(was)[3]
            return size > 0 and self._put(id, was, _ABSENT, -1, -size)

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    # Listing

    def ids(self, user: str | None = None) -> Iterator[str]:
        """Yield the ids of sessions; of one that is rotated meanwhile, the old or the new."""
        with self._lock:
            (_, owner, _), rotations = self._begin(user, ""), self._rotations
            parts = [self._orders[3].between(*_span(owner))] if owner else self._records
        for part in parts:
            with self._lock:
                ids = list(part)
            yield from (id for id in ids if self._is_listed(id, owner, rotations))

    def purge(self) -> int:
        """Free all that has expired, some at a time; return how many sessions."""
        now, freed = self._clock(), 0
        while self._due <= now:
            with self._lock:
                freed += self._free(now)
            # So that others come in between.
            time.sleep(0)
        return freed

    def clear(self) -> int:
        """Forget every session, and every tombstone, at once; return how many sessions."""
        empty = self._empty()
        with self._lock:
            self._settle()
            ended, records, orders = self._live, self._records, self._orders
            (self._records, self._orders), self._live, self._bytes, self._due = empty, 0, 0, inf
        # To free the memory takes longer than to forget: others come in between.  Of the list of
        # records a copy is taken apart, as `load` may be in the other.
        parts: list[list[Key]] = [[*records], *(order.pieces for order in orders)]
        for part in parts:
            while part:
                part.pop()
        return ended

    def _is_listed(self, id: str, owner: bytes, rotations: int) -> bool:
        """Return whether it is a session (the owner's), or was one before the next rotation."""
        packed = self._records[hash(id) % self._shards].get(id, _ABSENT)
        end, buried, born, start = _head_of(packed)
        is_tombstone, theirs = len(packed) == start, owner in (b"", packed[_HEAD_SIZE:start])
        return end > self._clock() and (born <= rotations < buried if is_tombstone else theirs)

    # Inside, under the lock

    def _begin(self, user: str | None, id: str, *others: str) -> tuple[float, bytes, bytes]:
        """Free some of what has expired; return the time, the owner, and what is there and lives.

        An owner is what a record has of a user: never nothing, but for None.
        """
        now = self._clock()
        if self._due <= now or self._unsettled:
            self._free(now, id, *others)
        owner = b"" if user is None else b"@" + user.encode("utf-8", "surrogatepass")
        return now, owner, self._records[hash(id) % self._shards].get(id, _ABSENT)

    def _free(self, now: float, *ids: str) -> int:
        """Free some of what has expired, and these ids if they have; return how many sessions."""
        self._settle()
        held, left, due = self._live, FREED_PER_CALL, inf
        for order in self._orders[:3]:
            while (first := order.first()) and first[0] <= now and left:
                left -= 1
                self._meet(first[1], now)
            due = min(due, first[0]) if first else due
        self._due = due
        for id in ids if due <= now else ():
            if _head_of(self._records[hash(id) % self._shards].get(id, _ABSENT))[0] <= now:
                self._meet(id, now)
        return held - self._live

    def _make_room(self, id: str, was: bytes, size: int, owner: bytes, now: float) -> None:
        """Evict others until so many bytes of the owner's fit in the place of what was there."""
        if size > self._max_bytes:
            raise StoreUnavailable(f"{size} bytes are more than max_bytes={self._max_bytes}")
        start, (anonymous, owned, _, users) = _head_of(was)[3], self._orders
        if owner and self._live >= self._max_of_user and owner != was[_HEAD_SIZE:start]:
            while users.count_between(*_span(owner)) >= self._max_of_user:
                self._evict(id, users, *_span(owner))
        sessions = self._max_sessions - (was is _ABSENT)
        room = self._max_bytes - size + len(was) - start
        while self._live > sessions or self._bytes > room:
            if self._due <= now and self._evict(id, owned, -inf, now):
                continue
            if not (self._evict(id, anonymous) or self._evict(id, users, *_span(owner))):
                self._evict(id, owned)

    def _evict(self, spared: str, order: Order, low: Key = -inf, high: Key = inf) -> bool:
        """Drop what ends first, of what lies between two keys; return whether there was any."""
        place, met = order.first() if low == -inf else order.after(low, "", high), 0
        while place and place[0] <= high:
            met += 1
            if place[1] != spared and self._meet(place[1], -inf if met < FREED_PER_CALL else inf):
                return True
            place = order.after(*place, high)
        return False

    def _meet(self, id: str, moment: float) -> bool:
        """Drop a record that ends by then, or when its key says; else bring its key up to date."""
        was = self._records[hash(id) % self._shards].get(id, _ABSENT)
        end, key, born, start = _head_of(was)
        ends = end <= moment or end == key
        new = _ABSENT if ends else _HEAD.pack(end, end, born, start) + was[_HEAD_SIZE:]
        size = len(was) - start if ends else 0
        # A tombstone is not a session, and has no bytes.
        self._put(id, was, new, -(size > 0), -size)
        return ends

    def _put(self, id: str, was: bytes, new: bytes, live: int, size: int) -> bool:
        """Put a record in the place of another: so many more sessions and bytes; return True."""
        records, steps = self._records[hash(id) % self._shards], ((id, was, new),)
        live, size = self._live + live, self._bytes + size
        records[id], self._live, self._bytes, self._unsettled = new, live, size, steps
        return self._settle()

    def _settle(self) -> bool:
        """Let the orders follow the records, as far as they have not; return True."""
        anonymous, owned, buried, users = self._orders
        for id, was, new in self._unsettled:
            for change, packed in (Order.discard, was), (Order.add, new):
                if packed is _ABSENT:
                    continue
                end, key, _, start = _head_of(packed)
                if start == len(packed):
                    change(buried, key := end, id)
                elif start == _HEAD_SIZE:
                    change(anonymous, key, id)
                else:
                    change(users, _user_key(hash(packed[_HEAD_SIZE:start]), key), id)
                    change(owned, key, id)
                if key < self._due:
                    self._due = key
            if new is _ABSENT:
                self._records[hash(id) % self._shards].pop(id, None)
        self._unsettled = ()
        return True


def _span(owner: bytes) -> tuple[bytes, bytes]:
    """Return between which keys a user's sessions lie."""
    low = _user_key(hash(owner), 0.0)[:8]
    return low, low + b"\xff" * 8


class _Probe(str):
    """An id that learns which object a dict has as this key, as the dict compares the two."""

    __hash__ = str.__hash__

    def __eq__(self, other: Key) -> bool:
        self.met = other
        return str.__eq__(self, other)
