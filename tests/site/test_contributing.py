"""CONTRIBUTING.md and tools/check: what they name is there, and they agree with each other and with pytest."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ..conftest import LONGEST, STARTING, UNMEASURED
from ..support.pages import ROOT, dead_links
from ..support.tools import need_program

PAGE = ROOT / "CONTRIBUTING.md"
TEXT = PAGE.read_text()
CHECK = (ROOT / "tools" / "check").read_text()


def extras() -> set[str]:
    text = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]\n")[2]
    return set(re.findall(r"^(\w+) = \[", text.partition("\n[")[0], re.M))


def test_its_links_lead_somewhere() -> None:
    assert dead_links(PAGE) == []


def test_every_room_is_on_the_map_and_nothing_else() -> None:
    rooms = TEXT.partition("## The map")[2].partition("\n## ")[0]
    named: set[str] = set()
    for row in re.findall(r"^\| (`.*?) \|", rooms, re.M):
        first, *others = re.findall(r"`([\w/.]+)`", row)
        named |= {first, *(f"{first.rpartition('/')[0]}/{other}" for other in others)}
    package = ROOT / "minisession"
    there = {f"minisession/{path.name}" for path in package.glob("*.py") if not path.name.startswith("__")}
    there |= {f"minisession/{path.parent.name}/" for path in package.glob("*/__init__.py")}

    assert {name for name in named if name.startswith("minisession/")} == there
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_tests_rooms_are_all_named() -> None:
    rooms = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}

    assert [room for room in rooms if not re.search(rf"`[^`]*\b{room}\b[^`]*`", TEXT)] == []


def test_the_marks_are_those_that_tests_have(pytestconfig: pytest.Config) -> None:
    """And each is one that the quick check leaves out."""
    registered = {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    (quick,) = re.findall(r'-m "([^"]*)" \|\| failed=1', CHECK)

    assert set(STARTING) <= registered
    assert set(re.findall(r"not (\w+)", quick)) == set(STARTING)
    assert {
        mark for group in re.findall(r'-m "([^"]*)"', TEXT) for mark in re.findall(r"not (\w+)", group)
    } <= registered


def test_files_that_are_marked_or_begun_first_are_there() -> None:
    tests = ROOT / "tests"
    for mark, patterns in STARTING.items():
        for pattern in patterns:
            path = pattern.partition("::")[0]
            assert "/" not in path or list(tests.glob(path)), f"{mark}: {pattern}"
    assert [path for path in LONGEST + UNMEASURED if not (tests / path).exists()] == []


@pytest.mark.parametrize(
    "page", [PAGE, ROOT / ".ci" / "run", ROOT / "tools" / "check", ROOT / "README.md"], ids=lambda page: page.name
)
def test_what_is_installed_can_be(page: Path) -> None:
    named = {extra for group in re.findall(r"-e '\.\[([\w,]+)\]'", page.read_text()) for extra in group.split(",")}

    assert named - extras() == set()


def test_everything_is_installed_alike() -> None:
    """By CI and by who follows the page."""
    groups = [re.findall(r"-e '\.\[([\w,]+)\]'", text) for text in (TEXT, (ROOT / ".ci" / "run").read_text())]

    assert {max(found, key=len) for found in groups} == {max(groups[0], key=len)}


@pytest.mark.parametrize("script", [".ci/run", "tools/check"])
def test_a_script_is_bash_that_bash_can_read(script: str) -> None:
    done = subprocess.run([need_program("bash"), "-n", str(ROOT / script)], check=False, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    assert (ROOT / script).stat().st_mode & 0o111


def test_without_an_environment_the_check_says_how_to_make_one(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "VIRTUAL_ENV": str(tmp_path)}
    done = subprocess.run(
        [str(ROOT / "tools" / "check"), "--quick"], env=environment, check=False, capture_output=True, text=True
    )

    assert done.returncode == 2
    assert "python3 -m venv .venv" in done.stderr
