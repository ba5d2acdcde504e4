"""Cookies: what a browser is told (`Cookie`, `write`, `remove`) and what it sends (`read`).

Reading is our own code.  `http.cookies` loses our cookie behind a malformed neighbour, raises on some,
keeps the last of two, and is quadratic in escapes (CVE-2024-7592).  Writing goes through its `Morsel`,
once per configuration, with every attribute validated first: older ``Morsel``s pass CR and LF on
(CVE-2026-0672).
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from email.utils import format_datetime
from functools import lru_cache
from http.cookies import CookieError, Morsel
from math import ceil
from typing import Any, Literal
from urllib.parse import quote, unquote

from ..expiry import moment

MAX_READ = 16  # cookies of our name in one request; more are an attack, not a browser
MAX_PAIR = 4096  # bytes of name and value, the least that browsers keep (RFC 6265bis 5.6)
MAX_ATTRIBUTE = 1024  # bytes of an attribute's value (RFC 6265bis 5.6)
LONGEST_KEPT = 400 * 86400  # seconds; browsers shorten what is longer (RFC 6265bis 5.5)

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_PATH = re.compile(r"/[\x20-\x3a\x3c-\x7e]*\Z")
_DOMAIN = re.compile(r"\.?[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*\Z")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, kw_only=True)
class Cookie:
    """How the session's cookie is sent; immutable, and checked as it is made.

    Args:
        max_age: seconds that the browser keeps it, and the store the session.  ``None``: until the
            browser is closed, and ``idle_timeout`` in the store.
        path: where the browser sends it.  The browser's rule and no gate: the session is there on
            every path that the cookie comes with.
        domain: ``None`` is this host alone, the safest; a domain includes its subdomains.
        secure: send over https only.  ``"auto"``: as the request that sets it came.
        httponly: hidden from scripts.
        samesite: ``"Lax"``, ``"Strict"``, ``"None"``; ``None`` leaves the attribute out; ``"auto"`` is
            ``"None"`` over https and ``"Lax"`` otherwise.
        partitioned: kept apart per embedding site (CHIPS).
        priority: ``"Low"``, ``"Medium"``, ``"High"``: which cookie Chromium drops first.

    Raises:
        TypeError, ValueError: naming the argument, what was got, and the mend.
    """

    max_age: float | None = None
    path: str = "/"
    domain: str | None = None
    secure: bool | Literal["auto"] = True
    httponly: bool = True
    samesite: str | None = "Lax"
    partitioned: bool = False
    priority: str | None = None
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.max_age is not None:
            check_seconds("max_age", self.max_age)
            if self.max_age > LONGEST_KEPT:
                _warn(f"max_age={self.max_age!r} is over 400 days, which is as long as browsers keep a cookie")
        _check_text("path", self.path, _PATH, "printable ASCII from a '/' on, without ';' (percent-encode the rest)")
        if self.domain is not None:
            _check_text("domain", self.domain, _DOMAIN, "a host name, such as 'example.com'")
        for name in ("httponly", "partitioned"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, not {getattr(self, name)!r}")
        if not isinstance(self.secure, bool) and self.secure != "auto":
            raise TypeError(f'secure must be True, False or "auto", not {self.secure!r}')
        self._set_word("samesite", ("Lax", "Strict", "None", "auto"))
        self._set_word("priority", ("Low", "Medium", "High"))
        if self.samesite == "None" and self.secure is not True:
            raise ValueError(
                f'samesite="None" with secure={self.secure!r}: browsers refuse it without Secure;'
                ' set secure=True, or samesite="auto" with secure="auto"'
            )
        if self.samesite == "auto" and self.secure is False:
            raise ValueError(
                'samesite="auto" with secure=False would send SameSite=None without Secure; set secure="auto"'
            )
        if self.partitioned and self.secure is not True:
            raise ValueError(f"partitioned=True with secure={self.secure!r}: browsers refuse it; set secure=True")
        if self.partitioned and self.samesite == "Strict":
            _warn('partitioned=True with samesite="Strict": the cookie is never sent where it would be partitioned')
        object.__setattr__(self, "_hash", hash(tuple(vars(self).values())))

    def __hash__(self) -> int:
        return self._hash  # computed once: what is rendered of a cookie is looked up by it

    def _set_word(self, name: str, words: tuple[str, ...]) -> None:
        got = getattr(self, name)
        if got is None:
            return
        if not isinstance(got, str):
            raise TypeError(f"{name} must be one of {words} or None, not {got!r}")
        for word in words:
            if got.lower() == word.lower():
                object.__setattr__(self, name, word)  # the dataclass is frozen for everybody else
                return
        raise ValueError(f"{name} must be one of {words} or None, not {got!r}")

    def check_name(self, name: str) -> None:
        """Raise ValueError where the prefix of ``name`` promises what this cookie does not keep."""
        prefix = name.lower()
        if prefix.startswith(("__host-", "__secure-", "__http-")) and self.secure is not True:
            raise ValueError(f"name={name!r} needs secure=True, not {self.secure!r}: browsers refuse it otherwise")
        if prefix.startswith("__host-") and (self.domain is not None or self.path != "/"):
            raise ValueError(
                f'name={name!r} needs domain=None and path="/", not {self.domain!r} and {self.path!r}:'
                " browsers refuse it otherwise"
            )
        if prefix.startswith(("__http-", "__host-http-")) and not self.httponly:
            raise ValueError(f"name={name!r} needs httponly=True: browsers refuse it otherwise")

    def over(self, https: bool) -> tuple[bool, str | None]:
        """Return what ``secure`` and ``samesite`` are for a request over https or http."""
        secure = https if self.secure == "auto" else bool(self.secure)
        if self.samesite == "auto":
            return secure, "None" if https else "Lax"
        return secure, self.samesite


def check_seconds(name: str, value: Any) -> None:
    """Raise unless ``value`` is a positive finite number of seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not 0 < value < _MOST_SECONDS:
        shown = repr(value) if isinstance(value, float) or value.bit_length() < 14_000 else "one of thousands of digits"
        raise ValueError(f"{name} must be a positive, finite number of seconds, not {shown}")


def check_name(name: Any) -> None:
    """Raise unless ``name`` can be a cookie's name (an RFC 6265 token that `http.cookies` accepts)."""
    if not isinstance(name, str):
        raise TypeError(f"name must be str, not {name!r}")
    if not _TOKEN.match(name) or name.startswith("$"):
        raise ValueError(f"name={name[:80]!r} is not a cookie name: use letters, digits, '-', '_' and '.'")
    if len(name) > MAX_PAIR - 100:
        raise ValueError(f"name has {len(name)} characters: name and value share {MAX_PAIR} bytes")
    try:
        _morsel(name)
    except CookieError:
        raise ValueError(f"name={name!r} is the name of a cookie attribute; choose another") from None


def read(header: str, name: str) -> list[str]:
    """Return the values that a ``Cookie`` header has for ``name``, decoded, in its order; at most 16.

    Any text is fine and the time is linear in its length.  One pair of quotes is dropped; escapes
    inside quotes are not decoded; text that is no valid percent-encoding stays as it is.
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
            if len(value) > 1 and value[0] == value[-1] == '"':
                value = value[1:-1]
            values.append(_decode(value))
            if len(values) == MAX_READ:
                break
    return values


def _decode(value: str) -> str:
    """Decode like JavaScript's decodeURIComponent, and keep the text where that would throw."""
    plain = value.replace("%3A", ":").replace("%2F", "/").replace("%2B", "+")  # all that is in ours, as a rule
    if "%" not in plain:
        return plain
    if _BAD_ESCAPE.search(value):
        return value
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        return value


def pair(name: str, value: str) -> str:
    """Return ``name=value``, percent-encoded.

    Raises:
        ValueError: it is longer than browsers keep.
    """
    if _OURS.match(value):
        text = f"{name}={value.replace(':', '%3A').replace('/', '%2F').replace('+', '%2B')}"
    else:
        text = f"{name}={quote(value, safe=_UNESCAPED)}"
    if len(text) > MAX_PAIR:
        raise ValueError(
            f"the cookie {name[:80]!r} would have {len(text)} bytes, browsers keep {MAX_PAIR}: shorten the id"
        )
    return text


def write(name: str, value: str, cookie: Cookie, https: bool, now: float, expires_at: float | None) -> str:
    """Return the ``Set-Cookie`` that gives the browser ``value`` until ``expires_at``, or for its session.

    Raises:
        ValueError: as `pair` does.
    """
    start = pair(name, value) + _attributes(cookie, https)
    if expires_at is None:
        return start
    seconds = max(1, ceil(round(expires_at - now, 3)))
    return f"{start}; Expires={format_datetime(moment(expires_at), usegmt=True)}; Max-Age={seconds}"


def remove(name: str, cookie: Cookie, https: bool) -> str:
    """Return the ``Set-Cookie`` that removes the cookie: with the attributes that it was set with."""
    return f"{name}={_attributes(cookie, https)}; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0"


_MOST_SECONDS = 1e297  # milliseconds of it are still a number
_OURS = re.compile(r"[A-Za-z0-9_.:/+-]*\Z")  # for which `quote` is a detour
_UNESCAPED = "!*'()"  # what JavaScript's encodeURIComponent leaves, beyond what quote() does


@lru_cache(maxsize=64)
def _attributes(cookie: Cookie, https: bool) -> str:
    secure, samesite = cookie.over(https)
    morsel = _morsel("name")
    morsel["path"], morsel["domain"], morsel["samesite"] = cookie.path, cookie.domain or "", samesite or ""
    morsel["httponly"], morsel["secure"] = cookie.httponly, secure
    rest = f"; Priority={cookie.priority}" if cookie.priority else ""
    rest += "; Partitioned" if cookie.partitioned else ""  # Morsel learns it in 3.14
    return morsel.OutputString().removeprefix("name=").removeprefix('""') + rest


def _morsel(name: str) -> Morsel[Any]:
    morsel: Morsel[Any] = Morsel()
    morsel.set(name, "", "")
    return morsel


def _check_text(name: str, value: Any, pattern: re.Pattern[str], rule: str) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be str, not {value!r}")
    if not pattern.match(value):
        raise ValueError(f"{name}={value[:80]!r} must be {rule}")
    if len(value) > MAX_ATTRIBUTE:
        raise ValueError(f"{name} has {len(value)} characters: browsers drop attributes over {MAX_ATTRIBUTE}")


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
