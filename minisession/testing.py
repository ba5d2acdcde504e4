"""For tests: sessions without a browser, and the test-kit that every store passes, ours and yours.

`log_in` makes a session and returns its cookie.  `StoreContract` is the test-kit::

    import unittest
    from minisession.testing import StoreContract

    class TestMyStore(StoreContract, unittest.TestCase):
        def make_store(self):
            return MyStore()

pytest and unittest both run it.  Each test's name is a rule, and its docstring says what goes wrong
if a store breaks it.
"""

from __future__ import annotations

import sys
import threading
import time
import unittest
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar, cast
from wsgiref.util import setup_testing_defaults

from .errors import SessionConflict, StoreUnavailable
from .middleware import SessionMiddleware, get_session
from .stores.base import TOMBSTONE, TOMBSTONE_LIFE, ListingStore, Store, Stored

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

    from .visit import JSON

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
# Lengths at which columns, keys and file names end.  An id has at most 255 characters, a user any
# number.
LIMITS = (16, 32, 40, 63, 64, 100, 127, 128, 191, 250, 254)
LONG = (255, 256, 300, 320, 511, 512, 1000, 1023, 1024, 4096)
# Records, and others that differ from them slightly, where an index or a comparison may end.
ALIKE = {
    "short": (b"seen", (b"see", b"seen ", b"Seen", TOMBSTONE, b"\0seen", b"seen\0")),
    "long": (b"x" * 1000 + b"a", (b"x" * 1000 + b"b", b"y" + b"x" * 999 + b"a", b"x" * 1000)),
    "longer": (b"x" * 70_000 + b"a", (b"x" * 70_000 + b"b", b"x" * 65_535, TOMBSTONE)),
}

Result = TypeVar("Result")


# Sessions


def log_in(app: object, user: str | None = None, /, **data: JSON) -> str:
    """Make a session as a request would, store it, and return its cookie.

    Args:
        app: the `SessionMiddleware`, or what leads to it by ``wsgi_app`` or ``app``, as
            Flask's app and most middleware do.  Where several have different names, it is the
            innermost, as in `get_session`.
        user: as given to ``regenerate(user=…)``; None for a visitor who is not logged in.  Without
            a name: ``user="ada"`` would be data.
        data: what the session holds.

    Returns:
        ``name=value``, for a ``Cookie`` header, or to be split at the first ``=``.

    Raises:
        TypeError: no `SessionMiddleware` was found; or the user or a value is of a wrong type.
        ValueError: neither a user nor data was given: such a session is not stored.
        SessionTooLarge, StoreUnavailable: it could not be stored.
    """
    if user is None and not data:
        raise ValueError("log_in needs a user, or data: a new and empty session is not stored")
    page = _LoggingIn(user, data)
    middleware = copy(_middleware_of(app))
    middleware.app = page
    environ: dict[str, Any] = {"wsgi.url_scheme": "https"}
    setup_testing_defaults(environ)
    for _ in middleware(environ, page.start_response):
        pass
    if page.failure is not None:
        raise page.failure
    return page.cookie


class _LoggingIn:
    """An app with one page, and the browser that visits it."""

    def __init__(self, user: str | None, data: dict[str, JSON]) -> None:
        self.user = user
        self.data = data
        self.failure: Exception | None = None
        self.cookie = ""

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        session = get_session(environ)
        try:
            if self.user is not None:
                session.regenerate(user=self.user)
            session.update(self.data)
            session.save()
        except (StoreUnavailable, SessionConflict) as error:
            # The middleware would turn it into a 503.
            self.failure = error
        start_response("204 No Content", [])
        return []

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: object = None, /
    ) -> Callable[[bytes], object]:
        self.cookie = dict(headers).get("Set-Cookie", "").partition(";")[0]
        return lambda data: None


def _middleware_of(app: object) -> SessionMiddleware:
    found = list(_middlewares(app))
    if not found:
        raise TypeError(
            f"no SessionMiddleware was found in {app!r}, nor by its attributes wsgi_app and app:"
            " give log_in the SessionMiddleware itself"
        )
    # Of several with one name, the outermost serves; of several names, the app gets the innermost.
    by_name: dict[str, SessionMiddleware] = {}
    for middleware in found:
        by_name.setdefault(middleware._lifecycle.options.name, middleware)
    return [*by_name.values()][-1]


def _middlewares(app: object) -> Iterator[SessionMiddleware]:
    """Yield every `SessionMiddleware` on the way from the server to the app."""
    waiting, seen = [app], set[int]()
    # An object that makes up its attributes, such as a mock, would lead on forever.
    while waiting and len(seen) < 100:
        layer = waiting.pop()
        if layer is None or id(layer) in seen:
            continue
        seen.add(id(layer))
        if isinstance(layer, SessionMiddleware):
            yield layer
        waiting += [getattr(layer, name, None) for name in ("app", "wsgi_app")]


# Stores


class StoreContract:
    """What `Store` and `ListingStore` promise, as tests; mix it into a `unittest.TestCase`.

    Override `make_store`; the other hooks where the defaults do not fit.  The tests of listing are
    skipped for a store without ``ids``, those of sharing for a store that stays in its process.
    """

    # How exact the store is, in seconds: a record may end that much too early or too late.
    tick = 0.1

    def make_store(self) -> Store:
        """Return a new, empty store.  It is closed after the test."""
        raise NotImplementedError("override make_store()")

    def open_again(self, store: Store) -> Store | None:
        """Return a second store on the same sessions, as another process has it, or None."""
        return None

    def now(self) -> float:
        """Return the store's time, in Unix seconds."""
        return time.time()

    def wait(self, seconds: float) -> None:
        """Let the store's time pass.  Advance its clock, if it takes one, and no test waits."""
        time.sleep(seconds)

    # One record

    def test_what_is_not_there_is_absent_to_every_verb(self) -> None:
        """It stays absent: a touch or a replace that creates it brings logged-out users back."""
        store = self._store()
        for _ in range(2):
            for seen in (b"seen", TOMBSTONE):
                _same(store.replace("id", seen, b"new", self._later()), False)
                _same(store.touch("id", seen, self._later()), False)
                _same(store.rotate("id", seen, "new", b"new", self._later(), inherits=True), False)
            _same(store.delete("id"), False)
            _same((store.load("id"), store.load("new"), store.heir("id")), (None, None, None))

    def test_what_was_created_is_loaded_byte_by_byte(self) -> None:
        """The next compare-and-set compares these bytes."""
        store = self._store()
        seen = b"first"
        store.create("changed", seen, self._later())
        store.create("moved 0", seen, self._later())
        kinds = (b"{}", b" ", bytes(range(256)), "é😀".encode(), b"x" * 70_000, b"x" * 1_000_000)
        for number, data in enumerate(kinds):
            ends = self._later(number)
            old, new = f"moved {number}", f"moved {number + 1}"
            _same(store.create(str(number), data, ends), True)
            _same(store.replace("changed", seen, data, ends), True)
            _same(store.rotate(old, seen, new, data, ends, inherits=True), True)
            for id in (str(number), "changed", new):
                self._holds(store, id, data, ends)
            seen = data

    def test_an_id_that_is_taken_is_not_created_again(self) -> None:
        """Otherwise one visitor gets another's session."""
        store = self._store()
        ends = self._later()
        store.create("id", b"first", ends)
        _same(store.create("id", b"second", self._later(1)), False)
        self._holds(store, "id", b"first", ends)

    def test_only_what_was_seen_is_replaced(self) -> None:
        """Otherwise one of two overlapping requests loses what it wrote."""
        store = self._store()
        ends = self._later()
        for id, (seen, others) in ALIKE.items():
            store.create(id, seen, ends)
            for other in others:
                _same(store.replace(id, other, b"new", self._later(1)), False)
                self._holds(store, id, seen, ends)
        for ends in (self._later(1), self._later(-0.5)):
            _same(store.replace("short", b"seen", b"seen", ends), True)
            self._holds(store, "short", b"seen", ends)
        _same(store.replace("short", b"seen", b"new", self._later()), True)
        self._holds(store, "short", b"new", self._later())

    def test_only_what_was_seen_is_touched(self) -> None:
        """Otherwise a late touch undoes a shorter lifetime."""
        store = self._store()
        ends = self._later()
        for id, (seen, others) in ALIKE.items():
            store.create(id, seen, ends)
            for other in others:
                _same(store.touch(id, other, self._later(1)), False)
                self._holds(store, id, seen, ends)
        for ends in (self._later(1), self._later(-0.5)):
            _same(store.touch("short", b"seen", ends), True)
            self._holds(store, "short", b"seen", ends)

    def test_what_was_deleted_stays_gone(self) -> None:
        """A logout is final, no matter what a request in flight does."""
        store = self._store()
        store.create("id", b"data", self._later(), "ann")
        _same(store.delete("id"), True)
        _same(store.delete("id"), False)
        _same(store.touch("id", b"data", self._later(), "ann"), False)
        _same(store.replace("id", b"data", b"new", self._later(), "ann"), False)
        _same(self._rotate(store, "id", "new"), False)
        _same((store.load("id"), store.load("new")), (None, None))
        _same(store.create("id", b"new", self._later()), True)

    def test_ids_that_look_alike_are_not_the_same(self) -> None:
        """No folding of case, space or Unicode, no pattern, and no end cut off."""
        store = self._store()
        ids = [*SIMILAR, *(f"{'x' * length}{end}" for length in LIMITS for end in "ab")]
        ids += [f"{'😀' * length}{end}" for length in LIMITS for end in "ab"]
        for id in ids:
            _same(store.create(id, id.encode(), self._later()), True)
        for id in ids:
            self._holds(store, id, id.encode(), self._later())
        _same(store.delete("i*"), True)
        for id in ids:
            _same(store.load(id) is None, id == "i*")

    def test_every_read_sees_the_last_write(self) -> None:
        """In every thread: with a cache of reads, a session goes on after its logout."""
        store = self._store()
        for number, (writer, reader) in enumerate(
            ((store, store), (store, self._elsewhere(store)), (self._elsewhere(store), store))
        ):
            self._reads_are_fresh(writer, reader, f"turn {number}")

    # Expiry

    def test_what_has_expired_is_absent_to_every_verb(self) -> None:
        """Even if it has not been freed yet."""
        store = self._store()
        verbs: dict[str, Callable[[str], object]] = {
            "load": store.load,
            "heir": store.heir,
            "replace": lambda id: store.replace(id, b"data", b"new", self._later()) or None,
            "touch": lambda id: store.touch(id, b"data", self._later()) or None,
            "rotate": lambda id: self._rotate(store, id, "new") or None,
            "delete": lambda id: store.delete(id) or None,
        }
        store.create("free again", b"data", self.now() + self.tick)
        for id in verbs:
            store.create(id, b"data", self.now() + self.tick)
        for id in verbs:
            # A cache would remember it.
            store.load(id)
        self.wait(2.25 * self.tick)
        for id, verb in verbs.items():
            _same(verb(id), None)
            _same((store.load(id), store.load("new")), (None, None))
            _same(store.create(id, b"other", self._later()), True)
            self._holds(store, id, b"other", self._later())
        store.create("live", b"data", self._later())
        _same(self._rotate(store, "live", "free again"), True)

    def test_a_record_ends_when_its_time_has_come(self) -> None:
        """Not a moment later, and not much earlier, for a store that can be told the time."""
        self._needs_a_clock()
        if self.tick >= 1:
            raise unittest.SkipTest("a store that counts in whole seconds: see tick")
        store = self._store()
        store.create("id", b"data", self.now() + 1)
        self.wait(1 - self.tick)
        _same(store.load("id") is None, False)
        self.wait(self.tick)
        _same(store.load("id"), None)

    def test_what_is_touched_in_time_lives_on(self) -> None:
        """For as long as the touch says, and no longer."""
        store = self._store()
        began = self.now()
        with self._until(began + 3 * self.tick):
            store.create("id", b"data", began + 3 * self.tick)
            _same(store.touch("id", b"data", began + 5.5 * self.tick), True)
        self.wait(3.25 * self.tick)
        with self._until(began + 5.5 * self.tick):
            _same(store.load("id") is None, False)
        self.wait(3.5 * self.tick)
        _same(store.load("id"), None)

    def test_what_expires_in_the_past_is_absent(self) -> None:
        """A deadline that has come is an end, not an error, and never "no limit"."""
        store = self._store()
        for past in (self.now() - HOUR, 1.0, 0.0, -1.0):
            for id in ("old", "touch", "replace"):
                store.create(id, b"data", self._later())
            store.create("create", b"data", past)
            store.touch("touch", b"data", past)
            store.replace("replace", b"data", b"new", past)
            store.rotate("old", b"data", "rotate", b"data", past, inherits=True)
            for id in ("create", "touch", "replace", "rotate"):
                _same(store.load(id), None)

    def test_no_limit_is_a_long_time(self) -> None:
        """``inf``, and dates past every calendar: a store may clamp them, to a year or more."""
        store = self._store()
        for number, ends in enumerate((inf, 1e12, 1e300)):
            old, new = f"old {number}", f"new {number}"
            store.create(old, b"data", ends)
            _same(store.touch(old, b"data", ends), True)
            _same(self._load(store, old).expires_at > self.now() + YEAR - HOUR, True)
            _same(store.rotate(old, b"data", new, b"data", ends, inherits=True), True)
            _same(self._load(store, new).expires_at > self.now() + YEAR - HOUR, True)

    # A new id

    def test_a_new_id_takes_the_record_and_leaves_a_tombstone(self) -> None:
        """An old id that lives on is session fixation, and one that is free can be taken."""
        store = self._store()
        for number, inherits in enumerate((True, False)):
            old, new, ends = f"old {number}", f"new {number}", self._later(1 + number)
            store.create(old, b"data", self._later(9), "ann")
            moved = store.rotate(old, b"data", new, b"moved", ends, "ann", inherits=inherits)
            _same(moved, True)
            self._holds(store, new, b"moved", ends)
            self._is_tombstone(store, old, new if inherits else None)

    def test_only_what_was_seen_is_rotated(self) -> None:
        """Otherwise a new id undoes what another request has changed meanwhile."""
        store = self._store()
        ends = self._later()
        for old, (seen, others) in ALIKE.items():
            store.create(old, seen, ends)
            for other in others:
                moved = store.rotate(old, other, "new", b"new", self._later(1), inherits=True)
                _same(moved, False)
                self._holds(store, old, seen, ends)
                _same((store.load("new"), store.heir(old)), (None, None))

    def test_no_session_is_rotated_to_an_id_that_is_taken(self) -> None:
        """By a session, by a tombstone, or by itself: two visitors would share a session."""
        store = self._store()
        ends = self._later()
        for id in ("old", "taken", "buried"):
            store.create(id, b"data", ends, "ann")
        self._rotate(store, "buried", "heir")
        for new in ("taken", "buried", "old"):
            moved = store.rotate("old", b"data", new, b"new", self._later(1), "bob", inherits=True)
            _same(moved, False)
            self._holds(store, "old", b"data", ends)
            self._holds(store, "taken", b"data", ends)
            self._is_tombstone(store, "buried", "heir")
            _same((store.heir("old"), store.heir("taken")), (None, None))
            if hasattr(store, "ids"):
                listing = cast("ListingStore", store)
                _same(sorted(listing.ids("ann")), ["heir", "old", "taken"])
                _same(list(listing.ids("bob")), [])

    def test_a_tombstone_keeps_its_id_for_a_while(self) -> None:
        """So that the old id is neither alive nor free, and its heir is found."""
        store = self._store()
        store.create("id", b"data", self._later(), "ann")
        store.create("other", b"data", self._later())
        self._rotate(store, "id", "heir")
        for _ in range(2):
            for seen in (TOMBSTONE, b"data"):
                _same(store.touch("id", seen, self._later(1), "ann"), False)
                _same(store.replace("id", seen, b"new", self._later(1), "ann"), False)
                _same(store.rotate("id", seen, "new", b"new", self._later(), inherits=True), False)
            _same(store.create("id", b"new", self._later(1)), False)
            _same(self._rotate(store, "other", "id"), False)
            _same(store.delete("id"), False)
            self._is_tombstone(store, "id", "heir")
        _same(store.load("new"), None)
        self._holds(store, "heir", b"data", self._later())
        self._holds(store, "other", b"data", self._later())

    def test_a_tombstone_says_when_it_ends(self) -> None:
        """After `TOMBSTONE_LIFE`, however long the session would have lived."""
        store = self._store()
        for number, life in enumerate((5 * self.tick, HOUR, 40 * 24 * HOUR, inf)):
            old, began = f"old {number}", self.now()
            store.create(old, b"data", began + life)
            with self._until(began + life):
                _same(self._rotate(store, old, f"new {number}"), True)
                ends = self._load(store, old).expires_at
                slack = 1 + 2 * self.tick
                earliest, latest = (
                    began + TOMBSTONE_LIFE - slack,
                    self.now() + TOMBSTONE_LIFE + slack,
                )
                if not earliest < ends < latest:
                    raise AssertionError(f"a tombstone ends after {ends - began} s")

    def test_a_tombstone_ends(self) -> None:
        """And what it knew of its heir with it; otherwise ids and memory run out."""
        self._needs_a_clock()
        store = self._store()
        store.create("short", b"data", self.now() + 5 * self.tick)
        store.create("long", b"data", self._later())
        for old in ("short", "long"):
            _same(self._rotate(store, old, f"{old} heir"), True)
        self.wait(max(0, TOMBSTONE_LIFE - 2 * self.tick))
        if self.tick < TOMBSTONE_LIFE / 2:
            for old in ("short", "long"):
                self._is_tombstone(store, old, f"{old} heir")
        self.wait(4 * self.tick)
        for old in ("short", "long"):
            _same((store.load(old), store.heir(old)), (None, None))
            _same(store.create(old, b"again", self._later()), True)
            _same(store.heir(old), None)
            self._holds(store, f"{old} heir", b"data", self._later())

    def test_only_a_tombstone_has_an_heir(self) -> None:
        """The next id, whatever has become of the session under it."""
        store = self._store()
        store.create("a", b"data", self._later())
        _same((store.heir("absent"), store.heir("a")), (None, None))
        for old, new in ("ab", "bc", "cd"):
            _same(self._rotate(store, old, new), True)
            _same(store.heir(new), None)
        _same([store.heir(id) for id in "abcd"], ["b", "c", "d", None])
        _same(store.rotate("d", b"data", "e", b"data", self._later(), inherits=False), True)
        _same([store.heir(id) for id in "abcde"], ["b", "c", "d", None, None])

    # Listing

    def test_live_sessions_are_listed_once(self) -> None:
        """Tombstones and ended sessions are not."""
        store = self._listing()
        expected = {f"{number}" for number in range(300)} | set(SIMILAR)
        for id in expected:
            store.create(id, b"data", self._later())
        store.create("deleted", b"data", self._later())
        store.delete("deleted")
        store.create("expired", b"data", self.now() + self.tick)
        for number in range(3):
            store.create(f"old {number}", b"data", self._later())
            self._rotate(store, f"old {number}", f"new {number}")
            expected.add(f"new {number}")
        self.wait(2.25 * self.tick)
        _same(sorted(store.ids()), sorted(expected))

    def test_a_user_has_the_sessions_that_are_his(self) -> None:
        """Otherwise "log out everywhere" misses one, or ends another user's."""
        store = self._listing()
        users = ["ann", "Ann", "ann ", "an", "a*", "ann:1", "ann\0", "änn", "😀", "'", "nobody's"]
        users += [f"{'x' * length}{end}" for length in LIMITS + LONG for end in "ab"]
        for number, user in enumerate(users):
            for turn in range(3):
                store.create(f"{number}/{turn}", b"data", self._later(), user)
        store.create("of no user", b"data", self._later())
        for number, user in enumerate(users):
            _same(sorted(store.ids(user)), [f"{number}/{turn}" for turn in range(3)])
        _same(list(store.ids("nobody")), [])
        _same(len(list(store.ids())), 3 * len(users) + 1)

    def test_an_id_that_is_taken_joins_no_other_list(self) -> None:
        """Otherwise a user is shown another's session, and can end it."""
        store = self._listing()
        store.create("id", b"first", self._later(), "ann")
        for user in ("bob", "ann"):
            _same(store.create("id", b"second", self._later(), user), False)
            _same((list(store.ids("ann")), list(store.ids("bob"))), (["id"], []))

    def test_what_has_ended_is_in_nobodys_list(self) -> None:
        """By deletion, by another id, by its timeout."""
        store = self._listing()
        for id in ("deleted", "rotated", "live"):
            store.create(id, b"data", self._later(), "ann")
        store.create("expired", b"data", self.now() + self.tick, "ann")
        # A cache would remember it.
        _same("live" in set(store.ids("ann")), True)
        store.delete("deleted")
        store.rotate("rotated", b"data", "of no user", b"data", self._later(), inherits=False)
        self.wait(2.25 * self.tick)
        _same(list(store.ids("ann")), ["live"])

    def test_a_session_stays_in_its_users_list(self) -> None:
        """However it is used, and however long."""
        store = self._listing()
        began = self.now()
        with self._until(began + 3 * self.tick):
            store.create("id", b"data", began + 3 * self.tick, "ann")
            _same(store.touch("id", b"data", began + 5.5 * self.tick, "ann"), True)
        self.wait(3.25 * self.tick)
        with self._until(began + 5.5 * self.tick):
            _same(list(store.ids("ann")), ["id"])
            _same(store.replace("id", b"data", b"new", self._later(), "ann"), True)
        self.wait(3.5 * self.tick)
        _same(list(store.ids("ann")), ["id"])

    def test_a_session_joins_its_users_list_whenever_its_user_is_named(self) -> None:
        """A record that another program wrote is listed once it has been used here."""
        store = self._listing()
        for id in ("replaced", "touched", "old"):
            store.create(id, b"data", self._later())
        store.replace("replaced", b"data", b"new", self._later(), "ann")
        store.touch("touched", b"data", self._later(), "ann")
        store.rotate("old", b"data", "rotated", b"data", self._later(), "ann", inherits=True)
        _same(sorted(store.ids("ann")), ["replaced", "rotated", "touched"])

    def test_a_new_id_is_the_session_of_the_user_that_was_given(self) -> None:
        """It leaves the previous user's list: the visitor has logged in as another user."""
        store = self._listing()
        for user in ("ann", "bob", None):
            old, new = f"old {user}", f"new {user}"
            store.create(old, b"data", self._later(), "ann")
            _same(store.rotate(old, b"data", new, b"new", self._later(), user, inherits=True), True)
        _same((list(store.ids("ann")), list(store.ids("bob"))), (["new ann"], ["new bob"]))
        _same(sorted(store.ids()), ["new None", "new ann", "new bob"])

    def test_a_listing_goes_on_while_sessions_come_and_go(self) -> None:
        """Sessions that are there all the time are listed, and nothing raises."""
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

    def test_a_listing_misses_no_session_that_is_given_a_new_id(self) -> None:
        """Otherwise "log out everywhere" misses it: the old id is dead, the new one not listed."""
        for user in (None, "ann"):
            for moments in ((0,), (1,), (100,), (0, 1, 50, 150)):
                store = self._listing()
                sessions = [[f"m{number}"] for number in range(200)]
                for (id,) in sessions:
                    store.create(id, b"data", self._later(), "ann")
                self._list_and_rotate(store, user, sessions, moments)

    def test_purge_leaves_what_lives(self) -> None:
        """It frees what has expired, and nothing else: no tombstone before its time."""
        store = self._listing()
        for number in range(100):
            ends = self.now() + self.tick if number % 2 else self._later()
            store.create(str(number), b"data", ends, "ann")
        self.wait(2.25 * self.tick)
        store.create("old", b"data", self._later(), "ann")
        self._rotate(store, "old", "new")
        _same(store.purge() <= 50, True)
        _same(store.purge(), 0)
        _same(len(list(store.ids("ann"))), 51)
        self._is_tombstone(store, "old", "new")

    def test_clear_forgets_every_session_and_says_how_many(self) -> None:
        """Tombstones do not count, but go as well: afterwards the store is empty."""
        store = self._listing()
        for number in range(300):
            store.create(str(number), b"data", self._later(), ("ann", None)[number % 2])
        self._rotate(store, "0", "new")
        _same(store.clear(), 300)
        _same((list(store.ids()), list(store.ids("ann"))), ([], []))
        _same((store.load("0"), store.heir("0"), store.load("1")), (None, None, None))
        _same(store.clear(), 0)
        for id in ("0", "1"):
            _same(store.create(id, b"data", self._later(), "ann"), True)
        _same(sorted(store.ids("ann")), ["0", "1"])

    # At once

    def test_threads_count_exactly(self) -> None:
        """Compare-and-set is one step: eight threads, one counter, nothing lost."""
        store = self._store()
        store.create("id", b"0", self._later())
        self._count([store] * THREADS)

    def test_of_many_that_create_an_id_one_does(self) -> None:
        """Otherwise two visitors share a session; a rotation also creates."""
        store = self._store()
        for turn in range(20):
            for number in range(THREADS):
                store.create(f"old {turn} {number}", b"data", self._later())

            def create(number: int, id: str = f"id {turn}", old: str = f"old {turn}") -> bool:
                if number % 2:
                    return self._rotate(store, f"{old} {number}", id)
                return store.create(id, b"%d" % number, self._later())

            _same(sum(_together(create)), 1)
            live = [f"old {turn} {number}" for number in range(1, THREADS, 2)]
            _same(sum(self._lives(store, id) for id in live) >= len(live) - 1, True)

    def test_of_many_that_rotate_a_session_one_does(self) -> None:
        """Otherwise it goes on under two ids, one of which no logout ends."""
        store = self._store()
        for turn in range(20):
            store.create(f"id {turn}", b"data", self._later(), "ann")

            def rotate(number: int, id: str = f"id {turn}") -> bool:
                return self._rotate(store, id, f"{id} {number}")

            moved = _together(rotate)
            _same(sum(moved), 1)
            news = [f"id {turn} {number}" for number in range(THREADS)]
            _same([self._lives(store, new) for new in news], moved)
            self._is_tombstone(store, f"id {turn}", news[moved.index(True)])

    def test_a_session_is_deleted_or_rotated_and_never_both(self) -> None:
        """Otherwise a logout seems done while the session lives on under another id."""
        store = self._store()
        for turn in range(20):
            store.create(f"id {turn}", b"data", self._later(), "ann")

            def work(number: int, id: str = f"id {turn}") -> bool:
                if number % 2:
                    return store.delete(id)
                return self._rotate(store, id, f"{id} {number}")

            done = _together(work)
            _same(sum(done), 1)
            _same([self._lives(store, f"id {turn} {number}") for number in (0, 2, 4, 6)], done[::2])
            _same(self._lives(store, f"id {turn}"), False)

    def test_no_writer_brings_back_what_another_deletes(self) -> None:
        """A logout beats touch and replace, and only one of several deletes returns True."""
        store = self._store()
        for turn in range(20):
            store.create(f"id {turn}", b"data", self._later(), "ann")

            def work(number: int, id: str = f"id {turn}") -> bool:
                if number < 2:
                    return store.delete(id)
                if number % 2:
                    return store.touch(id, b"data", self._later(1), "ann")
                return store.replace(id, b"data", b"data", self._later(1), "ann")

            _same(sum(_together(work)[:2]), 1)
            _same(store.load(f"id {turn}"), None)

    def test_no_listing_misses_what_another_thread_rotates(self) -> None:
        """Every list has all seven sessions that are given new ids meanwhile."""
        for user in (None, "ann"):
            store = self._listing()
            sessions = self._movers(store)

            def list_all(
                user: str | None = user,
                store: ListingStore = store,
                sessions: list[list[str]] = sessions,
            ) -> None:
                for _ in range(10):
                    began = [len(ids) for ids in sessions]
                    listed = set(_bounded(store.ids(user)))
                    for length, ids in zip(began, sessions, strict=True):
                        _same(listed.isdisjoint(ids[max(0, length - 2) :]), False)

            self._while_they_move(store, sessions, list_all)

    def test_clear_ends_what_was_live_when_it_began(self) -> None:
        """Even sessions that are given new ids meanwhile."""
        store = self._listing()
        sessions = self._movers(store)
        self._while_they_move(store, sessions, store.clear)
        for ids in sessions:
            _same([id for id in ids if self._lives(store, id)], [])

    # Shared

    def test_what_one_wrote_the_other_sees(self) -> None:
        """Two processes on the same sessions, and no cache in either."""
        store = self._store()
        other = self._again(store)
        self._reads_are_fresh(store, other, "to")
        self._reads_are_fresh(other, store, "fro")
        store.create("id", b"data", self._later(), "ann")
        _same(other.create("id", b"other", self._later()), False)
        _same(other.replace("id", b"data", b"new", self._later(), "ann"), True)
        _same(store.replace("id", b"data", b"late", self._later(), "ann"), False)
        _same(self._rotate(store, "id", "late"), False)
        _same(store.delete("id"), True)
        _same(other.touch("id", b"new", self._later(), "ann"), False)

    def test_stores_on_the_same_sessions_count_exactly(self) -> None:
        """Compare-and-set is one step between processes, too."""
        store = self._store()
        store.create("id", b"0", self._later())
        other = self._again(store)
        self._count([store, other] * (THREADS // 2))

    def test_closing_twice_is_closing_once(self) -> None:
        """Some servers close twice, at exit."""
        store = self._store()
        store.create("id", b"data", self._later())
        store.close()
        store.close()

    # What the tests need: stores and times

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

    def _elsewhere(self, store: Store) -> Store:
        """Return the same store, used by another thread."""
        thread = ThreadPoolExecutor(1)
        cast("unittest.TestCase", self).addCleanup(thread.shutdown)
        return cast("Store", _Elsewhere(store, thread))

    def _later(self, hours: float = 0.0) -> float:
        return self.now() + (1 + hours) * HOUR

    def _needs_a_clock(self) -> None:
        """Skip where real time passes: the test would take long, or see too little."""
        began = self.now()
        time.sleep(0.002)
        if type(self).wait is StoreContract.wait or self.now() != began:
            raise unittest.SkipTest("real time passes here: now() and wait() are not overridden")

    @contextmanager
    def _until(self, moment: float) -> Iterator[None]:
        """Do not blame the store where the machine was too slow to look in time."""
        try:
            yield
        except AssertionError:
            if self.now() < moment - self.tick:
                raise
            raise unittest.SkipTest("this machine was too slow to look in time") from None

    # What the tests need: looks at a store

    def _load(self, store: Store, id: str) -> Stored:
        stored = store.load(id)
        if stored is None:
            raise AssertionError(f"{id!r} is not there")
        return stored

    def _lives(self, store: Store, id: str) -> bool:
        stored = store.load(id)
        return stored is not None and stored.data != TOMBSTONE

    def _holds(self, store: Store, id: str, data: bytes, expires_at: float) -> None:
        stored = self._load(store, id)
        _same(stored.data, data)
        _same(type(stored.data), bytes)
        # Stores may round, and machines may be slow; an hour off is a fault.
        if abs(stored.expires_at - expires_at) > 60 + self.tick:
            raise AssertionError(f"{id!r} expires at {stored.expires_at}, not at {expires_at}")

    def _is_tombstone(self, store: Store, id: str, heir: str | None) -> None:
        _same(self._load(store, id).data, TOMBSTONE)
        _same(store.heir(id), heir)

    def _reads_are_fresh(self, writer: Store, reader: Store, turn: str) -> None:
        """Read before each write as well, so that a cache has something to remember."""
        old, new, user = f"old {turn}", f"new {turn}", f"user {turn}"
        ends, later = self._later(), self._later(2)
        nothing: dict[str, bytes] = {}
        steps: tuple[tuple[Callable[[], object], dict[str, bytes], list[str], str | None], ...] = (
            (lambda: True, nothing, [], None),
            (lambda: writer.create(old, b"1", ends, user), {old: b"1"}, [old], None),
            (lambda: writer.replace(old, b"1", b"2", ends, user), {old: b"2"}, [old], None),
            (lambda: writer.touch(old, b"2", later, user), {old: b"2"}, [old], None),
            (
                lambda: writer.rotate(old, b"2", new, b"3", ends, user, inherits=True),
                {old: TOMBSTONE, new: b"3"},
                [new],
                new,
            ),
            (lambda: writer.delete(new), {old: TOMBSTONE}, [], new),
        )
        for number, (write, records, listed, heir) in enumerate(steps):
            _same(write(), True)
            found = {id: stored.data for id in (old, new) if (stored := reader.load(id))}
            _same((found, reader.heir(old)), (records, heir))
            if number == 3:
                self._holds(reader, old, b"2", later)
            if hasattr(reader, "ids"):
                _same(list(cast("ListingStore", reader).ids(user)), listed)

    # What the tests need: work

    def _rotate(self, store: Store, old: str, new: str) -> bool:
        return store.rotate(old, b"data", new, b"data", self._later(), "ann", inherits=True)

    def _list_and_rotate(
        self,
        store: ListingStore,
        user: str | None,
        sessions: list[list[str]],
        moments: Collection[int],
    ) -> None:
        """List, and give every session a new id whenever that many were listed."""

        def rotate() -> None:
            for number, ids in enumerate(sessions):
                # Before and after all others, in the order of their names.
                ids.append(f"{'az'[number % 2]}{len(ids)} {number}")
                _same(self._rotate(store, *ids[-2:]), True)

        listing = store.ids(user)
        listed = set()
        if 0 in moments:
            rotate()
        for count, id in enumerate(_bounded(listing), 1):
            listed.add(id)
            if count in moments:
                rotate()
        _same([ids for ids in sessions if listed.isdisjoint(ids)], [])

    def _movers(self, store: ListingStore) -> list[list[str]]:
        """Make a session for each thread, and others; return the ids that each one has had."""
        sessions = [[f"session {number}"] for number in range(THREADS)]
        for ids in [*sessions, *([f"other {number}"] for number in range(100))]:
            store.create(ids[0], b"data", self._later(), "ann")
        return sessions

    def _while_they_move(
        self, store: Store, sessions: list[list[str]], work: Callable[[], object]
    ) -> None:
        """Work in one thread, while each of the others gives new ids to a session."""
        done = threading.Event()

        def share(number: int) -> None:
            if number == 0:
                try:
                    work()
                finally:
                    done.set()
                return
            ids = sessions[number]
            while not done.is_set() and len(ids) < 500:
                # Noted first, because it may be listed before this thread goes on.
                ids.append(f"{ids[0]} {len(ids)}")
                if not self._rotate(store, *ids[-2:]):
                    return

        _together(share)

    def _count(self, stores: list[Store]) -> None:
        each = 25

        def count(number: int) -> None:
            for _ in range(each):
                while True:
                    seen = self._load(stores[number], "id").data
                    more = b"%d" % (int(seen) + 1)
                    if stores[number].replace("id", seen, more, self._later()):
                        break

        _together(count)
        _same(self._load(stores[0], "id").data, b"%d" % (each * THREADS))


class _Elsewhere:
    """A store whose calls are all made by one other thread."""

    def __init__(self, store: Store, thread: ThreadPoolExecutor) -> None:
        self._store = store
        self._thread = thread

    def __getattr__(self, verb: str) -> Callable[..., object]:
        method = getattr(self._store, verb)

        def call(*arguments: Any, **named: Any) -> object:
            result = method(*arguments, **named)
            return list(result) if verb == "ids" else result

        return lambda *arguments, **named: self._thread.submit(call, *arguments, **named).result(60)


def _same(got: Any, expected: Any) -> None:
    if got != expected:
        raise AssertionError(f"{_short(got)}, and not {_short(expected)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _bounded(ids: Iterator[str]) -> Iterator[str]:
    for number, id in enumerate(ids):
        if number == 100_000:
            raise AssertionError("a listing goes on without end")
        yield id


def _together(work: Callable[[int], Result]) -> list[Result]:
    """Run ``work(0)``, ``work(1)``, … in threads that start together and are interrupted often."""
    begin = threading.Barrier(THREADS, timeout=30)
    results: dict[int, Result] = {}
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            begin.wait()
            results[number] = work(number)
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=run, args=(number,), daemon=True) for number in range(THREADS)
    ]
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
    return [results[number] for number in range(THREADS)]
