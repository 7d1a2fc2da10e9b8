"""Encoding: factors, an allocation and what the edge holds become layers of bytes in priority order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from airlora.codec.allocation import Allocation
from airlora.codec.edge import EdgeState, flatten_head
from airlora.codec.files import read_tensors, write_tensors
from airlora.codec.layers import (
    HeadPiece,
    Piece,
    block_start,
    head_row_sizes,
    head_spans,
    layer_bytes,
    plan,
    read_layer,
    write_layer,
)
from airlora.codec.quantise import encode_rows
from airlora.errors import CompatibilityError, StoreError, UpdateError
from airlora.factors import Factors, Schema

_KIND = "airlora-update-1"
_LAST_ROUND = 2**32 - 1


@dataclass(frozen=True)
class Update:
    """Layers of one round, most important first; every prefix of them can be applied.

    Attributes:
        layers: the bytes of each layer.
        parent: id of the edge state that they were made for.
        schema_id: id of the schema.
        round_index: the round, from 0.
    """

    layers: tuple[bytes, ...]
    parent: str
    schema_id: str
    round_index: int

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
        write_tensors(path, _KIND, tensors, metadata)

    @classmethod
    def load(cls, path: Path) -> Update:
        """Read what ``save`` wrote.

        Raises:
            StoreError: the file is missing, changed, or no update.
        """
        tensors, metadata = read_tensors(path, _KIND)
        try:
            layers = tuple(tensors[f"layer_{index:04d}"].tobytes() for index in range(len(tensors)))
            return cls(layers, metadata["parent"], metadata["schema_id"], int(metadata["round"]))
        except (KeyError, ValueError) as error:
            raise StoreError(f"{path} is not a complete update ({error}); write it again") from error


def encode(factors: Factors, edge: EdgeState, allocation: Allocation, round_index: int) -> Update:
    """Encode what the allocation asks for. Pure: equal arguments give equal bytes, and nothing is changed.

    The head and the components up to the first prefix are one priority class, each later block is one of its own.
    Within a class, pieces that the edge received longest ago come first (the head on a tie). Layers beyond the
    allocation's budget are left out, so what one round cannot carry is first in its class in the next.

    Args:
        factors: the cloud's adapter, with at least ``allocation.ranks`` components.
        edge: the state that the edge last acknowledged.
        allocation: a valid one (see ``codec.project``).
        round_index: later than every round that the edge has seen, below 2^32.

    Raises:
        CompatibilityError: factors, edge and allocation are not of one schema.
        UpdateError: the factors hold NaN or infinity.
        ValueError: the allocation or the round cannot be sent.
    """
    schema = edge.schema
    if factors.schema.id != schema.id:
        raise CompatibilityError(f"factors of schema {factors.schema.id} for an edge of schema {schema.id}")
    if not edge.round < round_index <= _LAST_ROUND:
        raise ValueError(f"round {round_index} must be in {edge.round + 1}…{_LAST_ROUND}: the edge is at {edge.round}")
    classes = plan(schema, allocation)
    if (allocation.ranks > factors.ranks).any():
        raise ValueError(f"allocation ranks {allocation.ranks} exceed the factors' {factors.ranks}; lower them")
    pieces = _select(schema, classes, edge, allocation.budget_bytes)
    rows = _Rows(factors, allocation)
    layers = tuple(write_layer(schema, piece, round_index, rows.body(piece)) for piece in pieces)
    return Update(layers, edge.id, schema.id, round_index)


def inspect_update(layers: Sequence[bytes], schema: Schema) -> list[dict[str, Any]]:
    """One row of plain data for each layer.

    Returns:
        Dicts with ``layer`` (index), ``round``, ``kind`` ("head" or "block"), ``names`` of the tensors or projections,
        ``start`` and ``stop`` (head rows, or components; half-open), ``bits`` (widths in use, ascending) and ``bytes``.

    Raises:
        UpdateError: a layer is not valid.
        CompatibilityError: a layer of another schema.
    """
    return [_row(index, layer, schema) for index, layer in enumerate(layers)]


def _row(index: int, layer: bytes, schema: Schema) -> dict[str, Any]:
    round_index, piece, _ = read_layer(schema, layer)
    if isinstance(piece, HeadPiece):
        names, end = [], 0
        for tensor, (rows, _) in zip(schema.head, head_row_sizes(schema), strict=True):
            end += rows
            if end - rows < piece.first + piece.count and piece.first < end:
                names.append(tensor.name)
        kind, start, stop, bits = "head", piece.first, piece.first + piece.count, [piece.bits]
    else:
        touched = list(piece.touched(schema))
        names = [schema.projections[projection].name for projection, *_ in touched]
        kind, start, stop = "block", block_start(schema, piece.block), max(piece.ranks)
        bits = sorted({width for *_, width in touched})
    return {
        "layer": index,
        "round": round_index,
        "kind": kind,
        "names": names,
        "start": start,
        "stop": stop,
        "bits": bits,
        "bytes": len(layer),
    }


def _select(schema: Schema, classes: list[list[Piece]], edge: EdgeState, budget_bytes: float) -> list[Piece]:
    """The pieces to send, in order: whatever still fits, but no block on a projection whose lower block is left out."""
    chosen: list[Piece] = []
    reached = [0] * len(schema.projections)
    left = budget_bytes
    # The head and the first block are of no use without each other: under a budget too small for both, the
    # staler goes first, so that neither starves.
    urgent = 1 + any(isinstance(piece, HeadPiece) for pieces in classes[:1] for piece in pieces)
    for pieces in (list(chain(*classes[:urgent])), *classes[urgent:]):
        for piece in sorted(pieces, key=lambda piece: _last_round(schema, piece, edge)):
            size = layer_bytes(schema, piece)
            touched = [] if isinstance(piece, HeadPiece) else list(piece.touched(schema))
            if size > left or any(reached[index] < start for index, start, *_ in touched):
                continue
            for index, _, stop, _ in touched:
                reached[index] = stop
            left -= size
            chosen.append(piece)
    return chosen


def _last_round(schema: Schema, piece: Piece, edge: EdgeState) -> int:
    """Oldest round among what the edge holds of a piece."""
    if isinstance(piece, HeadPiece):
        return int(edge.head_rounds[piece.first : piece.first + piece.count].min())
    return min(int(edge.component_rounds[index, start:stop].min()) for index, start, stop, _ in piece.touched(schema))


class _Rows:
    """Encoded rows of the factors; those of a projection are quantised once, when first needed."""

    def __init__(self, factors: Factors, allocation: Allocation) -> None:
        self._factors = factors
        self._ranks = allocation.ranks.tolist()
        self._head = flatten_head(factors.schema, factors.head)
        self._projections: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def body(self, piece: Piece) -> bytes:
        schema = self._factors.schema
        if isinstance(piece, HeadPiece):
            return b"".join(
                _encode_named(
                    "head", self._head[offset : offset + count * size].reshape(count, size), piece.bits
                ).tobytes()
                for offset, count, size in head_spans(schema, piece.first, piece.count)
            )
        return b"".join(
            rows[start:stop].tobytes()
            for index, start, stop, bits in piece.touched(schema)
            for rows in self._projection(index, bits)
        )

    def _projection(self, index: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
        if index not in self._projections:
            rank = self._ranks[index]
            name = self._factors.schema.projections[index].name
            u, v = self._factors.u[index][:, :rank], self._factors.v[index][:rank]
            self._projections[index] = _encode_named(name, u.T, bits), _encode_named(name, v, bits)
        return self._projections[index]


def _encode_named(name: str, x: np.ndarray, bits: int) -> np.ndarray:
    try:
        return encode_rows(x, bits)
    except UpdateError as error:
        raise UpdateError(f"{name}: {error} (training diverged? go back to a checkpoint)") from error
