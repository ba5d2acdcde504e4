"""`SQLiteStore`: sessions in one SQLite file, for the processes and threads of one machine.

One table, a row for each session.  Compare-and-set is one UPDATE.  Readers wait for no one (WAL),
and writers for each other (`sqlite_file` has the connections).

A session keeps its row for life: `rotate` writes the new id into it, and the tombstone of the old
id gets a row of its own.  So a listing that goes once through the rows that were there when it
began meets each of their sessions once, even if it is rotated meanwhile.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
import warnings
from collections.abc import Callable, Iterator
from math import isfinite

from .. import checks
from .base import TOMBSTONE, TOMBSTONE_LIFE, Stored
from .sqlite_file import PAUSE, Schema, SQLiteFile

# The header of a file has "mses" here, which says that it is ours.
APPLICATION_ID = 0x6D736573

# Rows: more than a create adds, and too few to be noticed.
FREED_PER_CREATE = 8

# Rows that `purge`, `clear` and `ids` take at a time; deleting them takes some 0.04 s.
BATCH = 500

# The statements that lead from each version to the next; a new file goes through all of them.
#
# Rows lie in the order in which they were created, so those that expire together lie together.
# WITHOUT ROWID they would lie in the order of random ids, in a file that is an eighth larger and no
# faster.
VERSIONS = (
    (
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
    ),
    ("ALTER TABLE sessions ADD COLUMN heir TEXT",),
)

LOAD = "SELECT data, expires_at FROM sessions WHERE id = ? AND expires_at > ?"
# An expired row keeps its id until it is freed; it must not block a new one.
CREATE = """
    INSERT INTO sessions (id, data, expires_at, user) VALUES (?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE
    SET data = excluded.data, expires_at = excluded.expires_at, user = excluded.user, heir = NULL
    WHERE sessions.expires_at <= ?
"""
REPLACE = """
    UPDATE sessions SET data = ?, expires_at = ?, user = ?
    WHERE id = ? AND data = ? AND expires_at > ?
"""
TOUCH = "UPDATE sessions SET expires_at = ?, user = ? WHERE id = ? AND data = ? AND expires_at > ?"
VACATE = "DELETE FROM sessions WHERE id = ? AND expires_at <= ?"
RENAME = """
    UPDATE sessions SET id = ?, data = ?, expires_at = ?, user = ?
    WHERE id = ? AND data = ? AND expires_at > ?
    AND NOT EXISTS (SELECT 1 FROM sessions WHERE id = ?)
"""
BURY = "INSERT INTO sessions (id, data, expires_at, heir) VALUES (?, ?, ?, ?)"
HEIR = "SELECT heir FROM sessions WHERE id = ? AND length(data) = 0 AND expires_at > ?"
DELETE = "DELETE FROM sessions WHERE id = ? AND length(data) > 0 AND expires_at > ?"

NEWEST = "SELECT coalesce(max(rowid), 0) FROM sessions"
IDS = """
    SELECT rowid, id FROM sessions
    WHERE rowid > ? AND rowid <= ? AND expires_at > ? AND length(data) > 0
    ORDER BY rowid LIMIT ?
"""
IDS_OF_USER = IDS.replace("WHERE", "WHERE user = ? AND")

# What may go, and whether it counts as a session.
EXPIRED = """
    SELECT rowid, length(data) > 0 FROM sessions
    WHERE expires_at <= ? ORDER BY expires_at LIMIT ?
"""
UP_TO = """
    SELECT rowid, length(data) > 0 AND expires_at > ? FROM sessions
    WHERE rowid <= ? ORDER BY rowid LIMIT ?
"""
FREE = "DELETE FROM sessions WHERE rowid = ?"


class SQLiteStore:
    """Sessions in a SQLite file, which outlive the process, and which a machine's processes share.

    The file is created if it is missing, readable by its owner alone (0600), as are ``-wal`` and
    ``-shm`` beside it.  It needs a local disk.  What has expired is freed as sessions are created,
    at most 8 rows each time; the file does not shrink, but its space is used again.

    Every call has a connection to itself, and there are as many as there were calls at once.  All
    are closed before a fork and opened again after it.  A fork that Python does not see (uWSGI's,
    by default) must come before the first call; the constructor leaves nothing open.

    If the file is deleted or replaced while in use, every call is `StoreUnavailable` until the
    server is restarted, because a login that is written to a deleted file is lost.  Restore a
    backup while the server is stopped.

    A file of schema version 1, from before sessions had heirs, is upgraded when it is opened.

    Args:
        path: the file; its folder must exist.
        timeout: seconds that a call waits at most for the locks of others.  Opening waits up to
            20 s where it has something to write: in a new file, or in one of version 1.
        synchronous: ``"FULL"`` waits for the disk at every write: what was acknowledged survives a
            power cut.  ``"NORMAL"`` does not, and writes several times faster: a power cut may undo
            the last writes, and a visitor who had just logged out is logged in again.  With either,
            the file stays intact, and a process that is killed loses nothing.
        clock: the time, in Unix seconds.

    Raises:
        TypeError, ValueError: an argument is wrong; the file or its folder cannot be written; or
            the file is not a database, or belongs to another program, or has a newer version, or
            belongs to a user who is neither this process' nor root.
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
        checks.function("clock", clock)
        schema = Schema(_is_current, _upgrade)
        self._file = SQLiteFile(path, schema, synchronous=synchronous, timeout=timeout)
        self._clock = clock
        if os.stat(self._file.path).st_mode & stat.S_IRWXO:
            message = f"every user of this machine can open {self._file.path}: chmod 600 it"
            warnings.warn(message, stacklevel=2)

    def load(self, id: str) -> Stored | None:
        """Return the record, or None."""
        found = self._file.read(lambda db: db.execute(LOAD, (id, self._clock())).fetchall())
        return Stored(*found[0]) if found else None

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        """Store a new record, and free a few that have expired."""

        def insert(db: sqlite3.Connection) -> bool:
            now = self._clock()
            _free(db, FREED_PER_CREATE, EXPIRED, now)
            return db.execute(CREATE, (id, data, expires_at, user, now)).rowcount == 1

        return self._file.write(insert)

    def replace(
        self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None
    ) -> bool:
        """Store ``data`` if the record is still ``seen``."""
        return bool(seen) and self._change(REPLACE, data, expires_at, user, id, seen)

    def touch(self, id: str, seen: bytes, expires_at: float, user: str | None = None) -> bool:
        """Move the expiry if the record is still ``seen``."""
        return bool(seen) and self._change(TOUCH, expires_at, user, id, seen)

    def rotate(
        self,
        old: str,
        seen: bytes,
        new: str,
        data: bytes,
        expires_at: float,
        user: str | None = None,
        *,
        inherits: bool,
    ) -> bool:
        """Give the session a new id in one transaction, and free a few that have expired."""

        def move(db: sqlite3.Connection) -> bool:
            now = self._clock()
            _free(db, FREED_PER_CREATE, EXPIRED, now)
            db.execute(VACATE, (new, now))
            values = new, data, expires_at, user, old, seen, now, new
            moved = db.execute(RENAME, values).rowcount == 1
            if moved:
                heir = new if inherits else None
                db.execute(BURY, (old, TOMBSTONE, now + TOMBSTONE_LIFE, heir))
            return moved

        return bool(seen) and self._file.write(move)

    def heir(self, id: str) -> str | None:
        """Return the id that inherited from a tombstone."""
        found = self._file.read(lambda db: db.execute(HEIR, (id, self._clock())).fetchall())
        return found[0][0] if found else None

    def delete(self, id: str) -> bool:
        """Delete the record."""
        return self._change(DELETE, id)

    def close(self) -> None:
        """Close the connections, after the calls under way; a later call opens new ones."""
        self._file.close()

    def ids(self, user: str | None = None) -> Iterator[str]:
        """Yield live sessions' ids, oldest first, in batches that hold no lock and no snapshot."""
        last, newest = 0, self._newest()
        while found := self._batch(user, last, newest):
            yield from (id for _, id in found)
            last = found[-1][0]

    def purge(self) -> int:
        """Free what had expired, in batches, so that others can write; return how many sessions."""
        return self._free_all(EXPIRED, self._clock())

    def clear(self) -> int:
        """Delete what was there at the call, batch by batch; return how many live sessions."""
        return self._free_all(UP_TO, self._clock(), self._newest())

    def _newest(self) -> int:
        """Return the highest row number."""
        return int(self._file.read(lambda db: db.execute(NEWEST).fetchall())[0][0])

    def _batch(self, user: str | None, last: int, newest: int) -> list[tuple[int, str]]:
        statement, whose = (IDS, ()) if user is None else (IDS_OF_USER, (user,))
        parameters = (*whose, last, newest, self._clock(), BATCH)
        return self._file.read(lambda db: db.execute(statement, parameters).fetchall())

    def _change(self, statement: str, *parameters: object) -> bool:
        def change(db: sqlite3.Connection) -> bool:
            return db.execute(statement, (*parameters, self._clock())).rowcount == 1

        return self._file.write(change)

    def _free_all(self, which: str, *bounds: float) -> int:
        freed = 0
        while True:
            rows, sessions = self._file.write(lambda db: _free(db, BATCH, which, *bounds))
            freed += sessions
            if rows < BATCH:
                return freed
            # Long enough for each waiting call to ask for the lock once.
            time.sleep(PAUSE[1])


def _free(db: sqlite3.Connection, limit: int, which: str, *bounds: float) -> tuple[int, int]:
    """Delete some rows; return how many, and how many of these were sessions."""
    found = db.execute(which, (*bounds, limit)).fetchall()
    if found:
        db.executemany(FREE, [(row,) for row, _ in found])
    return len(found), sum(session for _, session in found)


def _version(db: sqlite3.Connection) -> int:
    """Return the schema's version, 0 for an empty database; refuse one that is not ours."""
    ((application,),) = db.execute("PRAGMA application_id")
    ((version,),) = db.execute("PRAGMA user_version")
    if application == APPLICATION_ID:
        if version > len(VERSIONS):
            known = f"this minisession knows {len(VERSIONS)}: upgrade minisession"
            raise sqlite3.DatabaseError(f"the file is of version {version} and {known}")
    elif application or version or db.execute("SELECT 1 FROM sqlite_master").fetchall():
        remedy = "give sessions a file of their own"
        raise sqlite3.DatabaseError(f"the file is another program's database: {remedy}")
    return int(version)


def _is_current(db: sqlite3.Connection) -> bool:
    return _version(db) == len(VERSIONS)


def _upgrade(db: sqlite3.Connection) -> None:
    """Bring an empty database, or one of an older version, up to date."""
    for statements in VERSIONS[_version(db) :]:
        for statement in statements:
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {len(VERSIONS)}")
