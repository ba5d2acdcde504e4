"""A redis-server of the tests' own, and a wire to it that can be cut: on free ports of the loopback, in a temp dir."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .ports import free_port
from .tools import need_module, need_program

need_module("redis")  # tests that import from here are skipped without it

from redis import AuthenticationError, Redis  # noqa: E402  # after need_module
from redis import ConnectionError as RedisConnectionError  # noqa: E402  # after need_module
from redis.backoff import NoBackoff  # noqa: E402  # after need_module
from redis.retry import Retry  # noqa: E402  # after need_module

SOON = 10  # seconds, within which what is to happen has happened, or never will


class RedisServer:
    """One redis-server: it can be killed, paused, started again, configured and watched."""

    def __init__(self, *options: str, program: str | None = None) -> None:
        self.program = program or need_program("redis-server")
        self.folder = tempfile.mkdtemp(prefix="minisession-redis-")
        self.port = free_port()
        self.options = options
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.socket = f"{self.folder}/socket"
        self.client: Any = Redis(port=self.port, socket_timeout=SOON, retry=Retry(NoBackoff(), 0))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str, wait: bool = True) -> None:
        """Start it, also again: what it kept on disk it has again."""
        self.process = subprocess.Popen(
            [
                *(self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.socket),
                *("--dir", self.folder, "--save", "", "--logfile", "log", *self.options, *options),
            ],
            stdin=subprocess.DEVNULL,
        )
        until = time.monotonic() + SOON
        while wait and not self.answers():
            assert self.process.poll() is None, "redis-server ended at once"
            assert time.monotonic() < until
            time.sleep(0.005)

    def answers(self) -> bool:
        """Tell whether it is up, if only to ask for a password."""
        try:
            self.client.ping()
        except AuthenticationError:
            return True
        except RedisConnectionError:
            return False
        return True

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """Make it answer nobody; its sockets stay open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.client.close()
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def age(self, seconds: float) -> None:
        """Let time pass, for what has a TTL."""
        for key in self.client.scan_iter(count=1000):
            left = self.client.pttl(key)
            if left >= 0:
                self.client.pexpire(key, left - round(seconds * 1000))  # what is below zero is deleted

    @contextmanager
    def watched(self) -> Iterator[list[list[str]]]:
        """Collect the commands that it is sent meanwhile, with those of scripts, each split into its words."""
        commands: list[list[str]] = []
        with self.client.monitor() as monitor:
            yield commands
            self.client.echo("that is all")
            for entry in monitor.listen():
                if entry["command"] == "ECHO that is all":
                    break
                commands.append(entry["command"].split(" "))

    @contextmanager
    def counted(self) -> Iterator[dict[str, int]]:
        """Count each command that clients and scripts send meanwhile, and as "trips" the reads that it took Redis."""
        count: dict[str, int] = {}
        self.forget()
        before = self._info("stats")["total_reads_processed"]
        yield count
        count["trips"] = self._info("stats")["total_reads_processed"] - before - 1  # this INFO is one
        count.update(self.commands())

    def forget(self) -> None:
        """Count commands from now on."""
        self.client.config_resetstat()

    def commands(self) -> dict[str, int]:
        """Return how often each command was called since `forget`, by clients and by scripts."""
        stats = self._info("commandstats")
        return {
            name.removeprefix("cmdstat_"): command["calls"]
            for name, command in stats.items()
            if name not in ("cmdstat_info", "cmdstat_config|resetstat")
        }

    def _info(self, section: str) -> dict[str, Any]:
        info: dict[str, Any] = self.client.info(section)
        return info


@contextmanager
def redis_server(*options: str, program: str | None = None) -> Iterator[RedisServer]:
    server = RedisServer(*options, program=program)
    try:
        server.start()
        yield server
    finally:
        server.close()


class Cut(Exception):
    """Ends a connection on a `Wire` after these bytes."""


class Wire:
    """A TCP proxy.  Every chunk passes ``sent`` or ``answered``, which may wait, or change it, or raise `Cut`."""

    def __init__(self, port: int) -> None:
        self.to = port
        self.sent: Callable[[bytes], bytes] = bytes
        self.answered: Callable[[bytes], bytes] = bytes
        self.connections = 0
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.connections += 1
                far = socket.create_connection(("127.0.0.1", self.to))
                self._sockets += [near, far]
                for source, target, way in ((near, far, "sent"), (far, near, "answered")):
                    thread = threading.Thread(target=self._carry, args=(source, target, way), daemon=True)
                    thread.start()
                    self._threads.append(thread)

    def _carry(self, source: socket.socket, target: socket.socket, way: str) -> None:
        with suppress(OSError):
            try:
                while chunk := source.recv(65536):
                    target.sendall(getattr(self, way)(chunk))
            except Cut as cut:
                target.sendall(*cut.args)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        # It may just have accepted one more.  Closed before, its number could be another's by now, on which
        # the thread would wait.
        self._threads[0].join(SOON)
        self._listener.close()
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(SOON)
            assert not thread.is_alive()
        for end in self._sockets:
            end.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
