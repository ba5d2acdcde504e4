"""One session, two runtimes: the real express-session and connect-redis, and minisession, on one Redis.

Every story is told twice: from Express to us, and from us to Express.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from minisession.wire.record import EXPRESS_DROPS

from ..support import sides
from ..support.redis_server import SOON, RedisServer, redis_server  # skips where redis-py is not installed
from ..support.sides import (
    Side,
    Visitor,
    data,
    drop,
    left,
    login,
    logout,
    member,
    put,
    regenerate,
    reload,
    remember,
    renew,
    save,
    touch,
)

from minisession.stores.redis import RedisStore  # isort: skip

DAY = 86400


def about(seconds: float) -> Any:
    """Stand for what a busy machine makes of it."""
    return pytest.approx(seconds, abs=20)


class Both:
    """Express and us, and what is in Redis."""

    def __init__(self, server: RedisServer, store: RedisStore, express: Side, minisession: Side) -> None:
        self.redis: Any = server.client  # redis-py's types are for both its kinds of clients
        self.store, self.express, self.minisession = store, express, minisession

    def record(self, id: str) -> bytes | None:
        """Return what Redis has; ``b""`` is a tombstone."""
        found: bytes | None = self.redis.get(f"sess:{id}")
        return found

    def ttl(self, id: str) -> int:
        """Return the seconds that the session has left."""
        seconds: int = self.redis.ttl(f"sess:{id}")
        return seconds

    def age(self, id: str, ttl: int = 100) -> None:
        """Let time pass, as far as Redis can tell."""
        assert self.redis.expire(f"sess:{id}", ttl)


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    with (
        redis_server() as redis,
        closing(RedisStore(redis.url, read_timeout=SOON)) as store,
        sides.express(redis.url) as express,
        sides.minisession(store) as minisession,
    ):
        yield Both(redis, store, express, minisession)


@pytest.fixture(params=["express-minisession", "minisession-express"])
def way(request: pytest.FixtureRequest, both: Both) -> list[Side]:
    return [getattr(both, name) for name in request.param.split("-")]


@pytest.fixture
def first(way: list[Side]) -> Side:
    return way[0]


@pytest.fixture
def second(way: list[Side]) -> Side:
    return way[1]


@pytest.fixture
def ann() -> Visitor:
    return Visitor()


VALUES: dict[str, Any] = {
    "text": 'Grüße, 日本語, 😀 \u2028 \x00\x7f"\\/',
    "nested": {"a": [{"b": {"c": [1, [2, [3]]]}}]},
    "null": None,
    "booleans": [True, False],
    "empty": [[], {}, ""],
    "integers": [0, -1, 2**31, 2**53, -(2**53)],
    "floats": [0.1, -2.5, 1e21, 1e-7, 5e-324, 1.7976931348623157e308],
    "keys": {"b": 1, "a": 2, "ü": 3, "": 4, "__proto__": 5},
    "large": ["x" * 500, "ü" * 250] * 50,
}


@pytest.mark.parametrize("name", VALUES)
def test_what_one_side_writes_the_other_reads_and_keeps_when_it_saves(
    first: Side, second: Side, ann: Visitor, name: str
) -> None:
    ann.at(first, put("value", VALUES[name]))

    assert ann.at(second, data()) == {"value": VALUES[name]}

    ann.at(second, put("other", 1))

    assert ann.at(first, data()) == {"value": VALUES[name], "other": 1}


def test_who_logs_in_on_one_side_is_logged_in_on_the_other(first: Side, second: Side, ann: Visitor) -> None:
    ann.at(first, login("ann"))

    assert ann.at(second, data()) == {"user": "ann"}
    assert Visitor().at(second, data()) == {}


def test_who_logs_out_on_one_side_is_logged_out_on_the_other(first: Side, second: Side, ann: Visitor) -> None:
    ann.at(first, login("ann"))
    thief = ann.twin()
    ann.at(second, logout())

    for side in (first, second):
        assert ann.at(side, data()) == thief.at(side, data()) == {}


def test_a_new_id_on_one_side_kills_the_old_one_on_both(both: Both, first: Side, second: Side, ann: Visitor) -> None:
    """Also when the data move along; the tombstone that we leave, Express takes for nothing at all."""
    ann.at(first, put("cart", [1]))
    before = ann.twin()
    ann.at(second, renew())

    assert ann.id != before.id
    assert both.record(before.id) == (None if second is both.express else b"")
    for side in (first, second):
        assert ann.at(side, data()) == {"cart": [1]}
        assert before.at(side, data()) == {}
    assert both.ttl(before.id) <= 15  # nobody has kept it alive


def test_a_new_session_after_login_has_nothing_of_the_old_one(first: Side, second: Side, ann: Visitor) -> None:
    ann.at(first, login("ann"), put("secret", 1))
    ann.at(second, login("bob"))

    assert ann.at(first, data()) == {"user": "bob"}


def test_a_visit_on_one_side_keeps_the_session_alive_for_the_other(
    both: Both, first: Side, second: Side, ann: Visitor
) -> None:
    """connect-redis' EXPIRE is a touch to us, and ours to it; neither writes the record."""
    ann.at(first, put("cart", [1]))
    written = both.record(ann.id)
    both.age(ann.id, 100)
    ann.at(second, data())

    assert both.ttl(ann.id) == about(DAY)
    assert both.record(ann.id) == written

    both.age(ann.id, 100)
    ann.at(second, touch())

    assert both.ttl(ann.id) == about(DAY)


def test_save_and_reload_reach_the_other_side_while_the_page_is_being_made(
    first: Side, second: Side, ann: Visitor
) -> None:
    ann.at(first, login("ann"))
    seen = ann.at(first, put("a", 1), save(), ann.meanwhile(second, put("b", 2), data()), reload(), data())

    assert seen == {"user": "ann", "a": 1, "b": 2}


def test_express_touches_whatever_a_page_does_and_we_where_it_looks(both: Both, ann: Visitor) -> None:
    ann.at(both.express, put("cart", [1]))
    for side, options, expected in (
        (both.minisession, {}, 100),
        (both.minisession, {"rolling": True}, DAY),
        (both.express, {}, DAY),
    ):
        both.age(ann.id, 100)
        ann.at(side, **options)

        assert both.ttl(ann.id) == about(expected)


def test_remember_me_on_one_side_is_remembered_on_the_other(
    both: Both, first: Side, second: Side, ann: Visitor
) -> None:
    """The lifetime is the session's own: the other side's next save and touch keep it, too."""
    ann.at(first, login("ann"), remember(7 * DAY))

    assert "Expires=" in (ann.set_cookie or "")
    assert ann.at(second, left()) == about(7 * DAY)

    both.age(ann.id, 100)
    ann.at(second, data())

    assert both.ttl(ann.id) == about(7 * DAY)

    ann.at(second, put("cart", [1]))

    assert "Expires=" in (ann.set_cookie or "")
    assert ann.at(first, left()) == about(7 * DAY)


def test_a_lifetime_changed_alone_is_stored_and_sent_by_us_and_by_express_neither(both: Both, ann: Visitor) -> None:
    """Express moves the key's expiry and forgets; there, set it together with something else."""
    ann.at(both.express, login("ann"))
    ann.at(both.express, remember(7 * DAY))

    assert (ann.set_cookie, both.ttl(ann.id)) == (None, about(7 * DAY))
    assert ann.at(both.minisession, left()) is None

    ann.at(both.minisession, remember(7 * DAY))

    assert "Max-Age=604800" in (ann.set_cookie or "")
    assert ann.at(both.express, left()) == about(7 * DAY)


OLD, NEW = "the secret until now, long enough", "the secret from now on, long enough"


def test_secrets_rotate_in_three_steps_and_log_nobody_out(first: Side, second: Side, ann: Visitor) -> None:
    """Known everywhere, then first everywhere, then alone."""
    ann.at(first, login("ann"), secret=OLD)
    steps: list[tuple[Any, Any]] = [
        (OLD, OLD), ([OLD, NEW], OLD), ([OLD, NEW], [OLD, NEW]), ([NEW, OLD], [OLD, NEW]), ([NEW, OLD], [NEW, OLD]),
    ]  # fmt: skip
    for step, (left_secret, right_secret) in enumerate(steps):
        for side, secret in ((first, left_secret), (second, right_secret)):
            ann.at(side, put("step", step), secret=secret, rolling=True)

            assert ann.at(side, data(), secret=secret) == {"user": "ann", "step": step}

    assert ann.at(first, data(), secret=NEW) == ann.at(second, data(), secret=NEW)


def test_a_cookie_by_an_older_secret_is_signed_anew_by_us_and_left_by_express(both: Both, ann: Visitor) -> None:
    """So before the last step, Express' visitors need `rolling`, or time."""
    ann.at(both.express, login("ann"), secret=OLD)
    ann.at(both.express, put("a", 1), secret=[NEW, OLD])

    assert ann.set_cookie is None

    ann.at(both.minisession, data(), secret=[NEW, OLD])

    assert ann.at(both.express, data(), secret=NEW) == {"user": "ann", "a": 1}


def test_express_keeps_our_member_when_it_saves(both: Both, ann: Visitor) -> None:
    """Whose session it is, and since when: what the absolute timeout and "your devices" live on."""
    ann.at(both.minisession, login("amy"))
    born = ann.at(both.minisession, member("created_at"))
    ann.at(both.express, put("cart", [1]))

    assert ann.at(both.minisession, member("user")) == "amy"
    assert ann.at(both.minisession, member("created_at")) == born
    assert list(both.store.ids("amy")) == [ann.id]


def test_a_session_that_express_made_gets_its_user_here_with_the_next_login(both: Both, ann: Visitor) -> None:
    """Until then it is in nobody's list."""
    ann.at(both.express, login("eve"))

    assert ann.at(both.minisession, member("user")) == "None"
    assert list(both.store.ids("eve")) == []

    ann.at(both.minisession, login("eve"))

    assert ann.at(both.minisession, member("user")) == "eve"
    assert list(both.store.ids("eve")) == [ann.id]


def test_a_session_that_express_alone_keeps_alive_leaves_its_users_list_until_it_comes_here_again(
    both: Both, ann: Visitor
) -> None:
    """connect-redis' touch does not know the list, which lives as long as we knew its sessions would."""
    ann.at(both.minisession, login("kim"))
    both.redis.delete("minisession:user:sess:kim")  # what time does
    both.age(ann.id)
    ann.at(both.express, data())

    assert list(both.store.ids("kim")) == []

    both.age(ann.id)
    ann.at(both.minisession, data())

    assert list(both.store.ids("kim")) == [ann.id]


def test_our_user_outlives_what_express_calls_a_logout_unless_the_session_ends(both: Both, ann: Visitor) -> None:
    """Deleting a key there, or taking all data along to a new id as Passport's keepSessionInfo does, keeps it."""
    ann.at(both.minisession, login("ann"))
    ann.at(both.express, drop("user"), renew())

    assert ann.at(both.minisession, data()) == {}
    assert ann.at(both.minisession, member("user")) == "ann"

    ann.at(both.express, drop("minisession"))

    assert ann.at(both.minisession, member("user")) == "None"

    ann.at(both.minisession, login("ann"))
    ann.at(both.express, regenerate())

    assert ann.at(both.minisession, member("user")) == "None"


COOKIES: dict[str, dict[str, Any]] = {
    "Express' own": {},
    "for a week": {"max_age": 7 * DAY},
    "for half a minute and a bit": {"max_age": 30.5},
    "strict": {"secure": "auto", "samesite": "strict", "httponly": False},
    "of a domain": {"domain": "example.com", "path": "/", "priority": "high", "samesite": "lax"},
    "for https": {"secure": True, "samesite": "none", "partitioned": True, "proxy": True},
}
SAME = {name: value for name, value in VALUES.items() if name != "floats"} | {"float": [0.1, -2.5, 1.5e300]}


@pytest.mark.parametrize("cookie", COOKIES)
def test_the_record_is_the_same_to_the_byte(both: Both, cookie: str) -> None:
    """But for our member; both clocks stand still."""
    now = int(time.time()) + 0.5  # the same in both languages' seconds and milliseconds
    records = []
    for side in (both.minisession, both.express):
        ann = Visitor()
        ann.at(side, *(put(name, value) for name, value in SAME.items()), now=now, **COOKIES[cookie])
        records.append(both.record(ann.id))
    ours, express = (record.decode() for record in records if record)

    assert ours.replace(f',"minisession":{{"created":{json.dumps(now)}}}', "") == express
    assert json.loads(express).keys() == {"cookie", *SAME}


@pytest.mark.parametrize("cookie", COOKIES)
def test_either_side_writes_back_what_the_other_wrote_to_the_byte(
    both: Both, first: Side, second: Side, ann: Visitor, cookie: str
) -> None:
    """A save that changes nothing changes no byte, whoever it is that saves."""
    options = {"now": int(time.time()) + 0.5, **COOKIES[cookie]}
    ann.at(first, *(put(name, value) for name, value in SAME.items()), **options)
    written = both.record(ann.id)
    ann.at(second, data(), resave=True, **options)
    rewritten = both.record(ann.id) or b""
    if first is both.express:
        rewritten = re.sub(rb',"minisession":{.*?}', b"", rewritten)

    assert rewritten == written


def test_a_session_kept_alive_by_touches_alone_outlives_the_date_in_its_record(both: Both, ann: Visitor) -> None:
    """connect-redis' touch moves the key's expiry and leaves the record's: 40 minutes later, it is past."""
    ann.at(both.express, login("ann"), max_age=1800, now=time.time() - 2400)
    record = json.loads(both.record(ann.id) or b"")

    assert record["cookie"]["expires"] < time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())

    both.age(ann.id, 1000)

    assert ann.at(both.minisession, left()) == about(1000)

    both.age(ann.id, 1000)
    ann.at(both.express, data(), max_age=1800)

    assert ann.at(both.minisession, left()) == about(1800)
    assert ann.at(both.minisession, data()) == {"user": "ann"}

    ann.at(both.minisession, put("cart", [1]))

    assert json.loads(both.record(ann.id) or b"")["cookie"]["expires"] > record["cookie"]["expires"]
    assert ann.at(both.express, data()) == {"user": "ann", "cart": [1]}


def test_that_date_ends_a_session_that_express_saves_in_mid_page_and_not_one_that_we_save(
    both: Both, first: Side, ann: Visitor
) -> None:
    """We write it anew with every save, and believe the key's TTL."""
    ann.at(first, login("ann"), max_age=1800, now=time.time() - 2400)
    both.redis.expire(f"sess:{ann.id}", 100)
    ann.at(first, put("cart", [1]), save(), max_age=1800)

    assert (both.record(ann.id) is None) == (first is both.express)


def test_a_session_of_express_gets_a_birthday_where_there_is_an_absolute_timeout(both: Both, ann: Visitor) -> None:
    """At the first look, from which it counts; and Express keeps it."""
    ann.at(both.express, login("ann"))
    ann.at(both.minisession, data())

    assert b'"minisession"' not in (both.record(ann.id) or b"")

    ann.at(both.minisession, data(), absolute_timeout=DAY)
    ann.at(both.express, put("cart", [1]))

    assert b'"minisession":{"created":' in (both.record(ann.id) or b"")
    assert ann.at(both.minisession, data(), absolute_timeout=DAY, now=time.time() + DAY - 60) != {}
    assert ann.at(both.minisession, data(), absolute_timeout=DAY, now=time.time() + DAY + 60) == {}


def test_reading_what_express_wrote_in_its_own_way_writes_nothing(both: Both, ann: Visitor) -> None:
    """Numbers whose digits differ, keys in another order, half of a surrogate pair."""
    ann.at(both.express, put("value", {"numbers": [1e21, 1e-7, 5e-324], "b": 1, "2": 2, "1": 1, "half": "\ud83d"}))
    written = both.record(ann.id)
    both.age(ann.id, 100)

    assert ann.at(both.minisession, data())["value"]["half"] == "\ud83d"
    assert (both.record(ann.id), both.ttl(ann.id)) == (written, about(DAY))

    ann.at(both.minisession, put("other", 1))

    assert b'"half":"\\ud83d"' in (both.record(ann.id) or b"")
    assert ann.at(both.express, data())["value"]["half"] == "\ud83d"


def test_numbers_that_javascript_cannot_hold_change_when_express_saves(both: Both, ann: Visitor) -> None:
    """It has doubles alone: past 2^53 the last digits go; and it knows no 1.0 beside 1."""
    ann.at(both.minisession, put("value", [2**53 + 1, 10**22 + 1, 1.0, -0.0]))
    ann.at(both.express, put("other", 1))

    value = ann.at(both.minisession, data())["value"]
    assert value == [2**53, 10**22, 1, 0]
    assert [type(number) for number in value] == [int, float, int, int]


def test_express_drops_keys_named_like_its_own_members_as_soon_as_it_looks(
    both: Both, ann: Visitor, caplog: pytest.LogCaptureFixture
) -> None:
    """From the store, too: it takes the difference for a change.  We warn, once per key."""
    ann.at(both.minisession, put("id", 1), put("save", 2), put("safe", 3))
    ann.at(both.minisession, put("id", 4))

    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert sorted(message.partition(" is stored")[0] for message in warned) == ["session['id']", "session['save']"]

    assert ann.at(both.express, data()) == {"safe": 3}
    assert ann.at(both.minisession, data()) == {"safe": 3}


def test_we_know_every_key_that_express_drops(both: Both) -> None:
    assert set(Visitor().at(both.express, sides.members())) == EXPRESS_DROPS


def test_cookie_attributes_come_from_our_configuration_and_from_the_record_for_express(
    both: Both, ann: Visitor
) -> None:
    """So both sides should be configured alike: what we save is what Express sends from then on."""
    ann.at(both.minisession, put("a", 1), samesite="Strict", max_age=60)
    ann.at(both.express, put("b", 1), samesite="lax", max_age=60)

    assert "SameSite=Strict" in (ann.set_cookie or "")

    ann.at(both.minisession, put("c", 1), samesite="Lax", max_age=60)

    assert "SameSite=Lax" in (ann.set_cookie or "")


# What Express' plain SET can undo


@pytest.mark.parametrize("inner", ["minisession", "express"])
def test_a_page_of_express_that_saves_after_a_logout_brings_the_session_back(
    both: Both, ann: Visitor, inner: str
) -> None:
    """On whichever side the logout was: so it is with Express alone, and so it stays until it has moved."""
    ann.at(both.express, login("ann"))
    ann.at(both.express, put("slow", 1), ann.meanwhile(getattr(both, inner), logout()))

    assert ann.at(both.minisession, data()) == {"user": "ann", "slow": 1}


@pytest.mark.parametrize("inner", ["minisession", "express"])
def test_a_page_of_ours_that_saves_after_a_logout_does_not(both: Both, ann: Visitor, inner: str) -> None:
    ann.at(both.express, login("ann"))
    ann.at(both.minisession, put("slow", 1), ann.meanwhile(getattr(both, inner), logout()))

    assert both.record(ann.id) is None


def test_a_page_of_express_overwrites_what_others_saved_meanwhile_and_ours_merges(
    first: Side, second: Side, ann: Visitor
) -> None:
    ann.at(first, login("ann"))
    ann.at(first, put("slow", 1), ann.meanwhile(second, put("quick", 1)))

    expected = {"user": "ann", "slow": 1} | ({} if first.name == "express" else {"quick": 1})
    assert ann.at(second, data()) == expected


@pytest.mark.parametrize("resave", [False, True])
def test_a_page_of_express_that_only_reads_undoes_nothing_unless_resave_is_on(
    both: Both, ann: Visitor, resave: bool
) -> None:
    """The first thing to switch off."""
    ann.at(both.express, login("ann"))
    ann.at(both.express, ann.meanwhile(both.minisession, logout()), data(), resave=resave)

    assert ann.at(both.minisession, data()) == ({"user": "ann"} if resave else {})


def test_a_page_of_express_that_saves_after_our_new_id_revives_the_old_one_as_it_was(both: Both, ann: Visitor) -> None:
    """Without the user, where the new id was given at login: no worse than the anonymous session it was."""
    ann.at(both.express, put("cart", [1]))
    before = ann.twin()
    ann.at(both.express, put("slow", 1), ann.meanwhile(both.minisession, login("ann")))

    assert before.at(both.minisession, data()) == {"cart": [1], "slow": 1}
    assert before.at(both.minisession, member("user")) == "None"


@pytest.mark.parametrize("late", [True, False], ids=["it comes late", "it is overtaken"])
@pytest.mark.parametrize("side", ["minisession", "express"])
def test_a_logout_reaches_a_session_that_we_have_just_given_a_new_id_unless_express_answers_it(
    both: Both, ann: Visitor, side: str, late: bool
) -> None:
    """Express knows no heirs: to it a tombstone is not a session, and what it had loaded it deletes."""
    user = f"{side} {late}"
    ann.at(both.minisession, login(user))
    other = ann.twin()
    if late:
        ann.at(both.minisession, renew())
        other.at(getattr(both, side), logout())
    else:
        other.at(getattr(both, side), ann.meanwhile(both.minisession, renew()), logout())

    assert len([*both.store.ids(user)]) == (1 if side == "express" else 0)


# What else docs/express.md says


def test_a_page_of_express_that_only_reads_lets_our_tombstone_stay_as_long_as_a_session(
    both: Both, ann: Visitor
) -> None:
    """Its touch takes it for one.  The browser that has got the new id does not come to know."""
    ann.at(both.express, put("cart", [1]))
    before = ann.id
    ann.at(both.express, ann.meanwhile(both.minisession, renew()))

    assert (both.record(before), both.ttl(before)) == (b"", about(DAY))


def test_who_asks_express_with_a_dead_id_gets_a_new_cookie_when_the_page_writes(both: Both, ann: Visitor) -> None:
    """So a page should not give a new id while others of its requests are on their way to Express."""
    ann.at(both.minisession, login("ann"))
    late = ann.twin()
    ann.at(both.minisession, renew())
    late.at(both.express, put("seen", 1))

    assert late.id not in (ann.id, "")
    assert late.at(both.minisession, data()) == {"seen": 1}


def test_express_leaves_a_dead_cookie_in_the_browser_and_we_remove_it(both: Both, ann: Visitor) -> None:
    ann.at(both.express, login("ann"))
    ann.at(both.express, logout())

    assert ann.set_cookie is None

    ann.at(both.minisession, login("ann"))
    ann.at(both.minisession, logout())

    assert "Max-Age=0" in (ann.set_cookie or "")


def test_we_say_vary_and_no_store_and_express_says_nothing(both: Both, ann: Visitor) -> None:
    ann.at(both.express, login("ann"))

    assert (ann.headers["Vary"], ann.headers["Cache-Control"]) == (None, None)

    ann.at(both.minisession, login("ann"))

    assert (ann.headers["Vary"], ann.headers["Cache-Control"]) == ("Cookie", "no-store")


def test_a_secure_cookie_over_plain_http_is_sent_by_us_and_kept_back_by_express(both: Both, ann: Visitor) -> None:
    ann.at(both.express, login("ann"), secure=True)

    assert ann.set_cookie is None

    ann.at(both.minisession, login("ann"), secure=True)

    assert "Secure" in (ann.set_cookie or "")


def test_a_key_without_an_end_gets_one_here(both: Both, ann: Visitor) -> None:
    """connect-redis' disableTTL."""
    ann.at(both.express, login("ann"))
    both.redis.persist(f"sess:{ann.id}")

    assert ann.at(both.minisession, data()) == {"user": "ann"}
    assert both.ttl(ann.id) == about(DAY)


def test_a_record_over_max_bytes_is_no_session_here(both: Both, ann: Visitor) -> None:
    """Raise it before the first route moves, or those visitors are logged out."""
    ann.at(both.express, put("large", "x" * 70_000))

    assert ann.at(both.minisession, data()) == {}
    assert ann.at(both.minisession, data(), max_bytes=100_000) != {}


def test_what_redis_refuses_to_save_is_lost_behind_a_200_of_express(both: Both, ann: Visitor) -> None:
    """Its response has left by then; ours would be a 503."""
    ann.at(both.express, login("ann"))
    both.redis.config_set("maxmemory", 1)
    try:
        ann.at(both.express, put("cart", [1]))
        with pytest.raises(AssertionError, match="503 Service Unavailable"):
            ann.at(both.minisession, put("cart", [1]))
    finally:
        both.redis.config_set("maxmemory", 0)

    assert ann.at(both.express, data()) == {"user": "ann"}
