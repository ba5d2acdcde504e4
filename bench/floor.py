"""The floor: what no session library can avoid, each step in the cheapest way found in the stdlib.

It is no proof that less is impossible.
"""

from __future__ import annotations

import gc
import json
import secrets
import threading
import time
from binascii import b2a_base64
from collections.abc import Iterable
from hashlib import sha256
from hmac import compare_digest
from timeit import Timer
from typing import Any, NamedTuple

from .driving import WSGI, carrying, environ
from .peers import DATA, SECRET

LIVE = 10_000  # sessions in the dictionary


class Step(NamedTuple):
    """What cannot be avoided.

    Attributes:
        part: which part of a session's cost it is; the report has minisession's beside it.
        statement: does it.
        without: what of the statement is not the step, but has to be there to time it.
    """

    part: str
    statement: str
    without: str = "pass"


STEPS = {
    "call through an empty middleware": Step("middleware", "middleware(environ, start)", without="app(environ, start)"),
    "find one cookie of three": Step(
        "cookie",
        "for pair in header.split('; '):\n"
        "    name, _, value = pair.partition('=')\n"
        "    if name == 'connect.sid':\n"
        "        break",
    ),
    "HMAC-SHA256": Step(
        "HMAC",  # with half of it done once, when the secret was given
        "inner = inner_key.copy()\n"
        "inner.update(id)\n"
        "outer = outer_key.copy()\n"
        "outer.update(inner.digest())\n"
        "outer.digest()",
    ),
    "base64 of it": Step("HMAC", "b2a_base64(mac, newline=False)"),
    "compare it": Step("HMAC", "compare_digest(signature, other)"),
    "time": Step("rest", "now()"),
    "look up, under a lock": Step("store", "with lock:\n    sessions.get(key)"),
    "store, under a lock": Step("store", "with lock:\n    sessions[key] = record"),
    "replace the key, under a lock": Step("store", "with lock:\n    sessions[key] = sessions.pop(key)"),
    "delete, under a lock": Step(
        "store", "with lock:\n    sessions[key] = sessions.pop(key)", without="sessions[key] = record"
    ),
    "decode JSON": Step("JSON", "decode(record)"),
    "encode JSON": Step("JSON", "encode(data)"),
    "new id": Step("rest", "b2a_base64(token_bytes(24), newline=False)"),
    "write Set-Cookie": Step(
        "cookie", "'connect.sid=%s.%s; HttpOnly; Path=/; SameSite=Lax; Secure' % (key, signature)"
    ),
}

_CALL = ["call through an empty middleware"]
_SIGN = ["HMAC-SHA256", "base64 of it"]
_FIND = [*_CALL, "find one cookie of three", *_SIGN, "compare it", "time"]
_LOAD = [*_FIND, "look up, under a lock", "decode JSON"]
_NAME = ["new id", *_SIGN, "write Set-Cookie"]

SCENARIOS = {
    "untouched": _CALL,
    "cookie": _CALL,
    "read": _LOAD,
    "write": [*_LOAD, "encode JSON", "store, under a lock"],
    "login": [*_CALL, *_NAME, "time", "encode JSON", "store, under a lock"],
    "regenerate": [*_LOAD, *_NAME, "encode JSON", "replace the key, under a lock"],
    "logout": [*_FIND, "delete, under a lock", "write Set-Cookie"],
}
"""The steps that a request of each scenario takes."""


class Floor:
    """The steps, to be timed as a peer's scenarios are."""

    def __init__(self) -> None:
        self._names = _names()

    def versions(self) -> dict[str, str]:
        """Return none: the steps are the interpreter's."""
        return {}

    def time(self, scenario: str, bare: bool, loops: int) -> float:
        """Return the seconds of the CPU that the step of this name takes, or what is there without it."""
        step = STEPS[scenario]
        statement = step.without if bare else step.statement
        return Timer(statement, "gc.enable()", time.process_time, self._names).timeit(loops) / loops


def _names() -> dict[str, Any]:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]

    class Middleware:
        def __init__(self, app: WSGI) -> None:
            self.app = app

        def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            return self.app(environ, start_response)

    block = SECRET.encode().ljust(64, b"\0")
    mac = sha256(b"").digest()
    signature = b2a_base64(mac, newline=False).decode()
    encode = json.JSONEncoder(separators=(",", ":")).encode
    record = encode(DATA)
    sessions = {secrets.token_urlsafe(24): record for _ in range(LIVE)}
    key = next(iter(sessions))
    return {
        "app": app,
        "b2a_base64": b2a_base64,
        "compare_digest": compare_digest,
        "data": DATA,
        "decode": json.JSONDecoder().decode,
        "encode": encode,
        "environ": environ("/"),
        "gc": gc,
        "header": carrying(f"connect.sid=s%3A{key}.{signature}"),
        "id": key.encode(),
        "inner_key": sha256(bytes(byte ^ 0x36 for byte in block)),
        "key": key,
        "lock": threading.Lock(),
        "mac": mac,
        "middleware": Middleware(app),
        "now": time.time,
        "other": str(signature),
        "outer_key": sha256(bytes(byte ^ 0x5C for byte in block)),
        "record": record,
        "sessions": sessions,
        "signature": signature,
        "start": lambda status, headers: None,
        "token_bytes": secrets.token_bytes,
    }
