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

MAX_PAIR = 4096
"""Bytes of name and value, the least that browsers keep (RFC 6265bis 5.6)."""

MAX_NAME = MAX_PAIR - 100
"""Characters; the rest is the value's."""

MAX_ATTRIBUTE = 1024
"""Bytes of an attribute's value (RFC 6265bis 5.6)."""

LONGEST_KEPT = 400 * 86400
"""Seconds; browsers shorten what is longer (RFC 6265bis 5.5)."""

# Without the "$" of old headers' attributes at the start.
_NAME = re.compile(r"(?!\$)[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_PATH = re.compile(r"/[\x20-\x3a\x3c-\x7e]*\Z")
_DOMAIN = re.compile(r"\.?[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*\Z")


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
        rule = "printable ASCII from a '/' on, without ';' (percent-encode the rest)"
        _check_text("path", self.path, _PATH, rule)
        if self.domain is not None:
            _check_text("domain", self.domain, _DOMAIN, "a host name, such as 'example.com'")
        checks.flag("httponly", self.httponly)
        checks.flag("partitioned", self.partitioned)
        if not isinstance(self.secure, bool) and self.secure != "auto":
            raise TypeError(f'secure must be True, False or "auto", not {self.secure!r}')
        self._set_word("samesite", ("Lax", "Strict", "None", "auto"))
        self._set_word("priority", ("Low", "Medium", "High"))
        self._check_together()
        if self.partitioned and self.samesite == "Strict":
            _warn('partitioned=True with samesite="Strict": not sent where it would be partitioned')

    def _check_together(self) -> None:
        """Raise where two attributes contradict each other."""
        if self.samesite == "None" and self.secure is not True:
            fix = 'secure=True, or samesite="auto" with secure="auto"'
            raise _contradiction('samesite="None"', fix, secure=self.secure)
        if self.samesite == "auto" and self.secure is False:
            raise _contradiction('samesite="auto"', 'secure="auto"', secure=self.secure)
        if self.partitioned and self.secure is not True:
            raise _contradiction("partitioned=True", "secure=True", secure=self.secure)

    def _set_word(self, name: str, words: tuple[str, ...]) -> None:
        got = getattr(self, name)
        known = {word.lower(): word for word in words}
        if isinstance(got, str) and got.lower() in known:
            # The dataclass is frozen, but must set this itself.
            object.__setattr__(self, name, known[got.lower()])
        elif got is not None:
            wrong = ValueError if isinstance(got, str) else TypeError
            raise wrong(f"{name} must be one of {words} or None, not {got!r}")

    def check_name(self, name: str) -> None:
        """Raise ValueError where the prefix of ``name`` promises what this cookie does not keep."""
        prefix, what = name.lower(), f"name={name!r}"
        if prefix.startswith(("__host-", "__secure-", "__http-")) and self.secure is not True:
            raise _contradiction(what, "secure=True", secure=self.secure)
        if prefix.startswith("__host-") and (self.domain is not None or self.path != "/"):
            fix = 'domain=None and path="/"'
            raise _contradiction(what, fix, domain=self.domain, path=self.path)
        if prefix.startswith(("__http-", "__host-http-")) and not self.httponly:
            raise _contradiction(what, "httponly=True", httponly=self.httponly)

    def over(self, https: bool) -> tuple[bool, str | None]:
        """Return what ``secure`` and ``samesite`` are for a request over https or http."""
        secure = https if self.secure == "auto" else bool(self.secure)
        if self.samesite == "auto":
            return secure, "None" if https else "Lax"
        return secure, self.samesite


def check_name(name: Any) -> None:
    """Raise unless ``name`` can be a cookie's name: an RFC 6265 token that `Morsel` accepts."""
    _check_text("name", name, _NAME, "a cookie's name: letters, digits, '-', '_', '.'", MAX_NAME)
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


def _check_text(
    name: str, value: Any, pattern: re.Pattern[str], rule: str, most: int = MAX_ATTRIBUTE
) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be str, not {value!r}")
    if not pattern.match(value):
        raise ValueError(f"{name}={value[:80]!r} must be {rule}")
    if len(value) > most:
        raise ValueError(f"{name} has {len(value)} characters, and browsers keep at most {most}")


def _contradiction(what: str, fix: str, **got: Any) -> ValueError:
    """Return the error for something that the attributes which were ``got`` rule out."""
    shown = " and ".join(f"{name}={value!r}" for name, value in got.items())
    return ValueError(f"{what} with {shown}: browsers refuse it; set {fix}")


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
