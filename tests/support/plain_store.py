"""A store of one's own, as docs/writing-a-store.md shows it."""

import threading
import time
from collections.abc import Callable, Iterator

from minisession import Stored


class PlainStore:
    """Sessions in a dict: the five verbs, and the three of listing."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.lock = threading.Lock()  # stands for whatever makes one step of "look and write" in your backend
        self.rows: dict[str, tuple[bytes, float, str | None]] = {}

    def find(self, id: str) -> tuple[bytes, float, str | None] | None:
        row = self.rows.get(id)
        return row if row is not None and row[1] > self.clock() else None

    def load(self, id: str) -> Stored | None:
        row = self.find(id)
        return None if row is None else Stored(row[0], row[1])

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        with self.lock:
            if self.find(id) is not None:
                return False
            self.rows[id] = data, expires_at, user
            return True

    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        with self.lock:
            row = self.find(id)
            if row is None or row[0] != seen:
                return False
            self.rows[id] = data, expires_at, user
            return True

    def touch(self, id: str, seen: bytes, expires_at: float, user: str | None = None) -> bool:
        return self.replace(id, seen, seen, expires_at, user)

    def delete(self, id: str) -> bool:
        with self.lock:
            live = self.find(id) is not None
            self.rows.pop(id, None)
            return live

    def close(self) -> None:
        pass

    def ids(self, user: str | None = None) -> Iterator[str]:
        for id in list(self.rows):
            row = self.find(id)
            if row and row[0] and user in (None, row[2]):  # b"" is a tombstone, and nobody's session
                yield id

    def purge(self) -> int:
        return self.forget(lambda expires_at: expires_at <= self.clock())

    def clear(self) -> int:
        return self.forget(lambda expires_at: True)

    def forget(self, chosen: Callable[[float], bool]) -> int:
        with self.lock:
            gone = [row for row in self.rows.values() if chosen(row[1])]
            self.rows = {id: row for id, row in self.rows.items() if not chosen(row[1])}
        return sum(data != b"" for data, _, _ in gone)
