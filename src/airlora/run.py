"""The main job: a cloud adapts a model round by round, a link carries what it can, the edge gets better."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from airlora import report
from airlora.config import RunConfig
from airlora.job import Job, build_job
from airlora.link import make_link
from airlora.play import REFERENCE_RANK, Play, Quality, train_head_only
from airlora.policy import make_policy
from airlora.runfolder import RunFolder, check_folder
from airlora.trajectory import LiveCloud


class Listener:
    """Who watches a run; override what is of interest."""

    def on_stage(self, stage: str) -> None:
        """Something that takes a while begins."""

    def on_start(self, job: Job, done: int) -> None:
        """Training begins, with ``done`` rounds done in an earlier sitting."""

    def on_step(self) -> None:
        """A training step was taken."""

    def on_round(self, row: dict[str, Any]) -> None:
        """A round was finished and saved."""


def run(config: RunConfig, out: Path, *, resume: bool = False, listener: Listener | None = None) -> dict[str, Any]:
    """Run a job to its end and return its summary.

    Writes into ``out`` the files of the command contract; whenever it is stopped the folder can be resumed.

    Raises:
        InputError: something the user gave cannot be used; nothing was written.
        StoreError: the folder cannot be resumed.
        TrainingError: training diverged; everything up to the last finished round is kept.
        KeyboardInterrupt: passed on; everything up to the last finished round is kept.
    """
    listener = listener or Listener()
    started = time.perf_counter()
    check_folder(out, resume)
    link = make_link(config.link, config.seed)
    job = build_job(config, make_policy(config.policy, config.seed), link)
    quality = Quality(job, config.validation_limit, config.test_limit, config.guard_limit)
    cloud = LiveCloud(job.trainer, config.steps_per_round, quality.of)
    play = Play(config, job, link, job.policy, cloud, quality)
    folder = RunFolder(out)
    folder.prepare(config, job)
    if folder.has_checkpoint:
        folder.load(play, cloud)
    else:
        listener.on_stage("measuring the base model")
        play.base_quality = quality.of_edge(play.edge)
        folder.save(play, cloud)
    listener.on_start(job, play.round)
    for _ in range(play.round, config.rounds):
        row, update = play.next_round(listener.on_step)
        folder.add_round(row, update)
        folder.save(play, cloud)
        listener.on_round(row)
    listener.on_stage("measuring on the test split")
    summary = summarise(play, folder.rows(), wall_s=play.wall_s + time.perf_counter() - started)
    folder.finish(summary, play)
    listener.on_stage("drawing the report")
    report.write_report(out)
    return summary


def summarise(play: Play, rows: list[dict[str, Any]], wall_s: float) -> dict[str, Any]:
    """The run in a few figures; the only place where the test split is touched."""
    workload, quality = play.job.workload, play.quality
    base = play.job.initial_edge.factors()
    cloud = play.job.trainer.factors().truncate(play.job.trainer.strategy.trained_ranks(play.job.adapter))
    head_only = train_head_only(play.job, play.config) if workload.head else None
    return {
        "metric": workload.metric,
        "higher_is_better": workload.higher_is_better,
        "base_quality": quality.of(base, "test"),
        "head_only_quality": quality.of(head_only, "test") if head_only else None,
        "cloud_quality": quality.of(cloud, "test"),
        "edge_quality": quality.of(play.edge.factors(), "test"),
        "validation": {
            "base_quality": play.base_quality,
            "cloud_quality": rows[-1]["cloud_quality"],
            "edge_quality": rows[-1]["edge_quality"],
        },
        "bytes_on_air": sum(row["bytes_on_air"] for row in rows),
        "rounds": len(rows),
        "missed": sum(row["missed"] for row in rows),
        "delivered": play.edge.delivered,
        "reference": {
            "bytes": play.job.adapter.schema.plain_lora_bytes(REFERENCE_RANK) * len(rows),
            "bytes_on_air": sum(row["reference"]["bytes"] for row in rows),
            "missed": sum(not row["reference"]["delivered"] for row in rows),
            "rounds": len(rows),
        },
        "lr": play.job.lr,
        "head_lr": play.job.head_lr,
        "wall_s": round(wall_s, 3),
        "seed": play.config.seed,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("airlora", "numpy", "torch", "transformers", "safetensors")},
        },
    }
