"""One peer, or the floor, in a process of its own: ``python -m bench.worker NAME``.

``node/worker.js`` is the same for Node.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Any

from .driving import OTHERS, carrying, pair, send
from .floor import Floor
from .peers import PEERS, make
from .processes import answer
from .sampling import Sampler
from .timing import timed


class Site:
    """A peer's two apps."""

    def __init__(self, name: str) -> None:
        self.apps = make(name)
        self._peer = PEERS[name]
        self._lasting = ""

    def versions(self) -> dict[str, str]:
        """Return those of the peer's packages."""
        return {package: version(package) for package in self._peer.packages}

    def request(self, path: str, cookie: str | None, bare: bool) -> dict[str, Any]:
        """Send one request, with this ``name=value`` as our cookie."""
        return send(self.apps.bare if bare else self.apps.app, path, carrying(cookie))._asdict()

    def time(self, scenario: str, bare: bool, loops: int) -> float:
        """Return the seconds that a request takes, of ``loops``, after some to warm up.

        They are the CPU's: other programs do not count, and nothing here waits.
        """
        app = self.apps.bare if bare else self.apps.app
        path = path_of(scenario)
        cookies = self._cookies(scenario, loops // 10 + loops, bare)
        timed(app, path, cookies[loops:])
        took = timed(app, path, cookies[:loops])
        self._clear()
        return took.cpu

    def profile(self, scenario: str, loops: int) -> dict[str, int]:
        """Return where ``loops`` requests spend their time, in samples."""
        cookies = self._cookies(scenario, loops, bare=False)
        with Sampler() as sampler:
            timed(self.apps.app, path_of(scenario), cookies)
        self._clear()
        return dict(sampler.counts)

    def _cookies(self, scenario: str, loops: int, bare: bool) -> list[str]:
        if scenario in ("untouched", "login"):
            return [OTHERS] * loops
        if scenario in ("regenerate", "logout") and not bare:
            return [self._logged_in() for _ in range(loops)]
        self._lasting = self._lasting or self._logged_in()
        return [self._lasting] * loops

    def _clear(self) -> None:
        self.apps.clear()
        if self._peer.kind == "server-side":  # others are renewed only when they are some seconds old, as most are
            self._lasting = ""

    def _logged_in(self) -> str:
        set_cookie = send(self.apps.app, "/login", OTHERS).set_cookie
        assert set_cookie is not None
        return carrying(pair(set_cookie))


def path_of(scenario: str) -> str:
    """Return the page that a scenario visits."""
    return "/untouched" if scenario == "cookie" else f"/{scenario}"


if __name__ == "__main__":
    answer(Floor() if sys.argv[1] == "floor" else Site(sys.argv[1]))
