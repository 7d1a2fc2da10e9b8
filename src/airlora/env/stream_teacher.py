"""The rule that the actor imitates before it learns: ``fit``, tuned for one λ, for how much fits and how far estimates
of the link err.

A few variations of ``fit`` (how much of the budget to offer, rank and bits of all projections) play the same episodes
as ``fit`` itself, airtime at the same price. The reward of each beyond ``fit`` is fitted by straight lines between
knots in the room, log10 of the budget over the bytes of one component of every projection, and a line in the root mean
square surprise (``policy.tokens``). The room says how many components fit, whatever the largest rank is and however
much has changed: fewer bits win where few fit, and lose where many do (LOG.md). In a state, the teacher is the
variation that promises most for sure: a standard error of the fit is subtracted, so that of many variations not the
luckiest is taught. Where the estimate is 0, as in an outage, no share of it says anything: there the choice is between
offering nothing, as ``fit`` does, and everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from airlora.env.stream import StreamEnv
from airlora.link import PastRate
from airlora.policy.tokens import View, surprise

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

KNOTS = np.linspace(-1.0, 2.0, 5)
"""Rooms between which a reward is a straight line; beyond the last ones it stays."""


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

    def choose(self, room: float, past: Sequence[PastRate]) -> np.ndarray:
        """(3,) of ``VARIATIONS``, or ``EVERYTHING``; ``fit`` where the room is not known.

        Args:
            room: see ``room_of``.
            past: of the observation.
        """
        if np.isnan(room):
            return VARIATIONS[0]
        if room == -np.inf:
            error = self.blind.std() / np.sqrt(len(self.blind)) if len(self.blind) else 0.0
            return EVERYTHING if len(self.blind) and self.blind.mean() > error else VARIATIONS[0]
        known, _, _, surprised = surprise(past)
        terms = _terms(room, surprised if known else self.usual_surprise)
        error = self.spread * np.sqrt(terms @ self.covariance @ terms)
        promised = self.reward @ terms - error
        best = int(np.argmax(promised))
        return VARIATIONS[best if promised[best] > LEAST_PROMISE else 0]


def room_of(view: View) -> float:
    """log10 of the estimated budget over the bytes of one component of every projection; −inf for an estimate of 0, NaN
    for none."""
    budget = view.observation.budget_bytes
    with np.errstate(divide="ignore"):
        return float(np.log10(budget / view.totals[0])) if np.isfinite(budget) else np.nan


@dataclass(frozen=True)
class Plays:
    """What the variations earned in one episode.

    Attributes:
        room: of its mean estimated budget and of the mean bytes of one component as ``fit`` plays it.
        surprise: root mean square over its rounds.
        rewards: of each of ``VARIATIONS`` but the first, beyond ``fit``.
        blind: reward beyond ``fit`` of offering everything where the estimate is 0; None if it never is.
    """

    room: float
    surprise: float
    rewards: tuple[float, ...]
    blind: float | None


def play_variations(env: StreamEnv, episode: int) -> Plays:
    """Play an episode with every variation; the environment has one λ, and its decoding is ``residual``."""
    rule = _play(env, episode, VARIATIONS[0], VARIATIONS[0])
    surprised = surprise(env.view.observation.past_rates)[-1]
    env.begin(episode)
    deadline_s = env.view.observation.deadline_s
    budgets = [env.link.observe(t_s).rate_bps * deadline_s / 8 for t_s in env.starts_s]
    room = np.log10(max(float(np.mean(budgets)), 1.0) / rule.component_bytes)
    rewards = tuple(_play(env, episode, own, VARIATIONS[0]).reward - rule.reward for own in VARIATIONS[1:])
    everything = _play(env, episode, VARIATIONS[0], EVERYTHING)
    return Plays(float(room), surprised, rewards, None if everything == rule else everything.reward - rule.reward)


def fit_teacher(plays: Sequence[Plays]) -> Teacher:
    """The teacher that episodes at one λ speak for."""
    terms = np.stack([_terms(own.room, own.surprise) for own in plays])  # (episodes, knots + 1)
    found = np.array([(0.0, *own.rewards) for own in plays])  # (episodes, variations)
    covariance = np.linalg.inv(terms.T @ terms + 1e-2 * np.eye(terms.shape[1]))
    fitted = (covariance @ terms.T @ found).T  # (variations, knots + 1)
    spread = (found - terms @ fitted.T).std(axis=0)
    blind = np.array([own.blind for own in plays if own.blind is not None])
    return Teacher(fitted, spread, covariance, float(np.mean([own.surprise for own in plays])), blind)


class _Played(NamedTuple):
    """Means over the rounds of an episode; the bytes are those of one component of every projection."""

    reward: float
    airtime: float
    component_bytes: float


def _play(env: StreamEnv, episode: int, usual: np.ndarray, blind: np.ndarray) -> _Played:
    """A variation, and another where the estimate is 0."""
    env.begin(episode)
    rows, terminated = [], False
    while not terminated:
        view = env.view
        variation = usual if view.observation.budget_bytes else blind
        x0 = np.tile(variation[1:], (len(view.observation.energy), 1))
        reward, terminated, info = env.send(env.allocation(variation[0], x0))
        rows.append((reward, info["airtime"], float(view.totals[0])))
    return _Played(*np.mean(rows, axis=0).tolist())


def _terms(room: float, surprised: float) -> np.ndarray:
    """(knots + 1,) what a reward is linear in: how near the room is to each knot, and the surprise."""
    return np.array([*(np.interp(room, KNOTS, knot) for knot in np.eye(len(KNOTS))), surprised])
