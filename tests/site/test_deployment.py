"""docs/deployment.md: its servers, its proxy and its files, run as they are printed."""

from __future__ import annotations

import json
import logging
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any, NoReturn

import pytest
from webtest import TestApp

from minisession import MemoryStore, StoreUnavailable, open_store
from minisession.journal import Journal

from ..support.browser import Clock
from ..support.deployed import (
    GUNICORN,
    NEW,
    OLD,
    PAGE,
    ROOT,
    SERVERS,
    Server,
    blocks,
    file,
    nginx,
    over_tls,
    program,
    serving,
    settings,
)
from ..support.tools import need_program
from ..wsgi.test_servers import SOON, Client

MYAPP = """
import os

from minisession import get_session


def app(environ, start_response):
    session = get_session(environ)
    if environ["PATH_INFO"] == "/login":
        session.regenerate(user="ada")
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield f"{environ['wsgi.url_scheme']} {session.user} {os.getpid()}\\n".encode()
    if environ["PATH_INFO"] == "/upload":
        environ["wsgi.input"].read(1)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Put the page's wsgi.py beside an app."""
    (tmp_path / "wsgi.py").write_text(file("wsgi.py"))
    (tmp_path / "myapp.py").write_text(MYAPP)
    return tmp_path


AUTO = """cookie=__import__("minisession").Cookie(secure="auto"), proxy=True,"""


@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
def test_behind_nginx_the_visitor_has_tls_and_a_secure_cookie(server: Server, home: Path) -> None:
    """Some servers do not know of the TLS; the middleware can be told to ask the proxy."""
    if server.scheme == "http":
        wsgi = home / "wsgi.py"
        wsgi.write_text(re.sub(" name=.*", AUTO, wsgi.read_text()))
    scheme = server.scheme.encode()
    with serving(server, home) as upstream, nginx(home, upstream) as (tls, plain):
        with over_tls(tls, home) as client:
            origin = {"Origin": f"https://127.0.0.1:{tls}"}  # as browsers say it that are older than Sec-Fetch-Site
            response = client.send("/login", method="POST", headers=origin)
            assert response.read().split()[:2] == [scheme, b"ada"]
            assert "; Secure" in response.headers["Set-Cookie"]
            assert client.cookie.startswith("connect.sid=" if server.scheme == "http" else "__Host-sid=")
            assert client.get().split()[:2] == [scheme, b"ada"]
            assert client.send("/", method="POST", headers={"Origin": "https://other.example"}).status == 403
        with Client(plain) as client:
            response = client.send("/page")
            assert (response.status, response.headers["Location"]) == (308, "https://127.0.0.1/page")


TRUSTING = {name: server for name, server in SERVERS.items() if server.trust}


@pytest.mark.parametrize("server", TRUSTING.values(), ids=TRUSTING)
def test_a_client_that_is_not_the_proxy_is_not_believed(server: Server, home: Path) -> None:
    """Or anyone could say that a request came over TLS."""
    option = server.trust.partition("=")[0]
    command = re.sub(rf"{option}=\S+ ", "", server.command).replace(" --", f" {server.trust} --", 1)
    with serving(server._replace(command=command), home) as port, Client(port) as client:
        assert client.get(headers={"X-Forwarded-Proto": "https"}).startswith(b"http ")


def test_uwsgi_believes_anyone(home: Path) -> None:
    """The page says so in bold."""
    with serving(SERVERS["uWSGI"], home) as port, Client(port) as client:
        assert client.get(headers={"X-Forwarded-Proto": "https"}).startswith(b"https ")


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "sqlite":
        yield ""
    else:
        from ..support.redis_server import redis_server  # which skips this test alone, if there is none

        with redis_server() as server:
            yield server.url


@pytest.mark.parametrize("preload", ["", "--preload"])
def test_a_login_at_one_worker_is_known_to_the_other(preload: str, home: Path, store: str) -> None:
    """Sync workers: one is kept busy with an upload, so that the other has to answer."""
    server = SERVERS["gunicorn, sync"]
    server = server._replace(command=server.command.replace("wsgi:app", f"{preload} wsgi:app"))
    upload = "POST /upload HTTP/1.0\r\nContent-Length: 1\r\nCookie: {}\r\n\r\n"
    with serving(server, home, store) as port, Client(port) as client:
        client.get("/login")
        with socket.create_connection(("127.0.0.1", port), SOON) as busy, busy.makefile("rb") as answer:
            busy.sendall(upload.format(client.cookie).encode())
            _, user, first = next(line for line in answer if line.startswith(b"http ")).split()
            _, also, second = client.get().split()
            busy.sendall(b"x")
    assert (user, also) == (b"ada", b"ada")
    assert first != second


def test_workers_with_threads_know_each_others_logins(home: Path, store: str) -> None:
    """Many visits at once, until both workers have answered."""

    def visit(cookie: str) -> bytes:
        with Client(port) as client:
            client.cookie = cookie
            _, user, worker = client.get().split()
            assert user == b"ada"
            return worker

    with serving(SERVERS["gunicorn"], home, store) as port, ThreadPoolExecutor(8) as pool:
        with Client(port) as client:
            client.get("/login")
        workers: set[bytes] = set()
        deadline = time.monotonic() + SOON
        while len(workers) < 2 and time.monotonic() < deadline:
            workers.update(pool.map(visit, [client.cookie] * 16))
        assert len(workers) == 2


def test_a_new_secret_logs_nobody_out(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is set in front of the old one, which is dropped later; who was not here in between logs in again."""
    monkeypatch.syspath_prepend(str(home))
    monkeypatch.setenv("SESSION_STORE", f"sqlite:///{home}/sessions.db")

    def restart(secret: str) -> TestApp:
        monkeypatch.setenv("SESSION_SECRET", secret)
        app = runpy.run_path(str(home / "wsgi.py"))["app"]
        return TestApp(app, extra_environ={"wsgi.url_scheme": "https"}, cookiejar=jar)

    jar = CookieJar()
    restart(OLD).get("/login")
    first = {cookie.value for cookie in jar}
    assert "ada" in restart(f"{NEW} {OLD}").get("/")
    assert {cookie.value for cookie in jar} != first
    assert "ada" in restart(NEW).get("/")
    assert "ada" not in restart(OLD).get("/")


def test_the_log_tells_why(home: Path) -> None:
    (script,) = [text for text in blocks("python") if "setLevel" in text]
    script += "from wsgi import app; from webtest import TestApp; TestApp(app).get('/login')"
    variables = {"SESSION_STORE": f"sqlite:///{home}/sessions.db", "SESSION_SECRET": OLD, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=home, env={**os.environ, **variables}, capture_output=True, text=True)
    assert re.search(r"DEBUG minisession: new session: the request has no cookie __Host-sid", done.stderr)
    assert re.search(r"DEBUG minisession: cookie sent: session [0-9a-f]{16}", done.stderr)


def test_the_command_for_a_secret_makes_one() -> None:
    command = blocks("sh")[0].replace("python", sys.executable, 1)
    made = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert re.fullmatch("[0-9a-f]{64}\n", made.stdout)


def test_the_systemd_unit_is_right_and_hard_to_break_out_of(tmp_path: Path) -> None:
    """systemd says so: it rates what a service could do to its machine from 0 to 10."""
    (text,) = blocks("ini")
    (exec_start,) = re.findall("^ExecStart=(.*)$", text, re.M)
    assert exec_start == f"/opt/myapp/venv/bin/{GUNICORN}"
    analyze = need_program("systemd-analyze")
    unit = tmp_path / "myapp.service"
    unit.write_text(text.replace("/opt/myapp/venv/bin/gunicorn", sys.executable))
    done = subprocess.run([analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

    def exposure(text: str) -> float:
        unit.write_text(text)
        command = [analyze, "security", "--no-pager", "--offline=true", str(unit)]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return float(report.rpartition("exposure level for ")[2].split()[1])

    start, _, rest = text.partition("\n\nUMask")
    plain, hardened = exposure(start + rest[rest.index("\n\n[Install]") :]), exposure(text)
    assert hardened < 3
    assert f"rates the unit {hardened}" in PAGE
    assert f"the first half alone is {plain}" in PAGE


def dockerfile() -> list[tuple[str, str]]:
    (text,) = blocks("dockerfile")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines())]


def test_the_containers_user_can_write_where_its_sessions_are(tmp_path: Path) -> None:
    """The folder is made, and given away, before it becomes a volume and the user another."""
    lines = dict(dockerfile())
    order = [word for word, _ in dockerfile()]
    assert order.index("VOLUME") < order.index("USER") < order.index("CMD")
    *_, made = [rest for word, rest in dockerfile() if word == "RUN"]
    assert f"-o {lines['USER']} " in made
    assert made.endswith(lines["VOLUME"])
    store = dict(pair.split("=", 1) for pair in lines["ENV"].split())["SESSION_STORE"]
    assert store == f"sqlite:///{lines['VOLUME']}/sessions.db"
    if os.geteuid() != 0:
        return  # who is not root can make no folder for another user
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        shutil.copytree(ROOT / "minisession", f"{folder}/minisession")
        subprocess.run(made.replace(lines["VOLUME"], f"{folder}/data").split(), check=True)
        code = f"from minisession import open_store; open_store('{store.replace('/data', folder + '/data')}').create"
        python = need_program("/usr/bin/python3")  # that of a version manager may be root's alone
        subprocess.run([python, "-c", f"{code}('id', b'data', 2e9)"], cwd=folder, user=lines["USER"], check=True)
        assert sorted(path.name for path in Path(folder, "data").iterdir())[0] == "sessions.db"


def test_the_containers_command_is_one_that_gunicorn_takes(home: Path) -> None:
    name, *arguments = json.loads(dict(dockerfile())["CMD"])
    command = [program(name), "--check-config", *arguments]
    subprocess.run(command, cwd=home, env={**os.environ, **settings(home)}, check=True)


def test_a_health_check_makes_no_session_and_asks_no_store(home: Path) -> None:
    """The container's own command finds the app healthy, and says so where it is not."""
    for name in ("health.py", "wsgi.py"):
        (home / name).write_text(file(name))
    with (home / "wsgi.py").open("a") as wsgi:
        wsgi.write("from health import with_health\napp = with_health(app, store)\n")
    program, *arguments = json.loads(dict(dockerfile())["HEALTHCHECK"].removeprefix("CMD "))
    assert program == "python"
    with serving(SERVERS["gunicorn"], home) as port, Client(port) as client:
        for page in ("/health", "/ready"):
            response = client.send(page)
            assert (response.status, response.read()) == (200, b"200 OK")
            assert not {"Set-Cookie", "Vary"} & set(response.headers)
        check = [sys.executable, *(argument.replace("8000", str(port)) for argument in arguments)]
        assert subprocess.run(check).returncode == 0
        assert list(open_store(f"sqlite:///{home}/sessions.db").ids()) == []
    assert subprocess.run(check, stderr=subprocess.DEVNULL).returncode == 1


def test_a_store_that_is_down_is_no_reason_to_restart_the_app() -> None:
    names: dict[str, Any] = {}
    exec(file("health.py"), names)
    store = MemoryStore()
    client = TestApp(names["with_health"](lambda environ, start_response: [], store))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "load", raising(StoreUnavailable("down")))
        assert client.get("/health").status_int == 200
        assert client.get("/ready", expect_errors=True).status_int == 503
    assert client.get("/ready").status_int == 200


def raising(error: Exception) -> Callable[..., NoReturn]:
    def fail(*_: object) -> NoReturn:
        raise error

    return fail


def test_the_lines_to_watch_are_explained_on_the_page_for_troubleshooting() -> None:
    section = PAGE.partition("### What to watch")[2].partition("```")[0]
    lines = [quote for cell in re.findall(r"^\| (`.*?) \|", section, re.M) for quote in re.findall("`(.+?)`", cell)]
    explained = (ROOT / "docs" / "troubleshooting.md").read_text()
    assert len(lines) >= 8
    for line in lines:
        assert line == "DEBUG" or f"`{line}" in explained, line


def test_lines_are_counted_for_prometheus() -> None:
    """Those that stand for others, which were not logged, count for all of them."""
    log = logging.getLogger("minisession")
    names: dict[str, Any] = {"__name__": "counts"}
    exec(file("counts.py"), names)
    counts = names["counts"]
    try:
        clock = Clock()
        tell = Journal(clock)
        for _ in range(10):
            tell.error("503 Service Unavailable: %s: %s", "StoreUnavailable", "down")
        clock.advance(60)
        tell.error("503 Service Unavailable: %s: %s", "StoreUnavailable", "down")
        log.warning('use Cookie(secure="auto")')
        log.info("not counted")
    finally:
        log.removeHandler(counts)
    assert str(counts).splitlines() == [
        'minisession_log_lines_total{level="ERROR",kind="503 Service Unavailable: %s: %s"} 11',
        'minisession_log_lines_total{level="WARNING",kind="use Cookie(secure=\\"auto\\")"} 1',
    ]
