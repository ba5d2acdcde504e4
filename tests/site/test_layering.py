"""The house: who may import whom, and nothing from outside."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import minisession

PACKAGE = Path(minisession.__file__).parent

MAY_IMPORT = {
    "errors": set[str](),
    "expiry": set[str](),
    "checks": set[str](),
    "wire": set[str](),
    "wire.values": set[str](),
    "wire.attributes": {"checks"},
    "wire.cookies": {"expiry", "wire.attributes"},
    "wire.signing": set[str](),
    "wire.record": {"expiry", "wire.attributes", "wire.values"},
    "merge": {"wire.values"},
    "stores": set[str](),
    "stores.base": set[str](),
    "stores.memory": {"checks", "errors", "stores.base", "stores.memory_order"},
    "stores.memory_order": set[str](),
    "stores.sqlite": {"checks", "stores.base", "stores.sqlite_file"},
    "stores.sqlite_file": {"errors", "stores.sqlite_owner"},
    "stores.sqlite_owner": set[str](),
    "stores.redis": {
        *("checks", "errors", "journal", "stores.base", "stores.redis_link", "stores.redis_listing"),
        *("stores.redis_replies", "stores.redis_scripts", "stores.redis_url"),
    },
    "stores.redis_listing": {
        *("errors", "stores.base", "stores.redis_cluster", "stores.redis_node", "stores.redis_replies"),
        "stores.redis_scripts",
    },
    "stores.redis_scripts": set[str](),
    "stores.redis_link": {"stores.redis_cluster", "stores.redis_node", "stores.redis_url"},
    "stores.redis_cluster": {
        *("errors", "stores.redis_deadline", "stores.redis_gate", "stores.redis_node", "stores.redis_replies"),
    },
    "stores.redis_node": {"errors", "stores.redis_deadline", "stores.redis_gate", "stores.redis_replies"},
    "stores.redis_url": {"checks", "stores.redis_deadline", "stores.redis_node"},
    "stores.redis_deadline": set[str](),
    "stores.redis_gate": {"errors"},
    "stores.redis_replies": {"errors"},
    "stores.urls": {"stores.base", "stores.memory", "stores.sqlite", "stores.redis"},
    "visit": {"expiry", "merge", "wire.record", "wire.values"},
    "options": {"checks", "wire", "wire.attributes", "wire.record"},
    "plan": {"expiry", "options", "visit"},
    "journal": set[str](),
    "ending": {"errors", "journal", "stores.base"},
    "shelf": {
        *("errors", "journal", "merge", "options", "plan", "visit", "stores.base"),
        *("wire", "wire.cookies", "wire.record", "wire.signing", "wire.values"),
    },
    "lifecycle": {
        *("ending", "errors", "expiry", "journal", "options", "plan", "shelf", "visit"),
        *("stores.base", "wire", "wire.attributes", "wire.cookies", "wire.record", "wire.signing"),
    },
    "exchange": {"errors", "lifecycle", "visit"},
    "session": {
        *("checks", "exchange", "expiry", "journal", "visit", "wire.attributes", "wire.record", "wire.values"),
    },
    "users": {
        *("ending", "errors", "expiry", "journal", "session", "visit", "stores.base"),
        *("wire", "wire.record"),
    },
    "testing": {"errors", "middleware", "visit", "stores.base"},
    "console": set[str](),
    "cli": {"console", "ending", "errors", "journal", "users", "stores.base", "stores.urls"},
    "__main__": {"cli"},
    "response": {"errors", "exchange", "lifecycle"},
    "middleware": {
        *("errors", "exchange", "lifecycle", "options", "response", "session"),
        *("stores.base", "stores.memory", "wire.attributes", "wire.signing"),
    },
    "crossorigin": {"journal"},
    "__init__": {
        *("crossorigin", "middleware", "session", "users", "errors", "wire.attributes"),
        *("stores.base", "stores.memory", "stores.sqlite", "stores.urls"),
    },
}


REDIS = {f"stores.redis_{room}" for room in ("link", "cluster", "node", "replies", "url")} | {"stores.redis"}


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


def imports(module: str, path: Path) -> set[str]:
    """Return what a module imports: ours without "minisession.", others by their top name with a "!"."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    if module == "__init__":
        package = []
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {f"!{alias.name.partition('.')[0]}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(f"!{(node.module or '').partition('.')[0]}")
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            target = [*base, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                deeper = ".".join([*target, alias.name])
                names.add(deeper if deeper in modules() else ".".join(target))
    return names


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_run_one_way(module: str) -> None:
    """A reader can start at the bottom; a change at the top reaches nothing below it."""
    ours = {name for name in imports(module, modules()[module]) if not name.startswith("!")}

    assert ours - MAY_IMPORT[module] == set()


@pytest.mark.parametrize("module", sorted(modules()))
def test_nothing_but_the_standard_library_is_imported(module: str) -> None:
    """`pip install minisession` brings nothing else; Redis is an extra, and has modules of its own."""
    extra = {"redis"} if module in REDIS else set[str]()
    others = {name[1:] for name in imports(module, modules()[module]) if name.startswith("!")}

    assert others - sys.stdlib_module_names - {"_typeshed"} == extra


def test_the_public_names_work_on_a_bare_interpreter() -> None:
    """`from minisession import *` where nothing else is installed: -S -I sees no site-packages."""
    code = (
        f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); from minisession import *; print(SessionMiddleware)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "SessionMiddleware" in done.stdout


def test_every_public_name_is_documented() -> None:
    """Also their public members."""
    missing = []
    for name in minisession.__all__:
        thing = getattr(minisession, name)
        for member, value in [("", thing), *vars(thing).items()]:
            documentable = callable(value) or isinstance(value, property)
            if not member.startswith("_") and documentable and not getattr(value, "__doc__", None):
                missing.append(f"{name}.{member}")
    assert missing == []
