"""Pages of documentation: their blocks of code are run as a reader would, and their links followed."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    line: int  # of its first line, from 1


def blocks(page: Path, *languages: str) -> list[Block]:
    """Return a page's fenced blocks, in order; in these languages, or in all."""
    text = page.read_text()
    found = [
        Block(match[1], match[2], text.count("\n", 0, match.start(2)) + 1)
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    ]
    return [block for block in found if not languages or block.language in languages]


def run_python(page: Path, after: int = 0) -> None:
    """Run a page's python blocks one after the other, and compare what they print with the text blocks.

    ``after`` so many blocks, which are another test's.
    """
    names: dict[str, Any] = {"__name__": page.stem}
    printed = io.StringIO()
    for block in blocks(page, "python", "text")[after:]:
        if block.language == "python":
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec", dont_inherit=True)
            with contextlib.redirect_stdout(printed):
                exec(code, names)
        else:
            assert_shown(printed.getvalue(), block.text)
            printed = io.StringIO()
    assert printed.getvalue() == "", "printed, and not on the page"


def run_transcript(transcript: str, folder: Path, **options: Any) -> int:
    """Run a transcript's commands in a shell, compare what they show, and return how many there were."""
    turns = re.split(r"^\$ ", transcript, flags=re.M)[1:]
    for turn in turns:
        command, _, expected = turn.partition("\n")
        done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=False, **options)
        assert_shown(done.stdout.replace("\r", ""), expected)
    return len(turns)


def assert_shown(actual: str, expected: str) -> None:
    """Compare, where "…" in what is expected stands for what is random: anything without a space."""
    pattern = re.escape(expected.strip()).replace("…", "[^ ;]+")
    assert re.fullmatch(pattern, actual.strip()), f"{actual!r} is not {expected!r}"


def dead_links(page: Path) -> list[str]:
    """Return the links to files or headings of the project that are not there."""
    dead = []
    for target in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(target)
    return dead


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, by GitHub's rule."""
    headings = re.findall(r"^#+ +(.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
