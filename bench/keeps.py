"""What each library keeps: when requests overlap, after a logout, and when the store is down.

Nothing here is timed.  A slow page waits, after it has read its session, for as long as it takes others to
come and go; so each finding is the same in every run.  All that can have their sessions in Redis have them
there, the store that several servers share.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from sys import argv
from typing import Any

from . import candidates, peers, redis
from .driving import Answer, carrying, pair, send
from .processes import Worker, answer, python, worker
from .timing import Effort

NAMES = (candidates.OURS, "beaker", "flask-session", "django", "django-db", "django-cookie", "flask")
SLOW = ("slow_write", "slow_read")
DOWN = ("untouched", "show", "write")
"""The pages that are asked for while the store is down."""
PATIENCE = 10  # seconds, for a slow page to come to its pause, and for a store to be found again


def run(effort: Effort, names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    """Return by peer what became of its sessions.

    Args:
        effort: makes no difference.
        names: the peers to ask.

    Raises:
        RuntimeError: redis-server is not there, or a peer does not do what its pages say.
    """
    del effort
    if shutil.which("redis-server") is None:
        raise RuntimeError("redis-server is needed")
    port = redis.free_port()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        database = Path(folder, "database")
        database.mkdir()
        stores = {"redis": f"redis://127.0.0.1:{port}/0", "sqlite": f"sqlite:{database / 'sessions'}"}
        with redis.server_at(port, folder) as client:
            sites = {name: stack.enter_context(_worker(name, stores.get(store_of(name), "memory"))) for name in names}
            versions = {"redis-server": client.info("server")["redis_version"]}
            for site in sites.values():
                versions.update(site.ask("versions"))
            found = {name: {"overlap": overlap(site), "logout": logout(site)} for name, site in sites.items()}
            visitors = {name: {page: Visitor.logged_in(site) for page in DOWN} for name, site in sites.items()}
            client.save()
        away = database.rename(database.with_name("away"))
        for name in with_a_store(sites):
            found[name]["down"] = {page: visitor.outage(page) for page, visitor in visitors[name].items()}
        away.rename(database)
        with redis.server_at(port, folder):
            for name in with_a_store(sites):
                wait_for_the_store(sites[name])
                for page, visitor in visitors[name].items():
                    found[name]["down"][page]["back"] = bool(visitor.data())
    return {"versions": versions, "found": found}


def _worker(name: str, store: str) -> AbstractContextManager[Worker]:
    return worker(python("keeps", name, store), 0, stderr=subprocess.DEVNULL)  # where tracebacks go that are wanted


def store_of(name: str) -> str:
    """Return where a peer has its sessions here: "redis" if it can, else "sqlite" or "memory"."""
    return max(peers.PEERS[name].stores, key=("memory", "sqlite", "redis").index)


def with_a_store(names: Iterable[str]) -> list[str]:
    """Return those whose sessions are not in the cookie."""
    return [name for name in names if store_of(name) != "memory"]


class Visitor:
    """A browser, which keeps the cookie that it was sent last."""

    def __init__(self, site: Worker, cookie: str | None = None) -> None:
        self._site = site
        self.cookie = cookie

    @classmethod
    def logged_in(cls, site: Worker) -> Visitor:
        """Return one who has just logged in."""
        visitor = cls(site)
        if visitor.get("login").status != 200 or not visitor.data():
            raise RuntimeError("a login leaves nothing in the session")
        return visitor

    def get(self, page: str) -> Answer:
        """Ask for a page."""
        return self._keep(Answer(**self._site.ask("get", path=f"/{page}", cookie=self.cookie)))

    def start(self, page: str) -> None:
        """Ask for a slow page, and return when it has read its session."""
        self._site.ask("start", path=f"/{page}", cookie=self.cookie)

    def finish(self) -> Answer:
        """Let the slow page go on, to its end."""
        return self._keep(Answer(**self._site.ask("finish")))

    def _keep(self, answer: Answer) -> Answer:
        if answer.set_cookie:
            self.cookie = None if removes(answer.set_cookie) else pair(answer.set_cookie)
        return answer

    def data(self) -> dict[str, Any]:
        """Return what the pages have put into the session, nothing where there is none."""
        answer = self.get("show")
        shown = json.loads(answer.body) if answer.status == 200 else {}
        return {key: shown[key] for key in (*peers.DATA, "slow") if key in shown}

    def outage(self, page: str) -> dict[str, Any]:
        """Ask for a page while the store is down; return how it was answered."""
        answer = self.get(page)
        return {"status": answer.status, "empty": answer.body == "{}"}


def removes(set_cookie: str) -> bool:
    """Return whether a Set-Cookie has expired as it comes; what its value is does not matter then."""
    if seconds := re.search(r"; *max-age=(-?\d+)", set_cookie, re.I):
        return int(seconds[1]) <= 0
    end = re.search(r"; *expires=([^;]+)", set_cookie, re.I)
    return end is not None and parsedate_to_datetime(end[1]).timestamp() <= time.time()


def overlap(site: Worker) -> dict[str, Any]:
    """Let a page write a key while a slow one is under way, which writes another or none.

    Return whether what the first has written is still there when both are over, and what the slow one wrote.
    """
    found = {}
    for page in SLOW:
        visitor = Visitor.logged_in(site)
        before = visitor.data()["visits"]
        visitor.start(page)
        visitor.get("write")
        visitor.finish()
        after = visitor.data()
        found[page] = {"first": after["visits"] != before, "slow": "slow" in after}
    return found


def logout(site: Worker) -> dict[str, Any]:
    """Let a visitor log out while a slow page is under way.

    Return how that page was answered, and whether the session is there afterwards: for the browser, which keeps
    whatever cookie comes last, and for who has a copy of its cookie from before.
    """
    found = {}
    for page in SLOW:
        visitor = Visitor.logged_in(site)
        copy = Visitor(site, visitor.cookie)
        visitor.start(page)
        visitor.get("logout")
        status = visitor.finish().status
        found[page] = {"status": status, "browser": bool(visitor.data()), "copy": bool(copy.data())}
    return found


def wait_for_the_store(site: Worker) -> None:
    """Wait until sessions can be stored again.

    Raises:
        RuntimeError: they cannot.
    """
    until = time.monotonic() + PATIENCE
    while Visitor(site).get("login").status != 200:
        if time.monotonic() > until:
            raise RuntimeError("the store is back, and is not found")
        time.sleep(0.05)


# In the worker


class Site:
    """A peer's app, and at most one slow page that is under way."""

    def __init__(self, name: str, store: str) -> None:
        self.name = name
        self.app = candidates.make(name, store).app
        self._paused, self._go_on = threading.Event(), threading.Event()
        self._answers: list[dict[str, Any]] = []
        self._thread = threading.Thread()
        peers.pause = self._pause

    def versions(self) -> dict[str, str]:
        """Return those of the peer's packages, and of its client for Redis."""
        names = (*candidates.packages(self.name), *(["redis-py"] if store_of(self.name) == "redis" else []))
        return {name: version(name.removesuffix("-py")) for name in names}

    def get(self, path: str, cookie: str | None) -> dict[str, Any]:
        """Send one request; what the app raises is a 500, as it would be under a server."""
        try:
            return send(self.app, path, carrying(cookie))._asdict()
        except Exception as error:  # whatever it is
            return Answer(500, repr(error), None)._asdict()

    def start(self, path: str, cookie: str | None) -> None:
        """Send a request for a slow page; return when it pauses.

        Raises:
            RuntimeError: it does not.
        """
        self._paused.clear()
        self._go_on.clear()
        self._thread = threading.Thread(target=lambda: self._answers.append(self.get(path, cookie)))
        self._thread.start()
        if not self._paused.wait(PATIENCE):
            raise RuntimeError(f"{path} does not come to its pause")

    def finish(self) -> dict[str, Any]:
        """Return the slow page's answer."""
        self._go_on.set()
        self._thread.join(PATIENCE)
        return self._answers.pop()

    def _pause(self) -> None:
        self._paused.set()
        self._go_on.wait(PATIENCE)


if __name__ == "__main__":
    answer(Site(*argv[1:]))
