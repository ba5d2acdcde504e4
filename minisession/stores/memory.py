"""`MemoryStore`: sessions in this process, bounded, without a thread, a sweep or a pause.

Everything is kept in dicts of str, bytes and int, which CPython's garbage collector does not walk, and
each is one of many small ones: a dict of a million entries stops the world when it is resized, or asked
for its first entry.

- Records live in shards, by the hash of their id.  Each begins with its expiry, in 8 bytes: a float
  object would take 32, and another lookup.
- `_Calendar` knows what has expired; every call frees a few.
- `_Recency` knows which session was used longest ago, for when the store is full.
- `_Owners` knows whose a session is, and each user's sessions, oldest first.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from math import frexp, inf, isfinite
from operator import itemgetter

from .base import Stored

FREED_PER_CALL = 128  # entries; about 0.2 ms, and 1,000 requests free 100,000 sessions
SHARD_SIZE = 1200  # entries, on average; a dict with 2,048 slots holds 1,365 on CPython
BUCKET_SIZE = 85  # entries; what a dict with 128 slots holds
SORTING = 10  # sorting a bucket takes as long as freeing this many

_HEAD = struct.Struct("d")  # a record's expiry
_head_of = _HEAD.unpack_from
_HEAD_SIZE = _HEAD.size


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
        self._shards = shards = max_sessions // SHARD_SIZE + 1
        self._live = 0  # records that are not tombstones
        self._records: list[dict[str, bytes]] = [{} for _ in range(shards)]
        self._calendar = _Calendar(shards, self._expiry)
        self._anonymous, self._owned = _Recency(shards), _Recency(shards)
        self._owners = _Owners(shards)

    def __len__(self) -> int:
        """Return how many sessions are held; expired ones that are not yet freed count, tombstones do not."""
        return self._live

    # The five verbs

    def load(self, id: str) -> Stored | None:
        """Return the record, or None; a session that is loaded counts as used."""
        with self._lock:
            shard, record = self._find(id)
            if record is None:
                return None
            if len(record) > _HEAD_SIZE:
                (self._owned if id in self._owners.whose[shard] else self._anonymous).use(shard, id)
            return Stored(record[_HEAD_SIZE:], _head_of(record)[0])

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        """Store a new record, in the place of another if the store is full."""
        with self._lock:
            shard, record = self._find(id)
            if record is not None:
                return False
            self._put(shard, id, data, expires_at, user, b"")
            return True

    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        """Store ``data`` if the record is still ``seen``."""
        with self._lock:
            shard, record = self._find(id)
            if record is None or record[_HEAD_SIZE:] != seen:
                return False
            self._put(shard, id, data, expires_at, user, seen)
            return True

    def touch(self, id: str, seen: bytes, expires_at: float, user: str | None = None) -> bool:
        """Move the expiry if the record is still ``seen``."""
        return self.replace(id, seen, seen, expires_at, user)

    def delete(self, id: str) -> bool:
        """Forget the record."""
        with self._lock:
            _, record = self._find(id)
            if record is not None:
                self._drop(id)
            return record is not None

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    # Listing

    def ids(self, user: str | None = None) -> Iterator[str]:
        """Yield the ids of live sessions; of one user, oldest first."""
        if user is None:
            for records in self._records:
                with self._lock:
                    now = self._clock()
                    live = [id for id in records if len(records[id]) > _HEAD_SIZE and self._expiry(id) > now]
                yield from live
        else:
            with self._lock:
                owned = list(self._owners.ids(user))
            for id in owned:
                with self._lock:
                    shard, record = self._find(id)
                    listed = record is not None and self._owners.whose[shard].get(id) == user
                if listed:
                    yield id

    def purge(self) -> int:
        """Free all that has expired, a shard at a time; return how many sessions."""
        return self._free_until(self._clock())

    def clear(self) -> int:
        """Forget every session, and every tombstone, a shard at a time; return how many sessions."""
        return self._free_until(inf)

    # Inside, under the lock

    def _find(self, id: str) -> tuple[int, bytes | None]:
        """Return the shard, and the live record if there is one.  Every verb comes by here."""
        now = self._clock()
        agenda = self._calendar.agenda
        if agenda and agenda[0][0] <= now:
            for dead in self._calendar.due(now):
                self._forget(dead)
        shard = hash(id) % self._shards
        record = self._records[shard].get(id)
        if record is not None and _head_of(record)[0] <= now:
            self._drop(id)
            record = None
        return shard, record

    def _put(self, shard: int, id: str, data: bytes, expires_at: float, user: str | None, before: bytes) -> None:
        if data and not before:
            if self._live >= self._max:
                self._make_room(user)
            self._live += 1
        elif before and not data:
            self._live -= 1
        self._records[shard][id] = _HEAD.pack(expires_at) + data
        self._calendar.file(shard, id, expires_at, self._clock)
        owner, previous = user if data else None, self._owners.whose[shard].get(id)
        if owner != previous:
            self._owners.give(shard, id, owner)
        if before and not (data and (owner is None) == (previous is None)):
            (self._anonymous if previous is None else self._owned).forget(shard, id)
        if data:
            (self._anonymous if owner is None else self._owned).use(shard, id)

    def _make_room(self, user: str | None) -> None:
        victim = self._anonymous.oldest()  # what has expired is gone already: `_find` was here
        if victim is None and user is not None:
            victim = next(self._owners.ids(user), None)
        if victim is None:
            victim = self._owned.oldest()
        if victim is not None:
            self._drop(victim)

    def _free_until(self, moment: float) -> int:
        """Free what expires by then, and let others in after each shard."""
        freed = 0
        for records in self._records:
            with self._lock:
                freed += self._live
                for id in [id for id in records if self._expiry(id) <= moment]:
                    self._drop(id)
                freed -= self._live
        return freed

    def _drop(self, id: str) -> None:
        self._calendar.remove(hash(id) % self._shards, id)
        self._forget(id)

    def _forget(self, id: str) -> None:
        shard = hash(id) % self._shards
        if len(self._records[shard].pop(id)) > _HEAD_SIZE:
            self._live -= 1
        self._owners.give(shard, id, None)
        self._anonymous.forget(shard, id)
        self._owned.forget(shard, id)

    def _expiry(self, id: str) -> float:
        expires_at: float = _head_of(self._records[hash(id) % self._shards][id])[0]
        return expires_at


class _Calendar:
    """Who expires next, exactly, without a place of its own for each expiry.

    Ids are thrown into buckets, each for a thousandth or so of the time that its sessions had left.
    When that begins, the bucket is sorted, and then emptied from its end.  A session that is used
    stays where it is until then.
    """

    def __init__(self, shards: int, expiry: Callable[[str], float]) -> None:
        self._expiry = expiry
        self._filed: list[dict[str, int]] = [{} for _ in range(shards)]  # id: its bucket's number
        self._shards = shards
        self._buckets: dict[int, dict[str, None]] = {}
        self._begins: dict[int, float] = {}  # of the buckets that are not sorted
        self._open: dict[float, int] = {}  # beginning: the bucket that takes more
        self.agenda: list[tuple[float, int]] = []  # a heap: no sooner than this, and in which bucket
        self._numbers = count()

    def file(self, shard: int, id: str, expires_at: float, now: Callable[[], float]) -> None:
        number = self._filed[shard].get(id)
        if number is not None:
            if self._begins.get(number, inf) <= expires_at < inf:
                return
            self.remove(shard, id)
        begin = expires_at
        if isfinite(expires_at):
            begin -= expires_at % 2.0 ** frexp((expires_at - now()) / 1024)[1]
        number = self._open.get(begin)
        if number not in self._begins or len(self._buckets[number]) >= BUCKET_SIZE:
            number = self._begin(begin)
        self._buckets[number][id] = None
        self._filed[shard][id] = number

    def remove(self, shard: int, id: str) -> None:
        number = self._filed[shard].pop(id)
        bucket = self._buckets[number]
        del bucket[id]
        if not bucket:
            del self._buckets[number]
            self._begins.pop(number, None)

    def due(self, now: float) -> list[str]:
        """Remove what has expired, soonest first and a bounded number, and return it."""
        agenda = self.agenda
        dead: list[str] = []
        work = FREED_PER_CALL - 2  # one more may be the record asked for, and one evicted
        while work > 0 and agenda and agenda[0][0] <= now:
            work -= 1
            number = agenda[0][1]
            if number in self._begins:
                work -= SORTING
                self._sort(number)
            id = next(reversed(self._buckets.get(number, {})), None)
            if id is None:
                heappop(agenda)
            elif (expires_at := self._expiry(id)) > now:
                heapreplace(agenda, (expires_at, number))
            else:
                self.remove(hash(id) % self._shards, id)
                dead.append(id)
        return dead

    def _begin(self, begin: float) -> int:
        if len(self.agenda) + len(self._open) > 4 * len(self._buckets) + 64:  # most are of buckets long gone
            self.agenda = [entry for entry in self.agenda if entry[1] in self._buckets]
            heapify(self.agenda)
            self._open = {begin: number for begin, number in self._open.items() if number in self._begins}
        number = self._open[begin] = next(self._numbers)
        self._buckets[number] = {}
        self._begins[number] = begin
        heappush(self.agenda, (begin, number))
        return number

    def _sort(self, number: int) -> None:
        del self._begins[number]
        self._buckets[number] = dict.fromkeys(sorted(self._buckets[number], key=self._expiry, reverse=True))


class _Recency:
    """Who was used longest ago, exactly, over all shards.

    Each shard's dict has when its sessions were used.  A use does not move its session there: the dict would
    then keep the id that came with the request, beside the one that it came with first.  So the dict is in
    order of use as it was when last sorted, of which `_sorted` has the time: those not used since are the
    oldest, and in order.  Those used since are moved behind them when somebody asks for the oldest.

    A heap holds what was each shard's oldest when last asked.  Use only makes a shard's oldest younger, so
    the heap's first is right as soon as it is up to date.
    """

    def __init__(self, shards: int) -> None:
        self._used: list[dict[str, int]] = [{} for _ in range(shards)]  # id: when, by `_ticks`
        self._sorted = [-1] * shards  # when, by `_ticks`
        self._ticks = count()
        self._heads: list[tuple[int, int]] = []
        self._has_head = bytearray(shards)

    def use(self, shard: int, id: str) -> None:
        used, tick = self._used[shard], next(self._ticks)
        if not self._has_head[shard]:
            self._has_head[shard] = 1
            heappush(self._heads, (tick, shard))
        used[id] = tick

    def forget(self, shard: int, id: str) -> None:
        self._used[shard].pop(id, None)

    def oldest(self) -> str | None:
        while self._heads:
            tick, shard = self._heads[0]
            first = self._first(shard)
            if first is None:
                heappop(self._heads)
                self._has_head[shard] = 0
            elif first[1] == tick:
                return first[0]
            else:
                heapreplace(self._heads, (first[1], shard))
        return None

    def _first(self, shard: int) -> tuple[str, int] | None:
        used, moved = self._used[shard], list[str]()
        for id, tick in used.items():
            if tick < self._sorted[shard]:
                for other in moved:
                    used[other] = used.pop(other)
                return id, tick
            moved.append(id)
        self._used[shard] = used = dict(sorted(used.items(), key=itemgetter(1)))
        self._sorted[shard] = next(self._ticks)
        return next(iter(used.items()), None)


class _Owners:
    """Whose each session is, and each user's sessions, oldest first: linked lists made of dicts of str."""

    def __init__(self, shards: int) -> None:
        self.whose: list[dict[str, str]] = [{} for _ in range(shards)]
        self._shards = shards
        # By the shard of what is looked up, be it a user or an id
        self._first: list[dict[str, str]] = [{} for _ in range(shards)]
        self._last: list[dict[str, str]] = [{} for _ in range(shards)]
        self._after: list[dict[str, str]] = [{} for _ in range(shards)]
        self._before: list[dict[str, str]] = [{} for _ in range(shards)]

    def give(self, shard: int, id: str, user: str | None) -> None:
        """Make it the user's newest session, or nobody's; what is the user's already stays in its place."""
        owner = self.whose[shard].get(id)
        if owner == user:
            return
        if owner is not None:
            del self.whose[shard][id]
            before, after = self._before[shard].pop(id, None), self._after[shard].pop(id, None)
            self._link(self._first, self._after, owner, before, after)
            self._link(self._last, self._before, owner, after, before)
        if user is not None:
            self.whose[shard][id] = user
            here = hash(user) % self._shards
            last = self._last[here].get(user)
            if last is None:
                self._first[here][user] = id
            else:
                self._after[hash(last) % self._shards][last] = id
                self._before[shard][id] = last
            self._last[here][user] = id

    def ids(self, user: str) -> Iterator[str]:
        id = self._first[hash(user) % self._shards].get(user)
        while id is not None:
            yield id
            id = self._after[hash(id) % self._shards].get(id)

    def _link(
        self, ends: list[dict[str, str]], links: list[dict[str, str]], user: str, one: str | None, other: str | None
    ) -> None:
        """Let what pointed to a removed id, ``one`` or the user's end, point to ``other``."""
        here, key = (ends, user) if one is None else (links, one)
        if other is None:
            del here[hash(key) % self._shards][key]
        else:
            here[hash(key) % self._shards][key] = other
