"""What the log is told, by the logger ``minisession``: in full, bounded, or once.

No line holds a usable id, a secret or data.  An id is shown by its handle.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from functools import partial

log = logging.getLogger("minisession")

# Bounded lines of a kind at once.
BURST = 3

# Seconds after which one more is allowed.
EVERY = 60.0


def handle_of(id: str) -> str:
    """Return 16 hex digits of the id's SHA-256: safe to show and log, useless as a cookie."""
    return hashlib.sha256(id.encode()).hexdigest()[:16]


class Journal:
    """Three ways to log.

    What live sessions do is logged in `full`, at DEBUG.  Lines that anyone can cause by the
    thousand are bounded (`debug`, `info`, `warning`, `error`): a few of a kind, then one a minute
    that counts the others.  Lines below the logger's level count nothing.  A wrong configuration
    is reported `once`.

    Args:
        clock: seconds from any starting point; not the wall clock, which jumps.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        # By kind: when its burst is whole again, and how many lines were left out.
        self._kinds: dict[str, tuple[float, int]] = {}
        self._said: set[str] = set()
        # Whether anything that is told in full is logged.
        self.is_full = partial(log.isEnabledFor, logging.DEBUG)
        self.debug = partial(self._bounded, logging.DEBUG)
        self.info = partial(self._bounded, logging.INFO)
        self.warning = partial(self._bounded, logging.WARNING)
        self.error = partial(self._bounded, logging.ERROR)

    def full(self, message: str, *args: object, id: str) -> None:
        """Log, at DEBUG, a line that begins with a session."""
        if self.is_full():
            log.debug(message, handle_of(id), *args, stacklevel=2)

    def once(self, message: str) -> None:
        """Warn, the first time."""
        if message not in self._said:
            self._said.add(message)
            log.warning(message, stacklevel=2)

    def _bounded(
        self, level: int, message: str, *args: object, id: str = "", exc_info: bool = False
    ) -> None:
        """Log, or count; ``message`` is the line's kind, so what differs belongs in ``args``.

        A line that begins with a session gets its ``id``.
        """
        if not log.isEnabledFor(level):
            return
        now = self._clock()
        with self._lock:
            whole_at, missed = self._kinds.get(message, (now, 0))
            # Lines of the burst; one comes back a minute.
            used = max(0.0, whole_at - now) / EVERY
            if used > BURST - 1:
                self._kinds[message] = whole_at, missed + 1
                return
            self._kinds[message] = now + (used + 1) * EVERY, 0
        args = (handle_of(id), *args) if id else args
        if missed:
            message, args = f"{message} (and %d more like this, not logged)", (*args, missed)
        elif used > BURST - 2:
            message += " (more like this: one a minute)"
        log.log(level, message, *args, exc_info=exc_info, stacklevel=2)
