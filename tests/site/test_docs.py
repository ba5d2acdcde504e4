"""docs/: what the pages say is so.  Their code runs and prints what they show, and their links lead somewhere."""

from __future__ import annotations

import ast
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from inspect import signature
from pathlib import Path

import pytest

from ..support.pages import DOCS, ROOT, blocks, dead_links, run_python, run_transcript
from ..support.ports import free_port
from ..support.serving import SOON, listens
from ..support.tools import need_module, need_program

PAGES = sorted(DOCS.glob("*.md"))

TESTED_ELSEWHERE = {
    "tutorial.md": "site/test_docs.py",
    "coming-from-beaker.md": "site/test_docs.py",
    "coming-from-flask-session.md": "site/test_docs.py",
    "frameworks.md": "wsgi/test_frameworks.py",
    "deployment.md": "site/test_deployment.py",
    "scaling.md": "site/test_scaling_page.py",
    "security.md": "site/test_security_docs.py",
    "express.md": "express/test_express_page.py",
    "command-line.md": "cli/test_cli.py",
    "testing.md": "site/test_testing_page.py",
    "writing-a-store.md": "stores/test_store_contract.py",
}
"""Pages whose blocks need more than to be run in order, and the tests that run them."""

NEEDS = {"stores.md": "redis"}  # pages whose blocks import what not everybody has installed


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    """Leave the log as it was."""
    logger = logging.getLogger("minisession")
    level, handlers = logger.level, logger.handlers[:]
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in TESTED_ELSEWHERE], ids=lambda page: page.name
)
def test_the_python_runs_and_prints_what_the_text_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One block after the other, in an empty folder."""
    if page.name in NEEDS:
        need_module(NEEDS[page.name])
    monkeypatch.chdir(tmp_path)
    assert {block.language for block in blocks(page)} <= {"python", "text", "mermaid"}
    run_python(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_lead_somewhere(page: Path) -> None:
    """On GitHub; MkDocs follows them on the site."""
    assert dead_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_found(page: Path) -> None:
    """Those that are indented, or have no language, would not be."""
    fences = re.findall(r"^\s*(?:```|~~~).*$", page.read_text(), re.M)
    assert len(fences) == 2 * len(blocks(page))
    assert all(block.language for block in blocks(page))


@pytest.mark.parametrize(("page", "test"), TESTED_ELSEWHERE.items())
def test_pages_left_out_above_have_a_test(page: str, test: str) -> None:
    assert page in (Path(__file__).parents[1] / test).read_text()


# What people come from


def test_coming_from_beaker() -> None:
    """The page runs with Beaker, and knows all of its options."""
    beaker = need_module("beaker.session")
    page = DOCS / "coming-from-beaker.md"
    run_python(page)
    options = {*signature(beaker.Session).parameters, *signature(beaker.CookieSession).parameters}
    options -= {"request", "kwargs", "namespace_args"}
    assert options - words(page) == set()


def test_coming_from_flask_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page runs with Flask-Session and the adapter on the page for Flask, and knows all settings."""
    defaults = need_module("flask_session.defaults").Defaults
    for block in blocks(DOCS / "frameworks.md", "python"):
        if "flask_minisession.py" in block.text:
            (tmp_path / "flask_minisession.py").write_text(block.text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "flask_minisession", raising=False)
    page = DOCS / "coming-from-flask-session.md"
    run_python(page)
    monkeypatch.delitem(sys.modules, "flask_minisession")
    options = {*vars(defaults), "SESSION_COOKIE_SECURE", "SESSION_REFRESH_EACH_REQUEST"}
    assert {option for option in options if option.isupper()} - words(page) == set()


def words(page: Path) -> set[str]:
    return set(re.findall(r"\w+", page.read_text()))


# The log, on the page for troubleshooting


def test_every_line_of_the_log_is_explained() -> None:
    """With each of its reasons: what an operator sees must be found by searching for it."""
    lines = explained()
    for message in logged():
        pattern = re.escape(message).replace("…", ".+")
        assert any(re.fullmatch(pattern, line) for line in lines), message
    for reason in reasons():
        assert any(line.endswith(reason) for line in lines), reason


def test_every_line_that_is_explained_is_logged() -> None:
    """Word by word, so that nobody searches for what is never printed."""
    patterns = [re.escape(message).replace("…", "(.+?)") for message in logged()]
    for line in explained():
        matches = [match for pattern in patterns if (match := re.fullmatch(pattern, line))]
        assert any({"…", *reasons()}.issuperset(match.groups()) for match in matches), line


LOGGING = {"full", "once", "tell", "_tell_error", "debug", "info", "warning", "error"}


def explained() -> list[str]:
    """Return the quotes in the tables' first columns, errors aside."""
    page, _, _ = (DOCS / "troubleshooting.md").read_text().partition("## Errors")
    cells: list[str] = re.findall(r"^\| (`.*?) \|", page, re.M)
    return [quote for cell in cells for quote in re.findall("`(.+?)`", cell)]


def logged() -> Iterator[str]:
    """Yield the messages of all calls that log, with "…" for what differs from time to time."""
    for node in source():
        if isinstance(node, ast.Call) and (function := name_of(node.func)) in LOGGING:
            message = next(filter(None, map(text_of, node.args)), "")
            message += ": …: …" if function == "_tell_error" else ""
            if message.strip("…: "):  # what a function that logs passes on is found where it was called
                yield message


def reasons() -> set[str]:
    """Return why a cookie was sent, removed, or not."""
    texts = [node.value for node in source() if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return {text for text in texts if re.match("(is|has|was) [a-z]|removed: |not sent: ", text)}


@cache
def source() -> list[ast.AST]:
    """Return all of the package's code, the test-kit's aside."""
    files = [file for file in (ROOT / "minisession").rglob("*.py") if file.name != "testing.py"]
    return [node for file in files for node in ast.walk(ast.parse(file.read_text()))]


def name_of(function: ast.AST) -> str:
    return str(getattr(function, "attr", None) or getattr(function, "id", ""))


def text_of(node: ast.expr) -> str:
    """Return a literal as it is quoted; nothing for other expressions."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    shown = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
    return re.sub(r"%\.?\d*[a-z]", "…", shown) if shown != "…" else ""


# The tutorial


def test_the_tutorial_can_be_followed(tmp_path: Path) -> None:
    """From its second step on: save the files, run the commands, start the server again when told to."""
    need_program("curl")
    _, *steps = blocks(DOCS / "tutorial.md")
    port = free_port()
    with ExitStack() as server:
        for block in steps:
            text = block.text.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
            if block.language == "python":
                save(text, tmp_path)
            elif block.language == "sh":
                server.close()
                server.enter_context(serving(text, port, tmp_path))
            else:
                assert run_transcript(text, tmp_path, env=environment())
    assert "a Secure cookie went out over plain http" in (tmp_path / "log").read_text()


def save(code: str, folder: Path) -> None:
    """Save a file that has its name in the first line; else change the lines of app.py that begin alike."""
    if name := re.match(r"# (\w+\.py)\n", code):
        (folder / name[1]).write_text(code)
        return
    app = (folder / "app.py").read_text()
    for line in filter(None, code.splitlines()):
        app, changed = re.subn(rf"^{re.escape(line[:20])}.*$", line, app, flags=re.M)
        assert changed == 1
    (folder / "app.py").write_text(app)


@contextmanager
def serving(command: str, port: int, folder: Path) -> Iterator[None]:
    """Run a server, from when it answers."""
    with (folder / "log").open("a") as log:
        server = subprocess.Popen(["sh", "-c", f"exec {command}"], cwd=folder, env=environment(), stderr=log)
    try:
        until = time.monotonic() + SOON
        while not listens(port):
            assert server.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        yield
    finally:
        server.terminate()
        server.wait(SOON)


def environment() -> dict[str, str]:
    """Return what the first step makes of it: this Python and its programs, a secret, minisession."""
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ours = {"PATH": programs, "PYTHONPATH": str(ROOT), "SESSION_SECRET": "0123456789abcdef" * 4}
    return {**os.environ, **ours, "PYTEST_ADDOPTS": ""}  # those of this very run are not the reader's
