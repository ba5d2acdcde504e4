"""Where minisession spends its time: a sampling profiler.

A tracing one would slow down short functions most, and there is little else.
"""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import minisession

EVERY = 0.0005  # seconds; of the clock, because the kernel counts CPU time in steps of 4 ms

PACKAGE = str(Path(minisession.__file__).parent)


class Sampler:
    """Counts, while it is entered, where the process is: in which file of minisession, or outside (``""``).

    What the standard library does is done for whoever called it.  Runs in the main thread.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Sampler:
        signal.signal(signal.SIGALRM, self._sample)
        signal.setitimer(signal.ITIMER_REAL, EVERY, EVERY)
        return self

    def __exit__(self, *_: Any) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _sample(self, number: int, frame: FrameType | None) -> None:
        while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
            frame = frame.f_back
        self.counts[frame.f_code.co_filename.removeprefix(PACKAGE + "/") if frame else ""] += 1
