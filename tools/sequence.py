"""Sequence diagrams: ```` ```mermaid ```` blocks, drawn as SVG while the site is built.

GitHub draws the same blocks by itself.  Here no script has to be fetched, and what cannot be drawn fails
the build.  It knows ``participant a as Name``, ``a->>b: text``, ``a-->>b: text`` (dashed) and
``Note over a: text``.  Texts are wrapped, so that a diagram can be read on a phone.
"""

from __future__ import annotations

import re
import textwrap
from html import escape
from typing import Any, NamedTuple

CHARACTER, LINE = 6.7, 15  # px that one takes, of text in 13 px
WRAP = 16  # characters in a line
GAP = 22  # px between neighbours, and between steps
PAPER = "var(--md-code-bg-color)"  # Material's, in its light and its dark palette

BLOCK = re.compile(r"^```mermaid\n(.*?)^```$", re.M | re.S)
PARTICIPANT = re.compile(r"participant (\w+) as (.+)")
STEP = re.compile(r"(?:(\w+)(--?)>>(\w+)|Note over (\w+)): (.+)")


class Step(NamedTuple):
    """A message from one participant to another (``-``, or dashed ``--``), or a ``box`` over one."""

    kind: str
    source: int
    target: int
    text: str

    @property
    def lines(self) -> list[str]:
        """The text, wrapped between words."""
        return textwrap.wrap(self.text, WRAP, break_long_words=False)

    @property
    def width(self) -> float:
        """What the text needs."""
        return max(map(len, self.lines)) * CHARACTER + GAP

    @property
    def height(self) -> int:
        """What the text needs, with a box or an arrow."""
        return len(self.lines) * LINE + (LINE if self.kind == "box" else 4)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the drawings in the places of the blocks.  MkDocs calls it (``hooks`` in mkdocs.yml)."""
    return BLOCK.sub(lambda match: draw(match[1]), markdown)


def draw(diagram: str) -> str:
    """Return a diagram as HTML.

    Raises:
        ValueError: a line of it is none of those known.
    """
    names, steps = parse(diagram)
    heads = [Step("box", here, here, name) for here, name in enumerate(names)]
    at = places(heads, steps)
    boxes = [step for step in heads + steps if step.kind == "box"]
    left = min(at[step.source] - step.width / 2 for step in boxes) - 2
    width = max(at[step.source] + step.width / 2 for step in boxes) + 2 - left
    shapes = [box(step, at, 0) for step in heads]
    height = heads[0].height + GAP
    for step in steps:
        shapes.append((box if step.kind == "box" else arrow)(step, at, height))
        height += step.height + GAP
    shapes[:0] = [f'<path d="M{x:.0f} 0V{height}" stroke="currentColor" stroke-opacity=".3"/>' for x in at]
    told = "; ".join(f"{names[step.source]}, {names[step.target]}: {step.text}" for step in steps)
    return (
        "<div data-search-exclude>"
        f'<svg viewBox="{left:.0f} -1 {width:.0f} {height + 1}" width="{width:.0f}" style="max-width: 100%"'
        ' font-size="13" fill="currentColor" text-anchor="middle"'
        f' role="img" aria-label="{escape(told)}">{"".join(shapes)}</svg></div>'
    )


def parse(diagram: str) -> tuple[list[str], list[Step]]:
    """Return the participants' names, and what happens between them."""
    names: dict[str, str] = {}
    steps = []
    kind, *lines = filter(None, map(str.strip, diagram.splitlines()))
    if kind != "sequenceDiagram":
        raise ValueError(f"tools/sequence.py draws no {kind!r}")
    for line in lines:
        if match := PARTICIPANT.fullmatch(line):
            names[match[1]] = match[2]
        elif match := STEP.fullmatch(line):
            source, dash, target, over, text = match.groups()
            start, end = map(list(names).index, (source or over, target or over))
            steps.append(Step(dash or "box", start, end, text))
        else:
            raise ValueError(f"tools/sequence.py does not know what to draw for {line!r}")
    return list(names.values()), steps


def places(heads: list[Step], steps: list[Step]) -> list[float]:
    """Return each participant's x: as far to the left as names and messages allow."""
    at: list[float] = []
    for here, head in enumerate(heads):
        x = at[-1] + (heads[here - 1].width + head.width) / 2 + GAP if at else 0.0
        for step in steps:
            low, high = sorted((step.source, step.target))
            if low < high == here:
                x = max(x, at[low] + step.width)
        at.append(x)
    return at


def arrow(step: Step, at: list[float], y: int) -> str:
    """Draw a message: its text, and an arrow under it."""
    start, end = at[step.source], at[step.target]
    back = -7 if end > start else 7
    dashes = ' stroke-dasharray="4 4"' if step.kind == "--" else ""
    tip = y + step.height
    return (
        f'{text(step, (start + end) / 2, y)}<path d="M{start:.0f} {tip}H{end:.0f}" stroke="currentColor"{dashes}/>'
        f'<path d="M{end:.0f} {tip}l{back} -4v8z"/>'
    )


def box(step: Step, at: list[float], y: int) -> str:
    """Draw a note, or a participant's name."""
    middle = at[step.source]
    return (
        f'<rect x="{middle - step.width / 2:.0f}" y="{y}" width="{step.width:.0f}" height="{step.height}" rx="3"'
        f' fill="{PAPER}" stroke="currentColor" stroke-opacity=".5"/>{text(step, middle, y + LINE // 2)}'
    )


def text(step: Step, middle: float, y: int) -> str:
    """Write a step's lines below y."""
    return "".join(
        f'<text x="{middle:.0f}" y="{y + (number + 1) * LINE - 3}">{escape(line)}</text>'
        for number, line in enumerate(step.lines)
    )
