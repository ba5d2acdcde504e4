"""What one request knows of its session: a small state machine of plain values.

::

                                       create, rotate
    no cookie, or it opens nothing ──► NEW ──────────► LIVE ◄── a record was loaded
                                        ▲ │             │ │
                                        │ └─ outrun ──┐ │ │
                 regenerate() ──────────┤             ▼ ▼ │
                                        ├─────────── GONE ◄── a tombstone was loaded
                                        │                 │
                                        └── DESTROYED ◄───┴── destroy(), from anywhere

=========== ================================ ========================== =====================
standing    ``id``                           ``seen``                   ``old``
=========== ================================ ========================== =====================
NEW         made when it is asked for        empty                      what `regenerate` left
LIVE        the session's                    the record, byte by byte   None
GONE        the dead one                     empty                      None
DESTROYED   the dead one                     empty                      None
=========== ================================ ========================== =====================

The data are in ``data``.  A list or dict that the app holds can change without our knowing, so its
text is noted before it is handed out (``lent``), and compared when the session is stored.
"""

from __future__ import annotations

import enum
import json
from collections import Counter
from collections.abc import Callable, Mapping
from types import EllipsisType
from typing import Any, NamedTuple

from . import expiry
from .merge import containers, fill, refill
from .wire.record import Frame, Record, decode
from .wire.values import check_again, fit, text

# None, bool, int, float, str, and lists and str-keyed dicts of them.
JSON = Any


class Standing(enum.Enum):
    """Where a request's session stands; the module draws what leads from one to the next."""

    NEW = "new"
    LIVE = "live"
    GONE = "gone"
    DESTROYED = "destroyed"


NEW, LIVE, GONE, DESTROYED = Standing


# No value's text: it is found in the stored bytes, if anyone asks.
_AS_STORED = ""
_ABSENT: Any = object()

# Why the cookie is sent of a session that anyone can start by the thousand.
IS_NEW = "is new"


class Replaced(NamedTuple):
    """A stored session whose id `regenerate` gave up.

    Attributes:
        id: the old id.
        seen: its record; empty where it was known to have ended already.
        keep: whether what other requests change in it meanwhile moves to the new id.
        user: the argument ``user`` of `regenerate`.
    """

    id: str
    seen: bytes
    keep: bool
    user: str | EllipsisType | None

    # A tuple's repr would show all of it to logs and error trackers.
    def __repr__(self) -> str:
        return "<Replaced>"


class Visit:
    """One request's knowledge of its session; see the module for what its parts mean together."""

    # What most requests never change stands here once, instead of in each of them.

    standing = NEW
    id = ""
    seen = b""
    # Unix seconds, of what is stored.
    expires_at = 0.0
    # The request sent a cookie of our name, good or bad.
    carried = False
    # A stored session, or its tombstone, stood behind this request: its successor is stored even if
    # empty.
    known = False
    old: Replaced | None = None
    # `regenerate` has begun this session.
    renewed = False
    user: str | None = None
    max_age_set = False
    # The record lacks something that it must have.
    rewrite = False
    # Why the browser is owed a cookie, once this request has stored or touched the session.
    send = ""
    # This request has stored or touched it; has stored it.
    stored = False
    saved = False
    # An optional touch was refused or failed, and is not tried again for the same bytes.
    untouchable = False
    transacting = False

    def __init__(self, environ: dict[str, Any], frame: Frame, now: float) -> None:
        self.environ = environ
        # As configured for this request.
        self.frame = frame
        self.data: dict[str, JSON] = {}
        # By key: its text before it could be changed; None, where it was absent.
        self.lent: dict[str, str | None] = {}
        # By key: the list or dict that the app has in its hands, assigned or handed out.
        self.held: dict[str, JSON] = {}
        # By id(): the lists and dicts that we made and the app has in its hands, nested ones too.
        self.own: dict[int, JSON] = {}
        # Seconds.
        self.max_age = frame.max_age
        self.created = now

    # Handing out and changing

    def hand_out(self, key: str, value: JSON) -> JSON:
        """Return a key's value, a list or dict, and remember that it leaves our hands."""
        if self.held.get(key) is not value:
            self.lend(key)
            self.held[key] = value
            self._own([value])
        return value

    def put(self, values: dict[str, JSON]) -> None:
        """Change the data."""
        data, lent, held = self.data, self.lent, self.held
        for key, value in values.items():
            # As `lend` does.
            if key not in lent:
                lent[key] = text(data[key]) if key in data else None
            if isinstance(value, (list, dict)):
                if data.get(key) is not value:
                    # The app's own from now on, even if it once came from us.
                    self.own.pop(id(value), None)
                held[key] = value
            elif held:
                held.pop(key, None)
        data.update(values)

    def drop(self, key: str) -> None:
        """Delete a key.

        Raises:
            KeyError: it is not there.
        """
        self.lend(key)
        self.held.pop(key, None)
        del self.data[key]

    def lend(self, key: str) -> None:
        """Remember what ``key`` is, before it is changed or can be."""
        if key not in self.lent:
            self.lent[key] = text(self.data[key]) if key in self.data else None

    def changed(self) -> bool:
        """Return whether the data or the lifetime differ from what was stored or loaded.

        Raises:
            TypeError: a list or dict holds by now what JSON does not.
        """
        if self.held:
            self.check()
        # A copy, as elsewhere: another thread of this request may be changing the session.
        as_stored = _AS_STORED in self.lent.values()
        for key, before in (self._noted() if as_stored else dict(self.lent)).items():
            value = self.data.get(key, _ABSENT)
            if (None if value is _ABSENT else text(value)) != before:
                return True
        return self.max_age_set

    def _noted(self) -> dict[str, str | None]:
        """Return a copy of ``lent``, with the texts of what is as stored."""
        lent = dict(self.lent)
        if _AS_STORED in lent.values():
            stored = decode(self.seen).data if self.seen else {}
            for key in [key for key, before in lent.items() if before == _AS_STORED]:
                lent[key] = text(stored[key]) if key in stored else None
        return lent

    def check(self) -> None:
        """Raise TypeError if a list or dict in the app's hands is no longer fit for JSON."""
        for key in list(self.held):
            check_again(key, self.data.get(key))

    # Taking what the store has

    def live(
        self, id: str, stored: tuple[bytes, float], found: Record, now: float, strict: bool
    ) -> None:
        """Stand for a stored record; ``strict``: it must say when the session began.

        Its data are taken before, as what interrupts this must not leave as seen what was not.
        """
        self.standing, self.id = LIVE, id
        self.known, self.untouchable = True, False
        self.seen, self.expires_at = stored
        _, max_age, created, self.user = found
        if not self.max_age_set:
            self.max_age = max_age
        # The absolute timeout needs a start to count from, which Express does not write.  One in
        # the future would lengthen the session's life, anew at every look.
        self.rewrite = strict and (created is None or created > now + expiry.CLOCK_DIFFERENCE)
        if created is not None:
            self.created = created if created < now else now

    def settle(self, data: bytes, expires_at: float, is_new: bool) -> None:
        """Count what was just stored as what was seen."""
        if is_new:
            if self.send != IS_NEW:
                self.send = "has a new id" if self.renewed else IS_NEW
        elif self.max_age_set:
            self.send = self.send or "has another max_age"
        elif self.max_age is not None:
            self.send = self.send or "has a max_age, which starts anew"
        self.standing, self.seen, self.expires_at, self.old = LIVE, data, expires_at, None
        self.stored = self.saved = self.known = True
        self.max_age_set = self.rewrite = self.untouchable = self.renewed = False
        # Not emptied: another thread may have changed a key since the record was written.
        self.lent.update(dict.fromkeys([*self.lent, *self.held], _AS_STORED))

    def end(self, standing: Standing, id: str) -> None:
        """Stand for a session that has ended."""
        # The record is let go, and what is changed from here on still has to be noticed.
        self.lent = self._noted()
        self.standing, self.id, self.seen, self.old = standing, id, b"", None

    def regenerate(self, keep: bool, user: str | EllipsisType | None, now: float) -> None:
        """Be a new session, which replaces what this was when it is stored."""
        if self.standing in (LIVE, GONE):
            self.old = Replaced(self.id, self.seen, keep, user)
        elif self.old is not None:
            # A logout stays one, whoever logs in after it.
            last = self.old.user if user is ... or self.old.user is None else user
            self.old = self.old._replace(keep=self.old.keep and keep, user=last)
        # A session that has ended has nothing to keep.
        keep = keep and self.standing in (LIVE, NEW)
        # First: what interrupts the rest must not leave the old id with another user, or no data.
        self.standing, self.id, self.seen = NEW, "", b""
        self.lent, self.rewrite, self.renewed = {}, False, True
        if not keep:
            self.empty()
            self.max_age, self.max_age_set = self.frame.max_age, False
        if not keep or isinstance(user, str):
            self.created = now
        if not isinstance(user, EllipsisType):
            self.user = user
        elif not keep:
            self.user = None

    def empty(self) -> None:
        """Forget the data; the lists and dicts in the app's hands are no longer the session's."""
        self.data, self.lent, self.held, self.own = {}, {}, {}, {}

    def adopt(self, data: dict[str, JSON], present: Mapping[str, JSON] | None = None) -> None:
        """Make the data these, in place where the app holds a list or dict that we made.

        Never into an object that the app assigned, such as a constant of a module, or that stands
        in two places: another then takes its place.  ``present`` is what the data are if they are
        not to be looked at.
        """
        present = self.data if present is None else present
        # What the app holds may not be in the data any more, as others deleted the key.
        handles = [value for key, value in list(self.held.items()) if present.get(key) is not value]
        met = Counter(id(value) for value in containers([*present.values(), *handles]))
        own = {key: value for key, value in self.own.items() if met[key] == 1}
        for key, held in list(self.held.items()):
            if key not in data or data[key] is held:
                continue
            # What is the same already need not be written.
            if fit((held,)) and text(held) == text(data[key]):
                data[key] = held
                continue
            data[key] = fill(held, data[key], own)
            if data[key] is held:
                self._own([held])
            else:
                del self.held[key]
        # At once: what interrupts this leaves the session with data.
        self.data = data
        self.lent = dict.fromkeys([*self.lent, *self.held], _AS_STORED)

    def snapshot(self) -> Callable[[], None]:
        """Return a function that returns to what is now.

        Objects that the app had assigned, and changed since, stay changed.  What was handed out
        since stays the session's own.
        """
        copied = text(self.data)
        held, lent, own = dict(self.held), self._noted(), dict(self.own)
        seen, max_age, max_age_set = self.seen, self.max_age, self.max_age_set
        # Not of what was taken out of the session before, which is the app's alone by now.
        ours = {id(value): value for value in containers(held.values()) if id(value) in own}
        contents = [(value, value.copy()) for value in ours.values()]

        def restore() -> None:
            # First: what interrupts the rest leaves nothing to store of what was done since.
            self.data = data = json.loads(copied)
            # What has been taken out of another, or put elsewhere, is back in its place.
            for value, was in contents:
                refill(value, was)
            since = {key: value for key, value in list(self.held.items()) if id(value) in self.own}
            self.held, self.own = {**since, **held}, {**self.own, **own}
            # An object that has been put in two places since is back in one.
            self.adopt(data, present={})
            if self.standing is LIVE:
                # Or what others have stored since would count as seen.
                self.seen = seen or self.seen
            new = [key for key in since if key in data and key not in lent]
            self.lent = {**lent, **{key: text(self.data[key]) for key in new}}
            self.max_age, self.max_age_set = max_age, max_age_set

        return restore

    def _own(self, values: list[JSON]) -> None:
        self.own.update((id(value), value) for value in containers(values))
