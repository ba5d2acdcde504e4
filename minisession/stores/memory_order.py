"""`Order`: ids in the order of their keys, without a step that takes long.

Written for `MemoryStore`, which keeps a million of them, and where others wait meanwhile.  Everything
that grows lies in small dicts of str, and of float or bytes: CPython's garbage collector walks
neither those nor what is in them.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Generic, TypeVar

# A dict with 64 slots holds 42 entries, one with 128 holds 85, and sorting those takes 15 µs.
HALF_A_PIECE = 42

K = TypeVar("K", float, bytes)


class Order(Generic[K]):
    """Ids by their keys, and by themselves where keys are equal; an id may be there more than once.

    They lie in pieces.  Each begins after the pair that is named with it, and ends with the pair that is
    named with the next one; whatever the first is named, it begins with the least.  Inside, a piece is
    sorted only when something asks for its order.

    To add and to discard may be interrupted by an exception at any point, and are then to be repeated.
    """

    def __init__(self) -> None:
        self.pieces: list[tuple[K, str, dict[str, K]]] = []
        self._sorted: dict[str, K] | None = None  # the one that was sorted last, while it is

    def add(self, key: K, id: str) -> None:
        """Add an id."""
        if not self.pieces:
            self.pieces.append((key, id, {}))
        at = self._find(key, id)
        piece = self.pieces[at][2]
        if piece is self._sorted and (id in piece or key <= next(reversed(piece.values()), key)):
            self._sorted = None
        piece[id] = key
        if len(piece) > 2 * HALF_A_PIECE:
            pairs = sorted(zip(piece.values(), piece, strict=True))
            lower, upper = ({id: key for key, id in half} for half in (pairs[:HALF_A_PIECE], pairs[HALF_A_PIECE:]))
            self.pieces[at : at + 1] = (*self.pieces[at][:2], lower), (*pairs[HALF_A_PIECE - 1], upper)

    def discard(self, key: K, id: str) -> None:
        """Remove an id, if it is there with this key."""
        at = self._find(key, id)
        piece = self.pieces[at][2] if self.pieces else {}
        if piece.get(id) == key:
            del piece[id]
        if self.pieces and not piece:
            del self.pieces[at]

    def kept(self, key: K, id: str) -> str:
        """Return the very object that is kept as this id, so that no copy of it is."""
        piece = self.pieces[self._find(key, id)][2] if self.pieces else {}
        return next((known for known in piece if known == id), id)

    def after(self, key: K, id: str = "") -> tuple[K, str] | None:
        """Return the first key and id after these."""
        for at in range(self._find(key, id), len(self.pieces)):
            for other, later in self._in_order(at).items():
                if (later, other) > (key, id):
                    return later, other
        return None

    def between(self, low: K, high: K) -> list[str]:
        """Return the ids whose keys lie between two that are nobody's."""
        first, last = self._find(low, ""), self._find(high, "")
        pieces = self.pieces[first : last + 1]
        return [id for _, _, piece in pieces for id, key in piece.items() if low < key < high]

    def are_many_between(self, low: K, high: K, many: int) -> bool:
        """Return whether so many ids lie there, where many are more than a piece holds: only its ends are counted."""
        first, last = self._find(low, ""), self._find(high, "")
        pieces = [piece for _, _, piece in self.pieces[first : last + 1]]
        number = sum(map(len, pieces))
        if number >= many:
            number -= sum(not low < key < high for key in (*pieces[0].values(), *pieces[-1].values()))
        return number >= many

    def _find(self, key: K, id: str) -> int:
        """Return in which piece a key and an id belong."""
        return max(bisect_left(self.pieces, (key, id)) - 1, 0)  # type: ignore[misc]  # a pair sorts among triples

    def _in_order(self, at: int) -> dict[str, K]:
        key, id, piece = self.pieces[at]
        if piece is not self._sorted:
            piece = {id: key for key, id in sorted(zip(piece.values(), piece, strict=True))}
            self.pieces[at] = key, id, piece
            self._sorted = piece
        return piece
