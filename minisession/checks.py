"""Checks of options, all with the same wording: each names the option and what was given."""

from __future__ import annotations

from typing import Any

# A lifetime in milliseconds, as records hold it, must still be a number.
_MOST_SECONDS = 1e297
# A longer integer cannot even be shown: CPython refuses to print more than 4,300 digits.
_LONGEST_SHOWN_BITS = 14_000


def seconds(name: str, value: Any) -> None:
    """Raise unless ``value`` is a positive, finite number of seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not 0 < value < _MOST_SECONDS:
        raise ValueError(f"{name} must be a finite number of seconds above 0, not {_shown(value)}")


def count(name: str, value: Any) -> None:
    """Raise unless ``value`` is an int of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {_shown(value)}")


def flag(name: str, value: Any) -> None:
    """Raise unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def function(name: str, value: Any) -> None:
    """Raise unless ``value`` can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {value!r}")


def _shown(value: float) -> str:
    if isinstance(value, int) and value.bit_length() >= _LONGEST_SHOWN_BITS:
        return "one of thousands of digits"
    return repr(value)
