"""Ending an id, and the session that has replaced it with it: a logout must not lose a race.

A session that is given a new id with ``keep`` leaves a tombstone that knows its heir.  A logout
that arrives with the old id follows the heirs to the end of the chain, and ends what lives there.
"""

from __future__ import annotations

from collections.abc import Iterator

from .errors import SessionConflict
from .journal import handle_of
from .stores.base import TOMBSTONE, Store

# Heirs that are followed before it is a conflict.
MAX_LINKS = 32


def heirs(
    store: Store, id: str, most: int = MAX_LINKS, followed: set[str] | None = None
) -> Iterator[str]:
    """Yield the last of the heirs of an id, and again where that has heirs by then.

    Args:
        store: where the session is.
        id: what it was known by.
        most: heirs that are followed.
        followed: gets the ids that had heirs.

    Raises:
        SessionConflict: it was given new ids faster than they could be followed.
    """
    first, last, links = id, id, 0
    while True:
        # By the quickest call there is, since the session may be moving on.
        while (heir := store.heir(id)) is not None:
            if links == most:
                raise SessionConflict(f"session {handle_of(first)} got over {most} new ids: retry")
            if followed is not None:
                followed.add(id)
            id, links = heir, links + 1
        if id == last:
            return
        yield (last := id)


def end(store: Store, id: str) -> bool:
    """End the session that has this id, or has replaced it; return whether one was ended.

    Raises:
        SessionConflict: it was given new ids faster than they could be followed.
        StoreUnavailable: the store failed; the session may live.
    """
    return store.delete(id) or any(map(store.delete, heirs(store, id)))


def has_live_heir(store: Store, id: str) -> bool:
    """Return whether the session that had this id lives on under another."""
    found = map(store.load, heirs(store, id))
    return any(stored is not None and stored.data != TOMBSTONE for stored in found)
