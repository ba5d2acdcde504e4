"""The test-kit that every store passes: ours, and yours.

::

    import unittest
    from minisession.testing import StoreContract

    class TestMyStore(StoreContract, unittest.TestCase):
        def make_store(self):
            return MyStore()

pytest and unittest both run it.  Each test's name is a rule, and its docstring says what goes wrong
where the rule is broken.
"""

from __future__ import annotations

import sys
import threading
import time
import unittest
from collections.abc import Callable
from math import inf
from typing import Any, cast

from .stores.base import TOMBSTONE, ListingStore, Store, Stored

HOUR = 3600.0
YEAR = 365 * 24 * HOUR
THREADS = 8
SIMILAR = (
    "id",
    "ID",
    "id ",
    "i",
    "idd",
    "i*",
    "i?",
    "[i]d",
    "id%",
    "i_",
    "i:d",
    "'id'",
    "\\id",
    "i\0d",
    "ïd",
    "i\u0308d",
    "😀",
)


class StoreContract:
    """What `Store` and `ListingStore` promise, as tests; mix it into a `unittest.TestCase`.

    Override `make_store`; the other hooks where the defaults do not fit.  The tests of listing are
    skipped for a store that has no ``ids``, those of sharing for a store that stays in its process.
    """

    tick = 0.1
    """The shortest lifetime, in seconds, that the store tells from none and from twice as long."""

    def make_store(self) -> Store:
        """Return a new, empty store.  It is closed after the test."""
        raise NotImplementedError("override make_store()")

    def open_again(self, store: Store) -> Store | None:
        """Return a second store on the same sessions, as another process would have it; None if that cannot be."""
        return None

    def now(self) -> float:
        """Return the store's time, in Unix seconds."""
        return time.time()

    def wait(self, seconds: float) -> None:
        """Let the store's time pass.  Advance its clock, if it takes one, and the tests take no time."""
        time.sleep(seconds)

    # One record

    def test_what_is_not_there_is_absent_to_every_verb(self) -> None:
        """And stays absent: a touch or a replace that creates brings logged-out users back."""
        store = self._store()
        for _ in range(2):
            _same(store.load("id"), None)
            _same(store.replace("id", b"seen", b"new", self._later()), False)
            _same(store.replace("id", b"", b"new", self._later()), False)
            _same(store.touch("id", b"seen", self._later()), False)
            _same(store.touch("id", b"", self._later()), False)
            _same(store.delete("id"), False)

    def test_what_was_created_is_loaded_byte_by_byte(self) -> None:
        """The next compare-and-set compares these bytes."""
        store = self._store()
        for number, data in enumerate((b"{}", b" ", bytes(range(256)), "é😀".encode(), b"x" * 1_000_000)):
            expires_at = self._later(number)
            _same(store.create(str(number), data, expires_at), True)
            self._holds(store, str(number), data, expires_at)

    def test_an_id_that_is_taken_is_not_created_again(self) -> None:
        """Or one visitor gets another's session."""
        store = self._store()
        expires_at = self._later()
        store.create("id", b"first", expires_at)
        _same(store.create("id", b"second", self._later(1)), False)
        self._holds(store, "id", b"first", expires_at)

    def test_only_what_was_seen_is_replaced(self) -> None:
        """Or of two requests that overlap, one loses what it wrote."""
        store = self._store()
        expires_at = self._later()
        store.create("id", b"seen", expires_at)
        for other in (b"see", b"seen ", b"Seen", b"", b"\0seen"):
            _same(store.replace("id", other, b"new", self._later(1)), False)
            self._holds(store, "id", b"seen", expires_at)
        for expires_at in (self._later(1), self._later(-0.5)):
            _same(store.replace("id", b"seen", b"seen", expires_at), True)
            self._holds(store, "id", b"seen", expires_at)
        _same(store.replace("id", b"seen", b"new", self._later()), True)
        self._holds(store, "id", b"new", self._later())

    def test_only_what_was_seen_is_touched(self) -> None:
        """Or a touch that is late undoes a shorter lifetime, or keeps a tombstone."""
        store = self._store()
        expires_at = self._later()
        store.create("id", b"seen", expires_at)
        for other in (b"see", b"seen ", b""):
            _same(store.touch("id", other, self._later(1)), False)
            self._holds(store, "id", b"seen", expires_at)
        for expires_at in (self._later(1), self._later(-0.5)):
            _same(store.touch("id", b"seen", expires_at), True)
            self._holds(store, "id", b"seen", expires_at)

    def test_what_was_deleted_stays_gone(self) -> None:
        """A logout is final, whatever a request in flight does."""
        store = self._store()
        store.create("id", b"data", self._later(), "ann")
        _same(store.delete("id"), True)
        _same(store.delete("id"), False)
        _same(store.touch("id", b"data", self._later(), "ann"), False)
        _same(store.replace("id", b"data", b"new", self._later(), "ann"), False)
        _same(store.load("id"), None)
        _same(store.create("id", b"new", self._later()), True)

    def test_ids_that_look_alike_are_not_the_same(self) -> None:
        """No folding of case, space or Unicode, and no pattern, in what names a session."""
        store = self._store()
        ids = [*SIMILAR, "x" * 255]
        for id in ids:
            _same(store.create(id, id.encode(), self._later()), True)
        for id in ids:
            self._holds(store, id, id.encode(), self._later())
        _same(store.delete("i*"), True)
        for id in ids:
            _same(store.load(id) is None, id == "i*")

    # Expiry

    def test_what_has_expired_is_absent_to_every_verb(self) -> None:
        """Also where nothing has freed it yet, and exactly when its time has come."""
        verbs: tuple[Callable[[Store], object], ...] = (
            lambda store: store.load("id"),
            lambda store: store.replace("id", b"data", b"new", self._later()) or None,
            lambda store: store.touch("id", b"data", self._later()) or None,
            lambda store: store.delete("id") or None,
        )
        for verb in verbs:
            store = self._store()
            store.create("id", b"data", self.now() + self.tick)
            self.wait(self.tick)
            _same(verb(store), None)
            _same(store.load("id"), None)
            _same(store.create("id", b"other", self._later()), True)
            self._holds(store, "id", b"other", self._later())

    def test_what_is_touched_in_time_lives_on(self) -> None:
        """For as long as the touch says, and no longer."""
        store = self._store()
        store.create("id", b"data", self.now() + self.tick)
        _same(store.touch("id", b"data", self.now() + 3 * self.tick), True)
        self.wait(1.5 * self.tick)
        _same(store.load("id") is None, False)
        self.wait(2 * self.tick)
        _same(store.load("id"), None)

    def test_what_expires_in_the_past_is_absent(self) -> None:
        """A deadline that has come is an end, not an error, and never "no limit"."""
        store = self._store()
        for past in (self.now() - HOUR, 1.0, 0.0, -1.0):
            store.create("new", b"data", past)
            _same(store.load("new"), None)
            for verb in ("replace", "touch"):
                store.create(verb, b"data", self._later())
                if verb == "replace":
                    store.replace(verb, b"data", b"new", past)
                else:
                    store.touch(verb, b"data", past)
                _same(store.load(verb), None)

    def test_no_limit_is_a_long_time(self) -> None:
        """``inf``, and dates past every calendar: a store may clamp them, to a year or more."""
        store = self._store()
        for number, expires_at in enumerate((inf, 1e12, 1e300)):
            store.create(str(number), b"data", expires_at)
            _same(store.touch(str(number), b"data", expires_at), True)
            _same(self._load(store, str(number)).expires_at > self.now() + YEAR - HOUR, True)

    def test_a_tombstone_keeps_its_id_for_a_while(self) -> None:
        """What `regenerate` leaves behind, so that the old id is neither alive nor free."""
        store = self._store()
        store.create("id", b"data", self._later(), "ann")
        _same(store.replace("id", b"data", TOMBSTONE, self.now() + 2 * self.tick), True)
        _same(self._load(store, "id").data, TOMBSTONE)
        _same(store.touch("id", b"data", self._later(), "ann"), False)
        _same(store.replace("id", b"data", b"new", self._later(), "ann"), False)
        _same(store.create("id", b"new", self._later()), False)
        self.wait(3 * self.tick)
        _same(store.load("id"), None)
        _same(store.create("id", b"new", self._later()), True)

    # Listing

    def test_live_sessions_are_listed_once(self) -> None:
        """And neither tombstones nor what has ended."""
        store = self._listing()
        expected = {f"{number}" for number in range(300)} | set(SIMILAR)
        for id in expected:
            store.create(id, b"data", self._later())
        store.create("deleted", b"data", self._later())
        store.delete("deleted")
        store.create("replaced", b"data", self._later())
        store.replace("replaced", b"data", TOMBSTONE, self._later())
        store.create("expired", b"data", self.now() + self.tick)
        self.wait(self.tick)
        _same(sorted(store.ids()), sorted(expected))

    def test_a_user_has_the_sessions_that_are_his(self) -> None:
        """Or "log out everywhere" forgets one, or ends somebody else's."""
        store = self._listing()
        users = ["ann", "Ann", "ann ", "an", "a*", "ann:1", "änn", "😀", "'", "x" * 300]
        for user in users:
            for number in range(3):
                store.create(f"{user}{number}", b"data", self._later(), user)
        store.create("nobody's", b"data", self._later())
        for user in users:
            _same(sorted(store.ids(user)), [f"{user}{number}" for number in range(3)])
        _same(list(store.ids("nobody")), [])
        _same(len(list(store.ids())), 3 * len(users) + 1)

    def test_an_id_that_is_taken_joins_no_other_list(self) -> None:
        """Or who failed to create it is shown another's session, and can end it."""
        store = self._listing()
        store.create("id", b"first", self._later(), "ann")
        for user in ("bob", "ann"):
            _same(store.create("id", b"second", self._later(), user), False)
            _same((list(store.ids("ann")), list(store.ids("bob"))), (["id"], []))

    def test_what_has_ended_is_in_nobodys_list(self) -> None:
        """Deleted, replaced by a tombstone, expired."""
        store = self._listing()
        for id in ("deleted", "replaced", "live"):
            store.create(id, b"data", self._later(), "ann")
        store.create("expired", b"data", self.now() + self.tick, "ann")
        store.delete("deleted")
        store.replace("replaced", b"data", TOMBSTONE, self._later())
        self.wait(self.tick)
        _same(list(store.ids("ann")), ["live"])

    def test_a_session_stays_in_its_users_list(self) -> None:
        """However it is used, and however long."""
        store = self._listing()
        store.create("id", b"data", self.now() + 2 * self.tick, "ann")
        _same(store.touch("id", b"data", self.now() + 4 * self.tick, "ann"), True)
        self.wait(3 * self.tick)
        _same(list(store.ids("ann")), ["id"])
        _same(store.replace("id", b"data", b"new", self._later(), "ann"), True)
        self.wait(2 * self.tick)
        _same(list(store.ids("ann")), ["id"])

    def test_a_session_joins_its_users_list_whenever_its_user_is_named(self) -> None:
        """A record that another program wrote is listed once it was used here."""
        store = self._listing()
        for id in ("replaced", "touched"):
            store.create(id, b"data", self._later())
        store.replace("replaced", b"data", b"new", self._later(), "ann")
        store.touch("touched", b"data", self._later(), "ann")
        _same(sorted(store.ids("ann")), ["replaced", "touched"])

    def test_a_listing_goes_on_while_sessions_come_and_go(self) -> None:
        """What is there from beginning to end is listed, and nothing raises."""
        for user in (None, "ann"):
            store = self._listing()
            for number in range(300):
                store.create(str(number), b"data", self._later(), "ann")
            listed = []
            for number, id in enumerate(store.ids(user)):
                listed.append(id)
                if number < 150:
                    store.delete(str(2 * number + 1))
                    store.create(f"new {number}", b"data", self._later(), "bob")
            _same({str(number) for number in range(0, 300, 2)} <= set(listed), True)

    def test_purge_leaves_what_lives(self) -> None:
        """It frees what has expired, and nothing else."""
        store = self._listing()
        for number in range(100):
            store.create(str(number), b"data", self.now() + self.tick if number % 2 else self._later(), "ann")
        self.wait(self.tick)
        _same(store.purge() <= 50, True)
        _same(store.purge(), 0)
        _same(len(list(store.ids("ann"))), 50)

    def test_clear_forgets_every_session_and_says_how_many(self) -> None:
        """Tombstones do not count."""
        store = self._listing()
        for number in range(300):
            store.create(str(number), b"data", self._later(), ("ann", None)[number % 2])
        store.replace("0", b"data", TOMBSTONE, self._later())
        _same(store.clear(), 299)
        _same((list(store.ids()), list(store.ids("ann")), store.load("1"), store.clear()), ([], [], None, 0))
        _same(store.create("1", b"data", self._later(), "ann"), True)
        _same(list(store.ids("ann")), ["1"])

    # At once

    def test_threads_count_exactly(self) -> None:
        """Compare and set is one step: eight threads, one counter, nothing lost."""
        store = self._store()
        store.create("id", b"0", self._later())
        self._count([store] * THREADS)

    def test_of_many_that_create_an_id_one_does(self) -> None:
        """Or two visitors share a session."""
        store = self._store()
        for turn in range(20):
            created: list[bool] = []

            def create(number: int, turn: int = turn, created: list[bool] = created) -> None:
                created.append(store.create(f"id {turn}", b"%d" % number, self._later()))

            _together(create)
            _same(sorted(created), [False] * (THREADS - 1) + [True])

    def test_no_writer_brings_back_what_another_deletes(self) -> None:
        """Logout against touch and replace: gone is gone, and a delete that finds nothing says so."""
        store = self._store()
        for turn in range(20):
            id = f"id {turn}"
            store.create(id, b"data", self._later(), "ann")
            deleted: list[bool] = []

            def work(number: int, id: str = id, deleted: list[bool] = deleted) -> None:
                if number < 2:
                    deleted.append(store.delete(id))
                elif number % 2:
                    store.touch(id, b"data", self._later(1), "ann")
                else:
                    store.replace(id, b"data", b"data", self._later(1), "ann")

            _together(work)
            _same(sorted(deleted), [False, True])
            _same(store.load(id), None)

    def test_what_one_wrote_the_other_sees(self) -> None:
        """Two processes on the same sessions."""
        store = self._store()
        other = self._again(store)
        expires_at = self._later()
        store.create("id", b"data", expires_at, "ann")
        self._holds(other, "id", b"data", expires_at)
        _same(other.create("id", b"other", self._later()), False)
        _same(other.replace("id", b"data", b"new", self._later(), "ann"), True)
        _same(store.replace("id", b"data", b"late", self._later(), "ann"), False)
        _same(store.delete("id"), True)
        _same(other.load("id"), None)

    def test_stores_on_the_same_sessions_count_exactly(self) -> None:
        """Compare and set is one step between processes, too."""
        store = self._store()
        store.create("id", b"0", self._later())
        other = self._again(store)
        self._count([store, other] * (THREADS // 2))

    def test_closing_twice_is_closing_once(self) -> None:
        """Servers do, at exit."""
        store = self._store()
        store.create("id", b"data", self._later())
        store.close()
        store.close()

    # What the tests need

    def _store(self) -> Store:
        store = self.make_store()
        cast("unittest.TestCase", self).addCleanup(store.close)
        return store

    def _again(self, store: Store) -> Store:
        other = self.open_again(store)
        if other is None:
            raise unittest.SkipTest("a store in one process: open_again() returns None")
        cast("unittest.TestCase", self).addCleanup(other.close)
        return other

    def _listing(self) -> ListingStore:
        store = self._store()
        if not hasattr(store, "ids"):
            raise unittest.SkipTest("a store that does not list: it has no ids()")
        return cast("ListingStore", store)

    def _later(self, hours: float = 0.0) -> float:
        return self.now() + (1 + hours) * HOUR

    def _load(self, store: Store, id: str) -> Stored:
        stored = store.load(id)
        if stored is None:
            raise AssertionError(f"{id!r} is not there")
        return stored

    def _holds(self, store: Store, id: str, data: bytes, expires_at: float) -> None:
        stored = self._load(store, id)
        _same(stored.data, data)
        _same(type(stored.data), bytes)
        if abs(stored.expires_at - expires_at) > 60:  # stores may round, machines may be slow; an hour is a bug
            raise AssertionError(f"{id!r} expires at {stored.expires_at}, not at {expires_at}")

    def _count(self, stores: list[Store]) -> None:
        each = 25

        def count(number: int) -> None:
            for _ in range(each):
                while True:
                    seen = self._load(stores[number], "id").data
                    if stores[number].replace("id", seen, b"%d" % (int(seen) + 1), self._later()):
                        break

        _together(count)
        _same(self._load(stores[0], "id").data, b"%d" % (each * THREADS))


def _same(got: Any, expected: Any) -> None:
    if got != expected:
        raise AssertionError(f"{_short(got)}, and not {_short(expected)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _together(work: Callable[[int], None]) -> None:
    """Run ``work(0)``, ``work(1)``, … in threads that begin at once and are interrupted often."""
    begin = threading.Barrier(THREADS, timeout=30)
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            begin.wait()
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(THREADS)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    if any(thread.is_alive() for thread in threads):
        raise AssertionError("a call has not returned within a minute")
    if failures:
        raise failures[0]
