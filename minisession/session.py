"""`Session`: what the app holds.  A mapping, and the verbs of express-session.

A session is loaded on first use, so that a request which never looks at it costs nothing.  The
verbs belong to the lifecycle, which alone calls the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from datetime import datetime
from types import EllipsisType
from typing import Any, TypeVar

from . import checks
from .exchange import Exchange
from .expiry import moment
from .journal import handle_of
from .visit import JSON, LIVE, NEW
from .wire.attributes import LONGEST_KEPT
from .wire.record import RESERVED
from .wire.values import check, fit, fit_names

T = TypeVar("T")


def _check_item(key: Any, value: Any) -> None:
    """Raise the error for a key or value that does not fit."""
    if not issubclass(type(key), str):
        raise TypeError(f"a session's keys are str, not {type(key).__name__}: use str(key)")
    if key in RESERVED:
        raise ValueError(f"session[{key!r}] is reserved for the record itself: use another key")
    check(key, key)
    check(key, value)


class SessionCookie:
    """A session's own lifetime, ``session.cookie``: what "remember me" changes.

    The other attributes of the cookie are the middleware's configuration.
    """

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @property
    def max_age(self) -> float | None:
        """Seconds left; None for a cookie that ends with the browser.

        Setting it (seconds, or None) changes the session's lifetime from now on, in the store and
        in the browser: the cookie is sent again.
        """
        visit, lifecycle = self._exchange.look(), self._exchange.lifecycle
        if visit.max_age is None:
            return None
        return max(0.0, lifecycle.expires_at(visit) - lifecycle.options.clock())

    @max_age.setter
    def max_age(self, seconds: float | None) -> None:
        if seconds is not None:
            checks.seconds("session.cookie.max_age", seconds)
            if seconds > LONGEST_KEPT:
                self._exchange.lifecycle.journal.once(
                    "session.cookie.max_age is over 400 days: give seconds, not milliseconds"
                )
        visit = self._exchange.writable()
        self._exchange.before_headers("session.cookie.max_age changes the cookie")
        visit.max_age = seconds
        visit.max_age_set = True

    @property
    def expires(self) -> datetime | None:
        """When the browser drops the cookie, UTC; None for a cookie that ends with the browser."""
        visit = self._exchange.look()
        return None if visit.max_age is None else moment(self._exchange.lifecycle.expires_at(visit))

    @property
    def original_max_age(self) -> float | None:
        """The whole lifetime in seconds, of which `max_age` is what is left."""
        return self._exchange.look().max_age


class Session(MutableMapping[str, JSON]):
    """One visitor's session: a mapping that lasts between requests.

    Keys are str (``"cookie"`` and ``"minisession"`` are reserved), values what JSON holds.  Nested
    changes are noticed by themselves.  What was changed is stored when the response headers go out.
    """

    # So that session.key = value is an error.
    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    # The mapping

    def __getitem__(self, key: str) -> JSON:
        visit = self._exchange.visit or self._exchange.look()
        value = visit.data[key]
        return visit.hand_out(key, value) if isinstance(value, (list, dict)) else value

    def __setitem__(self, key: str, value: JSON) -> None:
        if type(key) is not str or not key.isascii() or key in RESERVED or not fit((value,)):
            _check_item(key, value)
        self._exchange.writable().put({key: value})

    def update(self, other: Any = (), /, **more: JSON) -> None:
        """Set several keys, as dict's does; or none, if one of them is refused."""
        values: dict[str, JSON] = dict(other, **more)
        if not (fit_names(values) and RESERVED.isdisjoint(values) and fit(values.values())):
            for key, value in values.items():
                _check_item(key, value)
        self._exchange.writable().put(values)

    def __delitem__(self, key: str) -> None:
        self._exchange.writable().drop(key)

    def __contains__(self, key: object) -> bool:
        return key in self._exchange.look().data

    def __iter__(self) -> Iterator[str]:
        return iter(self._exchange.look().data)

    def __len__(self) -> int:
        return len(self._exchange.look().data)

    def clear(self) -> None:
        """Empty the data, and not the user.  To log out, `destroy` or `regenerate`."""
        visit = self._exchange.writable()
        for key in list(visit.data):
            visit.drop(key)

    # What it is

    @property
    def id(self) -> str:
        """The session's id: a secret.  A new session has one from the moment it is asked for."""
        visit = self._exchange.look()
        if not visit.id:
            self._exchange.before_headers("a new session's id can no longer reach the browser")
        return visit.id or self._exchange.lifecycle.shelf.name(visit)

    @property
    def handle(self) -> str:
        """16 hex digits that stand for the id, safe to show and log."""
        return handle_of(self.id)

    @property
    def is_new(self) -> bool:
        """No stored session stands behind it (yet)."""
        return self._exchange.look().standing is not LIVE

    @property
    def user(self) -> str | None:
        """Whose session it is.  Only `regenerate` sets it: a new user always means a new id."""
        return self._exchange.look().user

    @property
    def created_at(self) -> datetime:
        """When it began, UTC; the absolute timeout counts from here."""
        return moment(self._exchange.look().created)

    @property
    def expires_at(self) -> datetime:
        """When it ends if it is not used again, UTC."""
        return moment(self._exchange.lifecycle.expires_at(self._exchange.look()))

    @property
    def cookie(self) -> SessionCookie:
        """The session's own lifetime."""
        return SessionCookie(self._exchange)

    # The verbs

    def regenerate(self, *, keep: bool = False, user: str | EllipsisType | None = ...) -> None:
        """Give the session a new id; call it whenever privileges change (log-in, log-out, sudo).

        An id that was planted or leaked before is worth nothing afterwards.  The new record is
        created, even if it is empty, and the old id killed when the response starts, or at `save`.

        Args:
            keep: keep the data, and the lifetime; otherwise the session is empty.
            user: whose session it is from here on, a non-empty str.  ``None`` removes the
                user.  Left out, ``keep=True`` keeps the user, and ``keep=False`` drops it.

        Raises:
            SessionError: the response headers are out.
        """
        if not (user is ... or user is None or issubclass(type(user), str)):
            kind = type(user).__name__
            raise TypeError(f"user must be str or None, not {kind}: use str(user.id)")
        if user == "":
            raise ValueError("user is empty: give the account's id, or None for no user")
        if isinstance(user, str) and not fit((user,)):
            check("user", user)
        visit = self._exchange.asked("regenerate")
        self._exchange.before_headers("regenerate() changes the cookie")
        visit.regenerate(keep, user, self._exchange.lifecycle.options.clock())

    def destroy(self) -> None:
        """End the session: gone from the store now, its cookie removed by the response.

        No request in flight can bring it back.  Where one has just given it a new id, with
        ``regenerate(keep=True)``, the session under the new id ends as well, if this comes within
        15 seconds.

        Writing to it afterwards is a `SessionError`; `regenerate` then starts an empty session.

        Raises:
            SessionConflict: it was given new ids faster than they could be followed.
            StoreUnavailable: the session may live on; the response is a 503.
        """
        self._exchange.lifecycle.destroy(self._exchange.asked("destroy"))

    def save(self) -> None:
        """Store the session now rather than when the headers go out; unchanged, it is touched.

        Raises:
            SessionGone: it has ended meanwhile.
            SessionConflict, SessionTooLarge, StoreUnavailable: nothing was stored.
            SessionError: it is new, and the response headers are out.
        """
        visit = self._exchange.asked("save")
        if visit.standing is NEW:
            self._exchange.before_headers("a new session's cookie can no longer reach the browser")
        self._exchange.lifecycle.save(visit)

    def reload(self) -> None:
        """Drop this request's unsaved changes and load afresh.

        Raises:
            SessionGone: it has ended, or was never stored.
        """
        self._exchange.lifecycle.reload(self._exchange.asked("reload"))

    def touch(self) -> None:
        """Start the session's lifetime anew in the store now; nothing for a session never stored.

        Raises:
            SessionGone: it has ended meanwhile.
        """
        self._exchange.lifecycle.touch(self._exchange.asked("touch"))

    def transact(self, fn: Callable[[Session], T]) -> T:
        """Save what is pending, run ``fn(session)`` on fresh data, and store the result once.

        Where another request got in between, ``fn`` runs again on what that one stored: a counter
        counts exactly.  ``fn`` should change the session's data and nothing else.

        Returns:
            What ``fn`` returned.

        Raises:
            SessionGone: the session has ended.
            SessionConflict: others won every one of about 32 tries.
            Exception: what ``fn`` raised.

        After any of them, the session is as it was before the call.
        """
        visit = self._exchange.asked("transact")
        # What has ended is SessionGone to every verb.
        if visit.standing in (NEW, LIVE):
            self._exchange.writable()
        return self._exchange.lifecycle.transact(visit, lambda: fn(self))

    def __repr__(self) -> str:
        visit = self._exchange.visit
        if visit is None:
            return "<Session, not looked at>"
        if visit.standing in (NEW, LIVE):
            return f"<Session {handle_of(visit.id) if visit.standing is LIVE else 'new'}>"
        return f"<Session, {visit.standing.value}>"


def ids_of(session: Session) -> set[str]:
    """Return the ids that stand for a session: its own, and that of one which it replaces."""
    if not hasattr(session, "_exchange"):
        raise TypeError(f"keep must be a Session, not {type(session).__name__}")
    visit = session._exchange.look()
    # One that is new may have none yet.
    return {visit.id, visit.old.id if visit.old else ""} - {""}
