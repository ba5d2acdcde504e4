"""A link to a Redis Cluster: a `Node` for each master, and the map of which has which slots.

The map is fetched by the first call, and again, by a thread, whenever a node did not answer or sent
a command on; a MOVED corrects it at once.  No call waits for it but the first.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from math import inf
from time import sleep
from typing import Any

from redis.crc import key_slot
from redis.exceptions import ResponseError

from ..errors import StoreUnavailable
from .redis_deadline import Budget, left
from .redis_gate import PAUSE
from .redis_node import Command, Node
from .redis_replies import Busy, Refusal, checked, code_of, nonsense, redirection

Address = tuple[str, int]

SLOTS = 16384

# Seconds before each redirection of a command is followed, and how many are.
PAUSES = (0, 0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)

# Of a listing, over masters whose slots go on moving.
MAX_PASSES = 8

# Answers after which the map may be out of date.
OUTDATED = ("MOVED", "CLUSTERDOWN", "MASTERDOWN", "READONLY")


class Cluster:
    """A Redis Cluster.

    Args:
        seeds: addresses of some of its nodes, at least one of which answers.
        seconds: the time that a call may take.
        monotonic: the time.
        make: returns a `Node` for an address; nothing is sent yet.
        remap: returns the address under which one that the Cluster names is reached from here.
    """

    together = False

    def __init__(
        self,
        seeds: Sequence[Address],
        seconds: float,
        monotonic: Callable[[], float],
        make: Callable[[Address], Node],
        remap: Callable[[Address], Address] | None = None,
    ) -> None:
        self.budget = Budget(seconds)
        self._seeds, self._now, self._make = seeds, monotonic, make
        self._remap = remap or (lambda address: address)
        self._nodes: dict[Address, Node] = {}
        self._slots: list[Address | None] = []
        # By process: a fork may copy one that never ends.
        self._fetching: dict[int, threading.Event] = {}
        self._refresh_at = 0.0
        # How often: a fetch that is under way must not leave a connection open.
        self._closed = 0

    def run(self, *commands: Command, foreign: bool = False) -> list[Any]:
        """Carry the commands out in this order, neighbours on one node in one round trip.

        Raises:
            StoreUnavailable: all, some or none of them may have been carried out.  `FOREIGN` as in
                `Node`.
        """
        return self.budget.spend(self._run, commands, foreign)

    def _run(self, commands: Sequence[Command], foreign: bool) -> list[Any]:
        replies: list[Any] = []
        for home, neighbours in groupby(commands, self._home):
            asked = list(neighbours)
            answers = self._ask(home, asked)
            pairs = zip(asked, answers, strict=True)
            replies += checked([self._follow(home, *pair) for pair in pairs], foreign)
        return replies

    def batch(self, commands: list[Command]) -> list[Any]:
        """Carry many commands out, node by node; a key of another type is `FOREIGN`."""
        order = sorted(range(len(commands)), key=lambda number: self._home(commands[number]))
        found = self.run(*(commands[number] for number in order), foreign=True)
        replies = dict(zip(order, found, strict=True))
        return [replies[number] for number in range(len(commands))]

    def scan(self, prefix: bytes, type: str) -> Iterator[list[bytes]]:
        """Yield the keys of this type that begin with this, of one master after the other.

        Where slots move meanwhile, a key may have left a master that was not looked at for one that
        was, so all are looked at again, and keys are named twice.

        Raises:
            StoreUnavailable: also where slots go on moving.
        """
        quiet, before = 0, self._layout()
        for _ in range(MAX_PASSES):
            for address in sorted(before):
                yield from self._node(address).scan(prefix, type)
            after = self._layout()
            quiet, before = quiet + 1 if after == before else 0, after
            # The keys of a slot on its way move while the layout stays, but to one side only.
            on_their_way = any(b"[" in slots for slots in after.values())
            if quiet > on_their_way:
                return
        raise StoreUnavailable("Redis Cluster: its slots go on moving; try again when they do not")

    def time(self) -> int:
        """Return in ms what time it is at least on every master that answers."""
        times = []
        for address in self._masters():
            with suppress(StoreUnavailable):
                times.append(self._node(address).time())
        if not times:
            raise StoreUnavailable("Redis Cluster: no master answers")
        return min(times)

    def close(self) -> None:
        """Close all connections."""
        self._closed += 1
        for address in list(self._nodes):
            self._part_with(address)

    # Nodes

    def _home(self, command: Command) -> Address:
        """Return the address of the node that has a command's key."""
        if not self._slots:
            self._fetch_first()
        key = command[3] if command[0] == "EVAL" else command[1]
        slot: int = key_slot(key)
        address = self._slots[slot]
        if address is None:
            self._refresh()
            raise StoreUnavailable(f"Redis Cluster: slot {slot} is not covered by any node")
        return address

    def _node(self, address: Address) -> Node:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes.setdefault(address, self._make(address))
        return node

    def _part_with(self, address: Address) -> None:
        node = self._nodes.pop(address, None)
        if node is not None:
            node.close()

    def _masters(self) -> list[Address]:
        if not self._slots:
            self._fetch_first()
        return list(dict.fromkeys(address for address in self._slots if address is not None))

    def _ask(self, address: Address, commands: Sequence[Command]) -> list[Any]:
        try:
            return self._node(address).ask(commands)
        except Busy:
            raise
        except StoreUnavailable:
            self._refresh()
            raise

    def _follow(self, home: Address, command: Command, reply: Any) -> Any:
        """Go where the Cluster says that the key is (MOVED), or may be already (ASK)."""
        for pause in (*PAUSES, inf):
            if isinstance(reply, ResponseError) and code_of(reply) in OUTDATED:
                self._refresh()
            target = redirection(reply)
            if target is None:
                return reply
            # Until two nodes agree whose the slot is, each sends the command to the other: that is
            # soon over, and takes longer than a few round trips.
            if pause >= left():
                break
            sleep(pause)
            home = self._remap((target.host or home[0], target.port))
            if target.moved and target.slot < SLOTS:
                self._slots[target.slot] = home
            asked = [command] if target.moved else [("ASKING",), command]
            reply = self._ask(home, asked)[-1]
        raise StoreUnavailable("Redis Cluster: a key is being moved")

    # The map

    def _fetch_first(self) -> None:
        """Fetch the map, or wait for the call that does."""
        process, ours = os.getpid(), threading.Event()
        try:
            fetching = self._fetching.setdefault(process, ours)
            if fetching is not ours:
                if not self.budget.spend(lambda: fetching.wait(left())):
                    # A signal may have ended the call that fetched: the next one does.
                    self._fetching.pop(process, None)
            elif not self._slots:
                self._install(self.budget.spend(self._fetch))
        finally:
            if self._fetching.get(process) is ours:
                del self._fetching[process]
                ours.set()
        if not self._slots:
            raise StoreUnavailable("Redis Cluster: the map of its slots has not come")

    def _fetch(self) -> list[Address | None]:
        failed = StoreUnavailable("Redis Cluster: no node is known")
        known = (address for address in self._slots if address is not None)
        for address in dict.fromkeys([*known, *self._seeds]):
            try:
                return self._parsed(self._node(address).run(("CLUSTER", "SLOTS")), address[0])
            except StoreUnavailable as error:  # noqa: PERF203  # the next one may answer
                failed = error
        raise failed

    def _parsed(self, replies: list[Any], host: str) -> list[Address | None]:
        """Return what CLUSTER SLOTS answered; a node without a host has that of the one asked."""
        slots: list[Address | None] = [None] * SLOTS
        match replies:
            case [[*rows]]:
                for row in rows:
                    match row:
                        case [int(first), int(last), [None | bytes() as name, int(port), *_], *_]:
                            named = "" if name in (None, b"?") else name.decode()
                            address = self._remap((named or host, port))
                            slots[first : last + 1] = [address] * (last + 1 - first)
                        case _:
                            raise nonsense()
                if len(slots) == SLOTS:
                    return slots
        raise nonsense()

    def _install(self, slots: list[Address | None]) -> None:
        """Take a new map; drop nodes that it lacks, once their calls have ended."""
        self._slots = slots
        if not self._nodes.keys() <= set(slots):
            later = threading.Timer(self.budget.seconds, self._part_with_others)
            later.daemon = True
            later.start()

    def _part_with_others(self) -> None:
        for address in self._nodes.keys() - set(self._slots):
            self._part_with(address)

    def _refresh(self) -> None:
        """Have the map fetched by a thread: it may ask nodes that are gone, which takes time."""
        now = self._now()
        if self._slots and now >= self._refresh_at:
            # In case the thread is lost, as in a fork.
            self._refresh_at = now + 10
            threading.Thread(target=self._fetch_again, daemon=True).start()

    def _fetch_again(self) -> None:
        closed = self._closed
        with suppress(StoreUnavailable):
            self._install(self._fetch())
        self._refresh_at = self._now() + PAUSE
        if closed != self._closed:
            self.close()

    def _layout(self) -> dict[Address, bytes]:
        """Return of each master which slots it has, and in brackets those on their way."""
        self._install(self._fetch())
        found = {}
        for address in self._masters():
            found[address] = b""
            # Where ACLs forbid it, slots that are on their way are not known.
            with suppress(Refusal):
                [nodes] = self._node(address).run(("CLUSTER", "NODES"))
                found[address] = _own_slots(nodes)
        return found


def _own_slots(nodes: object) -> bytes:
    if isinstance(nodes, bytes):
        for line in nodes.splitlines():
            words = line.split()
            if len(words) >= 8 and b"myself" in words[2]:
                return b" ".join(words[8:])
    raise nonsense()
