"""The rule that the actor imitates before it learns: ``fit``, tuned for how much the link carries, how far its
estimates err, and λ.

A few variations of ``fit`` (how much of the budget to offer, rank and bits of all projections) play the same episodes
as ``fit`` itself. What each gained and the airtime it took beyond ``fit`` is fitted by a parabola in the load, log10 of
the mean budget over the bytes of a plain LoRA, and a line in the root mean square surprise (``policy.tokens``); in a
state, the teacher is the variation that promises most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from airlora.env.stream import StreamEnv
from airlora.env.stream_baseline import play_rule
from airlora.env.stream_links import LARGEST_LOAD, LEAST_LOAD
from airlora.link import PastRate
from airlora.policy.tokens import surprise

VARIATIONS = np.array(
    [
        (number, rank, bits)
        for number, rank, bits in (
            (0.0, 0.0, 0.0),
            (0.0, 0.0, -0.4),
            (0.0, 0.0, 0.4),
            (0.0, 0.3, -0.4),
            (0.0, -0.3, 0.0),
            (0.15, 0.0, 0.0),
            (0.15, 0.0, -0.4),
            (0.3, 0.0, 0.0),
            (0.3, 0.0, -0.4),
            (0.3, 0.0, 0.4),
            (0.3, 0.3, -0.4),
            (0.6, 0.0, 0.0),
            (0.6, 0.0, -0.4),
            (0.6, 0.0, 0.4),
            (-0.3, 0.0, 0.0),
            (-0.3, 0.0, -0.4),
            (-0.6, 0.0, 0.0),
            (-0.6, 0.0, -0.4),
        )
    ]
)
"""(variations, 3) the budget's number, rank and bits of all, in the residual decoding; the first is ``fit``."""


@dataclass(frozen=True, eq=False)
class Teacher:
    """Which variation is best where.

    Attributes:
        gain, airtime: (variations, 4) of what each has beyond ``fit``: a parabola in the load, a line in the surprise.
        usual_surprise: mean over the episodes, for rounds that have no past.
    """

    gain: np.ndarray
    airtime: np.ndarray
    usual_surprise: float

    def choose(self, load: float, past: Sequence[PastRate], airtime_weight: float) -> np.ndarray:
        """(3,) of ``VARIATIONS``; ``fit`` where the load is not known."""
        if not np.isfinite(load):
            return VARIATIONS[0]
        known, _, _, spread = surprise(past)
        load = float(np.clip(load, np.log10(LEAST_LOAD), np.log10(LARGEST_LOAD)))
        powers = _powers(load, spread if known else self.usual_surprise)
        return VARIATIONS[int(np.argmax((self.gain - airtime_weight * self.airtime) @ powers))]


def find_teacher(env: StreamEnv, episodes: range) -> Teacher:
    """Play every variation; the environment's decoding is ``residual``."""
    loads, surprises, played = [], [], []
    for episode in episodes:
        rule = play_rule(env, None, episode)
        surprises.append(surprise(env.view.observation.past_rates)[-1])
        env.begin(episode)
        rates = [env.link.observe(float(t)).rate_bps for t in range(env.job.table.rounds)]
        budget = float(np.mean(rates)) / 8
        loads.append(np.log10(max(budget, 1.0) / env.job.table.schema.plain_lora_bytes()))
        differences = [(0.0, 0.0)]
        for variation in VARIATIONS[1:]:
            own = _play(env, episode, variation)
            differences.append((float(np.mean(own[0] - rule[0])), float(np.mean(own[1] - rule[1]))))
        played.append(differences)
    powers = np.stack([_powers(load, own) for load, own in zip(loads, surprises, strict=True)])  # (episodes, 4)
    found = np.array(played)  # (episodes, variations, 2)
    ridge = powers.T @ powers + 1e-2 * np.eye(4)
    gain, airtime = (np.linalg.solve(ridge, powers.T @ found[:, :, column]).T for column in (0, 1))
    return Teacher(gain, airtime, float(np.mean(surprises)))


def _play(env: StreamEnv, episode: int, variation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gain and airtime, (rounds,) each."""
    env.begin(episode)
    rows, terminated = [], False
    while not terminated:
        x0 = np.tile(variation[1:], (len(env.view.observation.energy), 1))
        _, terminated, info = env.send(env.allocation(variation[0], x0))
        rows.append((info["gain"], info["airtime"]))
    gain, airtime = np.array(rows).T
    return gain, airtime


def _powers(load: float, spread: float) -> np.ndarray:
    return np.array([1.0, load + 1, (load + 1) ** 2, spread])
