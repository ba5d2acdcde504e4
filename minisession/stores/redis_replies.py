"""What Redis answers, and what goes wrong: as values, and as `StoreUnavailable`."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from redis import RedisError
from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    MovedError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
    TryAgainError,
)

from ..errors import StoreUnavailable

# In this order: some are others' bases.
_CODES = {
    MovedError: "MOVED",
    AskError: "ASK",
    TryAgainError: "TRYAGAIN",
    ClusterCrossSlotError: "CROSSSLOT",
    MasterDownError: "MASTERDOWN",
    ClusterDownError: "CLUSTERDOWN",
    ReadOnlyError: "READONLY",
}

_REDIRECTION = re.compile(r"(?:(?:MOVED|ASK) )?(\d{1,5}) (\S*):(\d{1,5})")

# A reply, where asked for: the key holds a list, a hash, or another value that is not ours.
FOREIGN = False


class Refusal(StoreUnavailable):
    """Redis answered with an error: nothing of that command was done.

    Attributes:
        code: the error's first word, such as ``OOM``.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Busy(StoreUnavailable):
    """All of the process' connections are in use, which is not a fault of Redis."""


class Redirection(NamedTuple):
    """Where a Cluster sends a command: for good (MOVED), or for this once (ASK)."""

    moved: bool
    slot: int
    host: str
    port: int


def code_of(error: ResponseError) -> str:
    """Return the first word of what Redis answered; redis-py cuts off those that it knows."""
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code
    return str(error).partition(" ")[0]


def redirection(reply: Any) -> Redirection | None:
    """Return where a reply leads; None if it is an answer.  The host is "" where it is the same."""
    code = code_of(reply) if isinstance(reply, ResponseError) else ""
    if code not in ("MOVED", "ASK"):
        return None
    found = _REDIRECTION.fullmatch(str(reply))
    if found is None:
        raise nonsense()
    slot, host, port = found.groups()
    return Redirection(code == "MOVED", int(slot), host.strip("[]?"), int(port))


def checked(replies: list[Any], foreign: bool) -> list[Any]:
    """Return the replies, or raise the first error; with ``foreign``, a WRONGTYPE is `FOREIGN`."""
    for number, reply in enumerate(replies):
        if isinstance(reply, ResponseError):
            if not (foreign and str(reply).startswith("WRONGTYPE")):
                raise Refusal(str(unavailable(reply)), code_of(reply))
            replies[number] = FOREIGN
    return replies


def cursor_and_page(replies: list[Any]) -> tuple[bytes, list[bytes]]:
    """Return what SCAN or ZSCAN answered."""
    match replies:
        case [[bytes(cursor), [*page]]] if all(isinstance(one, bytes) for one in page):
            return cursor, page
    raise nonsense()


def milliseconds(replies: list[Any]) -> int:
    """Return what TIME answered, in ms."""
    match replies:
        case [[bytes(seconds), bytes(micros)]] if seconds.isdigit() and micros.isdigit():
            return int(seconds) * 1000 + int(micros) // 1000
    raise nonsense()


def evicts(reply: object) -> str | None:
    """Return the policy, of what INFO answered, that may evict a user's index before sessions."""
    said = (
        dict(line.split(b":", 1) for line in reply.splitlines() if b":" in line)
        if isinstance(reply, bytes)
        else {}
    )
    policy = said.get(b"maxmemory_policy", b"noeviction").decode()
    limited = said.get(b"maxmemory", b"0") != b"0"
    return policy if limited and policy not in ("noeviction", "volatile-ttl") else None


def nonsense() -> StoreUnavailable:
    """Return the error for a reply that does not fit what was asked."""
    return StoreUnavailable("Redis: it answered what was not asked")


def unavailable(error: Exception) -> StoreUnavailable:
    """Return what is wrong, without the ids and data that an error may quote."""
    # In older versions of redis-py it is part of a cycle, which would keep connections open.
    error.__traceback__ = None
    told = isinstance(error, (RedisError, RedisClusterException))
    told = told and not isinstance(error, InvalidResponse)
    text = str(error).partition(", with args")[0] if told else "no answer that could be understood"
    return StoreUnavailable(f"Redis: {text} ({type(error).__name__})")
