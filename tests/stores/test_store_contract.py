"""Every store keeps the contract, and the contract finds the stores that do not."""

from __future__ import annotations

import re
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from math import ceil, floor, inf, isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest

from minisession import MemoryStore, Store, Stored, open_store
from minisession.stores.base import TOMBSTONE, TOMBSTONE_LIFE
from minisession.stores.sqlite import SQLiteStore
from minisession.testing import StoreContract

from ..support.browser import Clock
from ..support.plain_store import PlainStore, Row

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

    def open_again(self, store: Any) -> Store:
        other: PlainStore = type(store)(self.clock)
        other.rows, other.lock = store.rows, store.lock
        return other


class TestRedisStoreInRealTime(StoreContract, unittest.TestCase):
    """As docs/writing-a-store.md has a stranger do it: with no clock that is told the time."""

    @pytest.fixture(autouse=True)
    def _server(self, server: Any) -> None:
        self.url = server.url

    def make_store(self) -> Store:
        store = open_store(self.url)
        store.clear()
        return store

    def open_again(self, store: Store) -> Store:
        return open_store(self.url)


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    from ..support.redis_server import redis_server  # which skips these tests alone, if there is none

    with redis_server() as started:
        yield started


# Stores as people write them, each with one mistake, and the rules it breaks


class CreatesOver(PlainStore):
    """An upsert."""

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        self.rows[id] = Row(data, expires_at, user)
        return True


class TouchesWhatIsGone(PlainStore):
    """SETEX, or an upsert again."""

    def touch(self, id: str, seen: bytes, expires_at: float, user: str | None = None) -> bool:
        self.rows[id] = Row(seen, expires_at, user)
        return True


class TouchesUnseen(PlainStore):
    """EXPIRE."""

    def touch(self, id: str, seen: bytes, expires_at: float, user: str | None = None) -> bool:
        row = self.find(id)
        return row is not None and self.replace(id, row.data, row.data, expires_at, user)


class ReplacesUnseen(PlainStore):
    """Last write wins."""

    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        row = self.find(id)
        return row is not None and super().replace(id, row.data, data, expires_at, user)


class LooksAndThenWrites(PlainStore):
    """Compare and set in two steps."""

    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        row = self.find(id)
        time.sleep(0.0001)
        return row is not None and row.data == seen and super().replace(id, self.rows[id].data, data, expires_at, user)


class CreatesInTwoSteps(PlainStore):
    """SELECT, and INSERT OR REPLACE if there was nothing."""

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        taken = self.find(id) is not None
        time.sleep(0.0001)
        if not taken:
            self.rows[id] = Row(data, expires_at, user)
        return not taken


class ListsBeforeItCreates(PlainStore):
    """An index beside the records, and written first, whatever comes of it."""

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        row = self.find(id)
        if row is not None:
            self.rows[id] = row._replace(user=user)
        return super().create(id, data, expires_at, user)


class LoadsTheExpired(PlainStore):
    """Leaves it to a sweeper."""

    def load(self, id: str) -> Stored | None:
        row = self.rows.get(id)
        return None if row is None else Stored(row.data, row.expires_at)


class RevivesTheExpired(PlainStore):
    """Looks at the time in `load` alone."""

    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        if id in self.rows and self.rows[id].data == seen:
            self.rows[id] = Row(data, expires_at, user)
            return True
        return False


class KeepsIdsOfTheExpired(PlainStore):
    """INSERT, while the row is still there."""

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        return id not in self.rows and super().create(id, data, expires_at, user)


class ListsTombstones(PlainStore):
    """All keys."""

    def ids(self, user: str | None = None) -> Iterator[str]:
        return iter([id for id in self.rows if self.find(id) and user in (None, self.rows[id].user)])


class ListsTheExpired(PlainStore):
    """All rows."""

    def ids(self, user: str | None = None) -> Iterator[str]:
        return iter([id for id, row in self.rows.items() if row.data and user in (None, row.user)])


class TombstonesAreNothing(PlainStore):
    """`if not data`."""

    def load(self, id: str) -> Stored | None:
        stored = super().load(id)
        return stored if stored and stored.data else None


class CountsTombstones(PlainStore):
    """DELETE, and its row count."""

    def forget(self, chosen: Callable[[float], bool]) -> int:
        gone = [id for id, row in self.rows.items() if chosen(row.expires_at)]
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

    def find(self, id: str) -> Row | None:
        return super().find(id.casefold())

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        return super().create(id.casefold(), data, expires_at, user)


class FoldsUsers(PlainStore):
    """A collation that knows no case."""

    def ids(self, user: str | None = None) -> Iterator[str]:
        return (id for id in super().ids() if user is None or str(self.rows[id].user).casefold() == user.casefold())


class KeepsTheExpiry(PlainStore):
    """UPDATE data, and nothing else."""

    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        row = self.find(id)
        return super().replace(id, seen, data, row.expires_at if row else expires_at, user)


class OnlyLengthens(PlainStore):
    """max(old, new): a tombstone that lives as long as the session would have."""

    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        row = self.find(id)
        return super().replace(id, seen, data, max(expires_at, row.expires_at if row else 0.0), user)


class NeverExpiresInThePast(PlainStore):
    """A time to live of zero or less, taken for none."""

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        return super().create(id, data, expires_at if expires_at > self.clock() else inf, user)


class KeepsNothingLong(PlainStore):
    """A server that takes a time to live of over 30 days for a date."""

    def find(self, id: str) -> Row | None:
        row = super().find(id)
        return row and row._replace(expires_at=min(row.expires_at, self.clock() + 30 * 86400))


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
        return (id for id, row in self.rows.items() if self.live(id) and user in (None, row.user))


class Move(NamedTuple):
    """What `rotate` is given."""

    old: str
    seen: bytes
    new: str
    data: bytes
    expires_at: float
    user: str | None = None
    inherits: bool = False


class Moves(PlainStore):
    """A store whose rotation is written anew, as `move`."""

    def rotate(self, *given: Any, **named: Any) -> bool:
        with self.lock:
            return self.move(Move(*given, **named))

    def move(self, to: Move) -> bool:
        if not self.holds(to.old, to.seen) or self.find(to.new) is not None:
            return False
        self.rows[to.new] = Row(to.data, to.expires_at, to.user)
        self.rows[to.old] = self.tombstone(to)
        return True

    def tombstone(self, to: Move) -> Row:
        return Row(TOMBSTONE, self.clock() + TOMBSTONE_LIFE, None, to.new if to.inherits else None)


class RotatesUnseen(Moves):
    """Last rotation wins."""

    def move(self, to: Move) -> bool:
        row = self.live(to.old)
        return row is not None and super().move(to._replace(seen=row.data))


class CreatesAndThenBuries(Moves):
    """Two verbs in a row, and nothing taken back where the second fails."""

    def move(self, to: Move) -> bool:
        if self.find(to.new) is not None:
            return False
        self.rows[to.new] = Row(to.data, to.expires_at, to.user)
        if not self.holds(to.old, to.seen):
            return False
        self.rows[to.old] = self.tombstone(to)
        return True


class RotatesOver(Moves):
    """RENAME, or an upsert of the new record."""

    def move(self, to: Move) -> bool:
        if not self.holds(to.old, to.seen):
            return False
        self.rows[to.old] = self.tombstone(to)
        self.rows[to.new] = Row(to.data, to.expires_at, to.user)
        return True


class RotatesWithoutALock(Moves):
    """A check, and then two writes."""

    def rotate(self, *given: Any, **named: Any) -> bool:
        to = Move(*given, **named)
        fits = self.holds(to.old, to.seen) and self.find(to.new) is None
        time.sleep(0.0001)
        if fits:
            self.rows[to.new] = Row(to.data, to.expires_at, to.user)
            self.rows[to.old] = self.tombstone(to)
        return fits


class Renames(Moves):
    """The old id is free again."""

    def move(self, to: Move) -> bool:
        moved = super().move(to)
        if moved:
            del self.rows[to.old]
        return moved


class MovesTheOldRecord(Moves):
    """COPY, or UPDATE … SET id = ?: what was to be stored is not."""

    def move(self, to: Move) -> bool:
        return super().move(to._replace(data=to.seen))


class MovesTheOldUser(Moves):
    """A user is thought to last as long as the session."""

    def move(self, to: Move) -> bool:
        row = self.find(to.old)
        return super().move(to._replace(user=row.user if row else None))


class BuriesForAsLong(Moves):
    """The tombstone takes the place of the record, and of its expiry."""

    def tombstone(self, to: Move) -> Row:
        return super().tombstone(to)._replace(expires_at=self.rows[to.old].expires_at)


class BuriesForNoLonger(Moves):
    """min(old, new): a session about to end leaves its id free at once."""

    def tombstone(self, to: Move) -> Row:
        tombstone = super().tombstone(to)
        return tombstone._replace(expires_at=min(tombstone.expires_at, self.rows[to.old].expires_at))


class EveryIdInherits(Moves):
    """A logout by `regenerate()` would end the session after it."""

    def tombstone(self, to: Move) -> Row:
        return super().tombstone(to)._replace(heir=to.new)


class KeepsHeirs(PlainStore):
    """In a table of their own, which is never cleared."""

    def heir(self, id: str) -> str | None:
        heirs: dict[str, str] = self.__dict__.setdefault("heirs", {})
        return heirs.setdefault(id, found) if (found := super().heir(id)) else heirs.get(id)


class FollowsHeirs(PlainStore):
    """Well meant: the end of the chain at once."""

    def heir(self, id: str) -> str | None:
        heir = super().heir(id)
        return heir and (self.heir(heir) or heir)


class DeletesTombstones(PlainStore):
    """DELETE … WHERE id = ?"""

    def delete(self, id: str) -> bool:
        live = super().delete(id)
        self.rows.pop(id, None)
        return live


class WakesTombstones(PlainStore):
    """An empty record is a record, and equal to what was seen."""

    def holds(self, id: str, seen: bytes) -> bool:
        row = self.find(id)
        return row is not None and row.data == seen


class DeletesInTwoSteps(PlainStore):
    """SELECT, and then DELETE of what is there by then."""

    def delete(self, id: str) -> bool:
        live = self.live(id) is not None
        time.sleep(0.0001)
        return live and self.rows.pop(id, None) is not None


class PurgesTombstones(PlainStore):
    """DELETE … WHERE data = ''."""

    def purge(self) -> int:
        for id in [id for id, row in self.rows.items() if row.data == TOMBSTONE]:
            del self.rows[id]
        return super().purge()


class ListsWhatLives(PlainStore):
    """The ids first, and then which of them live: by then the old one is dead, and the new one not among them."""

    def ids(self, user: str | None = None) -> Iterator[str]:
        began = [id for id, row in list(self.rows.items()) if user in (None, row.user)]
        time.sleep(0.001)
        return (id for id in began if self.live(id))


class ListsByName(PlainStore):
    """Keyset pagination: WHERE id > ? ORDER BY id LIMIT 50."""

    def ids(self, user: str | None = None) -> Iterator[str]:
        last = ""
        while True:
            with self.lock:
                after = sorted(id for id in self.rows if id > last)
                page = [id for id in after if self.live(id) and user in (None, self.rows[id].user)][:50]
            yield from page
            if not page:
                return
            last = page[-1]


class ListsTwice(PlainStore):
    """SCAN, as it may."""

    def ids(self, user: str | None = None) -> Iterator[str]:
        listed = list(super().ids(user))
        return iter(listed + listed[-1:])


class ClearsWhatItLists(PlainStore):
    """One after the other, by the ids that they had."""

    def clear(self) -> int:
        listed = list(self.ids())
        time.sleep(0.001)
        cleared = sum(self.delete(id) for id in listed)
        self.rows = {id: row for id, row in self.rows.items() if row.data}
        return cleared


class CutsUsers(PlainStore):
    """VARCHAR(255), in a database that cuts without a word."""

    def ids(self, user: str | None = None) -> Iterator[str]:
        return (id for id in super().ids() if user is None or str(self.rows[id].user)[:255] == user[:255])


class CutsIds(PlainStore):
    """VARCHAR(128)."""

    def find(self, id: str) -> Row | None:
        return super().find(id[:128])

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        return super().create(id[:128], data, expires_at, user)


class EndsUsersAtNul(PlainStore):
    """A C library in between."""

    def ids(self, user: str | None = None) -> Iterator[str]:
        return super().ids(user and user.partition("\0")[0])


class CutsRecords(PlainStore):
    """BLOB, which ends at 65,535 bytes; create complains, and replace was forgotten."""

    def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
        return super().replace(id, seen, data[:65_535], expires_at, user)


class ComparesBeginnings(PlainStore):
    """An index on the first 255 bytes."""

    def holds(self, id: str, seen: bytes) -> bool:
        row = self.live(id)
        return row is not None and row.data[:255] == seen[:255]


class EndsLate(PlainStore):
    """`>=`."""

    def find(self, id: str) -> Row | None:
        row = self.rows.get(id)
        return row if row is not None and row.expires_at >= self.clock() else None


class SparesTouches(PlainStore):
    """A touch is written only where it makes life longer."""

    def touch(self, id: str, seen: bytes, expires_at: float, user: str | None = None) -> bool:
        row = self.find(id)
        return super().touch(id, seen, max(expires_at, row.expires_at if row else 0.0), user)


class Caches(PlainStore):
    """Answers `load` from memory for a moment; its own writes it sees at once, but no other's and no end."""

    life = 0.05

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.cache: dict[Any, tuple[float, Any]] = {}

    def __getattribute__(self, name: str) -> Any:
        if name in ("create", "replace", "touch", "rotate", "delete", "clear"):
            self.forget_cached()
        return super().__getattribute__(name)

    def forget_cached(self) -> None:
        self.cache.clear()

    def cached(self, key: Any, read: Callable[[], Any]) -> Any:
        now = time.monotonic()
        until, found = self.cache.get(key, (0.0, None))
        if until < now:
            found = read()
            self.cache[key] = now + self.life, found
        return found

    def load(self, id: str) -> Any:
        return self.cached(id, lambda: super(Caches, self).load(id))


class CachesInEveryThread(Caches):
    """Each thread has a cache, and forgets only its own."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.here = threading.local()

    @property
    def cache(self) -> Any:
        return self.here.__dict__.setdefault("cache", {})

    @cache.setter
    def cache(self, value: Any) -> None:
        pass


class CachesLists(Caches):
    """The list of a user's sessions, which takes long to make."""

    life = 0.05

    def load(self, id: str) -> Any:
        return PlainStore.load(self, id)

    def forget_cached(self) -> None:
        pass

    def ids(self, user: str | None = None) -> Iterator[str]:
        return iter(self.cached(user, lambda: list(super(CachesLists, self).ids(user))))


class MarksAsDeleted(PlainStore):
    """A flag in place of a DELETE, which not every query looks at."""

    def delete(self, id: str) -> bool:
        with self.lock:
            live = self.live(id)
            if live is not None:
                self.rows[id] = Row(b"deleted", live.expires_at)
            return live is not None


BROKEN: list[tuple[Any, str]] = [
    # One record
    (CreatesOver, "an_id_that_is_taken_is_not_created_again"),
    (TouchesWhatIsGone, "what_is_not_there_is_absent_to_every_verb"),
    (TouchesUnseen, "only_what_was_seen_is_touched"),
    (SparesTouches, "only_what_was_seen_is_touched"),
    (ReplacesUnseen, "only_what_was_seen_is_replaced"),
    (ComparesBeginnings, "only_what_was_seen_is_replaced"),
    (OnlyLengthens, "only_what_was_seen_is_replaced"),
    (Decodes, "what_was_created_is_loaded_byte_by_byte"),
    (CutsRecords, "what_was_created_is_loaded_byte_by_byte"),
    (MatchesPatterns, "ids_that_look_alike_are_not_the_same"),
    (CutsIds, "ids_that_look_alike_are_not_the_same"),
    (MarksAsDeleted, "what_was_deleted_stays_gone"),
    (CachesInEveryThread, "every_read_sees_the_last_write"),
    (CachesLists, "every_read_sees_the_last_write"),
    (Caches, "what_one_wrote_the_other_sees"),
    # Expiry
    (Caches, "what_has_expired_is_absent_to_every_verb"),
    (LoadsTheExpired, "what_has_expired_is_absent_to_every_verb"),
    (RevivesTheExpired, "what_has_expired_is_absent_to_every_verb"),
    (KeepsIdsOfTheExpired, "what_has_expired_is_absent_to_every_verb"),
    (EndsLate, "a_record_ends_when_its_time_has_come"),
    (KeepsTheExpiry, "what_is_touched_in_time_lives_on"),
    (NeverExpiresInThePast, "what_expires_in_the_past_is_absent"),
    (KeepsNothingLong, "no_limit_is_a_long_time"),
    # A new id
    (Renames, "a_new_id_takes_the_record_and_leaves_a_tombstone"),
    (TombstonesAreNothing, "a_new_id_takes_the_record_and_leaves_a_tombstone"),
    (MovesTheOldRecord, "a_new_id_takes_the_record_and_leaves_a_tombstone"),
    (EveryIdInherits, "a_new_id_takes_the_record_and_leaves_a_tombstone"),
    (RotatesUnseen, "only_what_was_seen_is_rotated"),
    (CreatesAndThenBuries, "only_what_was_seen_is_rotated"),
    (RotatesOver, "no_session_is_rotated_to_an_id_that_is_taken"),
    (DeletesTombstones, "a_tombstone_keeps_its_id_for_a_while"),
    (WakesTombstones, "a_tombstone_keeps_its_id_for_a_while"),
    (BuriesForNoLonger, "a_tombstone_says_when_it_ends"),
    (BuriesForAsLong, "a_tombstone_says_when_it_ends"),
    (BuriesForAsLong, "a_tombstone_ends"),
    (KeepsHeirs, "a_tombstone_ends"),
    (FollowsHeirs, "only_a_tombstone_has_an_heir"),
    # Listing
    (ListsTombstones, "live_sessions_are_listed_once"),
    (ListsTwice, "live_sessions_are_listed_once"),
    (FoldsUsers, "a_user_has_the_sessions_that_are_his"),
    (CutsUsers, "a_user_has_the_sessions_that_are_his"),
    (EndsUsersAtNul, "a_user_has_the_sessions_that_are_his"),
    (ListsBeforeItCreates, "an_id_that_is_taken_joins_no_other_list"),
    (ListsTheExpired, "what_has_ended_is_in_nobodys_list"),
    (ForgetsUsers, "a_session_stays_in_its_users_list"),
    (ForgetsUsers, "a_session_joins_its_users_list_whenever_its_user_is_named"),
    (MovesTheOldUser, "a_new_id_is_the_session_of_the_user_that_was_given"),
    (IteratesLive, "a_listing_goes_on_while_sessions_come_and_go"),
    (ListsWhatLives, "a_listing_misses_no_session_that_is_given_a_new_id"),
    (ListsByName, "a_listing_misses_no_session_that_is_given_a_new_id"),
    (PurgesAll, "purge_leaves_what_lives"),
    (PurgesTombstones, "purge_leaves_what_lives"),
    (CountsTombstones, "clear_forgets_every_session_and_says_how_many"),
    # At once
    (LooksAndThenWrites, "threads_count_exactly"),
    (LooksAndThenWrites, "stores_on_the_same_sessions_count_exactly"),
    (CreatesInTwoSteps, "of_many_that_create_an_id_one_does"),
    (RotatesWithoutALock, "of_many_that_rotate_a_session_one_does"),
    (DeletesInTwoSteps, "a_session_is_deleted_or_rotated_and_never_both"),
    (DeletesQuietly, "no_writer_brings_back_what_another_deletes"),
    (ListsWhatLives, "no_listing_misses_what_another_thread_rotates"),
    (ClearsWhatItLists, "clear_ends_what_was_live_when_it_began"),
    (ClosesOnce, "closing_twice_is_closing_once"),
]


@pytest.mark.parametrize(("store", "rule"), BROKEN)
def test_a_broken_store_is_caught(store: Any, rule: str) -> None:
    class Broken(TestAStrangersStore):
        def make_store(self) -> Any:
            return store(self.clock)

    # A store that is broken in a race alone is caught when threads meet, which may take some runs.
    result = unittest.TestResult()
    for _ in range(50):
        Broken(f"test_{rule}").run(result)
        if result.failures or result.errors:
            break

    assert result.failures + result.errors != []


def test_every_rule_catches_a_store() -> None:
    """A rule that no mistake breaks would be a test that cannot fail."""
    rules = {name for name in dir(StoreContract) if name.startswith("test_")}

    assert {f"test_{rule}" for _, rule in BROKEN} == rules


def run(contract: type[unittest.TestCase]) -> unittest.TestResult:
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(contract).run(result)
    assert result.testsRun > 20
    return result


# What is right and not exact


class Restless(Clock):
    """Time that also passes by itself, as real time does: a little with every look at it."""

    def __call__(self) -> float:
        self.now += 0.000_002
        return self.now


class Late(PlainStore):
    """A record is there in the very millisecond in which it ends, as in Redis."""

    def find(self, id: str) -> Row | None:
        row = self.rows.get(id)
        return row if row is not None and row.expires_at > self.clock() - 0.001 else None


class Whole(PlainStore):
    """A backend that counts whole seconds, and how it comes to them."""

    def __init__(self, clock: Callable[[], float], rounded: Callable[[float], float]) -> None:
        super().__init__(lambda: float(floor(clock())))
        self.rounded = rounded

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, Rounding(self) if name == "rows" else value)


class Rounding(dict[str, Row]):
    """Rows, each of which ends with a whole second."""

    def __init__(self, store: Whole) -> None:
        self.store = store

    def __setitem__(self, id: str, row: Row) -> None:
        ends = row.expires_at
        rounded = float(self.store.rounded(ends)) if isfinite(ends) else ends
        super().__setitem__(id, row._replace(expires_at=rounded))


@pytest.mark.parametrize(("clock", "begins"), [(Clock, 0.73), (Restless, 0.0), (Restless, 0.5), (Restless, 0.99)])
@pytest.mark.parametrize("rounded", [floor, ceil, round])
def test_a_store_that_counts_whole_seconds_passes(rounded: Any, clock: type[Clock], begins: float) -> None:
    class Contract(TestAStrangersStore):
        tick = 1.0

        def make_store(self) -> Any:
            return Whole(self.clock, rounded)

        def open_again(self, store: Any) -> Any:
            return None

        @property
        def clock(self) -> Clock:
            told: Clock = self.__dict__.setdefault("_clock", clock(1_795_000_000.0 + begins))
            return told

    result = run(Contract)

    assert result.failures + result.errors == []


def test_a_store_that_ends_a_record_a_millisecond_late_passes() -> None:
    """Where time is not told, no test looks at the very moment."""

    class Contract(TestAStrangersStore):
        def make_store(self) -> Any:
            return Late(self.clock)

        @property
        def clock(self) -> Clock:
            restless: Clock = self.__dict__.setdefault("_clock", Restless())
            return restless

    result = run(Contract)

    assert result.failures + result.errors == []


def test_a_store_that_only_keeps_sessions_passes_without_listing() -> None:
    """`ids`, `purge` and `clear` are for operators; the middleware does without."""

    class SevenVerbs:
        def __init__(self, store: Any) -> None:
            self.load, self.create, self.replace = store.load, store.create, store.replace
            self.touch, self.rotate, self.heir = store.touch, store.rotate, store.heir
            self.delete, self.close = store.delete, store.close

    class Contract(Timeless, unittest.TestCase):
        def make_store(self) -> Store:
            return SevenVerbs(PlainStore(self.clock))

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
    assert f"finds {len({store for store, _ in BROKEN})} stores" in PAGE.read_text()
