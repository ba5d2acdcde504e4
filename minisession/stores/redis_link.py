"""From what `RedisStore` is given to a link: a `Node`, or a `Cluster` of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    from redis import ConnectionPool, Redis
    from redis.cluster import RedisCluster

    from .redis_cluster import Address, Cluster
    from .redis_node import Node
    from .redis_url import Limits, must_have_files, must_not_decode, target
except ImportError as error:
    if (error.name or "").partition(".")[0] != "redis":
        raise
    raise ImportError(
        "RedisStore needs redis-py, the package redis, from version 5 on:"
        f" pip install 'redis>=5' ({error})"
    ) from error

Look = Callable[[object], None]


def connect(
    url_or_client: str | Redis | RedisCluster,
    limits: Limits,
    monotonic: Callable[[], float],
    look: Look,
) -> Node | Cluster:
    """Return a link; nothing is sent yet, so that an app starts while its Redis does.

    Args:
        url_or_client: as `RedisStore`'s.
        limits: where it is a URL.
        monotonic: the time.
        look: is shown what each node says of its memory.
    """
    limits.check()
    seconds = sum(limits[:3])
    if isinstance(url_or_client, Redis):
        pool = url_or_client.connection_pool
        must_not_decode(pool.connection_kwargs)
        return Node(pool, seconds, monotonic, look)
    if isinstance(url_or_client, RedisCluster):
        return _like(url_or_client, seconds, monotonic, look)
    if not isinstance(url_or_client, str):
        raise TypeError(
            "a URL, a redis.Redis or a redis.cluster.RedisCluster is needed, not"
            f" {type(url_or_client)}"
        )
    seeds, seconds, pools = target(url_or_client, limits)
    if not seeds:
        return Node(pools(), seconds, monotonic, look, pools)

    def make(address: Address) -> Node:
        def renew() -> ConnectionPool:
            return pools(host=address[0], port=address[1])

        return Node(renew(), seconds, monotonic, look, renew)

    return Cluster(seeds, seconds, monotonic, make)


def _like(
    client: RedisCluster, seconds: float, monotonic: Callable[[], float], look: Look
) -> Cluster:
    """Return a link to the Cluster that a client knows, by connections like the client's."""
    # Its types are partial.
    known: Any = client
    options: dict[str, Any] = known.get_connection_kwargs()
    must_not_decode(options)
    must_have_files(options)

    def make(address: Address) -> Node:
        def renew() -> ConnectionPool:
            named = {**options, "host": address[0], "port": address[1]}
            # From a URL, it has a class of connections, which redis.Redis does not take.
            if "connection_class" in options:
                return ConnectionPool(**named)
            return Redis(**named).connection_pool

        return Node(renew(), seconds, monotonic, look, renew)

    seeds = [(node.host, node.port) for node in known.get_nodes()]
    return Cluster(seeds, seconds, monotonic, make, known.nodes_manager.address_remap)
