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

from .expiry import TOUCH_WORTH
from .options import Options
from .visit import DESTROYED, LIVE, NEW, Visit

# What a session needs of the store.
Step = enum.Enum("Step", "NOTHING UNCHANGED CREATE REPLACE REWRITE TOUCH TOUCH_ONCE")
NOTHING, UNCHANGED, CREATE, REPLACE, REWRITE, TOUCH, TOUCH_ONCE = Step


def store(visit: Visit, options: Options, now: float, *, asked: bool = False) -> Step:
    """Return what to do with a session that is new or live; ``asked``: by `save`."""
    if visit.standing is NEW:
        wanted = asked, options.save_uninitialized, is_something(visit)
        return CREATE if any(wanted) else NOTHING
    if (visit.lent or visit.max_age_set) and visit.changed():
        return REPLACE
    if visit.rewrite or (options.resave and not visit.saved):
        return REWRITE
    # A cookie is sent again only if the session was touched.
    if asked or (not visit.stored and (visit.send or options.rolling)):
        return TOUCH
    return TOUCH_ONCE if is_touch_due(visit, options, now) else UNCHANGED


def is_settled(visit: Visit, options: Options, now: float) -> bool:
    """Return whether a session that was not lent needs neither the store nor a cookie.

    Most requests' are live, and do not.  `store` and `is_sent` would give the same answer, in twice
    as many steps.
    """
    if visit.standing is not LIVE or visit.max_age_set or visit.rewrite:
        return False
    return not (visit.send or options.always or is_touch_due(visit, options, now))


def is_touch_due(visit: Visit, options: Options, now: float) -> bool:
    """Return whether moving the expiry of a live session is worth a write, or cannot be.

    Earlier counts like later, so that a shortened timeout reaches the sessions that exist, and a
    store without a limit (``inf``) gets one.
    """
    lifetime, absolute = visit.max_age or options.idle_timeout, options.absolute_timeout
    fresh = now + lifetime if absolute is None else deadline(visit, options, now)
    moves = abs(fresh - visit.expires_at) >= lifetime * TOUCH_WORTH
    return fresh <= now or (moves and not visit.untouchable)


def deadline(visit: Visit, options: Options, now: float) -> float:
    """Return when a session that is used now ends, in Unix seconds.

    That is a lifetime later: its own ``max_age``, or `idle_timeout`.  But it never outlives the
    `absolute_timeout`, which counts from its beginning.
    """
    end, absolute = now + (visit.max_age or options.idle_timeout), options.absolute_timeout
    return end if absolute is None else min(end, visit.created + absolute)


def is_something(visit: Visit) -> bool:
    """Return whether a new session is more than the empty one that each visitor has."""
    return bool(visit.data or visit.user is not None or visit.known)


def is_pending(visit: Visit) -> bool:
    """Return whether there is something to store that has not been."""
    if visit.standing is NEW:
        return is_something(visit)
    return visit.standing is not DESTROYED and visit.changed()


def is_sent(visit: Visit, options: Options) -> bool:
    """Return whether the browser gets a cookie, once the store has done its part."""
    # What was stored may have ended since.
    return visit.standing is LIVE and visit.stored and (visit.send != "" or options.rolling)
