"""What each page does with the session: the part to copy."""

from __future__ import annotations

import hmac
import re
from datetime import datetime, timezone

from minisession import Cookie, ListingStore, destroy_sessions_of, get_session, sessions_of

from . import views
from .router import Request, Response

# A demo's!  Real accounts live in a database, their passwords behind hashlib.scrypt.
NAME = "admin"
PASSWORD = "letmein"  # noqa: S105  # no secret: the page shows it

PREFETCH = ("HTTP_SEC_PURPOSE", "HTTP_PURPOSE", "HTTP_X_MOZ")  # where browsers say that no one has clicked yet


def home(request: Request) -> Response:
    """Show the way in, without looking at the session: no cookie is parsed and no store is asked."""
    return views.page("home", "Sessions for any WSGI app")


def login_form(request: Request) -> Response:
    """Ask for a name and a password."""
    if get_session(request.environ).get("login"):
        return views.redirect("/secureplace")
    return _login_page()


def login(request: Request) -> Response:
    """Log the visitor in under a new id, or ask again."""
    name, password = request.form.get("username", ""), request.form.get("password", "")
    # Both are always compared, in constant time, so that the time does not tell which was wrong.
    right_name = hmac.compare_digest(name.encode(), NAME.encode())
    right_password = hmac.compare_digest(password.encode(), PASSWORD.encode())
    if not (right_name and right_password):
        return _login_page(name, failed=True)
    session = get_session(request.environ)
    session.regenerate(user=name)  # an id that was known before the login is worth nothing now
    session["login"] = name
    session["browser"] = browser(request.environ.get("HTTP_USER_AGENT", ""))
    return views.redirect("/secureplace")


def _login_page(name: str = "", *, failed: bool = False) -> Response:
    """After a failure, the name is kept, and a screen reader reads the error with the fields."""
    return views.page(
        "login",
        "Log in",
        status=422 if failed else 200,
        name=name,
        failed=str(failed).lower(),
        error="That name and password do not match." if failed else "",
        focus_name="" if failed else "autofocus",
        focus_password="autofocus" if failed else "",
    )


def secureplace(request: Request, *, cookie_name: str, cookie: Cookie) -> Response:
    """Show visitors who are logged in their session, as a browser's inspector would, but never the id."""
    session = get_session(request.environ)
    if not session.get("login"):
        return views.redirect("/login")
    session["views"] = session.get("views", 0) + 1
    scheme = request.environ["wsgi.url_scheme"]
    secure, samesite = cookie.over(https=scheme == "https")
    left = round((session.expires_at - datetime.now(timezone.utc)).total_seconds())
    flags = ["HttpOnly"] * cookie.httponly + [f"Path={cookie.path}", f"SameSite={samesite}"] + ["Secure"] * secure
    return views.page(
        "secureplace",
        "Secure place",
        login=session["login"],
        views=session["views"],
        left=duration(left),
        seconds=left,
        cookie=cookie_name,
        flags="; ".join(flags),
        scheme=scheme,
        secure="With" if secure else "Without",
        handle=session.handle,
    )


def sessions(request: Request, *, store: ListingStore) -> Response:
    """Show where the user is logged in; a POST logs out the others."""
    session = get_session(request.environ)
    if session.user is None:
        return views.redirect("/login")
    if request.environ["REQUEST_METHOD"] == "POST":
        destroy_sessions_of(store, session.user, keep=session)
        return views.redirect("/sessions")
    rows = [
        views.fill(
            "session",
            browser=view.data.get("browser", "Unknown"),
            since=f"{view.created_at:%d %B %Y, %H:%M} UTC",
            note=views.Html("<strong>This one</strong>" if view.handle == session.handle else ""),
            handle=view.handle,
        )
        for view in sessions_of(store, session.user)
    ]
    others = views.fill("others") if len(rows) > 1 else ""
    return views.page("sessions", "Your sessions", rows=views.Html("".join(rows)), others=others)


def duration(seconds: float) -> str:
    """Return the time as people say it, to the minute: "24 hours", "30 minutes"."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} hours" if minutes >= 120 else f"{minutes} minute{'s' * (minutes != 1)}"


def browser(agent: str) -> str:
    """Name the browser for its user, as it names itself."""
    names = ("Firefox", "Edg", "OPR", "Chrome", "Safari", "curl")  # most also claim to be one further to the right
    name = next((name for name in names if f"{name}/" in agent), "Unknown browser")
    system = re.search("Android|iPhone|iPad|Windows|Macintosh|Linux", agent)
    name = {"Edg": "Edge", "OPR": "Opera"}.get(name, name)
    return f"{name} on {system[0]}" if system else name


def logout(request: Request) -> Response:
    """End the session, if its user asked for it.

    GET works because people link to it and type it.  So a GET that the user may not have meant must not
    log out: a prefetch, or one from another origin, gets a button instead.  (Browsers send Sec-Fetch-Site
    only over https and to localhost.)  A POST from another site does not get here: see app.py.
    """
    environ = request.environ
    ahead = any("prefetch" in environ.get(header, "").lower() for header in PREFETCH)
    meant = environ.get("HTTP_SEC_FETCH_SITE", "none") in ("same-origin", "none")  # ours, or typed
    if environ["REQUEST_METHOD"] == "GET" and (ahead or not meant):
        return views.page("logout", "Log out?")
    if environ["REQUEST_METHOD"] != "HEAD":
        get_session(environ).destroy()
    return views.redirect("/login")
