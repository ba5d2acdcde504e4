"""Chromium, by Playwright."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..tools import need_module, need_program
from .visitor import CLICK, Cookie, Engine, NotNow, Visitor

ARGUMENTS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the system's Chromium; the value is Playwright's browser."""
    program = Chromium.program()
    root = getattr(os, "geteuid", lambda: 1)() == 0
    with need_module("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            args=[*ARGUMENTS, *(["--no-sandbox"] if root else [])],
            ignore_default_args=["--disable-back-forward-cache"],  # people's browsers have it: try the back button so
        )
        try:
            yield browser
        finally:
            browser.close()


class Chromium(Engine):
    keeps_secure_cookies_over_http = True
    keeps_no_store_pages_over_http = False

    def __init__(self, browser: Any) -> None:
        self.browser = browser
        self.version = f"Chromium {browser.version}"

    @classmethod
    def program(cls) -> str:
        need_module("playwright.sync_api")
        return need_program("chromium", "chromium-browser", "google-chrome", package="chromium")

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[Chromium]:
        with chromium() as browser:
            yield cls(browser)

    @contextmanager
    def visitor(self) -> Iterator[ChromiumVisitor]:
        context = self.browser.new_context(ignore_https_errors=True)
        try:
            yield ChromiumVisitor(context.new_page())
        finally:
            context.close()


class ChromiumVisitor(Visitor):
    def __init__(self, page: Any) -> None:
        super().__init__()
        self.page = page

    def navigate(self, url: str) -> None:
        self.page.goto(url)

    def reload_page(self) -> None:
        self.page.reload()

    def go_back(self) -> None:
        self.page.go_back(wait_until="commit")  # a page that comes back whole out of the cache is never loaded

    def run(self, script: str) -> Any:
        try:
            return self.page.evaluate(f"() => {{ {script} }}")
        except need_module("playwright.sync_api").Error as error:
            raise NotNow(script) from error

    def click_at(self, x: int, y: int, *, times: int = 1) -> None:
        self.page.mouse.click(x, y, click_count=times, delay=CLICK)

    def type(self, text: str) -> None:
        self.page.keyboard.type(text)

    def resize(self, width: int, height: int) -> None:
        self.page.set_viewport_size({"width": width, "height": height})

    def screenshot(self) -> bytes:
        picture: bytes = self.page.screenshot()
        return picture

    @property
    def cookies(self) -> list[Cookie]:
        return [
            Cookie(
                cookie["name"],
                cookie["value"],
                cookie["domain"],
                cookie["path"],
                cookie["secure"],
                cookie["httpOnly"],
                cookie["sameSite"],
                cookie["expires"] == -1,
            )
            for cookie in self.page.context.cookies()
        ]
