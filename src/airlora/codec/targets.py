"""What every vector should become, and how finely."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from airlora.codec.allocation import Allocation
from airlora.codec.compensation import Rounding, compensate
from airlora.codec.costs import Costs
from airlora.codec.edge import EdgeState, flatten_head
from airlora.codec.parts import HEAD, Part, U, V
from airlora.codec.steps import GRID, STEP_PER_RMS, head_rms, step_index
from airlora.curvature import Curvature, QuantiserSteps
from airlora.factors import Factors


class Targets:
    """The factors, vector by vector, with the steps that an allocation asks for.

    Args:
        factors: the cloud's.
        allocation: rank and bits.
        costs: of these factors on this edge, for the root mean squares.
        edge: what the edge holds.
        curvature: at these factors; None places errors without regard to the inputs.
    """

    def __init__(
        self,
        factors: Factors,
        allocation: Allocation,
        costs: Costs,
        edge: EdgeState,
        curvature: Curvature | None = None,
    ) -> None:
        self._head = flatten_head(factors.schema, factors.head)
        self._head_ends = np.cumsum([tensor.size for tensor in factors.schema.head], dtype=np.int64).tolist()
        of_tensors = head_rms(factors.schema, self._head)
        self._head_steps = step_index(of_tensors * STEP_PER_RMS.get(allocation.head_bits, 1.0))
        trained = curvature.steps if curvature else None
        if trained is not None and allocation.head_bits and allocation.head_bits != 16:
            self._head_steps = _kept(self._head_steps, trained.head)
        self._head_exact = allocation.head_bits == 16
        self._rounded = trained is not None
        self._u = [np.ascontiguousarray(u.T, np.float32) for u in factors.u]  # (r, d_out) each
        self._v = [np.ascontiguousarray(v, np.float32) for v in factors.v]  # (r, d_in) each
        self._steps: list[dict[str, np.ndarray]] = []  # of each projection: by side, (rank,)
        self._exact: list[np.ndarray] = []  # of each projection: (rank,)
        relative = costs.relative_steps
        for index, (rank, bits) in enumerate(zip(allocation.ranks.tolist(), allocation.bits, strict=True)):
            u, v = costs.rms_u[index, :rank], costs.rms_v[index, :rank]
            each = np.ndim(bits) == 1
            widths = np.asarray(bits[:rank]) if each else np.full(rank, bits)
            nominal = np.array([STEP_PER_RMS.get(width, 1.0) for width in widths.tolist()])
            relative_u, relative_v = (
                (np.ones(rank), np.ones(rank)) if each or not rank else (f[index, rank - 1, :rank] for f in relative)
            )
            steps = {U: step_index(u * relative_u * nominal), V: step_index(v * relative_v * nominal)}
            if trained is not None:
                steps = {
                    side: _kept(found, each_step[index, :rank])
                    for (side, found), each_step in zip(steps.items(), (trained.u, trained.v), strict=True)
                }
            self._steps.append({side: np.where(widths == 0, -1, found) for side, found in steps.items()})
            self._exact.append(widths == 16)
        if curvature is not None and trained is None:  # what is rounded already has no errors to make up for
            self._compensate(edge, curvature)

    def _compensate(self, edge: EdgeState, curvature: Curvature) -> None:
        """Move the targets of u to where their rounding errors matter least; what is sent exactly stays."""
        chosen = [index for index, exact in enumerate(self._exact) if len(exact) and not exact.any()]
        roundings = []
        for index in chosen:
            rank = len(self._exact[index])
            roundings.append(
                Rounding(
                    u=self._u[index][:rank],
                    v=self._v[index][:rank],
                    held_u=edge.u[index].T[:rank],
                    held_v=edge.v[index][:rank],
                    step_u=self._steps[index][U],
                    step_v=self._steps[index][V],
                    inputs=curvature.inputs[index],
                )
            )
        for index, target in zip(chosen, compensate(roundings), strict=True):
            self._u[index] = target

    def of(self, parts: Sequence[Part]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(values (n,), steps, exact, rounded (vectors,)) of some parts, as ``write_numbers`` wants them."""
        values, steps, exact = [np.zeros(0, np.float32)], [np.zeros(0, np.int64)], [np.zeros(0, bool)]
        for part in parts:
            if not part.length:
                continue
            if part.side == HEAD:
                first = self._head_ends[part.index - 1] if part.index else 0
                first += part.start * part.length
                values.append(self._head[first : first + part.size])
                steps.append(np.full(part.count, self._head_steps[part.index]))
                exact.append(np.full(part.count, self._head_exact))
                continue
            vectors = (self._u if part.side == U else self._v)[part.index]
            values.append(vectors[part.start : part.stop].ravel())
            steps.append(self._steps[part.index][part.side][part.start : part.stop])
            exact.append(self._exact[part.index][part.start : part.stop])
        whole_steps, exactly = np.concatenate(steps), np.concatenate(exact)
        return np.concatenate(values), whole_steps, exactly, ~exactly & self._rounded


def _kept(chosen: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Grid indices of the steps that training rounded to, and the chosen ones where it rounded nothing."""
    return np.where(trained > 0, step_index(trained), chosen)


def quantiser_steps(factors: Factors, edge: EdgeState, allocation: Allocation, curvature: Curvature) -> QuantiserSteps:
    """The steps with which an update of these factors would be sent; 0 for what is not sent or sent exactly.

    Args:
        factors: the cloud's, at least at the allocation's ranks. edge: of their schema; what it holds does not matter.
        allocation: rank and bits. curvature: at these factors.
    """
    schema = edge.schema
    targets = Targets(factors, allocation, Costs.measure(factors, edge, curvature), edge)
    found = np.zeros((2, len(schema.projections), schema.prefixes[-1]), np.float32)
    for index, (steps, exact) in enumerate(zip(targets._steps, targets._exact, strict=True)):
        for side, name in enumerate((U, V)):
            found[side, index, : len(exact)] = np.where(exact | (steps[name] < 0), 0, GRID[steps[name]])
    coarse = allocation.head_bits not in (0, 16)
    return QuantiserSteps(found[0], found[1], GRID[targets._head_steps] * np.float32(coarse))
