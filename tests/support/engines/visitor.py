"""What a person does in a browser, in any engine."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import count
from typing import Any, ClassVar, NamedTuple, TypeVar

import pytest

T = TypeVar("T")

PATIENCE = 60  # seconds, that a browser is waited for: starting one takes twelve on a busy machine
CLICK = 50  # milliseconds, that a button is held down, and until it is pressed again

# The point to click on an element, in the middle of what is seen of it.
MIDDLE = """
    element.scrollIntoView({block: "center"});
    const box = element.getBoundingClientRect();
    return [Math.round(box.x + box.width / 2), Math.round(box.y + box.height / 2)];
"""


# Whether a page is there.  On its way to another site, Firefox passes through an empty one in another process.
THERE = "document.readyState === 'complete' && location.protocol !== 'about:'"


class Cookie(NamedTuple):
    """A cookie as the browser has stored it; ``session`` is whether it ends with the browser."""

    name: str
    value: str
    domain: str
    path: str
    secure: bool
    httponly: bool
    samesite: str
    session: bool


class NotNow(Exception):
    """A script failed: most likely, the page in which it ran was being left."""


class Engine(ABC):
    """A browser engine that has been started, and what is different in it."""

    keeps_secure_cookies_over_http: ClassVar[bool]  # for localhost; elsewhere no engine does
    keeps_no_store_pages_over_http: ClassVar[bool]  # and shows them again when their user goes back
    version: str

    @classmethod
    @abstractmethod
    def program(cls) -> str:
        """Return the program's path; where something is missing, skip the test and say what to install."""

    @classmethod
    def is_installed(cls) -> bool:
        try:
            cls.program()
        except (pytest.skip.Exception, pytest.fail.Exception):
            return False
        return True

    @classmethod
    @abstractmethod
    def start(cls) -> AbstractContextManager[Engine]: ...

    @abstractmethod
    def visitor(self) -> AbstractContextManager[Visitor]:
        """Open a window for someone who has never been anywhere: no cookies, no history."""


class Visitor(ABC):
    """A person with one tab.  An engine implements what is abstract; the rest is the same in all."""

    def __init__(self) -> None:
        self._pages = count()

    @abstractmethod
    def navigate(self, url: str) -> None: ...

    @abstractmethod
    def reload_page(self) -> None: ...

    @abstractmethod
    def go_back(self) -> None: ...

    @abstractmethod
    def run(self, script: str) -> Any:
        """Run the body of a JavaScript function in the page, and return what it returns, by way of JSON.

        Raises:
            NotNow: it failed.
        """

    @abstractmethod
    def click_at(self, x: int, y: int, *, times: int = 1) -> None:
        """Move the mouse there, and press and release its button: as real as a person's."""

    @abstractmethod
    def type(self, text: str) -> None:
        """Press the keys."""

    @abstractmethod
    def resize(self, width: int, height: int) -> None: ...

    @abstractmethod
    def screenshot(self) -> bytes:
        """Return what is in the window, as PNG."""

    @property
    @abstractmethod
    def cookies(self) -> list[Cookie]:
        """All that are stored for the page at hand."""

    def open(self, url: str) -> None:
        self._leave(lambda: self.navigate(url))

    def reload(self) -> None:
        self._leave(self.reload_page)

    def back(self) -> None:
        self._leave(self.go_back)

    def click(self, name: str, *, times: int = 1) -> None:
        """Click on the button or link of this name, and be there when the next page is."""
        x, y = self._middle(
            f"[...document.querySelectorAll('a, button')].find(e => e.innerText === {json.dumps(name)})"
        )
        self._leave(lambda: self.click_at(x, y, times=times))

    def fill(self, label: str, text: str) -> None:
        """Click into the field of this label, and type over what is in it."""
        field = one_of("label", label) + ".control"
        self.click_at(*self._middle(field))
        self.run(f"{field}.select()")
        self.type(text)

    def _middle(self, element: str) -> tuple[int, int]:
        """Return where to click on this element."""
        x, y = self.run(f"const element = {element}; {MIDDLE}")
        return x, y

    @property
    def url(self) -> str:
        return str(self.run("return location.href"))

    @property
    def text(self) -> str:
        """All of the page that can be seen."""
        return str(self.run("return document.body.innerText"))

    def value(self, id: str) -> str:
        return str(self.run(f"return document.getElementById({json.dumps(id)}).value"))

    def await_focus(self, id: str) -> None:
        """Wait until this element has the focus: a browser heeds ``autofocus`` some time after the page is loaded."""
        self.until(lambda: self.run("return document.activeElement.id") == id)

    def _leave(self, act: Callable[[], None]) -> None:
        """Do what leads to another page, and wait until it is there.

        The page that is left gets a number, so that it cannot be taken for the next one.  A page that
        comes back whole out of the browser's memory has a number too, but an older one.
        """
        page = next(self._pages)
        self.run(f"window.page = {page}")
        act()
        self.until(lambda: self.run(f"return window.page !== {page} && {THERE}"))

    def until(self, holds: Callable[[], T]) -> T:
        """Ask until it is so, and return what was answered."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                if answer := holds():
                    return answer
            except NotNow:
                if time.monotonic() > end:
                    raise
            assert time.monotonic() < end, f"not within {PATIENCE} s"
            time.sleep(0.02)


def one_of(selector: str, text: str) -> str:
    """Return JavaScript for the first of these elements that shows exactly this text."""
    return f"[...document.querySelectorAll({json.dumps(selector)})].find(e => e.innerText === {json.dumps(text)})"


# What both WebDriver and WebDriver BiDi call actions


def clicks(x: int, y: int, times: int) -> list[dict[str, Any]]:
    move = {"type": "pointerMove", "x": x, "y": y, "duration": 0}
    pause = {"type": "pause", "duration": CLICK}
    press = [pause, {"type": "pointerDown", "button": 0}, pause, {"type": "pointerUp", "button": 0}]
    return [{"type": "pointer", "id": "mouse", "actions": [move, *press * times]}]


def keys(text: str) -> list[dict[str, Any]]:
    presses = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
    return [{"type": "key", "id": "keyboard", "actions": presses}]
