"""Tune learning rates on the validation split, for our training and for every peer.

    python benchmarks/tune.py SUITE --data-root ROOT --out rates.toml [--jobs NAME …] [--peers SPEC …] [--parallel K]
    airlora compare SUITE --data-root ROOT --rates rates.toml …

For each job of the suite, each training of ours, and each method and shape among its peers, the learning rate starts
from the built-in one and goes up or down by factors of two as long as quality on the validation split gets better, in
the mean over the rounds: what a comparison asks of an edge that everything reaches. Once it is found, so does the rate
of a trained head, from our built-in one for everybody. A file (``--start``) gives both rates to start from. Ours are
``nested-R``, R the largest prefix, judged by the mean over all of them, and ``fixed-R`` (one rank alone) and
``adalora-R``, judged whole. Every trial is one whole training of all rounds' steps, seed 0, and is kept in OUT.jsonl,
so that a tuning that was stopped goes on where it was. The test split is never touched.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tomli_w

from airlora.compare.command import Options, read_rates, resolve
from airlora.compare.peer_training import PeerTraining
from airlora.compare.peers import Peer
from airlora.compare.plan import Rates, trained_rank
from airlora.config import RunConfig
from airlora.errors import AirLoraError
from airlora.job import build_job, load_workload
from airlora.link import make_link
from airlora.play import Quality
from airlora.policy import make_policy
from airlora.rates import automatic_head_lr

FACTOR = 2.0
MOST_MOVES = 4
FAILED = float("-inf")


@dataclass(frozen=True)
class Task:
    """One arm of one job whose rates are sought; ``peer`` None: ours, ``start`` empty: from the built-in rates."""

    job: str
    arm: str
    config: RunConfig
    peer: Peer | None
    start: Mapping[str, float]


@dataclass(frozen=True)
class Rate:
    """What is tried: the adapter's rate, and the head's over it."""

    lr: float
    head: float = 1.0

    @classmethod
    def of(cls, lr: float, head_lr: float) -> Rate:
        """From the two rates; the second is 0 where there is no head."""
        return cls(lr, _round(head_lr / lr) if head_lr else 1.0)


def climb(start: Rate, score: Callable[[Rate], float], has_head: bool) -> tuple[Rate, float]:
    """The best rate found: by factors of two uphill from ``start`` with the head's as it is, then so the head's.

    Args:
        start: where to begin.
        score: higher is better.
        has_head: whether a head's rate is to be tried.
    """
    best, best_score = start, score(start)
    for scaled in (_with_lr, _with_head) if has_head else (_without_head,):
        for factor in (FACTOR, 1 / FACTOR):
            moved = False
            for _ in range(MOST_MOVES):
                tried = scaled(best, factor)
                tried_score = score(tried)
                if tried_score <= best_score:
                    break
                best, best_score, moved = tried, tried_score, True
            if moved:
                break
    return best, best_score


def _with_lr(rate: Rate, factor: float) -> Rate:
    return Rate(_round(rate.lr * factor), _round(rate.head / factor))


def _without_head(rate: Rate, factor: float) -> Rate:
    return replace(rate, lr=_round(rate.lr * factor))


def _with_head(rate: Rate, factor: float) -> Rate:
    return replace(rate, head=_round(rate.head * factor))


def _round(value: float) -> float:
    return float(f"{value:.4g}")


class Trials:
    """Scores of a task, each trained once and kept in a file."""

    def __init__(self, task: Task, log: Path):
        self.task = task
        self._log = log
        self._known: dict[Rate, float] = {}
        for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
            row = json.loads(line)
            if (row["job"], row["arm"]) == (task.job, task.arm):
                score = FAILED if row["score"] is None else row["score"]
                self._known[Rate(row["lr"], row["head"])] = score

    def score(self, rate: Rate) -> float:
        """Quality on the validation split, negated where lower is better, mean over the rounds; −inf where training
        diverged."""
        if rate not in self._known:
            try:
                value = self._train(rate)
            except AirLoraError as error:
                print(f"{self.task.job} {self.task.arm} {rate}: {error}", flush=True)
                value = FAILED
            self._known[rate] = value
            row = {"job": self.task.job, "arm": self.task.arm, "lr": rate.lr, "head": rate.head}
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**row, "score": None if value == FAILED else value}) + "\n")
            print(f"{self.task.job} {self.task.arm} lr {rate.lr:g} head ×{rate.head:g}: {value:.4f}", flush=True)
        return self._known[rate]

    def _train(self, rate: Rate) -> float:
        task, config = self.task, self.task.config
        if task.peer is not None:
            training = PeerTraining(replace(task.peer, lr=rate.lr, head=rate.head), config)
            qualities = []
            for index in range(config.rounds):
                training.train_round(index)
                qualities.append(training.quality("validation"))
            quality = float(np.mean(qualities))
            return quality if training.workload.higher_is_better else -quality
        config = replace(config, lr=rate.lr, head_lr=rate.lr * rate.head)
        policy = make_policy(config.policy, 0)
        job = build_job(config, policy, make_link("awgn", 0))
        prefixes = job.adapter.schema.prefixes if policy.training == "nested" else [config.max_rank]
        measure, edge = Quality(job, config.validation_limit), job.initial_edge
        qualities = []
        for index in range(config.rounds):
            job.trainer.strategy.begin_round(edge.stored_factors(), edge.active_ranks)
            job.trainer.train(index * config.steps_per_round, config.steps_per_round, lambda *_: None)
            factors = job.trainer.factors()
            qualities += [measure.of(factors.truncate(np.minimum(prefix, factors.ranks))) for prefix in prefixes]
        quality = float(np.mean(qualities))
        return quality if job.workload.higher_is_better else -quality


def tune(task: Task, log: Path) -> tuple[Task, Rate, float]:
    """Find the rates of one task."""
    trials = Trials(task, log)
    if task.peer is None:
        job = build_job(task.config, make_policy(task.config.policy, 0), make_link("awgn", 0))
        lr, head_lr, has_head = task.start.get("lr", job.lr), job.head_lr, bool(job.workload.head)
    else:
        training = PeerTraining(task.peer, task.config)
        lr, has_head = task.start.get("lr", training.lr), bool(training.workload.head)
        head_lr = automatic_head_lr(load_workload(task.config), lr)
    start = Rate(lr, task.start["head"]) if "head" in task.start else Rate.of(lr, head_lr)
    return task, *climb(start, trials.score, has_head)


def find_tasks(options: Options, start: Rates) -> list[Task]:
    """One task for each training of ours and for each tuning key of the peers, for each job.

    Args:
        options: of the comparison.
        start: rates to start from, where there are any.
    """
    comparison = resolve(options)
    tasks = []
    for name, config in comparison.jobs.items():
        once, known = replace(config, seed=0), start.get(name, {})
        # Of the policies that train at one rate the first one named is trained. One whose rank follows the link is not:
        # it takes the rates of the ranks that are named.
        made = {spec: make_policy(spec, 0) for spec in reversed(comparison.policies.values())}
        ranks = {spec: trained_rank(policy, config.max_rank) for spec, policy in made.items()}
        ours = {f"{made[spec].training}-{rank}": spec for spec, rank in ranks.items() if rank is not None}
        tasks += [Task(name, key, replace(once, policy=spec), None, known.get(key, {})) for key, spec in ours.items()]
        keys = {peer.tuning_key: peer for peer in comparison.peers.values() if peer.steps == 1 and peer.lr is None}
        tasks += [Task(name, key, once, peer, known.get(key, {})) for key, peer in keys.items()]
    return tasks


def main() -> None:
    """Tune everything and write the rates after every task."""
    parser = argparse.ArgumentParser(description="Tune learning rates on the validation split.")
    parser.add_argument("suite")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", type=Path, default=Path("rates.toml"))
    parser.add_argument("--start", type=Path, help="rates in TOML to start from")
    parser.add_argument("--jobs", action="append", default=[])
    parser.add_argument("--policies", action="append", default=[], help="'none' leaves our own training out")
    parser.add_argument("--peers", action="append", default=[])
    parser.add_argument("--parallel", type=int, default=1)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    options = Options(
        out=given.out,
        suite=given.suite,
        jobs=tuple(given.jobs),
        policies=tuple(given.policies),
        peers=tuple(given.peers),
        data_root=given.data_root,
    )
    try:
        tasks = find_tasks(options, read_rates(given.start) if given.start else {})
    except AirLoraError as error:
        parser.error(str(error))
    log = given.out.with_suffix(".jsonl")
    log.parent.mkdir(parents=True, exist_ok=True)
    rates: dict[str, dict[str, dict[str, float]]] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.parallel, mp_context=context) as pool:
        for future in as_completed([pool.submit(tune, task, log) for task in tasks]):
            task, best, score = future.result()
            found = {"lr": best.lr, "head": best.head, "quality": round(abs(score), 5)}
            rates.setdefault(task.job, {})[task.arm] = found
            given.out.write_text(tomli_w.dumps(rates), encoding="utf-8")
            print(f"{task.job} {task.arm}: lr {best.lr:g}, head ×{best.head:g}, quality {abs(score):.4f}", flush=True)


if __name__ == "__main__":
    main()
