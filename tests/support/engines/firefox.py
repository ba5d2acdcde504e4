"""Firefox ESR, by WebDriver BiDi: JSON over the WebSocket that Firefox opens itself, with no driver between."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from ..tools import need_module, need_program
from .visitor import PATIENCE, Cookie, Engine, NotNow, Visitor, clicks, keys

# What Firefox fetches of its own accord is turned off where it is driven from outside (RecommendedPreferences.sys.mjs).
# These are against the rest: whatever is not for this machine goes to a proxy that is not there.
PREFERENCES = {
    "network.proxy.type": 1,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
    "network.trr.mode": 5,
}


class BiDi:
    """A session with a browser: a command, and its answer."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._ids = count()

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the command's result, or raise `NotNow` with what the browser has against it."""
        id = next(self._ids)
        self._socket.send(json.dumps({"id": id, "method": method, "params": parameters}))
        while (answer := json.loads(self._socket.recv())).get("id") != id:
            pass  # an event
        if answer["type"] == "error":
            raise NotNow(f"{method}: {answer['message']}")
        result: dict[str, Any] = answer["result"]
        return result


class Firefox(Engine):
    keeps_secure_cookies_over_http = True
    keeps_no_store_pages_over_http = False

    def __init__(self, bidi: BiDi) -> None:
        self.bidi = bidi
        session = bidi.send("session.new", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})
        self.version = f"Firefox {session['capabilities']['browserVersion']}"

    @classmethod
    def program(cls) -> str:
        need_module("websocket")
        return need_program("firefox-esr", "firefox", package="firefox-esr")

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[Firefox]:
        connect = need_module("websocket").create_connection
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
            preferences = [
                f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in PREFERENCES.items()
            ]
            Path(home, "user.js").write_text("\n".join(preferences))
            process = subprocess.Popen(
                [cls.program(), "--headless", "--no-remote", "--profile", home, "--remote-debugging-port=0"],
                env={**os.environ, "HOME": home},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                socket = connect(f"{address(process, Path(home))}/session", suppress_origin=True, timeout=PATIENCE)
                try:
                    yield cls(BiDi(socket))
                finally:
                    socket.close()
            finally:
                process.terminate()
                process.wait(PATIENCE)

    @contextmanager
    def visitor(self) -> Iterator[FirefoxVisitor]:
        context = self.bidi.send("browser.createUserContext")["userContext"]
        tab = self.bidi.send("browsingContext.create", type="window", userContext=context)["context"]
        try:
            yield FirefoxVisitor(self.bidi, tab)
        finally:
            self.bidi.send("browser.removeUserContext", userContext=context)


def address(process: subprocess.Popen[bytes], profile: Path) -> str:
    """Return where Firefox listens, as soon as it has written it into its profile."""
    file = profile / "WebDriverBiDiServer.json"
    until = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None, "Firefox ended at once"
        assert time.monotonic() < until, "Firefox does not come up"
        try:
            where = json.loads(file.read_text())
        except (FileNotFoundError, ValueError):  # not yet there, or half written
            time.sleep(0.05)
        else:
            return f"ws://{where['ws_host']}:{where['ws_port']}"


class FirefoxVisitor(Visitor):
    def __init__(self, bidi: BiDi, tab: str) -> None:
        super().__init__()
        self.bidi = bidi
        self.tab = tab

    def navigate(self, url: str) -> None:
        self.bidi.send("browsingContext.navigate", context=self.tab, url=url, wait="complete")

    def reload_page(self) -> None:
        self.bidi.send("browsingContext.reload", context=self.tab)

    def go_back(self) -> None:
        self.bidi.send("browsingContext.traverseHistory", context=self.tab, delta=-1)

    def run(self, script: str) -> Any:
        expression = f"JSON.stringify((() => {{ {script} }})())"
        answer = self.bidi.send(
            "script.evaluate", expression=expression, target={"context": self.tab}, awaitPromise=False
        )
        if answer["type"] == "exception":
            raise NotNow(answer["exceptionDetails"]["text"])
        text = answer["result"].get("value")
        return None if text is None else json.loads(text)

    def click_at(self, x: int, y: int, *, times: int = 1) -> None:
        self.bidi.send("input.performActions", context=self.tab, actions=clicks(x, y, times))

    def type(self, text: str) -> None:
        self.bidi.send("input.performActions", context=self.tab, actions=keys(text))

    def resize(self, width: int, height: int) -> None:
        self.bidi.send("browsingContext.setViewport", context=self.tab, viewport={"width": width, "height": height})

    def screenshot(self) -> bytes:
        return b64decode(self.bidi.send("browsingContext.captureScreenshot", context=self.tab)["data"])

    @property
    def cookies(self) -> list[Cookie]:
        partition = {"type": "context", "context": self.tab}
        return [
            Cookie(
                cookie["name"],
                cookie["value"]["value"],
                cookie["domain"],
                cookie["path"],
                cookie["secure"],
                cookie["httpOnly"],
                cookie["sameSite"].title(),
                "expiry" not in cookie,
            )
            for cookie in self.bidi.send("storage.getCookies", partition=partition)["cookies"]
        ]
