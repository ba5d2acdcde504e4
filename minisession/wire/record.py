"""A session as JSON bytes, as connect-redis stores it: the one place that knows Express' units.

::

    {"cookie":{"originalMaxAge":60000,"expires":"2026-11-23T20:49:04.097Z",…},
     "minisession":{…},"u":1}

``originalMaxAge`` is milliseconds and ``expires`` ISO text; everywhere else seconds are used.
``expires`` is written for express-session and never believed: connect-redis' touch leaves it in the
past.
"""

from __future__ import annotations

import json
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple

from ..expiry import moment
from . import values
from .attributes import Cookie, rendered

# Keys of the record that are not the app's.
RESERVED = frozenset({"cookie", "minisession"})

# Keys that express-session deletes as it loads: they are members of its session object.
EXPRESS_DROPS = frozenset(
    {
        *("id", "req", "touch", "resetMaxAge", "save", "reload", "destroy", "regenerate"),
        *("constructor", "toString", "toLocaleString", "valueOf", "hasOwnProperty"),
        *("isPrototypeOf", "propertyIsEnumerable", "__proto__", "__defineGetter__"),
        *("__defineSetter__", "__lookupGetter__", "__lookupSetter__"),
    }
)

# Bytes; a shorter record has no integer that is too long.
LONGEST_INT = 4_200

# Bytes; a shorter record has neither deep nesting nor long integers.
_SHORT = 2 * values.MAX_DEPTH

# No number of seconds or milliseconds.
_TOO_LARGE = 1e300
# The members of the cookie in which two sessions differ, and what they are without a `max_age`.
_TIMES = {"originalMaxAge": None, "expires": None}


class Record(NamedTuple):
    """What a stored session says.

    Attributes:
        data: the app's.
        max_age: seconds; None for a cookie that ends with the browser.
        created: Unix seconds; None in a record that Express wrote.
        user: whose session it is; None for a session without a user.
    """

    data: dict[str, Any]
    max_age: float | None
    created: float | None
    user: str | None

    # A tuple's repr would show the data to logs and error trackers.
    def __repr__(self) -> str:
        return "<Record>"


class Frame(NamedTuple):
    """The text of a record and its cookie around what differs between two sessions.

    Attributes:
        parts: up to the value of ``originalMaxAge``; to that of ``expires``; to the first member of
            ``minisession``.
        usual: how records of sessions without a `max_age` begin, which `decode` need not parse.
        attributes: of the cookie, as `attributes.rendered`.
        max_age: seconds, of a session that sets none of its own.
        exposed: a ``Secure`` cookie goes out over plain http.
    """

    parts: tuple[str, ...]
    usual: bytes
    attributes: str = ""
    max_age: float | None = None
    exposed: bool = False


def decode(data: bytes, usual: bytes = b"") -> Record:
    """Read a record.

    Args:
        data: the record.
        usual: how records usually begin, by their frame.

    Raises:
        ValueError: it is not a session, Express' or ours.  No bytes raise anything else.
    """
    begins = usual and data.startswith(usual)
    members = _members_of(b'{"minisession":{' + data[len(usual) :] if begins else data)
    # The usual cookie has no lifetime.
    cookie = members.pop("cookie", {} if begins else None)
    ours = members.pop("minisession", {})
    if not type(cookie) is type(ours) is dict:
        raise ValueError("no cookie object")
    max_age = _max_age_in(cookie) if cookie else None
    created, user = ours.get("created"), ours.get("user")
    if not (created is None or (type(created) in (float, int) and 0 < created < _TOO_LARGE)):
        raise ValueError("created is not a time")
    if not (user is None or (type(user) is str and user and not values.SURROGATE.search(user))):
        raise ValueError("user is not text")
    if len(data) > _SHORT:
        _check_that_it_can_be_stored_again(data, [*members.values(), *cookie.values()])
    return Record(members, max_age, created, user)


def _members_of(data: bytes) -> dict[str, Any]:
    try:
        text = data.decode().strip(" \t\n\r")
        members, end = _decoder.raw_decode(text)
    except RecursionError:
        # Of a record that is not deep, it is the app that is, in its own calls.
        if not _may_be_deep(data):
            raise
        raise ValueError("nested too deep") from None
    except ValueError:
        # The cause may quote the data.
        raise ValueError("not JSON in UTF-8") from None
    if end != len(text) or type(members) is not dict:
        raise ValueError("not a JSON object")
    return members


def _max_age_in(cookie: dict[str, Any]) -> float | None:
    milliseconds = cookie.get("originalMaxAge")
    # Express writes False after `cookie.expires = false`.
    if milliseconds is None or milliseconds is False:
        return None
    if not (type(milliseconds) in (float, int) and 0 < milliseconds < _TOO_LARGE):
        raise ValueError("originalMaxAge is not a number of milliseconds")
    return float(milliseconds / 1000)


def _check_that_it_can_be_stored_again(data: bytes, members: list[Any]) -> None:
    large = len(data) > LONGEST_INT or _may_be_deep(data)
    # Half surrogate pairs can be; Express stores them, too.
    if large and not values.fit(members, bad=values.PAIR):
        raise ValueError("too deep, or with integers too long, to be stored again")


def _may_be_deep(data: bytes) -> bool:
    return data.count(b"[") + data.count(b"{") > values.MAX_DEPTH


def encode(record: Record, frame: Frame, expires_at: float) -> bytes:
    """Write a record in this frame; the values are fit, as `values.fit` has seen."""
    data, max_age, created, user = record
    age = expires = "null"
    if max_age is not None:
        age = str(max(1, round(max_age * 1000)))
        expires = f'"{moment(expires_at).isoformat(timespec="milliseconds")[:-6]}Z"'
    ours = ""
    if created is not None:
        milliseconds = round(created * 1000)
        # Down, never into the future; and not to 0, which is no time.
        if milliseconds / 1000 > created:
            milliseconds -= 1
        # 13 digits are milliseconds, until the year 2286.
        ours = f'"created":{max(1, milliseconds) / 1000:.13g}'
    if user is not None:
        ours += f'{"," if ours else ""}"user":{values.encode(user)}'
    rest = "," + values.encode(data)[1:] if data else "}"
    start, middle, end = frame.parts
    text = f"{start}{age}{middle}{expires}{end}{ours}}}{rest}"
    # Half pairs that Express stored are written back as JSON.stringify writes them.
    return text.encode(errors="backslashreplace")


@lru_cache(maxsize=64)
def frame(cookie: Cookie, https: bool) -> Frame:
    """Render what the configuration determines of a record, in Express' order, and of a cookie."""
    secure, samesite = cookie.over(https)
    members = {
        "originalMaxAge": None,
        "partitioned": cookie.partitioned or None,
        "priority": cookie.priority and cookie.priority.lower(),
        "expires": None,
        # As Express does: a boolean for "auto", no member for False.
        "secure": secure if cookie.secure else None,
        "httpOnly": cookie.httponly,
        "domain": cookie.domain,
        "path": cookie.path,
        "sameSite": samesite and samesite.lower(),
    }
    exposed = cookie.secure is True and not https
    return _frame(members, rendered(cookie, https), cookie.max_age, exposed)


def frame_of(data: bytes) -> Frame:
    """Return the frame that a stored record has, to store it again with the same attributes."""
    return _frame({**_TIMES, **_members_of(data)["cookie"], **_TIMES})


def _frame(cookie: dict[str, Any], *rest: Any) -> Frame:
    known = {name: value for name, value in cookie.items() if value is not None or name in _TIMES}
    text = f'{{"cookie":{values.encode(known)},"minisession":{{'
    # The first two nulls: before them is nothing that could hold the word.
    return Frame(tuple(text.split("null", 2)), text.encode(errors="backslashreplace"), *rest)


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError("no number of JSON's")
    return number


_decoder = json.JSONDecoder(parse_constant=_finite, parse_float=_finite)
