"""A user's sessions: "your devices", and "log out everywhere".

They are shown and named by their handles, never by their ids, which are as good as passwords.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from .ending import heirs
from .errors import SessionConflict
from .expiry import moment
from .journal import handle_of, log
from .session import Session, ids_of
from .stores.base import TOMBSTONE, ListingStore, Store, Stored
from .visit import JSON
from .wire import record

# Of one `destroy_sessions_of`; each ends what the previous one could not see.
MAX_SWEEPS = 32

# New ids of one session that a sweep follows, in case a thief asks for them without pause.
#
# With as few as `MAX_LINKS`, three such thieves on Redis keep a call busy for seconds.
MOST_LINKS = 1024


@dataclass(frozen=True)
class SessionView:
    """A stored session as it may be shown to its user, or to an operator.

    Attributes:
        handle: what stands for its id; `destroy_session` takes it.
        user: whose it is; None for a session without a user.
        created_at: when it began, UTC; None where express-session wrote the record.
        expires_at: when it ends if it is not used again, UTC.
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
    expires_at, size = moment(stored.expires_at), len(stored.data)
    return SessionView(handle_of(id), found.user, created_at, expires_at, found.data, size)


def sessions_of(store: ListingStore, user: str) -> Iterator[SessionView]:
    """Yield the user's live sessions; one that begins or ends meanwhile may be among them.

    Sessions that an Express app made are the user's from the first ``regenerate(user=…)`` here.

    Raises:
        StoreUnavailable: the store failed.
    """
    _check(store, user)
    views = (view(id, store.load(id)) for id in store.ids(user))
    return (found for found in views if found is not None and not _is_anothers(found, user))


def destroy_session(store: ListingStore, user: str, handle: str) -> bool:
    """End the session of this user that has this handle; True only if it is logged out now.

    It is looked for among the user's own, so that no one ends another's by guessing.  Where it is
    given a new id meanwhile, it ends under that.  Where it was given one since its handle was
    listed, nothing is found: list again.

    Raises:
        StoreUnavailable, SessionConflict: the session may live on.  Call it again.
    """
    _check(store, user)
    ids = (id for id in store.ids(user) if handle_of(id) == handle)
    theirs = (id for id in ids if not _is_anothers(view(id, store.load(id)), user))
    return any(_end(store, user, id, heirs(store, id)) for id in theirs)


def destroy_sessions_of(store: ListingStore, user: str, *, keep: Session | None = None) -> int:
    """End every session of the user, or every other one; return how many.

    Call it when a password changes.  When it returns, every session that the user had when it was
    called is gone, even if it was given a new id meanwhile, and no request in flight brings one
    back.

    Args:
        store: the store that the middleware has.
        user: as given to ``regenerate(user=…)``.
        keep: the session that goes on: the one in which the user asked for this.

    Raises:
        StoreUnavailable: the store failed; some of the sessions may live on.  Call it again.
        SessionConflict: sessions began, or were given new ids, faster than 32 sweeps could end
            them.
    """
    _check(store, user)
    kept = set() if keep is None else ids_of(keep)
    # Where the store has lost the user's list, and so what else it held, it looks at all sessions.
    whose = user if _are_listed(store, user, kept) else None
    destroyed = 0
    for _ in range(MAX_SWEEPS):
        found, followed = False, set[str]()
        for id in store.ids(whose):
            if id in kept:
                # What another request has made of it is not kept.  The next sweep meets that.
                found |= store.heir(id) is not None
            elif id not in followed and (whose or _is_of(user, store.load(id))):
                found = True
                # A session that moves on too fast is met again, under a younger id.
                with suppress(SessionConflict):
                    destroyed += _end(store, user, id, heirs(store, id, MOST_LINKS, followed), kept)
        if not found:
            return destroyed
    raise SessionConflict(f"sessions began or got new ids in all {MAX_SWEEPS} sweeps: call again")


def _end(store: Store, user: str, id: str, chain: Iterator[str], kept: Container[str] = ()) -> bool:
    """End the user's session that has this id, or by now one of the chain's."""
    return store.delete(id) or any(
        heir not in kept and _is_of(user, store.load(heir)) and store.delete(heir) for heir in chain
    )


def _is_of(user: str, stored: Stored | None) -> bool:
    """Return whether a record is the user's, or a tombstone, whose heir may be."""
    if stored is None or stored.data == TOMBSTONE:
        return stored is not None
    with suppress(ValueError):
        return record.decode(stored.data).user == user
    return False


def _is_anothers(found: SessionView | None, user: str) -> bool:
    """Return whether a session that was listed has another user by now; Redis' lists lag behind."""
    return found is not None and found.user not in (user, None)


def _are_listed(store: ListingStore, user: str, ids: set[str]) -> bool:
    """Return whether the user's list has those of these ids that are live sessions of the user."""
    missing = ids.difference(store.ids(user)) if ids else ids
    found = filter(None, (view(id, store.load(id)) for id in missing))
    return user not in [session.user for session in found]


def _check(store: ListingStore, user: str) -> None:
    if not hasattr(store, "ids"):
        kind = type(store).__name__
        raise TypeError(f"{kind} does not list sessions: pass the store, a ListingStore")
    if not isinstance(user, str):
        raise TypeError(f"user must be str, not {type(user).__name__}: use str(user.id)")
    if not user:
        raise ValueError("user is empty: sessions without a user are not listed")
