"""A real Redis Cluster, two processes behind a client that takes them in turn, and a master that is killed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPException
from itertools import cycle

import pytest

from ..support.redis_cluster import RedisCluster, redis_cluster, wait_until
from ..support.rows import row
from ..support.serving import waitress_process

USERS = 8
PACE = 0.02  # seconds between a user's requests
LIMIT = 2.5  # seconds that the slowest request may take: two calls to a node that hangs, and a busy machine


class User:
    """A visitor whose requests go to the processes in turn, and who writes down what was acknowledged."""

    def __init__(self, name: str, ports: list[int]) -> None:
        self.name, self.cookie = name, ""
        self.ports = cycle(ports)
        self.visits = 0  # acknowledged
        self.answers: list[tuple[float, int, float]] = []  # when, status, seconds it took
        self.lost = 0  # acknowledged visits that are not there any more
        self.strange: list[str] = []

    @property
    def key(self) -> str:
        """Where Redis has the session."""
        return "sess:" + self.cookie.partition("%3A")[2].rpartition(".")[0]

    @property
    def index(self) -> str:
        """Where Redis has the list of the user's sessions."""
        return f"minisession:user:sess:{self.name}"

    def get(self, path: str) -> int:
        connection = HTTPConnection("127.0.0.1", next(self.ports), timeout=10)
        begun = time.monotonic()
        try:
            connection.request("GET", path, headers={"Cookie": self.cookie} if self.cookie else {})
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        self.answers.append((begun, response.status, time.monotonic() - begun))
        self.cookie = (response.getheader("Set-Cookie") or self.cookie).partition(";")[0]
        if response.status == 503:
            if not response.getheader("Retry-After") or response.getheader("Set-Cookie"):
                self.strange.append("503 without Retry-After, or with a cookie")
        elif response.status != 200:
            self.strange.append(f"{response.status} {text}")
        elif path != "/still":
            who, _, visits = text.partition(" ")
            if who != self.name:
                self.strange.append(f"{self.name} was taken for {who}")
            self.lost += max(0, self.visits + 1 - int(visits))
            self.visits = int(visits)
        return response.status


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with redis_cluster() as cluster:
        yield cluster


@pytest.fixture
def ports(cluster: RedisCluster) -> Iterator[list[int]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(waitress_process("tests.support.counting_app:app", SESSION_STORE=cluster.url))
            for _ in range(2)
        ]


@row("C13")
def test_who_logs_in_at_one_process_is_logged_in_at_the_other(ports: list[int]) -> None:
    """And what one counts, the other goes on counting."""
    user = User("ada", ports)
    for path in ("/login/ada", *["/count"] * 9):
        assert user.get(path) == 200

    assert (user.visits, user.strange) == (10, [])


@row("S7", "S8")
def test_a_master_that_is_killed_takes_nobody_along(
    cluster: RedisCluster, ports: list[int], count: Callable[[str], None]
) -> None:
    """Its users get 503 until its replica has taken over; the others notice nothing; nobody sees another's session."""
    users = [User(f"user{number}", ports) for number in range(USERS)]
    still = User("nobody", ports)
    for user in users:
        assert user.get(f"/login/{user.name}") == 200
    over = threading.Event()

    def go(user: User, path: str) -> None:
        try:
            while not over.wait(PACE):
                user.get(path)
        except (OSError, HTTPException) as error:
            user.strange.append(repr(error))

    threads = [threading.Thread(target=go, args=(user, "/count")) for user in users]
    threads.append(threading.Thread(target=go, args=(still, "/still")))
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: all(len(user.answers) > 20 for user in users))
        victim = cluster.master_of(users[0].key)
        struck = {user.name for user in users if victim in map(cluster.master_of, (user.key, user.index))}
        survivor = next(server for server in cluster.servers if server is not victim)
        victim.kill()
        killed = time.monotonic()
        wait_until(lambda: victim.port not in (masters := cluster.masters(survivor)) and len(masters) == 3)
        replaced = time.monotonic() - killed
        time.sleep(2)  # the servers' clocks go by themselves, and a second of this is what is asserted below
    finally:
        over.set()
        for thread in threads:
            thread.join()

    failed = [(when - killed, user.name) for user in users for when, status, _ in user.answers if status != 200]
    hit = Counter(name for _, name in failed)
    slowest = max(took for user in users for _, _, took in user.answers)
    last = max(when for when, _ in failed)
    total = sum(len(user.answers) for user in users)
    count(
        f"a master of three killed: {len(failed)} of {total} requests failed, of {len(hit)} users of {USERS},"
        f" until {last:.2f} s after it; its replica took over after {replaced:.2f} s; slowest answer {slowest:.2f} s;"
        f" {sum(user.lost for user in users)} acknowledged writes lost"
    )
    assert [user.strange for user in [*users, still]] == [[]] * (USERS + 1)
    assert {users[0].name} <= hit.keys() <= struck
    assert slowest < LIMIT
    assert last < replaced + 1
    assert {status for _, status, _ in still.answers} == {200}
    for user in users:
        assert user.get("/count") == 200
    assert [user.strange for user in users] == [[]] * USERS
