"""What a person sees while a run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID

from airlora.bar import progress_bar
from airlora.config import RunConfig
from airlora.job import Job
from airlora.policy.rules import Alone
from airlora.report.units import bytes_text, quality_text
from airlora.run import Listener, run


class ProgressBar(Listener):
    """A progress bar with round, link, bytes and edge quality."""

    def __init__(self, config: RunConfig, progress: Progress):
        self._config = config
        self._progress = progress
        self._task: TaskID = progress.add_task("loading model and data", total=config.rounds * config.steps_per_round)
        self._metric = ""

    def on_stage(self, stage: str) -> None:
        """Name the stage."""
        self._progress.update(self._task, description=stage)

    def on_start(self, job: Job, done: int) -> None:
        """Say what is adapted."""
        self._metric = job.workload.metric
        schema = job.adapter.schema
        smallest, largest = min(schema.prefixes), max(schema.prefixes)
        if isinstance(job.policy, Alone) and job.policy.grows:
            ranks = f"at rank {smallest} alone, up to {largest} where the link carries it"
        else:
            ranks = f"up to rank {largest}" if smallest < largest else f"at rank {largest} alone"
        self._progress.console.print(
            f"{len(schema.projections)} projections {ranks}, learning rate {job.lr:g}; "
            f"a plain fp32 LoRA of rank 8 is {bytes_text(schema.plain_lora_bytes())}",
            highlight=False,
        )
        self._progress.update(
            self._task, completed=done * self._config.steps_per_round, description=f"round {done + 1}"
        )

    def on_step(self) -> None:
        """Advance."""
        self._progress.advance(self._task)

    def on_round(self, row: dict[str, Any]) -> None:
        """Say what the round brought."""
        rate = row["link"]["rate_bps"]
        link = "rate unknown" if rate is None else f"{rate / 1e6:.3g} Mbit/s"
        missed = " missed" if row["missed"] else ""
        edge, cloud = (quality_text(row[f"{who}_quality"], self._metric) for who in ("edge", "cloud"))
        self._progress.update(
            self._task,
            description=f"round {row['round'] + 1}/{self._config.rounds} · {link} · "
            f"{bytes_text(row['bytes_delivered'])}{missed} · edge {edge} (cloud {cloud})",
        )


def run_with_progress(config: RunConfig, out: Path, resume: bool, console: Console) -> dict[str, Any]:
    """Run a job under a progress bar; see ``airlora.run.run``."""
    with progress_bar(console) as progress:
        return run(config, out, resume=resume, listener=ProgressBar(config, progress))
