"""docs/how-it-works.md, "The rooms": a request really goes the way that is drawn, call by call and in that order."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from webtest import TestApp

from minisession import SessionMiddleware, get_session

from ..support.browser import SECRET
from ..support.pages import DOCS, ROOT

PACKAGE = ROOT / "minisession"
STORE = {"memory"}  # what the participant "store" is here


class Call(NamedTuple):
    """From one module to another."""

    source: str
    target: str
    function: str


def rooms_of(name: str) -> set[str]:
    """Return the modules that a participant stands for."""
    return STORE if name == "store" else {*name.split(", ")}


def drawn() -> Iterator[tuple[set[str], set[str], str]]:
    """Yield the calls of the diagrams: from which modules, to which, and of what; a note's is its module's."""
    section = (DOCS / "how-it-works.md").read_text().partition("## The rooms")[2]
    names: dict[str, str] = {}
    for line in "".join(re.findall(r"```mermaid\n(.*?)```", section, re.S)).splitlines():
        if found := re.match(r"\s*participant (\w+) as (.+)", line):
            names[found[1]] = found[2]
        elif found := re.match(r"\s*(\w+)->>(\w+): (\w+)\(\)$", line):
            yield rooms_of(names[found[1]]), rooms_of(names[found[2]]), found[3]
        elif found := re.match(r"\s*Note over (\w+): (\w+)\.(\w+)\(\)$", line):
            yield rooms_of(names[found[1]]), {found[2]}, found[3]
        else:
            assert re.match(r"\s*(sequenceDiagram|\w+-->>\w+: [\w ]+)$", line), line


def test_a_request_goes_the_way_that_is_drawn() -> None:
    calls = iter(calls_of(changes_its_session()))
    steps = [*drawn()]

    assert len(steps) == 11
    for sources, targets, function in steps:
        assert any(call.source in sources and call.target in targets and call.function == function for call in calls), (
            f"{sources} to {targets}: {function}() is not next"
        )


def changes_its_session() -> Callable[[], object]:
    """Return a visit that finds a session and changes it."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        session = get_session(environ)
        session["n"] = session.get("n", 0) + 1
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    browser = TestApp(SessionMiddleware(app, secret=SECRET), extra_environ={"wsgi.url_scheme": "https"})
    browser.get("/")
    return lambda: browser.get("/")


def calls_of(work: Callable[[], object]) -> list[Call]:
    """Return the calls from module to module, the standard library's between them left out."""
    calls = []

    def profile(frame: FrameType, event: str, argument: object) -> None:
        target = module_of(frame)
        if event == "call" and target:
            caller = frame.f_back
            while caller is not None and not module_of(caller):
                caller = caller.f_back
            source = module_of(caller) if caller else ""
            if source != target:
                calls.append(Call(source, target, frame.f_code.co_name))

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def module_of(frame: FrameType) -> str:
    """Return the name of a module of the package; nothing for others."""
    path = Path(frame.f_code.co_filename)
    return path.stem if path.is_relative_to(PACKAGE) else ""
