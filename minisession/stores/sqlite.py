"""`SQLiteStore`: sessions in one SQLite file, for the processes and threads of one machine.

One table, a row for each session.  Compare-and-set is one UPDATE.  Readers wait for nobody (WAL), and
writers for each other (`sqlite_file` has the connections).
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
import warnings
from collections.abc import Callable, Iterator
from math import inf, isfinite

from .base import Stored
from .sqlite_file import PAUSE, SQLiteFile

APPLICATION_ID = 0x6D736573  # "mses", in the file's header: whose it is
SCHEMA_VERSION = 1
FREED_PER_CREATE = 8  # rows: more than a create adds, and few enough not to be felt
BATCH = 500  # rows that `purge`, `clear` and `ids` take at a time: others wait for 500 deletions some 0.04 s

# Rows lie in the order in which they were created, and so do those that expire together.  WITHOUT ROWID
# they would lie in the order of random ids, in a file that is an eighth larger and no faster.
SCHEMA = (
    """
    CREATE TABLE sessions (
        id TEXT NOT NULL PRIMARY KEY,
        data BLOB NOT NULL CHECK (typeof(data) = 'blob'),
        expires_at REAL NOT NULL CHECK (typeof(expires_at) = 'real'),
        user TEXT
    )
    """,
    "CREATE INDEX sessions_by_expiry ON sessions (expires_at)",
    "CREATE INDEX sessions_by_user ON sessions (user) WHERE user IS NOT NULL",
    f"PRAGMA application_id = {APPLICATION_ID}",
)

LOAD = "SELECT data, expires_at FROM sessions WHERE id = ? AND expires_at > ?"
# An expired row has its id until it is freed; it must not be in the way of a new one.
CREATE = """
    INSERT INTO sessions (id, data, expires_at, user) VALUES (?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET data = excluded.data, expires_at = excluded.expires_at, user = excluded.user
    WHERE sessions.expires_at <= ?
"""
REPLACE = "UPDATE sessions SET data = ?, expires_at = ?, user = ? WHERE id = ? AND data = ? AND expires_at > ?"
TOUCH = "UPDATE sessions SET expires_at = ?, user = ? WHERE id = ? AND data = ? AND expires_at > ?"
DELETE = "DELETE FROM sessions WHERE id = ? AND expires_at > ?"
EXPIRED = "SELECT rowid, length(data) > 0 FROM sessions WHERE expires_at <= ? ORDER BY expires_at LIMIT ?"
FREE = "DELETE FROM sessions WHERE rowid = ?"
IDS = """
    SELECT rowid, id FROM sessions WHERE rowid > ? AND expires_at > ? AND length(data) > 0
    ORDER BY rowid LIMIT ?
"""
IDS_OF_USER = IDS.replace("WHERE", "WHERE user = ? AND")


class SQLiteStore:
    """Sessions in a SQLite file: they outlive the process, and the processes of a machine share them.

    The file is created if it is missing, readable by its owner alone (0600), as are ``-wal`` and
    ``-shm`` beside it.  It needs a local disk.  What has expired is freed as sessions are created, at
    most 8 rows each time; the file does not shrink, but its space is used again.

    Every call has a connection to itself, and there are as many as there were calls at once.  All are
    closed before a fork and opened again after it.  A fork that Python does not see (uWSGI's, by
    default) must come before the first call; the constructor leaves nothing open.

    If the file is deleted or replaced while in use, every call is `StoreUnavailable` until the server
    is restarted: no login is written where nobody will find it.  Restore a backup while it is stopped.

    Args:
        path: the file; its folder must exist.
        timeout: seconds that a call waits at most for the locks of others.
        synchronous: ``"FULL"`` waits for the disk at every write: what was acknowledged survives a
            power cut.  ``"NORMAL"`` does not, and writes several times faster: a power cut may undo the
            last writes, so that who had just logged out is logged in again.  With either the file stays
            sound, and a process that is killed loses nothing.
        clock: the time, in Unix seconds.

    Raises:
        TypeError, ValueError: an argument is wrong; the file or its folder cannot be written; or the
            file is no database, another program's, or of a newer version.
        StoreUnavailable: the file is locked, or the disk is full or broken.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout: float = 1.0,
        synchronous: str = "FULL",
        clock: Callable[[], float] = time.time,
    ) -> None:
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
            raise TypeError(f"timeout must be seconds, not {timeout!r}")
        if not (isfinite(timeout) and timeout >= 0):
            raise ValueError(f"timeout must be finite and not negative, not {timeout!r}")
        if synchronous not in ("FULL", "NORMAL"):
            raise ValueError(f'synchronous must be "FULL" or "NORMAL", not {synchronous!r}')
        if not callable(clock):
            raise TypeError(f"clock must be callable, not {clock!r}")
        self._file = SQLiteFile(path, _prepare, synchronous=synchronous, timeout=timeout)
        self._clock = clock
        if os.stat(self._file.path).st_mode & stat.S_IRWXO:
            warnings.warn(f"every user of this machine can open {self._file.path}: chmod 600 it", stacklevel=2)

    def load(self, id: str) -> Stored | None:
        """Return the record, or None."""
        found = self._file.read(lambda db: db.execute(LOAD, (id, self._clock())).fetchall())
        return Stored(*found[0]) if found else None

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        """Store a new record, and free a few that have expired."""

        def insert(db: sqlite3.Connection) -> bool:
            now = self._clock()
            _free(db, now, FREED_PER_CREATE)
            return db.execute(CREATE, (id, data, expires_at, user, now)).rowcount == 1

        return self._file.write(insert)

    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        """Store ``data`` if the record is still ``seen``."""
        return self._change(REPLACE, data, expires_at, user, id, seen)

    def touch(self, id: str, seen: bytes, expires_at: float, user: str | None = None) -> bool:
        """Move the expiry if the record is still ``seen``."""
        return self._change(TOUCH, expires_at, user, id, seen)

    def delete(self, id: str) -> bool:
        """Forget the record."""
        return self._change(DELETE, id)

    def close(self) -> None:
        """Close the connections, after the calls under way; a later call opens new ones."""
        self._file.close()

    def ids(self, user: str | None = None) -> Iterator[str]:
        """Yield the ids of live sessions, oldest first, in batches that keep no lock and no snapshot."""
        last = 0
        while found := self._batch(user, last):
            yield from (id for _, id in found)
            last = found[-1][0]

    def purge(self) -> int:
        """Free all that has expired, in batches that let others in between; return how many sessions."""
        return self._free_until(self._clock())

    def clear(self) -> int:
        """Forget every session, and every tombstone, in the manner of `purge`; return how many sessions."""
        return self._free_until(inf)

    def _batch(self, user: str | None, last: int) -> list[tuple[int, str]]:
        statement, whose = (IDS, ()) if user is None else (IDS_OF_USER, (user,))
        return self._file.read(lambda db: db.execute(statement, (*whose, last, self._clock(), BATCH)).fetchall())

    def _change(self, statement: str, *parameters: object) -> bool:
        return self._file.write(lambda db: db.execute(statement, (*parameters, self._clock())).rowcount == 1)

    def _free_until(self, moment: float) -> int:
        freed = 0
        while True:
            rows, sessions = self._file.write(lambda db: _free(db, moment, BATCH))
            freed += sessions
            if rows < BATCH:
                return freed
            time.sleep(PAUSE[1])  # in which everybody who waits for the lock asks for it once


def _free(db: sqlite3.Connection, moment: float, limit: int) -> tuple[int, int]:
    """Delete some of what expires by then; return how many rows, and how many of these were sessions."""
    found = db.execute(EXPIRED, (moment, limit)).fetchall()
    if found:
        db.executemany(FREE, [(row,) for row, _ in found])
    return len(found), sum(session for _, session in found)


def _prepare(db: sqlite3.Connection) -> None:
    """Give an empty database its tables, and refuse one that is not ours."""
    ((application,),) = db.execute("PRAGMA application_id")
    ((version,),) = db.execute("PRAGMA user_version")
    if application == APPLICATION_ID:
        if version > SCHEMA_VERSION:
            raise sqlite3.DatabaseError(
                f"the file is of version {version} and this minisession knows {SCHEMA_VERSION}: upgrade minisession"
            )
    elif application or version or db.execute("SELECT 1 FROM sqlite_master").fetchall():
        raise sqlite3.DatabaseError("the file is another program's database: give sessions a file of their own")
    else:
        for statement in SCHEMA:
            db.execute(statement)
    # Also where it is so already: that the file cannot be written is better found now than at a login.
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
