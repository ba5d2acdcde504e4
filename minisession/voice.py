"""What browsers and the log are told of a session, once the store has been dealt with."""

from __future__ import annotations

from . import plan
from .errors import SessionError, SessionGone
from .journal import Journal, Shown
from .options import Options
from .visit import DESTROYED, LIVE, NEW, Visit
from .wire import cookies
from .wire.signing import Signer

IS_NEW = "is new"


class Voice:
    """Tells browsers and the log what became of a session."""

    def __init__(self, signer: Signer, options: Options, journal: Journal) -> None:
        self._signer, self._options, self._journal = signer, options, journal

    def answer(self, visit: Visit) -> str | None:
        """Return the ``Set-Cookie`` that a response owes the browser, and log why."""
        if plan.is_sent(visit, self._options):
            return self._cookie(visit)
        if visit.standing is DESTROYED and visit.carried:
            self._journal.debug("cookie removed: destroyed")
            return cookies.remove(self._options.name, visit.cookie, visit.https)
        if visit.standing is LIVE:
            self._journal.full(
                "cookie of session %s not sent: the browser has it already", visit.id
            )
        elif visit.standing is NEW:
            self._journal.debug("cookie not sent: the session is new and empty")
        elif not visit.carried:
            self._journal.debug("cookie not sent: destroyed, and there was none")
        return None

    def _cookie(self, visit: Visit) -> str:
        if visit.cookie.secure is True and not visit.https:
            self._journal.once(
                "a Secure cookie went out over plain http, where browsers keep it for localhost at"
                ' most: serve over TLS, or use Cookie(secure="auto")'
            )
        self._tell(visit, "cookie sent: session %s %s", visit.send or "is rolling")
        until = None if visit.max_age is None else visit.expires_at
        now, value = self._options.clock(), self._signer.sign(visit.id)
        return cookies.write(self._options.name, value, visit.cookie, visit.https, now, until)

    def created(self, visit: Visit) -> None:
        """Log that a session has just been stored for the first time."""
        if visit.send != IS_NEW:
            visit.send = "has a new id" if visit.renewed else IS_NEW
        self._tell(visit, "session %s created")

    def lost(self, visit: Visit, gone: SessionGone, *, renewed: bool = False) -> None:
        """Log, once, that changes are not stored because the session has ended."""
        if renewed or visit.max_age_set or (visit.lent and visit.changed()):
            self._journal.warning("changes not stored, and no cookie sent: %s", gone)
        visit.lent = {}

    def untouched(self, visit: Visit, error: SessionError) -> None:
        """Log that a touch failed."""
        self._journal.warning("session %s not touched: %s", Shown(visit.id), error)

    def _tell(self, visit: Visit, message: str, *args: object) -> None:
        """Log in full; bounded for new sessions, which anyone can start by the thousand."""
        if visit.send == IS_NEW:
            self._journal.debug(message, Shown(visit.id), *args)
        else:
            self._journal.full(message, visit.id, *args)
