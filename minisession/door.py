"""Where sessions come in by a cookie, and what browsers and the log are told as they leave."""

from __future__ import annotations

from functools import lru_cache

from . import plan
from .errors import SessionError, SessionGone
from .journal import Journal
from .options import Options
from .shelf import Shelf
from .visit import DESTROYED, GONE, LIVE, NEW, Visit
from .wire import cookies
from .wire.signing import Signer

# Verified cookies of one request that the store is asked about.
MAX_LOADS = 3

# Verified cookies that are remembered, the latest ones.
REMEMBERED = 4096

# Characters; longer cookies are rare, or not ours.
LONGEST_REMEMBERED = 512

IS_NEW = "is new"


class Door:
    """Opens sessions by ``Cookie`` headers, and tells browsers and the log what became of them."""

    def __init__(self, shelf: Shelf, signer: Signer, options: Options, journal: Journal) -> None:
        self._shelf, self._signer, self._options, self._journal = shelf, signer, options, journal
        # Visitors send the same text again and again, and looking up the result takes a tenth of
        # the time.  An attacker who can read this memory can read the secret as well; and the store
        # is asked every time whether the session lives.
        self._recall = lru_cache(REMEMBERED)(self._verified)

    # Opening

    def open(self, visit: Visit, header: object) -> None:
        """Load the first of the verified cookies that the store knows."""
        texts = cookies.read(header, self._options.name) if isinstance(header, str) else []
        visit.carried = bool(texts)
        if not texts:
            self._journal.debug("new session: the request has no cookie %s", self._options.name)
        elif len(texts) > 1:
            # A sibling domain has set one, or Path or Domain were different once.
            self._journal.info(
                "duplicate: %d cookies %s; the first good one counts",
                len(texts),
                self._options.name,
            )
        asked: list[str] = []
        for text in texts:
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
                self._journal.full("session %s loaded", id=id)
                return
        if visit.known:
            visit.end(GONE, visit.id)
            self._journal.debug("session %s ended a moment ago: this request has none", id=visit.id)

    def _verified(self, text: str) -> tuple[str, bool] | None:
        """Return `Signer.verify` of a cookie as the browser sent it."""
        return self._signer.verify(cookies.decode(text))

    # What became of it

    def answer(self, visit: Visit) -> str | None:
        """Return the ``Set-Cookie`` that a response owes the browser, and log why."""
        if plan.is_sent(visit, self._options):
            return self._cookie(visit)
        if visit.standing is DESTROYED and visit.carried:
            self._journal.debug("cookie removed: destroyed")
            return cookies.remove(self._options.name, visit.frame.attributes)
        if visit.standing is LIVE:
            self._journal.full(
                "cookie of session %s not sent: the browser has it already", id=visit.id
            )
        elif visit.standing is NEW:
            self._journal.debug("cookie not sent: the session is new and empty")
        elif not visit.carried:
            self._journal.debug("cookie not sent: destroyed, and there was none")
        return None

    def _cookie(self, visit: Visit) -> str:
        if visit.frame.exposed:
            self._journal.once(
                "a Secure cookie went out over plain http, where browsers keep it only for"
                ' localhost: serve over TLS, or use Cookie(secure="auto")'
            )
        tell = self._journal.debug if visit.send == IS_NEW else self._journal.full
        tell("cookie sent: session %s %s", visit.send or "is rolling", id=visit.id)
        until = None if visit.max_age is None else visit.expires_at
        now, value = self._options.clock(), self._signer.sign(visit.id)
        return cookies.write(self._options.name, value, visit.frame.attributes, now, until)

    def created(self, visit: Visit) -> None:
        """Log that a session has just been stored for the first time."""
        if visit.send != IS_NEW:
            visit.send = "has a new id" if visit.renewed else IS_NEW
        # New sessions anyone can start by the thousand.
        tell = self._journal.debug if visit.send == IS_NEW else self._journal.full
        tell("session %s created", id=visit.id)

    def lost(self, visit: Visit, gone: SessionGone, *, renewed: bool = False) -> None:
        """Log, once, that changes are not stored because the session has ended."""
        if renewed or visit.changed():
            self._journal.warning("changes not stored, and no cookie sent: %s", gone)
        else:
            self._journal.debug("cookie not sent: %s", gone)
        visit.lent, visit.max_age_set = {}, False

    def untouched(self, visit: Visit, error: SessionError) -> None:
        """Log that a touch failed."""
        self._journal.warning("session %s not touched: %s", error, id=visit.id)
