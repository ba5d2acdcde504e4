"""A SQLite file and its connections: for threads, processes and forks, with bounded waiting.

Knows nothing of sessions.  Four things are easy to get wrong here:

- A connection serves one call at a time.  It is lent, and comes back without a transaction.
- An exception can end a call at any line: from a signal handler, a time limit, a full stack.  So
  there is no lock that could stay taken.  The calls under way are in a set and idle connections in
  a list, and each step is one call of a method of theirs, which no thread and no signal divides.
- A fork must not inherit a connection, even if the child never uses it: SQLite would take the
  parent's locks for the child's and not lock anew, and the next process that is done with the file
  would delete the log that the child still writes to.  So they are closed before a fork.
- POSIX drops all of a process' locks on a file when the process closes it once.  So nothing here
  opens a file that SQLite may have open.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from ..errors import StoreUnavailable
from .sqlite_owner import PlantedError, check_files, check_links

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

# Seconds, from and to, after which a locked database is asked again.
PAUSE = 0.001, 0.005

# Seconds that closing, and a fork, wait at most for calls under way.
PATIENCE = 5.0

# Seconds that opening waits at most for locks; gunicorn gives up a worker after 30.
OPENING = 20.0

# The texts, because Python 3.10 has no codes.
LOCKED = "database is locked"
READ_ONLY = ("attempt to write a readonly database", "unable to open database file")


class Schema(NamedTuple):
    """What a file must hold.

    Attributes:
        is_there: reads whether it does; raises `sqlite3.DatabaseError` for a file that is not ours.
        make: makes what is missing; called in a transaction.
    """

    is_there: Work[bool]
    make: Work[None]


class SQLiteFile:
    """One database file in WAL mode; created, for its owner alone (0600), if it is missing.

    Opening writes nothing where the schema is there, so it works while another has the lock.

    Args:
        path: where it is.
        schema: what it must hold.
        synchronous: SQLite's setting of this name.
        timeout: seconds that a call waits at most for the locks of others.

    Raises:
        TypeError, ValueError: there can be no such file, or it is not ours.
        StoreUnavailable: it is locked, or the disk is full or broken.
    """

    def __init__(
        self, path: str | os.PathLike[str], schema: Schema, *, synchronous: str, timeout: float
    ) -> None:
        name = _checked(path)
        # The working directory may change, and links, too.
        self.path = os.path.realpath(name)
        self._synchronous, self._timeout = synchronous, timeout
        self._calls: set[_Call] = set()
        # By process id, because a fork that Python does not see brings connections along.
        self._idle: dict[int, list[sqlite3.Connection]] = {}
        weakref.finalize(self, _let_go, self._idle)
        _files[id(self)] = self
        try:
            check_links(Path(name).absolute())
            _create(self.path)
            self._identity = self._identify()
            patience = max(timeout, OPENING)
            self._patiently(lambda: self._lend(lambda db: _prepare(db, schema)), patience)
        except (sqlite3.Error, OSError) as error:
            raise _explained(self.path, error) from error
        finally:
            self.close()

    def read(self, work: Work[T]) -> T:
        """Return ``work(connection)``; the connection serves no other call meanwhile.

        Raises:
            StoreUnavailable: it failed, and nothing was changed.
        """
        try:
            return self._patiently(lambda: self._lend(work), self._timeout)
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"{self.path}: {error}") from error

    def write(self, work: Work[T]) -> T:
        """Return ``work(connection)``, run as a transaction that takes the lock before it looks.

        Raises:
            StoreUnavailable: it failed, and nothing was changed.
        """
        return self.read(lambda db: _transact(db, work))

    def close(self, patience: float = PATIENCE) -> None:
        """Close all connections, after the calls under way; a later call opens new ones."""
        until = time.monotonic() + patience
        calls = {call for call in self._calls.copy() if call.process == os.getpid()}
        while calls & self._calls and time.monotonic() < until:
            time.sleep(PAUSE[0])
        for _ in range(len(self._own())):
            # Another call may just have taken it.
            with suppress(IndexError):
                self._own().pop().close()

    def _own(self) -> list[sqlite3.Connection]:
        """Return the idle connections of this process."""
        return self._idle.setdefault(os.getpid(), [])

    def _lend(self, work: Work[T]) -> T:
        # What is written to a deleted file is lost.
        if self._identify() != self._identity:
            raise FileNotFoundError("it was deleted or replaced while in use: restart the server")
        call = _Call()
        try:
            self._begin(call)
            result = self._attempt(call, work)
            self._end(call)
            return result
        except BaseException:
            # After `_end` there is nothing to close.  Closing rolls back what was begun.
            while call.connection:
                call.connection.pop().close()
            self._calls.discard(call)
            raise

    def _begin(self, call: _Call) -> None:
        """Count the call as under way, once no thread is about to fork; give it a connection."""
        # Calls and forks first enter themselves, then look for each other: one sees the other.
        self._calls.add(call)
        while _forking:
            self._calls.discard(call)
            _let_forks_pass()
            self._calls.add(call)
        with suppress(IndexError):
            call.connection.append(self._own().pop())
        if not call.connection:
            self._connect(call)

    def _attempt(self, call: _Call, work: Work[T]) -> T:
        (db,) = call.connection
        try:
            return work(db)
        except sqlite3.OperationalError:
            # Locked, full, and the like: once rolled back, the connection is as good as new.
            if db.in_transaction:
                db.execute("ROLLBACK")
            self._end(call)
            raise

    def _end(self, call: _Call) -> None:
        self._own().append(call.connection.pop())
        self._calls.discard(call)

    def _connect(self, call: _Call) -> None:
        # SQLite must not create the file: it would give everyone the right to read it.
        uri = f"{Path(self.path).as_uri()}?mode=rw"
        connect = partial(sqlite3.connect, uri, uri=True, timeout=0, isolation_level=None)
        call.connection.append(connect(check_same_thread=False))
        # Before the first statement, at which SQLite reads the log.
        check_files(self.path)
        call.connection[0].execute(f"PRAGMA synchronous = {self._synchronous}")

    def _patiently(self, run: Callable[[], T], seconds: float) -> T:
        """Run, and run again while others hold the lock.

        SQLite's own waiting sleeps up to 100 ms at a time, while calls that came later are served.
        """
        until = None
        while True:
            try:
                return run()
            except sqlite3.OperationalError as error:
                now = time.monotonic()
                until = now + seconds if until is None else until
                if str(error) != LOCKED or now >= until:
                    raise
            time.sleep(random.uniform(*PAUSE))  # noqa: S311  # a pause is no secret

    def _identify(self) -> tuple[int, ...] | None:
        with suppress(FileNotFoundError):
            found = os.stat(self.path)
            return found.st_dev, found.st_ino, found.st_uid
        return None


class _Call:
    """A call under way, in this process, and the connection that it has, once it has one."""

    __slots__ = ("connection", "process")

    def __init__(self) -> None:
        self.process = os.getpid()
        self.connection: list[sqlite3.Connection] = []


def _transact(db: sqlite3.Connection, work: Work[T]) -> T:
    """Run ``work`` between BEGIN and COMMIT; the lender of the connection rolls back what fails."""
    db.execute("BEGIN IMMEDIATE")
    result = work(db)
    db.execute("COMMIT")
    return result


def _prepare(db: sqlite3.Connection, schema: Schema) -> None:
    """Make what is missing; if nothing is, write nothing."""
    if not schema.is_there(db):
        _transact(db, schema.make)
    (mode,) = db.execute("PRAGMA journal_mode").fetchone()
    if mode != "wal":
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise sqlite3.DatabaseError("SQLite's WAL mode does not work here: use a local disk")


def _checked(path: str | os.PathLike[str]) -> str:
    name = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(name, str):
        raise TypeError(f"path must be str or os.PathLike, not {type(name).__name__}")
    if name == ":memory:":
        raise ValueError("path ':memory:' would be a database for each connection: use MemoryStore")
    if "://" in name or name.startswith(("file:", "sqlite:")):
        # It may hold a password.
        raise ValueError("path must be a file's path, not a URL: open_store() takes a store's URL")
    if not name or "\0" in name:
        raise ValueError(f"path must be a file's path, not {name!r}")
    return name


def _create(path: str) -> None:
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"path {path!r} is a folder or a device: name a file")
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    effective = os.access in os.supports_effective_ids
    for needed in (path, os.path.dirname(path)):
        # Better found now than at a login.
        if not os.access(needed, os.W_OK, effective_ids=effective):
            raise PermissionError(f"{needed} cannot be written")


def _explained(path: str, error: Exception) -> Exception:
    """Return what to raise when a file cannot be used from the start."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return ValueError(f"path {path!r}: its folder does not exist: create it first")
    if isinstance(error, PermissionError) or str(error) in READ_ONLY:
        rule = "both the file and its folder must be writable by this user"
        return ValueError(f"path {path!r}: {error}: {rule}")
    if isinstance(error, PlantedError) or type(error) is sqlite3.DatabaseError:
        return ValueError(f"path {path!r}: {error}")
    return StoreUnavailable(f"{path}: {error}")


# Forks

_files: weakref.WeakValueDictionary[int, SQLiteFile] = weakref.WeakValueDictionary()
# Threads that are about to fork: no call begins meanwhile.
_forking: set[int] = set()
# What forks that Python did not see have brought along: it must be neither used nor closed.
_inherited: list[sqlite3.Connection] = []


def _let_go(idle: dict[int, list[sqlite3.Connection]]) -> None:
    """Close the connections that a file, no longer in use, has left open."""
    for process, connections in idle.items():
        while connections:
            if process == os.getpid():
                connections.pop().close()
            else:
                _inherited.append(connections.pop())


def _before_fork() -> None:
    _forking.add(threading.get_ident())
    until = time.monotonic() + PATIENCE
    for reference in _files.valuerefs():
        file = reference()
        if file is not None:
            file.close(until - time.monotonic())


def _let_forks_pass() -> None:
    """Wait, but not for a thread whose fork has failed silently."""
    until = time.monotonic() + 2 * PATIENCE
    while _forking:
        time.sleep(PAUSE[0])
        if time.monotonic() > until:
            _forking.clear()


def _after_fork() -> None:
    _forking.discard(threading.get_ident())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_forking.clear
    )
