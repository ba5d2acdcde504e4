"""Ports of the loopback for servers that cannot say which one the system gave them."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

_ports = iter(random.sample(range(20_000, 30_000), 1000))  # of which systems give none to clients


def free_port() -> int:
    """Return a port that nothing has, and that no other call returns, in other processes either.

    It is held until this process ends, also while its server is not up yet, or is down.
    """
    for port in _ports:
        held = socket.socket()
        with suppress(OSError):
            held.bind(("127.0.0.1", port))
            # Servers say the same, and may then have it: nothing listens here.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.detach()  # stays open
            return port
        held.close()
    raise OSError("no free port")
