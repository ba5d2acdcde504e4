"""README: its code runs and prints what it says, its commands work, its transcript is true."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from waitress.server import create_server

from demo.app import app as demo

from .tools import need_program

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(*languages: str) -> list[tuple[str, str]]:
    """Return the fenced blocks in these languages, in order."""
    return re.findall(rf"^```({'|'.join(languages)})\n(.*?)^```$", README, re.M | re.S)


def test_the_python_runs_and_prints_what_the_text_says() -> None:
    """One after the other, as a reader would type it."""
    names: dict[str, object] = {}
    printed = io.StringIO()
    expected = ""
    for language, text in blocks("python", "text"):
        if language == "text":
            expected += text
            continue
        with contextlib.redirect_stdout(printed):
            exec(compile(text, "README.md", "exec"), names)

    assert expected
    assert printed.getvalue() == expected


@pytest.fixture
def port() -> Iterator[int]:
    """Serve the demo on a free port."""
    server = create_server(demo, host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield server.effective_port
    server.close()
    thread.join(10)


def test_the_transcript_is_what_curl_shows(port: int, tmp_path: Path) -> None:
    """Each command, in order; "…" stands for what is random."""
    need_program("curl")
    [(_, transcript)] = blocks("console")
    turns = re.split(r"^\$ ", transcript, flags=re.M)[1:]
    assert len(turns) == 5
    for turn in turns:
        command, _, expected = turn.partition("\n")
        command = command.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
        done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
        pattern = re.escape(expected.strip()).replace("…", "[^ ;]+")

        assert re.fullmatch(pattern, done.stdout.replace("\r", "").strip()), (command, done.stdout)


def test_the_options_are_all_there() -> None:
    """And nothing that is not."""
    import inspect

    from minisession import Cookie, SessionMiddleware

    options = {*inspect.signature(SessionMiddleware).parameters} - {"app", "clock"}
    table = README[README.index("| `SessionMiddleware(app") :]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == options
    for parameter in inspect.signature(Cookie).parameters.values():
        assert f"{parameter.name}={parameter.default!r}".replace("'", '"') in README


def test_it_is_short_and_its_links_lead_somewhere() -> None:
    """Under 200 lines."""
    assert len(README.splitlines()) < 200
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / target).exists(), target
