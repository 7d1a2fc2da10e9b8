"""The seam between torch and everything else: what an adapter is, as plain numpy values.

A ``Schema`` names what can be adapted (both sides hold it before the first update); ``Factors`` are
the numbers. The adapter makes them; the codec, the edge and the PEFT export know only them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod, sqrt
from typing import Any

import numpy as np

from airlora.errors import CompatibilityError


@dataclass(frozen=True)
class Projection:
    """One adapted linear map ``y = W x`` with ``W`` of shape (d_out, d_in) and at most r_max components."""

    name: str
    d_out: int
    d_in: int
    r_max: int

    def __post_init__(self) -> None:
        if not 0 < self.r_max <= min(self.d_out, self.d_in):
            raise ValueError(f"{self.name}: r_max {self.r_max} must be in 1..{min(self.d_out, self.d_in)}")

    @property
    def numbers_per_component(self) -> int:
        """Numbers in one folded component: a column of u and a row of v."""
        return self.d_out + self.d_in


@dataclass(frozen=True)
class HeadTensor:
    """One tensor of the trained classification head."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Numbers in the tensor."""
        return prod(self.shape)

    @property
    def rows(self) -> int:
        """Rows by the first axis; a tensor of one or no dimension is one row."""
        return self.shape[0] if len(self.shape) > 1 else 1

    @property
    def row_size(self) -> int:
        """Numbers in a row."""
        return prod(self.shape[1:]) if len(self.shape) > 1 else self.size


@dataclass(frozen=True)
class Schema:
    """Everything both sides must agree on before an update can be read; order is part of it.

    Attributes:
        projections: the adapted linear maps.
        prefixes: ranks at which the adapter is trained to be cut, ascending; components between two of
            them form one block. The last is the largest r_max.
        head: tensors of the trained classification head (none for language models).
        base_fingerprint: identifies the base model (see ``workload.models.fingerprint``).
        init_seed: where v starts, see ``initial_v``; None for zeros.
    """

    projections: tuple[Projection, ...]
    prefixes: tuple[int, ...]
    head: tuple[HeadTensor, ...] = ()
    base_fingerprint: str = ""
    init_seed: int | None = None

    def __post_init__(self) -> None:
        if not self.projections:
            raise ValueError("a schema needs at least one projection")
        largest = max(projection.r_max for projection in self.projections)
        ascending = list(self.prefixes) == sorted(set(self.prefixes))
        if not self.prefixes or not ascending or self.prefixes[0] < 1 or self.prefixes[-1] != largest:
            raise ValueError(f"prefixes {self.prefixes} must ascend from at least 1 to the largest r_max, {largest}")
        names = [p.name for p in self.projections] + [tensor.name for tensor in self.head]
        if len(set(names)) != len(names):
            raise ValueError("schema names must be unique")
        if self.init_seed is not None and not 0 <= self.init_seed < 2**64:
            raise ValueError(f"init_seed {self.init_seed} must be in 0..2^64 - 1, or None")

    @cached_property
    def id(self) -> str:
        """First 16 hex digits of the SHA-256 of the schema's canonical JSON."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def r_max(self) -> np.ndarray:
        """Largest rank of every projection, shape (projections,), int64."""
        return np.array([projection.r_max for projection in self.projections])

    @property
    def numbers_per_component(self) -> np.ndarray:
        """d_out + d_in of every projection, shape (projections,), int64."""
        return np.array([projection.numbers_per_component for projection in self.projections])

    @property
    def head_size(self) -> int:
        """Numbers in the head."""
        return sum(tensor.size for tensor in self.head)

    @property
    def head_rows(self) -> int:
        """Rows of the head, all its tensors counted through."""
        return sum(tensor.rows for tensor in self.head)

    @cached_property
    def size(self) -> int:
        """Numbers in everything that can be sent: u and v at r_max, and the head."""
        return int(self.r_max @ self.numbers_per_component) + self.head_size

    def initial_v(self, index: int) -> np.ndarray:
        """Where training starts v of a projection: (r_max, d_in) float32, uniform of variance 1 / d_in.

        Both sides can compute it, to the bit, so that only what training changes has to be sent: integer
        arithmetic (SplitMix64, Steele et al. 2014) and one float32 multiplication a number. Without ``init_seed``
        it is zero.
        """
        projection = self.projections[index]
        shape = (projection.r_max, projection.d_in)
        if self.init_seed is None:
            return np.zeros(shape, np.float32)
        # (r_max, d_in): a counter that differs for every number of the adapter
        start = int(_splitmix64(_splitmix64(np.array([self.init_seed], np.uint64)) + np.uint64(index))[0])
        counter = np.arange(projection.r_max * projection.d_in, dtype=np.uint64).reshape(shape) + np.uint64(start)
        x = _splitmix64(counter)
        centred = (x >> np.uint64(40)).astype(np.int32) - 2**23  # 24 bits, exact in float32
        return centred.astype(np.float32) * np.float32(sqrt(3 / projection.d_in) / 2**23)

    def plain_lora_bytes(self, rank: int = 8, bytes_per_number: int = 4) -> int:
        """Size of the numbers of a plain LoRA of one rank plus the head, without any container."""
        ranks = np.minimum(rank, self.r_max)
        return int(bytes_per_number * (ranks @ self.numbers_per_component + self.head_size))

    def to_json(self) -> dict[str, Any]:
        """Plain data, in the order that ``id`` hashes."""
        return {
            "projections": [[p.name, p.d_out, p.d_in, p.r_max] for p in self.projections],
            "prefixes": list(self.prefixes),
            "head": [[tensor.name, list(tensor.shape)] for tensor in self.head],
            "base_fingerprint": self.base_fingerprint,
            "init_seed": self.init_seed,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Schema:
        """The inverse of ``to_json``."""
        return cls(
            projections=tuple(Projection(*item) for item in data["projections"]),
            prefixes=tuple(data["prefixes"]),
            head=tuple(HeadTensor(name, tuple(shape)) for name, shape in data["head"]),
            base_fingerprint=data["base_fingerprint"],
            init_seed=data["init_seed"],
        )


@dataclass(frozen=True, eq=False)
class Factors:
    """Folded factors of every projection of a schema, plus the head.

    Attributes:
        schema: what the arrays belong to.
        u: one array a projection, (d_out, r) float32; the adapter's scale is folded in here.
        v: one array a projection, (r, d_in) float32. The update of the weight is ``u @ v``.
        head: head tensor by name, float32.

    Raises:
        CompatibilityError: the arrays do not fit the schema.
    """

    schema: Schema
    u: tuple[np.ndarray, ...]
    v: tuple[np.ndarray, ...]
    head: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.u) == len(self.v) == len(self.schema.projections):
            raise CompatibilityError(
                f"factors for {len(self.u)} projections, the schema has {len(self.schema.projections)}"
            )
        for projection, u, v in zip(self.schema.projections, self.u, self.v, strict=True):
            rank = v.shape[0] if v.ndim == 2 else -1
            if u.shape != (projection.d_out, rank) or v.shape != (rank, projection.d_in) or rank > projection.r_max:
                raise CompatibilityError(
                    f"{projection.name}: u {u.shape} and v {v.shape} do not fit"
                    f" ({projection.d_out}, r) and (r, {projection.d_in}) with r ≤ {projection.r_max}"
                )
        found = {name: array.shape for name, array in self.head.items()}
        wanted = {tensor.name: tensor.shape for tensor in self.schema.head}
        if found != wanted:
            raise CompatibilityError(f"head tensors {found} do not fit the schema's {wanted}")

    @property
    def ranks(self) -> np.ndarray:
        """Rank of every projection, shape (projections,), int64."""
        return np.array([v.shape[0] for v in self.v])

    def truncate(self, ranks: Iterable[int]) -> Factors:
        """The first ``ranks[m]`` components of every projection (views, not copies)."""
        kept = [min(int(rank), v.shape[0]) for rank, v in zip(ranks, self.v, strict=True)]
        return Factors(
            self.schema,
            tuple(u[:, :r] for u, r in zip(self.u, kept, strict=True)),
            tuple(v[:r] for v, r in zip(self.v, kept, strict=True)),
            self.head,
        )


def _splitmix64(x: np.ndarray) -> np.ndarray:
    """Output number ``x`` (from 1) of SplitMix64 seeded with 0: uint64 to uint64, of any shape."""
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
