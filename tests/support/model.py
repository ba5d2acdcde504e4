"""What a site does with sessions, said a second time, from what is documented: without bytes, stores or WSGI.

It serves one request at a time; another may run inside a page, and so overtakes it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from math import floor
from typing import Any, NamedTuple, NoReturn

from minisession import SessionConflict, SessionError, SessionGone, SessionTooLarge, StoreUnavailable

TOMBSTONE_LIFE = 15  # seconds
MAX_BYTES = 65536  # of a record
MAX_TRIES = 32  # that a transact loses
AHEAD = 5  # seconds, by which another server's clock may be ahead without a write
UNSET: Any = object()
text = partial(json.dumps, default=repr)
Page = Callable[["ModelSession"], object]


@dataclass
class Options:
    """Of the middleware; times in seconds."""

    rolling: bool = False
    resave: bool = False
    save_uninitialized: bool = False
    max_age: float | None = None
    idle_timeout: float = 100
    absolute_timeout: float | None = None


@dataclass
class Stored:
    """A record, or where ``data`` is None, a tombstone."""

    data: dict[str, Any] | None
    max_age: float | None
    created: float
    user: str | None
    expires_at: float
    written_for: float | None  # the expiry that the record itself names
    heir: str | None = None  # of a tombstone

    def is_still(self, seen: Stored) -> bool:
        """Return whether the bytes are the same."""
        mine, theirs = ((text(x.data), x.max_age, x.created, x.user, x.max_age and x.written_for) for x in (self, seen))
        return mine == theirs


class Replaced(NamedTuple):
    """The session whose id `regenerate` gave up."""

    id: str
    seen: Stored | None  # None: it had ended already
    keep: bool
    user: Any  # as it was given last


def same(one: Any, other: Any) -> bool:
    """Return whether they mean the same."""
    return text(one, sort_keys=True) == text(other, sort_keys=True)


class Model:
    """A site: what is stored, and when it is."""

    def __init__(self, options: Options, now: float) -> None:
        self.options, self.clock = options, now
        self.ahead = 0.0  # by which the clock of the server that answers is ahead of the store's
        self.down = False  # the store refuses to write
        self.store: dict[str, Stored] = {}
        self.made = 0

    @property
    def now(self) -> float:
        return self.clock + self.ahead

    def pass_time(self, seconds: float) -> None:
        self.clock += seconds

    @property
    def birth(self) -> float:
        """Return the time as records have it: in milliseconds, and never one to come."""
        return floor(self.now * 1000) / 1000

    def find(self, id: str) -> Stored | None:
        """Return what the store has; a tombstone is not None."""
        found = self.store.get(id)
        return found if found and found.expires_at > self.clock else None

    def live(self, id: str) -> Stored | None:
        found = self.find(id)
        return found if found and found.data is not None else None

    def last(self, id: str) -> str | None:
        """Return the live session that an id stands for: its own, or the heir at the end of the chain."""
        while found := self.find(id):
            if found.data is not None:
                return id
            if found.heir is None:
                break
            id = found.heir
        return None

    def end(self, id: str) -> None:
        """End an id, and whoever inherited from it."""
        last = self.last(id)
        if last is not None:
            del self.store[last]

    def new_id(self) -> str:
        self.made += 1
        return f"id-{self.made}"

    def end_all_of(self, user: str, keep: ModelSession | None) -> int:
        kept = set() if keep is None else {keep.look()._id, keep.old and keep.old.id}
        ended = [id for id in self.store if id not in kept and (found := self.live(id)) and found.user == user]
        for id in ended:
            del self.store[id]
        return len(ended)

    def end_one_of(self, user: str, id: str) -> bool:
        found = self.live(id)
        if found is None or found.user != user:
            return False
        del self.store[id]
        return True

    def ids(self) -> list[str]:
        return [id for id in self.store if self.live(id)]

    def has(self, id: str) -> tuple[Any, str | None]:
        """Return all that is stored under an id, and who inherited from it."""
        found = self.find(id)
        if found is None:
            return None, None
        if found.data is None:
            return round(found.expires_at), found.heir
        data = sorted((key, text(value)) for key, value in found.data.items())
        return (data, found.max_age, found.created, found.user, round(found.expires_at)), None

    def serve(self, ids: list[str], page: Page | None, later: Page | None, last: Page | None) -> str | None:
        """Return the id in the response's ``Set-Cookie``; "" removes it, None is no header."""
        session = ModelSession(self, ids)
        options = self.options
        if page is not None:
            page(session)
        if session.looked or options.rolling or options.resave or options.save_uninitialized:
            session.look()
            cookie = session.commit()
        else:
            cookie = None
        session.sent = True
        for late in filter(None, (later, last)):
            late(session)
            session.commit_late()
        return cookie

    def work(self, ids: list[str], page: Page) -> None:
        """Run a page outside of a response."""
        session = ModelSession(self, ids).look()
        if session.seen is None:
            raise SessionGone
        session.sent = True
        page(session)
        session.close()


class ModelSession(MutableMapping[str, Any]):
    """What a page has in its hands."""

    data: dict[str, Any]
    ends: float
    _user: str | None

    def __init__(self, model: Model, ids: list[str]) -> None:
        self.model, self.carried, self._ids = model, bool(ids), ids
        self.looked = self.sent = False

    # The first look

    def look(self) -> ModelSession:
        if self.looked:
            return self
        self.looked, model = True, self.model
        self.status = "open"
        self._id, self.data = "", {}
        self.own: dict[int, Any] = {}  # lists and dicts that the session made, by identity
        self.lent: dict[str, str | None] = {}  # by key: what it was before it left our hands
        self.handles: dict[str, Any] = {}  # what stands under a key, or stood there until others deleted it
        self.seen: Stored | None = None
        self.lifetime, self.created, self._user = model.options.max_age, model.birth, None
        self.old: Replaced | None = None
        self.lifetime_set = self.owed = self.stored = self.saved = self.rewrite = False
        self.known = False  # a session stood behind this request, or a tombstone
        known = {id: found for id in self._ids if (found := model.find(id)) and not self._is_over(found)}
        live = next((id for id, found in known.items() if found.data is not None), None)
        if live is not None:
            self._id = live
            self._take(known[live])
            fresh = self._fresh()
            if self.ends - model.now < self._lifetime() / 2 and self._is_worth_a_touch(fresh):
                known[live].expires_at = self.ends = fresh
        elif known:
            self._id, self.status, self.known = next(iter(known)), "gone", True
        return self

    def _is_over(self, found: Stored) -> bool:
        limit = self.model.options.absolute_timeout
        return limit is not None and found.data is not None and found.created + limit <= self.model.now

    def _take(self, found: Stored) -> None:
        self._see(found)
        self._become(found.data or {})
        self.lifetime, self._user = found.max_age, found.user
        self.lifetime_set = False
        self._take_created(found)

    def _take_created(self, found: Stored) -> None:
        self.created = min(found.created, self.model.birth)
        self.rewrite = found.created > self.model.now + AHEAD and self.model.options.absolute_timeout is not None

    def _see(self, found: Stored) -> None:
        self.seen, self.ends, self.known = deepcopy(found), found.expires_at, True
        for key in self.lent:
            self.lent[key] = text(found.data[key]) if found.data and key in found.data else None

    # The app's hands

    def _become(self, data: dict[str, Any]) -> None:
        """Take other data, in the objects that the app may hold; what is the same need not be written."""
        self.handles.update(self.data)
        times = Counter(map(id, containers(self.handles)))
        self.data = {
            key: old if text(old := self.handles.get(key)) == text(new) else self._write_into(old, new, times)
            for key, new in data.items()
        }

    def _snapshot(self) -> tuple[Any, ...]:
        self.handles.update(self.data)
        hands = dict(self.handles), dict(self.lent), dict(self.own)
        return deepcopy(self.data), *hands, self.lifetime, self.lifetime_set, self.seen

    def _restore(self, snapshot: tuple[Any, ...]) -> None:
        """Be as before; but what was handed out since is the session's own still."""
        data, handles, lent, own, self.lifetime, self.lifetime_set, seen = snapshot
        if self.seen is not None:
            self.seen = seen or self.seen
        since = {key: value for key, value in {**self.handles, **self.data}.items() if id(value) in self.own}
        self.handles, self.own, self.data = {**since, **handles}, {**self.own, **own}, {}
        self._become(data)
        self.lent = {**{key: text(self.data[key]) for key in since if key in data}, **lent}

    def _write_into(self, old: Any, new: Any, times: Counter[int]) -> Any:
        """Return ``new`` in the very object ``old``, if the session made that and it stands in one place."""
        if type(old) is not type(new) or times[id(old)] != 1 or id(old) not in self.own:
            return self._made(new)
        if isinstance(new, list):
            old[:] = [self._write_into(was, is_, times) for was, is_ in zip(old, new, strict=False)] + [
                self._made(value) for value in new[len(old) :]
            ]
        else:
            values = {key: self._write_into(old.get(key), value, times) for key, value in new.items()}
            old.clear()
            old.update(values)
        return old

    def _made(self, value: Any) -> Any:
        """Return a copy, whose lists and dicts are the session's own."""
        value = json.loads(text(value))
        self.own.update((id(made), made) for made in containers(value))
        return value

    # The mapping

    def __getitem__(self, key: str) -> Any:
        self.look()
        self._lend(key)
        return self.data[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._writable()
        self._lend(key)
        if self.data.get(key) is not value:
            self.own.pop(id(value), None)  # it is the app's now, even if it came from here
        self.data[key] = self.handles[key] = value

    def __delitem__(self, key: str) -> None:
        self._writable()
        self._lend(key)
        del self.data[key]
        self.handles.pop(key, None)

    def __iter__(self) -> Iterator[str]:
        self.look()
        return iter(self.data)

    def __len__(self) -> int:
        self.look()
        return len(self.data)

    def clear(self) -> None:
        self._writable()
        for key in self.data:
            self._lend(key)
        self.data.clear()
        self.handles.clear()

    def _lend(self, key: str) -> None:
        self.lent.setdefault(key, text(self.data[key]) if key in self.data else None)

    def _writable(self) -> None:
        self.look()
        if self.status == "destroyed":
            raise SessionError
        if self.sent and self.seen is None:
            raise SessionError

    def _needs_headers(self) -> None:
        if self.sent:
            raise SessionError

    # What it is

    @property
    def cookie(self) -> ModelSession:
        return self

    @property
    def original_max_age(self) -> float | None:
        self.look()
        return self.lifetime

    @property
    def max_age(self) -> float | None:
        self.look()
        return None if self.lifetime is None else max(0, self.expires_at - self.model.now)

    @max_age.setter
    def max_age(self, seconds: float | None) -> None:
        self._writable()
        self._needs_headers()
        self.lifetime, self.lifetime_set = seconds, True

    @property
    def expires_at(self) -> float:
        self.look()
        return self._fresh() if self.seen is None or self.lifetime_set else self.ends

    @property
    def created_at(self) -> float:
        self.look()
        return self.created

    @property
    def id(self) -> str:
        self.look()
        if not self._id:
            self._needs_headers()
            self._id = self.model.new_id()
        return self._id

    @property
    def is_new(self) -> bool:
        self.look()
        return self.seen is None

    @property
    def user(self) -> str | None:
        self.look()
        return self._user

    # The verbs

    def regenerate(self, *, keep: bool = False, user: Any = UNSET) -> None:
        self.look()
        self._needs_headers()
        if self.old is not None:
            self.old = replace_old(self.old, keep, user)
        elif self.status == "gone" or self.seen is not None:
            self.old = Replaced(self._id, self.seen, keep, user)
        if not (keep and self.status == "open"):  # of what has ended there is nothing to keep
            self.data, self.handles = {}, {}
            self.lifetime, self._user = self.model.options.max_age, None
            self.lifetime_set = False
            self.created = self.model.birth
        if user is not UNSET:
            self._user = user
            self.created = self.model.birth if user else self.created
        self._id, self.seen, self.status, self.rewrite = "", None, "open", False

    def destroy(self) -> None:
        self.look()
        if self.seen is not None or self.status == "gone":
            self.model.end(self._id)
        if self.old is not None:
            self.model.end(self.old.id)
        self.status, self.seen, self.old, self.data, self._user = "destroyed", None, None, {}, None
        self.owed = False

    def save(self) -> None:
        self.look()
        if self.seen is None and self.status == "open":
            self._needs_headers()
        self._must_be_open()
        self._store(asked=True)

    def touch(self) -> None:
        self.look()
        self._must_be_open()
        if self.seen is not None:
            self._touch()

    def reload(self) -> None:
        self.look()
        self._must_be_open()
        if self.seen is None:
            raise SessionGone
        self._take(self._present())

    def transact(self, run: Page) -> None:
        self.look()
        self._must_be_open()
        self._writable()
        self._store(asked=False)
        if self.seen is not None:
            self._catch_up()
        before = self._snapshot()
        try:
            for number in range(MAX_TRIES):
                if number:
                    self._restore(before)
                    self._take(self._present())
                run(self)
                if self.seen is None:
                    return self._store(asked=False)
                if not self._changed():
                    return None
                found = self.model.live(self._id)
                if found and found.is_still(self.seen):
                    self._write(self._alive())
                    self.owed = self.owed or self.lifetime is not None
                    return None
            raise SessionConflict
        except BaseException:
            self._restore(before)
            raise

    # The headers go out

    def commit(self) -> str | None:
        if self.status == "destroyed":
            return "" if self.carried else None
        try:
            self._must_be_open()
            self._store(asked=False)
        except SessionGone:
            return None
        return self._id if self.stored and (self.owed or self.model.options.rolling) else None

    def commit_late(self) -> None:
        if self.looked and self.status == "open" and self.seen is not None and self._changed():
            with suppress(SessionGone):
                self._replace()

    def close(self) -> None:
        """Store what has changed, outside of a response."""
        if self.status == "open" and not self._changed():
            with suppress(SessionGone):
                self._touch_if_due()
        elif self.status == "open":
            self._replace()
        elif self.status == "gone" and self._changed():
            raise SessionGone

    def _store(self, *, asked: bool) -> None:
        options = self.model.options
        if self.seen is None:
            if self.known or self._user or self.data or asked or options.save_uninitialized:
                self._create()
        elif self._changed():
            self._replace()
            self.owed = self.owed or self.lifetime is not None
        elif self.rewrite or (options.resave and not self.saved):
            self._replace()
        elif asked or (not self.stored and (self.owed or options.rolling)):
            self._touch()
        else:
            self._touch_if_due()

    def _create(self) -> None:
        json.dumps(self.data)  # or it is a TypeError
        self._id = self._id or self.model.new_id()
        self._alive()
        if self.old is not None:
            self._replace_id(self.old)
        self._write(self._alive())
        self.old, self.owed = None, True

    def _replace_id(self, old: Replaced) -> None:
        """Make the old id a tombstone; or do as the table says where another request was first."""
        model, found = self.model, self.model.live(old.id)
        if old.seen and found:
            if old.keep and not found.is_still(old.seen):
                self._merge(old.seen, found)
            heir, ends = self._id if old.keep else None, model.clock + TOMBSTONE_LIFE
            model.store[old.id] = Stored(None, None, 0, None, ends, None, heir)
        elif not old.keep or old.user is None:
            model.end(old.id)
        elif old.seen and not (old.user is not UNSET and model.last(old.id)):
            self._id, self.old = old.id, None
            self._gone()

    def _replace(self) -> None:
        self._alive()
        self._see_what_is_there()
        self._write(self._alive())

    def _write(self, ends: float) -> None:
        self._fit()
        if self.model.down:
            raise StoreUnavailable
        written_for = floor(ends * 1000) / 1000
        record = Stored(json.loads(text(self.data)), self.lifetime, self.created, self._user, ends, written_for)
        self.model.store[self._id] = record
        self.owed, self.lifetime_set, self.stored = self.owed or self.lifetime_set, False, True
        self.saved, self.rewrite = True, False
        self._see(record)

    def _see_what_is_there(self) -> Stored:
        assert self.seen is not None
        if not (found := self._present()).is_still(self.seen):
            self._catch_up()
        return found

    def _catch_up(self) -> None:
        assert self.seen is not None
        found = self._present()
        self._merge(self.seen, found)
        self._user = found.user
        self._take_created(found)
        self._see(found)

    def _touch(self) -> None:
        self._alive()
        found = self._see_what_is_there()
        found.expires_at = self.ends = self._alive()
        self.stored = True

    def _touch_if_due(self) -> None:
        assert self.seen is not None
        fresh, found = self._alive(), self.model.live(self._id)
        if self._is_worth_a_touch(fresh) and found and found.is_still(self.seen):
            found.expires_at = self.ends = fresh
            self.stored = True

    def _merge(self, seen: Stored, theirs: Stored) -> None:
        """Keep both sides' changes, key by key; of a key that both changed, ours; what either deleted is deleted."""
        before, now, merged = seen.data or {}, theirs.data or {}, dict(self.data)
        for key in {*before, *now, *self.data}:
            ours = key in self.data
            we_did = ours != (key in before) or (ours and not same(self.data[key], before[key]))
            they_did = (key in now) != (key in before) or (key in now and not same(now[key], before.get(key)))
            if they_did and key not in now and ours:
                del merged[key]
            elif not we_did and (they_did or text(merged[key]) == text(before[key]) != text(now[key])):
                merged[key] = now[key]
        self._become({key: merged[key] for key in [*now, *merged] if key in merged})
        if not (self.lifetime_set or self.lifetime != seen.max_age):
            self.lifetime = theirs.max_age

    # Small things

    def _present(self) -> Stored:
        found = self.model.live(self._id)
        if found is None or self._is_over(found):
            self._gone()
        return found

    def _gone(self) -> NoReturn:
        self.status, self.seen, self.stored = "gone", None, False
        raise SessionGone

    def _must_be_open(self) -> None:
        if self.status != "open":
            raise SessionGone

    def _fit(self) -> None:
        if len(json.dumps(self.data)) > MAX_BYTES:
            raise SessionTooLarge

    def _changed(self) -> bool:
        now = {key: text(self.data[key]) if key in self.data else None for key in self.lent}
        return self.lifetime_set or now != self.lent

    def _lifetime(self) -> float:
        return self.model.options.idle_timeout if self.lifetime is None else self.lifetime

    def _is_worth_a_touch(self, fresh: float) -> bool:
        return abs(fresh - self.ends) >= self._lifetime() / 100

    def _fresh(self) -> float:
        ends, limit = self.model.now + self._lifetime(), self.model.options.absolute_timeout
        return ends if limit is None else min(ends, self.created + limit)

    def _alive(self) -> float:
        fresh = self._fresh()
        if fresh <= self.model.now:
            self._gone()
        return fresh


def replace_old(old: Replaced, keep: bool, user: Any) -> Replaced:
    """Return what two calls of `regenerate` in a row come to."""
    return old._replace(keep=old.keep and keep, user=old.user if user is UNSET else user)


def containers(value: Any) -> Iterator[Any]:
    """Yield the lists and dicts in a value, each as often as it stands there; a dict of data counts as none."""
    if isinstance(value, (list, dict)):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from containers(item)
