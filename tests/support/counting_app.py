"""A site that counts its visitors' visits, for servers in processes of their own; SESSION_STORE says where."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from minisession import Cookie, SessionMiddleware, get_session, open_store

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

SECRET = "the secret that all the site's processes share"


def count(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """``/login/ada`` makes it ada's; ``/count`` says whose and how often it was here; ``/still`` does not look."""
    _, page, *name = environ["PATH_INFO"].split("/")
    text = "still"
    if page == "login":
        get_session(environ).regenerate(user=name[0])
    if page != "still":
        session = get_session(environ)
        session["visits"] = session.get("visits", 0) + 1
        text = f"{session.user} {session['visits']}"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text.encode()]


app = SessionMiddleware(
    count, secret=SECRET, store=open_store(os.environ["SESSION_STORE"]), cookie=Cookie(secure="auto")
)
