"""Signed session ids, as npm's cookie-signature writes them: ``s:<id>.<signature>``.

The signature is HMAC-SHA256 of the id in standard base64 without padding.  The first secret signs
and every secret verifies.  Percent-encoding belongs to `cookies`.
"""

from __future__ import annotations

import hmac
from binascii import b2a_base64
from collections import abc

# Characters; a longer id was not issued by us, and is not worth an HMAC.
MAX_ID = 255

# Characters of base64 for SHA-256's 32 bytes, without the "=".
_SIGNATURE = 43
_RULE = "secret must be str or bytes, or a list of them, of which the first signs"


class Signer:
    """Signs and verifies ids with ``secrets``, newest first.

    Raises:
        TypeError, ValueError: a secret is not text or bytes, is empty, or there is none; or the
            order of several is not known.
    """

    def __init__(self, secrets: str | bytes | abc.Iterable[str | bytes]) -> None:
        if isinstance(secrets, (str, bytes)):
            secrets = [secrets]
        # Which one of a mapping or a set is the first, and would sign?
        elif isinstance(secrets, (abc.Mapping, abc.Set)) or not isinstance(secrets, abc.Iterable):
            raise TypeError(f"{_RULE}, not {type(secrets).__name__}")
        keys = [_key(secret) for secret in secrets]
        if not keys:
            raise ValueError("secret is an empty sequence; give at least one secret")
        # The length of the shortest secret, in bytes.
        self.shortest = min(map(len, keys))
        # Keyed once; a copy for each id takes half the time of hmac.digest.
        self._macs = [hmac.new(key, digestmod="sha256") for key in keys]

    def sign(self, id: str) -> str:
        """Return ``s:<id>.<signature>``."""
        return f"s:{id}.{_signature(self._macs[0], id.encode()).decode()}"

    def verify(self, value: str) -> tuple[str, bool] | None:
        """Return the id in a signed value, and whether the first secret signed it; or None.

        Never raises, for any ``value``.
        """
        id, _, signature = value[2:].rpartition(".")
        if len(signature) != _SIGNATURE or not 1 <= len(id) <= MAX_ID or value[:2] != "s:":
            return None
        # A broken server may pass on half a surrogate pair, which is in nothing that was signed.
        message = id.encode(errors="surrogatepass")
        given = signature.encode(errors="surrogatepass")
        # The encoded forms are compared: 4 last characters decode to the same 32 bytes.
        for mac in self._macs:
            if hmac.compare_digest(_signature(mac, message), given):
                return id, mac is self._macs[0]
        return None


def _signature(keyed: hmac.HMAC, message: bytes) -> bytes:
    mac = keyed.copy()
    mac.update(message)
    return b2a_base64(mac.digest(), newline=False)[:_SIGNATURE]


def _key(secret: object) -> bytes:
    if not isinstance(secret, (str, bytes)):
        raise TypeError(f"{_RULE}; one of these is {type(secret).__name__}")
    if not secret:
        raise ValueError("secret is empty: anyone could sign with it; use 32 random bytes")
    try:
        return secret.encode() if isinstance(secret, str) else secret
    except UnicodeEncodeError:
        raise ValueError("secret does not encode as UTF-8; give it as bytes") from None
