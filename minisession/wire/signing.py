"""Signed session ids, as npm's cookie-signature writes them: ``s:<id>.<signature>``.

The signature is HMAC-SHA256 of the id in standard base64 without padding.  The first secret signs and
every secret verifies.  Percent-encoding belongs to `cookies`.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Iterable
from typing import NamedTuple

MAX_ID = 255  # characters; a longer id was not issued by us, and is not worth an HMAC
_SIGNATURE = 43  # characters of base64 for SHA-256's 32 bytes, without "="


class Verified(NamedTuple):
    """An id whose signature is right; ``current`` if the first secret made it."""

    id: str
    current: bool


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
        self._keys = [_key(secret) for secret in secrets]
        if not self._keys:
            raise ValueError("secret is an empty sequence; give at least one secret")

    @property
    def shortest(self) -> int:
        """The length of the shortest secret, in bytes."""
        return min(map(len, self._keys))

    def sign(self, id: str) -> str:
        """Return ``s:<id>.<signature>``."""
        return f"s:{id}.{_signature(self._keys[0], id.encode()).decode()}"

    def verify(self, value: str) -> Verified | None:
        """Return the id in a signed value, or None; never raises, whatever ``value`` holds."""
        id, dot, signature = value[2:].rpartition(".")
        if not value.startswith("s:") or not dot:
            return None
        if not 1 <= len(id) <= MAX_ID or len(signature) != _SIGNATURE or not signature.isascii():
            return None
        try:
            text = id.encode()
        except UnicodeEncodeError:  # half a surrogate pair, from a broken server
            return None
        # The encoded forms are compared: 4 last characters decode to the same 32 bytes.
        given = signature.encode()
        for index, key in enumerate(self._keys):
            if hmac.compare_digest(_signature(key, text), given):
                return Verified(id, index == 0)
        return None


def _key(secret: str | bytes) -> bytes:
    if not isinstance(secret, (str, bytes)):
        raise TypeError(f"secret must be str, bytes or a sequence of them; it holds a {type(secret).__name__}")
    if not secret:
        raise ValueError("secret is empty; anybody could sign a session with it. Use 32 random bytes")
    try:
        return secret.encode() if isinstance(secret, str) else secret
    except UnicodeEncodeError:
        raise ValueError("secret does not encode as UTF-8; give it as bytes") from None


def _signature(key: bytes, id: bytes) -> bytes:
    return b64encode(hmac.digest(key, id, "sha256")).rstrip(b"=")
