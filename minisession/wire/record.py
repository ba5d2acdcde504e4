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
from .attributes import Cookie, rendered
from .values import MAX_DEPTH, SURROGATE, check_again, fit_names
from .values import encode as encode_value

RESERVED = frozenset({"cookie", "minisession"})
"""Keys of the record that are not the app's."""

EXPRESS_DROPS = frozenset(
    {
        *("id", "req", "touch", "resetMaxAge", "save", "reload", "destroy", "regenerate"),
        *("constructor", "toString", "toLocaleString", "valueOf", "hasOwnProperty"),
        *("isPrototypeOf", "propertyIsEnumerable", "__proto__", "__defineGetter__"),
        *("__defineSetter__", "__lookupGetter__", "__lookupSetter__"),
    }
)
"""Keys that express-session deletes as it loads: they are members of its session object."""

LONGEST_INT = 4_200
"""Bytes; a shorter record has no integer that is too long."""

# JSON's.
_SPACE = " \t\n\r"
# Our member, in a record that Express wrote; the cookie, in one that begins as usual.
_NOTHING: dict[str, Any] = {}
# No number of seconds or milliseconds.
_TOO_LARGE = 1e300
# Stands where two sessions differ; no attribute has it.
_BLANK = "\0"


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
        start: up to the value of ``originalMaxAge``.
        middle: from there to the value of ``expires``.
        end: from there to the first member of ``minisession``.
        usual: how records of sessions without a `max_age` begin, which `decode` need not parse.
        attributes: of the cookie, as `attributes.rendered`.
        max_age: seconds, of a session that sets none of its own.
        exposed: a ``Secure`` cookie goes out over plain http.
    """

    start: str
    middle: str
    end: str
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
    members = _parsed(b'{"minisession":{' + data[len(usual) :] if begins else data)
    cookie = members.pop("cookie", _NOTHING if begins else None)
    max_age = None if cookie is _NOTHING else _max_age_in(cookie)
    created, user = _ours_in(members.pop("minisession", _NOTHING))
    # A shorter record has neither deep nesting nor long integers.
    if len(data) > 2 * MAX_DEPTH:
        _check_that_it_can_be_stored_again(data, members)
    return Record(members, max_age, created, user)


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        text = data.decode()
        if text[:1] != "{":
            text = text.lstrip(_SPACE)
        members, end = _decoder.raw_decode(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except ValueError:
        # The cause may quote the data.
        raise ValueError("not JSON in UTF-8") from None
    if (end != len(text) and text[end:].strip(_SPACE)) or type(members) is not dict:
        raise ValueError("not a JSON object")
    return members


def _max_age_in(cookie: Any) -> float | None:
    if type(cookie) is not dict:
        raise ValueError("no cookie object")
    milliseconds = cookie.get("originalMaxAge")
    # Express writes False after `cookie.expires = false`.
    if milliseconds is None or milliseconds is False:
        return None
    if not (type(milliseconds) in (float, int) and 0 < milliseconds < _TOO_LARGE):
        raise ValueError("originalMaxAge is not a number of milliseconds")
    seconds: float = milliseconds / 1000
    return seconds


def _ours_in(ours: Any) -> tuple[float | None, str | None]:
    if type(ours) is not dict:
        raise ValueError("no cookie object")
    created, user = ours.get("created"), ours.get("user")
    if created is not None and not (type(created) in (float, int) and 0 < created < _TOO_LARGE):
        raise ValueError("created is not a time")
    if user is not None and (type(user) is not str or not user or not fit_names((user,))):
        raise ValueError("user is not text")
    return created, user


def _check_that_it_can_be_stored_again(data: bytes, members: dict[str, Any]) -> None:
    if len(data) <= LONGEST_INT and data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    try:
        for key, value in members.items():
            check_again(key, value)
    except TypeError:
        raise ValueError("too deep, or with integers too long, to be stored again") from None


def encode(record: Record, frame: Frame, expires_at: float) -> bytes:
    """Write a record in this frame; the values are fit, as `values.fit` has seen."""
    age = expires = "null"
    if record.max_age is not None:
        age = str(max(1, round(record.max_age * 1000)))
        expires = f'"{moment(expires_at).isoformat(timespec="milliseconds")[:-6]}Z"'
    ours = "" if record.created is None else f'"created":{_milliseconds(record.created)}'
    if record.user is not None:
        ours += f'{"," if ours else ""}"user":{encode_value(record.user)}'
    data = encode_value(record.data)[1:]
    comma = "," if len(data) > 1 else ""
    text = f"{frame.start}{age}{frame.middle}{expires}{frame.end}{ours}}}{comma}{data}"
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Half pairs that Express stored are written back as JSON.stringify writes them.
        return SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text).encode()


# A session's is the same each time that it is stored; looking it up takes a fifth of the time.
@lru_cache(maxsize=4096)
def _milliseconds(created: float) -> str:
    """Return Unix seconds as text, to the millisecond, rounded down: never in the future."""
    rounded = round(created, 3)
    if rounded > created:
        rounded = round(rounded - 0.001, 3)
    # 13 digits are milliseconds, until the year 2286.
    return f"{max(0.001, rounded):.13g}"


@lru_cache(maxsize=64)
def frame(cookie: Cookie, https: bool) -> Frame:
    """Render what the configuration determines of a record, in Express' order, and of a cookie."""
    secure, samesite = cookie.over(https)
    members = {
        "originalMaxAge": _BLANK,
        "partitioned": cookie.partitioned or None,
        "priority": cookie.priority and cookie.priority.lower(),
        "expires": _BLANK,
        # As Express does: a boolean for "auto", no member for False.
        "secure": secure if cookie.secure else None,
        "httpOnly": cookie.httponly,
        "domain": cookie.domain,
        "path": cookie.path,
        "sameSite": samesite and samesite.lower(),
    }
    exposed = cookie.secure is True and not https
    return Frame(*_cut(members), rendered(cookie, https), cookie.max_age, exposed)


def frame_of(data: bytes) -> Frame:
    """Return the frame that a stored record has, to store it again with the same attributes."""
    # In this order, whatever the record's is.
    blanks = {"originalMaxAge": _BLANK, "expires": _BLANK}
    return Frame(*_cut({**blanks, **_parsed(data)["cookie"], **blanks}))


def _cut(cookie: dict[str, Any]) -> tuple[str, str, str, bytes]:
    """Cut a record's text where its cookie has blanks; return the parts, and the usual start."""
    text = encode_value({name: value for name, value in cookie.items() if value is not None})
    start, middle, end = f'{{"cookie":{text},"minisession":{{'.split(encode_value(_BLANK), 2)
    return start, middle, end, f"{start}null{middle}null{end}".encode()


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if isfinite(number) else _refuse("a number that large")


_decoder = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
