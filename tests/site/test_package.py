"""What pip installs: the package alone, the same bytes from the same sources, and it works on a bare interpreter."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from ..support.pages import dead_links
from ..support.tools import need_module

ROOT = Path(__file__).parents[2]


def build(project: Path, out: Path) -> tuple[Path, Path]:
    """Build a sdist, and a wheel from it."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(project)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1800000000"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    [sdist], [wheel] = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    need_module("build")
    need_module("hatchling")
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture
def wheel(built: tuple[Path, Path]) -> Path:
    return built[1]


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def test_the_wheel_holds_minisession_alone(wheel: Path) -> None:
    """No demo and no tests in other people's site-packages; the types are there."""
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.split("/")[0].removesuffix(".dist-info").partition("-")[0] for name in names} == {"minisession"}
    assert "minisession/py.typed" in names
    assert "minisession/wire/signing.py" in names


def test_the_wheel_needs_nothing(wheel: Path) -> None:
    """Everything else is an extra."""
    needs = metadata(wheel).get_all("Requires-Dist", [])

    assert needs
    assert all("extra ==" in need for need in needs)


def test_the_wheel_works_on_a_bare_interpreter(wheel: Path) -> None:
    """Straight from the file, with no site-packages in sight."""
    code = f"import sys; sys.path.insert(0, {str(wheel)!r}); from minisession import *; print(get_session.__module__)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)

    assert (done.stdout.strip(), done.stderr) == ("minisession.middleware", "")


def test_the_same_sources_make_the_same_bytes(built: tuple[Path, Path], tmp_path: Path) -> None:
    """From the sdist, in another folder, by somebody with another umask and another clock."""
    sdist, _ = built
    shutil.unpack_archive(sdist, tmp_path)
    [project] = tmp_path.iterdir()
    for path in project.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
        os.utime(path, (1e9, 1e9))

    again = build(project, tmp_path / "again")

    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in built]


def test_an_index_would_take_it(built: tuple[Path, Path]) -> None:
    """Its metadata are valid, and its README can be shown."""
    need_module("twine")
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_readme_leads_somewhere_in_the_sdist_too(built: tuple[Path, Path], tmp_path: Path) -> None:
    """Where there is no repository around it: all pages and the picture come along."""
    shutil.unpack_archive(built[0], tmp_path)
    [project] = tmp_path.iterdir()

    assert dead_links(project / "README.md") == []


def test_the_version_is_in_one_place(wheel: Path) -> None:
    """The changelog knows it, or what comes next."""
    version = metadata(wheel)["Version"]
    sources = [*(ROOT / "minisession").rglob("*.py"), *(ROOT / "demo").rglob("*.py")]

    assert f'\nversion = "{version}"\n' in (ROOT / "pyproject.toml").read_text()
    assert [path for path in sources if version in path.read_text() or "__version__" in path.read_text()] == []
    [newest, *_] = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest in ("Unreleased", version)
