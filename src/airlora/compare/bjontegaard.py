"""Bjøntegaard's rate difference: how many more bytes one method needs for the same quality.

Bjøntegaard, Calculation of average PSNR differences between RD-curves, ITU-T SG16 Q.6 document VCEG-M33, 2001;
piecewise cubic as in JCT-VC's common test conditions. Logarithmic rate is a monotone piecewise cubic (PCHIP;
Fritsch and Butland 1984) of quality, and is averaged over the qualities that both methods reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from airlora.errors import InputError

_GRID = 1001
"""Points of the overlap, beside the measured ones, at which the worst difference is looked for."""


@dataclass(frozen=True)
class RateDifference:
    """How much more (positive) or less (negative) a method sends than the reference, at equal quality.

    Attributes:
        mean: ratio of rates − 1, geometric mean over the overlap; None where it is undefined.
        worst: the largest ratio − 1 in the overlap. worst_quality: where.
        low_quality, high_quality: the overlap.
        points: points on the (method's, reference's) front.
        reason: why it is undefined; empty otherwise.
    """

    mean: float | None
    worst: float | None
    worst_quality: float | None
    low_quality: float | None
    high_quality: float | None
    points: tuple[int, int]
    reason: str = ""


def pareto_front(rate: npt.ArrayLike, quality: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The points that no other point beats: by ascending rate, those with more quality than all before.

    Points at rate 0 are left out, as they have no logarithm.

    Args:
        rate: (points,) bytes. quality: (points,) higher is better.

    Returns:
        (kept, 2): rate and quality, both strictly ascending.

    Raises:
        InputError: unequal lengths, or a number that is negative (rate) or not finite.
    """
    rates, qualities = np.asarray(rate, dtype=np.float64), np.asarray(quality, dtype=np.float64)
    if rates.ndim != 1 or rates.shape != qualities.shape:
        raise InputError(f"a curve needs one quality a rate, not shapes {rates.shape} and {qualities.shape}")
    if not (np.isfinite(rates).all() and np.isfinite(qualities).all() and (rates >= 0).all()):
        raise InputError("a curve's rates must be finite and not negative, and its qualities finite")
    order = np.lexsort((-qualities, rates))
    order = order[rates[order] > 0]
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(qualities[order])[:-1]])
    kept = order[qualities[order] > best_before[: len(order)]]
    return np.column_stack([rates[kept], qualities[kept]])


def rate_difference(
    rate: npt.ArrayLike, quality: npt.ArrayLike, reference_rate: npt.ArrayLike, reference_quality: npt.ArrayLike
) -> RateDifference:
    """Bytes that a method needs beyond the reference at equal quality, averaged over the common qualities.

    A curve that is not monotone counts by its Pareto front: a point that costs more and is no better is one
    that nobody has to choose. Noise makes a front optimistic, the more so the more points there are.

    Args:
        rate, quality: (points,) of the method: bytes, and quality with higher better (a negative
            log-likelihood with its sign turned). reference_rate, reference_quality: of the reference.

    Raises:
        InputError: see ``pareto_front``.
    """
    from scipy.interpolate import PchipInterpolator

    fronts = pareto_front(rate, quality), pareto_front(reference_rate, reference_quality)
    points = len(fronts[0]), len(fronts[1])
    if min(points) < 2:
        which = "method" if points[0] < 2 else "reference"
        return RateDifference(
            None, None, None, None, None, points, f"fewer than two points on the Pareto front ({which})"
        )
    low = max(front[0, 1] for front in fronts)
    high = min(front[-1, 1] for front in fronts)
    if not low < high:
        return RateDifference(None, None, None, None, None, points, "no quality that both reach")
    ours, theirs = (PchipInterpolator(front[:, 1], np.log10(front[:, 0])) for front in fronts)
    mean = float(ours.integrate(low, high) - theirs.integrate(low, high)) / (high - low)
    knots = np.concatenate([fronts[0][:, 1], fronts[1][:, 1]])
    grid = np.union1d(np.linspace(low, high, _GRID), knots[(knots >= low) & (knots <= high)])
    differences = ours(grid) - theirs(grid)
    worst = int(np.argmax(differences))
    return RateDifference(
        mean=10.0**mean - 1,
        worst=float(10.0 ** differences[worst] - 1),
        worst_quality=float(grid[worst]),
        low_quality=float(low),
        high_quality=float(high),
        points=points,
    )
