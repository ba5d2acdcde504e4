"""Three-way merge by top-level key: how overlapping requests keep each other's changes.  Pure.

A key that one side changed takes that side.  Changed by both: ours, the later save.  Deleted by one
and changed by the other: deleted, because a deletion (of a permission, say) must not be undone by a
request that had not seen it.  Another order of a nested dict's keys gives way to any other change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .wire.values import canonical, text


def changed(base: Mapping[str, Any], now: Mapping[str, Any], key: str) -> bool:
    """Return whether ``key`` differs, as JSON text: to ``==``, ``1`` and ``True`` are the same."""
    if key in base and key in now:
        return canonical(base[key]) != canonical(now[key])
    return (key in base) != (key in now)


def merge(
    base: Mapping[str, Any], ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return ``base`` with both sides' changes; a value that neither changed is our object."""
    merged = {}
    for key in {**theirs, **ours}:
        mine, other = changed(base, ours, key), changed(base, theirs, key)
        if (mine and key not in ours) or (other and key not in theirs):
            continue
        gives_way = not mine and (other or _is_ordered_anew(base[key], ours[key], theirs[key]))
        merged[key] = theirs[key] if gives_way else ours[key]
    return merged


def _is_ordered_anew(base: Any, ours: Any, theirs: Any) -> bool:
    """Return whether only they have reordered the keys of a value that means the same."""
    return text(ours) == text(base) != text(theirs)


def containers(values: Iterable[Any]) -> list[Any]:
    """Return every list and dict in ``values``, nested ones too, as often as it occurs.

    The contents of a container are looked at once, so that one that holds itself does not loop.
    """
    found: list[Any] = []
    pending, seen = list(values), set[int]()
    while pending:
        value = pending.pop()
        if isinstance(value, (list, dict)):
            found.append(value)
            if id(value) not in seen:
                seen.add(id(value))
                pending += value if isinstance(value, list) else value.values()
    return found


def fill(mine: Any, new: Any, own: Mapping[int, Any]) -> Any:
    """Return ``mine``, filled with ``new``, if it may be written into; else ``new``.

    It may if both are lists, or both dicts, and ``mine`` is among ``own`` (by its ``id()``).
    Containers nested under the same key or at the same position are treated in the same way.
    """
    if type(mine) is not type(new) or id(mine) not in own:
        return new
    if isinstance(new, list):
        common = [fill(before, after, own) for before, after in zip(mine, new, strict=False)]
        refill(mine, common + new[len(common) :])
    else:
        refill(mine, {key: fill(mine.get(key), value, own) for key, value in new.items()})
    return mine


def refill(mine: Any, contents: Any) -> None:
    """Give a list or dict other contents, in place."""
    if isinstance(mine, list):
        mine[:] = contents
        return
    # Where the keys stay as they are, nothing can interrupt this.
    if [*mine] != [*contents]:
        mine.clear()
    mine.update(contents)
