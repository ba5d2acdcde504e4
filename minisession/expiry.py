"""When a session ends.  Pure: Unix seconds in, Unix seconds out.

A session ends ``lifetime`` seconds after its last use (its own ``max_age``, or ``idle_timeout``), and
``absolute`` seconds after it was created however busy it is, whichever comes first.
"""

from __future__ import annotations

from datetime import datetime, timezone

TOUCH_WORTH = 0.01  # of the lifetime: a touch that moves the expiry by less is not worth a write
_LAST = 253402300799.0  # 9999-12-31T23:59:59Z, the last second that dates on the wire can name


def deadline(now: float, created: float, lifetime: float, absolute: float | None) -> float:
    """Return when a session used at ``now`` ends."""
    end = now + lifetime
    return end if absolute is None else min(end, created + absolute)


def touch_is_due(stored: float, fresh: float, lifetime: float) -> bool:
    """Tell whether moving the expiry from ``stored`` to ``fresh`` is worth a write.

    Earlier counts like later, so that a shortened timeout reaches the sessions that exist, and a
    store without a limit (``inf``) gets one.
    """
    return abs(fresh - stored) >= TOUCH_WORTH * lifetime


def moment(seconds: float) -> datetime:
    """Return Unix seconds as an aware UTC `datetime`; what is past the year 9999 is its last second."""
    return datetime.fromtimestamp(min(seconds, _LAST), timezone.utc)
