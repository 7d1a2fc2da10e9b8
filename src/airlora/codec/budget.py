"""Exact budget arithmetic: what an allocation costs, and the nearest one that a budget allows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from airlora.codec.allocation import BITS, Allocation
from airlora.codec.layers import layer_bytes, plan
from airlora.errors import CompatibilityError
from airlora.factors import Schema


def update_bytes(schema: Schema, allocation: Allocation) -> int:
    """Exact bytes of the whole update of an allocation, before ``encode`` leaves out what exceeds its budget.

    Raises:
        CompatibilityError: the allocation is for another number of projections.
        ValueError: the allocation cannot be sent (see ``project``).
    """
    return sum(layer_bytes(schema, piece) for pieces in plan(schema, allocation) for piece in pieces)


def project(allocation: Allocation, schema: Schema, budget_bytes: float) -> Allocation:
    """The nearest allocation that can be sent and whose encoded update never exceeds the budget.

    Reductions, in this order, each only as far as needed:

    1. Values become valid: NaN counts as 0, ranks are rounded and clipped to 0 … r_max, bits go to the next
       larger of ``BITS`` (above 32: 32; a head of 0 bits stays out).
    2. Ranks are capped by the trained prefixes, largest first, down to the smallest prefix.
    3. Bits, those of the head too, are capped by 16, 8, 4.
    4. What remains is still too large: it is kept, and ``encode`` leaves out the layers that do not fit, head
       last and stalest first, so that several rounds deliver it all.
    5. If not even one layer fits: ranks 0, head_bits 0, the explicit "send nothing".

    Args:
        allocation: any proposal; values may be NaN, fractional or out of range, shapes may not be wrong.
        schema: what the allocation is for.
        budget_bytes: the caller's budget. The result's is the smaller of it and the proposal's own; NaN means
            "no figure" and negative counts as 0. With inf (or no figure) in both, the result keeps inf: "until the
            deadline".

    Raises:
        CompatibilityError: the proposal is for another number of projections.
    """
    valid = _validate(allocation, schema, budget_bytes)
    for candidate in _reductions(valid, schema):
        if update_bytes(schema, candidate) <= candidate.budget_bytes:
            return candidate
    smallest = min(layer_bytes(schema, piece) for pieces in plan(schema, candidate) for piece in pieces)
    if smallest <= candidate.budget_bytes:
        return candidate
    return replace(candidate, ranks=np.zeros_like(candidate.ranks), head_bits=0)


def largest_uniform_rank(schema: Schema, budget_bytes: float, bits: int, head_bits: int) -> int:
    """Largest rank 0 … max(r_max), the same for every projection up to its r_max, whose whole update fits.

    Args:
        schema: what is sent.
        budget_bytes: bytes allowed, not NaN.
        bits: bits of every projection, one of ``BITS``.
        head_bits: bits of the head, one of ``BITS`` or 0.

    Returns:
        The rank; 0 also when the head alone does not fit.
    """
    widths = np.full(len(schema.projections), bits)
    for rank in range(schema.prefixes[-1], 0, -1):
        allocation = Allocation(np.minimum(rank, schema.r_max), widths, head_bits, budget_bytes)
        if update_bytes(schema, allocation) <= budget_bytes:
            return rank
    return 0


def _validate(allocation: Allocation, schema: Schema, budget_bytes: float) -> Allocation:
    shape = (len(schema.projections),)
    ranks = np.nan_to_num(np.asarray(allocation.ranks, np.float64), posinf=np.inf, neginf=-np.inf)
    bits = np.nan_to_num(np.asarray(allocation.bits, np.float64), posinf=np.inf, neginf=-np.inf)
    if ranks.shape != shape or bits.shape != shape:
        raise CompatibilityError(
            f"an allocation of shapes {ranks.shape} and {bits.shape} for {shape[0]} projections;"
            f" use a policy that was made for this model"
        )
    budgets = [float(budget) for budget in (allocation.budget_bytes, budget_bytes) if not math.isnan(budget)]
    head_bits = float(allocation.head_bits)
    return Allocation(
        ranks=np.clip(np.rint(ranks), 0, schema.r_max).astype(np.int64),
        bits=_next_allowed(bits),
        head_bits=int(_next_allowed(np.array([head_bits]))[0]) if head_bits > 0 else 0,
        budget_bytes=max(min(budgets, default=math.inf), 0.0),
    )


def _next_allowed(bits: np.ndarray) -> np.ndarray:
    return np.array(BITS)[np.minimum(np.searchsorted(BITS, bits), len(BITS) - 1)]


def _reductions(allocation: Allocation, schema: Schema) -> Iterator[Allocation]:
    yield allocation
    for prefix in reversed(schema.prefixes[:-1]):
        allocation = replace(allocation, ranks=np.minimum(allocation.ranks, prefix))
        yield allocation
    for bits in reversed(BITS[:-1]):
        allocation = replace(
            allocation, bits=np.minimum(allocation.bits, bits), head_bits=min(allocation.head_bits, bits)
        )
        yield allocation
