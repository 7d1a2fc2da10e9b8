"""The golden files: four updates with every feature of the format; ``python tests/codec_golden.py`` writes them."""

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from airlora.codec import Allocation, EdgeState, Update, encode
from airlora.factors import Factors
from codec_samples import LossJudge, blank_edge, deliver, random_factors, small_schema, trained_factors

DATA = Path(__file__).parent / "data"
SCHEMA = small_schema()
COUNT = 4


def make_factors() -> list[Factors]:
    """Three rounds that follow each other, then noise; with a zero vector and an outlier that needs an escape."""
    factors = [*trained_factors(SCHEMA, 3, seed=7), random_factors(SCHEMA, seed=8)]
    factors[0].u[1][:, 2] = 0
    factors[1].v[1][3] = 0
    factors[2].v[0][0, 2] = 1000.0
    return factors


def stored_factors() -> list[Factors]:
    tensors = load_file(DATA / "golden-factors.safetensors")
    count = range(len(SCHEMA.projections))
    return [
        Factors(
            SCHEMA,
            tuple(tensors[f"{t}.u.{m}"] for m in count),
            tuple(tensors[f"{t}.v.{m}"] for m in count),
            {tensor.name: tensors[f"{t}.{tensor.name}"] for tensor in SCHEMA.head},
        )
        for t in range(COUNT)
    ]


def encode_all(rounds: list[Factors]) -> list[tuple[EdgeState, Update]]:
    """(state, update that builds on it) of each round; every second round loses its last layer."""
    each = np.array([[4, 0, 8, 2, 0, 0], [16, 3, 6, 0, 4, 2], [0, 4, 0, 0, 0, 0]])
    allocations = [
        Allocation(np.array([4, 6, 2]), np.array([4, 3, 8]), 4, np.inf),
        Allocation(np.array([4, 5, 1]), np.array([2, 16, 6]), 16, np.inf),
        Allocation(np.array([3, 6, 2]), each, 0, np.inf),
        Allocation(np.array([2, 4, 1]), np.array([6, 6, 6]), 8, np.inf),
    ]
    losses = [None, None, None, {6: 1.0, 1: 1.5, 2: 0.5, 4: 0.8}]
    edge, found = blank_edge(SCHEMA), []
    for t, (factors, allocation, loss) in enumerate(zip(rounds, allocations, losses, strict=True)):
        measure = None
        if loss is not None:
            measure = lambda state, loss=loss, t=t: loss[int(state.active_ranks.max())] if state.round == t else 0.9  # noqa: E731
        update = encode(factors, edge, allocation, t, measure and LossJudge(measure))
        found.append((edge, update))
        edge = deliver(edge, update, len(update.layers) - t % 2)
    return found


def fingerprint(edge: EdgeState) -> str:
    """SHA-256 of every array of a state, in the order of their names."""
    digest = hashlib.sha256()
    for _, array in sorted(edge.to_tensors()[0].items()):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def expected() -> list[list[list[str]]]:
    """For each update, [id, fingerprint] of the state before and after each of its layers."""
    return json.loads((DATA / "golden.json").read_text(encoding="utf-8"))


def states(edge: EdgeState, update: Update) -> list[EdgeState]:
    """The state before an update, and after each of its layers."""
    return [deliver(edge, update, count) for count in range(len(update.layers) + 1)]


def main() -> None:
    """Write the files."""
    DATA.mkdir(exist_ok=True)
    rounds, tensors = make_factors(), {}
    for t, factors in enumerate(rounds):
        tensors |= {f"{t}.u.{m}": np.asarray(u, order="C") for m, u in enumerate(factors.u)}
        tensors |= {f"{t}.v.{m}": np.asarray(v, order="C") for m, v in enumerate(factors.v)}
        tensors |= {f"{t}.{name}": np.asarray(tensor, order="C") for name, tensor in factors.head.items()}
    save_file(tensors, DATA / "golden-factors.safetensors")
    table = []
    for t, (edge, update) in enumerate(encode_all(rounds)):
        update.save(DATA / f"golden-{t}.safetensors")
        table.append([[state.id, fingerprint(state)] for state in states(edge, update)])
    schema = SCHEMA.to_json()
    (DATA / "golden-schema.json").write_text(json.dumps({"id": SCHEMA.id, **schema}) + "\n", encoding="utf-8")
    (DATA / "golden.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
