"""One round of the main job: observe, train, decide, encode, transmit, apply, measure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from airlora.codec import Allocation, Costs, EdgeState, Update, encode, project
from airlora.config import RunConfig
from airlora.errors import TrainingError
from airlora.factors import Factors
from airlora.job import Job
from airlora.link import Delivery, Link, LinkState, PastRate
from airlora.policy import REMEMBERED_RATES, Observation, Policy
from airlora.trajectory import Cloud, CloudRound
from airlora.workload.base import Validation

REWARD_AIRTIME_WEIGHT = 0.1
REFERENCE_RANK = 8
TOLERANCE = 0.01
"""How much worse the edge's model may be after any layer than before the update, in nats or as a share of the rows."""


@dataclass
class Quality:
    """Measures factors on the validation split, and judges the encoder's drafts by it (``codec.Judge``); an edge
    state that was seen before is not measured again.

    Args:
        job: whose model answers. limit: rows or windows of the validation split; test_limit: of the test split, None
            for all; guard_limit: of the validation split, those on which every layer is judged; None for those of
            ``limit``.
    """

    job: Job
    limit: int
    test_limit: int | None = None
    guard_limit: int | None = None
    _known: dict[tuple[str, str], float] = field(default_factory=dict)
    _validated: dict[tuple[str, int, int], Validation] = field(default_factory=dict)

    def of(self, factors: Factors, split: str = "validation") -> float:
        """Quality of these factors: on the validation split's fixed sample, or on a whole other split.

        Raises:
            TrainingError: it is not finite.
        """
        with self.job.adapter.serving(factors):
            value = self.job.workload.evaluate(split, self.limit if split == "validation" else self.test_limit)
        if not np.isfinite(value):
            raise TrainingError(
                f"{self.job.workload.metric} on the {split} split is {value}: training diverged, or the base model is"
                " broken; start again in a new folder with a lower --lr (rounds finished before are kept)"
            )
        return value

    def of_edge(self, edge: EdgeState, split: str = "validation") -> float:
        """Quality of the edge's model."""
        key = (edge.id, split)
        if key not in self._known:
            self._known[key] = self.of(edge.factors(), split)
        return self._known[key]

    def loss(self, edge: EdgeState) -> float:
        """What the encoder decides by: the validation objective of the edge's model on the guard's rows."""
        return self._losses(edge, self._guarded)[0]

    def is_worse(self, edge: EdgeState, before: EdgeState) -> bool:
        """Whether the edge's model is worse than before, in its objective or its quality, by more than
        ``TOLERANCE``: on the guard's rows and, as few rows may fall by chance, on all rows that ``of`` looks at."""
        for rows in dict.fromkeys((self._guarded, self.limit)):
            losses = zip(self._losses(edge, rows), self._losses(before, rows), strict=True)
            if not any(now > then + TOLERANCE for now, then in losses):
                return False
        return True

    def rough_worth(self, edge: EdgeState) -> float:
        """The smooth quality that the edge's model has beyond the untouched one, on the guard's rows."""
        return self._worth(edge, self._guarded)

    def worth(self, edge: EdgeState) -> float:
        """What the encoder prices bytes by: as ``rough_worth``, on as many rows of the validation split as ``of``
        looks at, but others: what is chosen by some rows looks better on them than it is."""
        return self._worth(edge, self.limit, apart=self.limit)

    def _worth(self, edge: EdgeState, rows: int, apart: int = 0) -> float:
        now, base = (self._validate(state, rows, apart).smooth_quality for state in (edge, self.job.initial_edge))
        worth = self._gain(now, base)
        return worth if np.isfinite(worth) else -np.inf

    @property
    def _guarded(self) -> int:
        return self.limit if self.guard_limit is None else min(self.guard_limit, self.limit)

    def _losses(self, edge: EdgeState, rows: int) -> tuple[float, float]:
        """The objective, and the quality as a loss."""
        found = self._validate(edge, rows)
        return _lost(found.objective), _lost(self._gain(0.0, found.quality))

    def _gain(self, quality: float, base: float) -> float:
        return quality - base if self.job.workload.higher_is_better else base - quality

    def _validate(self, edge: EdgeState, rows: int, apart: int = 0) -> Validation:
        key = (edge.id, rows, apart)
        if key not in self._validated:
            with self.job.adapter.serving(edge.factors()):
                found = self._validated[key] = self.job.workload.validate(rows, apart)
            if rows == self.limit and not apart and np.isfinite(found.quality):
                self._known[edge.id, "validation"] = found.quality
        return self._validated[key]


def _lost(loss: float) -> float:
    """A loss; of a model that is broken, all."""
    return loss if np.isfinite(loss) else np.inf


@dataclass
class Play:
    """One job over one link under one policy: the rounds, and what carries over between them.

    Attributes:
        round: the next round. edge: what the edge holds. contact_s: when a layer last arrived.
        past_rates: of the last transmissions, see ``Observation``.
        base_quality: of the untouched model on the validation split.
        wall_s: computing time of earlier sittings.
    """

    config: RunConfig
    job: Job
    link: Link
    policy: Policy
    cloud: Cloud
    quality: Quality
    round: int = 0
    edge: EdgeState = field(init=False)
    contact_s: float = float("-inf")
    past_rates: tuple[PastRate, ...] = ()
    base_quality: float = float("nan")
    wall_s: float = 0.0

    def __post_init__(self) -> None:
        self.edge = self.job.initial_edge

    def next_round(self, on_step: Callable[[], None]) -> tuple[dict[str, Any], Update]:
        """Observe, train, decide, encode, transmit, apply, measure; returns the round's row and its update."""
        clock = _PhaseClock()
        t_s = self.round * self.config.period_s
        state = self.link.observe(t_s)
        cloud_round = self.cloud.advance(self.round, self.edge, on_step, self._expected_bytes(state))
        clock.lap("train_s")
        observation = Observation(
            round=self.round,
            rounds=self.config.rounds,
            link=state,
            deadline_s=self.config.deadline_s,
            text=cloud_round.text,
            schema=self.job.adapter.schema,
            trained_ranks=cloud_round.trained_ranks,
            sensitivity=cloud_round.sensitivity,
            energy=cloud_round.energy,
            held_ranks=self.edge.active_ranks,
            since_contact_s=t_s - self.contact_s,
            costs=Costs.measure(cloud_round.factors, self.edge, cloud_round.curvature),
            past_rates=self.past_rates,
        )
        allocation = project(self.policy.decide(observation), observation.costs, float("inf"))
        clock.lap("decision_s")
        update = encode(
            cloud_round.factors,
            self.edge,
            allocation,
            self.round,
            self.quality,
            cloud_round.curvature,
        )
        clock.lap("encode_s")
        delivery = self.link.transmit(update.layer_bytes, t_s, self.config.deadline_s)
        for layer in update.layers[: delivery.layers_delivered]:
            self.edge = self.edge.apply(layer)
        if delivery.layers_delivered:
            self.contact_s = t_s + delivery.airtime_s
        self.past_rates = (*self.past_rates, *PastRate.of(state, delivery))[-REMEMBERED_RATES:]
        clock.lap("apply_s")
        edge_quality = self.quality.of_edge(self.edge)
        clock.lap("evaluate_s")
        row = self._row(observation, cloud_round, allocation, update, delivery, edge_quality, clock.laps)
        self.round += 1
        return row, update

    def _expected_bytes(self, state: LinkState) -> float:
        """What a round is expected to carry: the mean of today's estimate and of what the last rounds carried; NaN
        before anything was sent."""
        carried = [past.carried_bps for past in self.past_rates]
        rates = carried if np.isnan(state.rate_bps) else [state.rate_bps, *carried]
        return float(np.mean(rates)) * self.config.deadline_s / 8 if carried else float("nan")

    def _row(
        self,
        observation: Observation,
        cloud_round: CloudRound,
        allocation: Allocation,
        update: Update,
        delivery: Delivery,
        edge_quality: float,
        wall: dict[str, float],
    ) -> dict[str, Any]:
        names = [projection.name for projection in observation.schema.projections]
        t_s, deadline_s = observation.link.t_s, observation.deadline_s
        reference = self.link.transmit([observation.schema.plain_lora_bytes(REFERENCE_RANK)], t_s, deadline_s)
        gain = edge_quality - self.base_quality
        if not self.job.workload.higher_is_better:
            gain = -gain
        return {
            "round": self.round,
            "t_s": t_s,
            "link": {
                "snr_db": finite_or_none(observation.link.snr_db),
                "bandwidth_hz": finite_or_none(observation.link.bandwidth_hz),
                "rate_bps": finite_or_none(observation.link.rate_bps),
            },
            "text": {name: finite_or_none(value) for name, value in cloud_round.text.to_json().items()},
            "ranks": dict(zip(names, allocation.ranks.tolist(), strict=True)),
            "bits": dict(zip(names, allocation.bits.tolist(), strict=True)),
            "head_bits": allocation.head_bits,
            "budget_bytes": finite_or_none(allocation.budget_bytes),
            "bytes_offered": update.size_bytes,
            "bytes_delivered": delivery.bytes_delivered,
            "bytes_on_air": delivery.bytes_on_air,
            "layers_offered": len(update.layers),
            "layers_delivered": delivery.layers_delivered,
            "missed": delivery.missed,
            "airtime_s": delivery.airtime_s,
            "edge_ranks": dict(zip(names, self.edge.active_ranks.tolist(), strict=True)),
            "edge_quality": edge_quality,
            "cloud_quality": cloud_round.quality,
            "reward": gain - REWARD_AIRTIME_WEIGHT * delivery.airtime_s / deadline_s,
            "reference": {
                "bytes": reference.bytes_on_air,
                "airtime_s": reference.airtime_s,
                "delivered": not reference.missed,
            },
            "wall": wall,
        }


def train_head_only(job: Job, config: RunConfig) -> Factors:
    """The same steps on the same batches with the adapter at rank 0: what the head alone can do."""
    workload = job.workload
    base = job.initial_edge.factors()
    with job.adapter.serving(base):
        optimizer = torch.optim.Adam(workload.head.values(), lr=job.head_lr)
        for step in range(config.rounds * config.steps_per_round):
            optimizer.zero_grad()
            workload.loss(workload.batch(step)).backward()
            optimizer.step()
        return Factors(base.schema, base.u, base.v, job.adapter.head_values())


class _PhaseClock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 6)
        self._last = now


def finite_or_none(value: float) -> float | None:
    """JSON has no NaN and no infinity: null."""
    return float(value) if np.isfinite(value) else None
