"""Exceptions that end a call at any of its lines, as a signal's handler raises them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container
from contextlib import suppress
from types import FrameType
from typing import Any

from minisession import StoreUnavailable


class Interrupted(BaseException):
    """As raised by a signal's handler."""


def interrupted(call: Callable[[], object], line: int, files: Container[str]) -> bool:
    """Make the call, and raise before the line of this number; False if it ended before.

    The lines of these files count, as they run.
    """
    lines = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            lines += 1
            if lines == line:
                raise Interrupted
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with suppress(Interrupted, StoreUnavailable):
            call()
    finally:
        sys.settrace(before)
    return lines >= line
