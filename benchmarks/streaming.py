"""Ways to keep an edge up to date over 20 rounds, bytes against quality: what the codec's default rests on.

    python benchmarks/streaming.py JOB.toml OUT --seeds 3

JOB.toml holds keys of ``airlora run``. Every round's update arrives, and every arm sends each round, so that what is
compared is how much a round costs and what it is worth. Arms (``r`` is the rank that is sent, numbers at 4 bits):

    nested r          residuals of one nested adapter, its first r components
    nested fresh r    the same adapter, each round encoded anew (no residuals)
    fixed r           no nesting: one adapter of rank r, trained and sent at that rank with residuals (policy ``fixed``)
    fixed fresh r     as ``fixed``, each round encoded anew
    boosted r         each round trains a new adapter of rank r on top of what the edge holds, sends it, and merges it
    resend r8         the cloud of ``fixed r8`` as float16 numbers each round
    every step r8     the same as float32 numbers after every training step, as AirLLM counts it

Quality is the edge's on the validation split; bytes to x % of the gain are counted until the edge first has that share
of the gain of one cloud, of ``fixed r8`` after the last round. A row a round goes to OUT/ARM-seed-S.jsonl; what is
there is not run again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from airlora.codec import Allocation, EdgeState, encode
from airlora.config import RunConfig, load_config
from airlora.factors import Factors
from airlora.job import Job, build_job
from airlora.link import make_link
from airlora.play import Quality
from airlora.policy import make_policy
from airlora.trajectory import LiveCloud

BITS = 4
NESTED, FIXED, BOOSTED = (8, 32), (8, 32), (1, 2, 4)
REFERENCE = "fixed r8"
SHARES = (0.90, 0.95, 0.99)


def build(config: RunConfig, policy: str) -> Job:
    """The job, trained as a policy wants it."""
    return build_job(config, make_policy(policy, config.seed), make_link(config.link, config.seed))


def whole(schema: Any, rank: int) -> Allocation:
    """Every projection at a rank, the head too."""
    return Allocation(
        np.minimum(rank, schema.r_max),
        np.full(len(schema.projections), BITS),
        BITS if schema.head else 0,
        float("inf"),
    )


Rows = dict[str, list[dict[str, float]]]


def stream(config: RunConfig, policy: str, ranks: dict[int, tuple[str, str]]) -> Rows:
    """One training, sent at each rank with residuals (the first name) and without (the second)."""
    job = build(config, policy)
    quality = Quality(job, config.validation_limit)
    cloud = LiveCloud(job.trainer, config.steps_per_round, quality.of)
    schema = job.adapter.schema
    held = dict.fromkeys(ranks, job.initial_edge)
    rows: Rows = {}
    for index in range(config.rounds):
        now = cloud.advance(index, job.initial_edge, lambda: None)
        for rank, names in ranks.items():
            for name, start in zip(names, (held[rank], job.initial_edge), strict=True):
                update = encode(now.factors, start, whole(schema, rank), index, quality, now.curvature)
                edge = applied(start, update.layers)
                if name == names[0]:
                    held[rank] = edge
                rows.setdefault(name, []).append(row(index, update.size_bytes, quality.of(edge.factors()), now.quality))
        if policy == "fixed:rank=8":
            numbers, steps = schema.plain_lora_bytes(8, 1), config.steps_per_round
            rows.setdefault("resend r8 fp16", []).append(row(index, 2 * numbers, now.quality, now.quality))
            rows.setdefault("every step r8 fp32", []).append(row(index, 4 * numbers * steps, now.quality, now.quality))
    return rows


def boosted(config: RunConfig, rank: int) -> Rows:
    """XGBLoRA's way (Zhang et al. 2024): a new adapter every round, merged into the base on both sides."""
    merged: dict[str, torch.Tensor] = {}
    head: dict[str, np.ndarray] | None = None
    rows: list[dict[str, float]] = []
    for index in range(config.rounds):
        job = build(replace(config, seed=config.seed + 1000 * index), f"fixed:rank={rank}")
        modules = dict(job.workload.model.named_modules())
        with torch.no_grad():
            for name, change in merged.items():
                modules[name].base.weight += change
            if head is not None:
                for name, value in head.items():
                    job.adapter.head[name].copy_(torch.from_numpy(value))
        edge = EdgeState.initial(job.adapter.schema, job.adapter.head_values())
        first = index * config.steps_per_round
        job.trainer.train(first, config.steps_per_round, lambda batch, loss: None)
        factors = job.trainer.factors()
        curvature = job.trainer.curvature(factors, first + config.steps_per_round - 1)
        update = encode(factors, edge, whole(job.adapter.schema, rank), index, curvature=curvature)
        edge = applied(edge, update.layers)
        quality = Quality(job, config.validation_limit)
        rows.append(row(index, update.size_bytes, quality.of(edge.factors()), quality.of(factors)))
        sent: Factors = edge.factors()
        head = sent.head
        for projection, u, v in zip(sent.schema.projections, sent.u, sent.v, strict=True):
            change = torch.from_numpy(u @ v)
            merged[projection.name] = merged.get(projection.name, 0) + change
    return {f"boosted r{rank}": rows}


def applied(edge: EdgeState, layers: tuple[bytes, ...]) -> EdgeState:
    """The edge after these layers."""
    for layer in layers:
        edge = edge.apply(layer)
    return edge


def row(index: int, size_bytes: int, edge: float, cloud: float) -> dict[str, float]:
    """One round of one arm."""
    return {"round": index, "bytes": size_bytes, "edge": edge, "cloud": cloud}


def arms(config: RunConfig) -> Iterator[tuple[str, Callable[[], Rows]]]:
    """Name of the first arm that a training gives, and the training."""
    nested = {rank: (f"nested r{rank}", f"nested fresh r{rank}") for rank in NESTED}
    yield f"nested r{NESTED[0]}", lambda: stream(config, "fit", nested)
    for rank in FIXED:
        names = {rank: (f"fixed r{rank}", f"fixed fresh r{rank}")}
        yield f"fixed r{rank}", lambda rank=rank, names=names: stream(config, f"fixed:rank={rank}", names)
    for rank in BOOSTED:
        yield f"boosted r{rank}", lambda rank=rank: boosted(config, rank)


def table(out: Path, base: float, sign: int) -> Table:
    """Means over seeds; bytes to a share of the gain are those of the seeds that reached it.

    Args:
        out: the folder of the rows. base: quality before the first round. sign: 1 where higher quality is better.
    """
    result = Table("arm", "seeds", "kB in all", *(f"kB to {share:.0%}" for share in SHARES), "edge, mean", "edge, end")
    runs: dict[str, dict[int, list[dict[str, float]]]] = {}
    for path in sorted(out.glob("*-seed-*.jsonl")):
        name, _, seed = path.stem.rpartition("-seed-")
        runs.setdefault(name, {})[int(seed)] = [json.loads(line) for line in path.read_text().splitlines()]
    for name, seeds in sorted(runs.items()):
        reached: dict[float, list[float]] = {share: [] for share in SHARES}
        for seed, rounds in seeds.items():
            gain = sign * (runs[REFERENCE][seed][-1]["cloud"] - base)
            sizes = np.cumsum([item["bytes"] for item in rounds])
            for share in SHARES:
                hit = [k for k, item in enumerate(rounds) if sign * (item["edge"] - base) >= share * gain]
                if hit:
                    reached[share].append(float(sizes[hit[0]]))
        cells = [
            f"{np.mean(values) / 1e3:.1f}" + (f" ({len(values)} of {len(seeds)})" if len(values) < len(seeds) else "")
            if values
            else "never"
            for values in reached.values()
        ]
        total = np.mean([sum(item["bytes"] for item in rounds) for rounds in seeds.values()])
        mean = np.mean([item["edge"] for rounds in seeds.values() for item in rounds])
        end = np.mean([rounds[-1]["edge"] for rounds in seeds.values()])
        result.add_row(name, str(len(seeds)), f"{total / 1e3:.1f}", *cells, f"{mean:.3f}", f"{end:.3f}")
    return result


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    console = Console()
    base = float("nan")
    for seed in range(options.seeds):
        config = load_config({"seed": seed}, options.job)
        for first, train in arms(config):
            if (options.out / f"{first}-seed-{seed}.jsonl").exists():
                continue
            for name, rounds in train().items():
                path = options.out / f"{name}-seed-{seed}.jsonl"
                path.write_text("".join(json.dumps(item) + "\n" for item in rounds))
            console.print(f"{first}, seed {seed}: done")
    job = build(config, "fit")
    base = Quality(job, config.validation_limit).of(job.initial_edge.factors())
    console.print(f"base: {base:.3f} ({job.workload.metric})")
    console.print(table(options.out, base, 1 if job.workload.higher_is_better else -1))


if __name__ == "__main__":
    main()
