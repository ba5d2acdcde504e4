"""The peers: one small site in each library's own framework, with its sessions and without.

Each is configured as its documentation recommends, with cookies that are Secure, HttpOnly and
SameSite=Lax and secrets of 32 bytes, and so that none drops a live session because its store is full.
Importing this module imports no peer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from itertools import count, cycle
from typing import Any, NamedTuple

from .driving import WSGI, as_wsgi

SECRET = "8mJ2q0vX5cR7tB1nL4wZ9yK3hF6dS0aG"  # 32 bytes
LIFETIME = 86400.0  # seconds
NEVER_FULL = 100_000  # sessions that every store can hold; minisession's own default
USER = ADA = "ada"
DATA: dict[str, Any] = {
    "name": "Ada Lovelace",
    "email": "ada.lovelace@mail.example.com",
    "roles": ["editor", "reviewer", "accounting"],
    "cart": [{"sku": "A-1024", "quantity": 2}, {"sku": "B-77", "quantity": 1}],
    "visits": 100_000,
}
"""What a login puts into the session: 189 bytes of JSON."""

Page = Callable[[Any], bytes]

pause: Callable[[], object] = lambda: None  # noqa: E731  # of the slow pages; keeps.py has another


class Peer(NamedTuple):
    """A library that gives sessions.

    Attributes:
        title: as the report names it.
        kind: "server-side" or "signed cookie".
        packages: the distributions whose versions count.
        stores: what `make` takes for it: "memory", "redis", "sqlite".
    """

    title: str
    kind: str
    packages: tuple[str, ...] = ()
    stores: tuple[str, ...] = ("memory",)


class Apps(NamedTuple):
    """The same routes twice, and a way to forget every session in memory."""

    app: WSGI
    bare: WSGI  # no session machinery at all
    clear: Callable[[], object]


PEERS = {
    "minisession": Peer("minisession", "server-side", ("minisession",), ("memory", "redis")),
    "beaker": Peer("Beaker", "server-side", ("Beaker",), ("memory", "redis")),
    "django": Peer("Django, cache", "server-side", ("Django",), ("memory", "redis")),
    "django-db": Peer("Django, database", "server-side", ("Django",), ("sqlite",)),
    "django-redis": Peer("Django, django-redis", "server-side", ("Django", "django-redis"), ("redis",)),
    "flask-session": Peer("Flask-Session", "server-side", ("Flask-Session", "cachelib"), ("memory", "redis")),
    "django-cookie": Peer("Django, signed cookie", "signed cookie", ("Django",)),
    "flask": Peer("Flask, signed cookie", "signed cookie", ("Flask",)),
    "pyramid": Peer("Pyramid, signed cookie", "signed cookie", ("pyramid",)),
    "starlette": Peer("Starlette, signed cookie", "signed cookie", ("starlette",)),
}

"""The Python ones: `make` makes them."""

NODE = {
    "express-session": Peer("express-session", "server-side"),
    "express": Peer("express-session, Express", "server-side"),
}
"""Those of node/site.js, under Node's own http and under Express."""


def make(name: str, store: str = "memory", lifetime: float = LIFETIME) -> Apps:
    """Return a peer's apps.

    Its routes are the public methods of `Pages`.  In one process, make Django's once.

    Args:
        name: a key of `PEERS`.
        store: "memory", which for signed cookies is the cookie, a redis:// URL, or "sqlite:" and a file.
        lifetime: seconds that an unused session lives.

    Raises:
        ValueError: the peer has no such store.
    """
    kind = store.partition(":")[0]
    if kind not in PEERS[name].stores:
        raise ValueError(f"{name} has no {kind} store")
    url = None if store == "memory" else store
    builders: dict[str, Callable[[str | None, float], Apps]] = {
        "minisession": _minisession,
        "beaker": _beaker,
        "django": _django_cache,
        "django-db": _django_db,
        "django-redis": _django_redis,
        "django-cookie": _django_cookie,
        "flask": _flask,
        "flask-session": _flask_session,
        "pyramid": _pyramid,
        "starlette": _starlette,
    }
    return builders[name](url, lifetime)


# The site


class Pages:
    """What the pages do with a session that is a mutable mapping; ``/show`` is for checking them."""

    _visits = count(100_001)

    def session(self, request: Any) -> Any:
        """Return the request's session, in the library's way."""
        return request.session

    def untouched(self, request: Any) -> bytes:
        """Do not look."""
        return b"ok"

    def read(self, request: Any) -> bytes:
        """Read one key; there is no page for a visitor without it."""
        self.session(request)["name"]
        return b"ok"

    def write(self, request: Any) -> bytes:
        """Write one key, with a value that it never had."""
        session = self.session(request)
        session["visits"] = next(self._visits)
        self.save(session)
        return b"ok"

    def login(self, request: Any) -> bytes:
        """Get a new id, then five keys and the user."""
        session = self.session(request)
        self.renew(request, session)
        session.update(DATA)
        session["user"] = USER
        self.save(session)
        return b"ok"

    def regenerate(self, request: Any) -> bytes:
        """Get a new id and keep the data."""
        session = self.session(request)
        self.renew(request, session)
        self.save(session)
        return b"ok"

    def logout(self, request: Any) -> bytes:
        """End the session."""
        self.session(request).clear()
        return b"ok"

    def show(self, request: Any) -> bytes:
        """Return the data as JSON."""
        return json.dumps(dict(self.session(request))).encode()

    def slow_read(self, request: Any) -> bytes:
        """Read one key, and take long over the rest of the page."""
        self.session(request)["name"]
        pause()
        return b"ok"

    def slow_write(self, request: Any) -> bytes:
        """Read one key, take long, and write one that no other page writes."""
        session = self.session(request)
        session["name"]
        pause()
        session["slow"] = True
        self.save(session)
        return b"ok"

    def renew(self, request: Any, session: Any) -> None:
        """Give the session a new id; signed cookies have none."""

    def save(self, session: Any) -> None:
        """Say that something was changed, where a library wants to be told."""


NAMES = ("untouched", "read", "write", "login", "regenerate", "logout", "show", "slow_read", "slow_write")


def _with(pages: Pages) -> dict[str, Page]:
    return {f"/{name}": getattr(pages, name) for name in NAMES}


def _without() -> dict[str, Page]:
    return {f"/{name}": Pages().untouched for name in NAMES}


def _headers(body: bytes) -> list[tuple[str, str]]:
    return [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]


# Without a framework


def _wsgi(pages: Mapping[str, Page]) -> WSGI:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = pages[environ["PATH_INFO"]](environ)
        start_response("200 OK", _headers(body))
        return [body]

    return app


def _minisession(url: str | None, lifetime: float) -> Apps:
    from minisession import MemoryStore, SessionMiddleware, get_session, open_store

    class Ours(Pages):
        # One user may have a hundredth of a store, and then loses a session with each login.
        users = cycle([f"{ADA} {number}" for number in range(1000)])

        def session(self, request: Any) -> Any:
            return get_session(request)

        def login(self, request: Any) -> bytes:
            session = get_session(request)
            session.regenerate(user=next(self.users) if USER == ADA else USER)
            session.update(DATA)
            return b"ok"

        def logout(self, request: Any) -> bytes:
            get_session(request).destroy()
            return b"ok"

        def renew(self, request: Any, session: Any) -> None:
            session.regenerate(keep=True)

    room = max(2**28, NEVER_FULL * 1000)  # bytes; the default, where that is enough
    store = open_store(url) if url else MemoryStore(max_sessions=NEVER_FULL, max_bytes=room)
    app = SessionMiddleware(_wsgi(_with(Ours())), secret=SECRET, store=store, idle_timeout=lifetime)
    return Apps(app, _wsgi(_without()), store.clear)


def _beaker(url: str | None, lifetime: float) -> Apps:
    from beaker.container import MemoryNamespaceManager
    from beaker.middleware import SessionMiddleware

    class Beakers(Pages):
        def session(self, request: Any) -> Any:
            return request["beaker.session"]

        def logout(self, request: Any) -> bytes:
            request["beaker.session"].delete()
            return b"ok"

        def renew(self, request: Any, session: Any) -> None:
            session.regenerate_id()

        def save(self, session: Any) -> None:
            session.save()

    options = {
        "session.type": "ext:redis" if url else "memory",
        "session.secret": SECRET,
        "session.timeout": int(lifetime),
        "session.secure": True,
        "session.httponly": True,
        "session.samesite": "Lax",
        **({"session.url": url} if url else {}),
    }
    app = SessionMiddleware(_wsgi(_with(Beakers())), options)
    return Apps(app, _wsgi(_without()), MemoryNamespaceManager.namespaces.clear)


# Django


def _django_cache(url: str | None, lifetime: float) -> Apps:
    if url is None:
        backend = "django.core.cache.backends.locmem.LocMemCache"
        return _django("cache", lifetime, BACKEND=backend, OPTIONS={"MAX_ENTRIES": NEVER_FULL})
    return _django("cache", lifetime, BACKEND="django.core.cache.backends.redis.RedisCache", LOCATION=url)


def _django_redis(url: str | None, lifetime: float) -> Apps:
    return _django("cache", lifetime, BACKEND="django_redis.cache.RedisCache", LOCATION=url)


def _django_db(url: str | None, lifetime: float) -> Apps:
    assert url is not None
    file = url.partition(":")[2]
    made = _django("db", lifetime, BACKEND="django.core.cache.backends.dummy.DummyCache", database=file)
    from django.core.management import call_command  # when there are settings

    call_command("migrate", verbosity=0)
    return made


def _django_cookie(url: str | None, lifetime: float) -> Apps:
    return _django("signed_cookies", lifetime, BACKEND="django.core.cache.backends.dummy.DummyCache")


def _django(engine: str, lifetime: float, *, database: str | None = None, **cache: Any) -> Apps:
    import django
    from django.conf import settings
    from django.core.cache import caches
    from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
    from django.http import HttpResponse
    from django.urls import path

    class Djangos(Pages):
        def logout(self, request: Any) -> bytes:
            request.session.flush()
            return b"ok"

        def renew(self, request: Any, session: Any) -> None:
            session.cycle_key()

    settings.configure(
        SECRET_KEY=SECRET,
        ROOT_URLCONF="",  # the requests have their own
        CACHES={"default": cache},
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}} if database else {},
        INSTALLED_APPS=["django.contrib.sessions"] if database else [],
        SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}",
        SESSION_COOKIE_AGE=int(lifetime),
        SESSION_COOKIE_SECURE=True,
        MIDDLEWARE=[],
        USE_TZ=True,
    )
    django.setup()

    def handler(pages: Mapping[str, Page]) -> WSGI:
        def view(page: Page) -> Callable[[Any], Any]:
            def answer(request: Any) -> Any:
                body = page(request)
                return HttpResponse(body, headers=dict(_headers(body)))

            return answer

        routes = tuple(path(route[1:], view(page)) for route, page in pages.items())
        made = WSGIHandler()  # with the middleware that is in the settings now
        made.request_class = type("Request", (WSGIRequest,), {"urlconf": routes})
        app: WSGI = made
        return app

    bare = handler(_without())
    settings.MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
    return Apps(handler(_with(Djangos())), bare, caches["default"].clear)


# Flask


def _flask(url: str | None, lifetime: float) -> Apps:
    return Apps(_flask_app(_with(_Flasks()), lifetime), _flask_bare(), lambda: None)


def _flask_session(url: str | None, lifetime: float) -> Apps:
    from flask import current_app
    from flask_session import Session

    class FlaskSessions(_Flasks):
        def renew(self, request: Any, session: Any) -> None:
            interface: Any = current_app.session_interface
            interface.regenerate(session)

    app = _flask_app(_with(FlaskSessions()), lifetime)
    clear: Callable[[], object] = lambda: None  # noqa: E731  # a cookie has nothing to clear; a cache may follow
    if url is None:
        from cachelib import SimpleCache

        cache = SimpleCache(threshold=NEVER_FULL)
        clear = cache.clear
        app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=cache)
    else:
        from redis import Redis

        app.config.update(SESSION_TYPE="redis", SESSION_REDIS=Redis.from_url(url))
    Session(app)
    return Apps(app, _flask_bare(), clear)


class _Flasks(Pages):
    def session(self, request: Any) -> Any:
        from flask import session

        return session


def _flask_app(pages: Mapping[str, Page], lifetime: float) -> Any:
    from flask import Flask, Response, request

    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=SECRET,
        PERMANENT_SESSION_LIFETIME=timedelta(seconds=lifetime),
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_SAMESITE="Lax",
    )

    def view(page: Page) -> Callable[[], Any]:
        return lambda: Response(page(request), mimetype="text/plain")

    for route, page in pages.items():
        app.add_url_rule(route, route, view(page))
    return app


def _flask_bare() -> Any:
    from flask.sessions import SessionInterface

    nothing: Any = {}

    class Nothing(SessionInterface):
        """Flask without sessions: neither opened nor saved."""

        def open_session(self, app: Any, request: Any) -> Any:
            return nothing

        def is_null_session(self, obj: Any) -> bool:
            return True

    app = _flask_app(_without(), LIFETIME)
    app.session_interface = Nothing()
    return app


# Pyramid and Starlette


def _pyramid(url: str | None, lifetime: float) -> Apps:
    from pyramid.config import Configurator
    from pyramid.response import Response
    from pyramid.session import SignedCookieSessionFactory

    class Pyramids(Pages):
        def logout(self, request: Any) -> bytes:
            request.session.invalidate()
            return b"ok"

    def app(pages: Mapping[str, Page], **options: Any) -> WSGI:
        def view(page: Page) -> Callable[[Any], Any]:
            return lambda request: Response(page(request), content_type="text/plain")

        config = Configurator(**options)
        for route, page in pages.items():
            config.add_route(route, route)
            config.add_view(view(page), route_name=route)
        made: WSGI = config.make_wsgi_app()
        return made

    factory = SignedCookieSessionFactory(SECRET, timeout=int(lifetime), secure=True, httponly=True, samesite="Lax")
    return Apps(app(_with(Pyramids()), session_factory=factory), app(_without()), lambda: None)


def _starlette(url: str | None, lifetime: float) -> Apps:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.sessions import SessionMiddleware
    from starlette.responses import Response
    from starlette.routing import Route

    def app(pages: Mapping[str, Page], *middleware: Any) -> WSGI:
        def view(page: Page) -> Any:
            async def answer(request: Any) -> Any:
                return Response(page(request), media_type="text/plain")

            return answer

        return as_wsgi(Starlette(routes=[Route(r, view(p)) for r, p in pages.items()], middleware=middleware))

    sessions = Middleware(SessionMiddleware, secret_key=SECRET, max_age=int(lifetime), https_only=True)
    return Apps(app(_with(Pages()), sessions), app(_without()), lambda: None)
