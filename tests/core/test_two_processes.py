"""One site in two processes: nothing is lost, nothing comes back.  For every store that processes can share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from minisession import Session, SessionGone

from ..support.other_process import Hold, OtherProcess, Page, open_shared
from ..support.rows import row


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('stores')}/sessions.db"
    else:
        from ..support.redis_server import redis_server  # which skips these tests alone, if there is none

        with redis_server() as server:
            yield server.url


@pytest.fixture(scope="module")
def servers(url: str) -> Iterator[tuple[OtherProcess, OtherProcess]]:
    with OtherProcess(url) as one, OtherProcess(url) as other:
        yield one, other


Servers = tuple[OtherProcess, OtherProcess]


# Pages


def read(session: Session, hold: Hold) -> dict[str, Any]:
    return dict(session)


def user(session: Session, hold: Hold) -> str | None:
    return session.user


def put(session: Session, hold: Hold, key: str = "key") -> None:
    session[key] = True


def held_put(session: Session, hold: Hold, key: str = "key") -> None:
    session[key] = True
    hold()


def put_another(session: Session, hold: Hold, name: str) -> None:
    session[f"{name} {sum(key.startswith(name) for key in session)}"] = True


def count(session: Session, hold: Hold) -> None:
    def increment(session: Session) -> None:
        session["n"] = session.get("n", 0) + 1

    session.transact(increment)


def log_in(session: Session, hold: Hold, user: str = "ann") -> None:
    session.regenerate(user=user)


def log_out(session: Session, hold: Hold) -> None:
    session.destroy()


def renew(session: Session, hold: Hold) -> None:
    session.regenerate(keep=True)


def held_renew(session: Session, hold: Hold) -> None:
    session.regenerate(keep=True)
    hold()


def held(session: Session, hold: Hold, verb: str) -> bool:
    """Use a verb after the hold; return whether it found the session gone."""
    session["late"] = True
    hold()
    try:
        session.transact(lambda session: None) if verb == "transact" else getattr(session, verb)()
    except SessionGone:
        return True
    return False


def new_session(server: OtherProcess, page: Page = log_in) -> str:
    cookie = server.visit(page).cookie
    assert cookie is not None
    return cookie


# Stories


@row("C1")
def test_no_write_is_lost_when_both_have_loaded_before_either_saves(servers: Servers) -> None:
    cookie = new_session(servers[0])
    for turn in range(10):
        for n, server in enumerate(servers):
            server.begin(partial(held_put, key=f"{turn} {n}"), cookie)
        for server in servers:
            server.wait_until_held()
        for server in servers:
            server.go_on()
        for server in servers:
            server.answer()
    assert len(servers[0].visit(read, cookie).result) == 20


@row("C1", "P8")
def test_no_write_is_lost_when_both_write_as_fast_as_they_can(servers: Servers) -> None:
    cookie = new_session(servers[0])
    for server, name in zip(servers, "ab", strict=True):
        server.begin(partial(put_another, name=name), cookie, times=50)
    for server in servers:
        server.answer()
    assert len(servers[0].visit(read, cookie).result) == 100


@row("C3")
def test_transact_counts_exactly(servers: Servers) -> None:
    cookie = new_session(servers[0])
    for server in servers:
        server.begin(count, cookie, times=100)
    for server in servers:
        server.answer()
    assert servers[1].visit(read, cookie).result == {"n": 200}


@row("C2", "P5")
@pytest.mark.parametrize("ending", [log_out, log_in, renew])
@pytest.mark.parametrize("late", [held_put, held_renew, "save", "touch", "transact", "reload"])
def test_a_session_that_one_has_ended_is_not_revived_by_the_other(
    servers: Servers, url: str, ending: Page, late: Page | str
) -> None:
    """Not by a save, a touch, a merge or a new id; and no cookie tells the browser otherwise."""
    store = open_shared(url)
    store.clear()
    one, other = servers
    cookie = new_session(one)
    one.begin(late if callable(late) else partial(held, verb=late), cookie)
    one.wait_until_held()
    new = other.visit(ending, cookie).cookie
    live = set(store.ids())
    one.go_on()
    answer = one.answer()
    assert answer.set_cookie is None
    assert answer.result in (None, True)  # a verb that says whether it worked says no
    assert set(store.ids()) == live
    for server in servers:
        assert server.visit(user, cookie).result is None
        assert server.visit(read, cookie).result == {}
        if ending is not log_out:
            assert server.visit(user, new).result == "ann"
    store.close()


@row("C6")
def test_of_two_new_ids_at_once_one_inherits(servers: Servers, url: str) -> None:
    store = open_shared(url)
    for _ in range(10):
        store.clear()
        cookie = new_session(servers[0])
        for server in servers:
            server.begin(held_renew, cookie)
        for server in servers:
            server.wait_until_held()
        for server in servers:
            server.go_on()
        cookies = [server.answer().set_cookie for server in servers]
        assert sum(sent is not None for sent in cookies) == 1
        assert len(list(store.ids())) == len(list(store.ids("ann"))) == 1
    store.close()


@row("C13")
def test_a_login_and_a_logout_hold_for_the_other_at_once(servers: Servers) -> None:
    for turn in range(10):
        one, other = servers if turn % 2 else servers[::-1]
        before = new_session(one, put)
        cookie = one.visit(log_in, before).cookie
        assert other.visit(user, cookie).result == "ann"
        assert other.visit(user, before).result is None
        other.visit(log_out, cookie)
        assert one.visit(user, cookie).result is None


def test_a_process_that_comes_later_finds_what_others_left(servers: Servers, url: str) -> None:
    with OtherProcess(url) as earlier:
        cookie = new_session(earlier)
        earlier.visit(put, cookie)
    with OtherProcess(url) as later:
        answer = later.visit(read, cookie)
        assert answer.result == servers[0].visit(read, cookie).result == {"key": True}
