"""What must hold of the pure parsers, whatever the bytes: the claims that the fuzzer tries to refute.

Each is a function of bytes that raises where a parser broke its word.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from math import isclose
from string import hexdigits
from typing import Any
from urllib.parse import unquote_to_bytes

from minisession import Cookie, CrossOriginProtection
from minisession.wire import cookies, record, values
from minisession.wire.signing import MAX_ID, Signer

NAME = "connect.sid"
SIGNERS = Signer("the first secret of two"), Signer("the second secret of two")
BOTH = Signer(["the first secret of two", "the second secret of two"])


def cookie_header(data: bytes) -> None:
    """`cookies.read` and `cookies.decode`: no exception, at most 16 values, and no other than the plain reading has."""
    header = data.decode("latin-1")  # as PEP 3333 hands it over
    values = [cookies.decode(value) for value in cookies.read(header, NAME)]
    plain = [pair.partition("=") for pair in header.split(";")]
    ours = [value.strip(" \t") for name, equals, value in plain if equals and name.strip(" \t") == NAME]
    assert values == [decoded(value[1:-1] if unquotable(value) else value) for value in ours[:16]]
    for value in values:
        BOTH.verify(value)


def unquotable(value: str) -> bool:
    return len(value) >= 2 and value.startswith('"') and value.endswith('"')


def decoded(value: str) -> str:
    """Be JavaScript's decodeURIComponent; what it throws on stays as it is."""
    escapes = [value[at + 1 : at + 3] for at, character in enumerate(value) if character == "%"]
    if not all(len(escape) == 2 and set(escape) <= set(hexdigits) for escape in escapes):
        return value
    try:
        return unquote_to_bytes(value.encode()).decode()
    except UnicodeDecodeError:
        return value


def signed_value(data: bytes) -> None:
    """`Signer.verify`: no exception, and what verifies is what was signed, to the letter."""
    text = text_of(data)
    verified = BOTH.verify(text)
    assert verified is None or SIGNERS[not verified[1]].sign(verified[0]) == text
    if not 1 <= len(text) <= MAX_ID or any("\ud800" <= character <= "\udfff" for character in text):
        assert BOTH.verify(f"s:{text}.{'A' * 43}") is None
        return
    value = SIGNERS[0].sign(text)
    header = cookies.pair(NAME, value)
    assert header.isascii()
    assert header.isprintable()
    assert [cookies.decode(read) for read in cookies.read(f"a=1; {header}; b=2", NAME)] == [value]
    assert (BOTH.verify(value), SIGNERS[1].verify(value)) == ((text, True), None)
    for at in (0, 1, sum(data) % len(value)):  # the last is a place of the fuzzer's choice
        changed = value[:at] + chr(data[0]) + value[at + 1 :]
        assert changed == value or BOTH.verify(changed) is None
        assert BOTH.verify(value[:at] + value[at + 1 :]) is None


def text_of(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def stored_record(data: bytes) -> None:
    """`record.decode`: a ValueError or a record, which is what the bytes say, and comes back the same once written."""
    try:
        found = record.decode(data)
    except ValueError:
        return
    members = json.loads(data, cls=json.JSONDecoder)  # a new one: the fuzzer exchanges the scanner
    ours = {"cookie": members.pop("cookie"), "minisession": members.pop("minisession", {})}
    assert repr(found.data) == repr(members)  # not ==, for which 1 is True
    assert found.user == ours["minisession"].get("user") != ""
    assert found.created == ours["minisession"].get("created") is not True
    assert isclose((found.max_age or 0) * 1000, ours["cookie"].get("originalMaxAge") or 0)
    written = record.encode(found, record.frame(Cookie(), True), 2e9)
    again = record.decode(written)
    assert (repr(again.data), again.user) == (repr(found.data), found.user)
    assert list(map(values.canonical, again.data.values())) == list(map(values.canonical, found.data.values()))
    assert (
        record.encode(again, record.frame(Cookie(), True), 2e9) == written
    )  # of times, whole milliseconds are written


TRUSTED, EXEMPT = "https://trusted.example", "/hook"
PROTECTED = CrossOriginProtection(
    lambda environ, start_response: [b"passed"], trusted_origins=[TRUSTED], exempt=[EXEMPT]
)
FIELDS = "REQUEST_METHOD", "HTTP_SEC_FETCH_SITE", "HTTP_ORIGIN", "HTTP_HOST", "PATH_INFO"


def cross_origin_request(data: bytes) -> None:
    """`CrossOriginProtection`: passes what its page says, and nothing else."""
    lines = data.decode("latin-1").split("\n")
    environ: dict[str, Any] = {"REQUEST_METHOD": "", **dict(zip(FIELDS, lines, strict=False))}
    method, site, origin, host, path = (environ.get(field, "") for field in FIELDS)
    site, origin, host = (value.strip(" \t") for value in (site, origin, host))
    statuses: list[str] = []
    passed = PROTECTED(environ, lambda status, *_: statuses.append(status) or (lambda block: None)) == [b"passed"]
    if method in ("GET", "HEAD", "OPTIONS") or origin == TRUSTED or path == EXEMPT:
        expected = True
    elif site:
        expected = site in ("same-origin", "none")
    else:
        expected = not origin or (host != "" and origin in (f"http://{host}", f"https://{host}"))
    assert passed is expected
    assert statuses == ([] if passed else ["403 Forbidden"])


CLAIMS: dict[str, Callable[[bytes], None]] = {
    "cookies": cookie_header,
    "signing": signed_value,
    "record": stored_record,
    "crossorigin": cross_origin_request,
}
