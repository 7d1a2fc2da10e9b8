"""One layer: its envelope and header, read by an independent decoder, and broken in every way."""

import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from safetensors.numpy import load

from airlora.codec import Allocation, encode
from airlora.codec.layers import LAYER_BYTES, BlockPiece, HeadPiece, layer_bytes, plan, read_layer, write_layer
from airlora.errors import CompatibilityError, UpdateError
from codec_samples import allocations, blank_edge, model_schema, random_factors, reseal, small_schema, uniform

SCHEMA = small_schema()


def payload(layer: bytes) -> bytes:
    return load(layer)["p"].tobytes()


def int4(row: bytes, count: int) -> list[float]:
    scale = struct.unpack("<f", b"\0\0" + row[:2])[0]
    halves = [half for byte in row[2:] for half in (byte & 15, byte >> 4)][:count]
    return [scale * (half - 16 if half > 7 else half) for half in halves]


def test_a_layer_is_a_safetensors_file_with_one_tensor_and_a_right_check_sum() -> None:
    for layer in encode(random_factors(SCHEMA), blank_edge(SCHEMA), uniform(SCHEMA, 6, 8, 8), 0).layers:
        (header_bytes,) = struct.unpack_from("<Q", layer)
        assert list(json.loads(layer[8 : 8 + header_bytes])) == ["p"]
        body = payload(layer)
        assert struct.unpack_from("<I", body)[0] == zlib.crc32(body[4:])


def test_a_decoder_written_from_the_documented_layout_agrees() -> None:
    factors = random_factors(SCHEMA)
    allocation = Allocation(np.array([3, 6, 1]), np.array([4, 32, 16]), 0, np.inf)
    layers = encode(factors, blank_edge(SCHEMA), allocation, 258).layers
    # Block 2 holds components 2 and 3: projection a has one of them, b both, c none.
    body = payload(layers[2])
    assert body[4:18] == bytes([1, 2]) + bytes.fromhex(SCHEMA.id) + bytes([2, 1, 0, 0])
    assert body[18:29] == struct.pack("<BHHHBHB", 2, 0, 2, 3, 4, 4, 32)
    at = 29
    np.testing.assert_allclose(int4(body[at:], 9), factors.u[0][:, 2], atol=0.004)
    at += 2 + 5
    np.testing.assert_allclose(int4(body[at : at + 6], 7), factors.v[0][2], atol=0.4)
    at += 2 + 4
    assert struct.unpack_from("<12f", body, at) == tuple(factors.u[1][:, 2:4].T.ravel())
    assert struct.unpack_from("<22f", body, at + 48) == tuple(factors.v[1][2:4].ravel())
    assert len(body) == at + 48 + 88
    state = blank_edge(SCHEMA)
    for layer in layers[:3]:
        state = state.apply(layer)
    assert state.u[0][:, 2].tolist() == int4(body[29:], 9)


def test_a_uniform_block_needs_no_table() -> None:
    layers = encode(random_factors(SCHEMA), blank_edge(SCHEMA), uniform(SCHEMA, 3, 16, 32), 0).layers
    head, *blocks = map(payload, layers)
    assert head[5] == 0
    assert head[18:27] == struct.pack("<BII", 32, 0, 7)
    # Projection c ends at its r_max of 2, so that the block 2→4 is a run of a and b at active rank 3.
    assert [(block[5], block[18:26]) for block in blocks] == [
        (1, struct.pack("<BHHHB", 0, 0, 3, 1, 16)),
        (1, struct.pack("<BHHHB", 1, 0, 3, 2, 16)),
        (1, struct.pack("<BHHHB", 2, 0, 2, 3, 16)),
    ]


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_layers_are_small_and_so_is_their_overhead(bits: int) -> None:
    schema = model_schema()
    for pieces in plan(schema, uniform(schema, 16, bits, bits)):
        for piece in pieces:
            size = layer_bytes(schema, piece)
            assert size - piece.body_bytes(schema) <= 100
            single = isinstance(piece, BlockPiece) and len(piece.ranks) == 1
            assert size <= LAYER_BYTES or single
    assert len(plan(schema, uniform(schema, 16, 32, 32))[0]) == 4  # 12 kB of head


@settings(max_examples=80, deadline=None)
@given(allocations(SCHEMA))
def test_a_header_says_what_was_planned(allocation: Allocation) -> None:
    for pieces in plan(SCHEMA, allocation):
        for piece in pieces:
            layer = write_layer(SCHEMA, piece, 7, bytes(piece.body_bytes(SCHEMA)))
            assert len(layer) == layer_bytes(SCHEMA, piece)
            assert read_layer(SCHEMA, layer)[:2] == (7, piece)


def test_every_changed_or_cut_or_longer_layer_is_refused() -> None:
    layer = encode(random_factors(SCHEMA), blank_edge(SCHEMA), uniform(SCHEMA, 2, 4, 4), 0).layers[1]
    for position in range(len(layer)):
        changed = bytearray(layer)
        changed[position] ^= 1 << position % 8
        with pytest.raises(UpdateError):
            read_layer(SCHEMA, bytes(changed))
        with pytest.raises(UpdateError):
            read_layer(SCHEMA, layer[:position])
    with pytest.raises(UpdateError):
        read_layer(SCHEMA, layer + b"\0")


def test_mutated_layers_with_a_right_check_sum_raise_only_our_errors() -> None:
    """Four thousand mutations, every second one resealed; those that pass leave finite, well-shaped factors."""
    rng = np.random.default_rng(0)
    edge = blank_edge(SCHEMA)
    mixed = Allocation(np.array([4, 5, 2]), np.array([4, 16, 32]), 8, np.inf)
    layers = encode(random_factors(SCHEMA), edge, mixed, 1).layers
    prefixes = [edge]
    for layer in layers:
        prefixes.append(prefixes[-1].apply(layer))
    refused = accepted = 0
    for trial in range(4000):
        index = int(rng.integers(len(layers)))
        broken = bytearray(layers[index])
        header = 8 + struct.unpack_from("<Q", broken)[0]
        for _ in range(int(rng.integers(1, 4))):
            region = (0, header, min(header + 32, len(broken)), len(broken))
            part = int(rng.integers(3))
            position = int(rng.integers(region[part], max(region[part + 1], region[part] + 1)))
            broken[min(position, len(broken) - 1)] = int(rng.integers(256))
        if trial % 5 == 0:
            del broken[int(rng.integers(8, len(broken))) :]
        if trial % 2:
            try:
                broken = bytearray(reseal(broken))
            except struct.error:
                continue
        try:
            state = prefixes[index].apply(bytes(broken))
        except (UpdateError, CompatibilityError):
            refused += 1
            continue
        accepted += 1
        factors = state.factors()
        assert (factors.ranks <= SCHEMA.r_max).all()
        assert all(np.isfinite(array).all() for array in (*factors.u, *factors.v, *factors.head.values()))
    assert refused > 2000
    assert accepted > 100


def test_random_bytes_are_refused() -> None:
    rng = np.random.default_rng(0)
    for size in [0, 1, 7, 8, 9, *rng.integers(10, 300, 200)]:
        with pytest.raises(UpdateError):
            read_layer(SCHEMA, rng.bytes(int(size)))


def test_a_huge_header_length_is_refused() -> None:
    with pytest.raises(UpdateError, match="no valid safetensors header"):
        read_layer(SCHEMA, struct.pack("<Q", 2**63) + b"x" * 100)


def _field(offset: int, value: bytes) -> bytes:
    layer = bytearray(encode(random_factors(SCHEMA), blank_edge(SCHEMA), uniform(SCHEMA, 1, 4, 0), 0).layers[0])
    start = 8 + struct.unpack_from("<Q", layer)[0] + offset
    layer[start : start + len(value)] = value
    return reseal(layer)


@pytest.mark.parametrize(
    ("offset", "value", "error", "message"),
    [
        (4, b"\2", CompatibilityError, "format version 2"),
        (5, b"\3", UpdateError, "kind 3"),
        (6, b"\0" * 8, CompatibilityError, "schema 0000000000000000"),
        (18, b"\4", UpdateError, "block 4"),
        (19, b"\1\0", UpdateError, "projections 1…3"),
        (21, b"\0\0", UpdateError, "projections 0…-1"),
        (23, b"\0\0", UpdateError, "touches no projection"),
        (23, b"\2\0", UpdateError, "rank 2 at 4 bits"),
        (23, b"\xff\xff", UpdateError, "rank 4 at 4 bits"),
        (25, b"\5", UpdateError, "at 5 bits"),
        (25, b"\x08", UpdateError, "its header asks for"),
        (5, b"\0", UpdateError, "head rows"),
    ],
)
def test_every_wrong_field_is_named(offset: int, value: bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_layer(SCHEMA, _field(offset, value))


@pytest.mark.parametrize(
    "piece",
    [HeadPiece(0, 8, 8), HeadPiece(0, 2**32 - 1, 32), BlockPiece(0, 0, (1,) * 65535, (4,) * 65535)],
    ids=["one row too many", "4 billion rows", "65535 projections"],
)
def test_sizes_beyond_the_schema_are_refused_before_any_allocation(piece: HeadPiece | BlockPiece) -> None:
    common = struct.pack("<BB8sI", 1, 0 if isinstance(piece, HeadPiece) else 2, bytes.fromhex(SCHEMA.id), 0)
    if isinstance(piece, HeadPiece):
        fields = struct.pack("<BII", piece.bits, piece.first, piece.count)
    else:
        fields = struct.pack("<BHH", 0, 0, 65535) + struct.pack("<HB", 1, 4)
    blank = common + fields
    body = struct.pack("<I", zlib.crc32(blank)) + blank
    header = json.dumps(
        {"p": {"dtype": "U8", "shape": [len(body)], "data_offsets": [0, len(body)]}}, separators=(",", ":")
    )
    with pytest.raises(UpdateError, match="a layer names"):
        read_layer(SCHEMA, struct.pack("<Q", len(header)) + header.encode() + body)
