"""What to send: rank and bits of every projection."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

BITS = (2, 3, 4, 6, 8, 16)
"""Bits per number that can be asked for; 16 is exact float16, the others set the quantiser's step (see ``steps``)."""


@dataclass(frozen=True, eq=False)
class Allocation:
    """Rank and bits of every projection, and bits of the head.

    Bits say how finely a number is known to the edge afterwards. What they cost depends on how far the edge's
    value is from it: entropy coding pays for the change only.

    Attributes:
        ranks: (projections,) int64, 0 … r_max; 0 sends nothing for that projection.
        bits: (projections,) int64, each one of ``BITS``: the mean over the components of a projection, of which
            the stronger ones get finer steps. Or (projections, largest r_max): bits of each component by itself,
            one of ``BITS``, or 0 to leave that component as the edge holds it.
        head_bits: one of ``BITS``, or 0 to leave the head out.
        budget_bytes: bytes the update may cost; inf means "until the deadline cuts it off".
        expected_bytes: what the link is expected to carry of it, where that is less: layers are cut finer for it.
        byte_price: what a byte must win that serves for one round, as a share of all that the update could win over
            the untouched model: last layers that win less are left out. 0 keeps all.
        keeps_ranks: whether no smaller ranks are a model: what one round cannot carry is left to the next ones then,
            and not left out (see ``codec.project``).
    """

    ranks: np.ndarray
    bits: np.ndarray
    head_bits: int
    budget_bytes: float
    expected_bytes: float = math.inf
    byte_price: float = 0.0
    keeps_ranks: bool = False

    @property
    def carried_bytes(self) -> float:
        """What can be counted on: the budget, or what the link is expected to carry of it."""
        return min(self.budget_bytes, self.expected_bytes)

    def to_json(self) -> dict[str, Any]:
        """Plain data; a budget of inf is None, and what is at its default is left out."""
        expected = {"expected_bytes": self.expected_bytes} if math.isfinite(self.expected_bytes) else {}
        price = {"byte_price": self.byte_price} if self.byte_price else {}
        keeps = {"keeps_ranks": True} if self.keeps_ranks else {}
        return {
            "ranks": self.ranks.tolist(),
            "bits": self.bits.tolist(),
            "head_bits": self.head_bits,
            "budget_bytes": self.budget_bytes if math.isfinite(self.budget_bytes) else None,
            **expected,
            **price,
            **keeps,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Allocation:
        """The inverse of ``to_json``."""
        budget, expected = data["budget_bytes"], data.get("expected_bytes")
        return cls(
            np.array(data["ranks"], np.int64),
            np.array(data["bits"], np.int64),
            int(data["head_bits"]),
            math.inf if budget is None else float(budget),
            math.inf if expected is None else float(expected),
            float(data.get("byte_price", 0.0)),
            bool(data.get("keeps_ranks", False)),
        )
