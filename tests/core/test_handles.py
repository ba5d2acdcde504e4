"""Lists and dicts in the app's hands: they stay the session's own through merges, and an app's own are left alone."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from functools import partial
from typing import Any

import pytest

from minisession import (
    MemoryStore,
    Session,
    SessionConflict,
    SessionTooLarge,
    StoreUnavailable,
    lifecycle,
    merge,
    shelf,
    visit,
)

from ..support import interruptions
from ..support.browser import Clock
from ..support.rows import row
from ..support.site import Page, Site, data, put
from .test_lifecycle import logged_in, site_with

CONSTANT = ["a constant", {"of": "the module"}]


def add(value: Any) -> Page:
    return lambda session: session["cart"].append(value)


def once(work: Callable[[], Any]) -> Callable[[], None]:
    """Return a function that does its work the first time it is called."""
    left = [work]
    return lambda: left.pop()() if left else None


def saves(session: Session, rival: Callable[[], Any]) -> None:
    session["n"] = 1
    rival()
    session.save()


def reloads(session: Session, rival: Callable[[], Any]) -> None:
    rival()
    session.reload()


def counts(session: Session, rival: Callable[[], Any]) -> None:
    first = once(rival)
    session.transact(lambda session: (first(), session.update(n=1)))


def counts_later(session: Session, rival: Callable[[], Any]) -> None:
    rival()
    session.transact(put("n", 1))


def fails_to_count(session: Session, rival: Callable[[], Any]) -> None:
    rival()

    def spoil(session: Session) -> None:
        cart = session["cart"]
        cart.append("spoilt") if isinstance(cart, list) else cart.update(note="spoilt")
        session["cart"] = ["another list"]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        session.transact(spoil)


def takes_a_new_id(session: Session, rival: Callable[[], Any]) -> None:
    session.regenerate(keep=True)
    rival()
    session.save()


every_merge = pytest.mark.parametrize("merges", [saves, reloads, counts, counts_later, fails_to_count, takes_a_new_id])


def test_a_list_in_the_apps_hands_is_the_sessions_under_its_new_id() -> None:
    """Also what is done to it after that was stored."""
    browser = logged_in(Site(), cart=[])

    def page(session: Session) -> None:
        cart = session["cart"]
        session.regenerate(keep=True)
        session.save()
        cart.append("late")

    browser.visit(page)

    assert browser.visit(lambda session: session["cart"]) == ["late"]


@row("C1", "C19", "P8")
@every_merge
def test_a_list_in_the_apps_hands_is_the_sessions_after_a_merge(merges: Callable[..., None]) -> None:
    """What is added to it afterwards is stored."""
    browser = logged_in(Site(), cart=["before"])
    other = browser.twin()

    def page(session: Session) -> None:
        cart = session["cart"]
        merges(session, lambda: other.visit(add("theirs")))
        assert cart == ["before", "theirs"]
        assert session["cart"] is cart
        cart.append("mine")

    browser.visit(page)

    assert browser.visit(lambda session: session["cart"]) == ["before", "theirs", "mine"]


@row("C19")
@every_merge
def test_so_are_nested_ones_at_the_same_place(merges: Callable[..., None]) -> None:
    browser = logged_in(Site(), cart={"items": [{"name": "tea", "tags": []}], "note": ""})
    other = browser.twin()

    def theirs(session: Session) -> None:
        session["cart"]["note"] = "theirs"
        session["cart"]["items"][0]["tags"].append("theirs")
        session["cart"]["items"].append({"name": "milk"})

    def page(session: Session) -> None:
        cart = session["cart"]
        items, tea = cart["items"], cart["items"][0]
        merges(session, lambda: other.visit(theirs))
        assert (cart["items"], items[0]) == (items, tea)
        assert items is session["cart"]["items"]
        tea["tags"].append("mine")
        items[1]["new"] = "mine"

    browser.visit(page)

    assert browser.visit(lambda session: session["cart"]) == {
        "items": [{"name": "tea", "tags": ["theirs", "mine"]}, {"name": "milk", "new": "mine"}],
        "note": "theirs",
    }


@row("C1", "C19", "P8")
@every_merge
def test_an_object_that_the_app_assigned_is_never_written_into(merges: Callable[..., None]) -> None:
    """Or a module's constant would get one visitor's data."""
    browser = logged_in(Site(), cart=["before"])
    other = browser.twin()
    constant = list(CONSTANT)

    def page(session: Session) -> None:
        session["cart"] = constant
        session["inside"] = {"deep": [constant]}
        session.save()
        merges(session, lambda: other.visit(lambda s: (s["cart"].append("theirs"), s["inside"]["deep"].append(1))))
        assert session["cart"] == [*CONSTANT, "theirs"]

    browser.visit(page)

    assert constant == CONSTANT == ["a constant", {"of": "the module"}]


def test_an_object_that_the_app_put_inside_one_of_ours_is_not_written_into() -> None:
    browser = logged_in(Site(), cart=[[0]])
    other = browser.twin()
    constant = ["constant"]

    def page(session: Session) -> None:
        cart = session["cart"]
        cart[0] = constant
        session.save()
        other.visit(lambda session: session["cart"][0].append("theirs"))
        session["n"] = 1
        session.save()
        assert cart == [["constant", "theirs"]]

    browser.visit(page)

    assert constant == ["constant"]


@row("C19")
def test_a_list_that_stands_under_two_keys_is_not_written_into() -> None:
    """Or a change of one key would appear under the other."""
    browser = logged_in(Site(), a=[1], b=[])
    other = browser.twin()

    def page(session: Session) -> None:
        session["b"] = session["a"]
        session.save()
        other.visit(lambda session: session["a"].append("theirs"))
        session["n"] = 1
        session.save()
        assert (session["a"], session["b"]) == ([1, "theirs"], [1])

    browser.visit(page)

    assert browser.visit(lambda session: (session["a"], session["b"])) == ([1, "theirs"], [1])


def test_assigning_a_list_back_where_it_was_leaves_it_the_sessions() -> None:
    """As is often done, out of habit with other sessions."""
    browser = logged_in(Site(), cart=[])
    other = browser.twin()

    def page(session: Session) -> None:
        cart = session["cart"]
        cart.append("early")
        session["cart"] = cart
        session.save()
        other.visit(add("theirs"))
        session["n"] = 1
        session.save()
        cart.append("late")

    browser.visit(page)

    assert browser.visit(lambda session: session["cart"]) == ["early", "theirs", "late"]


def test_a_list_that_others_deleted_and_made_again_is_the_same_one() -> None:
    browser = logged_in(Site(), cart=["before"])
    other = browser.twin()

    def page(session: Session) -> None:
        cart = session["cart"]
        other.visit(lambda session: session.pop("cart"))
        session["n"] = 1
        session.save()
        assert "cart" not in session
        other.visit(put("cart", ["again"]))
        session["n"] = 2
        session.save()
        cart.append("mine")

    browser.visit(page)

    assert browser.visit(lambda session: session["cart"]) == ["again", "mine"]


@pytest.mark.parametrize(
    "meets",
    [
        lambda session, cart: (session.touch(), cart.append("mine")),
        lambda session, cart: session.transact(add("mine")),
    ],
    ids=["touch", "transact"],
)
def test_so_it_is_where_the_session_was_read_in_between(meets: Callable[[Session, list[str]], object]) -> None:
    browser = logged_in(Site(), cart=["before"])
    other = browser.twin()

    def page(session: Session) -> None:
        cart = session["cart"]
        other.visit(lambda session: session.pop("cart"))
        session.reload()
        other.visit(put("cart", ["again"]))
        meets(session, cart)

    browser.visit(page)

    assert browser.visit(lambda session: session["cart"]) == ["again", "mine"]


def test_a_list_that_holds_itself_ends_no_merge() -> None:
    """It cannot be stored; but the error is about that."""
    browser = logged_in(Site(), cart=[])
    other = browser.twin()

    def page(session: Session) -> None:
        session["cart"].append(session["cart"])
        other.visit(put("n", 1))
        session.reload()
        assert session["cart"] == []

    browser.visit(page)


@pytest.mark.parametrize(
    "lets_go",
    [put("cart", "none"), lambda session: session.pop("cart"), Session.clear],
    ids=["another value", "deleted", "cleared"],
)
def test_a_list_that_the_app_has_taken_out_is_no_longer_the_sessions(lets_go: Page) -> None:
    """What another request puts in its place is not put into it."""
    browser = logged_in(Site(), cart=["before"])
    other = browser.twin()

    def page(session: Session) -> None:
        cart = session["cart"]
        lets_go(session)
        session.save()
        other.visit(put("cart", ["theirs"]))
        session["n"] = 1
        session.save()
        cart.append("mine")
        assert cart == ["before", "mine"]

    browser.visit(page)

    assert browser.visit(lambda session: session["cart"]) == ["theirs"]


def test_what_a_reload_has_brought_can_be_taken_out_again() -> None:
    """What is changed is told by what the session held since, not by what it held before."""
    browser = logged_in(Site(), cart=["before"])
    other = browser.twin()

    def page(session: Session) -> None:
        cart = session["cart"]
        other.visit(add("theirs"))
        session.reload()
        cart.remove("theirs")

    browser.visit(page)

    assert browser.visit(lambda session: session["cart"]) == ["before"]


def test_an_object_that_the_app_assigned_is_its_own_though_nothing_was_written_into_it_at_first() -> None:
    browser = logged_in(Site())
    other = browser.twin()
    constant = ["a constant"]

    def page(session: Session) -> None:
        session["cart"] = constant
        session.save()
        session.reload()
        assert session["cart"] is constant
        other.visit(add("theirs"))
        session.reload()
        assert session["cart"] == ["a constant", "theirs"]

    browser.visit(page)

    assert constant == ["a constant"]


def test_a_nested_list_that_a_merge_has_brought_stays_the_sessions_through_the_next() -> None:
    browser = logged_in(Site(), cart={})
    other = browser.twin()

    def page(session: Session) -> None:
        cart = session["cart"]
        other.visit(lambda session: session["cart"].update(items=["theirs"]))
        session["n"] = 1
        session.save()
        items = cart["items"]
        other.visit(lambda session: session["cart"]["items"].append("theirs too"))
        session["n"] = 2
        session.save()
        items.append("mine")

    browser.visit(page)

    assert browser.visit(lambda session: session["cart"]) == {"items": ["theirs", "theirs too", "mine"]}


def test_a_list_that_is_not_fit_is_named_where_the_session_is_new() -> None:
    def page(session: Session) -> None:
        session["cart"] = [[]]
        session["cart"][0].append({1, 2})

    with pytest.raises(TypeError, match=r"cart.*set"):
        Site().browser().visit(page)


def test_a_list_that_is_not_fit_is_named_by_every_merge() -> None:
    browser = logged_in(Site(), cart=[])
    other = browser.twin()

    def page(session: Session) -> None:
        session["cart"].append({1, 2})
        other.visit(put("n", 1))
        for verb in (Session.touch, Session.save, lambda session: session.transact(len)):
            with pytest.raises(TypeError, match=r"cart.*set"):
                verb(session)
        session["cart"].clear()

    browser.visit(page)

    assert browser.visit(data) == {"k": 1, "n": 1, "cart": []}


@pytest.mark.parametrize("merges", [saves, reloads, counts, counts_later])
def test_an_object_that_the_app_assigned_stays_the_sessions_while_no_one_else_changes_it(
    merges: Callable[..., None],
) -> None:
    """Nothing has to be written into it, and so nothing takes its place."""
    browser = logged_in(Site())
    other = browser.twin()

    def page(session: Session) -> None:
        cart: list[str] = []
        session["cart"] = cart
        session.save()
        merges(session, lambda: other.visit(put("theirs", 1)))
        cart.append("mine")

    browser.visit(page)

    assert browser.visit(lambda session: session["cart"]) == ["mine"]


def test_so_it_does_where_a_transaction_fails() -> None:
    browser = logged_in(Site())

    def spoil(session: Session) -> None:
        session["k"] = 2
        raise RuntimeError

    def page(session: Session) -> None:
        cart: list[str] = []
        session["cart"] = cart
        with pytest.raises(RuntimeError):
            session.transact(spoil)
        cart.append("mine")

    browser.visit(page)

    assert browser.visit(data) == {"k": 1, "cart": ["mine"]}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda table: table["d"].pop("x"),
        lambda table: table["d"].update(x=[9]),
        lambda table: table["d"].clear(),
        lambda table: table.update(e=table.pop("d")),
        lambda table: table["d"].update(x={}, y=table["d"]["x"]),
        lambda table: table["d"]["x"].append(table["d"].pop("x")),
        lambda table: (table["d"]["x"].append(9), table.clear()),
    ],
    ids=["popped", "replaced", "cleared", "moved", "moved beside", "holds itself", "changed, and all cleared"],
)
def test_so_does_a_nested_one_that_a_failed_transaction_has_moved(spoil: Callable[[Any], object]) -> None:
    """It is back in its place, and what is added to it there is stored."""
    browser = logged_in(Site(), table={"d": {"x": [1], "z": 0}})

    def page(session: Session) -> None:
        nested = session["table"]["d"]["x"]
        with pytest.raises(ZeroDivisionError):
            session.transact(lambda session: (spoil(session["table"]), 1 / 0))
        assert session["table"] == {"d": {"x": [1], "z": 0}}
        nested.append(2)

    browser.visit(page)

    assert browser.visit(data) == {"k": 1, "table": {"d": {"x": [1, 2], "z": 0}}}


def test_a_list_that_was_taken_out_of_the_session_is_not_rolled_back() -> None:
    """It is the app's own by then."""
    browser = logged_in(Site(), messages=["hello"])

    def page(session: Session) -> list[str]:
        messages: list[str] = session.pop("messages")
        with pytest.raises(ZeroDivisionError):
            session.transact(lambda session: (messages.append("sold out"), 1 / 0))
        return messages

    assert browser.visit(page) == ["hello", "sold out"]


# Order


@row("A8")
def test_another_order_of_a_nested_dicts_keys_is_a_change() -> None:
    """A table that was sorted stays sorted."""
    site = Site()
    browser = logged_in(site, table={"b": 1, "a": 2})

    def sort(session: Session) -> None:
        table = session["table"]
        ordered = dict(sorted(table.items()))
        table.clear()
        table.update(ordered)

    browser.visit(sort)
    assert site.store.verbs == ["load", "replace"]
    assert list(browser.visit(lambda session: session["table"])) == ["a", "b"]

    browser.visit(sort)
    assert "replace" not in site.store.verbs


def test_to_a_merge_the_order_means_nothing() -> None:
    """Who merely sorts a table takes nothing back that another request changed in it."""
    browser = logged_in(Site(), table={"b": 1, "a": 2})
    other = browser.twin()

    def page(session: Session) -> None:
        table = session["table"]
        table["b"] = table.pop("b")
        other.visit(lambda session: session["table"].update(a=3))

    browser.visit(page)

    assert browser.visit(lambda session: session["table"]) == {"a": 3, "b": 1}


# A transaction that fails


@row("C3", "C18")
def test_a_transaction_that_loses_every_time_leaves_nothing_behind() -> None:
    """The commit at the end of the page would store it over what others counted exactly."""
    site = Site()
    browser = logged_in(site, n=0, cart=[])
    other = browser.twin()

    def page(session: Session) -> None:
        cart = session["cart"]

        def spoil(session: Session) -> None:
            session["n"] += 100
            session["cart"].append("spoilt")
            session.cookie.max_age = 60
            other.visit(lambda session: session.update(n=session["n"] + 1))

        with pytest.raises(SessionConflict):
            session.transact(spoil)
        assert (session["n"], session["cart"]) == (0, [])
        other.visit(lambda session: session.update(n=session["n"] + 1))
        cart.append("mine")

    site.app._lifecycle._sleep = lambda seconds: None
    browser.visit(page)

    assert browser.visit(lambda s: (s["n"], s["cart"], s.cookie.max_age)) == (33, ["mine"], None)


@row("C3", "C18", "P8")
@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda session: session.update(k="x" * 70_000), SessionTooLarge),
        (lambda session: session["cart"].append({1, 2}), TypeError),
        (lambda session: session["cart"].append(session["cart"]), TypeError),
        (lambda session: session["cart"].clear(), StoreUnavailable),
    ],
    ids=["too large", "unfit", "holds itself", "the store is down"],
)
@pytest.mark.parametrize("is_new", [False, True])
def test_a_transaction_that_fails_leaves_the_session_as_it_was(
    is_new: bool, spoil: Page, error: type[Exception]
) -> None:
    site, down, browser = site_with()
    if is_new:
        browser = site.browser()
    else:
        browser.visit(put("cart", [1]))

    def page(session: Session) -> None:
        session["cart"] = [1]
        session.save()
        before = deepcopy(dict(session))

        def fail(session: Session) -> None:
            spoil(session)
            if error is StoreUnavailable:
                down.verbs = {"replace"}

        with pytest.raises(error):
            session.transact(fail)
        down.verbs.clear()
        assert dict(session) == before
        assert session["cart"] == [1]

    browser.visit(page)

    assert browser.visit(data) == ({"cart": [1]} if is_new else {"k": 1, "cart": [1]})


@row("C18")
def test_a_transaction_that_fails_at_its_second_try_leaves_nothing_to_store() -> None:
    site = Site()
    browser = logged_in(site, n=0)
    other = browser.twin()

    def count(session: Session) -> None:
        session["n"] += 1
        if session["n"] == 2:
            raise RuntimeError
        other.visit(put("n", 1))

    def page(session: Session) -> None:
        with pytest.raises(RuntimeError):
            session.transact(count)
        assert session["n"] == 0
        site.store.calls.clear()

    browser.visit(page)

    assert site.store.verbs == []
    assert browser.visit(data) == {"k": 1, "n": 1}


def test_so_does_one_that_was_handed_out_what_others_had_made_meanwhile() -> None:
    browser = logged_in(Site())
    other = browser.twin()

    def spoil(session: Session) -> None:
        session["n"] = 1
        if "cart" in session:
            session["cart"].append("spoilt")
            raise RuntimeError
        other.visit(put("cart", []))

    def page(session: Session) -> None:
        with pytest.raises(RuntimeError):
            session.transact(spoil)
        assert dict(session) == {"k": 1}

    browser.visit(page)

    assert browser.visit(data) == {"k": 1, "cart": []}


def test_a_list_that_a_failed_transaction_handed_out_is_the_sessions() -> None:
    browser = logged_in(Site(), cart=["before"])
    handed_out: list[list[str]] = []

    def spoil(session: Session) -> None:
        handed_out.append(session["cart"])
        session["cart"].append("spoilt")
        raise RuntimeError

    def page(session: Session) -> None:
        with pytest.raises(RuntimeError):
            session.transact(spoil)
        handed_out[0].append("mine")
        assert session["cart"] is handed_out[0]

    browser.visit(page)

    assert browser.visit(lambda session: session["cart"]) == ["before", "mine"]


def test_a_list_that_a_failed_transaction_put_in_two_places_is_in_one_again() -> None:
    browser = logged_in(Site(), cart=["before"])
    other = browser.twin()

    def spoil(session: Session) -> None:
        session["copy"] = session["cart"]
        raise RuntimeError

    def page(session: Session) -> None:
        cart = session["cart"]
        with pytest.raises(RuntimeError):
            session.transact(spoil)
        other.visit(add("theirs"))
        session["n"] = 1
        session.save()
        cart.append("mine")

    browser.visit(page)

    assert browser.visit(data) == {"k": 1, "n": 1, "cart": ["before", "theirs", "mine"]}


@row("C18")
def test_a_lost_try_of_a_transaction_leaves_nothing_behind() -> None:
    """What it assigned does not take the place of the list that the app holds."""
    browser = logged_in(Site(), cart=["before"])
    other = browser.twin()
    tries: list[int] = []

    def clears_at_first(session: Session) -> None:
        tries.append(1)
        if len(tries) == 1:
            session["cart"] = ["another list"]
            other.visit(add("theirs"))
        session["n"] = len(tries)

    def page(session: Session) -> None:
        cart = session["cart"]
        session.transact(clears_at_first)
        cart.append("mine")

    browser.visit(page)

    assert browser.visit(data) == {"k": 1, "n": 2, "cart": ["before", "theirs", "mine"]}


# Exceptions at any line: a time limit, a stack that is full


interrupt = partial(interruptions.interrupted, files={str(room.__file__) for room in (visit, shelf, lifecycle, merge)})


def interrupted(verb: Page, line: int) -> tuple[bool, dict[str, Any]]:
    """Interrupt a verb at its n-th line; return whether it had that many, and what is stored in the end."""
    browser = logged_in(Site(), n=0, cart={"items": []})
    other = browser.twin()

    def theirs(session: Session) -> None:
        session["theirs"] = 1
        session["cart"]["items"].append("theirs")

    def page(session: Session) -> bool:
        items = session["cart"]["items"]
        session["mine"] = 1
        other.visit(theirs)
        more = interrupt(lambda: verb(session), line)
        session["later"] = items is session["cart"]["items"]
        return more

    return browser.visit(page), browser.visit(data)


@pytest.mark.parametrize(
    "verb",
    [Session.save, Session.touch, Session.reload, lambda session: session.transact(lambda s: s.update(n=s["n"] + 1))],
    ids=["save", "touch", "reload", "transact"],
)
def test_an_exception_at_any_line_of_a_verb_loses_nothing(verb: Page) -> None:
    """The app goes on, and what it changes next is not stored over what it has not seen."""
    line, more = 0, True
    while more:
        line += 1
        more, kept = interrupted(verb, line)
        assert (kept["k"], kept["theirs"], kept["later"]) == (1, 1, True), line
        assert kept["n"] in (0, 1)
        assert kept.get("mine", 1) == 1
    assert line > 100


@pytest.mark.parametrize("how", [{}, {"user": "ada"}, {"keep": True, "user": "ada"}])
def test_an_exception_at_any_line_of_regenerate_changes_nothing_under_the_old_id(how: dict[str, Any]) -> None:
    """The app goes on; an id that was planted must not share the login, and no data may be lost."""
    line, more = 0, True
    while more:
        line += 1
        browser = logged_in(Site())
        other = browser.twin()

        def page(session: Session, line: int = line) -> bool:
            dict(session)
            more = interrupt(lambda: session.regenerate(**how), line)
            session["later"] = 1
            return more

        more = browser.visit(page)
        assert other.visit(lambda session: session.user) is None, line
        assert other.visit(data) in ({"k": 1, "later": 1}, {}), line
    assert line > 10


def test_an_exception_at_any_line_of_undoing_a_transaction_stores_nothing_of_it() -> None:
    """The transaction has failed, and while that is dealt with, the time is up as well."""
    rooms, line, more = {str(visit.__file__), str(merge.__file__)}, 0, True

    def fail(session: Session) -> None:
        session["cart"]["items"].append("lost")
        session["new"] = session["n"] = 7
        raise ZeroDivisionError

    def page(session: Session) -> bool:
        dict(session)
        with suppress(ZeroDivisionError):
            return interruptions.interrupted(lambda: session.transact(fail), line, rooms)
        return False

    broken: list[int] = []
    while more:
        line += 1
        browser = logged_in(Site(), n=0, cart={"items": []})
        more = browser.visit(page)
        kept = browser.visit(data)
        if (kept["n"], kept.get("new"), kept["cart"]) != (0, None, {"items": []}):
            broken.append(line)
    # Before its first line, which takes back all that would be stored.
    assert len(broken) <= 1
    assert line > 200


# Threads


@row("C14")
def test_a_thread_that_writes_while_the_session_is_stored_harms_nothing() -> None:
    """Each loop over what the session holds goes over a copy: at one line after the other, a key is added."""
    site = Site()
    browser = logged_in(site, cart=[], table={}, other=[])
    other = browser.twin()
    rooms = {"minisession.visit", "minisession.merge", "minisession.wire.values", "minisession.shelf"}
    added = 0

    def write(session: Session) -> Callable[..., Any]:
        lines = 0

        def trace(frame: Any, event: str, arg: object) -> Any:
            nonlocal lines, added
            if event == "line":
                lines += 1
                if lines % 7 == 0 and added < 150:
                    # As if the other thread had its turn here.
                    added += 1
                    sys.settrace(None)
                    thread = threading.Thread(target=session.__setitem__, args=(f"k{added}", [added]))
                    thread.start()
                    thread.join()
                    sys.settrace(trace)
            return trace if frame.f_globals.get("__name__") in rooms else None

        return trace

    def page(session: Session) -> None:
        session["cart"].append(1)
        session["table"]["a"] = 1
        other.visit(put("theirs", 1))
        tracing = sys.gettrace()
        sys.settrace(write(session))
        try:
            session.save()
        finally:
            sys.settrace(tracing)

    browser.visit(page)

    kept = browser.visit(data)
    assert (kept["cart"], kept["table"], kept["theirs"]) == ([1], {"a": 1}, 1)
    assert added == 150


@row("C14")
def test_what_a_thread_writes_while_the_store_is_written_is_stored_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a key that is being stored, and of one that is not."""
    site = Site()
    browser = logged_in(site, n=0)
    store = site.store.store

    def page(session: Session) -> None:
        def replace(*arguments: Any) -> Any:
            monkeypatch.undo()
            session.update(n=2, new=1)  # as if the other thread had its turn here
            return store.replace(*arguments)

        session["n"] = 1
        monkeypatch.setattr(store, "replace", replace)
        session.save()

    browser.visit(page)

    assert browser.visit(data) == {"k": 1, "n": 2, "new": 1}


def test_a_thread_that_asks_for_a_new_id_while_the_session_is_stored_makes_no_cookie_without_one() -> None:
    """What was stored is judged by what it was when it was written."""
    clock = Clock()
    store = Meanwhile(clock=clock)
    browser = logged_in(Site(store=store, clock=clock))

    def page(session: Session) -> None:
        session["k"] = 2
        store.meanwhile = session.regenerate

    browser.visit(page)

    assert store.meanwhile is None
    assert browser.set_cookie is None


class Meanwhile(MemoryStore):
    """Lets another thread do something as a record is replaced."""

    meanwhile: Callable[[], object] | None = None

    def replace(self, *arguments: Any) -> bool:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            thread = threading.Thread(target=meanwhile)
            thread.start()
            thread.join()
        return super().replace(*arguments)
