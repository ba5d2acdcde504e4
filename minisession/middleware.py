"""One request, from ``environ`` to ``Set-Cookie``.

::

    server ── environ ──> SessionMiddleware ──> app        environ["minisession.session"] is a Session,
                                │                          loaded from the store if the app looks at it
    server <── headers ── Response.send() <── first bytes of the app's response
                                │
                          Lifecycle.commit(): the store is written, then the headers leave

The app's status and headers are held back until its first non-empty block, its first `write()` or its
end (PEP 3333 allows no later), because the session can change until then.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import EllipsisType
from typing import TYPE_CHECKING, Any, cast

from .errors import SessionConflict, StoreUnavailable
from .lifecycle import Lifecycle, new_id
from .session import Session
from .stores.base import Store
from .stores.memory import MemoryStore
from .wire.cookies import Cookie, check_name, check_seconds
from .wire.signing import Signer

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

KEY = "minisession.session"  # with a dot, as PEP 3333 asks of keys that are not the server's
RETRY_AFTER = 5  # seconds, told to clients while the store is down
WEAK_SECRET = 16  # bytes

_END = object()  # what a body that has ended yields


def get_session(environ: dict[str, Any]) -> Session:
    """Return the request's session.

    Raises:
        LookupError: no `SessionMiddleware` is around this app.
    """
    session = environ.get(KEY)
    if not isinstance(session, Session):
        raise LookupError(
            "this request has no session: wrap the app, as in app = SessionMiddleware(app, secret=...),"
            " and serve what that returns"
        )
    return session


class SessionMiddleware:
    """Gives every request of a WSGI app its visitor's session.

    Args:
        app: the WSGI app.
        secret: what signs the cookie, str or bytes; or several: the first signs and all verify, so
            that a new one in front logs nobody out.  Under 16 bytes is a warning; 32 random ones are
            right.
        store: where sessions are kept; a `MemoryStore` of its own by default.
        name: the cookie's name.
        cookie: its attributes, or ``(environ) -> Cookie``.
        resave: store even what did not change.
        save_uninitialized: store, and send a cookie for, sessions that are new and empty.
        rolling: send the cookie again, with its full lifetime, on every response.
        genid: ``(environ) -> str`` makes ids, 1 to 255 characters; by default 24 random bytes.
        proxy: believe the client's first ``X-Forwarded-Proto`` where ``secure="auto"`` asks for the
            scheme.  Not needed with waitress or gunicorn, which set the scheme from trusted proxies.
        idle_timeout: seconds that a session without a ``max_age`` lives after its last use.
        absolute_timeout: seconds after which a session ends however busy it is; None: never.
        max_bytes: the largest record, in bytes; more is `SessionTooLarge`.
        clock: the time, in Unix seconds; for tests.

    Raises:
        TypeError, ValueError: at construction, naming the argument, what was got, and the mend.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        secret: str | bytes | Iterable[str | bytes],
        store: Store | EllipsisType = ...,  # not None, which an unset setting would pass
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
                f"secret has {signer.shortest} bytes, and under {WEAK_SECRET} it can be guessed from a cookie:"
                " use secrets.token_hex(32)",
                stacklevel=2,
            )
        store = MemoryStore(clock=clock) if isinstance(store, EllipsisType) else _checked(store)
        check_name(name)
        if isinstance(cookie, Cookie):
            cookie.check_name(name)
        elif isinstance(cookie, type) or not callable(cookie):
            raise TypeError(f"cookie must be a Cookie, or a callable (environ) -> Cookie, not {cookie!r}")
        for option, function in (("genid", genid), ("clock", clock)):
            if not callable(function):
                raise TypeError(f"{option} must be callable, not {function!r}")
        flags = {"resave": resave, "save_uninitialized": save_uninitialized, "rolling": rolling, "proxy": proxy}
        for option, flag in flags.items():
            if not isinstance(flag, bool):
                raise TypeError(f"{option} must be True or False, not {flag!r}")
        check_seconds("idle_timeout", idle_timeout)
        if absolute_timeout is not None:
            check_seconds("absolute_timeout", absolute_timeout)
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int):
            raise TypeError(f"max_bytes must be an int, not {max_bytes!r}")
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes!r}")
        self.app = app
        self._mark = f"minisession.session.{name}"
        self._lifecycle = Lifecycle(
            store=store,
            signer=signer,
            name=name,
            cookie=cookie,
            genid=genid,
            idle_timeout=idle_timeout,
            absolute_timeout=absolute_timeout,
            max_bytes=max_bytes,
            clock=clock,
            resave=resave,
            save_uninitialized=save_uninitialized,
            rolling=rolling,
            proxy=proxy,
        )

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request (PEP 3333)."""
        if self._mark in environ:
            outer = environ[self._mark]
            if isinstance(outer, Session) and outer._phase != "closed":
                return self.app(environ, start_response)  # a second middleware of this name is one too many
        session = Session(self._lifecycle, environ)
        environ[KEY] = environ[self._mark] = session
        response = Response(self._lifecycle, session, start_response, environ)
        body: Iterable[bytes] | None = None
        try:
            body = self.app(environ, response.start)
            # A list, wrapped, would lose the len() from which servers tell its Content-Length; a file
            # wrapper, the server's sendfile().
            if isinstance(body, (list, tuple)) or _is_file(environ, body):
                response.send()
                response.end(late=False)
                return body
            return response.stream(body)
        except (StoreUnavailable, SessionConflict) as error:
            response.abandon(body)
            if response.sent:
                raise
            return response.unavailable(error)
        except BaseException:
            response.abandon(body)
            raise


class Response:
    """A response on its way out: holds its headers back until the session is stored.

    Also the iterable that the server gets for a streaming body.
    """

    __slots__ = (
        *("_body", "_chunks", "_cookie", "_environ", "_failed", "_headers", "_lifecycle"),
        *("_server", "_session", "_status", "_write", "sent"),
    )

    def __init__(self, lifecycle: Lifecycle, session: Session, server: StartResponse, environ: dict[str, Any]) -> None:
        self._lifecycle, self._session, self._server, self._environ = lifecycle, session, server, environ
        self.sent = False  # the server has the headers
        self._status: str | None = None
        self._headers: list[tuple[str, str]]
        self._write: Callable[[bytes], object] | None = None
        self._cookie: str | None = None
        self._body: Any = None
        self._chunks: Iterator[bytes]
        self._failed = False

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
        """Be the app's ``start_response``."""
        try:
            if self.sent:  # the server knows whether the first headers have left, and re-raises if so
                return self._server(status, self._dressed(headers), exc_info)
            if self._status is not None and exc_info is None:
                raise AssertionError("start_response was called a second time without exc_info")
        finally:
            exc_info = None  # a traceback that holds its own frame is a cycle (PEP 3333)
        self._status, self._headers = status, headers
        return self.write

    def write(self, data: bytes) -> None:
        """Be the ``write`` that ``start_response`` returns."""
        self.send()
        if self._write is not None:
            self._write(data)

    def send(self) -> None:
        """Commit the session, then hand the headers to the server; once."""
        if self.sent or self._status is None:  # an app that started no response: the server will say so
            return
        session = self._session
        if session._visit is not None:
            self._cookie = self._lifecycle.commit(session._visit)
        elif self._lifecycle.always:
            try:
                self._cookie = self._lifecycle.commit(session._look())
            except (StoreUnavailable, SessionConflict) as error:  # the app does not use it, and never notices
                self._lifecycle.tell(logging.WARNING, "session left alone: %s", error)
        self.sent = True
        session._phase = "streaming"
        headers = self._headers if session._visit is None else self._dressed(self._headers)
        self._write = self._server(self._status, headers)

    def _dressed(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the app's headers with ours; the app's own list stays as it is."""
        if self._session._visit is None:
            return headers
        headers = list(headers)
        names = [name.lower() for name, _ in headers]
        if "vary" in names:
            _vary_on_cookie(headers)
        else:
            headers.append(("Vary", "Cookie"))
        if self._cookie is not None:
            if "cache-control" not in names:
                headers.append(("Cache-Control", "no-store"))  # a cache would hand one visitor's cookie to others
            headers.append(("Set-Cookie", self._cookie))
        return headers

    # The streaming body

    def stream(self, body: Iterable[bytes]) -> Response:
        """Take the app's iterable; nothing of it is consumed before the server asks."""
        self._body = body
        self._chunks = iter(body)
        return self

    def __iter__(self) -> Response:
        return self

    def __next__(self) -> bytes:
        try:
            chunk = next(self._chunks, _END)
            # Headers wait for the first non-empty block; servers want them before an empty one, too.
            while not self.sent and chunk == b"":
                chunk = next(self._chunks, _END)
            self.send()
        except (StoreUnavailable, SessionConflict) as error:
            self._failed = True
            if self.sent:
                raise
            self._chunks = iter(self.unavailable(error))
            chunk = next(self._chunks, _END)
        except BaseException:
            self._failed = True
            raise
        if chunk is _END:
            raise StopIteration
        return cast("bytes", chunk)

    def close(self) -> None:
        """Close the app's body, then store what it changed after the headers."""
        body, self._body = self._body, None
        self._chunks = iter(())  # an iterator that keeps start_response keeps us: break the cycle
        try:
            if hasattr(body, "close"):
                body.close()
        except BaseException:
            self._failed = True
            raise
        finally:
            self.end()

    def end(self, *, late: bool = True) -> None:
        """Be done: store late changes, if there can be any and the body did not fail; refuse later ones."""
        visit = self._session._visit
        if visit is not None and self._session._phase != "closed":
            if late and not self._failed and self._status is not None:
                try:
                    self._lifecycle.commit_late(visit)
                except Exception as error:
                    self._tell_error("changes made after the headers were not stored", error)
            visit.environ = {}
        self._session._phase = "closed"
        self._session._environ = None  # environ holds the session: break the cycle

    def abandon(self, body: Any) -> None:
        """Be done with a response that failed: store nothing more, close the app's body."""
        self._failed = True
        self._body = body
        try:
            self.close()
        except Exception:
            self._lifecycle.tell(logging.ERROR, "the app's close() failed, after its response had", exc_info=True)

    def unavailable(self, error: Exception) -> list[bytes]:
        """Answer 503 in the app's stead."""
        self._tell_error("503 Service Unavailable", error)
        text = b"503 Service Unavailable: the session store did not answer. Please try again in a moment.\n"
        self.sent = True
        self._server(
            "503 Service Unavailable",
            [
                ("Content-Type", "text/plain; charset=utf-8"),
                ("Content-Length", str(len(text))),
                ("Cache-Control", "no-store"),
                ("Retry-After", str(RETRY_AFTER)),
            ],
        )
        head = self._environ.get("REQUEST_METHOD") == "HEAD"  # a body would be taken for the next response
        return [] if head else [text]

    def _tell_error(self, what: str, error: Exception) -> None:
        self._lifecycle.tell(logging.ERROR, f"{what}: %s: %s", type(error).__name__, error)


def _vary_on_cookie(headers: list[tuple[str, str]]) -> None:
    """Add to the last Vary, if none has it already."""
    varies = [(index, value) for index, (name, value) in enumerate(headers) if name.lower() == "vary"]
    fields = {field.strip().lower() for _, value in varies for field in value.split(",")}
    if not fields & {"cookie", "*"}:
        last, value = varies[-1]
        headers[last] = (headers[last][0], f"{value}, Cookie" if value.strip() else "Cookie")


def _is_file(environ: dict[str, Any], body: Any) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


def _checked(store: Store) -> Store:
    if isinstance(store, type):
        raise TypeError(f"store must be an instance: write store={store.__name__}(...), with the brackets")
    missing = [verb for verb in ("load", "create", "replace", "touch", "delete", "close") if not hasattr(store, verb)]
    if missing:
        raise TypeError(f"store must keep the Store protocol: {store!r} has no {', '.join(missing)}")
    return store
