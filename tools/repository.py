"""Links to files of the repository that are no pages, such as tests: on the site just their names.

GitHub follows them.  One to a file that is not there stays a link, and fails the build.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)#]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the names in the places of the links.  MkDocs calls it (``hooks`` in mkdocs.yml)."""
    return LINK.sub(lambda link: f"`{link[1]}`" if (DOCS / link[2]).is_file() else link[0], markdown)
