"""`RedisStore` with the oldest redis-py that `pyproject.toml` names, with the newest, and with hiredis' parser.

Each is installed into a folder of its own, and the tests of the contract, of links and of faults run with it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from ..support.tools import missing, need_module

need_module("redis")  # the tests that are run need it, whichever it is

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

WHAT = ("TestByURL", "TestByClient", "TestContract", "test_redis_link")
"""Of test_redis_store, test_redis_cluster and test_redis_link: the contract, and all that touches redis-py."""


def oldest() -> str:
    found = re.search(r'^redis = \["redis>=([0-9.]+)"\]$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    return f"redis=={found[1]}"


PACKAGES = (oldest(), "redis", "redis[hiredis]")

Runs = dict[str, "Future[tuple[str, subprocess.CompletedProcess[str]]]"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Run them side by side, as they wait more than they work."""
    with ThreadPoolExecutor() as threads:
        yield {package: threads.submit(run, package, tmp_path_factory.mktemp("redis-py")) for package in PACKAGES}


def run(package: str, folder: Path) -> tuple[str, subprocess.CompletedProcess[str]]:
    """Return what was installed, and how the tests ended."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", str(folder)]
    installed = subprocess.run([*pip, package], capture_output=True, text=True, check=False, timeout=300)
    if installed.returncode != 0:
        missing(f"pip cannot install {package}: {installed.stderr[-200:]}")
    tests = [str(HERE / f"test_redis_{name}.py") for name in ("store", "cluster", "link")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::DeprecationWarning"]
    command += ["-o", "faulthandler_timeout=120"]
    ran = subprocess.run(
        [*command, "-k", f"({' or '.join(WHAT)}) and not LeastRights", *tests],
        cwd=ROOT,
        # Without what this run was told, such as how much of the package is to be covered.
        env={**os.environ, "PYTEST_ADDOPTS": "", "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    version = next(path.name for path in folder.glob("redis-*.dist-info"))
    return version.removesuffix(".dist-info"), ran


@pytest.mark.parametrize("package", PACKAGES)
def test_with_this_redis_py_the_contract_is_kept_on_one_node_and_on_a_cluster(
    package: str, runs: Runs, count: Callable[[str], None]
) -> None:
    version, ran = runs[package].result()
    count(f"{package}, {version}: {ran.stdout.strip().splitlines()[-1]}")
    assert ran.returncode == 0, ran.stdout
