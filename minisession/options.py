"""The configuration: checked once, and never changed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import checks
from .wire import record
from .wire.attributes import Cookie, check_name
from .wire.record import Frame


def new_id(environ: dict[str, Any]) -> str:
    """Return 24 bytes from the system's random generator as 32 characters, as Express' uid."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How sessions are kept; `SessionMiddleware` describes each.

    Raises:
        TypeError, ValueError: with the option's name, what was given, and the fix.
    """

    name: str = "connect.sid"
    cookie: Cookie | Callable[[dict[str, Any]], Cookie] = Cookie()  # noqa: RUF009  # immutable
    resave: bool = False
    save_uninitialized: bool = False
    rolling: bool = False
    genid: Callable[[dict[str, Any]], str] = new_id
    proxy: bool = False
    idle_timeout: float = 86400
    absolute_timeout: float | None = None
    max_bytes: int = 65536
    clock: Callable[[], float] = time.time
    # Every request counts as one that looks at its session.
    always: bool = field(init=False)
    # The part of records that the cookie determines, over https and over http; empty where the
    # cookie is a function.
    _frames: Mapping[bool, Frame] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        frames = {}
        if isinstance(self.cookie, Cookie):
            self.cookie.check_prefix(self.name)
            frames = {https: record.frame(self.cookie, https) for https in (True, False)}
        elif isinstance(self.cookie, type) or not callable(self.cookie):
            raise TypeError(
                f"cookie must be a Cookie, or a callable (environ) -> Cookie, not {self.cookie!r}"
            )
        for name in ("genid", "clock"):
            checks.function(name, getattr(self, name))
        for name in ("resave", "save_uninitialized", "rolling", "proxy"):
            checks.flag(name, getattr(self, name))
        checks.seconds("idle_timeout", self.idle_timeout)
        if self.absolute_timeout is not None:
            checks.seconds("absolute_timeout", self.absolute_timeout)
        checks.count("max_bytes", self.max_bytes)
        # The dataclass is frozen, but must set these itself.
        object.__setattr__(self, "_frames", frames)
        object.__setattr__(self, "always", self.resave or self.save_uninitialized or self.rolling)

    def frame_for(self, environ: dict[str, Any]) -> Frame:
        """Return what is configured of a request's record and cookie."""
        https = environ.get("wsgi.url_scheme") == "https" or (self.proxy and _was_https(environ))
        if self._frames:
            return self._frames[https]
        made: object = self.cookie(environ)  # type: ignore[operator]  # a Cookie has frames
        if not isinstance(made, Cookie):
            raise TypeError(f"cookie(environ) must return a Cookie, not {type(made).__name__}")
        made.check_prefix(self.name)
        return record.frame(made, https)


def _was_https(environ: dict[str, Any]) -> bool:
    """Return whether the first proxy says that the client came over https."""
    first = str(environ.get("HTTP_X_FORWARDED_PROTO", "")).partition(",")[0]
    return first.strip().lower() == "https"
