"""What is measured of one arm with one seed: pure functions of its rounds (definitions: docs/measures.md).

Arrays are one value a round, in order. A *gain* is a quality minus the untouched model's, with the sign
turned where lower is better, so that more is always better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from airlora.errors import InputError

Values = npt.ArrayLike
"""Numbers, one a round."""

GAIN_SHARES = (0.90, 0.95, 0.99)
"""Shares of the cloud's gain whose cost in bytes is measured."""

AIRTIME_WEIGHTS = (0.0, 0.1, 1.0)
"""λ of the rewards that are measured."""

AREA_RANGE = (0.01, 10.0)
"""Range of ``area_under_gain`` in files: bytes on air over the bytes of a plain fp32 LoRA of rank 8."""


def gain(quality: Values, base_quality: float, higher_is_better: bool) -> npt.NDArray[np.float64]:
    """Improvement over the untouched model, in the metric's unit; positive is better.

    Args:
        quality: any shape. base_quality: of the untouched model on the same split.
        higher_is_better: False turns the sign (negative log-likelihood).
    """
    difference = np.asarray(quality, dtype=np.float64) - base_quality
    return difference if higher_is_better else -difference


def time_average(start_s: Values, airtime_s: Values, quality: Values, base_quality: float, deadline_s: float) -> float:
    """Quality of the edge's model averaged over simulated time, as somebody using it all along would see it.

    The edge has the untouched model until the first round's transmission ends, and then after each
    transmission what that round left, until the next one ends. The horizon ends one period after the last
    round's start.

    Args:
        start_s: (rounds,) starts of the rounds, ascending. airtime_s: (rounds,) until the transmission ended.
        quality: (rounds,) after each round. base_quality: before the first.
        deadline_s: stands for the period where there is only one round.

    Raises:
        InputError: no rounds, or arrays of unequal length.
    """
    start, airtime, after = _rounds(start_s, airtime_s, quality)
    period_s = start[-1] - start[-2] if len(start) > 1 else deadline_s
    ends = np.minimum(start + airtime, np.append(start[1:], start[-1] + period_s))
    edges = np.concatenate([start[:1], ends, [start[-1] + period_s]])
    widths = np.diff(edges)
    if not widths.sum() > 0:
        return float(after[-1])
    return float(np.average(np.concatenate([[base_quality], after]), weights=widths))


def bytes_to_gain(bytes_on_air: Values, gains: Values, target_gain: float, share: float) -> int | None:
    """Bytes on air, summed over rounds, until the edge first has ``share`` of the target's gain.

    Args:
        bytes_on_air: (rounds,) of each round. gains: (rounds,) after each round.
        target_gain: of the cloud at the end. share: of it, above 0 and at most 1.

    Returns:
        None when the edge never gets there, or when the cloud gained nothing.

    Raises:
        InputError: ``share`` out of range, no rounds, or arrays of unequal length.
    """
    if not 0 < share <= 1:
        raise InputError(f"a share of the gain must be above 0 and at most 1, not {share}")
    sent, gained = _rounds(bytes_on_air, gains)
    if not target_gain > 0:
        return None
    reached = np.flatnonzero(gained >= share * target_gain)
    return int(np.cumsum(sent)[reached[0]]) if reached.size else None


def area_under_gain(
    bytes_on_air: Values,
    gains: Values,
    target_gain: float,
    file_bytes: float,
    file_range: tuple[float, float] = AREA_RANGE,
) -> float | None:
    """Mean share of the target's gain that the edge has, over the logarithm of the bytes on air so far.

    1 is an edge that has the target's whole gain from the lower end of the range on; 0 one that never gains;
    worse than the untouched model is negative. After an arm's last byte its last gain counts.

    Args:
        bytes_on_air: (rounds,) of each round. gains: (rounds,) after each round.
        target_gain: of the cloud at the end. file_bytes: of a plain fp32 LoRA of rank 8.
        file_range: the range of bytes, in files.

    Returns:
        None when the cloud gained nothing.

    Raises:
        InputError: no rounds, arrays of unequal length, or an empty range.
    """
    sent, gained = _rounds(bytes_on_air, gains)
    low, high = (np.log10(limit * file_bytes) for limit in file_range)
    if not low < high:
        raise InputError(f"a range of bytes must ascend, not {file_range}")
    if not target_gain > 0:
        return None
    total = np.cumsum(sent)
    positions = np.full(len(total), low)
    positions[total > 0] = np.clip(np.log10(total[total > 0]), low, high)
    edges = np.concatenate([[low], positions, [high]])
    shares = np.concatenate([[0.0], gained / target_gain])
    return float(np.average(shares, weights=np.diff(edges)))


def reward(
    airtime_s: Values, gains: Values, target_gain: float, deadline_s: float, airtime_weight: float
) -> float | None:
    """Mean over rounds of the share of the target's gain that the edge has, less λ times airtime over deadline.

    Args:
        airtime_s: (rounds,) until each transmission ended. gains: (rounds,) after each round.
        target_gain: of the cloud at the end. deadline_s: of a round. airtime_weight: λ.

    Returns:
        None when the cloud gained nothing.

    Raises:
        InputError: no rounds, or arrays of unequal length.
    """
    airtime, gained = _rounds(airtime_s, gains)
    if not target_gain > 0:
        return None
    return float(np.mean(gained / target_gain - airtime_weight * airtime / deadline_s))


@dataclass(frozen=True)
class RadioPower:
    """Power of a receiver while data flows: ``base_w + w_per_mbps × throughput``.

    Attributes:
        name: of the device class. base_w: in W, at zero throughput. w_per_mbps: in W per Mbit/s received.
    """

    name: str
    base_w: float
    w_per_mbps: float

    def __post_init__(self) -> None:
        if not (np.isfinite([self.base_w, self.w_per_mbps]).all() and min(self.base_w, self.w_per_mbps) >= 0):
            raise InputError(f"powers must be finite and not negative, not {self.base_w} W, {self.w_per_mbps} W/Mbps")


LTE_PHONE = RadioPower("LTE phone, downlink", base_w=1.28804, w_per_mbps=0.05197)
"""Huang et al., A Close Examination of Performance and Power Characteristics of 4G LTE Networks, MobiSys 2012."""


def reception_energy_j(airtime_s: float, bytes_on_air: float, power: RadioPower = LTE_PHONE) -> float:
    """Energy in J that the edge's radio takes to receive: base power over the airtime, and so much a bit.

    The tail after each transmission (promotion, discontinuous reception) is not counted.
    """
    return power.base_w * airtime_s + power.w_per_mbps * 8e-6 * bytes_on_air


def _rounds(*arrays: Values) -> tuple[npt.NDArray[np.float64], ...]:
    values = tuple(np.asarray(array, dtype=np.float64) for array in arrays)
    if values[0].ndim != 1 or not values[0].size or len({value.shape for value in values}) > 1:
        raise InputError(f"one value a round is needed, not shapes {[value.shape for value in values]}")
    return values
