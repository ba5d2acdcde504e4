"""The demo as its visitors meet it, by WebTest."""

from __future__ import annotations

import importlib
import io
import logging
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import unquote

import pytest
from webtest import TestApp, TestResponse

import demo.app
import demo.pages
from minisession.wire.signing import Signer

ADMIN = {"username": "admin", "password": "letmein"}
FORM = "application/x-www-form-urlencoded"
PATHS = ("/", "/login", "/secureplace", "/logout", "/style.css", "/sessions")
ROOT = Path(__file__).parents[2]


def visitor(*, https: bool = False, cookie: str | None = None) -> TestApp:
    client = TestApp(demo.app.app, extra_environ={"wsgi.url_scheme": "https"} if https else None)
    if cookie is not None:
        client.set_cookie("connect.sid", cookie)
    return client


def cookie_of(client: TestApp) -> str:
    value = client.cookies["connect.sid"]
    assert isinstance(value, str)
    return value


def log_in(client: TestApp) -> TestResponse:
    return client.post("/login", ADMIN, status=303)


def is_logged_in(client: TestApp) -> bool:
    answer = client.get("/secureplace")
    assert answer.status_int in (200, 303)
    return bool(answer.status_int == 200)


# The way in and out


def test_a_visitor_logs_in_looks_around_and_logs_out() -> None:
    """The story that the demo is there to tell."""
    client = TestApp(demo.app.app)
    assert client.get("/").click("Enter the secure place").location == "/login"

    form = client.get("/login").form
    form["username"], form["password"] = "admin", "letmein"
    page = form.submit(status=303).follow()

    assert page.request.path == "/secureplace"
    assert "<strong>admin</strong>" in page
    assert facts(page)["Views"] == "1"
    assert facts(client.get("/secureplace"))["Views"] == "2"

    left = page.form.submit(status=303)

    assert left.location == "/login"
    assert "connect.sid" not in client.cookies
    assert not is_logged_in(client)


def facts(page: TestResponse) -> dict[str, str]:
    rows = re.findall(r"<dt>(.*?)</dt><dd><code>(.*?)</code> <small>(.*?)</small>", page.text)
    return {name: value for name, value, _ in rows} | {f"Beside {name}": remark for name, _, remark in rows}


def test_get_logs_out_too() -> None:
    """It is what the project's users asked for: a link, or the address typed."""
    client = visitor()
    log_in(client)

    assert client.get("/logout", status=303).location == "/login"

    assert not is_logged_in(client)


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_cookie_kept_from_before_the_logout_opens_nothing(method: str) -> None:
    """Logging out ends the session on the server; who copied the cookie has nothing."""
    client = visitor()
    log_in(client)
    copied = cookie_of(client)
    assert is_logged_in(visitor(cookie=copied))

    getattr(client, method)("/logout")

    assert not is_logged_in(visitor(cookie=copied))


def test_logging_in_changes_the_id() -> None:
    """Session fixation: whoever planted a cookie must not follow the user in."""
    client = visitor()
    log_in(client)
    planted = cookie_of(client)
    victim = visitor(cookie=planted)

    log_in(victim)

    assert cookie_of(victim) != planted
    assert is_logged_in(victim)
    assert not is_logged_in(visitor(cookie=planted))


def test_an_id_that_the_server_never_gave_is_not_adopted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even rightly signed, as by an old process with the same secret."""
    monkeypatch.setenv("SESSION_SECRET", "a secret of the tests, long enough")
    importlib.reload(demo.app)
    client = visitor(cookie=Signer("a secret of the tests, long enough").sign("A" * 32))

    log_in(client)

    assert "A" * 32 not in cookie_of(client)


def test_who_is_logged_in_is_not_asked_again() -> None:
    client = visitor()
    log_in(client)

    assert client.get("/login").location == "/secureplace"


@pytest.mark.parametrize(
    ("name", "password"),
    [("admin", "wrong"), ("somebody", "letmein"), ("", ""), ("admin", ""), ("admin", "letmein "), ("ädmin", "lëtmein")],
)
def test_a_wrong_name_or_password_is_told_and_sets_no_cookie(name: str, password: str) -> None:
    """The answer is one and the same, so that nobody learns which names there are."""
    client = visitor()

    page = client.post("/login", {"username": name.encode(), "password": password.encode()}, status=422)

    assert "That name and password do not match." in page
    assert page.form["username"].value == name
    assert page.form["password"].value == ""
    assert not client.cookies
    assert not is_logged_in(client)


def test_a_failed_form_is_announced_to_a_screen_reader() -> None:
    """role=alert speaks up, the description belongs to the field, and the focus is where to go on."""
    client = visitor()

    fresh = inputs(client.get("/login"))
    page = client.post("/login", {"username": "admin", "password": "wrong"}, status=422)
    failed = inputs(page)

    assert "autofocus" in fresh["username"]
    assert "autofocus" not in fresh["password"]
    assert 'aria-invalid="false"' in fresh["password"]
    assert re.search(r'<p class="error" id="error" role="alert">[^<]+</p>', page.text)
    assert "autofocus" in failed["password"]
    assert "autofocus" not in failed["username"]
    for field in failed.values():
        assert 'aria-describedby="error"' in field
        assert 'aria-invalid="true"' in field


def inputs(page: TestResponse) -> dict[str, str]:
    """Return the tags, by name, which each has a label."""
    tags = {re.findall('name="(.*?)"', tag)[0]: tag for tag in re.findall("<input.*?>", page.text, re.DOTALL)}
    assert [f'<label for="{name}">' in page for name in tags] == [True, True]
    return tags


def test_a_name_with_markup_is_shown_as_text() -> None:
    """The name is kept in the form, and could be a script."""
    evil = """"><script>alert('x')</script>"""

    page = visitor().post("/login", {"username": evil, "password": "x"}, status=422)

    assert "<script" not in page
    assert page.form["username"].value == evil


def test_who_is_logged_in_and_types_a_wrong_password_is_told() -> None:
    client = visitor()
    log_in(client)

    client.post("/login", {"username": "admin", "password": "wrong"}, status=422)

    assert is_logged_in(client)


# Logging out by accident


@pytest.mark.parametrize(
    "header",
    [
        {"Purpose": "prefetch"},
        {"X-Moz": "prefetch"},
        {"Sec-Purpose": "prefetch"},
        {"Sec-Purpose": "prefetch;prerender"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "same-origin, cross-site"},
    ],
    ids=lambda header: " ".join(header.values()),
)
def test_a_logout_that_nobody_may_have_meant_gets_a_button_instead(header: dict[str, str]) -> None:
    """A browser that fetches ahead must log nobody out, and no more must a link on another site or subdomain."""
    client = visitor()
    log_in(client)

    page = client.get("/logout", headers=header, status=200)

    assert "Set-Cookie" not in page.headers
    assert is_logged_in(client)

    page.form.submit(status=303)

    assert not is_logged_in(client)


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_a_link_of_our_own_and_a_typed_address_log_out(site: str) -> None:
    """A bookmark is "none"."""
    client = visitor()
    log_in(client)

    client.get("/logout", headers={"Sec-Fetch-Site": site}, status=303)

    assert not is_logged_in(client)


def test_head_logs_nobody_out() -> None:
    """Link checkers and previews ask so."""
    client = visitor()
    log_in(client)

    answer = client.head("/logout", status=303)

    assert "Set-Cookie" not in answer.headers
    assert is_logged_in(client)


# Other sites


OTHERS = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://attacker.example"},
    {"Origin": "null"},
]


@pytest.mark.parametrize("header", OTHERS, ids=str)
def test_another_site_logs_nobody_in(header: dict[str, str]) -> None:
    """Login CSRF: what victims then typed or bought would be in the attacker's account."""
    client = visitor()

    refused = client.post("/login", ADMIN, headers=header, status=403)

    assert "Set-Cookie" not in refused.headers
    client.post("/login", ADMIN, headers={"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, status=303)
    assert is_logged_in(client)


@pytest.mark.parametrize("header", OTHERS, ids=str)
def test_another_site_logs_nobody_out(header: dict[str, str]) -> None:
    """Nor by a form that sends itself, which a link's question would not stop."""
    client = visitor()
    log_in(client)

    client.post("/logout", headers=header, status=403)

    assert is_logged_in(client)


# The router


@pytest.mark.parametrize("path", ["/nowhere", "/login/", "/secureplace/..", "/%00", "/%ff", "/LOGIN"])
def test_a_path_that_is_not_there_is_404(path: str) -> None:
    assert "Not Found" in visitor().get(path, status=404)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/", "GET, HEAD"),
        ("POST", "/secureplace", "GET, HEAD"),
        ("PUT", "/login", "GET, HEAD, POST"),
        ("DELETE", "/logout", "GET, HEAD, POST"),
        ("OPTIONS", "/style.css", "GET, HEAD"),
    ],
)
def test_a_method_that_a_path_does_not_have_is_405_and_told_which_it_has(method: str, path: str, allow: str) -> None:
    """RFC 9110, 15.5.6: a 405 must name the methods."""
    answer = visitor().request(path, method=method, status=405)

    assert answer.headers["Allow"] == allow


@pytest.mark.parametrize("path", [*PATHS[:3], PATHS[4], "/nowhere"])
@pytest.mark.parametrize("logged_in", [False, True])
def test_head_has_the_headers_of_get_and_no_body(path: str, logged_in: bool) -> None:
    """RFC 9110, 9.3.2."""
    client = visitor()
    if logged_in:
        log_in(client)
    client.get(path, expect_errors=True)

    head, get = client.head(path, expect_errors=True), client.get(path, expect_errors=True)

    assert (head.status, head.headers) == (get.status, get.headers)
    assert head.body == b""


# Bodies


@pytest.mark.parametrize("path", ["/login", "/logout"])
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"username=" + b"a" * (64 * 1024 - 9), {}, 422),
        (b"username=" + b"a" * (64 * 1024 - 8), {}, 413),
        (b"{}", {"Content-Type": "application/json"}, 415),
        (b"username=admin", {"Content-Type": "text/plain"}, 415),
        (b"username=admin", {"Content-Type": "multipart/form-data; boundary=x"}, 415),
        (b"username=admin", {"Content-Type": ""}, 415),
        (b"", {"Content-Type": "application/json"}, 415),
        (b"", {"Content-Type": ""}, 422),
        (b"username=admin", {"Content-Type": f"{FORM.title()} ; charset=utf-8"}, 422),
        (b"username=\xff", {}, 400),
        (b"username=%ff", {}, 400),
        (b"username=%ed%a0%80", {}, 400),
        (b"username=%", {}, 400),
        (b"username=%zz", {}, 400),
        (b"username=%u0041", {}, 400),
        (b"&&=;=&%00&name&name=%00%0d%0a", {}, 422),
        (b"&" * 60_000, {}, 422),
    ],
)
def test_only_a_form_of_bounded_size_is_read(path: str, body: bytes, headers: dict[str, str], status: int) -> None:
    """What anybody may send is read in bounds, decoded strictly or refused, and never a server error."""
    client = visitor()

    answer = client.post(path, body, {"Content-Type": FORM, **headers}, expect_errors=True)

    assert answer.status_int == (303 if path == "/logout" and status == 422 else status)
    assert not client.cookies


@pytest.mark.parametrize(
    ("length", "status"),
    [
        ("", 422),
        ("0", 422),
        ("x", 400),
        ("-1", 400),
        ("+1", 400),
        ("1_0", 400),
        (" 1", 400),
        ("1.0", 400),
        ("²", 400),
        ("9" * 10_000, 400),
        ("9" * 18, 413),
        ("15", 400),
    ],
)
def test_a_length_that_is_none_or_not_the_bodys_is_400(length: str, status: int) -> None:
    """The server's word for the length is the client's: nothing is read beyond it, nor believed."""
    environ = {"CONTENT_LENGTH": length, "CONTENT_TYPE": FORM, "wsgi.url_scheme": "http", "REQUEST_METHOD": "POST"}
    answers: list[str] = []

    body = b"".join(
        demo.app.app(
            {**environ, "PATH_INFO": "/login", "wsgi.input": io.BytesIO(b"username=admin")},
            lambda status, headers, exc_info=None: answers.append(status) or (lambda data: None),
        )
    )

    assert [answer[:3] for answer in answers] == [str(status)]
    assert b"<h1>" in body


def test_nothing_is_read_beyond_the_declared_length() -> None:
    """PEP 3333: reading on would hang on a connection that is kept alive."""
    client = visitor()

    client.post(
        "/login",
        b"username=admin&password=letmein&username=x",
        {"Content-Length": "31", "Content-Type": FORM},
        status=303,
    )


# What is told to whom


def test_no_page_and_no_header_but_set_cookie_tells_the_id() -> None:
    """The id is the key to the session; the handle stands for it."""
    client = visitor()
    answers = [log_in(client)]
    id = re.sub(r"^s%3A(.*?)\..*", r"\1", cookie_of(client))
    assert re.fullmatch("[A-Za-z0-9_-]{32}", id)

    answers += [client.get(path) for path in PATHS[:3]]
    answers += [client.post("/login", {"username": "x"}, status=422), client.get("/logout")]

    for answer in answers:
        assert id not in answer.text
        assert all(id not in value for name, value in answer.headers.items() if name != "Set-Cookie")


def test_the_secure_place_shows_the_session_at_work() -> None:
    client = visitor()
    log_in(client)

    shown = facts(client.get("/secureplace"))

    assert shown["Cookie"] == "connect.sid"
    assert set(shown["Flags"].split("; ")) == {"HttpOnly", "SameSite=Lax", "Path=/"}
    assert shown["Time left"] == "24 hours"
    assert shown["Beside Time left"] in [f"{seconds} seconds, reset by every visit." for seconds in range(86390, 86401)]
    assert re.fullmatch("[0-9a-f]{16}", shown["Handle"])


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (86400, "24 hours"),
        (86399.6, "24 hours"),
        (8 * 3600, "8 hours"),
        (7200, "2 hours"),
        (7140, "119 minutes"),
        (1799, "30 minutes"),
        (60, "1 minute"),
        (29, "0 minutes"),
    ],
)
def test_time_is_told_as_people_do(seconds: float, shown: str) -> None:
    assert demo.pages.duration(seconds) == shown


@pytest.mark.parametrize("https", [False, True])
def test_the_flags_shown_are_those_sent(https: bool) -> None:
    """secure="auto": over plain http every client sends the cookie back, over https it is Secure."""
    client = visitor(https=https)

    sent = log_in(client).headers["Set-Cookie"]

    _, *flags = sent.split("; ")
    assert set(flags) == {"HttpOnly", "SameSite=Lax", "Path=/"} | ({"Secure"} if https else set())
    assert set(facts(client.get("/secureplace"))["Flags"].split("; ")) == set(flags)
    assert ("; Secure" in client.get("/logout").headers["Set-Cookie"]) == https


def test_nothing_but_the_stylesheet_is_cached() -> None:
    """The back button after the logout must show nothing, and no cache may give away a page or a cookie."""
    client = visitor()
    answers = [client.get("/secureplace"), client.get("/login"), client.post("/login", {"username": "x"}, status=422)]
    answers += [log_in(client), client.get("/secureplace"), client.get("/login"), client.get("/logout")]
    answers += [client.get("/"), client.get("/nowhere", status=404), client.put("/login", status=405)]

    for answer in answers:
        assert answer.headers.getall("Cache-Control") == ["no-store"]
    assert client.get("/style.css").cache_control.public


@pytest.mark.parametrize("path", ["/style.css", "/"])
def test_what_needs_no_session_does_not_look_at_it(path: str) -> None:
    """So it has no Vary and no cookie, and any cache may keep the stylesheet."""
    client = visitor()
    log_in(client)

    answer = client.get(path)

    assert "Vary" not in answer.headers
    assert "Set-Cookie" not in answer.headers


def test_who_only_looks_gets_no_cookie() -> None:
    client = visitor()

    for path in PATHS:
        client.get(path)

    assert not client.cookies


@pytest.mark.parametrize("path", [*PATHS, "/nowhere"])
def test_every_answer_keeps_scripts_frames_and_sniffing_out(path: str) -> None:
    headers = visitor().get(path, expect_errors=True).headers

    policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "style-src": "'self'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
    }
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("path", PATHS[:2])
def test_every_page_has_a_language_a_title_of_its_own_and_no_script(path: str) -> None:
    page = visitor().get(path)

    assert '<html lang="en">' in page
    title = re.search("<title>(.*) · minisession</title>.*<h1>(.*)</h1>", page.text, re.S)
    assert title is not None
    assert title[1] == title[2]
    assert "<script" not in page
    assert "style=" not in page


# The secret


def test_without_a_secret_the_log_says_that_sessions_end_with_the_process() -> None:
    """Whoever starts the demo by hand sees it, logging configured or not."""
    environ = {name: value for name, value in os.environ.items() if name != "SESSION_SECRET"}

    told = [
        subprocess.run(
            [sys.executable, "-c", "import demo.app"],
            cwd=ROOT,
            env={**environ, **secret},
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        for secret in ({}, {"SESSION_SECRET": ""}, {"SESSION_SECRET": "a secret of the tests, long enough"})
    ]

    assert ["sessions end with this process" in text for text in told] == [True, True, False]
    assert told[2] == ""


def test_each_process_without_a_secret_makes_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A secret that everybody could read in the source would be none."""
    monkeypatch.delenv("SESSION_SECRET", raising=False)

    with caplog.at_level(logging.WARNING, "demo"):
        one, other = demo.app.secret(), demo.app.secret()

    assert one != other
    assert len(one) == 64
    assert one not in caplog.text


def test_session_secret_signs_the_cookies(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "a secret of the tests, long enough"
    monkeypatch.setenv("SESSION_SECRET", secret)
    importlib.reload(demo.app)
    client = visitor()

    log_in(client)

    assert Signer(secret).verify(unquote(cookie_of(client))) is not None


# Your sessions


def sessions(client: TestApp) -> list[str]:
    """Return the browsers that the page lists."""
    return [browser.strip() for browser in re.findall("<li><span>(.*?)</span>", client.get("/sessions").text)]


@pytest.fixture
def nobody_else() -> None:
    """All of these tests' logins are admin's."""
    store = demo.app.store
    store.clear()


@pytest.mark.usefixtures("nobody_else")
def test_a_user_sees_where_he_is_logged_in_and_logs_the_others_out() -> None:
    phone, laptop = visitor(), visitor()
    phone.post("/login", ADMIN, headers={"User-Agent": "Mozilla/5.0 (iPhone; …) Version/18.0 Safari/604.1"})
    laptop.post("/login", ADMIN, headers={"User-Agent": "Mozilla/5.0 (X11; Linux) Chrome/130.0 Safari/537.36"})

    assert sessions(laptop) == ["Safari on iPhone", "Chrome on Linux <strong>This one</strong>"]
    page = laptop.get("/secureplace").click("Your sessions")
    assert buttons(page) == ["Log out the others", "Log out"]
    page = page.forms[0].submit(status=303).follow()

    assert page.request.path == "/sessions"
    assert buttons(page) == ["Log out"]  # there is no one else to log out
    assert sessions(laptop) == ["Chrome on Linux <strong>This one</strong>"]
    assert not is_logged_in(phone)
    assert is_logged_in(laptop)

    page.form.submit(status=303)

    assert not is_logged_in(laptop)


def buttons(page: TestResponse) -> list[str]:
    return re.findall("<button>(.*?)</button>", page.text)


@pytest.mark.parametrize("method", ["get", "post"])
def test_who_is_not_logged_in_has_no_list(method: str) -> None:
    client = visitor()
    log_in(inside := visitor())

    assert getattr(client, method)("/sessions", status=303).location == "/login"
    assert is_logged_in(inside)


@pytest.mark.usefixtures("nobody_else")
@pytest.mark.parametrize(
    ("agent", "shown"),
    [
        ("Mozilla/5.0 (Windows NT 10.0) Chrome/130 Safari/537 Edg/130.0", "Edge on Windows"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X) Chrome/130 Safari/537 OPR/115", "Opera on Macintosh"),
        ("Mozilla/5.0 (Android 15; Mobile) Gecko/132.0 Firefox/132.0", "Firefox on Android"),
        ("curl/8.5", "curl"),
        ("<script>alert(1)</script>", "Unknown browser"),
        ("", "Unknown browser"),
    ],
)
def test_browsers_have_names(agent: str, shown: str) -> None:
    """What they say is not shown as it is."""
    client = visitor()
    client.post("/login", ADMIN, headers={"User-Agent": agent})

    assert sessions(client) == [f"{shown} <strong>This one</strong>"]


@pytest.mark.usefixtures("nobody_else")
def test_another_sites_page_logs_nobody_out() -> None:
    client, other = visitor(), visitor()
    log_in(client)
    log_in(other)
    client.post("/sessions", headers={"Sec-Fetch-Site": "cross-site"}, status=403)

    assert is_logged_in(other)


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
def test_sessions_outlive_the_process_where_the_store_does(kind: str, tmp_path: Path) -> None:
    """`SESSION_STORE`: log in at one process, look around at the next."""
    code = (
        "import demo.app, sys; from webtest import TestApp; client = TestApp(demo.app.app)\n"
        "if sys.argv[1:]: client.set_cookie('connect.sid', sys.argv[1])\n"
        "else: client.post('/login', {'username': 'admin', 'password': 'letmein'})\n"
        "print(client.cookies['connect.sid'], client.get('/secureplace').status_int)"
    )
    with ExitStack() as servers:
        url = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/sessions.db"}.get(kind)
        if url is None:
            from ..support.redis_server import redis_server  # which skips this test alone, if there is none

            url = servers.enter_context(redis_server()).url
        environ = os.environ | {"SESSION_STORE": url, "SESSION_SECRET": "s" * 32}
        cookie: list[str] = []
        for expected in ("200", "303" if kind == "memory" else "200"):
            command = [sys.executable, "-c", code, *cookie]
            done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
            *cookie, status = done.stdout.split()
            assert status == expected
