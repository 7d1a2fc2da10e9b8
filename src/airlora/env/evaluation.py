"""Replaying a trained policy without chance, beside two that need no training."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from airlora.env.paper import PaperEnv
from airlora.env.training import stored_training_config, summarise_steps
from airlora.errors import CompatibilityError, OutputError
from airlora.policy.checkpoint import POLICY_FILE, load_policy
from airlora.policy.learned import Decider

EVALUATION_FILE = "eval.json"

Decide = Callable[[np.ndarray], np.ndarray]
"""State (4 + M,) -> action (M,) in [−1, 1]."""


def play(env: PaperEnv, decide: Decide, episodes: int, seed: int) -> dict[str, Any]:
    """Play episodes from an untrained adapter on; means over all steps, and the adapter's quality at the end."""
    steps = []
    observation, _ = env.reset(seed=seed)
    for _ in range(episodes):
        truncated = False
        while not truncated:
            observation, reward, _, truncated, info = env.step(decide(observation))
            steps.append((float(reward), info))
        observation, _ = env.reset()
    return {**summarise_steps(steps), "validation": env.validate()}


def evaluate_policy(
    folder: Path, *, episodes: int = 20, links: Sequence[str] = (), seed: int | None = None, rules: bool = False
) -> dict[str, Any]:
    """Replay the policy in a folder: the mean of its Gaussian, fixed DDIM noise, a new adapter; writes ``eval.json``.

    Args:
        folder: written by ``train_policy``.
        episodes: to play.
        links: SPECs instead of those it was trained on.
        seed: of the channel; None takes the training's.
        rules: play also ``random`` (every action uniform) and ``fit`` (the largest uniform rank that meets the
            deadline over the channel of the step).

    Returns:
        episodes, seed, links, metric, and arms: name -> see ``play``.

    Raises:
        InputError, StoreError, CompatibilityError: the folder or its model cannot be used.
    """
    card, tensors = load_policy(folder)
    decider = Decider(card, tensors, str(folder / POLICY_FILE))
    config = stored_training_config(folder).environment
    if links:
        config = dataclasses.replace(config, links=tuple(links), bandwidth_high_hz=card.scale.bandwidth_high_hz)
    env = PaperEnv(**dataclasses.asdict(config))
    if card.r_max != tuple(env.schema.r_max.tolist()):
        raise CompatibilityError(
            f"{folder / POLICY_FILE} decides for {len(card.r_max)} projections of other ranks than the model of"
            f" {folder / 'config.toml'}; restore the file"
        )
    seed = config.seed if seed is None else seed
    arms: dict[str, Decide] = {card.kind: decider.x0}
    if rules:
        rng = np.random.default_rng([seed, 19])
        count = len(card.r_max)
        arms["random"] = lambda _: rng.uniform(-1, 1, count)
        arms["fit"] = lambda _: env.decoder.centres(np.full(count, env.affordable_rank()))
    result = {
        "episodes": episodes,
        "seed": seed,
        "links": list(config.links),
        "metric": env.workload.metric,
        "arms": {name: play(env, decide, episodes, seed) for name, decide in arms.items()},
    }
    try:
        (folder / EVALUATION_FILE).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder / EVALUATION_FILE} cannot be written: {error}") from error
    return result
