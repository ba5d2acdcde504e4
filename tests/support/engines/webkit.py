"""WebKitGTK, by WebDriver: Debian's MiniBrowser, in front of a screen that is not there."""

from __future__ import annotations

import os
import subprocess
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..tools import need_module, need_program
from .visitor import PATIENCE, Cookie, Engine, NotNow, Visitor, clicks, keys

PACKAGES = "webkit2gtk-driver xvfb"


class WebKit(Engine):
    keeps_secure_cookies_over_http = False
    keeps_no_store_pages_over_http = True

    def __init__(self, driver: str, environ: dict[str, str]) -> None:
        self.driver = driver
        self.environ = environ
        with self.visitor() as visitor:
            self.version = f"WebKitGTK {visitor.driver.capabilities['browserVersion']}"

    @classmethod
    def program(cls) -> str:
        need_module("selenium")
        need_program("Xvfb", package=PACKAGES)
        return need_program("WebKitWebDriver", package=PACKAGES)

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[WebKit]:
        driver = cls.program()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home, screen() as display:
            yield cls(driver, {**os.environ, "DISPLAY": display, "HOME": home, "XDG_RUNTIME_DIR": home})

    @contextmanager
    def visitor(self) -> Iterator[WebKitVisitor]:
        """Each has a driver and a browser of their own: a driver knows one browser at a time."""
        service = need_module("selenium.webdriver.webkitgtk.service").Service(self.driver, env=self.environ)
        service.start()
        try:
            driver = connect(service.service_url)
            try:
                yield WebKitVisitor(driver)
            finally:
                driver.quit()
        finally:
            service.stop()


def connect(url: str) -> Any:
    """Start a browser.

    By `Remote`, because `webdriver.WebKitGTK` warns that something it does itself is deprecated (Selenium 4.51).
    """
    options = need_module("selenium.webdriver.webkitgtk.options").Options()
    options.set_capability("acceptInsecureCerts", True)
    config = need_module("selenium.webdriver.remote.client_config").ClientConfig(url, timeout=PATIENCE)
    executor = need_module("selenium.webdriver.remote.remote_connection").RemoteConnection(client_config=config)
    return need_module("selenium.webdriver").Remote(executor, options=options)


@contextmanager
def screen() -> Iterator[str]:
    """Start an X server without a screen on a free display; the value is the display's name.

    By default it would start anew when its last client goes, and a browser that came meanwhile would end.
    """
    reader, writer = os.pipe()
    process = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1400x1000x24", "-nolisten", "tcp", "-noreset"],
        pass_fds=[writer],
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    try:
        with open(reader) as told:
            yield f":{told.readline().strip()}"
    finally:
        process.terminate()
        process.wait(PATIENCE)


class WebKitVisitor(Visitor):
    def __init__(self, driver: Any) -> None:
        super().__init__()
        self.driver = driver

    def navigate(self, url: str) -> None:
        self.driver.get(url)

    def reload_page(self) -> None:
        self.driver.refresh()

    def go_back(self) -> None:
        self.driver.back()

    def run(self, script: str) -> Any:
        try:
            return self.driver.execute_script(script)
        except need_module("selenium.common.exceptions").WebDriverException as error:
            raise NotNow(script) from error

    def click_at(self, x: int, y: int, *, times: int = 1) -> None:
        self.driver.execute("actions", {"actions": clicks(x, y, times)})

    def type(self, text: str) -> None:
        self.driver.execute("actions", {"actions": keys(text)})

    def resize(self, width: int, height: int) -> None:
        self.driver.set_window_size(width, height)

    def screenshot(self) -> bytes:
        return b64decode(self.driver.get_screenshot_as_base64())

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
                "expiry" not in cookie,
            )
            for cookie in self.driver.get_cookies()
        ]
