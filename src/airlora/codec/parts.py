"""Where the numbers of a layer live: parts of the edge's arrays whose vectors have equal length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from airlora.codec.layers import HeadPiece, Piece
from airlora.factors import Schema

U, V, HEAD = SIDES = ("u", "v", "head")


@dataclass(frozen=True)
class Part:
    """Neighbouring vectors of one array: columns of a projection's u, rows of its v, or rows of a head tensor.

    Attributes:
        side: one of ``SIDES``.
        index: of the projection, or of the tensor in the head.
        start, stop: components, or rows of the tensor (half-open).
        length: numbers in each vector.
    """

    side: str
    index: int
    start: int
    stop: int
    length: int

    @property
    def count(self) -> int:
        """Vectors."""
        return self.stop - self.start

    @property
    def size(self) -> int:
        """Numbers."""
        return self.count * self.length


def parts_of(schema: Schema, piece: Piece) -> Iterator[Part]:
    """The parts of a piece in the order of the format: projection by projection, u before v; or the head's rows."""
    if isinstance(piece, HeadPiece):
        first = 0
        for index, tensor in enumerate(schema.head):
            start, stop = max(piece.first - first, 0), min(piece.first + piece.count - first, tensor.rows)
            if start < stop:
                yield Part(HEAD, index, start, stop, tensor.row_size)
            first += tensor.rows
        return
    for index, stop in piece.touched():
        projection = schema.projections[index]
        yield Part(U, index, piece.start, stop, projection.d_out)
        yield Part(V, index, piece.start, stop, projection.d_in)
