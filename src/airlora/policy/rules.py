"""Rules: policies with nothing to learn."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from airlora.codec import BITS, Allocation, largest_uniform_rank
from airlora.policy.base import AloneWhere, Observation, Policy, Training, check_training


def _check_bits(bits: int) -> None:
    if bits not in BITS:
        raise ValueError(f"bits={bits}; allowed: {', '.join(map(str, BITS))}")


def _check_margin(margin: float) -> None:
    if not 0 < margin < math.inf:
        raise ValueError(f"margin={margin} must be finite and above 0")


def check_airtime_weight(airtime_weight: float) -> None:
    """Refuse a weight outside 0 … 100."""
    if not 0 <= airtime_weight <= 100:
        raise ValueError(f"airtime_weight={airtime_weight}; allowed: 0 … 100")


def _ranked_key(training: str, rank: int | None) -> str:
    return training if rank is None else f"{training}-{rank}"


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
        allocation = _uniform(observation, self.rank, self.bits, float("inf"))
        return replace(allocation, expected_bytes=observation.budget_bytes)


LEAN_BITS, WIDE_BITS = 3, 4
"""Bits of ``fit`` where the budget carries less than everything at 4 bits, and where it carries that: fewer buy rank,
more buy hardly any quality (docs/policies.md)."""


@dataclass(frozen=True)
class Fit(Policy):
    """The largest uniform rank that fits the estimated budget.

    Attributes:
        bits: bits per number; None takes ``WIDE_BITS`` where everything fits at them, else ``LEAN_BITS``.
        margin: fraction of the estimated budget that may be used.
        airtime_weight: what a whole deadline of airtime costs, 1 being all that the cloud learns: last layers that win
            less are left out.
        steer, alone: see ``Policy``.
    """

    bits: int | None = None
    margin: float = 1.0
    airtime_weight: float = 0.0
    steer: float = 0.0
    alone: AloneWhere = "never"

    def __post_init__(self) -> None:
        if self.bits is not None:
            _check_bits(self.bits)
        _check_margin(self.margin)
        check_airtime_weight(self.airtime_weight)
        check_training(self.steer, self.alone)

    def decide(self, observation: Observation) -> Allocation:
        """The largest rank that fits; everything while the rate is unknown."""
        budget = observation.budget_bytes * self.margin
        bits = self.bits or _bits_that_fit(observation)
        rank = largest_uniform_rank(observation.costs, budget, bits, bits if observation.schema.head else 0)
        # Not even rank 1 fits: send what does, so that the edge is refreshed piece by piece.
        allocation = _uniform(observation, max(rank, 1), bits, budget)
        return replace(allocation, byte_price=observation.byte_price(self.airtime_weight))


def _bits_that_fit(observation: Observation) -> int:
    whole = _uniform(observation, int(observation.trained_ranks.max()), WIDE_BITS, math.inf)
    fits = observation.costs.update_bytes(whole) <= observation.budget_bytes
    return WIDE_BITS if fits else LEAN_BITS


@dataclass(frozen=True)
class Fixed(Policy):
    """One rank, trained alone and sent each round: what is not nested pays off where the link is steady.

    Attributes:
        rank: of every projection; None takes the largest uniform rank that fits the budget estimated before the first
            round.
        bits: bits per number.
        margin: fraction of the estimated budget that may be used.
        rounding: share of all steps, the last ones (of the last round at most), that train on values rounded as they
            will be sent: for a job that ends, at 2 and 3 bits. 0: none.
    """

    training: ClassVar[Training] = "fixed"

    rank: int | None = None
    bits: int = 4
    margin: float = 1.0
    rounding: float = 0.0

    def __post_init__(self) -> None:
        _check_bits(self.bits)
        _check_margin(self.margin)
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"rank={self.rank} must be at least 1")
        if not 0 <= self.rounding <= 1:
            raise ValueError(f"rounding={self.rounding} must be in 0…1")

    @property
    def training_key(self) -> str:
        """One for each rank, and for each number of bits that training rounds to."""
        rounded = f"-{self.bits}bits-{self.rounding:g}" if self.rounding else ""
        return self.tuning_key + rounded

    @property
    def tuning_key(self) -> str:
        """One for each rank."""
        return _ranked_key(self.training, self.rank)

    @property
    def live(self) -> bool:
        """What is rounded to starts from what the edge holds."""
        return self.rounding > 0

    def decide(self, observation: Observation) -> Allocation:
        """All that is trained; the codec sends what the budget carries, what the edge has longest first."""
        rank = int(observation.trained_ranks.max())
        return _uniform(observation, rank, self.bits, observation.budget_bytes * self.margin)


@dataclass(frozen=True)
class Alone(Policy):
    """Another policy's bits, budget and price for one rank that is trained alone: always all of it, as no part of it
    is a model.

    Where the estimate carries all of it at ``least_bits``, it has no fewer: a learned policy has learnt that bits saved
    buy components, and here there are none to buy.

    Attributes:
        inner: decides bits, budget and price.
        rank: of every projection.
        grows: whether the rank grows once the link proves wider.
        least_bits: per number, where they fit; a user's own bits, if there are any.
    """

    training: ClassVar[Training] = "fixed"

    inner: Policy
    rank: int
    grows: bool = False
    least_bits: int = LEAN_BITS

    @property
    def tuning_key(self) -> str:
        """That of ``Fixed``, one for each rank, or one for each that it grows from."""
        return _ranked_key(self.training, self.rank) + ("-growing" if self.grows else "")

    @property
    def live(self) -> bool:
        """What the link carries decides how far it grows."""
        return self.grows

    def decide(self, observation: Observation) -> Allocation:
        """The other policy's answer, at the trained ranks."""
        chosen = replace(self.inner.decide(observation), ranks=observation.trained_ranks, keeps_ranks=True)
        finer = replace(chosen, bits=np.maximum(chosen.bits, self.least_bits))
        return finer if observation.costs.update_bytes(finer) <= observation.budget_bytes else chosen


@dataclass(frozen=True)
class Flood(Policy):
    """Every layer in priority order until the deadline cuts it off."""

    bits: int = 4

    def __post_init__(self) -> None:
        _check_bits(self.bits)

    def decide(self, observation: Observation) -> Allocation:
        """All components, in layers that are small enough for some to arrive."""
        allocation = _uniform(observation, int(observation.schema.r_max.max()), self.bits, float("inf"))
        return replace(allocation, expected_bytes=observation.budget_bytes)


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
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"seed={self.seed} must be at least 0")

    def decide(self, observation: Observation) -> Allocation:
        """Ranks drawn from 1 … the largest trained: a pure function of seed and round."""
        rng = np.random.default_rng([self.seed or 0, 11, observation.round])
        limits = observation.trained_ranks
        ranks = rng.integers(np.minimum(1, limits), limits + 1)
        bits = rng.choice([4, 8, 16], len(ranks)) if self.bits is None else np.full(len(ranks), self.bits)
        head_bits = int(self.bits or 8) if observation.schema.head else 0
        return Allocation(ranks, bits, head_bits, observation.budget_bytes)


@dataclass(frozen=True)
class Greedy(Policy):
    """Blocks of components by measured sensitivity per byte, best first, as many as fit the estimated budget.

    A block of a projection (the components between two trained prefixes) can be taken once the blocks
    before it are; its value is the sum of its components' sensitivities. A block that does not fit is
    passed over for later ones that do.
    """

    bits: int = 4

    def __post_init__(self) -> None:
        _check_bits(self.bits)

    def decide(self, observation: Observation) -> Allocation:
        """Ranks by best-first search over blocks."""
        schema, budget = observation.schema, observation.budget_bytes
        blocks = _best_first(observation, self.bits)
        head_bits = self.bits if schema.head else 0

        def allocate(ranks: np.ndarray) -> Allocation:
            return Allocation(ranks, np.full(len(ranks), self.bits), head_bits, budget)

        def take(count: int) -> np.ndarray:
            ranks = np.zeros(len(schema.projections), dtype=np.int64)
            for index, _, end in blocks[:count]:
                ranks[index] = end
            return ranks

        count = bisect_right(
            range(1, len(blocks) + 1), budget, key=lambda count: observation.costs.update_bytes(allocate(take(count)))
        )
        ranks = take(count)
        if observation.costs.update_bytes(allocate(np.zeros_like(ranks))) > budget:
            # Not even the head fits: offer head and first block, of which each round sends what it can.
            return allocate(np.minimum(schema.prefixes[0], observation.trained_ranks))
        for index, start, end in blocks[count:]:
            if ranks[index] == start:
                trial = ranks.copy()
                trial[index] = end
                if observation.costs.update_bytes(allocate(trial)) <= budget:
                    ranks = trial
        return allocate(ranks)


def _best_first(observation: Observation, bits: int) -> list[tuple[int, int, int]]:
    """All blocks as (projection, first component, rank with it), in the order in which Greedy would take them."""
    schema, limits = observation.schema, observation.trained_ranks
    sizes = observation.costs.projection_bytes(bits)
    queue: list[tuple[float, int, int, int]] = []

    def offer(index: int, start: int) -> None:
        if start < limits[index]:
            end = min(next(p for p in schema.prefixes if p > start), int(limits[index]))
            value = float(observation.sensitivity[index, start:end].sum())
            # With residuals a block can cost next to nothing; a byte is the least that counts.
            cost = max(float(sizes[index, end] - sizes[index, start]), 1.0)
            heapq.heappush(queue, (-value / cost, index, start, end))

    for index in range(len(limits)):
        offer(index, 0)
    order = []
    while queue:
        _, index, start, end = heapq.heappop(queue)
        order.append((index, start, end))
        offer(index, end)
    return order


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
        if not 1 <= self.initial < math.inf or self.interval < 1:
            raise ValueError(f"initial={self.initial} and interval={self.interval} must be finite and at least 1")
        if not (self.warmup >= 0 and self.final >= 0 and self.warmup + self.final < 1):
            raise ValueError(f"warmup={self.warmup} and final={self.final} must be ≥ 0 and sum to less than 1")

    @property
    def tuning_key(self) -> str:
        """One for each mean rank."""
        return _ranked_key(self.training, self.rank)

    def decide(self, observation: Observation) -> Allocation:
        """All that training kept, up to the estimated budget."""
        return Allocation(
            observation.trained_ranks,
            np.full(len(observation.trained_ranks), self.bits),
            self.bits if observation.schema.head else 0,
            observation.budget_bytes,
        )
