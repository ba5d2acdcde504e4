"""What is done when: that the short way to "nothing" ends where the long one does."""

from __future__ import annotations

from itertools import product

import pytest

from minisession import Cookie, expiry, plan
from minisession.options import Options
from minisession.visit import LIVE, Standing, Visit
from minisession.wire import record

NOW = 1_000_000.0


def visit(**what: object) -> Visit:
    """Return what a request knows of its session; by default that it lives, and was not changed."""
    made = Visit({}, record.frame(Cookie(), True), NOW - 50)
    made.live("id", b"{}", NOW + 100)
    for name, value in what.items():
        setattr(made, name, value)
    return made


def options(**what: object) -> Options:
    return Options(**{"idle_timeout": 100, **what})  # type: ignore[arg-type]  # the values are of any type


def test_where_nothing_is_left_to_do_it_is_seen_at_once() -> None:
    assert plan.is_settled(visit(), options(), NOW)
    assert plan.is_settled(visit(), options(), NOW + 0.99)


@pytest.mark.parametrize(
    "what",
    [
        *({"standing": standing} for standing in Standing if standing is not LIVE),
        {"lent": {"key": "1"}},
        {"max_age_set": True},
        {"rewrite": True},
        {"send": "was signed by an older secret"},
        {"expires_at": NOW + 99},
        {"expires_at": NOW + 101},
        {"expires_at": float("inf")},
        {"max_age": 200},
    ],
)
def test_what_may_be_left_to_do_is_looked_at_closely(what: dict[str, object]) -> None:
    assert not plan.is_settled(visit(**what), options(), NOW)


@pytest.mark.parametrize("option", ["resave", "save_uninitialized", "rolling"])
def test_so_is_each_session_where_an_option_asks_for_it(option: str) -> None:
    assert not plan.is_settled(visit(), options(**{option: True}), NOW)


def test_the_short_way_ends_where_the_long_one_does() -> None:
    """For every combination of what can be: nothing is stored, touched or sent."""
    settled = 0
    flags = [(False, True)] * 7
    for standing, lent, set_, rewrite, sent, stored, untouchable, always in product(Standing, *flags):
        for ends, age, absolute in product((NOW + 100, NOW + 98), (0.0, 50.0), (0.0, 60.0, 100.0)):
            kept = options(resave=always, absolute_timeout=absolute or None)
            one = visit(
                standing=standing, lent={"key": "1"} if lent else {}, max_age_set=set_, rewrite=rewrite, stored=stored,
                send="is new" if sent else "", untouchable=untouchable, expires_at=ends, max_age=age or None,
            )  # fmt: skip
            if plan.is_settled(one, kept, NOW):
                settled += 1
                fresh = expiry.deadline(NOW, one.created, age or 100, absolute or None)
                assert plan.store(one, kept, asked=False) is plan.TOUCH_IF_DUE
                assert not plan.is_sent(one, kept)
                assert not expiry.touch_is_due(ends, fresh, age or 100)
    assert settled
