"""`SQLiteStore`, interrupted at every line: by a signal, a time limit, a greenlet's end, a full stack.

A trace function raises before one line after the other of each call.  Afterwards the store must work for
everyone else: no call counts as under way (or each fork would wait for it), no lock is held, and each
connection is closed or works.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minisession.stores import sqlite, sqlite_file, sqlite_owner
from minisession.stores.base import TOMBSTONE
from minisession.stores.sqlite import SQLiteStore

from ..support import interruptions
from ..support.rows import row
from .test_sqlite_store import LATER, ended_well, fork, open_files, sql

FILES = {str(module.__file__) for module in (sqlite, sqlite_file, sqlite_owner)}
NEVER = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: pytest.fail("it waited"))


def interrupted(call: Callable[[], object], line: int) -> bool:
    """Make the call, and raise before the line of this number; False if it ended before."""
    return interruptions.interrupted(call, line, FILES)


@pytest.fixture
def path() -> Iterator[Path]:
    """In memory, where there is such a folder, because a disk would be waited for thousands of times."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        yield Path(folder, "sessions.db")


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path, timeout=0, synchronous="NORMAL", clock=lambda: 1000.0)
    yield store
    store.close()


VERBS: dict[str, Callable[[SQLiteStore], object]] = {
    "load": lambda store: store.load("a"),
    "create": lambda store: store.create("new", b"data", LATER, "ann"),
    "replace": lambda store: store.replace("a", b"data", b"new", LATER, "ann"),
    "touch": lambda store: store.touch("a", b"data", LATER - 1, "ann"),
    "rotate": lambda store: store.rotate("a", b"data", "new", b"new", LATER, "ann", inherits=True),
    "heir": lambda store: store.heir("tomb"),
    "delete": lambda store: store.delete("a"),
    "ids": lambda store: list(store.ids("ann")),
    "purge": lambda store: store.purge(),
    "clear": lambda store: store.clear(),
    "close": lambda store: store.close(),
}

Content = set[tuple[Any, ...]]


def content(path: Path) -> Content:
    with sql(path) as db:
        return set(db.execute("SELECT id, data, expires_at, user, heir FROM sessions"))


def fill(path: Path) -> None:
    """A session, one that has expired, and a tombstone."""
    with sql(path) as db:
        db.execute("DELETE FROM sessions")
        db.executemany(
            "INSERT INTO sessions (id, data, expires_at, user, heir) VALUES (?, ?, ?, ?, ?)",
            [
                ("a", b"data", LATER, "ann", None),
                ("old", b"data", 10.0, "ann", None),
                ("tomb", TOMBSTONE, LATER, None, "a"),
            ],
        )


def check(store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store works for all others, and a fork waits for nothing."""
    with sql(path) as other:
        other.execute("PRAGMA busy_timeout = 0")
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    assert store._file._calls == set()
    for db in store._file._own():
        assert not db.in_transaction
        assert db.execute("SELECT 1").fetchall() == [(1,)]
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_file, "time", NEVER)
        sqlite_file._before_fork()
        sqlite_file._after_fork()
    assert store._file._own() == []
    done: list[bool] = []
    thread = threading.Thread(target=lambda: done.append(store.create("another", b"data", LATER)))
    thread.start()
    thread.join(30)
    assert done == [True]
    assert store.delete("another")


@row("T8")
@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("verb", VERBS)
def test_an_exception_at_any_line_of_a_call_leaves_a_store_that_works(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, connected: bool
) -> None:
    """And either all of the call is done or nothing."""
    monkeypatch.setattr(sqlite, "BATCH", 1)
    monkeypatch.setattr(sqlite, "PAUSE", (0.0, 0.0))
    line, possible, files = 0, set[frozenset[tuple[Any, ...]]](), 0
    while True:
        line += 1
        fill(path)
        before = content(path)
        store.load("a") if connected else store.close()
        if not interrupted(lambda: VERBS[verb](store), line):
            break
        after = content(path)
        possible.add(frozenset(after))
        assert verb in ("purge", "clear") or before - after <= {
            ("a", b"data", LATER, "ann", None),
            ("old", b"data", 10.0, "ann", None),
        }
        check(store, path, monkeypatch)
        files = files or open_files()
        assert open_files() == files
    assert line > 5
    assert len(possible) <= (4 if verb in ("purge", "clear") else 2)


@row("T8")
@pytest.mark.parametrize("verb", ["create", "rotate", "delete", "purge"])
def test_an_exception_in_a_call_that_fails_leaves_a_store_that_works(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """The database is locked, and the lock is gone afterwards."""
    fill(path)
    line = 0
    while True:
        line += 1
        with sql(path) as other:
            other.execute("BEGIN IMMEDIATE")
            store.load("a")
            if not interrupted(lambda: VERBS[verb](store), line):
                break
        check(store, path, monkeypatch)
    assert line > 10


@row("T8")
def test_an_exception_at_any_line_of_opening_leaves_nothing_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, line = open_files(), 0
    stores: list[SQLiteStore] = []
    while True:
        line += 1
        for left in path.parent.iterdir():
            left.unlink()
        if not interrupted(lambda: stores.append(SQLiteStore(path, timeout=0)), line):
            break
        if not stores:
            assert open_files() == files
            check(SQLiteStore(path), path, monkeypatch)
        stores.clear()
    assert line > 50


@row("T8")
def test_an_exception_at_any_line_before_a_fork_stops_neither_calls_nor_forks(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python forks even then, and says so."""
    line = 0
    while True:
        line += 1
        store.load("a")
        more = interrupted(sqlite_file._before_fork, line)
        sqlite_file._after_fork()
        if not more:
            break
        check(store, path, monkeypatch)
    assert line > 5
    assert ended_well(fork(lambda: store.create("child's", b"data", LATER)))
    assert store.load("child's") is not None


@row("T8")
def test_a_connection_that_is_interrupted_as_it_is_opened_is_closed(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what SQLite does, too: an error in its first statement."""
    opened: list[sqlite3.Connection] = []

    def connect(*args: Any, **options: Any) -> sqlite3.Connection:
        opened.append(sqlite3.connect(*args, **options))
        return opened[-1]

    def fail(path: str) -> None:
        raise MemoryError

    monkeypatch.setattr(sqlite_file, "sqlite3", SimpleNamespace(**{**vars(sqlite3), "connect": connect}))
    monkeypatch.setattr(sqlite_file, "check_files", fail)
    store.close()
    with pytest.raises(MemoryError):
        store.load("a")
    (db,) = opened
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        db.execute("SELECT 1")
    assert store._file._calls == set()


def test_a_handler_of_a_signal_may_use_the_store_in_the_midst_of_a_call(store: SQLiteStore) -> None:
    """There is no lock that the call it interrupts could hold."""

    def work(db: sqlite3.Connection) -> object:
        return store.create("handler's", b"data", LATER)

    assert store._file.read(work) is True
    assert len(store._file._own()) == 2
    assert os.getpid() in store._file._idle
