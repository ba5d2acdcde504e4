"""What the tests share: a clock that is told the time, and browsers that keep cookies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from wsgiref.validate import validator

from webtest import TestApp, TestResponse

from minisession import Cookie, MemoryStore, SessionMiddleware, Store

SECRET = "a secret for the tests, and long enough"


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, now: float = 1_795_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class SpyStore:
    """A store that writes down every call: ``("load", id)``, ``("touch", id)``, ..."""

    def __init__(self, store: Store | None = None) -> None:
        self.store = store if store is not None else MemoryStore()
        self.calls: list[tuple[str, str]] = []

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        method = getattr(self.store, verb)

        def spy(id: str, *arguments: Any, **more: Any) -> Any:
            self.calls.append((verb, id))
            return method(id, *arguments, **more)

        return spy

    @property
    def verbs(self) -> list[str]:
        """Return the calls' names since the last time this was asked."""
        calls, self.calls = self.calls, []
        return [verb for verb, _ in calls]

    def close(self) -> None:
        self.store.close()


class Browser:
    """One visitor: a cookie jar in front of a WSGI app, by https, linted on both sides of the middleware."""

    def __init__(self, app: Any) -> None:
        self.client = TestApp(app, extra_environ={"wsgi.url_scheme": "https"})

    def get(self, path: str = "/", **options: Any) -> TestResponse:
        return self.client.get(path, **options)

    @property
    def cookie(self) -> str | None:
        """The session cookie's value, as sent."""
        return dict(self.client.cookies).get("connect.sid")


def middleware(app: Any, **options: Any) -> SessionMiddleware:
    """Wrap ``app`` as users do, with PEP 3333's linter between it and the middleware."""
    options.setdefault("secret", SECRET)
    options.setdefault("cookie", Cookie(secure="auto"))
    return SessionMiddleware(validator(app), **options)
