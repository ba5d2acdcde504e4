"""minisession twice: with nobody's sessions, as all peers' are, and with users', whom it can list the sessions of."""

from __future__ import annotations

from itertools import count
from typing import Any

from . import peers
from .peers import Apps

OURS, USERS = "minisession", "minisession-users"
TITLES = {
    **{name: peer.title for name, peer in {**peers.PEERS, **peers.NODE}.items()},
    USERS: "minisession, listed by user",
}


def packages(name: str) -> tuple[str, ...]:
    """Return the distributions whose versions count."""
    return peers.PEERS[OURS if name == USERS else name].packages


def make(name: str, store: str = "memory") -> Apps:
    """Return a peer's apps; with `USERS` each login is another user's, and with `OURS` nobody's."""
    if name == OURS:
        peers.USER = None  # type: ignore[assignment]  # read by the page, at each login
    if name != USERS:
        return peers.make(name, store)
    apps = peers.make(OURS, store)
    numbers = count()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        peers.USER = f"user {next(numbers)}"
        return apps.app(environ, start_response)

    return apps._replace(app=app)
