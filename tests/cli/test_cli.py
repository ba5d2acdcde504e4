"""The command line: what operators and their programs see, and what they never do."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, entry_points, version
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from minisession import MemoryStore, Session, SQLiteStore, StoreUnavailable, cli, console
from minisession.cli import main
from minisession.stores.base import Stored

from ..support.browser import Clock
from ..support.rows import row
from ..support.site import Site, Visitor, put
from ..support.tools import need_module, need_program

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs/command-line.md").read_text()
WHERE = "fake:"  # what the tests' stores are named by
EVIL = "\x1b[2J\x07\x9b\x7f\u202e\u2028\ud800é"  # clears screens, rings bells, reverses lines, is half a character


class Terminal(io.StringIO):
    """A person sits there, and has typed this."""

    def isatty(self) -> bool:
        return True


class Done(NamedTuple):
    code: int
    out: str
    err: str


def run(store: Any, *argv: str, stdin: io.StringIO | None = None, stderr: io.StringIO | None = None) -> Done:
    """Run a command on a store."""
    out, err = io.StringIO(), stderr or io.StringIO()
    code = main(
        argv,
        stdin=stdin or io.StringIO(),
        stdout=out,
        stderr=err,
        environ={"SESSION_STORE": WHERE},
        opener=lambda url: store,
    )
    return Done(code, out.getvalue(), err.getvalue())


def members(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.out.splitlines()]


@pytest.fixture
def site() -> Site:
    clock = Clock()
    return Site(clock=clock, store=MemoryStore(clock=clock))


def login(site: Site, user: str = "ann", **values: Any) -> Visitor:
    browser = site.browser()

    def page(session: Session) -> None:
        session.regenerate(user=user)
        session.update(values)

    browser.visit(page)
    return browser


def handle(browser: Visitor) -> str:
    return hashlib.sha256(browser.id.encode()).hexdigest()[:16]


def user(session: Session) -> str | None:
    return session.user


def express(site: Site, data: bytes = b'{"cookie":{},"k":1}') -> str:
    """Store what Express might have; return its handle."""
    site.store.create("its id", data, site.clock() + 60)
    return hashlib.sha256(b"its id").hexdigest()[:16]


class TestCount:
    def test_live_sessions_are_counted(self, site: Site) -> None:
        for name in ("ann", "ann", "bob"):
            login(site, name)

        assert run(site.store, "count") == (0, "3 sessions\n", "")
        assert run(site.store, "count", "--user", "bob") == (0, "1 session\n", "")
        assert run(site.store, "count", "--json") == (0, '{"sessions": 3}\n', "")

    def test_large_numbers_can_be_read(self) -> None:
        class Large(MemoryStore):
            def ids(self, user: str | None = None) -> Iterator[str]:
                return map(str, range(12_345))

        assert run(Large(), "count").out == "12,345 sessions\n"


class TestList:
    def test_people_see_a_table(self, site: Site) -> None:
        ann = login(site, views=1)
        old = express(site)

        size = len(site.store.load(ann.id).data)

        head, *rows = run(site.store, "list").out.splitlines()

        assert head == "HANDLE            CREATED               EXPIRES                 BYTES  USER"
        assert set(rows) == {
            f"{handle(ann)}  2026-11-18T11:06:40Z  2026-11-19T11:06:40Z      {size}  ann",
            f"{old}  -                     2026-11-18T11:07:40Z       19  -",
        }

    def test_programs_read_an_object_a_line(self, site: Site) -> None:
        ann = login(site, views=1)
        old = express(site)

        rows = members(run(site.store, "list", "--json"))

        assert sorted(rows, key=lambda row: row["user"] is None) == [
            {
                "handle": handle(ann),
                "user": "ann",
                "created_at": "2026-11-18T11:06:40Z",
                "expires_at": "2026-11-19T11:06:40Z",
                "bytes": len(site.store.load(ann.id).data),
            },
            {
                "handle": old,
                "user": None,
                "created_at": None,
                "expires_at": "2026-11-18T11:07:40Z",
                "bytes": 19,
            },
        ]

    def test_a_users_are_listed_alone(self, site: Site) -> None:
        anns = [login(site), login(site)]
        login(site, "bob")

        rows = members(run(site.store, "list", "--user", "ann", "--json"))

        assert [row["handle"] for row in rows] == [handle(browser) for browser in anns]
        assert members(run(site.store, "list", "--user", "eve", "--json")) == []

    @pytest.mark.parametrize("name", ["", "\udcff"], ids=["empty", "half a character"])
    def test_what_can_be_no_users_name_is_an_error(self, site: Site, name: str) -> None:
        """No store could look for the second, which is what a byte that is not UTF-8 becomes."""
        done = run(site.store, "list", "--user", name)

        assert (done.code, done.out) == (2, "")
        assert "--user: that is not a user: it is empty, or not in this terminal's encoding" in done.err

    def test_what_is_no_session_is_told_apart_and_can_be_ended(
        self, site: Site, caplog: pytest.LogCaptureFixture
    ) -> None:
        broken = express(site, b"letmein")

        assert run(site.store, "list", "--json") == (0, "", "")
        assert f"session {broken} not listed: its record is not a session" in caplog.text
        assert run(site.store, "show", broken).code == 1
        assert run(site.store, "destroy", broken).code == 0
        assert "letmein" not in caplog.text

    def test_a_session_that_ends_meanwhile_is_left_out(self) -> None:
        class Slow(MemoryStore):
            def ids(self, user: str | None = None) -> Iterator[str]:
                yield "gone"

        assert run(Slow(), "list", "--json") == (0, "", "")

    def test_a_million_need_no_more_memory_than_ten(self) -> None:
        """Each is printed before the next is asked for, and then forgotten."""
        out = io.StringIO()
        alive = 0

        class Id(str):
            def __new__(cls, text: str) -> Id:
                nonlocal alive
                alive += 1
                return super().__new__(cls, text)

            def __del__(self) -> None:
                nonlocal alive
                alive -= 1

        class Endless(MemoryStore):
            listing = False

            def ids(self, user: str | None = None) -> Iterator[str]:
                for n in range(2000):
                    assert alive <= 3
                    assert not self.listing or out.getvalue().count("\n") == n
                    yield Id(str(n))

            def load(self, id: str) -> Stored:
                return Stored(b'{"cookie":{}}', 2e9)

        store = Endless()
        assert run(store, "count").code == 0
        assert run(store, "show", "0123456789").code == 1
        store.listing = True
        assert main(["list", "--json", "--store", WHERE], stdout=out, opener=lambda url: store) == 0


class TestShow:
    def test_people_see_what_a_session_holds(self, site: Site) -> None:
        ann = login(site, cart=["tea"], name="Ä")

        assert run(site.store, "show", handle(ann)).out.splitlines() == [
            f"handle   {handle(ann)}",
            "created  2026-11-18T11:06:40Z",
            "expires  2026-11-19T11:06:40Z",
            f"bytes    {len(site.store.load(ann.id).data)}",
            "user     ann",
            *("{", '  "cart": [', '    "tea"', "  ],", '  "name": "Ä"', "}"),
        ]

    def test_programs_read_one_object(self, site: Site) -> None:
        ann = login(site, cart=["tea"], name=EVIL.replace("\ud800", ""))
        [row] = members(run(site.store, "list", "--json"))

        [shown] = members(run(site.store, "show", handle(ann), "--json"))

        assert shown == {**row, "data": {"cart": ["tea"], "name": EVIL.replace("\ud800", "")}}

    def test_looking_changes_nothing(self, site: Site) -> None:
        ann = login(site)
        before = site.store.load(ann.id)
        site.clock.advance(3600)
        for command in (["count"], ["list"], ["show", handle(ann)]):
            run(site.store, *command)

        assert site.store.load(ann.id) == before


class TestHandles:
    def test_the_first_six_digits_will_do(self, site: Site) -> None:
        ann = login(site)
        login(site)

        for named in (handle(ann)[:6], handle(ann)[:6].upper(), handle(ann)):
            assert handle(ann) in run(site.store, "show", named).out

    def test_digits_that_several_have_are_an_error_that_lists_them(self, site: Site) -> None:
        handles: dict[str, str] = {}
        for n in range(100_000):
            digits = hashlib.sha256(f"id{n}".encode()).hexdigest()[:16]
            if digits[:6] in handles:
                break
            handles[digits[:6]] = digits
        both = sorted([digits, handles[digits[:6]]])
        for m in range(n + 1):
            if hashlib.sha256(f"id{m}".encode()).hexdigest()[:16] in both:
                site.store.create(f"id{m}", b'{"cookie":{}}', site.clock() + 60)

        done = run(site.store, "destroy", digits[:6])

        assert done == (1, "", f"minisession: several handles begin with {digits[:6]}: {both[0]}, {both[1]}\n")
        assert [run(site.store, "destroy", digits).out for digits in both] == ["1 session destroyed\n"] * 2

    def test_one_that_no_session_has_is_an_error(self, site: Site) -> None:
        for command in ("show", "destroy"):
            done = run(site.store, command, "0123456789abcdef")
            assert (done.code, done.out) == (1, "")
            assert done.err.startswith("minisession: no session has the handle 0123456789abcdef: it has ended, or")

    def test_an_id_is_no_handle_and_is_not_repeated(self, site: Site) -> None:
        ann = login(site)
        # An id may begin with "-", as an option does.
        for named in (ann.id, f"s:{ann.id}.mac", f"-{ann.id}", handle(ann)[:5], handle(ann) + "0", ""):
            done = run(site.store, "destroy", named)
            assert done.code == 2
            if not named.startswith("-"):
                assert "HANDLE: that is not a handle (16 hex digits, as `list` shows them" in done.err
            assert not named or named not in done.err
        assert ann.visit(user) == "ann"

    @row("P21")
    def test_no_id_is_ever_shown(self, site: Site) -> None:
        ids = {login(site, name).id for name in ("ann", "ann", "bob")}
        handles = [row["handle"] for row in members(run(site.store, "list", "--json"))]
        shown = ""
        for command in (
            *(["count"], ["list"], ["list", "--json"], ["list", "--user", "ann"], ["purge"]),
            *(["show", handles[0]], ["show", handles[1], "--json"], ["destroy", handles[2]]),
            *(["show", "abcdef"], ["destroy", "--user", "ann", "--yes"], ["destroy", "--all", "--yes"]),
        ):
            done = run(site.store, *command, stderr=Terminal())
            shown += done.out + done.err

        assert handles[0] in shown
        assert not any(id[:8] in shown for id in ids)


class TestDestroy:
    def test_one_session_is_ended(self, site: Site) -> None:
        lost, kept = login(site), login(site)

        assert run(site.store, "destroy", handle(lost)) == (0, "1 session destroyed\n", "")
        assert (lost.visit(user), kept.visit(user)) == (None, "ann")
        assert run(site.store, "destroy", handle(lost)).code == 1

    def test_one_that_ends_by_itself_meanwhile_was_not_there(self, site: Site) -> None:
        ann = login(site)

        class Late(MemoryStore):
            def ids(self, user: str | None = None) -> Iterator[str]:
                yield ann.id

        assert run(Late(), "destroy", handle(ann)) == (1, "0 sessions destroyed\n", "")

    @pytest.mark.parametrize("which", [["HANDLE"], ["--user", "ann", "--yes"], ["--all", "--yes"]])
    def test_one_that_is_given_a_new_id_between_the_look_and_the_end_is_ended(self, which: list[str]) -> None:
        """By a request that was faster than the command."""
        clock = Clock()

        class Overtaken(MemoryStore):
            armed = True

            def overtake(self) -> None:
                if self.armed:
                    self.armed = False
                    ann.visit(lambda session: session.regenerate(keep=True))

            def delete(self, id: str) -> bool:
                self.overtake()
                return super().delete(id)

            def clear(self) -> int:
                self.overtake()
                return super().clear()

        site = Site(clock=clock, store=Overtaken(clock=clock))
        ann = login(site)

        done = run(site.store, "destroy", *(handle(ann) if word == "HANDLE" else word for word in which))

        assert done == (0, "1 session destroyed\n", "")
        assert not site.store.armed
        assert ann.visit(user) is None

    @pytest.mark.parametrize("which", [["HANDLE"], ["--user", "ann", "--yes"]])
    def test_one_that_cannot_be_caught_is_an_error(self, which: list[str]) -> None:
        """It may live, and the command does not say otherwise."""
        clock, numbers = Clock(), count()

        class Fleeing(MemoryStore):
            fleeing = False

            def heir(self, id: str) -> str | None:
                heir = super().heir(id)
                return heir if heir is None else self.flee(heir)

            def delete(self, id: str) -> bool:
                return super().delete(self.flee(id) if self.fleeing and self.live(id) else id)

            def live(self, id: str) -> bool:
                stored = self.load(id)
                return stored is not None and stored.data != b""

            def flee(self, id: str) -> str:
                stored = self.load(id)
                if stored and stored.data:
                    heir = f"heir {next(numbers)}"
                    self.rotate(id, stored.data, heir, stored.data, stored.expires_at, "ann", inherits=True)
                return id

        site = Site(clock=clock, store=Fleeing(clock=clock))
        ann = login(site)
        site.store.fleeing = True

        done = run(site.store, "destroy", *(handle(ann) if word == "HANDLE" else word for word in which))

        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("minisession: session")
        assert "Traceback" not in done.err

    def test_a_user_is_logged_out_everywhere(self, site: Site) -> None:
        anns, bob = [login(site), login(site)], login(site, "bob")

        assert run(site.store, "destroy", "--user", "ann", "--yes", "--json") == (0, '{"destroyed": 2}\n', "")
        assert [browser.visit(user) for browser in (*anns, bob)] == [None, None, "bob"]
        assert run(site.store, "destroy", "--user", "ann", "--yes") == (0, "0 sessions destroyed\n", "")

    def test_all_are_ended(self, site: Site) -> None:
        browsers = [login(site), login(site, "bob")]
        express(site)

        assert run(site.store, "destroy", "--all", "--yes") == (0, "3 sessions destroyed\n", "")
        assert [browser.visit(user) for browser in browsers] == [None, None]

    @pytest.mark.parametrize(("which", "whose"), [(["--all"], ""), (["--user", "ann"], " of ann")])
    def test_many_are_ended_after_a_yes_alone(self, site: Site, which: list[str], whose: str) -> None:
        question = f"2 sessions{whose}: destroy? [y/N] "
        browsers = [login(site), login(site)]
        for answer in ("n\n", "\n", "", "yesterday\n"):
            done = run(site.store, "destroy", *which, stdin=Terminal(answer), stderr=Terminal())
            assert done == (1, "", f"{question}minisession: nothing was destroyed\n")
        assert [browser.visit(user) for browser in browsers] == ["ann", "ann"]

        done = run(site.store, "destroy", *which, stdin=Terminal("Yes\n"), stderr=Terminal())

        assert done == (0, "2 sessions destroyed\n", question)
        assert [browser.visit(user) for browser in browsers] == [None, None]

    def test_nothing_is_not_asked_about(self, site: Site) -> None:
        done = run(site.store, "destroy", "--user", "ann", stdin=Terminal(), stderr=Terminal())

        assert done == (0, "0 sessions destroyed\n", "")

    @pytest.mark.parametrize("streams", [{}, {"stdin": Terminal("y\n")}, {"stderr": Terminal()}])
    def test_where_no_one_can_answer_nothing_is_ended(self, site: Site, streams: dict[str, Any]) -> None:
        """In a cron job, say: and it does not wait for an answer for ever."""
        ann = login(site)
        for which in (["--all"], ["--user", "ann"]):
            done = run(site.store, "destroy", *which, **streams)
            assert (done.code, done.out) == (2, "")
            assert "there is no terminal to ask whether you are sure: add --yes" in done.err
        assert ann.visit(user) == "ann"

    @pytest.mark.parametrize(
        "which", [[], ["--yes"], ["0123456789abcdef", "--all"], ["--all", "--user", "ann"], ["--al"], ["--user", ""]]
    )
    def test_it_must_be_clear_which(self, site: Site, which: list[str]) -> None:
        ann = login(site)
        done = run(site.store, "destroy", "--yes", *which)

        assert (done.code, done.out) == (2, "")
        assert "usage: python -m minisession destroy" in done.err
        assert ann.visit(user) == "ann"


class TestPurge:
    def test_what_has_expired_is_freed(self, tmp_path: Path) -> None:
        clock = Clock()
        store = SQLiteStore(tmp_path / "sessions.db", clock=clock)
        for n in range(2):
            store.create(f"id{n}", b'{"cookie":{}}', clock() + 60)
        clock.advance(60)

        assert run(store, "purge") == (0, "2 ended sessions freed\n", "")
        assert run(store, "purge", "--json") == (0, '{"freed": 0}\n', "")


class TestSecret:
    def test_it_is_new_and_long_and_needs_no_store(self) -> None:
        def secret() -> str:
            out = io.StringIO()
            assert main(["secret"], stdout=out, environ={}) == 0
            return out.getvalue()

        assert re.fullmatch("[0-9a-f]{64}\n", secret())
        assert secret() != secret()


class TestTerminal:
    def test_what_visitors_stored_moves_no_cursor(self, site: Site) -> None:
        """A name that clears the operator's screen, or types commands on it."""
        name = EVIL.replace("\ud800", "")  # in which no user can be found
        login(site, name, **{name: name})
        site.store.create("express", json.dumps({"cookie": {}, "k": EVIL}).encode(), site.clock() + 60)
        escaped = r"\u001b[2J\u0007\u009b\u007f\u202e\u2028é"
        handles = [row["handle"] for row in members(run(site.store, "list", "--json"))]

        shown = run(site.store, "list").out + "".join(run(site.store, "show", handle).out for handle in handles)
        asked = run(site.store, "destroy", "--user", name, stdin=Terminal("n\n"), stderr=Terminal()).err
        refused = run(site.store, "count", EVIL).err

        assert all(line.isprintable() for line in (shown + asked + refused).split("\n"))
        assert f"  {escaped}\n" in shown
        assert f'  "{escaped}": "{escaped}"\n' in shown
        assert r"\ud800" in shown
        assert f"1 session of {escaped}: destroy?" in asked

    def test_a_terminal_without_the_characters_shows_escapes(self, site: Site) -> None:
        login(site, "Zoë", k="€")
        for command in (["list"], ["show", members(run(site.store, "list", "--json"))[0]["handle"]]):
            out = io.TextIOWrapper(written := io.BytesIO(), encoding="ascii")
            assert main([*command, "--store", WHERE], stdout=out, opener=lambda url: site.store) == 0
            assert rb"Zo\xeb" in written.getvalue()


class TestNamingTheStore:
    def test_by_option_before_or_after_the_command_or_by_environment(self, site: Site) -> None:
        opened = []

        def opener(url: str) -> MemoryStore:
            opened.append(url)
            return MemoryStore()

        for argv in (["count"], ["--store", "a:", "count"], ["count", "--store", "a:"], ["count", "--store=a:"]):
            environ = {"SESSION_STORE": "b:"}
            assert main(argv, stdout=io.StringIO(), environ=environ, opener=opener) == 0
        assert main(["--json", "count"], stdout=(out := io.StringIO()), environ=environ, opener=opener) == 0

        assert opened == ["b:", "a:", "a:", "a:", "b:"]
        assert out.getvalue() == '{"sessions": 0}\n'

    @pytest.mark.parametrize("environ", [{}, {"SESSION_STORE": ""}])
    def test_none_is_an_error_that_says_how(self, environ: dict[str, str]) -> None:
        err = io.StringIO()

        assert main(["count"], stderr=err, environ=environ) == 2
        assert "Give --store URL or set SESSION_STORE, for example to sqlite:////var" in err.getvalue()

    def test_a_servers_memory_cannot_be_seen(self) -> None:
        err = io.StringIO()

        assert main(["count"], stderr=err, environ={"SESSION_STORE": "memory:"}) == 2
        assert "SESSION_STORE: sessions in memory are visible only to the process that has them" in err.getvalue()

    def test_a_wrong_files_name_is_told_and_no_file_is_made(self, tmp_path: Path) -> None:
        """It would be the operator's, and the server could not open it."""
        err = io.StringIO()

        assert main(["count", "--store", f"sqlite:///{tmp_path}/typo.db"], stderr=err) == 2
        assert err.getvalue() == f"minisession: --store: {tmp_path}/typo.db: No such file or directory\n"
        assert list(tmp_path.iterdir()) == []

    def test_another_programs_file_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("letmein" * 1000)
        err = io.StringIO()

        assert main(["purge", "--store", f"sqlite:///{tmp_path}/notes.txt"], stderr=err) == 2
        assert "file is not a database" in err.getvalue()
        assert "letmein" not in err.getvalue()

    def test_a_missing_extra_is_told(self) -> None:
        def opener(url: str) -> MemoryStore:
            raise ImportError("pip install 'minisession[redis]'")

        err = io.StringIO()
        assert main(["count", "--store", WHERE], stderr=err, opener=opener) == 2
        assert err.getvalue() == "minisession: --store: pip install 'minisession[redis]'\n"

    def test_a_stores_warning_is_one_line(self) -> None:
        def opener(url: str) -> MemoryStore:
            warnings.warn("every user can open it", stacklevel=1)
            return MemoryStore()

        err = io.StringIO()
        assert main(["count", "--store", WHERE], stdout=io.StringIO(), stderr=err, opener=opener) == 0
        assert err.getvalue() == "minisession: warning: every user can open it\n"

    @pytest.mark.parametrize(
        "argv",
        [
            ["count", "--store", "URL"],
            ["--store", "URL", "count"],
            ["count", "URL"],
            ["URL", "count"],
            ["count", "--sotre=URL"],
            ["show", "URL"],
            ["destroy", "URL", "URL"],
        ],
    )
    @pytest.mark.parametrize(
        "url",
        [
            *("redis://:letmein@localhost:1/0", "redis://ann:letmein@localhost:x/0", "redis://:#letmein@localhost"),
            *(
                "redis://localhost:1/0?password=letmein",
                "redis+cluster://:letmein@localhost:1",
                "rediss://:letmein@[::1",
            ),
            *(
                "postgres://ann:letmein@localhost/db",
                "unix://:letmein@/no/socket",
                "redis://:'\nletmein@localhost:1",
            ),
        ],
    )
    def test_a_password_is_never_printed(self, argv: list[str], url: str) -> None:
        out, err = io.StringIO(), io.StringIO()

        code = main([word.replace("URL", url) for word in argv], stdout=out, stderr=err, environ={})

        assert code in (2, 3)
        assert "letmein" not in out.getvalue() + err.getvalue()
        assert err.getvalue()

    def test_it_is_closed_in_the_end(self) -> None:
        class Closing(MemoryStore):
            closed = 0

            def close(self) -> None:
                self.closed += 1

        store = Closing()
        run(store, "count")
        run(store, "show", "0123456789abcdef")

        assert store.closed == 2


class TestFailures:
    @pytest.mark.parametrize("verb", ["ids", "load"])
    def test_a_store_that_fails_is_one_line_and_code_3(self, site: Site, verb: str) -> None:
        login(site)

        def fail(*_: object) -> Any:
            raise StoreUnavailable("Redis: connection refused")

        setattr(site.store, verb, fail)
        done = run(site.store, "list", "--json")

        assert done == (3, "", "minisession: the store is unavailable: Redis: connection refused\n")

    def test_a_store_that_does_not_open_is_the_same(self) -> None:
        def opener(url: str) -> MemoryStore:
            raise StoreUnavailable("\x1b[2J: locked")

        err = io.StringIO()
        assert main(["count", "--store", WHERE], stderr=err, opener=opener) == 3
        assert err.getvalue() == "minisession: the store is unavailable: \\u001b[2J: locked\n"

    def test_ctrl_c_is_one_line_and_code_130(self) -> None:
        class Interrupted(MemoryStore):
            def purge(self) -> int:
                raise KeyboardInterrupt

        assert run(Interrupted(), "purge") == (130, "", "minisession: interrupted; what was done stays done\n")

    def test_ctrl_c_at_the_question_ends_it(self, tmp_path: Path) -> None:
        """On a terminal of the kernel's, with its own line for a question."""
        store = SQLiteStore(tmp_path / "sessions.db")
        store.create("id", b'{"cookie":{}}', time.time() + 600)
        main_end, terminal = pty.openpty()
        code = (
            "import os, sys; os.close(os.open(os.ttyname(0), os.O_RDWR));"  # now it is its terminal
            "os.execv(sys.executable, [sys.executable, '-m', 'minisession', 'destroy', '--all'])"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=terminal,
            stderr=terminal,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "SESSION_STORE": f"sqlite:///{tmp_path}/sessions.db"},
        )
        os.close(terminal)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(main_end, 1000)
        # It reads: Python does not see before a line comes what is pressed between the question and that.
        until = time.monotonic() + 20
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] != "S":
            assert time.monotonic() < until
            time.sleep(0.01)
        os.write(main_end, b"\x03")
        out, _ = process.communicate(timeout=20)
        with contextlib.suppress(OSError):  # the other end is closed
            while more := os.read(main_end, 1000):
                shown += more
        os.close(main_end)

        assert (process.returncode, out) == (130, b"")
        assert b"1 session: destroy? [y/N] " in shown
        assert b"interrupted" in shown
        assert b"Traceback" not in shown
        assert list(store.ids()) == ["id"]
        store.close()

    def test_a_reader_that_has_gone_is_no_error(self) -> None:
        """``list | head``."""
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-m", "minisession", "secret"],
            stdout=writer,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
        os.close(writer)

        assert (done.returncode, done.stderr) == (141, b"")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
    def test_a_full_disk_is_told(self) -> None:
        err = io.StringIO()
        with open("/dev/full", "w", encoding="utf-8") as full:
            code = main(["secret"], stdout=full, stderr=err)

        assert (code, err.getvalue()) == (1, "minisession: cannot write the result: No space left on device\n")


class TestProgress:
    @pytest.fixture(autouse=True)
    def at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(console, "PROGRESS_EVERY", 0.001)

    class Watched(Terminal):
        """A terminal that can be waited for until it shows a line."""

        def __init__(self, line: str) -> None:
            super().__init__()
            self.line, self.shown = line, threading.Event()

        def write(self, text: str) -> int:
            if re.fullmatch(rf"\r{self.line}", text):
                self.shown.set()
            return super().write(text)

    class Long(MemoryStore):
        """A store whose work goes on until someone has seen how far it is."""

        def __init__(self, seen: Callable[[], object]) -> None:
            super().__init__()
            self.seen = seen

        def ids(self, user: str | None = None) -> Iterator[str]:
            yield "id"
            self.seen()

        def purge(self) -> int:
            self.seen()
            return 0

        clear = purge

    @pytest.mark.parametrize(
        ("command", "line"),
        [
            (["count"], r"counting: 1, \d+ s"),
            (["show", "0123456789abcdef"], r"looking: 1, \d+ s"),
            (["purge"], r"purging: \d+ s"),
            (["destroy", "--all", "--yes"], r"destroying: \d+ s"),
        ],
    )
    def test_a_terminal_shows_how_far_it_is_and_then_no_more(self, command: list[str], line: str) -> None:
        terminal = self.Watched(line)

        done = run(self.Long(lambda: terminal.shown.wait(20)), *command, stderr=terminal)

        assert terminal.shown.is_set()
        *lines, blank, rest = done.err.split("\r")
        assert blank == " " * len(lines[-1])
        assert rest.startswith("minisession: no session has") if command[0] == "show" else rest == ""

    def test_elsewhere_it_is_not_shown(self) -> None:
        assert run(self.Long(lambda: time.sleep(0.01)), "count") == (0, "1 session\n", "")

    @pytest.mark.parametrize("into", ["file", "pipe", "terminal"])
    def test_a_list_shows_it_where_its_rows_are_not_seen(self, tmp_path: Path, into: str) -> None:
        """A pipe may lead to a pager on the same terminal."""
        terminal = self.Watched(r"listing: 1, \d+ s")
        store = self.Long(lambda: terminal.shown.wait(20 if into == "file" else 0.02))
        with contextlib.ExitStack() as stack:
            if into == "file":
                out: Any = stack.enter_context(open(tmp_path / "list", "w"))
            elif into == "pipe":
                reader, writer = os.pipe()
                stack.callback(os.close, reader)
                out = stack.enter_context(open(writer, "w"))
            else:
                out = Terminal()
            assert main(["list", "--store", WHERE], stdout=out, stderr=terminal, opener=lambda url: store) == 0

        assert terminal.shown.is_set() == (into == "file")


class TestHelp:
    def test_it_names_the_commands_and_the_exit_codes(self) -> None:
        out = io.StringIO()

        assert main(["--help"], stdout=out) == 0
        for word in ("secret", "count", "list", "show", "destroy", "purge", "SESSION_STORE", "exit codes", "130"):
            assert word in out.getvalue()

    def test_no_command_is_an_error(self) -> None:
        err = io.StringIO()

        assert main([], stderr=err) == 2
        assert "required: COMMAND" in err.getvalue()

    def test_the_version_is_that_of_the_package(self) -> None:
        out = io.StringIO()

        assert main(["--version"], stdout=out) == 0
        assert out.getvalue() == f"minisession {version('minisession')}\n"

    def test_a_checkout_has_a_version_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """On PYTHONPATH, and not installed."""

        def missing(name: str) -> str:
            raise PackageNotFoundError(name)

        monkeypatch.setattr(cli, "version", missing)

        assert main(["--version"], stdout=(out := io.StringIO())) == 0
        assert out.getvalue() == "minisession (not installed)\n"

    @pytest.mark.parametrize(
        ("called", "name"),
        [("/bin/minisession", "minisession"), ("/lib/minisession/__main__.py", "python -m minisession")],
    )
    def test_the_usage_names_it_as_it_was_called(self, monkeypatch: pytest.MonkeyPatch, called: str, name: str) -> None:
        monkeypatch.setattr(sys, "argv", [called])

        assert main(["count", "--help"], stdout=(out := io.StringIO())) == 0
        assert out.getvalue().startswith(f"usage: {name} count")

    def test_the_script_and_the_module_run_the_same(self) -> None:
        script = entry_points(group="console_scripts", name="minisession")["minisession"].load()
        done = subprocess.run(
            [sys.executable, "-m", "minisession", "secret"],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
        )

        assert script is main
        assert re.fullmatch(rb"[0-9a-f]{64}\n", done.stdout)


class TestDocs:
    def test_the_transcript_is_what_a_shell_shows(self, tmp_path: Path) -> None:
        """Each command, in order, on a SQLite file; times and secrets differ."""
        now = Clock(int(time.time()))
        path = tmp_path / "sessions.db"
        ids = iter(f"session {n}" for n in range(100))
        then = SQLiteStore(path, clock=lambda: now() - 1000)
        site = Site(clock=now, store=SQLiteStore(path), genid=lambda environ: next(ids))
        login(site, cart=["tea", "milk"])
        login(site, device="phone")
        login(site, "bob")
        site.browser().visit(put("cart", ["salt"]))
        for n in range(3):
            then.create(f"expired {n}", b'{"cookie":{}}', now() - 500)
        then.close()
        site.store.close()

        turns = re.findall(
            r"^\$ (.*)\n((?:(?!\$ |```).*\n)*)", "".join(re.findall(r"```console\n(.*?)```", DOCS, re.S)), re.M
        )
        assert len(turns) >= 8
        settings = ""
        for command, expected in turns:
            if command.startswith("export "):
                settings += f"{command}\n"
                continue
            command = command.replace("minisession ", f"'{sys.executable}' -m minisession ", 1)
            done = subprocess.run(
                ["sh", "-c", settings + command],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                check=False,
            )
            pattern = re.sub(r"\d{4}\\-\d\d\\-\d\dT\d\d:\d\d:\d\dZ", r"[-0-9]{10}T[:0-9]{8}Z", re.escape(expected))
            assert re.fullmatch(pattern, done.stdout), (command, done.stdout)

    def test_all_commands_and_exit_codes_are_there(self) -> None:
        out = io.StringIO()
        main(["--help"], stdout=out)

        for name in re.findall(r"^    (\w+)  ", out.getvalue(), re.M):
            assert re.search(rf"^\| `{name}\b", DOCS, re.M)
        codes = " ".join(out.getvalue().partition("exit codes")[2].split())
        assert {*re.findall(r"^\| (\d+) \|", DOCS, re.M)} == {*re.findall(r"(\d+) [a-z]", codes)}

    def test_the_shell_completes_what_shtab_was_given(self, tmp_path: Path) -> None:
        """By the page's command; bash is asked as Tab would ask it."""
        shtab, bash = need_module("shtab"), need_program("bash")
        [options] = re.findall(r"^shtab (--shell=bash .*) > ", DOCS, re.M)
        made = subprocess.run(
            [sys.executable, "-m", shtab.__name__, *options.split()],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            check=True,
        )
        (tmp_path / "minisession").write_bytes(made.stdout)
        asking = r"""
            source "$1"
            [[ $(complete -p minisession) =~ -F\ ([^ ]+) ]]
            COMP_WORDS=(minisession "${@:2}") COMP_CWORD=$(($# - 1))
            "${BASH_REMATCH[1]}" minisession "${@: -1}"
            echo "${COMPREPLY[@]}"
        """

        def complete(*words: str) -> str:
            command = [bash, "-c", asking, "bash", str(tmp_path / "minisession"), *words]
            return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

        assert complete("de") == "destroy"
        assert complete("destroy", "--y") == "--yes"
