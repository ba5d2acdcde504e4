"""A SQLite file and its connections: for threads, processes and forks, with bounded waiting.

Knows nothing of sessions.  Three things are easy to get wrong here:

- A connection serves one call at a time.  It is lent, and comes back without a transaction.
- A fork must not inherit a connection, even if the child never uses it: SQLite would take the parent's
  locks for the child's and not lock anew, and the next process that is done with the file would delete
  the log under the child's hands, and what the child writes.  So they are closed before a fork.
- POSIX drops all of a process' locks on a file when the process closes it once.  So nothing here opens
  a file that SQLite may have open.
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
from pathlib import Path
from typing import TypeVar

from ..errors import StoreUnavailable

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

PAUSE = 0.001, 0.005  # seconds, from and to, after which a locked database is asked again
PATIENCE = 5.0  # seconds that closing, and a fork, wait at most for calls under way
LOCKED = "database is locked"  # the text, because Python 3.10 has no codes
READ_ONLY = ("attempt to write a readonly database", "unable to open database file")


class SQLiteFile:
    """One database file in WAL mode; created, for its owner alone (0600), if it is missing.

    Args:
        path: where it is.
        prepare: makes what a new file needs, and raises `sqlite3.DatabaseError` for one that is not
            ours.  Called in a transaction.
        synchronous: SQLite's setting of this name.
        timeout: seconds that a call waits at most for the locks of others.

    Raises:
        TypeError, ValueError: there can be no such file, or it is not ours.
        StoreUnavailable: it is locked, or the disk is full or broken.
    """

    def __init__(self, path: str | os.PathLike[str], prepare: Work[None], *, synchronous: str, timeout: float) -> None:
        self.path = _checked(path)
        self._synchronous, self._timeout = synchronous, timeout
        self._calls = threading.Condition()  # the lock of the next three; notified when no call is under way
        self._idle: list[sqlite3.Connection] = []
        self._lent = 0
        self._pid = os.getpid()
        try:
            _create(self.path)
            self._identity = self._identify()
            self._patiently(lambda: self._prepare(prepare))
        except (sqlite3.Error, OSError) as error:
            raise _explained(self.path, error) from error
        _files.add(self)
        weakref.finalize(self, _close, self._idle, self._pid)

    def read(self, work: Work[T]) -> T:
        """Return ``work(connection)``; the connection is nobody else's meanwhile.

        Raises:
            StoreUnavailable: it failed, and nothing was changed.
        """
        try:
            return self._patiently(lambda: self._lend(work))
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"{self.path}: {error}") from error

    def write(self, work: Work[T]) -> T:
        """Return ``work(connection)``, run as a transaction that takes the lock before it looks.

        Raises:
            StoreUnavailable: it failed, and nothing was changed.
        """
        return self.read(lambda db: _transact(db, work))

    def close(self) -> None:
        """Close all connections, after the calls under way; a later call opens new ones."""
        self.pause()
        self.resume()

    def pause(self) -> None:
        """Close all connections, after the calls under way, and let no call begin until `resume`."""
        self._calls.acquire()
        self._disown()
        self._calls.wait_for(lambda: not self._lent, PATIENCE)
        _close(self._idle, self._pid)

    def resume(self) -> None:
        """Let calls begin again: in this process, or in the child that was forked."""
        self._disown()
        self._calls.release()

    def _disown(self) -> None:
        """Leave alone what a fork has brought along: it must neither be used nor closed."""
        if self._pid != os.getpid():
            _inherited.extend(self._idle)
            self._idle.clear()
            self._lent, self._pid = 0, os.getpid()
            weakref.finalize(self, _close, self._idle, self._pid)

    def _lend(self, work: Work[T]) -> T:
        if self._identify() != self._identity:  # what is written to a file without a name is lost
            raise FileNotFoundError("the file was deleted or replaced while in use: restart the server")
        with self._calls:
            self._disown()
            db = self._idle.pop() if self._idle else self._connect()
            self._lent += 1
        sound = False
        try:
            result = work(db)
            sound = True
            return result
        except sqlite3.OperationalError:  # locked, full, and the like: once rolled back, it is as good as new
            if db.in_transaction:
                db.execute("ROLLBACK")
            sound = True
            raise
        finally:
            with self._calls:
                if sound:
                    self._idle.append(db)
                else:
                    db.close()
                self._lent -= 1
                if not self._lent:
                    self._calls.notify_all()

    def _patiently(self, run: Callable[[], T]) -> T:
        """Run, and again while others hold the lock.

        SQLite's own waiting sleeps up to 100 ms at a time, and meanwhile those who came later are served.
        """
        until = None
        while True:
            try:
                return run()
            except sqlite3.OperationalError as error:
                now = time.monotonic()
                until = now + self._timeout if until is None else until
                if str(error) != LOCKED or now >= until:
                    raise
            time.sleep(random.uniform(*PAUSE))  # noqa: S311  # a pause is no secret

    def _prepare(self, prepare: Work[None]) -> None:
        db = self._connect()
        try:
            _transact(db, prepare)
            (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise sqlite3.DatabaseError("SQLite's WAL mode does not work here: use a local disk")
        finally:
            db.close()

    def _connect(self) -> sqlite3.Connection:
        uri = f"{Path(self.path).as_uri()}?mode=rw"  # SQLite must not create it, with rights for everybody
        db = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
        except BaseException:
            db.close()
            raise
        return db

    def _identify(self) -> tuple[int, int] | None:
        with suppress(FileNotFoundError):
            found = os.stat(self.path)
            return found.st_dev, found.st_ino
        return None


def _transact(db: sqlite3.Connection, work: Work[T]) -> T:
    """Run ``work`` between BEGIN and COMMIT; whoever lent the connection rolls back what fails."""
    db.execute("BEGIN IMMEDIATE")
    result = work(db)
    db.execute("COMMIT")
    return result


def _checked(path: str | os.PathLike[str]) -> str:
    """Return the path, absolute and without links; the working directory may change."""
    name = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(name, str):
        raise TypeError(f"path must be str or os.PathLike, not {type(name).__name__}")
    if name == ":memory:":
        raise ValueError("path ':memory:' would be another database for every connection: use MemoryStore")
    if not name or "\0" in name or name.startswith(("file:", "sqlite:")):
        raise ValueError(f"path must be a file's path, and no URL, not {name!r}")
    name = os.path.realpath(name)
    if os.path.exists(name) and not os.path.isfile(name):
        raise ValueError(f"path {name!r} is a folder or a device: name a file")
    return name


def _create(path: str) -> None:
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _explained(path: str, error: Exception) -> Exception:
    """Return what to raise when a file cannot be used from the start."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return ValueError(f"path {path!r}: its folder does not exist: create it first")
    if isinstance(error, PermissionError) or str(error) in READ_ONLY:
        return ValueError(f"path {path!r}: {error}: both the file and its folder must be writable by this user")
    if type(error) is sqlite3.DatabaseError:
        return ValueError(f"path {path!r}: {error}")
    return StoreUnavailable(f"{path}: {error}")


# Forks

_files: weakref.WeakSet[SQLiteFile] = weakref.WeakSet()
_paused: list[SQLiteFile] = []
_forking = threading.Lock()
_inherited: list[sqlite3.Connection] = []  # by forks that Python did not see


def _close(connections: list[sqlite3.Connection], pid: int) -> None:
    while connections and pid == os.getpid():
        connections.pop().close()


def _before_fork() -> None:
    _forking.acquire()
    for file in list(_files):
        file.pause()
        _paused.append(file)


def _after_fork() -> None:
    while _paused:
        _paused.pop().resume()
    _forking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
