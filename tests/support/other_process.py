"""A site in a process of its own, whose pages the test sends through a pipe."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from minisession import ListingStore, SQLiteStore, open_store

from .site import Site

SOON = 60  # seconds, within which the other process answers, or never will

Hold = Callable[[], None]  # a page that calls it stops until the test says `go_on`
Page = Callable[..., Any]  # of a session and `hold`; a function of a module, or a partial of one: it is pickled


class Answer(NamedTuple):
    """What became of a request."""

    result: Any  # what the page returned
    cookie: str | None  # what the browser has now
    set_cookie: str | None
    error: str | None


def open_shared(url: str) -> ListingStore:
    """Return the store that a URL names, with patience for machines that are busy."""
    if url.startswith("sqlite:"):
        return SQLiteStore(url.removeprefix("sqlite:///"), timeout=SOON)
    return open_store(f"{url}?socket_timeout={SOON}")


class OtherProcess:
    """Another server of the same site; use it as a context manager."""

    def __init__(self, url: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(url, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> OtherProcess:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pipe.send(None)
        self._process.join(SOON)
        self._pipe.close()
        assert self._process.exitcode == 0

    def visit(self, page: Page, cookie: str | None = None, *, times: int = 1) -> Answer:
        """Make a request, or several one after another; return the last one's answer."""
        self.begin(page, cookie, times=times)
        return self.answer()

    def begin(self, page: Page, cookie: str | None = None, *, times: int = 1) -> None:
        """Start a request, and do not wait for its answer."""
        self._pipe.send((page, cookie, times))

    def wait_until_held(self) -> None:
        """Return when the page holds."""
        assert self._receive() == "held"

    def go_on(self) -> None:
        """Let the page that holds go on."""
        self._pipe.send("go on")

    def answer(self) -> Answer:
        """Wait for the answer."""
        answer = self._receive()
        assert isinstance(answer, Answer)
        assert answer.error is None, answer.error
        return answer

    def _receive(self) -> Any:
        assert self._pipe.poll(SOON)
        return self._pipe.recv()


def _serve(url: str, pipe: Connection) -> None:
    store = open_shared(url)
    site = Site(store=store, clock=time.time)

    def hold() -> None:
        pipe.send("held")
        assert pipe.recv() == "go on"

    while (request := pipe.recv()) is not None:
        page, cookie, times = request
        browser = site.browser(cookie)
        result = error = None
        try:
            for _ in range(times):
                result = browser.visit(partial(page, hold=hold))
        except Exception:
            error = traceback.format_exc()
        pipe.send(Answer(result, browser.cookie, browser.set_cookie if error is None else None, error))
    store.close()
