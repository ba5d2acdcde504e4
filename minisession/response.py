"""A response on its way out: PEP 3333, and when the session is stored.

The app's status and headers are held back until its first non-empty block, its first `write()` or
its end (PEP 3333 allows no later), because the session can change until then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from .errors import SessionConflict, StoreUnavailable
from .exchange import Exchange

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

    from .lifecycle import Lifecycle

# Seconds, told to clients while a session cannot be had or kept.
RETRY_AFTER = 5

# What a body that has ended yields.
_END = object()


class Response(Exchange):
    """An exchange with a server: holds the headers back until the session is stored.

    Also the iterable that the server gets for a streaming body.
    """

    # What most responses never change stands here once, instead of in each of them.

    _status: str | None = None
    _write: Callable[[bytes], object] | None = None
    _cookie: str | None = None
    _body: Any = None
    _failed = False
    _headers: list[tuple[str, str]]
    _chunks: Iterator[bytes]

    def __init__(
        self, lifecycle: Lifecycle, environ: dict[str, Any], server: StartResponse
    ) -> None:
        self.lifecycle, self.environ, self._server = lifecycle, environ, server
        self.cookies, self._method = environ.get("HTTP_COOKIE"), environ.get("REQUEST_METHOD")

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        """Be the app's ``start_response``."""
        try:
            # The server knows whether the first headers have left, and re-raises if so.
            if self.phase != "open":
                return self._server(status, self._dressed(headers), exc_info)
            if self._status is not None and exc_info is None:
                raise AssertionError("start_response was called a second time without exc_info")
        finally:
            # A traceback that holds its own frame is a cycle (PEP 3333).
            exc_info = None
        self._status, self._headers = status, headers
        return self.write

    def write(self, data: bytes) -> None:
        """Be the ``write`` that ``start_response`` returns."""
        self.send()
        if self._write is None:
            # hypercorn and bjoern return none, and what is written must not be lost silently.
            raise TypeError("the server's start_response returned no write(): return the body")
        self._write(data)

    def send(self) -> None:
        """Commit the session, then hand the headers to the server; once."""
        # The app has started no response: the server reports that.
        if self.phase != "open" or self._status is None:
            return
        lifecycle = self.lifecycle
        if self.visit is not None:
            self._cookie = lifecycle.commit(self.visit)
        elif lifecycle.options.always:
            try:
                self._cookie = lifecycle.commit(self.look())
            except (StoreUnavailable, SessionConflict) as error:
                # The app does not use its session, so it should not notice.
                lifecycle.journal.warning("session left alone: %s", error)
        self.phase = "streaming"
        headers = self._headers
        if self.visit is not None or self.looked_in_vain:
            headers = self._dressed(headers)
        self._write = self._server(self._status, headers)

    def _dressed(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the app's headers with ours; the app's own list is not modified."""
        if self.visit is None and not self.looked_in_vain:
            return headers
        headers = list(headers)
        vary, fields, cached = None, "", None
        for at, (name, value) in enumerate(headers):
            lower = name.lower()
            if lower == "vary":
                vary, fields = at, f"{fields},{value}"
            elif lower == "cache-control":
                cached = value
            elif lower == "set-cookie":
                self._look_at_cookie(value)
        if vary is None:
            headers.append(("Vary", "Cookie"))
        elif not {"cookie", "*"} & {field.strip() for field in fields.lower().split(",")}:
            name, value = headers[vary]
            headers[vary] = (name, f"{value}, Cookie" if value.strip() else "Cookie")
        if self._cookie is not None:
            if cached is None:
                # A cache would hand one visitor's cookie to others.
                headers.append(("Cache-Control", "no-store"))
            elif "public" in cached.lower():
                self.lifecycle.journal.once(
                    "a response that sets the session's cookie says Cache-Control: public: a cache"
                    " may hand one visitor's session to others; say no-store or private"
                )
            headers.append(("Set-Cookie", self._cookie))
        return headers

    def _look_at_cookie(self, value: str) -> None:
        """Warn where the app sets a cookie of the session's name itself."""
        name = self.lifecycle.options.name
        if value.partition("=")[0].strip() == name:
            self.lifecycle.journal.once(
                f"the app sets a cookie {name} itself, which is the session's: the browser keeps"
                " one of the two; give one of them another name"
            )

    def finish(self) -> None:
        """Send the headers, or store what changed since they left.  Nothing can change then."""
        if self.phase == "open":
            self.send()
        else:
            self._store_late()
        # environ holds the session, which holds this; so may what the server gave: break the cycle.
        self.phase, self.environ, self._server, self._write = "closed", {}, _over, _over
        if self.visit is not None:
            self.visit.environ = {}

    # The streaming body

    def stream(self, body: Iterable[bytes]) -> Response:
        """Take the app's iterable; none of it is consumed before the server asks."""
        self._body = body
        self._chunks = iter(body)
        return self

    def __iter__(self) -> Response:
        return self

    def __next__(self) -> bytes:
        try:
            chunk = next(self._chunks, _END)
            # Headers wait for the first non-empty block; servers want them before empty ones, too.
            while self.phase == "open" and chunk == b"":
                chunk = next(self._chunks, _END)
            self.send()
        except BaseException as error:
            self._chunks = iter(self.unavailable(error))
            chunk = next(self._chunks, _END)
        if chunk is _END:
            # Now, and not at close(), which some servers call after the client has seen the end.
            self._store_late()
            raise StopIteration
        return cast("bytes", chunk)

    def close(self) -> None:
        """Close the app's body, then store what it changed since."""
        body, self._body = self._body, None
        # An iterator that keeps start_response keeps us: break the cycle.
        self._chunks = iter(())
        try:
            if hasattr(body, "close"):
                body.close()
        except BaseException:
            self._failed = True
            raise
        finally:
            # Headers that are not out by now never will be.
            self.phase = "streaming" if self.phase == "open" else self.phase
            self.finish()

    def _store_late(self) -> None:
        """Store what changed after the headers, unless the response failed; log what cannot be."""
        # Where the app has started no response, nothing is stored.
        if self.visit is None or self.phase == "closed" or self._failed or self._status is None:
            return
        try:
            self.lifecycle.commit_late(self.visit)
        except Exception as error:
            self._failed = True
            self._tell_error("changes made after the headers were not stored", error)

    # What goes wrong

    def abandon(self, body: Any) -> None:
        """Close the body of an app whose response has failed; nothing more is stored."""
        self._body = body
        try:
            self.close()
        except Exception:
            self.lifecycle.journal.error(
                "the app's close() failed, after its response had", exc_info=True
            )

    def unavailable(self, error: BaseException) -> list[bytes]:
        """Answer 503 in place of the app, where that is the reason and not too late; else raise."""
        self._failed = True
        if self.phase != "open" or not isinstance(error, (StoreUnavailable, SessionConflict)):
            if self.visit is not None:
                why, journal = type(error).__name__, self.lifecycle.journal
                journal.debug("nothing more of the session is stored, because of %s", why)
            # Bare: a traceback that had this frame, and so the error, would be a cycle.
            raise
        self.phase = "streaming"
        self._tell_error("503 Service Unavailable", error)
        why = "the session store did not answer"
        if isinstance(error, SessionConflict):
            why = "other requests kept changing this session"
        text = f"503 Service Unavailable: {why}. Please try again in a moment.\n".encode()
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(text))),
            ("Cache-Control", "no-store"),
            ("Retry-After", str(RETRY_AFTER)),
        ]
        self._server("503 Service Unavailable", headers)
        # A body after HEAD would be taken for the next response.
        return [] if self._method == "HEAD" else [text]

    def _tell_error(self, what: str, error: Exception) -> None:
        self.lifecycle.journal.error(f"{what}: %s: %s", type(error).__name__, error)


def _over(*_: Any) -> Any:
    """Stand for what the server gave, when the response is complete."""
    raise AssertionError("the response is complete: nothing can be started or written any more")
