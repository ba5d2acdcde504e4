"""The least that keeps sessions: floor.py's steps as a site, to see what they cost where they cannot be timed alone.

It keeps no promise: nothing expires, nothing is merged, and no option is there to be looked at.
"""

from __future__ import annotations

import json
import threading
import time
from binascii import b2a_base64
from hashlib import sha256
from hmac import compare_digest
from itertools import count
from secrets import token_bytes
from typing import Any

from .peers import DATA, LIFETIME, SECRET, USER, Apps, Pages

COOKIE = "%s=%s.%s; HttpOnly; Path=/; SameSite=Lax; Secure"
NAME = "least.sid"


class Least:
    """The site of peers.py, but for the pages that nobody asks for."""

    def __init__(self) -> None:
        block = SECRET.encode().ljust(64, b"\0")
        self._inner, self._outer = (sha256(bytes(byte ^ pad for byte in block)) for pad in (0x36, 0x5C))
        self._encode, self._decode = json.JSONEncoder(separators=(",", ":")).encode, json.JSONDecoder().decode
        self._lock, self._visits = threading.Lock(), count(DATA["visits"] + 1)
        self.sessions: dict[str, tuple[float, str]] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        """Serve one request."""
        headers = [("Content-Type", "text/plain"), ("Vary", "Cookie")]
        body = getattr(self, environ["PATH_INFO"][1:])(environ, headers)
        start_response("200 OK", [*headers, ("Content-Length", str(len(body)))])
        return [body]

    def read(self, environ: dict[str, Any], headers: list[tuple[str, str]]) -> bytes:
        """Read one key."""
        self._load(environ)[1]["name"]
        return b"ok"

    def write(self, environ: dict[str, Any], headers: list[tuple[str, str]]) -> bytes:
        """Write one key."""
        id, data = self._load(environ)
        data["visits"] = next(self._visits)
        self._store(id, data)
        return b"ok"

    def login(self, environ: dict[str, Any], headers: list[tuple[str, str]]) -> bytes:
        """Make a session."""
        id = b2a_base64(token_bytes(24), newline=False).decode()
        self._store(id, {**DATA, "user": USER})
        headers.append(("Set-Cookie", COOKIE % (NAME, id, self._signature(id))))
        return b"ok"

    def show(self, environ: dict[str, Any], headers: list[tuple[str, str]]) -> bytes:
        """Return the data as JSON."""
        return json.dumps(self._load(environ)[1]).encode()

    def _load(self, environ: dict[str, Any]) -> tuple[str, Any]:
        """Return the session's id and data; a KeyError where there is none."""
        for pair in environ["HTTP_COOKIE"].split("; "):
            name, _, value = pair.partition("=")
            if name == NAME:
                break
        id, _, signature = value.partition(".")
        if not compare_digest(signature, self._signature(id)):
            raise KeyError(id)
        with self._lock:
            expires_at, record = self.sessions[id]
        if expires_at <= time.time():
            raise KeyError(id)
        return id, self._decode(record)

    def _store(self, id: str, data: Any) -> None:
        record = self._encode(data)
        with self._lock:
            self.sessions[id] = (time.time() + LIFETIME, record)

    def _signature(self, id: str) -> str:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(id.encode())
        outer.update(inner.digest())
        return b2a_base64(outer.digest(), newline=False).decode()


def make() -> Apps:
    """Return it beside an app without sessions."""
    least = Least()

    def bare(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = Pages().untouched(environ)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    return Apps(least, bare, least.sessions.clear)
