"""Between a learned policy's numbers in [−1, 1] and an allocation.

One number says how much of the round's estimated budget to offer, ``budget_fraction``: all of it at 0, nothing at −1,
whatever the deadline lets through at 1. Two numbers a projection say its rank and its bits, in one of two ways:

* ``residual``: as offsets from the rule ``fit`` told the same λ, which all zeros reproduce; where the link carries one
  component of every projection, no less than that is offered, since parts of it may win nothing, round after round;
* ``absolute``: bins of equal width over 0 … r_max and over ``WIDTHS``.

NaN counts as 0 (``residual``) or −1 (``absolute``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from airlora.codec import Allocation
from airlora.policy.stream_costs import WIDTHS
from airlora.policy.tokens import REFERENCE_BITS, View

StreamDecoding = Literal["residual", "absolute"]

LARGEST_FRACTION = 4.0
LEAST_FRACTION = 1 / 16
_END = 0.8
"""Beyond ±this the budget's number means nothing at all, or everything until the deadline."""
_RANK_SPAN = 4.0
_ROOM = 1.1
"""What estimated bytes are multiplied by where all of them must fit."""


def budget_fraction(number: float) -> float:
    """How much of the estimated budget to offer: 0, then 1/16 … 1 … 4 on a log scale, then inf."""
    if np.isnan(number):
        return 1.0
    if abs(number) > _END:
        return float("inf") if number > 0 else 0.0
    return float(LARGEST_FRACTION ** (number / _END) if number > 0 else LEAST_FRACTION ** (-number / _END))


@dataclass(frozen=True)
class StreamDecoder:
    """From numbers to allocations, and from allocations to the numbers that an imitator should learn.

    Attributes:
        decoding: how.
    """

    decoding: StreamDecoding = "residual"

    def __post_init__(self) -> None:
        if self.decoding not in ("residual", "absolute"):
            raise ValueError(f"decoding is {self.decoding!r}; allowed: residual, absolute")

    def allocation(self, view: View, number: float, x0: np.ndarray) -> Allocation:
        """What to send.

        Args:
            view: of the round.
            number: of the budget.
            x0: (M, 2) of each projection's rank and bits.
        """
        o = view.observation
        fraction = budget_fraction(number)
        budget = o.budget_bytes * fraction if fraction else 0.0
        if np.isnan(budget):  # an outage was estimated, and everything is offered
            budget = float("inf")
        x0 = np.nan_to_num(np.asarray(x0, np.float64), nan=0.0 if self.decoding == "residual" else -1.0)
        x0 = np.clip(x0, -1.0, 1.0)
        bits = self._bits(view, x0[:, 1])
        if self.decoding == "residual":
            totals = self._totals(view, bits)
            if budget:
                budget = max(budget, min(_ROOM * float(totals[0]), o.budget_bytes))
            ranks = np.maximum(np.rint(_fitting(totals, budget) * _RANK_SPAN ** x0[:, 0]), 1)
        else:
            ranks = np.minimum(np.floor((x0[:, 0] + 1) / 2 * (o.schema.r_max + 1)), o.schema.r_max)
        ranks = np.minimum(ranks, o.trained_ranks).astype(np.int64)
        price = o.byte_price(view.airtime_weight)
        return Allocation(ranks, bits, _head_bits(view), budget, byte_price=price)

    def replayed(self, view: View, allocation: Allocation) -> np.ndarray:
        """The x0 (M, 2) in the middle of those that decode to an allocation."""
        o = view.observation
        columns = np.searchsorted(WIDTHS, np.minimum(allocation.bits, WIDTHS[-1]))
        if self.decoding == "residual":
            middle = WIDTHS.index(view.fit_bits)
            offset = columns - middle
            bits = offset / np.where(offset < 0, middle + 0.5, len(WIDTHS) - middle - 0.5)
            fitting = _fitting(self._totals(view, allocation.bits), allocation.budget_bytes)
            rank = np.log(np.maximum(allocation.ranks, 1) / fitting) / np.log(_RANK_SPAN)
        else:
            bits = 2 * (columns + 0.5) / len(WIDTHS) - 1
            rank = 2 * (allocation.ranks + 0.5) / (o.schema.r_max + 1) - 1
        return np.clip(np.stack([rank, bits], axis=1), -1.0, 1.0)

    def _bits(self, view: View, numbers: np.ndarray) -> np.ndarray:
        if self.decoding == "absolute":
            columns = np.minimum(np.floor((numbers + 1) / 2 * len(WIDTHS)), len(WIDTHS) - 1)
        else:
            middle = WIDTHS.index(view.fit_bits)
            span = np.where(numbers < 0, middle + 0.5, len(WIDTHS) - middle - 0.5)
            columns = np.clip(np.rint(middle + numbers * span), 0, len(WIDTHS) - 1)
        return np.array(WIDTHS)[columns.astype(np.int64)]

    @staticmethod
    def _totals(view: View, bits: np.ndarray) -> np.ndarray:
        """(K,) bytes of updates of uniform ranks at these bits."""
        head_bits = _head_bits(view)
        same = head_bits == view.head_bits and bool((bits == REFERENCE_BITS).all())
        return view.totals if same else view.grid.totals(bits, head_bits)


def _fitting(totals: np.ndarray, budget: float) -> int:
    """The largest uniform rank that fits, at least 1."""
    return max(int(np.searchsorted(totals, budget, side="right")), 1)


def _head_bits(view: View) -> int:
    return view.fit_bits if view.observation.schema.head else 0
