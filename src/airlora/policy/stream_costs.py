"""``codec.Costs`` of all projections at once: a policy that decides within milliseconds asks for many."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from airlora.codec import BITS, Costs
from airlora.codec.costs import SIDE_BITS, bits_per_number
from airlora.codec.layers import FRAME_BYTES

WIDTHS = (2, 3, 4, 6, 8)
"""Bits that a learned policy chooses from: 16 costs twice as much as 8 and gains nothing."""
_OVERHEAD = 1.02
"""Frames, and what the estimate misses of a layer's side information."""


@dataclass(eq=False)
class CostGrid:
    """Bytes of every projection at every rank, for any choice of bits.

    Attributes:
        costs: of the round.
        relative: ``costs.relative_steps``, if they are known already.
    """

    costs: Costs
    relative: tuple[np.ndarray, np.ndarray] | None = None
    _known: dict[bytes, np.ndarray] = field(default_factory=dict)

    @cached_property
    def _ratios(self) -> tuple[np.ndarray, np.ndarray]:
        """(M, pairs) relative change of u and of v over relative step, for pairs (rank - 1, component < rank)."""
        costs = self.costs
        relative = costs.relative_steps if self.relative is None else self.relative
        rows, columns = self._pairs
        both = ((costs.change_u, costs.rms_u), (costs.change_v, costs.rms_v))
        u, v = (
            (change / np.maximum(own, 1e-300))[:, columns] / factor[:, rows, columns]
            for factor, (change, own) in zip(relative, both, strict=True)
        )
        return u, v

    @cached_property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = np.tril_indices(self.costs.rms_u.shape[1])
        return rows, columns

    @cached_property
    def _sizes(self) -> np.ndarray:
        """(2, M) d_out and d_in."""
        return np.array([[p.d_out, p.d_in] for p in self.costs.schema.projections]).T

    def table(self, bits: np.ndarray) -> np.ndarray:
        """(M, K, K) bytes of component k of projection m when its first ``rank`` are sent: [m, rank - 1, k].

        Args:
            bits: (M,) of each projection.
        """
        key = bits.tobytes()
        if key not in self._known:
            total = np.full(self._ratios[0].shape, 2 * SIDE_BITS)
            for size, ratio in zip(self._sizes, self._ratios, strict=True):
                total += size[:, None] * bits_per_number(ratio, bits[:, None])
            count, largest = self.costs.rms_u.shape
            table = np.zeros((count, largest, largest))
            table[:, self._pairs[0], self._pairs[1]] = total / 8
            self._known[key] = table
        return self._known[key]

    def components(self, ranks: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """(M, K) bytes of each component that is sent, 0 of those that are not."""
        found = self.table(bits)[np.arange(len(ranks)), np.maximum(ranks - 1, 0)]
        return np.where(ranks[:, None] > 0, found, 0.0)

    def totals(self, bits: np.ndarray, head_bits: int) -> np.ndarray:
        """(K,) bytes of updates of uniform ranks 1 … K at these bits of each projection, frames included.

        Beyond its r_max a projection stays at it.
        """
        each = self.table(bits).sum(axis=2)  # (M, K)
        last = np.minimum(np.arange(each.shape[1]), self.costs.schema.r_max[:, None] - 1)
        return self.framed(np.take_along_axis(each, last, axis=1).sum(axis=0) + self.head_bytes(head_bits))

    def head_bytes(self, head_bits: int) -> float:
        """Bytes of the head."""
        return float(self.costs.head[BITS.index(head_bits)]) if head_bits else 0.0

    def framed(self, size: np.ndarray) -> np.ndarray:
        """Bytes with frames, of updates of these sizes."""
        return size * _OVERHEAD + len(self.costs.schema.prefixes) * (FRAME_BYTES + 6)
