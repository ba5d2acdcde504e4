"""The command line, for operators: ``minisession``, or ``python -m minisession``.

docs/command-line.md has examples.

Sessions are handled one by one, as the store yields them: a million take no more memory than ten.
They are named by their handles: an id, like a store's URL, is as good as a password, and is never
printed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout, suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn, TextIO

from .console import Console, printable
from .ending import end
from .errors import SessionConflict, StoreUnavailable
from .journal import handle_of
from .stores.base import ListingStore
from .stores.urls import open_store
from .users import SessionView, destroy_sessions_of, view

OK, NOTHING, USAGE, UNAVAILABLE = 0, 1, 2, 3
# As shells report SIGINT and SIGPIPE.
INTERRUPTED, UNREAD = 130, 141

# The user comes last: a name may have any width.
ROW = "{:16}  {:20}  {:20}  {:>7}  {}"

Opener = Callable[[str], ListingStore]
AddParser = Callable[..., argparse.ArgumentParser]
Command = Callable[[argparse.Namespace, ListingStore, Console], int]


def main(
    argv: Sequence[str] | None = None,
    *,
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
    opener: Opener = open_store,
) -> int:
    """Run one command and return its exit code.

    Args:
        argv: the arguments; by default the process', as with the streams.
        stdin: where answers come from, if it is a terminal.
        stdout: where the result goes.
        stderr: where all else goes; progress too, if it is a terminal.
        environ: where ``SESSION_STORE`` may be.
        opener: opens a store by its URL.
    """
    console = Console(stdin or sys.stdin, stdout or sys.stdout, stderr or sys.stderr)
    try:
        code = _run(argv, console, environ, opener)
        console.stdout.flush()
        return code
    except SystemExit as end:
        # argparse has said why.
        return int(end.code or OK)
    except _Trouble as trouble:
        console.complain(str(trouble))
        return trouble.code
    except StoreUnavailable as error:
        console.complain(f"the store is unavailable: {error}")
        return UNAVAILABLE
    except SessionConflict as error:
        console.complain(str(error))
        return NOTHING
    except KeyboardInterrupt:
        console.complain("interrupted; what was done stays done")
        return INTERRUPTED
    except OSError as error:
        # Not the store's, whose errors are StoreUnavailable: the result cannot be written.
        return _give_up(console, error)


def _run(
    argv: Sequence[str] | None, console: Console, environ: Mapping[str, str], opener: Opener
) -> int:
    # argparse prints only to the process' own streams.
    with redirect_stdout(console.stdout), redirect_stderr(console.stderr):
        args = parser().parse_args(argv)
    if args.run is None:
        console.say(secrets.token_hex(32))
        return OK
    with closing(_open(args.store, console, environ, opener)) as store:
        code: int = args.run(args, store, console)
        return code


def _give_up(console: Console, error: OSError) -> int:
    # Python would try to write again at its exit, and complain.
    with suppress(OSError):
        console.stdout.close()
    if isinstance(error, BrokenPipeError):
        return UNREAD
    console.complain(f"cannot write the result: {error.strerror}")
    return NOTHING


class _Trouble(Exception):
    """Ends the command with this exit code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


# The command line


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Cut the message where it repeats a URL (it may hold a password) or maybe an id."""
        cut = re.sub("(?s)(://|unrecognized arguments: ).*", r"\1...", message)
        super().error(printable(cut))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; shell completion is made from it."""
    root = _Parser(
        prog="minisession" if _is_script() else "python -m minisession",
        description="Look at the sessions in a store, and end them.",
        epilog=_EXIT_CODES,
        allow_abbrev=False,
    )
    root.add_argument("--version", action="version", version=f"minisession {_version()}")
    root.set_defaults(store=None, json=False)
    add = root.add_subparsers(title="commands", metavar="COMMAND", required=True).add_parser
    _command(add, "secret", None, "print a new secret for signing cookies")
    count = _command(add, "count", _count, "count the live sessions")
    listing = _command(add, "list", _list, "list the live sessions")
    show = _command(add, "show", _show, "show one session, and what it holds")
    destroy = _command(add, "destroy", _destroy, "end one session, a user's, or all")
    purge = _command(add, "purge", _purge, "free the space of sessions that have ended")
    for command in (root, count, listing, show, destroy, purge):
        _take_store(command)
    for command in (count, listing):
        command.add_argument("--user", type=_user, help="only those of this user")
    show.add_argument("handle", metavar="HANDLE", type=_handle, help=_HANDLE)
    _take_targets(destroy)
    return root


def _command(add: AddParser, name: str, run: Command | None, does: str) -> argparse.ArgumentParser:
    command = add(name, help=does, description=f"{does}.", allow_abbrev=False)
    command.set_defaults(run=run)
    return command


def _take_store(command: argparse.ArgumentParser) -> None:
    # An option before the command is the default for the same option after it.
    nothing = argparse.SUPPRESS
    command.add_argument(
        "--store", metavar="URL", default=nothing, help="by default $SESSION_STORE"
    )
    command.add_argument(
        "--json", action="store_true", default=nothing, help="print JSON, for programs"
    )


def _take_targets(destroy: argparse.ArgumentParser) -> None:
    which = destroy.add_mutually_exclusive_group(required=True)
    which.add_argument("handle", metavar="HANDLE", nargs="?", type=_handle, help=_HANDLE)
    which.add_argument("--user", type=_user, help="end all sessions of this user")
    which.add_argument("--all", action="store_true", help="end every session")
    destroy.add_argument("--yes", action="store_true", help="do not ask")


def _is_script() -> bool:
    """Return whether the process is the script, and not ``python -m``."""
    return os.path.basename(sys.argv[0]).startswith("minisession")


def _version() -> str:
    try:
        return version("minisession")
    except PackageNotFoundError:
        return "(not installed)"


_EXIT_CODES = (
    "exit codes: 0 done; 1 no such session, or nothing done; 2 the command line is wrong; "
    "3 the store is unavailable, or failed meanwhile; 130 interrupted; "
    "141 the program that read the output has ended"
)
_HANDLE = "16 hex digits, as `list` shows them; the first 6 are enough if no other handle begins so"


def _handle(text: str) -> str:
    # What is not a handle may be an id: the message does not repeat it.
    if not re.fullmatch("[0-9a-fA-F]{6,16}", text):
        raise argparse.ArgumentTypeError(f"that is not a handle ({_HANDLE})")
    return text.lower()


def _user(text: str) -> str:
    # What is not in the terminal's encoding becomes half a character, which no store can look for.
    with suppress(UnicodeEncodeError):
        if text.encode():
            return text
    raise argparse.ArgumentTypeError(
        "that is not a user: it is empty, or not in this terminal's encoding"
    )


# The store


def _open(
    url: str | None, console: Console, environ: Mapping[str, str], opener: Opener
) -> ListingStore:
    named_by, url = (
        ("SESSION_STORE", environ.get("SESSION_STORE")) if url is None else ("--store", url)
    )
    if not url:
        raise _Trouble(
            USAGE,
            "which store? Give --store URL or set SESSION_STORE, for example to"
            " sqlite:////var/lib/app/sessions.db or redis://localhost:6379/0",
        )
    if url.startswith("memory:"):
        raise _Trouble(
            USAGE, f"{named_by}: sessions in memory are visible only to the process that has them"
        )
    file = url.removeprefix("sqlite:///")
    if file not in ("", url):
        # A missing one would be created, and belong to the operator instead of the server.
        try:
            os.stat(file)
        except OSError as error:
            raise _Trouble(
                USAGE, f"{named_by}: {os.path.abspath(file)}: {error.strerror}"
            ) from error
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            store = opener(url)
        except (TypeError, ValueError, ImportError) as error:
            raise _Trouble(USAGE, f"{named_by}: {error}") from error
    for warning in caught:
        console.complain(f"warning: {warning.message}")
    return store


# The commands


def _count(args: argparse.Namespace, store: ListingStore, console: Console) -> int:
    count = _number_of(args.user, store, console)
    _report(args, console, "sessions", count, _sessions(count))
    return OK


def _list(args: argparse.Namespace, store: ListingStore, console: Console) -> int:
    if not args.json:
        console.say(ROW.format("HANDLE", "CREATED", "EXPIRES", "BYTES", "USER"))
    with console.progress("listing", shown=console.writes_a_file()) as progress:
        for id in progress.of(store.ids(args.user)):
            found = view(id, store.load(id))
            if found is not None:
                console.say(
                    json.dumps(_members(found)) if args.json else ROW.format(*_texts(found))
                )
    return OK


def _show(args: argparse.Namespace, store: ListingStore, console: Console) -> int:
    id = _find(args.handle, store, console)
    found = view(id, store.load(id))
    if found is None:
        raise _Trouble(
            NOTHING, f"session {handle_of(id)} has just ended, or its record is not a session"
        )
    if args.json:
        console.say(json.dumps({**_members(found), "data": found.data}))
        return OK
    for name, text in zip(
        ("handle", "created", "expires", "bytes", "user"), _texts(found), strict=True
    ):
        console.say(f"{name:8} {text}")
    for line in json.dumps(found.data, indent=2, ensure_ascii=False).split("\n"):
        console.say(printable(line))
    return OK


def _destroy(args: argparse.Namespace, store: ListingStore, console: Console) -> int:
    if args.handle is not None:
        destroyed = int(end(store, _find(args.handle, store, console)))
    else:
        if not args.yes:
            _make_sure(args.user, store, console)
        with console.progress("destroying"):
            destroyed = store.clear() if args.all else destroy_sessions_of(store, args.user)
    _report(args, console, "destroyed", destroyed, f"{_sessions(destroyed)} destroyed")
    return OK if destroyed or args.handle is None else NOTHING


def _purge(args: argparse.Namespace, store: ListingStore, console: Console) -> int:
    with console.progress("purging"):
        freed = store.purge()
    _report(args, console, "freed", freed, f"{_sessions(freed, 'ended ')} freed")
    return OK


# Their parts


def _number_of(user: str | None, store: ListingStore, console: Console) -> int:
    with console.progress("counting") as progress:
        return sum(1 for _ in progress.of(store.ids(user)))


def _find(prefix: str, store: ListingStore, console: Console) -> str:
    """Return the id of the one session whose handle begins so."""
    with console.progress("looking") as progress:
        ids = progress.of(store.ids())
        found = {handle: id for id in ids if (handle := handle_of(id)).startswith(prefix)}
    if not found:
        raise _Trouble(
            NOTHING,
            f"no session has the handle {prefix}: it has ended, or a login gave it a new one",
        )
    if len(found) > 1:
        raise _Trouble(NOTHING, f"several handles begin with {prefix}: {', '.join(sorted(found))}")
    return found.popitem()[1]


def _make_sure(user: str | None, store: ListingStore, console: Console) -> None:
    if not console.is_attended():
        raise _Trouble(USAGE, "there is no terminal to ask whether you are sure: add --yes")
    count = _number_of(user, store, console)
    whose = "" if user is None else f" of {user}"
    if count and not console.confirm(f"{_sessions(count)}{whose}: destroy?"):
        raise _Trouble(NOTHING, "nothing was destroyed")


def _report(
    args: argparse.Namespace, console: Console, name: str, count: int, sentence: str
) -> None:
    console.say(json.dumps({name: count}) if args.json else sentence)


def _sessions(count: int, which: str = "") -> str:
    return f"{count:,} {which}session{'' if count == 1 else 's'}"


def _members(found: SessionView) -> dict[str, Any]:
    return {
        "handle": found.handle,
        "user": found.user,
        "created_at": found.created_at and _utc(found.created_at),
        "expires_at": _utc(found.expires_at),
        "bytes": found.size,
    }


def _texts(found: SessionView) -> tuple[str, ...]:
    created = "-" if found.created_at is None else _utc(found.created_at)
    return (
        found.handle,
        created,
        _utc(found.expires_at),
        str(found.size),
        printable(found.user or "-"),
    )


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
