"""Matplotlib figures as accessible inline SVG: style, palette, and the parts that charts share."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from airlora.errors import InputError
from airlora.report.records import Round

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colour-blind safe palette; every line also differs in dashes or marker.
EDGE, CLOUD, REFERENCE, EXTRA = "#0072B2", "#D55E00", "#7A4E9E", "#00795A"
INK, MUTED, FAINT = "#1b2733", "#5b6875", "#e3e8ed"
MISSED_TINT = "#f3ddd6"
_MISSED = "deadline missed"
SHADES = ("#08306b", "#1c5a9e", "#2f79b9", "#8fbfe0", "#b9d6ec", "#dbe7f3")  # dark to light, for parts of a whole

MAX_BARS = 80
"""Rounds up to which bars stand apart; more are drawn as one filled outline."""

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # real text: it can be searched, read aloud and scaled
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9aa5b1",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.9,
    "lines.markersize": 4.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@dataclass(frozen=True)
class Chart:
    """A drawn figure: where it stands, its title, what it says in words, and its SVG markup."""

    slug: str
    title: str
    note: str
    svg: str


def draw(slug: str, title: str, note: str, size_in: tuple[float, float], paint: Callable[[Figure], None]) -> Chart:
    """Run ``paint`` on a fresh figure and return its SVG; equal calls give equal markup.

    Args:
        slug: unique on the page; prefixes every id in the markup.
        title: short heading of the chart.
        note: what is drawn, in words; also the text for those who cannot see it.
        size_in: width and height in inches.
        paint: draws on the figure.

    Raises:
        InputError: Matplotlib is not installed.
    """
    try:
        import matplotlib.style
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("drawing a report needs Matplotlib; install it with: pip install 'airlora[train]'") from error
    buffer = io.StringIO()
    with matplotlib.style.context(["default", {**_STYLE, "svg.hashsalt": slug}]), warnings.catch_warnings():
        # The browser sets the text, with its own fonts; what Matplotlib's font lacks does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=size_in, layout="constrained")
        paint(figure)
        figure.savefig(
            buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}, dpi=72
        )
    return Chart(slug, title, note, _inline(buffer.getvalue(), slug, title, note))


def by_round(axes: Axes, rounds: Sequence[Round], mark_missed: bool = True) -> None:
    """Label the x axis with rounds and tint those that missed their deadline."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlim(rounds[0].index - 0.6, rounds[-1].index + 0.6)
    axes.grid(visible=False, axis="x")
    if mark_missed:
        for first, last in spans([item.index for item in rounds if item.missed]):
            axes.axvspan(first - 0.5, last + 0.5, color=MISSED_TINT, zorder=0, lw=0, label=_MISSED)


def bars(axes: Axes, rounds: Sequence[Round], heights: Any, bottom: Any = 0.0, **style: Any) -> None:
    """One bar a round, or one filled outline when there are too many to tell apart."""
    x = np.array([item.index for item in rounds])
    heights, bottom = np.broadcast_arrays(np.asarray(heights, dtype=float), np.asarray(bottom, dtype=float))
    if len(x) <= MAX_BARS:
        axes.bar(x, heights, bottom=bottom, width=0.78, **style)
    else:
        edges = np.append(x - 0.5, x[-1] + 0.5)
        axes.stairs(bottom + heights, edges, baseline=bottom, fill=True, **style)


def line(axes: Axes, x: Any, y: Any, **style: Any) -> None:
    """A line through the known points; markers only while they can be told apart."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    known = np.isfinite(y)
    if known.sum() > 60:
        style.pop("marker", None)
    axes.plot(x[known], y[known], **style)


def legend(axes: Axes, columns: int) -> None:
    """A legend above the axes, where it can hide no data; each label once, the misses last."""
    by_label = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if _MISSED in by_label:
        by_label[_MISSED] = by_label.pop(_MISSED)
    axes.legend(
        by_label.values(),
        by_label.keys(),
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=columns,
        borderaxespad=0.2,
        handlelength=1.7,
    )


def spans(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending numbers as runs (first, last): [3, 4, 5, 9] becomes [(3, 5), (9, 9)]."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def log_if_wide(axes: Axes, values: Any) -> None:
    """A logarithmic y axis where positive values span more than a factor of 20, else one from zero."""
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values) & (values > 0)]
    if values.size and values.max() > 20 * values.min():
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)


def _inline(markup: str, slug: str, title: str, note: str) -> str:
    markup = markup[markup.index("<svg") :]

    def prefix(tag: re.Match[str]) -> str:
        # Only inside tags: text between them may hold anything a user named.
        text = re.sub(r'\bid="', f'id="{slug}-', tag.group())
        text = text.replace("url(#", f"url(#{slug}-")
        return re.sub(r'href="#', f'href="#{slug}-', text)

    markup = re.sub(r"<[^<>]*>", prefix, markup)
    opening, _, rest = markup.partition(">")
    opening = re.sub(r'\s(width|height)="[^"]*"', "", opening)  # the viewBox stays, so the page sets the size
    opening += f' role="img" aria-labelledby="{slug}-title {slug}-desc">'
    return (
        f'{opening}<title id="{slug}-title">{html.escape(title)}</title>'
        f'<desc id="{slug}-desc">{html.escape(note)}</desc>{rest}'
    )
