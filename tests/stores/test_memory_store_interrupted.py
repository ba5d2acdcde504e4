"""`MemoryStore` after an exception in the middle of a call: at each line, call and return of each verb."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import pytest

from minisession import MemoryStore
from minisession.stores import memory
from minisession.stores.base import TOMBSTONE

from ..support.browser import Clock
from ..support.memory_store import entries, interrupt, sound
from ..support.rows import row

SHARE = 6
SESSIONS = 18
BYTES = 720


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few sessions fill several pieces, and one call free only some of them."""
    monkeypatch.setattr(memory, "HALVES", (2, 2, 2, 2))
    monkeypatch.setattr(memory, "FREED_PER_CALL", 4)


def made(clock: Clock, *, users: int = 3, sessions: int = SESSIONS, data: bytes = b"data") -> MemoryStore:
    """A store with some sessions of each of some users (0: nobody), the first of which ends first."""
    store = MemoryStore(max_sessions=SESSIONS, max_bytes=BYTES, clock=clock)
    store._max_of_user = SHARE
    for n in range(sessions):
        user = f"user {n % users}" if users and n % users else None
        assert store.create(f"{n}", data, clock() + 1000 + n, user)
    return store


def empty(clock: Clock) -> MemoryStore:
    return made(clock, sessions=0)


def some(clock: Clock) -> MemoryStore:
    """With room for more, and tombstones."""
    store = made(clock, sessions=14)
    for n in range(8, 14):
        assert store.rotate(f"{n}", b"data", f"{n} again", b"data", clock() + 900, "user 1", inherits=n % 2 == 0)
        store.delete(f"{n} again")
    return store


def full(clock: Clock) -> MemoryStore:
    return made(clock)


def full_of_users(clock: Clock) -> MemoryStore:
    """Each with as much as one may have."""
    store = MemoryStore(max_sessions=SESSIONS, max_bytes=BYTES, clock=clock)
    store._max_of_user = SHARE
    for n in range(SESSIONS):
        assert store.create(f"{n}", b"data", clock() + 1000 + n, f"user {n % 3}")
    return store


def full_of_bytes(clock: Clock) -> MemoryStore:
    return made(clock, sessions=14, data=b"x" * 50)


def lagging(clock: Clock) -> MemoryStore:
    """Full, and every place in the order a little out of date."""
    store = made(clock)
    clock.advance(5)
    for n in range(SESSIONS):
        assert store.touch(f"{n}", b"data", clock() + 1001 + n, f"user {n % 3}" if n % 3 else None)
    return store


def expired(clock: Clock) -> MemoryStore:
    """Full, and more due than one call frees, tombstones among it."""
    store = made(clock)
    for n in range(14, 17):
        assert store.rotate(f"{n}", b"data", f"{n} again", b"data", clock() + 1014, None, inherits=True)
    clock.advance(1009)
    return store


STATES = (empty, some, full, full_of_users, full_of_bytes, lagging, expired)

VERBS: dict[str, Callable[[MemoryStore, float], object]] = {
    "load": lambda store, now: store.load("17"),
    "create": lambda store, now: store.create("new", b"data", now + 1010),
    "create for a user": lambda store, now: store.create("new", b"data", now + 1010, "user 1"),
    "create a large one": lambda store, now: store.create("new", b"y" * 300, now + 1010, "user 2"),
    "replace": lambda store, now: store.replace("13", b"data", b"new!", now + 2000),
    "replace in its place": lambda store, now: store.replace("13", b"data", b"more data", Clock()() + 1013),
    "replace and log in": lambda store, now: store.replace("12", b"data", b"y" * 300, now + 900, "user 2"),
    "touch": lambda store, now: store.touch("11", b"data", now + 5000, "user 2"),
    "shorten": lambda store, now: store.touch("10", b"data", now + 1, "user 1"),
    "rotate": lambda store, now: store.rotate("9", b"data", "new", b"new!", now + 2000, inherits=True),
    "rotate and log in": lambda store, now: store.rotate(
        "3", b"data", "new", b"y" * 200, now + 2000, "user 1", inherits=True
    ),
    "heir": lambda store, now: store.heir("8"),
    "delete": lambda store, now: store.delete("7"),
    "list": lambda store, now: list(store.ids()),
    "list a user's": lambda store, now: list(store.ids("user 1")),
    "purge": lambda store, now: store.purge(),
    "clear": lambda store, now: store.clear(),
    "count": lambda store, now: len(store),
}
WRITING = [verb for verb in VERBS if not verb.startswith(("load", "heir", "list", "purge", "clear", "count"))]
CASES = [
    *((state, verb) for state in STATES for verb in WRITING),
    *((expired, verb) for verb in VERBS if verb not in WRITING),
    *((some, verb) for verb in ("clear", "list")),
]
CHANGED = ("new", "13", "12", "11", "10", "9", "3", "7")
COUNTED: list[int] = []


@row("T8")
@pytest.mark.parametrize(("state", "verb"), CASES)
def test_what_is_interrupted_is_done_or_not_and_the_store_works(
    state: Callable[[Clock], MemoryStore], verb: str, count: Callable[[str], None]
) -> None:
    free = entries(empty(Clock()))
    before = outcome(state, lambda store, now: store.load("absent"))  # what is due is freed in any case
    done = outcome(state, VERBS[verb])
    ended, step = False, 0
    while not ended:
        store = state(clock := Clock())
        ended = interrupt(store, lambda: VERBS[verb](store, clock()), step)  # noqa: B023  # called at once
        step += 1
        loaded = [store.load(id) for id in CHANGED]
        len(store)
        assert loaded == [store.load(id) for id in CHANGED]
        sound(store)
        for got, *either in zip(changed(store), before, done, strict=True):
            # Or evicted, to make room for what was not done then; or forgotten by a `clear`.
            assert got in either or got[1:] == (None, None, False)
        works(store, clock)
        all_is_freed(store, clock, free)
    COUNTED.append(step - 1)
    if (state, verb) == CASES[-1]:
        count(f"MemoryStore: interrupted at {sum(COUNTED):,} places of {len(COUNTED)} calls, and nothing broke")


def outcome(
    state: Callable[[Clock], MemoryStore], call: Callable[[MemoryStore, float], object]
) -> list[tuple[object, ...]]:
    store = state(clock := Clock())
    call(store, clock())
    return changed(store)


def changed(store: MemoryStore) -> list[tuple[object, ...]]:
    """What the verbs above change, as others see it."""
    return [(id, store.load(id), store.heir(id), id in store.ids("user 1")) for id in CHANGED]


def works(store: MemoryStore, clock: Clock) -> None:
    """What lives is found by all that finds sessions, and new ones come in, within the bounds."""
    listed = sorted(store.ids())
    assert listed == sorted(id for id in everything(store) if (stored := store.load(id)) and stored.data)
    of_users = [id for user in ("user 0", "user 1", "user 2") for id in store.ids(user)]
    assert len(of_users) == len(set(of_users)) == len(set(of_users) & set(listed))
    for user in (None, "user 1", "user 3"):
        assert store.create(f"{user}'s", b"y" * 100, clock() + 3000, user)
        assert store.rotate(f"{user}'s", b"y" * 100, f"{user}'s next", b"z" * 110, inf, "user 4", inherits=True)
        sound(store)
        assert f"{user}'s next" in store.ids("user 4")
    assert len(list(store.ids("user 1"))) <= SHARE
    assert store.delete("user 3's next")


def all_is_freed(store: MemoryStore, clock: Clock, free: int) -> None:
    """Nothing stays of what has ended, of sessions, tombstones and interrupted calls."""
    for id in store.ids("user 4"):
        store.delete(id)
    clock.advance(10_000)
    store.purge()
    sound(store)
    assert (len(store), store._bytes, everything(store)) == (0, 0, [])
    assert entries(store) == free


def everything(store: MemoryStore) -> list[str]:
    return [id for records in store._records for id in records]


@row("T8")
@pytest.mark.parametrize("state", [state for state in STATES if state not in (empty, some, expired)])
def test_an_interrupted_rotation_leaves_one_session_or_the_other(state: Callable[[Clock], MemoryStore]) -> None:
    """Not both, of which one would be in nobody's hands; and not none."""
    for verb, old in (("rotate", "9"), ("rotate and log in", "3")):
        ended, step = False, 0
        while not ended:
            store = state(clock := Clock())
            ended = interrupt(store, lambda: VERBS[verb](store, clock()), step)  # noqa: B023  # called at once
            step += 1
            lives = (stored := store.load(old)) is not None and stored.data != TOMBSTONE
            assert lives != (store.load("new") is not None)
            assert store.heir(old) == (None if lives else "new")


@row("T8")
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("load", "purge")])
def test_whatever_the_next_call_is_it_completes_what_was_interrupted(verb: str) -> None:
    """But for those that take no lock where nothing is due."""
    ended, step = False, 0
    while not ended:
        store = full(clock := Clock())
        ended = interrupt(store, lambda: VERBS["rotate and log in"](store, clock()), step)  # noqa: B023  # called at once
        step += 1
        VERBS[verb](store, clock())
        sound(store)
