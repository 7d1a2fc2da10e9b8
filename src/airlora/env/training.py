"""Training a policy: episodes, metrics, checkpoints, early stopping, and going on after a stop."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium
import numpy as np

from airlora.checkpoint import read_checkpoint, write_checkpoint
from airlora.env.folder import TrainingFolder
from airlora.env.paper import PaperEnv
from airlora.env.settings import TrainingConfig, read_training_config
from airlora.errors import StoreError
from airlora.policy.airllm import Agent
from airlora.policy.checkpoint import PolicyCard, save_policy
from airlora.policy.ppo import part

OnEpisode = Callable[[dict[str, Any], int], None]
"""Told a row of ``metrics.jsonl`` and the number of episodes there will be at most."""


class Recorder(gymnasium.Wrapper):
    """Keeps (reward, info) of every step until they are taken."""

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        self._steps: list[tuple[float, dict[str, Any]]] = []

    def step(self, action: np.ndarray) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step and remember."""
        result = self.env.step(action)
        self._steps.append((float(result[1]), result[4]))
        return result

    def take(self) -> list[tuple[float, dict[str, Any]]]:
        """The steps since the last call."""
        steps, self._steps = self._steps, []
        return steps


def summarise_steps(steps: list[tuple[float, dict[str, Any]]]) -> dict[str, Any]:
    """Means over steps (``loss`` over those that trained, None if none did); ``violations`` is a count."""
    rewards, infos = zip(*steps, strict=True)
    losses = [info["loss"] for info in infos if info["loss"] is not None]
    return {
        "steps": len(steps),
        "reward": float(np.mean(rewards)),
        "loss": float(np.mean(losses)) if losses else None,
        "cost": float(np.mean([info["cost"] for info in infos])),
        "violations": sum(bool(info["missed"]) for info in infos),
        "mean_rank": float(np.mean([info["ranks"] for info in infos])),
        "numbers": float(np.mean([info["numbers"] for info in infos])),
    }


@dataclasses.dataclass
class Progress:
    """What early stopping remembers.

    Attributes:
        best: best validation quality so far. stale: measurements since. rewards: of the steps since the last one.
        stopped: training is over before its last episode.
    """

    best: float | None = None
    stale: int = 0
    rewards: list[float] = dataclasses.field(default_factory=list)
    stopped: bool = False

    def measured(self, quality: float, higher_is_better: bool, config: TrainingConfig) -> None:
        """Take in a validation quality, and decide whether to stop."""
        better = self.best is None or (quality > self.best if higher_is_better else quality < self.best)
        self.stale = 0 if better else self.stale + 1
        self.best = quality if better else self.best
        threshold = min(-config.environment.cost_weight, -0.5)
        self.stopped = self.stale >= config.patience and float(np.mean(self.rewards)) > threshold
        self.rewards = []


class PolicyTraining:
    """A policy, its environment and its folder.

    Args:
        config: all of it. folder: where it is kept.
    """

    def __init__(self, config: TrainingConfig, folder: TrainingFolder):
        self.config = config
        self.folder = folder
        self.env = PaperEnv(**dataclasses.asdict(config.environment))
        self._recorder = Recorder(self.env)
        self.agent = Agent(
            config.agent,
            self._recorder,
            config.ppo,
            config.ddim,
            episode_steps=config.environment.episode_steps,
            seed=config.environment.seed,
        )
        self.progress = Progress()
        self.episodes = 0
        self._pending: list[dict[str, Any]] = []

    @property
    def done(self) -> bool:
        """Whether the last episode was reached, or training stopped early."""
        return self.progress.stopped or self.episodes >= self.config.episodes

    def iterate(self) -> list[dict[str, Any]]:
        """One roll-out and its updates; returns a row an episode.

        Raises:
            TrainingError: training diverged.
        """
        started = time.perf_counter()
        metrics = self.agent.iterate()
        length = self.config.environment.episode_steps
        steps = self._recorder.take()
        before = self.env.steps - len(steps)
        self.progress.rewards += [reward for reward, _ in steps]
        validation = None
        every = self.config.validate_every
        if self.env.steps // every > before // every:
            validation = self.env.validate()
            self.progress.measured(validation, self.env.workload.higher_is_better, self.config)
        wall_s = time.perf_counter() - started
        rows = []
        for begin in range(0, len(steps), length):
            row = {"episode": self.episodes, **summarise_steps(steps[begin : begin + length]), **metrics}
            row |= {"validation": None, "wall": {"iteration_s": round(wall_s, 6)}}
            rows.append({key: _finite(value) for key, value in row.items()})
            self.episodes += 1
        rows[-1]["validation"] = validation
        self._pending += rows
        return rows

    def save(self) -> None:
        """Write metrics, the policy, and last the checkpoint that the next episode follows from.

        Raises:
            StoreError: something cannot be written.
        """
        self.folder.append_metrics(self._pending)
        self._pending = []
        tensors = {name: tensor.cpu().numpy() for name, tensor in self.agent.networks().items()}
        save_policy(self.folder.path, self.card(), tensors)
        env_tensors, env_data = self.env.state()
        state = {f"env/{name}": tensor for name, tensor in env_tensors.items()}
        state |= {f"agent/{name}": tensor for name, tensor in self.agent.state().items()}
        data = {"episodes": self.episodes, "env": env_data, "progress": dataclasses.asdict(self.progress)}
        data["schema_id"] = self.env.schema.id
        write_checkpoint(self.folder.checkpoint, state, data)

    def load(self) -> None:
        """Go back to the last checkpoint; metrics written after it are dropped.

        Raises:
            StoreError: the checkpoint is missing, corrupt, or of another configuration.
        """
        path = self.folder.checkpoint
        tensors, data = read_checkpoint(path)
        try:
            if data["schema_id"] != self.env.schema.id:
                raise StoreError(f"{path} is of schema {data['schema_id']}, the model has {self.env.schema.id}")
            self.env.load_state(part(tensors, "env/"), data["env"])
            self.agent.load_state(part(tensors, "agent/"))
            self.episodes = data["episodes"]
            self.progress = Progress(**data["progress"])
            self.folder.keep_metrics(self.episodes)
        except (KeyError, ValueError, TypeError, RuntimeError, OSError) as error:
            raise StoreError(f"{path} cannot be used ({error}); train in another folder") from error

    def card(self) -> PolicyCard:
        """What the policy file says of itself."""
        environment = self.config.environment
        return PolicyCard(
            kind=self.config.agent,
            mode="paper",
            r_min=environment.min_rank,
            r_max=tuple(self.env.schema.r_max.tolist()),
            decoding=environment.decoding,
            scale=self.env.scale,
            ppo=self.config.ppo,
            ddim=self.config.ddim,
            trained={
                "model": environment.model,
                "data": environment.data,
                "links": list(environment.links),
                "seed": environment.seed,
                "episodes": self.episodes,
            },
        )


def train_policy(
    config: TrainingConfig, out: Path, *, resume: bool = False, on_episode: OnEpisode | None = None
) -> int:
    """Train a policy and write ``config.toml``, ``metrics.jsonl``, ``policy.safetensors`` and a checkpoint.

    Args:
        config: all of it; to resume, that of the folder (``stored_training_config``).
        out: new or empty, or with ``resume`` a folder that this function wrote.
        on_episode: told each episode's row.

    Returns:
        Episodes trained.

    Raises:
        InputError: the configuration or the folder cannot be used.
        StoreError: the folder cannot be resumed or written.
        TrainingError: training diverged; everything up to the last checkpoint is kept.
    """
    folder = TrainingFolder(out)
    folder.check(resume)
    training = PolicyTraining(config, folder)
    folder.prepare(config.to_toml())
    if resume and folder.checkpoint.exists():
        training.load()
    else:
        folder.keep_metrics(0)
    saved = training.episodes
    while not training.done:
        for row in training.iterate():
            if on_episode is not None:
                on_episode(row, config.episodes)
        if training.done or training.episodes - saved >= config.checkpoint_every:
            training.save()
            saved = training.episodes
    return training.episodes


def stored_training_config(out: Path) -> TrainingConfig:
    """The configuration of the training in a folder.

    Raises:
        OutputError: the folder holds none. InputError: it cannot be read.
    """
    return read_training_config({}, TrainingFolder(out).stored_config())


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    return None if isinstance(value, float) and not np.isfinite(value) else value
