"""The figures of a comparison: inline for the page, and each as PNG and SVG file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from airlora.compare import statistics
from airlora.compare.bjontegaard import pareto_front
from airlora.compare.cells import arm_order, link_order
from airlora.compare.equal_quality import family
from airlora.compare.plan import slug
from airlora.report.drawing import INK, MUTED, Chart, draw
from airlora.report.units import count_text, ratio_text
from airlora.spec import split_spec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from airlora.compare.results import Findings

# Okabe and Ito's colour-blind safe palette with a purple and a brown for its yellow and black; beyond it, markers
# and dashes tell arms apart.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7A4E9E", "#56B4E9", "#8C6D1F", "#E69F00")
_OUR_MARKERS = ("o", "s", "D", "^", "v", "P")
_PEER_MARKERS = ("X", "*", "<", ">", "p", "h")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (2, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
_PEER_DASHES: tuple[Any, ...] = ((0, (1, 1.2)), (0, (3, 1, 1, 1)), (0, (4, 2)), (0, (1, 2.5)))
_PNG_DPI = 200
_STRETCHED_FROM, _STRETCHED_WITHIN = 0.25, 0.01
"""Shares of the best cloud's gain: the scale of quality is stretched where an arm falls short by the first, and is
linear within the second of the best cloud."""
_MAX_BANDS = 8
"""Arms in one panel up to which intervals over seeds are shaded."""

_MAX_ARMS = 40
"""Bars up to which every arm has one."""


@dataclass(frozen=True)
class ArmStyle:
    """How an arm looks in every figure: colour by family, filled markers for policies, open ones for peers."""

    colour: str
    marker: str
    dashes: Any
    peer: bool

    def line(self) -> dict[str, Any]:
        """Keywords for Matplotlib's ``plot``."""
        face = "white" if self.peer else self.colour
        return {"color": self.colour, "ls": self.dashes, "marker": self.marker, "mec": self.colour, "mfc": face}


def arm_styles(arms: pd.DataFrame) -> dict[str, ArmStyle]:
    """A style for every arm: families share a colour; few arms share marker and dashes too."""
    kinds = dict(zip(arms["arm"], arms["arm_kind"], strict=True))
    order = sorted(kinds, key=lambda arm: (kinds[arm] != "policy", arm))
    families = list(dict.fromkeys(family(arm) for arm in order))
    styles, members = {}, dict.fromkeys(families, 0)
    for arm in order:
        kin = family(arm)
        index, member = families.index(kin), members[kin]
        members[kin] += 1
        peer = kinds[arm] != "policy"
        markers, dashes = (_PEER_MARKERS, _PEER_DASHES) if peer else (_OUR_MARKERS, _DASHES)
        around = index // len(_COLOURS)
        styles[arm] = ArmStyle(
            _COLOURS[index % len(_COLOURS)],
            markers[(member + around) % len(markers)],
            dashes[(member // len(markers) + member + around) % len(dashes)],
            peer,
        )
    return styles


@dataclass(frozen=True)
class Charts:
    """The figures: ``pareto`` one a job; ``gain`` and, of more than one round, ``time`` one a link, by job."""

    pareto: list[Chart]
    time: dict[str, list[Chart]]
    gain: dict[str, list[Chart]]


def draw_figures(found: Findings, folder: Path) -> Charts:
    """Draw every figure, and write each as ``folder/NAME.png`` and ``NAME.svg``."""
    folder.mkdir(parents=True, exist_ok=True)
    painter = _Painter(found, folder, arm_styles(found.arms))
    links = {str(job): link_order(found, str(job))[:-1] for job in dict.fromkeys(found.means["job"])}
    longer = set(found.means.loc[found.means["rounds"] > 1, "job"])
    return Charts(
        pareto=[painter.pareto(job) for job in links],
        time={job: [painter.over_time(job, link) for link in names] for job, names in links.items() if job in longer},
        gain={job: [painter.gains(job, link) for link in names] for job, names in links.items()},
    )


def pareto_charts(found: Findings) -> list[Chart]:
    """Quality against bytes, one chart a job, written nowhere."""
    painter = _Painter(found, None, arm_styles(found.arms))
    return [painter.pareto(str(job)) for job in dict.fromkeys(found.means["job"])]


def link_title(found: Findings, job: str, link: str) -> str:
    """A link for a person: its SNR where that is what it is, else its name; and its budget."""
    means = found.means[(found.means["job"] == job) & (found.means["link"] == link)]
    name = link
    if link in found.links:
        kind, _, values = split_spec(found.links[link])
        if kind == "awgn" and "snr_db" in values:
            name = f"{link}: SNR {values['snr_db']} dB"
    return f"{name} (budget {ratio_text(float(means['budget_ratio'].median()))})"


@dataclass(frozen=True)
class _Painter:
    found: Findings
    folder: Path | None
    styles: dict[str, ArmStyle]

    def _draw(self, name: str, title: str, note: str, size_in: tuple[float, float], paint: Any) -> Chart:
        name = slug(name)

        def paint_and_save(figure: Figure) -> None:
            paint(figure)
            if self.folder:
                figure.savefig(self.folder / f"{name}.png", dpi=_PNG_DPI, facecolor="white")

        chart = draw(name, title, note, size_in, paint_and_save)
        if self.folder:
            (self.folder / f"{name}.svg").write_text(chart.svg, encoding="utf-8")
        return chart

    def pareto(self, job: str) -> Chart:
        """Edge quality at the end against bytes on air: arms over links, or families of arms over one link."""
        means = self.found.means[(self.found.means["job"] == job) & (self.found.means["bytes_on_air"] > 0)]
        all_means = self.found.means[self.found.means["job"] == job]
        metric, factor = _metric(all_means)
        higher = bool(all_means["higher_is_better"].iloc[0])
        single = all_means["link"].nunique() == 1
        arms = [arm for arm in arm_order(self.found) if arm in set(means["arm"])]
        groups = list(dict.fromkeys(map(family, arms))) if single else arms

        def paint(figure: Figure) -> None:
            from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

            axes = figure.subplots()
            base = factor * float(all_means["base_quality"].mean())
            cloud = factor * float(all_means["cloud_quality"].agg("max" if higher else "min"))
            shown = factor * means["edge_quality"]
            below, above = min(cloud, shown.min()), max(cloud, shown.max())
            dotted: dict[str, Any] = {"color": MUTED, "lw": 1.1, "ls": (0, (2, 2)), "zorder": 1}
            if below - (above - below) <= base <= above + (above - below):
                axes.axhline(base, label="untouched model", **dotted)
            else:  # it would leave the arms no room
                axes.plot([], [], label=f"untouched model: {base:.3g} (not shown)", **dotted)
            axes.axhline(cloud, color=INK, lw=1.1, ls=(0, (6, 2)), label="best cloud model", zorder=1)
            for group in groups:
                part = means[(means["arm"].map(family) if single else means["arm"]) == group]
                part = part.sort_values("bytes_on_air")
                x, y = part["bytes_on_air"] / 1e3, factor * part["edge_quality"]
                style = self.styles[part["arm"].iloc[0]].line()
                errors = factor * np.array(
                    [part["edge_quality"] - part["edge_quality_low"], part["edge_quality_high"] - part["edge_quality"]]
                )
                if np.isfinite(errors).all():
                    bars = {"fmt": "none", "ecolor": style["color"], "elinewidth": 0.9, "alpha": 0.5, "zorder": 2}
                    axes.errorbar(x, y, yerr=errors.clip(min=0), **bars)
                if single:
                    front = pareto_front(x, y if higher else -y)
                    axes.plot(front[:, 0], front[:, 1] if higher else -front[:, 1], color=style["color"], lw=1.5)
                    style["ls"] = ""
                axes.plot(x, y, **style, lw=1.5, ms=5.5, label=group, zorder=3)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlabel("bytes on air in all rounds (kB, logarithmic)")
            gain, short = abs(cloud - base), abs(cloud - (below if higher else above))
            if 0 < _STRETCHED_FROM * gain < short:
                _stretch(axes, cloud, _STRETCHED_WITHIN * gain)
            axes.set_ylabel(_quality_label(metric, higher))
            _legend_below(figure, axes)

        if single:
            points = "One point an arm; a line joins the Pareto front of a family (arms that differ in size only)."
        else:
            points = f"One point a link ({count_text(means['link'].nunique(), 'link')}), joined along an arm."
        return self._draw(
            f"pareto-{job}",
            f"{job}: quality against bytes",
            "Edge quality at the end, test split, mean over seeds with 95 % interval."
            f" {points} Open markers are peers. Where an arm falls short by a quarter of what the best cloud model"
            " gains, the scale of quality is stretched towards that model.",
            (6.4, 3.9 + _legend_height_in(["untouched model", "best cloud model", *groups])),
            paint,
        )

    def over_time(self, job: str, link: str) -> Chart:
        """Edge quality after every round, mean and interval over seeds."""
        rounds = self.found.rounds
        rounds = rounds[(rounds["job"] == job) & (rounds["link"] == link)]
        metric, factor = _metric(rounds)
        arms = [arm for arm in arm_order(self.found) if arm in set(rounds["arm"])]
        groups = [[arm for arm in arms if self.styles[arm].peer == peer] for peer in (False, True)]
        groups = [group for group in groups if group]

        def paint(figure: Figure) -> None:
            from matplotlib.ticker import MaxNLocator

            panels = figure.subplots(len(groups), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
            for axes, group in zip(panels, groups, strict=True):
                base = factor * float(rounds["base_quality"].mean())
                axes.axhline(base, color=MUTED, lw=1.1, ls=(0, (2, 2)))
                for arm in group:
                    table = rounds[rounds["arm"] == arm].pivot(index="round", columns="seed", values="edge_quality")
                    table = factor * table.dropna(axis=1)
                    style = self.styles[arm].line()
                    if len(table) > 40:
                        style.pop("marker")
                    if table.shape[1] > 1 and len(group) <= _MAX_BANDS:
                        intervals = statistics.bootstrap_intervals(table.to_numpy())
                        low, high = [item.low for item in intervals], [item.high for item in intervals]
                        axes.fill_between(table.index, low, high, color=style["color"], alpha=0.12, lw=0)
                    axes.plot(table.index, table.mean(axis=1), **style, lw=1.4, ms=3.6, label=arm)
                axes.set_ylabel(_quality_label(metric, bool(rounds["higher_is_better"].iloc[0]), short=True))
                if len(groups) > 1:
                    axes.set_title("peers" if self.styles[group[0]].peer else "policies", loc="left", fontsize=10)
            panels[-1].set_xlabel("round")
            panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
            _legend_below(figure, *panels)

        bands = "" if all(len(group) <= _MAX_BANDS for group in groups) else " (not shaded where arms are many)"
        return self._draw(
            f"time-{job}-{link}",
            f"{job} over {link_title(self.found, job, link)}",
            f"Edge quality after each round, validation split, mean over seeds with 95 % interval{bands}."
            " Dotted: the untouched model.",
            (5.6, 0.7 + 2.3 * len(groups) + _legend_height_in(arms)),
            paint,
        )

    def gains(self, job: str, link: str) -> Chart:
        """Bars of what each arm gained over the untouched model."""
        all_means = self.found.means[self.found.means["job"] == job]
        metric, factor = _metric(all_means)
        sign = 1 if bool(all_means["higher_is_better"].iloc[0]) else -1

        def gain(table: pd.DataFrame, column: str) -> pd.Series[float]:
            return sign * factor * (table[column] - table["base_quality"])

        means = all_means[all_means["link"] == link].set_index("arm")
        arms = [arm for arm in arm_order(self.found) if arm in means.index][::-1]
        if len(arms) > _MAX_ARMS:
            arms = [arm for arm in arms if arm in _on_fronts(means)]
        means = means.loc[arms]

        def paint(figure: Figure) -> None:
            axes = figure.subplots()
            values = gain(means, "edge_quality")
            positions = np.arange(len(arms))
            colours = [self.styles[arm].colour for arm in arms]
            faces = ["white" if self.styles[arm].peer else self.styles[arm].colour for arm in arms]
            axes.barh(positions, values, height=0.72, color=faces, edgecolor=colours, linewidth=1.2)
            ends = np.sort([gain(means, f"edge_quality_{end}") for end in ("low", "high")], axis=0)
            errors = np.array([values - ends[0], ends[1] - values])
            if np.isfinite(errors).all():
                axes.errorbar(
                    values, positions, xerr=errors.clip(min=0), fmt="none", ecolor=INK, elinewidth=1, capsize=2
                )
            axes.plot(
                gain(means, "cloud_quality"),
                positions,
                ls="",
                marker="|",
                ms=11,
                mew=2,
                color=INK,
                label="its cloud model",
            )
            axes.axvline(0, color=INK, lw=0.9)
            limits = [0.0, *(gain(all_means, name).agg(end) for name in _SPREAD for end in ("min", "max"))]
            known = [limit for limit in limits if np.isfinite(limit)]
            margin = 0.04 * (max(known) - min(known) or 1.0)
            axes.set_xlim(min(known) - (margin if min(known) < 0 else 0), max(known) + margin)
            axes.set_yticks(positions, arms)
            axes.set_ylim(-0.6, len(arms) - 0.4)
            axes.grid(visible=False, axis="y")
            axes.set_xlabel("gain in points of accuracy" if metric == "accuracy" else "gain in nats")
            _legend_below(figure, axes)

        return self._draw(
            f"gain-{job}-{link}",
            f"{job} over {link_title(self.found, job, link)}",
            "What the edge gained over the untouched model by the end, test split, mean over seeds with 95 % interval:"
            " to the right is better. Outlined bars are peers. The scale is the same for all links of a job; the"
            f" smallest budget comes first. Of more than {_MAX_ARMS} arms only those on their family's Pareto front are"
            " shown.",
            (5.6, 1.2 + 0.26 * len(arms)),
            paint,
        )


def _stretch(axes: Axes, cloud: float, unit: float) -> None:
    """A scale of quality by the inverse hyperbolic sine of the distance to the best cloud, in units, with round
    ticks."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    def position(quality: Any) -> Any:
        return np.arcsinh((quality - cloud) / unit)

    def quality(position: Any) -> Any:
        return cloud + unit * np.sinh(position)

    ends = position(axes.dataLim.intervaly)
    low, high = quality(ends + 0.04 * (ends[1] - ends[0]) * np.array([-1, 1]))
    axes.set_yscale("function", functions=(position, quality))
    axes.set_ylim(low, high)
    ticks = _round_ticks(low, high, position)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
    axes.yaxis.set_minor_locator(NullLocator())


def _round_ticks(low: float, high: float, position: Callable[[float], float]) -> list[float]:
    """Round values from low to high, the roundest first, none nearer to another than a tenth of the axis."""
    gap = (position(high) - position(low)) / 10
    ticks: list[float] = []
    largest = math.ceil(math.log10(high - low))
    for step in (digit * 10.0**power for power in range(largest, largest - 4, -1) for digit in (5, 2, 1)):
        for multiple in range(math.ceil(low / step), math.floor(high / step) + 1):
            tick = round(multiple * step, 12)
            if all(abs(position(tick) - position(other)) >= gap for other in ticks):
                ticks.append(tick)
    return sorted(ticks)


def _on_fronts(means: pd.DataFrame) -> set[str]:
    """Arms (the index) over one link that are on the Pareto front of their family."""
    sign = 1 if bool(means["higher_is_better"].iloc[0]) else -1
    kept: set[str] = set()
    for _, part in means.groupby(means.index.map(family)):
        front = pareto_front(part["bytes_on_air"], sign * part["edge_quality"])
        kept |= set(
            part.index[part["bytes_on_air"].isin(front[:, 0]) & (sign * part["edge_quality"]).isin(front[:, 1])]
        )
    return kept


_SPREAD = ("edge_quality", "edge_quality_low", "edge_quality_high", "cloud_quality")


def _metric(table: pd.DataFrame) -> tuple[str, float]:
    metric = str(table["metric"].iloc[0])
    return metric, 100.0 if metric == "accuracy" else 1.0


def _quality_label(metric: str, higher_is_better: bool, short: bool = False) -> str:
    better = "higher" if higher_is_better else "lower"
    name = "accuracy (%" if metric == "accuracy" else ("NLL (nats" if short else "negative log-likelihood (nats")
    return f"{name}, {better} is better)"


def _legend_below(figure: Figure, *panels: Axes) -> None:
    """One legend for all panels below them, where it hides no data."""
    handles: dict[str, Any] = {}
    for axes in panels:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=_legend_columns(list(handles)),
        fontsize=8.5,
        frameon=False,
        handlelength=2.4,
        columnspacing=1.2,
        labelspacing=0.3,
    )


def _legend_columns(names: Sequence[str]) -> int:
    longest = max(map(len, names), default=0)
    return 3 if longest <= 18 else 2 if longest <= 34 else 1


def _legend_height_in(names: Sequence[str]) -> float:
    return 0.19 * math.ceil(len(names) / _legend_columns(names)) + 0.15
