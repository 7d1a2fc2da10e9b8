"""The quantiser: how fine a step is worth its bits, and the grid that steps are on.

A mid-tread uniform quantiser with an entropy coder behind it is within 0.25 bit of the rate-distortion bound at
every rate (Gish and Pierce 1968), so nothing is clipped and bits only choose the step: ``STEP_PER_RMS[bits]``
times the root mean square of the vector, at which a Gaussian costs about a third of a bit less than ``bits``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from airlora.codec.allocation import BITS
from airlora.factors import Schema

STEPS = 256
"""Steps on the grid: index i is 2^((i - 160) / 4), from 2^-40 to 2^23.75."""
GRID = np.ldexp(
    np.array([1.0, 1.1892071, 1.4142135, 1.6817929], np.float32)[np.arange(STEPS) % 4], np.arange(STEPS) // 4 - 40
).astype(np.float32)
"""(STEPS,) float32, the steps; its four mantissas are exactly these float32."""

STEP_PER_RMS = {bits: 5.25 * 2.0**-bits for bits in BITS[:-1]} | {16: 5.25 * 2.0**-8}
"""Step over root mean square of a vector; at 16 bits the float16 itself is sent on top of 8."""

EXACT_STEP_PER_CHANGE = 2.0
FINEST_EXACT_STEP = 2.0**-9
"""At 16 bits, the step is finer where the change is small: this many times its root mean square, but not below this
fraction of the number's, as the float16 within a step are equally likely and cost no more than they must."""

WATER_FILLING = 0.5
"""How much finer the steps of strong components are: 1 spreads the error of u v evenly over the components, as
reverse water-filling does (Cover and Thomas, section 10.3.3), 0 gives all the same relative error. Where gradients are
known, ``weighted_steps`` takes its place."""
_LARGEST_RATIO = 4.0


def step_index(step: np.ndarray) -> np.ndarray:
    """Index of the nearest step on the grid, on a log scale: int64 of any shape."""
    with np.errstate(divide="ignore"):
        return np.clip(np.rint(4 * np.log2(step) + 160), 0, STEPS - 1).astype(np.int64)


def rms(x: np.ndarray, axis: int) -> np.ndarray:
    """Root mean square along an axis, float64; 0 of nothing."""
    return np.sqrt(np.square(x, dtype=np.float64).sum(axis=axis) / max(x.shape[axis], 1))


def relative_steps(rms_u: np.ndarray, rms_v: np.ndarray) -> np.ndarray:
    """Factors on the steps of ``r`` components by ``WATER_FILLING``, for every rank at which they may be sent.

    Args:
        rms_u, rms_v: (r,) root mean squares of the components.

    Returns:
        (r, r) float64; row ``rank - 1`` holds those of the first ``rank`` components, with geometric mean 1 before
        they are limited to 1/4 … 4.
    """
    strength = np.log2(np.maximum(rms_u * rms_v, 1e-30))
    mean = np.cumsum(strength) / np.arange(1, len(strength) + 1)
    return _limited(WATER_FILLING * (mean[:, None] - strength))


def weighted_steps(
    rms: Sequence[np.ndarray], gradient: Sequence[np.ndarray], numbers: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Factors on the steps that make them proportional to one over the root mean square gradient.

    An error of variance D in a number with squared gradient g costs g · D to second order (the Fisher matrix stands for
    the Hessian): at equal rate the sum is least where g · D is the same for all. The factors of all vectors that are
    sent at one rank have a geometric mean of 1, numbers counted, before they are limited to 1/4 … 4.

    Args:
        rms: of each kind of vector (u, v), (projections, r) root mean squares of the numbers; 0: not sent.
        gradient: of each kind, (projections, r) mean squared gradients; 0: unknown, the factor is 1.
        numbers: of each kind, (projections,) length of its vectors.

    Returns:
        Of each kind, (projections, r, r) float64: [m, rank - 1, k].
    """
    known = [(r > 0) & (g > 0) for r, g in zip(rms, gradient, strict=True)]
    strengths = [
        np.log2(r, where=k, out=np.zeros(r.shape)) + np.log2(g, where=k, out=np.zeros(r.shape)) / 2
        for r, g, k in zip(rms, gradient, known, strict=True)
    ]
    count = sum(np.cumsum((k * n[:, None]).sum(axis=0)) for k, n in zip(known, numbers, strict=True))  # (r,)
    total = sum(np.cumsum((s * n[:, None]).sum(axis=0)) for s, n in zip(strengths, numbers, strict=True))
    mean = total / np.maximum(count, 1)
    return [
        np.where(k[:, None, :], _limited(mean[None, :, None] - s[:, None, :]), 1.0)
        for s, k in zip(strengths, known, strict=True)
    ]


def _limited(exponents: np.ndarray) -> np.ndarray:
    limit = np.log2(_LARGEST_RATIO)
    return np.exp2(np.clip(exponents, -limit, limit))


def head_rms(schema: Schema, head: np.ndarray) -> np.ndarray:
    """Root mean square of each tensor of a flat head: (tensors,) float64."""
    ends = np.cumsum([tensor.size for tensor in schema.head], dtype=np.int64)
    parts = (head[end - tensor.size : end] for tensor, end in zip(schema.head, ends.tolist(), strict=True))
    return np.array([rms(part, axis=0) for part in parts], np.float64)
