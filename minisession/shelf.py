"""The store as a place for sessions: each call is one try, in the terms of a `Visit`.

Nothing is changed that was not seen: a record is replaced, touched or rotated only while its bytes
are those that this request saw.  Where they are not, the answer is False, and `catch_up` reads
again and merges.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NoReturn

from . import plan
from .errors import SessionGone, SessionTooLarge
from .journal import Journal, handle_of
from .merge import merge
from .options import Options
from .stores.base import TOMBSTONE, Store, Stored
from .visit import GONE, IS_NEW, NEW, Replaced, Visit
from .wire import cookies, record
from .wire.record import Record
from .wire.signing import MAX_ID, Signer
from .wire.values import SURROGATE

# Verified cookies of one request that the store is asked about.
MAX_LOADS = 3

# Verified cookies that are remembered, the latest ones.
REMEMBERED = 4096

# Characters; longer cookies are rare, or not ours.
LONGEST_REMEMBERED = 512


class Shelf:
    """The sessions of one store, under one configuration."""

    def __init__(self, store: Store, signer: Signer, options: Options, journal: Journal) -> None:
        self.store, self._signer, self._options, self._journal = store, signer, options, journal
        self._now, self._strict = options.clock, options.absolute_timeout is not None
        # Visitors send the same text again and again, and looking up the result takes a tenth of
        # the time.  An attacker who can read this memory can read the secret as well; and the store
        # is asked every time whether the session lives.
        self._recall = lru_cache(REMEMBERED)(self._verified)

    # Reading

    def open(self, visit: Visit, header: object) -> None:
        """Load the first of a ``Cookie`` header's verified cookies that the store knows."""
        name, journal = self._options.name, self._journal
        values = cookies.read(header, name) if isinstance(header, str) else []
        visit.carried = bool(values)
        if not values:
            journal.debug("new session: the request has no cookie %s", name)
        elif len(values) > 1:
            # A sibling domain has set one, or Path or Domain were different once.
            journal.info("duplicate: %d cookies %s; the first good one counts", len(values), name)
        asked: list[str] = []
        for value in values:
            verify = self._recall if len(value) <= LONGEST_REMEMBERED else self._verified
            if (verified := verify(value)) is None:
                journal.debug("cookie ignored: its signature does not verify")
                continue
            id, current = verified
            if id in asked or len(asked) == MAX_LOADS:
                continue
            asked.append(id)
            if (found := self.read(visit, id)) is not None:
                stored, kept = found
                visit.data = kept.data
                visit.live(id, stored, kept, self._now(), self._strict)
                if not current:
                    visit.send = "was signed by an older secret"
                journal.full("session %s loaded", id=id)
                return
        if visit.known:
            visit.end(GONE, visit.id)
            journal.debug("session %s ended a moment ago: this request has none", id=visit.id)

    def _verified(self, value: str) -> tuple[str, bool] | None:
        """Return `Signer.verify` of a cookie as the browser sent it."""
        return self._signer.verify(cookies.decode(value))

    def read(self, visit: Visit, id: str) -> tuple[Stored, Record] | None:
        """Return what is stored of a live session; None if it has ended, or is not ours."""
        stored = self.store.load(id)
        if stored is None:
            self._journal.debug("session %s is not in the store", id=id)
            return None
        data, options = stored.data, self._options
        if data == TOMBSTONE:
            # Of several that have ended, the first counts, as of those that live.
            if not visit.known:
                visit.id, visit.known = id, True
            return None
        if len(data) > options.max_bytes:
            self._journal.warning(
                "session %s not loaded: its record has %d bytes, max_bytes is %d",
                len(data),
                options.max_bytes,
                id=id,
            )
            return None
        try:
            found = record.decode(data, visit.frame.usual)
        except ValueError as error:
            why = type(error).__name__ if type(error) is not ValueError else error
            self._journal.warning(
                "session %s not loaded: its record is not a session (%s)", why, id=id
            )
            return None
        absolute = options.absolute_timeout
        if absolute is not None and found.created and found.created + absolute <= self._now():
            self._journal.debug("session %s is over its absolute timeout", id=id)
            return None
        return stored, found

    def catch_up(self, visit: Visit) -> None:
        """Read a live session again, and merge what other requests have changed.

        Raises:
            SessionGone: it has ended.
        """
        stored, theirs = self.read(visit, visit.id) or self.gone(visit, visit.id)
        self._merge(visit, visit.seen, theirs)
        visit.live(visit.id, stored, theirs, self._now(), self._strict)

    def reload(self, visit: Visit) -> None:
        """Read a live session again, and drop what this request has changed.

        Raises:
            SessionGone: it has ended.
        """
        stored, found = self.read(visit, visit.id) or self.gone(visit, visit.id)
        visit.adopt(found.data)
        visit.max_age_set = False
        # After the data: what interrupts this must not leave as seen what was not.
        visit.live(visit.id, stored, found, self._now(), self._strict)

    def look_behind(self, visit: Visit, old: Replaced) -> bool:
        """Read the session that a new one replaces, and merge what others changed if it is kept.

        False: it has ended.
        """
        found = self.read(visit, old.id)
        if found is None:
            return False
        stored, theirs = found
        if stored.data != old.seen:
            if old.keep:
                self._merge(visit, old.seen, theirs)
            visit.old = old._replace(seen=stored.data)
        return True

    def _merge(self, visit: Visit, seen: bytes, theirs: Record) -> None:
        # What is not fit cannot be compared.
        visit.check()
        visit.adopt(merge(record.decode(seen).data, dict(visit.data), theirs.data))
        if not visit.max_age_set:
            visit.max_age = theirs.max_age

    # Writing: one try each

    def write(self, visit: Visit) -> bool:
        """Store a live session, or a new one, in the place of the one that it replaces, if any.

        False: a record has changed or ended, or the new session's id is taken.
        """
        is_new, old, user = visit.standing is NEW, visit.old, visit.user
        id, ends = visit.id or self.name(visit), self._deadline(visit)
        kept = Record(visit.data, visit.max_age, visit.created, user)
        data = record.encode(kept, visit.frame, ends)
        if len(data) > self._options.max_bytes:
            raise SessionTooLarge(
                f"the session's record would have {len(data)} bytes and max_bytes is"
                f" {self._options.max_bytes}: keep ids in it and the bulk elsewhere"
            )
        if not is_new:
            stored = self.store.replace(id, visit.seen, data, ends, user)
        elif old is None:
            stored = self.store.create(id, data, ends, user)
        else:
            stored = self.store.rotate(old.id, old.seen, id, data, ends, user, inherits=old.keep)
        if not stored:
            return False
        visit.settle(data, ends, is_new)
        for key in record.EXPRESS_DROPS.intersection(visit.data):
            self._journal.once(
                f"session[{key!r}] is stored, but express-session deletes that key as it loads:"
                " use another one if Express shares the sessions"
            )
        if not is_new:
            self._journal.full("session %s stored", id=id)
        else:
            tell = self._journal.debug if visit.send == IS_NEW else self._journal.full
            tell("session %s created", id=id)
        return True

    def touch(self, visit: Visit) -> bool:
        """Begin a live session's lifetime anew; False: its record has changed or ended."""
        expires_at = self._deadline(visit)
        if not self.store.touch(visit.id, visit.seen, expires_at, visit.user):
            return False
        visit.expires_at = expires_at
        self._journal.full("session %s touched", id=visit.id)
        return True

    # Small things

    def _deadline(self, visit: Visit) -> float:
        """Return when a session that is used now ends.

        Raises:
            SessionGone: the absolute timeout has come meanwhile.
        """
        now = self._now()
        end = plan.deadline(visit, self._options, now)
        if end <= now:
            # What was never stored has not ended, but what it replaces has.
            self.gone(visit, visit.old.id if visit.old else visit.id)
        return end

    def gone(self, visit: Visit, id: str) -> NoReturn:
        """Raise SessionGone: another request has ended the session, or it has expired."""
        visit.end(GONE, id)
        raise SessionGone(f"session {handle_of(id)} ended while this request held it")

    def name(self, visit: Visit) -> str:
        """Give a new session its id."""
        made = self._options.genid(visit.environ)
        if not issubclass(type(made), str):
            raise TypeError(f"genid must return str, not {type(made).__name__}")
        # The text of a subclass may be another than the one that is stored, as an enum's is.
        id = str.__str__(made)
        if not 1 <= len(id) <= MAX_ID:
            raise ValueError(f"genid returned {len(id)} characters; an id has 1 to {MAX_ID}")
        if not id.isascii() and SURROGATE.search(id):
            raise ValueError("genid returned text that does not encode as UTF-8")
        # Too long for a browser is too late once the record is stored.
        cookies.check_fits(self._options.name, id)
        visit.id = id
        return id
