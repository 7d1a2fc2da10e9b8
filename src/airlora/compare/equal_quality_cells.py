"""The cells of bytes at equal quality, as text: for the page of results, README and the report alike."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from airlora.compare import cells, equal_quality
from airlora.report.units import UNKNOWN

if TYPE_CHECKING:
    from airlora.compare.results import Findings

RATE_HEADINGS = (
    "curve",
    "reference",
    "bytes at equal quality [95 %]",
    "worst point",
    "overlap",
    "seeds",
    "fewest points",
)

MATCH_HEADINGS = (
    "peer",
    "its kB",
    "curve",
    "smallest that is no worse",
    "kB",
    "bytes",
    "difference at the end, test split [95 %]",
)


def rate_rows(found: Findings, job: str) -> list[list[str]]:
    """Rate differences against the reference's curve (or against every curve where it has none).

    Over one link the references are the best of all peers with each kind of file: fp16 for every curve, the others
    for policies.
    """
    rates = found.rates
    if rates.empty:
        return []
    rates = rates[rates["job"] == job]
    if files := _all_peers_curves(rates):
        rates = rates[
            rates["other"].isin(files) & (~rates["curve"].map(equal_quality.is_of_peers) | (rates["other"] == files[0]))
        ]
    else:
        candidates = (found.reference(), equal_quality.family(found.reference()))
        reference = next((name for name in candidates if name in set(rates["other"])), None)
        rates = rates[rates["other"] == reference] if reference else rates
    metric = str(found.means.loc[found.means["job"] == job, "metric"].iloc[0])
    rows = []
    for row in rates.to_dict("records"):
        known = row["defined"] > 0
        overlap = (cells.quality(row[name], metric) for name in ("low_quality", "high_quality"))
        rows.append(
            [
                row["curve"],
                row["other"],
                _rate_interval(row) if known else f"undefined: {row['reason']}",
                f"{cells.percent(row['worst'])} at {cells.quality(row['worst_quality'], metric)}" if known else UNKNOWN,
                "–".join(overlap) if known else UNKNOWN,
                f"{row['defined']} of {row['seeds']}",
                str(row["points"]),
            ]
        )
    return rows


def _all_peers_curves(rates: pd.DataFrame) -> list[str]:
    """Those of ``equal_quality.all_peers`` among rate differences, fp16 first."""
    curves = [name for name in dict.fromkeys(rates["other"]) if name.startswith(f"{equal_quality.ALL_PEERS}:")]
    return sorted(curves, key=lambda name: name != equal_quality.all_peers("fp16"))


def _rate_interval(row: Any) -> str:
    """``-85 % [-86 %, -84 %]``; the mean alone where there is no interval."""
    interval = f" [{cells.percent(row['low'])}, {cells.percent(row['high'])}]" if math.isfinite(row["low"]) else ""
    return cells.percent(row["mean"]) + interval


def summary_rows(found: Findings) -> tuple[list[str], list[list[str]]]:
    """Headings and rows, one a job and curve of policies: bytes against the best of all peers with each kind of file,
    and those of the smallest update that is no worse than each fp16 file.

    Said are a job's seeds where it has not all of them, and how many define a figure where some do not. There are no
    rows where peers have no such curves.
    """
    rates = found.rates
    files = [] if rates.empty else _all_peers_curves(rates)
    rows = []
    for (job, curve), group in rates.groupby(["job", "curve"], sort=False) if files else []:
        if not equal_quality.is_of_peers(str(curve)):
            by_file = {row["other"]: row for row in group.to_dict("records")}
            only = "" if found.seeds_of(str(job)) == found.seeds else f", {cells.seeds_text(found, str(job))}"
            figures = (_equal_quality(by_file.get(name)) for name in files)
            rows.append([f"{job}{only}", f"`{curve}`", *figures, _matched(_fp16_matches(found, str(job)), str(curve))])
    return ["job", "curve", *(f"against `{name}`" for name in files), "no worse than each fp16 file"], rows


def _fp16_matches(found: Findings, job: str) -> pd.DataFrame:
    """Of a job, those of peers' fp16 files."""
    table = found.matches
    if table.empty:
        return table
    return table[(table["job"] == job) & ~table["peer"].str.contains(r"file=(?:fp32|fp16\+zstd)")]


def _matched(matches: pd.DataFrame, curve: str) -> str:
    """``-82 % (-91 % … -73 %), 12 of 14 files; 5 better, 1 worse``: the median, and verdicts on the test split."""
    mine = matches[matches["curve"] == curve]
    if mine.empty:
        return UNKNOWN
    ratios = mine["ratio"].dropna().astype(float) - 1
    if ratios.empty:
        return f"none of {len(mine)} files"
    counts = [f"{(mine['verdict'] == said).sum()} {said}" for said in ("better", "worse")]
    verdicts = "" if (mine["verdict"].dropna() == "one seed").all() else f"; {', '.join(counts)}"
    ends = f"{cells.percent(ratios.min())} … {cells.percent(ratios.max())}"
    return f"{cells.percent(ratios.median())} ({ends}), {len(ratios)} of {len(mine)} files{verdicts}"


def _equal_quality(row: Any) -> str:
    if row is None or not row["defined"]:
        return UNKNOWN
    return _rate_interval(row) + ("" if row["defined"] == row["seeds"] else f" ({row['defined']} of {row['seeds']})")


def match_rows(found: Findings, job: str) -> list[list[str]]:
    """Cells under ``MATCH_HEADINGS``: each peer's fp16 file, by size, against the smallest arm of each policy."""
    table = _fp16_matches(found, job)
    sizes = found.means[found.means["job"] == job].set_index("arm")["bytes_on_air"]
    rows = []
    for row in sorted(table.to_dict("records"), key=lambda row: (row["curve"], sizes[row["peer"]])):
        known = [row["peer"], cells.kilobytes(sizes[row["peer"]]), row["curve"]]
        if pd.isna(row["arm"]):
            rows.append([*known, "none", *[UNKNOWN] * 3])
        else:
            size, ratio = cells.kilobytes(row["bytes_on_air"]), cells.percent(row["ratio"] - 1)
            rows.append([*known, row["arm"], size, ratio, cells.verdict_cell(row)])
    return rows
