"""`MemoryStore`: sessions in this process, bounded, without a thread, a sweep or a pause.

Everything is kept in dicts of str, bytes, int and float.  CPython's garbage collector does not walk
those, and none of them grows large: a dict of a million entries stops the world when it is resized, or
scanned for its first live entry.

- Records live in shards, by the hash of their id.
- `_Calendar` files ids in buckets by expiry; every call frees a few of what is due.
- `_Recency` knows who was used longest ago, for when the store is full.
- `_ByUser` knows each user's sessions, oldest first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from heapq import heappop, heappush, heapreplace
from itertools import count, islice
from math import ceil, frexp, inf

from .base import TOMBSTONE, Stored

FREED_PER_CALL = 128  # entries; about 0.1 ms, and 1,000 requests free 100,000 sessions
SHARD_SIZE = 4096  # entries; resizing a dict of this size takes under a millisecond
BUCKET_SIZE = 256
LOOKED_AT_WHEN_FULL = 32  # entries of the next bucket due, for one that has expired already


class MemoryStore:
    """Sessions in one process, for any number of threads: the default.

    They end with the process, and other processes do not see them.  The cost of a call does not grow
    with the number of sessions; what has expired is freed as other sessions come and go, at most 128
    entries a call.

    Args:
        max_sessions: sessions held at most.  A full store drops what has expired; else the least
            recently used session without a user; else the oldest of the same user; else the least
            recently used.
        clock: the time, in Unix seconds.
    """

    in_process = True

    def __init__(self, *, max_sessions: int = 100_000, clock: Callable[[], float] = time.time) -> None:
        if isinstance(max_sessions, bool) or not isinstance(max_sessions, int):
            raise TypeError(f"max_sessions must be an int, not {max_sessions!r}")
        if max_sessions < 1:
            raise ValueError(f"max_sessions must be at least 1, not {max_sessions!r}")
        if not callable(clock):
            raise TypeError(f"clock must be callable, not {clock!r}")
        self._max = max_sessions
        self._clock = clock
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        shards = 1 << (self._max // SHARD_SIZE).bit_length()
        self._mask = shards - 1
        self._records: list[dict[str, bytes]] = [{} for _ in range(shards)]
        self._users: list[dict[str, str]] = [{} for _ in range(shards)]
        self._calendar = _Calendar(shards)
        self._anonymous, self._owned = _Recency(shards), _Recency(shards)
        self._by_user = [_ByUser() for _ in range(shards)]
        self._live = 0  # records that are not tombstones

    def __len__(self) -> int:
        """Return how many sessions are held; expired ones that are not yet freed count, tombstones do not."""
        return self._live

    # The five verbs

    def load(self, id: str) -> Stored | None:
        """Return the record, or None; a session that is loaded counts as used."""
        with self._lock:
            shard, data, expires_at = self._find(id)
            if data is None:
                return None
            if data:
                (self._owned if id in self._users[shard] else self._anonymous).use(shard, id)
            return Stored(data, expires_at)

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        """Store a new record, in the place of another if the store is full."""
        with self._lock:
            shard, present, _ = self._find(id)
            if present is not None:
                return False
            if data and self._live >= self._max:
                self._make_room(user)
            self._put(shard, id, data, expires_at, user)
            return True

    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        """Store ``data`` if the record is still ``seen``."""
        with self._lock:
            shard, present, _ = self._find(id)
            if present is None or present != seen:
                return False
            self._put(shard, id, data, expires_at, user)
            return True

    def touch(self, id: str, seen: bytes, expires_at: float, user: str | None = None) -> bool:
        """Move the expiry if the record is still ``seen``."""
        return self.replace(id, seen, seen, expires_at, user)

    def delete(self, id: str) -> bool:
        """Forget the record."""
        with self._lock:
            shard, present, _ = self._find(id)
            if present is None:
                return False
            self._drop(shard, id)
            return True

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    # Listing

    def ids(self, user: str | None = None) -> Iterator[str]:
        """Yield the ids of live sessions; of one user, oldest first."""
        if user is not None:
            with self._lock:
                owned = list(self._by_user[hash(user) & self._mask].ids(user))
            for id in owned:
                with self._lock:
                    _, data, _ = self._find(id)
                if data:
                    yield id
            return
        for shard, records in enumerate(self._records):
            with self._lock:
                now = self._clock()
                live = [id for id, data in records.items() if data and self._calendar.expiry(shard, id) > now]
            yield from live

    def purge(self) -> int:
        """Free all that has expired, a shard at a time; return how many sessions."""
        before = 0
        for shard, records in enumerate(self._records):
            with self._lock:
                now = self._clock()
                dead = [id for id in records if self._calendar.expiry(shard, id) <= now]
                before += self._live
                for id in dead:
                    self._drop(shard, id)
                before -= self._live
        return before

    def clear(self) -> int:
        """Forget every session, and every tombstone."""
        with self._lock:
            held = self._live
            self._reset()
            return held

    # Inside, under the lock

    def _find(self, id: str) -> tuple[int, bytes | None, float]:
        """Return the shard, the live record if there is one, and its expiry.  Every verb comes by here."""
        now = self._clock()
        for dead_shard, dead in self._calendar.due(now):
            self._drop(dead_shard, dead)
        shard = hash(id) & self._mask
        data = self._records[shard].get(id)
        if data is None:
            return shard, None, 0.0
        expires_at = self._calendar.expiry(shard, id)
        if expires_at <= now:
            self._drop(shard, id)
            return shard, None, 0.0
        return shard, data, expires_at

    def _put(self, shard: int, id: str, data: bytes, expires_at: float, user: str | None) -> None:
        present = self._records[shard].get(id)
        if data and not present:
            self._live += 1
        elif present and not data:
            self._live -= 1
        self._records[shard][id] = data
        self._calendar.file(shard, id, expires_at, self._clock())
        before, after = self._users[shard].get(id), user if data else None
        if before != after:
            self._disown(shard, id)
            if after is not None:
                self._users[shard][id] = after
                self._by_user[hash(after) & self._mask].add(after, id)
        (self._owned if after is None else self._anonymous).forget(shard, id)
        if data:
            (self._anonymous if after is None else self._owned).use(shard, id)
        else:
            self._anonymous.forget(shard, id)

    def _drop(self, shard: int, id: str) -> None:
        if self._records[shard].pop(id):
            self._live -= 1
        self._calendar.remove(shard, id)
        self._disown(shard, id)
        self._anonymous.forget(shard, id)
        self._owned.forget(shard, id)

    def _disown(self, shard: int, id: str) -> None:
        user = self._users[shard].pop(id, None)
        if user is not None:
            self._by_user[hash(user) & self._mask].remove(user, id)

    def _make_room(self, user: str | None) -> None:
        victim = self._calendar.expired(self._clock(), self._is_session)
        if victim is None:
            victim = self._anonymous.oldest()
        if victim is None and user is not None:
            victim = next(self._by_user[hash(user) & self._mask].ids(user), None)
        if victim is None:
            victim = self._owned.oldest()
        if victim is not None:
            self._drop(hash(victim) & self._mask, victim)

    def _is_session(self, id: str) -> bool:
        return self._records[hash(id) & self._mask][id] != TOMBSTONE


class _Calendar:
    """Ids by expiry, in buckets.

    A bucket is as wide as about 1/64 of the time that its sessions had left, so that there are few,
    and what is in it is freed that much late at the most; to `expiry` it is dead on time.  A session
    that is used moves on when its bucket is due, not before.
    """

    def __init__(self, shards: int) -> None:
        self._filed: list[dict[str, int]] = [{} for _ in range(shards)]  # id: its bucket's number
        self._mask = shards - 1
        self._buckets: dict[int, dict[str, float]] = {}
        self._ends: dict[int, float] = {}  # bucket: when it is due
        self._open: dict[float, int] = {}  # when due: the bucket that takes more
        self._agenda: list[tuple[float, int]] = []  # a heap
        self._numbers = count()

    def expiry(self, shard: int, id: str) -> float:
        return self._buckets[self._filed[shard][id]][id]

    def file(self, shard: int, id: str, expires_at: float, now: float) -> None:
        number = self._filed[shard].get(id)
        if number is not None:
            bucket = self._buckets[number]
            if expires_at >= bucket[id]:
                bucket[id] = expires_at
                return
            self.remove(shard, id)
        end = inf
        if expires_at < inf:
            width = 2.0 ** max(-2, frexp((expires_at - now) / 128)[1])
            end = ceil(expires_at / width) * width
        number = self._open.get(end)
        if number is None or len(self._buckets[number]) >= BUCKET_SIZE:
            self._close(number)
            number = self._open[end] = next(self._numbers)
            self._buckets[number] = {}
            self._ends[number] = end
            heappush(self._agenda, (end, number))
        self._buckets[number][id] = expires_at
        self._filed[shard][id] = number

    def remove(self, shard: int, id: str) -> None:
        number = self._filed[shard].pop(id)
        bucket = self._buckets[number]
        del bucket[id]
        if not bucket and self._open.get(self._ends[number]) != number:
            self._forget(number)

    def due(self, now: float) -> Iterator[tuple[int, str]]:
        """Yield what has expired, a bounded number; the caller removes each before it asks for the next."""
        if not self._agenda or self._agenda[0][0] > now:
            return
        for _ in range(FREED_PER_CALL):
            if not self._agenda or self._agenda[0][0] > now:
                return
            _, number = self._agenda[0]
            bucket = self._buckets.get(number)
            if not bucket:
                heappop(self._agenda)
                if bucket is not None:
                    self._forget(number)
                continue
            id = next(reversed(bucket))  # the last: the first may lie behind a run of removed ones
            shard, expires_at = hash(id) & self._mask, bucket[id]
            if expires_at <= now:
                yield shard, id
            else:
                self.remove(shard, id)
                self.file(shard, id, expires_at, now)

    def expired(self, now: float, wanted: Callable[[str], bool]) -> str | None:
        """Look at a few of the next bucket due for one that is dead already."""
        if self._agenda:
            for id, expires_at in islice(self._buckets.get(self._agenda[0][1], {}).items(), LOOKED_AT_WHEN_FULL):
                if expires_at <= now and wanted(id):
                    return id
        return None

    def _close(self, number: int | None) -> None:
        if number is not None and not self._buckets[number]:
            self._forget(number)

    def _forget(self, number: int) -> None:
        end = self._ends.pop(number)
        del self._buckets[number]
        if self._open.get(end) == number:
            del self._open[end]


class _Recency:
    """Who was used longest ago, exactly, over all shards.

    Each shard's dict is in order of use; a heap holds what was each shard's oldest when last asked.
    Use only makes a shard's oldest younger, so the heap's first is right as soon as it is up to date.
    """

    def __init__(self, shards: int) -> None:
        self._used: list[dict[str, int]] = [{} for _ in range(shards)]  # id: when, by `_ticks`
        self._ticks = count()
        self._heads: list[tuple[int, int]] = []
        self._has_head = bytearray(shards)

    def use(self, shard: int, id: str) -> None:
        used, tick = self._used[shard], next(self._ticks)
        used.pop(id, None)
        used[id] = tick
        if not self._has_head[shard]:
            self._has_head[shard] = 1
            heappush(self._heads, (tick, shard))

    def forget(self, shard: int, id: str) -> None:
        self._used[shard].pop(id, None)

    def oldest(self) -> str | None:
        while self._heads:
            tick, shard = self._heads[0]
            first = next(iter(self._used[shard].items()), None)
            if first is None:
                heappop(self._heads)
                self._has_head[shard] = 0
            elif first[1] == tick:
                return first[0]
            else:
                heapreplace(self._heads, (first[1], shard))
        return None


class _ByUser:
    """Each user's ids, oldest first: linked lists made of dicts of str."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._last: dict[str, str] = {}
        self._after: dict[str, str] = {}
        self._before: dict[str, str] = {}

    def add(self, user: str, id: str) -> None:
        last = self._last.get(user)
        if last is None:
            self._first[user] = id
        else:
            self._after[last], self._before[id] = id, last
        self._last[user] = id

    def remove(self, user: str, id: str) -> None:
        before, after = self._before.pop(id, None), self._after.pop(id, None)
        _link(self._first, self._after, user, before, after)
        _link(self._last, self._before, user, after, before)

    def ids(self, user: str) -> Iterator[str]:
        id = self._first.get(user)
        while id is not None:
            yield id
            id = self._after.get(id)


def _link(ends: dict[str, str], links: dict[str, str], user: str, one: str | None, other: str | None) -> None:
    """Let what pointed to a removed id, ``one`` or the user's end, point to ``other``."""
    here, key = (ends, user) if one is None else (links, one)
    if other is None:
        del here[key]
    else:
        here[key] = other
