"""What an update could cost at least: the empirical entropy of its symbols and of its steps."""

from collections import defaultdict

import numpy as np

from airlora.codec import Allocation, Costs, EdgeState, encode
from airlora.codec.layers import FRAME_BYTES
from airlora.codec.numbers import RESIDUAL, Layout, _choose
from airlora.codec.parts import HEAD, parts_of
from airlora.codec.targets import Targets
from airlora.factors import Factors


def entropy_bits(values: np.ndarray) -> float:
    """Empirical entropy of all values together."""
    counts = np.unique(values, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum())


def payload_and_entropy(
    factors: Factors, edge: EdgeState, allocation: Allocation, round_index: int
) -> dict[str, float]:
    """Bytes of an update: its bodies; the entropy of the symbols of each vector, of each part's vectors together and of
    each projection's u and v; that of the steps of each side; and the projections."""
    update = encode(factors, edge, allocation, round_index)
    targets = Targets(factors, allocation, Costs.measure(factors, edge), edge)
    by_vector = by_part = 0.0
    steps_of = defaultdict(list)
    symbols_of = defaultdict(list)
    for layer in update.layers:
        info, after = edge.read(layer)
        parts = [part for piece in info.pieces for part in parts_of(edge.schema, piece) if part.length]
        layout = Layout.of(parts)
        target, steps, exact, _ = targets.of(parts)
        modes, symbols, steps = _choose(layout, edge.held(parts), target, steps, exact)
        vector = 0
        for part in parts:
            mine = range(vector, vector + part.count)
            vector += part.count
            coded = [v for v in mine if modes[v] >= RESIDUAL]
            if coded:
                of_vectors = [layout.pick(symbols, np.array([v])) for v in coded]
                by_vector += sum(map(entropy_bits, of_vectors))
                by_part += entropy_bits(np.concatenate(of_vectors))
                steps_of[part.side] += [int(steps[v]) for v in coded]
                symbols_of[part.side, part.index] += of_vectors
        edge = after
    return {
        "payload": sum(update.layer_bytes) - FRAME_BYTES * len(update.layers),
        "by_vector": by_vector / 8,
        "by_part": by_part / 8,
        "by_projection": sum(entropy_bits(np.concatenate(vectors)) for vectors in symbols_of.values()) / 8,
        "steps": sum(entropy_bits(np.array(values)) for values in steps_of.values()) / 8,
        "projections": len({(side == HEAD, index) for side, index in symbols_of}),
        "layers": len(update.layers),
        "size": update.size_bytes,
    }
