"""Opening a store by its URL, for settings that are text."""

from __future__ import annotations

from .base import ListingStore
from .memory import MemoryStore
from .sqlite import SQLiteStore

_REDIS = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")


def open_store(url: str) -> ListingStore:
    """Open the store that ``url`` names, as found in a setting or an environment variable.

    | URL | store |
    | --- | --- |
    | `memory:` | `MemoryStore` |
    | `sqlite:///sessions.db` | `SQLiteStore`, relative to the working directory |
    | `sqlite:////var/s.db` | `SQLiteStore`, absolute; the path is taken as it is |
    | `redis://host:6379/0` | `RedisStore`; also `rediss://` (TLS), `unix://path` |
    | `redis+cluster://host` | `RedisStore` on a Redis Cluster, found by any node |

    Raises:
        TypeError, ValueError: the URL names no store.  It is not repeated: it may hold a password.
        ImportError: ``redis://`` without the extra ``minisession[redis]``.
        StoreUnavailable: the store exists, but does not open.
    """
    if not isinstance(url, str):
        raise TypeError(f"a store's URL is str, not {type(url).__name__}")
    if url == "memory:":
        return MemoryStore()
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite" and rest.startswith("///") and len(rest) > len("///"):
        return SQLiteStore(rest.removeprefix("///"))
    if scheme in _REDIS and rest.startswith("//"):
        # Here, because redis-py is an extra.
        from .redis import RedisStore

        return RedisStore(url)
    raise ValueError(
        "not the URL of a store: use one of memory:, sqlite:///file, sqlite:////folder/file,"
        " redis://, rediss://, unix://, redis+cluster://"
    )
