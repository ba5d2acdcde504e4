"""Signed session ids, as npm's cookie-signature writes them: ``s:<id>.<signature>``.

The signature is HMAC-SHA256 of the id in standard base64 without padding.  The first secret signs and
every secret verifies.  Percent-encoding belongs to `cookies`.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Iterable
from hashlib import sha256
from hmac import compare_digest

MAX_ID = 255  # characters; a longer id was not issued by us, and is not worth an HMAC
_SIGNATURE = 43  # characters of base64 for SHA-256's 32 bytes, without "="


class Signer:
    """Signs and verifies ids with ``secrets``, newest first.

    Raises:
        TypeError, ValueError: a secret is not text or bytes, is empty, or there is none.
    """

    def __init__(self, secrets: str | bytes | Iterable[str | bytes]) -> None:
        if isinstance(secrets, (str, bytes)):
            secrets = [secrets]
        if not isinstance(secrets, Iterable):
            raise TypeError(f"secret must be str, bytes or a sequence of them, not {type(secrets).__name__}")
        keys = [_key(secret) for secret in secrets]
        if not keys:
            raise ValueError("secret is an empty sequence; give at least one secret")
        self.shortest = min(map(len, keys))
        """The length of the shortest secret, in bytes."""
        self._macs = [_Mac(key) for key in keys]

    def sign(self, id: str) -> str:
        """Return ``s:<id>.<signature>``."""
        return f"s:{id}.{self._macs[0].of(id.encode()).decode()}"

    def verify(self, value: str) -> tuple[str, bool] | None:
        """Return the id in a signed value, and whether the first secret signed it; or None.

        Never raises, whatever ``value`` holds.
        """
        id, _, signature = value[2:].rpartition(".")
        if len(signature) != _SIGNATURE or not 1 <= len(id) <= MAX_ID or value[:2] != "s:":
            return None
        try:
            message, given = id.encode(), signature.encode()
        except UnicodeEncodeError:  # half a surrogate pair, from a broken server
            return None
        # The encoded forms are compared: 4 last characters decode to the same 32 bytes.
        for mac in self._macs:
            if compare_digest(mac.of(message), given):
                return id, mac is self._macs[0]
        return None


class _Mac:
    """HMAC-SHA256 under one key (RFC 2104), in base64 without padding.

    Both of its hashes begin with a block that is the key's alone.  That is hashed once and then copied,
    which takes half the time of `hmac.digest`.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = (key if len(key) <= 64 else sha256(key).digest()).ljust(64, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in block))

    def of(self, message: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return b2a_base64(outer.digest(), newline=False)[:_SIGNATURE]


def _key(secret: str | bytes) -> bytes:
    if not isinstance(secret, (str, bytes)):
        raise TypeError(f"secret must be str, bytes or a sequence of them; it holds a {type(secret).__name__}")
    if not secret:
        raise ValueError("secret is empty; anybody could sign a session with it. Use 32 random bytes")
    try:
        return secret.encode() if isinstance(secret, str) else secret
    except UnicodeEncodeError:
        raise ValueError("secret does not encode as UTF-8; give it as bytes") from None
