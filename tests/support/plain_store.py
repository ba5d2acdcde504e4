"""A store of one's own, as docs/writing-a-store.md shows it."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from minisession import Stored
from minisession.stores.base import TOMBSTONE, TOMBSTONE_LIFE


class Row(NamedTuple):
    data: bytes
    expires_at: float
    user: str | None = None
    heir: str | None = None  # of a tombstone alone


class PlainStore:
    """Sessions in a dict: the seven verbs, and the three of listing."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.lock = threading.Lock()  # stands for whatever makes one step of "look and write" in your backend
        self.rows: dict[str, Row] = {}

    def find(self, id: str) -> Row | None:
        row = self.rows.get(id)
        return row if row is not None and row.expires_at > self.clock() else None

    def live(self, id: str) -> Row | None:
        row = self.find(id)
        return row if row is not None and row.data != TOMBSTONE else None

    def holds(self, id: str, seen: bytes) -> bool:
        row = self.live(id)
        return row is not None and row.data == seen

    def load(self, id: str) -> Stored | None:
        row = self.find(id)
        return None if row is None else Stored(row.data, row.expires_at)

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        with self.lock:
            if self.find(id) is not None:
                return False
            self.rows[id] = Row(data, expires_at, user)
            return True

    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        with self.lock:
            if not self.holds(id, seen):
                return False
            self.rows[id] = Row(data, expires_at, user)
            return True

    def touch(self, id: str, seen: bytes, expires_at: float, user: str | None = None) -> bool:
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
        with self.lock:
            if not self.holds(old, seen) or self.find(new) is not None:
                return False
            self.rows[new] = Row(data, expires_at, user)
            self.rows[old] = Row(TOMBSTONE, self.clock() + TOMBSTONE_LIFE, heir=new if inherits else None)
            return True

    def heir(self, id: str) -> str | None:
        row = self.find(id)
        return None if row is None else row.heir

    def delete(self, id: str) -> bool:
        with self.lock:
            if self.live(id) is None:
                return False
            del self.rows[id]
            return True

    def close(self) -> None:
        pass

    def ids(self, user: str | None = None) -> Iterator[str]:
        with self.lock:
            began = [id for id, row in self.rows.items() if self.live(id) and user in (None, row.user)]
        return (id for id in began if self.find(id))  # rotated meanwhile, it is a tombstone, and listed

    def purge(self) -> int:
        return self.forget(lambda expires_at: expires_at <= self.clock())

    def clear(self) -> int:
        return self.forget(lambda expires_at: True)

    def forget(self, chosen: Callable[[float], bool]) -> int:
        with self.lock:
            gone = [id for id, row in self.rows.items() if chosen(row.expires_at)]
            return sum(self.rows.pop(id).data != TOMBSTONE for id in gone)
