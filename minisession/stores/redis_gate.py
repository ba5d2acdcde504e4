"""A circuit breaker: while a node hangs, only one call at a time waits for it."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import StoreUnavailable

# Seconds in which no call waits for a node that has just kept one waiting in vain.
PAUSE = 0.3

# Seconds after which the one call that tries again counts as lost.
PATIENCE = 1.0

# Seconds that the first try after a lost answer may take: a healthy node answers sooner.
HASTE = 0.01


class Gate:
    """Spares callers the wait for a node that hangs.

    A call that waited in vain shuts it, but only if no other was answered in the second half of its
    wait: one answer that got lost is not an outage.  Of the calls in the `PAUSE` that follows, the
    first may try again in `HASTE`, and the others fail at once.  Then one call is let in, and no
    other while that one waits; when it is answered, all are.

    Args:
        monotonic: the time.
        hasty: whether a call can be told to make haste.
    """

    # There is no lock here, which a fork could copy locked.

    def __init__(self, monotonic: Callable[[], float], *, hasty: bool = False) -> None:
        self._now, self._hasty = monotonic, hasty
        # 0 is open.
        self._shut_until = 0.0
        self._may_hurry = False
        self._answered = 0.0

    def enter(self) -> tuple[float, bool]:
        """Return when the call began, and whether it has to make haste.

        Raises:
            StoreUnavailable: the gate is shut.
        """
        now = self._now()
        if not self._shut_until:
            return now, False
        if now < self._shut_until:
            if self._may_hurry:
                self._may_hurry = False
                return now, True
            raise StoreUnavailable("Redis: it did not answer in time a moment ago")
        self._shut_until, self._may_hurry = now + PATIENCE, False
        return now, False

    def answered(self) -> None:
        """Let all calls in: the node answers, if only to refuse."""
        self._answered = self._now()
        self._shut_until = 0.0

    def in_vain(self, begun: float) -> bool:
        """Return whether a call that began then, and got no answer, shuts the gate."""
        now, was_open = self._now(), not self._shut_until
        silent = now - max(begun, self._answered)
        if was_open and silent < (now - begun) / 2:
            return False
        self._shut_until = now + PAUSE
        self._may_hurry = self._hasty and was_open
        return True

    def not_tried(self) -> None:
        """Let the next call try instead of one that did not get as far."""
        if self._shut_until:
            self._shut_until = self._now()
