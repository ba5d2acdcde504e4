"""`Cookie`: the attributes that the cookie is sent with, checked at construction.

Rendering goes through `http.cookies.Morsel`, once per configuration, with every attribute validated
first: older ``Morsel``s pass CR and LF on (CVE-2026-0672).
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from http.cookies import Morsel
from typing import Any, Literal

from .. import checks

# Bytes of name and value, the least that browsers keep (RFC 6265bis 5.6).
MAX_PAIR = 4096

# Seconds; browsers shorten what is longer (RFC 6265bis 5.5).
LONGEST_KEPT = 400 * 86400

# Characters at most, their pattern, and what to write.  Browsers keep 1024 bytes of an attribute
# (RFC 6265bis 5.6).  "=" and a value with an id of our own making take up to 167 bytes of a pair.
_RULES = {
    # Without the "$" of old headers' attributes at the start.
    "name": (MAX_PAIR - 167, r"(?!\$)[\w!#$%&'*+.^`|~-]+", "letters, digits, '-', '_', '.'"),
    "path": (1024, r"/[ -:<-~]*", "'/', then printable ASCII but ';' (percent-encode the rest)"),
    "domain": (1024, r"\.?[\w-]+(\.[\w-]+)*", "a host name, such as 'example.com'"),
}

# What browsers refuse a cookie without, by the prefixes of its name (RFC 6265bis 4.1.3).
_PROMISES = (
    ("secure", True, ("__host-", "__secure-", "__http-")),
    ("domain", None, ("__host-",)),
    ("path", "/", ("__host-",)),
    ("httponly", True, ("__http-", "__host-http-")),
)


@dataclass(frozen=True, kw_only=True)
class Cookie:
    """How the session's cookie is sent; immutable, and checked at construction.

    Args:
        max_age: seconds that the browser keeps it, and the store the session.  ``None``: until the
            browser is closed, and ``idle_timeout`` in the store.
        path: where the browser sends it.  This is the browser's rule, not a gate: the session is
            there on every path that the cookie comes with.
        domain: ``None`` is this host alone, the safest; a domain includes its subdomains.
        secure: send over https only.  ``"auto"``: as the request that sets it came.
        httponly: hidden from scripts.
        samesite: ``"Lax"``, ``"Strict"``, ``"None"``; ``None`` leaves the attribute out; ``"auto"``
            is ``"None"`` over https and ``"Lax"`` otherwise.
        partitioned: kept apart per embedding site (CHIPS).
        priority: ``"Low"``, ``"Medium"``, ``"High"``: which cookie Chromium drops first.

    Raises:
        TypeError, ValueError: with the argument's name, what was given, and the fix.
    """

    max_age: float | None = None
    path: str = "/"
    domain: str | None = None
    secure: bool | Literal["auto"] = True
    httponly: bool = True
    samesite: str | None = "Lax"
    partitioned: bool = False
    priority: str | None = None

    def __post_init__(self) -> None:
        if self.max_age is not None:
            checks.seconds("max_age", self.max_age)
            if self.max_age > LONGEST_KEPT:
                _warn(f"max_age={self.max_age!r} is over 400 days, as long as browsers keep it")
        _check_text("path", self.path)
        if self.domain is not None:
            _check_text("domain", self.domain)
        checks.flag("httponly", self.httponly)
        checks.flag("partitioned", self.partitioned)
        if not isinstance(self.secure, bool) and self.secure != "auto":
            raise TypeError(f'secure must be True, False or "auto", not {self.secure!r}')
        self._set_word("samesite", "Lax", "Strict", "None", "auto")
        self._set_word("priority", "Low", "Medium", "High")
        # Over https and over http, browsers refuse either without Secure.
        for https in (True, False):
            secure, samesite = self.over(https)
            if not secure and (self.partitioned or samesite == "None"):
                what = "partitioned=True" if self.partitioned else f"samesite={self.samesite!r}"
                raise _refused(what, "secure", self.secure, True)
        if self.partitioned and self.samesite == "Strict":
            _warn('partitioned=True with samesite="Strict": not sent where it would be partitioned')

    def _set_word(self, name: str, *words: str) -> None:
        got = getattr(self, name)
        known = {word.lower(): word for word in words}
        if isinstance(got, str) and got.lower() in known:
            # The dataclass is frozen, but must set this itself.
            object.__setattr__(self, name, known[got.lower()])
        elif got is not None:
            wrong = ValueError if isinstance(got, str) else TypeError
            raise wrong(f"{name} must be one of {words} or None, not {got!r}")

    def check_prefix(self, name: str) -> None:
        """Raise ValueError where the prefix of ``name`` promises what this cookie does not keep."""
        for attribute, promised, prefixes in _PROMISES:
            got = getattr(self, attribute)
            if got != promised and name.lower().startswith(prefixes):
                raise _refused(f"name={name!r}", attribute, got, promised)

    def over(self, https: bool) -> tuple[bool, str | None]:
        """Return what ``secure`` and ``samesite`` are for a request over https or http."""
        secure = https if self.secure == "auto" else bool(self.secure)
        auto = "None" if https else "Lax"
        return secure, auto if self.samesite == "auto" else self.samesite


def check_name(name: Any) -> None:
    """Raise unless ``name`` can be a cookie's name: an RFC 6265 token that `Morsel` accepts."""
    _check_text("name", name)
    if Morsel().isReservedKey(name):
        raise ValueError(f"name={name!r} is the name of a cookie attribute; choose another")


def rendered(cookie: Cookie, https: bool) -> str:
    """Return the attributes after ``name=value``, except ``Expires`` and ``Max-Age``."""
    secure, samesite = cookie.over(https)
    morsel: Morsel[Any] = Morsel()
    morsel.set("name", "", "")
    morsel["path"], morsel["domain"] = cookie.path, cookie.domain or ""
    morsel["httponly"], morsel["secure"] = cookie.httponly, secure
    morsel["samesite"] = samesite or ""
    rest = f"; Priority={cookie.priority}" if cookie.priority else ""
    # Morsel knows it from Python 3.14 on.
    rest += "; Partitioned" if cookie.partitioned else ""
    return morsel.OutputString().removeprefix("name=").removeprefix('""') + rest


def _check_text(name: str, value: Any) -> None:
    most, pattern, rule = _RULES[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} must be str, not {value!r}")
    if len(value) > most or not re.fullmatch(pattern, value, re.ASCII):
        raise ValueError(f"{name}={value[:80]!r} must be {rule}, at most {most} characters")


def _refused(what: str, attribute: str, got: object, fix: object) -> ValueError:
    return ValueError(f"browsers refuse {what} with {attribute}={got!r}: set {attribute}={fix!r}")


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
