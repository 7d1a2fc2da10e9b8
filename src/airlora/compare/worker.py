"""Running a comparison: record each job's trajectory once, replay it for every arm, skip what is there."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from airlora.compare.plan import Arm, Comparison, Unit
from airlora.job import Job, build_job, resolve_policy
from airlora.link import Link, make_link
from airlora.play import Play, Quality, train_head_only
from airlora.policy import Policy, make_policy
from airlora.trajectory import LiveCloud, RecordedCloud, record_round

_POLL_S = 2.0


def run_comparison(comparison: Comparison, out: Path, parallel: int, on_progress: Callable[[int, int], None]) -> None:
    """Run every arm that has no summary yet.

    Args:
        comparison: the grid.
        out: folder; what is there already is kept and not computed again.
        parallel: processes, one unit each.
        on_progress: told (arms done, arms in all) now and then.
    """
    units = list(comparison.units())
    arms = [arm for unit in units for arm in unit.arms]

    def report() -> None:
        on_progress(sum((out / arm.folder / "summary.json").exists() for arm in arms), len(arms))

    report()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(parallel, mp_context=context, initializer=_end_with_parent) as pool:
        pending = {pool.submit(run_unit, unit, out) for unit in units}
        while pending:
            finished, pending = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()
            report()


def _end_with_parent() -> None:
    """End this process when the one that started it is killed, so that nobody writes beside a resumed comparison."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_unit(unit: Unit, out: Path) -> None:
    """Run the arms of one job and seed."""
    waiting = [arm for arm in unit.arms if not (out / arm.folder / "summary.json").exists()]
    if not waiting:
        return
    first = unit.arms[0].config
    job = build_job(replace(first, policy="fit"), make_policy("fit", unit.seed), make_link(first.link, unit.seed))
    bench = _Bench(unit, out / unit.recordings, job, Quality(job, first.validation_limit))
    for arm in waiting:
        bench.run_arm(arm, out / arm.folder)


@dataclass
class _Bench:
    unit: Unit
    recordings: Path
    job: Job
    quality: Quality

    def run_arm(self, arm: Arm, folder: Path) -> None:
        started = time.perf_counter()
        config = arm.config
        link = make_link(config.link, config.seed)
        policy = resolve_policy(make_policy(config.policy, config.seed), link, self.job.adapter.schema, config)
        recording = self._recording(arm, policy, link)
        references = json.loads((recording / "complete.json").read_text(encoding="utf-8"))
        cloud = RecordedCloud(recording, self.job.adapter.schema)
        play = Play(config, self.job, link, policy, cloud, self.quality)
        play.base_quality = self.quality.of_edge(play.edge)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "rounds.jsonl").open("w", encoding="utf-8") as file:
            for _ in range(config.rounds):
                row, _ = play.next_round(lambda: None)
                row["capacity_bytes"] = capacity_bytes(link, row["t_s"], config.deadline_s)
                file.write(json.dumps(row, allow_nan=False) + "\n")
        summary = {
            "job": arm.job,
            "link": arm.link,
            "policy": arm.policy,
            "seed": config.seed,
            **references,
            "edge_quality": self.quality.of_edge(play.edge, "test"),
            "plain_lora_bytes": self.job.adapter.schema.plain_lora_bytes(),
            "wall_s": round(time.perf_counter() - started, 3),
        }
        (folder / "config.toml").write_text(config.to_toml(), encoding="utf-8")
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")

    def _recording(self, arm: Arm, policy: Policy, link: Link) -> Path:
        """The folder of the trajectory this policy needs, made if it is not there."""
        rank = getattr(policy, "rank", None) if policy.training == "adalora" else None
        folder = self.recordings / (policy.training if rank is None else f"{policy.training}-{rank}")
        if (folder / "complete.json").exists():
            return folder
        started = time.perf_counter()
        # A job of its own: training changes the parameters, and AdaLoRA another form of them.
        job = build_job(arm.config, policy, link)
        cloud = LiveCloud(job.trainer, arm.config.steps_per_round, Quality(job, arm.config.validation_limit).of)
        for index in range(arm.config.rounds):
            last = cloud.advance(index, lambda: None)
            record_round(folder, index, last)
        quality = self.quality
        references: dict[str, Any] = {
            "metric": job.workload.metric,
            "higher_is_better": job.workload.higher_is_better,
            "base_quality": quality.of_edge(self.job.initial_edge, "test"),
            "head_only_quality": self._head_only(),
            "cloud_quality": quality.of(last.factors.truncate(last.trained_ranks), "test"),
            "lr": job.lr,
            "training_s": round(time.perf_counter() - started, 3),
        }
        (folder / "complete.json").write_text(json.dumps(references), encoding="utf-8")
        return folder

    def _head_only(self) -> float | None:
        if not self.job.workload.head:
            return None
        path = self.recordings / "head-only.json"
        if not path.exists():
            config = self.unit.arms[0].config
            value = self.quality.of(train_head_only(self.job, config), "test")
            path.write_text(json.dumps(value), encoding="utf-8")
        return float(json.loads(path.read_text(encoding="utf-8")))


def capacity_bytes(link: Link, t_s: float, deadline_s: float) -> int:
    """Bytes that the link would have carried from ``t_s`` to the deadline, whatever was offered."""
    return link.transmit([2**62], t_s, deadline_s).bytes_on_air
