"""float16 as integers in ascending order: the last stage of a vector that is sent exactly. Layout: docs/format.md."""

from __future__ import annotations

import numpy as np

LARGEST = np.float32(65504)
_HALF = np.float32(0.50390625)
_SLACK = np.float32(2.0**-22)


def ordinal(x: np.ndarray) -> np.ndarray:
    """Position of float16(x) among all float16 in ascending order, 0 for ±0: int16; saturates at ±65504."""
    bits = np.clip(x, -LARGEST, LARGEST).astype(np.float16).view(np.int16)
    sign = bits >> 15  # 0 or -1: in two's complement, (n ^ sign) - sign is n or -n
    return ((bits & 0x7FFF) ^ sign) - sign


def from_ordinal(ordinals: np.ndarray) -> np.ndarray:
    """The float32 of float16 positions, within ±31743."""
    bits = ordinals.astype(np.int16)
    sign = bits >> 15
    return (((bits ^ sign) - sign) | (sign & -0x8000)).view(np.float16).astype(np.float32)


def reach(value: np.ndarray, change: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which float16 a target can be that was quantised to ``value``: (lowest position, how many), (n,) int32 each.

    A target is within half a step of its value, apart from the rounding of float32, for which there is some room.
    All of them are about equally likely.

    Args:
        value: (n,) float32, finite.
        change: (n,) float32, what was added to get there.
        step: (n,) float32.
    """
    with np.errstate(over="ignore"):
        margin = step * _HALF + (np.abs(value) + np.abs(change)) * _SLACK
        low, high = (ordinal(end).astype(np.int32) for end in (value - margin, value + margin))
    return low, high - low + 1
