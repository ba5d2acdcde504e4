"""One request and its response, as the app's `Session` and the server's `Response` both see it."""

from __future__ import annotations

import threading
from typing import Any, Literal

from .errors import SessionError, StoreUnavailable
from .lifecycle import Lifecycle
from .visit import DESTROYED, LIVE, Visit

# How far the response is: headers can still be added; they are out, and the body is not; both
# are; or there is none.
Phase = Literal["open", "streaming", "closed", "outside"]

# `__dict__.setdefault` needs no lock, but slows down each later use of the object: 3 % of a read.
_first_look = threading.Lock()


class Exchange:
    """What is known of one request: its ``environ``, the phase of its response, and its session.

    A `Response` is one that has a server.
    """

    phase: Phase = "open"
    # None: the request has not looked at its session, or in vain, as the store was down.
    visit: Visit | None = None
    looked_in_vain = False
    # The Cookie header, as it came: the app may edit its environ.
    cookies: object = None

    def __init__(self, lifecycle: Lifecycle, environ: dict[str, Any]) -> None:
        self.lifecycle, self.environ = lifecycle, environ

    def look(self) -> Visit:
        """Return what this request knows of its session; the first look loads it."""
        if self.visit is not None:
            return self.visit
        if self.phase == "closed":
            raise SessionError("the response is complete, and its session was never looked at")
        try:
            found = self.lifecycle.open(self.environ, self.cookies)
        except StoreUnavailable as error:
            self.looked_in_vain = True
            self.lifecycle.journal.debug("session not loaded: %s", error)
            raise
        # Threads that share a request share its session: the one that the first of them found.
        with _first_look:
            if self.visit is None:
                self.visit = found
            return self.visit

    def asked(self, verb: str) -> Visit:
        """Return the same, where a verb of the session may be called."""
        visit = self.look()
        if visit.transacting:
            raise SessionError(
                f"{verb}() inside transact(): change the session's data there, and nothing else"
            )
        return visit

    def writable(self) -> Visit:
        """Return the same, where the session can be changed."""
        visit = self.visit or self.look()
        if self.phase == "closed":
            raise SessionError("the response is complete: change the session before the body ends")
        if visit.standing is DESTROYED:
            raise SessionError(
                "this session was destroyed: call regenerate() to start an empty one"
            )
        if self.phase != "open" and visit.standing is not LIVE:
            self.before_headers("a new session's cookie can no longer reach the browser")
        return visit

    def before_headers(self, why: str) -> None:
        """Raise SessionError if the response's headers are out, or there are none."""
        if self.phase == "outside":
            raise SessionError(f"there is no response here, and {why}: do it in a request")
        if self.phase != "open":
            raise SessionError(
                f"the response headers are out, and {why}: do it before the first byte of the body"
            )
