"""When and on what something was measured."""

from __future__ import annotations

import platform
from typing import Any

import pyperf


def about() -> dict[str, Any]:
    """Return what a reader needs to know of the machine, and nothing that names it."""
    found = pyperf.Run([1.0]).get_metadata()  # pyperf knows where each system keeps it
    return {
        "date": found["date"][:16],
        "cpu": found.get("cpu_model_name", platform.machine()),
        "cpus": found["cpu_count"],
        "load": found.get("load_avg_1min"),
        "system": _system(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return f"{platform.system()} {platform.release()}"
