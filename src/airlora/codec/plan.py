"""The order of an update: its pieces by priority class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from airlora.codec.allocation import BITS, Allocation
from airlora.codec.costs import Costs, layer_room
from airlora.codec.edge import EdgeState
from airlora.codec.layers import FRAME_BYTES, BlockPiece, HeadPiece, Piece
from airlora.factors import Schema


def plan(schema: Schema, allocation: Allocation, costs: Costs) -> list[list[Piece]]:
    """The pieces of a whole update by priority class: head and first block, then each later block."""
    ranks = allocation.ranks.tolist()
    component_bytes = []  # of each projection, (rank,)
    for index, rank in enumerate(ranks):
        bits = allocation.bits[index] if np.ndim(allocation.bits) == 1 else allocation.bits[index][:rank]
        component_bytes.append(costs.component_bytes(index, rank, bits))
    head_bytes = float(costs.head[BITS.index(allocation.head_bits)]) if allocation.head_bits and schema.head else 0.0

    total = head_bytes + sum(float(each.sum()) for each in component_bytes)

    def room(before: float) -> float:
        """Of a layer that so many bytes come before."""
        most = max(allocation.budget_bytes - FRAME_BYTES, 1)
        return min(layer_room(allocation.carried_bytes, total, before), most)

    classes: list[list[Piece]] = []
    before = head_bytes
    for block, prefix in enumerate(schema.prefixes):
        start = schema.prefixes[block - 1] if block else 0
        sizes = [float(each[start:prefix].sum()) for each in component_bytes]
        pieces: list[Piece] = []
        for group in _groups(sizes, room(before)):
            stops = [min(ranks[index], prefix) if ranks[index] > start else 0 for index in group]
            pieces.append(BlockPiece(group[0], start, tuple(stops)))
        classes.append(pieces)
        before += sum(sizes)
    if allocation.head_bits and schema.head:
        rows = schema.head_rows
        groups = _groups([max(head_bytes / rows, 1e-9)] * rows, room(0.0))
        classes[0] = [*(HeadPiece(group[0], len(group)) for group in groups), *classes[0]]
    return [pieces for pieces in classes if pieces]


def _groups(sizes: Sequence[float], room: float) -> list[range]:
    """Runs of neighbours whose sizes sum to at most ``room``, or of one; zero sizes at the ends are left out."""
    groups: list[range] = []
    used = 0.0
    for index, size in enumerate(sizes):
        if not size:
            continue
        used += size
        if not groups or used > room:
            groups.append(range(index, index + 1))
            used = size
        else:
            groups[-1] = range(groups[-1].start, index + 1)
    return groups


def last_round(piece: Piece, edge: EdgeState) -> int:
    """Oldest round among what the edge holds of a piece."""
    if isinstance(piece, HeadPiece):
        return int(edge.head_rounds[piece.first : piece.first + piece.count].min())
    return min(int(edge.component_rounds[index, piece.start : stop].min()) for index, stop in piece.touched())
