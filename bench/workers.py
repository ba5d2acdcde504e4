"""The processes that are measured, one for each peer: see worker.py."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from .driving import OTHERS
from .peers import DATA, NODE, SECRET, USER

HERE = Path(__file__).parent
NODE_SITE = {"BENCH_SITE": json.dumps({"SECRET": SECRET, "USER": USER, "DATA": DATA, "OTHERS": OTHERS})}
"""What Node's programs need in their environment."""


class Missing(Exception):
    """The peer is not installed."""


class Worker:
    """A peer's process, or the floor's.

    Raises:
        Missing: it does not start.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+")  # not a pipe, which blocks when it is full
        command = [sys.executable, "-W", "ignore", "-m", "bench.worker", name]
        if name in NODE:
            command = ["node", str(HERE / "node" / "worker.js"), name]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                cwd=HERE.parent,
                env={**os.environ, **NODE_SITE},
                text=True,
            )
        except FileNotFoundError as error:
            raise Missing(f"{error.filename} is not installed") from error
        try:
            self.versions: dict[str, str] = self._receive()
        except RuntimeError as error:
            raise Missing(str(error)) from error

    def ask(self, do: str, **command: Any) -> Any:
        """Have a command carried out, and return its result.

        Raises:
            RuntimeError: the process has died; with the last line that it wrote.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **command}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # _receive() tells why
        return self._receive()

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"{self.name} has ended: {_reason(self._errors.read())}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()



def _reason(errors: str) -> str:
    """Return the line of a traceback, Python's or Node's, that says what happened."""
    lines = errors.splitlines() or ["it said nothing"]
    named = [line for line in lines if re.match(r"\w*Error\b", line)]
    return (named or lines)[-1]
