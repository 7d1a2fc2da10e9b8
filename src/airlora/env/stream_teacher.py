"""The rule that the actor imitates before it learns: ``fit``, tuned for one λ, for how much the link carries and how
far its estimates err.

A few variations of ``fit`` (how much of the budget to offer, rank and bits of all projections) play the same episodes
as ``fit`` itself, airtime at the same price. The reward of each beyond ``fit`` is fitted by straight lines between
knots in the load, log10 of the mean budget over the bytes of a plain LoRA, and a line in the root mean square surprise
(``policy.tokens``). In a state, the teacher is the variation that promises most for sure: a standard error of the fit
is subtracted, so that of many variations not the luckiest is taught. Where the estimate is 0, as in an outage, no
share of it says anything: there the choice is between offering nothing, as ``fit`` does, and everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from airlora.env.stream import StreamEnv
from airlora.link import PastRate
from airlora.policy.tokens import LARGEST_LOAD, LEAST_LOAD, surprise

VARIATIONS = np.array(
    [
        (number, rank, bits)
        for number, rank, bits in (
            (0.0, 0.0, 0.0),
            (0.0, 0.0, -0.5),
            (0.0, 0.0, 0.4),
            (0.0, 0.3, -0.5),
            (0.0, -0.3, 0.0),
            (0.15, 0.0, 0.0),
            (0.15, 0.0, -0.5),
            (0.3, 0.0, 0.0),
            (0.3, 0.0, -0.5),
            (0.3, 0.0, 0.4),
            (0.3, 0.3, -0.5),
            (0.6, 0.0, 0.0),
            (0.6, 0.0, -0.5),
            (0.6, 0.0, 0.4),
            (-0.3, 0.0, 0.0),
            (-0.3, 0.0, -0.5),
            (-0.6, 0.0, 0.0),
            (-0.6, 0.0, -0.5),
        )
    ]
)
"""(variations, 3) the budget's number, rank and bits of all, in the residual decoding; the first is ``fit``. Bits are
those of the neighbouring widths, well inside what decodes to them."""


EVERYTHING = np.array([0.9, 0.0, 0.0])
"""Everything until the deadline, in the residual decoding."""

LEAST_PROMISE = 0.001
"""Reward beyond ``fit`` below which ``fit`` is taught: where a link carries everything, variations hardly differ."""

KNOTS = np.linspace(np.log10(LEAST_LOAD), np.log10(LARGEST_LOAD), 5)
"""Loads between which a reward is a straight line; beyond the last ones it stays."""


@dataclass(frozen=True, eq=False)
class Teacher:
    """Which variation is best where.

    Attributes:
        reward: (variations, knots + 1) of what each has beyond ``fit``: at each of ``KNOTS``, and by the surprise.
        spread: (variations,) standard deviation over the episodes of what the fit leaves.
        covariance: (knots + 1, knots + 1) of the coefficients for residuals of variance 1.
        usual_surprise: mean over the episodes, for rounds that have no past.
        blind: (episodes,) reward beyond ``fit`` of offering everything where the estimate is 0, in those episodes where
            it ever is.
    """

    reward: np.ndarray
    spread: np.ndarray
    covariance: np.ndarray
    usual_surprise: float
    blind: np.ndarray

    def choose(self, load: float, past: Sequence[PastRate]) -> np.ndarray:
        """(3,) of ``VARIATIONS``, or ``EVERYTHING``; ``fit`` where the load is not known.

        Args:
            load: log10 of the estimated budget over the bytes of a plain LoRA; −inf for an estimate of 0, NaN for none.
            past: of the observation.
        """
        if np.isnan(load):
            return VARIATIONS[0]
        if load == -np.inf:
            error = self.blind.std() / np.sqrt(len(self.blind)) if len(self.blind) else 0.0
            return EVERYTHING if len(self.blind) and self.blind.mean() > error else VARIATIONS[0]
        known, _, _, surprised = surprise(past)
        terms = _terms(load, surprised if known else self.usual_surprise)
        error = self.spread * np.sqrt(terms @ self.covariance @ terms)
        promised = self.reward @ terms - error
        best = int(np.argmax(promised))
        return VARIATIONS[best if promised[best] > LEAST_PROMISE else 0]


def find_teacher(env: StreamEnv, episodes: range) -> Teacher:
    """Play every variation; the environment has one λ, and its decoding is ``residual``."""
    loads, surprises, played, blind = [], [], [], []
    for episode in episodes:
        rule = _play(env, episode, VARIATIONS[0], VARIATIONS[0])
        surprises.append(surprise(env.view.observation.past_rates)[-1])
        env.begin(episode)
        rates = [env.link.observe(t_s).rate_bps for t_s in env.starts_s]
        budget = float(np.mean(rates)) / 8
        loads.append(np.log10(max(budget, 1.0) / env.job.table.schema.plain_lora_bytes()))
        played.append([_play(env, episode, own, VARIATIONS[0])[0] - rule[0] for own in VARIATIONS[1:]])
        own = _play(env, episode, VARIATIONS[0], EVERYTHING)
        if own != rule:
            blind.append(own[0] - rule[0])
    terms = np.stack([_terms(*own) for own in zip(loads, surprises, strict=True)])  # (episodes, knots + 1)
    found = np.pad(np.array(played), ((0, 0), (1, 0)))  # (episodes, variations)
    covariance = np.linalg.inv(terms.T @ terms + 1e-2 * np.eye(terms.shape[1]))
    fitted = (covariance @ terms.T @ found).T  # (variations, knots + 1)
    spread = (found - terms @ fitted.T).std(axis=0)
    return Teacher(fitted, spread, covariance, float(np.mean(surprises)), np.array(blind))


def _play(env: StreamEnv, episode: int, usual: np.ndarray, blind: np.ndarray) -> tuple[float, float]:
    """Mean reward and mean airtime of a variation and of what is done where the estimate is 0."""
    env.begin(episode)
    rows, terminated = [], False
    while not terminated:
        variation = usual if env.view.observation.budget_bytes else blind
        x0 = np.tile(variation[1:], (len(env.view.observation.energy), 1))
        reward, terminated, info = env.send(env.allocation(variation[0], x0))
        rows.append((reward, info["airtime"]))
    reward, airtime = np.mean(rows, axis=0).tolist()
    return reward, airtime


def _terms(load: float, surprised: float) -> np.ndarray:
    """(knots + 1,) what a reward is linear in: how near the load is to each knot, and the surprise."""
    return np.array([*(np.interp(load, KNOTS, knot) for knot in np.eye(len(KNOTS))), surprised])
