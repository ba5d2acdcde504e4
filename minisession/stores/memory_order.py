"""`Order`: ids in the order of their keys, however many, without a step that takes long.

Written for `MemoryStore`, where other threads wait meanwhile.  What grows lies in small dicts of
str, and of float or bytes: CPython's garbage collector walks neither those nor what is in them.
"""

from __future__ import annotations

from bisect import bisect_left
from math import inf
from typing import Any

# Of one type in an order.
Key = Any


class Order:
    """Ids by their keys, and by themselves where keys are equal.

    They lie in pieces, and one that gets too large is cut in half.  Each begins after the pair that
    is named with it and ends with the pair that is named with the next; nothing comes before the
    first, whatever it is named, and only if it is the only one it may be empty.  Inside, only the
    first piece is in order, from when its first id is asked for.

    `add` and `discard` do nothing that is done already: what an exception has interrupted is done
    again.
    """

    def __init__(self, half: int) -> None:
        self._half = half
        self.pieces: list[tuple[Key, str, dict[str, Key]]] = [(None, "", {})]
        # The first piece, if it is in order.
        self._sorted: dict[str, Key] = {}

    def add(self, key: Key, id: str) -> None:
        """Add an id."""
        at, pair = len(self.pieces) - 1, (key, id)
        if at and pair <= self.pieces[at]:
            at = bisect_left(self.pieces, pair, 1, at) - 1
        start, first, piece = self.pieces[at]
        if piece is self._sorted and (id in piece or key <= next(reversed(piece.values()), key)):
            self._sorted = {}
        piece[id] = key
        if len(piece) > 2 * self._half:
            pairs = sorted(zip(piece.values(), piece, strict=True))
            lower, upper = pairs[: self._half], pairs[self._half :]
            self.pieces[at : at + 1] = (start, first, _piece(lower)), (*lower[-1], _piece(upper))

    def discard(self, key: Key, id: str) -> None:
        """Remove an id, if it is there with this key."""
        pieces = self.pieces
        at = 0 if pieces[0][2].get(id) == key else bisect_left(pieces, (key, id), 1) - 1
        piece = pieces[at][2]
        if piece.get(id) == key:
            del piece[id]
        if not piece and len(pieces) > 1:
            del pieces[at]

    def first(self) -> tuple[Key, str] | None:
        """Return the first key, and its id."""
        piece = self.pieces[0][2]
        if piece is not self._sorted:
            self._sorted = piece = _piece(sorted(zip(piece.values(), piece, strict=True)))
            self.pieces[0] = (*self.pieces[0][:2], piece)
        id = next(iter(piece), None)
        return None if id is None else (piece[id], id)

    def after(self, key: Key, id: str = "", most: Key = inf) -> tuple[Key, str] | None:
        """Return the first key after this one, or the same with a later id, and its id."""
        at = self._find(key, id)
        for start, _, piece in self.pieces[at : at + 2]:
            if at and start > most:
                break
            later = [(k, i) for i, k in piece.items() if key <= k <= most and (k > key or i > id)]
            if later:
                return min(later)
        return None

    def between(self, low: Key, high: Key) -> list[str]:
        """Return the ids whose keys lie between two that are nobody's."""
        pieces = self.pieces[self._find(low, "") : self._find(high, "") + 1]
        return [id for _, _, piece in pieces for id, key in piece.items() if low < key < high]

    def count_between(self, low: Key, high: Key) -> int:
        """Return how many ids lie there, or 0 if one piece holds them all."""
        at, end = self._find(low, ""), self._find(high, "")
        if at == end:
            return 0
        ends = [*self.pieces[at][2].values(), *self.pieces[end][2].values()]
        total = sum(len(piece) for _, _, piece in self.pieces[at : end + 1])
        return total - len([key for key in ends if not low < key < high])

    def _find(self, key: Key, id: str) -> int:
        """Return in which piece a key and an id belong; a pair sorts among triples."""
        return bisect_left(self.pieces, (key, id), 1) - 1


def _piece(pairs: list[tuple[Key, str]]) -> dict[str, Key]:
    return {id: key for key, id in pairs}
