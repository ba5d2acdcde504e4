"""A new id for a session, and what other requests do to the old one meanwhile: the documentation's second table."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from minisession import MemoryStore, Session, SessionConflict, SessionGone, destroy_session, destroy_sessions_of
from minisession.ending import MAX_LINKS, has_live_heir
from minisession.stores.base import TOMBSTONE_LIFE
from minisession.users import MOST_LINKS

from ..support.browser import Clock, SpyStore
from ..support.rows import row
from ..support.site import Page, Site, Visitor, data, put
from .test_lifecycle import logged_in, regenerate, site_with


def user(session: Session) -> str | None:
    return session.user


def sudo(session: Session) -> None:
    session.regenerate(keep=True)


def destroy(session: Session) -> None:
    session.destroy()


LEAVES: list[dict[str, Any]] = [{}, {"keep": True, "user": None}, {"user": "bob"}]
MOVES: dict[str, Any] = {"keep": True}
LOGS_IN: dict[str, Any] = {"keep": True, "user": "bob"}


def overtaken(meanwhile: Page, *, then: dict[str, Any] | None = None, **how: Any) -> tuple[Visitor, Visitor]:
    """Return the browser of a request that asked for a new id, and that of one which was answered meanwhile.

    It may ask for another one, ``then``.
    """
    site = Site()
    browser = logged_in(site)
    browser.visit(regenerate(keep=True, user="ada"))
    other = browser.twin()

    def page(session: Session) -> None:
        dict(session)
        other.visit(meanwhile)
        session.regenerate(**how)
        if then is not None:
            session.regenerate(**then)
        session["mine"] = 1

    browser.visit(page)
    return browser, other


@row("C6", "C15", "P5")
@pytest.mark.parametrize("how", LEAVES)
def test_a_logout_by_a_new_id_ends_the_heir_as_well(how: dict[str, Any]) -> None:
    """Whichever request was first: who logged out is logged out everywhere in this browser."""
    browser, other = overtaken(sudo, **how)

    assert (browser.visit(user), browser.set_cookie) == (how.get("user"), None)
    assert browser.visit(data) == ({"k": 1, "mine": 1} if how.get("keep") else {"mine": 1})
    assert (other.visit(user), other.visit(data)) == (None, {})


def test_a_logout_stays_one_where_another_user_logs_in_after_it() -> None:
    """In one request: the heir that ada left is ended, though bob gets a session."""
    browser, other = overtaken(sudo, keep=True, user=None, then=LOGS_IN)

    assert (browser.visit(user), browser.visit(data)) == ("bob", {"k": 1, "mine": 1})
    assert (other.visit(user), other.visit(data)) == (None, {})


@row("C6")
def test_of_two_that_keep_the_session_one_gets_it(caplog: pytest.LogCaptureFixture) -> None:
    browser, other = overtaken(sudo, **MOVES)

    assert "Set-Cookie" not in browser.response.headers
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert (other.visit(user), other.visit(data)) == ("ada", {"k": 1})


@row("C6", "C17")
@pytest.mark.parametrize("keep", [True, False])
def test_a_login_form_that_is_sent_twice_logs_in(keep: bool) -> None:
    """The browser drops the first answer, and keeps the cookie of the second."""
    browser, _ = overtaken(regenerate(keep=keep, user="bob"), keep=keep, user="bob")

    # Without keep the first click leaves no heir, and nothing of the session to the second.
    assert browser.visit(user) == "bob"
    assert browser.visit(data) == ({"k": 1, "mine": 1} if keep else {"mine": 1})


@row("C6")
@pytest.mark.parametrize("meanwhile", [destroy, lambda session: session.regenerate(), regenerate(user="bob")])
@pytest.mark.parametrize("how", [MOVES, LOGS_IN])
def test_what_has_ended_is_not_kept(meanwhile: Page, how: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """By a logout, or by a new id that inherited nothing: no session, no cookie, one line."""
    browser, _ = overtaken(meanwhile, **how)

    assert "Set-Cookie" not in browser.response.headers
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert (browser.visit(user), browser.visit(data)) == (None, {})


def test_a_new_id_that_goes_to_another_request_is_told_of_though_nothing_else_was_changed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    browser = logged_in(Site())
    other = browser.twin()

    browser.visit(lambda session: (dict(session), other.visit(sudo), session.regenerate(keep=True)))

    assert ["changes not stored" in line for line in caplog.messages] == [True]


TWICE: list[tuple[dict[str, Any], dict[str, Any], str | None, str | None]] = [
    (LOGS_IN, MOVES, "bob", "ada"),  # a login
    (MOVES, LOGS_IN, "bob", "ada"),
    (LOGS_IN, {}, None, None),  # a logout
    ({}, LOGS_IN, "bob", None),
    (LOGS_IN, {"keep": True, "user": None}, None, None),
]


@pytest.mark.parametrize(("first", "second", "mine", "theirs"), TWICE)
def test_two_new_ids_in_one_request_are_as_one(
    first: dict[str, Any], second: dict[str, Any], mine: str | None, theirs: str | None
) -> None:
    """Nothing is kept unless both keep it, and the user is the last that was said."""
    browser = logged_in(Site())
    browser.visit(regenerate(keep=True, user="ada"))
    other = browser.twin()

    def page(session: Session) -> None:
        dict(session)
        other.visit(sudo)
        session.regenerate(**first)
        session.regenerate(**second)

    browser.visit(page)

    assert (browser.visit(user), other.visit(user)) == (mine, theirs)
    assert browser.visit(data) == ({"k": 1} if first.get("keep") and second.get("keep") else {})


@row("C17")
def test_a_login_with_a_living_heir_that_has_moved_on_stands() -> None:
    """The chain is followed to its end."""
    _, other = overtaken(lambda session: None)
    second = other.twin()

    def page(session: Session) -> None:
        dict(session)
        for _ in range(3):
            second.visit(sudo)
        session.regenerate(keep=True, user="bob")

    second.visit(put("k", 1))
    second.visit(regenerate(user="ada"))
    first = second.twin()
    first.visit(page)

    assert (first.visit(user), second.visit(user)) == ("bob", "ada")


def test_but_not_where_the_heir_has_been_logged_out() -> None:
    site = Site()
    browser = logged_in(site)
    other = browser.twin()

    def page(session: Session) -> None:
        dict(session)
        other.visit(sudo)
        other.visit(destroy)
        session.regenerate(keep=True, user="bob")

    browser.visit(page)

    assert "Set-Cookie" not in browser.response.headers
    assert len(site.store.store) == 0


# A cookie of the old id


class Late(Visitor):
    heir: Visitor
    old_id: str


@pytest.fixture
def late() -> Late:
    """A browser with the id that another request has just replaced, with keep."""
    browser = logged_in(Site())
    browser.visit(regenerate(user="ada"))
    late = Late(browser.site, browser.cookie)
    late.heir, late.old_id = browser, browser.id
    browser.visit(sudo)
    return late


@row("C7", "C15", "P5")
@pytest.mark.parametrize("ends", [destroy, *(regenerate(**how) for how in LEAVES)])
def test_a_logout_with_the_old_id_ends_the_heir(late: Late, ends: Page) -> None:
    late.visit(ends)

    assert late.heir.visit(user) is None


@row("C7")
@pytest.mark.parametrize("how", [MOVES, LOGS_IN])
def test_a_late_request_that_keeps_ends_nothing_and_keeps_nothing(late: Late, how: dict[str, Any]) -> None:
    late.visit(regenerate(**how))

    assert late.set_cookie is not None
    assert (late.visit(user), late.visit(data)) == (how.get("user"), {})
    assert late.heir.visit(user) == "ada"


def test_of_two_old_ids_the_first_counts(late: Late) -> None:
    """As it does of two that live."""
    second = logged_in(late.site)
    pairs = f"connect.sid={late.cookie}; connect.sid={second.cookie}"
    second.visit(sudo)

    late.get("/", headers={"Cookie": pairs}, extra_environ={"test.page": destroy, "test.results": []})

    assert (late.heir.visit(user), late.heir.visit(data), second.visit(data)) == (None, {}, {"k": 1})


@row("C7")
def test_after_15_seconds_nothing_leads_to_the_heir(late: Late) -> None:
    late.site.clock.advance(TOMBSTONE_LIFE)
    late.visit(destroy)

    assert late.heir.visit(user) == "ada"


@row("C4", "C7")
def test_an_old_id_opens_nothing_of_the_heir(late: Late) -> None:
    """It can end it, and neither read, write nor obtain it."""
    seen = late.visit(lambda s: (dict(s), s.user, s.is_new, s.id == late.old_id))

    assert seen == ({}, None, True, True)
    with pytest.raises(SessionGone):
        late.visit(lambda session: session.save())
    with pytest.raises(SessionGone):
        late.visit(lambda session: session.transact(put("k", 1)))
    assert late.heir.visit(data) == {}


@row("C15")
def test_as_many_new_ids_as_are_followed_are_followed(late: Late) -> None:
    for _ in range(MAX_LINKS - 1):
        late.heir.visit(sudo)

    late.visit(destroy)

    assert late.heir.visit(user) is None


@row("C9", "C16")
def test_a_session_that_is_rotated_faster_than_it_can_be_ended_is_a_conflict() -> None:
    """A bounded chase, and no silent failure."""

    class Fast(MemoryStore):
        """Another request gives the session a new id before each delete."""

        chase = itertools.count()
        on = False

        def delete(self, id: str) -> bool:
            stored = self.load(id)
            if self.on and stored is not None and stored.data:
                self.rotate(id, stored.data, f"n{next(self.chase)}", b"{}", clock() + 99, inherits=True)
            return super().delete(id)

    clock = Clock()
    store = Fast(clock=clock)
    site = Site(store=SpyStore(store), clock=clock)
    browser = logged_in(site)
    store.on = True

    def page(session: Session) -> None:
        with pytest.raises(SessionConflict, match=f"{MAX_LINKS} new ids"):
            session.destroy()

    browser.visit(page)
    browser.get("/", extra_environ={"test.page": destroy, "test.results": []}, status=503)


# One device, and all of them


@row("P6")
def test_one_device_that_moves_to_a_new_id_meanwhile_is_logged_out() -> None:
    """And True is said only then."""
    site = moving()
    browser = site.browser()
    browser.visit(regenerate(user="ada"))
    site.store.store.before_delete = lambda: browser.visit(sudo)

    assert destroy_session(site.store.store, "ada", browser.visit(lambda session: session.handle))
    assert browser.visit(user) is None


def test_one_device_that_somebody_else_has_logged_in_to_meanwhile_is_left_alone() -> None:
    site = moving()
    browser = site.browser()
    browser.visit(regenerate(user="ada"))
    site.store.store.before_delete = lambda: browser.visit(regenerate(keep=True, user="bob"))

    assert not destroy_session(site.store.store, "ada", browser.visit(lambda session: session.handle))
    assert browser.visit(user) == "bob"


@row("C9", "C16", "P6")
def test_all_devices_are_logged_out_though_they_move() -> None:
    site = moving()
    browsers = [site.browser() for _ in range(3)]
    for browser in browsers:
        browser.visit(regenerate(user="ada"))
    moves = iter(browsers)
    site.store.store.before_delete = lambda: [browser.visit(sudo) for browser in moves]

    assert destroy_sessions_of(site.store.store, "ada") == 3
    assert [browser.visit(user) for browser in browsers] == [None] * 3


@row("C9", "P6")
def test_the_kept_one_is_kept_and_what_another_request_made_of_it_is_not() -> None:
    site = moving()
    mine, other = site.browser(), site.browser()
    for browser in (mine, other):
        browser.visit(regenerate(user="ada"))
    thief = mine.twin()
    site.store.store.before_delete = lambda: thief.visit(sudo)

    mine.visit(lambda session: destroy_sessions_of(site.store.store, "ada", keep=session))

    assert [browser.visit(user) for browser in (mine, other, thief)] == [None] * 3


@row("C9", "S13")
@pytest.mark.parametrize("moves", [False, True])
def test_where_the_users_list_is_lost_all_sessions_are_looked_at(moves: bool) -> None:
    """As a Redis that is full may evict it: a list that lacks the very session that asks is not believed."""

    class Forgetful(MemoryStore):
        def ids(self, user: str | None = None) -> Any:
            for id in [] if user else [*super().ids(), "one that has just ended"]:
                if moves and id == other.id:
                    other.visit(sudo)
                yield id

    clock = Clock()
    site = Site(store=SpyStore(Forgetful(clock=clock)), clock=clock)
    mine, other, bob = site.browser(), site.browser(), site.browser()
    for browser in (mine, other):
        browser.visit(regenerate(user="ada"))
    bob.visit(regenerate(user="bob"))

    assert mine.visit(lambda session: destroy_sessions_of(site.store.store, "ada", keep=session)) == 1
    assert [browser.visit(user) for browser in (mine, other, bob)] == ["ada", None, "bob"]


def test_a_chain_of_new_ids_is_followed_once_in_a_sweep() -> None:
    """A thief asks for new ids without pause, and each of them is listed: not all that came after each is followed."""

    names = [f"n{number}" for number in range(100)]

    class Chased(MemoryStore):
        follows = loads = 0

        def ids(self, user: str | None = None) -> Any:
            while names:
                yield names.pop(0)

        def heir(self, id: str) -> str | None:
            self.follows += 1
            return super().heir(id)

        def load(self, id: str) -> Any:
            self.loads += 1
            return super().load(id)

    store, data, ends = Chased(), b'{"cookie":{},"minisession":{"user":"ada"}}', time.time() + 60
    store.create("n0", data, ends, "ada")
    for old, new in itertools.pairwise(names):
        store.rotate(old, data, new, data, ends, "ada", inherits=True)

    assert destroy_sessions_of(store, "ada") == 1
    assert store.follows <= 2 * 100
    assert store.loads == 1  # whose it is counts at the end of the chain, and the rest is to be quick


@row("C16")
def test_a_session_that_moves_on_too_fast_for_one_sweep_is_ended_by_another() -> None:
    class Fleeing(MemoryStore):
        moves = itertools.count(1)

        def heir(self, id: str) -> str | None:
            heir = super().heir(id)
            if heir is not None:
                self.move(heir)
            return heir

        def delete(self, id: str) -> bool:
            self.move(id)
            return super().delete(id)

        def move(self, id: str) -> None:
            if (number := next(self.moves)) < MOST_LINKS + 9:
                self.rotate(id, data, f"n{number}", data, ends, "ada", inherits=True)

    store, data, ends = Fleeing(), b'{"cookie":{},"minisession":{"user":"ada"}}', time.time() + 60
    store.create("n0", data, ends, "ada")

    assert destroy_sessions_of(store, "ada") == 1
    assert list(store.ids()) == []


@row("C16")
def test_one_device_that_moves_on_while_it_is_looked_at_is_logged_out() -> None:
    site = moving()
    browser = site.browser()
    browser.visit(regenerate(user="ada"))
    store = site.store.store

    def move_twice() -> None:
        browser.visit(sudo)
        store.before_load = lambda: browser.visit(sudo)

    store.before_delete = move_twice

    assert destroy_session(store, "ada", browser.visit(lambda session: session.handle))
    assert browser.visit(user) is None


def test_an_heir_that_is_replaced_while_it_is_looked_at_does_not_live() -> None:
    store, data, ends = Moving(), b'{"cookie":{}}', time.time() + 60
    store.create("old", data, ends)
    store.rotate("old", data, "heir", data, ends, inherits=True)
    assert has_live_heir(store, "old")

    store.before_load = lambda: store.rotate("heir", data, "another", data, ends, inherits=False)

    assert not has_live_heir(store, "old")


class Moving(MemoryStore):
    """Another request is answered before the next delete, or load."""

    before_delete: Callable[[], Any] | None = None
    before_load: Callable[[], Any] | None = None

    def load(self, id: str) -> Any:
        work, self.before_load = self.before_load, None
        if work:
            work()
        return super().load(id)

    def delete(self, id: str) -> bool:
        work, self.before_delete = self.before_delete, None
        if work:
            work()
        return super().delete(id)


def moving() -> Site:
    clock = Clock()
    return Site(store=SpyStore(Moving(clock=clock)), clock=clock)


# What nobody had


@row("P20")
@pytest.mark.parametrize("how", [{}, {"keep": True}, {"keep": True, "user": None}])
def test_a_visitor_without_a_session_who_gets_a_new_id_costs_nothing(how: dict[str, Any]) -> None:
    """A logout page that calls regenerate() is open to anyone (Django's CVE-2015-5963)."""
    site = Site()
    browser = site.browser()
    browser.visit(regenerate(**how))

    assert (site.store.verbs, browser.set_cookie) == ([], None)


@pytest.mark.parametrize("page", [regenerate(user="ada"), lambda session: (session.regenerate(), put("k", 1)(session))])
def test_with_a_user_or_data_it_is_a_session(page: Page) -> None:
    site = Site()
    browser = site.browser()
    browser.visit(page)

    assert site.store.verbs == ["create"]
    assert browser.set_cookie is not None


# A request that came in time


@row("C11", "C20", "P7")
def test_a_request_that_came_in_time_keeps_its_session_however_long_it_takes() -> None:
    """An upload that outlasts what was left of the idle timeout: the first look touches already."""
    site = Site(idle_timeout=100)
    browser = logged_in(site)
    site.clock.advance(51)

    def upload(session: Session) -> None:
        dict(session)
        assert site.store.verbs == ["load", "touch"]
        site.clock.advance(99)
        session["files"] = 1

    browser.visit(upload)

    assert site.store.verbs == ["replace"]
    assert browser.visit(data) == {"k": 1, "files": 1}


@row("C11")
@pytest.mark.parametrize(("passed", "verbs"), [(50, ["load"]), (50.1, ["load", "touch"])])
def test_the_first_look_touches_where_less_than_half_of_the_lifetime_is_left(passed: float, verbs: list[str]) -> None:
    site = Site(idle_timeout=100)
    browser = logged_in(site)
    site.clock.advance(passed)

    def page(session: Session) -> list[str]:
        dict(session)
        found: list[str] = site.store.verbs
        return found

    assert browser.visit(page) == verbs


def test_an_early_touch_stands_though_the_app_raises() -> None:
    site = Site(idle_timeout=100)
    browser = logged_in(site)
    site.clock.advance(60)

    def page(session: Session) -> None:
        dict(session)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        browser.visit(page)
    site.clock.advance(99)
    assert browser.visit(data) == {"k": 1}


def test_an_early_touch_does_not_stand_for_the_cookies() -> None:
    """A rolling cookie is sent after a touch of the commit's own, and an unchanged session is saved with resave."""
    for options, verbs in (
        ({"rolling": True}, ["load", "touch", "touch"]),
        ({"resave": True}, ["load", "touch", "replace"]),
    ):
        site = Site(idle_timeout=100, **options)
        browser = logged_in(site)
        site.clock.advance(60)
        browser.visit(dict)
        assert site.store.verbs == verbs
        assert (browser.set_cookie is not None) is ("rolling" in options)


def test_an_early_touch_that_fails_is_told_of_and_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    site, _, browser = site_with("touch")

    site.clock.advance(86400 / 2 + 1)
    browser.visit(len)

    assert site.store.verbs == ["load", "touch"]
    assert ["not touched" in line for line in caplog.messages] == [True]


def test_after_an_early_touch_that_failed_what_was_stored_is_touched() -> None:
    """It is another record, and its lifetime has begun anew."""
    site, _, browser = site_with("touch")

    site.clock.advance(86400 / 2 + 1)
    browser.visit(lambda session: (session.update(k=2), session.save(), site.clock.advance(1000)))

    assert site.store.verbs == ["load", "touch", "replace", "touch"]


def test_an_early_touch_that_is_refused_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    """By another request that has changed the session since it was loaded."""
    site = Site(idle_timeout=100)
    browser = logged_in(site)
    site.clock.advance(60)
    store = site.store.store
    load = store.load

    def overtaken_load(id: str) -> Any:
        stored = load(id)
        assert stored is not None
        store.replace(id, stored.data, stored.data.replace(b'"k":1', b'"k":2'), site.clock() + 100)
        return stored

    store.load = overtaken_load
    with caplog.at_level(logging.DEBUG, "minisession"):
        browser.visit(dict)

    assert site.store.verbs == ["load", "touch"]
    assert "another request has just stored or ended it" in caplog.text


def test_a_session_that_expired_meanwhile_was_not_ended_by_another_request(caplog: pytest.LogCaptureFixture) -> None:
    """The log says what is so."""
    site = Site(idle_timeout=100)
    browser = logged_in(site)
    with caplog.at_level(logging.DEBUG, "minisession"):
        browser.visit(lambda session: (dict(session), site.clock.advance(200)))

    assert "it has expired meanwhile" in caplog.text
    assert "another request" not in caplog.text


def test_under_an_absolute_timeout_a_touch_that_moves_nothing_is_not_made() -> None:
    """Near its end a session has less than half of its lifetime left, at every look."""
    site = Site(idle_timeout=100, absolute_timeout=120)
    browser = logged_in(site)
    site.clock.advance(90)
    browser.visit(dict)
    site.clock.advance(10)
    site.store.verbs  # noqa: B018  # forget them
    browser.visit(dict)

    assert site.store.verbs == ["load"]


# A beginning


@row("F8")
def test_a_reader_with_an_absolute_timeout_does_not_write() -> None:
    """The beginning is rounded down, and clocks of two servers may differ by seconds."""
    clock = Clock()
    store = SpyStore(MemoryStore(clock=clock))
    ahead = Clock()
    first = Site(store=store, clock=ahead, absolute_timeout=3600)
    second = Site(store=store, clock=clock, absolute_timeout=3600)
    for number in range(200):
        ahead.now = clock.now + 5 * (number % 2)
        browser = logged_in(first)
        assert store.verbs == ["create"]
        second.browser(browser.cookie).visit(dict)
        assert store.verbs == ["load"]
        clock.advance(0.000_7)


def test_without_an_absolute_timeout_a_beginning_in_the_future_is_not_written_over() -> None:
    """Nothing is counted from it, and a reader does not write."""
    site = Site()
    browser = logged_in(site)

    site.clock.advance(-60)
    browser.visit(len)

    assert site.store.verbs == ["load"]


@row("F8")
def test_a_beginning_is_rounded_down_and_stays_what_it_is() -> None:
    site = Site()
    site.clock.now += 0.987_654_3
    browser = logged_in(site)
    began = browser.visit(lambda session: session.created_at.timestamp())
    for number in range(5):
        site.clock.advance(1)
        browser.visit(put("n", number))

    assert site.clock.now - 5 - 0.001 < began <= site.clock.now - 5
    assert browser.visit(lambda session: session.created_at.timestamp()) == began
