"""`SQLiteStore`: what a file, its locks, its disk, forks and kills can do to it.

What it has in common with other stores is the model at the end, and the contract of all stores.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from minisession import ListingStore, StoreUnavailable
from minisession.options import new_id
from minisession.stores import sqlite, sqlite_file
from minisession.stores.base import TOMBSTONE, TOMBSTONE_LIFE
from minisession.stores.sqlite import BATCH, FREED_PER_CREATE, SQLiteStore
from minisession.stores.sqlite_file import SQLiteFile

from ..support.browser import Clock
from ..support.rows import row
from ..support.site import Site, data, put

HOUR = 3600.0
LATER = 4e9  # Unix seconds, in the year 2096
KILLS = int(os.environ.get("MINISESSION_KILLS", "100"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path, clock=clock, synchronous="NORMAL")
    yield store
    store.close()


@contextmanager
def sql(path: Path) -> Iterator[sqlite3.Connection]:
    """Be another program that has opened the file."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def is_sound(path: Path) -> bool:
    with sql(path) as db:
        return db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def rows(path: Path) -> int:
    with sql(path) as db:
        (number,) = db.execute("SELECT count(*) FROM sessions").fetchone()
    return int(number)


def fork(body: Callable[[], object]) -> int:
    """Run ``body`` in a forked process; return its pid.  Nothing of this process is tidied up in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # servers that have threads do fork
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body()
            status = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)
    return pid


def ended_well(*pids: int) -> bool:
    return [os.waitpid(pid, 0)[1] for pid in pids] == [0] * len(pids)


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


class TestVerbs:
    """What SQL could get wrong; the contract has the rest."""

    def test_infinity_comes_back(self, store: SQLiteStore) -> None:
        store.create("id", b"data", inf)
        assert store.load("id") == (b"data", inf)
        assert store.touch("id", b"data", 5e-324)
        assert store.load("id") is None

    @row("C1", "P12")
    @pytest.mark.parametrize(
        "text",
        [
            *("a\0b", "a\0", "'; DROP TABLE sessions--", "' OR 1=1--", '"', "%", "_", "*", "?1", ":id", "\r\n"),
            *("A", "a ", "é", "e\u0301", "\u202e", "\ufffe", "😀", "x" * 255, "😀" * 255, "7", "7.0", "NULL"),
        ],
    )
    def test_any_text_is_an_id_and_a_user_of_its_own(self, store: SQLiteStore, text: str) -> None:
        """No byte can be SQL, and what looks alike is not the same."""
        for other in ("a", "7.", "E", ""):
            store.create(f"{other}.", b"other", inf, f"{other}.")
        assert store.create(text, text.encode(), inf, text)
        assert store.load(text) == (text.encode(), inf)
        assert list(store.ids(text)) == [text]
        assert store.touch(text, text.encode(), LATER, text)
        assert store.replace(text, text.encode(), b"new", LATER)
        assert store.delete(text)
        assert (store.load(text), len(list(store.ids()))) == (None, 4)

    def test_a_users_sessions_come_oldest_first_and_only_the_last_user_counts(self, store: SQLiteStore) -> None:
        for id in "cab":
            store.create(id, b"data", inf, "ann")
        store.create("bob's", b"data", inf, "bob")
        store.touch("bob's", b"data", inf, "ann")
        store.touch("a", b"data", inf, "bob")
        store.replace("b", b"data", b"new", inf)
        assert list(store.ids("ann")) == ["c", "bob's"]
        assert (list(store.ids("bob")), list(store.ids("eve"))) == (["a"], [])

    def test_every_session_is_listed_once_while_others_change(self, store: SQLiteStore, path: Path) -> None:
        """And the listing neither fails nor holds up the log's checkpoint."""
        size = 3 * BATCH
        for n in range(size):
            store.create(f"{n}", b"data", inf)
        listed = []
        for n, id in enumerate(store.ids()):
            listed.append(id)
            store.delete(f"{2 * n + 1}")
            store.touch(f"{2 * n}", b"data", LATER)
            if n < size:
                store.create(f"new {n}", b"data", inf)
            if n == BATCH // 2:
                with sql(path) as db:
                    assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
        assert len(listed) == len(set(listed))
        assert {f"{n}" for n in range(0, size, 2)} <= set(listed)

    def test_a_rotated_session_keeps_its_place_and_the_tombstone_lasts_15_seconds(
        self, store: SQLiteStore, path: Path, clock: Clock
    ) -> None:
        for id in "ab":
            store.create(id, b"data", inf, "ann")
        assert store.rotate("a", b"data", "c", b"new", LATER, "ann", inherits=True)
        assert list(store.ids("ann")) == list(store.ids()) == ["c", "b"]
        assert not store.delete("a")
        assert store.load("a") == (TOMBSTONE, clock() + 15)
        with sql(path) as db:
            assert db.execute("SELECT user, heir FROM sessions WHERE id = 'a'").fetchall() == [(None, "c")]
        clock.advance(15)
        assert (store.load("a"), store.heir("a")) == (None, None)

    def test_a_rotation_that_is_refused_changes_no_row(self, store: SQLiteStore, path: Path, clock: Clock) -> None:
        store.create("a", b"data", LATER, "ann")
        store.create("taken", b"other", LATER)
        store.create("gone", b"data", clock() + 1)
        store.create("moved", b"data", LATER)
        assert store.rotate("moved", b"data", "heir", b"data", LATER, inherits=True)
        clock.advance(1)
        for old, seen, new in [
            ("a", b"other", "new"),
            ("a", b"", "new"),
            ("a", b"data", "taken"),
            ("a", b"data", "moved"),
            ("a", b"data", "a"),
            ("gone", b"data", "new"),
            ("absent", b"data", "new"),
            ("moved", b"", "new"),
        ]:
            assert not store.rotate(old, seen, new, b"new", LATER, "bob", inherits=True)
        assert [(id, store.load(id)) for id in store.ids()] == [
            ("a", (b"data", LATER)),
            ("taken", (b"other", LATER)),
            ("heir", (b"data", LATER)),
        ]
        assert list(store.ids("bob")) == []

    def test_a_new_id_may_be_one_that_has_expired_and_is_not_yet_freed(
        self, store: SQLiteStore, path: Path, clock: Clock
    ) -> None:
        for n in range(20):
            store.create(f"{n}", b"old", clock() + n + 1, "bob")
        store.create("a", b"data", LATER)
        clock.advance(20)
        assert store.rotate("a", b"data", "19", b"new", LATER, "ann", inherits=True)
        assert store.load("19") == (b"new", LATER)
        assert rows(path) == 2 + 20 - 1 - FREED_PER_CREATE  # which a rotation frees as well

    def test_an_heir_is_forgotten_with_its_tombstone(self, store: SQLiteStore, path: Path, clock: Clock) -> None:
        """Or the end of a later session of this id would end the heir."""
        for n in range(FREED_PER_CREATE):  # are freed first, so that the tombstone is still there
            store.create(f"{n}", b"data", clock() + 1)
        store.create("a", b"data", LATER)
        store.rotate("a", b"data", "b", b"data", LATER, inherits=True)
        clock.advance(15)
        assert store.create("a", b"data", LATER)
        with sql(path) as db:
            assert db.execute("SELECT heir FROM sessions WHERE id = 'a'").fetchall() == [(None,)]
        assert store.rotate("a", b"data", "c", b"data", LATER, inherits=False)
        assert store.heir("a") is None

    def test_no_rotation_hides_a_session_from_a_listing(
        self, store: SQLiteStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Before the listing has met it or after, once or often, however long ago: tombstones may be freed by now."""
        monkeypatch.setattr(sqlite, "BATCH", 3)
        rng = random.Random(8)
        for turn in range(60):
            user = ("ann", None)[turn % 2]
            store.clear()
            ids = {n: [f"{turn}.{n}"] for n in range(12)}  # that each session has had since the call began
            for n in ids:
                store.create(ids[n][0], b"data", LATER, "ann")
            listed = []
            for id in store.ids(user):
                listed.append(id)
                for _ in range(rng.randrange(4)):
                    n = rng.randrange(12)
                    new = f"{ids[n][-1]}'"
                    assert store.rotate(ids[n][-1], b"data", new, b"data", LATER, "ann", inherits=True)
                    ids[n].append(new)
                if rng.random() < 0.3:
                    clock.advance(15)
                    store.purge()
            assert len(listed) == len(set(listed)) == 12  # and none is met twice
            assert all(set(listed) & set(had) for had in ids.values())

    def test_a_listing_ends_although_a_session_is_rotated_at_every_step(
        self, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite, "BATCH", 1)
        for id in "ab":
            store.create(id, b"data", LATER, "ann")
        current = "b"
        for n, _ in enumerate(store.ids("ann")):
            assert n < 2
            store.rotate(current, b"data", f"b{n}", b"data", LATER, "ann", inherits=True)
            store.create(f"new {n}", b"data", LATER, "ann")
            current = f"b{n}"

    def test_it_is_a_listing_store(self, store: SQLiteStore) -> None:
        listing: ListingStore = store  # mypy is the test
        assert list(listing.ids()) == []

    def test_no_statement_reads_the_whole_table(self, store: SQLiteStore, path: Path) -> None:
        expected = {
            sqlite.CREATE: "",
            sqlite.EXPIRED: "USING INDEX sessions_by_expiry (expires_at<?)",
            sqlite.FREE: "USING INTEGER PRIMARY KEY (rowid=?)",
            sqlite.IDS: "USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
            sqlite.IDS_OF_USER: "USING INDEX sessions_by_user (user=? AND rowid>? AND rowid<?)",
            sqlite.UP_TO: "USING INTEGER PRIMARY KEY (rowid<?)",
            sqlite.BURY: "",
        }
        by_id = "USING INDEX sqlite_autoindex_sessions_1 (id=?)"
        for statement in (sqlite.LOAD, sqlite.REPLACE, sqlite.TOUCH, sqlite.DELETE, sqlite.VACATE, sqlite.HEIR):
            expected[statement] = by_id
        for statement, index in expected.items():
            with sql(path) as db:
                plan = db.execute(f"EXPLAIN QUERY PLAN {statement}", (1,) * statement.count("?")).fetchall()
                (newest,) = db.execute(f"EXPLAIN QUERY PLAN {sqlite.NEWEST}").fetchall()
                steps = db.execute(f"EXPLAIN QUERY PLAN {sqlite.RENAME}", (1,) * 8).fetchall()
            assert "SEARCH" in newest[3]  # one step, at the end of the table
            assert not [step for *_, step in steps if "SCAN" in step]
            assert [step.replace("TABLE ", "") for *_, step in plan] == ([f"SEARCH sessions {index}"] if index else [])


class TestExpiry:
    def test_a_create_frees_a_few_of_those_that_expired(self, store: SQLiteStore, path: Path, clock: Clock) -> None:
        for n in range(100):
            store.create(f"{n}", b"data", clock() + 10, "ann")
        clock.advance(10)
        for n in range(1, 12):
            store.create(f"new {n}", b"data", clock() + HOUR)
            assert rows(path) == 100 + n - FREED_PER_CREATE * n
        store.create("last", b"data", clock() + HOUR)
        store.create("very last", b"data", clock() + HOUR)
        assert rows(path) == 13

    @row("T7")
    def test_purge_frees_all_and_lets_others_in_between(
        self, store: SQLiteStore, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for n in range(3 * BATCH + 10):
            store.create(f"{n}", b"data" if n % 10 else TOMBSTONE, clock() + 10, "ann")
        for n in range(5):
            store.create(f"live {n}", b"data", clock() + 11)
        clock.advance(10)
        left = []

        def others(seconds: float) -> None:
            assert seconds > 0
            left.append(rows(path))
            assert SQLiteStore(path, clock=clock, timeout=0).touch("live 1", b"data", clock() + HOUR)

        monkeypatch.setattr(sqlite, "time", SimpleNamespace(monotonic=time.monotonic, sleep=others))
        assert store.purge() == (3 * BATCH + 10) * 9 // 10
        assert left == [2 * BATCH + 15, BATCH + 15, 15]
        assert store.purge() == 0
        assert len(list(store.ids())) == rows(path) == 5

    def test_clear_forgets_everything_and_counts_sessions(self, store: SQLiteStore, path: Path, clock: Clock) -> None:
        for n in range(BATCH + 1):
            store.create(f"{n}", (b"data", b"data", TOMBSTONE)[n % 3], (LATER, inf)[n % 2], "ann")
        assert store.clear() == (BATCH + 1) * 2 // 3
        assert (store.clear(), rows(path)) == (0, 0)

    def test_clear_ends_what_was_live_when_it_began_whatever_is_rotated_meanwhile(
        self, store: SQLiteStore, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And neither counts what had expired nor ends what began later."""
        for n in range(3 * BATCH):
            store.create(f"{n}", b"data", clock() + 1 if n % 3 else LATER, "ann")
        clock.advance(1)
        other = SQLiteStore(path, clock=clock, timeout=0)
        pauses = []

        def others(seconds: float) -> None:
            pauses.append(seconds)
            last = f"{3 * BATCH - 3}" + "'" * (len(pauses) - 1)
            assert other.rotate(last, b"data", f"{last}'", b"data", LATER, "ann", inherits=True)
            assert other.create(f"new {len(pauses)}", b"data", LATER)

        monkeypatch.setattr(sqlite, "time", SimpleNamespace(sleep=others))
        assert store.clear() == BATCH
        assert len(pauses) == 2
        assert sorted(store.ids()) == ["new 1", "new 2"]

    @row("T7")
    def test_cleaning_up_does_not_take_a_session_that_was_touched_just_before(self, path: Path, clock: Clock) -> None:
        """Also where the clocks of two processes differ, and one of them has seen it expire."""
        store = SQLiteStore(path, clock=clock)
        expiry = clock() + 10
        store.create("id", b"data", expiry)

        def late() -> float:
            store.touch("id", b"data", expiry + HOUR)
            return expiry + 1

        other = SQLiteStore(path, clock=late)
        assert other.purge() == 0
        assert store.load("id") == (b"data", expiry + HOUR)


class TestFile:
    @row("Q6")
    @pytest.mark.parametrize("mask", [0o022, 0o000, 0o077])
    def test_only_the_owner_can_read_it_whatever_the_umask(self, path: Path, mask: int) -> None:
        before = os.umask(mask)
        try:
            store = SQLiteStore(path)
            store.create("id", b"data", LATER)
            files = sorted(path.parent.iterdir())
            assert [file.name for file in files] == ["sessions.db", "sessions.db-shm", "sessions.db-wal"]
            assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 3
            store.close()
        finally:
            os.umask(before)

    @row("Q6")
    def test_the_rights_of_a_file_that_exists_are_kept_and_remarked_on(self, path: Path) -> None:
        SQLiteStore(path)
        path.chmod(0o644)
        with pytest.warns(UserWarning, match="chmod 600"):
            SQLiteStore(path)
        path.chmod(0o660)  # a group of servers
        SQLiteStore(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660

    @row("P5")
    def test_sessions_outlive_the_store(self, path: Path) -> None:
        store = SQLiteStore(path)
        store.create("id", b"data", inf, "ann")
        store.close()
        assert [file.name for file in path.parent.iterdir()] == ["sessions.db"]
        again = SQLiteStore(path)
        assert again.load("id") == (b"data", inf)
        assert list(again.ids("ann")) == ["id"]

    def test_a_closed_store_opens_again(self, store: SQLiteStore) -> None:
        store.create("id", b"data", inf)
        before = open_files()
        store.close()
        store.close()
        assert open_files() < before
        assert store.load("id") == (b"data", inf)

    def test_a_forgotten_store_closes_its_files(self, path: Path) -> None:
        before = open_files()
        store = SQLiteStore(path)
        store.load("id")
        del store
        assert open_files() == before

    @row("Q7")
    @pytest.mark.parametrize(("synchronous", "level"), [({}, 2), ({"synchronous": "NORMAL"}, 1)])
    def test_the_disk_is_waited_for_unless_told_otherwise(self, path: Path, synchronous: Any, level: int) -> None:
        seen = SQLiteStore(path, **synchronous)._file.read(lambda db: db.execute("PRAGMA synchronous").fetchall())
        assert seen == [(level,)]

    def test_an_empty_file_is_a_new_one(self, path: Path) -> None:
        path.touch(0o640)
        assert SQLiteStore(path).create("id", b"data", inf)
        assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0

    def test_the_folder_may_change_and_the_name_may_be_odd(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("link").symlink_to("linked")
        for name in ("a b", "100%25?mode=memory#x", "é", os.fsdecode(b"\xff"), "link"):
            store = SQLiteStore(name)
            monkeypatch.chdir("/")
            store.create("id", b"data", inf)
            store.close()
            monkeypatch.chdir(tmp_path)
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
        assert len(list(tmp_path.iterdir())) == 6

    @row("O22")
    @pytest.mark.parametrize(
        ("path", "error", "named"),
        [
            (":memory:", ValueError, "MemoryStore"),
            ("", ValueError, "path must be a file's path"),
            ("file:sessions.db", ValueError, "not a URL"),
            ("sqlite:///sessions.db", ValueError, "not a URL"),
            ("redis://:hunter2@host/0", ValueError, "not a URL(?!.*hunter2)"),
            ("redis://:hunter2@host/0\0", ValueError, "not a URL(?!.*hunter2)"),
            ("a\0b", ValueError, "path must be"),
            (b"sessions.db", TypeError, "not bytes"),
            (None, TypeError, "not NoneType"),
            (".", ValueError, "is a folder or a device: name a file"),
            ("/dev/null", ValueError, "is a folder or a device: name a file"),
            ("absent/sessions.db", ValueError, "absent/sessions.db': its folder does not exist"),
            ("/dev/null/sessions.db", ValueError, "its folder does not exist"),
        ],
    )
    def test_a_path_that_cannot_be_a_store_is_explained(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Any, error: type[Exception], named: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(error, match=named):
            SQLiteStore(path)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("options", "error", "named"),
        [
            ({"timeout": -1}, ValueError, "timeout"),
            ({"timeout": inf}, ValueError, "timeout"),
            ({"timeout": "1"}, TypeError, "timeout"),
            ({"timeout": True}, TypeError, "timeout"),
            ({"synchronous": "OFF"}, ValueError, "synchronous"),
            ({"synchronous": "FULL; DROP TABLE"}, ValueError, "synchronous"),
            ({"clock": 1.0}, TypeError, "clock"),
        ],
    )
    def test_a_wrong_argument_is_named(
        self, path: Path, options: dict[str, Any], error: type[Exception], named: str
    ) -> None:
        with pytest.raises(error, match=named):
            SQLiteStore(path, **options)
        assert not path.exists()

    @row("F9")
    @pytest.mark.parametrize(
        ("statements", "named"),
        [
            ([f"PRAGMA application_id = {sqlite.APPLICATION_ID}", "PRAGMA user_version = 3"], "upgrade minisession"),
            (["CREATE TABLE django_session (x)"], "another program's"),
            (["PRAGMA user_version = 1"], "another program's"),
            (["PRAGMA application_id = 7"], "another program's"),
        ],
    )
    def test_a_database_that_is_not_ours_is_refused_and_left_as_it_was(
        self, path: Path, statements: list[str], named: str
    ) -> None:
        with sql(path) as db:
            for statement in statements:
                db.execute(statement)
        before = path.read_bytes()
        with pytest.raises(ValueError, match=named):
            SQLiteStore(path)
        assert path.read_bytes() == before

    @row("Q5")
    @pytest.mark.parametrize("content", [b"not a database" * 100, b"{}", b"\0" * 4096])
    def test_a_file_that_is_not_a_database_is_refused_and_left_as_it_was(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="file is not a database"):
            SQLiteStore(path)
        assert path.read_bytes() == content

    @row("Q5")
    @pytest.mark.parametrize("locked_out", ["file", "folder", "both"])
    def test_what_cannot_be_written_is_refused_at_once(self, locked_out: str) -> None:
        """And not at the first login."""
        with tempfile.TemporaryDirectory() as folder, another_user(folder):
            path = Path(folder, "sessions.db")
            if locked_out == "file":
                SQLiteStore(path)
                path.chmod(0o400)
            else:
                if locked_out == "both":
                    SQLiteStore(path)
                Path(folder).chmod(0o500)
            try:
                with pytest.raises(ValueError, match="writable by this user"):
                    SQLiteStore(path)
            finally:
                Path(folder).chmod(0o700)


@contextmanager
def another_user(folder: str) -> Iterator[None]:
    """Be a user whom the file system can refuse something, with this folder as theirs."""
    if os.geteuid() != 0:
        yield
        return
    os.chown(folder, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a file system of 4 MB; skip where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root of a Linux machine can mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class TestTrouble:
    @row("Q1", "P18")
    @pytest.mark.parametrize("timeout", [{"timeout": 0.05}, {}])
    def test_a_locked_database_costs_a_second_at_most_and_readers_nothing(self, path: Path, timeout: Any) -> None:
        store = SQLiteStore(path, **timeout)
        store.create("id", b"data", LATER)
        with sql(path) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="database is locked"):
                store.replace("id", b"data", b"new", LATER)
            waited = time.monotonic() - began
            assert timeout.get("timeout", 0.95) <= waited < 5
            assert store.load("id") == (b"data", LATER)
            other.execute("COMMIT")
        assert store.replace("id", b"data", b"new", LATER)

    @row("Q1")
    def test_a_page_that_only_reads_works_while_the_database_is_locked(self, path: Path, clock: Clock) -> None:
        site = Site(store=SQLiteStore(path, timeout=0, clock=clock), clock=clock)
        browser = site.browser()
        browser.visit(put("k", 1))
        with sql(path) as other:
            other.execute("BEGIN IMMEDIATE")
            assert browser.visit(data) == {"k": 1}
            answer = browser.get("/", extra_environ={"test.page": put("k", 2), "test.results": []}, expect_errors=True)
            assert (answer.status_int, "Retry-After" in answer.headers) == (503, True)
            assert str(path) not in answer.text
        browser.visit(put("k", 3))
        assert browser.visit(data) == {"k": 3}

    @row("Q2")
    def test_a_writer_that_was_overtaken_waits_and_does_not_fail(self, path: Path) -> None:
        """8 writers; a transaction that reads before it locks would be refused without waiting."""
        store = SQLiteStore(path, timeout=30)

        def write(writer: int) -> int:
            done = 0
            for n in range(25):
                id = f"{writer}.{n}"
                done += store.create(id, b"a", LATER) and store.replace(id, b"a", b"b", LATER)
                done += store.touch(id, b"b", inf) and (n % 2 == 0 or store.delete(id))
            return done

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(write, range(8))) == [50] * 8
        assert len(list(store.ids())) == 8 * 13

    @row("Q3", "P18")
    def test_a_full_disk_is_reported_and_forgiven(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        connect = SQLiteFile._connect

        def small(file: SQLiteFile, call: sqlite_file._Call) -> None:
            connect(file, call)
            call.connection[0].execute("PRAGMA max_page_count = 16")

        store = SQLiteStore(path)

        def make_room() -> None:
            monkeypatch.undo()
            store.close()

        monkeypatch.setattr(SQLiteFile, "_connect", small)
        self.fill_and_recover(store, make_room, "database or disk is full")

    @row("Q3")
    def test_a_file_that_may_not_grow_is_reported_and_forgiven(self, path: Path) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

        def limited() -> None:
            store = SQLiteStore(path)
            store.load("id")
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
            self.fill_and_recover(store, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)), "disk I/O")
            assert is_sound(path)

        assert ended_well(fork(limited))

    @row("Q3")
    def test_a_disk_that_is_full_is_reported_and_forgiven(self, tmp_path: Path) -> None:
        """A real one: a file system of 4 MB, which another program fills."""
        with small_disk(tmp_path / "disk") as disk:
            store = SQLiteStore(disk / "sessions.db")
            store.load("id")
            (disk / "log").write_bytes(b"x" * 3_000_000)
            self.fill_and_recover(store, (disk / "log").unlink, "database or disk is full")
            assert is_sound(disk / "sessions.db")
            store.close()

    def fill_and_recover(self, store: SQLiteStore, make_room: Callable[[], object], named: str) -> None:
        store.create("kept", b"data", LATER, "ann")
        with pytest.raises(StoreUnavailable, match=named) as raised:
            all(store.create(f"{n}", b"data" * 1000, LATER) for n in range(1000))
        stored = len(list(store.ids())) - 1
        assert isinstance(raised.value.__cause__, sqlite3.Error)
        assert stored > 0
        assert store.load("kept") == (b"data", LATER)
        assert store.load(f"{stored - 1}") == (b"data" * 1000, LATER)
        try:
            deleted = store.delete("kept")
        except StoreUnavailable:
            deleted = False
        assert (store.load("kept") is None) == deleted
        make_room()
        assert store.create("new", b"data" * 1000, LATER)
        assert len(list(store.ids())) == stored + 2 - deleted

    @row("Q5")
    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: content[:4096] + os.urandom(len(content) - 4096),
            lambda content: os.urandom(len(content)),
            lambda content: content[: len(content) // 2],
            lambda content: content[:100],
            lambda content: b"",
        ],
    )
    def test_a_damaged_file_is_reported_and_a_repaired_one_works(
        self, path: Path, damage: Callable[[bytes], bytes]
    ) -> None:
        """Never as an absent session that could be created anew, and never by a repair of our own."""
        store = SQLiteStore(path, synchronous="NORMAL")
        for n in range(200):
            store.create(f"{n}", os.urandom(200), LATER)
        store.close()
        whole = path.read_bytes()
        path.write_bytes(damage(whole))
        for verb in (lambda: store.load("7"), lambda: store.create("new", b"data", LATER), store.purge):
            with pytest.raises(StoreUnavailable, match=r"malformed|not a database|no such table"):
                verb()
        path.write_bytes(whole)
        assert store.load("7") is not None
        assert is_sound(path)

    @row("Q5")
    def test_an_empty_log_is_no_harm(self, path: Path) -> None:
        store = SQLiteStore(path)
        store.create("id", b"data", LATER)
        store.close()
        path.with_name("sessions.db-wal").touch()
        assert SQLiteStore(path).load("id") == (b"data", LATER)

    @row("Q5")
    def test_nothing_is_written_to_a_file_that_was_deleted_or_replaced(self, path: Path) -> None:
        """A login that is acknowledged there would be gone at the next restart."""
        store = SQLiteStore(path)
        store.create("id", b"data", LATER)
        aside = path.with_name("aside")
        path.rename(aside)
        for _ in range(2):
            for verb in (lambda: store.load("id"), lambda: store.create("new", b"data", LATER), store.purge):
                with pytest.raises(StoreUnavailable, match="restart the server"):
                    verb()
            assert not path.exists() or path.stat().st_size == 0
            path.touch()
        path.unlink()
        aside.rename(path)
        assert store.load("id") == (b"data", LATER)

    @row("Q5")
    def test_a_file_that_is_deleted_as_it_is_opened_does_not_come_back_empty(
        self, store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store._file, "_identify", lambda: store._file._identity)
        path.unlink()
        with pytest.raises(StoreUnavailable, match="unable to open database file"):
            store.load("id")
        assert not path.exists()

    def test_what_fails_in_a_transaction_is_undone_and_leaves_no_lock(self, store: SQLiteStore, path: Path) -> None:
        store.create("id", b"data", LATER)

        def failing(error: BaseException) -> Callable[[sqlite3.Connection], None]:
            def work(db: sqlite3.Connection) -> None:
                db.execute("DELETE FROM sessions")
                raise error

            return work

        (connection,) = store._file._own()
        with pytest.raises(StoreUnavailable, match="full"):
            store._file.write(failing(sqlite3.OperationalError("full")))
        assert store._file._own() == [connection]  # there might be no room to open another
        for error in (KeyboardInterrupt(), ZeroDivisionError()):
            with pytest.raises(type(error)):
                store._file.write(failing(error))
        for broken in (
            sqlite3.OperationalError("x"),
            sqlite3.DatabaseError("x"),
            sqlite3.IntegrityError("x"),
            OSError(),
        ):
            with pytest.raises(StoreUnavailable) as raised:
                store._file.write(failing(broken))
            assert raised.value.__cause__ is broken
        assert store.load("id") == (b"data", LATER)
        with sql(path) as other:
            other.execute("BEGIN IMMEDIATE")

    def test_a_writer_has_the_lock_before_it_looks(self, store: SQLiteStore, path: Path) -> None:
        """Also before it asks what time it is: it may have waited for the lock."""
        with sql(path) as other:
            other.execute("PRAGMA busy_timeout = 0")

            def clock() -> float:
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    other.execute("BEGIN IMMEDIATE")
                asked.append(True)
                return 0.0

            asked: list[bool] = []
            locking = SQLiteStore(path, clock=clock)
            locking.create("id", b"data", LATER)
            locking.replace("id", b"data", b"new", LATER)
            locking.touch("id", b"new", LATER)
            locking.rotate("id", b"new", "other", b"new", LATER, inherits=True)
            locking.delete("other")
            assert len(asked) == 5

    def test_an_error_names_neither_session_nor_data(self, store: SQLiteStore, path: Path) -> None:
        with sql(path) as db:
            db.execute("DROP TABLE sessions")
        for verb in (
            lambda: store.load("the id"),
            lambda: store.create("the id", b"the data", LATER, "the user"),
            lambda: list(store.ids("the user")),
        ):
            with pytest.raises(StoreUnavailable, match="no such table") as raised:
                verb()
            assert "the " not in "".join(traceback.format_exception_only(raised.value))

    @row("Q4")
    def test_a_process_killed_at_any_moment_loses_nothing_that_was_acknowledged(self, path: Path) -> None:
        """A pipe has a byte for every write that returned; the next one may or may not have happened."""
        rng = random.Random(4)
        before: dict[str, bytes] = {}
        for turn in range(KILLS):
            plan = [(f"{rng.randrange(30)}", os.urandom(rng.randrange(3000))) for _ in range(500)]
            reading, writing = os.pipe()
            pid = fork(partial(carry_out, plan, path, writing, ("FULL", "NORMAL")[turn % 2]))
            os.close(writing)
            done = len(os.read(reading, 1)) if turn % 4 else 0  # every fourth may die as it opens the file
            assert done or turn % 4 == 0
            time.sleep(rng.uniform(0, 0.008))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            while acknowledged := os.read(reading, len(plan)):
                done += len(acknowledged)
            os.close(reading)

            store = SQLiteStore(path)
            found = {id: stored.data for id in store.ids() if (stored := store.load(id))}
            store.close()
            assert is_sound(path)
            assert found in (carried_out(plan[:done], before), carried_out(plan[: done + 1], before))
            before = found

    @row("Q4")
    def test_a_process_killed_at_any_moment_has_rotated_a_session_or_has_not(self, path: Path) -> None:
        """Neither two live ids nor none; and every old one leads to it."""
        SQLiteStore(path, clock=lambda: 0.0).create("0", b"data", LATER, "ann")
        last = 0
        for turn in range(KILLS // 4):
            reading, writing = os.pipe()
            pid = fork(partial(rotate_on_and_on, path, last, writing, ("FULL", "NORMAL")[turn % 2]))
            os.close(writing)
            done = len(os.read(reading, 1))
            time.sleep(random.Random(turn).uniform(0, 0.008))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            while acknowledged := os.read(reading, 1000):
                done += len(acknowledged)
            os.close(reading)

            store = SQLiteStore(path, clock=lambda: 0.0)
            (live,) = store.ids("ann")
            assert int(live) - last in (done, done + 1)
            last = int(live)
            assert [store.heir(f"{n}") for n in range(last + 1)] == [*(f"{n + 1}" for n in range(last)), None]
            store.close()
            assert is_sound(path)


def rotate_on_and_on(path: Path, last: int, acknowledged: int, synchronous: str) -> None:
    store = SQLiteStore(path, synchronous=synchronous, clock=lambda: 0.0)
    for n in range(last, last + 1000):
        assert store.rotate(f"{n}", b"data", f"{n + 1}", b"data", LATER, "ann", inherits=True)
        os.write(acknowledged, b".")


Plan = list[tuple[str, bytes]]  # ids, and what to make their records; short ones delete


def carry_out(plan: Plan, path: Path, acknowledged: int, synchronous: str) -> None:
    store = SQLiteStore(path, synchronous=synchronous)
    for id, record in plan:
        seen = store.load(id)
        if len(record) < 500:
            store.delete(id)
        elif seen is None:
            store.create(id, record, LATER)
        else:
            store.replace(id, seen.data, record, LATER)
        os.write(acknowledged, b".")


def carried_out(plan: Plan, before: dict[str, bytes]) -> dict[str, bytes]:
    after = dict(before)
    for id, record in plan:
        after[id] = record
        if len(record) < 500:
            del after[id]
    return after


class TestThreads:
    def test_threads_that_come_and_go_leave_no_file_open(self, store: SQLiteStore) -> None:
        """A server that starts a thread for every request must not run out of them."""
        store.load("id")
        before = open_files()
        for n in range(50):
            thread = threading.Thread(target=store.create, args=(f"{n}", b"data", LATER))
            thread.start()
            thread.join()
        assert open_files() == before
        assert len(list(store.ids())) == 50

    @row("T2")
    def test_there_are_no_more_connections_than_calls_at_once(
        self, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connections = []
        connect = SQLiteFile._connect

        def counted(file: SQLiteFile, call: sqlite_file._Call) -> None:
            connect(file, call)
            connections.append(call.connection[0])

        monkeypatch.setattr(SQLiteFile, "_connect", counted)
        for _ in range(3):
            together = threading.Barrier(4, timeout=30)
            with ThreadPoolExecutor(4) as pool:
                for _ in range(4):
                    pool.submit(store._file.read, lambda db, together=together: together.wait())
        assert len(connections) == 4

    def test_closing_waits_for_the_calls_under_way(self, store: SQLiteStore) -> None:
        inside, go_on = threading.Event(), threading.Event()

        def slow(db: sqlite3.Connection) -> object:
            inside.set()
            assert go_on.wait(30)
            return db.execute("SELECT 1").fetchall()

        with ThreadPoolExecutor(2) as pool:
            call = pool.submit(store._file.read, slow)
            assert inside.wait(30)
            closing = pool.submit(store.close)
            with pytest.raises(futures.TimeoutError):  # Python 3.11 made it the built-in one
                closing.result(0.05)
            go_on.set()
            assert call.result(30) == [(1,)]
            closing.result(30)
        assert store._file._own() == []


class TestProcesses:
    def test_compare_and_set_counts_exactly_in_two_processes(self, path: Path) -> None:
        store = SQLiteStore(path, timeout=30)
        store.create("n", b"0", LATER)
        each = 100

        def count() -> None:
            for _ in range(each):
                while True:
                    stored = store.load("n")
                    assert stored is not None
                    if store.replace("n", stored.data, b"%d" % (int(stored.data) + 1), LATER):
                        break

        assert ended_well(fork(count), fork(count))
        assert store.load("n") == (b"%d" % (2 * each), LATER)

    @row("Q2")
    def test_eight_processes_that_start_and_write_at_once_make_no_error(self, path: Path) -> None:
        """The file is not there before: one of them creates it."""

        def write(n: int) -> None:
            store = SQLiteStore(path, timeout=30)
            for turn in range(25):
                assert store.create(f"{n}.{turn}", b"data", LATER)

        assert ended_well(*(fork(partial(write, n)) for n in range(8)))
        assert len(list(SQLiteStore(path).ids())) == 200
        assert is_sound(path)

    @row("S11", "P19")
    def test_what_was_used_before_a_fork_works_on_both_sides(self, path: Path) -> None:
        store = SQLiteStore(path, synchronous="NORMAL")
        store.create("parent's", b"parent", LATER)
        reading, writing = os.pipe()

        def serve(n: int) -> None:
            own = b"marker %d" % n
            for turn in range(200):
                assert store.load("parent's") == (b"parent", LATER)
                assert store.create(f"{n}.{turn}", own, LATER)
                for _ in range(10):
                    assert store.load(f"{n}.{turn}") == (own, LATER)
            os.write(writing, "".join(new_id({}) for _ in range(10)).encode())

        children = [fork(partial(serve, n)) for n in range(4)]
        for turn in range(50):
            assert store.create(f"parent's {turn}", b"data", LATER)
        assert ended_well(*children)
        ids = os.read(reading, 4 * 320)
        assert len({ids[n : n + 32] for n in range(0, len(ids), 32)}) == 40
        assert len(list(store.ids())) == 51 + 4 * 200
        assert is_sound(path)
        os.close(reading)
        os.close(writing)

    @row("S11")
    def test_a_childs_writes_outlive_the_parent(self, path: Path) -> None:
        """SQLite believes that an inherited connection has its locks; they are the parent's alone.

        With those gone, the next process that closes the file deletes the log, and the child goes on
        writing to the deleted one.
        """
        store = SQLiteStore(path)
        store.create("parent's", b"data", LATER)
        (told, tell), (heard, answer) = os.pipe(), os.pipe()

        def serve() -> None:
            assert store.create("early", b"data", LATER)
            os.write(answer, b".")
            os.read(told, 1)
            assert store.create("late", b"data", LATER)
            os.write(answer, b".")
            os.read(told, 1)

        child = fork(serve)
        os.read(heard, 1)
        store.close()
        for _ in range(2):
            assert ended_well(fork(lambda: is_sound(path)))  # one that comes, closes the file and goes
        os.write(tell, b".")
        os.read(heard, 1)
        found = set(SQLiteStore(path).ids())
        os.write(tell, b".")
        assert ended_well(child)
        assert found == {"parent's", "early", "late"}
        for end in (told, tell, heard, answer):
            os.close(end)

    @row("S11")
    def test_a_fork_in_the_midst_of_calls_waits_for_them(self, path: Path) -> None:
        store = SQLiteStore(path, timeout=30)
        stop = threading.Event()
        written: list[str] = []

        def write(n: int) -> None:
            while not stop.is_set():
                id = f"{n}.{len(written)}"
                assert store.create(id, b"data", LATER)
                written.append(id)

        with ThreadPoolExecutor(3) as pool:
            threads = [pool.submit(write, n) for n in range(3)]
            children = [fork(partial(store.create, f"child {n}", b"data", LATER)) for n in range(8)]
            assert ended_well(*children)
            stop.set()
            for thread in threads:
                thread.result(30)
        assert set(store.ids()) == {*written, *(f"child {n}" for n in range(8))}

    @row("S11")
    def test_what_a_fork_unseen_by_python_brings_along_is_left_alone(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As in uWSGI: a connection's close in the child could delete the log of others."""
        store = SQLiteStore(path)
        store.create("id", b"data", LATER)
        inherited = store._file._own()[0]
        monkeypatch.setattr(os, "getpid", lambda: -1)
        assert store.load("id") == (b"data", LATER)
        assert inherited not in store._file._own()
        store.close()
        del store
        assert sqlite_file._inherited.pop() is inherited
        monkeypatch.undo()
        assert inherited.execute("SELECT 1").fetchall() == [(1,)]
        inherited.close()


IDS = st.sampled_from("abc")
USERS = st.sampled_from([None, "ann"])
DATA = st.sampled_from([b"1", b"2"])
OTHER = st.sampled_from([None, None, None, b"1", b"2", TOMBSTONE])  # None: what is there
LIVES = st.sampled_from([-1.0, 0.0, 15.0, HOUR, inf])


class Record(NamedTuple):
    data: bytes
    expires_at: float
    user: str | None = None
    heir: str | None = None


class Model(RuleBasedStateMachine):
    """`SQLiteStore` beside a dict, through two stores of one file in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name, "sessions.db")
        self.stores = [SQLiteStore(path, clock=self.clock, synchronous="NORMAL") for _ in range(2)]
        self.records: dict[str, Record] = {}  # may have expired, like the file's

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        self.folder.cleanup()

    @property
    def store(self) -> SQLiteStore:
        self.stores.reverse()
        return self.stores[0]

    def live(self, id: str) -> Record | None:
        record = self.records.get(id)
        return record if record is not None and record.expires_at > self.clock() else None

    def guess(self, id: str, other: bytes | None) -> tuple[bytes, bool]:
        """Return bytes that may be the record's, and whether they are a session's."""
        record = self.live(id)
        seen = other if other is not None else record.data if record else b"1"
        return seen, record is not None and record.data == seen != TOMBSTONE

    @rule(id=IDS)
    def load(self, id: str) -> None:
        record = self.live(id)
        assert self.store.load(id) == (record[:2] if record else None)
        assert self.store.heir(id) == (record.heir if record else None)

    @rule(id=IDS, data=DATA, life=LIVES, user=USERS)
    def create(self, id: str, data: bytes, life: float, user: str | None) -> None:
        free = self.live(id) is None
        assert self.store.create(id, data, self.clock() + life, user) == free
        if free:
            self.records[id] = Record(data, self.clock() + life, user)

    @rule(id=IDS, other=OTHER, data=DATA, life=LIVES, user=USERS)
    def replace(self, id: str, other: bytes | None, data: bytes, life: float, user: str | None) -> None:
        seen, same = self.guess(id, other)
        assert self.store.replace(id, seen, data, self.clock() + life, user) == same
        if same:
            self.records[id] = Record(data, self.clock() + life, user)

    @rule(id=IDS, other=OTHER, life=LIVES, user=USERS)
    def touch(self, id: str, other: bytes | None, life: float, user: str | None) -> None:
        seen, same = self.guess(id, other)
        assert self.store.touch(id, seen, self.clock() + life, user) == same
        if same:
            self.records[id] = Record(seen, self.clock() + life, user)

    @rule(old=IDS, other=OTHER, new=IDS, data=DATA, life=LIVES, user=USERS, inherits=st.booleans())
    def rotate(
        self, old: str, other: bytes | None, new: str, data: bytes, life: float, user: str | None, inherits: bool
    ) -> None:
        seen, same = self.guess(old, other)
        done = same and self.live(new) is None
        assert self.store.rotate(old, seen, new, data, self.clock() + life, user, inherits=inherits) == done
        if done:
            self.records[new] = Record(data, self.clock() + life, user)
            self.records[old] = Record(TOMBSTONE, self.clock() + TOMBSTONE_LIFE, None, new if inherits else None)

    @rule(id=IDS)
    def delete(self, id: str) -> None:
        record = self.live(id)
        assert self.store.delete(id) == bool(record and record.data)
        if record and record.data:
            del self.records[id]

    @rule(seconds=st.sampled_from([0.25, 15.0, HOUR]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def purge(self) -> None:
        self.store.purge()
        assert self.store.purge() == 0

    @rule()
    def clear(self) -> None:
        assert self.store.clear() == len(self.sessions())
        self.records.clear()

    def sessions(self, user: str | None = None) -> list[str]:
        live = {id: record for id in self.records if (record := self.live(id)) and record.data}
        return sorted(id for id in live if user in (None, live[id].user))

    @invariant()
    def both_list_the_same(self) -> None:
        for user in (None, "ann"):
            assert sorted(self.store.ids(user)) == self.sessions(user)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
