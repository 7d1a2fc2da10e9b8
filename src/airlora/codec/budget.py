"""Budget arithmetic: the nearest allocation that a budget allows, by estimated costs; ``encode`` enforces it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from airlora.codec.allocation import BITS, Allocation
from airlora.codec.costs import Costs
from airlora.errors import CompatibilityError
from airlora.factors import Schema


def project(allocation: Allocation, costs: Costs, budget_bytes: float) -> Allocation:
    """The nearest allocation that can be sent, reduced to what the budget is estimated to carry.

    Reductions, in this order, each only as far as needed:

    1. Values become valid: NaN counts as 0, ranks are rounded and clipped to 0 … r_max, bits go to the next larger
       of ``BITS`` (above 16: 16; 0 bits for a component or the head stay 0).
    2. Ranks are capped by the trained prefixes, largest first, down to the smallest prefix; with ``keeps_ranks`` not.
    3. Bits, those of the head too, are capped by 8, 6, 4.
    4. What remains is still too large: it is kept, and ``encode`` leaves out the layers that do not fit, the ones
       the edge has been given most recently first, so that several rounds deliver it all.

    Args:
        allocation: any proposal; values may be NaN, fractional or out of range, shapes may not be wrong.
        costs: of these factors on this edge.
        budget_bytes: the caller's budget. The result's is the smaller of it and the proposal's own; NaN means
            "no figure" and negative counts as 0. With inf (or no figure) in both, the result keeps inf: "until the
            deadline".

    Raises:
        CompatibilityError: the proposal is for another number of projections or components.
    """
    valid = _validate(allocation, costs.schema, budget_bytes)
    if not valid.budget_bytes:
        return replace(valid, ranks=np.zeros_like(valid.ranks), head_bits=0)
    for candidate in _reductions(valid, costs.schema):
        if costs.update_bytes(candidate) <= candidate.budget_bytes:
            break
    return candidate


def largest_uniform_rank(costs: Costs, budget_bytes: float, bits: int, head_bits: int) -> int:
    """Largest rank 0 … max(r_max), the same for every projection up to its r_max, whose whole update fits.

    Args:
        costs: of what is sent.
        budget_bytes: bytes allowed, not NaN.
        bits: bits of every projection, one of ``BITS``.
        head_bits: bits of the head, one of ``BITS`` or 0.

    Returns:
        The rank; 0 also when the head alone does not fit.
    """
    r_max = costs.schema.r_max
    widths = np.full(len(r_max), bits)
    for rank in range(int(r_max.max()), 0, -1):
        allocation = Allocation(np.minimum(rank, r_max), widths, head_bits, budget_bytes)
        if costs.update_bytes(allocation) <= budget_bytes:
            return rank
    return 0


def _validate(allocation: Allocation, schema: Schema, budget_bytes: float) -> Allocation:
    shape = (len(schema.projections),)
    ranks = np.nan_to_num(np.asarray(allocation.ranks, np.float64), posinf=np.inf, neginf=-np.inf)
    bits = np.nan_to_num(np.asarray(allocation.bits, np.float64), posinf=np.inf, neginf=-np.inf)
    if ranks.shape != shape or bits.shape not in (shape, (*shape, schema.prefixes[-1])):
        raise CompatibilityError(
            f"an allocation of shapes {ranks.shape} and {bits.shape} for {shape[0]} projections of up to"
            f" {schema.prefixes[-1]} components; use a policy that was made for this model"
        )
    budgets = [float(budget) for budget in (allocation.budget_bytes, budget_bytes) if not math.isnan(budget)]
    expected = math.inf if math.isnan(allocation.expected_bytes) else max(float(allocation.expected_bytes), 0.0)
    head_bits = float(allocation.head_bits)
    widths = _next_allowed(bits)
    return Allocation(
        ranks=np.clip(np.rint(ranks), 0, schema.r_max).astype(np.int64),
        bits=np.where(bits > 0, widths, 0) if bits.ndim == 2 else widths,
        head_bits=int(_next_allowed(np.array([head_bits]))[0]) if head_bits > 0 else 0,
        budget_bytes=max(min(budgets, default=math.inf), 0.0),
        expected_bytes=expected,
        byte_price=float(np.nan_to_num(max(allocation.byte_price, 0.0), posinf=0.0)),
        keeps_ranks=allocation.keeps_ranks,
    )


def _next_allowed(bits: np.ndarray) -> np.ndarray:
    return np.array(BITS)[np.minimum(np.searchsorted(BITS, bits), len(BITS) - 1)]


def _reductions(allocation: Allocation, schema: Schema) -> Iterator[Allocation]:
    yield allocation
    for prefix in () if allocation.keeps_ranks else reversed(schema.prefixes[:-1]):
        allocation = replace(allocation, ranks=np.minimum(allocation.ranks, prefix))
        yield allocation
    for bits in (8, 6, 4):
        allocation = replace(
            allocation, bits=np.minimum(allocation.bits, bits), head_bits=min(allocation.head_bits, bits)
        )
        yield allocation
