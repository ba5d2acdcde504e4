"""When a session ends."""

from __future__ import annotations

from math import inf

import pytest

from minisession.expiry import deadline, moment, touch_is_due


@pytest.mark.parametrize(
    ("now", "created", "lifetime", "absolute", "end"),
    [(1000, 0, 60, None, 1060), (1000, 0, 60, 1030, 1030), (1000, 990, 60, 1030, 1060)],
)
def test_a_session_ends_at_the_earlier_of_idle_and_absolute(
    now: float, created: float, lifetime: float, absolute: float | None, end: float
) -> None:
    """Activity moves the first and never the second."""
    assert deadline(now, created, lifetime, absolute) == end


@pytest.mark.parametrize(
    ("stored", "fresh", "due"),
    [(1000, 1000.9, False), (1000, 1001, True), (1000, 900, True), (inf, 1000, True), (1000, 1000, False)],
)
def test_a_touch_is_due_where_it_moves_the_expiry_by_one_percent(stored: float, fresh: float, due: bool) -> None:
    """Less is not worth a write; a shortened lifetime, and a record without an end, are."""
    assert touch_is_due(stored, fresh, 100) is due


def test_a_moment_is_in_utc_and_never_overflows() -> None:
    """`datetime` ends with the year 9999, a lifetime may not."""
    assert moment(0).isoformat() == "1970-01-01T00:00:00+00:00"
    assert moment(inf).year == 9999
