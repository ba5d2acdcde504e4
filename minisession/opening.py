"""Opening a session: the first of a request's verified cookies that the store knows."""

from __future__ import annotations

from functools import lru_cache

from .journal import Journal, Shown
from .options import Options
from .shelf import Shelf
from .visit import GONE, Visit
from .wire import cookies
from .wire.signing import Signer

MAX_LOADS = 3
"""Verified cookies of one request that the store is asked about."""

REMEMBERED = 4096
"""Verified cookies that are remembered, the latest ones."""

LONGEST_REMEMBERED = 512
"""Characters; longer cookies are rare, or not ours."""


class Opener:
    """Finds sessions by ``Cookie`` headers."""

    def __init__(self, shelf: Shelf, signer: Signer, options: Options, journal: Journal) -> None:
        self._shelf, self._signer, self._options, self._journal = shelf, signer, options, journal
        # Visitors send the same text again and again, and looking up the result takes a tenth of
        # the time.  An attacker who can read this memory can read the secret as well; and the store
        # is asked every time whether the session lives.
        self._recall = lru_cache(REMEMBERED)(self._verified)

    def find(self, visit: Visit, header: object) -> None:
        """Load the first of the verified cookies that the store knows."""
        asked: list[str] = []
        for text in self._read(visit, header):
            recalled = len(text) <= LONGEST_REMEMBERED
            verified = self._recall(text) if recalled else self._verified(text)
            if verified is None:
                self._journal.debug("cookie ignored: its signature does not verify")
                continue
            id, current = verified
            if id in asked or len(asked) == MAX_LOADS:
                continue
            asked.append(id)
            if self._shelf.load(visit, id):
                if not current:
                    visit.send = "was signed by an older secret"
                self._journal.full("session %s loaded", id)
                return
        if visit.known:
            visit.end(GONE, visit.id)
            self._journal.debug(
                "session %s ended a moment ago: this request has none", Shown(visit.id)
            )

    def _read(self, visit: Visit, header: object) -> list[str]:
        """Return the cookies of our name, as they were sent."""
        name = self._options.name
        values = cookies.read(header, name) if isinstance(header, str) else []
        visit.carried = bool(values)
        if not values:
            self._journal.debug("new session: the request has no cookie %s", name)
        # A sibling domain has set one, or Path or Domain were different once.
        if len(values) > 1:
            self._journal.info(
                "duplicate: %d cookies %s; the first good one counts", len(values), name
            )
        return values

    def _verified(self, text: str) -> tuple[str, bool] | None:
        """Return `Signer.verify` of a cookie as the browser sent it."""
        return self._signer.verify(cookies.decode(text))
