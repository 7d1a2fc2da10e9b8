"""What to send: rank and bits of every projection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BITS = (4, 8, 16, 32)
"""Bits per number that the codec can send (16 and 32 are IEEE floats)."""


@dataclass(frozen=True, eq=False)
class Allocation:
    """Rank and bits of every projection, and bits of the head.

    Attributes:
        ranks: (projections,) int64, 0 … r_max; 0 sends nothing for that projection.
        bits: (projections,) int64, each one of ``BITS``.
        head_bits: one of ``BITS``, or 0 to leave the head out.
        budget_bytes: bytes the update may cost; inf means "until the deadline cuts it off".
    """

    ranks: np.ndarray
    bits: np.ndarray
    head_bits: int
    budget_bytes: float
