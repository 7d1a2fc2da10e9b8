"""What an allocation will cost, before anything is encoded: the entropy of what is to be sent, estimated."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np

from airlora.codec.allocation import BITS, Allocation
from airlora.codec.edge import EdgeState
from airlora.codec.layers import FRAME_BYTES
from airlora.codec.steps import (
    EXACT_STEP_PER_CHANGE,
    FINEST_EXACT_STEP,
    STEP_PER_RMS,
    relative_steps,
    rms,
    weighted_steps,
)
from airlora.codec.tables import WIDTHS, mean_bits, width_of
from airlora.curvature import Curvature
from airlora.errors import CompatibilityError
from airlora.factors import Factors, Schema

SIDE_BITS = 5.0
"""Side information of a vector: mode, step, table."""
LAYER_BYTES = 4096
"""Size of a layer in bytes, wherever a single projection's block is not larger."""
LAYER_SHARE = 1 / 32
"""Layers of large updates are larger: this share of what is carried. A deadline that cuts the last one wastes little,
and what every layer costs (time, frame) is paid a few dozen times."""
SMALL_LAYER_BYTES = 512
"""Layers are cut finer for small budgets, an eighth of the budget each, but not below this."""
LATE_LAYER_SHARE = 1 / 8
"""A layer beyond what the link is expected to carry may have this share of what comes before it."""
_FLOAT16_PER_RMS = 2.0**11.4
"""float16 in an interval as wide as the root mean square of Gaussian numbers, around one of them (geometric mean)."""


@dataclass(frozen=True, eq=False)
class Costs:
    """Estimated bytes of everything that can be sent; how near they are is in docs/format.md.

    Attributes:
        schema: what it is for.
        change_u, change_v: (projections, largest r_max) float64, root mean square of the change to send (of the
            number itself where that is smaller).
        rms_u, rms_v: (projections, largest r_max) float64, root mean square of the number itself.
        head: (len(BITS),) float64, bytes of the whole head.
        gradient_u, gradient_v: (projections, largest r_max) mean squared gradients (``Curvature``), None if unknown.
    """

    schema: Schema
    change_u: np.ndarray
    change_v: np.ndarray
    rms_u: np.ndarray
    rms_v: np.ndarray
    head: np.ndarray
    gradient_u: np.ndarray | None = None
    gradient_v: np.ndarray | None = None
    _known: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    @classmethod
    def nominal(cls, schema: Schema) -> Costs:
        """For factors that are not known yet: everything new and of equal size."""
        shape = (len(schema.projections), schema.prefixes[-1])
        head = [
            sum(t.rows * (t.row_size * float(bits_per_number(1.0, b)) + SIDE_BITS) for t in schema.head) / 8
            for b in BITS
        ]
        ones = np.ones(shape)
        return cls(schema, ones, ones, ones, ones, np.array(head))

    @classmethod
    def measure(cls, factors: Factors, edge: EdgeState, curvature: Curvature | None = None) -> Costs:
        """For these factors on an edge in this state.

        Args:
            factors: the cloud's.
            edge: what the edge holds.
            curvature: at these factors; decides how fine the steps of each component are.

        Raises:
            CompatibilityError: they are not of one schema.
        """
        schema = edge.schema
        if factors.schema.id != schema.id:
            raise CompatibilityError(f"factors of schema {factors.schema.id} for an edge of schema {schema.id}")
        shape = (len(schema.projections), schema.prefixes[-1])
        change_u, change_v, rms_u, rms_v = np.zeros((4, *shape))
        for index, (u, v) in enumerate(zip(factors.u, factors.v, strict=True)):
            rank = v.shape[0]
            rms_u[index, :rank], rms_v[index, :rank] = rms(u, axis=0), rms(v, axis=1)
            change_u[index, :rank] = rms(u - edge.u[index][:, :rank], axis=0)
            change_v[index, :rank] = rms(v - edge.v[index][:rank], axis=1)
        head, at = np.zeros(len(BITS)), 0
        for tensor in schema.head:
            target = np.asarray(factors.head[tensor.name], np.float64).reshape(tensor.rows, tensor.row_size)
            held = edge.head[at : at + tensor.size].reshape(target.shape)
            at += tensor.size
            if target.any():
                with np.errstate(invalid="ignore"):  # infinite weights: ``encode`` refuses them
                    relative = rms(target - held, axis=1) / rms(target.ravel(), axis=0)  # (rows,)
                head += [(tensor.row_size * bits_per_number(relative, b) + SIDE_BITS).sum() / 8 for b in BITS]
        gradients = (curvature.gradient_u, curvature.gradient_v) if curvature else (None, None)
        return cls(schema, np.minimum(change_u, rms_u), np.minimum(change_v, rms_v), rms_u, rms_v, head, *gradients)

    @cached_property
    def relative_steps(self) -> tuple[np.ndarray, np.ndarray]:
        """Factors on the steps of u and of v, (projections, largest r_max, largest r_max) each: [m, rank - 1, k]."""
        if self.gradient_u is None or self.gradient_v is None:
            each = np.stack([relative_steps(u, v) for u, v in zip(self.rms_u, self.rms_v, strict=True)])
            return each, each
        shapes = np.array([[p.d_out, p.d_in] for p in self.schema.projections])
        u, v = weighted_steps((self.rms_u, self.rms_v), (self.gradient_u, self.gradient_v), list(shapes.T))
        return u, v

    def component_bytes(self, index: int, rank: int, bits: np.ndarray | int) -> np.ndarray:
        """Bytes of each of the first ``rank`` components of one projection: (rank,) float64.

        Args:
            index: of the projection.
            rank: how many are sent.
            bits: of the projection, or (rank,) of each component, 0 for none.
        """
        relative = np.ones((2, rank))
        if rank and np.ndim(bits) == 0:
            relative = np.stack([side[index, rank - 1, :rank] for side in self.relative_steps])
        return self._bytes(index, relative, bits)

    def projection_bytes(self, bits: int) -> np.ndarray:
        """Bytes of every projection at ranks 0 … r_max: (projections, largest r_max + 1) float64, NaN above r_max."""
        if bits not in self._known:
            table = np.full((len(self.schema.projections), self.schema.prefixes[-1] + 1), np.nan)
            for index, r_max in enumerate(self.schema.r_max.tolist()):
                relative = np.stack([side[index, :r_max, :r_max] for side in self.relative_steps])
                table[index, 0] = 0
                table[index, 1 : r_max + 1] = np.tril(self._bytes(index, relative, bits)).sum(axis=1)
            self._known[bits] = table
        return self._known[bits]

    def _bytes(self, index: int, relative: np.ndarray, bits: np.ndarray | int) -> np.ndarray:
        """Bytes of components whose steps of u and of v are multiplied by ``relative`` (2, …, components)."""
        projection = self.schema.projections[index]
        count = relative.shape[-1]
        total = np.full(relative.shape[1:], 2 * SIDE_BITS)
        for factor, size, change, own in zip(
            relative,
            (projection.d_out, projection.d_in),
            (self.change_u, self.change_v),
            (self.rms_u, self.rms_v),
            strict=True,
        ):
            ratio = change[index, :count] / (np.maximum(own[index, :count], 1e-300) * factor)
            total += size * bits_per_number(ratio, bits)
        return total / 8

    def update_bytes(self, allocation: Allocation) -> float:
        """Estimated bytes of the whole update of an allocation, frames included.

        Raises:
            CompatibilityError: the allocation is for another number of projections.
        """
        if len(allocation.ranks) != len(self.schema.projections):
            raise CompatibilityError(
                f"an allocation for {len(allocation.ranks)} projections, the schema has {len(self.schema.projections)}"
            )
        total = float(self.head[BITS.index(allocation.head_bits)]) if allocation.head_bits else 0.0
        classes = int(bool(allocation.head_bits and self.schema.head))
        for index, (rank, bits) in enumerate(zip(allocation.ranks.tolist(), allocation.bits.tolist(), strict=True)):
            if not rank:
                continue
            if isinstance(bits, list):
                total += float(self.component_bytes(index, rank, np.array(bits[:rank])).sum())
            else:
                total += float(self.projection_bytes(bits)[index, rank])
        classes += sum(prefix <= allocation.ranks.max(initial=0) for prefix in (1, *self.schema.prefixes[:-1]))
        carried = allocation.carried_bytes
        fine = min(total, carried)
        late = (total - fine) / layer_room(carried, total, before=float("inf"))
        if fine < total:
            late = min(late, float(np.log(total / max(fine, SMALL_LAYER_BYTES))) / LATE_LAYER_SHARE)
        count = fine / layer_room(carried, total) + max(late, 0.0)
        layers = max(count, classes)
        return total + layers * (FRAME_BYTES + 6)


def layer_room(carried_bytes: float, total_bytes: float, before: float = 0.0) -> float:
    """Bytes that a layer's body should have, before late layers are joined (``LATE_LAYER_SHARE``).

    Args:
        carried_bytes: what the link is expected to carry of the update.
        total_bytes: of the update.
        before: bytes of the update that come before the layer.
    """
    fine = max(carried_bytes / 8, SMALL_LAYER_BYTES) if before <= carried_bytes else LAYER_BYTES
    coarse = LAYER_SHARE * min(carried_bytes, total_bytes)
    return max(min(fine, LAYER_BYTES), coarse) - FRAME_BYTES


@cache
def _curve() -> tuple[np.ndarray, np.ndarray]:
    return np.log2([width_of(i) for i in range(WIDTHS)]), np.array([mean_bits(i) for i in range(WIDTHS)])


def bits_per_number(relative_change: np.ndarray | float, bits: np.ndarray | int) -> np.ndarray:
    """Bits a number whose change has this root mean square, relative to the number's own."""
    step = np.array([np.inf, *STEP_PER_RMS.values()])[np.searchsorted((0, *BITS), bits)]
    exact = np.asarray(bits) == 16
    finer = np.maximum(EXACT_STEP_PER_CHANGE * np.asarray(relative_change), FINEST_EXACT_STEP)
    step = np.where(exact, np.minimum(step, finer), step)
    widths, entropy = _curve()
    with np.errstate(divide="ignore"):
        found = np.interp(np.log2(relative_change / step), widths, entropy, left=0.0)
    return found + np.where(exact & (np.asarray(relative_change) > 0), np.log2(step * _FLOAT16_PER_RMS + 1), 0)
