"""The bytes: vectors made by express-session 1.19.0, cookie-signature 1.0.7 and cookie 0.7.2."""

from __future__ import annotations

import json
import string
import sys
from contextlib import suppress
from math import inf, nextafter
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minisession import Cookie
from minisession.wire import cookies, record
from minisession.wire.attributes import rendered
from minisession.wire.record import Record
from minisession.wire.signing import Signer

T = 1_795_000_000.123  # when express wrote the records below

COOKIES = [
    ("abc", "keyboard cat", "s%3Aabc.BpxCrWRpvZMh%2Fwk%2Fdjl34N%2Bm%2BVQEU7K%2F5WenLwJCgFU"),
    (
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345",
        "keyboard cat",
        "s%3AABCDEFGHIJKLMNOPQRSTUVWXYZ012345.tiFIwmPCckiCLx%2FQbn9qcHrtC18TiqpLReBvqnqzPbA",
    ),
    ("a.b", "s", "s%3Aa.b.YBRKTIWUzkOEy6W0Y1CpaCpUCZD8ktPPfdhkUdviEoc"),
    ("é!~*'() ;", "sécret", "s%3A%C3%A9!~*'()%20%3B.PGwjan7eisMjF5%2BTkwhUduh6zvtGXvzq4TAMHZ2NWmk"),
    ("%", "keyboard cat", "s%3A%25.kzQ6x52kKVdF35Qh62AWk4ZekS28K5XYCXKa%2FOTZ01g"),
    ("hello", "tobiiscool", "s%3Ahello." + quote("DGDUkGlIkCzPz+C0B064FNgHdEjox7ch8tOBGslZ5QI", safe="")),
]


@pytest.mark.parametrize(("id", "secret", "value"), COOKIES)
def test_our_cookie_is_express_own(id: str, secret: str, value: str) -> None:
    """A team that moves to Python logs nobody out."""
    signed = Signer(secret).sign(id)

    assert (
        cookies.write("connect.sid", signed, rendered(Cookie(), True), T, None).split(";")[0] == f"connect.sid={value}"
    )
    [found] = cookies.read(f"a=1; connect.sid={value}", "connect.sid")
    assert Signer(secret).verify(cookies.decode(found)) == (id, True)


def test_the_first_secret_signs_and_every_secret_verifies() -> None:
    """Rotation: a new secret in front logs nobody out, and its removal ends what the old one signed."""
    old, rotating, new = Signer("the old one"), Signer(["the new one", b"the old one"]), Signer("the new one")

    assert rotating.verify(old.sign("id")) == ("id", False)
    assert new.verify(rotating.sign("id")) == ("id", True)
    assert new.verify(old.sign("id")) is None


DATA: dict[str, Any] = {
    "login": "ada",
    "cart": [1, 2.5, None, True, {"k": "v"}],
    "ü": '日本\u2028"\\\u0007/\x7f😀',
}
EMPTIES: dict[str, Any] = {"a": [], "b": {}, "c": "", "d": -1, "e": 9007199254740991}
RECORDS: list[tuple[Cookie, float | None, dict[str, Any], str]] = [
    (
        Cookie(secure=False, samesite=None),
        None,
        {"u": 1},
        '{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"u":1}',
    ),
    (
        Cookie(secure=False, samesite=None),
        60,
        {"u": 1},
        '{"cookie":{"originalMaxAge":60000,"expires":"2026-11-18T11:07:40.123Z","httpOnly":true,"path":"/"},"u":1}',
    ),
    (
        Cookie(),
        60.5,
        DATA,
        (
            '{"cookie":{"originalMaxAge":60500,"expires":"2026-11-18T11:07:40.623Z","secure":true,"httpOnly":true,'
            '"path":"/","sameSite":"lax"},"login":"ada","cart":[1,2.5,null,true,{"k":"v"}],'
            '"ü":"日本\u2028\\"\\\\\\u0007/\x7f😀"}'
        ),
    ),
    (
        Cookie(samesite="Strict", domain="example.com", path="/app", priority="High", httponly=False),
        None,
        {},
        (
            '{"cookie":{"originalMaxAge":null,"priority":"high","expires":null,"secure":true,"httpOnly":false,'
            '"domain":"example.com","path":"/app","sameSite":"strict"}}'
        ),
    ),
    (
        Cookie(samesite="None", partitioned=True),
        None,
        EMPTIES,
        (
            '{"cookie":{"originalMaxAge":null,"partitioned":true,"expires":null,"secure":true,"httpOnly":true,'
            '"path":"/","sameSite":"none"},"a":[],"b":{},"c":"","d":-1,"e":9007199254740991}'
        ),
    ),
    (
        Cookie(secure=False, samesite=None, domain="null.example", path="/null/%s"),
        60,
        {"null": "null"},
        (
            '{"cookie":{"originalMaxAge":60000,"expires":"2026-11-18T11:07:40.123Z","httpOnly":true,'
            '"domain":"null.example","path":"/null/%s"},"null":"null"}'
        ),
    ),
    (
        Cookie(secure="auto", samesite="auto"),
        None,
        {"half": "\ud83d"},
        (
            '{"cookie":{"originalMaxAge":null,"expires":null,"secure":false,"httpOnly":true,"path":"/",'
            '"sameSite":"lax"},"half":"\\ud83d"}'
        ),
    ),
]


@pytest.mark.parametrize(("cookie", "max_age", "data", "text"), RECORDS)
def test_our_record_is_express_own(cookie: Cookie, max_age: float | None, data: dict[str, Any], text: str) -> None:
    """Byte for byte, but for our own member."""
    ours = record.encode(
        Record(data, max_age, 1_795_000_000.5, None), record.frame(cookie, False), T + (max_age or 86400)
    )

    assert ours.decode().replace(',"minisession":{"created":1795000000.5}', "") == text
    assert record.decode(text.encode()) == Record(data, max_age, None, None)


def test_our_member_comes_after_the_cookie_and_has_whole_numbers_as_javascript_writes_them() -> None:
    """Express keeps the member when it saves; the bytes should not change for that."""
    ours = record.encode(Record({"k": 1}, None, 1_795_000_000.0, "ada"), record.frame(Cookie(), True), T)

    assert list(json.loads(ours)) == ["cookie", "minisession", "k"]
    assert b'"minisession":{"created":1795000000,"user":"ada"},"k":1}' in ours


WHOLE = 1_795_000_000.25


@pytest.mark.parametrize(
    ("created", "written"),
    [
        (WHOLE, "1795000000.25"),
        (nextafter(WHOLE, inf), "1795000000.25"),
        (nextafter(WHOLE, 0), "1795000000.249"),
        (WHOLE + 0.00099, "1795000000.25"),
        (1_795_000_000.123, "1795000000.123"),
        (1.001, "1.001"),
        (0.0, "0.001"),
        (0.0009, "0.001"),
        (-1.5, "0.001"),
    ],
)
def test_a_start_is_written_to_the_millisecond_that_had_passed(created: float, written: str) -> None:
    """Never in the future, the same when it is stored again, and never 0, which would not load."""
    frame = record.frame(Cookie(), True)
    ours = record.encode(Record({}, None, created, None), frame, T)

    assert f'"minisession":{{"created":{written}}}' in ours.decode()
    assert record.encode(record.decode(ours), frame, T) == ours


@pytest.mark.parametrize("much", [1, 10_000])
def test_half_pairs_of_express_come_back_as_they_were(much: int) -> None:
    """In texts and names, also next to the other half, and however long the record is."""
    text = (
        '{"cookie":{},"minisession":{},"k":[{"\\ud83d":1,"\\ude00":"\\ud83d"},"\\ude00"],"much":"' + "x" * much + '"}'
    )
    stored = record.decode(text.encode())

    assert stored.data["k"] == json.loads(text)["k"]
    written = record.encode(stored, record.frame(Cookie(), True), T)
    assert written.endswith(text.removeprefix('{"cookie":{}').encode())


RESTS = st.one_of(
    st.binary(max_size=40),
    st.text(alphabet='{}[]":,ab1. ', max_size=40).map(str.encode),
    st.builds(
        lambda ours, data, end: f"{json.dumps(ours)[1:]},{json.dumps(data)[1:]}{end}".encode(),
        st.fixed_dictionaries({}, optional={"created": st.floats() | st.none(), "user": st.text(max_size=3)}),
        st.dictionaries(
            st.sampled_from(["a", "cookie", "minisession"]), st.just({"originalMaxAge": 5}) | st.integers()
        ),
        st.sampled_from(["", " ", "\n", "x", "}"]),
    ),
)


@given(RESTS)
@example(b'"created":5},"cookie":{"originalMaxAge":60000}}')
@example(b'"user":"ada"},"cookie":7}')
@example(b"}}\n")
def test_a_beginning_that_is_known_tells_what_it_would_if_it_were_read(rest: bytes) -> None:
    """Whatever follows it, and also where the same keys come once more."""
    usual = record.frame(Cookie(), True).usual
    told: list[Record | str] = []
    for known in (b"", usual):
        try:
            told.append(record.decode(usual + rest, known))
        except ValueError as error:  # noqa: PERF203  # two
            told.append(str(error))

    assert told[0] == told[1]
    assert record.encode(Record({}, None, None, None), record.frame(Cookie(), True), T).startswith(usual)


@pytest.mark.parametrize("age", ["null", "false"])
def test_a_record_of_express_without_a_lifetime_loads(age: str) -> None:
    """`cookie.expires = false` makes express write false."""
    assert record.decode(f'{{"cookie":{{"originalMaxAge":{age}}}}}'.encode()) == Record({}, None, None, None)


def test_the_lifetime_that_express_wrote_is_kept_and_its_date_is_not_believed() -> None:
    """Under connect-redis, a touched session's `expires` lies in the past while the session lives."""
    text = b'{"cookie":{"originalMaxAge":60000,"expires":"1999-01-01T00:00:00.000Z"}}'

    assert record.decode(text).max_age == 60


def test_space_around_a_record_is_jsons() -> None:
    assert record.decode(b' \t\r\n{"cookie":{},"k":1}\n').data == {"k": 1}
    for space in (b"\x0b", b"\xc2\xa0", b"\xef\xbb\xbf"):
        with pytest.raises(ValueError, match="not JSON"):
            record.decode(space + b'{"cookie":{}}')


@pytest.mark.parametrize("number", ["0", "-1", "0.0", "1e300", "true", '"1"'])
def test_a_time_in_a_record_is_a_number_above_0(number: str) -> None:
    with pytest.raises(ValueError, match="originalMaxAge is not a number"):
        record.decode(f'{{"cookie":{{"originalMaxAge":{number}}}}}'.encode())
    with pytest.raises(ValueError, match="created is not a time"):
        record.decode(f'{{"cookie":{{}},"minisession":{{"created":{number}}}}}'.encode())


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("sid", []),
        ("sid; a=sid; sid2=a; =sid", []),
        ("a=1;sid=b; \tsid\t=\tc\t;sid=", ["b", "c", ""]),
        ('sid="a"; sid="; sid=""; sid="""; sid="a', ["a", '"', "", '"', '"a']),
        ("sid=a=b; sid=%22", ["a=b", "%22"]),
    ],
)
def test_the_values_of_a_name_are_read_from_among_others(header: str, values: list[str]) -> None:
    """A name without "=" is no cookie; the spaces around both are dropped, and one pair of quotes."""
    assert cookies.read(header, "sid") == values


def test_a_value_is_escaped_as_encode_uri_component_does() -> None:
    kept = f"{string.ascii_letters}{string.digits}-_.!~*'()"

    for character in map(chr, range(128)):
        escaped = character if character in kept else f"%{ord(character):02X}"
        assert cookies.pair("sid", f"{character}%{character}") == f"sid={escaped}%25{escaped}"


def test_half_a_pair_stands_for_no_other_character() -> None:
    """A broken server may pass one on; it is in no id that was signed, and no reason to raise."""
    signed = Signer("secret").sign("a?\ufffdb")

    for half in "\ud83d", "\ude00":
        for replaced in "?", "\ufffd", signed[-1]:
            assert Signer("secret").verify(signed.replace(replaced, half)) is None


def test_set_cookie_has_what_was_configured() -> None:
    """Both Expires and Max-Age are sent; Partitioned also where http.cookies does not know it."""
    cookie = Cookie(samesite="None", partitioned=True, priority="high", domain="example.com", path="/a")

    header = cookies.write("connect.sid", "s:x.y", rendered(cookie, True), T, T + 3600)

    assert sorted(header.split("; ")) == [
        "Domain=example.com",
        "Expires=Wed, 18 Nov 2026 12:06:40 GMT",
        "HttpOnly",
        "Max-Age=3600",
        "Partitioned",
        "Path=/a",
        "Priority=High",
        "SameSite=None",
        "Secure",
        "connect.sid=s%3Ax.y",
    ]


def test_the_removal_has_the_attributes_that_the_cookie_was_set_with() -> None:
    """A browser tells cookies apart by name, domain and path, and lets only Secure replace Secure."""
    cookie = Cookie(domain="example.com", path="/a", samesite="Strict")
    written = cookies.write("sid", "v", rendered(cookie, True), T, None).split("; ")[1:]

    assert cookies.remove("sid", rendered(cookie, True)).split("; ") == [
        "sid=",
        *written,
        "Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        "Max-Age=0",
    ]


@pytest.mark.parametrize(
    ("cookie", "https", "expected"),
    [
        (Cookie(secure="auto"), True, (True, "Lax")),
        (Cookie(secure="auto"), False, (False, "Lax")),
        (Cookie(secure="auto", samesite="auto"), True, (True, "None")),
        (Cookie(secure="auto", samesite="auto"), False, (False, "Lax")),
        (Cookie(secure=True, samesite=None), False, (True, None)),
    ],
)
def test_auto_is_what_express_makes_of_it(cookie: Cookie, https: bool, expected: tuple[bool, str | None]) -> None:
    """Secure as the request came; SameSite=None only where it is Secure."""
    assert cookie.over(https) == expected


def test_a_lifetime_past_the_year_9999_is_sent_as_its_last_second() -> None:
    """An overflow must not raise while a request is served."""
    header = cookies.write("sid", "v", rendered(Cookie(), True), T, T + 1e20)

    assert "Expires=Fri, 31 Dec 9999 23:59:59 GMT" in header


def test_a_full_stack_is_not_taken_for_a_damaged_record() -> None:
    """The app that called so deep learns of it; its visitor's session is not given up."""
    stored = b'{"cookie":{},"list":[[1]]}'

    def decoded(levels: int) -> object:
        return decoded(levels - 1) if levels else record.decode(stored).data

    for levels in range(sys.getrecursionlimit()):
        with suppress(RecursionError):
            assert decoded(levels) == {"list": [[1]]}
