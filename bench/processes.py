"""Processes of their own, each kept on one CPU, so that what is measured and what measures it share none."""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 10  # seconds for a process to end when it is told to


def cpus() -> tuple[int, int] | None:
    """Return two CPUs that may be used; None where processes cannot be kept on them."""
    if not hasattr(os, "sched_getaffinity") or shutil.which("taskset") is None:
        return None
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else None


def kept(command: Sequence[str], cpu: int) -> list[str]:
    """Return the command that keeps a command on the first (0) or the second (1) of the two CPUs."""
    two = cpus()
    return [*([] if two is None else ["taskset", "-c", str(two[cpu])]), *command]


@contextmanager
def running(command: Sequence[str], cpu: int, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a process for as long as the block lasts."""
    process = subprocess.Popen(kept(command, cpu), text=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


class Worker:
    """A process that answers questions, each a line of JSON: a verb and its arguments."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, verb: str, *arguments: Any) -> Any:
        """Return the answer.

        Raises:
            RuntimeError: the process ended; its stderr says why.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps([verb, *arguments]) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, ValueError):
            raise RuntimeError(f"{self.process.args!r} ended at {verb}") from None


@contextmanager
def worker(command: Sequence[str], cpu: int) -> Iterator[Worker]:
    """Run a worker for as long as the block lasts."""
    with running(command, cpu, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Worker(process)


def answer(verbs: Mapping[str, Callable[..., Any]]) -> None:
    """Be a worker: answer the questions on stdin until it ends."""
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        print(json.dumps(verbs[verb](*arguments)), flush=True)


# Rounds


def shuffled(items: Sequence[T], rounds: int) -> Iterator[T]:
    """Yield all items in each round, in another order, so that a busy moment hits no item in particular."""
    for _ in range(rounds):
        yield from random.sample(items, len(items))


def median(values: Sequence[float]) -> float:
    """Return it with three significant digits."""
    return significant(statistics.median(values))


def spread(values: Sequence[float]) -> float:
    """Return the distance of the quartiles as a part of the median; 0 for fewer than three values."""
    if len(values) < 3:
        return 0.0
    first, middle, third = statistics.quantiles(values, method="inclusive")
    return round((third - first) / abs(middle), 3) if middle else 0.0


def significant(value: float) -> float:
    """Return three significant digits of a number."""
    return float(f"{value:.3g}")
