"""The life of a session within a request: it is opened, its verbs are carried out, it is committed.

The protocol is one sentence: nothing is changed that was not seen.  `Visit` draws the machine,
`plan` says what is done when, `Shelf` tries each thing once; this module decides what happens after
a try that was lost to another request.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from . import plan
from .ending import end, has_live_heir
from .errors import SessionConflict, SessionError, SessionGone, SessionTooLarge, StoreUnavailable
from .expiry import EARLY_TOUCH
from .journal import Journal, handle_of
from .options import Options
from .shelf import Shelf
from .stores.base import Store
from .visit import DESTROYED, GONE, IS_NEW, LIVE, NEW, Replaced, Visit
from .wire import cookies, record
from .wire.attributes import Cookie
from .wire.signing import Signer

T = TypeVar("T")
# One try, which returns whether it was done or lost; and what is done before the next.
Try = Callable[[Visit], bool]
Look = Callable[[Visit], None]

# Compare-and-sets lost in a row before it is a conflict.
MAX_TRIES = 32

# Taken ids in a row before genid is to blame.
MAX_IDS = 8

# Seconds.
LONGEST_PAUSE = 0.05


class Lifecycle:
    """The life of sessions under one configuration; it holds no state of any request."""

    def __init__(self, store: Store, signer: Signer, options: Options) -> None:
        self.store, self.options = store, options
        self.journal = Journal()
        self._signer, self._now = signer, options.clock
        self._sleep: Callable[[float], object] = time.sleep
        self.shelf = Shelf(store, signer, options, self.journal)
        self._in_process = bool(getattr(store, "in_process", False))

    # Opening

    def open(
        self, environ: dict[str, Any], header: object, frame: record.Frame | None = None
    ) -> Visit:
        """Find the session of a ``Cookie`` header, by default in the frame that is configured.

        It is touched where a slow request might outlast what is left of its lifetime.
        """
        now = self._now()
        visit = Visit(environ, frame or self.options.frame_for(environ), now)
        if self._in_process and environ.get("wsgi.multiprocess"):
            self.journal.once(
                "the server runs several processes and"
                f" {type(self.store).__name__} keeps sessions in one: visitors will seem logged"
                " out at random; use a store that the processes share"
            )
        self.shelf.open(visit, header)
        if visit.standing is LIVE:
            early = (visit.max_age or self.options.idle_timeout) * EARLY_TOUCH
            if visit.expires_at - now < early and plan.is_touch_due(visit, self.options, now):
                with suppress(SessionGone):
                    self._touch_once(visit)
        return visit

    def open_outside(self, header: str) -> Visit:
        """Find the session that a ``Cookie`` header names, where there is no request.

        Raises:
            SessionGone: it names no live session.
        """
        visit = self.open({}, header, record.frame(Cookie(), True))
        if visit.standing is not LIVE:
            raise SessionGone("this Cookie header names no live session")
        visit.frame = record.frame_of(visit.seen)
        return visit

    def close_outside(self, visit: Visit) -> None:
        """Store what was changed, or extend what was only read.

        Raises: what `commit_late` does.
        """
        if visit.standing is not LIVE or plan.is_pending(visit):
            self.commit_late(visit)
            return
        # No change of the caller's can be lost here.
        try:
            self._store(visit)
        except SessionGone:
            pass
        except (StoreUnavailable, SessionConflict) as error:
            self._untouched(visit, error)

    # The verbs

    def destroy(self, visit: Visit) -> None:
        """End the session, and what has replaced it, in the store, now."""
        old = visit.old
        id = visit.id if old is None else old.id
        if old is not None or visit.standing in (LIVE, GONE):
            end(self.store, id)
            self.journal.full("session %s destroyed", id=id)
        visit.end(DESTROYED, visit.id)
        visit.empty()
        visit.user, visit.send = None, ""

    def save(self, visit: Visit) -> None:
        """Store the session now."""
        self._must_stand(visit)
        self._store(visit, asked=True)

    def reload(self, visit: Visit) -> None:
        """Load what the store has now."""
        self._must_stand(visit)
        if visit.standing is NEW:
            raise SessionGone("this session was never stored: there is nothing to reload")
        self.shelf.reload(visit)

    def touch(self, visit: Visit) -> None:
        """Start the lifetime anew in the store."""
        self._must_stand(visit)
        if visit.standing is LIVE:
            self._touch(visit)

    def transact(self, visit: Visit, run: Callable[[], T]) -> T:
        """Run ``run`` on fresh data until its result is stored before another request stores."""
        self._must_stand(visit)
        self._store(visit)
        if visit.standing is LIVE:
            self.shelf.catch_up(visit)
        restore = visit.snapshot()
        results: list[T] = []

        def step(visit: Visit) -> bool:
            visit.transacting = True
            try:
                results[:] = [run()]
            finally:
                visit.transacting = False
            if visit.standing is NEW:
                # No other request knows its id.
                self._store(visit)
                return True
            return not visit.changed() or self.shelf.write(visit)

        def look(visit: Visit) -> None:
            # A try that was lost leaves nothing behind.
            restore()
            self.shelf.reload(visit)

        try:
            self._until_done(visit, step, look)
        except BaseException:
            restore()
            raise
        return results[0]

    def expires_at(self, visit: Visit) -> float:
        """Return when the session ends if it is not used again."""
        if visit.standing is LIVE and not visit.max_age_set and visit.expires_at != float("inf"):
            return visit.expires_at
        return plan.deadline(visit, self.options, self._now())

    # Committing

    def commit(self, visit: Visit) -> str | None:
        """Store what is to be stored; return the ``Set-Cookie`` that the response owes the browser.

        Raises:
            StoreUnavailable, SessionConflict, SessionTooLarge, TypeError: nothing more was stored.
        """
        # Most requests end here, unless the log is to say why.
        is_settled = not visit.lent and plan.is_settled(visit, self.options, self._now())
        if is_settled and not self.journal.is_full():
            return None
        try:
            if visit.standing is GONE:
                self._must_stand(visit)
            elif visit.standing is not DESTROYED:
                self._store(visit)
        except SessionGone as gone:
            if visit.renewed or visit.changed():
                self.journal.warning("changes not stored, and no cookie sent: %s", gone)
            else:
                self.journal.debug("cookie not sent: %s", gone)
            # Or the end of the body would log the same.
            visit.lent, visit.max_age_set = {}, False
        return self._answer(visit)

    def commit_late(self, visit: Visit) -> None:
        """Store what changed after the headers, which no cookie can announce any more.

        Raises:
            SessionGone: the session has ended, and there were changes.
            StoreUnavailable, SessionConflict, SessionTooLarge, TypeError: nothing was stored.
        """
        if not plan.is_pending(visit):
            return
        self._must_stand(visit)
        if visit.standing is NEW:
            raise SessionError("the headers went out without the new session's cookie")
        self._until_done(visit, self.shelf.write)

    def _store(self, visit: Visit, *, asked: bool = False) -> None:
        """Do what `plan` says."""
        match plan.store(visit, self.options, self._now(), asked=asked):
            case plan.REPLACE:
                self._until_done(visit, self.shelf.write)
            case plan.CREATE:
                self._create(visit)
            case plan.UNCHANGED:
                self.journal.full("session %s not stored: unchanged", id=visit.id)
            case plan.TOUCH:
                try:
                    self._touch(visit)
                except (StoreUnavailable, SessionConflict) as error:
                    # The response goes out without the cookie that this was for.
                    if asked:
                        raise
                    self._untouched(visit, error)
            case plan.TOUCH_ONCE:
                self._touch_once(visit)
            case plan.REWRITE:
                # A record that we make a little longer must fail no page, and owes no cookie.
                owed = visit.send
                try:
                    self._until_done(visit, self.shelf.write)
                    visit.send = owed
                except SessionTooLarge as error:
                    self.journal.warning("session %s not stored anew: %s", error, id=visit.id)
                    if plan.is_touch_due(visit, self.options, self._now()):
                        self._touch_once(visit)

    def _create(self, visit: Visit) -> None:
        """Store a new session, in the place of the one that it replaces, if that is still there.

        If another request was first, the new session stands alone or is gone: see `_was_outrun`.
        """
        visit.check()
        if visit.old is not None and not visit.old.seen:
            self._was_outrun(visit, visit.old)
        taken = 0

        def look(visit: Visit) -> None:
            nonlocal taken
            old = visit.old
            if old is not None and not self.shelf.look_behind(visit, old):
                self._was_outrun(visit, old)
            elif visit.old is old:
                taken += 1
                visit.id = ""
                if taken == MAX_IDS:
                    raise SessionError(
                        f"genid returned {MAX_IDS} ids in a row that are taken: make it random"
                    )

        self._until_done(visit, self.shelf.write, look)

    def _was_outrun(self, visit: Visit, old: Replaced) -> None:
        """Decide what becomes of a new session whose old one another request has replaced or ended.

        After a logout, the heir is ended as well, and the new session stands.  Of two requests that
        keep the session, one gets it; but a login form that was sent twice logs in, as the browser
        drops the first answer.  A session that was destroyed or has expired is not kept.
        """
        if not old.keep or old.user is None:
            end(self.store, old.id)
        elif old.seen and (old.user is ... or not has_live_heir(self.store, old.id)):
            self.shelf.gone(visit, old.id)
        visit.old = None

    def _touch(self, visit: Visit) -> None:
        self._until_done(visit, self.shelf.touch)
        visit.stored = True

    def _touch_once(self, visit: Visit) -> None:
        """Touch, but not again for the same bytes; a touch that fails does not fail the page."""
        visit.untouchable = True
        try:
            visit.untouchable = not self.shelf.touch(visit)
        except StoreUnavailable as error:
            self._untouched(visit, error)
            return
        if visit.untouchable and visit.expires_at <= self._now():
            self.journal.full("session %s not touched: it has expired meanwhile", id=visit.id)
        elif visit.untouchable:
            self.journal.full(
                "session %s not touched: another request has just stored or ended it", id=visit.id
            )

    def _until_done(self, visit: Visit, step: Try, look: Look | None = None) -> None:
        """Take a step until it is not lost to another request, and look again before each new try.

        A pause comes before the look, never between the look and the step that depends on it.  Its
        length is random, so that rivals do not meet again.
        """
        lost = 0
        while not step(visit):
            lost += 1
            if lost == MAX_TRIES:
                raise SessionConflict(
                    f"session {handle_of(visit.id)} was changed by others {lost} times in a row"
                )
            if lost > 1:
                longest = min(LONGEST_PAUSE, 0.001 * 2 ** (lost - 1))
                self._sleep(random.uniform(0, longest))  # noqa: S311  # a pause is no secret
            (look or self.shelf.catch_up)(visit)

    def _answer(self, visit: Visit) -> str | None:
        """Return the ``Set-Cookie`` that a response owes the browser, and log why."""
        if plan.is_sent(visit, self.options):
            return self._cookie(visit)
        if visit.standing is DESTROYED and visit.carried:
            self.journal.debug("cookie removed: destroyed")
            return cookies.remove(self.options.name, visit.frame.attributes)
        if visit.standing is LIVE:
            if visit.send or self.options.rolling:
                self.journal.full("cookie of session %s not sent: its touch failed", id=visit.id)
            else:
                self.journal.full(
                    "cookie of session %s not sent: the browser has it already", id=visit.id
                )
        elif visit.standing is NEW:
            self.journal.debug("cookie not sent: the session is new and empty")
        elif not visit.carried:
            self.journal.debug("cookie not sent: destroyed, and there was none")
        return None

    def _cookie(self, visit: Visit) -> str:
        if visit.frame.exposed:
            self.journal.once(
                "a Secure cookie went out over plain http, where browsers keep it only for"
                ' localhost: serve over TLS, or use Cookie(secure="auto")'
            )
        tell = self.journal.debug if visit.send == IS_NEW else self.journal.full
        tell("cookie sent: session %s %s", visit.send or "is rolling", id=visit.id)
        until = None if visit.max_age is None else visit.expires_at
        now, value = self.options.clock(), self._signer.sign(visit.id)
        return cookies.write(self.options.name, value, visit.frame.attributes, now, until)

    def _untouched(self, visit: Visit, error: SessionError) -> None:
        """Log that a touch failed."""
        self.journal.warning("session %s not touched: %s", error, id=visit.id)

    # Small things

    def _must_stand(self, visit: Visit) -> None:
        if visit.standing in (GONE, DESTROYED):
            what = "this session was destroyed"
            if visit.standing is GONE:
                what = f"session {handle_of(visit.id)} has ended"
            raise SessionGone(f"{what}: call regenerate() to start an empty one")
