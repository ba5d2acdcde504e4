"""Times: which differences matter, and how they are shown."""

from __future__ import annotations

from datetime import datetime, timezone

# A touch that moves the expiry by less than this share of the lifetime is not worth a write.
TOUCH_WORTH = 0.01

# The first look touches where less than this share of the lifetime is left.
EARLY_TOUCH = 0.5

# Seconds by which the clocks of servers may differ without causing a write.
CLOCK_DIFFERENCE = 5.0

# 9999-12-31T23:59:59Z, the last second that dates on the wire can name.
_LAST = 253402300799.0


def moment(seconds: float) -> datetime:
    """Return Unix seconds as an aware UTC `datetime`, at most the last second of 9999."""
    return datetime.fromtimestamp(min(seconds, _LAST), timezone.utc)
