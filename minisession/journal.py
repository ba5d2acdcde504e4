"""What is told to the log, logger ``minisession``: in full, bounded, or once.

No line holds a usable id, a secret or data.  An id is shown by its handle.
"""

from __future__ import annotations

import hashlib
import logging

from .limited import Limited

log = logging.getLogger("minisession")


def handle_of(id: str) -> str:
    """Return 16 hex digits of the id's SHA-256: safe to show and log, useless as a cookie."""
    return hashlib.sha256(id.encode()).hexdigest()[:16]


class Shown:
    """An id as logs show it, hashed only if the line is written."""

    __slots__ = ("_id",)

    def __init__(self, id: str) -> None:
        self._id = id

    def __str__(self) -> str:
        return handle_of(self._id)


class Journal:
    """Three ways to tell.

    What live sessions do is logged in `full`, at DEBUG.  What anyone can cause by the thousand is
    `bounded` (see `Limited`).  What is wrong with the configuration is said `once`.
    """

    def __init__(self) -> None:
        self.bounded = Limited(log)
        self._said: set[str] = set()

    def is_full(self) -> bool:
        """Return whether anything that is told in full is logged."""
        return log.isEnabledFor(logging.DEBUG)

    def full(self, message: str, id: str, *args: object) -> None:
        """Log, at DEBUG, a line that begins with a session."""
        if log.isEnabledFor(logging.DEBUG):
            log.debug(message, handle_of(id), *args, stacklevel=2)

    def once(self, message: str) -> None:
        """Warn, the first time."""
        if message not in self._said:
            self._said.add(message)
            log.warning(message, stacklevel=2)
