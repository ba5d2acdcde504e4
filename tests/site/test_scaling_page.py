"""docs/scaling.md: its table of round trips is what Redis counts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from minisession import Session

from ..support.browser import Clock
from ..support.redis_server import RedisServer, redis_server
from ..support.site import Page, Site, put

from minisession.stores.redis import RedisStore  # isort: skip  # after redis_server, which skips without redis-py

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
ROWS = {
    row: (int(trips), int(commands))
    for row, trips, commands in re.findall(r"^\| ([^|]+) \| (\d+) \| (\d+) \| \d+ \|$", PAGE, re.M)
}


def read(session: Session) -> None:
    session.get("n")


def login(session: Session) -> None:
    session.regenerate(user="ann")
    session["name"] = "Ann"


VISITS: dict[str, tuple[Page | None, Page | None, int]] = {  # the visit before, the one that counts, seconds between
    "does not look at its session": (put("n", 0), None, 1),
    "looks, and has no cookie": (None, read, 1),
    "reads": (put("n", 0), read, 1),
    "reads, and a touch is due": (put("n", 0), read, 3600),
    "writes": (put("n", 0), put("n", 1), 1),
    "writes a user's session": (login, put("n", 1), 1),
    "logs in, with no session before": (None, login, 1),
    "logs in, in a session": (put("n", 0), login, 1),
    "gets a new id and keeps its data": (put("n", 0), lambda session: session.regenerate(keep=True), 1),
    "logs out": (login, lambda session: session.destroy(), 1),
}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.mark.parametrize("row", VISITS)
def test_the_table_of_round_trips_is_what_redis_counts(server: RedisServer, row: str) -> None:
    before, page, seconds = VISITS[row]
    clock = Clock()
    store = RedisStore(server.url, clock=clock)
    store.load("connected")
    visitor = Site(store=store, clock=clock).browser()
    visitor.visit(before)
    server.age(seconds)
    with server.counted() as counted:
        visitor.visit(page)
    store.close()
    trips = counted.pop("trips")

    assert (trips, sum(calls for name, calls in counted.items() if name != "eval")) == ROWS[row]


def test_the_table_has_no_other_rows() -> None:
    assert ROWS.keys() == VISITS.keys()
