"""Which rows of ``docs/security-rows.md``, and which promises of ``docs/security.md``, a test keeps: ``@row("W3")``.

``pytest --row W3`` runs one row's tests, and ``tests/site/test_security_docs.py`` compares the marks with the pages.
"""

from __future__ import annotations

import pytest

row = pytest.mark.row


def rows_of(item: pytest.Item) -> set[str]:
    return {id for mark in item.iter_markers("row") for id in mark.args}


def keep_rows(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what ``--row`` does not ask for."""
    if wanted := {*config.getoption("row")}:
        config.hook.pytest_deselected(items=[item for item in items if not wanted & rows_of(item)])
        items[:] = [item for item in items if wanted & rows_of(item)]
