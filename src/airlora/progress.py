"""What a person sees while a run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from airlora.config import RunConfig, load_config
from airlora.errors import OutputError
from airlora.job import Job
from airlora.report.units import bytes_text, quality_text
from airlora.run import Listener, run


def run_with_progress(config: RunConfig, out: Path, resume: bool, console: Console) -> dict[str, Any]:
    """Run a job under a progress bar with round, link, bytes and edge quality."""
    if resume and (out / "config.toml").is_file():
        config = load_config({}, out / "config.toml")
    elif resume:
        raise OutputError(f"{str(out)!r} holds no run to resume; leave out --resume to start one there")
    steps = config.rounds * config.steps_per_round
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        task = progress.add_task("loading model and data", total=steps)
        metric = "accuracy"

        def start(job: Job, done: int) -> None:
            nonlocal metric
            metric = job.workload.metric
            schema = job.adapter.schema
            console.print(
                f"{len(schema.projections)} projections up to rank {max(schema.prefixes)}, learning rate {job.lr:g}; "
                f"a plain fp32 LoRA of rank 8 would be {bytes_text(schema.plain_lora_bytes())} a round",
                highlight=False,
            )
            progress.update(task, completed=done * config.steps_per_round, description=f"round {done + 1}")

        def on_round(row: dict[str, Any]) -> None:
            progress.update(task, description=_describe(row, metric, config.rounds))

        return run(
            config,
            out,
            resume=resume,
            listener=Listener(
                on_start=start,
                on_step=lambda: progress.advance(task),
                on_round=on_round,
                on_stage=lambda stage: progress.update(task, description=stage),
            ),
        )


def _describe(row: dict[str, Any], metric: str, rounds: int) -> str:
    rate = row["link"]["rate_bps"]
    link = "rate unknown" if rate is None else f"{rate / 1e6:.3g} Mbit/s"
    missed = " missed" if row["missed"] else ""
    return (
        f"round {row['round'] + 1}/{rounds} · {link} · {bytes_text(row['bytes_delivered'])}{missed}"
        f" · edge {quality_text(row['edge_quality'], metric)} (cloud {quality_text(row['cloud_quality'], metric)})"
    )
