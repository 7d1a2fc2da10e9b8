"""Placing quantisation errors where the model does not feel them.

What matters is not the error of u and v but that of u v x on the inputs x that the projection sees. v is rounded first;
then u is fitted to the rounded v, and is rounded column by column, each column's error being made up for in the columns
that follow, as far as the inputs let them (GPTQ: Frantar et al. 2023, arXiv:2210.17323, whose columns are here the
components). The decoder knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from airlora.codec.steps import GRID

RIDGE = 0.2
"""Share of the mean power of the inputs that is added in every direction: the sample is a sample."""


@dataclass(frozen=True, eq=False)
class Rounding:
    """One projection about to be rounded.

    Attributes:
        u, v: (r, d_out) and (r, d_in) float32, what should arrive, a component a row.
        held_u, held_v: of the same shapes, what the edge holds.
        step_u, step_v: (r,) int64, grid index of each vector's step; negative: it stays as it is held.
        inputs: (samples, d_in) float32.
    """

    u: np.ndarray
    v: np.ndarray
    held_u: np.ndarray
    held_v: np.ndarray
    step_u: np.ndarray
    step_v: np.ndarray
    inputs: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """What projections must share to be worked on together."""
        return (*self.u.shape, self.v.shape[1], len(self.inputs))


def compensate(projections: Sequence[Rounding]) -> list[np.ndarray]:
    """Targets for u, (r, d_out) float32 each, whose rounding gives the least error of u v x. Pure.

    Projections of one shape are worked on together.
    """
    targets: list[np.ndarray] = [each.u for each in projections]
    shapes: dict[tuple[int, ...], list[int]] = {}
    for index, each in enumerate(projections):
        if each.u.size and each.inputs.any() and each.u.any():
            shapes.setdefault(each.shape, []).append(index)
    for indices in shapes.values():
        group = [projections[index] for index in indices]
        names = ("u", "v", "held_u", "held_v", "step_u", "step_v", "inputs")
        found = _compensate(*(np.stack([getattr(each, name) for each in group]) for name in names))
        for index, target in zip(indices, found, strict=True):
            targets[index] = target
    return targets


def _compensate(
    u: np.ndarray,
    v: np.ndarray,
    held_u: np.ndarray,
    held_v: np.ndarray,
    step_u: np.ndarray,
    step_v: np.ndarray,
    inputs: np.ndarray,
) -> np.ndarray:
    """``compensate`` for a stack of projections of one shape: (p, r, d_out) float32."""
    rounded_v = rounded(v, held_v, step_v)
    # The answer does not depend on the scales of v and of the inputs: at scale 1 no product overflows.
    scale_v = np.maximum(np.abs(rounded_v).max(axis=(1, 2), keepdims=True), 1e-30)
    rounded_v, v = (rounded_v / scale_v).astype(np.float32), (v / scale_v).astype(np.float32)
    power = np.maximum(np.square(inputs).mean(axis=(1, 2), keepdims=True), 1e-30)
    x = (inputs.swapaxes(1, 2) / np.sqrt(power * inputs.shape[1])).astype(np.float32)  # (p, d_in, samples)
    seen, meant = rounded_v @ x, v @ x  # (p, r, samples)
    gram = (seen @ seen.swapaxes(1, 2) + RIDGE * (rounded_v @ rounded_v.swapaxes(1, 2))).astype(np.float64)
    cross = (seen @ meant.swapaxes(1, 2) + RIDGE * (rounded_v @ v.swapaxes(1, 2))).astype(np.float64)  # rounded · meant
    rank = gram.shape[1]
    diagonal = np.trace(gram, axis1=1, axis2=2)[:, None, None] / rank
    gram += (1e-6 * diagonal + 1e-30) * np.eye(rank)
    fitted = np.linalg.solve(gram, cross @ u)  # (p, r, d_out)
    # Upper Cholesky factor of the inverse: its row k says how the columns after k make up for column k.
    upper = np.linalg.cholesky(np.linalg.inv(gram)).swapaxes(1, 2)
    targets = np.empty_like(u)
    for k in range(rank):
        targets[:, k] = fitted[:, k]
        error = (fitted[:, k] - rounded(targets[:, k], held_u[:, k], step_u[:, k])) / upper[:, k, k, None]
        fitted[:, k + 1 :] -= upper[:, k, k + 1 :, None] * error[:, None, :]
    return targets


def rounded(target: np.ndarray, held: np.ndarray, step: np.ndarray) -> np.ndarray:
    """What the edge will hold of vectors along the last axis: whole steps from what it has, or from zero if nearer."""
    scale = np.where(step < 0, np.inf, GRID[step])[..., None]
    wide = target.astype(np.float64)
    change = wide - held
    nearer = (np.square(change).sum(axis=-1) <= np.square(wide).sum(axis=-1))[..., None]
    base = np.where(nearer | (step[..., None] < 0), held, 0.0)
    with np.errstate(invalid="ignore"):
        whole = np.rint((wide - base) / scale)
        return np.where(step[..., None] < 0, base, base + whole * np.where(np.isinf(scale), 0.0, scale))
