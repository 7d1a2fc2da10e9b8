"""The tables of a comparison: one row an arm and seed, means over seeds, paired differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from airlora.compare import measures, statistics

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
