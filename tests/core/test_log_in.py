"""`minisession.testing.log_in`: a session without a browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest

from minisession import (
    Cookie,
    CrossOriginProtection,
    MemoryStore,
    Session,
    SessionMiddleware,
    SessionTooLarge,
    StoreUnavailable,
    get_session,
)
from minisession.testing import log_in

from ..support.browser import SECRET
from ..support.site import Site, Visitor, data
from ..support.tools import need_module


def visitor(site: Site, cookie: str) -> Visitor:
    """Return a browser that has this cookie, as ``name=value``."""
    name, _, value = cookie.partition("=")
    assert name == "connect.sid"
    return Visitor(site, value)


def user(session: Session) -> str | None:
    return session.user


def test_a_user_is_logged_in() -> None:
    site = Site()

    browser = visitor(site, log_in(site.app, "ada"))

    assert browser.visit(user) == "ada"
    assert browser.visit(lambda session: session.is_new) is False


def test_the_session_holds_the_data() -> None:
    """Also of a visitor who is not logged in, and under any name."""
    site = Site()
    values = {"cart": ["tea"], "user": "u", "app": 1, "self": None}

    browser = visitor(site, log_in(site.app, None, **values))

    assert (browser.visit(data), browser.visit(user)) == (values, None)


def test_each_call_makes_another_session() -> None:
    """And ends none: a user has many browsers."""
    site = Site()
    browsers = [visitor(site, log_in(site.app, "ada", n=n)) for n in range(3)]

    assert [browser.visit(lambda session: session["n"]) for browser in browsers] == [0, 1, 2]
    assert len(set(site.store.store.ids("ada"))) == 3


def test_the_app_is_not_called() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        pytest.fail("called")

    assert log_in(SessionMiddleware(app, secret=SECRET), "ada").startswith("connect.sid=s%3A")


def test_the_middleware_is_as_it_was() -> None:
    """Requests that are under way meanwhile reach the app."""
    site = Site()
    app = site.app.app

    log_in(site.app, "ada")

    assert site.app.app is app


def test_a_function_for_the_cookie_and_genid_get_a_request_over_https() -> None:
    seen: list[dict[str, Any]] = []

    def cookie(environ: dict[str, Any]) -> Cookie:
        seen.append(environ)
        return Cookie(path=environ["SCRIPT_NAME"] or "/")

    def genid(environ: dict[str, Any]) -> str:
        seen.append(environ)
        return f"id for {environ['HTTP_HOST']}"

    log_in(Site(cookie=cookie, genid=genid).app, "ada")

    assert len(seen) >= 2
    for environ in seen:
        assert environ["wsgi.url_scheme"] == "https"
        assert (environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["SERVER_PORT"]) == ("GET", "/", "443")


def test_a_cookie_for_https_alone_is_there() -> None:
    """`Secure`, by its name as well; and `auto` is secure."""
    for name, cookie in (("__Host-id", Cookie()), ("connect.sid", Cookie(secure="auto"))):
        site = Site(name=name, cookie=cookie)
        assert log_in(site.app, "ada").partition("=")[0] == name


# Where the middleware is


class Layer:
    """Middleware as people write it, with what is inside under this name."""

    def __init__(self, name: str, inner: Any) -> None:
        self.__dict__[name] = inner

    def __call__(self, environ: Any, start_response: Any) -> Any:
        pytest.fail("called")


def served(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [str(get_session(environ).user).encode()]


def made(name: str = "connect.sid", app: Any = served) -> SessionMiddleware:
    return SessionMiddleware(app, secret=SECRET, store=MemoryStore(), name=name)


def holds(middleware: SessionMiddleware, cookie: str) -> bool:
    """Return whether the session is this middleware's."""
    with middleware.session_from(cookie) as session:
        return session.user == "ada"


@pytest.mark.parametrize(
    "around",
    [
        CrossOriginProtection,
        lambda app: Layer("app", app),
        lambda app: Layer("wsgi_app", app),
        lambda app: Layer("wsgi_app", Layer("app", Layer("app", CrossOriginProtection(app)))),
    ],
)
def test_it_is_found_inside_of_others(around: Callable[[Any], Any]) -> None:
    middleware = made()

    assert holds(middleware, log_in(around(middleware), "ada"))


def test_it_is_found_in_a_flask_app() -> None:
    app = need_module("flask").Flask("shop")
    app.wsgi_app = middleware = made(app=app.wsgi_app)

    assert holds(middleware, log_in(app, "ada"))


def test_of_several_names_it_is_the_innermost() -> None:
    """As in `get_session`."""
    inner = made("inner")
    outer = made("outer", Layer("app", inner))

    cookie = log_in(outer, "ada")

    assert cookie.startswith("inner=")
    assert holds(inner, cookie)


def test_of_one_name_it_is_the_outermost() -> None:
    """Those inside of it are passed by."""
    inner = made()
    outer = made(app=inner)

    assert holds(outer, log_in(outer, "ada"))


def test_of_several_of_several_names_it_is_the_one_that_the_app_gets() -> None:
    innermost = made("b")
    middle = made("b", innermost)
    app = made("a", middle)

    assert holds(middle, log_in(app, "ada"))


def test_one_that_is_passed_by_inside_of_another_is_not_the_innermost() -> None:
    middle = made("b", made("a"))
    app = made("a", middle)

    assert holds(middle, log_in(app, "ada"))


def circle() -> Layer:
    layer = Layer("app", None)
    layer.__dict__["app"] = layer
    return layer


@pytest.mark.parametrize("app", [served, None, object(), Layer("app", served), circle(), MagicMock()])
def test_without_one_the_error_says_what_to_pass(app: Any) -> None:
    with pytest.raises(TypeError, match=r"no SessionMiddleware .* give log_in the SessionMiddleware itself"):
        log_in(app, "ada")


# What cannot be


def test_neither_a_user_nor_data_is_an_error() -> None:
    """It would be a cookie of a session that is not stored."""
    with pytest.raises(ValueError, match="needs a user, or data"):
        log_in(Site().app)


@pytest.mark.parametrize(
    ("arguments", "values", "error", "message"),
    [
        (("",), {}, ValueError, "user is empty"),
        ((7,), {}, TypeError, "user must be str"),
        (("ada",), {"when": object()}, TypeError, "when"),
        (("ada",), {"cookie": 1}, ValueError, "cookie"),
        (("ada",), {"much": "x" * 100_000}, SessionTooLarge, "max_bytes"),
    ],
)
def test_what_a_session_does_not_take_is_its_error(
    arguments: Any, values: Any, error: type[Exception], message: str
) -> None:
    site = Site()

    with pytest.raises(error, match=message):
        log_in(site.app, *arguments, **values)

    assert list(site.store.store.ids()) == []


def test_a_store_that_fails_is_no_503() -> None:
    """A test would look for its reason in vain."""

    class Down(MemoryStore):
        def create(self, *_: Any) -> bool:
            raise StoreUnavailable("down")

    with pytest.raises(StoreUnavailable, match="down"):
        log_in(Site(store=Down()).app, "ada")
