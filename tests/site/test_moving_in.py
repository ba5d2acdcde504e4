"""docs/coming-from-*.md: apps with live visitors move, and their cookies do what the pages say."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from webtest import TestApp, TestResponse

from minisession import SessionMiddleware, StoreUnavailable, get_session

from ..support.browser import SpyStore
from ..support.pages import DOCS, blocks
from ..support.tools import need_module

SECRET = "32 random bytes, from your settings"


class Fallible(SpyStore):
    """A store that can be down."""

    down = False

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        if self.down:
            raise StoreUnavailable("down")
        return super().__getattr__(verb)


class Move:
    """An app as it was (``before``), as it is without a thought for its visitors (``plain``), and with one (``after``).

    Its pages: ``/login``, ``/add`` (to the cart), ``/logout``, and ``/``, which shows who has what in the cart.
    """

    def __init__(self, before: Any, plain: Any, after: Any, store: Fallible, cookie: str) -> None:
        self.before, self.plain, self.after, self.store, self.cookie = before, plain, after, store, cookie

    def browser(self, *pages: str) -> TestApp:
        """Return a browser that has been on these pages of the app as it was."""
        browser = TestApp(self.before, extra_environ={"wsgi.url_scheme": "https"})
        for page in pages:
            browser.get(page)
        return browser


def at(app: Any, browser: TestApp) -> TestApp:
    """Return the browser in front of another app, with its cookies."""
    return TestApp(app, extra_environ={"wsgi.url_scheme": "https"}, cookiejar=browser.cookiejar)


def copy_of(browser: TestApp, app: Any) -> TestApp:
    """Return another browser with the same cookies, as an overlapping request or a thief has them."""
    other = TestApp(app, extra_environ={"wsgi.url_scheme": "https"})
    for name, value in browser.cookies.items():
        other.set_cookie(name, value)
    return other


def run_page(page: str, until: str, replaced: dict[str, str], **names: Any) -> dict[str, Any]:
    """Run the page's code until the block that has a word in it; return its names."""
    names["__name__"] = "moving"
    for block in blocks(DOCS / page, "python"):
        if until in block.text:
            break
        text = block.text
        for old, new in replaced.items():
            text = text.replace(old, new)
        exec(compile(text, page, "exec"), names)
    return names


# Beaker


def beaker_pages(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    session = environ["beaker.session"]
    if environ["PATH_INFO"] == "/login":
        session["user"] = "ada"
    if environ["PATH_INFO"] == "/add":
        session["cart"] = [*session.get("cart", []), "a book"]
    session.save()
    return answer(start_response, session.get("user"), session.get("cart"))


def our_pages(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    session = get_session(environ)
    if environ["PATH_INFO"] == "/add":
        session["cart"] = [*session.get("cart", []), "a book"]
    if environ["PATH_INFO"] == "/logout":
        session.destroy()
        return answer(start_response, None, None)
    return answer(start_response, session.user, session.get("cart"))


def answer(start_response: Any, user: str | None, cart: list[str] | None) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{user}: {cart}".encode()]


def from_beaker(kind: str, folder: Path) -> Move:
    need_module("beaker")
    store = Fallible()
    replaced = {'"session.type": "memory"': f'"session.type": "{kind}", "session.data_dir": "{folder}"'}
    if kind == "cookie":
        replaced['"session.type": "memory"'] = '"session.type": "cookie", "session.validate_key": "a key"'
        replaced['"session.type": "memory"'] += ', "session.data_serializer": "json"'
    names = run_page("coming-from-beaker.md", "from webtest", replaced)
    beaker, config = names["BeakerMiddleware"], names["BEAKER"]
    assert config["session.type"] == kind
    after = SessionMiddleware(names["TakeOver"](our_pages), secret=SECRET, store=store)
    plain = SessionMiddleware(our_pages, secret=SECRET, store=store)
    return Move(beaker(beaker_pages, config), plain, beaker(after, config), store, "beaker.session.id")


# Flask-Session


def add_pages(app: Any) -> Any:
    session = need_module("flask").session

    def login() -> str:
        session["user"] = "ada"
        return "Welcome"

    def add() -> str:
        session["cart"] = [*session.get("cart", []), "a book"]
        return "Added"

    def logout() -> str:
        session.destroy()
        return "Bye"

    app.view_functions["home"] = lambda: f"{session.get('user')}: {session.get('cart')}"
    for view in (login, add, logout):
        app.add_url_rule(f"/{view.__name__}", view_func=view)
    return app


def from_flask_session(backend: str, **names: Any) -> Move:
    need_module("flask_session")
    store = Fallible()
    replaced = {'SESSION_TYPE="cachelib", SESSION_CACHELIB=SimpleCache()': backend, "MemoryStore()": "KEPT"}
    page = "coming-from-flask-session.md"
    plain = run_page(page, "class TakeOver", replaced, KEPT=store, **names)["after"]
    moved = run_page(page, "from webtest", replaced, KEPT=store, **names)
    return Move(add_pages(moved["before"]), add_pages(plain), add_pages(moved["after"]), store, "session")


@pytest.fixture(params=["Beaker, memory", "Beaker, file", "Flask-Session, files", "Flask-Session, Redis"])
def move(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Move]:
    package, _, kind = request.param.partition(", ")
    if package == "Beaker":
        yield from_beaker(kind, tmp_path)
        return
    for block in blocks(DOCS / "frameworks.md", "python"):
        if "flask_minisession.py" in block.text:
            (tmp_path / "flask_minisession.py").write_text(block.text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "flask_minisession", raising=False)
    with ExitStack() as stack:
        if kind == "Redis":
            from ..support.redis_server import redis_server  # which skips this test alone, if there is none

            server = stack.enter_context(redis_server())
            yield from_flask_session('SESSION_TYPE="redis", SESSION_REDIS=CLIENT', CLIENT=server.client)
        else:
            cache = need_module("cachelib").FileSystemCache(str(tmp_path / "sessions"))
            yield from_flask_session('SESSION_TYPE="cachelib", SESSION_CACHELIB=CACHE', CACHE=cache)
    sys.modules.pop("flask_minisession", None)


def test_without_a_take_over_every_visitor_logs_in_once_more(move: Move) -> None:
    """Their old cookie and record lie around: the app of before would still know them."""
    browser = move.browser("/login", "/add")
    assert at(move.plain, browser).get("/").text == "None: None"
    at(move.plain, browser).get("/add")
    assert set(browser.cookies) == {move.cookie, "connect.sid"}
    assert at(move.before, browser).get("/").text == "ada: ['a book']"


def test_a_visitor_moves_at_the_first_visit(move: Move) -> None:
    """With login and cart, each with their own; the old cookie is removed, and a copy of it is worth nothing."""
    ada, stranger = move.browser("/login", "/add"), move.browser("/add", "/add")
    copy = copy_of(ada, move.after)
    assert set(copy.cookies) == {move.cookie}

    for _ in range(2):
        assert at(move.after, ada).get("/").text == "ada: ['a book']"
        assert at(move.after, stranger).get("/").text == "None: ['a book', 'a book']"
        assert set(ada.cookies) == set(stranger.cookies) == {"connect.sid"}

    assert copy_of(copy, move.after).get("/").text == "None: None"
    assert copy_of(copy, move.before).get("/").text == "None: None"
    assert at(move.before, ada).get("/").text == "None: None"


def test_a_logout_is_final_even_as_the_first_visit(move: Move) -> None:
    browser = move.browser("/login")
    copy = copy_of(browser, move.after)
    at(move.after, browser).get("/logout")
    assert at(move.after, browser).get("/").text == "None: None"
    assert copy.get("/").text == "None: None"


def test_of_several_requests_at_once_one_moves_the_session(move: Move) -> None:
    """The others came with the old cookie alone, which is worth nothing any more."""
    first = move.browser("/login")
    other = copy_of(first, move.after)
    assert at(move.after, first).get("/").text == "ada: None"
    assert other.get("/").text == "None: None"
    assert "connect.sid" not in other.cookies
    assert at(move.after, first).get("/").text == "ada: None"


def test_a_store_that_is_down_at_the_move_loses_no_session(move: Move) -> None:
    browser = move.browser("/login", "/add")
    move.store.down = True
    assert at(move.after, browser).get("/", status=503).headers["Retry-After"] == "5"
    move.store.down = False
    assert at(move.after, browser).get("/").text == "ada: ['a book']"


def test_an_old_cookie_that_nothing_stands_behind_costs_no_record(move: Move) -> None:
    """Or anyone could fill the store."""
    browser = move.browser()
    browser.set_cookie(move.cookie, "0" * 32)
    answer: TestResponse = copy_of(browser, move.after).get("/")
    assert answer.text == "None: None"
    assert not any(verb == "create" for verb in move.store.verbs)


def test_a_copy_of_beakers_cookie_that_holds_the_session_still_logs_in(tmp_path: Path) -> None:
    """The page says so: there is no record that could be deleted."""
    move = from_beaker("cookie", tmp_path)
    browser = move.browser("/login")
    copy = copy_of(browser, move.after)
    assert at(move.after, browser).get("/").text == "ada: None"
    assert set(browser.cookies) == {"connect.sid"}
    assert copy.get("/").text == "ada: None"
