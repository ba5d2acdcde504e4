"""`SQLiteStore`, opened: while others hold the lock, from older versions, and never what others have planted."""

from __future__ import annotations

import os
import select
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from minisession import StoreUnavailable
from minisession.stores import sqlite, sqlite_file
from minisession.stores.sqlite import SQLiteStore

from ..support.rows import row
from .test_sqlite_store import LATER, ended_well, fork, is_sound, sql

SOMEONE = 65534  # a user who is neither this process' nor root


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


def make_version_1(path: Path) -> None:
    with sql(path) as db:
        for statement in sqlite.VERSIONS[0]:
            db.execute(statement)
        db.execute("PRAGMA user_version = 1")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("INSERT INTO sessions VALUES ('id', x'3132', 4e9, 'ann')")
    path.chmod(0o600)


def make_nothing(path: Path) -> None:
    path.touch(0o600)


def make_other_journal(path: Path) -> None:
    """As `VACUUM INTO` leaves it."""
    SQLiteStore(path)
    with sql(path) as db:
        db.execute("PRAGMA journal_mode = DELETE")


class TestLocked:
    @row("Q1")
    def test_a_worker_comes_up_while_the_database_is_locked(self, path: Path) -> None:
        """Or a deployment fails because another process is writing just then."""
        SQLiteStore(path).create("id", b"data", LATER)
        with sql(path) as other:
            other.execute("BEGIN IMMEDIATE")
            store = SQLiteStore(path, timeout=0)
            assert store.load("id") == (b"data", LATER)

    @row("Q3")
    def test_a_worker_comes_up_without_a_write(self, path: Path) -> None:
        """And so on a full disk, too."""
        SQLiteStore(path).create("id", b"data", LATER)
        before = path.read_bytes(), path.stat().st_mtime_ns
        with sql(path) as other:
            (version,) = other.execute("PRAGMA data_version").fetchone()
            SQLiteStore(path)
            assert other.execute("PRAGMA data_version").fetchone() == (version,)
        assert (path.read_bytes(), path.stat().st_mtime_ns) == before

    @row("Q1")
    @pytest.mark.parametrize("make", [make_nothing, make_version_1, make_other_journal])
    @pytest.mark.parametrize("seconds", [19, 21])
    def test_where_there_is_something_to_write_opening_waits_20_seconds(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], seconds: float
    ) -> None:
        make(path)
        passed = 0.0
        with sql(path) as other:
            other.execute("BEGIN EXCLUSIVE")

            def sleep(pause: float) -> None:
                nonlocal passed
                passed += 100 * pause
                if passed >= seconds and other.in_transaction:
                    other.execute("COMMIT")

            monkeypatch.setattr(sqlite_file, "time", SimpleNamespace(monotonic=lambda: passed, sleep=sleep))
            if seconds > sqlite_file.OPENING:
                with pytest.raises(StoreUnavailable, match="database is locked"):
                    SQLiteStore(path, timeout=0)
            else:
                assert SQLiteStore(path, timeout=0).create("new", b"data", LATER)
        monkeypatch.undo()
        assert SQLiteStore(path).create("another", b"data", LATER)


class TestVersions:
    def test_a_file_of_version_1_becomes_one_of_version_2_and_keeps_its_sessions(self, path: Path) -> None:
        make_version_1(path)
        store = SQLiteStore(path)
        assert list(store.ids("ann")) == ["id"]
        assert store.load("id") == (b"12", LATER)
        assert store.rotate("id", b"12", "new", b"34", LATER, "ann", inherits=True)
        assert store.heir("id") == "new"
        with sql(path) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (2,)

    def test_an_upgraded_file_is_like_a_new_one(self, path: Path) -> None:
        make_version_1(path)
        SQLiteStore(path)
        new = path.with_name("new.db")
        SQLiteStore(new)

        def columns(path: Path) -> list[tuple[object, ...]]:
            with sql(path) as db:
                return db.execute("PRAGMA table_info(sessions)").fetchall()

        assert columns(path) == columns(new)

    @row("Q2")
    @pytest.mark.parametrize("make", [lambda path: None, make_version_1])
    def test_eight_workers_that_start_at_once_all_come_up(self, path: Path, make: Callable[[Path], None]) -> None:
        """On a missing file, and on one of version 1: one of them makes it what it must be."""
        make(path)
        waiting, go = os.pipe()

        def start(n: int) -> None:
            os.close(go)
            os.read(waiting, 1)  # until the parent closes its end
            store = SQLiteStore(path)
            assert store.create(f"{n}", b"data", LATER)
            assert store.rotate(f"{n}", b"data", f"{n}'", b"data", LATER, inherits=True)

        children = [fork(partial(start, n)) for n in range(8)]
        os.close(go)
        assert ended_well(*children)
        os.close(waiting)
        assert set(SQLiteStore(path).ids()) - {"id"} == {f"{n}'" for n in range(8)}
        assert is_sound(path)

    def test_a_worker_on_version_1_goes_on_when_its_file_is_upgraded(self, path: Path) -> None:
        """It names its columns; what it does not know of is that tombstones stay."""
        make_version_1(path)
        with sql(path) as old:
            old.execute("UPDATE sessions SET expires_at = 5e9 WHERE id = 'id'")  # has read the schema
            store = SQLiteStore(path)
            old.execute("INSERT INTO sessions (id, data, expires_at, user) VALUES ('v1', x'31', 4e9, NULL)")
            old.execute("UPDATE sessions SET data = x'32', expires_at = 4e9, user = 'ann' WHERE id = 'v1'")
            assert (store.load("v1"), store.heir("v1")) == ((b"2", LATER), None)

    def test_opening_fails_as_a_whole_and_leaves_no_half_made_file(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_version_1(path)
        monkeypatch.setattr(sqlite, "VERSIONS", (*sqlite.VERSIONS, ("CREATE TABLE x (y)", "not SQL")))
        with pytest.raises(StoreUnavailable, match="syntax error"):
            SQLiteStore(path)
        monkeypatch.undo()
        with sql(path) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (1,)
            assert [column for _, column, *_ in db.execute("PRAGMA table_info(sessions)")][-1] == "user"
        assert SQLiteStore(path).heir("id") is None


@pytest.fixture
def give_away(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Return what makes a file, or a link, another user's."""

    def give(path: Path) -> None:
        if os.geteuid() == 0:
            os.lchown(path, SOMEONE, SOMEONE)
        else:  # then this process is another user, to whom all files are someone else's
            monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    return give


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no owners that could be compared")
class TestPlanted:
    @row("Q6")
    def test_a_file_of_another_user_is_refused(self, path: Path, give_away: Callable[[Path], None]) -> None:
        """In /tmp, they could plant one in which they are logged in as anyone."""
        SQLiteStore(path).create("known", b"data", LATER, "admin")
        give_away(path)
        before = path.read_bytes()
        with pytest.raises(ValueError, match=r"sessions\.db belongs to .*uid \d+.*delete it, chown it, or run"):
            SQLiteStore(path)
        assert path.read_bytes() == before

    def test_an_owner_without_a_name_is_a_number(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As in containers."""
        path.touch()
        if os.geteuid() == 0:
            os.chown(path, 4_000_000, -1)
        else:
            pytest.skip("only root can give a file away to a user without a name")
        with pytest.raises(ValueError, match="belongs to uid 4000000, neither"):
            SQLiteStore(path)

    @row("Q6")
    @pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
    def test_what_another_user_puts_beside_the_file_is_not_read(
        self, path: Path, give_away: Callable[[Path], None], suffix: str
    ) -> None:
        """SQLite would replay their log into our database, at the start and at every new connection."""
        store = SQLiteStore(path)
        store.create("id", b"data", LATER)
        store.close()
        beside = Path(f"{path}{suffix}")
        beside.touch(0o666)
        give_away(beside)
        with pytest.raises(StoreUnavailable, match="belongs to"):
            store.load("id")
        with pytest.raises(ValueError, match="belongs to"):
            SQLiteStore(path)

    @row("Q6")
    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
    def test_a_link_that_another_user_planted_is_not_followed(self, tmp_path: Path) -> None:
        """Neither to the file nor on the way to it, and nothing is made where it points."""
        shared, aside = tmp_path / "shared", tmp_path / "aside"
        shared.mkdir(0o1777)
        aside.mkdir()
        (shared / "folder").symlink_to(aside)
        (shared / "sessions.db").symlink_to(aside / "sessions.db")
        (tmp_path / "ours").symlink_to("shared/sessions.db")
        for link in (shared / "folder", shared / "sessions.db"):
            os.lchown(link, SOMEONE, SOMEONE)
        for path in (shared / "folder" / "sessions.db", shared / "sessions.db", tmp_path / "ours"):
            with pytest.raises(ValueError, match=r"shared/.* belongs to"):
                SQLiteStore(path)
        assert list(aside.iterdir()) == []

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
    def test_a_folder_of_another_user_is_all_right_and_so_are_its_owners_links(self, tmp_path: Path) -> None:
        """As where a deployment tool makes the folders, and the server runs as another user."""
        folder = tmp_path / "releases"
        folder.mkdir()
        (folder / "current.db").symlink_to("1.db")
        for place in (folder, folder / "current.db"):
            os.lchown(place, SOMEONE, SOMEONE)
        store = SQLiteStore(folder / "current.db")
        assert store.create("id", b"data", LATER)
        assert (folder / "1.db").stat().st_uid == os.geteuid()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
    def test_users_of_a_group_share_a_file_of_root(self) -> None:
        """What SQLite makes beside it belongs to one of them, and the others read it."""
        (done, tell), (wait, go) = os.pipe(), os.pipe()

        def serve(user: int) -> None:
            os.setgroups([])
            os.setgid(SOMEONE)
            os.setuid(user)
            os.umask(0o007)
            store = SQLiteStore(shared)
            store.create(f"{user}", b"data", LATER)
            os.write(tell, b".")
            os.read(wait, 1)

        with tempfile.TemporaryDirectory() as folder:  # pytest's own are its user's alone
            shared = Path(folder, "sessions.db")
            SQLiteStore(shared)
            for place in (Path(folder), shared):
                os.chown(place, 0, SOMEONE)
                place.chmod(0o3770 if place.is_dir() else 0o660)
            children = []
            try:
                for user in (4_000_001, 4_000_002):
                    children.append(fork(partial(serve, user)))
                    assert select.select([done], [], [], 30)[0]
                    os.read(done, 1)
            finally:
                os.write(go, b"..")
                assert ended_well(*children)
            assert sorted(SQLiteStore(shared).ids()) == ["4000001", "4000002"]
        for end in (done, tell, wait, go):
            os.close(end)

    def test_links_that_lead_in_a_circle_are_no_endless_search(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        with pytest.raises((ValueError, StoreUnavailable), match="a"):
            SQLiteStore(tmp_path / "a" / "sessions.db")


class TestForks:
    def test_a_fork_waits_for_no_call_that_has_ended(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = SQLiteStore(path)
        store.load("id")
        never = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: pytest.fail("it waited"))
        monkeypatch.setattr(sqlite_file, "time", never)
        assert ended_well(fork(lambda: store.load("id")))

    def test_calls_begin_again_when_all_threads_that_fork_have_forked(self, path: Path) -> None:
        store = SQLiteStore(path)
        began = threading.Event()

        def call() -> None:
            store.load("id")
            began.set()

        sqlite_file._forking.update({-1, -2})  # two other threads
        thread = threading.Thread(target=call)
        thread.start()
        sqlite_file._forking.discard(-1)
        assert not began.wait(0.05)
        assert store._file._own() == []
        sqlite_file._forking.discard(-2)
        thread.join(30)
        assert began.is_set()

    def test_a_fork_that_never_comes_does_not_stop_calls_for_ever(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its thread was ended by an exception between the preparation and the fork."""
        store = SQLiteStore(path)
        passed = 0.0

        def sleep(seconds: float) -> None:
            nonlocal passed
            passed += 100 * seconds

        monkeypatch.setattr(sqlite_file, "time", SimpleNamespace(monotonic=lambda: passed, sleep=sleep))
        sqlite_file._forking.add(-1)
        assert store.load("id") is None
        assert sqlite_file._forking == set()
        assert 2 * sqlite_file.PATIENCE < passed < 2 * sqlite_file.PATIENCE + 1


@pytest.fixture(autouse=True)
def _no_fork_is_left_over() -> Iterator[None]:
    yield
    assert sqlite_file._forking == set()
