"""Every store keeps the contract, and the contract finds the stores that do not."""

from __future__ import annotations

import re
import time
import unittest
from collections.abc import Callable, Iterator
from functools import cache
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from minisession import MemoryStore, Store, Stored
from minisession.stores.sqlite import SQLiteStore
from minisession.testing import StoreContract

from ..support.browser import Clock
from ..support.plain_store import PlainStore

PAGE = Path(__file__).parents[2] / "docs" / "writing-a-store.md"


class Timeless(StoreContract):
    """The contract for stores whose clock is told the time."""

    def now(self) -> float:
        return self.clock()

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @property
    def clock(self) -> Clock:
        clock: Clock = self.__dict__.setdefault("_clock", Clock())
        return clock


class TestMemoryStore(Timeless, unittest.TestCase):
    def make_store(self) -> Store:
        return MemoryStore(clock=self.clock)


class TestSQLiteStore(Timeless, unittest.TestCase):
    def make_store(self) -> Store:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name, "sessions.db")
        return self.open_again()

    def open_again(self, store: Store | None = None) -> Store:
        return SQLiteStore(self.path, clock=self.clock, timeout=30, synchronous="NORMAL")


class TestAStrangersStore(Timeless, unittest.TestCase):
    def make_store(self) -> Store:
        return PlainStore(self.clock)

    def open_again(self, store: Store) -> Store:
        return store


# Stores as people write them, each with one mistake, and the rules it breaks


class CreatesOver(PlainStore):
    """An upsert."""

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        self.rows[id] = data, expires_at, user
        return True


class TouchesWhatIsGone(PlainStore):
    """SETEX, or an upsert again."""

    def touch(self, id: str, seen: bytes, expires_at: float, user: str | None = None) -> bool:
        self.rows[id] = seen, expires_at, user
        return True


class TouchesUnseen(PlainStore):
    """EXPIRE."""

    def touch(self, id: str, seen: bytes, expires_at: float, user: str | None = None) -> bool:
        row = self.find(id)
        return row is not None and self.replace(id, row[0], row[0], expires_at, user)


class ReplacesUnseen(PlainStore):
    """Last write wins."""

    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        row = self.find(id)
        return row is not None and super().replace(id, row[0], data, expires_at, user)


class LooksAndThenWrites(PlainStore):
    """Compare and set in two steps."""

    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        row = self.find(id)
        time.sleep(0.0001)
        return row is not None and row[0] == seen and super().replace(id, self.rows[id][0], data, expires_at, user)


class CreatesInTwoSteps(PlainStore):
    """SELECT, and INSERT OR REPLACE if there was nothing."""

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        taken = self.find(id) is not None
        time.sleep(0.0001)
        if not taken:
            self.rows[id] = data, expires_at, user
        return not taken


class ListsBeforeItCreates(PlainStore):
    """An index beside the records, and written first, whatever comes of it."""

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        row = self.find(id)
        if row is not None:
            self.rows[id] = *row[:2], user
        return super().create(id, data, expires_at, user)


class LoadsTheExpired(PlainStore):
    """Leaves it to a sweeper."""

    def load(self, id: str) -> Stored | None:
        row = self.rows.get(id)
        return None if row is None else Stored(row[0], row[1])


class RevivesTheExpired(PlainStore):
    """Looks at the time in `load` alone."""

    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        if id in self.rows and self.rows[id][0] == seen:
            self.rows[id] = data, expires_at, user
            return True
        return False


class KeepsIdsOfTheExpired(PlainStore):
    """INSERT, while the row is still there."""

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        return id not in self.rows and super().create(id, data, expires_at, user)


class ListsTombstones(PlainStore):
    """All keys."""

    def ids(self, user: str | None = None) -> Iterator[str]:
        return iter([id for id in self.rows if self.find(id) and user in (None, self.rows[id][2])])


class ListsTheExpired(PlainStore):
    """All rows."""

    def ids(self, user: str | None = None) -> Iterator[str]:
        return iter([id for id, (data, _, owner) in self.rows.items() if data and user in (None, owner)])


class TombstonesAreNothing(PlainStore):
    """`if not data`."""

    def load(self, id: str) -> Stored | None:
        stored = super().load(id)
        return stored if stored and stored.data else None


class CountsTombstones(PlainStore):
    """DELETE, and its row count."""

    def forget(self, chosen: Callable[[float], bool]) -> int:
        gone = [id for id, row in self.rows.items() if chosen(row[1])]
        for id in gone:
            del self.rows[id]
        return len(gone)


class DeletesQuietly(PlainStore):
    """True, whatever was there."""

    def delete(self, id: str) -> bool:
        super().delete(id)
        return True


class ForgetsUsers(PlainStore):
    """The user is set when the session is created, and lost when it is replaced."""

    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        return super().replace(id, seen, data, expires_at)


class MatchesPatterns(PlainStore):
    """KEYS, LIKE, or a file system's names."""

    def find(self, id: str) -> tuple[bytes, float, str | None] | None:
        return super().find(id.casefold())

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        return super().create(id.casefold(), data, expires_at, user)


class FoldsUsers(PlainStore):
    """A collation that knows no case."""

    def ids(self, user: str | None = None) -> Iterator[str]:
        return (id for id in super().ids() if user is None or str(self.rows[id][2]).casefold() == user.casefold())


class KeepsTheExpiry(PlainStore):
    """UPDATE data, and nothing else."""

    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        row = self.find(id)
        return super().replace(id, seen, data, row[1] if row else expires_at, user)


class OnlyLengthens(PlainStore):
    """max(old, new): a tombstone that lives as long as the session would have."""

    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        row = self.find(id)
        return super().replace(id, seen, data, max(expires_at, row[1] if row else 0.0), user)


class NeverExpiresInThePast(PlainStore):
    """A time to live of zero or less, taken for none."""

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        return super().create(id, data, expires_at if expires_at > self.clock() else inf, user)


class KeepsNothingLong(PlainStore):
    """A server that takes a time to live of over 30 days for a date."""

    def find(self, id: str) -> tuple[bytes, float, str | None] | None:
        row = super().find(id)
        return row and (row[0], min(row[1], self.clock() + 30 * 86400), row[2])


class ClosesOnce(PlainStore):
    """A connection that is let go of, and then asked to close."""

    def close(self) -> None:
        del self.lock


class Decodes(PlainStore):
    """Text in the database."""

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        return super().create(id, data.decode(errors="replace").encode(), expires_at, user)


class PurgesAll(PlainStore):
    """A sweeper that is too keen."""

    def purge(self) -> int:
        return self.clear()


class IteratesLive(PlainStore):
    """A cursor that does not outlive a change."""

    def ids(self, user: str | None = None) -> Iterator[str]:
        return (id for id, row in self.rows.items() if row[0] and self.find(id) and user in (None, row[2]))


BROKEN: list[tuple[Any, str]] = [
    (CreatesOver, "an_id_that_is_taken_is_not_created_again"),
    (TouchesWhatIsGone, "what_is_not_there_is_absent_to_every_verb"),
    (TouchesUnseen, "only_what_was_seen_is_touched"),
    (ReplacesUnseen, "only_what_was_seen_is_replaced"),
    (LooksAndThenWrites, "threads_count_exactly"),
    (CreatesInTwoSteps, "of_many_that_create_an_id_one_does"),
    (ListsBeforeItCreates, "an_id_that_is_taken_joins_no_other_list"),
    (LoadsTheExpired, "what_has_expired_is_absent_to_every_verb"),
    (RevivesTheExpired, "what_has_expired_is_absent_to_every_verb"),
    (KeepsIdsOfTheExpired, "what_has_expired_is_absent_to_every_verb"),
    (ListsTombstones, "live_sessions_are_listed_once"),
    (ListsTheExpired, "what_has_ended_is_in_nobodys_list"),
    (TombstonesAreNothing, "a_tombstone_keeps_its_id_for_a_while"),
    (CountsTombstones, "clear_forgets_every_session_and_says_how_many"),
    (DeletesQuietly, "no_writer_brings_back_what_another_deletes"),
    (ForgetsUsers, "a_session_stays_in_its_users_list"),
    (MatchesPatterns, "ids_that_look_alike_are_not_the_same"),
    (FoldsUsers, "a_user_has_the_sessions_that_are_his"),
    (KeepsTheExpiry, "what_is_touched_in_time_lives_on"),
    (OnlyLengthens, "a_tombstone_keeps_its_id_for_a_while"),
    (NeverExpiresInThePast, "what_expires_in_the_past_is_absent"),
    (KeepsNothingLong, "no_limit_is_a_long_time"),
    (ClosesOnce, "closing_twice_is_closing_once"),
    (Decodes, "what_was_created_is_loaded_byte_by_byte"),
    (PurgesAll, "purge_leaves_what_lives"),
    (IteratesLive, "a_listing_goes_on_while_sessions_come_and_go"),
]


@pytest.mark.parametrize(("store", "rule"), BROKEN)
def test_a_broken_store_is_caught(store: Any, rule: str) -> None:
    assert f"test_{rule}" in failures(store)


def test_every_rule_catches_somebody() -> None:
    """A rule that no mistake breaks would be a test that cannot fail."""
    rules = {name for name in dir(StoreContract) if name.startswith("test_")}

    assert rules - set().union(*(failures(store) for store, _ in BROKEN)) == set()


@cache
def failures(store: Any) -> set[str]:
    """Return the rules that this store breaks."""

    class Broken(TestAStrangersStore):
        def make_store(self) -> Any:
            return store(self.clock)

    result = run(Broken)
    return {test.id().rpartition(".")[2] for test, _ in result.failures + result.errors}


def run(contract: type[unittest.TestCase]) -> unittest.TestResult:
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(contract).run(result)
    assert result.testsRun > 20
    return result


def test_a_store_that_only_keeps_sessions_passes_without_listing() -> None:
    """`ids`, `purge` and `clear` are for operators; the middleware does without."""

    class FiveVerbs:
        def __init__(self, store: Any) -> None:
            self.load, self.create, self.replace = store.load, store.create, store.replace
            self.touch, self.delete, self.close = store.touch, store.delete, store.close

    class Contract(Timeless, unittest.TestCase):
        def make_store(self) -> Store:
            return FiveVerbs(PlainStore(self.clock))

    result = run(Contract)
    assert result.wasSuccessful()
    assert {reason.partition(":")[0] for _, reason in result.skipped} == {
        "a store that does not list",
        "a store in one process",
    }


def test_the_page_shows_the_store_that_is_tested() -> None:
    """And its blocks make a test case that passes."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)

    assert blocks[0] == (Path(__file__).parents[1] / "support" / "plain_store.py").read_text().partition('"""\n\n')[2]
    assert run(names["TestPlainStore"]).wasSuccessful()
    assert f"finds {len(BROKEN)} stores" in PAGE.read_text()
