"""One peer, or the floor, in a process of its own: ``python -m bench.worker NAME``.

Commands are lines of JSON on stdin, their results lines of JSON on stdout; the first line is the versions.
``node/worker.js`` is the same for Node.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from importlib.metadata import version
from itertools import repeat
from typing import Any

from .driving import OTHERS, carrying, pair, seconds, send
from .floor import Floor
from .peers import PEERS, make
from .sampling import Sampler


class Site:
    """A peer's two apps."""

    def __init__(self, name: str) -> None:
        self.apps = make(name)
        self.versions = {package: version(package) for package in PEERS[name].packages}

    def request(self, path: str, cookie: str | None, bare: bool) -> dict[str, Any]:
        """Send one request, with this ``name=value`` as our cookie."""
        return send(self.apps.bare if bare else self.apps.app, path, carrying(cookie))._asdict()

    def time(self, scenario: str, bare: bool, loops: int) -> float:
        """Return the seconds that ``loops`` requests take, after a tenth of that to warm up."""
        app = self.apps.bare if bare else self.apps.app
        path = path_of(scenario)
        seconds(app, path, self._cookies(scenario, loops // 10))
        took = seconds(app, path, self._cookies(scenario, loops))
        self.apps.clear()
        return took

    def profile(self, scenario: str, loops: int) -> dict[str, int]:
        """Return where ``loops`` requests spend their time, in samples."""
        cookies = self._cookies(scenario, loops)
        with Sampler() as sampler:
            seconds(self.apps.app, path_of(scenario), cookies)
        self.apps.clear()
        return dict(sampler.counts)

    def _cookies(self, scenario: str, loops: int) -> Iterable[str]:
        if scenario in ("untouched", "login"):
            return repeat(OTHERS, loops)
        if scenario in ("regenerate", "logout"):
            return [self._logged_in() for _ in range(loops)]
        return repeat(self._logged_in(), loops)

    def _logged_in(self) -> str:
        set_cookie = send(self.apps.app, "/login", OTHERS).set_cookie
        assert set_cookie is not None
        return carrying(pair(set_cookie))


def path_of(scenario: str) -> str:
    """Return the page that a scenario visits."""
    return "/untouched" if scenario == "cookie" else f"/{scenario}"


def main(name: str) -> None:
    """Answer commands until there are no more."""
    place: Any = Floor() if name == "floor" else Site(name)
    print(json.dumps(place.versions), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(getattr(place, command.pop("do"))(**command)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
