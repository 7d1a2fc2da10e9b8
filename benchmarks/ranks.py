"""What each rank is worth: runs dedicated to one rank against the prefixes of one nested run.

    python benchmarks/ranks.py JOB.toml OUT.jsonl --dedicated 1,4,16 --lrs 3e-3,6e-3,1.2e-2 --seeds 3
    python benchmarks/ranks.py JOB.toml OUT.jsonl --nested 3 --lrs 6e-3,1e-2 --seeds 3
    python benchmarks/ranks.py JOB.toml OUT.jsonl --table

JOB.toml holds keys of ``airlora run`` (``rounds`` × ``steps_per_round`` steps are taken). Every learning rate is tried
with seed 0; the other seeds run at the rate that is best on the validation split (for a nested run: in the mean over
its prefixes). Each run is a line of OUT.jsonl with validation and test quality of the last iterate and of the running
average; runs that are there already are not repeated.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from airlora.adapter import NestedAdam, NestedAdapter, NestedStrategy, PrefixMixture, Trainer, find_targets
from airlora.config import RunConfig, load_config
from airlora.job import RATE_DECAY, make_workload
from airlora.workload.data import load_data
from airlora.workload.models import load_model


def train(config: RunConfig, ranks: tuple[int, ...], passes: int, form: str, decay: float) -> dict[str, Any]:
    """One run: quality of every trained rank, on both splits, for the last iterate and the average."""
    torch.set_num_threads(1)
    dataset = load_data(config.data, seed=0)
    loaded = load_model(config.model, num_labels=len(dataset.labels) or None)
    workload = make_workload(config, loaded, dataset)
    largest = max(ranks)
    adapter = NestedAdapter(
        loaded.model,
        find_targets(loaded.model),
        max_rank=max(largest, 1),
        alpha=2.0 * max(largest, 1),
        prefixes=[rank for rank in ranks if rank],
        form=form,  # type: ignore[arg-type]
        seed=config.seed,
        head=workload.head,
    )
    assert config.lr is not None
    optimizer = NestedAdam(adapter, config.lr, rate_decay=decay)
    strategy = NestedStrategy(PrefixMixture(ranks, passes, config.seed))
    trainer = Trainer(workload, adapter, optimizer, strategy)
    started = time.perf_counter()
    trainer.train(0, config.rounds * config.steps_per_round, lambda batch, loss: None)
    seconds = time.perf_counter() - started
    quality: dict[str, dict[str, list[float]]] = {}
    for what, factors in (("last", adapter.factors()), ("average", trainer.factors())):
        quality[what] = {"validation": [], "test": []}
        for rank in ranks:
            with adapter.serving(factors.truncate([rank] * len(factors.u))):
                quality[what]["validation"].append(workload.evaluate("validation", config.validation_limit))
                quality[what]["test"].append(workload.evaluate("test"))
    return {
        "quality": quality,
        "higher_is_better": workload.higher_is_better,
        "s_per_step": seconds / (config.rounds * config.steps_per_round),
    }


def key(run: dict[str, Any]) -> tuple[Any, ...]:
    """What makes a run the same run."""
    return tuple(run[name] for name in ("kind", "form", "passes", "decay", "lr", "seed")) + tuple(run["ranks"])


def sweep(arguments: argparse.Namespace, setting: dict[str, Any]) -> None:
    """All rates with seed 0, then the other seeds at the best one."""
    config = load_config({}, arguments.job)
    done = {key(run): run for run in read(arguments.out)}

    def ensure(lr: float, seed: int) -> dict[str, Any]:
        run = {**setting, "lr": lr, "seed": seed}
        if key(run) not in done:
            result = train(
                replace(config, lr=lr, seed=seed),
                tuple(setting["ranks"]),
                setting["passes"],
                setting["form"],
                setting["decay"],
            )
            done[key(run)] = {**run, **result}
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[key(run)]) + "\n")
            print(
                setting["kind"], setting["ranks"], setting["form"], lr, seed, result["quality"]["average"], flush=True
            )
        return done[key(run)]

    tried = [ensure(lr, 0) for lr in arguments.lrs]
    best = max(tried, key=score)["lr"]
    for seed in range(1, arguments.seeds):
        ensure(best, seed)


def score(run: dict[str, Any], what: str = "average") -> float:
    """Mean validation quality over ranks, signed so that higher is better."""
    mean = float(np.mean(run["quality"][what]["validation"]))
    return mean if run["higher_is_better"] else -mean


def read(path: Path) -> list[dict[str, Any]]:
    """All runs so far."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def show(path: Path) -> None:
    """Test quality, mean and standard deviation over the seeds, at the rate that is best on validation."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for run in read(path):
        groups[run["kind"], run["form"], run["passes"], run["decay"], tuple(run["ranks"])].append(run)
    table = Table("run", "rank", "lr", "seeds", "last iterate", "average", "s a step")
    for (kind, form, passes, _decay, ranks), runs in groups.items():
        best = max((run for run in runs if run["seed"] == 0), key=score)["lr"]
        chosen = [run for run in runs if run["lr"] == best]
        for index, rank in enumerate(ranks):
            cells = []
            for what in ("last", "average"):
                values = [run["quality"][what]["test"][index] for run in chosen]
                cells.append(f"{np.mean(values):.4f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.4f}")
            seconds = f"{np.median([run['s_per_step'] for run in chosen]):.3f}"
            name = kind if kind == "dedicated" else f"{kind}, {passes} passes"
            table.add_row(f"{name}, {form}", str(rank), f"{best:g}", str(len(chosen)), *cells, seconds)
    Console(width=120).print(table)


def numbers(text: str) -> list[float]:
    """Comma-separated numbers."""
    return [float(part) for part in text.split(",")]


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dedicated", type=numbers, default=[])
    parser.add_argument("--nested", type=int, default=0, metavar="PASSES")
    parser.add_argument("--form", choices=("lora", "svd"), default="lora")
    parser.add_argument("--decay", type=float, default=RATE_DECAY)
    parser.add_argument("--max-rank", type=int, default=32)
    parser.add_argument("--lrs", type=numbers, default=[6e-3])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    for rank in arguments.dedicated:
        setting = {"kind": "dedicated", "form": arguments.form, "passes": 1, "decay": 0.0, "ranks": [int(rank)]}
        sweep(arguments, setting)
    if arguments.nested:
        ranks = [2**k for k in range(arguments.max_rank.bit_length())]
        sweep(
            arguments,
            {
                "kind": "nested",
                "form": arguments.form,
                "passes": arguments.nested,
                "decay": arguments.decay,
                "ranks": ranks,
            },
        )
    if arguments.table:
        show(arguments.out)


if __name__ == "__main__":
    main()
