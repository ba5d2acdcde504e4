"""The demo, and the default cookie, in a real Chromium.

``python -m tests.demo.test_browser docs/images`` makes the documentation's screenshots.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

import demo.app
from minisession import SessionMiddleware, get_session

from ..support.browser import SECRET
from ..support.pages import DOCS, ROOT, blocks
from ..support.serving import SOON, listens
from ..support.tools import need_module, need_program

ARGUMENTS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)
DESKTOP = {"width": 1000, "height": 700}
PHONE = {"width": 360, "height": 740}


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve ``app`` on a free port of this machine; the value is its address."""
    sockets: dict[int, Any] = {}
    server = need_module("waitress.server").create_server(app, host="127.0.0.1", port=0, map=sockets)
    close_all = need_module("waitress.wasyncore").close_all
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}"
    finally:
        server.trigger.pull_trigger(lambda: close_all(sockets))  # in its own thread, which then ends
        thread.join()
        server.task_dispatcher.shutdown()


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the system's Chromium; the value is Playwright's browser."""
    program = need_program("chromium", "chromium-browser", "google-chrome")
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


def views(page: Any) -> int:
    return int(page.locator("dt:text-is('Views') + dd code").inner_text())


def arrives_at(address: str, cookie: str) -> str:
    """Return where a client with this cookie, and no browser, ends that asks for the secure place."""
    with urlopen(Request(f"{address}/secureplace", headers={"Cookie": f"connect.sid={cookie}"})) as answer:
        url: str = answer.geturl()
    return url.removeprefix(address)


def test_in_a_browser_a_user_logs_in_looks_around_and_logs_out(page: Any, address: str) -> None:
    """The whole story, with the browser's own cookies, cache and back button."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))

    page.goto(f"{address}/secureplace")

    assert page.url == f"{address}/login"
    assert page.context.cookies() == []
    assert complaints == []  # above all none of the Content-Security-Policy

    log_in(page, password="wrong")

    assert page.get_by_role("alert").inner_text() == "That name and password do not match."
    assert page.get_by_label("Name").input_value() == "admin"
    await_focus(page, "password")
    assert page.context.cookies() == []

    log_in(page)

    assert page.url == f"{address}/secureplace"
    (cookie,) = page.context.cookies()
    value = cookie["value"]
    assert re.fullmatch(r"s%3A[A-Za-z0-9_-]{32}\.[A-Za-z0-9%]+", value)
    assert (cookie["name"], cookie["path"], cookie["sameSite"]) == ("connect.sid", "/", "Lax")
    assert (cookie["httpOnly"], cookie["secure"], cookie["expires"]) == (True, False, -1)
    assert page.evaluate("document.cookie") == ""

    before = views(page)
    page.reload()

    assert views(page) == before + 1
    assert page.context.cookies() == [cookie]
    assert arrives_at(address, value) == "/secureplace"

    click(page, "button", "Log out")

    assert page.url == f"{address}/login"
    assert page.context.cookies() == []

    page.go_back(wait_until="commit")  # a page that comes back whole out of the cache is never loaded

    assert page.url == f"{address}/login"
    assert "Secure place" not in page.content()
    assert arrives_at(address, value) == "/login"


def test_in_a_browser_a_link_from_another_site_does_not_log_out(page: Any, address: str) -> None:
    """127.0.0.1 and localhost are two sites; a Lax cookie goes along with a link that is followed."""
    page.goto(f"{address}/login")
    log_in(page)
    elsewhere = address.replace("127.0.0.1", "localhost")
    page.route(f"{elsewhere}/**", lambda route: route.fulfill(body=f'<a href="{address}/logout">Look!</a>'))
    page.goto(elsewhere)

    click(page, "link", "Look!")

    assert page.url == f"{address}/logout"
    assert page.get_by_role("heading").inner_text() == "Log out?"
    assert len(page.context.cookies()) == 1

    click(page, "button", "Log out")

    assert page.context.cookies() == []


def test_in_a_browser_another_sites_form_logs_nobody_in(page: Any, address: str) -> None:
    """Login CSRF, with the headers that Chromium sends of itself."""
    elsewhere = address.replace("127.0.0.1", "localhost")
    fields = '<input name="username" value="admin"><input name="password" value="letmein">'
    form = f'<form method="post" action="{address}/login">{fields}<button>Win!</button></form>'
    page.route(f"{elsewhere}/**", lambda route: route.fulfill(body=form, content_type="text/html"))
    page.goto(elsewhere)

    with page.expect_response(f"{address}/login") as refused:
        click(page, "button", "Win!")

    assert refused.value.status == 403
    assert "another site" in page.inner_text("body")
    assert page.context.cookies() == []


def test_the_default_cookie_works_in_development_over_plain_http(page: Any) -> None:
    """It is Secure; Chromium keeps and sends such cookies for http://127.0.0.1, so nothing needs to be turned off."""

    def counter(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        session = get_session(environ)
        if environ["PATH_INFO"] == "/":  # and not for the browser's /favicon.ico
            session["views"] = session.get("views", 0) + 1
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(session.get("views")).encode()]

    with serving(SessionMiddleware(counter, secret=SECRET)) as address:
        page.goto(address)
        first = int(page.inner_text("body"))
        (cookie,) = page.context.cookies()
        page.reload()
        second = int(page.inner_text("body"))
        page.context.close()

    assert cookie["name"] == "connect.sid"
    assert cookie["secure"] is True
    assert second == first + 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_everybody_can_use_every_page(browser: Any, address: str, scheme: str) -> None:
    """No page scrolls sideways at 360 pixels, and axe-core finds nothing in its way, by day and by night."""
    axe = need_module("axe_playwright_python.sync_playwright").Axe()
    context = browser.new_context(viewport=PHONE, color_scheme=scheme)
    page = context.new_page()
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


def test_in_two_browsers_one_logs_the_other_out(browser: Any, address: str) -> None:
    """Both are listed in both, and the button ends the other's session."""
    one, other = (browser.new_context() for _ in range(2))
    for context in (one, other):
        page = context.new_page()
        page.goto(f"{address}/login")
        log_in(page)
    click(page, "link", "Your sessions")
    assert page.get_by_role("listitem").count() >= 2
    assert page.get_by_text("This one").count() == 1
    click(page, "button", "Log out the others")
    assert page.get_by_role("listitem").count() == 1

    [page] = one.pages
    page.reload()
    assert page.url == f"{address}/login"
    for context in (one, other):
        context.close()


@pytest.fixture
def behind_nginx() -> Iterator[str]:
    """Run the command of docs/deployment.md on a free port; the value is its address."""
    need_program("nginx", "/usr/sbin/nginx")
    need_program("openssl")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    environment = {**os.environ, "PORT": str(port), "PYTHON": sys.executable}
    [command] = [block.text for block in blocks(DOCS / "deployment.md", "sh") if "tls" in block.text]
    script = subprocess.Popen(["sh", "-c", f"exec {command}"], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + SOON
        while not listens(port):
            assert script.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        yield f"https://localhost:{port}"
    finally:
        script.terminate()
        script.wait(SOON)


def test_behind_nginx_the_strictest_cookie_works(browser: Any, behind_nginx: str) -> None:
    """Chromium refuses a __Host- cookie that is not as it must be: Secure, over TLS, for this host and all of it."""
    context = browser.new_context(ignore_https_errors=True)  # nobody has signed the certificate
    page = context.new_page()
    page.goto(f"{behind_nginx}/secureplace")
    log_in(page)
    page.reload()

    assert views(page) == 2
    assert page.get_by_text("HttpOnly; Path=/; SameSite=Strict; Secure").is_visible()
    (cookie,) = context.cookies()
    assert (cookie["name"], cookie["path"], cookie["sameSite"]) == ("__Host-sid", "/", "Strict")
    assert (cookie["httpOnly"], cookie["secure"], cookie["domain"]) == (True, True, "localhost")

    click(page, "button", "Log out")

    assert context.cookies() == []
    context.close()


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
