"""Every store call of a request: open a session, carry out its verbs, commit it.

The protocol is one sentence: nothing is changed that was not seen.  A record is replaced, touched or
killed only while its bytes are the ones this request saw; where they are not, the record is read again
and the changes are merged, and where it is gone, it stays gone.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from . import expiry
from .errors import SessionConflict, SessionError, SessionGone, SessionTooLarge, StoreUnavailable
from .limited import Limited
from .merge import merge
from .session import UNSET, Replaced, Shown, Unset, Visit, handle_of
from .stores.base import TOMBSTONE, Store, Stored
from .wire import cookies, record
from .wire.cookies import Cookie
from .wire.record import Record
from .wire.signing import MAX_ID, Signer

T = TypeVar("T")

TOMBSTONE_LIFE = 15  # seconds: longer than requests that were under way when the id was replaced
MAX_LOADS = 3  # verified cookies of one request that the store is asked about
MAX_TRIES = 32  # lost compare-and-sets in a row before it is a conflict
MAX_IDS = 8  # taken ids in a row before genid is at fault
NEW = "is new"
STARTS_ANEW = "has a max_age, which starts anew"

log = logging.getLogger("minisession")


def new_id(environ: dict[str, Any]) -> str:
    """Return 24 bytes from the system's random generator, base64url: 32 characters, as express' uid."""
    return secrets.token_urlsafe(24)


class Lifecycle:
    """The life of sessions under one configuration; shared by all requests, and keeps nothing of them."""

    def __init__(
        self,
        *,
        store: Store,
        signer: Signer,
        name: str,
        cookie: Cookie | Callable[[dict[str, Any]], Cookie],
        genid: Callable[[dict[str, Any]], str],
        proxy: bool,
        resave: bool,
        save_uninitialized: bool,
        rolling: bool,
        idle_timeout: float,
        absolute_timeout: float | None,
        max_bytes: int,
        clock: Callable[[], float],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.store, self.signer, self.name, self.cookie = store, signer, name, cookie
        self.genid, self.proxy, self.resave = genid, proxy, resave
        self.save_uninitialized, self.rolling = save_uninitialized, rolling
        self.idle_timeout, self.absolute_timeout, self.max_bytes = idle_timeout, absolute_timeout, max_bytes
        self.now, self._sleep = clock, sleep
        self.always = resave or save_uninitialized or rolling
        self._in_process = getattr(store, "in_process", False)
        self.adopting = threading.Lock()
        self._said: set[str] = set()
        self.tell = Limited(log)  # for what anybody can cause; what live sessions do is logged in full

    # Opening

    def open(self, environ: dict[str, Any]) -> Visit:
        """Find the request's session: the first of its verified cookies that the store knows."""
        cookie = self.cookie if isinstance(self.cookie, Cookie) else self._configured(self.cookie, environ)
        https = environ.get("wsgi.url_scheme") == "https" or (self.proxy and _forwarded_https(environ))
        visit = Visit(environ, cookie, https, self.now(), log.isEnabledFor(logging.DEBUG))
        if environ.get("wsgi.multiprocess") and self._in_process:
            self._warn_once(
                f"the server runs several processes and {type(self.store).__name__} keeps sessions in one:"
                " visitors will seem logged out at random; use a store that the processes share"
            )
        header = environ.get("HTTP_COOKIE")
        values = cookies.read(header, self.name) if isinstance(header, str) else []
        if not values:
            if visit.traced:
                self.tell(logging.DEBUG, "new session: the request has no cookie %s", self.name)
            return visit
        visit.carried = True
        if len(values) > 1:  # a sibling domain's doing, or a Path or Domain that was another once
            self.tell(logging.INFO, "duplicate: %d cookies %s; the first good one counts", len(values), self.name)
        asked: list[str] = []
        buried = None
        for value in values:
            verified = self.signer.verify(value)
            if verified is None:
                self.tell(logging.DEBUG, "cookie ignored: its signature does not verify")
                continue
            id, current = verified
            if id in asked:
                continue
            asked.append(id)
            stored = self.store.load(id)
            found = self._read(visit, id, stored)
            if stored is not None and found is not None:
                visit.id = id
                self._take(visit, stored, found)
                if not current:
                    visit.send = "was signed by an older secret"
                if visit.traced:
                    _debug("session %s loaded", id)
                return visit
            if stored is not None and stored.data == TOMBSTONE:
                buried = id
            if len(asked) == MAX_LOADS:
                break
        if buried is not None:
            visit.id, visit.status = buried, "gone"
            self.tell(logging.DEBUG, "session %s ended a moment ago: this request has none", Shown(buried))
        return visit

    def _read(self, visit: Visit, id: str, stored: Stored | None) -> Record | None:
        """Return a live session's record; None for what is absent, ended or not ours."""
        if stored is None:
            self.tell(logging.DEBUG, "session %s is not in the store", Shown(id))
            return None
        if stored.data == TOMBSTONE:
            return None
        if len(stored.data) > self.max_bytes:
            self.tell(
                logging.WARNING, "session %s not loaded: its record has %d bytes, max_bytes is %d",
                Shown(id), len(stored.data), self.max_bytes,
            )  # fmt: skip
            return None
        try:
            found = record.decode(stored.data, record.beginning(visit.cookie, visit.https))
        except ValueError as error:
            why = type(error).__name__ if type(error) is not ValueError else error
            self.tell(logging.WARNING, "session %s not loaded: its record is not a session (%s)", Shown(id), why)
            return None
        if self.absolute_timeout and found.created and found.created + self.absolute_timeout <= self.now():
            self.tell(logging.DEBUG, "session %s is over its absolute timeout", Shown(id))
            return None
        return found

    def _take(self, visit: Visit, stored: Stored, found: Record) -> None:
        """Make ``visit`` what the store says."""
        visit.seen, visit.expires_at = stored
        visit.renew(found.data)
        visit.max_age, visit.max_age_set, visit.user = found.max_age, False, found.user
        self._take_created(visit, found.created)

    def _take_created(self, visit: Visit, created: float | None) -> None:
        if created is None:  # express wrote the record; the absolute timeout needs a start to count from
            visit.rewrite = self.absolute_timeout is not None
        else:
            now = self.now()
            visit.created = min(created, now)  # a time to come would lengthen its life, at every look anew
            visit.rewrite = created > now and self.absolute_timeout is not None

    # The verbs

    def regenerate(self, visit: Visit, keep: bool, user: str | Unset | None) -> None:
        """Make ``visit`` a new session; `_create` stores it and buries the old one."""
        self._not_in_transaction(visit, "regenerate")
        keep = keep and visit.status == "open"  # of what has ended there is nothing to keep
        if visit.status != "open":
            visit.old = None
        elif visit.seen:
            visit.old = Replaced(visit.id, visit.seen, keep)
        elif visit.old is not None:
            visit.old = visit.old._replace(keep=visit.old.keep and keep)
        if not keep:
            visit.renew({})
            visit.max_age = visit.cookie.max_age
        if not keep or isinstance(user, str):
            visit.created = self.now()
        if user is not UNSET:
            visit.user = user
        elif not keep:
            visit.user = None
        visit.id, visit.seen = "", b""
        visit.lent, visit.max_age_set, visit.rewrite = {}, False, False
        visit.status, visit.regenerated = "open", True

    def destroy(self, visit: Visit) -> None:
        """Delete the session from the store now."""
        self._not_in_transaction(visit, "destroy")
        if visit.seen:
            self.store.delete(visit.id)
            _debug("session %s destroyed", visit.id)
        if visit.old is not None:
            self.store.delete(visit.old.id)
            _debug("session %s destroyed", visit.old.id)
        visit.status, visit.seen, visit.old, visit.user = "destroyed", b"", None, None
        visit.regenerated, visit.send = False, ""
        visit.renew({})

    def save(self, visit: Visit) -> None:
        """Store what there is now."""
        self._not_in_transaction(visit, "save")
        self._must_be_open(visit)
        self._store(visit, asked=True)

    def reload(self, visit: Visit) -> None:
        """Take what the store has now."""
        self._not_in_transaction(visit, "reload")
        self._reload(visit)

    def touch(self, visit: Visit) -> None:
        """Start the lifetime anew in the store."""
        self._not_in_transaction(visit, "touch")
        self._must_be_open(visit)
        if visit.seen:
            self._touch(visit)

    def transact(self, visit: Visit, run: Callable[[], T]) -> T:
        """Run ``run`` on fresh data until what it leaves is stored before anybody else stores."""
        self._not_in_transaction(visit, "transact")
        self._must_be_open(visit)
        self._store(visit, asked=False)
        for lost in range(MAX_TRIES):
            if lost:
                self._reload(visit)  # without what the last run changed
            elif visit.seen:
                self._catch_up(visit)  # in place: the app may hold values of the session's
            before = record.encode(visit, visit.cookie, visit.https, 0)
            visit.transacting = True
            try:
                result = run()
            except BaseException:
                found = record.decode(before)
                visit.renew(found.data)
                visit.max_age, visit.max_age_set = found.max_age, False
                raise
            finally:
                visit.transacting = False
            if not visit.seen:  # nobody else knows its id
                self._store(visit, asked=False)
                return result
            if not (visit.changed() or visit.max_age_set):
                return result
            if self._replaced(visit):
                if visit.max_age is not None:
                    visit.send = visit.send or STARTS_ANEW
                return result
            self._pause(lost)
        raise _conflict(visit)

    def deadline(self, visit: Visit) -> float:
        """Return when the session ends if nobody uses it again."""
        if not visit.seen or visit.max_age_set or visit.expires_at == float("inf"):
            return expiry.deadline(self.now(), visit.created, self._lifetime(visit), self.absolute_timeout)
        return visit.expires_at

    def name_id(self, visit: Visit) -> str:
        """Give a new session its id."""
        id = self.genid(visit.environ)
        if not isinstance(id, str):
            raise TypeError(f"genid must return str, not {type(id).__name__}")
        if not 1 <= len(id) <= MAX_ID:
            raise ValueError(f"genid returned {len(id)} characters; an id has 1 to {MAX_ID}")
        try:
            id.encode()
        except UnicodeEncodeError:
            raise ValueError("genid returned text that does not encode as UTF-8") from None
        if len(self.name) + 12 * len(id) > cookies.MAX_PAIR // 2:  # else it fits, whatever it encodes to
            cookies.pair(self.name, f"s:{id}.{'+' * 43}")  # too long is too late once the record is stored
        visit.id = id
        return id

    # Committing

    def commit(self, visit: Visit) -> str | None:
        """Store what is to be stored; return the ``Set-Cookie`` that the response owes the browser.

        Raises:
            StoreUnavailable, SessionConflict, SessionTooLarge, TypeError: nothing more was stored.
        """
        if visit.status == "destroyed":
            what = "removed: destroyed" if visit.carried else "not sent: destroyed, and there was none"
            self.tell(logging.DEBUG, "cookie %s", what)
            return cookies.remove(self.name, visit.cookie, visit.https) if visit.carried else None
        try:
            if visit.status != "open":
                self._must_be_open(visit)
            self._store(visit, asked=False)
        except SessionGone as gone:
            if visit.regenerated or visit.lent:
                self.tell(logging.WARNING, "changes not stored, and no cookie sent: %s", gone)
                visit.lent, visit.regenerated = {}, False
            return None
        if visit.stored and (visit.send or self.rolling):
            return self._announced(visit)
        if visit.seen:
            if visit.traced:
                _debug("cookie of session %s not sent: the browser has it already", visit.id)
        else:
            self.tell(logging.DEBUG, "cookie not sent: the session is new and empty")
        return None

    def _announced(self, visit: Visit) -> str:
        if visit.cookie.secure is True and not visit.https:
            self._warn_once(
                "a Secure cookie went out over plain http, where browsers keep it for localhost at most:"
                ' serve over TLS, or use Cookie(secure="auto")'
            )
        if visit.traced:
            self._log(visit, logging.DEBUG, "cookie sent: session %s %s", visit.send or "is rolling")
        until = None if visit.max_age is None else visit.expires_at
        return cookies.write(self.name, self.signer.sign(visit.id), visit.cookie, visit.https, self.now(), until)

    def commit_late(self, visit: Visit) -> None:
        """Store what changed after the headers; nothing that a cookie would have had to announce."""
        if not (visit.changed() or visit.regenerated or (visit.max_age_set and visit.seen)):
            return
        self._must_be_open(visit)
        if not visit.seen or visit.regenerated:
            raise SessionError("the headers went out without the new session's cookie")
        self._replace(visit)

    def _store(self, visit: Visit, *, asked: bool) -> None:
        """Create, replace or touch: the table "what is done when" of the documentation."""
        if not visit.seen:
            if visit.regenerated or visit.data or asked or self.save_uninitialized:
                self._create(visit)
        elif visit.changed() or visit.max_age_set:
            self._replace(visit)
            if visit.max_age is not None:
                visit.send = visit.send or STARTS_ANEW
        elif visit.rewrite or (self.resave and not visit.stored):
            self._store_unchanged(visit)
        elif asked:
            self._touch(visit)
        else:
            self._touch_if_due(visit)

    def _store_unchanged(self, visit: Visit) -> None:
        """Store what nobody changed, and fail nobody for its size: written here, it may be a little longer."""
        try:
            self._replace(visit)
        except SessionTooLarge as error:
            self.tell(logging.WARNING, "session %s not stored anew: %s", Shown(visit.id), error)
            self._touch_if_due(visit)

    def _create(self, visit: Visit) -> None:
        visit.check()
        for _ in range(MAX_IDS):
            id = visit.id or self.name_id(visit)
            data, expires_at = self._encoded(visit)
            if self.store.create(id, data, expires_at, visit.user):
                break
            visit.id = ""
        else:
            raise SessionError(f"genid returned {MAX_IDS} ids in a row that are taken: make it random")
        self._stored(visit, data, expires_at)
        if visit.old is not None:
            try:
                self._bury(visit)
            except BaseException:
                visit.seen, visit.stored = b"", False
                try:
                    self.store.delete(id)
                except StoreUnavailable:
                    self.tell(logging.WARNING, "session %s is left over in the store until it expires", Shown(id))
                raise
        visit.send, visit.regenerated = "has a new id" if visit.regenerated else NEW, False
        if visit.traced:
            self._log(visit, logging.DEBUG, "session %s created")

    def _bury(self, visit: Visit) -> None:
        """Kill the id that a new one replaces, so that nothing in flight can bring it back."""
        for lost in range(MAX_TRIES):
            old = visit.old
            if old is None:
                return
            if self.store.replace(old.id, old.seen, TOMBSTONE, self.now() + TOMBSTONE_LIFE):
                visit.old = None
                return
            stored = self.store.load(old.id)
            if stored is None or stored.data == TOMBSTONE:  # somebody ended it first
                visit.old = None
                if old.keep:
                    self._gone(visit, old.id)
                return
            theirs = self._read(visit, old.id, stored) if old.keep else None
            if theirs is not None:
                self._merge(visit, old.seen, theirs)
                if not self._replaced(visit):
                    self._gone(visit, visit.id)
            visit.old = old._replace(seen=stored.data, keep=theirs is not None)
            self._pause(lost)
        raise _conflict(visit)

    def _replace(self, visit: Visit) -> None:
        for lost in range(MAX_TRIES):
            if self._replaced(visit):
                return
            self._catch_up(visit)
            self._pause(lost)
        raise _conflict(visit)

    def _replaced(self, visit: Visit) -> bool:
        """Try once."""
        data, expires_at = self._encoded(visit)
        if not self.store.replace(visit.id, visit.seen, data, expires_at, visit.user):
            return False
        self._stored(visit, data, expires_at)
        if visit.traced:
            _debug("session %s stored", visit.id)
        return True

    def _stored(self, visit: Visit, data: bytes, expires_at: float) -> None:
        if visit.max_age_set:
            visit.send = visit.send or "has another max_age"
        visit.settle(data, expires_at)
        visit.max_age_set = visit.rewrite = False
        if not record.EXPRESS_DROPS.isdisjoint(visit.data):
            for key in record.EXPRESS_DROPS & visit.data.keys():
                self._warn_once(f"session[{key!r}] is stored, but express-session deletes that key as it loads")

    def _touch(self, visit: Visit) -> None:
        for lost in range(MAX_TRIES):
            fresh = self._alive(visit)
            if self.store.touch(visit.id, visit.seen, fresh, visit.user):
                self._touched(visit, fresh)
                return
            self._catch_up(visit)
            self._pause(lost)
        raise _conflict(visit)

    def _touch_if_due(self, visit: Visit) -> None:
        """Touch as a courtesy: a failure is logged, and the response goes out without a cookie."""
        owed = not visit.stored and (visit.send or self.rolling)
        fresh = self._alive(visit)
        if not owed and not expiry.touch_is_due(visit.expires_at, fresh, self._lifetime(visit)):
            if visit.traced:
                _debug("session %s not stored: unchanged", visit.id)
            return
        try:
            if owed:
                self._touch(visit)
            elif self.store.touch(visit.id, visit.seen, fresh, visit.user):
                self._touched(visit, fresh)
            else:
                _debug("session %s not touched: another request has just stored or ended it", visit.id)
        except (StoreUnavailable, SessionConflict) as error:
            self.tell(logging.WARNING, "session %s not touched: %s", Shown(visit.id), error)

    def _touched(self, visit: Visit, expires_at: float) -> None:
        visit.expires_at, visit.stored = expires_at, True
        _debug("session %s touched", visit.id)

    def _catch_up(self, visit: Visit) -> None:
        """Read again what somebody else has changed, and merge."""
        stored = self.store.load(visit.id)
        theirs = self._read(visit, visit.id, stored)
        if stored is None or theirs is None:
            self._gone(visit, visit.id)
        self._merge(visit, visit.seen, theirs)
        visit.seen, visit.expires_at = stored
        visit.user = theirs.user
        self._take_created(visit, theirs.created)

    def _merge(self, visit: Visit, seen: bytes, theirs: Record) -> None:
        base = record.decode(seen)
        merged = merge(base.data, visit.data, theirs.data)
        visit.lent = {k: record.canonical(theirs.data[k]) if k in theirs.data else None for k in visit.lent}
        visit.data.clear()
        visit.data.update(merged)
        if not visit.max_age_set and visit.max_age == base.max_age:
            visit.max_age = theirs.max_age

    def _reload(self, visit: Visit) -> None:
        self._must_be_open(visit)
        if not visit.seen:
            raise SessionGone("this session was never stored: there is nothing to reload")
        stored = self.store.load(visit.id)
        found = self._read(visit, visit.id, stored)
        if stored is None or found is None:
            self._gone(visit, visit.id)
        self._take(visit, stored, found)

    # Small things

    def _gone(self, visit: Visit, id: str) -> NoReturn:
        visit.status, visit.seen = "gone", b""
        raise SessionGone(f"session {handle_of(id)} ended while this request held it")

    def _must_be_open(self, visit: Visit) -> None:
        if visit.status == "destroyed":
            raise SessionGone("this session was destroyed: call regenerate() to start an empty one")
        if visit.status == "gone":
            raise SessionGone(f"session {handle_of(visit.id)} has ended: call regenerate() to start an empty one")

    def _not_in_transaction(self, visit: Visit, verb: str) -> None:
        if visit.transacting:
            raise SessionError(f"{verb}() inside transact(): change the session's data there, and nothing else")

    def _encoded(self, visit: Visit) -> tuple[bytes, float]:
        expires_at = self._alive(visit)
        data = record.encode(visit, visit.cookie, visit.https, expires_at)
        if len(data) > self.max_bytes:
            raise SessionTooLarge(
                f"the session's record would have {len(data)} bytes and max_bytes is {self.max_bytes}:"
                " keep ids in it and the bulk elsewhere"
            )
        return data, expires_at

    def _lifetime(self, visit: Visit) -> float:
        return self.idle_timeout if visit.max_age is None else visit.max_age

    def _alive(self, visit: Visit) -> float:
        """Return the deadline that a use now gives; the absolute timeout may have come meanwhile."""
        now = self.now()
        fresh = expiry.deadline(now, visit.created, self._lifetime(visit), self.absolute_timeout)
        if fresh <= now:
            self._gone(visit, visit.id)
        return fresh

    def _pause(self, lost: int) -> None:
        """Wait before the next try, after the first one that was lost; jitter keeps rivals from meeting again."""
        if lost:
            self._sleep(random.uniform(0, min(0.05, 0.001 * 2**lost)))  # noqa: S311  # a pause is no secret

    def _configured(self, make: Callable[[dict[str, Any]], Cookie], environ: dict[str, Any]) -> Cookie:
        cookie = make(environ)
        if not isinstance(cookie, Cookie):
            raise TypeError(f"cookie(environ) must return a Cookie, not {type(cookie).__name__}")
        cookie.check_name(self.name)
        return cookie

    def _log(self, visit: Visit, level: int, message: str, *args: object) -> None:
        """Log a line about ``visit``: in full, or with bounds, as new sessions can be had by the thousand."""
        (self.tell if visit.send == NEW else log.log)(level, message, handle_of(visit.id), *args)

    def _warn_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            log.warning(message)


def _debug(message: str, id: str) -> None:
    """Log what a live session does; where DEBUG is off, the id is not even hashed."""
    if log.isEnabledFor(logging.DEBUG):
        log.debug(message, handle_of(id), stacklevel=2)


def _forwarded_https(environ: dict[str, Any]) -> bool:
    """Tell whether the first proxy says that the client came over https."""
    return str(environ.get("HTTP_X_FORWARDED_PROTO", "")).partition(",")[0].strip().lower() == "https"


def _conflict(visit: Visit) -> SessionConflict:
    return SessionConflict(f"session {handle_of(visit.id)} was changed by others {MAX_TRIES} times in a row")
