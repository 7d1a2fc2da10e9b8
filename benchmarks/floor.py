"""How far an update is from the rate-distortion bound of a Gaussian source.

    python benchmarks/floor.py JOB.toml [--policy fixed:rank=8] [--rounds 2]

JOB.toml holds keys of ``airlora run``. The job is trained, and each of the first rounds is sent whole at each number of
bits, without curvature, so that the squared error of the numbers is what the encoder minimises. Columns, in bits a
number: what the update takes, all of it counted; the bound at the distortion of each vector (a column of u, a row of
v) for independent Gaussian numbers of that vector's variance, ½ log2(σ² / D); and the bound at the same total
distortion of each projection when it may be spread over the vectors as one likes (reverse water-filling, Cover and
Thomas, section 10.3.3). σ² is that of the change since what the edge holds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from airlora.codec import BITS, Allocation, EdgeState, encode
from airlora.config import load_config
from airlora.factors import Factors
from airlora.job import build_job
from airlora.link import make_link
from airlora.policy import make_policy
from airlora.trajectory import LiveCloud


def vectors(factors: Factors, index: int) -> list[np.ndarray]:
    """Columns of u and rows of v of a projection, float64."""
    return [*factors.u[index].T.astype(np.float64), *factors.v[index].astype(np.float64)]


def water_filling(variances: np.ndarray, sizes: np.ndarray, distortion: float) -> float:
    """Bits of Gaussian vectors at a total squared error, spread in the best way."""
    low, high = 0.0, float(variances.max())
    for _ in range(100):
        level = (low + high) / 2
        low, high = (level, high) if (np.minimum(level, variances) * sizes).sum() < distortion else (low, level)
    return float((sizes / 2 * np.log2(np.maximum(variances, 1e-300) / np.minimum(high, variances))).sum())


def floors(target: Factors, held: EdgeState, got: EdgeState) -> tuple[float, float, int]:
    """(bits at each vector's distortion, bits with the distortion spread best, numbers)."""
    own = spread = 0.0
    numbers = 0
    ranks = [v.shape[0] for v in target.v]
    before = Factors(held.schema, *map(tuple, _cut(held, ranks)), target.head)
    after = Factors(got.schema, *map(tuple, _cut(got, ranks)), target.head)
    for index in range(len(target.u)):
        wanted, had, has = (vectors(each, index) for each in (target, before, after))
        sizes = np.array([x.size for x in wanted])
        variances = np.array([np.square(x - y).mean() for x, y in zip(wanted, had, strict=True)])
        errors = np.array([np.square(x - y).mean() for x, y in zip(wanted, has, strict=True)])
        own += float((sizes / 2 * np.log2(np.maximum(variances / errors, 1.0))).sum())
        spread += water_filling(variances, sizes, float((errors * sizes).sum()))
        numbers += int(sizes.sum())
    return own, spread, numbers


def _cut(edge: EdgeState, ranks: list[int]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    u = [array[:, :rank] for array, rank in zip(edge.u, ranks, strict=True)]
    v = [array[:rank] for array, rank in zip(edge.v, ranks, strict=True)]
    return u, v


def main() -> None:
    """Train, send, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    parser.add_argument("--policy", default="fixed:rank=8")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config({}, options.job)
    job = build_job(config, make_policy(options.policy, config.seed), make_link(config.link, config.seed))
    cloud = LiveCloud(job.trainer, config.steps_per_round, lambda factors: 0.0)
    schema = job.adapter.schema
    held = dict.fromkeys(BITS[:-1], job.initial_edge)
    table = Table("round", "bits", "ours", "bound, each vector", "bound, spread best", "ours over the second")
    for index in range(options.rounds):
        factors = cloud.advance(index, job.initial_edge, lambda: None).factors
        for bits, edge in held.items():
            allocation = Allocation(schema.r_max, np.full(len(schema.r_max), bits), 0, float("inf"))
            update = encode(factors, edge, allocation, index)
            after = edge
            for layer in update.layers:
                after = after.apply(layer)
            own, spread, numbers = floors(factors, edge, after)
            ours = 8 * update.size_bytes
            cells = [f"{value / numbers:.3f}" for value in (ours, own, spread)]
            table.add_row(str(index), str(bits), *cells, f"{(ours - spread) / numbers:+.3f}")
            held[bits] = after
    Console().print(table)


if __name__ == "__main__":
    main()
