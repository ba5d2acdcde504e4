"""What is done when: the table of the documentation, as two pure functions.

=============================  ===================================  ==============================
the request's session          the store                            ``Set-Cookie``
=============================  ===================================  ==============================
new, without data              nothing                              none
new, with data                 created                              sent
new id for a stored session    rotated                              sent
changed                        replaced                             sent if its lifetime moves
unchanged                      touched, where that is due           none
destroyed                      (deleted at the call)                removed
gone                           nothing                              none
=============================  ===================================  ==============================

`resave`, `rolling` and `save_uninitialized` each change one line of it.
"""

from __future__ import annotations

import enum

from .options import Options
from .visit import DESTROYED, LIVE, NEW, Visit


class Step(enum.Enum):
    """What a session needs of the store."""

    NOTHING = enum.auto()
    CREATE = enum.auto()
    REPLACE = enum.auto()
    REWRITE = enum.auto()
    TOUCH = enum.auto()
    TOUCH_IF_DUE = enum.auto()


NOTHING, CREATE, REPLACE, REWRITE, TOUCH, TOUCH_IF_DUE = Step


class Send(enum.Enum):
    """What a response tells the browser of its cookie."""

    NOTHING = enum.auto()
    COOKIE = enum.auto()
    REMOVAL = enum.auto()


def store(visit: Visit, options: Options, *, asked: bool) -> Step:
    """Return what to do with a session that is new or live; ``asked``: by `save`."""
    if visit.standing is NEW:
        wanted = asked or visit.data or visit.user is not None or options.save_uninitialized
        return CREATE if wanted or visit.known else NOTHING
    if visit.max_age_set or (visit.lent and visit.changed()):
        return REPLACE
    if visit.rewrite or (options.resave and not visit.stored):
        return REWRITE
    return TOUCH if asked else TOUCH_IF_DUE


def is_pending(visit: Visit) -> bool:
    """Return whether there is something to store that has not been."""
    if visit.standing is DESTROYED:
        return False
    if visit.standing is NEW and visit.renewed:
        return True
    live = visit.standing is LIVE
    return (live and visit.max_age_set) or bool(visit.lent and visit.changed())


NO_COOKIE, COOKIE, REMOVAL = Send


def send(visit: Visit, options: Options) -> Send:
    """Return what to tell the browser, once the store has done its part."""
    if visit.standing is DESTROYED:
        return REMOVAL if visit.carried else NO_COOKIE
    # What was stored may have ended since.
    owed = visit.standing is LIVE and visit.stored and (visit.send or options.rolling)
    return COOKIE if owed else NO_COOKIE
