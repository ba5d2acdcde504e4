"""`SessionMiddleware.session_from`: a visitor's session where there is no response."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from minisession import Cookie, Session, SessionError, SessionGone, SessionTooLarge, StoreUnavailable

from ..support.site import Site, Visitor, data, put
from .test_lifecycle import logged_in, regenerate, site_with


def header(browser: Visitor) -> str:
    return f"theme=dark; connect.sid={browser.cookie}"


def test_a_block_reads_and_changes_the_visitors_session() -> None:
    """And stores it when it ends."""
    site = Site()
    browser = logged_in(site, progress=[])

    with site.app.session_from(header(browser)) as session:
        assert (dict(session), session.is_new) == ({"k": 1, "progress": []}, False)
        session["progress"].append(50)
        assert browser.visit(data) == {"k": 1, "progress": []}

    assert browser.visit(data) == {"k": 1, "progress": [50]}


def test_what_a_block_changes_is_merged_with_what_requests_do() -> None:
    site = Site()
    browser = logged_in(site, progress=[])

    with site.app.session_from(header(browser)) as session:
        session["mine"] = 1
        browser.visit(put("theirs", 1))

    assert browser.visit(data) == {"k": 1, "progress": [], "mine": 1, "theirs": 1}


def test_a_block_that_raises_stores_nothing() -> None:
    site = Site()
    browser = logged_in(site)

    def block() -> None:
        with site.app.session_from(header(browser)) as session:
            session["k"] = 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        block()

    assert browser.visit(data) == {"k": 1}


def test_a_session_that_is_kept_after_its_block_does_not_keep_the_header() -> None:
    """It is as good as a password."""
    site = Site()
    browser = logged_in(site)

    with site.app.session_from(header(browser)) as kept:
        pass

    assert kept._exchange.look().environ == {}
    assert dict(kept) == {"k": 1}


@pytest.mark.parametrize("cookies", ["", "theme=dark", "connect.sid=s%3Aforged.x", "connect.sid=junk", ";;;"])
def test_without_a_live_session_there_is_nothing_to_enter(cookies: str) -> None:
    with pytest.raises(SessionGone, match="no live session"), Site().app.session_from(cookies):
        pytest.fail("entered")


@pytest.mark.parametrize("ends", [lambda session: session.destroy(), regenerate(keep=True)])
def test_nor_where_it_has_ended(ends: Callable[[Session], Any]) -> None:
    """A new id is another Cookie header."""
    site = Site()
    browser = logged_in(site)
    old = header(browser)
    browser.visit(ends)

    with pytest.raises(SessionGone), site.app.session_from(old):
        pytest.fail("entered")


@pytest.mark.parametrize("cookies", [None, b"connect.sid=x", {"connect.sid": "x"}])
def test_what_is_no_header_is_named(cookies: Any) -> None:
    with pytest.raises(TypeError, match="cookie_header must be str"), Site().app.session_from(cookies):
        pytest.fail("entered")


def test_changes_of_a_session_that_ended_meanwhile_are_an_error() -> None:
    """There is no response to be silent about it; and nothing brings the session back."""
    site = Site()
    browser = logged_in(site)

    def block() -> None:
        with site.app.session_from(header(browser)) as session:
            session["k"] = 2
            browser.visit(lambda session: session.destroy())

    with pytest.raises(SessionGone):
        block()
    assert len(site.store.store) == 0


def test_reading_a_session_that_ended_meanwhile_is_none() -> None:
    site = Site()
    browser = logged_in(site)

    with site.app.session_from(header(browser)) as session:
        browser.visit(lambda session: session.destroy())
        assert session["k"] == 1


def test_reading_a_session_whose_time_has_come_meanwhile_is_none() -> None:
    site = Site(absolute_timeout=100)
    browser = logged_in(site)

    with site.app.session_from(header(browser)) as session:
        site.clock.advance(100)
        assert session["k"] == 1


def from_express(site: Site, browser: Visitor) -> None:
    """Take out of the record what express-session does not write."""
    stored = site.store.store.load(browser.id)
    record = json.loads(stored.data)
    del record["minisession"]
    site.store.store.replace(browser.id, stored.data, json.dumps(record).encode(), stored.expires_at)


def test_the_absolute_timeout_of_a_session_from_express_begins_with_the_first_block() -> None:
    """Or it never ends where it is used in blocks alone."""
    site = Site(absolute_timeout=100, idle_timeout=80)
    browser = logged_in(site)
    from_express(site, browser)

    for _ in range(2):
        with site.app.session_from(header(browser)) as session:
            assert session["k"] == 1
        site.clock.advance(60)

    with pytest.raises(SessionGone), site.app.session_from(header(browser)):
        pytest.fail("entered")


def test_a_store_that_fails_then_is_none(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of the block's is lost."""
    site, down, browser = site_with(absolute_timeout=100)
    from_express(site, browser)
    down.verbs = {"replace"}
    with site.app.session_from(header(browser)) as session:
        assert session["k"] == 1
    assert ["not touched" in line for line in caplog.messages] == [True]


def test_nor_is_a_beginning_that_is_lost_to_others_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    site, _, browser = site_with(absolute_timeout=100)
    from_express(site, browser)
    site.app._lifecycle._sleep = lambda seconds: None
    site.store.replace = lambda *arguments: False
    with site.app.session_from(header(browser)) as session:
        assert session["k"] == 1
    assert ["32 times in a row" in line for line in caplog.messages] == [True]


def test_a_store_that_fails_is_an_error() -> None:
    site, down, browser = site_with("replace")
    with pytest.raises(StoreUnavailable), site.app.session_from(header(browser)) as session:
        session["k"] = 2
    down.verbs = {"load"}
    with pytest.raises(StoreUnavailable), site.app.session_from(header(browser)):
        pytest.fail("entered")


def test_what_is_too_large_is_an_error() -> None:
    site = Site(max_bytes=300)
    browser = logged_in(site)
    with pytest.raises(SessionTooLarge), site.app.session_from(header(browser)) as session:
        session["k"] = "x" * 300


@pytest.mark.parametrize(
    "verb",
    [
        lambda session: session.regenerate(),
        lambda session: session.regenerate(keep=True, user="ada"),
        lambda session: setattr(session.cookie, "max_age", 5),
    ],
    ids=["regenerate", "log in", "max_age"],
)
def test_what_needs_a_cookie_is_an_error_that_says_where_to_do_it(verb: Callable[[Session], Any]) -> None:
    site = Site()
    browser = logged_in(site)
    with site.app.session_from(header(browser)) as session, pytest.raises(SessionError, match="do it in a request"):
        verb(session)
    assert browser.visit(data) == {"k": 1}


@pytest.mark.parametrize("options", [{}, {"resave": True}, {"rolling": True}])
def test_a_logout_works(options: dict[str, Any]) -> None:
    site = Site(**options)
    browser = logged_in(site)
    assert site.store.verbs
    with site.app.session_from(header(browser)) as session:
        session.destroy()
        with pytest.raises(SessionError, match="destroyed"):
            session["k"] = 2
    assert (len(site.store.store), site.store.verbs) == (0, ["load", "delete"])


def test_save_and_transact_work() -> None:
    site = Site()
    browser = logged_in(site, n=0)
    with site.app.session_from(header(browser)) as session:
        session["early"] = 1
        session.save()
        assert browser.visit(data)["early"] == 1
        browser.visit(put("n", 5))
        session.transact(lambda session: session.update(n=session["n"] + 1))
        assert browser.visit(data)["n"] == 6


def test_after_the_block_the_session_is_over() -> None:
    site = Site()
    with site.app.session_from(header(logged_in(site))) as session:
        pass
    with pytest.raises(SessionError, match="complete"):
        session["k"] = 2


@pytest.mark.parametrize("options", [{}, {"cookie": Cookie(secure="auto", max_age=100)}, {"rolling": True}])
@pytest.mark.parametrize("seconds", [40, 80])
def test_each_use_extends_the_session(options: dict[str, Any], seconds: float) -> None:
    """A list that was read is none that was changed."""
    site = Site(idle_timeout=100, **options)
    browser = logged_in(site, seen=[])
    site.clock.advance(seconds)
    with site.app.session_from(header(browser)) as session:
        assert (session["k"], session["seen"]) == (1, [])
    site.clock.advance(99)
    assert browser.visit(data) == {"k": 1, "seen": []}


def test_the_records_attributes_stay_and_a_callable_cookie_is_not_called() -> None:
    """It would want a request, and there is none."""
    asked: list[Any] = []

    def cookie(environ: dict[str, Any]) -> Cookie:
        asked.append(environ)
        return Cookie(secure="auto", path=environ["PATH_INFO"], max_age=50, samesite="Strict")

    site = Site(cookie=cookie)
    browser = logged_in(site)
    asked.clear()
    before = json.loads(site.store.store.load(browser.id).data)["cookie"]
    site.clock.advance(10)
    with site.app.session_from(header(browser)) as session:
        session["k"] = 2

    after = json.loads(site.store.store.load(browser.id).data)["cookie"]
    assert asked == []
    assert {**after, "expires": None} == {**before, "expires": None}
    assert after["expires"] > before["expires"]
    assert list(after) == list(before)


def test_attributes_that_are_no_utf_8_stay_too() -> None:
    """Express keeps half a surrogate pair in a path."""
    site = Site()
    browser = logged_in(site)
    before = site.store.store.load(browser.id)
    express = before.data.replace(b'"path":"/"', b'"path":"/\\ud800"')
    site.store.store.replace(browser.id, before.data, express, before.expires_at)

    with site.app.session_from(header(browser)) as session:
        session["k"] = 2

    assert site.store.store.load(browser.id).data == express.replace(b'"k":1', b'"k":2')


def test_a_change_to_what_was_saved_and_has_ended_is_not_lost_without_a_word() -> None:
    """Though the block went on after it had been told so."""
    site = Site()
    browser = logged_in(site, progress=[])

    def job() -> None:
        with site.app.session_from(header(browser)) as session:
            progress = session["progress"]
            progress.append(50)
            session.save()
            browser.twin().visit(lambda session: session.destroy())
            with pytest.raises(SessionGone):
                session.touch()
            progress.append(100)

    with pytest.raises(SessionGone):
        job()


def test_its_user_is_told() -> None:
    site = Site()
    browser = logged_in(site)
    browser.visit(regenerate(keep=True, user="ada"))
    with site.app.session_from(header(browser)) as session:
        assert (session.user, session.id) == ("ada", browser.id)
