"""`MemoryStore`: sessions in this process, bounded, without a thread, a sweep or a pause.

The records are the truth.  Each is one dict entry, written by one assignment.  Everything else is a
hint, entered before its record is written and removed after it: `Order` knows which sessions end first,
and those of a user.  What ends first is freed first, and evicted first.

A call that changes something first writes down what it is about to do; what an exception interrupts (a
signal's, a `RecursionError`, a `MemoryError`), the next call completes.

What grows is a dict of str, bytes and float, which CPython's garbage collector does not walk, and one of
many small ones: a large one would stop all threads whenever it grows.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain
from math import inf
from typing import Any

from ..errors import StoreUnavailable
from .base import TOMBSTONE, TOMBSTONE_LIFE, Stored
from .memory_order import Order

# Hints that one call meets to free what has expired; about 0.3 ms.
FREED_PER_CALL = 128
# Entries of a dict, on average; one of 16,384 slots holds 10,922, and grows in 0.3 ms.
SHARD_SIZE = 8192
# Of the time that a session has left, so much its hint may lag: most writes need not move it.
LAG = 0.01
# Lagging hints that an eviction brings up to date before it takes one as it is.
LAGGING_PER_CALL = 32

# A record is its head, its owner and its data.  The head says when it ends, when its hint says that it
# does (of a tombstone: which rotation made it), and where the data begin.
_HEAD = struct.Struct("=ddI")
_HEAD_SIZE = _HEAD.size
_head_of = _HEAD.unpack_from

# The key of a hint for a user's session: the user's hash, and when the session ends.
_OWN = struct.Struct(">qd")

_Hints = tuple[tuple[Order[Any], Any], ...]
"""Where a record is to be found by when it ends, and by whose it is."""

_Step = tuple[str, bytes | None, _Hints, _Hints]
"""An id, its record or None, and the hints that lead to it before and after."""

_Change = tuple[list[_Step] | None, int, int]
"""What is being done (None: all goes), and how many sessions and bytes there are then."""


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
        self,
        *,
        max_sessions: int = 100_000,
        max_bytes: int = 256 * 1024 * 1024,
        clock: Callable[[], float] = time.time,
    ) -> None:
        for name, limit in (("max_sessions", max_sessions), ("max_bytes", max_bytes)):
            if isinstance(limit, bool) or not isinstance(limit, int):
                raise TypeError(f"{name} must be an int, not {limit!r}")
            if limit < 1:
                raise ValueError(f"{name} must be at least 1, not {limit!r}")
        if not callable(clock):
            raise TypeError(f"clock must be callable, not {clock!r}")
        self._max_sessions, self._max_bytes, self._clock = max_sessions, max_bytes, clock
        self._share = max(100, max_sessions // 100)
        self._shards = max_sessions // SHARD_SIZE + 1
        self._lock = threading.Lock()
        self._rotations = 0
        self._start_over()

    def __len__(self) -> int:
        """Return how many sessions are held; expired ones that are not yet freed count, tombstones do not."""
        with self._lock:
            self._complete()
            return self._live

    # The verbs

    def load(self, id: str) -> Stored | None:
        """Return the record, or None."""
        now = self._clock()
        if self._due <= now or self._change is not None:
            with self._lock:
                self._tidy(now)
        packed = self._records[hash(id) % self._shards].get(id)
        if packed is None:
            return None
        end, _, start = _head_of(packed)
        return Stored(packed[start:], end) if end > now else None

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        """Store a new record, in the place of others if the store is full."""
        with self._lock:
            now = self._tidy(self._clock())
            if self._find(id, now) is not None:
                return False
            owner = _owner(user)
            self._make_room(id, owner, b"", data, now)
            self._commit((id, _pack(expires_at, expires_at, owner, data)))
            return True

    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        """Store ``data`` if the record is still ``seen``."""
        with self._lock:
            now = self._tidy(self._clock())
            if not _is_seen(self._find(id, now), seen):
                return False
            owner = _owner(user)
            self._make_room(id, owner, seen, data, now)
            hinted = _hinted(self._records[hash(id) % self._shards][id], owner, expires_at, now)
            self._commit((id, _pack(expires_at, hinted if data else 0, owner, data)))
            return True

    def touch(self, id: str, seen: bytes, expires_at: float, user: str | None = None) -> bool:
        """Move the expiry if the record is still ``seen``."""
        return self.replace(id, seen, seen, expires_at, user)

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
        """Store ``data`` under ``new``, and a tombstone under ``old``, if that is still ``seen``."""
        with self._lock:
            now = self._tidy(self._clock())
            if not _is_seen(self._find(old, now), seen) or self._find(new, now) is not None:
                return False
            owner = _owner(user)
            self._make_room(old, owner, seen, data, now)
            self._rotations += 1
            heir = _owner(new) if inherits else b""
            tombstone = _pack(now + TOMBSTONE_LIFE, self._rotations, heir, TOMBSTONE)
            self._commit((new, _pack(expires_at, expires_at, owner, data)), (old, tombstone))
            return True

    def heir(self, id: str) -> str | None:
        """Return the id that inherited from a tombstone, or None."""
        with self._lock:
            packed = self._find(id, self._tidy(self._clock()))
        if packed is None or len(packed) > _head_of(packed)[2] or len(packed) == _HEAD_SIZE:
            return None
        return packed[_HEAD_SIZE + 1 :].decode("utf-8", "surrogatepass")

    def delete(self, id: str) -> bool:
        """Delete the record; a tombstone stays."""
        with self._lock:
            packed = self._find(id, self._tidy(self._clock()))
            if packed is None or len(packed) == _head_of(packed)[2]:
                return False
            self._commit((id, None))
            return True

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    # Listing

    def ids(self, user: str | None = None) -> Iterator[str]:
        """Yield the ids of sessions, of all or of one user; one that is rotated meanwhile may come by its old id."""
        owner = _owner(user)
        with self._lock:
            self._tidy(self._clock())
            rotations = self._rotations
            own = self._of_users.between(*_span(owner)) if owner else []
        yield from (id for id in own if self._is_listed(id, owner, rotations))
        for records in [] if owner else self._records:
            with self._lock:
                ids = list(records)
            yield from (id for id in ids if self._is_listed(id, owner, rotations))

    def purge(self) -> int:
        """Free all that has expired, a bounded number at a time; return how many sessions."""
        now, freed = self._clock(), 0
        while self._due <= now or self._change is not None:
            with self._lock:
                self._complete()
                freed += self._free(now)
        return freed

    def clear(self) -> int:
        """Forget every session, and every tombstone, at once; return how many sessions."""
        with self._lock:
            self._tidy(self._clock())
            ended = self._live
            parts: list[list[Any]] = [self._records, *(order.pieces for order in self._orders)]
            self._change = None, 0, 0
            self._complete()
        # Freeing memory takes longer than forgetting: others get in between.
        for part in parts:
            while part:
                part.pop()
        return ended

    def _is_listed(self, id: str, owner: bytes, rotations: int) -> bool:
        """Return whether it is a session, the owner's if there is one, or was one so many rotations ago."""
        packed = self._records[hash(id) % self._shards].get(id)
        if packed is None:
            return False
        end, rotation, start = _head_of(packed)
        if end <= self._clock():
            return False
        if len(packed) == start:
            return bool(rotation > rotations)
        return not owner or _owner_of(packed) == owner

    # Inside, under the lock

    def _start_over(self) -> None:
        self._records: list[dict[str, bytes]] = [{} for _ in range(self._shards)]
        self._anonymous, self._owned, self._tombstones = Order[float](), Order[float](), Order[float]()
        self._of_users = Order[bytes]()
        self._orders = self._anonymous, self._owned, self._tombstones, self._of_users
        self._live = self._bytes = 0  # of what is not a tombstone
        self._due = inf  # nothing ends before
        self._change: _Change | None = None

    def _tidy(self, now: float) -> float:
        """Do what every call does first: complete what was interrupted, and free a little.  Return the time."""
        self._complete()
        if self._due <= now:
            self._free(now)
        return now

    def _find(self, id: str, now: float) -> bytes | None:
        """Return the record, if it lives."""
        packed = self._records[hash(id) % self._shards].get(id)
        if packed is not None and _head_of(packed)[0] <= now:
            self._commit((id, None))
            return None
        return packed

    def _free(self, now: float) -> int:
        """Free some of what has expired; return how many sessions."""
        held, met, due = self._live, 0, inf
        for order in (self._anonymous, self._owned, self._tombstones):
            hint = order.after(-inf)
            while hint is not None and hint[0] <= now and met < FREED_PER_CALL:
                met += 1
                if _head_of(self._records[hash(hint[1]) % self._shards][hint[1]])[0] <= now:
                    self._commit((hint[1], None))
                else:
                    self._refile(hint[1])
                hint = order.after(-inf)
            if hint is not None:
                due = min(due, hint[0])
        self._due = due
        return held - self._live

    def _refile(self, id: str) -> None:
        """Bring a record's hint up to date."""
        packed = self._records[hash(id) % self._shards][id]
        end, _, start = _head_of(packed)
        self._commit((id, _HEAD.pack(end, end, start) + packed[_HEAD_SIZE:]))

    def _make_room(self, id: str, owner: bytes, seen: bytes, data: bytes, now: float) -> None:
        """Evict, in the order that the class describes, until there is room for data in the place of what was seen."""
        if len(data) > self._max_bytes:
            raise StoreUnavailable(f"a record of {len(data)} bytes is larger than max_bytes={self._max_bytes}")
        sessions, size = self._max_sessions - (not seen), self._max_bytes + len(seen) - len(data)
        own = self._in_turn(self._of_users, owner, id) if owner else iter(())
        if owner and (not seen or owner != _owner_of(self._records[hash(id) % self._shards][id])):
            while self._of_users.are_many_between(*_span(owner), self._share):
                self._commit((next(own), None))
        victims = chain(self._in_turn(self._anonymous, b"", id), own, self._in_turn(self._owned, b"", id))
        while self._live > sessions or self._bytes > size:
            if not (self._due <= now and self._free(now)):
                self._commit((next(victims), None))

    def _in_turn(self, order: Order[Any], owner: bytes, spared: str) -> Iterator[str]:
        """Yield sessions, what ends first first, without one; the owner's alone if there is one."""
        low, high = _span(owner) if owner else (-inf, inf)
        patience = LAGGING_PER_CALL
        hint = order.after(low)
        while hint is not None and hint[0] <= high:
            packed = self._records[hash(hint[1]) % self._shards][hint[1]]
            end, hinted, _ = _head_of(packed)
            if hint[1] == spared or (owner and _owner_of(packed) != owner):
                pass
            elif hinted == end or not patience:
                yield hint[1]
            else:
                patience -= 1
                self._refile(hint[1])
            hint = order.after(*hint)

    def _commit(self, *writes: tuple[str, bytes | None]) -> None:
        """Write records, or delete those that are None: all of them, or none."""
        live, size, steps = self._live, self._bytes, []
        for id, packed in writes:
            had, was = self._describe(self._records[hash(id) % self._shards].get(id))
            has, will = self._describe(packed)
            live += (has > 0) - (had > 0)
            size += has - had
            steps.append((id, packed, was, will))
        self._change = steps, live, size
        self._complete()

    def _complete(self) -> None:
        """Carry out the change that was committed, also for the second time."""
        if self._change is None:
            return
        steps, live, size = self._change
        if steps is None:
            self._start_over()
            return
        for id, packed, was, will in steps:
            if will and will != was:
                self._due = min(self._due, will[0][1])
                # Each request brings a copy of its id; only the first is to be kept.
                kept = was[0][0].kept(was[0][1], id) if was else id
                for order, key in will:
                    if (order, key) not in was:
                        order.add(key, kept)
            records = self._records[hash(id) % self._shards]
            if packed is None:
                records.pop(id, None)
            else:
                records[id] = packed
            if was != will:
                for order, key in was:
                    if (order, key) not in will:
                        order.discard(key, id)
        self._live, self._bytes = live, size
        self._change = None

    def _describe(self, packed: bytes | None) -> tuple[int, _Hints]:
        """Return how many bytes of data a record has, and the hints that lead to it."""
        if packed is None:
            return 0, ()
        end, hinted, start = _head_of(packed)
        if len(packed) == start:
            return 0, ((self._tombstones, end),)
        if start == _HEAD_SIZE:
            return len(packed) - start, ((self._anonymous, hinted),)
        key = _OWN.pack(hash(_owner_of(packed)), hinted)
        return len(packed) - start, ((self._owned, hinted), (self._of_users, key))


def _pack(end: float, hinted: float, owner: bytes, data: bytes) -> bytes:
    return _HEAD.pack(end, hinted, _HEAD_SIZE + len(owner)) + owner + data


def _owner(name: str | None) -> bytes:
    """Return what a record has of a user, or of an heir; nothing for None."""
    return b"" if name is None else b"@" + name.encode("utf-8", "surrogatepass")


def _owner_of(packed: bytes) -> bytes:
    return packed[_HEAD_SIZE : _head_of(packed)[2]]


def _is_seen(packed: bytes | None, seen: bytes) -> bool:
    """Return whether a record's data are what was seen; a tombstone's never are."""
    return bool(packed and seen and len(packed) == _head_of(packed)[2] + len(seen) and packed.endswith(seen))


def _hinted(packed: bytes, owner: bytes, end: float, now: float) -> float:
    """Return when the hint of a record that is written again is to say that it ends."""
    hinted = _head_of(packed)[1]
    near = _owner_of(packed) == owner and 0 <= end - hinted <= LAG * (end - now)
    return float(hinted) if near else end


def _span(owner: bytes) -> tuple[bytes, bytes]:
    """Return between which keys a user's lie."""
    prefix = hash(owner).to_bytes(8, "big", signed=True)
    return prefix, prefix + b"\xff" * 8
