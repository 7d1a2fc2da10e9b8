"""The cells of a comparison's tables, as text: for the page of results, the report and the terminal alike."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from airlora.compare import tables
from airlora.compare.statistics import FEW_SEEDS, false_alarm_rate
from airlora.report.units import UNKNOWN, ratio_text

if TYPE_CHECKING:
    from airlora.compare.results import Findings

HEADINGS = (
    "job", "link", "budget", "arm", "base", "head", "cloud", "edge at the end [95 %]", "edge over time [95 %]",
    "kB on air", "missed", "kB to 90 %", "kB to 95 %", "kB to 99 %", "gain area", "reward, λ = 0 / 0.1 / 1",
    "decision ms", "training s",
)  # fmt: skip


def quality(value: float | None, metric: str) -> str:
    """An accuracy in %, a negative log-likelihood in nats, without the unit."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{100 * value:.1f}" if metric == "accuracy" else f"{value:.3f}"


def unit(metric: str) -> str:
    """The unit of ``quality``."""
    return "%" if metric == "accuracy" else "nats"


def quality_interval(mean: float, low: float, high: float, metric: str) -> str:
    """``80.1 [78.0, 82.2]``; the mean alone where there is no interval."""
    text = quality(mean, metric)
    return text if not math.isfinite(low) else f"{text} [{quality(low, metric)}, {quality(high, metric)}]"


def difference(mean: float, metric: str) -> str:
    """A signed difference of qualities, in points or nats, or of rewards."""
    text = f"{100 * mean:+.1f}" if metric == "accuracy" else f"{mean:+.3f}"
    return text if float(text) else text[1:]  # no sign where nothing is left of it


def percent(ratio: float | None) -> str:
    """A signed share in %: ``-32 %``; with a decimal where a whole one would say that nothing is left, ``-99.7 %``;
    as a factor where it is more than three times as much: ``×4.6``."""
    if ratio is None or not math.isfinite(ratio):
        return UNKNOWN
    digits = 1 if -1 < ratio < -0.995 else 0
    return f"{100 * ratio:+.{digits}f} %" if ratio <= 2 else f"×{ratio_text(1 + ratio)}"


def kilobytes(size_bytes: float) -> str:
    """Bytes in kB with three figures."""
    return f"{float(f'{size_bytes / 1e3:.3g}'):,.10g}".replace(",", "\u00a0")


def bytes_to(row: Any, share: int) -> str:
    """Cost of a share of the gain in kB; ``≥`` and how many seeds got there where some did not."""
    reached, value = row[f"reached_{share}"], row[f"bytes_to_{share}"]
    if not reached:
        return "never"
    return kilobytes(value) if reached == row["seeds"] else f"≥ {kilobytes(value)} ({reached} of {row['seeds']})"


def mean_rows(found: Findings) -> Iterator[tuple[str, ...]]:
    """Cells under ``HEADINGS``, one row an arm: means over seeds."""
    for row in found.means.to_dict("records"):
        metric = row["metric"]
        yield (
            row["job"],
            row["link"],
            f"{row['budget_ratio']:.2g}",
            row["arm"],
            quality(row["base_quality"], metric),
            quality(row["head_only_quality"], metric),
            quality(row["cloud_quality"], metric),
            quality_interval(row["edge_quality"], row["edge_quality_low"], row["edge_quality_high"], metric),
            quality_interval(
                row["mean_edge_quality"], row["mean_edge_quality_low"], row["mean_edge_quality_high"], metric
            ),
            kilobytes(row["bytes_on_air"]),
            f"{row['missed']:.1f}/{row['rounds']}",
            *(bytes_to(row, share) for share in (90, 95, 99)),
            UNKNOWN if pd.isna(row["gain_area"]) else f"{row['gain_area']:.3f}",
            " / ".join(UNKNOWN if pd.isna(row[name]) else f"{row[name]:.3f}" for name in tables.REWARDS),
            f"{1e3 * row['decision_s']:.2g}",
            f"{row['training_s']:.0f}",
        )


def verdict_rows(found: Findings, job: str, measure: str) -> tuple[list[str], list[list[str]]]:
    """Every arm against the reference: headings, and one row an arm with a cell a link.

    A cell is the verdict, the paired difference (positive: better than the reference) and its interval; ``*`` marks
    a verdict that also keeps the false discovery rate of all pairs of this job at 5 %.
    """
    pairs = found.pairs
    if pairs.empty:
        return [], []
    reference = found.reference(measure)
    table = tables.against(pairs[(pairs["job"] == job) & (pairs["measure"] == measure)], reference)
    links = [link for link in link_order(found, job) if link in set(table["link"])]
    rows = []
    for arm in arm_order(found):
        mine = table[table["arm"] == arm].set_index("link")
        if len(mine):
            rows.append([arm, *(verdict_cell(mine.loc[link]) if link in mine.index else UNKNOWN for link in links)])
    return [f"against {reference}", *links], rows


def verdict_cell(row: Any) -> str:
    """``better* +1.2 [+0.8, +1.6]``: a paired difference, its interval and ``verdict``; see ``verdict_rows``.

    Args:
        row: with ``verdict``, ``difference``, ``low``, ``high``, ``metric`` and, where pairs were tested, ``q``.
    """
    star = "*" if row["verdict"] in ("better", "worse") and row.get("q", 1.0) <= 0.05 else ""
    text = f"{row['verdict']}{star} {difference(row['difference'], row['metric'])}"
    if not math.isfinite(row["low"]):
        return text
    return f"{text} [{difference(row['low'], row['metric'])}, {difference(row['high'], row['metric'])}]"


def link_order(found: Findings, job: str) -> list[str]:
    """Links of a job by ascending budget, and then all of them together."""
    means = found.means[found.means["job"] == job]
    return [*dict.fromkeys(means.sort_values("budget_ratio", kind="stable")["link"]), tables.ALL_LINKS]


def arm_order(found: Findings) -> list[str]:
    """Arms: policies, then peers, each by name with numbers by size (rank 2 before rank 16)."""

    def key(arm: str) -> tuple[bool, list[tuple[str, float]]]:
        parts = re.findall(r"(\D*)(\d*\.?\d*)", arm)
        return kinds[arm] != "policy", [(text, float(number) if number.strip(".") else -1.0) for text, number in parts]

    kinds = dict(zip(found.means["arm"], found.means["arm_kind"], strict=True))
    return sorted(kinds, key=key)


def seeds_text(found: Findings, job: str | None = None) -> str:
    """Which seeds, of all jobs or of one, and whether they are too few to trust an interval."""
    seeds = found.seeds if job is None else found.seeds_of(job)
    text = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    if len(seeds) == 1:
        return f"{text} (one seed: no interval and no verdict)"
    return text if len(seeds) >= FEW_SEEDS else f"{text} (fewer than {FEW_SEEDS}: intervals and verdicts are rough)"


def commits_text(found: Findings) -> str:
    """``commit abc1234``, or all of them."""
    return f"commit{'s' if len(found.commits) > 1 else ''} {', '.join(found.commits)}"


FEWER = " †"
"""Behind a figure that has fewer seeds than its job."""

MEASURES = (
    ("Edge at the end, test split [95 %]", HEADINGS.index("edge at the end [95 %]")),
    ("Edge over time, validation split [95 %]", HEADINGS.index("edge over time [95 %]")),
    ("kB on air, all rounds", HEADINGS.index("kB on air")),
    ("Rounds in which something offered did not arrive in time", HEADINGS.index("missed")),
    ("kB on air to 95 % of the cloud's gain", HEADINGS.index("kB to 95 %")),
    ("Reward at λ = 0 / 0.1 / 1", HEADINGS.index("reward, λ = 0 / 0.1 / 1")),
)
"""What a table of its own shows of every arm over every link: title, and column of ``mean_rows``."""


def measure_tables(found: Findings, job: str) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """(title, headings, rows) of the tables of a job: over one link all measures side by side, over several a table a
    measure with a row an arm and a column a link, by ascending budget."""
    rows = [dict(zip(HEADINGS, row, strict=True)) for row in mean_rows(found) if row[0] == job]
    by_key = {(row["arm"], row["link"]): list(row.values()) for row in rows}
    links = link_order(found, job)[:-1]
    arms = [arm for arm in arm_order(found) if any((arm, link) in by_key for link in links)]
    if len(links) == 1:
        columns = list(range(HEADINGS.index("cloud"), len(HEADINGS)))
        cells = [[arm, *(by_key[arm, links[0]][column] for column in columns)] for arm in arms]
        yield f"Over {links[0]}", ["arm", *(HEADINGS[column] for column in columns)], cells
        return
    means = found.means[(found.means["job"] == job) & (found.means["seeds"] < len(found.seeds_of(job)))]
    fewer = set(zip(means["arm"], means["link"], strict=True))

    def cell(arm: str, link: str, column: int) -> str:
        if (arm, link) not in by_key:
            return UNKNOWN
        return by_key[arm, link][column] + (FEWER if (arm, link) in fewer else "")

    budgets = {row["link"]: row["budget"] for row in rows}
    headings = ["arm", *(f"{link} ({budgets[link]})" for link in links)]
    for title, column in MEASURES:
        grid = [[cell(arm, link, column) for link in links] for arm in arms]
        yield title, headings, [[arm, *cells] for arm, cells in zip(arms, grid, strict=True)]
    columns = [HEADINGS.index(name) for name in ("cloud", "decision ms", "training s")]
    some = {arm: next(by_key[arm, link] for link in links if (arm, link) in by_key) for arm in arms}
    cells = [[arm, *(some[arm][column] for column in columns)] for arm in arms]
    title = (
        f"The cloud at the end (test split), a decision and a training, over {links[0]} or the narrowest link there is"
    )
    yield title, ["arm", *(HEADINGS[column] for column in columns)], cells


def multiplicity_text(found: Findings) -> str:
    """How many pairs were tested, and what that means for the verdicts."""
    if found.pairs.empty:
        return ""
    tested = found.pairs[found.pairs["verdict"] != "one seed"]
    decided = tested[tested["verdict"].isin(["better", "worse"])]
    rate = false_alarm_rate(int(tested["seeds"].max())) if len(tested) else None
    if rate is None:
        return "With one seed there are no verdicts.\n"
    return (
        f"{len(tested)} pairs were tested (every measure, every two arms, every link), {len(decided)} of them with a"
        f" verdict of better or worse. Each is stated on its own, and with {int(tested['seeds'].max())} seeds about"
        f" {100 * rate:.0f} % of pairs that do not differ get one by chance."
        f" {int((decided['q'] <= 0.05).sum())} also keep the false discovery rate of their job and measure at 5 %"
        " (paired t-tests; marked *).\n"
    )


def quality_cells(found: Findings, job: str) -> tuple[list[str], list[list[str]]]:
    """Headings and rows, one an arm and a column a link: edge quality at the end, kB on air a round in brackets."""
    means = found.means[found.means["job"] == job]
    by_key = {(row["arm"], row["link"]): row for row in means.to_dict("records")}
    links = link_order(found, job)[:-1]
    budgets = means.groupby("link")["budget_ratio"].median()
    rows = []
    for arm in arm_order(found):
        cells = []
        for link in links:
            row = by_key.get((arm, link))
            edge = UNKNOWN if row is None else quality(row["edge_quality"], row["metric"])
            cells.append(edge if row is None else f"{edge} ({kilobytes(row['bytes_per_round'])})")
        if any(cell != UNKNOWN for cell in cells):
            rows.append([arm, *cells])
    return ["arm", *(f"{link} ({budgets[link]:.2g})" for link in links)], rows


def budget_groups(found: Findings, job: str) -> dict[float, list[str]]:
    """Links of a job by their budget's order of magnitude, 0.01, 0.1, 1 …, ascending; none at all and without bound
    are their own."""
    means = found.means[found.means["job"] == job]
    groups: dict[float, list[str]] = {}
    for link, budget in means.groupby("link")["budget_ratio"].median().sort_values(kind="stable").items():
        bounded = math.isfinite(budget) and budget > 0
        groups.setdefault(10.0 ** round(math.log10(budget)) if bounded else budget, []).append(str(link))
    return groups


def budget_cells(found: Findings, job: str) -> tuple[list[str], list[list[str]]]:
    """Headings and rows, one an arm: means over the links of a budget of edge quality at the end and over time and of
    kB on air a round. An arm that was not run on all links of a budget has no figure there."""
    means = found.means[found.means["job"] == job]
    metric = str(means["metric"].iloc[0])
    groups, seeds = budget_groups(found, job), len(found.seeds_of(job))
    columns: tuple[tuple[str, str, Callable[[float], str]], ...] = (
        ("end", "edge_quality", lambda value: quality(value, metric)),
        ("over time", "mean_edge_quality", lambda value: quality(value, metric)),
        ("kB", "bytes_per_round", kilobytes),
    )
    rows = []
    for arm in arm_order(found):
        mine = means[means["arm"] == arm].set_index("link")
        if mine.empty:
            continue
        cells = []
        for _, name, text in columns:
            for links in groups.values():
                known = set(links) <= set(mine.index) and (mine.loc[links, "seeds"] == seeds).all()
                cells.append(text(float(mine.loc[links, name].mean())) if known else UNKNOWN)
        rows.append([arm, *cells])
    return ["arm", *(f"{title}, {budget:g}" for title, _, _ in columns for budget in groups)], rows
