"""docs/testing.md: its tests pass, its chat answers, and its jobs report, as a reader would run them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from minisession.testing import log_in

from ..support.pages import DOCS, ROOT, blocks, run_python
from ..support.tools import need_module, need_program

PAGE = DOCS / "testing.md"
FILES = ("shop.py", "test_shop.py", "test_flask_shop.py", "test_browser_shop.py", "chat.py")
CONFTEST = '''
"""What pytest-playwright has, with the system's Chromium; and the app, served."""
import threading

import pytest
from playwright.sync_api import sync_playwright
from waitress.server import create_server

from shop import app

@pytest.fixture
def base_url():
    server = create_server(app, host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.effective_port}"
    server.close()

@pytest.fixture
def context():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="PROGRAM", args=["--no-sandbox"])
        yield browser.new_context()
        browser.close()
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write the page's files; the first of its blocks are they, in order."""
    for name, block in zip(FILES, blocks(PAGE, "python"), strict=False):
        assert f"`{name}`" in PAGE.read_text()
        (tmp_path / name).write_text(block.text)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "needs"),
    [("test_shop.py", "webtest"), ("test_flask_shop.py", "flask"), ("test_browser_shop.py", "playwright")],
)
def test_a_recipe_for_tests_passes(folder: Path, file: str, needs: str) -> None:
    need_module(needs)
    if needs == "playwright":
        program = need_program("chromium", "chromium-browser", "google-chrome")
        (folder / "conftest.py").write_text(CONFTEST.replace("PROGRAM", program))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::DeprecationWarning", file],
        cwd=folder,
        env={**os.environ, "PYTEST_ADDOPTS": "", "PYTHONPATH": str(ROOT), "SESSION_SECRET": "s" * 32},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


@pytest.fixture
def chat(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    need_module("websockets")
    monkeypatch.setenv("SESSION_SECRET", "s" * 32)
    monkeypatch.setenv("SESSION_STORE", f"sqlite:///{folder}/sessions.db")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    specification = importlib.util.spec_from_file_location("chat", folder / "chat.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    yield module
    del sys.modules["shop"]


def test_the_chat_answers_a_visitor_until_the_logout(chat: ModuleType) -> None:
    """And counts in the session, which a request sees."""
    server = need_module("websockets.sync.server").serve(chat.chat, "127.0.0.1", 0, origins=["http://localhost:8000"])
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    host, port = server.socket.getsockname()
    cookie = log_in(chat.app, "ada")
    try:
        with need_module("websockets.sync.client").connect(
            f"ws://{host}:{port}", origin="http://localhost:8000", additional_headers={"Cookie": cookie}
        ) as socket:
            for number in (1, 2):
                socket.send("hello")
                assert socket.recv(timeout=10) == f"ada, message {number}: hello"
            with chat.app.session_from(cookie) as session:
                assert session["said"] == 2
                session.destroy()
            socket.send("hello")
            with pytest.raises(need_module("websockets.exceptions").ConnectionClosed) as closed:
                socket.recv(timeout=10)
            assert closed.value.rcvd.code == 1008
    finally:
        server.shutdown()
        thread.join(10)


def test_another_sites_page_cannot_connect(chat: ModuleType) -> None:
    """The page says that `origins` sees to it."""
    server = need_module("websockets.sync.server").serve(chat.chat, "127.0.0.1", 0, origins=["http://localhost:8000"])
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    host, port = server.socket.getsockname()
    try:
        with pytest.raises(need_module("websockets.exceptions").InvalidStatus) as refused:
            need_module("websockets.sync.client").connect(f"ws://{host}:{port}", origin="http://evil.example")
        assert refused.value.response.status_code == 403
    finally:
        server.shutdown()
        thread.join(10)


def test_jobs_and_the_shell_print_what_the_page_says() -> None:
    """The blocks that are no files, one after the other."""
    run_python(PAGE, after=len(FILES))
