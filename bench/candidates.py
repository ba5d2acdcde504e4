"""Whose sessions are measured: the peers', the floor, and minisession's twice.

All peers' sessions are nobody's; so are minisession's, unless it is to list them by user, which no peer can.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Any

from . import least, peers
from .peers import Apps

OURS, USERS, FLOOR = "minisession", "minisession-users", "floor"
BARE = "bare"
"""Where a peer's pages are: its app without sessions."""
TITLES = {
    **{name: peer.title for name, peer in {**peers.PEERS, **peers.NODE}.items()},
    USERS: "minisession, listed by user",
    FLOOR: "floor",
}


def in_order(names: Iterable[str]) -> list[str]:
    """Return them as tables have them: ours first, the floor last."""
    return sorted(names, key=[*TITLES].index)


def packages(name: str) -> tuple[str, ...]:
    """Return the distributions whose versions count."""
    return () if name == FLOOR else peers.PEERS[OURS if name == USERS else name].packages


def make(name: str, store: str = "memory") -> Apps:
    """Return a peer's apps; with `USERS` each login is another user's, and with `OURS` nobody's."""
    if name == FLOOR:
        return least.make()
    if name == OURS:
        peers.USER = None  # type: ignore[assignment]  # a str for all peers; nobody's sessions are ours alone
    if name != USERS:
        return peers.make(name, store)
    apps = peers.make(OURS, store)
    numbers = count()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        peers.USER = f"user {next(numbers)}"
        return apps.app(environ, start_response)

    return apps._replace(app=app)
