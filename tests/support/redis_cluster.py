"""A Redis Cluster of the tests' own: three masters and a replica of each, on the loopback."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from .ports import free_port
from .redis_server import SOON, RedisServer, redis_server
from .tools import need_program

NODE_TIMEOUT = 1000  # milliseconds without an answer, and a replica takes its master's place


class RedisCluster:
    """Six servers, of which one can be killed."""

    def __init__(self, servers: list[RedisServer]) -> None:
        self.servers = servers
        self.url = f"redis+cluster://127.0.0.1:{servers[0].port}"

    def create(self) -> None:
        """Make a cluster of the servers, and wait until all of them know it."""
        addresses = [f"127.0.0.1:{server.port}" for server in self.servers]
        command = [need_program("redis-cli"), "--cluster", "create", *addresses, "--cluster-replicas", "1"]
        done = subprocess.run([*command, "--cluster-yes"], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        wait_until(lambda: all(self.is_whole(server) for server in self.servers))

    def is_whole(self, seen_by: RedisServer) -> bool:
        info: dict[str, Any] = seen_by.client.execute_command("CLUSTER INFO")
        linked = all(node["connected"] for node in self.nodes(seen_by).values())
        in_step = seen_by.client.info("replication").get("master_link_status", "up") == "up"
        return info["cluster_state"] == "ok" and linked and in_step and len(self.masters(seen_by)) == 3

    def nodes(self, seen_by: RedisServer) -> dict[str, dict[str, Any]]:
        nodes: dict[str, dict[str, Any]] = seen_by.client.execute_command("CLUSTER NODES")
        return nodes

    def masters(self, seen_by: RedisServer) -> dict[int, list[list[str]]]:
        """Return each master's port and slots."""
        return {
            int(address.rpartition(":")[2]): node["slots"]
            for address, node in self.nodes(seen_by).items()
            if "master" in node["flags"] and "fail" not in node["flags"]
        }

    def master_of(self, key: str) -> RedisServer:
        seen_by = next(server for server in self.servers if server.answers())
        slot = seen_by.client.execute_command("CLUSTER KEYSLOT", key)
        for port, slots in self.masters(seen_by).items():
            if any(int(span[0]) <= slot <= int(span[-1]) for span in slots):
                return next(server for server in self.servers if server.port == port)
        raise LookupError(f"no master has slot {slot}")

    def commands(self) -> dict[str, int]:
        """How often each command was called since `forget`, on all nodes together, replication aside."""
        total: dict[str, int] = {}
        for port in self.masters(self.servers[0]):
            server = next(server for server in self.servers if server.port == port)
            for name, calls in server.commands().items():
                total[name] = total.get(name, 0) + calls
        return total


def wait_until(true: Callable[[], bool], seconds: float = 2 * SOON) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


@contextmanager
def redis_cluster() -> Iterator[RedisCluster]:
    with ExitStack() as stack:
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT)]
        options += ["--cluster-require-full-coverage", "no"]  # or all slots are down while one master is
        options += ["--repl-diskless-sync-delay", "0"]
        servers = [stack.enter_context(redis_server(*options, "--cluster-port", str(free_port()))) for _ in range(6)]
        cluster = RedisCluster(servers)
        cluster.create()
        yield cluster
