"""A session as JSON bytes, as connect-redis stores it.  The one place where express' units are known.

``{"cookie":{"originalMaxAge":60000,"expires":"2026-11-23T20:49:04.097Z",…},"minisession":{…},"u":1}``

``originalMaxAge`` is milliseconds and ``expires`` ISO text; everywhere else seconds are used.  ``expires``
is written for express-session and never believed: connect-redis' touch leaves it in the past.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple, Protocol

from ..expiry import moment
from .cookies import Cookie

RESERVED = frozenset({"cookie", "minisession"})
"""Keys of the record that are not the app's."""

EXPRESS_DROPS = frozenset(
    {
        *("id", "req", "touch", "resetMaxAge", "save", "reload", "destroy", "regenerate"),
        *("constructor", "toString", "toLocaleString", "valueOf", "hasOwnProperty", "isPrototypeOf"),
        *("propertyIsEnumerable", "__proto__", "__defineGetter__", "__defineSetter__"),
        *("__lookupGetter__", "__lookupSetter__"),
    }
)
"""Keys that express-session deletes as it loads: they are members of its session object."""

_SPACE = " \t\n\r"  # of JSON
MAX_DEPTH = 200  # levels of lists and dicts; deeper values run into interpreters' recursion limits
MAX_INT_BITS = 14_000  # about 4,200 digits; CPython refuses to read integers of more than 4,300
LONGEST_INT = 4_200  # bytes; a shorter record has no longer integer


class Members(Protocol):
    """What of a session is stored; see `Record`."""

    @property
    def data(self) -> dict[str, Any]:
        """The app's."""

    @property
    def max_age(self) -> float | None:
        """Seconds."""

    @property
    def created(self) -> float | None:
        """Unix seconds."""

    @property
    def user(self) -> str | None:
        """Whose it is."""


class Record(NamedTuple):
    """What a stored session says."""

    data: dict[str, Any]
    max_age: float | None  # seconds; None is a browser-session cookie
    created: float | None  # Unix seconds; None in a record that express wrote
    user: str | None

    def __repr__(self) -> str:  # a tuple would show the data, to logs and error trackers
        return "<Record>"


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if isfinite(number) else _refuse("a number that large")


def _encoder(*, sort_keys: bool) -> Callable[[Any], str]:
    """Return what ``json.JSONEncoder(…).encode`` is, without making the C encoder anew for each value.

    That takes a third of the time of a small record.  Nothing circular comes here: `fit` looked how deep
    values are.
    """
    encoder = json.JSONEncoder(
        ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False, sort_keys=sort_keys
    )
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # not CPython
        return encoder.encode
    text = json.encoder.encode_basestring
    chunks = make(None, encoder.default, text, None, ":", ",", sort_keys, False, False)
    return lambda value: "".join(chunks(value, 0))


_decoder = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
_encode = _encoder(sort_keys=False)
_encode_sorted = _encoder(sort_keys=True)


def decode(data: bytes, usual: bytes = b"") -> Record:
    """Read a record.

    Args:
        data: the record.
        usual: `beginning`, which need not be read again in each record that begins so.

    Raises:
        ValueError: it is not a session of express' or ours; no other exception, whatever the bytes.
    """
    cookie: Any = None
    try:
        if usual and data.startswith(usual):
            cookie = {}
            text = '{"minisession":{' + data[len(usual) :].decode()
        else:
            text = data.decode().lstrip(_SPACE)
        members, end = _decoder.raw_decode(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except ValueError:
        raise ValueError("not JSON in UTF-8") from None  # the cause may quote the data
    if (end != len(text) and text[end:].strip(_SPACE)) or type(members) is not dict:
        raise ValueError("not a JSON object")
    cookie, ours = members.pop("cookie", cookie), members.pop("minisession", {})
    if type(cookie) is not dict or type(ours) is not dict:
        raise ValueError("no cookie object")
    max_age, created, user = cookie.get("originalMaxAge"), ours.get("created"), ours.get("user")
    if max_age is False:  # what express writes after `cookie.expires = false`
        max_age = None
    if max_age is not None:
        if not _is_positive(max_age):
            raise ValueError("originalMaxAge is not a number of milliseconds")
        max_age /= 1000
    if created is not None and not _is_positive(created):
        raise ValueError("created is not a time")
    if user is not None and not (type(user) is str and user and (user.isascii() or not _SURROGATE.search(user))):
        raise ValueError("user is not text")
    if len(data) > 2 * MAX_DEPTH and (  # a shorter one is neither deep nor has it long integers
        len(data) > LONGEST_INT or data.count(b"[") + data.count(b"{") > MAX_DEPTH
    ):
        try:
            for key, value in members.items():
                check_again(key, value)
        except TypeError:
            raise ValueError("too deep, or with integers too long, to be stored again") from None
    return Record(members, max_age, created, user)


def encode(record: Members, cookie: Cookie, https: bool, expires_at: float) -> bytes:
    """Write a record, with the attributes of ``cookie`` as they are for a request over http or https.

    The values are fit: `check` and `check_again` have seen them.
    """
    start, middle, end = _attributes(cookie, https)
    age = expires = "null"
    if record.max_age is not None:
        age = str(max(1, round(record.max_age * 1000)))
        expires = f'"{moment(expires_at).isoformat(timespec="milliseconds")[:-6]}Z"'
    # 13 digits are milliseconds, until the year 2286
    ours = "" if record.created is None else f'"created":{max(0.001, record.created):.13g}'
    if record.user is not None:
        ours += f'{"," if ours else ""}"user":{_encode(record.user)}'
    data = _encode(record.data)[1:]
    text = f"{start}{age}{middle}{expires}{end}{ours}}}{',' if record.data else ''}{data}"
    try:
        return text.encode()
    except UnicodeEncodeError:  # half pairs that express stored: written back as JSON.stringify writes them
        return _SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text).encode()


def canonical(value: Any) -> str:
    """Return the text that two values share exactly if they mean the same."""
    if isinstance(value, str):
        return '"' + value  # no other value's text begins so; escapes would tell no more
    if type(value) is int or type(value) is float:
        return repr(value)
    return _encode_sorted(value)


def check(key: str, value: Any) -> None:
    """Make sure that JSON holds ``value`` and gives the same value back.

    Raises:
        TypeError: it does not; the message names where, the type and the mend.
    """
    if fit((value,)):
        return
    _check(value, (key,))
    try:
        _encode(value).encode()
    except UnicodeEncodeError:
        raise _unfit((key,), "text with half a surrogate pair", "drop it: .encode(errors='ignore').decode()") from None


def check_again(key: str, value: Any) -> None:
    """Check what came from the store, or may have changed since it was assigned; half pairs are Express'."""
    if not fit((value,)):
        _check(value, (key,))


def fit(values: Iterable[Any], depth: int = MAX_DEPTH) -> bool:
    """Tell, quickly, whether JSON gives all values back as they are; why one is not, `check` tells."""
    for value in values:
        kind = type(value)
        if kind is str:
            if not value.isascii() and _SURROGATE.search(value):
                return False
        elif kind is int:
            if value.bit_length() > MAX_INT_BITS:
                return False
        elif kind is dict:
            if not (depth and fit_names(value) and fit(value.values(), depth - 1)):
                return False
        elif kind is list:
            if not (depth and fit(value, depth - 1)):
                return False
        elif kind is float:
            if not isfinite(value):
                return False
        elif kind is not bool and value is not None and not _fits_as_base(value, depth):
            return False
    return True


def fit_names(names: Iterable[Any]) -> bool:
    """Tell the same of a dict's keys."""
    try:
        text = "".join(names)
    except TypeError:
        return False
    return text.isascii() or not _SURROGATE.search(text)


def _fits_as_base(value: Any, depth: int) -> bool:
    """Tell whether a value of a subclass, such as IntEnum, fits: JSON keeps what it is made of."""
    if isinstance(value, str):
        return fit_names((value,))
    if isinstance(value, int):
        return fit((int(value),))
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, dict):
        return fit((dict(value),), depth)
    return isinstance(value, list) and fit((list(value),), depth)


def _check(value: Any, path: tuple[str | int, ...]) -> None:
    if value is None or isinstance(value, str):
        if value and not value.isascii() and _PAIR.search(value):  # JSON would make them one character
            raise _unfit(path, "text with a character in two halves", "join them: .encode('utf-16', 'surrogatepass')")
    elif isinstance(value, int):
        if value.bit_length() > MAX_INT_BITS:
            raise _unfit(path, "an int of thousands of digits", "store it as hex(…), a str")
    elif isinstance(value, float):
        if not isfinite(value):
            raise _unfit(path, repr(value), "store None or a str")
    elif len(path) > MAX_DEPTH:
        raise _unfit(path[:1], f"nested more than {MAX_DEPTH} deep, or holds itself", "store a flatter value")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, (*path, index))
    elif isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise _unfit(path, f"a dict with a key of type {type(name).__name__}", "make its keys str")
            _check(name, path)
            _check(item, (*path, name))
    else:
        name = type(value).__name__
        raise _unfit(path, f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}", _mend(name))


def _unfit(path: tuple[str | int, ...], what: str, mend: str) -> TypeError:
    where = "".join(f"[{step!r}]" for step in path)
    return TypeError(f"session{where} is {what}, and sessions are stored as JSON: {mend}")


def _mend(name: str) -> str:
    mends = {
        "tuple": "use a list",
        "set": "use sorted(…), a list",
        "frozenset": "use sorted(…), a list",
        "bytes": "use .hex() or base64 text",
        "datetime": "use .isoformat()",
        "date": "use .isoformat()",
        "Decimal": "use str(…)",
        "UUID": "use str(…)",
    }
    return mends.get(name, "store its parts (str, int, float, bool, None, list, dict with str keys)")


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e300


@lru_cache(maxsize=64)
def beginning(cookie: Cookie, https: bool) -> bytes:
    """Return how the records of browser sessions begin, as long as the configuration stays what it is."""
    start, middle, end = _attributes(cookie, https)
    return f"{start}null{middle}null{end}".encode()


@lru_cache(maxsize=64)
def _attributes(cookie: Cookie, https: bool) -> tuple[str, str, str]:
    """Render what of a record is the configuration's, around ``originalMaxAge`` and ``expires``, in express' order."""
    secure, samesite = cookie.over(https)
    before: dict[str, Any] = {"partitioned": cookie.partitioned or None, "priority": cookie.priority}
    after: dict[str, Any] = {
        "secure": secure if cookie.secure else None,  # as express: a boolean for "auto", no member for False
        "httpOnly": cookie.httponly,
        "domain": cookie.domain,
        "path": cookie.path,
        "sameSite": samesite,
    }
    first, second = (
        "".join(
            f',"{name}":{_encode(value.lower() if name in ("priority", "sameSite") else value)}'
            for name, value in members.items()
            if value is not None
        )
        for members in (before, after)
    )
    return '{"cookie":{"originalMaxAge":', f'{first},"expires":', f'{second}}},"minisession":{{'


_SURROGATE = re.compile("[\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
