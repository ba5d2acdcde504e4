"""Cross-origin requests: Go's table of decisions (G1), what comes beside it (G2, G4, P16), the options (O24)."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from wsgiref.validate import validator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webtest import TestApp

from minisession import CrossOriginProtection, SessionMiddleware, get_session

from ..support.browser import SECRET, SpyStore
from ..support.rows import row
from .test_servers import waitress

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

HOST = "example.com"
OURS, TRUSTED, EVIL = "https://example.com", "https://trusted.example", "https://attacker.example"


def ok(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


def ask(
    method: str = "POST", site: str = "", origin: str = "", host: str = HOST, app: Any = None, **environ: str
) -> int:
    """Return the status that a browser gets; an empty header is one that it does not send."""
    headers = {"HTTP_SEC_FETCH_SITE": site, "HTTP_ORIGIN": origin, "HTTP_HOST": host}
    sent = {name: value for name, value in headers.items() if value}
    answers: list[str] = []
    request = {"REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": "/", **sent, **environ}
    start: Any = lambda status, headers, exc_info=None: answers.append(status)  # noqa: E731  # typed at once
    (app or CrossOriginProtection(ok))(request, start)
    return int(answers[0][:3])


# G1


@row("G1", "P16")
@pytest.mark.parametrize(
    ("site", "origin", "status"),
    [
        ("same-origin", "", 200),
        ("none", "", 200),
        ("cross-site", "", 403),
        ("same-site", "", 403),
        ("", "", 200),
        ("", OURS, 200),
        ("", EVIL, 403),
        ("", "null", 403),
        ("same-origin", EVIL, 200),
        ("cross-site", OURS, 403),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_what_the_browser_says_decides(method: str, site: str, origin: str, status: int) -> None:
    """Sec-Fetch-Site, which no page can forge; only where it is missing, Origin."""
    assert ask(method, site, origin) == status


@row("G1")
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize(("site", "origin"), [("cross-site", ""), ("cross-site", EVIL), ("", EVIL)])
def test_safe_methods_pass(method: str, site: str, origin: str) -> None:
    """Links from elsewhere work; what they lead to must change nothing."""
    assert ask(method, site, origin) == 200


@row("G1")
@pytest.mark.parametrize("site", ["", "cross-site", "same-site"])
@pytest.mark.parametrize(
    ("origin", "status"),
    [(TRUSTED, 200), (EVIL, 403), ("http://trusted.example", 403), (f"{TRUSTED}:8443", 403), (f"{TRUSTED}.evil", 403)],
)
def test_a_trusted_origin_passes_whole_with_its_scheme_and_port(site: str, origin: str, status: int) -> None:
    """Whoever can answer for http://trusted.example in a café is not trusted with https."""
    assert ask(site=site, origin=origin, app=CrossOriginProtection(ok, trusted_origins=[TRUSTED])) == status


@row("G1")
@pytest.mark.parametrize("site", ["", "cross-site"])
@pytest.mark.parametrize(("path", "status"), [("/hook", 200), ("/api/", 403)])
def test_an_exempt_path_passes(site: str, path: str, status: int) -> None:
    """A webhook, or a form for everybody's pages."""
    assert ask(site=site, origin=EVIL, app=CrossOriginProtection(ok, exempt=["/hook"]), PATH_INFO=path) == status


@row("G1")
def test_the_scheme_does_not_count_where_only_origin_is_there() -> None:
    """Behind a proxy that ends TLS, the app does not know it; Strict-Transport-Security closes the gap."""
    assert ask(origin="http://example.com") == 200


# G2: what is no browser's


@row("G2", "P16")
@pytest.mark.parametrize("site", ["Same-Origin", "SAME-ORIGIN", "junk", '"same-origin"', "same-origin;", "none none"])
def test_a_word_that_is_not_exactly_right_is_refused(site: str) -> None:
    assert ask(site=site, origin=OURS) == 403


@row("G2")
@pytest.mark.parametrize("site", ["same-origin, cross-site", "cross-site, same-origin", "same-origin, same-origin"])
def test_two_headers_joined_are_refused(site: str) -> None:
    """So servers hand them on; no browser sends two, and it is not ours to choose one."""
    assert ask(site=site, origin=OURS) == 403


@row("G2")
def test_blanks_around_a_value_are_the_lines_and_not_its_own() -> None:
    """RFC 9110, 5.5; most servers have dropped them."""
    assert ask(site=" same-origin\t") == 200
    assert ask(origin=f" {OURS} ") == 200
    assert ask(site="same-origin\xa0") == 403


@row("G2")
@pytest.mark.parametrize("method", ["post", "get", "FOO", "TRACE", "CONNECT", ""])
def test_a_method_that_is_not_known_as_safe_is_unsafe(method: str) -> None:
    assert ask(method, "cross-site") == 403
    assert ask(method, "same-origin") == 200


@row("G2")
@pytest.mark.parametrize(
    "origin",
    [
        "example.com",
        "//example.com",
        "://example.com",
        "app://example.com",
        "https:example.com",
        "https://",
        "https://example.com/",
        "https://example.com:443",
        "https://example.com:8443",
        "https://EXAMPLE.com",
        "https://example.com.",
        "https://example.com.attacker.example",
        "https://attacker.example/example.com",
        "https://attacker.example#https://example.com",
        "https://attacker.example@example.com",
        "https://example.com@attacker.example",
        "https://exam\tple.com",
        "https://example.com\x00",
        f"{OURS}, {EVIL}",
        f"{EVIL}, {OURS}",
        f"null, {OURS}",
        f"{OURS}, {OURS}",
        f"{OURS} {EVIL}",
        "null",
        "\xff",
        "\ud800",
    ],
)
def test_an_origin_is_compared_as_text_and_never_repaired(origin: str) -> None:
    """URL parsers forgive, each in another way; a browser sends what needs no forgiving."""
    assert ask(origin=origin) == 403


@row("G2")
@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("example.com:8443", "https://example.com:8443", 200),
        ("example.com:8443", "https://example.com", 403),
        ("[::1]:8080", "http://[::1]:8080", 200),
        ("", OURS, 403),
        ("", "null", 403),
        ("", "https://", 403),
        ("example.com, attacker.example", EVIL, 403),
        ("example.com, attacker.example", OURS, 403),
    ],
)
def test_the_host_is_compared_with_its_port(host: str, origin: str, status: int) -> None:
    """And where there is none, as in HTTP/1.0, nothing is the same."""
    assert ask(origin=origin, host=host, SERVER_NAME="example.com", SERVER_PORT="443") == status


@row("G2")
@given(st.text(), st.text(), st.text(), st.text())
def test_whatever_a_server_hands_on_is_answered(method: str, site: str, origin: str, host: str) -> None:
    """With one of two statuses, and 403 for all that another origin could have sent."""
    app = CrossOriginProtection(ok, trusted_origins=[TRUSTED], exempt=["/hook"])
    status = ask(method, site, origin, host, app=app)
    assert status in (200, 403)
    assert ask("POST", f"cross-site{site}", app=app) == 403
    assert ask("POST", origin=f"{EVIL}{origin}", host=host if EVIL[8:] not in host else HOST, app=app) == 403


# G4: exemptions


@row("G4")
@pytest.mark.parametrize(
    ("script", "path"),
    [
        *(
            ("", path)
            for path in ("/hook/", "//hook", "/hook//", "/HOOK", "hook", "/hook/x", "/hook;x", "/hook\x00", "")
        ),
        *(("", path) for path in ("/x/../hook", "/./hook", "/hook/.", "/%68ook", "/hook%20", "/hook ", "/api/hook")),
        ("/api", "/hook"),
        ("/hook", "/"),
    ],
)
def test_a_path_is_exempt_to_the_letter(script: str, path: str) -> None:
    """What would be normalised or redirected to it is another path (CVE-2025-47910)."""
    app = CrossOriginProtection(ok, exempt=["/hook"])
    assert ask(origin=EVIL, app=app, SCRIPT_NAME=script, PATH_INFO=path) == 403


@row("G4")
@pytest.mark.parametrize(("script", "path"), [("", "/a/hook"), ("/a", "/hook"), ("/a/hook", "")])
def test_a_path_counts_from_the_servers_root_wherever_the_app_is_mounted(script: str, path: str) -> None:
    app = CrossOriginProtection(ok, exempt=["/a/hook"])
    assert ask(origin=EVIL, app=app, SCRIPT_NAME=script, PATH_INFO=path) == 200


@row("G4")
def test_a_path_beyond_ascii_is_written_as_it_reads() -> None:
    """PEP 3333 gives its UTF-8 as Latin-1."""
    app = CrossOriginProtection(ok, exempt=["/café"])
    assert ask(origin=EVIL, app=app, PATH_INFO="/caf\xc3\xa9") == 200
    assert ask(origin=EVIL, app=app, PATH_INFO="/caf\xe9") == 403


@row("G4")
def test_no_header_and_no_field_names_another_method() -> None:
    """Frameworks that listen to them are inside, and get a request that is refused before."""
    override = {"HTTP_X_HTTP_METHOD_OVERRIDE": "GET", "HTTP_X_METHOD_OVERRIDE": "GET", "QUERY_STRING": "_method=GET"}
    assert ask(site="cross-site", **override) == 403


# P16: the answer


@row("P16")
def test_a_refused_request_reaches_no_session_and_its_body_is_not_read() -> None:
    """So another site's pages cannot even keep a session from expiring."""
    store = SpyStore()

    def page(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        get_session(environ)["k"] = 1
        return ok(environ, start_response)

    app = CrossOriginProtection(SessionMiddleware(page, secret=SECRET, store=store))
    browser = TestApp(app, extra_environ={"wsgi.url_scheme": "https"})
    browser.post("/", {"a": "1"}, headers={"Sec-Fetch-Site": "same-origin"})
    assert store.verbs == ["create"]

    body = io.BytesIO(b"a=1")
    answer = browser.post("/", headers={"Sec-Fetch-Site": "cross-site"}, status=403, extra_environ={"wsgi.input": body})

    assert store.verbs == []
    assert body.tell() == 0
    assert "Set-Cookie" not in answer.headers
    assert (answer.content_type, answer.content_length) == ("text/plain", len(answer.body))
    assert "another site" in answer


@row("P16")
def test_what_passes_is_handed_on_as_it_is() -> None:
    """The same environ, start_response and body: the server's sendfile and Content-Length stay as they were."""
    body = [b"ok"]
    given: list[object] = []
    app = CrossOriginProtection(lambda environ, start_response: given.extend([environ, start_response]) or body)
    environ: dict[str, Any] = {"REQUEST_METHOD": "GET"}

    assert app(environ, ask) is body  # type: ignore[arg-type]  # only handed on

    assert given[0] is environ
    assert given[1] is ask


@row("P16")
def test_both_sides_keep_pep_3333() -> None:
    client = TestApp(validator(CrossOriginProtection(validator(ok))))

    assert client.post("/").text == "ok"
    client.post("/", headers={"Origin": EVIL}, status=403)
    client.delete("/", headers={"Origin": EVIL}, status=403)


@row("G2")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Sec-Fetch-Site: same-origin", 200),
        ("Sec-Fetch-Site: cross-site", 403),
        ("Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site", 403),
        ("Sec_Fetch_Site: same-origin\r\nOrigin: https://attacker.example", 403),
        ("Origin: http://example.com", 200),
        ("Origin: http://example.com\r\nOrigin: null", 403),
        ("Origin: null", 403),
        ("X: y", 200),
    ],
)
def test_over_a_socket_it_is_refused_as_well(headers: str, status: int) -> None:
    """What a server makes of repeated headers is part of the input."""
    with waitress(CrossOriginProtection(ok)) as port, socket.create_connection(("127.0.0.1", port), 10) as connection:
        request = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Length: 3\r\n{headers}\r\n\r\na=1"
        connection.sendall(request.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))

    assert int(answer.split()[1]) == status


def test_a_refusal_is_logged_in_one_line_that_cannot_be_forged(caplog: pytest.LogCaptureFixture) -> None:
    """What it was refused for, so that an operator sees which origin to trust, or which proxy changes Host.

    Also where no one has configured the log: behind such a proxy, no form works.
    """
    evil = f"https://evil\r\nCRITICAL\x1b[31m\xe9\ud800{'x' * 10_000}"
    ask(site=evil, origin=evil, host=evil)
    ask(origin=EVIL, host="backend:8000")

    for line in caplog.messages:
        assert line.isprintable()
        assert line.isascii()
        assert len(line) < 350
    hostile, plain = caplog.messages
    assert hostile.count(r"'https://evil\r\nCRITICAL") == 3
    assert repr(EVIL) in plain
    assert "'backend:8000'" in plain


# O24: options


@row("O24")
@pytest.mark.parametrize(
    "origin",
    [
        *("example.com", "https://", "https://example.com/", "https://example.com/path", "https://example.com?q"),
        *("https://example.com#f", "https://ex ample.com", "", "null", "*", "https://*.example.com", "//example.com"),
        *("https://me@example.com", "https://example.com:", "https://example.com:0443", "https://example.com:99999999"),
        *("https://bücher.example", "https://\u212aey.example", "https://example.com\n", " https://example.com"),
        *("https://[example.com]", "https://a,b", "https://example.com:443:443", "://example.com"),
    ],
)
def test_a_trusted_origin_that_would_never_match_is_refused(origin: str) -> None:
    """Found as the server starts, and not by the first visitor from there."""
    with pytest.raises(ValueError, match=r"trusted_origins has .* write an origin as browsers do") as caught:
        CrossOriginProtection(ok, trusted_origins=[origin])
    assert repr(origin) in str(caught.value)


@row("O24")
@pytest.mark.parametrize(
    ("trusted", "sent"),
    [
        ("http://e.com", "http://e.com"),
        ("https://e.com:8080", "https://e.com:8080"),
        ("HTTPS://E.com", "https://e.com"),
        ("https://e.com:443", "https://e.com"),
        ("http://e.com:80", "http://e.com"),
        ("https://e.com:80", "https://e.com:80"),
        ("http://e.com:8080", "http://e.com:8080"),
        ("https://e.com:4433", "https://e.com:4433"),
        ("http://[::1]:80", "http://[::1]"),
        ("http://my_host", "http://my_host"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("chrome-extension://abcdefgh", "chrome-extension://abcdefgh"),
    ],
)
def test_a_trusted_origin_is_taken_as_browsers_write_it(trusted: str, sent: str) -> None:
    """In lower case, and without the port that the scheme implies."""
    app = CrossOriginProtection(ok, trusted_origins=(origin for origin in [EVIL, trusted]))
    for _ in range(2):
        assert ask(site="cross-site", origin=sent, app=app) == 200


@row("O24")
@pytest.mark.parametrize("path", ["", "hook", "https://example.com/hook", "/hook/*", "/hook?x=1", "/hook#x", "*"])
def test_an_exempt_path_that_would_never_match_is_refused(path: str) -> None:
    """Whoever writes a pattern must not believe that it is one."""
    with pytest.raises(ValueError, match=r"exempt has .* write a whole path") as caught:
        CrossOriginProtection(ok, exempt=[path])
    assert repr(path) in str(caught.value)


@row("O24")
@pytest.mark.parametrize("argument", ["trusted_origins", "exempt"])
@pytest.mark.parametrize("value", [EVIL, "/", b"/", 5, None, [5], [None], [b"/"], [["/"]]], ids=repr)
def test_what_is_not_a_list_of_texts_is_refused(argument: str, value: Any) -> None:
    """A str is a sequence too, of letters."""
    with pytest.raises(TypeError, match=f"{argument} must be a list of str"):
        CrossOriginProtection(ok, **{argument: value})


@row("O24")
def test_the_app_must_be_one() -> None:
    with pytest.raises(TypeError, match="app must be a WSGI app"):
        CrossOriginProtection("app")  # type: ignore[arg-type]  # the mistake
