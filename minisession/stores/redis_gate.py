"""A circuit breaker: while a node hangs, only one call at a time waits for it."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import StoreUnavailable

PAUSE = 0.3
"""Seconds in which no call waits for a node that has just kept one waiting in vain."""

PATIENCE = 1.0
"""Seconds until the one call that tries again is taken for lost."""


class Gate:
    """Spares callers the wait for a node that hangs.

    A call that waited in vain shuts it, but only if no other was answered in the second half of its
    wait: one answer that got lost is not an outage.  `PAUSE` later one call is let in, and no other
    while that one waits; when it is answered, all are.
    """

    # There is no lock here, which a fork could copy locked.

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._now = monotonic
        self._shut_until = 0.0  # 0: open
        self._answered = 0.0

    def enter(self) -> float:
        """Return when the call began; raise StoreUnavailable if the gate is shut."""
        now = self._now()
        if self._shut_until:
            if now < self._shut_until:
                raise StoreUnavailable("Redis: it did not answer in time a moment ago")
            self._shut_until = now + PATIENCE
        return now

    def answered(self) -> None:
        """Let all calls in: the node answers, if only to refuse."""
        self._answered = self._now()
        self._shut_until = 0.0

    def in_vain(self, begun: float) -> bool:
        """Return whether a call that began then, and got no answer, shuts the gate."""
        now = self._now()
        silent = now - max(begun, self._answered)
        if silent < (now - begun) / 2 and not self._shut_until:
            return False
        self._shut_until = now + PAUSE
        return True

    def not_tried(self) -> None:
        """Let the next call try instead of one that did not get as far."""
        if self._shut_until:
            self._shut_until = self._now()
