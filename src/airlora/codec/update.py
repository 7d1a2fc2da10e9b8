"""Encoding: factors, an allocation and what the edge holds become layers of bytes in priority order."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from airlora.codec.allocation import BITS, Allocation
from airlora.codec.choice import Judge, LayerChoice
from airlora.codec.costs import Costs
from airlora.codec.edge import EdgeState
from airlora.codec.files import read_tensors, write_tensors
from airlora.codec.plan import plan
from airlora.codec.targets import Targets
from airlora.curvature import Curvature
from airlora.errors import CompatibilityError, StoreError, TrainingError
from airlora.factors import Factors, Schema

UPDATE_KIND = "airlora-update-2"
_LAST_ROUND = 2**32 - 1


@dataclass(frozen=True)
class Update:
    """Layers of one round, most important first; every prefix of them can be applied.

    Attributes:
        layers: the bytes of each layer.
        parent: id of the edge state that the first of them builds on.
        schema_id: id of the schema.
        round_index: the round, from 0.
        allocation: what was asked for, where it is known; it is kept in the file and does not go on air.
    """

    layers: tuple[bytes, ...]
    parent: str
    schema_id: str
    round_index: int
    allocation: Allocation | None = field(default=None, compare=False)

    @property
    def layer_bytes(self) -> tuple[int, ...]:
        """Size of each layer in bytes."""
        return tuple(map(len, self.layers))

    @property
    def size_bytes(self) -> int:
        """Size of all layers in bytes."""
        return sum(self.layer_bytes)

    def save(self, path: Path) -> None:
        """Write one safetensors file, a uint8 tensor ``layer_0000`` … for each layer.

        Raises:
            StoreError: the file cannot be written.
        """
        tensors = {f"layer_{index:04d}": np.frombuffer(layer, np.uint8) for index, layer in enumerate(self.layers)}
        metadata = {"parent": self.parent, "schema_id": self.schema_id, "round": str(self.round_index)}
        if self.allocation:
            metadata["allocation"] = json.dumps(self.allocation.to_json())
        write_tensors(path, UPDATE_KIND, tensors, metadata)

    @classmethod
    def load(cls, path: Path) -> Update:
        """Read what ``save`` wrote.

        Raises:
            StoreError: the file is missing, changed, or no update (a pickle, for one).
        """
        tensors, metadata = read_tensors(path, UPDATE_KIND)
        try:
            layers = tuple(tensors[f"layer_{index:04d}"].tobytes() for index in range(len(tensors)))
            asked = Allocation.from_json(json.loads(metadata["allocation"])) if "allocation" in metadata else None
            return cls(layers, metadata["parent"], metadata["schema_id"], int(metadata["round"]), asked)
        except (KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise StoreError(f"{path} is not a complete update ({error}); write it again") from error


def encode(
    factors: Factors,
    edge: EdgeState,
    allocation: Allocation,
    round_index: int,
    judge: Judge | None = None,
    curvature: Curvature | None = None,
) -> Update:
    """Encode what the allocation asks for. Pure: equal arguments give equal bytes, and nothing is changed.

    The head and the components up to the first prefix are one priority class, each later block is one of its own.
    Within a class, pieces that the edge received longest ago come first (the head on a tie). Layers beyond the
    allocation's budget are left out, so what one round cannot carry is first in its class in the next.

    What happens to components that the edge holds beyond those of a layer is judged: new components on top of a
    tail trained for others can be worse than the new ones alone, or better. After each class the better of keeping
    and dropping is taken; if even that is worse than the state before the update, the class joins the next one in a
    single layer, or is left out if it is the last; within a class, a layer that leaves such a state joins the next
    layer. Then, if bytes have a price, the update ends where what it wins less its price is most. In the end, the
    prefix that loses least becomes active. Without a ``judge`` tails are kept and nothing is priced.

    Args:
        factors: the cloud's adapter, with at least ``allocation.ranks`` components.
        edge: the state that the edge last acknowledged.
        allocation: a valid one (see ``codec.project``).
        round_index: not below the edge's newest round, below 2^32.
        judge: of the edge's model, on validation data.
        curvature: at these factors: steps and rounding errors are placed where the loss feels them least.

    Raises:
        CompatibilityError: factors, edge and allocation are not of one schema.
        TrainingError: the factors hold NaN, infinity, or values far beyond what training gives.
        ValueError: the allocation or the round cannot be sent.
    """
    schema = edge.schema
    _check(schema, factors, edge, allocation, round_index, curvature)
    costs = Costs.measure(factors, edge, curvature)
    _check_finite(costs, factors)
    targets = Targets(factors, allocation, costs, edge, curvature)
    budget, carried = allocation.budget_bytes, allocation.carried_bytes
    choice = LayerChoice(targets, edge, round_index, judge, budget, carried, allocation.byte_price)
    for pieces in plan(schema, allocation, costs):
        choice.add_class(pieces)
    choice.cut()
    choice.activate_best()
    return Update(choice.layers, edge.id, schema.id, round_index, allocation)


def _check(
    schema: Schema,
    factors: Factors,
    edge: EdgeState,
    allocation: Allocation,
    round_index: int,
    curvature: Curvature | None,
) -> None:
    if factors.schema.id != schema.id:
        raise CompatibilityError(f"factors of schema {factors.schema.id} for an edge of schema {schema.id}")
    if curvature is not None and curvature.schema.id != schema.id:
        raise CompatibilityError(f"curvature of schema {curvature.schema.id} for an edge of schema {schema.id}")
    if not max(edge.round, 0) <= round_index <= _LAST_ROUND:
        raise ValueError(
            f"round {round_index} must be in {max(edge.round, 0)}…{_LAST_ROUND}: the edge has {edge.round}"
        )
    count = len(schema.projections)
    ranks, bits = allocation.ranks, allocation.bits
    if ranks.shape != (count,) or bits.shape not in ((count,), (count, schema.prefixes[-1])):
        raise CompatibilityError(f"an allocation of shapes {ranks.shape}, {bits.shape} for {count} projections")
    widths = BITS if bits.ndim == 1 else (0, *BITS)
    valid = {
        "ranks": ranks.dtype.kind == "i" and bool(((ranks >= 0) & (ranks <= schema.r_max)).all()),
        "bits": bits.dtype.kind == "i" and bool(np.isin(bits, widths).all()),
        "head_bits": allocation.head_bits in (0, *BITS),
        "budget_bytes": allocation.budget_bytes >= 0,
    }
    for name, is_valid in valid.items():
        if not is_valid:
            found = getattr(allocation, name)
            raise ValueError(f"allocation {name} = {found} cannot be sent; pass it through codec.project first")
    if (ranks > factors.ranks).any():
        raise ValueError(f"allocation ranks {ranks} exceed the factors' {factors.ranks}; lower them")


def _check_finite(costs: Costs, factors: Factors) -> None:
    bad = [
        projection.name
        for projection, u, v in zip(costs.schema.projections, costs.rms_u, costs.rms_v, strict=True)
        if not (np.isfinite(u).all() and np.isfinite(v).all())
    ]
    bad += [name for name, tensor in factors.head.items() if not np.isfinite(tensor).all()]
    if bad:
        raise TrainingError(
            f"training diverged: values to send are NaN or infinite in {len(bad)} tensors, the first in {bad[0]};"
            " start again with a lower --lr (rounds finished before are kept)"
        )
