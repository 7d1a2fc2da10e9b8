"""Heat maps of the rank of every projection in every round, one figure a kind of projection."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from airlora.report.drawing import INK, Chart, draw
from airlora.report.projections import Kind, kinds_of
from airlora.report.records import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.ticker import MaxNLocator

_MAX_ROW_LABELS = 12
_MAX_LABEL_CHARACTERS = 26


def rank_charts(run: RunRecord) -> list[Chart]:
    """One chart a kind: the rank chosen for the round beside the rank active on the edge after it."""
    kinds = kinds_of([projection.name for projection in run.schema.projections])
    largest = max(projection.r_max for projection in run.schema.projections)
    return [_kind_chart(run, kind, f"ranks-{position}", largest) for position, kind in enumerate(kinds)]


def rank_table(rows: Sequence[str], rounds: Sequence[Mapping[str, int]]) -> np.ndarray:
    """Ranks as an array.

    Returns:
        (len(rows), len(rounds)) float; NaN where a round has no entry for a projection.
    """
    return np.array([[float(ranks.get(name, np.nan)) for ranks in rounds] for name in rows])


def _kind_chart(run: RunRecord, kind: Kind, slug: str, largest: int) -> Chart:
    chosen = rank_table(kind.rows, [item.ranks for item in run.rounds])
    active = rank_table(kind.rows, [item.edge_ranks for item in run.rounds])

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True)
        _map(left, run, chosen, "chosen for the round", largest)
        image = _map(right, run, active, "active on the edge", largest)
        shown = range(0, len(kind.rows), math.ceil(len(kind.rows) / _MAX_ROW_LABELS))
        left.set_yticks(shown, [_shorten(kind.row_labels[row]) for row in shown])
        if kind.layered:
            left.set_ylabel("layer")
        bar = figure.colorbar(image, ax=[left, right], shrink=0.9, aspect=16, pad=0.02)
        bar.set_label("rank")
        bar.outline.set_visible(False)
        bar.locator = _integers(5)
        bar.update_ticks()

    last = active[:, -1]
    known = last[np.isfinite(last)]
    note = f"{len(kind.rows)} {'layers' if kind.layered else 'projections'}"
    note += f"; mean rank on the edge at the end {known.mean():.1f}." if known.size else "."
    height_in = float(np.clip(1.35 + 0.17 * len(kind.rows), 2.2, 5.2))
    return draw(slug, kind.label, note, (5.4, height_in), paint)


def _map(axes: Axes, run: RunRecord, ranks: np.ndarray, title: str, largest: int) -> AxesImage:
    from matplotlib import colormaps

    colours = colormaps["YlGnBu"].with_extremes(bad="#d9d9d9")
    first, last = run.rounds[0].index - 0.5, run.rounds[-1].index + 0.5
    image = axes.imshow(
        np.ma.masked_invalid(ranks),
        cmap=colours,
        vmin=0,
        vmax=largest,
        aspect="auto",
        interpolation="none",
        extent=(first, last, len(ranks) - 0.5, -0.5),
    )
    axes.set_title(title, fontsize=9.5, color=INK, loc="left")
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(_integers(5))
    axes.grid(visible=False)
    axes.tick_params(length=2)
    for spine in axes.spines.values():
        spine.set_visible(True)
    return image


def _integers(count: int) -> MaxNLocator:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count, integer=True)


def _shorten(label: str) -> str:
    return label if len(label) <= _MAX_LABEL_CHARACTERS else "…" + label[1 - _MAX_LABEL_CHARACTERS :]
