"""The terminal of the command line, or a file or pipe in its place.  Knows nothing of sessions."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TextIO, TypeVar

# Seconds between two lines of progress.
PROGRESS_EVERY = 0.5

T = TypeVar("T")


def printable(text: str) -> str:
    """Return text that moves no cursor and reverses no line: the rest is escaped as in JSON."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


class Console:
    """Three streams, and whether a person is at the other end."""

    def __init__(self, stdin: TextIO, stdout: TextIO, stderr: TextIO) -> None:
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr

    def say(self, line: str) -> None:
        """Print a line of the result; what the stream's encoding lacks is escaped."""
        encoding = self.stdout.encoding or "utf-8"
        self.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")

    def complain(self, text: str) -> None:
        """Print what went wrong."""
        self.stderr.write(f"minisession: {printable(text)}\n")

    def is_attended(self) -> bool:
        """Return whether a question would be seen and could be answered."""
        return self.stdin.isatty() and self.stderr.isatty()

    def confirm(self, question: str) -> bool:
        """Ask; no answer is a no."""
        self.stderr.write(f"{printable(question)} [y/N] ")
        self.stderr.flush()
        return self.stdin.readline().strip().lower() in ("y", "yes")

    def writes_a_file(self) -> bool:
        """Return whether the result goes where it is not seen yet, unlike in a pipe to a pager."""
        # Behind a stream in memory there is no file at all.
        with suppress(OSError, ValueError):
            return stat.S_ISREG(os.fstat(self.stdout.fileno()).st_mode)
        return False

    def progress(self, doing: str, *, shown: bool = True) -> Progress:
        """Show how far a long task is, while the context lasts, if there is a terminal."""
        return Progress(self.stderr if shown and self.stderr.isatty() else None, doing)


class Progress:
    """A line that counts, with the time, and is erased in the end.

    A thread writes it, because some tasks do not say how far they are.
    """

    def __init__(self, terminal: TextIO | None, doing: str) -> None:
        self._done = 0
        self._over = threading.Event()
        self._thread = (
            None
            if terminal is None
            else threading.Thread(target=self._tell, args=(terminal, doing))
        )

    def __enter__(self) -> Progress:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def of(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, and count them."""
        for item in items:
            self._done += 1
            yield item

    def _tell(self, terminal: TextIO, doing: str) -> None:
        began, line = time.monotonic(), ""
        while not self._over.wait(PROGRESS_EVERY):
            count = f" {self._done:,}," if self._done else ""
            line = f"{doing}:{count} {time.monotonic() - began:.0f} s"
            terminal.write(f"\r{line}")
            terminal.flush()
        terminal.write(f"\r{' ' * len(line)}\r" if line else "")
        terminal.flush()
