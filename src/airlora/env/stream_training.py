"""Training a policy in stream mode: recordings, iterations, metrics, checkpoints, and going on after a stop."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from airlora.checkpoint import read_checkpoint, write_checkpoint
from airlora.env.folder import TrainingFolder
from airlora.env.settings import read_settings
from airlora.env.stream import StreamEnv
from airlora.env.stream_baseline import AgainstRule
from airlora.env.stream_record import record_job
from airlora.env.stream_settings import StreamTrainingConfig
from airlora.env.stream_teacher import Plays, Teacher, fit_teacher, play_variations, room_of
from airlora.env.surrogate import Surrogate
from airlora.errors import StoreError
from airlora.policy.stream_action import StreamDecoding
from airlora.policy.stream_agent import StreamAgent, Teaching
from airlora.policy.stream_policy import StreamCard, save_stream_policy
from airlora.policy.tokens import GLOBAL_SIZE, TOKEN_SIZE, View

_FIRST_EPISODE = 10_000
"""Seeds of the pool's episodes begin here; those below are for evaluation."""


@dataclasses.dataclass
class Watcher:
    """Who watches a training; override what is of interest."""

    def on_stage(self, stage: str) -> None:
        """Something that takes a while begins."""

    def on_progress(self, stage: str, done: int, total: int) -> None:
        """How far something is that takes long."""

    def on_iteration(self, row: dict[str, Any], iterations: int) -> None:
        """A row of ``metrics.jsonl``, and how many there will be."""


class StreamTraining:
    """A policy, its environments and its folder.

    Args:
        config: all of it. folder: where it is kept. on_stage: told what takes a while.
    """

    def __init__(
        self, config: StreamTrainingConfig, folder: TrainingFolder, on_stage: Callable[[str], None] = lambda _: None
    ):
        torch.set_num_threads(1)
        self.config, self.folder = config, folder
        recordings = Path(config.recordings) if config.recordings else folder.path / "recordings"
        self.jobs = [Surrogate(record_job(job, recordings / job.name, on_stage)) for job in config.jobs]
        known: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        pool = range(_FIRST_EPISODE, _FIRST_EPISODE + config.pool)
        environments = [
            AgainstRule(self._env(), pool, known=known, group=config.group) for _ in range(config.environments)
        ]
        self.agent = StreamAgent(
            environments,
            config.ppo,
            config.ddim,
            episode_steps=config.jobs[0].rounds,
            seed=config.seed,
            group=config.group,
            refine=config.refine,
        )
        self._pending: list[dict[str, Any]] = []

    def _env(
        self, decoding: StreamDecoding | None = None, airtime_weights: tuple[float, ...] | None = None
    ) -> StreamEnv:
        config = self.config
        return StreamEnv(
            self.jobs,
            airtime_weights=airtime_weights or config.airtime_weights,
            deadline_s=config.deadline_s,
            decoding=decoding or config.decoding,
            hidden=config.hidden,
        )

    def imitate(self, on_progress: Callable[[str, int, int], None] = lambda *_: None) -> None:
        """Before the first iteration.

        Args:
            on_progress: told a stage, what is done of it, and how much there is.

        Raises:
            StoreError: what an earlier start kept of the teachers cannot be used, or nothing can be written.
        """
        config = self.config
        teacher: Teaching | None = None
        if config.teacher_episodes:
            found = self._find_teachers(on_progress)

            def teacher(view: View) -> np.ndarray:
                return found[view.airtime_weight].choose(room_of(view), view.observation.past_rates)

        self.agent.imitate(self._env(), config.imitation_steps, config.imitation_updates, teacher, on_progress)

    def _find_teachers(self, on_progress: Callable[[str, int, int], None]) -> dict[float, Teacher]:
        """A teacher for each λ. Every episode played is kept, so that a training that was stopped goes on there."""
        weights, count = sorted(set(self.config.airtime_weights)), self.config.teacher_episodes
        wanted = [(weight, _FIRST_EPISODE + index) for weight in weights for index in range(count)]
        plays = self._kept_plays(wanted)
        envs = {weight: self._env("residual", (weight,)) for weight in weights}
        for weight, episode in wanted[len(plays) :]:
            on_progress(f"variations of fit, λ = {weight:g}", len(plays), len(wanted))
            plays.append(play_variations(envs[weight], episode))
            row = {"airtime_weight": weight, "episode": episode, **dataclasses.asdict(plays[-1])}
            self.folder.append_plays(row)
        return {weight: fit_teacher(plays[at * count :][:count]) for at, weight in enumerate(weights)}

    def _kept_plays(self, wanted: list[tuple[float, int]]) -> list[Plays]:
        """Of the first ones of these λ and episodes."""
        rows = self.folder.plays()
        try:
            kept = [(row["airtime_weight"], row["episode"]) for row in rows]
            plays = [Plays(row["room"], row["surprise"], tuple(row["rewards"]), row["blind"]) for row in rows]
        except (KeyError, TypeError):
            kept, plays = [], []
        if len(kept) < len(rows) or kept != wanted[: len(rows)]:
            raise StoreError(f"{self.folder.path} has episodes of other teachers; train in another folder")
        return plays

    def iterate(self) -> dict[str, Any]:
        """One iteration; returns its row.

        Raises:
            TrainingError: training diverged.
        """
        started = time.perf_counter()
        metrics = self.agent.iterate()
        row: dict[str, Any] = {"iteration": self.agent.iterations - 1, **metrics, "replay": len(self.agent.replay)}
        row = {
            key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in row.items()
        }
        row["wall"] = {"iteration_s": round(time.perf_counter() - started, 6)}
        self._pending.append(row)
        return row

    def save(self) -> None:
        """Write metrics, the policy, and last the checkpoint that the next iteration follows from.

        Raises:
            StoreError: something cannot be written.
        """
        self.folder.append_metrics(self._pending)
        self._pending = []
        tensors = {name: tensor.detach().cpu().numpy() for name, tensor in self.agent.networks().items()}
        save_stream_policy(self.folder.path, self.card(), tensors)
        write_checkpoint(self.folder.checkpoint, self.agent.state(), {"iterations": self.agent.iterations})

    def load(self) -> None:
        """Go back to the last checkpoint; metrics written after it are dropped.

        Raises:
            StoreError: the checkpoint is missing, corrupt, or of another configuration.
        """
        path = self.folder.checkpoint
        tensors, data = read_checkpoint(path)
        try:
            self.agent.load_state(tensors)
            self.folder.keep_metrics(data["iterations"])
        except (KeyError, ValueError, TypeError, RuntimeError, OSError) as error:
            raise StoreError(f"{path} cannot be used ({error}); train in another folder") from error

    def card(self) -> StreamCard:
        """What the policy file says of itself."""
        config = self.config
        trained = {
            "jobs": [dataclasses.asdict(job) for job in config.jobs],
            "links": "airlora.env.stream_links.draw_link",
            "pool": config.pool,
            "airtime_weights": list(config.airtime_weights),
            "seed": config.seed,
            "episodes": self.agent.iterations * config.environments * config.ppo.rollout_episodes,
        }
        return StreamCard(
            "airllm",
            "stream",
            config.decoding,
            GLOBAL_SIZE,
            TOKEN_SIZE,
            config.ppo,
            config.ddim,
            trained,
            config.hidden,
            config.refine,
        )


def train_stream_policy(
    config: StreamTrainingConfig, out: Path, *, resume: bool = False, watcher: Watcher | None = None
) -> int:
    """Train a policy and write ``config.toml``, recordings, what the teachers are made of (``teachers.jsonl``),
    ``metrics.jsonl``, ``policy.safetensors``, and a checkpoint.

    Args:
        config: all of it; to resume, that of the folder (``stored_stream_config``).
        out: new or empty, or with ``resume`` a folder that this function wrote.
        watcher: told what happens.

    Returns:
        Iterations trained.

    Raises:
        InputError: the configuration or the folder cannot be used.
        StoreError: the folder cannot be resumed or written.
        TrainingError: training diverged; everything up to the last checkpoint is kept.
    """
    watcher = watcher or Watcher()
    folder = TrainingFolder(out)
    folder.check(resume)
    folder.prepare(config.to_toml())
    training = StreamTraining(config, folder, watcher.on_stage)
    if resume and folder.checkpoint.exists():
        training.load()
    else:
        folder.keep_metrics(0)
        training.imitate(watcher.on_progress)
    while training.agent.iterations < config.iterations:
        row = training.iterate()
        watcher.on_iteration(row, config.iterations)
        done = training.agent.iterations
        if done == config.iterations or done % config.checkpoint_every == 0:
            training.save()
    return training.agent.iterations


def stored_stream_config(out: Path) -> StreamTrainingConfig:
    """The configuration of the training in a folder.

    Raises:
        OutputError: the folder holds none. InputError: it cannot be read.
    """
    config: StreamTrainingConfig = read_settings(StreamTrainingConfig, {}, TrainingFolder(out).stored_config())
    return config
