"""The demo, and the default cookie, in Chromium, Firefox and WebKit: what browsers make of our headers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest

import demo.app
from minisession import Cookie as SessionCookie
from minisession import SessionMiddleware, get_session

from ..support.browser import SECRET
from ..support.engines import ENGINES, Cookie, Engine, Visitor
from ..support.pages import DOCS, ROOT, blocks
from ..support.ports import free_port
from ..support.rows import row
from ..support.serving import SOON, listens, serving
from ..support.tools import need_program

INSTALLED = [engine for engine in ENGINES if engine.is_installed()]


def name(engine: type[Engine]) -> str:
    return engine.__name__


@pytest.mark.parametrize("engine", ENGINES, ids=name)
def test_an_engine_is_installed(engine: type[Engine]) -> None:
    """Or one skip (in CI a failure) says which package to install, and no story is told in this engine."""
    assert engine.program()


@pytest.fixture(scope="module", params=INSTALLED, ids=name)
def engine(request: pytest.FixtureRequest, count: Callable[[str], None]) -> Iterator[Engine]:
    with request.param.start() as engine:
        count(f"the demo was tried in {engine.version}")
        yield engine


@pytest.fixture
def visitor(engine: Engine) -> Iterator[Visitor]:
    with engine.visitor() as visitor:
        yield visitor


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(demo.app.app) as address:
        yield address


def log_in(visitor: Visitor, password: str = "letmein") -> None:
    visitor.fill("Name", "admin")
    visitor.fill("Password", password)
    visitor.click("Log in")


def views(visitor: Visitor) -> int:
    [shown] = re.findall(r"Views\s+(\d+)", visitor.text)
    return int(shown)


def arrives_at(address: str, cookie: str) -> str:
    """Return where a client with this cookie, and no browser, ends that asks for the secure place."""
    with urlopen(Request(f"{address}/secureplace", headers={"Cookie": f"connect.sid={cookie}"})) as answer:
        url: str = answer.geturl()
    return url.removeprefix(address)


def test_a_user_logs_in_looks_around_and_logs_out(visitor: Visitor, engine: Engine, address: str) -> None:
    """The whole story, with the browser's own cookies, cache and back button."""
    visitor.open(f"{address}/secureplace")

    assert visitor.url == f"{address}/login"
    assert visitor.cookies == []

    log_in(visitor, password="wrong")

    assert "That name and password do not match." in visitor.text
    assert visitor.value("username") == "admin"
    visitor.await_focus("password")
    assert visitor.cookies == []

    log_in(visitor)

    assert visitor.url == f"{address}/secureplace"
    [cookie] = visitor.cookies
    assert re.fullmatch(r"s%3A[A-Za-z0-9_-]{32}\.[A-Za-z0-9%]+", cookie.value)
    assert cookie == Cookie(
        "connect.sid", cookie.value, "127.0.0.1", "/", secure=False, httponly=True, samesite="Lax", session=True
    )
    assert visitor.run("return document.cookie") == ""

    before = views(visitor)
    visitor.reload()

    assert views(visitor) == before + 1
    assert visitor.cookies == [cookie]
    assert arrives_at(address, cookie.value) == "/secureplace"

    visitor.click("Log out")

    assert visitor.url == f"{address}/login"
    assert visitor.cookies == []
    assert arrives_at(address, cookie.value) == "/login"

    visitor.back()

    if engine.keeps_no_store_pages_over_http:
        assert "Secure place" in visitor.text  # a picture of the past, which the next click shows
        visitor.reload()
    assert visitor.url == f"{address}/login"
    assert "Secure place" not in visitor.text


def test_in_two_browsers_one_logs_the_other_out(engine: Engine, address: str) -> None:
    """Both are listed in both, and the button ends the other's session."""
    with engine.visitor() as one, engine.visitor() as other:
        for visitor in (one, other):
            visitor.open(f"{address}/login")
            log_in(visitor)
        other.click("Your sessions")
        assert other.text.count("Since") >= 2
        assert other.text.count("This one") == 1

        other.click("Log out the others")

        assert other.text.count("Since") == other.text.count("This one") == 1
        one.reload()
        assert one.url == f"{address}/login"


def test_a_link_from_another_site_does_not_log_out(visitor: Visitor, address: str) -> None:
    """127.0.0.1 and localhost are two sites; a Lax cookie goes along with a link that is followed."""
    visitor.open(f"{address}/login")
    log_in(visitor)
    with serving(html(f'<a href="{address}/logout">Look!</a>')) as elsewhere:
        visitor.open(elsewhere.replace("127.0.0.1", "localhost"))
        visitor.click("Look!")

    assert visitor.url == f"{address}/logout"
    assert "Log out?" in visitor.text
    assert len(visitor.cookies) == 1

    visitor.click("Log out")

    assert visitor.cookies == []


def test_another_sites_form_logs_nobody_in(visitor: Visitor, address: str) -> None:
    """Login CSRF, with the headers that the browser sends of itself."""
    fields = '<input name="username" value="admin"><input name="password" value="letmein">'
    with serving(html(f'<form method="post" action="{address}/login">{fields}<button>Win!</button></form>')) as there:
        visitor.open(there.replace("127.0.0.1", "localhost"))
        visitor.click("Win!")

    assert visitor.url == f"{address}/login"
    assert "another site" in visitor.text  # CrossOriginProtection's 403
    assert visitor.cookies == []


def html(body: str) -> Any:
    """Make an app of one page."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        return [body.encode()]

    return app


def test_the_default_cookie_over_plain_http(visitor: Visitor, engine: Engine) -> None:
    """It is Secure.  For 127.0.0.1 and localhost, Chromium and Firefox keep and send it all the same."""

    def counter(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        session = get_session(environ)
        if environ["PATH_INFO"] == "/":  # and not for the browser's /favicon.ico
            session["views"] = session.get("views", 0) + 1
        start_response("200 OK", [("Content-Type", "text/html")])
        return [str(session.get("views")).encode()]

    with serving(SessionMiddleware(counter, secret=SECRET)) as address:
        for url in (address, address.replace("127.0.0.1", "localhost")):
            visitor.open(url)
            assert visitor.text == "1"
            visitor.reload()
            assert visitor.text == ("2" if engine.keeps_secure_cookies_over_http else "1")
            assert [cookie.secure for cookie in visitor.cookies if cookie.domain in url] == (
                [True] if engine.keeps_secure_cookies_over_http else []
            )


class Shop:
    """A shop at which the answers to a double click on "Log in" come in order, and both have seen the old session."""

    def __init__(self) -> None:
        self.app = SessionMiddleware(self.page, secret=SECRET, cookie=SessionCookie(secure="auto"))
        self.both_have_looked = threading.Barrier(2)
        self.first_is_answered = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        answer = self.app(environ, start_response)
        if environ["PATH_INFO"] == "/login":
            self.first_is_answered.set()
        return answer

    def page(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        session = get_session(environ)
        if environ["PATH_INFO"] == "/":
            session.setdefault("cart", ["a book"])
        if environ["PATH_INFO"] == "/login":
            session.get("cart")
            second = self.both_have_looked.wait(SOON)  # 0 for the one that has waited for the other, and 1
            if second:
                self.first_is_answered.wait(SOON)
            session.regenerate(keep=True, user="ada")
        start_response("200 OK", [("Content-Type", "text/html")])
        form = '<form method="post" action="/login"><button>Log in</button></form>'
        return [f"<p>{session.user}: {session.get('cart')}</p>{form}".encode()]


@row("C17")
def test_a_double_click_logs_in(visitor: Visitor) -> None:
    """The form is sent twice, and the browser drops the first answer, with the cookie that is in it."""
    with serving(Shop()) as address:
        visitor.open(address)
        assert "None: ['a book']" in visitor.text

        visitor.click("Log in", times=2)

        assert visitor.url == f"{address}/login"
        assert "ada: ['a book']" in visitor.text
        visitor.open(address)
        assert "ada: ['a book']" in visitor.text


@pytest.fixture(scope="module")
def behind_nginx() -> Iterator[str]:
    """Run the command of docs/deployment.md on a free port; the value is its address."""
    need_program("nginx", "/usr/sbin/nginx", package="nginx")
    need_program("openssl", package="openssl")
    port = free_port()
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


def test_behind_nginx_the_strictest_cookie_works(visitor: Visitor, behind_nginx: str) -> None:
    """A __Host- cookie is refused unless it is Secure, over TLS, for this host and all of it.

    And over TLS every engine heeds ``Cache-Control: no-store`` when its user goes back.
    """
    visitor.open(f"{behind_nginx}/secureplace")
    log_in(visitor)
    visitor.reload()

    assert views(visitor) == 2
    assert "HttpOnly; Path=/; SameSite=Strict; Secure" in visitor.text
    [cookie] = visitor.cookies
    assert cookie == Cookie(
        "__Host-sid", cookie.value, "localhost", "/", secure=True, httponly=True, samesite="Strict", session=True
    )

    visitor.click("Log out")

    assert visitor.cookies == []

    visitor.back()

    assert visitor.url == f"{behind_nginx}/login"
    assert "Secure place" not in visitor.text
