"""What the fuzzer found, replayed: each file goes where no other does in a parser, or broke a claim once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from minisession.wire import cookies

from ..support.rows import row
from .fuzz.parsers import CLAIMS, NAME

CORPUS = Path(__file__).parent / "fuzz" / "corpus"
FOUND = sorted(CORPUS.glob("*/*"))
MEGABYTE = 1_000_000


@row("B12", "G2")
@pytest.mark.parametrize("path", FOUND, ids=[f"{path.parent.name}-{path.name[:8]}" for path in FOUND])
def test_what_the_fuzzer_found_breaks_no_claim(path: Path) -> None:
    """Without the fuzzer, and with JSON's scanner in C."""
    CLAIMS[path.parent.name](path.read_bytes())


@row("B12")
def test_a_header_is_read_in_linear_time() -> None:
    """Each of those found, repeated to a megabyte: what grows with the square would take hours."""
    started = time.monotonic()
    for path in (CORPUS / "cookies").iterdir():
        header = path.read_bytes().decode("latin-1")
        for unit in (header, f"{header};", f"{NAME}={header}"):
            repeated = unit * (MEGABYTE // max(1, len(unit)))
            assert len(cookies.read(repeated, NAME)) <= 16
    assert time.monotonic() - started < 60


def test_the_corpus_is_small_and_every_parser_has_one() -> None:
    assert {path.parent.name for path in FOUND} == set(CLAIMS)
    assert len(FOUND) < 200
    assert sum(path.stat().st_size for path in FOUND) < 200_000
