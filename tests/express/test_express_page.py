"""docs/express.md: its code runs, behind its proxy, and its tables leave nothing out."""

from __future__ import annotations

import inspect
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from minisession import Cookie, Session, SessionMiddleware
from minisession.session import SessionCookie

from ..support import sides
from ..support.browser import SECRET
from ..support.ports import free_port
from ..support.redis_server import redis_server  # skips where redis-py is not installed
from ..support.sides import Side, Visitor, data, login, logout, put, regenerate, renew
from ..support.tools import need_program
from ..wsgi.test_servers import SOON, waitress

from minisession.stores.redis import RedisStore  # isort: skip

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "express.md").read_text()

Site = dict[str, Side]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture(scope="module", params=["RedisStore", "FinalRedisStore"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Both apps as the page has them, with either of its stores for Express."""
    config, final = blocks("js")
    imports, rest = config.split("\n\n", 1)
    rest = rest.replace("new RedisStore", f"new {request.param}")
    script = tmp_path_factory.mktemp("site") / "app.js"
    script.write_text(f'{imports}\n{final}\n{rest}\nrequire("{sides.EXPRESS}/server.js").serve(app);')
    with redis_server() as redis, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SESSION_SECRET", SECRET)
        patch.setenv("REDIS_URL", redis.url)
        verbs = dict(sides.VERBS)
        names: dict[str, Any] = {"app": sides.pages(verbs)}
        for text in blocks("python"):
            exec(compile(text, "express.md", "exec"), names)
        verbs.update((verb, names[verb]) for verb in ("current_user", "log_in", "log_out", "adopt"))
        with sides.node(script) as express, waitress(names["app"]) as python:
            yield {"express": Side("express", express), "python": Side("python", int(python))}
        names["store"].close()


@pytest.fixture
def ann() -> Visitor:
    return Visitor()


@contextmanager
def nginx(site: Site, folder: Path) -> Iterator[int]:
    """Serve both sides by the page's lines, as if TLS had ended one hop before; yield the port."""
    program, port = need_program("nginx"), free_port()
    [lines] = blocks("nginx")
    lines = lines.replace("$scheme", "https")
    lines = lines.replace(":3000", f":{site['express'].port}").replace(":8080", f":{site['python'].port}")
    paths = " ".join(f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config = folder / "nginx.conf"
    config.write_text(
        "daemon off; master_process off; pid nginx.pid; events {}\n"
        f"http {{ access_log off; {paths} server {{ listen 127.0.0.1:{port};\n{lines}}} }}"
    )
    with subprocess.Popen([program, "-p", str(folder), "-c", str(config), "-e", str(folder / "log")]) as process:
        try:
            until = time.monotonic() + SOON
            while not is_up(port):
                assert process.poll() is None, "nginx ended at once"
                assert time.monotonic() < until
                time.sleep(0.005)
            yield port
        finally:
            process.terminate()


def is_up(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_proxy_s_two_sides_share_the_session_and_the_cookie(site: Site, ann: Visitor, tmp_path: Path) -> None:
    """A whole visit, as the browser sees it."""
    with nginx(site, tmp_path) as port:
        express, python = (Side(path, port, path=path) for path in ("/", "/account/"))
        for login_at, other in ((express, python), (python, express)):
            ann.at(login_at, login("ann"))

            assert ann.headers["X-Powered-By"] == ("Express" if login_at is express else None)
            assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= {*(ann.set_cookie or "").split("; ")}
            assert ann.at(other, data()) == {"user": "ann"}

            ann.at(other, logout())

            assert ann.at(login_at, data()) == {}


def test_both_sides_find_the_user_that_either_logged_in(site: Site, ann: Visitor) -> None:
    """Express' Passport writes `passport`; so do we."""
    express, python = site.values()
    ann.at(express, regenerate(), put("passport", {"user": 7}))

    assert ann.at(python, ["current_user"]) == 7
    assert ann.at(python, ["member", "user"]) == "None"

    before = ann.twin()
    ann.at(python, ["adopt"])

    assert ann.at(python, ["adopt"], ["member", "user"]) == "7"
    assert ann.at(express, data()) == {"passport": {"user": 7}}
    assert before.at(python, data()) == {}

    ann.at(python, ["log_out"])

    assert ann.at(express, data()) == {}
    assert ann.at(python, ["current_user"]) is None

    ann.at(python, ["log_in", 7])

    assert ann.at(express, data()) == {"passport": {"user": 7}}
    assert ann.at(python, ["member", "user"]) == "7"


def test_of_two_pages_that_adopt_at_once_each_makes_a_session(site: Site, ann: Visitor) -> None:
    """The browser keeps one of them, without what the other page changed."""
    express, python = site.values()
    ann.at(express, regenerate(), put("passport", {"user": 8}))
    twin = ann.twin()
    ann.at(python, data(), twin.meanwhile(python, ["adopt"], put("theirs", 1)), ["adopt"], put("mine", 1))

    assert ann.at(python, data()) == {"passport": {"user": 8}, "mine": 1}
    assert ann.at(python, ["member", "user"]) == "8"


def test_with_the_final_store_a_page_of_express_brings_nothing_back(site: Site, ann: Visitor, request: Any) -> None:
    """Neither after a logout nor after a new id, on either side."""
    express, python = site.values()
    final = "FinalRedisStore" in request.node.callspec.id
    for end in (logout(), renew()):
        for side in (express, python):
            ann.at(express, login("ann"))
            before = ann.twin()
            ann.at(express, put("slow", 1), ann.meanwhile(side, end))

            assert before.at(python, data()) == ({} if final else {"user": "ann", "slow": 1})


def test_with_the_final_store_express_goes_on_as_before(site: Site, ann: Visitor) -> None:
    """What is new, changed or regenerated is stored, and ends when it should."""
    express, python = site.values()
    ann.at(express, put("cart", [1]))
    ann.at(express, put("cart", [1, 2]))
    ann.at(express, renew(), put("cart", [1, 2, 3]))

    assert ann.at(python, data()) == {"cart": [1, 2, 3]}


# The tables


def left_column(of: str) -> set[str]:
    """Return what the left cells name, of the tables that begin so."""
    table = PAGE[PAGE.index(f"| `{of}") :].partition("\n\n")[0]
    return {name for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def right_column(of: str) -> set[str]:
    """Return what the right cells name."""
    table = PAGE[PAGE.index(f"| `{of}") :].partition("\n\n")[0]
    return {name for row in table.splitlines()[2:] for name in re.findall(r"`([\w.]+)", row.split("|")[2])}


def headings(package: str, pattern: str) -> set[str]:
    readme = next(path for path in Path(sides.node_modules(), package).iterdir() if path.name.lower() == "readme.md")
    return set(re.findall(pattern, readme.read_text(), re.M))


def test_every_option_and_method_of_express_session_has_its_row() -> None:
    """As its README has them."""
    options = headings("express-session", r"^##### (?!cookie$)(\w+)$")

    assert {"cookie", *options} <= left_column("session({")
    assert headings("express-session", r"^##### cookie\.(\w+)$") == left_column("cookie: {")
    assert headings("connect-redis", r"^##### (\w+)$") == left_column("new RedisStore(")

    session = {name.partition("(")[0] for name in left_column("req.session`")}
    methods = headings("express-session", r"^#### Session\.(\w+)\(")
    assert methods | {"id", "req.sessionID", "req.sessionStore", "resetMaxAge"} <= session
    assert {f"cookie.{name}" for name in headings("express-session", r"^#### Cookie\.(\w+)")} <= session


def public(of: type) -> set[str]:
    return {name for name in vars(of) if not name.startswith("_")}


def test_everything_of_ours_has_its_row() -> None:
    """No option and no method that a reader would have to find elsewhere."""
    options = {*inspect.signature(SessionMiddleware).parameters} - {"app", "clock"}

    assert options <= right_column("session({") | right_column("new RedisStore(")
    assert {*inspect.signature(Cookie).parameters} == right_column("cookie: {")
    assert "prefix" in inspect.signature(RedisStore).parameters
    assert public(Session) - {"cookie"} | {f"cookie.{name}" for name in public(SessionCookie)} <= right_column(
        "req.session`"
    )


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
