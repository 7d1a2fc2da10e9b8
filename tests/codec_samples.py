"""Schemas, factors and allocations that the codec tests share."""

import struct
import zlib

import numpy as np
from hypothesis import strategies as st

from airlora.codec import BITS, Allocation, EdgeState
from airlora.factors import Factors, HeadTensor, Projection, Schema

INF = float("inf")
UNLIMITED = st.just(INF)


def small_schema() -> Schema:
    """Three unlike projections (one with a low r_max) and a head of 2-D, 1-D, 0-D and odd-sized tensors."""
    return Schema(
        projections=(Projection("a", 9, 7, 4), Projection("b", 6, 11, 6), Projection("c", 5, 3, 2)),
        prefixes=(1, 2, 4, 6),
        head=(HeadTensor("weight", (5, 7)), HeadTensor("bias", (5,)), HeadTensor("temperature", ())),
    )


def model_schema() -> Schema:
    """Five transformer layers of width 128 with a 24-class head."""
    shapes = {"q": (128, 128), "k": (128, 128), "v": (128, 128), "o": (128, 128), "up": (512, 128), "down": (128, 512)}
    return Schema(
        projections=tuple(Projection(f"{i}.{name}", *shape, 16) for i in range(5) for name, shape in shapes.items()),
        prefixes=(1, 2, 4, 8, 16),
        head=(HeadTensor("weight", (24, 128)), HeadTensor("bias", (24,))),
    )


def random_factors(schema: Schema, seed: int = 0) -> Factors:
    rng = np.random.default_rng(seed)
    return Factors(
        schema,
        tuple(rng.normal(0, 0.01, (p.d_out, p.r_max)).astype(np.float32) for p in schema.projections),
        tuple(rng.normal(0, 1, (p.r_max, p.d_in)).astype(np.float32) for p in schema.projections),
        {tensor.name: rng.normal(0, 1, tensor.shape).astype(np.float32) for tensor in schema.head},
    )


def blank_edge(schema: Schema) -> EdgeState:
    return EdgeState.initial(schema, {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in schema.head})


def uniform(schema: Schema, rank: int, bits: int, head_bits: int, budget_bytes: float = INF) -> Allocation:
    return Allocation(np.minimum(rank, schema.r_max), np.full(len(schema.projections), bits), head_bits, budget_bytes)


def reseal(layer: bytearray) -> bytes:
    """Make the check sum of a changed layer right again."""
    start = 8 + struct.unpack_from("<Q", layer)[0]
    if len(layer) >= start + 4:
        struct.pack_into("<I", layer, start, zlib.crc32(layer[start + 4 :]))
    return bytes(layer)


def allocations(schema: Schema, budgets: st.SearchStrategy[float] = UNLIMITED) -> st.SearchStrategy[Allocation]:
    """Every allocation that the codec can send."""
    count = len(schema.projections)
    return st.builds(
        Allocation,
        ranks=st.tuples(*(st.integers(0, p.r_max) for p in schema.projections)).map(np.array),
        bits=st.lists(st.sampled_from(BITS), min_size=count, max_size=count).map(np.array),
        head_bits=st.sampled_from((0, *BITS)),
        budget_bytes=budgets,
    )
