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
LARGEST_GROWTH = 3.0
"""Most that corrections may multiply the energy of u by: where components see nearly dependent inputs (at the full
rank of a map) they grow without bound, and their bytes with them; u is rounded plainly then."""


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

    A component of zeros, which was never trained, stays so: its step is no measure of anything. Projections of one
    shape are worked on together.
    """
    targets: list[np.ndarray] = [each.u for each in projections]
    shapes: dict[tuple[int, ...], list[int]] = {}
    for index, each in enumerate(projections):
        if each.u.size and each.inputs.any() and each.u.any():
            shapes.setdefault(each.shape, []).append(index)
    for indices in shapes.values():
        for index, target in zip(indices, _compensate([projections[index] for index in indices]), strict=True):
            u = projections[index].u
            if np.vdot(target, target) <= LARGEST_GROWTH * np.vdot(u, u):
                targets[index] = target
    return targets


def _compensate(group: Sequence[Rounding]) -> np.ndarray:
    """``compensate`` for projections of one shape: (p, r, d_out) float32."""
    u, held_u, step_u = (np.stack([getattr(each, name) for each in group]) for name in ("u", "held_u", "step_u"))
    gram, cross = (np.stack(matrices) for matrices in zip(*map(_products, group), strict=True))  # (p, r, r) each
    rank = gram.shape[1]
    diagonal = np.trace(gram, axis1=1, axis2=2)[:, None, None] / rank
    gram += (1e-6 * diagonal + 1e-30) * np.eye(rank)
    trained = (u != 0).max(axis=2)[:, :, None]  # (p, r, 1)
    fitted = np.linalg.solve(gram, cross).astype(np.float32) @ u * trained  # (p, r, d_out)
    # Upper Cholesky factor of the inverse: its row k says how the columns after k make up for column k.
    upper = np.linalg.cholesky(np.linalg.inv(gram)).swapaxes(1, 2)
    share = (upper / np.diagonal(upper, axis1=1, axis2=2)[:, :, None]).astype(np.float32)
    targets = np.empty_like(u)
    for k in range(rank):
        targets[:, k] = fitted[:, k]
        error = fitted[:, k] - rounded(targets[:, k], held_u[:, k], step_u[:, k])
        fitted[:, k + 1 :] -= share[:, k, k + 1 :, None] * error[:, None, :] * trained[:, k + 1 :]
    return targets


def _products(each: Rounding) -> tuple[np.ndarray, np.ndarray]:
    """Second moments, over the inputs, of what the rounded v makes of them, with itself and with what v makes of them.

    (r, r) float64 each. Their scales do not matter for the answer: of v and inputs of scale 1, nothing overflows.
    """
    rounded_v = rounded(each.v, each.held_v, each.step_v)
    both = np.concatenate([rounded_v, each.v]) / max(float(np.abs(rounded_v).max()), 1e-30)  # (2 r, d_in)
    x = each.inputs
    seen = both @ x.T  # (2 r, samples)
    power = max(float(np.vdot(x, x)) / x.size, 1e-30)
    rank = len(rounded_v)
    moments = seen[:rank] @ seen.T / (power * len(x)) + RIDGE * (both[:rank] @ both.T)  # (r, 2 r)
    return moments[:, :rank].astype(np.float64), moments[:, rank:].astype(np.float64)


def rounded(target: np.ndarray, held: np.ndarray, step: np.ndarray) -> np.ndarray:
    """What the edge will hold of vectors along the last axis: whole steps from what it has, or from zero if nearer."""
    kept = step[..., None] < 0
    scale = np.where(kept, np.float32(1), GRID[step][..., None])
    change = target - held
    nearer = np.square(change).sum(axis=-1) <= np.square(target).sum(axis=-1)
    from_held = nearer[..., None] | kept
    if from_held.all():
        base, wanted = held, change
    else:
        base = np.where(from_held, held, np.float32(0))
        wanted = target - base
    return base + np.where(kept, np.float32(0), np.rint(wanted / scale) * scale)
