"""Drawings for a page that may be light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

INK = "#010203"  # stands for the text's colour, which the browser knows and matplotlib does not
STYLE = "<style>svg{color:#222}@media(prefers-color-scheme:dark){svg{color:#ddd}}</style>"
COLOURS = {"ours": "#00a08a", "server-side": "#8294a8", "signed cookie": "#c39a5c"}


class Bar(NamedTuple):
    """A peer's bar.

    Attributes:
        kind: of `COLOURS`.
        text: the figure, as it is written beside the bar.
    """

    label: str
    value: float
    kind: str
    text: str


def bars(path: Path, panels: Mapping[str, Sequence[Bar]], least: Mapping[str, float], *, columns: int) -> None:
    """Draw a panel for each title, with the same bars in the same order.

    Args:
        path: the SVG to write.
        panels: the bars by the panel's title.
        least: where a panel has a line that no bar can get below.
        columns: panels in a row.
    """
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    rows = -(-len(panels) // columns)
    height = 0.19 * max(map(len, panels.values())) + 0.45
    style = {"svg.fonttype": "none", "svg.hashsalt": "", "font.size": 8.5, "font.family": "sans-serif"}
    style |= dict.fromkeys(("text.color", "xtick.color", "ytick.color", "axes.edgecolor"), INK)
    with plt.rc_context(style):
        figure, axes = plt.subplots(rows, columns, figsize=(7.2, rows * height), sharey=True, squeeze=False)
        for axis, (title, drawn) in zip(axes.flat, panels.items(), strict=False):
            _panel(axis, title, drawn, least.get(title))
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        figure.tight_layout(pad=0.4, w_pad=1.2)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        plt.close(figure)
    path.write_text(_slim(buffer.getvalue()))


def _panel(axis: Any, title: str, drawn: Sequence[Bar], least: float | None) -> None:
    places = range(len(drawn))
    axis.barh(places, [bar.value for bar in drawn], color=[COLOURS[bar.kind] for bar in drawn], height=0.72)
    for place, bar in zip(places, drawn, strict=True):
        axis.annotate(bar.text, (max(bar.value, 0), place), (3, 0), textcoords="offset points", va="center")
    if least is not None:
        axis.axvline(least, color=INK, linewidth=0.8, linestyle=":")
    axis.set_title(title, loc="left", fontweight="bold", fontsize=8.5)
    axis.set_yticks(places, [bar.label for bar in drawn])
    axis.set_xticks([])
    axis.margins(x=0.22)
    axis.set_xlim(left=0)
    axis.set_ylim(len(drawn) - 0.5, -0.5)  # the first one on top
    axis.tick_params(length=0)
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def _slim(svg: str) -> str:
    """Return the drawing without what a browser has no use for, and with text in the page's colour."""
    svg = re.sub(r"<\?xml.*?<svg", "<svg", svg, flags=re.S)
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "sans-serif", svg)
    svg = svg.replace(INK, "currentColor")
    svg = re.sub(r"(<svg[^>]*>)", rf"\1{STYLE}", svg, count=1)
    svg = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", svg)
    return re.sub(r"\n\s*", "\n", svg).strip() + "\n"
