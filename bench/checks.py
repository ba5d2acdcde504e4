"""What a peer does, asked before it is timed: what is not right is not worth measuring."""

from __future__ import annotations

import json
from time import sleep
from typing import Any

from .driving import pair
from .peers import DATA, USER
from .processes import Worker

PAGES = ("untouched", "read", "write", "login", "regenerate", "logout")


class Wrong(Exception):
    """A peer does not do what its figures would be about."""


class Browser:
    """A browser with one cookie jar."""

    def __init__(self, worker: Worker, cookie: str | None = None) -> None:
        self._worker = worker
        self.cookie = cookie
        self.sent = 0  # bytes of the last answer's Set-Cookie

    def get(self, page: str) -> str:
        """Return a page's text, and keep its cookie."""
        answer = self._worker.ask("request", path=f"/{page}", cookie=self.cookie, bare=False)
        _must(answer["status"] == 200, f"/{page} answers {answer['status']}")
        self.sent = len(answer["set_cookie"] or "")
        if answer["set_cookie"]:
            self.cookie = pair(answer["set_cookie"])
        return str(answer["body"])

    def data(self) -> dict[str, Any]:
        """Return the session's data: what the pages put there, without the library's own."""
        shown = json.loads(self.get("show"))
        return {key: shown[key] for key in (*DATA, "user") if key in shown}


def check(worker: Worker, has_ids: bool) -> dict[str, Any]:
    """Return what can differ between peers that are right.

    That is the bytes of each page's Set-Cookie, and whether, by an old copy of the cookie, the session can
    still be read after a new id was given and after the logout.

    Args:
        worker: the peer.
        has_ids: it is a server-side one, whose `regenerate` must give another cookie.

    Raises:
        Wrong: something is not as it must be.
    """
    for page in PAGES:
        answer = worker.ask("request", path=f"/{page}", cookie=None, bare=True)
        _must(answer == {"status": 200, "body": "ok", "set_cookie": None}, f"without sessions, /{page} is {answer}")
    browser = Browser(worker)
    sent = {}

    def visit(page: str) -> None:
        _must(browser.get(page) == "ok", f"/{page} is not what it should be")
        sent[page] = browser.sent

    visit("untouched")
    _must(sent["untouched"] == 0, "a visitor without a session gets a cookie")
    visit("login")
    before = browser.data()
    _must({**before, "user": USER} == {**DATA, "user": USER}, f"the login left {before}")
    sleep(1.1)  # seconds, after which Pyramid renews the cookie
    visit("untouched")
    sent["cookie"], sent["untouched"] = sent["untouched"], 0
    visit("read")
    _must(browser.data() == before, "reading changed the data")
    visit("write")
    after = browser.data()
    _must(after == {**before, "visits": after["visits"]} and after["visits"] > before["visits"], "a write is not seen")
    old = browser.cookie
    visit("regenerate")
    _must(browser.data() == after, "a new id lost the data")
    _must(not has_ids or browser.cookie != old, "there is no new id")
    old_lives = bool(Browser(worker, old).data()) if has_ids else None
    ended = browser.cookie
    visit("logout")
    _must(browser.data() == {}, "the logout left the session")
    return {"sent": sent, "lives": {"regenerate": old_lives, "logout": bool(Browser(worker, ended).data())}}


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Wrong(otherwise)
