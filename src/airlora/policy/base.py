"""What a policy sees and what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from airlora.codec.allocation import Allocation
from airlora.codec.costs import Costs
from airlora.factors import Schema
from airlora.link.base import LinkState, PastRate
from airlora.workload.text import TextStatistics

Training = Literal["nested", "fixed", "adalora"]
AloneWhere = Literal["never", "link", "grow", "auto"]

REMEMBERED_RATES = 8
"""Transmissions that an observation tells of, at most."""


@dataclass(frozen=True, eq=False)
class Observation:
    """What is known when a round's update is about to be encoded.

    Attributes:
        round: index of the round, from 0; ``rounds``: how many there will be.
        link: the link's state; ``deadline_s``: time for this round's transmission, in s.
        text: statistics of the text that the round trained on.
        schema: the projections, the trained prefixes and the head.
        trained_ranks: (projections,) largest rank worth sending; less than r_max where training prunes.
        sensitivity: (projections, largest r_max) first-order loss increase, in nats, if a component
            were removed (see ``adapter.Sensitivity``).
        energy: (projections, largest r_max) squared Frobenius norm of each folded component.
        held_ranks: (projections,) components that the edge has active now.
        since_contact_s: time since the last delivered layer, in s; inf before the first.
        costs: what sending each rank at each number of bits would take, given what the edge holds.
        past_rates: what earlier rounds' transmissions were estimated to carry and carried, newest last, at most
            ``REMEMBERED_RATES``.
    """

    round: int
    rounds: int
    link: LinkState
    deadline_s: float
    text: TextStatistics
    schema: Schema
    trained_ranks: np.ndarray
    sensitivity: np.ndarray
    energy: np.ndarray
    held_ranks: np.ndarray
    since_contact_s: float
    costs: Costs
    past_rates: tuple[PastRate, ...] = ()

    @property
    def budget_bytes(self) -> float:
        """Bytes that the estimated rate carries before the deadline; inf while the rate is unknown.

        Offering too much costs nothing but airtime, as every prefix of an update is valid.
        """
        estimate = self.link.rate_bps * self.deadline_s / 8
        return float("inf") if np.isnan(estimate) else estimate

    def byte_price(self, airtime_weight: float) -> float:
        """``Allocation.byte_price`` where a whole deadline of airtime costs ``airtime_weight``, 1 being all that the
        cloud learns; 0 while nothing is known of the rate."""
        return airtime_weight / self.budget_bytes if self.budget_bytes else 0.0


class Policy(ABC):
    """Decides, each round, what to send.

    Attributes:
        training: how the cloud trains for this policy: ``nested``, the fixed mixture of prefixes; ``fixed``, one rank
            alone; or ``adalora``, pruning by importance.
        steer: weight in nested training of the ranks that the edge has active, 0 … 1; 0 leaves the mixture fixed.
        alone: where a policy of nested training has one rank trained alone in its place: ``link``, all components
            where what is estimated before the first round carries them at 4 bits; ``grow``, as many as four such
            rounds carry, if that is eight at least, and more once the link proves wider; ``auto``, as ``grow`` if no
            head is trained beside them (language modelling); or ``never``.
    """

    training: ClassVar[Training] = "nested"
    steer: float = 0.0
    alone: AloneWhere = "never"

    @property
    def tuning_key(self) -> str:
        """Policies of one key train at one learning rate."""
        return self.training if self.alone == "never" else f"{self.training}-or-alone"

    @property
    def training_key(self) -> str:
        """Policies of one key share one training of a job."""
        return f"{self.tuning_key}-steered-{self.steer:g}" if self.steer else self.tuning_key

    @property
    def live(self) -> bool:
        """Whether training looks at what the edge holds, so that over several rounds each link has its own."""
        return self.steer > 0

    @abstractmethod
    def decide(self, observation: Observation) -> Allocation:
        """A proposal, of any value: the caller projects it onto what is feasible before it is encoded."""


def check_training(steer: float, alone: str) -> None:
    """Refuse a ``steer`` outside 0 … 1, and an ``alone`` that does not exist."""
    if not 0 <= steer <= 1:
        raise ValueError(f"steer={steer} must be in 0…1")
    if alone not in get_args(AloneWhere):
        raise ValueError(f"alone={alone}; allowed: {', '.join(get_args(AloneWhere))}")
