"""Means over seeds with bootstrap intervals, paired differences, and what can be said of them.

Seeds are few, so the intervals are rough: docs/measures.md says how often they are wrong. Everything is
deterministic: the bootstrap draws from a generator with a fixed seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from airlora.errors import InputError

Verdict = Literal["better", "worse", "no difference shown", "one seed"]

CONFIDENCE = 0.95
FEW_SEEDS = 5
"""Below so many seeds an interval is marked as rough."""

_RESAMPLES = 1999
_BATCH_NUMBERS = 2_000_000
"""Resampled numbers that are held at once."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, and the bootstrap's 95 % interval of it (NaN with one seed)."""

    mean: float
    low: float
    high: float
    seeds: int


def bootstrap_intervals(samples: npt.ArrayLike) -> list[Interval]:
    """Mean over seeds of every row, with its percentile bootstrap interval at 95 %.

    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    Args:
        samples: (rows, seeds), finite.

    Raises:
        InputError: not a matrix, no seeds, or a number that is not finite.
    """
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 2 or not values.shape[1]:
        raise InputError(f"samples must be (rows, seeds), not of shape {values.shape}")
    if not np.isfinite(values).all():
        raise InputError("samples must be finite")
    rows, seeds = values.shape
    means = values.mean(axis=1)
    if seeds == 1 or not rows:
        return [Interval(float(mean), float("nan"), float("nan"), seeds) for mean in means]
    from scipy.stats import bootstrap

    found = bootstrap(
        (values,),
        np.mean,
        axis=1,
        n_resamples=_RESAMPLES,
        batch=max(1, _BATCH_NUMBERS // values.size),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return [
        Interval(float(mean), float(low), float(high), seeds)
        for mean, low, high in zip(means, np.atleast_1d(found.low), np.atleast_1d(found.high), strict=True)
    ]


def ragged_intervals(samples: Sequence[npt.NDArray[np.float64]]) -> list[Interval | None]:
    """``bootstrap_intervals`` of samples with unequal numbers of seeds; None for an empty one."""
    found: list[Interval | None] = [None] * len(samples)
    for seeds in {len(sample) for sample in samples} - {0}:
        places = [place for place, sample in enumerate(samples) if len(sample) == seeds]
        for place, interval in zip(places, bootstrap_intervals([samples[at] for at in places]), strict=True):
            found[place] = interval
    return found


def mean_interval(sample: npt.ArrayLike) -> Interval:
    """Mean of one sample over seeds, (seeds,), with its interval; see ``bootstrap_intervals``."""
    return bootstrap_intervals(np.asarray(sample, dtype=np.float64)[np.newaxis])[0]


def verdict(difference: Interval) -> Verdict:
    """What an interval of paired differences (positive is better) says: does it exclude 0?"""
    if difference.seeds < 2:
        return "one seed"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "no difference shown"


_FALSE_ALARMS = {2: 0.50, 3: 0.25, 4: 0.21, 5: 0.16, 6: 0.14, 8: 0.11, 10: 0.10, 20: 0.07}


def false_alarm_rate(seeds: int) -> float | None:
    """How often ``verdict`` says better or worse of normally distributed differences with mean 0, by simulation.

    The bootstrap of a few numbers is too narrow: 5 % is reached only with many seeds. None with fewer than two seeds.
    """
    known = [rate for count, rate in _FALSE_ALARMS.items() if count <= seeds]
    return known[-1] if known else None


def paired_p_values(differences: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Two-sided p-value of the paired t-test for every row: could a mean of 0 have given these differences?

    Args:
        differences: (rows, seeds).

    Returns:
        (rows,); NaN where there is no spread to judge by (one seed, or the same difference in every seed).
    """
    from scipy.stats import ttest_1samp

    values = np.asarray(differences, dtype=np.float64)
    found = np.full(len(values), np.nan)
    if values.shape[1] < 2:
        return found
    spread = np.ptp(values, axis=1) > 1e-12 * np.abs(values).max(axis=1, initial=0)
    if spread.any():
        found[spread] = ttest_1samp(values[spread], 0.0, axis=1).pvalue
    return found


def false_discovery_rates(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Benjamini and Hochberg's adjusted p-values (1995) over a family of tests; NaN stays NaN.

    Of the pairs at or below 0.05, one in twenty is expected to be false.
    """
    from scipy.stats import false_discovery_control

    values = np.asarray(p_values, dtype=np.float64)
    known = np.isfinite(values)
    adjusted = np.full(values.shape, np.nan)
    if known.any():
        adjusted[known] = false_discovery_control(values[known])
    return adjusted
