"""bench/: what its parts make of figures, and that they measure what they say."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ..support.pages import ROOT
from ..support.tools import need_folder, need_module, need_program

psutil = need_module("psutil")
need_module("pyperf")
need_module("waitress")
client = need_module("redis")

from bench import candidates, driving, http, insitu, keeps, memory, peers, redis, timing  # noqa: E402  # after need_module
from bench.processes import Worker, python, running, worker  # noqa: E402  # after need_module

WRK = """\
Running 2s test @ http://127.0.0.1:8080/read
  1 threads and 4 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   711.42us    1.77ms  31.85ms   94.47%
    Req/Sec     6.80k   649.40     7.28k    50.00%
  Latency Distribution
     50%  484.00us
     75%  530.00us
     90%  622.00us
     99%    4.55ms
  13598 requests in 2.00s, 1.75MB read
Requests/sec:   6799.12
Transfer/sec:      0.88MB
"""


def need(peer: str) -> None:
    """Skip the test where the peer is not installed."""
    if peer in peers.NODE:
        need_program("node")
        need_folder("bench/node/node_modules", "npm install --prefix bench/node")
    elif peer == "beaker":
        need_module("beaker")


# Figures


def test_a_report_of_wrk_is_read() -> None:
    assert http.parsed(WRK) == (13598, 6799.12, 0.000484, 0.00455)
    assert http.parsed(WRK.replace("4.55ms", "1.20s ")).p99 == 1.2


@pytest.mark.parametrize(
    "line",
    ["  Non-2xx or 3xx responses: 1478", "  Socket errors: connect 0, read 0, write 0, timeout 3"],
)
def test_requests_that_failed_are_no_measurement(line: str) -> None:
    with pytest.raises(RuntimeError, match=line.strip()):
        http.parsed(WRK.replace("Requests/sec", f"{line}\nRequests/sec"))


def test_what_is_no_report_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="no report"):
        http.parsed("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_a_ratio_is_taken_within_its_round() -> None:
    def load(rate: float, cpu: float) -> http.Load:
        return http.Load(http.Report(1000, rate, 0.001, 0.002), cpu)

    bare = [load(1000, 0.001), load(100, 0.001), load(2000, 0.001)]  # the machine was busy in the second round
    loads = [load(900, 0.00125), load(90, 0.00125), load(1800, 0.00125)]
    row = http.row("minisession", bare, loads)

    assert (row["ratio"], row["cpu_ratio"], row["cpu_cost_us"]) == (0.9, 0.8, 250)
    assert (row["rate"], row["bare_rate"], row["p50_us"], row["p99_us"]) == (900, 1000, 1000, 2000)


def test_the_spread_is_the_distance_of_the_quartiles() -> None:
    assert timing.spread([1, 2, 3, 4, 5]) == 0.667
    assert timing.spread([7]) == 0


def test_figures_have_three_digits() -> None:
    assert [timing.significant(value) for value in (1234.5, 1.2345, 0.00012345, 0)] == [1230, 1.23, 0.000123, 0]
    assert timing.median([1.2345, 9.0]) == 5.12


def test_each_round_has_every_item_once() -> None:
    rounds = list(timing.shuffled("abcdefgh", 3))

    assert [sorted(rounds[n : n + 8]) for n in (0, 8, 16)] == [list("abcdefgh")] * 3


def test_a_cost_in_redis_is_compared_with_the_floor_of_its_round() -> None:
    costs = [redis.Cost(0.0003, 0.0001), redis.Cost(0.003, 0.0001), redis.Cost(0.0003, 0.0001)]
    floor = [redis.Cost(0.0002, 0.00005), redis.Cost(0.002, 0.00005), redis.Cost(0.0002, 0.00005)]

    row = redis.row("minisession", redis.Sent({"get": 1, "eval": 2}, 1), costs, floor)
    assert (row["wall_us"], row["cpu_us"], row["ratio"], row["cpu_ratio"]) == (300, 100, 1.5, 2)
    assert row["commands"] == "eval 2, get 1"
    assert redis.row("minisession", redis.Sent({}, 0), costs, floor)["ratio"] is None


# Small runs


def test_a_worker_that_ends_says_where() -> None:
    with running([sys.executable, "-c", "input()"], 0) as process, pytest.raises(RuntimeError, match="ended at read"):
        Worker(process).ask("read")


def test_memory_sessions_are_created_read_and_freed() -> None:
    with worker(python("memory", candidates.OURS, "600", "moved"), 0) as site:
        filled = site.ask("fill", few=400, sessions=200, every=100)
        assert {"create", "bare", "before", "after"} <= filled.keys()
        site.ask("read", requests=50)  # and fails where one cannot be read
        site.ask("use", few=100)
        assert site.ask("held") == 600
        assert site.ask("alive")
        site.ask("forward", seconds=peers.LIFETIME + 1)
        assert not site.ask("alive")
        freed = site.ask("free", most=100)

    assert freed["left"] == 0
    assert 600 / (2 * 128) <= freed["requests"] < 100  # a request calls the store twice
    assert freed["longest"]["cpu"] > 0


@pytest.mark.parametrize("peer", ["beaker", "express-session", candidates.FLOOR])
def test_memory_a_store_that_frees_nothing_is_seen(peer: str) -> None:
    need(peer)
    with memory._site(memory.Case(peer, 40), moved=True) as site:
        assert memory.fill(site, memory.Case(peer, memory.FEW))["create"] == 0
        site.ask("read", requests=20)
        site.ask("use", few=100)
        assert site.ask("alive")
        site.ask("forward", seconds=peers.LIFETIME + 1)
        assert not site.ask("alive")
        freed = site.ask("free", most=20)

    assert freed["requests"] == 20
    assert freed["left"] >= memory.FEW - 1


def test_memory_the_size_of_a_session_is_the_growth() -> None:
    filled = {"before": 10e6, "after": 20e6, "create": 12e-6, "bare": 2e-6}

    row = memory.size(memory.Case("minisession", 1000 + 20_000), filled, 30)
    assert (row["rss_bytes"], row["used_bytes"], row["create_us"], row["create_cost_us"]) == (500, 530, 12, 10)


@pytest.mark.parametrize(
    ("peer", "trips"),
    [
        (candidates.OURS, {"cookie": 0, "read": 1, "write": 2, "login": 1, "regenerate": 2}),
        (candidates.FLOOR, {"cookie": 0, "read": 1, "write": 2, "login": 1, "regenerate": 2}),
        ("express-session", {"cookie": 2, "read": 2, "write": 2, "login": 2, "regenerate": 3}),
    ],
)
def test_redis_trips_are_what_redis_counts(peer: str, trips: dict[str, int]) -> None:
    need(peer)
    need_program("redis-server")
    with (
        redis.server() as url,
        client.Redis.from_url(url) as watcher,
        redis._site(peer, url) as site,
    ):
        sent = {page: redis.count(watcher, site, page, 3) for page in redis.PAGES}
        cost = redis.measure(site, "read", 3)

    assert {page: trips for page, (_, trips) in sent.items()} == trips
    assert sent["write"].commands.get("get") in (1, 2)  # 2 where a script compares
    assert cost.cpu > 0


@pytest.mark.parametrize("peer", ["minisession", "express-session"])
def test_http_a_session_is_read_under_load(peer: str) -> None:
    need(peer)
    need_program("wrk")
    with http.site(peer) as site:
        load = http.load(site, "read", 1)
        assert site.cookies[0].startswith("connect.sid=")

    assert load.report.requests > 0
    assert load.cpu > 0


def test_http_an_app_that_forgets_is_refused() -> None:
    with http.server("minisession", "bare") as server, pytest.raises(RuntimeError, match="the session holds"):
        http.checked(server.port)


def test_in_situ_the_call_its_iteration_and_its_end_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else: what the server does in between is not the app's."""
    now = 0  # ns

    def spend(time: int) -> None:
        nonlocal now
        now += time

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            spend(200)
            yield b"o"
            spend(30)
            yield b"k"

        def close(self) -> None:
            spend(4)

    def app(environ: dict[str, Any], start_response: Any) -> Body:
        spend(1000)
        return Body()

    monkeypatch.setattr(insitu, "thread_time_ns", lambda: now)
    meter = insitu.Meter(app)
    for _ in range(3):
        assert b"".join(meter({"PATH_INFO": "/read"}, None)) == b"ok"
        spend(77)

    assert json.loads(driving.send(meter, insitu.TOOK, "").body) == [3, 1.234]
    assert json.loads(driving.send(meter, insitu.TOOK, "").body)[0] == 0


def test_in_situ_sessions_are_read_and_written_under_load() -> None:
    need_program("wrk")
    with http.site(candidates.FLOOR, "insitu") as site:
        read, write = insitu.measure(site, "read"), insitu.measure(site, "write")

    assert len({*site.cookies}) == http.VISITORS
    assert min(read.requests, write.requests) > 0
    assert min(read.mean, write.mean) > 0


def test_in_situ_requests_that_were_not_measured_are_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = http.Load(http.Report(1000, 1000, 0.001, 0.002), 0.001)
    monkeypatch.setattr(http, "load", lambda site, page, seconds: sent)
    monkeypatch.setattr(http, "get", lambda port, path: (b"[900, 20.0]", ""))
    server = http.Server(1, psutil.Process())
    with pytest.raises(RuntimeError, match="wrk has sent 1000 requests, and 900 were measured"):
        insitu.measure(http.Site(server, server, []), "read")


@pytest.mark.parametrize(
    ("set_cookie", "removed"),
    [
        ("a=b; Path=/", False),
        ("a=b; Max-Age=10; Expires=Thu, 01 Jan 1970 00:00:00 GMT", False),
        ("a=b; expires=Thu, 01 Jan 2970 00:00:00 GMT; Path=/", False),
        ("a=b; Max-Age=0", True),
        ("a=b; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/", True),
        ("a=b; expires=Thu, 01-Jan-1970 00:00:00 GMT", True),
    ],
)
def test_a_cookie_that_has_expired_is_removed(set_cookie: str, removed: bool) -> None:
    assert keeps.removes(set_cookie) is removed


def test_what_each_keeps_is_what_the_pages_say() -> None:
    """All of it is found again, with the packages that are installed here; run ``python -m bench keeps`` if not."""
    need_program("redis-server")
    for module in ("beaker", "django", "flask_session", "cachelib"):
        need_module(module)
    committed = json.loads((ROOT / "bench" / "results.json").read_text())["keeps"]["found"]
    assert keeps.run("quick")["found"] == committed
    assert committed["minisession"] == {
        "overlap": {"slow_write": {"first": True, "slow": True}, "slow_read": {"first": True, "slow": False}},
        "logout": {page: {"status": 200, "browser": False, "copy": False} for page in keeps.SLOW},
        "down": {
            page: {"status": status, "empty": False, "back": True}
            for page, status in zip(keeps.DOWN, (200, 503, 503), strict=True)
        },
    }


def test_a_process_ends_with_its_block() -> None:
    with running([sys.executable, "-c", "import signal; signal.pause()"], 0) as process:
        assert process.poll() is None

    assert process.returncode == -signal.SIGTERM
