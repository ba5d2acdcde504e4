"""When a session ends.  Pure: Unix seconds in, Unix seconds out.

A session ends ``lifetime`` seconds after its last use (its own ``max_age``, or ``idle_timeout``),
and ``absolute`` seconds after it was created however busy it is, whichever comes first.
"""

from __future__ import annotations

from datetime import datetime, timezone

TOUCH_WORTH = 0.01
"""A touch that moves the expiry by less than this share of the lifetime is not worth a write."""

EARLY_TOUCH = 0.5
"""The first look touches where less than this share of the lifetime is left."""

CLOCK_DIFFERENCE = 5.0
"""Seconds by which the clocks of servers may differ without causing a write."""

# 9999-12-31T23:59:59Z, the last second that dates on the wire can name.
_LAST = 253402300799.0


def deadline(now: float, created: float, lifetime: float, absolute: float | None) -> float:
    """Return when a session used at ``now`` ends."""
    end = now + lifetime
    return end if absolute is None else min(end, created + absolute)


def touch_is_due(stored: float, fresh: float, lifetime: float) -> bool:
    """Return whether moving the expiry from ``stored`` to ``fresh`` is worth a write.

    Earlier counts like later, so that a shortened timeout reaches the sessions that exist, and a
    store without a limit (``inf``) gets one.
    """
    return abs(fresh - stored) >= TOUCH_WORTH * lifetime


def moment(seconds: float) -> datetime:
    """Return Unix seconds as an aware UTC `datetime`, at most the last second of 9999."""
    return datetime.fromtimestamp(min(seconds, _LAST), timezone.utc)
