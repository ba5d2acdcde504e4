"""docs/security.md and docs/security-rows.md: complete, and they name the tests that are marked with their rows."""

from __future__ import annotations

import ast
import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from minisession import SessionMiddleware

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / name).read_text() for name in ("docs/security.md", "docs/security-rows.md", "SECURITY.md")}
PROMISES, ROWS = PAGES["docs/security.md"], PAGES["docs/security-rows.md"]

# OWASP ASVS 5.0.0: chapter 7, and what of chapter 3 concerns sessions
REQUIREMENTS = """
    7.1.1 7.1.2 7.1.3 7.2.1 7.2.2 7.2.3 7.2.4 7.3.1 7.3.2 7.4.1 7.4.2 7.4.3 7.4.4 7.4.5 7.5.1 7.5.2 7.5.3 7.6.1 7.6.2
    3.3.1 3.3.2 3.3.3 3.3.4 3.3.5 3.5.1 3.5.2 3.5.3 3.5.4
"""
IDS = {
    "Cookies": "B1 B2 B3 B5 B6 B7 B8 B9 B10 B11 B12 B13 B14 B15 B16 B18 B19 B20 B22",
    "Ids": "C1 C2 C3 C4",
    "Records": "F1 F2 F3 F5 F8 F9 F10",
    "Options": "O1-O6 O7-O8 O9-O12 O13-O14 O15-O17 O18-O20 O21 O22 O23 O24",
    "Apps": "A1 A3 A4 A5 A7 A8 A10",
    "Other sites": "G1 G2 G4",
    "WSGI": " ".join(f"W{number}" for number in range(1, 25)),
    "Concurrency": "C1 C2 C3 C4 C5 C6 C7 C8 C9 C10 C11 C12 C13 C14 C15 C16 C17 C18 C19 C20 C21",
    "Stores that break": "S1 S2 S3 S4 S5 S6 S7 S8 S9 S10 S11 S12 S13 Q1 Q2 Q3 Q4 Q5 Q6 Q7",
    "Time, load and the end": "T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 T11",
}
TEST = re.compile(r"\[((?:\w+\.)?test_\w+)\]\(\.\./([\w/]+\.py)\)")
WITHOUT_TEST = {"Not built": {"Concurrency C8"}}


def table(text: str) -> dict[str, list[str]]:
    """Return the cells of each row of a table, by the first."""
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {first.strip(): [cell.strip() for cell in rest] for first, *rest in rows[2:]}


def sections(text: str) -> dict[str, str]:
    return {part.partition("\n")[0]: part for part in text.split("\n## ")[1:]}


def named(text: str) -> list[tuple[str, str]]:
    """Return the tests that are linked to: their names, and their files."""
    return TEST.findall(text)


def ids(row: str) -> set[str]:
    """Return the ids that a row of a page stands for: O1 to O6, where it says O1-O6."""
    first, _, last = row.partition("-")
    return {f"{first[0]}{number}" for number in range(int(first[1:]), int(last[1:] or first[1:]) + 1)}


@cache
def functions_of(path: str) -> dict[str, set[str]]:
    """Return a file's functions, with the rows that they are marked with."""
    tree = ast.parse((ROOT / path).read_text())
    functions = [("", node) for node in tree.body]
    functions += [
        (f"{node.name}.", inner) for node in tree.body if isinstance(node, ast.ClassDef) for inner in node.body
    ]
    return {prefix + node.name: marks(node) for prefix, node in functions if isinstance(node, ast.FunctionDef)}


def marks(function: ast.FunctionDef) -> set[str]:
    return {
        ast.literal_eval(argument)
        for node in function.decorator_list
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "row"
        for argument in node.args
    }


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_is_named_exists_and_every_link_leads_somewhere(page: str) -> None:
    assert [name for name, path in named(PAGES[page]) if name not in functions_of(path)] == []
    links = re.findall(r"\]\(([^):]+)\)", PAGES[page])
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []
    assert re.findall(r"\btest_\w+", TEST.sub("", PAGES[page])) == []  # named, and not linked to


def test_every_promise_has_its_test() -> None:
    promises = table(sections(PROMISES)["What is promised"])
    assert list(promises) == [f"P{number}" for number in range(1, 23)]
    assert [id for id, (_, proof) in promises.items() if not named(proof)] == []


def test_every_row_has_its_test_or_a_reason() -> None:
    without: dict[str, set[str]] = {}
    assert set(sections(ROWS)) == set(IDS)
    for title, section in sections(ROWS).items():
        rows = table(section)
        assert list(rows) == IDS[title].split()
        for id, (_, proof) in rows.items():
            if not named(proof):
                why, _, reason = proof.partition(": ")
                assert reason
                without.setdefault(why, set()).add(f"{title} {id}")
    assert without == WITHOUT_TEST


def test_a_row_names_the_tests_that_are_marked_with_it() -> None:
    """And no others, but for ``StoreContract``'s, which are for the stores of other packages as well."""
    tables = [table(part) for part in (sections(PROMISES)["What is promised"], *sections(ROWS).values())]
    rows = [(row, proof) for rows in tables for row, (_, proof) in rows.items()]
    row_of = {id: row for row, _ in rows for id in ids(row)}
    linked = {(row, *test) for row, proof in rows for test in named(proof) if test[1].startswith("tests/")}

    marked = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        path = file.relative_to(ROOT).as_posix()
        marked |= {(row_of.get(id, id), name, path) for name, found in functions_of(path).items() for id in found}

    assert linked - marked == set()
    assert marked - linked == set()


def test_every_requirement_of_asvs_is_met_or_said_to_be_the_apps() -> None:
    requirements = table(sections(PROMISES)["OWASP ASVS 5.0.0"])
    assert list(requirements) == REQUIREMENTS.split()
    for level, required, met, how in requirements.values():
        assert level in ("1", "2", "3")
        assert met in ("default", "option", "app")
        assert required
        assert how


def test_the_strict_profile_is_as_written() -> None:
    """And neither an error nor a warning."""
    [code] = re.findall(r"^```python\n(.*?)^```$", PROMISES, re.M | re.S)
    names: dict[str, Any] = {"app": lambda environ, start_response: [], "secret": "s" * 32}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(code, "docs/security.md", "exec"), names)
    inner = names["app"].app
    assert isinstance(inner, SessionMiddleware)
    assert inner._lifecycle.options.name == "__Host-sid"


def test_it_is_read_in_ten_minutes() -> None:
    """At 230 words a minute, tests left aside."""
    words = re.sub(r"[|`*#,-]", " ", TEST.sub(" ", PROMISES)).split()
    assert len(words) < 2300
