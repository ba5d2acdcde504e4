"""The servers of docs/deployment.md, started as the page says, but for ports and paths."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from typing import NamedTuple

from ..wsgi.test_servers import SOON, Client
from .ports import free_port
from .tools import need_file, need_module, need_program

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deployment.md").read_text()
OLD, NEW = "0" * 64, "1" * 64  # secrets
PATIENCE = 2  # seconds in which a server that is told to end does
MODULES = "/usr/lib/apache2/modules/mod_"  # Debian's


def blocks(language: str) -> list[str]:
    """Return the page's blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def file(name: str) -> str:
    """Return the page's file of this name, which its first line says."""
    (text,) = [text for text in blocks("python") if text.startswith(f"# {name}\n")]
    return text


class Server(NamedTuple):
    """A server of the page."""

    command: str
    module: str  # that pip installs
    package: str = ""  # pip's name for it, if it is another
    processes: bool = True  # has several
    keeps: bool = True  # the connection, after a response with a Content-Length
    scheme: str = "https"  # behind a proxy that ends TLS
    trust: str = ""  # what of the command, replaced, believes another proxy


def _command(start: str) -> str:
    (command,) = [text.strip() for text in blocks("sh") if text.startswith(start)]
    return command


GUNICORN = _command("gunicorn --bind=127.0.0.1:8000 --workers=2 --threads")
WAITRESS = _command("waitress-serve")
ELSEWHERE = "--forwarded-allow-ips=192.0.2.1"

SERVERS = {
    "gunicorn": Server(GUNICORN, "gunicorn", trust=ELSEWHERE),
    "gunicorn, sync": Server(GUNICORN.replace("--threads=8 ", ""), "gunicorn", keeps=False, trust=ELSEWHERE),
    "gunicorn, gevent": Server(
        _command("gunicorn --bind=127.0.0.1:8000 --workers=2 --worker-class"), "gevent", trust=ELSEWHERE
    ),
    "waitress": Server(WAITRESS, "waitress", processes=False, trust="--trusted-proxy=192.0.2.1"),
    "uWSGI": Server(_command("uwsgi"), "", "uwsgi", keeps=False),
    "cheroot": Server(_command("python -m cheroot"), "cheroot", processes=False, scheme="http"),
    "gevent": Server("python serve.py", "gevent", processes=False, scheme="http"),
    "uvicorn": Server(_command("uvicorn"), "uvicorn", trust=ELSEWHERE),
}


@contextmanager
def running(command: list[str], port: int, cwd: Path, **variables: str) -> Iterator[int]:
    """Run a server from when it listens until it is no longer needed; yield its port."""
    process = subprocess.Popen(command, cwd=cwd, env={**os.environ, **variables}, start_new_session=True)
    try:
        deadline = time.monotonic() + 60  # the machine may be busy
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), SOON).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, f"{command} ended with {process.returncode}"
                assert time.monotonic() < deadline, f"{command} does not listen"
                time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            # A worker of gunicorn's that is still starting misses the signal, and the master waits for it.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def program(name: str) -> str:
    """Return the path of a program that pip has put beside this Python."""
    path = Path(sys.executable).with_name(name)
    return str(path) if path.exists() else need_program(name)


def settings(home: Path, store: str = "") -> dict[str, str]:
    """Return the environment of an app; with SQLite, if no store is named."""
    return {
        "SESSION_STORE": store or f"sqlite:///{home}/sessions.db",
        "SESSION_SECRET": OLD,
        "PYTHONPATH": str(ROOT),
        "XDG_RUNTIME_DIR": str(home),  # gunicorn makes a socket there
    }


@contextmanager
def serving(server: Server, home: Path, store: str = "") -> Iterator[int]:
    """Run a server of the page on the app in ``home``; yield its port."""
    for module in filter(None, {server.module, "a2wsgi" if "asgi:app" in server.command else ""}):
        need_module(module)
    port = free_port()
    (home / "asgi.py").write_text(file("asgi.py"))
    (home / "serve.py").write_text(file("serve.py").replace("8000", str(port)))
    name, *arguments = re.sub(r"([:=])8000\b", rf"\g<1>{port}", server.command).split()
    with running([program(name), *arguments], port, home, **settings(home, store)):
        yield port


def certify(home: Path) -> None:
    """Put a certificate into ``home``."""
    request = "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout example.com.key -out example.com.pem -subj /CN=x"
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([need_program("openssl"), *request.split(), *names], cwd=home, check=True, capture_output=True)


@contextmanager
def nginx(home: Path, upstream: int) -> Iterator[tuple[int, int]]:
    """Run nginx with the page's configuration; yield its ports for TLS and without."""
    name, tls, plain = need_program("nginx", "/usr/sbin/nginx"), free_port(), free_port()
    certify(home)
    (servers,) = blocks("nginx")
    for old, new in {
        "listen 443": f"listen 127.0.0.1:{tls}",
        "listen 80": f"listen 127.0.0.1:{plain}",
        "/etc/ssl": str(home),
        ":8000": f":{upstream}",
    }.items():
        assert old in servers
        servers = servers.replace(old, new)
    paths = "".join(f"{kind}_temp_path {home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (home / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {home}/nginx.pid; error_log stderr; events {{}}"
        f" http {{ access_log off; {paths} {servers} }}"
    )
    with running([name, "-e", "stderr", "-c", f"{home}/nginx.conf"], tls, home):
        yield tls, plain


@contextmanager
def apache(files: dict[str, str]) -> Iterator[tuple[int, Path]]:
    """Run Apache with the page's configuration on an app's files; yield its port and its folder.

    Apache's processes run as a user of their own where they are started as root, who must reach the folder and the
    package: so both are in a temporary folder of that user's.
    """
    name, port = need_program("apache2", "/usr/sbin/apache2"), free_port()
    need_file(f"{MODULES}wsgi.so", "libapache2-mod-wsgi-py3")
    (host,) = blocks("apache")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        shutil.copytree(ROOT / "minisession", home / "minisession")
        for path, text in files.items():
            (home / path).write_text(text)
        certify(home)
        host = re.sub(r" python-home=\S+", "", host)  # the page's app needs nothing but this package
        for old, new in {
            "*:443": f"127.0.0.1:{port}",
            "/etc/ssl": folder,
            " user=myapp": "",
            "/opt/myapp": folder,
        }.items():
            assert old in host
            host = host.replace(old, new)
        modules = "".join(
            f"LoadModule {module}_module {MODULES}{module}.so\n"
            for module in ("mpm_event", "authz_core", "ssl", "wsgi")
        )
        user = ""
        if os.geteuid() == 0:
            user = "User www-data\nGroup www-data\n"
            account = pwd.getpwnam("www-data")
            for entry in [home, *home.rglob("*")]:
                os.chown(entry, account.pw_uid, account.pw_gid)
        (home / "apache.conf").write_text(
            f"ServerRoot {home}\nServerName localhost\nListen 127.0.0.1:{port}\nPidFile {home}/pid\n"
            f"DefaultRuntimeDir {home}\nErrorLog /dev/stderr\n{modules}{user}"
            f"WSGISocketPrefix {home}/wsgi\n{host}"
        )
        command = [name, "-DFOREGROUND", "-f", f"{home}/apache.conf"]
        with running(command, port, home, **settings(home), PYTHONDONTWRITEBYTECODE="1"):
            yield port, home


def over_tls(port: int, home: Path) -> Client:
    """Be a browser that knows the certificate."""
    client = Client(port)
    context = ssl.create_default_context(cafile=str(home / "example.com.pem"))
    client.connection = HTTPSConnection("127.0.0.1", port, timeout=SOON, context=context)
    return client
