"""What pip installs: the package alone, and it works on a bare interpreter."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from .tools import need_module

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it."""
    need_module("build")
    need_module("hatchling")
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT],
        check=True,
        capture_output=True,
    )
    [wheel] = out.glob("*.whl")
    return wheel


def test_the_wheel_holds_minisession_alone(wheel: Path) -> None:
    """No demo and no tests in other people's site-packages; the types are there."""
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.split("/")[0].removesuffix(".dist-info").partition("-")[0] for name in names} == {"minisession"}
    assert "minisession/py.typed" in names
    assert "minisession/wire/signing.py" in names


def test_the_wheel_needs_nothing(wheel: Path) -> None:
    """Everything else is an extra."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())

    needs = metadata.get_all("Requires-Dist", [])
    assert needs
    assert all("extra ==" in need for need in needs)


def test_the_wheel_works_on_a_bare_interpreter(wheel: Path) -> None:
    """Straight from the file, with no site-packages in sight."""
    code = f"import sys; sys.path.insert(0, {str(wheel)!r}); from minisession import *; print(get_session.__module__)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)

    assert (done.stdout.strip(), done.stderr) == ("minisession.middleware", "")
