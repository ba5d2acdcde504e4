"""`Session`: what the app holds.  A mapping, and the verbs of express-session.

A session is loaded on first use, so that a request which never looks at it costs nothing.  What a
request knows of its session is a `Visit`; the verbs belong to the lifecycle, which alone calls the store.
"""

from __future__ import annotations

import enum
import hashlib
import threading
from collections.abc import Callable, Iterator, MutableMapping
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeVar

from .errors import SessionError
from .expiry import moment
from .wire.cookies import Cookie, check_seconds
from .wire.record import RESERVED, canonical, check, check_again, decode, fit, fit_names

T = TypeVar("T")
JSON = Any  # None, bool, int, float, str, and lists and str-keyed dicts of them: what `check` lets through


Status = Literal["open", "gone", "destroyed"]
"""Whether there is still a session to work on: gone is ended by somebody else, destroyed by this request."""

Phase = Literal["open", "streaming", "closed"]
"""How far the response is: headers can still be added; they are out, and the body is not; both are."""


class Unset(enum.Enum):
    """What an argument is that was not given, where None means something."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


AS_STORED = ""  # no value's text: it is found in the stored bytes, if somebody asks


class Replaced(NamedTuple):
    """A stored session whose id `regenerate` gave up, and whose record is still to be killed."""

    id: str
    seen: bytes
    keep: bool  # what others change in it meanwhile moves to the new id

    def __repr__(self) -> str:  # a tuple would show all it has, to logs and error trackers
        return f"<Replaced {handle_of(self.id)}>"


class Visit:
    """What one request knows of its session; plain values."""

    __slots__ = (
        *("environ", "cookie", "https", "carried", "status", "id", "seen", "expires_at", "data", "lent", "held"),
        *("max_age", "max_age_set", "created", "user", "old", "regenerated", "rewrite", "send", "stored"),
        *("transacting", "traced"),
    )

    def __init__(self, environ: dict[str, Any], cookie: Cookie, https: bool, now: float, traced: bool) -> None:
        self.environ = environ
        self.cookie = cookie  # as configured for this request
        self.https = https
        self.carried = False  # the request sent a cookie of our name, good or bad
        self.status: Status = "open"
        self.id = ""  # made when somebody asks
        self.seen = b""  # the stored bytes as last seen; empty: nothing is stored, or a tombstone
        self.expires_at = 0.0  # Unix seconds, of what is stored
        self.data: dict[str, JSON] = {}
        self.lent: dict[str, str | None] = {}  # key: its text before it could be changed; None: absent
        self.held: set[str] = set()  # keys of lists and dicts, which the app can change without a word to us
        self.max_age = cookie.max_age  # seconds
        self.max_age_set = False
        self.created = now
        self.user: str | None = None
        self.old: Replaced | None = None
        self.regenerated = False
        self.rewrite = False  # the record lacks something that it must have
        self.send = ""  # why the browser is owed a cookie...
        self.stored = False  # ...once this request has stored or touched the session
        self.transacting = False
        self.traced = traced  # at DEBUG

    def renew(self, data: dict[str, JSON]) -> None:
        """Take other data, of which the app holds nothing."""
        self.data, self.lent, self.held = data, {}, set()

    def lend(self, key: str) -> None:
        """Remember what ``key`` is, before it is changed or a changeable value leaves our hands."""
        if key not in self.lent:
            self.lent[key] = canonical(self.data[key]) if key in self.data else None

    def put(self, values: dict[str, JSON]) -> None:
        """Change the data."""
        data, lent = self.data, self.lent
        for key, value in values.items():
            if key not in lent:
                lent[key] = canonical(data[key]) if key in data else None
            if isinstance(value, (list, dict)):
                self.held.add(key)
        data.update(values)

    def changed(self) -> bool:
        """Tell whether the data differ from what they were when stored or loaded."""
        if self.held:
            self.check()
        stored: dict[str, JSON] | None = None
        for key, before in self.lent.items():
            if key not in self.data:
                if before is not None:
                    return True
                continue
            if before == AS_STORED:
                if not self.seen:  # it has ended, and with it what there was to compare with
                    continue
                stored = decode(self.seen).data if stored is None else stored
                before = canonical(stored[key])
            if canonical(self.data[key]) != before:
                return True
        return False

    def check(self) -> None:
        """Raise TypeError if a list or dict became, in the app's hands, what JSON does not hold."""
        for key in self.held:
            if key in self.data:
                check_again(key, self.data[key])

    def settle(self, data: bytes, expires_at: float) -> None:
        """Take what was just stored for what was seen."""
        self.lent = {key: AS_STORED for key in self.held if key in self.data}
        self.seen, self.expires_at, self.stored = data, expires_at, True


class _Verbs(Protocol):
    """What a session asks of `lifecycle.Lifecycle`, where each is described."""

    adopting: threading.Lock
    now: Callable[[], float]

    def open(self, environ: dict[str, Any]) -> Visit: ...
    def name_id(self, visit: Visit) -> str: ...
    def deadline(self, visit: Visit) -> float: ...
    def regenerate(self, visit: Visit, keep: bool, user: str | Unset | None) -> None: ...
    def destroy(self, visit: Visit) -> None: ...
    def save(self, visit: Visit) -> None: ...
    def reload(self, visit: Visit) -> None: ...
    def touch(self, visit: Visit) -> None: ...
    def transact(self, visit: Visit, run: Callable[[], T]) -> T: ...


def handle_of(id: str) -> str:
    """Return the first 16 hex digits of the id's SHA-256: safe to show and log, useless as a cookie."""
    return hashlib.sha256(id.encode()).hexdigest()[:16]


class Shown:
    """An id as logs show it, hashed only if the line is written."""

    __slots__ = ("_id",)

    def __init__(self, id: str) -> None:
        self._id = id

    def __str__(self) -> str:
        return handle_of(self._id)


def _check_item(key: Any, value: Any) -> None:
    """Raise what is wrong with them."""
    if not isinstance(key, str):
        raise TypeError(f"a session's keys are str, as JSON's are, not {type(key).__name__}: use str(key)")
    if key in RESERVED:
        raise ValueError(f"session[{key!r}] is reserved for the record's own members: use another key")
    check(key, key)
    check(key, value)


class SessionCookie:
    """A session's own lifetime, ``session.cookie``: what "remember me" changes.

    The other attributes of the cookie are the middleware's configuration.
    """

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def max_age(self) -> float | None:
        """Seconds left; None for a cookie that ends with the browser.

        Setting it (seconds, or None) changes the session's lifetime from now on, in the store and in
        the browser: the cookie is sent again.
        """
        visit, verbs = self._session._look(), self._session._verbs
        if visit.max_age is None:
            return None
        return max(0.0, verbs.deadline(visit) - verbs.now())

    @max_age.setter
    def max_age(self, seconds: float | None) -> None:
        if seconds is not None:
            check_seconds("session.cookie.max_age", seconds)
        visit = self._session._writable()
        self._session._before_headers("session.cookie.max_age changes the cookie")
        visit.max_age = seconds
        visit.max_age_set = True

    @property
    def expires(self) -> datetime | None:
        """When the browser drops the cookie, UTC; None for a cookie that ends with the browser."""
        visit = self._session._look()
        return None if visit.max_age is None else moment(self._session._verbs.deadline(visit))

    @property
    def original_max_age(self) -> float | None:
        """The whole lifetime in seconds, of which `max_age` is what is left."""
        return self._session._look().max_age

    def __repr__(self) -> str:
        return "<SessionCookie>"


class Session(MutableMapping[str, JSON]):
    """One visitor's session: a mapping that lasts between requests.

    Keys are str (``"cookie"`` and ``"minisession"`` are reserved), values what JSON holds.  Nested
    changes are noticed without a flag.  What was changed is stored when the response headers go out.
    """

    __slots__ = ("_environ", "_phase", "_verbs", "_visit")  # so that session.key = value is an error

    def __init__(self, verbs: _Verbs, environ: dict[str, Any]) -> None:
        self._verbs = verbs
        self._environ: dict[str, Any] | None = environ
        self._visit: Visit | None = None
        self._phase: Phase = "open"

    # The mapping

    def __getitem__(self, key: str) -> JSON:
        visit = self._visit or self._look()
        value = visit.data[key]
        if isinstance(value, (list, dict)):
            visit.lend(key)
            visit.held.add(key)
        return value

    def __setitem__(self, key: str, value: JSON) -> None:
        if not isinstance(key, str) or not key.isascii() or key in RESERVED or not fit((value,)):
            _check_item(key, value)
        self._writable().put({key: value})

    def update(self, other: Any = (), /, **more: JSON) -> None:
        """Set several keys, as dict's does; or none, if one of them is refused."""
        values: dict[str, JSON] = dict(other, **more)
        if not (fit_names(values) and RESERVED.isdisjoint(values) and fit(values.values())):
            for key, value in values.items():
                _check_item(key, value)
        self._writable().put(values)

    def __delitem__(self, key: str) -> None:
        visit = self._writable()
        if key not in visit.data:
            raise KeyError(key)
        visit.lend(key)
        del visit.data[key]

    def __contains__(self, key: object) -> bool:
        return key in self._look().data

    def __iter__(self) -> Iterator[str]:
        return iter(self._look().data)

    def __len__(self) -> int:
        return len(self._look().data)

    def clear(self) -> None:
        """Empty the data, and not the user.  To log out, `destroy` or `regenerate`."""
        visit = self._writable()
        for key in visit.data:
            visit.lend(key)
        visit.data.clear()

    # What it is

    @property
    def id(self) -> str:
        """The session's id: a secret.  A new session has one from the moment it is asked for."""
        visit = self._look()
        if not visit.id:
            self._before_headers("a new session's id can no longer reach the browser")
        return visit.id or self._verbs.name_id(visit)

    @property
    def handle(self) -> str:
        """16 hex digits that stand for the id, safe to show and log."""
        return handle_of(self.id)

    @property
    def is_new(self) -> bool:
        """No stored session stands behind it (yet)."""
        return not self._look().seen

    @property
    def user(self) -> str | None:
        """Whose session it is.  Set by `regenerate` alone: who gets a user gets a new id."""
        return self._look().user

    @property
    def created_at(self) -> datetime:
        """When it began, UTC; the absolute timeout counts from here."""
        return moment(self._look().created)

    @property
    def expires_at(self) -> datetime:
        """When it ends if nobody uses it again, UTC."""
        return moment(self._verbs.deadline(self._look()))

    @property
    def cookie(self) -> SessionCookie:
        """The session's own lifetime."""
        return SessionCookie(self)

    # The verbs

    def regenerate(self, *, keep: bool = False, user: str | Unset | None = UNSET) -> None:
        """Give the session a new id; call it whenever privileges change (log-in, log-out, sudo).

        An id that was planted or leaked before is worth nothing afterwards.  The new record is created,
        even if it is empty, and the old id killed when the response starts, or at `save`.

        Args:
            keep: keep the data, and the lifetime; otherwise the session is empty.
            user: whose session it is from here on, a non-empty str.  ``None`` makes it nobody's.  Left
                out, ``keep=True`` keeps the user, and ``keep=False`` drops it.

        Raises:
            SessionError: the response headers are out.
        """
        if not (user is UNSET or user is None or isinstance(user, str)):
            raise TypeError(f"user must be str or None, not {type(user).__name__}: use str(user.id)")
        if user == "":
            raise ValueError("user is empty: give the account's id, or None for nobody")
        if isinstance(user, str):
            check("user", user)
        visit = self._look()
        self._before_headers("regenerate() changes the cookie")
        self._verbs.regenerate(visit, keep, user)

    def destroy(self) -> None:
        """End the session: gone from the store now, its cookie removed by the response.

        No request in flight can bring it back.  Where one has just given it a new id, though, with
        ``regenerate(keep=True)``, only the old id ends: nothing leads from it to the new one, which
        `destroy_sessions_of` would find.

        Writing to it afterwards is a `SessionError`; `regenerate` then starts an empty session.
        """
        self._verbs.destroy(self._look())

    def save(self) -> None:
        """Store the session now rather than when the headers go out; unchanged, it is touched.

        Raises:
            SessionGone: it has ended meanwhile.
            SessionConflict, SessionTooLarge, StoreUnavailable: nothing was stored.
            SessionError: it is new, and the response headers are out.
        """
        visit = self._look()
        if not visit.seen and visit.status == "open":
            self._before_headers("a new session's cookie can no longer reach the browser")
        self._verbs.save(visit)

    def reload(self) -> None:
        """Drop this request's unsaved changes and load afresh.

        Raises:
            SessionGone: it has ended, or was never stored.
        """
        self._verbs.reload(self._look())

    def touch(self) -> None:
        """Start the session's lifetime anew in the store now; nothing for a session never stored.

        Raises:
            SessionGone: it has ended meanwhile.
        """
        self._verbs.touch(self._look())

    def transact(self, fn: Callable[[Session], T]) -> T:
        """Save what is pending, run ``fn(session)`` on fresh data and store the result, exactly once.

        Where another request got in between, ``fn`` runs again on what that one stored: a counter
        counts exactly.  ``fn`` should change the session's data and nothing else.

        Returns:
            What ``fn`` returned.

        Raises:
            SessionGone: the session has ended.
            SessionConflict: others won every one of about 32 tries.
            Exception: what ``fn`` raised; the session is then as it was.
        """
        visit = self._writable()
        return self._verbs.transact(visit, lambda: fn(self))

    # Inside

    def _look(self) -> Visit:
        """Return what this request knows of the session; the first look loads it."""
        if self._visit is None:
            if self._environ is None:
                raise SessionError("the response is complete, and this request never looked at its session")
            visit = self._verbs.open(self._environ)
            with self._verbs.adopting:  # threads that share a request share its session
                self._visit = self._visit or visit
        return self._visit

    def _writable(self) -> Visit:
        visit = self._visit or self._look()
        if self._phase == "closed":
            raise SessionError("the response is complete: change the session before the body ends")
        if visit.status == "destroyed":
            raise SessionError("this session was destroyed: call regenerate() to start an empty one")
        if self._phase != "open" and not visit.seen:
            self._before_headers("a session that is new now cannot reach the browser")
        return visit

    def _before_headers(self, why: str) -> None:
        if self._phase != "open":
            raise SessionError(f"the response headers are out, and {why}: do it before the first byte of the body")

    def _stored_ids(self) -> set[str]:
        """Return the ids that stand for this session: one, and the one that it replaces."""
        visit = self._look()
        return {visit.id} if visit.old is None else {visit.id, visit.old.id}

    def __repr__(self) -> str:
        visit = self._visit
        if visit is None:
            return "<Session, not looked at>"
        if visit.status != "open":
            return f"<Session, {visit.status}>"
        return f"<Session {handle_of(visit.id) if visit.seen else 'new'}>"
