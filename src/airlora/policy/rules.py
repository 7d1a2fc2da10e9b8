"""Rules: policies with nothing to learn."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from airlora.codec import Allocation, largest_uniform_rank
from airlora.policy.base import Observation, Policy, Training


def _check_bits(bits: int) -> None:
    if bits not in (4, 8, 16, 32):
        raise ValueError(f"bits={bits}; allowed: 4, 8, 16, 32")


def _uniform(observation: Observation, rank: int, bits: int, budget_bytes: float) -> Allocation:
    ranks = np.minimum(rank, observation.trained_ranks)
    return Allocation(ranks, np.full(len(ranks), bits), bits if observation.schema.head else 0, budget_bytes)


@dataclass(frozen=True)
class Uniform(Policy):
    """The same rank and bits for every projection, whatever the link says; the deadline cuts what is late."""

    rank: int = 8
    bits: int = 16

    def __post_init__(self) -> None:
        _check_bits(self.bits)
        if self.rank < 0:
            raise ValueError(f"rank={self.rank} must be at least 0")

    def decide(self, observation: Observation) -> Allocation:
        """Rank and bits as configured."""
        return _uniform(observation, self.rank, self.bits, float("inf"))


@dataclass(frozen=True)
class Fit(Policy):
    """The largest uniform rank that fits the estimated budget.

    Attributes:
        bits: bits per number.
        margin: fraction of the estimated budget that may be used.
    """

    bits: int = 4
    margin: float = 1.0

    def __post_init__(self) -> None:
        _check_bits(self.bits)
        if not self.margin > 0:
            raise ValueError(f"margin={self.margin} must be above 0")

    def decide(self, observation: Observation) -> Allocation:
        """The largest rank that fits; everything while the rate is unknown."""
        budget = observation.budget_bytes * self.margin
        head_bits = self.bits if observation.schema.head else 0
        rank = largest_uniform_rank(observation.schema, budget, self.bits, head_bits)
        # Not even rank 1 fits: send what does, so that the edge is refreshed piece by piece.
        return _uniform(observation, max(rank, 1), self.bits, budget)


@dataclass(frozen=True)
class Flood(Policy):
    """Every layer in priority order until the deadline cuts it off."""

    bits: int = 4

    def __post_init__(self) -> None:
        _check_bits(self.bits)

    def decide(self, observation: Observation) -> Allocation:
        """All components."""
        return _uniform(observation, int(observation.schema.r_max.max()), self.bits, float("inf"))


@dataclass(frozen=True)
class Random(Policy):
    """Independent uniform ranks, reduced to the estimated budget.

    Attributes:
        bits: bits per number; None draws 4, 8 or 16 for each projection.
        seed: of the draws; None takes the run's.
    """

    bits: int | None = 4
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.bits is not None:
            _check_bits(self.bits)

    def decide(self, observation: Observation) -> Allocation:
        """Ranks drawn from 1 … r_max: a pure function of seed and round."""
        rng = np.random.default_rng([self.seed or 0, 11, observation.round])
        ranks = rng.integers(1, observation.trained_ranks + 1)
        bits = rng.choice([4, 8, 16], len(ranks)) if self.bits is None else np.full(len(ranks), self.bits)
        head_bits = int(self.bits or 8) if observation.schema.head else 0
        return Allocation(ranks, bits, head_bits, observation.budget_bytes)


@dataclass(frozen=True)
class Greedy(Policy):
    """Blocks of components by measured sensitivity per byte, best first, until the estimated budget is spent.

    A block of a projection (the components between two trained prefixes) can be taken once the blocks
    before it are; its value is the sum of its components' sensitivities.
    """

    bits: int = 4

    def __post_init__(self) -> None:
        _check_bits(self.bits)

    def decide(self, observation: Observation) -> Allocation:
        """Ranks by best-first search over blocks."""
        schema = observation.schema
        bits_of_head = self.bits if schema.head else 0
        budget = observation.budget_bytes
        left_bits = 8 * budget - bits_of_head * schema.head_size
        ranks = np.zeros(len(schema.projections), dtype=np.int64)
        limits = observation.trained_ranks
        queue: list[tuple[float, int, int]] = []

        def offer(index: int) -> None:
            start = int(ranks[index])
            if start < limits[index]:
                end = min(next(p for p in schema.prefixes if p > start), int(limits[index]))
                value = float(observation.sensitivity[index, start:end].sum())
                cost = (end - start) * schema.projections[index].numbers_per_component
                heapq.heappush(queue, (-value / cost, index, end))

        for index in range(len(ranks)):
            offer(index)
        while queue:
            _, index, end = heapq.heappop(queue)
            cost = (end - int(ranks[index])) * schema.projections[index].numbers_per_component * self.bits
            if cost > left_bits:
                continue
            left_bits -= cost
            ranks[index] = end
            offer(index)
        return Allocation(ranks, np.full(len(ranks), self.bits), bits_of_head, budget)


@dataclass(frozen=True)
class AdaLora(Policy):
    """AdaLoRA (Zhang et al. 2023): training prunes to a mean rank by its importance score; what is kept is sent.

    Attributes:
        rank: mean rank kept at the end; None takes the largest uniform rank that fits the budget
            estimated before the first round.
        bits: bits per number.
        initial: triplets trained at first, as a multiple of what is kept.
        warmup, final: fractions of all steps before and after the budget's cubic decrease.
        interval: steps between two prunings.
    """

    training: ClassVar[Training] = "adalora"

    rank: int | None = None
    bits: int = 4
    initial: float = 1.5
    warmup: float = 0.1
    final: float = 0.3
    interval: int = 10

    def __post_init__(self) -> None:
        _check_bits(self.bits)
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"rank={self.rank} must be at least 1")
        if self.initial < 1 or self.interval < 1:
            raise ValueError("initial and interval must be at least 1")
        if min(self.warmup, self.final) < 0 or self.warmup + self.final >= 1:
            raise ValueError(f"warmup={self.warmup} and final={self.final} must be ≥ 0 and sum to less than 1")

    def decide(self, observation: Observation) -> Allocation:
        """All that training kept, up to the estimated budget."""
        return Allocation(
            observation.trained_ranks,
            np.full(len(observation.trained_ranks), self.bits),
            self.bits if observation.schema.head else 0,
            observation.budget_bytes,
        )
