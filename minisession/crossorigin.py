"""Refusing requests that another site's page sends, by what the browser says of them.

The decisions are those of Go 1.25's ``http.CrossOriginProtection``: no token, no state, no session.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .journal import Journal

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

# Exactly so: a client that sends "get" is not a browser.
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
REFUSAL = b"403 Forbidden: another site's page sent this. Open the page here, and try again.\n"
HEADERS = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(REFUSAL)))]

_ORIGIN = r"(?ai)[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?"
_PATH = r"/[^*?#]*"
_DEFAULT_PORT = "^(http://.*):80$|^(https://.*):443$"


class CrossOriginProtection:
    """Answers 403 to unsafe requests that a browser sent from another origin.

    Put it outside `SessionMiddleware`.

    GET, HEAD and OPTIONS pass: they must change nothing.  Of the rest, ``Sec-Fetch-Site`` decides,
    which browsers since 2023 send over https and to localhost; else ``Origin``, whose host and port
    must be those of ``Host``.  Requests with neither pass: they come from other clients, or from
    ancient browsers.  ``Origin`` does not distinguish http from https, because a proxy may have
    ended TLS: send ``Strict-Transport-Security``.

    Args:
        app: the WSGI app.
        trusted_origins: origins whose pages may send anything, as ``"https://host"`` or
            ``"https://host:port"``. Also the site's own, where a proxy changes ``Host``.
        exempt: paths that pages of any site may send to, whole and exact, from the server's root,
            decoded.

    Raises:
        TypeError, ValueError: at construction, with the argument's name, what was given, and the
            fix.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        trusted_origins: Iterable[str] = (),
        exempt: Iterable[str] = (),
    ) -> None:
        if not callable(app):
            raise TypeError(f"app must be a WSGI app, a callable, not {app!r}")
        self.app = app
        rule = "an origin as browsers do, 'https://example.com:8080', in ASCII (use punycode)"
        origins = _checked("trusted_origins", trusted_origins, _ORIGIN, rule)
        self._trusted = {re.sub(_DEFAULT_PORT, r"\1\2", origin.lower()) for origin in origins}
        paths = _checked("exempt", exempt, _PATH, "a whole path, as '/hook', without patterns")
        # As PEP 3333 gives them.
        self._exempt = {path.encode().decode("latin-1") for path in paths}
        self._journal = Journal()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request (PEP 3333)."""
        is_safe = environ["REQUEST_METHOD"] in SAFE or not is_cross_origin(environ)
        # What the handler will see, not normalised: "/x/../hook" is not "/hook" (CVE-2025-47910).
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        if is_safe or path in self._exempt or _field(environ, "HTTP_ORIGIN") in self._trusted:
            return self.app(environ, start_response)
        self._journal.warning(
            "403 for a cross-origin request: Sec-Fetch-Site %.80a, Origin %.80a, Host %.80a",
            *map(environ.get, ("HTTP_SEC_FETCH_SITE", "HTTP_ORIGIN", "HTTP_HOST")),
        )
        start_response("403 Forbidden", [*HEADERS])
        return [REFUSAL]


def is_cross_origin(environ: dict[str, Any]) -> bool:
    """Return whether, as far as the browser says, another origin's page may have sent this."""
    site = _field(environ, "HTTP_SEC_FETCH_SITE")
    # Compared whole: of two headers, servers make "same-origin, cross-site".
    if site:
        return site not in ("same-origin", "none")
    origin = _field(environ, "HTTP_ORIGIN")
    if not origin:
        return False
    # Compared as text, not parsed as a URL: browsers send "null" or scheme://host[:port],
    # lower-case and without a default port.  A missing Host matches none: SERVER_NAME would be a
    # guess.
    scheme, _, host = origin.partition("://")
    return scheme not in ("http", "https") or not host or host != _field(environ, "HTTP_HOST")


def _field(environ: dict[str, Any], name: str) -> str:
    # Servers should have stripped it.
    return str(environ.get(name, "")).strip(" \t")


def _checked(argument: str, values: Iterable[str], pattern: str, rule: str) -> list[str]:
    texts = [*values] if isinstance(values, Iterable) and not isinstance(values, str) else [values]
    for text in texts:
        if text is values or not isinstance(text, str):
            raise TypeError(f"{argument} must be a list of str, {argument}=[...], not {text!r}")
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{argument} has {text!r}: write {rule}")
    return texts
