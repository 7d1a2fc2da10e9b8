"""Schemas, factors and allocations that the codec tests share."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from airlora.codec import BITS, Allocation, EdgeState, Update
from airlora.codec.layers import FRAME_BYTES
from airlora.factors import Factors, HeadTensor, Projection, Schema

INF = float("inf")
TOLERANCE = 0.01
UNLIMITED = st.just(INF)
_HEADER_BYTES = FRAME_BYTES - 8


def small_schema() -> Schema:
    """Three unlike projections (one with a low r_max) and a head of 2-D, 1-D, 0-D and odd-sized tensors."""
    return Schema(
        projections=(Projection("a", 9, 7, 4), Projection("b", 6, 11, 6), Projection("c", 5, 3, 2)),
        prefixes=(1, 2, 4, 6),
        head=(HeadTensor("weight", (5, 7)), HeadTensor("bias", (5,)), HeadTensor("temperature", ())),
        init_seed=3,
    )


def model_schema() -> Schema:
    """Five transformer layers of width 128 with a 24-class head."""
    shapes = {"q": (128, 128), "k": (128, 128), "v": (128, 128), "o": (128, 128), "up": (512, 128), "down": (128, 512)}
    return Schema(
        projections=tuple(Projection(f"{i}.{name}", *shape, 16) for i in range(5) for name, shape in shapes.items()),
        prefixes=(1, 2, 4, 8, 16),
        head=(HeadTensor("weight", (24, 128)), HeadTensor("bias", (24,))),
        init_seed=0,
    )


def random_factors(schema: Schema, seed: int = 0) -> Factors:
    """White noise: nothing is near what an edge holds."""
    rng = np.random.default_rng(seed)
    return Factors(
        schema,
        tuple(rng.normal(0, 0.01, (p.d_out, p.r_max)).astype(np.float32) for p in schema.projections),
        tuple(rng.normal(0, 1, (p.r_max, p.d_in)).astype(np.float32) for p in schema.projections),
        {tensor.name: rng.normal(0, 1, tensor.shape).astype(np.float32) for tensor in schema.head},
    )


def trained_factors(schema: Schema, rounds: int, seed: int = 0) -> list[Factors]:
    """Like a recorded training: u grows from zero and v moves from its start, the first components the most, with
    heavier tails than a Gaussian; from round to round a quarter of that changes."""
    rng = np.random.default_rng(seed)

    def walk(shape: tuple[int, int], axis: int) -> np.ndarray:
        decay = 2.0 ** (-np.arange(shape[axis]) / 6)
        noise = rng.standard_t(8, (rounds, *shape)) * np.array([1.0, *[0.25] * (rounds - 1)])[:, None, None]
        return np.cumsum(noise, axis=0) * np.expand_dims(decay, 1 - axis)

    u = [walk((p.d_out, p.r_max), 1) * 0.02 for p in schema.projections]
    v = [schema.initial_v(i) + walk((p.r_max, p.d_in), 0) * 0.04 for i, p in enumerate(schema.projections)]
    heads = {t.name: np.cumsum(rng.normal(0, 0.1, (rounds, *t.shape)), axis=0) for t in schema.head}
    return [
        Factors(
            schema,
            tuple(a[t].astype(np.float32) for a in u),
            tuple(a[t].astype(np.float32) for a in v),
            {name: tensor[t].astype(np.float32) for name, tensor in heads.items()},
        )
        for t in range(rounds)
    ]


@dataclass(frozen=True)
class LossJudge:
    """A ``codec.Judge`` by a loss alone, and where bytes have a price by their worth."""

    loss: Callable[[EdgeState], float]
    worth: Callable[[EdgeState], float] = lambda state: 0.0
    seems: Callable[[EdgeState], float] | None = None
    """The worth on few rows, if it is another."""

    def rough_worth(self, state: EdgeState) -> float:
        return (self.seems or self.worth)(state)

    def is_worse(self, state: EdgeState, before: EdgeState) -> bool:
        return self.loss(state) > self.loss(before) + TOLERANCE


def blank_edge(schema: Schema) -> EdgeState:
    return EdgeState.initial(schema, {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in schema.head})


def deliver(edge: EdgeState, update: Update, layers: int | None = None) -> EdgeState:
    """The edge after the first layers of an update, or all."""
    for layer in update.layers[:layers]:
        edge = edge.apply(layer)
    return edge


def uniform(schema: Schema, rank: int, bits: int, head_bits: int, budget_bytes: float = INF) -> Allocation:
    return Allocation(np.minimum(rank, schema.r_max), np.full(len(schema.projections), bits), head_bits, budget_bytes)


def reseal(layer: bytes | bytearray) -> bytes:
    """Make size and digest of a changed layer right again."""
    head, body = bytearray(layer[:_HEADER_BYTES]), bytes(layer[FRAME_BYTES:])
    head[2:6] = len(body).to_bytes(4, "little")
    return bytes(head) + hashlib.sha256(head + body).digest()[:8] + body


def allocations(schema: Schema, budgets: st.SearchStrategy[float] = UNLIMITED) -> st.SearchStrategy[Allocation]:
    """Every allocation that the codec can send, with bits of projections or of components."""
    count, largest = len(schema.projections), schema.prefixes[-1]
    of_projections = st.lists(st.sampled_from(BITS), min_size=count, max_size=count)
    row = st.lists(st.sampled_from((0, *BITS)), min_size=largest, max_size=largest)
    return st.builds(
        Allocation,
        ranks=st.tuples(*(st.integers(0, p.r_max) for p in schema.projections)).map(np.array),
        bits=(of_projections | st.lists(row, min_size=count, max_size=count)).map(np.array),
        head_bits=st.sampled_from((0, *BITS)),
        budget_bytes=budgets,
    )


def same_arrays(a: EdgeState, b: EdgeState) -> bool:
    """Whether two states are equal bit for bit."""
    x, y = a.to_tensors()[0], b.to_tensors()[0]
    return x.keys() == y.keys() and all(
        x[name].dtype == y[name].dtype and x[name].shape == y[name].shape and x[name].tobytes() == y[name].tobytes()
        for name in x
    )
