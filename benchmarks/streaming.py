"""Ways to keep an edge up to date over 20 rounds, bytes against quality: what the codec's default rests on.

    python benchmarks/streaming.py JOB.toml OUT --seeds 3 [--peer RECORDINGS] [--table]

JOB.toml holds keys of ``airlora run``. Every round's update arrives, and every arm sends each round, so that what is
compared is how much a round costs and what it is worth. Arms (``r`` is the rank that is sent, numbers at 4 bits):

    ours r         residuals of one nested adapter, its first r components
    fresh r        the same adapter, each round encoded anew (no residuals)
    own rank r     no nesting: one adapter of rank r, trained and sent at that rank with residuals, the same steps
    boosted r      each round trains a new adapter of rank r on top of what the edge holds, sends it, and merges it
    resend r8      one adapter of rank 8, trained as in ``own rank``, as float16 numbers each round
    every step     the same as float32 numbers after every training step, as AirLLM counts it

Quality is the edge's loss on the validation split; bytes to x % of the gain are counted until the edge first has that
share of the gain of the nested cloud after the last round. A row a round goes to OUT/ARM-seed-S.jsonl; what is there is
not run again.
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

from airlora.adapter import NestedAdam, NestedAdapter, NestedStrategy, PrefixMixture, Trainer, find_targets
from airlora.codec import Allocation, EdgeState, encode
from airlora.config import RunConfig, load_config
from airlora.factors import Factors
from airlora.job import RATE_DECAY, Job, build_job, load_workload
from airlora.link import make_link
from airlora.play import Quality
from airlora.policy import make_policy

BITS = 4
OURS, FRESH, OWN, BOOSTED = (8, 32), (8, 32), (8, 32), (1, 2, 4)
SHARES = (0.90, 0.95, 0.99)


def build(config: RunConfig, rank: int | None = None) -> Job:
    """The nested job, or one trained at a single rank."""
    job = build_job(config, make_policy("fit", config.seed), make_link(config.link, config.seed))
    if rank is None:
        return job
    workload = load_workload(config)
    adapter = NestedAdapter(
        workload.model,
        find_targets(workload.model),
        max_rank=rank,
        alpha=2.0 * rank,
        prefixes=[rank],
        seed=config.seed,
        head=workload.head,
        base_fingerprint=workload.base_fingerprint,
    )
    optimizer = NestedAdam(adapter, job.lr, rate_decay=RATE_DECAY)
    strategy = NestedStrategy(PrefixMixture((rank,), 1, config.seed))
    return replace(
        job,
        workload=workload,
        adapter=adapter,
        trainer=Trainer(workload, adapter, optimizer, strategy),
        initial_edge=EdgeState.initial(adapter.schema, adapter.head_values()),
    )


def whole(schema: Any, rank: int) -> Allocation:
    """Every projection at a rank, the head too."""
    return Allocation(
        np.minimum(rank, schema.r_max),
        np.full(len(schema.projections), BITS),
        BITS if schema.head else 0,
        float("inf"),
    )


def nested(config: RunConfig) -> dict[str, list[dict[str, float]]]:
    """Arms that send the nested adapter."""
    job = build(config)
    quality = Quality(job, config.validation_limit)
    schema = job.adapter.schema
    held = {("ours", rank): job.initial_edge for rank in OURS}
    rows: dict[str, list[dict[str, float]]] = {}
    for index in range(config.rounds):
        job.trainer.train(index * config.steps_per_round, config.steps_per_round, lambda batch, loss: None)
        factors = job.trainer.factors()
        cloud = quality.of(factors)
        for kind, rank in [("ours", r) for r in OURS] + [("fresh", r) for r in FRESH]:
            start = held[kind, rank] if kind == "ours" else job.initial_edge
            update = encode(factors, start, whole(schema, rank), index, quality.loss)
            edge = applied(start, update.layers)
            if kind == "ours":
                held[kind, rank] = edge
            name = f"{kind} r{rank}"
            rows.setdefault(name, []).append(row(index, update.size_bytes, quality.of(edge.factors()), cloud))
    return rows


def own_rank(config: RunConfig, rank: int) -> dict[str, list[dict[str, float]]]:
    """One adapter of one rank; for rank 8 also as plain numbers."""
    job = build(config, rank)
    quality = Quality(job, config.validation_limit)
    edge = job.initial_edge
    rows: dict[str, list[dict[str, float]]] = {}
    for index in range(config.rounds):
        job.trainer.train(index * config.steps_per_round, config.steps_per_round, lambda batch, loss: None)
        factors = job.trainer.factors()
        cloud = quality.of(factors)
        update = encode(factors, edge, whole(job.adapter.schema, rank), index, quality.loss)
        edge = applied(edge, update.layers)
        rows.setdefault(f"own rank r{rank}", []).append(
            row(index, update.size_bytes, quality.of(edge.factors()), cloud)
        )
        if rank == 8:
            numbers = job.adapter.schema.plain_lora_bytes(8, 1)
            rows.setdefault("resend r8 fp16", []).append(row(index, 2 * numbers, cloud, cloud))
            steps = config.steps_per_round
            rows.setdefault("every step r8 fp32", []).append(row(index, 4 * numbers * steps, cloud, cloud))
    return rows


def boosted(config: RunConfig, rank: int) -> dict[str, list[dict[str, float]]]:
    """XGBLoRA's way (Zhang et al. 2024): a new adapter every round, merged into the base on both sides."""
    merged: dict[str, torch.Tensor] = {}
    head: dict[str, np.ndarray] | None = None
    rows: list[dict[str, float]] = []
    for index in range(config.rounds):
        job = build(replace(config, seed=config.seed + 1000 * index), rank)
        modules = dict(job.workload.model.named_modules())
        with torch.no_grad():
            for name, change in merged.items():
                modules[name].base.weight += change
            if head is not None:
                for name, value in head.items():
                    job.adapter.head[name].copy_(torch.from_numpy(value))
        edge = EdgeState.initial(job.adapter.schema, job.adapter.head_values())
        job.trainer.train(index * config.steps_per_round, config.steps_per_round, lambda batch, loss: None)
        factors = job.trainer.factors()
        update = encode(factors, edge, whole(job.adapter.schema, rank), index)
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


def arms(config: RunConfig) -> Iterator[tuple[str, Callable[[], dict[str, list[dict[str, float]]]]]]:
    """Name of the first arm that a training gives, and the training."""
    yield f"ours r{OURS[0]}", lambda: nested(config)
    for rank in OWN:
        yield f"own rank r{rank}", lambda rank=rank: own_rank(config, rank)
    for rank in BOOSTED:
        yield f"boosted r{rank}", lambda rank=rank: boosted(config, rank)


def table(out: Path, base: float) -> Table:
    """Means over seeds; bytes to a share of the gain are those of the seeds that reached it."""
    result = Table("arm", "seeds", "kB in all", *(f"kB to {share:.0%}" for share in SHARES), "edge, mean", "edge, end")
    runs: dict[str, dict[int, list[dict[str, float]]]] = {}
    for path in sorted(out.glob("*-seed-*.jsonl")):
        name, _, seed = path.stem.rpartition("-seed-")
        runs.setdefault(name, {})[int(seed)] = [json.loads(line) for line in path.read_text().splitlines()]
    for name, seeds in sorted(runs.items()):
        reached: dict[float, list[float]] = {share: [] for share in SHARES}
        for seed, rounds in seeds.items():
            gain = base - runs[f"ours r{OURS[-1]}"][seed][-1]["cloud"]
            sizes = np.cumsum([item["bytes"] for item in rounds])
            for share in SHARES:
                hit = [k for k, item in enumerate(rounds) if base - item["edge"] >= share * gain]
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
    job = build(config)
    base = Quality(job, config.validation_limit).of(job.initial_edge.factors())
    console.print(f"base {base:.3f} nats")
    console.print(table(options.out, base))


if __name__ == "__main__":
    main()
