"""One time limit for everything a call waits for: connecting, TLS, AUTH, each piece of an answer.

redis-py limits each wait by itself, so that a node which answers each exchange just in time, or
byte by byte, keeps a call for as long as it likes.  There is no public way to limit the whole.
This file has the one thing that is not public: `patient` overrides ``Connection._connect``, which
returns the socket, as it has in every version from 3 to 8.  Should a later one no longer call it,
each wait has its own limit again, and a test says so.

Names are looked up by the system, whose own limit holds.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from math import inf
from time import monotonic
from typing import Any, TypeVar

T = TypeVar("T")


# Until when the innermost call of this thread, or greenlet, may wait.  Not a threading.local, which
# greenlets share if gevent patches it only later, as under gunicorn's --preload.
_until: ContextVar[float] = ContextVar("until", default=inf)


def left() -> float:
    """Return the seconds that the call under way may still wait; inf outside of one."""
    return _until.get() - monotonic()


class Budget:
    """A limit, in seconds, of everything that a function waits for.

    Not a context manager: an exception that a signal raises as one is entered or left would leave
    its limit behind, and every later call of the thread would fail.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def spend(self, work: Callable[..., T], *arguments: Any) -> T:
        """Return what ``work`` returns; it may wait for at most what an outer limit leaves."""
        outer = _until.get()
        try:
            _until.set(min(outer, monotonic() + self.seconds))
            return work(*arguments)
        finally:
            _until.set(outer)


class PatientSocket:
    """A socket that waits no longer than the call under way may."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._timeout: float | None = sock.gettimeout()
        self._set = self._timeout

    def settimeout(self, timeout: float | None) -> None:
        """Limit each wait, as a socket does; 0 is not to wait."""
        self._timeout = self._set = timeout
        self._sock.settimeout(timeout)

    def gettimeout(self) -> float | None:
        """Return the limit of each wait."""
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        """Wait without a limit, or not at all."""
        self.settimeout(None if flag else 0.0)

    def recv(self, *arguments: Any) -> Any:
        """Receive, as a socket does."""
        self._limit()
        return self._sock.recv(*arguments)

    def recv_into(self, *arguments: Any) -> Any:
        """Receive, as a socket does: hiredis' way."""
        self._limit()
        return self._sock.recv_into(*arguments)

    def sendall(self, *arguments: Any) -> None:
        """Send, as a socket does."""
        self._limit()
        self._sock.sendall(*arguments)

    def _limit(self) -> None:
        if self._timeout != 0:
            limit = _at_most(self._timeout)
            if limit != self._set:
                self._set = limit
                self._sock.settimeout(limit)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def _at_most(limit: float | None) -> float | None:
    """Return the seconds that one wait of the call under way may take."""
    rest = left()
    if rest <= 0:
        raise TimeoutError("the call has waited for all of its time")
    if limit is not None and limit <= rest:
        return limit
    return None if rest == inf else rest


def patient(connection_class: Any) -> Any:
    """Return a class of redis-py's connections whose sockets are patient with a call as a whole."""

    class PatientConnection(connection_class):  # type: ignore[misc]  # a parameter
        socket_connect_timeout: float | None
        socket_timeout: float | None

        def _connect(self) -> PatientSocket:
            connecting, waiting = self.socket_connect_timeout, self.socket_timeout
            # The second is also for TLS' handshake.
            self.socket_connect_timeout = _at_most(connecting)
            self.socket_timeout = _at_most(waiting)
            try:
                sock = super()._connect()
            finally:
                self.socket_connect_timeout, self.socket_timeout = connecting, waiting
            sock.settimeout(waiting)
            return PatientSocket(sock)

    return PatientConnection
