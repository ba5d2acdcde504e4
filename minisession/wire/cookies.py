"""The session's cookie: reading what a browser sends, and writing what it is to keep.

Reading is our own code.  `http.cookies` loses our cookie behind a malformed neighbour, raises on
some, keeps the last of two, and is quadratic in escapes (CVE-2024-7592).
"""

from __future__ import annotations

import re
from email.utils import format_datetime
from math import ceil
from urllib.parse import quote, unquote

from ..expiry import moment
from .attributes import MAX_PAIR

# Cookies of our name in one request; more are an attack, not a browser.
MAX_READ = 16

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# What JavaScript's encodeURIComponent leaves, beyond what quote() does; and what `pair` escapes
# itself, as most values hold nothing else to escape, which quote() sees in a sixth of the time.
_SAFE = "!*'()" + ":/+"


def read(header: str, name: str) -> list[str]:
    """Return the values that a ``Cookie`` header has for ``name``: in order, at most 16.

    Any text is accepted, and the time is linear in its length.  One pair of quotes is dropped;
    escapes are left for `decode`.
    """
    values: list[str] = []
    if name not in header:
        return values
    for pair in header.split(";"):
        if name not in pair:
            continue
        key, equals, value = pair.partition("=")
        # Not str.strip(): it also drops \x85 and \xa0, which no browser does.
        if equals and key.strip(" \t") == name:
            value = value.strip(" \t")
            quoted = len(value) > 1 and value[0] == value[-1] == '"'
            values.append(value[1:-1] if quoted else value)
    return values[:MAX_READ]


def decode(value: str) -> str:
    """Decode like JavaScript's decodeURIComponent, and keep the text where that would throw."""
    # Our cookies usually have no escapes but these three, which takes a tenth of the time.
    plain = value.replace("%3A", ":").replace("%2F", "/").replace("%2B", "+")
    if "%" not in plain:
        return plain
    try:
        return value if _BAD_ESCAPE.search(value) else unquote(value, errors="strict")
    except UnicodeDecodeError:
        return value


def pair(name: str, value: str) -> str:
    """Return ``name=value``, percent-encoded.

    Raises:
        ValueError: it is longer than browsers keep.
    """
    quoted = quote(value, safe=_SAFE)
    text = f"{name}={quoted.replace(':', '%3A').replace('/', '%2F').replace('+', '%2B')}"
    if len(text) > MAX_PAIR:
        raise ValueError(
            f"cookie {name[:80]!r} has {len(text)} bytes, browsers keep {MAX_PAIR}: shorten the id"
        )
    return text


def check_fits(name: str, id: str) -> None:
    """Raise ValueError where a cookie with this id would be longer than browsers keep."""
    # Most ids fit in any case: a character is at most 4 bytes, of 3 characters each.
    if len(name) + 12 * len(id) > MAX_PAIR // 2:
        pair(name, f"s:{id}.{'+' * 43}")


def write(name: str, value: str, attributes: str, now: float, expires_at: float | None) -> str:
    """Return the ``Set-Cookie`` that gives a browser ``value`` until then, or until it is closed.

    Args:
        name: the cookie's.
        value: not yet percent-encoded.
        attributes: as `rendered`.
        now: Unix seconds.
        expires_at: Unix seconds; None until the browser is closed.

    Raises:
        ValueError: as `pair` does.
    """
    start = pair(name, value) + attributes
    if expires_at is None:
        return start
    seconds = max(1, ceil(round(expires_at - now, 3)))
    return f"{start}; Expires={format_datetime(moment(expires_at), usegmt=True)}; Max-Age={seconds}"


def remove(name: str, attributes: str) -> str:
    """Return the ``Set-Cookie`` that removes the cookie, with the attributes it was set with."""
    return f"{name}={attributes}; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0"
