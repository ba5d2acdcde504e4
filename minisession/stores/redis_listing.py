"""What `RedisStore` lists, and the keys that it has in Redis."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

from ..errors import SessionConflict, StoreUnavailable
from . import redis_scripts as lua
from .base import TOMBSTONE_LIFE
from .redis_cluster import Cluster
from .redis_node import BATCH, Command, Node
from .redis_replies import cursor_and_page, nonsense

# Seconds.  A login under way has its entry in the user's index, and no record yet.
GRACE = 60

# Entries looked at when a user's index has grown by 32, so that most of them are alive.
SAMPLE = 64

# Seconds.  A listing begins so much later, so that Redis' milliseconds tell what was before it.
TICK = 0.004

# Rotations of a session that `clear` follows in a Cluster, one after the other.
MAX_HEIRS = 1000

HEIRS = b"minisession:heir:"

LIFE = TOMBSTONE_LIFE * 1000

HASH_TAG = re.compile(rb"[^{]*\{[^}]+\}")


class Listing:
    """Sessions and users' indexes, as they are listed, pruned and cleared.

    Args:
        redis: the link.
        prefix: what the keys of records begin with.
    """

    def __init__(self, redis: Node | Cluster, prefix: bytes) -> None:
        self._redis, self._prefix = redis, prefix
        self._indexes = b"minisession:user:" + prefix
        # Whether a script may have any keys, or those of one slot only.
        self._together = redis.together

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
        """End every session under the prefix, also if rotated meanwhile; return how many.

        Tombstones go as well, and what is known of their heirs.
        """
        begun, cleared = self._begin(), 0
        for ids in self._scan():
            listed, absent = self._look(ids, begun)
            done = self._redis.batch([self._delete(id) for id in listed])
            ended = [id for id, done in zip(listed, done, strict=True) if done == 1]
            moved = set(listed).difference(ended)
            cleared += len(ended) + sum(map(self._end_heir, moved))
            tombstones = [self._prefix + id for id in set(ids).difference(ended, absent)]
            self._redis.batch([("EVAL", lua.DROP, 1, key, b"") for key in tombstones])
            self._redis.batch([("DEL", self._heir_key(key)) for key in tombstones])
        self._sweep(begun, begun / 1000 if self._together else -GRACE)
        return cleared

    def _key(self, id: str) -> bytes:
        return self._prefix + id.encode()

    @staticmethod
    def _heir_key(key: bytes) -> bytes:
        """Return a key in the slot of the record's: of one with braces, what they hold decides."""
        return HEIRS + (key if HASH_TAG.match(key) else b"{%b}" % key)

    def _delete(self, id: bytes) -> Command:
        return ("EVAL", lua.DELETE, 1, self._prefix + id)

    def _eval(self, script: bytes, keys: list[bytes], *arguments: Any) -> Any:
        [reply] = self._redis.run(("EVAL", script, len(keys), *keys, *arguments))
        return reply

    def _is_done(self, script: bytes, keys: list[bytes], *arguments: Any) -> bool:
        return done_of(self._eval(script, keys, *arguments)) > 0

    def _end_heir(self, id: bytes) -> bool:
        """End the session that goes on from a tombstone, even while it is being rotated."""
        done = self._end_at_once(id) if self._together else self._end_by_steps(id)
        if done == 2:
            raise SessionConflict("a session was given new ids faster than it could be ended")
        return done == 1

    def _end_at_once(self, id: bytes) -> int:
        return done_of(self._eval(lua.END, [self._prefix + id], HEIRS, self._prefix))

    def _end_by_steps(self, id: bytes) -> int:
        for _ in range(MAX_HEIRS):
            # One round trip a step, or one would never catch up with rotations without a pause.
            heir_key = self._heir_key(self._prefix + id)
            match self._redis.run(self._delete(id), ("GET", heir_key)):
                case [0, bytes(heir)]:
                    id = heir
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
        # The session itself is stored, whatever comes of this.
        with suppress(StoreUnavailable):
            (some,) = self._redis.run(("ZRANDMEMBER", index, SAMPLE))
            self._prune(index, self._look(some, 0)[1], -GRACE)


def done_of(reply: Any) -> int:
    """Return what a script that writes has answered."""
    if type(reply) is int and reply in (0, 1, 2):
        return reply
    raise nonsense()


def _texts(ids: Iterable[bytes]) -> Iterator[str]:
    for id in ids:
        # A foreign key is skipped, which no cookie can name.
        with suppress(UnicodeDecodeError):
            yield id.decode()
