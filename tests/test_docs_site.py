"""The site that MkDocs makes of docs/: no warning, no dead link, nothing from elsewhere, everything in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import minisession

from .pages import DOCS, ROOT, blocks
from .tools import need_module

need_module("mkdocs")
need_module("mkdocstrings")
need_module("material")


def build(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the site as CI does: strictly, which makes every warning an error."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there_and_can_be_found(site: Path) -> None:
    """By words from its first heading."""
    found = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    for page in {*DOCS.glob("*.md")} - {DOCS / "security.md", DOCS / "security-rows.md"}:  # left out in mkdocs.yml
        title = page.read_text().partition("\n")[0].removeprefix("# ")
        assert any(title == entry["title"] for entry in found), page.name


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "index.html").read_text()
    for name in [*minisession.__all__, "stores.redis.RedisStore", "testing.StoreContract"]:
        assert re.search(rf'id="minisession\.{name}"', page), name


def test_every_diagram_is_drawn(site: Path) -> None:
    """As wide as the page at most, and told to those who cannot see it."""
    pages = "".join(page.read_text() for page in site.rglob("index.html"))
    widths = re.findall(r'<svg [^>]*width="(\d+)"[^>]* role="img" aria-label="', pages)
    assert len(widths) == sum(len(blocks(page, "mermaid")) for page in DOCS.glob("*.md")) > 0
    assert max(map(int, widths)) < 690


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """No font, no script: who reads is nobody's business, and the site works without a network."""
    for page in site.rglob("*.html"):
        tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page.read_text())
        assert [tag for tag in tags if re.search(r'(?:src|href)="?(?:https?:)?//', tag)] == [], page


def test_dead_links_fail_the_build(tmp_path: Path) -> None:
    """To pages, headings and images; or the build above proves nothing."""
    for name in ("docs", "minisession"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with (tmp_path / "docs" / "index.md").open("a") as page:
        page.write("\n[a](missing.md) [b](tutorial.md#missing) ![c](images/missing.png)\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert len(re.findall("^WARNING", done.stderr, re.M)) == 3


def test_the_tutorial_begins_with_an_empty_folder(tmp_path: Path) -> None:
    """Its other steps are run by test_docs.py."""
    if not os.environ.get("MINISESSION_REQUIRE_TOOLS"):
        pytest.skip("it takes pip, and its index")
    (tmp_path / "minisession").symlink_to(ROOT)
    first = blocks(DOCS / "tutorial.md")[0]
    assert first.language == "sh"
    proof = (
        'cd "$VIRTUAL_ENV/.." && python -c "import minisession, webtest" && waitress-serve --help && pytest --version'
    )
    script = f"set -e\n{first.text}\n{proof}\nexpr ${{#SESSION_SECRET}} = 64"
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
