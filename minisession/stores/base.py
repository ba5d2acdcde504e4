"""What a store is.  Five verbs; compare-and-set on the bytes that were seen is the whole protocol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

TOMBSTONE = b""
"""The record of an id that `regenerate` has replaced: no data, no user, and in nobody's way."""


class Stored(NamedTuple):
    """A record as the store has it.

    Attributes:
        data: the record's bytes; ``b""`` is a tombstone.
        expires_at: Unix seconds; ``inf`` where the store has no limit for it.
    """

    data: bytes
    expires_at: float

    def __repr__(self) -> str:  # a tuple would show the data, to logs and error trackers
        return f"<Stored, {len(self.data)} bytes>"


class Store(Protocol):
    """What `SessionMiddleware` needs of a store.  Every call is atomic, also between processes.

    Absence and conflict are values; a backend that fails raises `StoreUnavailable`.  A record whose
    ``expires_at`` has come is absent to every verb.  ``user`` is whose session the record is.
    """

    def load(self, id: str) -> Stored | None:
        """Return the record, or None."""

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        """Store a new record; False, and nothing stored, if the id is taken (by a tombstone, too)."""
        ...

    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        """Store ``data`` if the record is still exactly ``seen``; False if it is gone or changed."""
        ...

    def touch(self, id: str, seen: bytes, expires_at: float, user: str | None = None) -> bool:
        """Move the expiry if the record is still exactly ``seen``; False if it is gone or changed."""
        ...

    def delete(self, id: str) -> bool:
        """Forget the record; False if there was none."""
        ...

    def close(self) -> None:
        """Let go of connections and files."""


class ListingStore(Store, Protocol):
    """A store that can also list, for users' sessions and for operators."""

    def ids(self, user: str | None = None) -> Iterator[str]:
        """Yield the ids of live sessions, of one user or all, in bounded memory; no tombstones."""
        ...

    def purge(self) -> int:
        """Free what has expired, in bounded batches; return how many."""
        ...

    def clear(self) -> int:
        """Forget every session; return how many there were."""
        ...
