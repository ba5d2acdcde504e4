"""A store that breaks at one of its calls, in the ways in which stores break."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from minisession import StoreUnavailable

Fault = Callable[..., Any]
"""What happens in the place of a call: gets the store's method, and its arguments."""


def refuses(method: Callable[..., Any], *arguments: Any) -> NoReturn:
    """Do nothing, and say so."""
    raise StoreUnavailable("nothing was done")


def does_it_and_fails(method: Callable[..., Any], *arguments: Any) -> NoReturn:
    """Lose the answer on its way."""
    method(*arguments)
    raise StoreUnavailable("something was done")


def does_it_and_denies(method: Callable[..., Any], *arguments: Any) -> bool:
    """Answer that it was too late: as a client does that sends again what was done, and whose answer it lost."""
    method(*arguments)
    return False


def has_a_bug(method: Callable[..., Any], *arguments: Any) -> NoReturn:
    """Raise what no store may raise."""
    raise ZeroDivisionError("a bug in the store")


class Faulty:
    """Passes on every call but one, by its number, or that one and all that follow."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.verbs: list[str] = []  # of the calls so far
        self.broken: Callable[[int], bool] = lambda number: False
        self.fault: Fault = refuses
        self.after_each: Callable[[], object] = lambda: None

    def break_at(self, number: int, fault: Fault, *, for_good: bool = False) -> None:
        self.fault = fault
        self.broken = lambda now: now >= number if for_good else now == number

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        method = getattr(self.store, verb)

        def call(*arguments: Any, **more: Any) -> Any:
            self.verbs.append(verb)
            if self.broken(len(self.verbs) - 1):
                return self.fault(partial(method, **more), *arguments)
            answer = method(*arguments, **more)
            self.after_each()
            return answer

        return call
