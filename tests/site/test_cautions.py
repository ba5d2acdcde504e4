"""What README and docs/ warn of is so: each caution was tried, and a text whose reason has gone fails here."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from http.cookiejar import CookieJar
from typing import Any

import pytest
from webtest import TestApp

from minisession import Cookie, MemoryStore, Session, SessionMiddleware, SessionTooLarge, get_session

from ..support.browser import SECRET, Clock
from ..support.pages import DOCS, blocks

Page = Callable[[Session], object]


def site(pages: dict[str, Page], jar: CookieJar | None = None, **options: Any) -> TestApp:
    """Return a browser in front of pages, with a cookie jar that others may share."""

    headers = options.pop("headers", [])

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        text = str(pages[environ["PATH_INFO"]](get_session(environ)))
        start_response("200 OK", [("Content-Type", "text/plain"), *headers])
        return [text.encode()]

    wrapped = SessionMiddleware(app, **{"secret": SECRET, **options})
    return TestApp(wrapped, extra_environ={"wsgi.url_scheme": "https"}, cookiejar=jar)


def have(browser: TestApp, cookie: str) -> None:
    """Let the browser have this cookie and no other."""
    browser.reset()
    browser.set_cookie("connect.sid", cookie)


def log_in(session: Session) -> None:
    session.regenerate(user="ada")


def who(session: Session) -> str | None:
    return session.user


# README


def test_a_session_is_a_mapping_and_no_dict() -> None:
    def page(session: Session) -> str:
        session["n"] = 1
        with pytest.raises(TypeError, match="not JSON serializable"):
            json.dumps(session)
        with pytest.raises(TypeError, match="unsupported operand"):
            session | {"m": 2}  # type: ignore[operator]  # which is what the test is about
        return json.dumps(dict(session) | {"m": 2})

    assert json.loads(site({"/": page}).get("/").text) == {"n": 1, "m": 2}


# docs/sessions.md


def test_subclasses_come_back_as_what_json_makes_of_them() -> None:
    class Safe(str):
        """As Markup is."""

    class Level(IntEnum):
        HIGH = 3

    def keep(session: Session) -> None:
        session.update(text=Safe("<b>"), map=defaultdict(int, a=1), number=Level.HIGH)

    browser = site({"/": keep, "/show": lambda session: [type(value) for value in session.values()]})
    browser.get("/")
    assert browser.get("/show").text == str([str, dict, int])


def test_what_is_too_large_is_told_after_the_page_unless_it_saves() -> None:
    done = []

    def page(session: Session) -> None:
        session["bulk"] = "x" * 65536
        done.append("page")

    def careful(session: Session) -> str:
        session["bulk"] = "x" * 65536
        with pytest.raises(SessionTooLarge):
            session.save()
        del session["bulk"]
        return "too much"

    browser = site({"/": page, "/careful": careful})
    with pytest.raises(SessionTooLarge):
        browser.get("/")
    assert done == ["page"]
    assert browser.get("/careful").text == "too much"


def test_a_late_request_with_the_old_id_has_no_session_and_sends_no_cookie() -> None:
    """And where the answer with the new id is lost, all that the browser has is that old id."""

    def note(session: Session) -> str:
        session["note"] = 1
        return f"{session.user} {dict(session)}"

    def confirm(session: Session) -> None:
        session.regenerate(keep=True)

    browser = site({"/login": log_in, "/note": note, "/confirm": confirm, "/": who})
    browser.get("/login")
    old = browser.cookies["connect.sid"]
    browser.get("/confirm")
    new = browser.cookies["connect.sid"]

    have(browser, old)
    late = browser.get("/note")

    assert late.text == "None {'note': 1}"
    assert "Set-Cookie" not in late.headers
    have(browser, new)
    assert browser.get("/").text == "ada"


def test_a_session_keeps_the_lifetime_that_it_began_with() -> None:
    """A shorter max_age in the settings is for sessions that begin later; absolute_timeout is for all."""
    clock, jar, month = Clock(), CookieJar(), 30 * 86400.0
    store = MemoryStore(clock=clock)
    # The jar goes by the real time: the cookie must not have ended for it.
    site({"/": log_in}, jar, store=store, clock=clock, cookie=Cookie(max_age=month)).get("/")

    shorter: dict[str, Any] = {"store": store, "clock": clock, "cookie": Cookie(max_age=3600)}
    left = site({"/": lambda session: session.cookie.max_age}, jar, **shorter)
    assert float(left.get("/").text) == month
    clock.advance(7200)
    assert site({"/": who}, jar, **shorter).get("/").text == "ada"
    assert site({"/": who}, jar, **shorter, absolute_timeout=3600).get("/").text == "None"


def test_a_flash_message_that_is_added_while_another_page_takes_them_is_kept() -> None:
    """By the page's recipe; a list under one key loses it."""
    (text,) = [block.text for block in blocks(DOCS / "sessions.md", "python") if "def flashes" in block.text]
    recipe: dict[str, Any] = {}
    exec(text.partition("def buy")[0], recipe)

    def flash_list(session: Session, text: str) -> None:
        session.setdefault("flash", []).append(text)

    def flashes_list(session: Session) -> Any:
        return session.pop("flash", [])

    for flash, flashes, second in [(recipe["flash"], recipe["flashes"], "['two']"), (flash_list, flashes_list, "[]")]:
        between: list[Callable[[], object]] = []

        def take(session: Session, flashes: Page = flashes, between: Any = between) -> object:
            taken = flashes(session)
            for send in between:
                send()
            between.clear()
            return taken

        store = MemoryStore()
        pages: dict[str, Page] = {"/take": take, "/one": partial(flash, text="one"), "/two": partial(flash, text="two")}
        browser, other = site(pages, store=store), site(pages, store=store)
        browser.get("/one")
        have(other, browser.cookies["connect.sid"])
        between.append(partial(other.get, "/two"))
        assert browser.get("/take").text == "['one']"
        assert browser.get("/take").text == second


# docs/security.md


def test_two_names_with_one_secret_and_one_store_accept_each_others_sessions() -> None:
    store = MemoryStore()
    one, other = site({"/": log_in}, store=store, name="one"), site({"/": who}, store=store, name="other")
    one.get("/")
    other.set_cookie("other", one.cookies["one"])
    assert other.get("/").text == "ada"


def test_a_response_from_before_the_login_that_arrives_after_it_leaves_the_old_cookie() -> None:
    """Which is worth nothing."""
    pages: dict[str, Page] = {"/": lambda session: session.update(n=1), "/login": log_in, "/who": who}
    browser = site(pages, rolling=True)
    browser.get("/")
    before = browser.get("/").headers["Set-Cookie"].partition(";")[0].partition("=")[2]
    browser.get("/login")
    assert browser.get("/who").text == "ada"
    have(browser, before)  # as the response does that was sent before, and arrives now
    assert browser.get("/who").text == "None"


def test_rolling_puts_a_cookie_on_a_page_that_an_app_calls_public(caplog: pytest.LogCaptureFixture) -> None:
    """The log says so, once."""
    browser = site({"/": log_in}, rolling=True, headers=[("Cache-Control", "public, max-age=60")])
    answer = browser.get("/")
    assert answer.headers["Cache-Control"] == "public, max-age=60"
    assert "connect.sid=" in answer.headers["Set-Cookie"]
    browser.get("/")
    assert len([line for line in caplog.messages if "Cache-Control: public" in line]) == 1


# docs/troubleshooting.md


def test_two_apps_on_one_host_need_two_names() -> None:
    """Each has its own secret and store, and its cookie takes the place of the other's."""

    def apps(*names: str) -> tuple[TestApp, TestApp]:
        jar = CookieJar()
        one, other = [
            site({"/login": log_in, "/": who}, jar, secret=letter * 32, name=name)
            for letter, name in zip("ab", names, strict=True)
        ]
        for app in (one, other):
            app.get("/login")
        return one, other

    one, other = apps("connect.sid", "connect.sid")
    assert (one.get("/").text, other.get("/").text) == ("None", "ada")
    one, other = apps("one.sid", "other.sid")
    assert (one.get("/").text, other.get("/").text) == ("ada", "ada")
