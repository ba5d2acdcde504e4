"""How times are shown."""

from __future__ import annotations

from math import inf

from minisession.expiry import moment


def test_a_moment_is_in_utc_and_never_overflows() -> None:
    """`datetime` ends with the year 9999, a lifetime may not."""
    assert moment(0).isoformat() == "1970-01-01T00:00:00+00:00"
    assert moment(inf).year == 9999
