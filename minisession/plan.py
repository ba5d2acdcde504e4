"""What is done when: the table of the documentation, as pure functions.

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

`resave`, `rolling` and `save_uninitialized` each change one line of the table.
"""

from __future__ import annotations

import enum

from . import expiry
from .options import Options
from .visit import DESTROYED, LIVE, NEW, Visit

# What a session needs of the store.
Step = enum.Enum("Step", "NOTHING CREATE REPLACE REWRITE TOUCH TOUCH_FOR_COOKIE TOUCH_IF_DUE")
NOTHING, CREATE, REPLACE, REWRITE, TOUCH, TOUCH_FOR_COOKIE, TOUCH_IF_DUE = Step


def store(visit: Visit, options: Options, *, asked: bool) -> Step:
    """Return what to do with a session that is new or live; ``asked``: by `save`."""
    if visit.standing is NEW:
        wanted = asked, options.save_uninitialized, is_something(visit)
        return CREATE if any(wanted) else NOTHING
    if visit.max_age_set or (visit.lent and visit.changed()):
        return REPLACE
    if visit.rewrite or (options.resave and not visit.saved):
        return REWRITE
    if asked:
        return TOUCH
    owed = not visit.stored and (visit.send or options.rolling)
    return TOUCH_FOR_COOKIE if owed else TOUCH_IF_DUE


def is_something(visit: Visit) -> bool:
    """Return whether a new session is more than the empty one that each visitor has."""
    return bool(visit.data or visit.user is not None or visit.known)


def is_settled(visit: Visit, options: Options, now: float) -> bool:
    """Return whether a live session needs neither the store nor a cookie.

    It is true of most requests.  `store`, `is_sent` and the check whether a touch is due would give
    the same answer, in three times as many steps.
    """
    if visit.standing is not LIVE or visit.lent or visit.max_age_set or visit.rewrite:
        return False
    if visit.send or options.always:
        return False
    lifetime = visit.max_age or options.idle_timeout
    # As `expiry.deadline` has it, which is called where there is more to it.
    fresh = now + lifetime
    if options.absolute_timeout is not None:
        fresh = expiry.deadline(now, visit.created, lifetime, options.absolute_timeout)
    return not expiry.touch_is_due(visit.expires_at, fresh, lifetime)


def is_pending(visit: Visit) -> bool:
    """Return whether there is something to store that has not been."""
    if visit.standing is DESTROYED:
        return False
    if visit.standing is NEW:
        return is_something(visit)
    live = visit.standing is LIVE
    return (live and visit.max_age_set) or bool(visit.lent and visit.changed())


def is_sent(visit: Visit, options: Options) -> bool:
    """Return whether the browser gets a cookie, once the store has done its part."""
    # What was stored may have ended since.
    return visit.standing is LIVE and visit.stored and bool(visit.send or options.rolling)
