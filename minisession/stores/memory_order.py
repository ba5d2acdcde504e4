"""`Order`: ids in the order of their keys, however many, without a step that takes long.

Written for `MemoryStore`, where other threads wait meanwhile.  What grows lies in small dicts of
str, and of float or bytes: CPython's garbage collector walks neither those nor what is in them.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

# A dict with 64 slots holds 42 entries, one with 128 holds 85; to sort those takes 15 µs.
HALF_A_PIECE = 42

Key = Any  # of one type in an order


class Order:
    """Ids by their keys, and by themselves where keys are equal.

    They lie in pieces.  Each begins after the pair that is named with it and ends with the pair
    that is named with the next; nothing comes before the first.  Inside, only the first piece is in
    order, from when its first id is asked for.

    `add` and `discard` do nothing that is done already: what an exception has interrupted is done
    again.
    """

    def __init__(self) -> None:
        self.pieces: list[tuple[Key, str, dict[str, Key]]] = []
        self._sorted: dict[str, Key] | None = None  # the first piece, while it is

    def add(self, key: Key, id: str) -> None:
        """Add an id."""
        if not self.pieces:
            self.pieces.append((key, id, {}))
        at = self._find(key, id)
        start, first, piece = self.pieces[at]
        if piece is self._sorted and (id in piece or key <= next(reversed(piece.values()), key)):
            self._sorted = None
        piece[id] = key
        if len(piece) > 2 * HALF_A_PIECE:
            pairs = sorted(zip(piece.values(), piece, strict=True))
            lower, upper = pairs[:HALF_A_PIECE], pairs[HALF_A_PIECE:]
            halves = (start, first, _unpaired(lower)), (*lower[-1], _unpaired(upper))
            self.pieces[at : at + 1] = halves

    def discard(self, key: Key, id: str) -> None:
        """Remove an id, if it is there with this key."""
        if self.pieces:
            at = self._find(key, id)
            piece = self.pieces[at][2]
            if piece.get(id) == key:
                del piece[id]
            if not piece:
                del self.pieces[at]

    def kept(self, key: Key, id: str) -> str:
        """Return the very object that is kept as this id."""
        for known in self.pieces[self._find(key, id)][2] if self.pieces else ():
            if known == id:
                return known
        return id

    def first(self) -> tuple[Key, str] | None:
        """Return the first key, and its id."""
        if not self.pieces:
            return None
        start, first, piece = self.pieces[0]
        if piece is not self._sorted:
            self._sorted = piece = _unpaired(sorted(zip(piece.values(), piece, strict=True)))
            self.pieces[0] = start, first, piece
        id = next(iter(piece))
        return piece[id], id

    def after(self, key: Key, id: str = "") -> tuple[Key, str] | None:
        """Return the first key after this one, or the same with a later id, and its id."""
        at = self._find(key, id)
        for _, _, piece in self.pieces[at : at + 2]:
            later = [(k, i) for i, k in piece.items() if k > key or (k == key and i > id)]
            if later:
                return min(later)
        return None

    def between(self, low: Key, high: Key) -> list[str]:
        """Return the ids whose keys lie between two that are nobody's."""
        pieces = self.pieces[self._find(low, "") : self._find(high, "") + 1]
        return [id for _, _, piece in pieces for id, key in piece.items() if low < key < high]

    def count_between(self, low: Key, high: Key) -> int:
        """Return how many ids lie there, or 0 if one piece holds them all."""
        first, last = self._find(low, ""), self._find(high, "")
        if first == last:
            return 0
        sizes = [len(piece) for _, _, piece in self.pieces[first : last + 1]]
        below = [key for key in self.pieces[first][2].values() if key < low]
        above = [key for key in self.pieces[last][2].values() if key > high]
        return sum(sizes) - len(below) - len(above)

    def _find(self, key: Key, id: str) -> int:
        """Return in which piece a key and an id belong; a pair sorts among triples."""
        return (bisect_left(self.pieces, (key, id)) or 1) - 1


def _unpaired(pairs: list[tuple[Key, str]]) -> dict[str, Key]:
    return {id: key for key, id in pairs}
