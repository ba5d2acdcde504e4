"""Processes of their own, each kept on one CPU, so that what is measured and what measures it share none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

from .driving import OTHERS
from .peers import DATA, SECRET, USER

HERE = Path(__file__).parent
PATIENCE = 10  # seconds for a process to end when it is told to
NODE_SITE = {
    "BENCH_SITE": json.dumps({"SECRET": SECRET, "USER": USER, "DATA": DATA, "OTHERS": OTHERS}),
    "NODE_ENV": "production",
}
"""What Node's programs need in their environment."""


def kept(command: Sequence[str], cpu: int) -> list[str]:
    """Return the command that keeps a command on the first (0) or the second (1) of two CPUs, where it can be."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(usable) < 2 or shutil.which("taskset") is None:
        return list(command)
    return ["taskset", "-c", str(usable[cpu]), *command]


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs one of our modules."""
    return [sys.executable, "-W", "ignore", "-m", f"bench.{module}", *arguments]


def node(script: str, *arguments: str) -> list[str]:
    """Return the command that runs one of our scripts."""
    return ["node", "--expose-gc", str(HERE / "node" / script), *arguments]


@contextmanager
def running(command: Sequence[str], cpu: int, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a process, with pipes, for as long as the block lasts; the options are Popen's."""
    usual = {"stdin": PIPE, "stdout": PIPE, "cwd": HERE.parent, "env": {**os.environ, **NODE_SITE}, "text": True}
    with subprocess.Popen(kept(command, cpu), **{**usual, **options}) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


class Worker:
    """A process that answers questions: each a line of JSON with a verb, ``do``, and its arguments."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, do: str, **arguments: Any) -> Any:
        """Return the answer.

        Raises:
            RuntimeError: the process has ended; it has said why on stderr.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
            return json.loads(self._process.stdout.readline())
        except (BrokenPipeError, ValueError):
            raise RuntimeError(f"{self._process.args!r} has ended at {do}") from None


@contextmanager
def worker(command: Sequence[str], cpu: int, **options: Any) -> Iterator[Worker]:
    """Run a worker for as long as the block lasts; the options are Popen's."""
    with running(command, cpu, **options) as process:
        yield Worker(process)


def answer(site: Any) -> None:
    """Be a worker: answer the questions on stdin by a site's methods, until there are no more."""
    for line in sys.stdin:
        question = json.loads(line)
        print(json.dumps(getattr(site, question.pop("do"))(**question)), flush=True)
