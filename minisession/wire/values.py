"""Values that JSON returns unchanged: str, bool, None, int, finite float, list, dict.

`fit` looks quickly; `check` looks again and says what is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import partial
from math import isfinite
from typing import Any

# Levels of lists and dicts; deeper values run into interpreters' recursion limits.
MAX_DEPTH = 200

# About 4,200 digits; CPython refuses to read integers of more than 4,300 (CVE-2020-10735).
MAX_INT_BITS = 14_000

# Half of a pair: Express stores it, and UTF-8 does not.
SURROGATE = re.compile("[\ud800-\udfff]")

# Both halves, which JSON makes one character.
PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")

_FIXES = {
    "tuple": "use a list",
    "bytes": "use .hex() or base64 text",
    **dict.fromkeys(("set", "frozenset"), "use sorted(…), a list"),
    **dict.fromkeys(("datetime", "date"), "use .isoformat()"),
    **dict.fromkeys(("Decimal", "UUID"), "use str(…)"),
}
_ANY_FIX = "store its parts (str, int, float, bool, None, list, dict with str keys)"

# What JSON keeps of a value of a subclass.  Not str(), which markup answers with itself.
_BASES: dict[Any, Any] = {str: str.__str__, int: int, float: float, list: list, dict: dict}

# `fit` has checked how deep values are, so none of them is circular.
_encoder = partial(json.JSONEncoder, ensure_ascii=False, allow_nan=False, check_circular=False)

# A value as JSON text, its dicts in their own order.
encode = _encoder(separators=(",", ":")).encode

# Text that is equal for two values exactly if they mean the same, in any order of keys.
canonical = _encoder(sort_keys=True).encode


def text(value: Any) -> str:
    """Return text that is equal for two values exactly if they are, down to the order of keys."""
    if type(value) is int:
        return repr(value)
    # No other value's text begins with a quotation mark, so escapes are not needed.  Not with +,
    # which markup may answer by escaping.
    return "".join(('"', value)) if isinstance(value, str) else encode(value)


def check(key: str, value: Any) -> None:
    """Make sure that JSON holds ``value`` and gives the same value back.

    Raises:
        TypeError: it does not; the message names where, the type and the fix.
    """
    check_again(key, value)
    if not fit((value,)):
        fix = "drop it: .encode(errors='ignore').decode()"
        raise _unfit((key,), "text with half a surrogate pair", fix)


def check_again(key: str, value: Any) -> None:
    """Check what came from the store, or may have changed since it was assigned.

    Half surrogate pairs pass: Express stores them.
    """
    if not fit((value,), bad=PAIR):
        _explain(value, (key,))


def fit(values: Iterable[Any], depth: int = MAX_DEPTH, bad: re.Pattern[str] = SURROGATE) -> bool:
    """Return, quickly, whether JSON returns all values unchanged; `check` says why not.

    Text with a match of ``bad`` does not fit.
    """
    for value in values:
        kind = type(value)
        if kind is str:
            fits = value.isascii() or not bad.search(value)
        elif kind is int:
            fits = value.bit_length() <= MAX_INT_BITS
        elif kind is list:
            fits = depth and fit(value, depth - 1, bad)
        elif kind is dict:
            fits = depth and fit_names(value, bad) and fit(list(value.values()), depth - 1, bad)
        elif kind is float:
            fits = isfinite(value)
        else:
            fits = value is None or kind is bool or _fits_as_base(value, depth, bad)
        if not fits:
            return False
    return True


def fit_names(names: Iterable[Any], bad: re.Pattern[str] = SURROGATE) -> bool:
    """Return the same for a dict's keys."""
    try:
        # Apart, so that halves at the ends of two keys are no pair.
        joined = " ".join(names)
    except TypeError:
        return False
    return joined.isascii() or not bad.search(joined)


def _fits_as_base(value: Any, depth: int, bad: re.Pattern[str]) -> bool:
    """Return whether a subclass' value, as of IntEnum, fits: JSON keeps what it is made of."""
    # Not isinstance(), which believes a proxy that says it is what it stands for.
    plain = [made(value) for base, made in _BASES.items() if issubclass(type(value), base)]
    return bool(plain) and fit(plain, depth, bad)


def _explain(value: Any, path: tuple[str | int, ...]) -> None:
    """Raise what is wrong with ``value``, if anything but half a surrogate pair is."""
    if value is not None and not issubclass(type(value), tuple(_BASES)):
        name = type(value).__name__
        a = "an" if name[0] in "aeioAEIO" else "a"
        raise _unfit(path, f"{a} {name}", _FIXES.get(name, _ANY_FIX))
    match value:
        case str() if PAIR.search(value):
            # JSON would make the two halves one character.
            fix = "join them: .encode('utf-16', 'surrogatepass')"
            raise _unfit(path, "text with a character in two halves", fix)
        case int() if value.bit_length() > MAX_INT_BITS:
            raise _unfit(path, "an int of thousands of digits", "store it as hex(…), a str")
        case float() if not isfinite(value):
            raise _unfit(path, repr(value), "store None or a str")
        case list() | dict() if len(path) > MAX_DEPTH:
            what = f"nested more than {MAX_DEPTH} deep, or holds itself"
            raise _unfit(path[:1], what, "store a flatter value")
        case list():
            for number, item in enumerate(value):
                _explain(item, (*path, number))
        case dict():
            for key, item in list(value.items()):
                if not isinstance(key, str):
                    kind = type(key).__name__
                    raise _unfit(path, f"a dict with a key of type {kind}", "make its keys str")
                _explain(key, path)
                _explain(item, (*path, key))


def _unfit(path: tuple[str | int, ...], what: str, fix: str) -> TypeError:
    where = "".join(f"[{step!r}]" for step in path)
    return TypeError(f"session{where} is {what}, and sessions are stored as JSON: {fix}")
