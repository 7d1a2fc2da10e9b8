"""The rounds of a job over a link as a Gymnasium environment, from tables instead of models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from airlora.codec import Allocation
from airlora.env.stream_links import draw_link, draw_period
from airlora.env.stream_sim import Outcome, simulate_round
from airlora.env.stream_table import JobTable
from airlora.env.surrogate import Held, Surrogate
from airlora.errors import InputError
from airlora.link import Link, PastRate
from airlora.policy.base import REMEMBERED_RATES, Observation
from airlora.policy.stream_action import StreamDecoder, StreamDecoding
from airlora.policy.tokens import GLOBAL_SIZE, TOKEN_SIZE, FeatureGroup, View

LinkMaker = Callable[[np.random.Generator, int, int, float, float], Link]
"""(generator, bytes of a plain LoRA, rounds, deadline in s, period in s) -> the link of an episode."""


class StreamEnv(gymnasium.Env):
    """An episode is one recorded job over one link, a step is one round.

    * Observation (1 + GLOBAL_SIZE + capacity · TOKEN_SIZE,): the number of projections M over the capacity, the numbers
      of the round, a token for each projection (``policy.tokens``), then zeros.
    * Action (1 + 2 · capacity,) in [−1, 1]: the budget's number, then rank and bits of each projection
      (``policy.stream_action``); those beyond M do nothing.
    * Reward = gain − λ · airtime / deadline. The gain of the edge is (q_edge − q_base) / (q_cloud at the end − q_base):
      0 for the untouched model, 1 for all that the cloud learns, whichever direction is better.
    * Job, λ, time from round to round and link are drawn at ``reset``; the episode is over (terminated) after the job's
      last round.

    ``info`` has ``gain``, ``airtime`` (over the deadline), ``bytes_on_air``, ``missed``, ``ranks`` and ``bits``.

    Args:
        recordings: folders that ``record_job`` wrote, or their tables.
        airtime_weights: λ is one of them. deadline_s: of a round.
        decoding: of the action. make_link: draws an episode's link. hidden: groups of features that are 0.

    Raises:
        InputError: no recordings. StoreError: one that cannot be read.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium's name)

    def __init__(
        self,
        recordings: Sequence[str | Path | Surrogate],
        *,
        airtime_weights: Sequence[float] = (0.1,),
        deadline_s: float = 1.0,
        decoding: StreamDecoding = "residual",
        make_link: LinkMaker = draw_link,
        hidden: Sequence[FeatureGroup] = (),
    ):
        if not recordings or not airtime_weights:
            raise InputError("stream mode needs at least one recording and one airtime weight")
        self.jobs = [job if isinstance(job, Surrogate) else Surrogate(JobTable.load(Path(job))) for job in recordings]
        self.capacity = max(len(job.table.schema.projections) for job in self.jobs)
        self.decoder = StreamDecoder(decoding)
        self._weights = tuple(airtime_weights)
        self._deadline_s = deadline_s
        self._make_link = make_link
        self._hidden = tuple(hidden)
        size = 1 + GLOBAL_SIZE + self.capacity * TOKEN_SIZE
        self.observation_space = gymnasium.spaces.Box(-3.0, 3.0, (size,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1 + 2 * self.capacity,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw job, link and λ; returns (observation, {})."""
        super().reset(seed=seed)
        self._begin()
        return self.vector(), {}

    def begin(self, seed: int) -> None:
        """``reset`` where nobody looks at the observation."""
        super().reset(seed=seed)
        self._begin()

    def _begin(self) -> None:
        self.job = self.jobs[int(self.np_random.integers(len(self.jobs)))]
        self.airtime_weight = self._weights[int(self.np_random.integers(len(self._weights)))]
        table = self.job.table
        plain = table.schema.plain_lora_bytes()
        self._period_s = draw_period(self.np_random, self._deadline_s)
        self.link = self._make_link(self.np_random, plain, table.rounds, self._deadline_s, self._period_s)
        self.round = 0
        self.held = Held.nothing(table)
        self._contact_s = float("-inf")
        self._past_rates: tuple[PastRate, ...] = ()
        self._look()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Decide for a round; returns (observation, reward, terminated, False, info)."""
        action = np.asarray(action, np.float64)
        count = len(self.job.table.schema.projections)
        reward, terminated, info = self.send(self.allocation(float(action[0]), action[1:].reshape(-1, 2)[:count]))
        return self.vector(), reward, terminated, False, info

    def allocation(self, number: float, x0: np.ndarray) -> Allocation:
        """What an action means in this round: the budget's number, and x0 (M, 2)."""
        return self.decoder.allocation(self.view, number, x0)

    def replayed(self, allocation: Allocation) -> np.ndarray:
        """The x0 (2 · capacity,) that an imitator should learn for an allocation; see ``StreamDecoder.replayed``."""
        x0 = np.zeros(2 * self.capacity, np.float32)
        own = self.decoder.replayed(self.view, allocation).ravel()
        x0[: len(own)] = own
        return x0

    def send(self, allocation: Allocation) -> tuple[float, bool, dict[str, Any]]:
        """``step`` with an allocation in the place of an action; returns (reward, terminated, info)."""
        t_s = self.starts_s[self.round]
        outcome = simulate_round(
            self.job, self.view.grid, self.round, self.held, allocation, self.link, t_s, self._deadline_s
        )
        airtime = outcome.delivery.airtime_s / self._deadline_s
        reward = outcome.gain - self.airtime_weight * airtime
        self._advance(outcome, t_s)
        terminated = self.round == self.job.table.rounds
        info = {
            "gain": outcome.gain,
            "airtime": airtime,
            "bytes_on_air": outcome.delivery.bytes_on_air,
            "missed": outcome.delivery.missed,
            "ranks": allocation.ranks,
            "bits": allocation.bits,
        }
        if not terminated:
            self._look()
        return reward, terminated, info

    def _advance(self, outcome: Outcome, t_s: float) -> None:
        self.held = outcome.held
        if outcome.delivery.layers_delivered:
            self._contact_s = t_s + outcome.delivery.airtime_s
        past = PastRate.of(self.view.observation.link, outcome.delivery)
        self._past_rates = (*self._past_rates, *past)[-REMEMBERED_RATES:]
        self.round += 1

    def _look(self) -> None:
        """What the round begins with."""
        table, t_s, held = self.job.table, self.starts_s[self.round], self.held
        self.view = View(
            Observation(
                round=self.round,
                rounds=table.rounds,
                link=self.link.observe(t_s),
                deadline_s=self._deadline_s,
                text=table.statistics(self.round),
                schema=table.schema,
                trained_ranks=table.schema.r_max,
                sensitivity=table.sensitivity[self.round],
                energy=table.energy[self.round],
                held_ranks=held.active,
                since_contact_s=t_s - self._contact_s,
                costs=table.costs(self.round, held.version, held.bits, held.head_version),
                past_rates=self._past_rates,
            ),
            self.airtime_weight,
            table.relative_steps[self.round],
            self._hidden,
        )

    @property
    def starts_s(self) -> list[float]:
        """When each round of the episode starts, in s."""
        return [index * self._period_s for index in range(self.job.table.rounds)]

    def vector(self) -> np.ndarray:
        """The observation of the round that comes next, zeros after the last."""
        vector = np.zeros(1 + GLOBAL_SIZE + self.capacity * TOKEN_SIZE, np.float32)
        if self.round == self.job.table.rounds:
            return vector
        tokens = self.view.tokens
        vector[0] = len(tokens.projections) / self.capacity
        vector[1 : 1 + GLOBAL_SIZE] = tokens.round
        flat = tokens.projections.ravel()
        vector[1 + GLOBAL_SIZE : 1 + GLOBAL_SIZE + len(flat)] = flat
        return vector
