"""Links from docs/ to files of the repository that are not pages, such as tests: on the site just names.

GitHub follows them.  A link to a file that is not there stays one, and fails the build.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)#]+)\)")


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """Put the names in the places of the links.  MkDocs calls it (``hooks`` in mkdocs.yml)."""
    docs = Path(config["docs_dir"])
    return LINK.sub(lambda link: f"`{link[1]}`" if (docs / link[2]).is_file() else link[0], markdown)
