"""Tools that not every machine has: without them a test is skipped, and where all must be there, it fails."""

from __future__ import annotations

import importlib
import os
import shutil
from typing import Any, NoReturn

import pytest


def need_program(*names: str, package: str = "") -> str:
    """Return the path of the first of these programs that there is; Debian's ``package`` has it."""
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        missing(f"no {' or '.join(names)} on the PATH" + (f": apt-get install {package}" if package else ""))
    return path


def need_module(name: str) -> Any:
    """Import a module that is no dependency of ours."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing(f"no module {name}: {error}")


def need_folder(path: str, command: str) -> str:
    """Return the path of a folder that ``command`` makes."""
    if not os.path.isdir(path):
        missing(f"no folder {path}: run {command}")
    return path


def need_file(path: str, package: str) -> str:
    """Return the path of a file that Debian's ``package`` has."""
    if not os.path.exists(path):
        missing(f"no file {path}: install {package}")
    return path


def missing(what: str) -> NoReturn:
    """Skip the test, or fail it where all must be there."""
    if os.environ.get("MINISESSION_REQUIRE_TOOLS"):
        pytest.fail(f"{what}, and MINISESSION_REQUIRE_TOOLS is set")
    pytest.skip(what, allow_module_level=True)
