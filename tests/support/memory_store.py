"""What tests of `MemoryStore` know of its inside: all of it, in one place."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from minisession import MemoryStore
from minisession.stores import memory, memory_order

MODULES = {memory.__file__, memory_order.__file__}


def sound(store: MemoryStore) -> None:
    """Assert that records, orders and counts say the same, and that nothing else is kept."""
    anonymous, owned, buried, users = orders = store._orders
    there = [[(id, key) for _, _, piece in order.pieces for id, key in piece.items()] for order in orders]
    expected: list[list[tuple[str, Any]]] = [[] for _ in orders]

    def expect(order: memory_order.Order, key: Any, id: str) -> None:
        expected[orders.index(order)].append((id, key))

    assert not store._unsettled
    sizes = []
    for records in store._records:
        for id, packed in records.items():
            end, key, _, start = memory._head_of(packed)
            owner, size = packed[memory._HEAD_SIZE : start], len(packed) - start
            sizes.append(size)
            expect(buried if not size else owned if owner else anonymous, key if size else end, id)
            if size and owner:
                expect(users, struct.pack(">qd", hash(owner), key), id)
    assert [sorted(places) for places in there] == [sorted(places) for places in expected]
    assert store._live == sum(size > 0 for size in sizes) <= store._max_sessions
    assert store._bytes == sum(sizes) <= store._max_bytes
    ends = [key for places in there[:3] for _, key in places]
    assert store._due <= min(ends, default=store._due)
    for order in orders:
        ordered(order)


def ordered(order: memory_order.Order) -> None:
    """Assert that an order's pieces are small, filled, and where they belong."""
    pieces = [sorted(zip(piece.values(), piece, strict=True)) for _, _, piece in order.pieces]
    assert all(0 < len(piece) <= 2 * order._half for piece in pieces) or pieces == [[]]
    for (start, first, _), before, piece in zip(order.pieces[1:], pieces, pieces[1:], strict=False):
        assert before[-1] <= (start, first) < piece[0]


def entries(store: MemoryStore) -> int:
    """Count every entry of every dict and list that the store is made of."""
    return sum(len(part) for part in parts(store))


def parts(store: MemoryStore) -> list[Any]:
    found: list[Any] = []
    todo: list[Any] = [vars(store)]
    while todo:
        part = todo.pop()
        if isinstance(part, dict | list | tuple) and not any(part is other for other in found if type(other) is list):
            found.append(part)
            todo += part.values() if isinstance(part, dict) else part
        elif isinstance(part, memory_order.Order):
            todo.append(vars(part))
    return found


class Interrupted(Exception):
    """What a signal's handler raises, or a recursion that is too deep."""


@contextmanager
def watched(store: MemoryStore, step: Callable[[], None]) -> Iterator[None]:
    """Call ``step`` at each line, call and return in the store's code."""

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename not in MODULES:
            return None
        # When a block ends, tracing shows its `with` again, before the lock is given back.  No
        # exception can come there: CPython does not look for signals between the two.
        leaves = event == "line" and frame.f_lineno in with_lines(frame) and store._lock.locked()
        if not leaves:
            step()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def with_lines(frame: FrameType) -> set[int]:
    if frame.f_code not in _WITH_LINES:
        with open(frame.f_code.co_filename, encoding="utf-8") as file:
            lines = file.readlines()
        _WITH_LINES[frame.f_code] = {
            number
            for *_, number in frame.f_code.co_lines()
            if number is not None and lines[number - 1].strip() == "with self._lock:"
        }
    return _WITH_LINES[frame.f_code]


_WITH_LINES: dict[Any, set[int]] = {}


def steps(store: MemoryStore, call: Callable[[], object]) -> int:
    """Count the lines, calls and returns that a call takes in the store's code."""
    taken = 0

    def step() -> None:
        nonlocal taken
        taken += 1

    with watched(store, step):
        call()
    return taken


def interrupt(store: MemoryStore, call: Callable[[], object], after: int) -> bool:
    """Make a call, and raise after so many steps; return whether it ended before that."""
    left = after

    def step() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Interrupted

    try:
        with watched(store, step):
            call()
    except Interrupted:
        return False
    return True
