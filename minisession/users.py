"""A user's sessions: "your devices", and "log out everywhere".

They are shown and named by their handles, never by their ids, which are as good as passwords.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from .expiry import moment
from .session import JSON, Session, handle_of
from .stores.base import ListingStore, Stored
from .wire import record

MAX_SWEEPS = 8  # of one `destroy_sessions_of`; each ends what the one before had overlooked

log = logging.getLogger("minisession")


@dataclass(frozen=True)
class SessionView:
    """A stored session as it may be shown to its user, or to an operator.

    Attributes:
        handle: what stands for its id; `destroy_session` takes it.
        user: whose it is; None for nobody's.
        created_at: when it began, UTC; None where express-session wrote the record.
        expires_at: when it ends if nobody uses it again, UTC.
        data: a copy of what it holds; left out of the repr.
        size: bytes that its record takes in the store.
    """

    handle: str
    user: str | None
    created_at: datetime | None
    expires_at: datetime
    data: dict[str, JSON] = field(repr=False)
    size: int


def view(id: str, stored: Stored | None) -> SessionView | None:
    """Return what can be shown of a stored session; None if it has ended, or is not a session."""
    if stored is None or not stored.data:
        return None
    try:
        found = record.decode(stored.data)
    except ValueError as error:
        log.warning("session %s not listed: its record is not a session (%s)", handle_of(id), error)
        return None
    created_at = None if found.created is None else moment(found.created)
    return SessionView(handle_of(id), found.user, created_at, moment(stored.expires_at), found.data, len(stored.data))


def sessions_of(store: ListingStore, user: str) -> Iterator[SessionView]:
    """Yield the user's live sessions; one that begins or ends meanwhile may or may not be among them.

    Sessions that an Express app made are the user's from the first ``regenerate(user=…)`` here.

    Raises:
        StoreUnavailable: the store failed.
    """
    _check(store, user)
    views = (view(id, store.load(id)) for id in store.ids(user))
    return (found for found in views if found is not None)


def destroy_session(store: ListingStore, user: str, handle: str) -> bool:
    """End the one session of this user that has this handle; False if there is none.

    It is looked for among the user's own, so that nobody ends another's by guessing.

    Raises:
        StoreUnavailable: the store failed.
    """
    _check(store, user)
    return any(store.delete(id) for id in store.ids(user) if handle_of(id) == handle)


def destroy_sessions_of(store: ListingStore, user: str, *, keep: Session | None = None) -> int:
    """End every session of the user, or every other one; return how many.

    Call it when a password changes.  The sessions are gone when it returns, and no request in flight
    brings one back; one that was given a new id meanwhile is found by the next of up to 8 sweeps.

    Args:
        store: the store that the middleware has.
        user: as given to ``regenerate(user=…)``.
        keep: the session that goes on: the one in which the user asked for this.

    Raises:
        StoreUnavailable: the store failed; some of the sessions may live on.  Call it again.
    """
    _check(store, user)
    kept = keep._stored_ids() if keep is not None else set()
    destroyed = 0
    for _ in range(MAX_SWEEPS):
        found = False
        for id in store.ids(user):
            if id not in kept:
                found = True
                destroyed += store.delete(id)
        if not found:
            break
    return destroyed


def _check(store: ListingStore, user: str) -> None:
    if not hasattr(store, "ids"):
        raise TypeError(f"{type(store).__name__} does not list sessions: it has no ids(); see ListingStore")
    if not isinstance(user, str):
        raise TypeError(f"user must be str, not {type(user).__name__}: what regenerate(user=…) was given")
    if not user:
        raise ValueError("user is empty: nobody's sessions are not listed")
