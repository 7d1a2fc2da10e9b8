"""What an update holds and where its bytes went, read layer by layer on the state that it builds on."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np

from airlora.codec.edge import EdgeState
from airlora.codec.layers import CAP, DROP, FRAME_BYTES, BlockPiece, HeadPiece, LayerInfo
from airlora.codec.numbers import EXACT_RESIDUAL, FRESH, RESIDUAL, SAME, ZERO
from airlora.codec.parts import HEAD, Part, parts_of
from airlora.codec.stream import Ledger
from airlora.codec.update import Update
from airlora.factors import Schema

_EMBEDDING = re.compile(r"(^|[._])(embed\w*|embeddings?|wte|wpe|shared|lm_head)([._]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    Attributes:
        size_bytes: frame included.
        changes: what it changes, in words, a line a piece.
        components: components changed, of all projections; rows of the head do not count.
        numbers: numbers in what it changes.
        tail: what becomes of the components beyond, in words.
        active_ranks: smallest and largest active rank after it.
    """

    size_bytes: int
    changes: tuple[str, ...]
    components: int
    numbers: int
    tail: str
    active_ranks: tuple[int, int]


@dataclass(frozen=True)
class UpdateReport:
    """A whole update.

    Attributes:
        layers: one by one.
        bytes_by_use: bytes of frames, pieces, modes, steps, tables, symbols and the exact stage; sums to the size.
        bytes_by_kind: bytes of symbols and exact stage, by the last part of the projection's name, or ``head``.
        numbers_by_kind: numbers in what is changed, likewise.
        vectors_by_mode: vectors (columns of u, rows of v, rows of the head) that stay, become zero, are sent as
            residuals or fresh.
        exact_vectors: those among them that were sent to the last bit of float16.
        warnings: what may be a mistake, a sentence each.
    """

    layers: tuple[LayerReport, ...] = ()
    bytes_by_use: dict[str, float] = field(default_factory=dict)
    bytes_by_kind: dict[str, float] = field(default_factory=dict)
    numbers_by_kind: dict[str, int] = field(default_factory=dict)
    vectors_by_mode: dict[str, int] = field(default_factory=dict)
    exact_vectors: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def bits_per_number(self) -> float:
        """All bytes over all numbers in what is changed; NaN where nothing is."""
        numbers = sum(self.numbers_by_kind.values())
        return 8 * sum(self.bytes_by_use.values()) / numbers if numbers else float("nan")


def inspect_update(update: Update, edge: EdgeState) -> UpdateReport:
    """Read a whole update.

    Args:
        update: what to look at.
        edge: the state that it builds on.

    Raises:
        UpdateError: a layer is not valid.
        CompatibilityError: the update builds on another state.
    """
    layers: list[LayerReport] = []
    uses: defaultdict[str, float] = defaultdict(float)
    kinds: defaultdict[str, float] = defaultdict(float)
    numbers: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    exact_vectors = 0
    state = edge
    for layer in update.layers:
        ledger = Ledger()
        info, state = state.read(layer, ledger)
        parts = [part for piece in info.pieces for part in parts_of(state.schema, piece)]
        layers.append(_layer_report(layer, info, parts, state))
        uses["frames"] += FRAME_BYTES
        for use, bits in ledger.bits.items():
            uses[use] += bits / 8
        uses["symbols"] += len(layer) - FRAME_BYTES - sum(ledger.bits.values()) / 8
        exact_vectors += int((ledger.modes >= EXACT_RESIDUAL).sum())
        modes.update(_mode_names(ledger.modes))
        at = 0
        for part in parts:
            count = part.count if part.length else 0
            kind = _kind(state.schema, part)
            kinds[kind] += float(ledger.vector_bits[at : at + count].sum()) / 8
            numbers[kind] += part.size
            at += count
    return UpdateReport(
        tuple(layers),
        dict(uses),
        dict(kinds),
        dict(numbers),
        dict(modes),
        exact_vectors,
        tuple(_warnings(update, edge, state)),
    )


def looks_like_embedding(name: str) -> bool:
    """Whether a tensor of this name is likely an embedding or an output matrix over the vocabulary."""
    return bool(_EMBEDDING.search(name))


def _layer_report(layer: bytes, info: LayerInfo, parts: list[Part], state: EdgeState) -> LayerReport:
    changes = []
    for piece in info.pieces:
        if isinstance(piece, HeadPiece):
            changes.append(f"head rows {piece.first}…{piece.first + piece.count - 1}")
        else:
            changes.append(_block_words(state.schema, piece))
    ranks = state.active_ranks
    return LayerReport(
        size_bytes=len(layer),
        changes=tuple(changes),
        components=sum(part.count for part in parts if part.side == "u"),
        numbers=sum(part.size for part in parts),
        tail={DROP: "drop", CAP: f"activate {info.cap}"}.get(info.tail, "keep"),
        active_ranks=(int(ranks.min()), int(ranks.max())),
    )


def _block_words(schema: Schema, piece: BlockPiece) -> str:
    touched = list(piece.touched())
    names = [schema.projections[index].name for index, _ in touched]
    stop = max(stop for _, stop in touched)
    what = f"component {piece.start}" if stop == piece.start + 1 else f"{piece.start}…{stop - 1}"
    first, last = touched[0][0], touched[-1][0]
    where = names[0] if len(names) == 1 else f"projections {first}…{last}"
    return f"{what} of {where}"


def _mode_names(modes: np.ndarray) -> dict[str, int]:
    plain = np.where(modes >= EXACT_RESIDUAL, modes - EXACT_RESIDUAL + RESIDUAL, modes)
    names = {SAME: "same", ZERO: "zero", RESIDUAL: "residual", FRESH: "fresh"}
    return {name: int((plain == mode).sum()) for mode, name in names.items()}


def _kind(schema: Schema, part: Part) -> str:
    return "head" if part.side == HEAD else schema.projections[part.index].name.rpartition(".")[2]


def _warnings(update: Update, before: EdgeState, after: EdgeState) -> list[str]:
    found = []
    schema = before.schema
    adapter = schema.size - schema.head_size
    for tensor in schema.head:
        if looks_like_embedding(tensor.name):
            found.append(f"head tensor {tensor.name} looks like an embedding; it need not be sent")
        elif tensor.size > adapter:
            found.append(f"head tensor {tensor.name} has {tensor.size} numbers, the whole adapter {adapter}")
    if update.layers and after.acts_like(before):
        found.append("the edge's model is the same after this update as before it")
    return found
