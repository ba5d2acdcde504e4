"""What tests count is shown at the end of every run, passed or not; and no test fails for being slow."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings

settings.register_profile("no deadline", deadline=None)  # machines are busy, and no promise is about them
settings.load_profile("no deadline")

COUNTED = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def count(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Show a line at the end of the run."""
    return pytestconfig.stash.setdefault(COUNTED, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Pytest calls it after the last test."""
    if lines := config.stash.get(COUNTED, []):
        terminalreporter.section("what the tests counted")
        for line in lines:
            terminalreporter.line(line)
