"""The demo, wired: ``waitress-serve --listen=127.0.0.1:8080 demo.app:app``.

``SESSION_STORE`` says where sessions are kept (``sqlite:///sessions.db``, ``redis://localhost``),
``SESSION_SECRET`` is what signs the cookies, and ``SESSION_PROFILE=strict`` is for visitors who all come over
TLS; ``demo/tls.sh`` puts nginx in front.

::

    router.py   from a path and a method to a page
    pages.py    what each page does with the session: the part to copy
    views.py    what it looks like, with html/ and style.css
    forms.py    a form's fields, from a body that any client may have sent
"""

import logging
import os
import secrets
from functools import partial
from typing import Any

from minisession import Cookie, CrossOriginProtection, SessionMiddleware, open_store

from . import pages, views
from .router import Router

PROFILES: dict[str, dict[str, Any]] = {
    # "auto" is for clients that send no Secure cookie over plain http: WebTest, Safari on localhost, and every
    # browser on another machine of the LAN.  Over TLS the cookie is Secure.  A site that has TLS everywhere
    # leaves it out, because Secure is the default.
    "": {"name": "connect.sid", "cookie": Cookie(secure="auto")},
    # As in docs/security.md.
    "strict": {
        "name": "__Host-sid",
        "cookie": Cookie(samesite="Strict"),
        "idle_timeout": 30 * 60,
        "absolute_timeout": 8 * 3600,
    },
}


def secret() -> str:
    """Return what signs the cookies: ``SESSION_SECRET``, or random bytes."""
    given = os.environ.get("SESSION_SECRET")
    if not given:
        logging.getLogger("demo").warning(
            "SESSION_SECRET is not set: a random one is used, and all sessions end with this process"
        )
    return given or secrets.token_hex(32)


profile = PROFILES[os.environ.get("SESSION_PROFILE", "")]
store = open_store(os.environ.get("SESSION_STORE") or "memory:")

router = Router(
    {
        "/": {"GET": pages.home},
        "/login": {"GET": pages.login_form, "POST": pages.login},
        "/secureplace": {"GET": partial(pages.secureplace, cookie_name=profile["name"], cookie=profile["cookie"])},
        "/sessions": {"GET": partial(pages.sessions, store=store), "POST": partial(pages.sessions, store=store)},
        "/logout": {"GET": pages.logout, "POST": pages.logout},
        "/style.css": {"GET": views.stylesheet},
    },
    error=views.error,
)

app = CrossOriginProtection(SessionMiddleware(router, secret=secret(), store=store, **profile))
