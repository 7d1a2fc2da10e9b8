"""What an edge device holds: a frozen value that every layer turns into the next one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from airlora.codec.files import read_tensors, write_tensors
from airlora.codec.layers import BlockPiece, HeadPiece, head_row_sizes, head_spans, read_layer
from airlora.codec.quantise import decode_rows, row_bytes
from airlora.errors import CompatibilityError, StoreError
from airlora.factors import Factors, Schema

NEVER = -1
"""Round of a component or head row that was never delivered."""

_KIND = "airlora-edge-state-1"


@dataclass(frozen=True, eq=False)
class EdgeState:
    """Every component ever received, how many are active, and when each arrived.

    Components beyond the active rank stay stored, but belong to an earlier round and are not used.

    Attributes:
        schema: what the arrays belong to.
        u: one array a projection, (d_out, r_max) float32.
        v: one array a projection, (r_max, d_in) float32.
        head: all head tensors, flattened and joined in schema order, (head_size,) float32.
        active_ranks: (projections,) int64, components in use.
        component_rounds: (projections, largest r_max) int64, round of each component, ``NEVER`` if none.
        head_rounds: (head rows,) int64, round of each head row, ``NEVER`` if none.
        id: hash chain of the layers applied, 32 hex digits; equal ids mean equal states.

    Raises:
        CompatibilityError: the arrays do not fit the schema.
    """

    schema: Schema
    u: tuple[np.ndarray, ...]
    v: tuple[np.ndarray, ...]
    head: np.ndarray
    active_ranks: np.ndarray
    component_rounds: np.ndarray
    head_rounds: np.ndarray
    id: str

    def __post_init__(self) -> None:
        wanted = _layout(self.schema)
        found = self._arrays()
        if len(self.u) != len(self.schema.projections) or len(self.v) != len(self.schema.projections):
            raise CompatibilityError(
                f"{len(self.u)} u and {len(self.v)} v for {len(self.schema.projections)} projections"
            )
        for name, (shape, dtype) in wanted.items():
            if found[name].shape != shape or found[name].dtype != dtype:
                raise CompatibilityError(
                    f"edge state: {name} is {found[name].dtype} {found[name].shape},"
                    f" the schema asks for {np.dtype(dtype)} {shape}"
                )
        if (self.active_ranks < 0).any() or (self.active_ranks > self.schema.r_max).any():
            raise CompatibilityError(f"edge state: active ranks {self.active_ranks} exceed 0…{self.schema.r_max}")

    @classmethod
    def initial(cls, schema: Schema, head: Mapping[str, np.ndarray]) -> EdgeState:
        """The state before the first update: no components, and the head that the base model was shipped with.

        Args:
            schema: what will be sent.
            head: head tensors by name, as the schema shapes them.

        Raises:
            CompatibilityError: the head does not fit the schema.
        """
        flat = flatten_head(schema, head)
        digest = hashlib.sha256(b"airlora edge state 1" + bytes.fromhex(schema.id) + flat.astype("<f4").tobytes())
        return cls(
            schema=schema,
            u=tuple(_fixed(np.zeros((p.d_out, p.r_max), np.float32)) for p in schema.projections),
            v=tuple(_fixed(np.zeros((p.r_max, p.d_in), np.float32)) for p in schema.projections),
            head=_fixed(flat),
            active_ranks=_fixed(np.zeros(len(schema.projections), np.int64)),
            component_rounds=_fixed(np.full((len(schema.projections), schema.prefixes[-1]), NEVER, np.int64)),
            head_rounds=_fixed(np.full(_head_rows(schema), NEVER, np.int64)),
            id=digest.hexdigest()[:32],
        )

    @property
    def round(self) -> int:
        """Newest round of which a layer was applied, ``NEVER`` if none."""
        return int(max(self.component_rounds.max(), self.head_rounds.max(initial=NEVER)))

    @property
    def delivered(self) -> bool:
        """Whether any layer was ever applied."""
        return self.round != NEVER

    def factors(self) -> Factors:
        """The adapter in use: the active components and the head, as new arrays."""
        ranks = self.active_ranks.tolist()
        return Factors(
            self.schema,
            tuple(u[:, :rank].copy() for u, rank in zip(self.u, ranks, strict=True)),
            tuple(v[:rank].copy() for v, rank in zip(self.v, ranks, strict=True)),
            _unflatten_head(self.schema, self.head),
        )

    def apply(self, layer: bytes) -> EdgeState:
        """The state after one more layer; this one stays as it is.

        A layer of components makes exactly the components up to its end active, so that each projection always
        runs on components of a single round.

        Raises:
            UpdateError: the bytes are not a valid layer.
            CompatibilityError: a layer of another schema, of an earlier round than this state, of a piece that
                this round already delivered, or of a block whose lower blocks are not of its round.
        """
        round_index, piece, body = read_layer(self.schema, layer)
        if round_index < self.round:
            raise CompatibilityError(f"a layer of round {round_index}, this edge is at {self.round}; drop it")
        next_id = hashlib.sha256(bytes.fromhex(self.id) + layer).hexdigest()[:32]
        if isinstance(piece, HeadPiece):
            return self._with_head(round_index, piece, body, next_id)
        return self._with_block(round_index, piece, body, next_id)

    def _with_head(self, round_index: int, piece: HeadPiece, body: np.ndarray, next_id: str) -> EdgeState:
        rows = slice(piece.first, piece.first + piece.count)
        if (self.head_rounds[rows] == round_index).any():
            raise CompatibilityError(
                f"head rows from {piece.first} of round {round_index} are applied already; drop it"
            )
        head, rounds = self.head.copy(), self.head_rounds.copy()
        at = 0
        for offset, count, size in head_spans(self.schema, piece.first, piece.count):
            numbers, at = _take(body, at, count, size, piece.bits)
            head[offset : offset + count * size] = numbers.ravel()
        rounds[rows] = round_index
        return replace(self, head=_fixed(head), head_rounds=_fixed(rounds), id=next_id)

    def _with_block(self, round_index: int, piece: BlockPiece, body: np.ndarray, next_id: str) -> EdgeState:
        u, v = list(self.u), list(self.v)
        active, rounds = self.active_ranks.copy(), self.component_rounds.copy()
        at = 0
        for index, start, stop, bits in piece.touched(self.schema):
            projection = self.schema.projections[index]
            if (rounds[index, :start] != round_index).any():
                raise CompatibilityError(
                    f"{projection.name}: components {start}…{stop - 1} of round {round_index} need the lower ones of"
                    f" the same round, found rounds {rounds[index, :start].tolist()}; drop it"
                )
            if (rounds[index, start:stop] == round_index).any():
                raise CompatibilityError(
                    f"{projection.name}: components from {start} of round {round_index} are applied already; drop it"
                )
            columns, at = _take(body, at, stop - start, projection.d_out, bits)  # (components, d_out)
            lines, at = _take(body, at, stop - start, projection.d_in, bits)  # (components, d_in)
            new_u, new_v = u[index].copy(), v[index].copy()
            new_u[:, start:stop] = columns.T
            new_v[start:stop] = lines
            u[index], v[index] = _fixed(new_u), _fixed(new_v)
            active[index] = stop
            rounds[index, start:stop] = round_index
        return replace(
            self,
            u=tuple(u),
            v=tuple(v),
            active_ranks=_fixed(active),
            component_rounds=_fixed(rounds),
            id=next_id,
        )

    def to_tensors(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Everything as (tensors by name, metadata), for a safetensors file."""
        return self._arrays(), {"schema": json.dumps(self.schema.to_json()), "id": self.id}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> EdgeState:
        """Undo ``to_tensors``.

        Raises:
            StoreError: something is missing, unreadable or does not fit the schema.
        """
        try:
            schema = Schema.from_json(json.loads(metadata["schema"]))
            arrays = {name: _fixed(np.array(tensors[name])) for name in _layout(schema)}
            count = range(len(schema.projections))
            bytes.fromhex(metadata["id"])
            return cls(
                schema=schema,
                u=tuple(arrays.pop(f"u_{index:04d}") for index in count),
                v=tuple(arrays.pop(f"v_{index:04d}") for index in count),
                id=metadata["id"],
                **arrays,
            )
        except (KeyError, TypeError, ValueError, CompatibilityError) as error:
            raise StoreError(f"the stored edge state is not usable ({error}); start from an earlier one") from error

    def save(self, path: Path) -> None:
        """Write one safetensors file.

        Raises:
            StoreError: the file cannot be written.
        """
        tensors, metadata = self.to_tensors()
        write_tensors(path, _KIND, tensors, metadata)

    @classmethod
    def load(cls, path: Path) -> EdgeState:
        """Read what ``save`` wrote.

        Raises:
            StoreError: the file is missing, changed, or no edge state.
        """
        return cls.from_tensors(*read_tensors(path, _KIND))

    def _arrays(self) -> dict[str, np.ndarray]:
        return {
            **{f"u_{index:04d}": u for index, u in enumerate(self.u)},
            **{f"v_{index:04d}": v for index, v in enumerate(self.v)},
            "head": self.head,
            "active_ranks": self.active_ranks,
            "component_rounds": self.component_rounds,
            "head_rounds": self.head_rounds,
        }


def flatten_head(schema: Schema, head: Mapping[str, np.ndarray]) -> np.ndarray:
    """All head tensors joined in schema order, (head_size,) float32.

    Raises:
        CompatibilityError: names or shapes differ from the schema's.
    """
    found = {name: np.shape(tensor) for name, tensor in head.items()}
    wanted = {tensor.name: tensor.shape for tensor in schema.head}
    if found != wanted:
        raise CompatibilityError(f"head tensors {found} do not fit the schema's {wanted}")
    parts = [np.asarray(head[tensor.name], np.float32).ravel() for tensor in schema.head]
    return np.concatenate([np.zeros(0, np.float32), *parts])


def _unflatten_head(schema: Schema, flat: np.ndarray) -> dict[str, np.ndarray]:
    ends = np.cumsum([tensor.size for tensor in schema.head], dtype=np.int64)
    return {
        tensor.name: flat[end - tensor.size : end].reshape(tensor.shape).copy()
        for tensor, end in zip(schema.head, ends.tolist(), strict=True)
    }


def _head_rows(schema: Schema) -> int:
    return sum(rows for rows, _ in head_row_sizes(schema))


def _layout(schema: Schema) -> dict[str, tuple[tuple[int, ...], type]]:
    count = len(schema.projections)
    return {
        **{f"u_{index:04d}": ((p.d_out, p.r_max), np.float32) for index, p in enumerate(schema.projections)},
        **{f"v_{index:04d}": ((p.r_max, p.d_in), np.float32) for index, p in enumerate(schema.projections)},
        "head": ((schema.head_size,), np.float32),
        "active_ranks": ((count,), np.int64),
        "component_rounds": ((count, schema.prefixes[-1]), np.int64),
        "head_rounds": ((_head_rows(schema),), np.int64),
    }


def _take(body: np.ndarray, at: int, count: int, numbers: int, bits: int) -> tuple[np.ndarray, int]:
    """Decode the next ``count`` rows: ((count, numbers) float32, position after them)."""
    width = row_bytes(numbers, bits)
    end = at + count * width
    return decode_rows(body[at:end].reshape(count, width), numbers, bits), end


def _fixed(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array
