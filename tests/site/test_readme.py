"""README, and the two pages that it hands over to: its code works, its tables are whole, its transcript is true."""

from __future__ import annotations

import inspect
import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from webtest import TestApp

from bench import report
from demo.app import app as demo
from minisession import Cookie, MemoryStore, SessionMiddleware, destroy_sessions_of, get_session
from minisession.testing import log_in

from ..support.browser import SECRET
from ..support.pages import ROOT, blocks, dead_links, run_transcript
from ..support.serving import serving
from ..support.tools import need_program

README = ROOT / "README.md"
OPTIONS = ROOT / "docs" / "options.md"
DEMO = ROOT / "demo" / "README.md"


def test_its_app_counts() -> None:
    """Over https, because the cookie is Secure."""
    [block] = blocks(README, "python")
    names: dict[str, Any] = {}
    exec(compile(block.text, str(README), "exec"), names)
    browser = TestApp(names["app"], extra_environ={"wsgi.url_scheme": "https"})

    assert [browser.get("/").text for _ in range(2)] == ["views: 1\n", "views: 2\n"]


def test_each_line_of_its_table_does_what_it_says() -> None:
    """One after the other, in one visit; `count` and `store` are the reader's."""
    lines = re.findall(r"^\| [a-z ]+ \| `(.*?)` \|", README.read_text(), re.M)
    store, done = MemoryStore(), []

    def page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        session = get_session(environ)
        names = {
            "session": session,
            "store": store,
            "count": lambda session: session.update(n=session.get("n", 0) + 1),
            "destroy_sessions_of": destroy_sessions_of,
        }
        for line in lines:
            exec(compile(line, str(README), "exec"), names)
            done.append((session.user, session.cookie.original_max_age, session.get("n"), len(store)))
        start_response("200 OK", [])
        return [b""]

    app = SessionMiddleware(page, secret=SECRET, store=store)
    log_in(app, "ada")
    TestApp(app).get("/")

    month = 30 * 86400
    assert done == [
        ("ada", None, None, 1),
        ("ada", month, None, 1),
        ("ada", month, 1, 2),
        ("ada", month, 1, 1),
        (None, month, None, 0),
    ]


def test_the_transcript_is_what_curl_shows(tmp_path: Path) -> None:
    """Each command, in order; "…" stands for what is random."""
    need_program("curl")
    [block] = blocks(DEMO, "console")
    with serving(demo) as address:
        transcript = block.text.replace("http://127.0.0.1:8080", address)
        assert run_transcript(transcript, tmp_path) == 5


def test_the_options_are_all_there() -> None:
    """And nothing that is not."""
    parameters = {**inspect.signature(SessionMiddleware).parameters, **inspect.signature(Cookie).parameters}
    options = {*parameters} - {"app"}
    assert sorted(re.findall(r"^\| `(\w+)` \|", OPTIONS.read_text(), re.M)) == sorted(options)


@pytest.mark.parametrize("owner", [SessionMiddleware, Cookie])
def test_their_defaults_are_as_the_page_has_them(owner: Any) -> None:
    """Three are told in words."""
    page = OPTIONS.read_text().partition(f"| `{owner.__name__}(")[2].partition("## ")[0]
    for parameter in inspect.signature(owner).parameters.values():
        default = "Cookie()" if isinstance(parameter.default, Cookie) else repr(parameter.default).replace("'", '"')
        row = re.search(rf"^\| `{parameter.name}` \|.*$", page, re.M)
        if row and parameter.name not in ("secret", "store", "genid", "clock"):
            assert f" `{default}` |" in row[0]


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


def test_what_the_page_on_performance_says_in_words_was_measured() -> None:
    """`python -m bench report` writes the tables, and not the sentences before them."""
    results = json.loads((ROOT / "bench" / "results.json").read_text())
    began = re.findall(r"Measured on (\S+ \S+) with", (page := (ROOT / "docs" / "performance.md").read_text()))
    times = [datetime.fromisoformat(time) for time in began]
    costs, under_a_server = report.costs(results["inprocess"]), report.added(results["insitu"])
    ours, django = (median(under_a_server[name]["read"]) for name in ("minisession", "django"))

    def share(scenario: str, peer: str) -> float:
        return costs["minisession"][scenario].value / costs[peer][scenario].value

    assert "measured in one run" in page
    assert len(times) == len(results) - 1  # what libraries keep is on another page
    assert max(times) - min(times) < timedelta(hours=2)
    assert "less than half of what\nit costs with Django, Beaker or Flask-Session" in page
    assert max(share("read", peer) for peer in ("django", "beaker", "flask-session")) < 0.5
    assert "about sixteen microseconds" in page
    assert ours == pytest.approx(16, abs=1)
    assert "seven tenths of Django's" in page
    assert ours / django == pytest.approx(0.7, abs=0.05)
    assert "a third of Django's, and about half as much\nagain as express-session's" in page
    assert share("login", "django") == pytest.approx(1 / 3, abs=0.05)
    # Its own figure varies by a tenth from run to run, with V8's collector.
    assert share("login", "express-session") == pytest.approx(1.5, abs=0.15)


def test_it_is_short() -> None:
    """What it is and why stand above the fold."""
    lines = README.read_text().splitlines()
    assert len(lines) < 130
    assert lines.index("## Use it") < 45


@pytest.mark.parametrize("page", [README, DEMO], ids=["README", "demo"])
def test_its_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []
