"""What a store is.  The whole protocol is compare-and-set on the bytes that were seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

TOMBSTONE = b""
"""The record of an id that `Store.rotate` has replaced: it has no data and no user."""

TOMBSTONE_LIFE = 15
"""Seconds that a tombstone stays: longer than requests last that were under way before it."""


class Stored(NamedTuple):
    """A record as the store has it.

    Attributes:
        data: the record's bytes; ``b""`` is a tombstone.
        expires_at: Unix seconds; ``inf`` where the store has no limit for it.
    """

    data: bytes
    expires_at: float

    # A tuple's repr would show the data.
    def __repr__(self) -> str:
        return f"<Stored, {len(self.data)} bytes>"


class Store(Protocol):
    """What `SessionMiddleware` needs of a store.  Every call is atomic, also between processes.

    Absence and conflict are values; a backend that fails raises `StoreUnavailable`.  A record whose
    ``expires_at`` has come is absent to every verb.  ``user`` is whose session the record is.
    """

    def load(self, id: str) -> Stored | None:
        """Return the record, or None."""

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        """Store a new record; False, and nothing stored, if the id is taken, by a tombstone too."""

    def replace(
        self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None
    ) -> bool:
        """Store ``data`` if the record is still exactly ``seen``; False: it is gone or changed."""

    def touch(self, id: str, seen: bytes, expires_at: float, user: str | None = None) -> bool:
        """Move the expiry if the record is still exactly ``seen``; False: gone or changed."""

    def rotate(
        self, old: str, seen: bytes, new: str, data: bytes, expires_at: float,
        user: str | None = None, *, inherits: bool,
    ) -> bool:  # fmt: skip
        """Replace ``old``, if its record is still exactly ``seen``, by a record under ``new``.

        A tombstone takes the old record's place for `TOMBSTONE_LIFE` seconds.  If the new one
        ``inherits``, the tombstone knows it as its `heir`.  False, and nothing stored: the old
        record is gone or changed, or ``new`` is taken.
        """

    def heir(self, id: str) -> str | None:
        """Return the id that inherited from a tombstone; None if none did, or ``id`` is not one."""

    def delete(self, id: str) -> bool:
        """Delete the record; False if there is no live one.  A tombstone stays."""

    def close(self) -> None:
        """Let go of connections and files."""


class ListingStore(Store, Protocol):
    """A store that can also list, for users' sessions and for operators."""

    def ids(self, user: str | None = None) -> Iterator[str]:
        """Yield ids in bounded memory: of one user's sessions, or of all.

        Every session that lived when the call began and has not ended since is listed, by an id
        that it has had since then: one that is rotated meanwhile may appear by its old id, which is
        a tombstone by now.  Only what was a tombstone when the call began is skipped.
        """

    def purge(self) -> int:
        """Free what has expired, in bounded batches; return how many."""

    def clear(self) -> int:
        """End every session that lived when it began, free tombstones; return how many sessions."""
