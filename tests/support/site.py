"""A site whose pages are functions of the session, for tests that interleave requests.

A request that is made inside another's page is one that overtakes it: the outer one has loaded the
session, and commits when the inner one is answered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from webtest import TestResponse

from minisession import MemoryStore, Session, get_session

from .browser import Browser, Clock, SpyStore, middleware

Page = Callable[[Session], Any]


class Site:
    """An app, its store and its clock."""

    def __init__(self, **options: Any) -> None:
        self.clock = options.setdefault("clock", Clock())
        self.store = options.setdefault("store", SpyStore(MemoryStore(clock=self.clock)))
        self.app = middleware(serve, **options)
        self.result: Any = None

    def browser(self, cookie: str | None = None) -> Visitor:
        return Visitor(self, cookie)


def serve(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    page = environ["test.page"]
    if page is not None:
        environ["test.results"].append(page(get_session(environ)))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]


class Visitor(Browser):
    """A browser at a site."""

    def __init__(self, site: Site, cookie: str | None = None) -> None:
        super().__init__(site.app)
        self.site = site
        if cookie is not None:
            self.client.set_cookie("connect.sid", cookie)

    def visit(self, page: Page | None = None) -> Any:
        """Run ``page(session)`` in a request; return what it returned.  `response` has the rest."""
        results: list[Any] = []
        getattr(self.site.store, "verbs", None)  # forget the calls of earlier requests
        self.response: TestResponse = self.get("/", extra_environ={"test.page": page, "test.results": results})
        return results[0] if results else None

    def twin(self) -> Visitor:
        """Return another tab, or a thief: the same cookie in a jar of its own."""
        return Visitor(self.site, self.cookie)

    @property
    def set_cookie(self) -> str | None:
        """The last response's Set-Cookie; there is never more than one."""
        headers: list[str] = self.response.headers.getall("Set-Cookie")
        assert len(headers) <= 1
        return headers[0] if headers else None

    @property
    def id(self) -> str:
        """The id that the cookie carries."""
        assert self.cookie is not None
        return self.cookie.removeprefix("s%3A").rpartition(".")[0]


def put(key: str, value: Any) -> Page:
    """Make a page that writes one key."""

    def page(session: Session) -> None:
        session[key] = value

    return page


def data(session: Session) -> dict[str, Any]:
    return dict(session)
