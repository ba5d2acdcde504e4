"""Rounds, and what is made of their figures."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, TypeVar

from .driving import WSGI, seconds

T = TypeVar("T")

Effort = Literal["quick", "short", "full"]
"""How long to measure: to see that it works, twenty minutes for all parts, or an hour."""


class Took(NamedTuple):
    """Seconds: by the clock, and of the CPU, which others that run meanwhile do not add to."""

    wall: float
    cpu: float


def timed(app: WSGI, path: str, cookies: Sequence[str]) -> Took:
    """Send a request with each of these Cookie headers; return how long one takes."""
    cpu = time.process_time()
    wall = seconds(app, path, cookies)
    return Took(wall / len(cookies), (time.process_time() - cpu) / len(cookies))


def shuffled(items: Sequence[T], rounds: int) -> Iterator[T]:
    """Yield all items in each round, each time in another order, so that a busy moment hits none in particular."""
    for _ in range(rounds):
        yield from random.sample(items, len(items))


def median(values: Sequence[float]) -> float:
    """Return it with three significant digits."""
    return significant(statistics.median(values))


def spread(values: Sequence[float]) -> float:
    """Return the distance of the quartiles as a part of the median; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    first, middle, third = statistics.quantiles(values, n=4, method="inclusive")
    return significant((third - first) / abs(middle)) if middle else 0.0


def significant(value: float) -> float:
    """Return a number with three significant digits."""
    return float(f"{value:.3g}")
