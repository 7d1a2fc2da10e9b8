"""How an update is cut into layers: what each holds, what it costs, and the header that says so.

Layers come in priority classes: the head, then the blocks of components between two trained prefixes
(0→1, 1→2, 2→4, …). A class is cut into pieces of whole head rows or whole projections. The plan depends
on schema and allocation only, so its size is known before anything is encoded. Layout: docs/format.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from airlora.codec.allocation import BITS, Allocation
from airlora.codec.container import unwrap, wrap, wrapped_bytes
from airlora.codec.quantise import row_bytes
from airlora.errors import CompatibilityError, UpdateError
from airlora.factors import Schema

FORMAT_VERSION = 1
LAYER_BYTES = 4096
"""Largest layer in bytes, wherever a single row or projection is not larger."""
SMALL_LAYER_BYTES = 512
"""Layers are cut finer for small budgets, an eighth of the budget each, but not below this."""
OVERHEAD_BYTES = 100
"""Bound on the bytes of a layer that are neither numbers, scales nor table."""

_COMMON = struct.Struct("<BB8sI")  # version, kind, schema id, round
_HEAD = struct.Struct("<BII")  # bits, first row, rows
_BLOCK = struct.Struct("<BHH")  # block, first projection, projections
_RANK_BITS = struct.Struct("<HB")  # active rank afterwards, bits
_KIND_HEAD, _KIND_UNIFORM, _KIND_TABLE = range(3)


@dataclass(frozen=True)
class HeadPiece:
    """Rows ``first … first + count - 1`` of the head, all its tensors counted through, at ``bits`` each."""

    first: int
    count: int
    bits: int

    def body_bytes(self, schema: Schema) -> int:
        """Bytes of the rows themselves."""
        return sum(count * row_bytes(size, self.bits) for _, count, size in head_spans(schema, self.first, self.count))


@dataclass(frozen=True)
class BlockPiece:
    """Components of one block for the projections ``first … first + len(ranks) - 1``.

    Attributes:
        block: index of the block; it starts at ``block_start(schema, block)``.
        first: index of the first projection.
        ranks: active rank of each projection after this piece; 0 where the piece does not touch it.
        bits: bits of each projection; 0 where the piece does not touch it.
    """

    block: int
    first: int
    ranks: tuple[int, ...]
    bits: tuple[int, ...]

    def touched(self, schema: Schema) -> Iterator[tuple[int, int, int, int]]:
        """(projection, first component, active rank after, bits) of every projection that it touches."""
        start = block_start(schema, self.block)
        for index, (rank, bits) in enumerate(zip(self.ranks, self.bits, strict=True), self.first):
            if rank:
                yield index, start, rank, bits

    def body_bytes(self, schema: Schema) -> int:
        """Bytes of the rows themselves."""
        return sum(
            component_bytes(schema, index, bits) * (stop - start) for index, start, stop, bits in self.touched(schema)
        )

    def is_uniform(self, schema: Schema) -> bool:
        """Whether one rank and one width describe every projection in the range."""
        stop, bits = max(self.ranks), max(self.bits)
        return (self.ranks, self.bits) == _uniform(schema, self.block, self.first, len(self.ranks), stop, bits)


Piece = HeadPiece | BlockPiece


def block_start(schema: Schema, block: int) -> int:
    """First component of a block; its end is ``schema.prefixes[block]``."""
    return schema.prefixes[block - 1] if block else 0


def component_bytes(schema: Schema, index: int, bits: int) -> int:
    """Bytes of one component of a projection: a column of u and a row of v, scales included."""
    projection = schema.projections[index]
    return row_bytes(projection.d_out, bits) + row_bytes(projection.d_in, bits)


def head_row_sizes(schema: Schema) -> list[tuple[int, int]]:
    """(rows, numbers a row) of every head tensor: the first axis counts the rows; 0-D and 1-D tensors are one row."""
    return [
        (tensor.shape[0], tensor.size // max(tensor.shape[0], 1)) if len(tensor.shape) > 1 else (1, tensor.size)
        for tensor in schema.head
    ]


def head_spans(schema: Schema, first: int, count: int) -> Iterator[tuple[int, int, int]]:
    """Where head rows lie in the flat head: (offset in numbers, rows, numbers a row), one for every tensor met."""
    offset = 0
    for rows, size in head_row_sizes(schema):
        start, stop = max(first, 0), min(first + count, rows)
        if start < stop:
            yield offset + start * size, stop - start, size
        first -= rows
        offset += rows * size


def layer_bytes(schema: Schema, piece: Piece) -> int:
    """Exact size of the layer of a piece."""
    return wrapped_bytes(_header_bytes(schema, piece) + piece.body_bytes(schema))


def plan(schema: Schema, allocation: Allocation) -> list[list[Piece]]:
    """The pieces of a whole update, by priority class: the head, then every block.

    Raises:
        CompatibilityError: the allocation is for another number of projections.
        ValueError: a rank, width or budget that the codec cannot send (``budget.project`` mends them).
    """
    _check(schema, allocation)
    budget = allocation.budget_bytes
    room = min(LAYER_BYTES, max(budget / 8, SMALL_LAYER_BYTES), budget) - OVERHEAD_BYTES
    classes: list[list[Piece]] = [_head_pieces(schema, int(allocation.head_bits), room)]
    ranks, bits = allocation.ranks.tolist(), allocation.bits.tolist()
    classes += [_block_pieces(schema, block, ranks, bits, room) for block in range(len(schema.prefixes))]
    return classes


def write_layer(schema: Schema, piece: Piece, round_index: int, body: bytes) -> bytes:
    """The bytes of one layer."""
    kind, fields = _fields(schema, piece)
    return wrap(_COMMON.pack(FORMAT_VERSION, kind, bytes.fromhex(schema.id), round_index) + fields + body)


def read_layer(schema: Schema, layer: bytes) -> tuple[int, Piece, np.ndarray]:
    """Check one layer completely, except for the values of its numbers: (round, piece, body as uint8).

    Raises:
        UpdateError: the bytes are not a layer.
        CompatibilityError: a layer of another schema or format version.
    """
    payload = unwrap(layer)
    try:
        version, kind, schema_id, round_index = _COMMON.unpack_from(payload)
        if version != FORMAT_VERSION:
            raise CompatibilityError(f"a layer of format version {version}, this program reads {FORMAT_VERSION}")
        if schema_id.hex() != schema.id:
            raise CompatibilityError(f"a layer for schema {schema_id.hex()}, this edge has {schema.id}")
        piece, start = _read_piece(schema, kind, payload)
    except struct.error as error:
        raise UpdateError(f"a layer ends in its header after {len(payload)} bytes; receive it again") from error
    expected = piece.body_bytes(schema)
    if len(payload) - start != expected:
        raise UpdateError(f"a layer holds {len(payload) - start} bytes of numbers, its header asks for {expected}")
    return round_index, piece, np.frombuffer(payload, np.uint8, offset=start)


def _head_pieces(schema: Schema, bits: int, room: float) -> list[Piece]:
    if not bits:
        return []
    costs = [row_bytes(size, bits) for rows, size in head_row_sizes(schema) for _ in range(rows)]
    pieces: list[Piece] = []
    first = used = 0
    for row, cost in enumerate(costs):
        if row > first and used + cost > room:
            pieces.append(HeadPiece(first, row - first, bits))
            first, used = row, 0
        used += cost
    if first < len(costs):
        pieces.append(HeadPiece(first, len(costs) - first, bits))
    return pieces


def _block_pieces(schema: Schema, block: int, ranks: list[int], bits: list[int], room: float) -> list[Piece]:
    start, end = block_start(schema, block), schema.prefixes[block]
    groups: list[list[int]] = []
    used = 0
    for index, rank in enumerate(ranks):
        if rank <= start:
            continue
        cost = component_bytes(schema, index, bits[index]) * (min(rank, end) - start)
        gap = index - groups[-1][-1] if groups else 1
        used += cost + gap * _RANK_BITS.size  # counted as if a table were needed
        if not groups or used > room:
            groups.append([])
            used = cost + _RANK_BITS.size
        groups[-1].append(index)
    pieces: list[Piece] = []
    for group in groups:
        inside = range(group[0], group[-1] + 1)
        pieces.append(
            BlockPiece(
                block,
                group[0],
                tuple(min(ranks[index], end) if ranks[index] > start else 0 for index in inside),
                tuple(bits[index] if ranks[index] > start else 0 for index in inside),
            )
        )
    return pieces


def _fields(schema: Schema, piece: Piece) -> tuple[int, bytes]:
    if isinstance(piece, HeadPiece):
        return _KIND_HEAD, _HEAD.pack(piece.bits, piece.first, piece.count)
    fields = _BLOCK.pack(piece.block, piece.first, len(piece.ranks))
    if piece.is_uniform(schema):
        return _KIND_UNIFORM, fields + _RANK_BITS.pack(max(piece.ranks), max(piece.bits))
    return _KIND_TABLE, fields + b"".join(map(_RANK_BITS.pack, piece.ranks, piece.bits))


def _header_bytes(schema: Schema, piece: Piece) -> int:
    if isinstance(piece, HeadPiece):
        return _COMMON.size + _HEAD.size
    entries = 1 if piece.is_uniform(schema) else len(piece.ranks)
    return _COMMON.size + _BLOCK.size + entries * _RANK_BITS.size


def _read_piece(schema: Schema, kind: int, payload: memoryview) -> tuple[Piece, int]:
    """The piece that a header names, and where the numbers start."""
    at = _COMMON.size
    if kind == _KIND_HEAD:
        bits, first, count = _HEAD.unpack_from(payload, at)
        rows = sum(rows for rows, _ in head_row_sizes(schema))
        if not count or first + count > rows or bits not in BITS:
            raise UpdateError(f"a layer names head rows {first}…{first + count - 1} at {bits} bits; there are {rows}")
        return HeadPiece(first, count, bits), at + _HEAD.size
    if kind not in (_KIND_UNIFORM, _KIND_TABLE):
        raise UpdateError(f"a layer is of kind {kind}; there are {_KIND_HEAD}, {_KIND_UNIFORM} and {_KIND_TABLE}")
    block, first, count = _BLOCK.unpack_from(payload, at)
    at += _BLOCK.size
    if block >= len(schema.prefixes) or not count or first + count > len(schema.projections):
        raise UpdateError(
            f"a layer names block {block} of projections {first}…{first + count - 1};"
            f" there are {len(schema.prefixes)} blocks and {len(schema.projections)} projections"
        )
    if kind == _KIND_UNIFORM:
        piece = BlockPiece(block, first, *_uniform(schema, block, first, count, *_RANK_BITS.unpack_from(payload, at)))
        at += _RANK_BITS.size
    else:
        table = payload[at : at + count * _RANK_BITS.size]
        at += count * _RANK_BITS.size
        ranks, bits = zip(*_RANK_BITS.iter_unpack(table), strict=True) if table else ((), ())
        if len(ranks) != count:
            raise UpdateError(f"a layer's table has {len(ranks)} projections, its header says {count}")
        piece = BlockPiece(block, first, ranks, bits)
    _check_block(schema, piece)
    return piece, at


def _uniform(
    schema: Schema, block: int, first: int, count: int, stop: int, bits: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    start = block_start(schema, block)
    reached = [min(stop, projection.r_max) for projection in schema.projections[first : first + count]]
    ranks = tuple(rank if rank > start else 0 for rank in reached)
    return ranks, tuple(bits if rank else 0 for rank in ranks)


def _check_block(schema: Schema, piece: BlockPiece) -> None:
    start, end = block_start(schema, piece.block), schema.prefixes[piece.block]
    if not any(piece.ranks):
        raise UpdateError(f"a layer of block {piece.block} touches no projection")
    for index, (rank, bits) in enumerate(zip(piece.ranks, piece.bits, strict=True), piece.first):
        projection = schema.projections[index]
        if rank == bits == 0:
            continue
        if not start < rank <= min(end, projection.r_max) or bits not in BITS:
            raise UpdateError(
                f"a layer names rank {rank} at {bits} bits for {projection.name};"
                f" allowed: {start + 1}…{min(end, projection.r_max)} at {', '.join(map(str, BITS))} bits"
            )


def _check(schema: Schema, allocation: Allocation) -> None:
    shape = (len(schema.projections),)
    ranks, bits = allocation.ranks, allocation.bits
    if ranks.shape != shape or bits.shape != shape:
        raise CompatibilityError(f"an allocation of shapes {ranks.shape}, {bits.shape} for {shape[0]} projections")
    valid = {
        "ranks": ranks.dtype.kind == "i" and bool(((ranks >= 0) & (ranks <= schema.r_max)).all()),
        "bits": bits.dtype.kind == "i" and bool(np.isin(bits, BITS).all()),
        "head_bits": allocation.head_bits in (0, *BITS),
        "budget_bytes": allocation.budget_bytes >= 0,
    }
    for name, is_valid in valid.items():
        if not is_valid:
            found = getattr(allocation, name)
            raise ValueError(f"allocation {name} = {found} cannot be sent; pass it through codec.project first")
    if shape[0] > 0xFFFF or schema.prefixes[-1] > 0xFFFF or len(schema.prefixes) > 0xFF:
        raise ValueError(
            f"{shape[0]} projections of rank {schema.prefixes[-1]} in {len(schema.prefixes)} blocks;"
            " the format holds 65535, 65535 and 255"
        )
