"""The demo in Chromium: what everybody can use, and what it looks like.  What it does is in test_engines.py.

``python -m tests.demo.test_browser docs/images`` makes the documentation's screenshots.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import demo.app

from ..support.engines.chromium import chromium
from ..support.serving import serving
from ..support.tools import need_module

DESKTOP = {"width": 1000, "height": 700}
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(demo.app.app) as address:
        yield address


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport=DESKTOP)
    yield context.new_page()
    context.close()


def log_in(page: Any, password: str = "letmein") -> None:
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(password)
    click(page, "button", "Log in")


def click(page: Any, role: str, name: str) -> None:
    """Click, and be there when the next page is: what follows must not meet the page that is leaving."""
    with page.expect_navigation():
        page.get_by_role(role, name=name).click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_everybody_can_use_every_page(browser: Any, address: str, scheme: str) -> None:
    """No page scrolls sideways at 360 pixels, and axe-core finds nothing in its way, by day and by night.

    Nor is there a complaint in the console, above all none of the Content-Security-Policy.
    """
    complaints: list[str] = []
    axe = need_module("axe_playwright_python.sync_playwright").Axe()
    context = browser.new_context(viewport=PHONE, color_scheme=scheme)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    for path, password in (
        ("/", None),
        ("/nowhere", None),
        ("/login", "wrong"),
        ("/login", "letmein"),
        ("/secureplace", None),
        ("/sessions", None),
    ):
        page.goto(address + path)
        if password is not None:
            log_in(page, password)
        found = axe.run(page).response
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), page.url
        assert found["violations"] == []
        assert {"color-contrast", "document-title", "html-has-lang"} <= {rule["id"] for rule in found["passes"]}
        assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark")
    context.close()
    # The statuses are as they should be: 404 for /nowhere, 422 for a wrong password.
    assert [text for text in complaints if "responded with a status of" not in text] == []


def test_the_keyboard_is_enough(page: Any, address: str) -> None:
    """Tab and Enter lead from the front page to the secure place, and out."""
    page.goto(address)
    press(page, "Tab", "Tab", "Enter")
    assert page.url == f"{address}/login"
    await_focus(page, "username")
    page.keyboard.type("admin")
    press(page, "Tab")
    page.keyboard.type("letmein")
    press(page, "Enter")
    assert page.url == f"{address}/secureplace"
    press(page, "Tab", "Tab", "Tab", "Enter")
    assert page.url == f"{address}/login"
    assert page.context.cookies() == []


def await_focus(page: Any, id: str) -> None:
    """Wait until the field has the focus: a browser heeds ``autofocus`` some time after the page is loaded."""
    page.wait_for_function("id => document.activeElement.id === id", arg=id)


def press(page: Any, *keys: str) -> None:
    """Press these keys; after Enter, wait for the next page."""
    for key in keys:
        if key == "Enter":
            with page.expect_navigation():
                page.keyboard.press(key)
        else:
            page.keyboard.press(key)


def make_screenshots(browser: Any, address: str, folder: Path) -> None:
    """Make secureplace.png and sessions.png, in which somebody is logged in at home, too."""
    home = browser.new_context(user_agent="Mozilla/5.0 (Windows NT 10.0; rv:140.0) Gecko/20100101 Firefox/140.0")
    office = browser.new_context(viewport=DESKTOP)
    for context in (home, office):
        page = context.new_page()
        page.goto(f"{address}/secureplace")
        log_in(page)
    click(page, "link", "Your sessions")
    click(page, "button", "Log out the others")
    [at_home] = home.pages
    at_home.reload()
    log_in(at_home)
    for name in ("secureplace", "sessions"):
        page.goto(f"{address}/{name}")
        page.screenshot(path=folder / f"{name}.png", full_page=True)
    for context in (home, office):
        context.close()


def test_the_screenshots_can_be_made(browser: Any, address: str, tmp_path: Path) -> None:
    """With MINISESSION_SCREENSHOTS=docs/images those of the documentation are made anew."""
    folder = Path(os.environ.get("MINISESSION_SCREENSHOTS", tmp_path))

    make_screenshots(browser, address, folder)

    for name in ("secureplace.png", "sessions.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


if __name__ == "__main__":
    with serving(demo.app.app) as here, chromium() as chrome:
        make_screenshots(chrome, here, Path(sys.argv[1]))
