"""How long a comparison will take, from a short measurement of each job."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from airlora.compare.plan import Arm, Unit, slug
from airlora.compare.worker import waiting_arms
from airlora.config import RunConfig
from airlora.factors import Schema
from airlora.job import build_job, resolve_policy
from airlora.link import make_link
from airlora.play import Play, Quality
from airlora.policy import Policy, make_policy
from airlora.trajectory import LiveCloud

_TIMED_ROUNDS, _STEPS_A_ROUND = 2, 4
"""After a single step little has changed, and few layers are cut and judged; and rounds differ."""
_TIMED_POLICY = "fit:airtime_weight=0.1"
"""With a price of bytes, the ends that look best are measured once more."""
_STARTING_S = 6.0
"""Seconds for a unit's process to import, load and tokenise."""


@dataclass(frozen=True)
class JobTimes:
    """Measured seconds of one job: a training step with all its passes, a single pass, what a round of an arm takes
    beside training (deciding, encoding, applying, measuring), and measuring quality; and the schema at its largest
    ranks, by which links choose trainings."""

    schema: Schema
    step_s: float
    pass_s: float
    round_s: float
    validation_s: float
    test_s: float


def measure_job(config: RunConfig) -> JobTimes:
    """Time a job: two training steps, two single passes, rounds of a rule with a price over its link, one measurement
    on the validation and the test split."""
    policy, link = make_policy(_TIMED_POLICY, config.seed), make_link(config.link, config.seed)
    job = build_job(config, policy, link)
    quality = Quality(job, config.validation_limit, guard_limit=config.guard_limit)
    batch = job.workload.batch(0)
    job.workload.loss(batch).backward()  # warms up
    factors = job.initial_edge.factors()
    play = Play(config, job, link, policy, LiveCloud(job.trainer, _STEPS_A_ROUND, lambda _: 0.0), quality)
    walls = [play.next_round(lambda: None)[0]["wall"] for _ in range(_TIMED_ROUNDS)]
    return JobTimes(
        schema=job.adapter.schema,
        round_s=sum(wall[phase] for wall in walls for phase in wall if phase != "train_s") / _TIMED_ROUNDS,
        pass_s=_fastest(lambda: job.workload.loss(batch).backward(), 2),
        step_s=_fastest(lambda: job.trainer.train(0, 1, lambda *_: None), 2),
        validation_s=_fastest(lambda: quality.of(factors), 1),
        test_s=_fastest(lambda: quality.of(factors, "test"), 1),
    )


def unit_seconds(unit: Unit, out: Path, times: JobTimes) -> float:
    """Estimated seconds of what remains of a unit; 0 if nothing does."""
    waiting = waiting_arms(unit, out)
    if not waiting:
        return 0.0
    config = waiting[0].config
    steps = config.rounds * config.steps_per_round
    seconds = _STARTING_S
    peer = waiting[0].peer
    if peer is None:
        if not (out / unit.recordings / "references.json").exists():
            seconds += steps * times.pass_s / 2 + 2 * times.test_s
        for policy in _to_train(waiting, out / unit.recordings, times.schema):
            step_s = times.step_s if policy.training == "nested" else times.pass_s
            seconds += steps * step_s + config.rounds * times.validation_s + times.test_s
        return seconds + len(waiting) * (config.rounds * times.round_s + times.test_s)
    if not (out / unit.recordings / slug(unit.training) / "complete.json").exists():
        trained = steps * peer.steps * times.pass_s * peer.step_cost
        seconds += trained + 2 * config.rounds * times.validation_s + 2 * times.test_s
    return seconds


def _to_train(arms: Sequence[Arm], recordings: Path, schema: Schema) -> list[Policy]:
    """One policy, its rank resolved, for every training that these arms need and that is not recorded."""
    live: list[Policy] = []
    shared: dict[str, Policy] = {}
    for arm in arms:
        config = arm.config
        link = make_link(config.link, config.seed)
        policy = resolve_policy(make_policy(config.policy, config.seed), link, schema, config)
        if policy.live and config.rounds > 1:
            live.append(policy)
        elif not (recordings / policy.training_key / "complete.json").exists():
            shared[policy.training_key] = policy
    return [*live, *shared.values()]


def total_seconds(seconds: Sequence[float], parallel: int) -> float:
    """Time of units run in this order on ``parallel`` processes."""
    free = [0.0] * parallel
    for unit_s in seconds:
        heapq.heapreplace(free, free[0] + unit_s)
    return max(free)


def estimate(units: Sequence[Unit], out: Path, parallel: int, on_job: Callable[[str], None]) -> float:
    """Estimated seconds of what remains of a comparison; each job is measured once, over the middle one of its links
    by rate: a round takes longer the more it carries."""
    waiting: dict[str, dict[str, RunConfig]] = {}  # job -> link -> the configuration of one of its arms
    for unit in units:
        for arm in waiting_arms(unit, out):
            waiting.setdefault(unit.job, {})[arm.link] = arm.config
    times = {}
    for name, configs in waiting.items():
        on_job(name)
        by_rate = sorted(configs.values(), key=lambda config: make_link(config.link, config.seed).observe(0.0).rate_bps)
        times[name] = measure_job(by_rate[len(by_rate) // 2])
    return total_seconds([unit_seconds(unit, out, times[unit.job]) for unit in units if unit.job in times], parallel)


def as_text(seconds: float) -> str:
    """``40 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _fastest(action: Callable[[], object], times: int) -> float:
    best = float("inf")
    for _ in range(times):
        started = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - started)
    return best
