"""Servers: in processes of their own, and in a thread of this one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .tools import need_module

ROOT = Path(__file__).parents[2]
SOON = 20  # seconds, within which a process is up


@contextmanager
def waitress_process(app: str, **environ: str) -> Iterator[int]:
    """Serve ``module:app`` with ``waitress-serve``; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "waitress", f"--listen=127.0.0.1:{port}", "--threads=8", app],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + SOON
        while not listens(port):
            assert process.poll() is None, f"{app} ended at once"
            assert time.monotonic() < until, f"{app} does not come up"
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(SOON)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve ``app`` on a free port of this machine; the value is its address."""
    sockets: dict[int, Any] = {}
    server = need_module("waitress.server").create_server(app, host="127.0.0.1", port=0, map=sockets)
    close_all = need_module("waitress.wasyncore").close_all
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}"
    finally:
        server.trigger.pull_trigger(lambda: close_all(sockets))  # in its own thread, which then ends
        thread.join()
        server.task_dispatcher.shutdown()
