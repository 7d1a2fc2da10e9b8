"""What an edge device holds: a frozen value that every layer turns into the next one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from airlora.codec.files import read_tensors, write_tensors
from airlora.codec.layers import CAP, DROP, HeadPiece, LayerInfo, read_info, unframe
from airlora.codec.numbers import Layout, read_numbers
from airlora.codec.parts import HEAD, Part, U, parts_of
from airlora.codec.stream import Ledger, StreamReader
from airlora.errors import CompatibilityError, StoreError, UpdateError
from airlora.factors import Factors, Schema

NEVER = -1
"""Round of a component or head row that was never delivered."""

_KIND = "airlora-edge-state-2"
_ID_BYTES = 16


@dataclass(frozen=True, eq=False)
class EdgeState:
    """Every component ever received, how many are active, and when each arrived.

    Components beyond the active rank stay stored, but belong to an earlier round and are not used.

    Attributes:
        schema: what the arrays belong to.
        u: one array a projection, (d_out, r_max) float32, column by column in memory.
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
        if (self.active_ranks < 0).any() or (self.active_ranks > self.stored_ranks).any():
            raise CompatibilityError(f"edge state: active ranks {self.active_ranks} exceed 0…{self.stored_ranks}")

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
        digest = hashlib.sha256(b"airlora edge state 2" + bytes.fromhex(schema.id) + flat.astype("<f4").tobytes())
        return cls(
            schema=schema,
            u=tuple(_fixed(np.zeros((p.r_max, p.d_out), np.float32).T) for p in schema.projections),
            v=tuple(_fixed(schema.initial_v(index)) for index in range(len(schema.projections))),
            head=_fixed(flat),
            active_ranks=_fixed(np.zeros(len(schema.projections), np.int64)),
            component_rounds=_fixed(np.full((len(schema.projections), schema.prefixes[-1]), NEVER, np.int64)),
            head_rounds=_fixed(np.full(schema.head_rows, NEVER, np.int64)),
            id=digest.hexdigest()[: 2 * _ID_BYTES],
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

    def stored_factors(self) -> Factors:
        """Everything that is stored, all components whether active or not, as new arrays; what never came is as
        ``initial`` has it."""
        return Factors(
            self.schema,
            tuple(u.copy() for u in self.u),
            tuple(v.copy() for v in self.v),
            _unflatten_head(self.schema, self.head),
        )

    @property
    def stored_ranks(self) -> np.ndarray:
        """Components that were ever received, counted from the first without a gap: (projections,) int64."""
        return np.cumprod(self.component_rounds != NEVER, axis=1).sum(axis=1)

    def apply(self, layer: bytes) -> EdgeState:
        """The state after one more layer; this one stays as it is.

        Raises:
            UpdateError: the bytes are not a valid layer.
            CompatibilityError: a layer of another schema, or one that builds on another state (an earlier one, a
                later one, or one of another chain).
        """
        return self.read(layer)[1]

    def read(self, layer: bytes, ledger: Ledger | None = None) -> tuple[LayerInfo, EdgeState]:
        """(what a layer says, the state after it); see ``apply``.

        Args:
            layer: its bytes.
            ledger: where it is noted what the bits of its body are for.
        """
        round_index, parent, body = unframe(self.schema, layer)
        if not self.id.startswith(parent):
            raise CompatibilityError(f"a layer for state {parent}, this edge is at {self.id[:16]}; drop it")
        if round_index < self.round:
            raise UpdateError(f"a layer of round {round_index} builds on one of round {self.round}; drop it")
        stream = StreamReader(body, ledger)
        pieces, tail, cap = read_info(stream, self.schema)
        stream.charge("pieces")
        info = LayerInfo(round_index, parent, pieces, tail, cap)
        parts = [part for piece in pieces for part in parts_of(self.schema, piece)]
        values = read_numbers(stream, Layout.of(parts), self.held(parts))
        stream.finish()
        return info, self.after(info, parts, values, layer)

    def held(self, parts: Sequence[Part]) -> np.ndarray:
        """What the edge holds of some parts, vector by vector, end to end: (n,) float32."""
        return np.concatenate([np.zeros(0, np.float32), *(self._view(part).ravel() for part in parts)])

    def after(self, info: LayerInfo, parts: Sequence[Part], values: np.ndarray, layer: bytes) -> EdgeState:
        """The state after a layer that was read or written already.

        Args:
            info: what the layer says.
            parts: those of its pieces, in order.
            values: (n,) float32, their new vectors, end to end.
            layer: its bytes, for the id.

        Raises:
            UpdateError: a piece starts beyond the components that are stored.
        """
        rounds, head_rounds = self.component_rounds.copy(), self.head_rounds.copy()
        active, stored = self.active_ranks.copy(), self.stored_ranks
        for piece in info.pieces:
            if isinstance(piece, HeadPiece):
                head_rounds[piece.first : piece.first + piece.count] = info.round_index
                continue
            for index, stop in piece.touched():
                if stored[index] < piece.start:
                    name = self.schema.projections[index].name
                    raise UpdateError(f"a layer starts at component {piece.start} of {name}, which stores fewer")
                rounds[index, piece.start : stop] = info.round_index
                stored[index] = max(stored[index], stop)
                active[index] = stop if info.tail == DROP else max(active[index], stop)
        u, v, head = self._with(parts, values)
        return self._next(
            u=u,
            v=v,
            head=head,
            active_ranks=_fixed(np.minimum(stored, info.cap) if info.tail == CAP else active),
            component_rounds=_fixed(rounds),
            head_rounds=_fixed(head_rounds),
            id=hashlib.sha256(bytes.fromhex(self.id) + layer).hexdigest()[: 2 * _ID_BYTES],
        )

    def _view(self, part: Part) -> np.ndarray:
        """What is held of a part: (count, length)."""
        if part.side == HEAD:
            first = sum(tensor.size for tensor in self.schema.head[: part.index]) + part.start * part.length
            return self.head[first : first + part.size].reshape(part.count, part.length)
        vectors = self.u[part.index].T if part.side == U else self.v[part.index]
        return vectors[part.start : part.stop]

    def _with(
        self, parts: Sequence[Part], values: np.ndarray
    ) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...], np.ndarray]:
        """(u, v, head) with these parts changed; arrays that are not touched are shared."""
        u, v, head = list(self.u), list(self.v), self.head
        at = 0
        for part in parts:
            new = values[at : at + part.size].reshape(part.count, part.length)
            at += part.size
            if part.side == HEAD:
                head = head.copy() if head is self.head else head
                first = sum(tensor.size for tensor in self.schema.head[: part.index]) + part.start * part.length
                head[first : first + part.size] = new.ravel()
            elif part.side == U:
                changed = u[part.index].copy(order="K")
                changed[:, part.start : part.stop] = new.T
                u[part.index] = _fixed(changed)
            else:
                changed = v[part.index].copy()
                changed[part.start : part.stop] = new
                v[part.index] = _fixed(changed)
        return tuple(u), tuple(v), _fixed(head)

    def _next(self, **changed: Any) -> EdgeState:
        """A state with some attributes changed. Its shapes are this one's, so they are not checked again."""
        state = object.__new__(EdgeState)
        state.__dict__.update(self.__dict__, **changed)
        return state

    def acts_like(self, other: EdgeState) -> bool:
        """Whether both give the same model: components whose u or v is all zero do not count.

        An update after which the edge acts like before was "applied, but nothing changed".
        """
        if not np.array_equal(self.head, other.head):
            return False
        return all(
            np.array_equal(a, b)
            for index in range(len(self.schema.projections))
            for a, b in zip(self._acting(index), other._acting(index), strict=True)
        )

    def _acting(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(u, v) of a projection's active components that are not zero."""
        rank = int(self.active_ranks[index])
        u, v = self.u[index][:, :rank], self.v[index][:rank]
        acting = u.any(axis=0) & v.any(axis=1)
        return u[:, acting], v[acting]

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
            if len(bytes.fromhex(metadata["id"])) != _ID_BYTES:
                raise ValueError(f"id {metadata['id']!r} has not {2 * _ID_BYTES} hex digits")
            if not all(np.isfinite(array).all() for array in arrays.values()):
                raise ValueError("it holds NaN or infinity")
            return cls(
                schema=schema,
                u=tuple(_fixed(np.asfortranarray(arrays.pop(f"u_{index:04d}"))) for index in count),
                v=tuple(arrays.pop(f"v_{index:04d}") for index in count),
                id=metadata["id"],
                **arrays,
            )
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError, CompatibilityError) as error:
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


def _layout(schema: Schema) -> dict[str, tuple[tuple[int, ...], type]]:
    count = len(schema.projections)
    return {
        **{f"u_{index:04d}": ((p.d_out, p.r_max), np.float32) for index, p in enumerate(schema.projections)},
        **{f"v_{index:04d}": ((p.r_max, p.d_in), np.float32) for index, p in enumerate(schema.projections)},
        "head": ((schema.head_size,), np.float32),
        "active_ranks": ((count,), np.int64),
        "component_rounds": ((count, schema.prefixes[-1]), np.int64),
        "head_rounds": ((schema.head_rows,), np.int64),
    }


def _fixed(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array
