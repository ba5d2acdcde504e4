"""README: its code runs and prints what it says, its commands work, its transcript is true."""

from __future__ import annotations

import inspect
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from waitress.server import create_server

from demo.app import app as demo
from minisession import Cookie, SessionMiddleware

from ..support.pages import ROOT, blocks, dead_links, run_python, run_transcript
from ..support.tools import need_program

README = ROOT / "README.md"


def test_the_python_runs_and_prints_what_the_text_says() -> None:
    """One after the other, as a reader would type it."""
    assert blocks(README, "text")
    run_python(README)


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
    [block] = blocks(README, "console")
    transcript = block.text.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    assert run_transcript(transcript, tmp_path) == 5


def test_the_options_are_all_there() -> None:
    """And nothing that is not."""
    options = {*inspect.signature(SessionMiddleware).parameters} - {"app", "clock"}
    readme = README.read_text()
    table = readme[readme.index("| `SessionMiddleware(app") :]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == options
    for parameter in inspect.signature(Cookie).parameters.values():
        assert f"{parameter.name}={parameter.default!r}".replace("'", '"') in readme


def test_what_a_read_costs_beside_others_was_measured() -> None:
    """Under a server, where it is used: ``python -m bench report`` puts the sentence there."""
    rounds = json.loads((ROOT / "bench" / "results.json").read_text())["insitu"]["rounds"]

    def share(peer: str) -> float:
        ours, theirs = (
            [with_ - bare for with_, bare in zip(rounds[name]["read"], rounds[name]["bare"], strict=True)]
            for name in ("minisession", peer)
        )
        return 100 * float(median(ours[n] / theirs[n] for n in range(len(ours))))

    found = re.search(
        r"(\d+) % of what it does with Beaker and (\d+) % of what it does with Django", README.read_text()
    )
    assert found is not None
    assert [int(said) for said in found.groups()] == pytest.approx([share("beaker"), share("django")], abs=2.5)


def test_it_is_short_and_its_links_lead_somewhere() -> None:
    """Under 200 lines."""
    assert len(README.read_text().splitlines()) < 200
    assert dead_links(README) == []
