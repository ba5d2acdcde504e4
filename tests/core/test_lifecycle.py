"""What is done when: the documentation's table, row by row, and the verbs."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any

import pytest

from minisession import (
    Cookie,
    MemoryStore,
    Session,
    SessionConflict,
    SessionError,
    SessionGone,
    SessionTooLarge,
    StoreUnavailable,
)
from minisession.lifecycle import MAX_TRIES
from minisession.stores.base import TOMBSTONE_LIFE

from ..support.browser import Browser, Clock, SpyStore
from ..support.rows import row
from ..support.site import Page, Site, Visitor, data, put

LOOK: Page = len


def logged_in(site: Site, **data: Any) -> Visitor:
    """Return a browser with a stored session."""
    browser = site.browser()
    browser.visit(lambda session: session.update({"k": 1, **data}))
    assert browser.cookie is not None
    return browser


def regenerate(**arguments: Any) -> Page:
    return lambda session: session.regenerate(**arguments)


def headers(browser: Visitor) -> dict[str, str]:
    return {
        name: browser.response.headers[name] for name in ("Vary", "Cache-Control") if name in browser.response.headers
    }


# The table


@row("W22")
def test_a_session_that_is_not_looked_at_costs_nothing() -> None:
    """No parsing, no HMAC, no store call, no header."""
    site = Site()
    browser = logged_in(site)

    browser.visit()

    assert site.store.verbs == []
    assert (browser.set_cookie, headers(browser)) == (None, {})


@pytest.mark.parametrize("app_looks", [True, False])
def test_rolling_sends_a_live_session_again_after_touching_it(app_looks: bool) -> None:
    """Also where the app does not look at it."""
    site = Site(rolling=True)
    browser = logged_in(site)

    browser.visit(LOOK if app_looks else None)

    assert site.store.verbs == ["load", "touch"]
    assert browser.set_cookie is not None
    assert headers(browser) == {"Vary": "Cookie", "Cache-Control": "no-store"}


@pytest.mark.parametrize(("seconds", "verbs"), [(863, ["load"]), (864, ["load", "touch"])])
def test_a_look_touches_where_that_moves_the_expiry_by_one_percent(seconds: float, verbs: list[str]) -> None:
    """A day's idle timeout is touched once in a quarter of an hour, not on every page."""
    site = Site()
    browser = logged_in(site)
    site.clock.advance(seconds)

    browser.visit(LOOK)

    assert site.store.verbs == verbs
    assert (browser.set_cookie, headers(browser)) == (None, {"Vary": "Cookie"})


def test_of_a_session_with_a_lifetime_of_its_own_a_touch_is_worth_one_percent_of_that() -> None:
    """Or it ends though it is used."""
    site = Site()
    browser = logged_in(site)
    browser.visit(lambda session: setattr(session.cookie, "max_age", 100))

    site.clock.advance(0.9)
    browser.visit(LOOK)
    assert site.store.verbs == ["load"]

    site.clock.advance(0.2)
    browser.visit(LOOK)
    assert site.store.verbs == ["load", "touch"]


def test_a_lifetime_that_is_as_long_as_the_usual_one_is_stored_and_sent() -> None:
    """The store ends the session when it did before, and the browser does not."""
    site = Site(idle_timeout=3600)
    browser = logged_in(site)

    browser.visit(lambda session: setattr(session.cookie, "max_age", 3600))
    assert (site.store.verbs, "Max-Age=3600" in str(browser.set_cookie)) == (["load", "replace"], True)

    browser.visit(lambda session: setattr(session.cookie, "max_age", None))
    assert (site.store.verbs, "Max-Age" in str(browser.set_cookie)) == (["load", "replace"], False)


def test_a_session_with_a_lifetime_of_its_own_is_touched_early_where_half_of_that_is_over() -> None:
    site = Site()
    browser = logged_in(site)
    browser.visit(lambda session: setattr(session.cookie, "max_age", 100))

    def look(session: Session) -> Any:
        len(session)
        return site.store.verbs

    site.clock.advance(50)
    assert browser.visit(look) == ["load"]
    site.clock.advance(51)
    assert browser.visit(look) == ["load", "touch"]


def test_a_change_is_stored_and_a_browser_session_cookie_not_sent_again() -> None:
    """The browser has it already."""
    site = Site()
    browser = logged_in(site)

    browser.visit(put("k", 2))

    assert site.store.verbs == ["load", "replace"]
    assert (browser.set_cookie, headers(browser)) == (None, {"Vary": "Cookie"})


@pytest.mark.parametrize("options", [{"cookie": Cookie(secure="auto", max_age=60)}, {"rolling": True}])
def test_a_change_sends_the_cookie_again_where_its_lifetime_moves(options: dict[str, Any]) -> None:
    """With a max_age, or rolling."""
    site = Site(**options)
    browser = logged_in(site)

    browser.visit(put("k", 2))

    assert browser.set_cookie is not None


@pytest.mark.parametrize("max_age", [3600, None])
def test_a_changed_lifetime_alone_is_stored_and_sent(max_age: float | None) -> None:
    """ "Remember me", and its opposite."""
    site = Site(cookie=Cookie(secure="auto", max_age=60))
    browser = logged_in(site)

    browser.visit(lambda session: setattr(session.cookie, "max_age", max_age))

    assert site.store.verbs == ["load", "replace"]
    assert ("Max-Age=3600" in str(browser.set_cookie)) is (max_age == 3600)
    assert browser.set_cookie is not None


@row("P20")
@pytest.mark.parametrize(
    "page",
    [
        LOOK,
        lambda session: session.update(k=1) or session.clear(),
        lambda session: session.setdefault("k", 1) and session.pop("k"),
        lambda session: setattr(session.cookie, "max_age", 60),
        lambda session: session.touch(),
        lambda session: session.id,
    ],
)
def test_a_new_session_left_empty_is_not_stored_and_not_sent(page: Page) -> None:
    """Visitors who store nothing cost nothing; a robot neither."""
    site = Site()
    browser = site.browser()

    browser.visit(page)

    assert site.store.verbs == []
    assert (browser.set_cookie, headers(browser)) == (None, {"Vary": "Cookie"})


@pytest.mark.parametrize("page", [None, LOOK])
def test_save_uninitialized_stores_and_sends_even_that(page: Page | None) -> None:
    """As express-session's default does."""
    site = Site(save_uninitialized=True)
    browser = site.browser()

    browser.visit(page)

    assert site.store.verbs == ["create"]
    assert browser.set_cookie is not None


def test_a_new_session_with_data_is_created_and_sent() -> None:
    """Under an id of 24 random bytes."""
    site = Site()
    browser = site.browser()

    browser.visit(put("k", 1))

    assert site.store.verbs == ["create"]
    assert len(browser.id) == 32
    assert headers(browser) == {"Vary": "Cookie", "Cache-Control": "no-store"}
    assert browser.visit(data) == {"k": 1}


class Color(str, Enum):
    TEAL = "teal"


class SafeString(str):
    def __str__(self) -> str:
        return self


@pytest.mark.parametrize("text", [Color.TEAL, SafeString("teal")], ids=["enum", "as Django's"])
def test_text_of_a_subclass_is_stored_as_its_own_text(text: str) -> None:
    """Whatever its str() is: a name, or itself, as that of Django's text that is marked as safe."""
    browser = logged_in(Site(), color="")

    browser.visit(put("color", text))

    stored = browser.visit(lambda session: session["color"])
    assert (stored, type(stored)) == ("teal", str)


def test_text_of_a_subclass_is_the_text_that_it_is_stored_as() -> None:
    """Assigned where it is already, or compared after it was saved, it is no change."""
    site = Site()
    browser = logged_in(site, color="teal")

    browser.visit(put("color", Color.TEAL))
    assert site.store.verbs == ["load"]

    browser.visit(lambda session: (session.update(color=Color.TEAL, n=1), session.save()))
    assert site.store.verbs == ["load", "replace"]


def test_resave_stores_even_what_did_not_change() -> None:
    """Without sending the cookie for it."""
    site = Site(resave=True, cookie=Cookie(secure="auto", max_age=60))
    browser = logged_in(site)

    browser.visit()

    assert site.store.verbs == ["load", "replace"]
    assert browser.set_cookie is None

    browser.visit(lambda session: session.touch())
    assert site.store.verbs == ["load", "touch", "replace"]

    browser.visit(lambda session: session.save())
    assert site.store.verbs == ["load", "replace"]


def test_regenerate_puts_the_new_id_in_the_place_of_the_old_one() -> None:
    """Even if it is empty; in one step, so that no crash logs anyone out or leaves two."""
    site = Site()
    browser = logged_in(site)
    old = browser.id

    browser.visit(lambda session: session.regenerate())

    assert site.store.verbs == ["load", "rotate"]
    assert browser.id != old
    assert browser.set_cookie is not None
    assert site.store.store.load(old) == (b"", site.clock.now + TOMBSTONE_LIFE)
    assert browser.visit(data) == {}
    assert browser.visit(lambda session: session.is_new) is False


def test_destroy_deletes_at_the_call_and_the_response_removes_the_cookie() -> None:
    """The old value is worth nothing at once."""
    site = Site()
    browser = logged_in(site)
    thief = browser.twin()

    browser.visit(lambda session: (session.destroy(), thief.visit(lambda session: session.is_new)))

    assert browser.cookie is None
    assert "Max-Age=0" in str(browser.set_cookie)
    assert thief.visit(data) == {}


def test_destroy_without_a_cookie_sends_none() -> None:
    """There is nothing to remove."""
    browser = Site().browser()

    browser.visit(lambda session: session.destroy())

    assert browser.set_cookie is None


@pytest.mark.parametrize("cookie", ["s%3Aforged.signature", "junk"])
def test_destroy_removes_a_cookie_that_stands_for_nothing(cookie: str) -> None:
    """Whoever logs out is rid of it."""
    site = Site()
    browser = site.browser(cookie)

    browser.visit(lambda session: session.destroy())

    assert "Max-Age=0" in str(browser.set_cookie)
    assert site.store.verbs == []


@row("C2")
def test_a_session_that_ended_meanwhile_stays_ended(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing stored, no cookie, one line in the log."""
    site = Site()
    browser = logged_in(site)
    other = browser.twin()

    browser.visit(lambda session: (session.update(k=2), other.visit(lambda session: session.destroy())))

    assert browser.set_cookie is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert browser.visit(lambda session: session.is_new)


@pytest.mark.parametrize(
    ("page", "told"),
    [
        (lambda session: setattr(session.cookie, "max_age", 60), ["WARNING"]),
        (lambda session: session["cart"].append(1), ["WARNING"]),
        (lambda session: session["cart"].copy(), []),
    ],
    ids=["a lifetime", "a list", "a list that was only read"],
)
def test_what_is_lost_is_told_and_nothing_else(page: Page, told: list[str], caplog: pytest.LogCaptureFixture) -> None:
    browser = logged_in(Site(rolling=True), cart=[])
    other = browser.twin()

    browser.visit(lambda session: (page(session), other.visit(lambda session: session.destroy())))

    assert [record.levelname for record in caplog.records] == told


@pytest.mark.parametrize("options", [{}, {"rolling": True}, {"cookie": Cookie(secure="auto", max_age=100)}])
def test_a_session_that_ended_after_it_was_saved_is_not_announced(options: dict[str, Any]) -> None:
    """The cookie would take the place of a newer one, and stand for nothing."""
    site = Site(**options)

    def page(session: Session) -> None:
        session["k"] = 1
        session.save()
        site.store.store.delete(session.id)
        with pytest.raises(SessionGone):
            session.save()

    browser = site.browser()
    browser.visit(page)

    assert browser.set_cookie is None


def test_a_forged_cookie_is_as_none_and_the_store_is_not_asked() -> None:
    """A fresh id if there is something to store; never a removal by itself."""
    site = Site()
    browser = site.browser("s%3Avictim.BpxCrWRpvZMh%2Fwk%2Fdjl34N%2Bm%2BVQEU7K%2F5WenLwJCgFU")

    browser.visit(LOOK)

    assert site.store.verbs == []
    assert browser.set_cookie is None

    browser.visit(put("k", 1))

    assert site.store.verbs == ["create"]
    assert browser.id != "victim"


def test_an_unknown_id_is_never_adopted() -> None:
    """However well it is signed: a fixed id is worth nothing."""
    site = Site()
    browser = logged_in(site)
    old = browser.id
    site.store.store.clear()

    browser.visit(LOOK)
    assert browser.set_cookie is None

    browser.visit(put("k", 1))
    assert browser.id != old
    assert site.store.store.load(old) is None


class TestTombstone:
    """A request that comes late, with the id that a login has just replaced."""

    @pytest.fixture
    def late(self) -> Visitor:
        browser = logged_in(Site())
        late = browser.twin()
        browser.visit(lambda session: session.regenerate(user="ada"))
        return late

    @row("C7")
    @pytest.mark.parametrize("page", [LOOK, put("k", 2), lambda session: session.cookie.max_age])
    def test_does_nothing_by_itself(self, late: Visitor, page: Page) -> None:
        """It must not overwrite the cookie that login has set."""
        late.visit(page)

        assert late.site.store.verbs == ["load"]
        assert late.set_cookie is None

    def test_a_change_is_not_lost_without_a_word(self, late: Visitor, caplog: pytest.LogCaptureFixture) -> None:
        late.visit(put("k", 2))
        assert ["changes not stored" in line for line in caplog.messages] == [True]

    @row("C7")
    def test_has_no_data_and_no_user(self, late: Visitor) -> None:
        """Whoever planted the old id does not follow the user in."""
        assert late.visit(lambda session: (dict(session), session.user, session.is_new)) == ({}, None, True)

    def test_can_begin_anew(self, late: Visitor) -> None:
        """With nothing to keep."""
        late.visit(lambda session: (session.update(k=2), session.regenerate(keep=True, user="eve")))

        assert late.site.store.verbs == ["load", "create"]
        assert late.visit(lambda session: (dict(session), session.user)) == ({}, "eve")

    def test_destroy_removes_the_cookie_and_leaves_the_tombstone(self, late: Visitor) -> None:
        """The next late request is to find it, too."""
        late.visit(lambda session: session.destroy())

        assert late.site.store.verbs == ["load", "delete", "heir"]
        assert "Max-Age=0" in str(late.set_cookie)

    @pytest.mark.parametrize("verb", ["save", "reload", "touch"])
    def test_verbs_say_that_it_is_gone(self, late: Visitor, verb: str) -> None:
        """What was asked for cannot be done."""

        def page(session: Session) -> None:
            with pytest.raises(SessionGone, match="regenerate"):
                getattr(session, verb)()
            with pytest.raises(SessionGone):
                session.transact(lambda session: None)

        late.visit(page)
        assert late.set_cookie is None

    def test_lasts_for_15_seconds(self, late: Visitor) -> None:
        """Longer than what was under way; then the id is unknown."""
        late.site.clock.advance(TOMBSTONE_LIFE)

        late.visit(put("k", 2))

        assert late.site.store.verbs == ["load", "create"]


# Overlapping requests


@row("C1")
def test_overlapping_requests_keep_each_others_changes() -> None:
    """Nothing is changed that was not seen: on a conflict the keys are merged."""
    site = Site()
    browser = logged_in(site, gone=1, theirs=1)
    other = browser.twin()

    def page(session: Session) -> dict[str, Any]:
        session["mine"] = 1
        del session["gone"]
        other.visit(lambda session: (session.update(theirs=2, new=3), session.pop("k")))
        session.save()
        return dict(session)

    assert browser.visit(page) == {"mine": 1, "theirs": 2, "new": 3}
    assert site.store.verbs[-3:] == ["replace", "load", "replace"]
    assert browser.visit(data) == {"mine": 1, "theirs": 2, "new": 3}


def test_a_nested_value_in_the_apps_hands_survives_a_merge() -> None:
    """What others did not change stays the app's object, and its next change is noticed."""
    site = Site()
    browser = logged_in(site, cart=[])
    other = browser.twin()

    def page(session: Session) -> None:
        cart = session["cart"]
        session["k"] = 2
        other.visit(put("new", 1))
        session.save()
        cart.append("apple")

    browser.visit(page)

    assert browser.visit(data) == {"k": 2, "cart": ["apple"], "new": 1}


def test_a_nested_value_in_the_apps_hands_survives_a_transaction() -> None:
    """As it survives a save."""
    browser = logged_in(Site(), cart=[])

    def page(session: Session) -> None:
        cart = session["cart"]
        session.transact(lambda session: session.update(k=2))
        cart.append("apple")

    browser.visit(page)

    assert browser.visit(data) == {"k": 2, "cart": ["apple"]}


@row("C4")
@pytest.mark.parametrize(
    ("ours", "theirs", "left"),
    [
        (lambda session: session.pop("k"), put("new", 1), {"j": 1, "new": 1}),
        (put("new", 1), lambda session: session.pop("k"), {"j": 1, "new": 1}),
        (lambda session: session.pop("k"), put("k", 2), {"j": 1}),
        (put("k", 2), lambda session: session.pop("k"), {"j": 1}),
        (lambda session: session.clear(), put("new", 1), {"new": 1}),
        (put("new", 1), lambda session: session.clear(), {"new": 1}),
        (lambda session: session.clear(), put("k", 2), {}),
    ],
)
def test_a_deletion_holds_and_takes_nothing_else_with_it(ours: Page, theirs: Page, left: dict[str, int]) -> None:
    """Also that of `clear`, which deletes the keys that it sees."""
    browser = logged_in(Site(), j=1)
    other = browser.twin()

    browser.visit(lambda session: (ours(session), other.visit(theirs)))

    assert browser.visit(data) == left


def test_the_lifetime_merges_like_a_key() -> None:
    """One tab ticks "remember me", the other fills the cart."""
    site = Site()
    browser = logged_in(site)
    other = browser.twin()

    browser.visit(lambda s: (s.update(k=2), other.visit(lambda s: setattr(s.cookie, "max_age", 3600))))

    assert browser.visit(lambda s: (s["k"], s.cookie.original_max_age)) == (2, 3600)


def test_a_lifetime_that_the_record_has_rounded_merges_as_any_other() -> None:
    """Records hold milliseconds."""
    browser = logged_in(Site())
    other = browser.twin()

    def page(session: Session) -> None:
        session.cookie.max_age = 100 / 3
        session.save()
        other.visit(lambda session: setattr(session.cookie, "max_age", 3600))
        session["k"] = 2

    browser.visit(page)

    assert browser.visit(lambda s: (s["k"], s.cookie.original_max_age)) == (2, 3600)


@pytest.mark.parametrize(
    "meets",
    [lambda session: (session.update(k=2), session.save()), Session.touch, Session.reload],
    ids=["save", "touch", "reload"],
)
def test_the_beginning_and_the_user_are_the_stored_records(meets: Page) -> None:
    """An import, say, may have set them right."""
    site = Site()
    browser = logged_in(site)

    def page(session: Session) -> tuple[float, str | None]:
        stored = site.store.store.load(session.id)
        record = json.loads(stored.data)
        record["minisession"] = {"created": record["minisession"]["created"] - 60, "user": "ada"}
        site.store.store.replace(session.id, stored.data, json.dumps(record).encode(), stored.expires_at)
        meets(session)
        return session.created_at.timestamp(), session.user

    assert browser.visit(page) == (site.clock.now - 60, "ada")
    assert browser.visit(lambda s: (s.created_at.timestamp(), s.user)) == (site.clock.now - 60, "ada")


def test_reload_drops_a_lifetime_that_was_not_stored() -> None:
    browser = logged_in(Site())

    browser.visit(lambda session: (setattr(session.cookie, "max_age", 60), session.reload()))

    assert browser.set_cookie is None
    assert browser.visit(lambda session: session.cookie.max_age) is None


def test_a_merge_in_which_this_request_has_changed_nothing_is_no_change() -> None:
    site = Site()
    browser = logged_in(site, cart=[])
    other = browser.twin()

    def page(session: Session) -> None:
        assert session["cart"] == []
        other.visit(put("n", 1))
        site.store.calls.clear()
        session.touch()

    browser.visit(page)

    assert site.store.verbs == ["touch", "load", "touch"]


@pytest.mark.parametrize("first", [True, False])
def test_remember_me_is_kept_by_a_login_that_is_overtaken(first: bool) -> None:
    """Set before the new id or after it, and the other request changes a key."""
    site = Site()
    browser = logged_in(site)
    other = browser.twin()

    def login(session: Session) -> None:
        if first:
            session.cookie.max_age = 3600
        session.regenerate(keep=True, user="ada")
        if not first:
            session.cookie.max_age = 3600
        other.visit(put("k", 2))

    browser.visit(login)

    assert "Max-Age=3600" in str(browser.set_cookie)
    assert browser.visit(lambda s: (s["k"], s.user, s.cookie.original_max_age)) == (2, "ada", 3600)


def test_a_reader_never_writes_back_what_it_read() -> None:
    """Its touch is refused, because the record is not the one it saw."""
    site = Site()
    browser = logged_in(site)
    other = browser.twin()
    site.clock.advance(10_000)

    browser.visit(lambda session: (dict(session), other.visit(put("k", 2))))

    assert site.store.verbs == ["load", "replace", "touch"]  # the other's, and then the reader's
    assert browser.visit(data) == {"k": 2}


def test_a_touch_that_was_refused_is_tried_again_for_what_is_read_since() -> None:
    """As where a long response reads its session afresh."""
    site = Site(idle_timeout=100)
    browser = logged_in(site)
    other = browser.twin()
    site.clock.advance(10)

    def page(session: Session) -> None:
        dict(session)
        other.visit(put("k", 2))
        for _ in range(2):
            session.transact(len)
            site.clock.advance(60)

    browser.visit(page)

    assert site.store.verbs == ["load", "replace", "touch", "load", "touch", "load", "touch"]
    assert browser.visit(data) == {"k": 2}


def test_a_rolling_reader_that_was_overtaken_touches_what_is_there_now() -> None:
    """And sends the cookie only after that."""
    site = Site(rolling=True)
    browser = logged_in(site)
    other = browser.twin()

    browser.visit(lambda session: (dict(session), other.visit(put("k", 2))))

    assert site.store.verbs == ["load", "replace", "touch", "load", "touch"]
    assert browser.set_cookie is not None


@row("C10")
def test_a_logout_wins_over_a_rolling_reader(caplog: pytest.LogCaptureFixture) -> None:
    """No touch brings the session back, and no cookie."""
    site = Site(rolling=True)
    browser = logged_in(site)
    other = browser.twin()

    browser.visit(lambda session: (dict(session), other.visit(lambda session: session.destroy())))

    assert browser.set_cookie is None
    assert len(site.store.store) == 0
    assert caplog.records == []  # nothing was changed, so nothing was lost


@row("C6")
def test_of_two_that_regenerate_with_keep_one_inherits() -> None:
    """The other gets no cookie, and its record is deleted."""
    site = Site()
    browser = logged_in(site)
    other = browser.twin()

    browser.visit(lambda s: (s.regenerate(keep=True), other.visit(lambda s: s.regenerate(keep=True))))

    assert browser.set_cookie is None
    assert other.visit(data) == {"k": 1}
    assert len(site.store.store) == 1


def test_regenerate_without_keep_stands_though_the_old_session_was_ended() -> None:
    """A login is a login."""
    site = Site()
    browser = logged_in(site)
    other = browser.twin()

    browser.visit(lambda s: (s.regenerate(user="ada"), other.visit(lambda s: s.destroy())))

    assert browser.visit(lambda session: session.user) == "ada"


@pytest.mark.parametrize("keep", [True, False])
def test_what_others_change_while_the_id_changes_moves_along_with_keep(keep: bool) -> None:
    """And only then; either way the old id is dead."""
    site = Site()
    browser = logged_in(site)
    other = browser.twin()

    browser.visit(lambda s: (s.regenerate(keep=keep), s.update(mine=1), other.visit(put("theirs", 2))))

    assert browser.visit(data) == ({"k": 1, "mine": 1, "theirs": 2} if keep else {"mine": 1})
    assert other.visit(lambda session: session.is_new)


@row("C7")
def test_a_slow_request_does_not_follow_a_user_through_a_login() -> None:
    """Its write goes nowhere, and its response leaves the new cookie alone."""
    site = Site()
    browser = logged_in(site)
    other = browser.twin()

    browser.visit(lambda s: (s.update(k=2), other.visit(lambda s: s.regenerate(user="ada"))))

    assert browser.set_cookie is None
    assert other.visit(lambda s: (dict(s), s.user)) == ({}, "ada")


@row("C5", "P8")
def test_conflicts_without_end_are_a_503() -> None:
    """Nothing is dropped in silence, and nobody waits for ever."""

    class Contested(MemoryStore):
        def replace(self, id: str, seen: bytes, data: bytes, expires_at: float, user: str | None = None) -> bool:
            return False

    clock = Clock()
    store = SpyStore(Contested(clock=clock))
    site = Site(store=store, clock=clock)
    browser = logged_in(site)
    pauses: list[float] = []
    site.app._lifecycle._sleep = pauses.append

    def page(session: Session) -> None:
        session["k"] = 2
        with pytest.raises(SessionConflict, match="32 times"):
            session.save()
        with pytest.raises(SessionConflict):
            session.transact(put("k", 3))

    response = browser.get("/", extra_environ={"test.page": page, "test.results": []}, status=503)

    assert response.headers["Retry-After"] == "5"
    assert store.verbs.count("replace") == 4 * MAX_TRIES - MAX_TRIES  # save, transact's save, the commit
    assert max(pauses) <= 0.05
    # Of each of the three, the second try comes at once.
    assert len(pauses) == 3 * (MAX_TRIES - 2)


@row("C21")
@pytest.mark.parametrize(
    ("page", "kept"),
    [
        (put("k", 2), 2),
        (lambda session: session.transact(put("k", 2)), 2),
        (regenerate(keep=True), 1),
    ],
)
def test_a_rival_that_stores_in_every_pause_does_not_win_every_time(page: Page, kept: int) -> None:
    """A pause comes before the look: between the look and the write, it would cost every try."""
    site = Site()
    browser = logged_in(site)
    rival, stored, tries = browser.twin(), 0, 0
    replace, rotate = site.store.replace, site.store.rotate

    def overtake(seconds: float = 0) -> None:
        nonlocal stored
        stored += 1
        site.store.replace, site.store.rotate = replace, rotate  # nothing comes before the rival's own write
        rival.visit(put("rival", stored))
        site.store.replace, site.store.rotate = contested(replace), contested(rotate)

    def contested(write: Any) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal tries
            tries += 1
            if tries <= 2:
                overtake()
            return write(*arguments, **more)

        return call

    site.store.replace, site.store.rotate = contested(replace), contested(rotate)
    site.app._lifecycle._sleep = overtake
    browser.visit(page)

    assert (tries, stored) == (3, 3)
    assert browser.visit(data) == {"k": kept, "rival": 3}


# The verbs


def test_save_stores_now() -> None:
    """Before the response, for whoever is told about it by another way; the cookie is sent all the same."""
    site = Site()
    browser = site.browser()

    def page(session: Session) -> None:
        session["k"] = 1
        session.save()
        assert site.store.verbs == ["create"]
        assert not session.is_new

    browser.visit(page)

    assert site.store.verbs == []
    assert browser.set_cookie is not None


def test_save_of_an_unchanged_session_touches() -> None:
    """As express does."""
    site = Site()
    browser = logged_in(site)

    browser.visit(lambda session: session.save())

    assert site.store.verbs == ["load", "touch"]
    assert browser.set_cookie is None


def test_save_of_a_new_empty_session_stores_it() -> None:
    """It was asked for; and what is stored is sent."""
    site = Site()
    browser = site.browser()

    browser.visit(lambda session: session.save())

    assert site.store.verbs == ["create"]
    assert browser.set_cookie is not None


def test_a_change_after_save_is_stored_again() -> None:
    """Nested ones, too, of values that were handed out before it."""
    site = Site()
    browser = logged_in(site, cart=[])

    def page(session: Session) -> None:
        cart = session["cart"]
        session["k"] = 2
        session.save()
        cart.append(1)

    browser.visit(page)

    assert site.store.verbs == ["load", "replace", "replace"]
    assert browser.visit(data) == {"k": 2, "cart": [1]}


@row("C12")
def test_what_was_saved_is_not_saved_once_more_over_what_came_since() -> None:
    """The end of a request stores what changed after `save`, and that alone."""
    browser = logged_in(Site())
    other = browser.twin()

    def page(session: Session) -> None:
        session["k"] = 2
        session.save()
        other.visit(put("k", 3))
        session["mine"] = 1

    browser.visit(page)

    assert browser.visit(data) == {"k": 3, "mine": 1}


def test_reload_drops_what_is_unsaved_and_reads_afresh() -> None:
    """A session never stored has nothing to read."""
    site = Site()
    browser = logged_in(site)
    other = browser.twin()

    def page(session: Session) -> dict[str, Any]:
        session["k"] = 5
        other.visit(put("k", 2))
        session.reload()
        return dict(session)

    def fresh(session: Session) -> None:
        with pytest.raises(SessionGone, match="never stored"):
            session.reload()

    assert browser.visit(page) == {"k": 2}
    site.browser().visit(fresh)


def test_touch_starts_the_lifetime_anew() -> None:
    """At once, and whatever the one percent says."""
    site = Site()
    browser = logged_in(site)
    site.clock.advance(1)

    browser.visit(lambda session: session.touch())

    assert site.store.verbs == ["load", "touch"]
    assert site.store.store.load(browser.id).expires_at == site.clock.now + 86400


def test_transact_counts_exactly() -> None:
    """The function runs again on what another request has stored in between."""
    site = Site()
    browser = logged_in(site, n=0)
    other = browser.twin()
    rivals = 3

    def count(session: Session) -> int:
        nonlocal rivals
        n: int = session["n"]
        if rivals:
            rivals -= 1
            other.visit(lambda session: session.update(n=session["n"] + 1))
        session["n"] = n + 1
        return n + 1

    assert browser.visit(lambda session: session.transact(count)) == 4
    assert browser.visit(data) == {"k": 1, "n": 4}


def test_transact_saves_what_is_pending_first() -> None:
    """And sees what others stored before it."""
    site = Site()
    browser = logged_in(site)
    other = browser.twin()

    def page(session: Session) -> Any:
        session["mine"] = 1
        other.visit(put("theirs", 2))
        return session.transact(data)

    assert browser.visit(page) == {"k": 1, "mine": 1, "theirs": 2}


@pytest.mark.parametrize("is_new", [True, False])
def test_transact_leaves_everything_as_it_was_when_the_function_raises(is_new: bool) -> None:
    """Data, nested data and lifetime."""
    site = Site()
    browser = site.browser() if is_new else logged_in(site)

    def spoil(session: Session) -> None:
        session["cart"].append(1)
        session["new"] = 1
        session.cookie.max_age = 5
        raise RuntimeError

    def page(session: Session) -> None:
        session["cart"] = []
        with pytest.raises(RuntimeError):
            session.transact(spoil)
        assert session["cart"] == []
        assert "new" not in session
        assert session.cookie.max_age is None

    browser.visit(page)

    assert browser.visit(lambda session: session["cart"]) == []


def test_transact_on_a_new_session_creates_it() -> None:
    """Nobody else knows its id yet."""
    site = Site()
    browser = site.browser()

    assert browser.visit(lambda session: session.transact(lambda session: session.setdefault("n", 1))) == 1
    assert browser.visit(data) == {"n": 1}


@pytest.mark.parametrize("verb", ["save", "reload", "touch", "destroy", "regenerate"])
def test_verbs_do_not_work_inside_transact(verb: str) -> None:
    """The function may run many times."""
    browser = logged_in(Site())

    def page(session: Session) -> None:
        with pytest.raises(SessionError, match=verb):
            session.transact(lambda session: getattr(session, verb)())
        with pytest.raises(SessionError, match="transact"):
            session.transact(lambda session: session.transact(len))

    browser.visit(page)


def test_after_destroy_a_write_says_what_to_do() -> None:
    """`regenerate()` gives an empty session; the cookie is then sent, not removed."""
    site = Site()
    browser = logged_in(site)

    def page(session: Session) -> None:
        session.destroy()
        session.destroy()
        assert (dict(session), session.user, session.is_new) == ({}, None, True)
        with pytest.raises(SessionError, match="regenerate"):
            session["k"] = 1
        for verb in (Session.save, Session.reload, Session.touch, lambda session: session.transact(len)):
            with pytest.raises(SessionGone, match="regenerate"):
                verb(session)
        session.regenerate()
        session["k"] = 2

    browser.visit(page)

    assert "Max-Age=0" not in str(browser.set_cookie)
    assert browser.visit(data) == {"k": 2}


def test_an_empty_session_has_the_configured_lifetime() -> None:
    """That the last one was to be remembered says nothing of the next visitor."""
    site = Site()
    browser = logged_in(site)
    browser.visit(lambda session: setattr(session.cookie, "max_age", 3600))

    browser.visit(regenerate(user="ada"))
    assert "Max-Age" not in str(browser.set_cookie)

    browser.visit(lambda s: (setattr(s.cookie, "max_age", 3600), s.regenerate()))
    assert "Max-Age" not in str(browser.set_cookie)


def test_a_destroyed_session_is_no_ones() -> None:
    browser = logged_in(Site())
    browser.visit(regenerate(user="ada"))

    assert browser.visit(lambda s: (s.user, s.destroy(), s.user)) == ("ada", None, None)


def test_destroy_after_regenerate_ends_the_old_session_too() -> None:
    """The id that the browser came with is the one it might still have."""
    site = Site()
    browser = logged_in(site)
    thief = browser.twin()

    browser.visit(lambda session: (session.regenerate(keep=True), session.destroy()))

    assert browser.cookie is None
    assert len(site.store.store) == 0
    assert thief.visit(data) == {}


@pytest.mark.parametrize("keep", [True, False])
def test_destroy_ends_a_session_that_has_its_new_id_already(keep: bool) -> None:
    """Where nothing leads from the old id to the new one, too."""
    site = Site()
    browser = logged_in(site)

    browser.visit(lambda session: (session.regenerate(keep=keep), session.save(), session.destroy()))

    assert site.store.store.clear() == 0


def test_regenerate_ends_a_session_that_was_new_in_this_request_and_saved() -> None:
    """Though the new one has nothing to store."""
    site = Site()
    browser = site.browser()

    first = browser.visit(lambda session: (session.update(k=1), session.save(), session.id, session.regenerate())[2])

    assert list(site.store.store.ids()) == [browser.id] != [first]
    assert browser.visit(lambda session: (session.is_new, len(session))) == (False, 0)


@pytest.mark.parametrize("keep", [True, False])
def test_regenerate_twice_is_once(keep: bool) -> None:
    """One new session; data are kept where both calls keep them."""
    site = Site()
    browser = logged_in(site)

    browser.visit(lambda session: (session.regenerate(keep=keep), session.regenerate(keep=True)))

    assert len(site.store.store) == 1
    assert browser.visit(data) == ({"k": 1} if keep else {})


@row("P4")
def test_the_user_comes_and_goes_with_the_id_alone() -> None:
    """`regenerate` sets it, keeps it with keep, drops it without or with None."""
    site = Site()
    browser = logged_in(site)
    seen = []
    steps: list[dict[str, Any]] = [{"user": "ada"}, {"keep": True}, {"keep": True, "user": None}, {"user": "bob"}, {}]
    for arguments in steps:
        browser.visit(regenerate(**arguments))
        seen.append(browser.visit(lambda session: session.user))

    assert seen == ["ada", "ada", None, "bob", None]


def test_created_at_is_carried_over_by_keep_without_a_new_user() -> None:
    """A fresh authentication starts the absolute timeout anew; a new id alone does not."""
    site = Site()
    browser = logged_in(site)
    start = site.clock.now
    seen = []
    steps: list[dict[str, Any]] = [{"keep": True}, {"keep": True, "user": None}, {"keep": True, "user": "ada"}, {}]
    for arguments in steps:
        site.clock.advance(100)
        browser.visit(regenerate(**arguments))
        seen.append(browser.visit(lambda session: session.created_at.timestamp()) - start)

    assert seen == [0, 0, 300, 400]


# Ends


@row("P7")
def test_a_session_lives_for_the_idle_timeout_after_its_last_use() -> None:
    """Dead at T, though the client keeps its cookie for ever."""
    site = Site(idle_timeout=100)
    browser = logged_in(site)
    seen = []
    for seconds in (99, 99, 100):
        site.clock.advance(seconds)
        seen.append(browser.visit(data))

    assert seen == [{"k": 1}, {"k": 1}, {}]


@row("P7")
def test_the_absolute_timeout_ends_a_session_however_busy_it_is() -> None:
    """And `regenerate(keep=True)` does not reset it."""
    site = Site(idle_timeout=100, absolute_timeout=250)
    browser = logged_in(site)
    seen = []
    for _ in range(5):
        site.clock.advance(50)
        seen.append(browser.visit(lambda session: (session.regenerate(keep=True), len(session))[1]))

    assert seen == [1, 1, 1, 1, 0]


@row("C11", "P5")
@pytest.mark.parametrize("page", [LOOK, put("k", 2), lambda session: session.regenerate(keep=True)])
def test_a_session_that_expires_during_a_request_is_not_revived(page: Page) -> None:
    """By its save, its touch, or under a new id; nor is the cookie removed: a late answer must not."""
    site = Site(idle_timeout=100, rolling=True)
    browser = logged_in(site)

    browser.visit(lambda session: (page(session), site.clock.advance(100)))

    assert browser.set_cookie is None
    assert browser.visit(data) == {}
    assert len(site.store.store) == 0


@row("C11")
def test_an_absolute_timeout_that_comes_during_a_request_refuses_its_save() -> None:
    """The request finishes; the session does not outlive its end."""
    site = Site(idle_timeout=100, absolute_timeout=100)
    browser = logged_in(site)

    browser.visit(lambda session: (session.update(k=2), site.clock.advance(100)))

    assert site.store.verbs == ["load"]
    assert browser.visit(data) == {}


def test_a_logout_ends_what_a_new_id_would_have_replaced_if_the_absolute_timeout_had_not_come() -> None:
    """To a worker with another timeout it would live on."""
    site = Site()
    browser = logged_in(site)

    def page(session: Session) -> None:
        session.regenerate(keep=True)
        site.clock.advance(100)
        with pytest.raises(SessionGone):
            session.save()
        session.destroy()

    strict = Site(store=site.store, clock=site.clock, absolute_timeout=100).browser(browser.cookie)
    strict.visit(page)

    assert browser.visit(data) == {}


@row("C11")
@pytest.mark.parametrize("seconds", range(494, 501))
def test_an_absolute_timeout_that_comes_while_a_session_is_looked_at_is_no_error(seconds: int) -> None:
    """Between its load and its early touch; the session lived, or is gone, and the page goes on."""
    site = Site(idle_timeout=600)
    browser = logged_in(site)
    now: float = site.clock()

    def clock() -> float:
        nonlocal now
        now += 1
        return now

    now += seconds
    strict = Site(store=site.store, clock=clock, idle_timeout=600, absolute_timeout=500).browser(browser.cookie)

    assert strict.visit(len) in (0, 1)
    assert strict.set_cookie is None


def test_the_absolute_timeout_is_checked_at_load() -> None:
    """It may be configured after the session was stored."""
    clock = Clock()
    store = SpyStore(MemoryStore(clock=clock))
    browser = logged_in(Site(store=store, clock=clock))
    clock.advance(1000)
    strict = Site(store=store, clock=clock, absolute_timeout=500).browser(browser.cookie)

    assert strict.visit(lambda session: session.is_new)


@pytest.mark.parametrize(
    "page", [LOOK, lambda session: session.save(), lambda session: (session.update(n=1), session.save())]
)
def test_a_session_of_express_gets_a_start_at_the_first_look(page: Page) -> None:
    """Else the absolute timeout could never end it."""
    site = Site(absolute_timeout=1000)
    browser = logged_in(site)
    site.store.store.delete(browser.id)
    site.store.store.create(browser.id, b'{"cookie":{"originalMaxAge":null},"k":1}', site.clock.now + 500)

    browser.visit(page)

    assert site.store.verbs == ["load", "replace"]
    stored = json.loads(site.store.store.load(browser.id).data)
    assert stored["minisession"] == {"created": site.clock.now}
    assert browser.set_cookie is None


@pytest.mark.parametrize("left", [5, 70])
def test_a_session_of_express_that_is_too_large_for_a_start_can_be_read(
    left: float, caplog: pytest.LogCaptureFixture
) -> None:
    """The page that reads it has changed nothing, and is not failed; the session lives on, touched early or late."""
    site = Site(absolute_timeout=1000, idle_timeout=100, max_bytes=180)
    browser = site.browser()
    browser.visit(put("k", 1))
    record = b'{"cookie":{"originalMaxAge":null},"k":"%s"}' % (b"x" * 100)
    site.store.store.delete(browser.id)
    site.store.store.create(browser.id, record, site.clock.now + left)
    site.store.calls.clear()

    assert browser.visit(lambda session: session["k"]) == "x" * 100

    assert site.store.verbs == ["load", "touch"]
    assert site.store.store.load(browser.id).data == record
    assert "not stored anew" in caplog.text


def test_a_creation_in_the_future_is_taken_for_now() -> None:
    """A clock that was wrong must not lengthen a life."""
    site = Site(absolute_timeout=1000)
    browser = logged_in(site)
    start = site.clock.now
    site.clock.advance(-500)

    assert browser.visit(lambda session: session.created_at.timestamp()) == start - 500


def test_the_record_is_written_with_a_fresh_expires() -> None:
    """Express reads it; a stale one makes connect-redis delete the session at its next save."""
    site = Site(cookie=Cookie(secure="auto", max_age=60))
    browser = logged_in(site)
    site.clock.advance(30)

    browser.visit(put("k", 2))

    expires = json.loads(site.store.store.load(browser.id).data)["cookie"]["expires"]
    assert datetime.fromisoformat(expires.replace("Z", "+00:00")).timestamp() == site.clock.now + 60


# Ids


def test_an_id_that_is_taken_is_passed_over() -> None:
    """A collision must not open somebody else's session."""
    ids = iter(["victim", "victim", "fresh"])
    site = Site(genid=lambda environ: next(ids))
    victim = logged_in(site)

    attacker = site.browser()
    attacker.visit(put("k", "attack"))

    assert attacker.id == "fresh"
    assert victim.visit(data) == {"k": 1}


@pytest.mark.parametrize("page", [put("k", "attack"), lambda session: session.regenerate(user="eve")])
def test_a_genid_that_is_stuck_on_a_taken_id_is_an_error(page: Page) -> None:
    """Not an endless loop, and not the victim's session."""
    site = Site(genid=lambda environ: "victim")
    victim = logged_in(site)

    with pytest.raises(SessionError, match="genid"):
        site.browser().visit(page)

    assert victim.visit(data) == {"k": 1}


@pytest.mark.parametrize(
    ("id", "error"), [(7, TypeError), ("", ValueError), ("x" * 256, ValueError), ("\ud800", ValueError)]
)
def test_a_genid_that_returns_no_id_is_named(id: Any, error: type[Exception]) -> None:
    """Before anything is stored."""
    site = Site(genid=lambda environ: id)

    with pytest.raises(error, match="genid"):
        site.browser().visit(put("k", 1))

    assert len(site.store.store) == 0


def test_an_id_of_a_subclass_of_text_is_its_own_text() -> None:
    """As it is stored, and not as it is printed."""

    class Id(str, Enum):
        FIRST = "first"

    site = Site(genid=lambda environ: Id.FIRST)
    browser = site.browser()
    browser.visit(put("k", 1))
    browser.visit(put("k", 2))
    browser.visit(lambda session: setattr(session.cookie, "max_age", 9e6))

    assert browser.id == "first"
    assert type(browser.visit(lambda session: session.id)) is str
    assert browser.visit(data) == {"k": 2}


@row("P15")
def test_an_old_secret_verifies_and_its_cookie_is_sent_again_under_the_first() -> None:
    """Rotation needs no waiting for the longest session."""
    clock = Clock()
    store = SpyStore(MemoryStore(clock=clock))
    browser = logged_in(Site(store=store, clock=clock, secret="the old secret, long enough"))
    site = Site(store=store, clock=clock, secret=["the new secret, long enough", "the old secret, long enough"])
    rotated = site.browser(browser.cookie)

    assert rotated.visit(data) == {"k": 1}

    assert store.verbs == ["load", "touch"]
    assert rotated.set_cookie is not None
    only_new = Site(store=store, clock=clock, secret="the new secret, long enough").browser(rotated.cookie)
    assert only_new.visit(data) == {"k": 1}
    assert only_new.set_cookie is None


# The store fails


class Down:
    """A store that is down for some verbs."""

    def __init__(self, store: Any, *verbs: str) -> None:
        self.store, self.verbs = store, set(verbs)

    def __getattr__(self, verb: str) -> Any:
        if verb in self.verbs:
            return self.fail
        return getattr(self.store, verb)

    def fail(self, *arguments: Any, **more: Any) -> Any:
        raise StoreUnavailable("the store is down")


def test_a_save_that_only_touches_raises_what_fails() -> None:
    """It was asked for; a touch that nobody asked for is a courtesy, and a line in the log."""
    _site, _down, browser = site_with("touch")

    def page(session: Session) -> None:
        dict(session)
        with pytest.raises(StoreUnavailable):
            session.save()

    browser.visit(page)
    assert browser.response.status_code == 200


def site_with(*verbs: str, **options: Any) -> tuple[Site, Down, Visitor]:
    clock = Clock()
    down = Down(MemoryStore(clock=clock))
    site = Site(clock=clock, store=SpyStore(down), **options)
    browser = logged_in(site)
    down.verbs = set(verbs)
    return site, down, browser


@row("S4")
@pytest.mark.parametrize(
    ("verb", "page"),
    [("load", LOOK), ("replace", put("k", 2)), ("rotate", lambda s: s.regenerate()), ("delete", lambda s: s.destroy())],
)
def test_a_store_that_is_down_is_a_503_without_a_cookie(verb: str, page: Page) -> None:
    """Nobody is logged out by an outage, and nobody told that something was stored that was not."""
    _, down, browser = site_with(verb)

    response = browser.get("/", extra_environ={"test.page": page, "test.results": []}, status=503)

    assert response.headers["Retry-After"] == "5"
    assert "Set-Cookie" not in response.headers
    down.verbs.clear()
    assert browser.visit(data) == {"k": 1}


def test_a_page_without_the_session_does_not_notice() -> None:
    """Also with rolling, where only we look at it."""
    for options in ({}, {"rolling": True}):
        _, _, browser = site_with("load", "touch", **options)
        browser.visit()
        assert browser.set_cookie is None


def test_a_touch_that_fails_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The page was read; only the cookie is not sent, because it would promise what is not so."""
    site, _, browser = site_with("touch", rolling=True)
    site.clock.advance(10_000)

    assert browser.visit(data) == {"k": 1}

    assert browser.set_cookie is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_so_is_one_that_is_lost_to_others_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    """A rolling session is touched until it is done; a page that changed nothing is no conflict."""
    site = Site(rolling=True)
    browser = logged_in(site)
    site.app._lifecycle._sleep = lambda seconds: None
    site.store.touch = lambda *arguments: False

    assert browser.visit(data) == {"k": 1}

    assert browser.set_cookie is None
    assert ["32 times in a row" in line for line in caplog.messages] == [True]


# Sizes, warnings, decisions


@row("T5")
def test_a_record_over_max_bytes_is_refused_whole() -> None:
    """Before the headers, with what was stored before kept."""
    site = Site(max_bytes=300)
    browser = logged_in(site)

    with pytest.raises(SessionTooLarge, match="max_bytes is 300"):
        browser.visit(put("k", "x" * 300))

    assert browser.visit(data) == {"k": 1}


def test_several_processes_and_a_store_in_one_are_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    """Else visitors seem logged out at random."""
    clock = Clock()
    browser = Site(clock=clock, store=MemoryStore(clock=clock))
    for _ in range(2):
        visitor = Browser(browser.app)
        visitor.get(extra_environ={"wsgi.multiprocess": True, "test.page": LOOK, "test.results": []})

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "processes" in caplog.text


def test_a_secure_cookie_over_plain_http_is_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    """It is sent all the same: browsers keep it for localhost."""
    site = Site(cookie=Cookie())
    for _ in range(2):
        visitor = site.browser()
        visitor.client.extra_environ["wsgi.url_scheme"] = "http"
        visitor.visit(put("k", 1))
        assert "; Secure" in str(visitor.set_cookie)

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert 'secure="auto"' in caplog.text


def test_a_key_that_express_drops_is_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    """It is stored all the same: not everybody shares with Express."""
    site = Site()
    for _ in range(2):
        browser = site.browser()
        browser.visit(put("constructor", 1))
        assert browser.visit(data) == {"constructor": 1}

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "'constructor'" in caplog.text


def test_the_log_explains_every_decision_and_shows_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG; sessions are told apart by their handles."""
    site = Site()
    with caplog.at_level(logging.DEBUG, "minisession"):
        browser = site.browser()
        browser.visit(put("k", "data of the session"))
        id, cookie = browser.id, browser.cookie
        browser.visit(LOOK)
        browser.visit(put("k", 2))
        browser.visit(lambda session: session.regenerate())
        browser.visit(lambda session: session.destroy())
        browser.visit(LOOK)
        site.browser(cookie).visit(LOOK)
        site.browser("s%3Ax.y").visit(LOOK)

    for words in (
        "created",
        "cookie sent",
        "has it already",
        "loaded",
        "destroyed",
        "new and empty",
        "verify",
        "no cookie",
    ):
        assert words in caplog.text
    for secret in (id, str(cookie).rpartition(".")[2], "data of the session", browser.site.app._mark + "="):
        assert secret not in caplog.text


@pytest.mark.parametrize("proxy", [True, False])
def test_auto_believes_the_forwarded_scheme_only_where_told_to(proxy: bool) -> None:
    """Anybody can send the header."""
    site = Site(proxy=proxy)
    browser = site.browser()
    browser.client.extra_environ.update({"wsgi.url_scheme": "http", "HTTP_X_FORWARDED_PROTO": "HTTPS , http"})

    browser.visit(put("k", 1))

    assert ("; Secure" in str(browser.set_cookie)) is proxy


def test_the_cookie_can_depend_on_the_request() -> None:
    """For an app on several hosts; what is wrong is named when it is known."""
    cookies: list[Any] = [Cookie(secure="auto", path="/a"), "nonsense"]
    site = Site(cookie=lambda environ: cookies[0])
    browser = site.browser()
    browser.visit(put("k", 1))

    assert "; Path=/a" in str(browser.set_cookie)
    del cookies[0]
    with pytest.raises(TypeError, match="must return a Cookie"):
        browser.visit(LOOK)


def test_a_new_session_tells_when_it_will_end() -> None:
    site = Site(idle_timeout=100)

    ends = site.browser().visit(lambda session: session.expires_at.timestamp())

    assert ends == site.clock.now + 100


def test_a_transaction_stores_what_it_changes_at_once() -> None:
    """A new session's first data, and a lifetime alone."""
    site = Site()

    def page(session: Session) -> Any:
        session.transact(put("k", 1))
        first = site.store.verbs
        session.transact(lambda session: setattr(session.cookie, "max_age", 60))
        return first, site.store.verbs

    assert site.browser().visit(page) == (["create"], ["load", "replace"])


def test_the_session_tells_its_times() -> None:
    """Aware datetimes in UTC, seconds elsewhere."""
    site = Site(cookie=Cookie(secure="auto", max_age=3600))
    browser = logged_in(site)
    start = datetime.fromtimestamp(site.clock.now, timezone.utc)
    site.clock.advance(10)

    def page(session: Session) -> None:
        assert session.created_at == start
        assert session.expires_at == session.cookie.expires == start + timedelta(seconds=3600)
        assert session.cookie.max_age == 3590
        assert session.cookie.original_max_age == 3600
        session.cookie.max_age = 60
        assert session.cookie.max_age == 60
        assert session.expires_at == start + timedelta(seconds=70)
        session.cookie.max_age = None
        assert session.cookie.expires is None

    browser.visit(page)
