"""Bytes at equal quality: Bjøntegaard's rate differences of curves, and the smallest arms that are no worse."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from airlora.compare import statistics
from airlora.compare.bjontegaard import RateDifference, rate_difference

_SIZE_KEYS = ("rank", "bits", "divide", "rounding")
ALL_PEERS = "peft"
"""The curve of all peers together, of which there is one for each kind of file."""


def family(arm: str) -> str:
    """An arm's SPEC without the keys that only set its size: ``uniform:rank=4,bits=3`` is of family ``uniform``."""
    return _without(arm, *_SIZE_KEYS, "file")


def all_peers(file: str) -> str:
    """Name of the curve of the best that any peer reaches with a kind of file."""
    return f"{ALL_PEERS}:file={file}"


def is_of_peers(curve: str) -> bool:
    """Whether a curve of ``rate_differences`` is one of peers, alone or together, and not of policies."""
    return curve.partition(":")[0] == ALL_PEERS or curve.startswith(f"{ALL_PEERS}-")


def _without(arm: str, *left_out: str) -> str:
    name, colon, keys = arm.partition(":")
    kept = [part for part in keys.split(",") if part.partition("=")[0] not in left_out]
    return name + colon + ",".join(kept) if colon and kept else name


def _curves(group: pd.DataFrame) -> pd.DataFrame:
    """Rows with the curve that each is a point of: over one link a family and kind of file, and all peers together."""
    if group["link"].nunique() > 1:
        return group.assign(curve=group["arm"])
    each = group.assign(curve=[_without(arm, *_SIZE_KEYS) for arm in group["arm"]])
    peers = group[group["arm_kind"] == "peer"]
    files = [re.search(r"file=([^,]+)", arm) for arm in peers["arm"]]
    pooled = peers.assign(curve=[all_peers(found[1]) if found else ALL_PEERS for found in files])
    return pd.concat([each, pooled]) if peers["arm"].map(family).nunique() > 1 else each


def rate_differences(arms: pd.DataFrame) -> pd.DataFrame:
    """Bjøntegaard's rate difference of every curve of a job against every other, by seed and over seeds.

    A curve's points are total bytes on air and edge quality at the end (test split). Over several links it has
    one point a link for each arm; over one link it has one point for each arm of a ``family`` (and kind of file), and
    there is one of all peers together for each kind of file (``all_peers``).

    Returns:
        One row a job and ordered pair of curves: ``mean`` and ``worst`` (ratio of rates − 1, geometric mean over
        seeds; ``worst`` the largest over seeds), ``low``, ``high`` (interval of ``mean``), ``worst_quality``,
        ``low_quality``, ``high_quality`` (overlap, of the seed with the worst point), ``defined`` of ``seeds``,
        ``points`` (fewest on a front), ``reason`` where no seed defines it.
    """
    rows = []
    for job, group in arms.groupby("job", sort=False):
        sign = 1.0 if bool(group["higher_is_better"].iloc[0]) else -1.0
        group = _curves(group)
        group = group.assign(gain=sign * group["edge_quality"])
        parts = dict(iter(group.groupby(["curve", "seed"])))
        names = [name for name, part in group.groupby("curve", sort=False) if len(part) > part["seed"].nunique()]
        for first in names:
            for second in names:
                if first != second:
                    row = _rate_row(parts, first, second, sorted(group["seed"].unique()), sign)
                    rows.append({"job": job, "curve": first, "other": second, **row})
    return pd.DataFrame(rows)


def _rate_row(parts: dict[Any, pd.DataFrame], first: Any, second: Any, seeds: list[Any], sign: float) -> dict[str, Any]:
    found: list[RateDifference] = []
    for seed in seeds:
        if (first, seed) in parts and (second, seed) in parts:
            a, b = parts[first, seed], parts[second, seed]
            found.append(rate_difference(a["bytes_on_air"], a["gain"], b["bytes_on_air"], b["gain"]))
    known = [item for item in found if item.mean is not None and item.worst is not None]
    if not known:
        return {
            "mean": None, "low": None, "high": None, "worst": None, "worst_quality": None, "low_quality": None,
            "high_quality": None, "defined": 0, "seeds": len(found), "points": _fewest(found),
            "reason": "; ".join(sorted({item.reason for item in found})) or "no common seed",
        }  # fmt: skip
    logs = statistics.mean_interval(np.log10([1 + (item.mean or 0.0) for item in known]))
    worst = max(known, key=lambda item: item.worst or 0.0)
    ends = sorted(sign * end for end in (worst.low_quality or 0.0, worst.high_quality or 0.0))
    return {
        "mean": 10**logs.mean - 1,
        "low": 10**logs.low - 1,
        "high": 10**logs.high - 1,
        "worst": worst.worst,
        "worst_quality": sign * (worst.worst_quality or 0.0),
        "low_quality": ends[0],
        "high_quality": ends[1],
        "defined": len(known),
        "seeds": len(found),
        "points": _fewest(known),
        "reason": "",
    }


def _fewest(found: list[RateDifference]) -> int:
    return min((min(item.points) for item in found), default=0)


def matches(arms: pd.DataFrame) -> pd.DataFrame:
    """Over one link: for every arm of a peer the smallest arm of each policy that is no worse.

    Which arm that is, is decided on the validation split, by means over the seeds that it has in common with the
    peer's, so what they differ by on the test split is not flattered by the choice, however many arms a policy has.
    (The Pareto fronts of ``rate_differences`` are chosen on the test split.)

    Args:
        arms: one row an arm and seed, of ``tables.measure_arms``.

    Returns:
        One row a job, policy's ``curve`` (a ``family``) and ``peer``: the ``arm``, its ``bytes_on_air`` and the
        peer's (``peer_bytes_on_air``), their ``ratio``, the ``difference`` of their quality at the end (test split,
        in the unit of ``metric``, positive: the arm is better) with interval, ``seeds`` and ``verdict``. Where no arm
        of the family is as good, all of that is missing.
    """
    rows: list[dict[str, Any]] = []
    samples: list[np.ndarray[Any, np.dtype[np.float64]]] = []
    for job, group in arms.groupby("job", sort=False):
        if group["link"].nunique() > 1:
            continue
        sign = 1.0 if bool(group["higher_is_better"].iloc[0]) else -1.0
        by_arm = {str(arm): part.set_index("seed") for arm, part in group.groupby("arm", sort=False)}
        kinds = group.drop_duplicates("arm").set_index("arm")["arm_kind"]
        policies = [arm for arm in by_arm if kinds[arm] == "policy"]
        for curve in dict.fromkeys(map(family, policies)):
            sizes = [by_arm[arm] for arm in policies if family(arm) == curve]
            for peer in (arm for arm in by_arm if kinds[arm] == "peer"):
                row, sample = _match(sizes, by_arm[peer], sign)
                rows.append({"job": job, "curve": curve, "peer": peer, "metric": group["metric"].iloc[0], **row})
                samples.append(sample)
    for row, interval in zip(rows, statistics.ragged_intervals(samples), strict=True):
        row["difference"] = interval.mean if interval else None
        row["low"] = interval.low if interval else None
        row["high"] = interval.high if interval else None
        row["verdict"] = statistics.verdict(interval) if interval else None
    return pd.DataFrame(rows)


def _match(
    sizes: list[pd.DataFrame], peer: pd.DataFrame, sign: float
) -> tuple[dict[str, Any], np.ndarray[Any, np.dtype[np.float64]]]:
    """The smallest of some arms that is no worse than a peer's, and what it gains over that by seed (test split)."""
    pairs = []
    for part in sizes:
        seeds = part.index.intersection(peer.index)
        ours, theirs = part.loc[seeds], peer.loc[seeds]
        if sign * (ours["validation_quality"] - theirs["validation_quality"]).mean() >= 0:  # never without a seed
            pairs.append((float(ours["bytes_on_air"].mean()), ours, theirs))
    if not pairs:
        return {"arm": None, "bytes_on_air": None, "peer_bytes_on_air": None, "ratio": None, "seeds": 0}, np.empty(0)
    size, ours, theirs = min(pairs, key=lambda pair: pair[0])
    file_size = float(theirs["bytes_on_air"].mean())
    found = {
        "arm": ours["arm"].iloc[0],
        "bytes_on_air": size,
        "peer_bytes_on_air": file_size,
        "ratio": size / file_size if file_size else None,
        "seeds": len(ours),
    }
    return found, sign * (ours["edge_quality"] - theirs["edge_quality"]).to_numpy(dtype=np.float64)
