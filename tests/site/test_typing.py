"""The types as users meet them: their code is checked as strictly as type checkers can."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.tools import need_module, need_program

ROOT = Path(__file__).parents[2]
OLDEST = "3.10"  # what its typing module lacks, users must not need


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Give the user a project of their own, with nothing of our configuration."""
    package = tmp_path / "project"
    for name in (
        "__init__.py",
        "support/__init__.py",
        "support/plain_store.py",
        "site/__init__.py",
        "site/typed_example.py",
    ):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "tests" / name, package / name)
    return tmp_path


def test_mypy_takes_a_users_code(project: Path) -> None:
    check("mypy", "--strict", "--python-version", OLDEST, "project", project=project)


def test_pyright_takes_a_users_code(project: Path) -> None:
    """It knows more than mypy of what is unknown."""
    need_program("node")  # pyright would download one
    configuration = {
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": "error",
        "pythonVersion": OLDEST,
        "extraPaths": [str(ROOT)],
    }
    (project / "pyrightconfig.json").write_text(json.dumps(configuration))
    check("pyright", "--project", str(project), project=project)


def check(checker: str, *arguments: str, project: Path) -> None:
    need_module(checker)
    command = [sys.executable, "-m", checker, *arguments]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
