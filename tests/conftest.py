"""What all tests share: marks for what needs more than Python, and what they count, shown at the end.

No test fails for being slow.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from .support.rows import keep_rows, rows_of

settings.register_profile("no deadline", deadline=None)  # machines are busy, and no promise is about them
settings.load_profile("no deadline")

COUNTED = pytest.StashKey[list[str]]()

# Which tests start what, by their files, names, rows and fixtures.  `tools/check --quick` leaves all of them out.
STARTING = {
    "browsers": (
        "demo/test_*browser*.py",
        "demo/test_engines.py",
        "site/test_docs_site.py",
        "site/test_testing_page.py::*browser*",
    ),
    "servers": ("wsgi/test_servers*.py", "site/test_deploy*.py", "wsgi/*::test_a_recipe_starts*"),
    "redis": (
        "stores/test_*redis*.py",
        "stores/test_*cluster*.py",
        "core/*::*redis*",
        "wsgi/*::*redis*",
        "users/*::*redis*",
        "demo/*::*[[]redis]",
        "site/*::*Redis]",
        "server",
        "cluster",
        "redis_server",
    ),
    "tools": (
        "express/*.py",
        "site/test_bench*.py",
        "site/test_package.py",
        "site/test_typing.py",
        "stores/test_redis_[ev]*.py",
    ),
    "long": ("core/test_interleavings*.py", "stores/test_sqlite_store*::Q*"),
}

# pytest-xdist has each process take one file after the other.  Those that take longest are begun first, in this order,
# or one process would be left alone with them.
LONGEST = (
    "core/test_interleavings.py",
    "stores/test_memory_store_interrupted.py",
    "site/test_docs_site.py",
    "stores/test_redis_versions.py",
    "demo/test_engines.py",
    "stores/test_redis_engines.py",
    "stores/test_memory_store.py",
    "users/test_sweeps.py",
    "stores/test_redis_cluster.py",
    "stores/test_redis_store.py",
    "stores/test_store_contract.py",
    "core/test_model.py",
    "site/test_deployment.py",
    "stores/test_redis_link.py",
)

# They run the same lines many thousand times, and take twice as long where coverage is measured.
UNMEASURED = ("core/test_interleavings.py", "core/test_model.py", "stores/test_memory_store_interrupted.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Pytest calls it before all else."""
    parser.addoption("--row", action="append", default=[], metavar="ID", help="run the tests of this row, such as W3")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Stop what pytest-cov measures in a process of pytest-xdist's before it knows that it is one.

    It would go on with that where a test is not to be measured.
    """
    if hasattr(session.config, "workerinput") and "coverage" in sys.modules:
        measuring = sys.modules["coverage"].Coverage.current()
        if measuring is not None:
            measuring.stop()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests, and choose those of a row; pytest calls it when it has found them."""
    keep_rows(config, items)
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: LONGEST.index(path_of(item)) if path_of(item) in LONGEST else len(LONGEST))
    for item in items:
        path = path_of(item)
        if path in UNMEASURED:
            item.add_marker("no_cover")
        named = item.name, *rows_of(item)
        names = path, *(f"{path}::{name}" for name in named), *getattr(item, "fixturenames", ())
        for mark, patterns in STARTING.items():
            if any(fnmatch(name, pattern) for name in names for pattern in patterns):
                item.add_marker(mark)


def path_of(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).as_posix()


@pytest.fixture(scope="session")
def count(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Show a line at the end of the run."""
    return pytestconfig.stash.setdefault(COUNTED, []).append


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand on what was counted, if this is one of several processes of pytest-xdist's."""
    output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["counted"] = session.config.stash.get(COUNTED, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what one of them has counted; pytest-xdist calls it."""
    node.config.stash.setdefault(COUNTED, []).extend(getattr(node, "workeroutput", {}).get("counted", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Pytest calls it after the last test."""
    if lines := config.stash.get(COUNTED, []):
        terminalreporter.section("what the tests counted")
        for line in lines:
            terminalreporter.line(line)
