"""What a policy sees and what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from airlora.codec.allocation import Allocation
from airlora.factors import Schema
from airlora.link.base import LinkState
from airlora.workload.text import TextStatistics


@dataclass(frozen=True, eq=False)
class Observation:
    """What is known before a round's update is encoded.

    Attributes:
        round: index of the round, from 0; ``rounds``: how many there will be.
        link: the link's state; ``deadline_s``: time for this round's transmission, in s.
        text: statistics of the text that the round trained on.
        schema: the projections, the trained prefixes and the head.
        sensitivity: (projections, r_max) expected loss decrease of each component, nats, ≥ 0
            (first-order: |gradient · value| summed over the component, smoothed over steps).
        energy: (projections, r_max) squared Frobenius norm of each folded component.
        held_ranks: (projections,) components that the edge has active now.
        since_contact_s: time since the last delivered layer, in s; inf before the first.
    """

    round: int
    rounds: int
    link: LinkState
    deadline_s: float
    text: TextStatistics
    schema: Schema
    sensitivity: np.ndarray
    energy: np.ndarray
    held_ranks: np.ndarray
    since_contact_s: float

    @property
    def budget_bytes(self) -> float:
        """Bytes that the estimated rate carries before the deadline; NaN while the rate is unknown."""
        return self.link.rate_bps * self.deadline_s / 8


class Policy(ABC):
    """Decides, each round, what to send."""

    @abstractmethod
    def decide(self, observation: Observation) -> Allocation:
        """A proposal; the caller projects it onto its byte budget before anything is encoded."""
