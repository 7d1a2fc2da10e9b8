"""One layer: its frame and pieces, and that broken or hostile ones are refused before anything large is made."""

import contextlib
import hashlib
import struct
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlora.codec import Allocation, EdgeState, encode
from airlora.codec.layers import (
    CAP,
    DROP,
    FRAME_BYTES,
    KEEP,
    BlockPiece,
    HeadPiece,
    LayerInfo,
    frame,
    layer_sizes,
    read_info,
    unframe,
    write_info,
)
from airlora.codec.parts import parts_of
from airlora.codec.stream import StreamReader, StreamWriter
from airlora.errors import CompatibilityError, UpdateError
from airlora.factors import Projection, Schema
from codec_mutation import Mutations
from codec_samples import blank_edge, deliver, random_factors, reseal, small_schema, trained_factors, uniform

SCHEMA = small_schema()
EDGE = blank_edge(SCHEMA)
LAYERS = encode(random_factors(SCHEMA), EDGE, uniform(SCHEMA, 6, 4, 4), 258).layers


def test_a_frame_by_hand() -> None:
    layer = LAYERS[0]
    assert FRAME_BYTES == 30
    assert layer[:2] == b"\2\0"
    assert struct.unpack_from("<II", layer, 2) == (len(layer) - 30, 258)
    assert layer[10:14].hex() == SCHEMA.id[:8]
    assert layer[14:22].hex() == EDGE.id[:16]
    assert layer[22:30] == hashlib.sha256(layer[:22] + layer[30:]).digest()[:8]


heads = st.integers(0, 6).flatmap(lambda first: st.builds(HeadPiece, st.just(first), st.integers(1, 7 - first)))


@st.composite
def blocks(draw: st.DrawFn) -> BlockPiece:
    start = draw(st.integers(0, 5))
    first = draw(st.integers(0, 2))
    stops = []
    for projection in SCHEMA.projections[first : first + draw(st.integers(1, 3 - first))]:
        stops.append(draw(st.sampled_from([0, *range(start + 1, projection.r_max + 1)])))
    if not any(stops):
        return BlockPiece(1, start, (6,))
    return BlockPiece(first, start, tuple(stops))


@settings(max_examples=150, deadline=None)
@given(heads | blocks(), st.none() | heads, st.sampled_from([KEEP, DROP, CAP]), st.integers(0, 6))
def test_pieces_and_tails_come_back(
    first: HeadPiece | BlockPiece, second: HeadPiece | None, tail: int, cap: int
) -> None:
    pieces = (first,) if second is None or isinstance(first, HeadPiece) else (first, second)
    info = LayerInfo(3, EDGE.id[:16], pieces, tail, cap if tail == CAP else 0)
    writer = StreamWriter()
    write_info(writer, SCHEMA, info)
    layer = frame(SCHEMA, info, writer.finish())
    round_index, parent, body = unframe(SCHEMA, layer)
    reader = StreamReader(body)
    assert LayerInfo(round_index, parent, *read_info(reader, SCHEMA)) == info
    reader.finish()
    assert len(body) <= 16


def test_parts_cover_what_a_piece_says() -> None:
    found = [(p.side, p.index, p.start, p.stop, p.length) for p in parts_of(SCHEMA, BlockPiece(0, 1, (2, 0, 2)))]
    assert found == [("u", 0, 1, 2, 9), ("v", 0, 1, 2, 7), ("u", 2, 1, 2, 5), ("v", 2, 1, 2, 3)]
    found = [(p.side, p.index, p.start, p.stop, p.length) for p in parts_of(SCHEMA, HeadPiece(3, 4))]
    assert found == [("head", 0, 3, 5, 7), ("head", 1, 0, 1, 5), ("head", 2, 0, 1, 1)]


def test_layers_in_a_row_are_told_apart() -> None:
    data = b"".join(LAYERS)
    sizes = [len(layer) for layer in LAYERS]
    assert layer_sizes(data) == sizes
    assert layer_sizes(data[:-1]) == sizes[:-1]
    assert layer_sizes(data[: sizes[0] + 12]) == sizes[:1]
    with pytest.raises(UpdateError, match="starts no layer"):
        layer_sizes(b"\x80" * 40)


def test_08_every_changed_cut_or_longer_layer_is_refused() -> None:
    layer = LAYERS[1]
    edge = EDGE.apply(LAYERS[0])
    for position in range(len(layer)):
        changed = bytearray(layer)
        changed[position] ^= 1 << position % 8
        with pytest.raises(UpdateError):
            edge.apply(bytes(changed))
        with pytest.raises(UpdateError):
            edge.apply(layer[:position])
    with pytest.raises(UpdateError):
        edge.apply(layer + b"\0")


@pytest.mark.parametrize(
    ("offset", "value", "error", "message"),
    [
        (0, b"\3", CompatibilityError, "format version 3.0, this program reads 2.0"),
        (1, b"\1", CompatibilityError, "format version 2.1"),
        (10, b"\0" * 4, CompatibilityError, "a layer for schema 00000000"),
        (14, b"\0" * 8, CompatibilityError, "a layer for state 0000000000000000, this edge is at"),
    ],
)
def test_every_wrong_field_is_named(offset: int, value: bytes, error: type[Exception], message: str) -> None:
    layer = bytearray(LAYERS[0])
    layer[offset : offset + len(value)] = value
    with pytest.raises(error, match=message):
        EDGE.apply(reseal(layer))


def _layer(*operations: tuple[int, int], edge: EdgeState = EDGE) -> bytes:
    """A layer whose body is these uniform values (value, size)."""
    writer = StreamWriter()
    for value, size in operations:
        writer.uniform(value, size)
    return frame(edge.schema, LayerInfo(0, edge.id[:16], ()), writer.finish())


HEAD, BLOCK, END = (0, 3), (1, 3), (2, 3)
WHOLE_HEAD = (HEAD, (0, 7), (6, 7))
ALL = (BLOCK, (0, 6), (0, 3), (2, 3), (0, 2), (5, 6))  # components 0 … 6 of all three projections


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        ((*WHOLE_HEAD, *WHOLE_HEAD), "changes more than the schema has"),
        ((*ALL, *ALL), "changes more than the schema has"),
        ((BLOCK, (0, 6), (0, 3), (0, 3), (1, 2), (0, 5)), "a layer of components changes none"),
        ((BLOCK, (5, 6), (0, 3), (0, 3), (0, 2)), "a layer of components changes none"),
        (
            (BLOCK, (1, 6), (1, 3), (0, 2), (0, 2), (0, 5), END, (0, 3)),
            "starts at component 1 of b, which stores fewer|does not end",
        ),
    ],
    ids=["the head twice", "components twice", "no component", "beyond r_max", "a gap"],
)
def test_pieces_that_cannot_be_are_refused(operations: tuple, message: str) -> None:
    with pytest.raises(UpdateError, match=message):
        EDGE.apply(_layer(*operations))


def test_a_head_piece_without_a_head_is_refused() -> None:
    schema = replace(SCHEMA, head=())
    with pytest.raises(UpdateError, match="changes the head, the schema has none"):
        blank_edge(schema).apply(_layer(HEAD, edge=blank_edge(schema)))


def test_29_endless_pieces_end_at_what_the_schema_has() -> None:
    """A body can claim pieces without end; reading stops when they exceed the schema, whatever it has."""
    with pytest.raises(UpdateError, match="changes more than the schema has"):
        EDGE.apply(_layer(*[op for _ in range(10_000) for op in (HEAD, (0, 7), (0, 7))]))


def test_29_a_layer_larger_than_its_schema_needs_is_refused_before_it_is_hashed() -> None:
    with pytest.raises(UpdateError, match=r"a layer of \d+ bytes exceeds what this schema needs, \d+; drop it"):
        EDGE.apply(LAYERS[0] + bytes(10_000))


def test_29_a_few_bytes_cannot_make_more_than_the_schema_holds() -> None:
    """The largest expansion there is: a body of a few bytes that changes everything. Memory stays that of the state."""
    schema = Schema((Projection("large", 4096, 4096, 64),), (1, 64), init_seed=None)
    edge = blank_edge(schema)
    layer = _layer(BLOCK, (0, 64), (0, 2), (63, 64), edge=edge)
    tracemalloc.start()
    with contextlib.suppress(UpdateError):
        edge.apply(layer)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 * schema.size  # bytes a number of the schema, for what is held while it is decoded


def test_a_truncated_layer_says_so() -> None:
    with pytest.raises(UpdateError, match="a layer of 12 bytes is shorter than its frame of 30"):
        EDGE.apply(LAYERS[0][:12])
    with pytest.raises(UpdateError, match=r"bytes of body, its frame says"):
        EDGE.apply(LAYERS[0][:-4])
    with pytest.raises(UpdateError, match="not a multiple of 4"):
        EDGE.apply(reseal(LAYERS[0] + b"\1"))


def test_random_bytes_are_refused() -> None:
    rng = np.random.default_rng(0)
    for size in [0, 1, 7, 8, 29, 30, *rng.integers(10, 300, 200)]:
        with pytest.raises(UpdateError):
            EDGE.apply(rng.bytes(int(size)))


def test_20000_mutated_layers_give_a_valid_adapter_or_our_errors() -> None:
    """Half of them with size and digest made right again, so that the parser behind the digest is what is tested."""
    mutations = Mutations(seed=0)
    counts = mutations.run(20_000)
    assert sum(counts.values()) == 20_000
    assert counts["UpdateError"] > 10_000
    assert counts["CompatibilityError"] > 200
    assert counts["applied"] > 200


def test_zero_rank_and_shape_mismatches_cannot_be_said() -> None:
    """FAULTS 32: ranks come from the schema's limits; an allocation of rank 0 sends nothing of that projection."""
    update = encode(trained_factors(SCHEMA, 1)[0], EDGE, Allocation(np.array([0, 3, 0]), np.full(3, 4), 0, np.inf), 0)
    assert deliver(EDGE, update).active_ranks.tolist() == [0, 3, 0]
