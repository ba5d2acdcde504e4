"""What is logged: each decision with its reason, no flood of lines, nothing that opens a session."""

from __future__ import annotations

import gc
import logging
import math
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from webtest import TestApp

import demo.app
from minisession import (
    CrossOriginProtection,
    MemoryStore,
    Session,
    SessionMiddleware,
    Stored,
    StoreUnavailable,
    get_session,
)
from minisession.journal import EVERY, Journal, handle_of
from minisession.visit import Replaced
from minisession.wire import record
from minisession.wire.signing import Signer

from ..support.browser import SECRET, Clock, SpyStore
from ..support.rows import row
from ..wsgi.test_crossorigin import EVIL
from ..wsgi.test_crossorigin import ask as ask_across
from .test_hostile import (
    CHARACTERS,
    CORRUPT,
    FORGED,
    INFINITE,
    NAME,
    NOT_JSON,
    OLD_SECRET,
    OURS,
    PLACES,
    RAW,
    RECORD,
    SECRETS,
    SIGNED,
    UNFIT,
    VICTIM,
    encoded,
    signed,
)
from .test_lifecycle import Down

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

Page = Callable[[Session], Any]

DATUM = "4111-private-datum"
LINES = logging.getLogger("minisession")


@pytest.fixture(autouse=True)
def at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "minisession")


# The bound


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tell(clock: Clock) -> Journal:
    return Journal(clock)


def test_of_one_kind_three_lines_at_once_and_then_one_a_minute(
    tell: Journal, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each says what it stands for, so that an operator sees the size of the flood."""
    for _ in range(1000):
        tell.debug("cookie %s ignored", "a")
    assert caplog.messages == ["cookie a ignored"] * 2 + ["cookie a ignored (more like this: one a minute)"]

    clock.advance(EVERY - 1)
    tell.debug("cookie %s ignored", "b")
    assert len(caplog.messages) == 3

    clock.advance(1)
    for _ in range(10):
        tell.debug("cookie %s ignored", "c")
    assert caplog.messages[3:] == ["cookie c ignored (and 998 more like this, not logged)"]


def test_after_three_quiet_minutes_there_are_three_lines_again(
    tell: Journal, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """And not more after an hour: a flood may come at any time."""
    for minutes in (0, 3, 60):
        clock.advance(minutes * EVERY)
        caplog.clear()
        for _ in range(10):
            tell.debug("no cookie")
        assert len(caplog.messages) == 3


def test_one_kind_does_not_hide_another(tell: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """A flood of forged cookies must not cover up that the store is down."""
    for _ in range(10):
        tell.debug("forged")
    caplog.clear()
    tell.error("store down")
    assert [(line.levelname, line.getMessage()) for line in caplog.records] == [("ERROR", "store down")]


def test_what_the_level_leaves_out_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Neither a look at the clock nor an allowance."""
    caplog.set_level(logging.WARNING, "minisession")
    tell = Journal(lambda: pytest.fail("asked for the time"))
    tell.debug("x")
    assert caplog.messages == []


def test_threads_share_the_allowance(tell: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """Also where one is interrupted between looking and writing down."""

    class Slow(dict[str, tuple[float, int]]):
        def get(self, *arguments: Any) -> Any:
            found = super().get(*arguments)
            time.sleep(0)  # lets another thread run
            return found

    tell._kinds = Slow()

    def flood() -> None:
        for _ in range(100):
            tell.debug("x")

    threads = [threading.Thread(target=flood) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(caplog.messages) == 3
    assert tell._kinds["x"][1] == 397


def test_a_line_says_where_it_comes_from(tell: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """And has the traceback, where there is one."""
    try:
        raise OSError("disk")
    except OSError:
        tell.error("failed", exc_info=True)
    [line] = caplog.records
    assert (line.filename, line.funcName) == ("test_log.py", "test_a_line_says_where_it_comes_from")
    assert "OSError: disk" in caplog.text


# Floods


def make(page: Page | None, **options: Any) -> SessionMiddleware:
    """An app that runs ``page(session)``, or leaves its session alone."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if page is not None:
            page(get_session(environ))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"done"]

    return SessionMiddleware(app, **{"secret": SECRET, "clock": Clock(), **options})


def with_victim(clock: Clock, data: bytes = RECORD) -> MemoryStore:
    store = MemoryStore(clock=clock)
    assert store.create(VICTIM, data, clock() + 86400)
    return store


def send(app: WSGIApplication, cookie: Any = None, **environ: Any) -> str:
    """Return the response's body."""
    request = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "https", **environ}
    if cookie is not None:
        request["HTTP_COOKIE"] = cookie
    return b"".join(app(request, lambda status, headers, exc_info=None: lambda data: None)).decode()


def look(session: Session) -> None:
    session.get("k")


def write(session: Session) -> None:
    session["k"] = 1


def remember(session: Session) -> None:
    session["k"] = 1
    session.cookie.max_age = 60


@row("T4")
def test_100000_forged_cookies_are_no_store_call_and_at_most_10_lines(caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG: the attacker's requests must not fill the operator's disk."""
    store = SpyStore()
    app = make(look, store=store)
    values = [f"{NAME}={encoded(value)}" for value in FORGED.values()]
    for number in range(100_000):
        send(app, values[number % len(values)])
    assert store.verbs == []
    assert 2 <= len(caplog.messages) <= 10
    assert any("signature does not verify" in line for line in caplog.messages)


FLOODS: dict[str, tuple[Page, str | None, str]] = {
    "no cookie": (look, None, "no cookie"),
    "16 forged cookies": (look, f"{NAME}=x; " * 16, "duplicate"),
    "a signed id that is unknown": (look, signed("unknown"), "not in the store"),
    "new sessions": (write, None, "created"),
    "new sessions, forged cookies": (write, f"{NAME}=x", "cookie sent"),
    "logouts without a session": (Session.destroy, f"{NAME}=x", "removed"),
    "an id that a log-in replaced": (look, signed("buried"), "ended a moment ago"),
    "changes to it": (write, signed("buried"), "changes not stored"),
    "a session over its time": (look, signed("old"), "absolute timeout"),
    "a record that is none": (look, signed("corrupt"), "not a session"),
    "a record too large": (look, signed("big"), "max_bytes"),
}


@row("T4")
@pytest.mark.parametrize(("page", "cookie", "words"), FLOODS.values(), ids=FLOODS)
def test_what_anybody_can_cause_is_at_most_ten_lines(
    page: Page, cookie: str | None, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the request is, if no live session comes with it."""
    clock = Clock()
    store = MemoryStore(clock=clock)
    old = RECORD.replace(b"1794999000", b"1794000000")
    for id, data in {"buried": b"", "old": old, "corrupt": b"{", "big": RECORD + b" " * 65536}.items():
        assert store.create(id, data, clock() + 86400)
    app = make(page, store=store, clock=clock, absolute_timeout=86400)
    for _ in range(200):
        send(app, cookie)
    assert len(caplog.messages) <= 10
    assert any(words in line for line in caplog.messages)


@row("S4")
@pytest.mark.parametrize(
    ("verbs", "page", "cookie", "options", "words"),
    [
        (("create",), write, None, {}, "503"),
        (("load",), look, OURS, {}, "503"),
        (("load",), None, OURS, {"rolling": True}, "left alone"),
        (("touch",), look, OURS, {"rolling": True}, "not touched"),
    ],
)
def test_a_store_that_is_down_is_told_once_a_burst(
    verbs: tuple[str, ...],
    page: Page | None,
    cookie: str | None,
    options: dict[str, Any],
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And how many requests it hit."""
    clock = Clock()
    app = make(page, store=Down(with_victim(clock), *verbs), clock=clock, **options)
    app._lifecycle.journal._clock = clock
    for _ in range(100):
        send(app, cookie)
    clock.advance(EVERY)
    send(app, cookie)

    told = [line.getMessage() for line in caplog.records if words in line.getMessage()]
    assert len(told) == 4
    assert "and 97 more" in told[-1]
    assert len([line for line in caplog.records if line.levelno >= logging.WARNING]) <= 8


def test_an_app_whose_close_fails_is_at_most_ten_lines(caplog: pytest.LogCaptureFixture) -> None:
    """With a traceback each, they would be the longest."""

    class Files(list[bytes]):
        def close(self) -> None:
            raise OSError("disk")

    app = make(write, store=Down(MemoryStore(), "create"))
    inner = app.app
    app.app = lambda environ, start_response: Files(inner(environ, start_response))
    for _ in range(100):
        send(app)
    assert "OSError: disk" in caplog.text
    assert len(caplog.messages) <= 10


def test_refused_cross_origin_requests_are_at_most_ten_lines(caplog: pytest.LogCaptureFixture) -> None:
    app = CrossOriginProtection(make(look))
    for _ in range(100):
        assert ask_across(origin=EVIL, app=app) == 403
    assert 1 <= len(caplog.messages) <= 10


def test_what_live_sessions_do_is_told_in_full(caplog: pytest.LogCaptureFixture) -> None:
    """Each line has the handle: who looks for one visitor's trouble must not find a gap."""
    clock = Clock()
    app = make(look, store=with_victim(clock), clock=clock, rolling=True)
    for _ in range(50):
        send(app, OURS)
    told = [f"session {handle_of(VICTIM)} {done}" for done in ("loaded", "touched", "is rolling")]
    assert caplog.messages == [*told[:2], f"cookie sent: {told[2]}"] * 50


# Reasons


REASONS: dict[str, tuple[Page, dict[str, Any], str, list[str]]] = {
    "read": (look, {}, OURS, ["not stored: unchanged", "not sent: the browser has it already"]),
    "changed": (lambda session: session.update(k=2), {}, OURS, ["stored", "not sent: the browser has it already"]),
    "new": (write, {}, "", ["created", "cookie sent: session {} is new"]),
    "left empty": (look, {}, "", ["no cookie connect.sid", "not sent: the session is new and empty"]),
    "another max_age": (remember, {}, OURS, ["stored", "cookie sent: session {} has another max_age"]),
    "with a max_age": (
        lambda session: session.update(k=2),
        {},
        signed("lasting"),
        ["stored", "cookie sent: session {} has a max_age, which starts anew"],
    ),
    "transact, with a max_age": (
        lambda session: session.transact(write),
        {},
        signed("lasting"),
        ["stored", "not stored: unchanged", "cookie sent: session {} has a max_age, which starts anew"],
    ),
    "rolling": (look, {"rolling": True}, OURS, ["touched", "cookie sent: session {} is rolling"]),
    "older secret": (
        look,
        {"secret": [OLD_SECRET, SECRET]},
        OURS,
        ["touched", "cookie sent: session {} was signed by an older secret"],
    ),
    "regenerated": (
        lambda session: session.regenerate(user="u"),
        {},
        OURS,
        ["created", "cookie sent: session {} has a new id"],
    ),
    "destroyed": (Session.destroy, {}, OURS, ["destroyed", "cookie removed: destroyed"]),
    "destroyed, new": (Session.destroy, {}, "", ["not sent: destroyed, and there was none"]),
    "forged": (look, {}, f"{NAME}=x", ["signature does not verify", "not sent: the session is new and empty"]),
}


@pytest.mark.parametrize(("page", "options", "cookie", "words"), REASONS.values(), ids=REASONS)
def test_why_a_session_was_stored_and_a_cookie_sent_or_not(
    page: Page, options: dict[str, Any], cookie: str, words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """One line each, in this order."""
    clock = Clock()
    store = with_victim(clock)
    store.create("lasting", b'{"cookie":{"originalMaxAge":86400000}}', clock() + 86400)
    handles: list[str] = []

    def work(session: Session) -> None:
        page(session)
        handles.append(session.handle if "destroyed" not in repr(session) else "")

    send(make(work, store=store, clock=clock, **options), cookie)

    lines = caplog.messages[-len(words) :]
    assert [word.format(handles[0]) in line for word, line in zip(words, lines, strict=True)] == [True] * len(words)


@pytest.mark.parametrize(
    ("meanwhile", "words"),
    [
        (lambda store: store.delete(VICTIM), ["is not in the store", "not sent: session {} ended while this request"]),
        (
            lambda store: store.rotate(VICTIM, store.load(VICTIM).data, "heir", b"{}", math.inf, inherits=True),
            ["not sent: session {} ended while this request"],
        ),
    ],
    ids=["destroyed", "a new id"],
)
def test_why_no_cookie_was_sent_for_a_session_that_ended_meanwhile(
    meanwhile: Callable[[Any], object], words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    store = with_victim(clock)

    def work(session: Session) -> None:
        session.get("k")
        caplog.clear()
        meanwhile(store)

    send(make(work, store=store, clock=clock, rolling=True), OURS)

    handle = handle_of(VICTIM)
    assert [word.format(handle) in line for word, line in zip(words, caplog.messages, strict=True)] == [True] * len(
        words
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rolling": True}, ["session {} not touched: the store is down", "{} not sent: its touch failed"]),
        (
            {"secret": [OLD_SECRET, SECRET]},
            ["session {} not touched: the store is down", "{} not sent: its touch failed"],
        ),
    ],
    ids=["rolling", "older secret"],
)
def test_why_a_cookie_that_was_due_was_not_sent(
    options: dict[str, Any], words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The browser does not have it already."""
    clock = Clock()
    send(make(look, store=Down(with_victim(clock), "touch"), clock=clock, **options), OURS)

    handle = handle_of(VICTIM)
    for word, line in zip(words, caplog.messages[-2:], strict=True):
        assert word.format(handle) in line


def test_why_a_session_was_not_loaded_where_the_app_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """As a framework does that makes a page of its own of each exception."""

    def page(session: Session) -> None:
        with suppress(StoreUnavailable):
            session.get("k")

    send(make(page, store=Down(MemoryStore(), "load")), OURS)
    assert caplog.messages == ["session not loaded: the store is down"]


def test_an_app_that_raises_without_a_look_at_its_session_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    wrapped = make(None)
    wrapped.app = lambda environ, start_response: 1 / 0  # type: ignore[assignment,return-value]  # it raises
    with pytest.raises(ZeroDivisionError):
        send(wrapped)
    assert caplog.messages == []


@pytest.mark.parametrize("streams", [False, True])
def test_why_nothing_more_was_stored_of_a_session(streams: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Because the app raised, before its response began or while it was sent; what it said may hold data."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        if streams:
            yield b"a block"
        get_session(environ)["k"] = 2
        raise LookupError("the visitor's name")

    clock = Clock()
    wrapped = make(None, store=with_victim(clock), clock=clock)
    wrapped.app = app
    with pytest.raises(LookupError):
        send(wrapped, OURS)
    assert caplog.messages[-1] == "nothing more of the session is stored, because of LookupError"


@row("B8")
@pytest.mark.parametrize(
    "header", [f"{OURS}; {signed('second')}", f"{NAME}=x; {OURS}", f"{OURS}; {NAME}=x"], ids=["B9", "B8", "B8 reverse"]
)
def test_several_cookies_of_our_name_are_an_event(header: str, caplog: pytest.LogCaptureFixture) -> None:
    """A sibling domain may have tossed one; INFO, because a changed Path or Domain does so, too."""
    clock = Clock()
    store = with_victim(clock)
    store.create("second", RECORD, clock() + 86400)
    app = make(look, store=store, clock=clock)

    caplog.set_level(logging.INFO, "minisession")
    send(app, OURS)
    assert caplog.messages == []
    send(app, header)

    assert [(line.levelname, line.getMessage()) for line in caplog.records] == [
        ("INFO", "duplicate: 2 cookies connect.sid; the first good one counts")
    ]


# Nothing that opens a session


class Ears:
    """Hears all that can be heard of requests: log lines, reprs, tracebacks, pages."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.caplog, self.clock = caplog, Clock()
        self.texts: list[str] = []

    def hear(
        self,
        page: Page,
        cookie: Any = OURS,
        data: bytes = RECORD,
        down: Iterable[str] = (),
        environ: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Listen to a request, where the store has ``data`` for the victim and is down for some verbs."""
        store = Down(with_victim(self.clock, data), *down)

        def app(session: Session) -> None:
            try:
                page(session)
            finally:
                self.texts += [
                    repr(session),
                    str(session),
                    repr(session.cookie),
                    repr(session._exchange.visit),
                    session.handle,
                ]

        try:
            self.texts.append(send(make(app, store=store, clock=self.clock, **options), cookie, **(environ or {})))
        except Exception as error:
            self.texts += [repr(error), *traceback.format_exception(error)]

    def heard(self) -> list[str]:
        """Return the secrets and data that could be heard."""
        heard = "\n".join([self.caplog.text, *self.texts]).casefold()
        assert len(self.caplog.records) > 10
        assert not [line for line in self.caplog.records if not line.getMessage().isprintable()]
        return [secret for secret in [*SECRETS, DATUM] if secret.casefold() in heard]


@pytest.fixture
def ears(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Ears:
    monkeypatch.setattr("minisession.journal.BURST", math.inf)
    return Ears(caplog)


def private(data: bytes) -> bytes:
    return data.replace(b"victim", DATUM.encode())


@row("P21")
def test_no_hostile_request_is_quoted(ears: Ears) -> None:
    """Every header of the rows B and C, and every other place for an id."""
    headers: list[Any] = [header for header, _, _ in RAW]
    headers += [f"{OURS}; {signed('second')}", None, 5, OURS.encode(), signed(VICTIM, OLD_SECRET)]
    headers += [f"{NAME}={SIGNED}{character}" for character in CHARACTERS]
    for header in headers:
        for page in (look, write, Session.regenerate, Session.destroy):
            ears.hear(page, header, private(RECORD), secret=[SECRET, OLD_SECRET])
    for environ in PLACES.values():
        ears.hear(write, None, private(RECORD), environ=environ)
    assert ears.heard() == []


@row("P21")
def test_no_hostile_record_is_quoted(ears: Ears) -> None:
    """Every record of the rows F: what cannot be read must not be quoted."""
    records = [*CORRUPT.values(), *NOT_JSON.values(), *map(str.encode, INFINITE)]
    for data in [*map(private, records), *(private(RECORD)[:length] for length in range(1, len(RECORD)))]:
        for page in (look, write):
            ears.hear(page, OURS, data)
    ears.hear(look, OURS, private(RECORD), max_bytes=10)
    assert ears.heard() == []


def put(value: object, session: Session) -> None:
    session["bag"] = value


def append(value: object, session: Session) -> None:
    session["cart"].append(value)


class Private:
    def __repr__(self) -> str:
        return DATUM


@row("P21")
def test_no_hostile_value_is_quoted(ears: Ears) -> None:
    """Every value of row A7, and data beside it and in it: errors name the key, the type and the fix."""
    values = [value for value, _ in UNFIT.values()]
    values += [{DATUM}, DATUM.encode(), (DATUM,), {1: DATUM}, f"{DATUM}\ud800", Private(), [Private()], DATUM * 10_000]
    for value in values:
        bag = {"card": DATUM, "value": value}
        ears.hear(partial(put, bag), OURS, private(RECORD))
        ears.hear(partial(append, bag), OURS, private(RECORD))
    assert ears.heard() == []


DOWN = [("load",), ("create",), ("replace",), ("rotate",), ("touch",), ("delete",), ("heir",)]
VERBS: list[Page] = [
    write,
    *(Session.save, Session.reload, Session.touch, Session.regenerate, Session.destroy),
    *(lambda session, verb=verb: session.transact(verb) for verb in (write, Session.destroy)),
]


def ended(session: Session) -> None:
    """Meanwhile, by another request."""
    look(session)
    store_of(session).delete(VICTIM)


def contested(session: Session) -> None:
    """By others who are always faster."""
    look(session)
    store_of(session).replace = store_of(session).touch = lambda *arguments, **more: False


def store_of(session: Session) -> Any:
    lifecycle: Any = session._exchange.lifecycle
    lifecycle._sleep = lambda seconds: None
    return lifecycle.store


@row("P21")
@pytest.mark.parametrize("first", [look, write, Session.destroy, Session.regenerate, ended, contested])
def test_a_verb_that_fails_shows_no_data(ears: Ears, first: Page) -> None:
    """On sessions that are gone, contested, whose id is taken, or in a store that is down."""
    for verb in VERBS:

        def page(session: Session, verb: Page = verb) -> None:
            first(session)
            verb(session)

        ears.hear(page, OURS, b"")
        ears.hear(page, OURS, private(RECORD), genid=lambda environ: VICTIM)
        for down in DOWN:
            ears.hear(page, OURS, private(RECORD), down, rolling=True)
    assert ears.heard() == []


@row("P21")
def test_a_wrong_option_shows_no_secret() -> None:
    """A secret beside a mistake is not quoted with it."""
    for options in ({"secret": [SECRET, None]}, {"secret": [SECRET, ""]}, {"secret": {SECRET: 1}, "name": "a b"}):
        with pytest.raises((TypeError, ValueError)) as caught:
            SessionMiddleware(lambda environ, start_response: [], **options)
        assert SECRET not in "".join(traceback.format_exception(caught.value))


@row("P21")
def test_no_object_of_ours_shows_ids_secrets_or_data(ears: Ears) -> None:
    """Error trackers print the objects on the stack."""

    def page(session: Session) -> None:
        session["k"] = 1
        ours = [thing for thing in gc.get_objects() if str(type(thing).__module__).startswith("minisession")]
        assert len(ours) > 5
        ears.texts += map(repr, ours)

    for _ in range(4):
        ears.hear(page, OURS, private(RECORD))
    transient = [
        Stored(private(RECORD), 1.0),
        record.decode(private(RECORD)),
        Replaced(VICTIM, private(RECORD), True, ...),
    ]
    ears.texts += map(repr, [*transient, Signer(SECRET)])
    assert ears.heard() == []


@row("P21")
def test_a_password_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """The demo's."""
    caplog.set_level(logging.DEBUG)
    client = TestApp(demo.app.app)
    page = client.post("/login", {"username": "admin", "password": DATUM}, status=422)
    refused = client.post("/login", {"username": "admin", "password": DATUM}, headers={"Origin": EVIL}, status=403)
    assert DATUM not in caplog.text + page.text + refused.text
