"""`MemoryStore`: sessions in this process, bounded, without a thread, a sweep or a pause.

The records are the truth.  Each is one dict entry, so that `load` needs no lock.  `Order` leads to
them: by when they end, and by whose they are.  What ends first is freed first, and evicted first.

What is to change is written down before it does.  What an exception interrupts (a signal's, a
`RecursionError`, a `MemoryError`), the next call completes, so that nothing stays out of step.

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
from .base import TOMBSTONE, TOMBSTONE_LIFE, Stored
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
_ABSENT = _HEAD.pack(-inf, 0, 0, _HEAD_SIZE)

# The key of a user's session among those of all users.
_USER_KEY = struct.Struct(">qd")

_Clock = Callable[[], float]

_Entry = tuple[bytes, float, int, bytes, tuple[tuple[Order, Key], ...]]
"""A record, when it ends, the size of its data, its owner, and its orders with its keys there."""

_NOTHING: _Entry = b"", inf, 0, b"", ()


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
        self._live = self._bytes = self._rotations = 0
        self._change: tuple[tuple[tuple[str, _Entry, _Entry], ...], int, int] | None = None
        self._lock = threading.Lock()
        self._start_over()

    def _start_over(self) -> None:
        self._records: list[dict[str, bytes]] = [{} for _ in range(self._shards)]
        self._anonymous, self._owned, self._buried, self._users = four = [Order(n) for n in HALVES]
        self._parts: list[list[Key]] = [self._records, *(order.pieces for order in four)]
        self._due = inf  # nothing ends before

    def __len__(self) -> int:
        """Return how many sessions are held; what has expired and is not yet freed counts."""
        with self._lock:
            self._commit()
            return self._live

    # The verbs

    def load(self, id: str) -> Stored | None:
        """Return the record, or None."""
        now = self._clock()
        if self._due <= now or self._change is not None:
            with self._lock:
                self._free(now)
        packed = self._records[hash(id) % self._shards].get(id, _ABSENT)
        end, _, _, start = _head_of(packed)
        return Stored(packed[start:], end) if end > now else None

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        """Store a new record, in the place of others if the store is full."""
        return self._write(id, b"", data, expires_at, user)

    def replace(
        self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None
    ) -> bool:
        """Store ``data`` if the record is still ``seen``."""
        return seen != TOMBSTONE and self._write(id, seen, data, expires_at, user)

    def touch(self, id: str, seen: bytes, expires_at: float, user: str | None = None) -> bool:
        """Move the expiry if the record is still ``seen``."""
        return seen != TOMBSTONE and self._write(id, seen, seen, expires_at, user)

    def rotate(
        self, old: str, seen: bytes, new: str, data: bytes, expires_at: float,
        user: str | None = None, *, inherits: bool,
    ) -> bool:  # fmt: skip
        """Store ``data`` under ``new``, a tombstone under ``old``, if that is still ``seen``."""
        with self._lock:
            now = self._clock()
            free, was = self._find(new, now), self._find(old, now)
            if free[0] or seen == TOMBSTONE or not _holds(was, seen):
                return False
            self._rotations += 1
            record = self._fit(old, was, data, expires_at, _owner(user), self._rotations, now)
            born, heir = _head_of(was[0])[2], _owner(new if inherits else None)
            tombstone = _pack(now + TOMBSTONE_LIFE, self._rotations, born, heir, TOMBSTONE)
            # The new one first: where `load` sees a tombstone, it sees the heir as well.
            self._commit((new, free, record), (old, was, self._entry(tombstone)))
            return True

    def heir(self, id: str) -> str | None:
        """Return the id that inherited from a tombstone, or None."""
        with self._lock:
            packed, _, size, _, _ = self._find(id, self._clock())
        heir = packed[_HEAD_SIZE + 1 :].decode("utf-8", "surrogatepass") if not size else ""
        return heir or None

    def delete(self, id: str) -> bool:
        """Delete the record; a tombstone stays."""
        with self._lock:
            was = self._find(id, self._clock())
            if was[2]:
                self._commit((id, was, _NOTHING))
            return was[2] > 0

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
            self._change = (), 0, 0
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

    def _write(self, id: str, seen: bytes, data: bytes, end: float, user: str | None) -> bool:
        with self._lock:
            now = self._clock()
            was = self._find(id, now)
            if not _holds(was, seen):
                return False
            born = _head_of(was[0] or _ABSENT)[2]
            self._commit((id, was, self._fit(id, was, data, end, _owner(user), born, now)))
            return True

    def _find(self, id: str, now: float) -> _Entry:
        """Return what is there and lives, after freeing some of what does not."""
        if self._due <= now or self._change is not None:
            self._free(now)
        packed = self._records[hash(id) % self._shards].get(id)
        was = self._entry(packed) if packed else _NOTHING
        if was[1] <= now:
            self._commit((id, was, _NOTHING))
            return _NOTHING
        return was

    def _entry(self, packed: bytes) -> _Entry:
        end, key, _, start = _head_of(packed)
        size, owner = len(packed) - start, packed[_HEAD_SIZE:start]
        if size and owner:
            user_key = _USER_KEY.pack(hash(owner), key)
            return packed, end, size, owner, ((self._owned, key), (self._users, user_key))
        place = (self._anonymous, key) if size else (self._buried, end)
        return packed, end, size, b"", (place,)

    def _free(self, now: float) -> int:
        """Complete what was interrupted, and free what has expired; return how many sessions."""
        self._commit()
        held, met, due = self._live, 0, inf
        for order in (self._anonymous, self._owned, self._buried):
            while (first := order.first()) and first[0] <= now and met < FREED_PER_CALL:
                met += 1
                self._meet(first[1], now)
            if first and first[0] < due:
                due = first[0]
        self._due = due
        return held - self._live

    def _meet(self, id: str, moment: float) -> bool:
        """Drop a record that ends by then, or when its key says; else bring its key up to date."""
        was = packed, end, _, _, places = self._entry(self._records[hash(id) % self._shards][id])
        if ends := end <= moment or end == places[0][1]:
            self._commit((id, was, _NOTHING))
        else:
            new = _HEAD.pack(end, end, *_head_of(packed)[2:]) + packed[_HEAD_SIZE:]
            self._commit((id, was, self._entry(new)))
        return ends

    def _fit(
        self, id: str, was: _Entry, data: bytes, end: float, user: bytes, born: int, now: float
    ) -> _Entry:
        """Return a new entry, after evicting others until it fits in the place of another."""
        packed, _, size, owner, places = was
        sessions, room = self._max_sessions - (not packed), self._max_bytes + size - len(data)
        if len(data) > self._max_bytes:
            raise StoreUnavailable(f"{len(data)} bytes are more than max_bytes={self._max_bytes}")
        if user and user != owner:
            while self._users.count_between(*_span(user)) >= self._max_of_user:
                self._evict(self._users, id, *_span(user))
        while self._live > sessions or self._bytes > room:
            if self._due <= now and self._evict(self._owned, id, -inf, now):
                continue
            if not (self._evict(self._anonymous, id) or self._evict(self._users, id, *_span(user))):
                self._evict(self._owned, id)
        near = packed and user == owner and 0 <= end - places[0][1] <= LAG * (end - now)
        return self._entry(_pack(end, places[0][1] if near else end, born, user, data))

    def _evict(self, order: Order, spared: str, low: Key = -inf, high: Key = inf) -> bool:
        """Drop what ends first, of what lies between two keys; return whether there was any."""
        place, patience = order.first() if low == -inf else order.after(low), FREED_PER_CALL
        while place and place[0] <= high:
            patience -= 1
            if place[1] != spared and self._meet(place[1], -inf if patience > 0 else inf):
                return True
            place = order.after(*place)
        return False

    def _commit(self, *steps: tuple[str, _Entry, _Entry]) -> None:
        """Put entries in the place of others: all, or none.  Complete what was interrupted."""
        if steps:
            self._change = steps, self._live, self._bytes
        if self._change is None:
            return
        steps, live, size = self._change
        if not steps:  # everything goes
            self._start_over()
        for id, (_, _, had, _, was), (packed, _, has, _, will) in steps:
            live, size = live + (has > 0) - (had > 0), size + has - had
            if was != will:
                # Each request brings a copy of its id, and one is enough.
                kept = was[0][0].kept(was[0][1], id) if was and will else id
                for order, key in was:
                    order.discard(key, id)
                for order, key in will:
                    order.add(key, kept)
                if will and will[0][1] < self._due:
                    self._due = will[0][1]
            if packed:
                self._records[hash(id) % self._shards][id] = packed
            else:
                self._records[hash(id) % self._shards].pop(id, None)
        self._live, self._bytes = live, size
        self._change = None


def _pack(end: float, key: float, born: int, owner: bytes, data: bytes) -> bytes:
    return _HEAD.pack(end, key, born, _HEAD_SIZE + len(owner)) + owner + data


def _owner(name: str | None) -> bytes:
    """Return what a record has of a user, or a tombstone of an heir; nothing for None."""
    return b"" if name is None else b"@" + name.encode("utf-8", "surrogatepass")


def _holds(entry: _Entry, data: bytes) -> bool:
    """Return whether an entry has these data, or is nothing if there are none."""
    return entry[2] == len(data) and entry[0].endswith(data) if data else not entry[0]


def _span(owner: bytes) -> tuple[bytes, bytes]:
    """Return between which keys a user's lie."""
    prefix = hash(owner).to_bytes(8, "big", signed=True)
    return prefix, prefix + b"\xff" * 8
