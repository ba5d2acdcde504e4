"""A user's sessions: listed, ended one by one, and all at once, whatever is in flight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from minisession import (
    ListingStore,
    MemoryStore,
    Session,
    SessionConflict,
    SessionGone,
    destroy_session,
    destroy_sessions_of,
    sessions_of,
)
from minisession.journal import handle_of
from minisession.users import MAX_SWEEPS

from ..support.browser import Clock, SpyStore
from ..support.rows import row
from ..support.site import Site, Visitor, data, put


def login(site: Site, user: str = "ann", **values: Any) -> Visitor:
    browser = site.browser()

    def page(session: Session) -> None:
        session.regenerate(user=user)
        session.update(values)

    browser.visit(page)
    return browser


def user(session: Session) -> str | None:
    return session.user


@pytest.fixture
def site() -> Site:
    clock = Clock()
    return Site(clock=clock, store=MemoryStore(clock=clock))


class TestListing:
    def test_a_user_sees_his_sessions_and_nobody_elses(self, site: Site) -> None:
        login(site, device="phone")
        site.clock.advance(60)
        laptop = login(site, device="laptop")
        login(site, "bob", device="bob's")
        site.browser().visit(put("k", 1))

        phone, other = sessions_of(site.store, "ann")

        assert (phone.data, other.data) == ({"device": "phone"}, {"device": "laptop"})
        assert (other.handle, other.user) == (laptop.visit(lambda session: session.handle), "ann")
        assert other.size == len(site.store.load(laptop.id).data)
        assert phone.created_at is not None
        assert other.created_at == phone.created_at + timedelta(seconds=60)
        assert other.expires_at == laptop.visit(lambda session: session.expires_at)

    def test_a_view_shows_no_data_and_no_id(self, site: Site) -> None:
        browser = login(site, secret="letmein")
        [view] = sessions_of(site.store, "ann")

        assert "letmein" not in repr(view)
        assert browser.id not in repr(view)
        assert view.handle in repr(view)

    def test_changing_what_is_shown_changes_no_session(self, site: Site) -> None:
        browser = login(site, cart=[1])
        [view] = sessions_of(site.store, "ann")
        view.data["cart"].append(2)

        assert browser.visit(data) == {"cart": [1]}

    @row("F10")
    def test_a_session_that_ends_while_they_are_listed_is_left_out(self, site: Site) -> None:
        browsers = [login(site) for _ in range(3)]
        views = sessions_of(site.store, "ann")
        next(views)
        browsers[1].visit(lambda session: session.destroy())

        assert len(list(views)) == 1

    @row("F10")
    @pytest.mark.parametrize("ends", [Session.destroy, lambda session: session.regenerate()], ids=["logout", "new id"])
    def test_a_session_that_ends_between_the_list_and_the_look_at_it_is_left_out(
        self, site: Site, ends: Callable[[Session], Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Stores list in batches; what has become a tombstone meanwhile is nothing to warn of."""
        browser = login(site)

        class Slow(Passing):
            def ids(self, user: str | None = None) -> Any:
                for id in list(super().ids(user)):
                    browser.visit(ends)
                    yield id

        assert list(sessions_of(Slow(site.store), "ann")) == []
        assert caplog.messages == []

    @row("F10")
    def test_what_is_no_session_is_left_out(self, site: Site, caplog: pytest.LogCaptureFixture) -> None:
        site.store.create("id", b"letmein", site.clock() + 60, "ann")

        assert list(sessions_of(site.store, "ann")) == []
        assert "not listed: its record is not a session" in caplog.text
        assert "letmein" not in caplog.text

    def test_what_express_wrote_has_no_beginning(self, site: Site) -> None:
        site.store.create("id", b'{"cookie":{},"k":1}', site.clock() + 60, "ann")
        [view] = sessions_of(site.store, "ann")

        assert (view.created_at, view.user, view.data) == (None, None, {"k": 1})


class TestEnding:
    def test_one_session_is_ended_by_its_handle(self, site: Site) -> None:
        lost, mine = login(site), login(site)
        handle = lost.visit(lambda session: session.handle)

        assert destroy_session(site.store, "ann", handle)
        assert not destroy_session(site.store, "ann", handle)
        assert (lost.visit(user), mine.visit(user)) == (None, "ann")

    def test_nobody_ends_anothers_session(self, site: Site) -> None:
        """The handle comes from a form, and forms lie."""
        bob = login(site, "bob")
        handle = bob.visit(lambda session: session.handle)

        assert not destroy_session(site.store, "ann", handle)
        assert not destroy_session(site.store, "bob", bob.id)
        assert not destroy_session(site.store, "bob", "")
        assert bob.visit(user) == "bob"

    @row("P6")
    def test_all_are_ended_at_once(self, site: Site) -> None:
        anns, bob = [login(site) for _ in range(3)], login(site, "bob")

        assert destroy_sessions_of(site.store, "ann") == 3
        assert destroy_sessions_of(site.store, "ann") == 0
        assert [browser.visit(user) for browser in anns] == [None] * 3
        assert bob.visit(user) == "bob"

    def test_the_one_who_asks_stays(self, site: Site) -> None:
        other, mine = login(site), login(site)

        assert mine.visit(lambda session: destroy_sessions_of(site.store, "ann", keep=session)) == 1
        assert (other.visit(user), mine.visit(user)) == (None, "ann")

    def test_no_one_elses_session_is_looked_at(self, site: Site) -> None:
        """There may be a million."""
        mine = login(site)
        asked: list[str | None] = []

        class Asked(Passing):
            def ids(self, user: str | None = None) -> Any:
                asked.append(user)
                return super().ids(user)

        mine.visit(lambda session: destroy_sessions_of(Asked(site.store), "ann", keep=session))

        assert {*asked} == {"ann"}

    def test_what_is_no_session_is_ended_with_them(self, site: Site) -> None:
        """It is in the user's list, and nothing is to be left of that."""
        site.store.create("id", b"letmein", site.clock() + 60, "ann")

        assert destroy_sessions_of(site.store, "ann") == 1

    def test_the_one_who_asks_is_not_ended_as_an_heir_either(self, site: Site) -> None:
        """A listing may have the id that it had before."""
        mine, other = login(site), login(site)

        class Behind(Passing):
            before: list[str]

            def ids(self, user: str | None = None) -> Any:
                yield from super().ids(user)
                if self.before:
                    yield self.before.pop()

        def page(session: Session) -> None:
            store = Behind(site.store)
            store.before = [session.id] * 2
            session.regenerate(keep=True)
            session.save()
            destroy_sessions_of(store, "ann", keep=session)

        mine.visit(page)

        assert (other.visit(user), mine.visit(user)) == (None, "ann")

    def test_the_one_who_asks_may_get_a_new_id_with_it(self, site: Site) -> None:
        """As is right when a password changes: in either order."""
        for first in (True, False):
            other, mine = login(site), login(site, cart=[1])

            def page(session: Session, first: bool = first) -> None:
                if first:
                    session.regenerate(keep=True)
                destroy_sessions_of(site.store, "ann", keep=session)
                if not first:
                    session.regenerate(keep=True)

            mine.visit(page)

            assert (other.visit(user), mine.visit(user), mine.visit(data)) == (None, "ann", {"cart": [1]})
            assert len(list(sessions_of(site.store, "ann"))) == 1
            destroy_sessions_of(site.store, "ann")

    @pytest.mark.parametrize("keep", [True, False])
    def test_one_that_has_no_id_yet_is_not_looked_for(self, site: Site, keep: bool) -> None:
        """No store has to know what to do with an empty id."""
        mine, spy = login(site), SpyStore(site.store)

        def page(session: Session) -> None:
            session.regenerate(keep=keep)
            destroy_sessions_of(spy, "ann", keep=session)

        mine.visit(page)
        site.browser().visit(lambda session: destroy_sessions_of(spy, "ann", keep=session))

        assert "" not in [id for _, id in spy.calls]

    def test_an_anonymous_one_that_asks_is_nobodys_to_end(self, site: Site) -> None:
        """An administrator's request that never was the user's."""
        login(site)
        assert site.browser().visit(lambda session: destroy_sessions_of(site.store, "ann", keep=session)) == 1


class TestInFlight:
    @row("C9", "P6")
    @pytest.mark.parametrize(
        "verb",
        [
            put("k", 1),
            lambda session: session.touch(),
            lambda session: session.regenerate(keep=True),
            lambda session: session.transact(lambda session: session.update(n=1)),
        ],
        ids=["write", "touch", "regenerate", "transact"],
    )
    def test_what_has_loaded_before_brings_nothing_back(self, site: Site, verb: Callable[[Session], Any]) -> None:
        browser = login(site)
        twin = browser.twin()

        def page(session: Session) -> None:
            assert session.user == "ann"
            assert destroy_sessions_of(site.store, "ann") == 1
            with suppress(SessionGone):
                verb(session)

        browser.visit(page)

        assert browser.set_cookie is None
        assert (browser.visit(user), twin.visit(user)) == (None, None)
        assert len(site.store) == 0

    @row("C9", "P6")
    def test_a_session_that_moves_to_a_new_id_meanwhile_is_ended(self, site: Site) -> None:
        """Listed under the one, and by the time it is its turn living under the other."""
        browser = login(site)
        twin = browser.twin()

        class Slow(Passing):
            def ids(self, user: str | None = None) -> Any:
                for id in list(super().ids(user)):
                    if id == twin.id:
                        browser.visit(lambda session: session.regenerate(keep=True))
                    yield id

        assert destroy_sessions_of(Slow(site.store), "ann") >= 1
        assert (browser.visit(user), twin.visit(user)) == (None, None)

    @pytest.mark.parametrize("nth", [1, 2])
    @pytest.mark.parametrize("whose", ["ann", "bob", None])
    def test_of_the_one_who_asks_an_heir_is_ended_only_if_it_is_the_users(
        self, site: Site, whose: str | None, nth: int
    ) -> None:
        """Another request has replaced it while its sessions were listed: by a login of someone else's, say."""
        browser = login(site, cart=[1])
        twin = browser.twin()

        class Slow(Passing):
            listings = 0

            def ids(self, user: str | None = None) -> Any:
                listed = list(super().ids(user))
                self.listings += 1
                if self.listings == nth:
                    twin.visit(lambda session: session.regenerate(keep=True, user=whose))
                yield from listed

        browser.visit(lambda session: destroy_sessions_of(Slow(site.store), "ann", keep=session))

        assert twin.id != browser.id
        assert twin.visit(lambda session: (session.user, dict(session))) == (
            (None, {}) if whose == "ann" else (whose, {"cart": [1]})
        )

    @row("C9")
    def test_a_user_who_logs_in_faster_than_the_sweeps_is_a_conflict_and_not_an_endless_loop(self, site: Site) -> None:
        logins: list[Visitor] = []

        class Busy(Passing):
            def delete(self, id: str) -> bool:
                if len(logins) < 100:
                    logins.append(login(site))
                return super().delete(id)

        logins.append(login(site))
        with pytest.raises(SessionConflict, match="call again"):
            destroy_sessions_of(Busy(site.store), "ann")

        assert logins[0].visit(user) is None
        assert MAX_SWEEPS <= len(logins) < 100


class Passing:
    """A store that hands everything on."""

    def __init__(self, store: Any) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def ids(self, user: str | None = None) -> Any:
        return self.store.ids(user)

    def delete(self, id: str) -> bool:
        deleted: bool = self.store.delete(id)
        return deleted


@pytest.mark.parametrize(
    ("store", "user", "error", "named"),
    [
        (MemoryStore(), 12, TypeError, "user must be str, not int"),
        (MemoryStore(), None, TypeError, "user must be str, not NoneType"),
        (MemoryStore(), "", ValueError, "user is empty"),
        (object(), "ann", TypeError, "object does not list sessions: pass the store"),
    ],
)
def test_mistakes_are_named(store: ListingStore, user: Any, error: type[Exception], named: str) -> None:
    """At the call, and not at the first use of what it returned."""
    for call in (sessions_of, destroy_sessions_of, partial(destroy_session, handle="handle")):
        with pytest.raises(error, match=named):
            call(store, user)


class Lagging(MemoryStore):
    """Lists ids that were the user's once, as Redis' index does."""

    def ids(self, user: str | None = None) -> Iterator[str]:
        return super().ids()


def test_a_session_that_has_another_user_by_now_is_not_shown_and_not_ended() -> None:
    store = Lagging()
    store.create("id", b'{"cookie":{},"minisession":{"user":"bob"},"k":1}', 1e10)

    assert list(sessions_of(store, "ann")) == []
    assert not destroy_session(store, "ann", handle_of("id"))
    assert store.load("id") is not None


def test_what_is_kept_is_a_session() -> None:
    """Not its id, nor its handle."""
    with pytest.raises(TypeError, match="keep must be a Session, not str"):
        destroy_sessions_of(MemoryStore(), "ann", keep="id")  # type: ignore[arg-type]  # the mistake


def test_a_tombstone_is_no_session_of_anybody() -> None:
    store = MemoryStore()
    store.create("id", b'{"cookie":{}}', 1e10, "ann")
    store.rotate("id", b'{"cookie":{}}', "another", b'{"cookie":{}}', 1e10, "bob", inherits=False)

    assert list(sessions_of(store, "ann")) == []
    assert destroy_sessions_of(store, "ann") == 0
