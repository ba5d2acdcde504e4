"""Options that make no sense fail at construction, and say what to do: rows O1 to O23."""

from __future__ import annotations

import datetime
import logging
import re
import warnings
from collections.abc import Callable, Iterable
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from minisession import Cookie, MemoryStore, SessionMiddleware, get_session
from minisession.wire import record
from minisession.wire.signing import Signer

from ..support.browser import SECRET, Browser, Clock, middleware
from ..support.rows import row

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse


def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Count the visits."""
    session = get_session(environ)
    session["n"] = session.get("n", 0) + 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(session["n"]).encode()]


def make(**options: Any) -> SessionMiddleware:
    return SessionMiddleware(app, **{"secret": SECRET, **options})


def refused(error: type[Exception], *parts: str, **options: Any) -> None:
    """Expect ``error`` from the middleware, with these parts of text in its message, in their order."""
    with pytest.raises(error, match=r"(?s)" + ".*".join(map(re.escape, parts))):
        make(**options)


def refused_cookie(error: type[Exception], *parts: str, **options: Any) -> None:
    """Expect ``error`` from Cookie."""
    with pytest.raises(error, match=r"(?s)" + ".*".join(map(re.escape, parts))):
        Cookie(**options)


# O1-O6: the secret


@row("O1")
def test_a_secret_is_required() -> None:
    """There is no default that would be safe."""
    with pytest.raises(TypeError, match="secret"):
        SessionMiddleware(app)  # type: ignore[call-arg]  # the mistake under test


@row("O2")
@pytest.mark.parametrize(
    ("secret", "error", "message"),
    [
        ("", ValueError, "is empty"),
        (b"", ValueError, "is empty"),
        ([], ValueError, "empty sequence"),
        ((), ValueError, "empty sequence"),
        pytest.param(iter([]), ValueError, "empty sequence", id="iter([])"),
        (["a good one, and long enough", ""], ValueError, "is empty"),
        (["", "a good one, and long enough"], ValueError, "is empty"),
        (5, TypeError, "int"),
        (None, TypeError, "NoneType"),
        (True, TypeError, "bool"),
        (["a good one, and long enough", None], TypeError, "NoneType"),
        ([5], TypeError, "int"),
        ([["nested, and long enough"]], TypeError, "list"),
        ({"name": "a good one, and long enough"}, TypeError, "list of them, of which the first signs, not dict"),
        ({"a good one, and long enough": "x"}.keys(), TypeError, "the first signs, not dict_keys"),
        ({"a good one, and long enough"}, TypeError, "the first signs, not set"),
        (frozenset({"a good one, and long enough"}), TypeError, "the first signs, not frozenset"),
        (bytearray(b"a good one, and long enough"), TypeError, "int"),
        ("half a pair \ud800, and long enough", ValueError, "UTF-8; give it as bytes"),
    ],
    ids=ascii,
)
def test_a_secret_is_text_or_bytes_and_not_empty(secret: Any, error: type[Exception], message: str) -> None:
    """With an empty key anybody can sign; with None, a typo in the settings would be the key."""
    refused(error, "secret", message, secret=secret)


@row("O3")
@pytest.mark.parametrize("bad", [["the one that is good and secret", None], ["the one that is good and secret", ""]])
def test_a_refused_secret_is_not_shown(bad: Any) -> None:
    """The error goes to a log."""
    with pytest.raises((TypeError, ValueError)) as caught:
        make(secret=bad)
    assert "good" not in str(caught.value)


@row("O4")
@pytest.mark.parametrize("secret", ["x" * 15, b"x" * 15, "keyboard cat", "é" * 7, ["x" * 32, "short"], "x"])
def test_a_short_secret_warns(secret: Any) -> None:
    """And no more: existing Express deployments must be able to move.  The warning has the mend, not the secret."""
    with pytest.warns(UserWarning, match=r"secret has \d+ bytes.*token_hex") as caught:
        make(secret=secret)
    assert [warning.filename for warning in caught] == [__file__]
    assert "keyboard" not in str(caught[0].message)


@row("O5")
@pytest.mark.parametrize("secret", ["x" * 16, b"x" * 16, "é" * 8, ["x" * 16, "y" * 16], "x" * 1_000_000, b"\0" * 16])
def test_a_long_secret_does_not_warn(secret: Any) -> None:
    """Bytes count, and there is no upper limit."""
    make(secret=secret)


@row("O6")
def test_a_generator_of_secrets_is_read_once() -> None:
    """A second request must verify as the first did."""
    clock, secrets = Clock(), [f"secret number {number}, long enough" for number in range(3)]
    browser = Browser(middleware(app, secret=iter(secrets), clock=clock))
    assert [browser.get().text for _ in range(3)] == ["1", "2", "3"]
    secrets.clear()
    assert browser.get().text == "4"


@row("O6")
def test_a_list_of_secrets_is_copied() -> None:
    """A list that is changed afterwards changes nothing: rotation is a new middleware."""
    secrets = [SECRET]
    browser = Browser(middleware(app, secret=secrets))
    assert browser.get().text == "1"
    secrets[:] = ["another one that is long enough"]
    assert browser.get().text == "2"


# O7, O8: names and ids

NAMES = [
    *("", " ", "a b", "a;b", "a=b", "a,b", 'a"b', "a\r\nb", "a\n", "\na", "a\tb", "a\0", "a\x7f", "é", "☃", "\ud800"),
    *("a/b", "a:b", "(a)", "a@b", "[a]", "{a}", "a\\b", "a?b", "<a>", "$Version", "$Path", "x" * 3930),
    *("Path", "path", "expires", "SameSite", "Max-Age", "Domain", "Secure", "HttpOnly", "comment", "version"),
]


@row("O7")
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_is_a_token(name: str) -> None:
    """Anything else is a header to inject, or a cookie that no browser sends back."""
    refused(ValueError, "name", name=name)


@row("O7")
@pytest.mark.parametrize("name", [b"sid", 5, None, True, ["sid"]], ids=repr)
def test_a_name_is_str(name: Any) -> None:
    """Not bytes, which would be ``b'sid'`` in the header."""
    refused(TypeError, "name must be str, not ", repr(name), name=name)


@row("O7")
@pytest.mark.parametrize("name", ["sid", "connect.sid", "a!#%&'*+-.^_`|~9", "x" * 1000, "x" * 3929])
def test_every_token_is_a_name(name: str) -> None:
    """And a session works under it."""
    browser = Browser(middleware(app, name=name))
    assert browser.get().headers["Set-Cookie"].startswith(f"{name}=s%3A")
    assert browser.get(headers={"Cookie": browser.get().request.headers["Cookie"]}).text


@row("O8")
@pytest.mark.parametrize(
    ("got", "error", "message"),
    [
        (None, TypeError, "NoneType"),
        (b"bytes", TypeError, "bytes"),
        (5, TypeError, "int"),
        ("", ValueError, "returned 0 characters"),
        ("x" * 256, ValueError, "returned 256 characters.* 1 to 255"),
        ("\ud800", ValueError, "UTF-8"),
    ],
    ids=["None", "bytes", "int", "empty", "long", "half a pair"],
)
def test_what_genid_returns_is_checked(got: Any, error: type[Exception], message: str) -> None:
    """Before anything is stored or sent."""
    store = MemoryStore()
    with pytest.raises(error, match=f"genid.*{message}"):
        Browser(middleware(app, genid=lambda environ: got, store=store)).get()
    assert len(store) == 0


@row("O8")
@pytest.mark.parametrize(
    "id",
    ["a;b", "a\r\nSet-Cookie: x=1", "a b", "é☃", "a,b", '"', "x" * 255, "\U0001f600" * 255, "\0", "%41", "a.b"],
    ids=ascii,
)
def test_any_other_id_is_encoded_and_comes_back(id: str) -> None:
    """CVE-2024-47764: npm's cookie let an id write attributes."""
    store = MemoryStore()
    browser = Browser(middleware(app, genid=lambda environ: id, store=store))
    header = browser.get().headers["Set-Cookie"]
    assert re.fullmatch(r"connect\.sid=[A-Za-z0-9%._~!*'()-]+; [ -~]+", header)
    assert browser.get().text == "2"
    assert list(store.ids()) == [id]


@row("O8")
def test_an_id_that_makes_the_cookie_too_long_is_refused_before_it_is_stored() -> None:
    """A name and an id that are each fine can be over 4096 bytes together."""
    store = MemoryStore()
    with pytest.raises(ValueError, match="4096"):
        Browser(middleware(app, name="x" * 2000, genid=lambda environ: "\U0001f600" * 255, store=store)).get()
    assert len(store) == 0


# O9-O14: SameSite, Secure, Partitioned


@row("O9", "P13")
@pytest.mark.parametrize("samesite", ["None", "none", "NONE"])
@pytest.mark.parametrize("secure", [False, "auto"])
def test_samesite_none_needs_secure(samesite: str, secure: Any) -> None:
    """Browsers drop such a cookie, and nobody is told."""
    refused_cookie(
        ValueError, "samesite='None'", f"secure={secure!r}", "set secure=True", samesite=samesite, secure=secure
    )


@row("O9")
def test_samesite_auto_needs_secure_too() -> None:
    """Over https it would send SameSite=None without Secure."""
    refused_cookie(ValueError, "samesite='auto'", "secure=False", "set secure=True", samesite="auto", secure=False)


def header(cookie: Cookie, scheme: str = "https") -> str:
    """Return the Set-Cookie that ``cookie`` makes, without its value."""
    environ = {"wsgi.url_scheme": scheme}
    sent: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        sent.append(dict(headers)["Set-Cookie"])
        return lambda data: None

    list(make(cookie=cookie, clock=Clock())(environ, start_response))
    return sent[0].partition("; ")[2]


@row("O10")
def test_samesite_none_the_object_leaves_it_out() -> None:
    """Python's None is not the word ``None``, which would open the cookie to every site."""
    assert "SameSite" not in header(Cookie(samesite=None))
    assert "SameSite=None" in header(Cookie(samesite="None"))
    assert "SameSite=Lax" in header(Cookie())


@row("O10")
@pytest.mark.parametrize("samesite", [False, True, 0, 1, b"Lax", ["Lax"]], ids=repr)
def test_samesite_is_a_word(samesite: Any) -> None:
    """Express takes booleans; here they would be a guess."""
    refused_cookie(TypeError, "samesite must be one of", "'Lax'", "None", repr(samesite), samesite=samesite)


@row("O11")
@pytest.mark.parametrize(
    ("given", "sent"), [("lax", "Lax"), ("LAX", "Lax"), ("STRICT", "Strict"), ("none", "None"), ("AUTO", "None")]
)
def test_the_case_of_a_word_is_corrected(given: str, sent: str) -> None:
    """Express' own configuration writes them in lower case."""
    assert f"SameSite={sent}" in header(Cookie(samesite=given))
    assert "Priority=High" in header(Cookie(priority="HIGH"))


@row("O12")
@pytest.mark.parametrize("word", ["", "bogus", " Lax", "Lax;", "Lax\r\n", "Läx", "\u017ftrict"])
@pytest.mark.parametrize("option", ["samesite", "priority"])
def test_other_words_are_refused(option: str, word: str) -> None:
    """Browsers treat an unknown SameSite as none given."""
    refused_cookie(ValueError, f"{option} must be one of", repr(word), **{option: word})


@row("O13", "P13")
@pytest.mark.parametrize("secure", [False, "auto"])
def test_partitioned_needs_secure(secure: Any) -> None:
    """Browsers drop the cookie otherwise (CHIPS)."""
    refused_cookie(
        ValueError, "partitioned=True", f"secure={secure!r}", "set secure=True", partitioned=True, secure=secure
    )


@row("O14")
def test_partitioned_and_strict_warns() -> None:
    """It is never sent where it would be partitioned; odd, and harmless."""
    with pytest.warns(UserWarning, match="partitioned=True with samesite="):
        cookie = Cookie(partitioned=True, samesite="strict")
    assert "Partitioned" in header(cookie)


@row("O14")
@pytest.mark.parametrize("got", [None, 0, 1, "yes", "True", "", b"auto", [], "AUTO"], ids=repr)
@pytest.mark.parametrize("option", ["secure", "httponly", "partitioned"])
def test_a_cookies_switches_are_booleans(option: str, got: Any) -> None:
    """``httponly="False"`` from an environment variable is true."""
    refused_cookie(TypeError, f"{option} must be True", "False", repr(got), **{option: got})


# O15-O17: prefixed names

PREFIXED: list[tuple[str, dict[str, Any], str]] = [
    *(
        ("__Host-sid", {"domain": "example.com"}, "domain=None"),
        ("__HOST-sid", {"domain": "example.com"}, "domain=None"),
    ),
    *(("__host-sid", {"path": "/app"}, "path='/'"), ("__Host-sid", {"path": "//"}, "path='/'")),
    *(("__Host-sid", {"secure": False}, "secure=True"), ("__hOST-sid", {"secure": "auto"}, "secure=True")),
    *(("__Secure-sid", {"secure": False}, "secure=True"), ("__SECURE-sid", {"secure": "auto"}, "secure=True")),
    *(("__Http-sid", {"httponly": False}, "httponly=True"), ("__http-sid", {"secure": False}, "secure=True")),
    *(("__Host-Http-sid", {"httponly": False}, "httponly=True"), ("__HOST-HTTP-sid", {"path": "/a"}, "path='/'")),
]


@row("O15", "O16", "O17", "P13")
@pytest.mark.parametrize(("name", "options", "mend"), PREFIXED)
def test_a_prefix_is_a_promise(name: str, options: dict[str, Any], mend: str) -> None:
    """Browsers refuse the cookie otherwise, whatever the case of the prefix."""
    refused(ValueError, f"name={name!r} with ", ": set ", mend, name=name, cookie=Cookie(**options))


@row("O15")
@pytest.mark.parametrize(("name", "options", "mend"), PREFIXED)
def test_a_callable_cookie_is_checked_when_it_answers(name: str, options: dict[str, Any], mend: str) -> None:
    """No earlier is known what it answers; an error is better than a cookie that browsers drop."""
    with pytest.raises(ValueError, match=re.escape(mend)):
        Browser(middleware(app, name=name, cookie=lambda environ: Cookie(**options))).get()


@row("O15")
@pytest.mark.parametrize("name", ["__Host-sid", "__Secure-sid", "__Http-sid", "__Host-Http-sid"])
def test_a_kept_promise_is_fine(name: str) -> None:
    """With the defaults; ``__Secure-`` takes domains and paths."""
    browser = Browser(middleware(app, name=name, cookie=Cookie()))
    assert browser.get().headers["Set-Cookie"].startswith(name)
    make(name="__Secure-sid", cookie=Cookie(domain="example.com", path="/app"))


# O18-O20: times

NO_SECONDS: list[tuple[Any, type[Exception]]] = [
    *((-1, ValueError), (0, ValueError), (0.0, ValueError), (float("nan"), ValueError), (float("inf"), ValueError)),
    *((float("-inf"), ValueError), (1e300, ValueError), (10**400, ValueError), ("60", TypeError), (b"60", TypeError)),
    *((True, TypeError), (False, TypeError), ([60], TypeError), (Decimal(60), TypeError), (1j, TypeError)),
    (datetime.timedelta(minutes=1), TypeError),
]


@row("O18")
@pytest.mark.parametrize(("got", "error"), NO_SECONDS, ids=[f"{got!r:.20}" for got, _ in NO_SECONDS])
@pytest.mark.parametrize("option", ["max_age", "idle_timeout", "absolute_timeout"])
def test_a_time_is_a_positive_finite_number_of_seconds(option: str, got: Any, error: type[Exception]) -> None:
    """0 would log everybody out, and NaN is never over."""
    (refused_cookie if option == "max_age" else refused)(
        error, f"{option} must be a", "seconds", repr(got), **{option: got}
    )


@row("O18")
@pytest.mark.parametrize("option", ["idle_timeout", "absolute_timeout"])
def test_a_number_of_thousands_of_digits_is_refused_by_name(option: str) -> None:
    """The message is the argument's, not the interpreter's."""
    refused(ValueError, option, **{option: 10**5000})


@row("O18")
@pytest.mark.parametrize(("got", "error"), NO_SECONDS[:5])
def test_a_sessions_own_max_age_is_checked_the_same(got: Any, error: type[Exception]) -> None:
    """It often comes from a form."""

    def remember(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        get_session(environ).cookie.max_age = got
        return app(environ, start_response)

    with pytest.raises(error, match=r"session\.cookie\.max_age must be a"):
        Browser(middleware(remember)).get()


def test_a_sessions_own_max_age_in_milliseconds_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    """As in express-session; browsers would shorten it, and the store would keep it for a lifetime."""
    lifetimes = iter([400 * 86400, 86400_000, 86400_001])

    def remember(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        get_session(environ).cookie.max_age = next(lifetimes)
        return app(environ, start_response)

    wrapped = middleware(remember)
    Browser(wrapped).get()
    assert not caplog.messages
    for _ in range(2):
        Browser(wrapped).get()
    assert [message.partition(":")[2] for message in caplog.messages] == [" give seconds, not milliseconds"]


@row("O18")
def test_no_idle_timeout_is_not_an_option() -> None:
    """Sessions that never end are asked for with a number, not by an unset setting."""
    refused(TypeError, "idle_timeout must be a number of seconds", "None", idle_timeout=None)
    make(absolute_timeout=None)


FAR = [1e9, 1e11, 251_607_300_799, 1e12, 1e20, 1e296]


@row("O19")
@pytest.mark.filterwarnings("ignore:max_age=")
@pytest.mark.parametrize("seconds", FAR)
@pytest.mark.parametrize("option", ["max_age", "idle_timeout", "absolute_timeout"])
def test_no_number_overflows_at_request_time(option: str, seconds: float) -> None:
    """``datetime`` ends with the year 9999; a session may last longer."""
    options: dict[str, Any] = {"cookie": Cookie(max_age=seconds)} if option == "max_age" else {option: seconds}
    seen: list[object] = []

    def look(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        session = get_session(environ)
        seen.extend([session.expires_at, session.created_at, session.cookie.expires, session.cookie.max_age])
        return app(environ, start_response)

    clock = Clock()
    browser = Browser(middleware(look, clock=clock, **{"rolling": True, **options}))
    for visit in ("1", "2", "3"):
        response = browser.get()
        assert response.text == visit
        clock.advance(1000)
    assert ("Max-Age" in response.headers["Set-Cookie"]) == (option == "max_age")
    assert seen


@row("O19")
@pytest.mark.filterwarnings("ignore:max_age=")
def test_every_max_age_that_is_accepted_works() -> None:
    """What is written must be read."""
    browser = Browser(middleware(app, cookie=Cookie(max_age=9e296)))
    assert [browser.get().text, browser.get().text] == ["1", "2"]


@row("O20")
def test_over_400_days_warns() -> None:
    """Browsers shorten it: the user will be logged out, and nobody will know why."""
    with pytest.warns(UserWarning, match=r"max_age=34560001 is over 400 days"):
        Cookie(max_age=400 * 86400 + 1)
    Cookie(max_age=400 * 86400)


@row("O14", "O20")
@pytest.mark.parametrize("options", [{"max_age": 400 * 86400 + 1}, {"partitioned": True, "samesite": "Strict"}])
def test_a_warning_names_the_line_that_makes_the_cookie(options: dict[str, Any]) -> None:
    """Elsewhere it would be of no help."""
    with pytest.warns(UserWarning, match="max_age=|partitioned=") as caught:
        Cookie(**options)
    assert [warning.filename for warning in caught] == [__file__]


@row("O20")
def test_an_idle_timeout_beyond_the_absolute_is_cut() -> None:
    """Allowed: the default is a day, and an absolute timeout may well be an hour."""
    clock = Clock()
    browser = Browser(middleware(app, idle_timeout=1000, absolute_timeout=100, clock=clock))
    assert browser.get().text == "1"
    clock.advance(99)
    assert browser.get().text == "2"
    clock.advance(1)
    assert browser.get().text == "1"


# O21: path and domain, and their sizes

PATHS = [
    *("", "a", "a/", " /", "/a;b", "/;", "/a\r\nb", "/\n", "/a\n", "/\0", "/\x7f", "/é", "/☃", "/\ud800"),
    *("/" * 1025, "http://x/"),
]
DOMAINS = [
    *("", ".", "..", "a b", "a;b", "a,b", "a/b", "http://a", "a:80", "a\r\nb", "a\n", "\na", "é.example"),
    *("a..b", "a.", "*.a", "a\0", "a\x7f", "[::1]", "a=b", "a" * 1025, "\ud800"),
]  # fmt: skip


@row("O21")
@pytest.mark.parametrize(
    ("option", "got"), [*(("path", p) for p in PATHS), *(("domain", d) for d in DOMAINS)], ids=ascii
)
def test_an_attribute_that_is_none_is_refused(option: str, got: str) -> None:
    """``;`` and CR LF write attributes and headers; over 1024 bytes browsers drop the attribute alone."""
    refused_cookie(ValueError, option, **{option: got})


@row("O21")
@pytest.mark.parametrize("got", [5, b"/", True, ["/"], pytest.param(object(), id="object()")], ids=repr)
@pytest.mark.parametrize("option", ["path", "domain"])
def test_an_attribute_is_str(option: str, got: Any) -> None:
    """Not bytes, and not what has a nice str()."""
    refused_cookie(TypeError, f"{option} must be str, not", repr(got), **{option: got})
    refused_cookie(TypeError, "path must be str, not None", path=None)


@row("O21")
@pytest.mark.parametrize("path", ["/", "/app", "/a b", "/%C3%A9", "/a,b", '/"a"', "/" * 1024, "/a=b"])
@pytest.mark.parametrize(
    "domain", [None, "example.com", ".example.com", "localhost", "127.0.0.1", "x_y.example", "xn--9ca.de"]
)
def test_what_browsers_take_is_sent_as_it_is(path: str, domain: str | None) -> None:
    """Unquoted: ``Morsel`` quotes values, not attributes."""
    parts = header(Cookie(path=path, domain=domain)).split("; ")
    assert f"Path={path}" in parts
    assert (f"Domain={domain}" in parts) == (domain is not None)
    assert "Domain" not in header(Cookie())


# O22, O23: the rest


class HalfStore:
    def load(self, id: str) -> None: ...

    def create(self, id: str, data: bytes, expires_at: float, user: str | None = None) -> bool:
        return True


@row("O22")
@pytest.mark.parametrize(
    ("store", "parts"),
    [
        (MemoryStore, ("must be an instance", "store=MemoryStore(...)")),
        (HalfStore, ("must be an instance", "store=HalfStore(...)")),
        (HalfStore(), ("has no replace, touch, rotate, heir, delete, close",)),
        (None, ("NoneType has no load", "leave it out")),
        ("redis://localhost", ("has no load", "open_store")),
        ({}, ("has no load",)),
    ],
    ids=["class", "another class", "half", "None", "URL", "dict"],
)
def test_a_store_is_an_instance_with_the_six_verbs(store: Any, parts: tuple[str, ...]) -> None:
    """None is what an unset setting gives: falling back to memory would lose sessions silently."""
    refused(TypeError, "store", *parts, store=store)


@row("O22")
@pytest.mark.parametrize(
    "store",
    ["redis://:hunter2@localhost", b"redis://:hunter2@localhost", {"password": "hunter2"}],
    ids=["URL", "bytes", "settings"],
)
def test_what_is_taken_for_a_store_is_not_shown(store: Any) -> None:
    """It may hold a password, and errors end up in logs."""
    with pytest.raises(TypeError) as caught:
        middleware(app, store=store)
    assert "hunter2" not in str(caught.value)


@row("O22")
@pytest.mark.parametrize(
    ("got", "error"),
    [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("9", TypeError), (True, TypeError), (None, TypeError)],
)
def test_max_sessions_is_a_positive_int(got: Any, error: type[Exception]) -> None:
    """A store of none keeps nobody."""
    with pytest.raises(error, match=f"max_sessions must be .*{got!r}"):
        MemoryStore(max_sessions=got)


@row("O23")
@pytest.mark.parametrize(
    "option", ["secert", "httponly", "max_age", "path", "save_uninitialised", "saveUninitialized", "unset", "ttl"]
)
def test_an_unknown_option_is_refused(option: str) -> None:
    """A misspelt option that is ignored is an option that is not set."""
    refused(TypeError, option, **{option: 1})


@row("O23")
@pytest.mark.parametrize("option", ["maxage", "maxAge", "http_only", "same_site", "expires", "name"])
def test_an_unknown_attribute_is_refused(option: str) -> None:
    """The same for Cookie, and its arguments have names."""
    refused_cookie(TypeError, option, **{option: 1})
    with pytest.raises(TypeError, match="positional"):
        Cookie(60)  # type: ignore[call-arg]  # the mistake under test


@row("O23")
@pytest.mark.parametrize("option", ["resave", "save_uninitialized", "rolling", "proxy"])
@pytest.mark.parametrize("got", [None, 0, 1, "false", "", []], ids=repr)
def test_switches_are_booleans(option: str, got: Any) -> None:
    """``proxy="false"`` from an environment variable is true."""
    refused(TypeError, f"{option} must be True or False, not", repr(got), **{option: got})


@row("O23")
@pytest.mark.parametrize(
    ("got", "error"),
    [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("9", TypeError), (True, TypeError), (None, TypeError)],
)
def test_max_bytes_is_a_positive_int(got: Any, error: type[Exception]) -> None:
    """0 would refuse every record."""
    refused(error, "max_bytes must be", repr(got), max_bytes=got)


@row("O23")
@pytest.mark.parametrize("got", [None, "app", 5, [b""]], ids=repr)
def test_the_app_is_callable(got: Any) -> None:
    """Else the first request would say so, far from the mistake."""
    with pytest.raises(TypeError, match=r"app must be a WSGI app.*" + re.escape(repr(got))):
        SessionMiddleware(got, secret=SECRET)


@row("O23")
@pytest.mark.parametrize("option", ["genid", "clock"])
@pytest.mark.parametrize("got", [None, "uuid4", 5], ids=repr)
def test_a_function_is_callable(option: str, got: Any) -> None:
    """``genid=uuid4()`` is a mistake easily made."""
    refused(TypeError, f"{option} must be callable, not", repr(got), **{option: got})


@row("O23")
@pytest.mark.parametrize("got", [None, "secure", {"secure": True}, Cookie], ids=repr)
def test_the_cookie_is_a_cookie_or_makes_one(got: Any) -> None:
    """Express takes an object of options here; the class alone would be called with the environ."""
    refused(TypeError, "cookie must be a Cookie, or a callable", repr(got), cookie=got)


@row("O23")
@pytest.mark.parametrize("got", [None, {"secure": True}, "x"], ids=repr)
def test_what_a_callable_cookie_returns_is_checked(got: Any) -> None:
    """With the type that it is."""
    with pytest.raises(TypeError, match=f"must return a Cookie, not {type(got).__name__}"):
        Browser(middleware(app, cookie=lambda environ: got)).get()


@row("O23")
def test_a_cookie_is_immutable_and_hashable() -> None:
    """Checked once is checked for good; and rendered once per configuration."""
    cookie = Cookie()
    with pytest.raises(AttributeError):
        cookie.domain = "evil\r\n"  # type: ignore[misc]  # the mistake under test
    assert cookie == Cookie(samesite="lax")
    assert hash(cookie) == hash(Cookie())


@row("O23")
def test_the_defaults_are_safe_and_warn_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Secure, HttpOnly and SameSite=Lax; host-only; until the browser closes."""
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        assert sorted(header(Cookie()).split("; ")) == ["HttpOnly", "Path=/", "SameSite=Lax", "Secure"]
    assert not caplog.records


@row("O23")
def test_the_repr_of_a_middleware_shows_no_secret() -> None:
    """Nor of what it holds: tracebacks with locals are common."""
    shown = make()
    texts = [repr(shown), str(vars(shown)), str(vars(shown._lifecycle)), repr(Signer(SECRET)), repr(record)]
    assert not [text for text in texts if SECRET in text]


def test_a_request_without_a_session_says_what_to_wrap() -> None:
    with pytest.raises(LookupError, match=r"wrap the app.* in Flask, app\.wsgi_app ="):
        get_session({})


def test_a_frameworks_request_is_no_environ() -> None:
    with pytest.raises(TypeError, match=r"such as request\.environ, not SimpleNamespace"):
        get_session(SimpleNamespace(environ={}))  # type: ignore[arg-type]  # the mistake
