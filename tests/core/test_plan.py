"""What is done when: the table, line by line."""

from __future__ import annotations

from itertools import product
from math import inf

import pytest

from minisession import Cookie, plan
from minisession.options import Options
from minisession.visit import NEW, Standing, Visit
from minisession.wire import record

NOW = 1_000_000.0


def visit(**what: object) -> Visit:
    """Return what a request knows of its session; by default that it lives, and was not changed."""
    made = Visit({}, record.frame(Cookie(), True), NOW - 50)
    made.live("id", (b"{}", NOW + 100), record.Record({}, None, NOW - 50, None), NOW, False)
    for name, value in what.items():
        setattr(made, name, value)
    return made


def options(**what: object) -> Options:
    return Options(**{"idle_timeout": 100, **what})  # type: ignore[arg-type]  # the values are of any type


CHANGED = {"data": {"key": 2}, "lent": {"key": "1"}}
LOOKED_AT = {"data": {"key": 1}, "lent": {"key": "1"}}
FRESH = {"standing": NEW, "known": False}


@pytest.mark.parametrize(
    ("what", "configured", "step", "asked"),
    [
        (FRESH, {}, "NOTHING", "CREATE"),
        (FRESH, {"save_uninitialized": True}, "CREATE", "CREATE"),
        (FRESH, {"resave": True, "rolling": True}, "NOTHING", "CREATE"),
        ({**FRESH, "data": {"key": 1}}, {}, "CREATE", "CREATE"),
        ({**FRESH, "user": "ada"}, {}, "CREATE", "CREATE"),
        ({**FRESH, "known": True}, {}, "CREATE", "CREATE"),
        ({**FRESH, "max_age_set": True}, {}, "NOTHING", "CREATE"),
        ({}, {}, "UNCHANGED", "TOUCH"),
        (LOOKED_AT, {}, "UNCHANGED", "TOUCH"),
        (CHANGED, {}, "REPLACE", "REPLACE"),
        ({"max_age_set": True}, {}, "REPLACE", "REPLACE"),
        ({"rewrite": True}, {}, "REWRITE", "REWRITE"),
        ({}, {"resave": True}, "REWRITE", "REWRITE"),
        ({"saved": True, "stored": True}, {"resave": True}, "UNCHANGED", "TOUCH"),
        ({}, {"rolling": True}, "TOUCH", "TOUCH"),
        ({"send": "was signed by an older secret"}, {}, "TOUCH", "TOUCH"),
        ({"send": "has a new id", "stored": True}, {}, "UNCHANGED", "TOUCH"),
        ({"expires_at": NOW + 90}, {}, "TOUCH_ONCE", "TOUCH"),
    ],
)
def test_what_the_store_is_asked_for(
    what: dict[str, object], configured: dict[str, object], step: str, asked: str
) -> None:
    """``asked``: where the app has called `save`."""
    assert plan.store(visit(**what), options(**configured), NOW).name == step
    assert plan.store(visit(**what), options(**configured), NOW, asked=True).name == asked


@pytest.mark.parametrize("option", ["", "resave", "rolling", "save_uninitialized", "absolute_timeout"])
def test_the_short_way_ends_where_the_table_does(option: str) -> None:
    """For every combination of what can be: a session that is settled is not stored, touched or sent."""
    kept = options(**({option: 60 if option == "absolute_timeout" else True} if option else {}))
    settled = set[int]()
    flags = list(product((False, True), repeat=6))
    for standing, ends, (lent, set_, rewrite, sent, stored, untouchable) in product(Standing, (10, 99, 100), flags):
        one = visit(
            standing=standing, expires_at=NOW + ends, max_age_set=set_, rewrite=rewrite, stored=stored,
            untouchable=untouchable, send="is new" if sent else "", **(CHANGED if lent else {}),
        )  # fmt: skip
        if not one.lent and plan.is_settled(one, kept, NOW):
            settled.add(ends)
            assert plan.store(one, kept, NOW) is plan.UNCHANGED
            assert not plan.is_sent(one, kept)
    assert settled == ({10, 99, 100} if option in ("", "absolute_timeout") else set())


@pytest.mark.parametrize(
    ("created", "max_age", "absolute", "end"),
    [(0, None, None, 100), (0, 60, None, 60), (-50, None, 80, 30), (-10, None, 200, 100), (-50, 60, 50, 0)],
)
def test_a_session_ends_at_the_earlier_of_idle_and_absolute(
    created: float, max_age: float | None, absolute: float | None, end: float
) -> None:
    """Activity moves the first and never the second."""
    used = visit(created=NOW + created, max_age=max_age)

    assert plan.deadline(used, options(absolute_timeout=absolute), NOW) == NOW + end


@pytest.mark.parametrize(
    ("ends", "due"), [(99.1, False), (99, True), (100, False), (101, True), (200, True), (inf, True)]
)
def test_a_touch_is_due_where_it_moves_the_expiry_by_one_percent(ends: float, due: bool) -> None:
    """Less is not worth a write; a shortened lifetime, and a record without an end, are."""
    assert plan.is_touch_due(visit(expires_at=NOW + ends), options(), NOW) is due
    assert not plan.is_touch_due(visit(expires_at=NOW + ends, untouchable=True), options(), NOW)


def test_a_touch_is_due_where_it_finds_that_the_absolute_timeout_has_come() -> None:
    """Though it would move nothing: a session that is over gets no cookie."""
    over = visit(created=NOW - 60, expires_at=NOW)

    assert plan.is_touch_due(over, options(absolute_timeout=60), NOW)
