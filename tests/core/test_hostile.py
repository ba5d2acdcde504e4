"""What attackers, broken servers and damaged stores send: rows B, C, F, A7, A8, A10.

Most requests go straight to the middleware, without wsgiref's linter: a hostile environ is what it would refuse.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import gzip
import hashlib
import hmac
import importlib
import json
import logging
import re
import socket
import uuid
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote
from wsgiref.util import setup_testing_defaults

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from waitress.server import create_server

from minisession import (
    Cookie,
    MemoryStore,
    Session,
    SessionError,
    SessionMiddleware,
    SessionTooLarge,
    SQLiteStore,
    get_session,
)
from minisession.wire import cookies, record, signing
from minisession.wire.attributes import rendered
from minisession.wire.record import Record
from minisession.wire.signing import Signer

from ..support.browser import SECRET, Clock, SpyStore
from ..support.rows import row
from ..support.tools import need_module

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

NAME = "connect.sid"
VICTIM = "Victim-0123456789-002_abcdefghijk"
RECORD = (
    b'{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},'
    b'"minisession":{"created":1794999000},"name":"victim","cart":[1]}'
)
OLD_SECRET = "the secret before this one, as long"


def encoded(value: str) -> str:
    return quote(value, safe="!*'()")


def signed(id: str, secret: str | bytes = SECRET) -> str:
    return f"{NAME}={encoded(Signer(secret).sign(id))}"


SIGNED = Signer(SECRET).sign(VICTIM)
SIGNATURE = SIGNED.rpartition(".")[2]
OURS = signed(VICTIM)
SECRETS = [VICTIM, VICTIM[:16], SIGNATURE, SIGNATURE[:20], SIGNATURE[-20:], encoded(SIGNATURE), SECRET, OLD_SECRET]


def peek(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    session = get_session(environ)
    name = str(session.get("name", "nobody"))
    if environ.get("QUERY_STRING") == "write":
        session["mark"] = 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [name.encode()]


class Reply(NamedTuple):
    status: str
    headers: list[tuple[str, str]]
    body: str
    verbs: list[str]

    @property
    def ids(self) -> list[str]:
        """The ids that the response gives the browser."""
        sent = [value for name, value in self.headers if name == "Set-Cookie"]
        return [unquote(value.partition("=")[2].partition(";")[0])[2:].rpartition(".")[0] for value in sent]


class Scene:
    """A victim's session in a store, and whoever wants in."""

    def __init__(
        self, caplog: pytest.LogCaptureFixture, make: Callable[[Clock], Any] = lambda clock: MemoryStore(clock=clock)
    ) -> None:
        self.caplog, self.clock = caplog, Clock()
        self.backend = make(self.clock)
        self.age: Callable[[float], object] = lambda seconds: None  # for a store with a clock of its own
        self.store = SpyStore(self.backend)
        self.put(RECORD)
        caplog.set_level(logging.DEBUG)

    def put(self, data: bytes, id: str = VICTIM) -> None:
        self.backend.delete(id)
        assert self.backend.create(id, data, self.clock() + 86400)
        self.before = self.backend.load(VICTIM)

    def later(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.age(seconds)

    def ask(
        self,
        cookie: str | None = None,
        app: WSGIApplication = peek,
        environ: dict[str, Any] | None = None,
        **options: Any,
    ) -> Reply:
        request = {"wsgi.url_scheme": "https", **(environ or {})}
        if cookie is not None:
            request["HTTP_COOKIE"] = cookie
        setup_testing_defaults(request)
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None
        ) -> Callable[[bytes], object]:
            started.append((status, headers))
            return lambda data: None

        options = {"secret": SECRET, "store": self.store, "clock": self.clock, **options}
        self.store.calls.clear()
        try:
            body = b"".join(SessionMiddleware(app, **options)(request, start_response))
        finally:
            self.check_log()
        [(status, headers)] = started
        for name, value in headers:
            assert name in ("Content-Type", "Vary", "Cache-Control", "Set-Cookie")
            assert re.fullmatch(r"[\x20-\x7e]*", value)
        return Reply(status, headers, body.decode(), self.store.verbs)

    def new(self, cookie: str | None = None, *, loads: int = 0, **options: Any) -> None:
        """Expect a fresh, empty session, and the victim's left alone."""
        reading = self.ask(cookie, **options)
        assert (reading.status, reading.body, reading.verbs) == ("200 OK", "nobody", ["load"] * loads)
        assert not reading.ids
        options["environ"] = {**options.get("environ", {}), "QUERY_STRING": "write"}
        writing = self.ask(cookie, **options)
        assert writing.verbs == ["load"] * loads + ["create"]
        [id] = writing.ids
        assert re.fullmatch("[A-Za-z0-9_-]{32}", id)
        self.kept()

    def ok(self, cookie: str, *, loads: int = 1, **options: Any) -> Reply:
        """Expect the victim's session."""
        reply = self.ask(cookie, **options)
        assert (reply.status, reply.body, reply.verbs.count("load")) == ("200 OK", "victim", loads)
        return reply

    def kept(self) -> None:
        now = self.backend.load(VICTIM)
        assert (now and now.data) == (self.before and self.before.data)
        assert now is None or abs(now.expires_at - self.before.expires_at) < 60  # as Redis counts

    def check_log(self) -> None:
        text = self.caplog.text.casefold()
        assert not [secret for secret in SECRETS if secret.casefold() in text]
        assert not [entry for entry in self.caplog.records if "\n" in entry.getMessage()]

    @property
    def warnings(self) -> list[str]:
        """What was logged at WARNING and above since the last time this was asked."""
        messages = [entry.getMessage() for entry in self.caplog.records if entry.levelno >= logging.WARNING]
        self.caplog.clear()
        return messages


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Any]:
    need_module("redis")
    with importlib.import_module("tests.support.redis_server").redis_server() as server:
        yield server


@pytest.fixture
def scene(caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> Iterator[Scene]:
    kind = getattr(request, "param", "memory")
    if kind == "redis":
        server = request.getfixturevalue("redis_server")
        server.client.flushall()
        store = importlib.import_module("minisession.stores.redis").RedisStore
        scene = Scene(caplog, lambda clock: store(server.url, read_timeout=10, clock=clock))
        scene.age = server.age
    elif kind == "sqlite":
        file = request.getfixturevalue("tmp_path") / "sessions.db"
        scene = Scene(caplog, lambda clock: SQLiteStore(file, synchronous="NORMAL", clock=clock))
    else:
        scene = Scene(caplog)
    yield scene
    scene.backend.close()


every_store = pytest.mark.parametrize("scene", ["memory", "sqlite", "redis"], indirect=True)


# B: cookies

JUNK = [
    "bad[x]=1",
    "a{b}=1",
    "junk",
    "Path=/",
    "expires=1",
    "a=\xff",
    '{"j":1}',
    ";;;",
    "\t",
    "=x",
    "==",
    'q="a;b',
    "$a",
]

UNDECODABLE = [
    encoded(encoded(SIGNED)), SIGNED.replace(":", "%u003A"), "%zz", "%", f"{SIGNED}%", f"%{SIGNED}", "%E0%A4%A", "%00",
    f"{encoded(SIGNED)}%00", "%0d%0aSet-Cookie:x=1", f"{encoded(SIGNED)}%0d%0aSet-Cookie:x=1", f"{encoded(SIGNED)}%80",
]  # fmt: skip

NAMELESS = [f"={OURS}", f"=={OURS}", encoded(SIGNED), NAME, f"{NAME};{encoded(SIGNED)}", f"={encoded(SIGNED)}"]

OTHER_NAMES = [
    "CONNECT.SID", "connect_sid", "..connect.sid", "connect%2Esid", '"connect.sid"', "connect.sid[]", "connect.sid\xa0",
    "connect.sid\x85", "connect.sid\x00", "xconnect.sid", "connect. sid", "$connect.sid",
]  # fmt: skip

UNSIGNED = [
    VICTIM,
    f"s:{VICTIM}",
    f"s:{VICTIM}.",
    f"s:.{SIGNATURE}",
    "s:",
    ".",
    "s:.",
    "",
    "s",
    "s:..",
    SIGNED[2:],
    f"S{SIGNED[1:]}",
]

FORGED = {
    "truncated": SIGNED[:-1],
    "truncated at the front": f"s:{VICTIM}.{SIGNATURE[1:]}",
    "extended": f"{SIGNED}A",
    "padded": f"{SIGNED}=",
    "padded twice": f"{SIGNED}==",
    "url-safe": f"s:{VICTIM}.{SIGNATURE.replace('+', '-').replace('/', '_')}",
    "hex": f"s:{VICTIM}.{base64.b64decode(f'{SIGNATURE}=').hex()}",
    "lower-cased": f"s:{VICTIM}.{SIGNATURE.lower()}",
    "space": f"s:{VICTIM}.{SIGNATURE[:9]} {SIGNATURE[9:]}",
    "space for a plus": SIGNED.replace("+", " "),
    "leading space": f" {SIGNED}",
    "newline": f"{SIGNED}\n",
    "trailing part": f"{SIGNED}.x",
    "fullwidth": f"s:{VICTIM}.{SIGNATURE[:-1]}\uff21",  # compare_digest raises on str like this
    "another id": f"s:other.{SIGNATURE}",
}


def hmac64(algorithm: str, secret: str = SECRET, id: str = VICTIM) -> str:
    return base64.b64encode(hmac.digest(secret.encode(), id.encode(), algorithm)).decode().rstrip("=")


def b64(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


FOREIGN = {
    "SHA-1": f"s:{VICTIM}.{hmac64('sha1')}",
    "SHA-512": f"s:{VICTIM}.{hmac64('sha512')}",
    "SHA-512, cut": f"s:{VICTIM}.{hmac64('sha512')[:43]}",
    "plain hash": f"s:{VICTIM}." + base64.b64encode(hashlib.sha256((VICTIM + SECRET).encode()).digest()).decode()[:43],
    "HMAC with id and secret swapped": f"s:{VICTIM}.{hmac64('sha256', VICTIM, SECRET)}",
    "no prefix": f"{VICTIM}.{SIGNATURE}",
    "express' JSON cookie": f'j:{{"name":"victim","id":"{VICTIM}"}}',
    "JWT without algorithm": f"{b64('{}')}.{b64('victim')}.",
    "flask": f"{b64('victim')}.aR2bTg.{hmac64('sha1')}",
    "django": f"{b64('victim')}:1vN0Xy:{hmac64('sha256')}",
    "base64 of JSON": b64('{"name":"victim"}'),
}


@row("B1")
@pytest.mark.parametrize(
    "value",
    [encoded(SIGNED), encoded(SIGNED).replace("%3A", "%3a"), SIGNED, encoded(SIGNED).replace("%2B", "+")],
    ids=["encoded", "lower-case escapes", "raw", "literal plus"],
)
def test_every_spelling_of_our_value_is_the_same_session(scene: Scene, value: str) -> None:
    """Proxies re-encode; and the ``+`` of base64 is not a space, as it would be in a form."""
    assert "+" in SIGNATURE
    assert "/" in SIGNATURE
    scene.ok(f"{NAME}={value}")
    scene.kept()


@row("B2", "P12")
@pytest.mark.parametrize("value", UNDECODABLE)
def test_bad_and_double_encodings_are_no_session(scene: Scene, value: str) -> None:
    """Decoded at most once, and never reflected into a header (`Scene.ask` looks at each)."""
    scene.new(f"{NAME}={value}")


@row("B2")
@pytest.mark.parametrize("value", ["%zz%41", "%41%", "%41%4", "%41%ff", "%c3%28", "%41%u003A", "%ed%a0%80"])
def test_text_that_does_not_decode_stays_as_it_is(value: str) -> None:
    """As a whole, like decodeURIComponent: half decoded, it would be a third reading of one cookie."""
    assert [cookies.decode(read) for read in cookies.read(f"{NAME}={value}", NAME)] == [value]


@row("B3")
def test_one_pair_of_quotes_is_dropped(scene: Scene) -> None:
    """As npm's cookie does."""
    scene.ok(f'{NAME}="{encoded(SIGNED)}"')


@row("B3")
@pytest.mark.parametrize(
    "value",
    [
        f'"\\163{SIGNED[1:]}"',
        f'"s\\072{SIGNED[2:]}"',
        f'""{SIGNED}""',
        f'"{SIGNED}',
        f'{SIGNED}"',
        '"',
        '""',
        f"'{SIGNED}'",
    ],
)
def test_octal_escapes_and_half_quotes_are_not_decoded(scene: Scene, value: str) -> None:
    """``http.cookies`` decodes ``\\163``, browsers and npm's cookie do not: two readings of one cookie are a hole."""
    scene.new(f"{NAME}={value}")


@row("B5")
@pytest.mark.parametrize("header", NAMELESS)
def test_a_nameless_cookie_is_not_ours(scene: Scene, header: str) -> None:
    """``=connect.sid=...`` lets a sibling domain plant a cookie under a protected name (CVE-2023-23934)."""
    scene.new(header)


@row("B6")
@pytest.mark.parametrize("name", OTHER_NAMES)
def test_a_name_is_never_decoded_folded_or_mangled(scene: Scene, name: str) -> None:
    """CVE-2020-7070 and CVE-2022-31629 were PHP doing so.  The second name takes `read` past its short cut."""
    scene.new(f"{name}={encoded(SIGNED)}; {NAME}=x")


@row("B6")
@pytest.mark.parametrize(
    "name", ["__host-sid", "__HOST-sid", "..Host-sid", "__%48ost-sid", "=__Host-sid", "==__Host-sid", ""]
)
def test_a_lookalike_of_a_prefixed_name_is_not_ours(scene: Scene, name: str) -> None:
    """Browsers guard ``__Host-``; a name that only turns into it here would bypass them."""
    scene.new(f"{name}={encoded(SIGNED)}", name="__Host-sid")
    scene.ok(f"__Host-sid={encoded(SIGNED)}", name="__Host-sid")


@row("B7")
@pytest.mark.parametrize("junk", JUNK)
def test_junk_around_ours_does_not_hide_it(scene: Scene, junk: str) -> None:
    """Each of these makes ``http.cookies`` lose our cookie, or raise."""
    for header in (f"{junk}; {OURS}", f"{junk};{OURS};{junk}", f"{OURS}; {junk}", f"\t{OURS}\t;", f"; {OURS} ;"):
        scene.ok(header)
    scene.kept()


@row("B8")
@pytest.mark.parametrize(
    "forged", [f"{NAME}=junk", f"{NAME}={FORGED['truncated']}", NAME, f"{NAME}=", signed("unknown")]
)
def test_a_tossed_cookie_does_not_lock_the_user_out(scene: Scene, forged: str) -> None:
    """A sibling subdomain can add a cookie of our name, and the order is its choice."""
    known = 2 if forged == signed("unknown") else 1
    scene.ok(f"{forged}; {OURS}", loads=known)
    scene.ok(f"{OURS}; {forged}")
    scene.kept()


@row("B9")
def test_of_two_valid_sessions_the_first_is_it(scene: Scene) -> None:
    """Deterministic, and the two are never merged."""
    scene.put(RECORD.replace(b"victim", b"second"), "second")
    reply = scene.ok(f"{OURS}; {signed('second')}", environ={"QUERY_STRING": "write"})
    assert reply.verbs == ["load", "replace"]
    assert scene.ask(f"{signed('second')}; {OURS}").body == "second"
    stored = scene.backend.load("second")
    assert stored is not None
    assert b"mark" not in stored.data


@row("B9")
def test_at_most_3_verified_cookies_reach_the_store(scene: Scene) -> None:
    """Whoever has old cookies of ours could otherwise make one request cost 16 loads."""
    unknown = [signed(f"unknown-{number}") for number in range(3)]
    scene.ok("; ".join([*unknown[:2], *unknown[:2], OURS]), loads=3)
    scene.new("; ".join([*unknown, OURS]), loads=3)


@row("B10")
def test_at_most_16_cookies_of_our_name_are_verified(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """An HMAC each, and a header holds thousands."""
    hmacs = []
    sign = signing._signature
    monkeypatch.setattr(signing, "_signature", lambda mac, id: hmacs.append(id) or sign(mac, id))

    def forged(number: int) -> str:
        return f"{NAME}=s:{number}.{'x' * 43}; "

    scene.ok("".join(map(forged, range(15))) + OURS)
    assert len(hmacs) == 16
    hmacs.clear()
    assert scene.ask("".join(map(forged, range(100, 2100))) + OURS).verbs == []
    assert len(hmacs) == 16


@row("B11")
@pytest.mark.parametrize("header", [f"a=1, {OURS}", f"{OURS}, b=2", f"{OURS}, {OURS}"])
def test_cookie_headers_joined_by_a_comma_are_not_split(scene: Scene, header: str) -> None:
    """Waitress joins repeated headers so; a comma may be part of a value, and front ends must join with ``;``."""
    scene.new(header)


BIG = {
    "20k pairs": "a=1; " * 20_000,
    "20k pairs of our name": f"{NAME}=x; " * 17_000,
    "16k escapes": f"{NAME}=" + "%41" * 83_000,
    "16k bad escapes": f"{NAME}=" + "%zz" * 83_000,
    "16k octals": f'{NAME}="' + "\\163" * 60_000 + '"',
    "quotes": f"{NAME}=" + '"' * 250_000,
    "dots": f"{NAME}=s:" + "." * 250_000,
    "semicolons": NAME + ";" * 250_000,
    "spaces": NAME + " " * 250_000 + "=",
    "equals": NAME + "=" * 250_000,
}


@row("B12")
@pytest.mark.parametrize("header", BIG.values(), ids=BIG)
def test_a_header_as_long_as_servers_take_is_answered(scene: Scene, header: str) -> None:
    """``http.cookies`` takes a second for 16k escapes, and grows with their square (CVE-2024-7592)."""
    scene.new(header)


CHARACTERS = ["\x00", "\x01", "\x7f", "\x85", "\xa0", "\r", "\n", "\r\n", "\u2603", "\ud800", "\udfff"]


@row("B13")
@pytest.mark.parametrize("character", CHARACTERS, ids=ascii)
def test_control_and_foreign_characters_are_no_session(scene: Scene, character: str) -> None:
    """A broken server passes anything: no UnicodeEncodeError, no TypeError of compare_digest, no strip()."""
    for value in (
        character,
        f"{SIGNED}{character}",
        f"{character}{SIGNED}",
        SIGNED.replace(".", f"{character}."),
        SIGNED[:-1] + character,
    ):
        scene.new(f"{NAME}={value}")
    scene.ok(f"{character}=1; {OURS}; a={character}")


@row("B14")
@pytest.mark.parametrize("header", [None, 5, OURS.encode(), [OURS], [("Cookie", OURS)]], ids=repr)
def test_a_header_that_is_not_a_str_is_no_session(scene: Scene, header: object) -> None:
    """A server's bug, and no reason to fail."""
    scene.new(environ={"HTTP_COOKIE": header})


@row("B15", "P2")
@pytest.mark.parametrize("value", UNSIGNED)
def test_an_unsigned_id_never_reaches_the_store(scene: Scene, value: str) -> None:
    """Else the store's answers, or their timing, would tell who is there."""
    scene.new(f"{NAME}={value}")
    scene.new(f"{NAME}={encoded(value)}")


@row("B16", "P2")
@pytest.mark.parametrize("value", FORGED.values(), ids=FORGED)
def test_a_signature_that_is_nearly_right_is_wrong(scene: Scene, value: str) -> None:
    """Compared as text, in full: a decoder would forgive padding, alphabet and length."""
    scene.new(f"{NAME}={encoded(value)}")
    if value.isascii() and "\n" not in value:
        scene.new(f'{NAME}="{value}"')


@row("B16")
def test_no_other_last_character_and_no_flipped_bit_verifies() -> None:
    """Four last characters of unpadded base64 decode to the same 32 bytes; one of them is the signature's."""
    signer = Signer(SECRET)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_="
    right = [c for c in alphabet if signer.verify(SIGNED[:-1] + c)]
    assert right == [SIGNED[-1]]
    for at in range(2, len(SIGNED)):
        for bit in range(8):
            assert signer.verify(SIGNED[:at] + chr(ord(SIGNED[at]) ^ 1 << bit) + SIGNED[at + 1 :]) is None


@row("B18")
@pytest.mark.parametrize(
    "secret", [OLD_SECRET, VICTIM, b"\0"], ids=["removed", "the id", "NUL, which HMAC pads an empty key to"]
)
def test_a_signature_by_another_secret_is_wrong(scene: Scene, secret: str | bytes) -> None:
    """A secret that was taken off the list signs nothing any more."""
    scene.new(signed(VICTIM, secret))


@row("B18", "P15")
def test_a_listed_old_secret_verifies_and_the_cookie_is_signed_anew(scene: Scene) -> None:
    """Secrets rotate without logging anybody out."""
    reply = scene.ok(signed(VICTIM, OLD_SECRET), secret=[SECRET, OLD_SECRET])
    assert any(value.startswith(f"{OURS};") for _, value in reply.headers)
    assert not scene.ok(OURS, secret=[SECRET, OLD_SECRET]).ids


@row("B19", "P2")
@pytest.mark.parametrize("value", FOREIGN.values(), ids=FOREIGN)
def test_there_is_no_other_algorithm_and_no_fallback(scene: Scene, value: str) -> None:
    """A cookie that chooses how it is verified verifies itself."""
    scene.new(f"{NAME}={encoded(value)}")


@row("B20", "C4")
def test_a_cookie_of_another_middleware_is_no_session_here(scene: Scene) -> None:
    """One secret, another name: not read.  Apps are kept apart by stores."""
    scene.new(OURS, name="other")
    other = Scene(scene.caplog)
    other.backend.delete(VICTIM)
    other.before = None
    other.new(OURS, loads=1)


PLACES = {
    "query": {"QUERY_STRING": f"{OURS}&{NAME}={VICTIM}"},
    "form": {"REQUEST_METHOD": "POST", "CONTENT_TYPE": "application/x-www-form-urlencoded", "QUERY_STRING": ""},
    "path": {"PATH_INFO": f"/;{OURS}", "SCRIPT_NAME": f"/{OURS}"},
    "Authorization": {"HTTP_AUTHORIZATION": f"Bearer {SIGNED}"},
    "X-Session-Id": {"HTTP_X_SESSION_ID": SIGNED, "HTTP_CONNECT_SID": SIGNED},
    "Set-Cookie": {"HTTP_SET_COOKIE": OURS, "HTTP_COOKIE2": OURS},
    "server variables": {"connect.sid": SIGNED, "COOKIE": OURS, "REMOTE_USER": "victim"},
}


@row("B22")
@pytest.mark.parametrize("environ", PLACES.values(), ids=PLACES)
def test_an_id_outside_the_cookie_header_is_ignored(scene: Scene, environ: dict[str, str]) -> None:
    """Ids in URLs and forms leak, and let others plant them."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        assert len(get_session(environ)) == 0
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"nobody"]

    assert scene.ask(environ=environ, app=app).verbs == []
    scene.kept()


@row("B22")
def test_the_id_leaves_in_set_cookie_alone(scene: Scene) -> None:
    """HttpOnly hides it from scripts: then no other header, and no text of ours, may show it."""
    shown: list[str] = []

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        session = get_session(environ)
        session["a"] = 1
        shown.extend([session.id, repr(session), repr(session.cookie), str(session), session.handle])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return []

    reply = scene.ask(app=app)
    id, *texts = shown
    assert reply.ids == [id]
    assert not [text for text in texts if id in text]
    assert id not in scene.caplog.text
    assert [name for name, value in reply.headers if id in value] == ["Set-Cookie"]
    assert "HttpOnly" in dict(reply.headers)["Set-Cookie"]


@row("P3")
@every_store
@pytest.mark.parametrize("id", ["A" * 32, VICTIM.lower(), "x"])
def test_a_signed_id_that_the_store_does_not_know_is_never_adopted(scene: Scene, id: str) -> None:
    """Fixation: whoever planted it would know the victim's id."""
    scene.new(signed(id), loads=1)
    assert scene.backend.load(id) is None


# A10: ids that collide


def writing(verb: Callable[[Session], object]) -> WSGIApplication:
    """An app that does ``verb`` with its session."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        verb(get_session(environ))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return []

    return app


def mark(session: Session) -> None:
    session["mark"] = 1


def regenerate(session: Session) -> None:
    session.regenerate(user="mallory")


@row("A10")
@every_store
@pytest.mark.parametrize("verb", [mark, regenerate, Session.save])
def test_an_id_that_is_taken_is_never_opened_or_overwritten(scene: Scene, verb: Callable[[Session], object]) -> None:
    """Creating is another verb than replacing: a collision costs another id."""
    ids = iter([VICTIM, VICTIM, "fresh"])
    reply = scene.ask(app=writing(verb), genid=lambda environ: next(ids))
    assert reply.ids == ["fresh"]
    assert reply.verbs == ["create", "create", "create"]
    scene.kept()


@row("A10")
@every_store
@pytest.mark.parametrize("verb", [mark, regenerate, Session.save])
def test_a_generator_stuck_on_a_taken_id_is_an_error(scene: Scene, verb: Callable[[Session], object]) -> None:
    """Bounded tries, and nothing is stored; a session that was to be replaced stands."""
    with pytest.raises(SessionError, match=r"genid returned .* that are taken"):
        scene.ask(app=writing(verb), genid=lambda environ: VICTIM)
    scene.kept()
    with pytest.raises(SessionError):
        scene.ask(OURS, app=writing(regenerate), genid=lambda environ: VICTIM)
    scene.kept()


@row("A10")
def test_the_id_is_read_only(scene: Scene) -> None:
    """An app cannot adopt an id by mistake."""
    with pytest.raises(AttributeError):
        scene.ask(OURS, app=writing(lambda session: setattr(session, "id", "x")))
    with pytest.raises(AttributeError):
        scene.ask(OURS, app=writing(lambda session: setattr(session, "user", "root")))
    scene.kept()


@row("A10")
@every_store
def test_an_id_taken_from_the_request_is_still_only_created(scene: Scene) -> None:
    """The worst generator there is does not open another's session."""
    for verb in (mark, regenerate):
        with pytest.raises(SessionError, match="taken"):
            scene.ask(app=writing(verb), genid=lambda environ: environ["HTTP_X_ID"], environ={"HTTP_X_ID": VICTIM})
    scene.kept()
    assert list(scene.backend.ids("mallory")) == []


# C: hostile ids with the right signature

SHAPES = [
    *(
        "../../etc/passwd",
        "..\\x",
        "/abs",
        "a\x00b",
        "'; DROP TABLE sessions--",
        "' OR 1=1--",
        "%",
        "_",
        "%00",
        "a.b.c",
    ),
    *("*", "?", "[a]", "{tag}", "x}y{", "\r\nFLUSHALL\r\n", "$5\r\n", "sess:x", f"sess:{VICTIM}", "user:alice"),
    *(
        "minisession:user:sess:alice",
        "__proto__",
        "constructor",
        "None",
        "connect.sid",
        "s:x",
        "j:{}",
        "%s%n{0}",
        "${jndi:x}",
    ),
]
SIMILAR = [
    *(
        "\U0001f600" * 30,
        "\u05d0\u202e\u0644",
        "e\u0301" * 50,
        "\u0130",
        "\x85",
        " ",
        "\t",
        "\x7f",
        "\ufeff",
        "\U0010ffff",
        "x" * 255,
    ),
    *(
        VICTIM.upper(),
        VICTIM.lower(),
        VICTIM.swapcase(),
        f"{VICTIM} ",
        f" {VICTIM}",
        f"{VICTIM}\n",
        f"{VICTIM}\0",
        f"{VICTIM}=",
    ),
    *(VICTIM[:-1], f"{VICTIM}x", VICTIM.replace("V", "\uff36"), f"{VICTIM}\u200b"),
]


@row("C1", "C2", "C3", "P12")
@every_store
@pytest.mark.parametrize("id", [*SHAPES, *SIMILAR], ids=ascii)
def test_a_signed_id_of_any_shape_is_merely_unknown(scene: Scene, id: str) -> None:
    """Ids are keys, bound and binary-safe; a leaked secret opens no file, query or command."""
    scene.new(signed(id), loads=1)
    assert set(scene.backend.ids()) - {VICTIM}
    assert scene.backend.load(id) is None
    assert len(id) < 4 or id in NAME or id not in scene.caplog.text


@row("C3")
@pytest.mark.parametrize("id", ["", "x" * 256, "." * 256, "\U0001f600" * 256, "x" * 10**6, "." * 10**6], ids=range(6))
def test_an_id_that_was_never_issued_is_not_even_verified(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, id: str
) -> None:
    """Empty (CVE-2015-3982) or over 255 characters: no HMAC of a megabyte, no load."""
    header = signed(id)
    monkeypatch.setattr(signing, "_signature", lambda mac, id: pytest.fail("computed an HMAC"))
    assert scene.ask(header).verbs == []
    scene.kept()


@row("C4")
@every_store
def test_an_expired_id_is_unknown(scene: Scene) -> None:
    """It ends on the server; what the browser keeps does not matter."""
    scene.ok(OURS)
    scene.later(86400)
    scene.before = None
    scene.new(OURS, loads=1)


@row("C4")
@every_store
def test_a_destroyed_id_is_unknown(scene: Scene) -> None:
    """Logging out ends the session, not only the cookie."""
    scene.ask(OURS, app=writing(Session.destroy))
    scene.before = None
    scene.new(OURS, loads=1)


@row("C4")
@every_store
def test_a_replaced_id_is_a_tombstone_and_then_unknown(scene: Scene) -> None:
    """Late requests neither revive it nor overwrite the cookie that log-in just set."""
    scene.ask(OURS, app=writing(regenerate))
    late = scene.ask(OURS, environ={"QUERY_STRING": "write"})
    assert (late.body, late.ids, late.verbs) == ("nobody", [], ["load"])
    scene.later(15)
    scene.before = None
    scene.new(OURS, loads=1)


# The same, as bytes over a socket to waitress

RAW: list[tuple[str, str, int]] = [
    *((f"{NAME}={value}", "nobody", 0) for value in [*UNDECODABLE, *UNSIGNED, *FOREIGN.values()]),
    *((f"{NAME}={encoded(value)}", "nobody", 0) for value in FORGED.values()),
    *((header, "nobody", 0) for header in NAMELESS),
    *((f"{name}={encoded(SIGNED)}", "nobody", 0) for name in OTHER_NAMES),
    *((f"{junk}; {OURS}; {junk}", "victim", 1) for junk in JUNK),
    *((signed(id), "nobody", 1) for id in [*SHAPES, *SIMILAR]),
    *((header, "nobody", 0) for header in BIG.values()),
    (f"{NAME}={SIGNED}", "victim", 1),
    (f"a=1\r\nCookie: {OURS}", "nobody", 0),
]


class Wire(NamedTuple):
    port: int
    store: SpyStore

    def send(self, header: bytes) -> tuple[int, bytes, bytes]:
        """Return status, headers and body of the answer to a request with this ``Cookie`` header."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\nCookie: " + header + b"\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), head, body


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    store = SpyStore()
    app = SessionMiddleware(peek, secret=SECRET, store=store, clock=Clock())
    server: Any = create_server(app, host="127.0.0.1", port=0, threads=1)
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    yield Wire(server.effective_port, store)
    server.trigger.pull_trigger(server.close)
    thread.join(10)
    server.task_dispatcher.shutdown()


@pytest.fixture
def victim(wire: Wire, scene: Scene) -> Scene:
    """A fresh victim, and its log, behind the running server."""
    wire.store.store = scene.backend
    wire.store.calls.clear()
    return scene


@pytest.mark.parametrize(("header", "body", "loads"), RAW, ids=range(len(RAW)))
def test_a_header_over_a_socket_is_answered_alike(
    wire: Wire, victim: Scene, header: str, body: str, loads: int
) -> None:
    """What a server makes of the bytes on its way to us is part of the input."""
    raw = header.encode("latin-1", "replace")
    status, head, answered = wire.send(raw)
    if status == 200:
        assert (answered, wire.store.verbs) == (body.encode(), ["load"] * loads)
    else:  # waitress itself refuses control characters
        assert status == 400
        assert re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", raw)
    assert b"set-cookie" not in head.lower()
    victim.kept()
    victim.check_log()


@row("B13")
@pytest.mark.parametrize("raw", [bytes([code]) for code in (0, 1, 10, 13, 127, 133, 160, 255)])
def test_raw_bytes_over_a_socket_are_no_session(wire: Wire, victim: Scene, raw: bytes) -> None:
    """Whatever byte: refused by the server or no session, and never a 500."""
    for header in (raw, NAME.encode() + b"=" + raw, f"{NAME}={SIGNED}".encode() + raw, raw * 1000):
        status, head, body = wire.send(header)
        assert status == 400 or (status, body) in [(200, b"nobody"), (200, b"victim")]
        assert (status, body) != (200, b"victim") or raw in (b"\n", b"\r", b"")
        assert b"set-cookie" not in head.lower()
    victim.kept()
    victim.check_log()


# F: damaged and foreign records


def stored(member: str) -> bytes:
    """A record with one more member."""
    return RECORD[:-1] + f",{member}}}".encode()


CORRUPT = {
    "blank": b" ",
    "brace": b"{",
    "null": b"null",
    "true": b"true",
    "number": b"7",
    "text": b'"x"',
    "list": b"[]",
    "list of one": b"[1]",
    "no cookie": b"{}",
    "cookie is null": b'{"cookie":null}',
    "cookie is a list": b'{"cookie":[]}',
    "ours is text": b'{"cookie":{},"minisession":"x"}',
    "ours is null": b'{"cookie":{},"minisession":null}',
    "lifetime is text": b'{"cookie":{"originalMaxAge":"60000"}}',
    "lifetime is true": b'{"cookie":{"originalMaxAge":true}}',
    "lifetime is negative": b'{"cookie":{"originalMaxAge":-1}}',
    "user is a number": b'{"cookie":{},"minisession":{"user":7}}',
    "user is empty": b'{"cookie":{},"minisession":{"user":""}}',
    "user is a list": b'{"cookie":{},"minisession":{"user":["root"]}}',
    "created is text": b'{"cookie":{},"minisession":{"created":"x"}}',
    "created is before 1970": b'{"cookie":{},"minisession":{"created":-1}}',
    "trailing garbage": RECORD + b"x",
    "two records": RECORD + RECORD,
    "trailing NUL": RECORD + b"\0",
    "last cookie wins": b'{"cookie":{},"cookie":5}',
    "5000 digits": stored('"n":' + "9" * 5000),
}
NOT_JSON = {
    "latin-1": RECORD.replace(b"victim", b"victim\xe9"),
    "overlong": RECORD.replace(b"victim", b"\xc0\xaf"),
    "surrogate bytes": RECORD.replace(b"victim", b"\xed\xa0\x80"),
    "UTF-16": RECORD.decode().encode("utf-16"),
    "UTF-32": RECORD.decode().encode("utf-32"),
    "BOM": b"\xef\xbb\xbf" + RECORD,
    "gzip": gzip.compress(RECORD),
    "PHP": b'name|s:6:"victim";',
    "msgpack": b"\x82\xa6cookie\x80\xa4name\xa6victim",
    "another app's JSON": b'{"_auth_user_id":"1","name":"victim"}',
    "another app's cookie": b'{"cookie":"yes","name":"victim"}',
    "HTML": b"<!doctype html>",
}
INFINITE = [
    *(
        stored(f'"n":{number}').decode()
        for number in ("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "[NaN]", '{"a":-Infinity}')
    ),
    *(f'{{"cookie":{{"originalMaxAge":{number}}}}}' for number in ("NaN", "Infinity", "-Infinity", "1e400", "1e300")),
    *(
        f'{{"cookie":{{}},"minisession":{{"created":{number}}}}}'
        for number in ("NaN", "Infinity", "-Infinity", "1e400", "1e300")
    ),
]


@row("F1", "P11")
@every_store
@pytest.mark.parametrize("data", CORRUPT.values(), ids=CORRUPT)
def test_a_corrupt_record_is_a_new_session_and_one_warning(scene: Scene, data: bytes) -> None:
    """Damage in the store is no outage, and the evidence is kept."""
    scene.put(data)
    scene.ask(OURS)
    [warning] = scene.warnings
    assert "not loaded: its record is not a session" in warning
    scene.new(OURS, loads=1)


@row("F1")
@every_store
def test_a_record_cut_anywhere_is_no_session(scene: Scene) -> None:
    """A torn write."""
    for length in range(1, len(RECORD)):
        with pytest.raises(ValueError):  # noqa: PT011  # the parser's message, whichever
            record.decode(RECORD[:length])
    for length in (1, 70, len(RECORD) - 1):
        scene.put(RECORD[:length])
        scene.new(OURS, loads=1)
        assert len(scene.warnings) == 2  # one for each of two requests


@row("F1")
@every_store
def test_an_empty_record_is_a_tombstone(scene: Scene) -> None:
    """Nothing implicit is stored for it, and it is nothing to warn of."""
    scene.put(b"")
    reply = scene.ask(OURS, environ={"QUERY_STRING": "write"})
    assert (reply.body, reply.verbs, reply.ids) == ("nobody", ["load"], [])
    scene.kept()


@row("F2")
@every_store
@pytest.mark.parametrize("data", NOT_JSON.values(), ids=NOT_JSON)
def test_a_foreign_record_is_a_new_session_and_one_warning(scene: Scene, data: bytes) -> None:
    """Whoever shares the store may write anything under our key."""
    scene.put(data)
    scene.new(OURS, loads=1)
    assert len(scene.warnings) == 2  # one for each of two requests


@row("F2", "P11")
@every_store
@pytest.mark.parametrize("protocol", range(5))
def test_a_pickle_is_never_loaded(scene: Scene, tmp_path: Path, protocol: int) -> None:
    """Who can write to the store must not run code here (CVE-2013-7489)."""
    import pickle

    canary = tmp_path / "canary"

    class Mkdir:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.mkdir, (canary,)

    scene.put(pickle.dumps({"cookie": {}, "x": Mkdir()}, protocol))
    scene.new(OURS, loads=1)
    assert not canary.exists()


@row("F3")
@every_store
@pytest.mark.parametrize("data", INFINITE)
def test_numbers_that_are_not_finite_are_refused(scene: Scene, data: str) -> None:
    """A session that ends at NaN would never end, and Express could not read what we write back."""
    scene.put(data.encode())
    scene.new(OURS, loads=1)
    assert len(scene.warnings) == 2


@row("F5")
@every_store
@pytest.mark.parametrize("depth", [2_000, 100_000])
@pytest.mark.parametrize("shape", [("[", "]"), ('{"a":', "}"), ("[", "")], ids=["lists", "dicts", "unclosed"])
def test_depth_is_no_crash(scene: Scene, depth: int, shape: tuple[str, str]) -> None:
    """RecursionError is no ValueError, and json raises it."""
    before, after = shape
    scene.put(stored(f'"n":{before * depth}1{after * depth}' if after else f'"n":{before * depth}'))
    scene.new(OURS, loads=1, max_bytes=10_000_000)


TOO_LARGE = {
    "64 MB": RECORD + b" " * 64_000_000,
    "a million keys": stored(",".join(f'"{n}":0' for n in range(1_000_000))),
    "deep": stored('"n":' + "[" * 70_000),
}


@row("F5")
@pytest.mark.parametrize(
    ("scene", "data"),
    [
        pytest.param(store, data, id=f"{store}, {name}")
        for name, data in TOO_LARGE.items()
        for store in (["memory"] if name == "64 MB" else ["memory", "sqlite", "redis"])
    ],
    indirect=["scene"],
)
def test_a_record_over_max_bytes_is_not_even_parsed(scene: Scene, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """JSON takes 20 times its size as objects."""
    monkeypatch.setattr(record, "decode", lambda data: pytest.fail("parsed"))
    scene.put(data)
    scene.new(OURS, loads=1)
    assert all("max_bytes is 65536" in warning for warning in scene.warnings)


@row("F5")
@every_store
def test_a_record_of_max_bytes_is_loaded(scene: Scene) -> None:
    """The limit is a limit, and not one less."""
    scene.ok(OURS, max_bytes=len(RECORD))
    assert scene.ask(OURS, max_bytes=len(RECORD) - 1).body == "nobody"


@row("F5")
@every_store
@pytest.mark.parametrize(
    "value", ["[" * 201 + "]" * 201, "[" * 900 + "]" * 900, f"[{'9' * 4290}]"], ids=["201", "900", "digits"]
)
def test_what_loads_can_be_read_and_stored(scene: Scene, value: str) -> None:
    """Never a 500: neither for an app that only reads, nor for one that changes another key."""
    scene.put(stored(f'"n":{value}'))

    def read(session: Session) -> None:
        session.get("n")

    scene.ask(OURS, app=writing(read))
    scene.ask(OURS, app=writing(mark))


@row("F3")
@every_store
def test_a_refused_number_is_not_logged(scene: Scene) -> None:
    """No log line ever holds data, and 60 kB of digits are no log line."""
    scene.put(stored(f'"card":4242424242424242{"0" * 400}.0'))
    scene.ask(OURS)
    assert "4242424242424242" not in scene.caplog.text


@row("F2")
def test_a_user_that_does_not_encode_is_refused() -> None:
    """`regenerate` refuses such a user; `Store.replace` and `touch` would get it, and SQLite and Redis raise."""
    with pytest.raises(ValueError, match="user"):
        record.decode(rb'{"cookie":{},"minisession":{"user":"\ud800"}}')


@row("F9", "P11")
@pytest.mark.parametrize("scene", ["redis"], indirect=True)
def test_a_key_of_another_type_is_a_new_session_and_one_warning(scene: Scene, redis_server: Any) -> None:
    """Never a 503; and whose it is finds it as it was, whatever the session's page does."""
    scene.backend.delete(VICTIM)
    scene.before = None
    redis_server.client.rpush(f"sess:{VICTIM}", "data")
    scene.ask(OURS)
    [warning] = scene.warnings
    assert "not loaded: its key in Redis" in warning
    scene.new(OURS, loads=1)
    for verb in (regenerate, Session.save, Session.touch, Session.destroy):
        assert scene.ask(OURS, app=writing(verb)).status == "200 OK"
    with pytest.raises(SessionError, match="taken"):
        scene.ask(app=writing(mark), genid=lambda environ: VICTIM)
    assert redis_server.client.lrange(f"sess:{VICTIM}", 0, -1) == [b"data"]


def created(at: float) -> bytes:
    return RECORD.replace(b"1794999000", str(at).encode())


@row("F8")
@every_store
def test_a_session_over_its_absolute_timeout_is_over(scene: Scene) -> None:
    """Also where the store still has it: the limit may be newer than the record."""
    scene.put(created(scene.clock() - 99))
    scene.ok(OURS, absolute_timeout=100)
    scene.put(created(scene.clock() - 100))
    scene.new(OURS, loads=1, absolute_timeout=100)


@row("F8")
@every_store
def test_a_record_without_created_gets_one_at_the_first_look(scene: Scene) -> None:
    """Express writes none, and an absolute timeout needs a start."""
    scene.put(b'{"cookie":{},"name":"victim"}')
    scene.ok(OURS, absolute_timeout=100)
    scene.later(99)
    scene.ok(OURS, absolute_timeout=100)
    scene.later(1)
    scene.before = None
    scene.new(OURS, loads=1, absolute_timeout=100)


@row("F8")
@every_store
@pytest.mark.parametrize("ahead", [1, 1e6, 1e12, 1e299])
def test_a_session_created_in_the_future_loads_as_created_now(scene: Scene, ahead: float) -> None:
    """Clocks differ; and the year 33658 is no reason to fail."""
    scene.put(created(scene.clock() + ahead))
    seen: list[float] = []
    scene.ask(OURS, app=writing(lambda session: seen.append(session.created_at.timestamp())), absolute_timeout=100)
    assert seen == [scene.clock()]


@row("F8")
@every_store
def test_a_session_created_in_1970_can_be_stored_and_loaded(scene: Scene) -> None:
    """Rounded to milliseconds, its beginning would be 0, which is no time, and the session lost."""
    scene.put(created(0.0004))
    assert scene.ask(OURS, environ={"QUERY_STRING": "write"}).body == "victim"
    scene.ok(OURS)


@row("F8")
@every_store
def test_created_in_the_future_never_lengthens_a_life(scene: Scene) -> None:
    """Looked at again and again, it must still end at the absolute timeout."""
    scene.put(created(scene.clock() + 1e6))
    for _ in range(3):
        assert scene.ask(OURS, absolute_timeout=9000).body == "victim"
        scene.later(3000)
    assert scene.ask(OURS, absolute_timeout=9000).body == "nobody"


# A: what the app stores


class Proxy:
    """Says that it is what it stands for, as Werkzeug's LocalProxy and Django's SimpleLazyObject do."""

    def __init__(self, target: Any) -> None:
        self._target = target

    @property  # type: ignore[misc]  # which others can set
    def __class__(self) -> Any:
        return type(self._target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
DEEP: list[Any] = []
for _ in range(2000):
    DEEP = [DEEP]

UNFIT: dict[str, tuple[object, str]] = {
    "bytes": (b"x", "a bytes.*hex"),
    "bytearray": (bytearray(b"x"), "a bytearray"),
    "set": ({1}, "a set.*sorted"),
    "frozenset": (frozenset({1}), "a frozenset.*sorted"),
    "datetime": (datetime.datetime(2026, 1, 1), "a datetime.*isoformat"),
    "date": (datetime.date(2026, 1, 1), "a date.*isoformat"),
    "Decimal": (decimal.Decimal("1.10"), "a Decimal.*str"),
    "UUID": (uuid.UUID(int=5), "(a|an) UUID.*str"),
    "object": (object(), "an object.*its parts"),
    "class": (dict, "a type"),
    "function": (len, "a builtin_function"),
    "iterator": (iter([]), "a list_iterator"),
    "tuple": ((1, 2), "a tuple.*list"),
    "named tuple": (Reply("", [], "", []), "a Reply"),
    "complex": (1j, "a complex"),
    "bytes in a dict of another class": (OrderedDict(a=[b"x"]), "a bytes.*hex"),
    **{
        f"proxy of {value!r}": (Proxy(value), "a Proxy.*its parts")
        for value in ("text", 1, 1.5, True, None, [1], {"a": 1})
    },
    "int key": ({1: "a"}, "key of type int.*str"),
    "int key beside its str": ({1: "a", "1": "b"}, "key of type int"),
    "None key": ({None: 1}, "key of type NoneType"),
    "bool key": ({True: 1}, "key of type bool"),
    "tuple key": ({(1, 2): 1}, "key of type tuple"),
    "bytes key": ({b"a": 1}, "key of type bytes"),
    "NaN": (float("nan"), "nan"),
    "inf": (float("inf"), "inf"),
    "-inf": (float("-inf"), "-inf"),
    "cycle": (CYCLE, "holds itself"),
    "depth": (DEEP, "200 deep"),
    "half pair": ("\ud800", "surrogate"),
    "half pair, nested": ({"a": ["\udfff"]}, "surrogate"),
    "half pair as a key": ({"\ud800": 1}, "surrogate"),
    "digits": (10**5000, "thousands of digits.*hex"),
    "minus digits": (-(10**5000), "thousands of digits"),
}


@row("A7")
@pytest.mark.parametrize(("value", "message"), UNFIT.values(), ids=UNFIT)
def test_what_json_does_not_hold_is_refused_as_it_is_assigned(scene: Scene, value: object, message: str) -> None:
    """Where the mistake is; never changed silently, and nothing of the request is stored."""
    ways: list[Callable[[Session], object]] = [
        lambda session: session.update({"mark": 1, "bag": value}),
        lambda session: session.__setitem__("bag", [{"deeper": value}]),
        lambda session: session.setdefault("bag", value),
    ]
    for way in ways:
        with pytest.raises(TypeError, match=f"(?s)session\\['bag'\\].* is .*{message}"):
            scene.ask(OURS, app=writing(way))
        scene.kept()
        assert "replace" not in scene.store.verbs
        with pytest.raises(TypeError):
            scene.ask(app=writing(way))
        assert len(scene.backend) == 1


@row("A7")
@pytest.mark.parametrize(
    ("value", "message"), [case for name, case in UNFIT.items() if not name.startswith("half")],
    ids=[name for name in UNFIT if not name.startswith("half")],
)  # fmt: skip
def test_what_json_does_not_hold_is_refused_at_commit(scene: Scene, value: object, message: str) -> None:
    """Appended to a list that was fine: found before the headers leave, whatever else was changed."""

    def append(session: Session) -> None:
        session.setdefault("cart", []).append(value)

    def append_and_remember(session: Session) -> None:
        append(session)
        session.cookie.max_age = 60

    for cookie, change in product((OURS, None), (append, append_and_remember)):
        with pytest.raises(TypeError, match=f"(?s)session\\['cart'\\].* is .*{message}"):
            scene.ask(cookie, app=writing(change))
    scene.kept()
    assert len(scene.backend) == 1


@row("A7")
@pytest.mark.parametrize("value", ["\ud83d\ude00", {"\ud83d\ude00": 1}], ids=["value", "key"])
def test_text_that_would_come_back_changed_is_refused_at_commit(scene: Scene, value: object) -> None:
    r"""``"\ud83d" + "\ude00"`` is stored as a pair, and read as the one character U+1F600."""
    with pytest.raises(TypeError, match="two halves"):
        scene.ask(OURS, app=writing(lambda session: session["cart"].append(value)))


@row("A7")
def test_a_key_that_does_not_encode_is_refused(scene: Scene) -> None:
    """As a value with one is."""
    with pytest.raises(TypeError):
        scene.ask(OURS, app=writing(lambda session: session.__setitem__("\ud800", 1)))


@row("A7")
@pytest.mark.parametrize("key", [1, None, True, 1.5, b"a", ("a", "b"), Proxy("a")], ids=lambda key: type(key).__name__)
def test_a_key_is_str(scene: Scene, key: Any) -> None:
    """JSON would make it one, and the next request would not find it."""
    with pytest.raises(TypeError, match="keys are str"):
        scene.ask(OURS, app=writing(lambda session: session.__setitem__(key, 1)))
    scene.kept()


@row("A7")
@pytest.mark.parametrize("user", [7, b"ada", True, ["ada"], Proxy("ada")], ids=lambda user: type(user).__name__)
def test_a_user_is_str(scene: Scene, user: Any) -> None:
    """An account's number is another user than its text."""
    with pytest.raises(TypeError, match=f"user must be str or None, not {type(user).__name__}: use str"):
        scene.ask(OURS, app=writing(lambda session: session.regenerate(user=user)))
    scene.kept()


@row("A7")
@pytest.mark.parametrize("key", ["cookie", "minisession"])
def test_the_records_own_keys_are_reserved(scene: Scene, key: str) -> None:
    """No value of the app's can become a lifetime or a user."""
    for way in (dict.__setitem__, dict.setdefault):
        verb = getattr(Session, way.__name__)
        with pytest.raises(ValueError, match="reserved"):
            scene.ask(OURS, app=writing(lambda session, verb=verb: verb(session, key, {"user": "root"})))  # type: ignore[misc]  # a lambda with a default
    scene.kept()


@row("A7", "T5")
def test_a_session_over_max_bytes_is_refused(scene: Scene) -> None:
    """Before the headers, and what was stored stays."""
    for cookie in (OURS, None):
        with pytest.raises(SessionTooLarge, match="max_bytes is 65536"):
            scene.ask(cookie, app=writing(lambda session: session.update(big="x" * 65536)))
    scene.kept()
    assert len(scene.backend) == 1


FIT: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**53,
    10**4000,
    0.1,
    1e308,
    5e-324,
    "",
    "\0",
    "\x7f\u2028",
    "\U0001f600",
    [],
    {},
    [[]],
    {"": {}},
    {"a": [1, True, None, "x"]},
]


@row("A7")
@pytest.mark.parametrize("value", FIT, ids=range(len(FIT)))
def test_what_json_holds_comes_back_the_same(scene: Scene, value: Any) -> None:
    """Value and type: ``1`` is not ``True`` and not ``1.0``."""
    scene.ask(OURS, app=writing(lambda session: session.__setitem__("v", value)))
    back: list[Any] = []
    scene.ask(OURS, app=writing(lambda session: back.append(session["v"])))
    assert repr(back) == repr([value]) if value != 10**4000 else back == [value]


def put(value: object) -> Callable[[Session], object]:
    return lambda session: session.__setitem__("cart", value)


def re_added(session: Session) -> None:
    cart = session.pop("cart")
    assert "cart" not in session
    session["cart"] = cart


def undone(session: Session) -> None:
    session["cart"].append(2)
    session["cart"].pop()


WORK: dict[str, tuple[Callable[[Session], object], dict[str, Any] | None]] = {
    "nested append": (lambda session: session["cart"].append(2), {"name": "victim", "cart": [1, 2]}),
    "nested through get": (lambda session: session.get("cart", []).append(2), {"name": "victim", "cart": [1, 2]}),
    "nested through values": (lambda session: list(session.values())[1].append(2), {"name": "victim", "cart": [1, 2]}),
    "1 to True": (put([True]), {"name": "victim", "cart": [True]}),
    "1 to 1.0": (put([1.0]), {"name": "victim", "cart": [1.0]}),
    "the same value": (put([1]), None),
    "deleted, and added again": (re_added, None),
    "done and undone": (undone, None),
    "read": (lambda session: (session["cart"], list(session), len(session), dict(session), session == {}), None),
    "setdefault, present": (lambda session: session.setdefault("cart", 5), None),
    "pop, absent": (lambda session: session.pop("x", None), None),
    "update by nothing": (lambda session: (len(session), session.update()), None),
    "deleted": (lambda session: session.__delitem__("cart"), {"name": "victim"}),
    "popped": (lambda session: session.pop("cart"), {"name": "victim"}),
    "clear": (lambda session: session.clear(), {}),
    "update": (lambda session: session.update({"a": 1}, b=2), {"name": "victim", "cart": [1], "a": 1, "b": 2}),
    "setdefault": (lambda session: session.setdefault("a", []).append(1), {"name": "victim", "cart": [1], "a": [1]}),
}


@row("A8")
@pytest.mark.parametrize(("work", "left"), WORK.values(), ids=WORK)
def test_every_change_is_noticed_and_nothing_else_is_written(
    scene: Scene, work: Callable[[Session], object], left: dict[str, Any] | None
) -> None:
    """By comparing texts, without a flag that an app could forget to set."""
    reply = scene.ask(OURS, app=writing(work))
    if left is None:
        assert reply.verbs == ["load"]
        scene.kept()
        return
    assert reply.verbs == ["load", "replace"]
    now = scene.backend.load(VICTIM)
    assert now is not None
    assert repr(record.decode(now.data).data) == repr(left)


@row("A8")
def test_a_session_is_a_dict_in_its_errors_too(scene: Scene) -> None:
    """KeyError for what is absent, RuntimeError for a change while iterating; neither spoils the session."""

    def work(session: Session) -> None:
        with pytest.raises(KeyError, match="x"):
            session["x"]
        with pytest.raises(KeyError, match="x"):
            del session["x"]
        with pytest.raises(KeyError):
            session.pop("x")
        keys = iter(session)
        session[next(keys) + "2"] = 1
        with pytest.raises(RuntimeError):
            next(keys)
        session.clear()
        with pytest.raises(KeyError):
            session.popitem()

    assert scene.ask(OURS, app=writing(work)).verbs == ["load", "replace"]


# Properties

anything = st.text(st.characters())  # half surrogate pairs, too
scraps = st.sampled_from(
    [NAME, VICTIM, SIGNATURE, SIGNED, OURS, "s:", "s%3A", "%41", "%zz", "%ff", "\\073", *'=;"%,. \t\0\ud800']
)
headers = st.one_of(
    anything, st.lists(st.one_of(scraps, st.text(max_size=3))).map("".join), anything.map(f"{NAME}=".__add__)
)
ids = st.text(min_size=1, max_size=255)
finite = st.floats(allow_nan=False, allow_infinity=False)
leaves = st.one_of(st.none(), st.booleans(), st.integers(), finite, st.text())
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
loose = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), anything),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["originalMaxAge", "created", "user", "cookie", "x"]), inner)
    ),
    max_leaves=10,
)

members = st.fixed_dictionaries({}, optional={"originalMaxAge": loose, "created": loose, "user": loose})


@row("B13")
@given(headers)
def test_any_text_is_read_as_a_cookie_header(header: str) -> None:
    """Never an exception, and 16 values at most."""
    assert len(list(cookies.read(header, NAME))) <= 16


@row("B15")
@given(headers)
def test_any_cookie_header_is_answered(header: str) -> None:
    """And the store is asked about nothing but what is signed."""
    store = SpyStore()
    answers: list[str] = []
    environ = {"HTTP_COOKIE": header, "QUERY_STRING": "write"}
    app = SessionMiddleware(peek, secret=SECRET, store=store)
    assert list(app(environ, lambda status, headers, exc_info=None: answers.append(status) or (lambda data: None))) == [
        b"nobody"
    ]
    assert answers == ["200 OK"]
    assert [call for call in store.calls if call[0] == "load" and call[1] != VICTIM] == []


@row("C3")
@given(ids)
@example("é!~*'() ;")
@example("%")
@example("\U0010ffff" * 255)
def test_any_id_survives_signing_and_the_header(id: str) -> None:
    """Custom generators return what they like."""
    value = cookies.write(NAME, Signer(SECRET).sign(id), rendered(Cookie(), True), 0, None).partition(";")[0]
    assert re.fullmatch(r"[\x21-\x7e]*", value)
    [read] = cookies.read(f"a=1; {value}; b=2", NAME)
    assert Signer(SECRET).verify(cookies.decode(read)) == (id, True)


@row("C3")
@given(
    st.one_of(
        anything,
        anything.map("s:".__add__),
        anything.map(SIGNED.__add__),
        st.builds("s:{}.{}".format, anything, anything),
    )
)
def test_any_text_can_be_verified(value: str) -> None:
    """Never an exception; and what verifies is what was signed, to the letter."""
    verified = Signer(SECRET).verify(value)
    assert verified is None or Signer(SECRET).sign(verified[0]) == value


@row("B16")
@given(ids, st.data())
def test_no_change_to_a_signed_value_verifies(id: str, data: st.DataObject) -> None:
    """One character put in, taken out or replaced, or two swapped."""
    value = Signer(SECRET).sign(id)
    at = data.draw(st.integers(0, len(value)))
    width = data.draw(st.integers(0, 2))
    changed = value[:at] + data.draw(st.text(st.characters(), max_size=2)) + value[at + width :]
    assert changed == value or Signer(SECRET).verify(changed) is None


def text_of(members: object) -> bytes:
    return json.dumps(members).encode()


@row("F1", "P11")
@given(
    st.one_of(
        st.binary(),
        loose.map(text_of),
        st.fixed_dictionaries({"cookie": members | loose, "minisession": members | loose}).map(text_of),
        st.tuples(st.binary(max_size=2), st.integers(0, len(RECORD))).map(
            lambda cut: RECORD[: cut[1]] + cut[0] + RECORD[cut[1] + 1 :]
        ),
    )
)
def test_any_bytes_are_a_record_or_a_value_error(data: bytes) -> None:
    """And what is read can be written."""
    try:
        found = record.decode(data)
    except ValueError:
        return
    assert isinstance(record.encode(found, record.frame(Cookie(), True), 2e9), bytes)


@row("A7")
@given(
    st.dictionaries(st.text(), values).filter(lambda data: not record.RESERVED & data.keys()),
    st.none() | st.integers(1, 10**12),
    st.none() | st.integers(1, 10**13),
    st.none() | st.text(min_size=1),
)
def test_any_json_comes_back_the_same(
    data: dict[str, Any], age: int | None, created: int | None, user: str | None
) -> None:
    """Values, their types and their order; the lifetime and the times to the millisecond."""
    before = Record(data, age and age / 1000, created and created / 1000, user)
    after = record.decode(record.encode(before, record.frame(Cookie(), True), 2e9))
    assert repr(after.data) == repr(before.data)
    assert after[1:] == before[1:]


words = st.one_of(
    st.sampled_from(
        [
            "Lax",
            "strict",
            "None",
            "auto",
            "/",
            "/a b",
            "example.com",
            ".x.y",
            "high",
            "a;b",
            "a\r\nX: y",
            "/\x7f",
            "/\xe9",
            "/,",
        ]
    ),
    anything,
    anything.map("/".__add__),
    st.none() | st.booleans() | st.integers() | st.floats(),
)
OPTIONS = ("max_age", "path", "domain", "secure", "httponly", "samesite", "partitioned", "priority")


@row("O21", "P12")
@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(OPTIONS), words), st.booleans())
@example({"path": '/a b,c="d"'}, True)
@example({"max_age": 1e299}, True)
@example({"domain": "a\n"}, True)
def test_any_option_is_refused_or_makes_a_clean_header(options: dict[str, Any], https: bool) -> None:
    """``Morsel`` writes CR and LF as they are (CVE-2026-0672): nothing may get so far."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            cookie = Cookie(**options)
        except (TypeError, ValueError) as error:
            named = [option for option in options if option in str(error)]
            assert named
            return
    now = 1.8e9
    until = None if cookie.max_age is None else now + cookie.max_age
    attributes = rendered(cookie, https)
    for header in (cookies.write(NAME, SIGNED, attributes, now, until), cookies.remove(NAME, attributes)):
        assert re.fullmatch(r"[\x20-\x7e]+", header)
        names = [part.partition("=")[0].strip() for part in header.split(";")]
        assert len(names) == len(set(names))
        assert set(names[1:]) <= {
            "Path",
            "Domain",
            "Expires",
            "Max-Age",
            "HttpOnly",
            "Secure",
            "SameSite",
            "Partitioned",
            "Priority",
        }
