"""Tables that can be read on a phone: docs/tables.css, the site's style sheet, stacks the cells of wide ones.

Each cell is told its column's heading, and a table how it is laid out: ``data-layout="stacked"`` on a phone
only, or ``"proved"`` at any width, where a row's tests stand below what they prove.  Names in code may be
broken after punctuation, and nowhere else.
"""

from __future__ import annotations

import re
from html import unescape
from typing import Any

PROOFS = {"proved by", "tests"}  # headings of a last column that is all names of tests
PHONE = 340  # px that a table has there
CHARACTER, PADDING, LONG = 6.6, 20, 30  # px of one, px of a cell, and characters from which on a cell is wrapped

TABLE = re.compile("<table>.*?</table>", re.S)
ROW = re.compile("<tr>.*?</tr>", re.S)
CELL = re.compile("(<t[dh])((?: [^>]*)?>)(.*?)(?=</t[dh]>)", re.S)
CODE = re.compile("(<code>)([^<]+)(?=</code>)")
BREAK = re.compile(r"(?<=[\w)\]])([_.,=/:(\[]+)(?=[^\W\d])")
SPACE = "\u200b"  # of no width: in an attribute, what <wbr> is in a text


def on_page_content(html: str, **_: Any) -> str:
    """Lay the tables out.  MkDocs calls it (``hooks`` in mkdocs.yml)."""
    return TABLE.sub(lambda table: lay_out(table[0]), html)


def lay_out(table: str) -> str:
    """Return a table with its layout and its cells' headings, or as it is where it fits on a phone."""
    rows = [[shown(cell[3]) for cell in CELL.finditer(row)] for row in ROW.findall(table)]
    headings = rows[0]
    if headings[-1] in PROOFS:
        layout = "proved"
    elif sum(map(width, zip(*rows, strict=True))) > PHONE:
        layout = "stacked"
    else:
        return breakable(table)

    if len(headings) == 2:
        headings[1] = ""  # the table says what its one column is about, or it is plain

    def row(match: re.Match[str]) -> str:
        names = (BREAK.sub(rf"\1{SPACE}", heading).replace('"', "&quot;") for heading in headings)
        # The style sheet lays a cell's heading and its content side by side: each must be one thing.
        return CELL.sub(lambda cell: f'{cell[1]} data-heading="{next(names)}"{cell[2]}<div>{cell[3]}</div>', match[0])

    return breakable(ROW.sub(row, table)).replace("<table>", f'<table data-layout="{layout}">')


def shown(html: str) -> str:
    """Return a cell's text."""
    return re.sub("<[^>]+>", "", html).strip()


def width(column: tuple[str, ...]) -> float:
    """Return what a column needs, in px, where its longest cells are wrapped."""
    return max(min(len(unescape(cell)), LONG) for cell in column) * CHARACTER + PADDING


def breakable(table: str) -> str:
    """Say in its code where a line may end."""
    return CODE.sub(lambda code: code[1] + BREAK.sub(r"\1<wbr>", code[2]), table)
