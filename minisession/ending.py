"""Ending an id, and the session that has replaced it with it: a logout must not lose a race.

A session that is given a new id with ``keep`` leaves a tombstone that knows its heir.  A logout
that arrives with the old id follows the heirs to the end of the chain, and ends what lives there.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from .errors import SessionConflict
from .journal import handle_of
from .stores.base import TOMBSTONE, Store, Stored

MAX_LINKS = 32
"""Heirs that are followed before it is a conflict."""

Belongs = Callable[[Stored | None], bool]


def end(
    store: Store,
    id: str,
    *,
    spared: Container[str] = (),
    belongs: Belongs | None = None,
    followed: set[str] | None = None,
    most: int = MAX_LINKS,
) -> bool:
    """End the session that has this id, or has replaced it; return whether one was ended.

    Args:
        store: where it is.
        id: what it is or was known by.
        spared: ids that are left alone, as heirs too.
        belongs: says of what an heir's id stands for whether it is to be ended; by default it is.
        followed: gets the ids that were followed, from which nothing else is to be ended.
        most: heirs that are followed.

    Raises:
        SessionConflict: it was given new ids faster than they could be followed.
        StoreUnavailable: the store failed; the session may live.
    """
    if id in spared:
        return False
    if store.delete(id):
        return True
    first, ended, links = id, True, 0
    while links <= most:
        # Heirs are followed by the quickest call there is, since the session may be moving on.
        heir = store.heir(id)
        if heir is not None:
            if followed is not None:
                followed.add(id)
            id, ended, links = heir, False, links + 1
            continue
        if ended or id in spared:
            return False
        if belongs is not None and not belongs(store.load(id)):
            return False
        if store.delete(id):
            return True
        # It has been given another new id since, or has ended: its heir tells which.
        ended = True
    handle = handle_of(first)
    raise SessionConflict(f"session {handle} was given {most} new ids while it was being ended")


def has_live_heir(store: Store, id: str) -> bool:
    """Return whether the session that had this id lives on under another."""
    for _ in range(MAX_LINKS):
        if (heir := store.heir(id)) is None or (stored := store.load(heir)) is None:
            return False
        if stored.data != TOMBSTONE:
            return True
        id = heir
    raise SessionConflict(f"session {handle_of(id)} was given {MAX_LINKS} new ids in a row")
