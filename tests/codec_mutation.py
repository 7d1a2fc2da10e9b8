"""Mutated layers for an edge: flipped, overwritten, cut, joined and made up; every second one resealed."""

from __future__ import annotations

from collections import Counter

import numpy as np

from airlora.codec import Allocation, EdgeState, encode
from airlora.codec.layers import FRAME_BYTES
from airlora.errors import CompatibilityError, UpdateError
from codec_samples import blank_edge, random_factors, reseal, small_schema, trained_factors


class Mutations:
    """Applies mutated layers to the states that the true ones build on, and checks what comes out."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._schema = small_schema()
        rounds = [*trained_factors(self._schema, 2), random_factors(self._schema)]
        mixed = np.array([[4, 0, 8, 2, 0, 0], [16, 3, 6, 0, 4, 2], [0, 4, 0, 0, 0, 0]])
        bits = [np.array([4, 8, 2]), np.array([16, 16, 16]), mixed]
        self._cases: list[tuple[EdgeState, bytes]] = []
        edge = blank_edge(self._schema)
        for t, (factors, each) in enumerate(zip(rounds, bits, strict=True)):
            allocation = Allocation(np.array([4, 6, 2]), each, (4, 16, 0)[t], np.inf)
            for layer in encode(factors, edge, allocation, t).layers:
                self._cases.append((edge, layer))
                edge = edge.apply(layer)

    def run(self, count: int) -> Counter[str]:
        """How many mutated layers were applied, and how many were refused with which error.

        Raises:
            AssertionError: an applied one left a state that is not valid.
        """
        found: Counter[str] = Counter()
        for trial in range(count):
            edge, layer = self._cases[int(self._rng.integers(len(self._cases)))]
            broken = self._mutate(layer)
            if trial % 2:
                broken = reseal(broken)
            try:
                self._check(edge.apply(broken))
                found["applied"] += 1
            except (UpdateError, CompatibilityError) as error:
                found[type(error).__name__] += 1
        return found

    def _mutate(self, layer: bytes) -> bytes:
        rng, broken = self._rng, bytearray(layer)
        kind = int(rng.integers(8))
        if kind < 4:  # a few bits or bytes, mostly of the body
            for _ in range(int(rng.integers(1, 4))):
                start = 0 if kind == 0 else min(FRAME_BYTES, len(broken) - 1)
                position = int(rng.integers(start, len(broken)))
                broken[position] = (
                    broken[position] ^ 1 << int(rng.integers(8)) if rng.integers(2) else int(rng.integers(256))
                )
        elif kind == 4:  # words left out, mostly whole
            end = FRAME_BYTES + 4 * int(rng.integers(0, max((len(broken) - FRAME_BYTES) // 4, 1)))
            del broken[end - int(rng.integers(2)) :]
        elif kind == 5:  # words added in front, within or behind
            position = FRAME_BYTES + 4 * int(rng.integers(0, (len(broken) - FRAME_BYTES) // 4 + 1))
            broken[position:position] = rng.bytes(4 * int(rng.integers(1, 5)))
        elif kind == 6:  # a body of noise
            broken[FRAME_BYTES:] = rng.bytes(4 * int(rng.integers(0, 40)))
        else:  # the body of another layer
            other = self._cases[int(rng.integers(len(self._cases)))][1]
            broken[FRAME_BYTES:] = other[FRAME_BYTES:]
        return bytes(broken)

    def _check(self, state: EdgeState) -> None:
        factors = state.factors()  # checks the shapes
        assert (factors.ranks <= self._schema.r_max).all()
        assert (state.active_ranks <= state.stored_ranks).all()
        for array in (*state.u, *state.v, state.head):
            assert np.isfinite(array).all()
            assert array.dtype == np.float32
