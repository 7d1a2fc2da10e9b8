"""Rewards as differences from a rule on the same job and link, so that luck with the link cancels."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium
import numpy as np

from airlora.codec import project
from airlora.env.stream import StreamEnv
from airlora.policy.base import Policy
from airlora.policy.stream_action import StreamDecoder


class AgainstRule(gymnasium.Wrapper):
    """Draws episodes from a fixed pool, and subtracts from each reward what a rule earned in that round.

    What is subtracted does not depend on the actions, and each episode is scaled by its own λ, 1 / (λ + 0.1), so that
    none drowns the others: for each λ the best policy stays the best.

    Args:
        env: whose episodes follow from their seed.
        pool: seeds of the episodes.
        rule: what to be measured against; by default the environment's action 0, which decides as ``fit`` told its λ.
        known: rewards of the rule by seed: (gain (rounds,), airtime (rounds,)); shared by several environments.
        group: environments whose seeds differ by less than this, counted from a multiple of it, play the same episode.
    """

    env: StreamEnv

    def __init__(
        self,
        env: StreamEnv,
        pool: range,
        rule: Policy | None = None,
        known: dict[int, tuple[np.ndarray, np.ndarray]] | None = None,
        group: int = 1,
    ):
        super().__init__(env)
        self._pool = pool
        self._rule = rule
        self._known = {} if known is None else known
        self._group = group
        self._draws = np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draw an episode of the pool; a seed begins the order of draws anew."""
        if seed is not None:
            self._draws = np.random.default_rng(seed // self._group)
        episode = self._pool[int(self._draws.integers(len(self._pool)))]
        if episode not in self._known:
            self._known[episode] = play_rule(self.env, self._rule, episode)
        self._gain, self._airtime = self._known[episode]
        return self.env.reset(seed=episode)

    def step(self, action: np.ndarray) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step; ``info`` has the environment's own ``reward``, and ``advantage`` over the rule."""
        index, weight = self.env.round, self.env.airtime_weight
        observation, reward, terminated, truncated, info = self.env.step(action)
        info["reward"] = reward
        rule = float(self._gain[index] - weight * self._airtime[index])
        info["advantage"] = float(reward) - rule
        return observation, info["advantage"] / (weight + 0.1), terminated, truncated, info


def play_rule(env: StreamEnv, rule: Policy | None, episode: int) -> tuple[np.ndarray, np.ndarray]:
    """Gain and airtime over deadline, (rounds,) each, of a policy in the episode of a seed; without one, of ``fit``
    told the environment's λ."""
    fit = StreamDecoder("residual")
    env.begin(episode)
    rows, terminated = [], False
    while not terminated:
        observation = env.view.observation
        if rule is None:
            allocation = fit.allocation(env.view, 0.0, np.zeros((len(observation.energy), 2)))
        else:
            allocation = project(rule.decide(observation), observation.costs, float("inf"))
        _, terminated, info = env.send(allocation)
        rows.append((info["gain"], info["airtime"]))
    gain, airtime = np.array(rows).T
    return gain, airtime
