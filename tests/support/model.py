"""What a site does with sessions, said a second time, from what is documented: without bytes, stores or WSGI.

It serves one request at a time; another may run inside a page, and so overtakes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from minisession import SessionError, SessionGone

TOMBSTONE_LIFE = 15
UNSET: Any = object()
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

    def is_still(self, seen: Stored) -> bool:
        """Tell whether the bytes are the same."""
        mine, theirs = (
            (json.dumps(x.data), x.max_age, x.created, x.user, x.max_age and x.written_for) for x in (self, seen)
        )
        return mine == theirs


def same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


class Model:
    """A site: what is stored, and when it is."""

    def __init__(self, options: Options, now: float) -> None:
        self.options, self.now = options, now
        self.store: dict[str, Stored] = {}
        self.made = 0

    def find(self, id: str) -> Stored | None:
        """Return what the store has; a tombstone is not None."""
        found = self.store.get(id)
        return found if found and found.expires_at > self.now else None

    def live(self, id: str) -> Stored | None:
        found = self.find(id)
        return found if found and found.data is not None else None

    def new_id(self) -> str:
        self.made += 1
        return f"id-{self.made}"

    def end_all_of(self, user: str, keep: ModelSession | None) -> int:
        kept = set() if keep is None else {keep.look()._id, keep.old and keep.old[0]}
        ended = [id for id in self.store if id not in kept and (found := self.live(id)) and found.user == user]
        for id in ended:
            del self.store[id]
        return len(ended)

    def has(self, id: str) -> Any:
        """Return all that is stored under an id."""
        found = self.find(id)
        if found is None or found.data is None:
            return found and round(found.expires_at)
        return sorted(found.data.items()), found.max_age, found.created, found.user, round(found.expires_at)

    def serve(self, ids: list[str], page: Page | None, later: Page | None) -> str | None:
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
        if later is not None:
            later(session)
            session.commit_late()
        return cookie


class ModelSession(MutableMapping[str, Any]):
    """What a page has in its hands."""

    data: dict[str, Any]
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
        self.seen: Stored | None = None
        self.lifetime, self.created, self._user = model.options.max_age, model.now, None
        self.old: tuple[str, Stored, bool] | None = None
        self.lifetime_set = self.regenerated = self.owed = self.stored = False
        known = {id: found for id in self._ids if (found := model.find(id)) and not self._is_over(found)}
        live = next((id for id, found in known.items() if found.data is not None), None)
        if live is not None:
            self._id = live
            self._take(known[live])
        elif known:
            self._id, self.status = [*known][-1], "gone"
        return self

    def _is_over(self, found: Stored) -> bool:
        limit = self.model.options.absolute_timeout
        return limit is not None and found.data is not None and found.created + limit <= self.model.now

    def _take(self, found: Stored) -> None:
        self._see(found)
        self.data = deepcopy(found.data or {})
        self.lifetime, self.created, self._user = found.max_age, found.created, found.user
        self.lifetime_set = False

    def _see(self, found: Stored) -> None:
        self.seen, self.ends = deepcopy(found), found.expires_at

    # The mapping

    def __getitem__(self, key: str) -> Any:
        self.look()
        return self.data[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._writable()
        self.data[key] = value

    def __delitem__(self, key: str) -> None:
        self._writable()
        del self.data[key]

    def __iter__(self) -> Iterator[str]:
        self.look()
        return iter(self.data)

    def __len__(self) -> int:
        self.look()
        return len(self.data)

    def clear(self) -> None:
        self._writable()
        self.data.clear()

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
        keep = keep and self.status == "open"
        if self.status != "open":
            self.old = None
        elif self.seen is not None:
            self.old = (self._id, self.seen, keep)
        elif self.old is not None:
            self.old = (*self.old[:2], self.old[2] and keep)
        if not keep:
            self.data, self.lifetime, self._user = {}, self.model.options.max_age, None
            self.lifetime_set = False
        if not keep or isinstance(user, str):
            self.created = self.model.now
        if user is not UNSET:
            self._user = user
        self._id, self.seen, self.status, self.regenerated = "", None, "open", True

    def destroy(self) -> None:
        self.look()
        for id in [self._id] * (self.seen is not None) + ([self.old[0]] if self.old else []):
            self.model.store.pop(id, None)
        self.status, self.seen, self.old, self.data, self._user = "destroyed", None, None, {}, None
        self.regenerated = self.owed = False

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
        self._writable()
        self._must_be_open()
        self._store(asked=False)
        if self.seen is not None:
            self._catch_up()
        while True:
            before = deepcopy((self.data, self.lifetime))
            try:
                run(self)
            except ValueError:
                self.data, self.lifetime = before
                self.lifetime_set = False
                raise
            if self.seen is None:
                return self._store(asked=False)
            if not self._changed():
                return None
            found = self.model.live(self._id)
            if found and found.is_still(self.seen):
                self._write(self._alive())
                self.owed = self.owed or self.lifetime is not None
                return None
            self._take(self._present())

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

    def _store(self, *, asked: bool) -> None:
        options = self.model.options
        if self.seen is None:
            if self.regenerated or self.data or asked or options.save_uninitialized:
                self._create()
        elif self._changed():
            self._replace()
            self.owed = self.owed or self.lifetime is not None
        elif options.resave and not self.stored:
            self._replace()
        elif asked:
            self._touch()
        else:
            self._touch_if_due()

    def _create(self) -> None:
        self._id = id = self._id or self.model.new_id()
        self._write(self._alive())
        try:
            self._bury()
        except SessionGone:
            self.model.store.pop(id, None)
            self.seen, self.stored, self.status = None, False, "gone"
            raise
        self.owed, self.regenerated = True, False

    def _bury(self) -> None:
        if self.old is None:
            return
        (id, seen, keep), self.old = self.old, None
        found = self.model.live(id)
        if found is None:
            if keep:
                raise SessionGone
            return
        if keep and not found.is_still(seen):
            self._merge(seen, found)
            self._write(self._alive())
        ends = self.model.now + TOMBSTONE_LIFE
        self.model.store[id] = Stored(None, None, 0, None, ends, None)

    def _replace(self) -> None:
        self._alive()
        assert self.seen is not None
        found = self._present()
        if not found.is_still(self.seen):
            self._merge(self.seen, found)
        self._write(self._alive())

    def _write(self, ends: float) -> None:
        record = Stored(deepcopy(self.data), self.lifetime, self.created, self._user, ends, ends)
        self.model.store[self._id] = record
        self.owed, self.lifetime_set, self.stored = self.owed or self.lifetime_set, False, True
        self._see(record)

    def _catch_up(self) -> Stored:
        assert self.seen is not None
        found = self._present()
        if not found.is_still(self.seen):
            self._merge(self.seen, found)
        self._see(found)
        return found

    def _touch(self) -> None:
        self._alive()
        found = self._catch_up()
        found.expires_at = self.ends = self._alive()
        self.stored = True

    def _touch_if_due(self) -> None:
        assert self.seen is not None
        owed, fresh = not self.stored and (self.owed or self.model.options.rolling), self._alive()
        found = self.model.live(self._id)
        if owed:
            self._touch()
        elif abs(fresh - self.ends) >= self._lifetime() / 100 and found and found.is_still(self.seen):
            found.expires_at = self.ends = fresh
            self.stored = True

    def _merge(self, seen: Stored, theirs: Stored) -> None:
        """Keep both sides' changes, key by key; of a key that both changed, ours; what either deleted is deleted."""
        before, now = seen.data or {}, theirs.data or {}
        for key in {*before, *now, *self.data}:
            ours = key in self.data
            we_did = ours != (key in before) or (ours and not same(self.data[key], before[key]))
            they_did = (key in now) != (key in before) or (key in now and not same(now[key], before.get(key)))
            if they_did and key not in now and ours:
                del self.data[key]
            elif they_did and not we_did:
                self.data[key] = deepcopy(now[key])
        self.data = {key: self.data[key] for key in [*now, *self.data] if key in self.data}
        if not (self.lifetime_set or self.lifetime != seen.max_age):
            self.lifetime = theirs.max_age

    # Small things

    def _present(self) -> Stored:
        found = self.model.live(self._id)
        if found is None or self._is_over(found):
            self.status, self.seen = "gone", None
            raise SessionGone
        return found

    def _must_be_open(self) -> None:
        if self.status != "open":
            raise SessionGone

    def _changed(self) -> bool:
        assert self.seen is not None
        return self.lifetime_set or not same(self.data, self.seen.data)

    def _lifetime(self) -> float:
        return self.model.options.idle_timeout if self.lifetime is None else self.lifetime

    def _fresh(self) -> float:
        ends, limit = self.model.now + self._lifetime(), self.model.options.absolute_timeout
        return ends if limit is None else min(ends, self.created + limit)

    def _alive(self) -> float:
        fresh = self._fresh()
        if fresh <= self.model.now:
            self.status, self.seen = "gone", None
            raise SessionGone
        return fresh
