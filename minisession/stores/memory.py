"""`MemoryStore`: sessions in this process, bounded, without a thread, a sweep or a pause.

The records are the truth.  Each is one dict entry, so that `load` needs no lock.  `Order` leads to
them: by when they end, and by whose they are.  What ends first is freed first, and evicted first.

What takes more than one statement to change is written down before.  What an exception interrupts
(a signal's, a `RecursionError`, a `MemoryError`), the next call completes: all stays in step.

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

FREED_PER_CALL = 128  # records that a call frees, or brings up to date; less than a millisecond
SHARD_SIZE = 8192  # entries on average; a dict of that size grows in 0.3 ms

# Half of the largest piece of each order: what a dict of 128 slots holds, or of 64.  Larger ones
# are less work for the garbage collector; of users, one holds less than what a user may have.
HALVES = (85, 85, 85, 42)

# A record's key is when it ends, as its place in the order says.  It may lag behind by so much of
# the time that is left, so that most writes need not move it.
LAG = 0.01

# A record is packed: when it ends; its key (of a tombstone: which rotation made it); which rotation
# gave it its id, if one did; where the data begin; its owner (of a tombstone: its heir); its data.
_HEAD = struct.Struct("=ddQI")
_HEAD_SIZE = _HEAD.size
_head_of: Callable[[bytes], tuple[float, float, int, int]] = _HEAD.unpack_from
_ABSENT = _HEAD.pack(-inf, -inf, 0, _HEAD_SIZE)

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
        self._shards = max_sessions // SHARD_SIZE + 1
        # Nothing ends before `_due`, which is -inf while a change is written down.
        self._live, self._bytes, self._rotations, self._due = 0, 0, 0, inf
        self._change: tuple[tuple[tuple[str, bytes, bytes], ...], int, int, float] | None = None
        self._lock = threading.Lock()
        self._start_over()

    def _start_over(self) -> None:
        self._records: list[dict[str, bytes]] = [{} for _ in range(self._shards)]
        self._anonymous, self._owned, self._buried, self._users = four = [Order(n) for n in HALVES]
        # What `clear` takes apart: of the list of records a copy, as `load` may be in the other.
        self._parts: list[list[Key]] = [[*self._records], *(order.pieces for order in four)]

    def __len__(self) -> int:
        """Return how many sessions are held; what has expired and is not yet freed counts."""
        with self._lock:
            self._commit()
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
            now, owner = self._clock(), _owner(user)
            if self._find(id, now) is not _ABSENT:
                return False
            self._make_room(id, _ABSENT, len(data), owner, now)
            record = _HEAD.pack(expires_at, expires_at, 0, _HEAD_SIZE + len(owner)) + owner + data
            return self._commit(1, len(data), (id, _ABSENT, record))

    def replace(
        self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None
    ) -> bool:
        """Store ``data`` if the record is still ``seen``."""
        with self._lock:
            now, owner = self._clock(), _owner(user)
            was = self._find(id, now)
            _, key, born, start = _head_of(was)
            if not seen or was[start:] != seen:
                return False
            more = len(data) - len(seen)
            stays = 0 <= expires_at - key <= LAG * (expires_at - now)
            if stays and self._bytes + more <= self._max_bytes and was[_HEAD_SIZE:start] == owner:
                new = _HEAD.pack(expires_at, key, born, start) + owner + data
                # Nothing else changes.  CPython lets no signal in between these two assignments.
                self._records[hash(id) % self._shards][id], self._bytes = new, self._bytes + more
                return True
            self._make_room(id, was, len(data), owner, now)
            new = _HEAD.pack(expires_at, expires_at, born, _HEAD_SIZE + len(owner)) + owner + data
            # Each request brings a copy of its id, and one is enough.
            self._records[hash(id) % self._shards].get(probe := _Probe(id))
            return self._commit(0, more, (probe.met, was, new))

    def touch(self, id: str, seen: bytes, expires_at: float, user: str | None = None) -> bool:
        """Move the expiry if the record is still ``seen``."""
        return self.replace(id, seen, seen, expires_at, user)

    def rotate(
        self, old: str, seen: bytes, new: str, data: bytes, expires_at: float,
        user: str | None = None, *, inherits: bool,
    ) -> bool:  # fmt: skip
        """Store ``data`` under ``new``, a tombstone under ``old``, if that is still ``seen``."""
        with self._lock:
            now, owner = self._clock(), _owner(user)
            free, was = self._find(new, now), self._find(old, now)
            _, _, born, start = _head_of(was)
            if free is not _ABSENT or not seen or was[start:] != seen:
                return False
            self._make_room(old, was, len(data), owner, now)
            self._rotations = turn = self._rotations + 1
            fresh = _HEAD.pack(expires_at, expires_at, turn, _HEAD_SIZE + len(owner)) + owner + data
            heir = new.encode("utf-8", "surrogatepass") if inherits else b""
            tombstone = _HEAD.pack(now + TOMBSTONE_LIFE, turn, born, _HEAD_SIZE + len(heir)) + heir
            # The new one first: where `load` sees a tombstone, it sees the heir as well.
            steps = (new, _ABSENT, fresh), (old, was, tombstone)
            return self._commit(0, len(data) - len(seen), *steps)

    def heir(self, id: str) -> str | None:
        """Return the id that inherited from a tombstone, or None."""
        with self._lock:
            was = self._find(id, self._clock())
        heir = was[_HEAD_SIZE:] if len(was) == _head_of(was)[3] else b""
        return heir.decode("utf-8", "surrogatepass") or None

    def delete(self, id: str) -> bool:
        """Delete the record; a tombstone stays."""
        with self._lock:
            was = self._find(id, self._clock())
            size = len(was) - _head_of(was)[3]
            return size > 0 and self._commit(-1, -size, (id, was, _ABSENT))

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    # Listing

    def ids(self, user: str | None = None) -> Iterator[str]:
        """Yield the ids of sessions; of one that is rotated meanwhile, the old or the new."""
        owner = _owner(user)
        with self._lock:
            self._commit()
            rotations = self._rotations
            own = [self._users.between(*_span(owner))] if owner else []
        for part in own or self._records:
            with self._lock:
                ids = list(part)
            yield from (id for id in ids if self._is_listed(id, owner, rotations))

    def purge(self) -> int:
        """Free all that has expired, some at a time; return how many sessions."""
        now, freed = self._clock(), 0
        while self._due <= now:
            with self._lock:
                freed += self._free(now)
            time.sleep(0)  # so that others come in between
        return freed

    def clear(self) -> int:
        """Forget every session, and every tombstone, at once; return how many sessions."""
        with self._lock:
            self._commit()
            ended, parts = self._live, self._parts
            self._due, self._change = -inf, ((), 0, 0, inf)
            self._commit()
        # To free the memory takes longer than to forget: others come in between.
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

    def _find(self, id: str, now: float) -> bytes:
        """Return what is there and lives, after freeing some of what does not."""
        if self._due <= now:
            self._free(now)
        was = self._records[hash(id) % self._shards].get(id, _ABSENT)
        # More may have expired than one call frees.
        late = self._due <= now and was is not _ABSENT and _head_of(was)[0] <= now
        return _ABSENT if late and self._meet(id) else was

    def _free(self, now: float) -> int:
        """Complete what was interrupted, and free what has expired; return how many sessions."""
        if self._change is not None:
            self._commit()
        held, left, due = self._live, FREED_PER_CALL, inf
        for order in (self._anonymous, self._owned, self._buried):
            while (first := order.first()) and first[0] <= now and left:
                left -= 1
                self._meet(first[1], now)
            due = min(due, first[0]) if first else due
        self._due = due
        return held - self._live

    def _make_room(self, id: str, was: bytes, size: int, owner: bytes, now: float) -> None:
        """Evict others until so many bytes of the owner's fit in the place of what was there."""
        start = _head_of(was)[3]
        new, room = was is _ABSENT, self._max_bytes - size + len(was) - start
        if size > self._max_bytes:
            raise StoreUnavailable(f"{size} bytes are more than max_bytes={self._max_bytes}")
        if self._live >= self._max_of_user and owner not in (b"", was[_HEAD_SIZE:start]):
            while self._users.count_between(*_span(owner)) >= self._max_of_user:
                self._evict(self._users, id, *_span(owner))
        while self._bytes > room or self._live + new > self._max_sessions:
            if self._due <= now and self._evict(self._owned, id, -inf, now):
                continue
            if self._evict(self._anonymous, id) or self._evict(self._users, id, *_span(owner)):
                continue
            self._evict(self._owned, id)

    def _evict(self, order: Order, spared: str, low: Key = -inf, high: Key = inf) -> bool:
        """Drop what ends first, of what lies between two keys; return whether there was any."""
        place, patience = order.first() if low == -inf else order.after(low), FREED_PER_CALL
        while place and place[0] <= high:
            patience -= 1
            if place[1] != spared and self._meet(place[1], -inf if patience > 0 else inf):
                return True
            place = order.after(*place)
        return False

    def _meet(self, id: str, moment: float = inf) -> bool:
        """Drop a record that ends by then, or when its key says; else bring its key up to date."""
        was = self._records[hash(id) % self._shards][id]
        end, key, born, start = _head_of(was)
        if ends := end <= moment or end == key:
            # A tombstone is not a session, and has no bytes.
            self._commit(-(start < len(was)), start - len(was), (id, was, _ABSENT))
        else:
            self._commit(0, 0, (id, was, _HEAD.pack(end, end, born, start) + was[_HEAD_SIZE:]))
        return ends

    def _commit(self, live: int = 0, size: int = 0, *steps: tuple[str, bytes, bytes]) -> bool:
        """Take all steps, or none, to so many more sessions and bytes; or those that are left.

        A step is an id, its record, and the one that takes its place.  Returns True.
        """
        if steps:
            change = steps, self._live + live, self._bytes + size, self._due
            self._due, self._change = -inf, change
        if self._change is None:
            return True
        steps, live, size, due = self._change
        if not steps:  # everything goes
            self._start_over()
        for id, was, new in steps:
            if was is not _ABSENT:
                self._index(Order.discard, id, was)
            if new is _ABSENT:
                self._records[hash(id) % self._shards].pop(id, None)
            else:
                due = min(due, self._index(Order.add, id, new))
                self._records[hash(id) % self._shards][id] = new
        self._live, self._bytes, self._due, self._change = live, size, due, None
        return True

    def _index(self, change: Callable[[Order, Key, str], None], id: str, packed: bytes) -> float:
        """Change the orders that lead to a record; return when it ends, as they know it."""
        end, key, _, start = _head_of(packed)
        if start == len(packed):
            change(self._buried, end, id)
            return end
        if start > _HEAD_SIZE:
            # Among those of all users, a user's lie together.
            change(self._users, struct.pack(">qd", hash(packed[_HEAD_SIZE:start]), key), id)
        change(self._owned if start > _HEAD_SIZE else self._anonymous, key, id)
        return key


class _Probe(str):
    """An id that learns which object a dict has as this key, as the dict compares the two."""

    __hash__ = str.__hash__

    def __eq__(self, other: Key) -> bool:
        self.met = other
        return str.__eq__(self, other)


def _owner(name: str | None) -> bytes:
    """Return what a record has of a user: never nothing, but for None."""
    return b"" if name is None else b"@" + name.encode("utf-8", "surrogatepass")


def _span(owner: bytes) -> tuple[bytes, bytes]:
    """Return between which keys a user's lie."""
    return struct.pack(">q", hash(owner)), struct.pack(">qq", hash(owner), -1)
