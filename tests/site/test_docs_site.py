"""The site that MkDocs makes of docs/: no warning, no dead link, nothing from elsewhere, everything in it."""

from __future__ import annotations

import json
import mimetypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import minisession

from ..support.engines.chromium import chromium
from ..support.pages import DOCS, ROOT, blocks, prose
from ..support.serving import serving
from ..support.tools import need_module
from .test_security_docs import TEST

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
    for page in DOCS.glob("*.md"):
        title = page.read_text().partition("\n")[0].removeprefix("# ")
        assert any(title == entry["title"] for entry in found), page.name


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "index.html").read_text()
    for name in [*minisession.__all__, "stores.redis.RedisStore", "testing.StoreContract", "testing.log_in"]:
        assert re.search(rf'id="minisession\.{name}"', page), name


def test_every_diagram_is_drawn(site: Path) -> None:
    """As wide as the page at most, and told to those who cannot see it."""
    pages = "".join(page.read_text() for page in site.rglob("index.html"))
    widths = re.findall(r'<svg [^>]*width="(\d+)"[^>]* role="img" aria-label="', pages)
    assert len(widths) == sum(len(blocks(page, "mermaid")) for page in DOCS.glob("*.md")) > 0
    assert max(map(int, widths)) < 420


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """No font, no script: who reads is nobody's business, and the site works without a network."""
    for page in site.rglob("*.html"):
        tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page.read_text())
        assert [tag for tag in tags if re.search(r'(?:src|href)="?(?:https?:)?//', tag)] == [], page


def test_tests_are_named_where_github_links_to_them(site: Path) -> None:
    page = (site / "security" / "index.html").read_text()
    assert "<code>test_an_unsigned_id_never_reaches_the_store</code>" in page.replace("<wbr>", "")
    assert not re.search(r'href="?[^ >"]*(?:tests/|\.py)', page)


# What does not fit: pages and tables that scroll sideways, diagrams that are cut or too small to be read, and
# words in tables that are broken.  A line may end after what is no letter or digit.
MISFITS = """() => {
    const found = [];
    if (document.documentElement.scrollWidth > innerWidth) found.push("the page");
    for (const table of document.querySelectorAll("article table")) {
        const frame = table.closest(".md-typeset__scrollwrap");
        if (frame.scrollWidth > frame.clientWidth) found.push(`a table: ${table.innerText.slice(0, 60)}`);
        const texts = document.createTreeWalker(table, NodeFilter.SHOW_TEXT);
        while (texts.nextNode()) {
            for (const word of texts.currentNode.data.matchAll(/[\\p{L}\\p{N}]{2,}/gu)) {
                const range = new Range();
                range.setStart(texts.currentNode, word.index);
                range.setEnd(texts.currentNode, word.index + word[0].length);
                if (new Set([...range.getClientRects()].map(box => box.top)).size > 1) found.push(`a word: ${word[0]}`);
            }
        }
    }
    for (const svg of document.querySelectorAll("article svg[role=img]")) {
        const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
        if (scale * 13 < 11) found.push(`a diagram: ${svg.ariaLabel}`);
    }
    return found;
}"""


@pytest.mark.parametrize("width", [390, 1280])
def test_every_page_fits_on_the_screen(site: Path, width: int) -> None:
    """On a phone, and on a desk where a list of pages stands to the left and one of headings to the right."""
    with serving(StaticSite(site)) as address, chromium() as browser:
        page = browser.new_page(viewport={"width": width, "height": 800})
        misfits = {}
        for file in site.rglob("index.html"):
            path = file.parent.relative_to(site).as_posix()
            page.goto(f"{address}/{path}/")
            page.wait_for_function("!document.querySelector('article table:not(.md-typeset__table table)')")  # a script
            misfits[path] = page.evaluate(MISFITS)
    assert {path: found for path, found in misfits.items() if found} == {}


def test_a_long_page_begins_with_what_it_comes_to() -> None:
    """At 1,500 words, code and names of tests left aside, a reader wants to know whether to go on."""
    for page in DOCS.glob("*.md"):
        words = re.sub(r"[|`*#,-]", " ", TEST.sub(" ", prose(page))).split()
        assert len(words) < 1500 or "\nIn short: " in prose(page).partition("\n## ")[0], (page.name, len(words))


def test_the_guides_stand_in_three_groups(site: Path) -> None:
    """Beside what is the reference, and what explains."""
    page = (site / "index.html").read_text()
    sections = re.findall(r'<span class="md-ellipsis">\s*(\w+)\s*</span>\s*<span class="md-nav__icon', page)
    assert [name for name in sections if name in ("Start", "Run", "Move")] == ["Start", "Run", "Move"]


def test_the_reference_shows_what_to_pass_and_what_comes_back(site: Path) -> None:
    """Below the name of each function and each class that is called, its signature."""
    page = (site / "reference" / "index.html").read_text()
    for id in ("SessionMiddleware", "get_session", "Cookie", "Session.regenerate", "Session.transact", "Store.rotate"):
        _, _, entry = page.partition(f'id="minisession.{id}"')
        signature = re.sub("<[^>]+>", "", entry.partition("doc-signature")[2].partition("</div>")[0])
        assert f"{id.rpartition('.')[2]}(" in signature, id


def test_a_reader_searches_and_finds(site: Path) -> None:
    """In a browser, because a script of the site's does it; and nothing is wrong in its console."""
    complaints: list[str] = []
    with serving(StaticSite(site)) as address, chromium() as browser:
        page = browser.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.get_by_role("textbox", name="Search").press_sequentially("logout while a")
        page.locator(".md-search-result__link", has_text="A logout while a request is under way").click()
        page.wait_for_url("**/how-it-works/**")
        assert page.get_by_role("heading", name="A logout while a request is under way").is_visible()
    assert complaints == []


class StaticSite:
    """The files of a folder, as a WSGI app."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        path = self.folder / environ["PATH_INFO"].lstrip("/")
        file = path / "index.html" if path.is_dir() else path
        if not file.is_file():
            start_response("404 Not Found", [])
            return []
        start_response("200 OK", [("Content-Type", mimetypes.guess_type(file)[0] or "application/octet-stream")])
        return [file.read_bytes()]


def test_dead_links_fail_the_build(tmp_path: Path) -> None:
    """To pages, headings, images and files of the repository; or the build above proves nothing."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for name in ("minisession", "tests", "tools", "SECURITY.md", "mkdocs.yml"):
        (tmp_path / name).symlink_to(ROOT / name)
    with (tmp_path / "docs" / "index.md").open("a") as page:
        page.write("\n[a](missing.md) [b](tutorial.md#missing) ![c](images/missing.png) [d](../tests/missing.py)\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert len(re.findall("^WARNING .*'index.md'", done.stderr, re.M)) == 4


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
