"""From a template and values to a response: every value is escaped, and caches keep no page."""

from html import escape
from http import HTTPStatus
from pathlib import Path
from string import Template

from .router import Request, Response

HERE = Path(__file__).parent
TEMPLATES = {path.stem: Template(path.read_text(encoding="utf-8")) for path in (HERE / "html").glob("*.html")}
STYLE = (HERE / "style.css").read_bytes()

# No cache may show a session's pages to others, nor may Back after the logout: the browser then requests the page
# again, and gets to the login.  Over plain http, but not over TLS, WebKit shows it from memory all the same.
NO_STORE = {"Cache-Control": "no-store"}


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def fill(template: str, **values: object) -> Html:
    """Fill the template in; what is not `Html` is escaped."""
    texts = {key: value if isinstance(value, Html) else escape(str(value)) for key, value in values.items()}
    return Html(TEMPLATES[template].substitute(texts))


def page(template: str, title: str, *, status: int = 200, **values: object) -> Response:
    """Fill the template in, and put it into the layout."""
    html = fill("layout", title=title, main=fill(template, **values))
    return Response(status, {**NO_STORE, "Content-Type": "text/html; charset=utf-8"}, html.encode())


def redirect(path: str) -> Response:
    """Redirect the browser, with GET."""
    return Response(303, {**NO_STORE, "Location": path})


def error(status: int) -> Response:
    """Say what was wrong."""
    return page("error", HTTPStatus(status).phrase, status=status, code=status)


def stylesheet(request: Request) -> Response:
    """Return the style sheet.  It does not look at the session, so caches may keep it."""
    return Response(200, {"Cache-Control": "public, max-age=300", "Content-Type": "text/css; charset=utf-8"}, STYLE)
