"""A store by its URL: the right one, or an error that tells no password."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from minisession import MemoryStore, SQLiteStore, StoreUnavailable, open_store

from ..support.rows import row
from ..support.tools import need_module


def test_memory_is_a_store_of_its_own() -> None:
    assert isinstance(open_store("memory:"), MemoryStore)


def test_three_slashes_are_relative_and_four_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SQLAlchemy and Django's database URLs have it; what looks like an escape is part of the name."""
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite:///one%20.db", f"sqlite:///{tmp_path}/two.db"):
        store = open_store(url)
        assert isinstance(store, SQLiteStore)
        store.create("id", b"data", 1e10)
        store.close()

    assert {path.name for path in tmp_path.iterdir()} == {"one%20.db", "two.db"}


@row("O22")
@pytest.mark.parametrize(
    "url",
    [
        "",
        "memory",
        "memory:x",
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite://sessions.db",
        "postgres://u:letmein@h/d",
    ],
)
def test_what_names_no_store_is_an_error_that_says_what_does(url: str) -> None:
    with pytest.raises(ValueError, match=r"not the URL of a store: use one of memory:, sqlite:///file") as raised:
        open_store(url)

    assert "letmein" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["redis://:letmein@localhost:1/0", "rediss://localhost:1", "unix:///tmp/none", "redis+cluster://localhost:1"]
)
def test_redis_is_asked_when_it_is_needed(url: str) -> None:
    """An app starts while its Redis does."""
    need_module("redis")
    store = open_store(url)

    assert type(store).__name__ == "RedisStore"
    with pytest.raises(StoreUnavailable) as raised:
        store.load("id")
    assert "letmein" not in str(raised.value)
    store.close()


def test_without_redis_py_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("minisession.stores.redis")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "redis", None)  # it cannot be imported

    with pytest.raises(ImportError, match=r"RedisStore needs redis-py, .*: pip install 'redis>=5'"):
        open_store("redis://localhost")


def test_a_url_is_text() -> None:
    with pytest.raises(TypeError, match="a store's URL is str, not NoneType"):
        open_store(None)  # type: ignore[arg-type]  # what an unset setting gives


def test_the_sqlite_stores_own_errors_come_through(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="its folder does not exist"):
        open_store(f"sqlite:///{tmp_path}/missing/sessions.db")
