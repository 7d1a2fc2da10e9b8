"""Judging a stream policy by real rounds: recorded jobs that it was not trained on, real encoding and measuring."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from airlora.config import RunConfig
from airlora.env.evaluation import EVALUATION_FILE
from airlora.env.stream_links import draw_link
from airlora.env.stream_record import record_job, recorded_config
from airlora.env.stream_settings import HELD_OUT_JOBS, StreamJob
from airlora.env.stream_table import JobTable
from airlora.errors import OutputError
from airlora.job import Job, build_job
from airlora.link import Link, make_link
from airlora.play import Play, Quality
from airlora.policy import Policy, make_policy
from airlora.policy.stream_policy import DEFAULT_AIRTIME_WEIGHT
from airlora.trajectory import RecordedCloud

RULES = ("fit", "flood")


def evaluate_stream_policy(
    folder: Path | None,
    *,
    episodes: int = 6,
    jobs: Sequence[StreamJob] = HELD_OUT_JOBS,
    links: Sequence[str] = (),
    recordings: Path,
    seed: int = 0,
    airtime_weight: float = DEFAULT_AIRTIME_WEIGHT,
    rules: Sequence[str] = RULES,
    on_stage: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Play a policy and rules over the same jobs and links, round by round as ``airlora run`` does.

    Args:
        folder: of the policy; None for the one in the package.
        episodes: links of each job: ``links`` in turn, or drawn as in training, by seeds it has not seen.
        jobs: recorded if they are not in ``recordings`` yet.
        seed: of the links. airtime_weight: λ of the policy. rules: SPECs to compare with.
        on_stage: told what takes a while.

    Returns:
        ``arms``: SPEC -> means over all rounds of ``gain``, ``airtime``, ``bytes_on_air`` (a round) and of the reward
        at λ = 0, 0.1 and 1, and for each rule ``over``: paired differences in reward at ``airtime_weight`` and gain
        as (mean, standard error) over episodes.

    Raises:
        InputError, StoreError: a policy, a job or a link cannot be used.
    """
    own = (
        f"airllm:airtime_weight={airtime_weight}"
        if folder is None
        else f"airllm:{folder},airtime_weight={airtime_weight}"
    )
    played: dict[str, list[dict[str, float]]] = {spec: [] for spec in (own, *rules)}
    for job in jobs:
        path = recordings / job.name
        table = record_job(job, path, on_stage)
        config = recorded_config(job, path)
        stage = build_job(config, make_policy("fit", 0), make_link(config.link, 0))
        quality = Quality(stage, config.validation_limit)
        for episode in range(episodes):
            if links:
                link = make_link(links[episode % len(links)], seed + episode)
            else:
                rng = np.random.default_rng([seed, 31, episode])
                link = draw_link(rng, table.schema.plain_lora_bytes(), table.rounds, config.deadline_s, config.period_s)
            for spec, rows in played.items():
                on_stage(f"{job.name}, link {episode + 1} of {episodes}: {spec}")
                rows.append(_play(config, stage, quality, table, path, link, make_policy(spec, seed)))
    result = {
        "episodes": episodes * len(jobs),
        "jobs": [job.name for job in jobs],
        "seed": seed,
        "airtime_weight": airtime_weight,
        "arms": {spec: _mean(rows) for spec, rows in played.items()},
        "over": {
            rule: {
                name: _paired(
                    [_value(row, name, airtime_weight) for row in played[own]],
                    [_value(row, name, airtime_weight) for row in played[rule]],
                )
                for name in ("reward", "gain", "airtime")
            }
            for rule in rules
        },
        "episodes_gain": {spec: [row["gain"] for row in rows] for spec, rows in played.items()},
        "episodes_airtime": {spec: [row["airtime"] for row in rows] for spec, rows in played.items()},
    }
    if folder is not None:
        try:
            (folder / EVALUATION_FILE).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{folder / EVALUATION_FILE} cannot be written: {error}") from error
    return result


def _play(
    config: RunConfig, job: Job, quality: Quality, table: JobTable, path: Path, link: Link, policy: Policy
) -> dict[str, float]:
    """Means over the rounds of one episode."""
    play = Play(config, job, link, policy, RecordedCloud(path, table.schema), quality)
    play.base_quality = table.base_quality
    rows = [play.next_round(lambda: None)[0] for _ in range(table.rounds)]
    span = table.final_quality - table.base_quality
    return {
        "gain": float(np.mean([(row["edge_quality"] - table.base_quality) / span for row in rows])),
        "airtime": float(np.mean([row["airtime_s"] for row in rows])) / config.deadline_s,
        "bytes_on_air": float(np.mean([row["bytes_on_air"] for row in rows])),
    }


def _value(row: dict[str, float], name: str, weight: float) -> float:
    return row["gain"] - weight * row["airtime"] if name == "reward" else row[name]


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    rewards = {f"reward_{weight:g}": means["gain"] - weight * means["airtime"] for weight in (0.0, 0.1, 1.0)}
    return {**means, **rewards}


def _paired(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """(mean, standard error) of the differences; the error of a single one is 0."""
    difference = np.subtract(ours, theirs)
    error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return float(difference.mean()), float(error)
