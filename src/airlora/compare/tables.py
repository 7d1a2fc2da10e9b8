"""The tables of a comparison: one row an arm and seed, means over seeds, paired differences, rate differences, and the
smallest arms that are no worse."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from airlora.compare import measures, statistics
from airlora.compare.bjontegaard import RateDifference, rate_difference

ALL_LINKS = "all links"
"""Stands where a link's name does, for differences averaged over the links of a job within each seed."""

PRICED = "reward_0.1"
PAIR_MEASURES = {
    "edge_quality": "edge quality at the end (test split)",
    "mean_edge_quality": "edge quality averaged over time (validation split)",
    PRICED: "reward at λ = 0.1",
}
"""What arms are compared by, and what it is called."""

_ARM = ["job", "link", "arm", "arm_kind"]
REWARDS = tuple(f"reward_{weight:g}" for weight in measures.AIRTIME_WEIGHTS)
_WITH_INTERVAL = ("edge_quality", "mean_edge_quality", "bytes_on_air", "gain_area", *REWARDS)
_MEANS = (
    "budget_ratio",
    "base_quality",
    "head_only_quality",
    "cloud_quality",
    "bytes_per_round",
    "airtime_s",
    "missed",
)
_COSTS = ("decision_s", "training_s", "energy_j")


def measure_arms(rounds: pd.DataFrame, finals: pd.DataFrame) -> pd.DataFrame:
    """Every measure of every arm with every seed.

    The target of ``bytes_to_…`` and ``gain_area`` is the same for all arms of a job and seed: the best quality
    that any of their clouds ends with, on the validation split.

    Args:
        rounds: one row a round, as ``results.parquet``.
        finals: one row an arm and seed with ``base_quality``, ``head_only_quality``, ``cloud_quality`` and
            ``edge_quality`` on the test split, ``training_s`` and ``steps_trained``.

    Returns:
        One row an arm and seed, by job, budget, link, arm and seed.
    """
    rounds = rounds.sort_values("round", kind="stable")
    targets = {key: _target_gain(group) for key, group in rounds.groupby(["job", "seed"])}
    rows = []
    for (job, link, arm, arm_kind, seed), group in rounds.groupby([*_ARM, "seed"], sort=False):
        rows.append(
            {
                "job": job,
                "link": link,
                "arm": arm,
                "arm_kind": arm_kind,
                "seed": seed,
                "metric": group["metric"].iloc[0],
                "higher_is_better": bool(group["higher_is_better"].iloc[0]),
                **_measures(group, targets[job, seed]),
            }
        )
    table = pd.DataFrame(rows).merge(finals, on=["job", "link", "arm", "seed"], validate="one_to_one")
    return table.sort_values(
        ["job", "budget_ratio", "link", "arm_kind", "arm", "seed"], ascending=_ASCENDING
    ).reset_index(drop=True)


_ASCENDING = [True, True, True, False, True, True]
"""Policies before peers."""


def _target_gain(rounds: pd.DataFrame) -> float:
    last = rounds.drop_duplicates(["link", "arm"], keep="last")
    return float(max(_gain(last, "cloud_quality")))


def _gain(rounds: pd.DataFrame, column: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    first = rounds.iloc[0]
    return measures.gain(rounds[column], first["base_quality"], bool(first["higher_is_better"]))


def _measures(group: pd.DataFrame, target_gain: float) -> dict[str, Any]:
    first = group.iloc[0]
    sent, gains = group["bytes_on_air"].to_numpy(), _gain(group, "edge_quality")
    airtime_s, total = float(group["airtime_s"].sum()), int(sent.sum())
    file_bytes = float(first["plain_lora_bytes"])
    return {
        "budget_ratio": float(group["capacity_bytes"].median()) / file_bytes,
        "mean_edge_quality": measures.time_average(
            group["t_s"], group["airtime_s"], group["edge_quality"], first["base_quality"], first["deadline_s"]
        ),
        "validation_quality": float(group["edge_quality"].iloc[-1]),
        "rounds": len(group),
        "missed": int(group["missed"].sum()),
        "bytes_offered": int(group["bytes_offered"].sum()),
        "bytes_delivered": int(group["bytes_delivered"].sum()),
        "bytes_on_air": total,
        "bytes_per_round": total / len(group),
        "airtime_s": airtime_s,
        **{
            f"bytes_to_{round(100 * share)}": measures.bytes_to_gain(sent, gains, target_gain, share)
            for share in measures.GAIN_SHARES
        },
        "gain_area": measures.area_under_gain(sent, gains, target_gain, file_bytes),
        **{
            name: measures.reward(group["airtime_s"], gains, target_gain, first["deadline_s"], weight)
            for name, weight in zip(REWARDS, measures.AIRTIME_WEIGHTS, strict=True)
        },
        "decision_s": float(group["decision_s"].mean()),
        "energy_j": measures.reception_energy_j(airtime_s, total),
    }


def over_seeds(arms: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, some with a 95 % interval (columns ``…_low`` and ``…_high``).

    ``bytes_to_P`` is the mean over seeds where a seed that never gets there counts with all it sent, so it is
    a lower bound unless ``reached_P`` equals ``seeds``; it is missing where no seed gets there.
    """
    groups = list(arms.groupby(_ARM, sort=False))
    rows: list[dict[str, Any]] = []
    for key, group in groups:
        row: dict[str, Any] = dict(zip(_ARM, key, strict=True))
        row |= {name: group[name].iloc[0] for name in ("metric", "higher_is_better", "rounds")}
        row["seeds"] = len(group)
        row |= {name: _mean(group[name]) for name in (*_MEANS, *_COSTS)}
        for share in measures.GAIN_SHARES:
            name = f"{round(100 * share)}"
            reached = group[f"bytes_to_{name}"]
            known = reached.notna()
            row[f"reached_{name}"] = int(known.sum())
            row[f"bytes_to_{name}"] = float(reached.fillna(group["bytes_on_air"]).mean()) if known.any() else None
        rows.append(row)
    for name in _WITH_INTERVAL:
        samples = [group[name].dropna().to_numpy(dtype=np.float64) for _, group in groups]
        for row, interval in zip(rows, statistics.ragged_intervals(samples), strict=True):
            row[name] = interval.mean if interval else None
            row[f"{name}_low"] = interval.low if interval else None
            row[f"{name}_high"] = interval.high if interval else None
    return pd.DataFrame(rows)


def _mean(values: pd.Series[Any]) -> float | None:
    known = values.dropna()
    return float(known.mean()) if len(known) else None


def paired_differences(arms: pd.DataFrame) -> pd.DataFrame:
    """Every two arms of a job over the same link with the same seeds: how much better is the first?

    Returns:
        One row a measure, job, link (and ``ALL_LINKS``, where a job has several) and pair: ``difference``
        (arm − other, in the unit of ``metric``, positive is better) with interval, ``seeds``, ``p`` of the paired
        t-test, ``q`` (false discovery rate within the measure and job) and ``verdict``.
    """
    parts = []
    for measure in PAIR_MEASURES:
        for job, group in arms.groupby("job", sort=False):
            lower = measure != PRICED and not bool(group["higher_is_better"].iloc[0])
            gains = group.assign(gain=(-1.0 if lower else 1.0) * group[measure].astype(float))
            links = [(link, part) for link, part in gains.groupby("link", sort=False)]
            tables = [(str(link), part.pivot(index="arm", columns="seed", values="gain")) for link, part in links]
            if len(tables) > 1:
                wide = gains.pivot(index=["arm"], columns=["seed", "link"], values="gain")
                tables.append((ALL_LINKS, wide.dropna().T.groupby(level="seed").mean().T))
            family = pd.DataFrame([row for link, table in tables for row in _pairs(table, link)])
            if len(family):
                family.insert(0, "measure", measure)
                family.insert(1, "job", job)
                family["metric"] = "reward" if measure == PRICED else group["metric"].iloc[0]
                family["q"] = statistics.false_discovery_rates(family["p"])
                parts.append(family)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _pairs(gains: pd.DataFrame, link: str) -> list[dict[str, Any]]:
    """Rows of every pair of arms; ``gains`` is (arms, seeds), and a pair counts the seeds that both have."""
    values = gains.to_numpy(dtype=np.float64)  # (arms, seeds)
    firsts, seconds = np.triu_indices(len(values), k=1)
    common = np.isfinite(values[firsts]) & np.isfinite(values[seconds])  # (pairs, seeds)
    rows = []
    for seeds in np.unique(common, axis=0):
        if not seeds.any():
            continue
        pairs = np.flatnonzero((common == seeds).all(axis=1))
        differences = values[firsts[pairs]][:, seeds] - values[seconds[pairs]][:, seeds]
        intervals = statistics.bootstrap_intervals(differences)
        p_values = statistics.paired_p_values(differences)
        for pair, interval, p_value in zip(pairs, intervals, p_values, strict=True):
            rows.append(
                {
                    "link": link,
                    "arm": gains.index[firsts[pair]],
                    "other": gains.index[seconds[pair]],
                    "difference": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "seeds": interval.seeds,
                    "p": float(p_value),
                    "verdict": statistics.verdict(interval),
                }
            )
    return rows


_OPPOSITE: dict[str, str] = {"better": "worse", "worse": "better"}


def against(pairs: pd.DataFrame, reference: str) -> pd.DataFrame:
    """The pairs that one arm is part of, turned so that it is always ``other``."""
    if pairs.empty:
        return pairs
    right = pairs[pairs["other"] == reference]
    left = pairs[pairs["arm"] == reference]
    turned = left.assign(
        arm=left["other"],
        other=left["arm"],
        difference=-left["difference"],
        low=-left["high"],
        high=-left["low"],
        verdict=left["verdict"].replace(_OPPOSITE),
    )
    return pd.concat([right, turned], ignore_index=True)


REFERENCES = ("fit", "peft-lora:rank=8", "peft-lora:rank=8,file=fp32")
"""Arms that verdicts are stated against: the first of them that took part, else the first policy, else any arm."""

PRICED_REFERENCE = "fit:airtime_weight=0.1"
"""Goes before ``REFERENCES`` where airtime has a price: the same rule, told it."""


def reference_arm(arms: pd.DataFrame, measure: str = "edge_quality") -> str:
    """The arm that verdicts by a measure are stated against; see ``REFERENCES``."""
    names = list(dict.fromkeys(arms["arm"]))
    policies = [name for name in names if (arms.loc[arms["arm"] == name, "arm_kind"] == "policy").any()]
    wanted = (PRICED_REFERENCE, *REFERENCES) if measure == PRICED else REFERENCES
    return str(([name for name in wanted if name in names] or policies or names)[0])


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
        arms: one row an arm and seed, of ``measure_arms``.

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
    found: dict[str, Any] = {"arm": None, "bytes_on_air": None, "peer_bytes_on_air": None, "ratio": None, "seeds": 0}
    gains = np.empty(0)
    for part in sizes:
        seeds = part.index.intersection(peer.index)
        ours, theirs = part.loc[seeds], peer.loc[seeds]
        size = float(ours["bytes_on_air"].mean())
        if not len(seeds) or sign * (ours["validation_quality"] - theirs["validation_quality"]).mean() < 0:
            continue
        if found["arm"] is None or size < found["bytes_on_air"]:
            file_size = float(theirs["bytes_on_air"].mean())
            found = {
                "arm": ours["arm"].iloc[0],
                "bytes_on_air": size,
                "peer_bytes_on_air": file_size,
                "ratio": size / file_size if file_size else None,
                "seeds": len(seeds),
            }
            gains = sign * (ours["edge_quality"] - theirs["edge_quality"]).to_numpy(dtype=np.float64)
    return found, gains
