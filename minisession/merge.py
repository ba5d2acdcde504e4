"""Three-way merge by top-level key: how overlapping requests keep each other's changes.  Pure.

A key that one side changed takes that side.  Changed by both: ours, the later save.  Deleted by one
and changed by the other: deleted, because a deletion (of a permission, say) must not be undone by
someone who had not seen it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .wire.record import canonical


def changed(base: Mapping[str, Any], now: Mapping[str, Any], key: str) -> bool:
    """Tell whether ``key`` differs, as JSON text: to ``==``, ``1`` and ``True`` are the same."""
    if key in base and key in now:
        return canonical(base[key]) != canonical(now[key])
    return (key in base) != (key in now)


def merge(base: Mapping[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what both sides' changes make of ``base``; values that nobody changed are our objects."""
    merged = {}
    for key in [*theirs, *(key for key in ours if key not in theirs)]:
        mine, other = changed(base, ours, key), changed(base, theirs, key)
        if (mine and key not in ours) or (other and key not in theirs):
            continue
        merged[key] = theirs[key] if other and not mine else ours[key]
    return merged
