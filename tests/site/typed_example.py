"""A user's code, for type checkers to read: an app, a log-in, and `PlainStore`, which inherits nothing.

`test_typing.py` has them check it.  What is wrong on purpose is marked ``type: ignore``, and a mark that
has nothing to ignore is an error, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from minisession import (
    Cookie,
    ListingStore,
    Session,
    SessionGone,
    SessionMiddleware,
    Store,
    destroy_sessions_of,
    get_session,
    sessions_of,
)

from ..support.plain_store import PlainStore

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication


store = PlainStore()
verbs: Store = store
lists: ListingStore = store


def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    session = get_session(environ)
    views: int = session.get("views", 0) + 1
    session["views"] = views
    session["cart"] = {"items": [1, 2.5, "three", None, True]}
    session.setdefault("seen", []).append(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{session.handle}: {views}".encode()]


def log_in(session: Session, user: str, remember: bool) -> None:
    session.regenerate(user=user)
    if remember:
        session.cookie.max_age = 30 * 86400


def log_out_everywhere(session: Session) -> int:
    user: str | None = session.user
    if user is None:
        return 0
    return destroy_sessions_of(store, user, keep=session)


def devices(user: str) -> list[tuple[str, datetime]]:
    return [(view.handle, view.expires_at) for view in sessions_of(store, user)]


def count(session: Session) -> int:
    def more(session: Session) -> int:
        session["n"] = session.get("n", 0) + 1
        return int(session["n"])

    try:
        return session.transact(more)
    except SessionGone:
        return 0


def tell(session: Session) -> tuple[datetime, datetime, float | None, bool]:
    return session.created_at, session.expires_at, session.cookie.max_age, session.is_new


def cookie(environ: dict[str, Any]) -> Cookie:
    return Cookie(domain=environ["HTTP_HOST"], secure="auto", samesite=None)


plain: WSGIApplication = SessionMiddleware(app, secret="a secret of thirty-two characters")
full: WSGIApplication = SessionMiddleware(
    app,
    secret=[os.urandom(32), "an older secret of the same length"],
    store=store,
    name="sid",
    cookie=cookie,
    rolling=True,
    genid=lambda environ: os.urandom(24).hex(),
    idle_timeout=3600,
    absolute_timeout=8 * 3600.0,
)


def mistakes(environ: dict[str, Any]) -> None:
    session = get_session(environ)
    session.usr  # type: ignore[attr-defined]  # noqa: B018  # it is a Session, and not anything
    session.user = "admin"  # type: ignore[misc]  # only regenerate() sets it
    session.id = "chosen"  # type: ignore[misc]  # nobody sets it
    session[1] = "one"  # type: ignore[index]  # keys are str
    session.regenerate("admin")  # type: ignore[call-arg, arg-type]  # by keyword alone
    SessionMiddleware(app)  # type: ignore[call-arg]  # no secret
    SessionMiddleware(app, secret="a secret of thirty-two characters", store=None)  # type: ignore[arg-type]
    Cookie(secure="yes")  # type: ignore[arg-type]
    SessionMiddleware(app, secret="a secret of thirty-two characters", store={})  # type: ignore[arg-type]
