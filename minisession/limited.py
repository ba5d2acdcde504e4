"""Log lines that anyone can cause: a few of each kind, then one a minute that counts the others."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

BURST = 3  # lines of a kind at once
EVERY = 60.0  # seconds after which one more is allowed


class Limited:
    """A bounded ``logger.log``, so that a flood of requests is no flood of lines.

    Args:
        logger: where the lines go; what its level leaves out costs and counts nothing.
        clock: seconds of any beginning; not the wall clock, which jumps.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger, self._clock = logger, clock
        self._lock = threading.Lock()
        self._kinds: dict[str, tuple[float, int]] = {}  # when BURST is whole again; lines left out

    def __call__(self, level: int, message: str, *args: object, exc_info: bool = False) -> None:
        """Log, or count; ``message`` is the line's kind, so what differs belongs in ``args``."""
        if not self._logger.isEnabledFor(level):
            return
        now = self._clock()
        with self._lock:
            whole_at, missed = self._kinds.get(message, (now, 0))
            used = max(0.0, whole_at - now) / EVERY  # of BURST; one comes back a minute
            if used > BURST - 1:
                self._kinds[message] = whole_at, missed + 1
                return
            self._kinds[message] = now + (used + 1) * EVERY, 0
        if missed:
            message, args = f"{message} (and %d more like this, not logged)", (*args, missed)
        elif used > BURST - 2:
            message += " (more like this: one a minute)"
        self._logger.log(level, message, *args, exc_info=exc_info, stacklevel=2)
