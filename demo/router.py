"""From a path and a method to a page: 404 if there is no such path, 405 if it lacks the method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from .forms import BadForm, read_form

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

# Only this site's own styles are loaded, forms post only to it, no page frames it, and no script runs.
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


class Request(NamedTuple):
    """What a page is given."""

    environ: dict[str, Any]
    form: dict[str, str]


class Response(NamedTuple):
    """What a page gives back."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


Page = Callable[[Request], Response]


class Router:
    """A WSGI app of pages.

    Args:
        routes: ``{path: {method: page}}``.  A page with GET also has HEAD.
        error: makes the page for a status code.
    """

    def __init__(self, routes: Mapping[str, Mapping[str, Page]], *, error: Callable[[int], Response]) -> None:
        self._error = error
        self._routes = {
            path: {**methods, "HEAD": methods["GET"]} if "GET" in methods else methods
            for path, methods in routes.items()
        }

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request (PEP 3333)."""
        status, headers, body = self._respond(environ)
        headers = {**headers, **SECURITY, "Content-Length": str(len(body))}
        start_response(f"{status} {HTTPStatus(status).phrase}", list(headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _respond(self, environ: dict[str, Any]) -> Response:
        methods = self._routes.get(environ.get("PATH_INFO") or "/")
        if methods is None:
            return self._error(404)
        page = methods.get(environ["REQUEST_METHOD"])
        if page is None:
            refusal = self._error(405)
            refusal.headers["Allow"] = ", ".join(sorted(methods))
            return refusal
        try:
            form = read_form(environ) if environ["REQUEST_METHOD"] == "POST" else {}
        except BadForm as bad:
            return self._error(bad.status)
        return page(Request(environ, form))
