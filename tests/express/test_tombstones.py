"""What connect-redis itself makes of what a new id leaves in Redis, asked by its own methods."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ..support import sides
from ..support.redis_server import RedisServer, redis_server  # skips where redis-py is not installed
from ..support.tools import need_program

from minisession.stores.redis import RedisStore  # isort: skip

ASK = """
const { RedisStore } = require("connect-redis");
const { createClient } = require("redis");
(async () => {
    const client = createClient({ url: process.argv[1] });
    await client.connect();
    const store = new RedisStore({ client });
    const ask = (method, ...given) =>
        new Promise((done, failed) => store[method](...given, (error, found) => (error ? failed(error) : done(found))));
    console.log(JSON.stringify({
        old: (await ask("get", "old")) ?? null,
        new: await ask("get", "new"),
        all: await ask("all"),
        ids: await ask("ids"),
        length: await ask("length"),
    }));
    await client.quit();
})();
"""

RECORD = {"cookie": {"originalMaxAge": None, "path": "/"}, "n": 1}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def asked(server: RedisServer) -> dict[str, Any]:
    """Return what connect-redis finds."""
    found: dict[str, Any] = json.loads(
        subprocess.run(
            [need_program("node"), "-e", ASK, server.url],
            env={"NODE_PATH": sides.node_modules()},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
    )
    return found


@pytest.mark.parametrize("inherits", [True, False])
def test_to_connect_redis_a_tombstone_is_no_session_and_counts_for_15_seconds(
    server: RedisServer, *, inherits: bool
) -> None:
    """`get` and `all` read it as nothing; `ids` and `length` count keys, and do not look into them."""
    server.client.flushall()
    store, record = RedisStore(server.url), json.dumps(RECORD).encode()
    store.create("old", record, time.time() + 3600)
    assert store.rotate("old", record, "new", record, time.time() + 3600, inherits=inherits)
    found = asked(server)
    assert (found["old"], found["new"]) == (None, RECORD)
    assert found["all"] == [{**RECORD, "id": "new"}]
    assert (sorted(found["ids"]), found["length"]) == (["new", "old"], 2)
    server.age(15)
    found = asked(server)
    assert (found["old"], found["ids"], found["length"]) == (None, ["new"], 1)
    store.close()
