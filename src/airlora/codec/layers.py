"""One layer: what it changes, and the frame around it. Layout: docs/format.md.

A layer says which components of which projections (or which rows of the head) it changes and how many
components are active afterwards, names the state it builds on, and carries a digest: it can be verified alone.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from airlora.codec.stream import StreamReader, StreamWriter
from airlora.errors import CompatibilityError, UpdateError
from airlora.factors import Schema

FORMAT_VERSION = 2
_FRAME = struct.Struct("<BBII4s8s")  # version, zero, bytes of the body, round, schema id, parent state's id
_DIGEST_BYTES = 8
FRAME_BYTES = _FRAME.size + _DIGEST_BYTES
"""Bytes of a layer that are not its body."""

KEEP, DROP, CAP = range(3)
"""What becomes of the components beyond those that a layer changes: they stay active; they stay stored but unused;
or every projection of the adapter uses as many of its stored components as the layer says."""
_TAILS = 3
_HEAD, _BLOCK, _END = range(3)
_KINDS = 3
_LARGEST_BODY_BYTES_PER_NUMBER = 16
_LARGEST_BODY_BYTES_BESIDE = 4096


@dataclass(frozen=True)
class HeadPiece:
    """Rows ``first … first + count - 1`` of the head, all its tensors counted through."""

    first: int
    count: int


@dataclass(frozen=True)
class BlockPiece:
    """Components from ``start`` on of the projections ``first … first + len(stops) - 1``.

    Attributes:
        first: index of the first projection.
        start: first component.
        stops: for each projection, the end of its components (half-open); 0 where the piece does not touch it.
    """

    first: int
    start: int
    stops: tuple[int, ...]

    def touched(self) -> Iterator[tuple[int, int]]:
        """(projection, stop) of every projection that it changes."""
        return ((index, stop) for index, stop in enumerate(self.stops, self.first) if stop)


Piece = HeadPiece | BlockPiece


@dataclass(frozen=True)
class LayerInfo:
    """What a layer says about itself.

    Attributes:
        round_index: the round it was made in.
        parent: first 16 hex digits of the id of the state that it builds on.
        pieces: what it changes; none if it only sets what is active.
        tail: ``KEEP``, ``DROP`` or ``CAP``.
        cap: with ``CAP``, active components of every projection (fewer where fewer are stored).
    """

    round_index: int
    parent: str
    pieces: tuple[Piece, ...]
    tail: int = KEEP
    cap: int = 0


def write_info(stream: StreamWriter, schema: Schema, info: LayerInfo) -> None:
    """Write pieces and tail; the rest is in the frame."""
    for piece in info.pieces:
        stream.uniform(_HEAD if isinstance(piece, HeadPiece) else _BLOCK, _KINDS)
        if isinstance(piece, HeadPiece):
            _write_head_piece(stream, schema, piece)
        else:
            _write_block_piece(stream, schema, piece)
    stream.uniform(_END, _KINDS)
    stream.uniform(info.tail, _TAILS)
    if info.tail == CAP:
        stream.uniform(info.cap, schema.prefixes[-1] + 1)


def read_info(stream: StreamReader, schema: Schema) -> tuple[tuple[Piece, ...], int, int]:
    """(pieces, tail, cap) as ``write_info`` wrote them.

    Raises:
        UpdateError: a piece that changes nothing, or more to change than there is: what is decoded is bounded by
            the schema, whatever the bytes say.
    """
    pieces: list[Piece] = []
    rows = components = entries = 0
    while (kind := stream.uniform(_KINDS)) != _END:
        piece = _read_head_piece(stream, schema) if kind == _HEAD else _read_block_piece(stream, schema)
        if isinstance(piece, HeadPiece):
            rows += piece.count
        else:
            components += sum(stop - piece.start for _, stop in piece.touched())
            entries += len(piece.stops)
        most = len(schema.projections) * len(schema.prefixes)
        if rows > schema.head_rows or components > int(schema.r_max.sum()) or entries > most:
            raise UpdateError("a layer changes more than the schema has; receive it again")
        pieces.append(piece)
    tail = stream.uniform(_TAILS)
    return tuple(pieces), tail, stream.uniform(schema.prefixes[-1] + 1) if tail == CAP else 0


def frame(schema: Schema, info: LayerInfo, body: bytes) -> bytes:
    """The bytes of a layer."""
    head = _FRAME.pack(
        FORMAT_VERSION, 0, len(body), info.round_index, bytes.fromhex(schema.id)[:4], bytes.fromhex(info.parent)
    )
    return head + hashlib.sha256(head + body).digest()[:_DIGEST_BYTES] + body


def unframe(schema: Schema, layer: bytes) -> tuple[int, str, memoryview]:
    """(round, parent, body) of a layer whose frame is right and whose digest fits.

    Raises:
        UpdateError: the bytes are not a layer, or more than any layer of this schema has.
        CompatibilityError: a layer of another schema or format version.
    """
    allowed = FRAME_BYTES + _LARGEST_BODY_BYTES_BESIDE + _LARGEST_BODY_BYTES_PER_NUMBER * schema.size
    if len(layer) > allowed:
        raise UpdateError(f"a layer of {len(layer)} bytes exceeds what this schema needs, {allowed}; drop it")
    if len(layer) < FRAME_BYTES:
        raise UpdateError(f"a layer of {len(layer)} bytes is shorter than its frame of {FRAME_BYTES}; receive it again")
    head, digest, body = layer[: _FRAME.size], layer[_FRAME.size : FRAME_BYTES], memoryview(layer)[FRAME_BYTES:]
    version, zero, size, round_index, schema_id, parent = _FRAME.unpack(head)
    if size != len(body):
        raise UpdateError(f"a layer has {len(body)} bytes of body, its frame says {size}; receive it again")
    if hashlib.sha256(head + bytes(body)).digest()[:_DIGEST_BYTES] != digest:
        raise UpdateError(f"a layer of {len(layer)} bytes does not fit its digest; receive it again")
    if version != FORMAT_VERSION or zero:
        raise CompatibilityError(f"a layer of format version {version}.{zero}, this program reads {FORMAT_VERSION}.0")
    if schema_id != bytes.fromhex(schema.id)[:4]:
        raise CompatibilityError(f"a layer for schema {schema_id.hex()}, this edge has {schema.id[:8]}")
    return round_index, parent.hex(), body


def layer_sizes(data: bytes) -> list[int]:
    """Sizes of the layers that follow each other in a byte stream; a cut-off last one is left out.

    Raises:
        UpdateError: what starts a layer is not a frame.
    """
    sizes = []
    at = 0
    while len(data) - at >= FRAME_BYTES:
        version, zero, size, *_ = _FRAME.unpack_from(data, at)
        if version != FORMAT_VERSION or zero:
            raise UpdateError(f"byte {at} of an update starts no layer; receive it again")
        if at + FRAME_BYTES + size > len(data):
            break
        sizes.append(FRAME_BYTES + size)
        at += sizes[-1]
    return sizes


def _write_head_piece(stream: StreamWriter, schema: Schema, piece: HeadPiece) -> None:
    stream.uniform(piece.first, schema.head_rows)
    stream.uniform(piece.count - 1, schema.head_rows - piece.first)


def _read_head_piece(stream: StreamReader, schema: Schema) -> HeadPiece:
    rows = schema.head_rows
    if not rows:
        raise UpdateError("a layer changes the head, the schema has none")
    first = stream.uniform(rows)
    return HeadPiece(first, stream.uniform(rows - first) + 1)


def _write_block_piece(stream: StreamWriter, schema: Schema, piece: BlockPiece) -> None:
    projections, largest = len(schema.projections), schema.prefixes[-1]
    stream.uniform(piece.start, largest)
    stream.uniform(piece.first, projections)
    stream.uniform(len(piece.stops) - 1, projections - piece.first)
    stop = max(piece.stops)
    uniform = piece.stops == _uniform(schema, piece.first, len(piece.stops), piece.start, stop)
    stream.uniform(int(not uniform), 2)
    if uniform:
        stream.uniform(stop - piece.start - 1, largest - piece.start)
        return
    for index, stop in enumerate(piece.stops, piece.first):
        choices = max(schema.projections[index].r_max - piece.start, 0) + 1
        stream.uniform(stop - piece.start if stop else 0, choices)


def _read_block_piece(stream: StreamReader, schema: Schema) -> BlockPiece:
    projections, largest = len(schema.projections), schema.prefixes[-1]
    start = stream.uniform(largest)
    first = stream.uniform(projections)
    count = stream.uniform(projections - first) + 1
    if stream.uniform(2):
        choices = [max(p.r_max - start, 0) + 1 for p in schema.projections[first : first + count]]
        sizes = [stream.uniform(choice) for choice in choices]
        stops = tuple(start + size if size else 0 for size in sizes)
    else:
        stops = _uniform(schema, first, count, start, start + 1 + stream.uniform(largest - start))
    if not any(stops):
        raise UpdateError("a layer of components changes none")
    return BlockPiece(first, start, stops)


def _uniform(schema: Schema, first: int, count: int, start: int, stop: int) -> tuple[int, ...]:
    ends = (min(stop, projection.r_max) for projection in schema.projections[first : first + count])
    return tuple(end if end > start else 0 for end in ends)
