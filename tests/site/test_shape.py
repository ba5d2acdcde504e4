"""The package's measures: what fits on a screen, and in a head."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from ..support.pages import ROOT

PACKAGE = ROOT / "minisession"
FILES = sorted(PACKAGE.rglob("*.py"))

FILE, FUNCTION, COMPLEXITY, COLUMNS = 280, 30, 14, 100

# What is reached, rounded up to the next ten.  It may only go down.
CORE = 2270
NOT_CORE = ("testing.py", "cli.py", "console.py", "__main__.py", "stores/sqlite", "stores/redis")
"""What users of the library read only if they use it."""

LONG = {"testing.py"}  # one rule of the contract after the other

# Names without an underscore that are internal all the same.
INTERNAL = {
    "c_make_encoder": "CPython's json",
    "send_packed_command": "redis-py",
    "read_response": "redis-py",
    "AbstractConnection": "redis-py",
}
PUBLIC = {"_replace", "_asdict"}  # of a named tuple
REACHES = {"testing.py": {"_lifecycle"}}  # log_in makes a session as the middleware does

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = ast.ClassDef | Function
BRANCHES = (
    *(ast.If, ast.IfExp, ast.For, ast.While, ast.comprehension),
    *(ast.ExceptHandler, ast.match_case, ast.Assert),
)
NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
    *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


@cache
def code(path: Path) -> set[int]:
    """Return the numbers of the lines that are code: not blank, not a comment, not a docstring."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in nodes(path):
        for part in node.body if isinstance(node, ast.Module | Definition) else ():
            if (
                isinstance(part, ast.Expr)
                and isinstance(part.value, ast.Constant)
                and isinstance(part.value.value, str)
            ):
                lines.difference_update(range(part.lineno, (part.end_lineno or 0) + 1))
    return lines


def functions(path: Path) -> list[Function]:
    return [node for node in nodes(path) if isinstance(node, Function)]


def long_functions(path: Path) -> dict[str, int]:
    lengths = {
        node.name: len(code(path) & {*range(node.body[0].lineno, (node.end_lineno or 0) + 1)})
        for node in functions(path)
    }
    return {name: length for name, length in lengths.items() if length > FUNCTION}


def tangled_functions(path: Path) -> dict[str, int]:
    ways = {node.name: complexity(node) for node in functions(path)}
    return {name: number for name, number in ways.items() if number > COMPLEXITY}


def complexity(function: Function) -> int:
    """Return McCabe's: one more than there are branches."""
    parts = list(ast.walk(function))
    operators = sum(len(part.values) - 1 for part in parts if isinstance(part, ast.BoolOp))
    return 1 + operators + sum(isinstance(part, BRANCHES) for part in parts)


def wide_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if len(line) > COLUMNS]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in PUBLIC


@cache
def defined(path: Path) -> set[str]:
    """Return the private names that a file gives a meaning."""
    found = {node.name for node in nodes(path) if isinstance(node, Definition)}
    for node in nodes(path):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return {*filter(is_private, found)}


def foreign(path: Path) -> Iterator[str]:
    """Yield the uses of what is private to another module, or to a dependency."""
    ours = set().union(*map(defined, FILES))
    for node in nodes(path):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            of_this_object = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if node.attr not in (ours if of_this_object else defined(path)):
                yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names if is_private(alias.name))
    yield from (word for word in INTERNAL if word in path.read_text())


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_read_in_one_sitting(path: Path) -> None:
    assert len(code(path)) <= FILE or name_of(path) in LONG


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_function_is_seen_whole(path: Path) -> None:
    assert long_functions(path) == {}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_function_has_few_ways_through_it(path: Path) -> None:
    assert tangled_functions(path) == {}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_two_files_fit_side_by_side(path: Path) -> None:
    assert wide_lines(path) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_private_to_another_module_is_used(path: Path) -> None:
    """Nor to a dependency, whose next version may not have it."""
    assert {*foreign(path)} == REACHES.get(name_of(path), set())


def test_the_core_does_not_grow() -> None:
    size = sum(len(code(path)) for path in FILES if not name_of(path).startswith(NOT_CORE))

    assert size <= CORE


def test_a_file_that_breaks_the_limits_is_found(tmp_path: Path) -> None:
    """Or they would hold whatever the code is."""
    path = tmp_path / "long.py"
    branches = "\n".join(f"    if n == {number} and n:\n        return {number}" for number in range(20))
    path.write_text(
        f'"""Doc."""\n\n# A comment.\ndef long(n):\n    """Doc."""\n{branches}\n\n\n'
        f"from json.encoder import _hidden, c_make_encoder\n"
        f"def wide({'argument, ' * 12}):\n    return argument._state, argument._replace(a=self._buffer)\n"
    )

    assert len(code(path)) == 44
    assert long_functions(path) == {"long": 40}
    assert tangled_functions(path) == {"long": 41}
    assert [line[:8] for line in wide_lines(path)] == ["def wide"]
    assert sorted(foreign(path)) == ["_buffer", "_hidden", "_state", "c_make_encoder"]
