"""bench/: its sums and its page, and that no peer is measured which is wrong.  The figures are no test's business."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import pytest

from bench import checks, floor, report
from bench.inprocess import SCENARIOS
from bench.processes import Worker
from bench.worker import Site

from ..support.pages import ROOT
from ..support.tools import need_module


def measured(**peers: dict[str, float]) -> dict[str, Any]:
    """Return a result in which sessions cost these µs, on a machine that was busy in every other round."""
    busy = [0.0, 30.0, 5.0, 0.0, 50.0]
    rounds: dict[str, Any] = {
        name: {
            scenario: {"with": [10 + cost + more for more in busy], "without": [10 + more for more in busy]}
            for scenario, cost in scenarios.items()
        }
        for name, scenarios in {**peers, "floor": dict.fromkeys(floor.STEPS, 0.5)}.items()
    }
    lives = {"regenerate": False, "logout": None}
    return {
        "rounds": rounds,
        "checks": {name: {"sent": dict.fromkeys(SCENARIOS, 7), "lives": lives} for name in peers},
        "profile": {scenario: {"wire/record.py": 3, "stores/memory.py": 1, "": 1} for scenario in SCENARIOS},
        "versions": {"minisession": "1.0"},
        "about": {"date": "today", "cpu": "a", "cpus": 2, "load": 0.1, "system": "b", "python": "c"},
    }


OURS = dict.fromkeys(SCENARIOS, 6.0)
THEIRS = dict.fromkeys(SCENARIOS, 40.0)


# The sums


def test_what_slows_down_a_round_does_not_change_the_cost() -> None:
    """With and without sessions are compared within it."""
    cost = report.costs(measured(minisession=OURS))["minisession"]["read"]
    assert (cost.value, cost.apart, str(cost)) == (6.0, 0.0, "6.00")


def test_figures_that_vary_are_marked() -> None:
    result = measured(minisession=OURS)
    result["rounds"]["minisession"]["read"]["with"] = [13, 47, 25, 16, 68]  # 3, 7, 10, 6 and 8 more than without
    assert str(report.costs(result)["minisession"]["read"]) == "7.00~"


def test_the_floor_is_the_sum_of_its_steps() -> None:
    floors = report.floors(measured())
    assert floors["untouched"].value == 0.5
    assert floors["read"].value == 0.5 * len(floor.SCENARIOS["read"]) > 3


def test_every_scenario_has_a_floor_and_every_step_a_use() -> None:
    assert list(floor.SCENARIOS) == list(SCENARIOS)
    assert {step for steps in floor.SCENARIOS.values() for step in steps} == set(floor.STEPS)


def test_every_step_runs() -> None:
    """And what is there without it."""
    steps = floor.Floor()
    assert all(steps.time(step, bare, loops=1) >= 0 for step in floor.STEPS for bare in (False, True))


def test_a_parts_share_of_the_samples_is_its_share_of_the_request() -> None:
    """A request takes 10 µs without the session, and 6 with it; a busy machine's median round 5 more."""
    parts = report.profile(measured(minisession=OURS))["read"]
    assert parts == pytest.approx({"JSON": 21 * 3 / 5, "store": 21 / 5})


# The tables


def test_each_peer_has_its_row_and_ours_is_the_first() -> None:
    costs = report.inprocess_tables(measured(flask=OURS, beaker=THEIRS, minisession=OURS))["costs"].splitlines()
    assert [row.split(" | ")[0] for row in costs] == [
        "| µs", "| ---", "| minisession", "| Beaker", "| Flask, signed cookie",
    ]  # fmt: skip
    assert costs[3] == "| Beaker | 40.0 | 40.0 | 40.0 | 40.0 | 40.0 | 40.0 | 40.0 |"


def test_the_floor_is_beside_us_and_the_best_of_the_others() -> None:
    result = measured(minisession=OURS, beaker=THEIRS, django={**THEIRS, "read": 20.0}, flask=THEIRS)
    row = report.inprocess_tables(result)["floor"].splitlines()[2 + SCENARIOS.index("read")]
    assert row == "| read | 4.00 | 6.00 | 1.5 | Django, cache 20.0 | Flask, signed cookie 40.0 |"


def test_tables_are_made_of_what_there_is() -> None:
    """Of the floor alone, where a developer measures nothing else."""
    assert "minisession" not in report.inprocess_tables(measured())["costs"]


def test_under_a_server_costs_are_compared_within_a_round() -> None:
    """The machine was slow in the second; each app without sessions is beside it."""
    result = {
        "rounds": {
            "minisession": {"bare": [2.0, 4.0, 2.0], "read": [12.0, 24.0, 12.0]},
            "django": {"bare": [50.0, 100.0, 50.0], "read": [70.0, 140.0, 75.0]},
            "beaker": {"bare": [2.0, 4.0, 2.0], "read": [42.0, 84.0, 42.0]},
            "floor": {"bare": [2.0, 4.0, 2.0], "read": [6.0, 12.0, 6.0]},
        }
    }
    rows = report.insitu_tables(result)["costs"].splitlines()
    assert rows[2] == "| minisession | 2.00~ | 10.0~ (2.50) | - |"
    assert rows[4] == "| Django, cache | 50.0~ | 25.0~ (5.00) | 0.50 |"
    assert report.sentence(result) == "25 % of what it does with Beaker and 50 % of what it does with Django"
    assert re.fullmatch(report.SENTENCE, report.sentence(result))


# The page


PAGE = "By hand.\n<!-- bench:a -->\nold<!-- /bench -->\n<!-- bench:b -->\nkept\n<!-- /bench -->\n"


@pytest.mark.parametrize("before", ["old", ""])
def test_only_what_is_between_its_markers_is_replaced(before: str) -> None:
    page = report.fill(PAGE.replace("old", before), {"a": r"new \1"})
    assert page == PAGE.replace("old", "\nnew \\1\n\n")
    assert report.fill(page, {"a": r"new \1"}) == page


def test_a_table_without_a_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in report.PAGES:
        (tmp_path / name).write_text(PAGE)
    with pytest.raises(ValueError, match="bench:inprocess-machine"):
        report.write({"inprocess": measured(minisession=OURS)}, tmp_path)
    assert all((tmp_path / name).read_text() == PAGE for name in report.PAGES)


def test_the_pages_are_made_of_the_results_that_are_committed() -> None:
    """Run ``python -m bench report`` where they are not."""
    results = json.loads((ROOT / "bench" / "results.json").read_text())
    blocks = {name: block for part, result in results.items() for name, block in report.blocks(part, result).items()}
    places = set()
    for name in report.PAGES:
        page = (ROOT / name).read_text()
        assert report.fill(page, blocks) == page
        places.update(re.findall("<!-- bench:(.*) -->", page))
    assert places == set(blocks)


KEPT: dict[str, Any] = {
    "overlap": {"slow_write": {"first": True, "slow": True}, "slow_read": {"first": True, "slow": False}},
    "logout": {page: {"status": 200, "browser": False, "copy": False} for page in ("slow_write", "slow_read")},
    "down": {
        page: {"status": status, "empty": False, "back": True}
        for page, status in (("untouched", 200), ("show", 503), ("write", 503))
    },
}


def changed(found: Any, path: str, value: object) -> Any:
    """Return findings of which one is another."""
    key, _, rest = path.partition(".")
    return {**found, key: changed(found[key], rest, value) if rest else value}


@pytest.mark.parametrize(
    ("path", "value", "column", "cell"),
    [
        ("overlap.slow_write.first", True, 1, "both stay"),
        ("overlap.slow_write.first", False, 1, "**the first is lost**"),
        ("overlap.slow_read.first", True, 2, "it stays"),
        ("overlap.slow_read.first", False, 2, "**it is undone**"),
        ("logout.slow_read.copy", False, 3, "logged out"),
        ("logout.slow_read.copy", True, 3, "**the old cookie works again** by one that reads"),
        ("logout.slow_write.browser", True, 3, "**logged in again** by one that writes"),
        ("down.untouched.status", 200, 4, "answered"),
        ("down.untouched.status", 500, 4, "**500**"),
        ("down.show.status", 503, 5, "503"),
        ("down.show.empty", True, 5, "**200, with an empty session**"),
        ("down.show.back", False, 5, "503; **the cookie is gone**"),
    ],
)
def test_the_comparison_says_what_was_found(path: str, value: object, column: int, cell: str) -> None:
    rows = report.keeps_tables({"found": {"beaker": changed(KEPT, path, value)}})["table"].splitlines()
    assert rows[2].split(" | ")[column].removesuffix(" |") == cell


def test_drawings_say_what_they_show_in_the_colour_of_the_page(tmp_path: Path) -> None:
    need_module("matplotlib")
    report.draw("inprocess", measured(minisession=OURS, beaker=THEIRS), tmp_path)
    (drawing,) = tmp_path.iterdir()
    texts = {element.text for element in ElementTree.parse(drawing).iter("{http://www.w3.org/2000/svg}text")}
    assert {"minisession", "Beaker", "read", "6.00", "40.0"} <= texts
    assert "#010203" not in drawing.read_text()


# What is measured


def asked(**swapped: str) -> Worker:
    """Return a worker in this process, some of whose pages are others than they should be."""
    return cast("Worker", Swapped(**swapped))


class Swapped:
    def __init__(self, **swapped: str) -> None:
        self.site = Site("minisession")
        app = self.site.apps.app

        def other(environ: dict[str, Any], start_response: Any) -> Any:
            page = environ["PATH_INFO"][1:]
            return app({**environ, "PATH_INFO": f"/{swapped.get(page, page)}"}, start_response)

        self.site.apps = self.site.apps._replace(app=other)

    def ask(self, do: str, **question: Any) -> Any:
        return getattr(self.site, do)(**question)


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "sleep", lambda seconds: None)


def test_a_peer_that_is_right_is_measured() -> None:
    found = checks.check(asked(), has_ids=True)
    assert found["lives"] == {"regenerate": False, "logout": False}
    assert [page for page, sent in found["sent"].items() if sent] == ["login", "regenerate", "logout"]


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("login", "the login left"),
        ("write", "a write is not seen"),
        ("regenerate", "no new id"),
        ("logout", "the logout left"),
    ],
)
def test_a_peer_that_is_wrong_is_not(page: str, complaint: str) -> None:
    with pytest.raises(checks.Wrong, match=complaint):
        checks.check(asked(**{page: "untouched"}), has_ids=True)


def test_the_command_measures(tmp_path: Path) -> None:
    """What the figures are is not asked here."""
    need_module("pyperf")
    results = tmp_path / "results.json"
    command = [sys.executable, "-m", "bench", "inprocess", "--quick", "--peers", "minisession", "--output"]
    done = subprocess.run([*command, str(results)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(results.read_text())["inprocess"]
    assert list(found["rounds"]) == ["floor", "minisession"]
    assert set(found["rounds"]["minisession"]) == set(SCENARIOS)
    assert set(found["rounds"]["floor"]) == set(floor.STEPS)
    assert all(len(halves["with"]) == 3 for halves in found["rounds"]["minisession"].values())
    assert report.text("inprocess", found).strip() == done.stdout.strip()
