"""`SessionMiddleware`, which gives each request of an app its visitor's session.

::

    server ── environ ──> SessionMiddleware ──> app        environ["minisession.session"] is a
                                │                          Session, loaded if the app looks at it
    server <── headers ── Response.send() <── first bytes of the app's response
                                │
                          Lifecycle.commit(): the store is written, then the headers leave
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from .exchange import Exchange
from .lifecycle import Lifecycle
from .options import Options, new_id
from .response import Response
from .session import Session
from .stores.base import Store
from .stores.memory import MemoryStore
from .wire.attributes import Cookie
from .wire.signing import Signer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

# With a dot, as PEP 3333 requires of keys that are not the server's.
KEY = "minisession.session"

# Bytes; a shorter secret can be guessed from a cookie.
WEAK_SECRET = 16

VERBS = ("load", "create", "replace", "touch", "rotate", "heir", "delete", "close")


def get_session(environ: dict[str, Any]) -> Session:
    """Return the request's session.

    Raises:
        LookupError: no `SessionMiddleware` is around this app.
        TypeError: ``environ`` is not a dict, but perhaps a framework's request.
    """
    try:
        session = environ.get(KEY)
    except AttributeError:
        kind = type(environ).__name__
        message = f"environ must be the WSGI environ, such as request.environ, not {kind}"
        raise TypeError(message) from None
    if not isinstance(session, Session):
        raise LookupError(
            "this request has no session: wrap the app, as in"
            " app = SessionMiddleware(app, secret=...), and serve what that returns; in Flask,"
            " app.wsgi_app = SessionMiddleware(app.wsgi_app, secret=...)"
        )
    return session


class SessionMiddleware:
    """Gives every request of a WSGI app its visitor's session.

    Args:
        app: the WSGI app.
        secret: what signs the cookie, str or bytes; or several: the first signs and all verify, so
            that a new one in front logs no one out.  Under 16 bytes is a warning; 32 random ones
            are right.
        store: where sessions are kept; a `MemoryStore` of its own by default.
        name: the cookie's name.
        cookie: its attributes, or ``(environ) -> Cookie``.
        resave: store even what did not change.
        save_uninitialized: store, and send a cookie for, sessions that are new and empty.
        rolling: send the cookie again, with its full lifetime, on every response.
        genid: ``(environ) -> str`` makes ids, 1 to 255 characters; by default 24 random bytes.
        proxy: believe the client's first ``X-Forwarded-Proto`` where ``secure="auto"`` asks for the
            scheme.  Not needed with waitress or gunicorn, which set it from trusted proxies.
        idle_timeout: seconds that a session without a ``max_age`` lives after its last use.
        absolute_timeout: seconds after which a session ends however busy it is; None: never.
        max_bytes: the largest record, in bytes; more is `SessionTooLarge`.
        clock: the time, in Unix seconds; for tests.

    Raises:
        TypeError, ValueError: at construction, with the argument's name, what was given, and the
            fix.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        secret: str | bytes | Iterable[str | bytes],
        # Not None, which an unset setting would pass.
        store: Store | EllipsisType = ...,
        name: str = "connect.sid",
        cookie: Cookie | Callable[[dict[str, Any]], Cookie] = Cookie(),  # noqa: B008  # immutable
        resave: bool = False,
        save_uninitialized: bool = False,
        rolling: bool = False,
        genid: Callable[[dict[str, Any]], str] = new_id,
        proxy: bool = False,
        idle_timeout: float = 86400,
        absolute_timeout: float | None = None,
        max_bytes: int = 65536,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not callable(app):
            raise TypeError(f"app must be a WSGI app, a callable, not {app!r}")
        signer = Signer(secret)
        if signer.shortest < WEAK_SECRET:
            warnings.warn(
                f"secret has {signer.shortest} bytes, and under {WEAK_SECRET} it can be guessed"
                " from a cookie: use secrets.token_hex(32)",
                stacklevel=2,
            )
        options = Options(
            name=name, cookie=cookie, resave=resave, save_uninitialized=save_uninitialized,
            rolling=rolling, genid=genid, proxy=proxy, idle_timeout=idle_timeout,
            absolute_timeout=absolute_timeout, max_bytes=max_bytes, clock=clock,
        )  # fmt: skip
        used = MemoryStore(clock=clock) if isinstance(store, EllipsisType) else _checked(store)
        self.app = app
        self._mark = f"minisession.exchange.{name}"
        self._lifecycle = Lifecycle(used, signer, options)

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request (PEP 3333)."""
        outer = environ.get(self._mark)
        if outer is not None and outer.phase != "closed":
            # An app may also call itself, through the same one.
            if outer.lifecycle is not self._lifecycle:
                self._lifecycle.journal.once(
                    f"a second SessionMiddleware named {self._lifecycle.options.name!r} is inside"
                    " another, and its store, secret and timeouts count for nothing: take one away,"
                    " or rename it"
                )
            return self.app(environ, start_response)
        response = Response(self._lifecycle, environ, start_response)
        environ[KEY], environ[self._mark] = Session(response), response
        wrapper = environ.get("wsgi.file_wrapper")
        files = [] if wrapper is None or isinstance(wrapper, type) else _watched(environ, wrapper)
        body: Iterable[bytes] | None = None
        try:
            body = self.app(environ, response.start)
            # A wrapped list would lose the len() from which servers derive a Content-Length, and a
            # wrapped file the server's sendfile().
            if isinstance(body, (list, tuple)) or _is_file(body, wrapper, files):
                response.finish()
                return body
            return response.stream(body)
        except BaseException as error:
            try:
                return response.unavailable(error)
            finally:
                response.abandon(body)

    @contextmanager
    def session_from(self, cookie_header: str) -> Iterator[Session]:
        """Give the session that a ``Cookie`` header stands for, outside of a response.

        For a WebSocket handler, a job that was given the header, or a shell.  Changes are stored
        when the block ends; nothing is stored if it raises.  Each use extends the visitor's
        session.  `destroy`, `save` and `transact` work; what needs a ``Set-Cookie``
        (`regenerate`, a `max_age`) is a `SessionError`.

        Args:
            cookie_header: the header's value, as in ``environ["HTTP_COOKIE"]``.

        Raises:
            SessionGone: the header names no live session; or, as the block ends, it has
                ended meanwhile and changes could not be stored.
            SessionConflict, SessionTooLarge, StoreUnavailable: nothing more was stored.
        """
        if not isinstance(cookie_header, str):
            kind = type(cookie_header).__name__
            raise TypeError(f"cookie_header must be str, the value of a Cookie header, not {kind}")
        exchange = Exchange(self._lifecycle, {})
        exchange.phase = "outside"
        exchange.visit = visit = self._lifecycle.open_outside(cookie_header)
        try:
            yield Session(exchange)
            self._lifecycle.close_outside(visit)
        finally:
            # The header is as good as a password.
            exchange.phase, visit.environ = "closed", {}


def _watched(environ: dict[str, Any], wrapper: Callable[..., Any]) -> list[object]:
    """Give the app a file wrapper that remembers what it returned, in the list that this returns.

    Needed where the server's is not a class, whose instances it could recognise (uWSGI, mod_wsgi).
    """
    returned: list[object] = []

    def file_wrapper(*arguments: Any, **more: Any) -> Any:
        returned.append(wrapper(*arguments, **more))
        return returned[-1]

    environ["wsgi.file_wrapper"] = file_wrapper
    return returned


def _is_file(body: object, wrapper: object, returned: list[object]) -> bool:
    """Return whether a body came from the server's file wrapper."""
    if isinstance(wrapper, type):
        return isinstance(body, wrapper)
    return any(one is body for one in returned)


def _checked(store: Store) -> Store:
    if isinstance(store, type):
        raise TypeError(f"store must be an instance: write store={store.__name__}(...)")
    missing = ", ".join(verb for verb in VERBS if not hasattr(store, verb))
    if missing:
        # It is not shown: a URL, or settings, may hold a password.
        raise TypeError(
            f"store must keep the Store protocol: {type(store).__name__} has no {missing}; use"
            " open_store(url), RedisStore(client) or a store of your own, or leave it out"
        )
    return store
