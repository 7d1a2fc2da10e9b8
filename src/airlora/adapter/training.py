"""One training step, and how the ranks it trains are chosen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from airlora.adapter.adalora import AdaLoraPruner
from airlora.adapter.curvature import measure_curvature
from airlora.adapter.importance import Sensitivity
from airlora.adapter.mixture import PrefixMixture
from airlora.adapter.nested import NestedAdapter, Values
from airlora.adapter.optim import NestedOptimizer
from airlora.curvature import Curvature, QuantiserSteps
from airlora.errors import TrainingError
from airlora.factors import Factors
from airlora.workload.base import Batch, Workload


class Strategy(ABC):
    """How a step's gradients are made, and which ranks are worth sending afterwards."""

    @abstractmethod
    def backward(self, workload: Workload, adapter: NestedAdapter, batch: Batch, step: int) -> float:
        """Accumulate gradients, leave the ranks to update active, and return the mean loss in nats."""

    def begin_round(self, held: Factors, active: np.ndarray, expected_bytes: float = float("nan")) -> None:
        """Look at the edge and the link before a round's first step.

        Args:
            held: all that the edge is known to store. active: (projections,) its active ranks.
            expected_bytes: what the link is expected to carry in a round; NaN while nothing is known.
        """

    @abstractmethod
    def trained_ranks(self, adapter: NestedAdapter) -> np.ndarray:
        """Largest rank of every projection that is worth sending, (projections,)."""

    def after_backward(self) -> None:
        """Look at the gradients."""

    def after_step(self, step: int, round_ends: bool) -> None:
        """Look at the new values; ``step`` counts the steps done."""

    def sent(self, averages: Values) -> Values:
        """What is sent in the place of the averages of the iterates."""
        return averages

    @property
    def steps(self) -> QuantiserSteps | None:
        """The quantiser steps that ``sent`` rounds to, if it does."""
        return None

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint must hold."""
        return {}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what ``state`` gave."""


class NestedStrategy(Strategy):
    """Trains a fixed mixture of prefixes, whatever is sent."""

    def __init__(self, mixture: PrefixMixture):
        self.mixture = mixture

    def backward(self, workload: Workload, adapter: NestedAdapter, batch: Batch, step: int) -> float:
        """One pass for every prefix that the mixture draws."""
        passes = self.mixture.draw(step, len(batch.targets))
        total = 0.0
        for item in passes:
            adapter.set_ranks(item.rank)
            loss = workload.loss(batch, item.rows) * item.weight
            loss.backward()
            total += float(loss.detach())
        adapter.set_ranks(max(item.rank for item in passes))
        return total

    def trained_ranks(self, adapter: NestedAdapter) -> np.ndarray:
        """Every prefix was trained."""
        return adapter.schema.r_max


class SteeredStrategy(NestedStrategy):
    """Trains in every step the ranks that the edge has active, and beside them one prefix of the mixture.

    Args:
        mixture: of prefixes, each in its turn, so that all stay models of their own.
        weight: of the edge's ranks in the loss, above 0, at most 1; before anything was delivered the mixture is
            trained alone.
    """

    def __init__(self, mixture: PrefixMixture, weight: float):
        super().__init__(mixture)
        self._weight = weight
        self._active = np.zeros(0, np.int64)

    def begin_round(self, held: Factors, active: np.ndarray, expected_bytes: float = float("nan")) -> None:
        """Remember the edge's ranks."""
        self._active = active

    def backward(self, workload: Workload, adapter: NestedAdapter, batch: Batch, step: int) -> float:
        """One pass at the edge's ranks and one at a prefix."""
        if not self._active.any():
            return super().backward(workload, adapter, batch, step)
        passes = self.mixture.draw(step, len(batch.targets))
        beside = passes[step % len(passes)].rank
        total = 0.0
        for ranks, weight in ((self._active, self._weight), (beside, 1 - self._weight)):
            if weight:
                adapter.set_ranks(ranks)
                loss = workload.loss(batch) * weight
                loss.backward()
                total += float(loss.detach())
        adapter.set_ranks(np.maximum(self._active, beside if self._weight < 1 else 0))
        return total


class GrowingStrategy(Strategy):
    """Trains one rank alone, and goes on to the next prefix of the schema once the link is expected to carry that.

    New components start as those of a fresh adapter, so the model stays as it is when they come in. A rank is never
    given up again.

    Args:
        rank: the first one, a prefix of the schema.
        optimizer: of the adapter; its rate follows the rank.
        fitting: from what a round is expected to carry, in bytes, to the rank that suits it.
        learning_rate: of a rank.
    """

    def __init__(
        self,
        rank: int,
        optimizer: NestedOptimizer,
        fitting: Callable[[float], int],
        learning_rate: Callable[[int], float],
    ):
        self.rank = rank
        self._optimizer = optimizer
        self._fitting = fitting
        self._learning_rate = learning_rate

    def begin_round(self, held: Factors, active: np.ndarray, expected_bytes: float = float("nan")) -> None:
        """Grow, if more fits than is trained."""
        if not np.isnan(expected_bytes):
            fits = self._fitting(expected_bytes)
            self._train_at(max([self.rank, *(p for p in self._optimizer.adapter.schema.prefixes if p <= fits)]))

    def backward(self, workload: Workload, adapter: NestedAdapter, batch: Batch, step: int) -> float:
        """One pass at the rank of today."""
        adapter.set_ranks(self.rank)
        loss = workload.loss(batch)
        loss.backward()
        return float(loss.detach())

    def trained_ranks(self, adapter: NestedAdapter) -> np.ndarray:
        """The rank of today."""
        return np.minimum(self.rank, adapter.schema.r_max)

    def state(self) -> dict[str, torch.Tensor]:
        """The rank of today."""
        return {"rank": torch.tensor(self.rank)}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what ``state`` gave."""
        self._train_at(int(state["rank"]))

    def _train_at(self, rank: int) -> None:
        if rank != self.rank:
            self.rank = rank
            self._optimizer.lr = self._learning_rate(rank)


class AdaLoraStrategy(Strategy):
    """Trains and prunes as AdaLoRA does, with its orthogonality regulariser."""

    def __init__(self, pruner: AdaLoraPruner, orthogonality_weight: float = 0.1):
        self.pruner = pruner
        self._weight = orthogonality_weight

    def backward(self, workload: Workload, adapter: NestedAdapter, batch: Batch, step: int) -> float:
        """One pass at the ranks that are still in play."""
        adapter.set_ranks(self.pruner.ranks(step))
        loss = workload.loss(batch)
        (loss + self._weight * adapter.orthogonality()).backward()
        return float(loss.detach())

    def trained_ranks(self, adapter: NestedAdapter) -> np.ndarray:
        """The kept triplets."""
        return self.pruner.kept.copy()

    def after_backward(self) -> None:
        """Update the importance scores."""
        self.pruner.importance.update()

    def after_step(self, step: int, round_ends: bool) -> None:
        """Prune when it is due."""
        self.pruner.after_step(step, round_ends)

    def state(self) -> dict[str, torch.Tensor]:
        """Running averages and the kept counts."""
        return {**self.pruner.importance.state(), "kept": torch.from_numpy(self.pruner.kept)}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what ``state`` gave."""
        self.pruner.importance.load_state(state)
        self.pruner.kept = state["kept"].numpy().copy()


class ChosenRanksStrategy(Strategy):
    """Trains at ranks that someone else chooses before each step, as AirLLM does.

    Attributes:
        ranks: (projections,) of the next step; None: all components.

    Args:
        orthogonality_weight: of the regulariser, which the SVD form needs.
    """

    def __init__(self, orthogonality_weight: float = 0.01):
        self.ranks: np.ndarray | None = None
        self._weight = orthogonality_weight

    def backward(self, workload: Workload, adapter: NestedAdapter, batch: Batch, step: int) -> float:
        """One pass at the chosen ranks; returns the task's loss without the regulariser."""
        adapter.set_ranks(self.trained_ranks(adapter))
        loss = workload.loss(batch)
        (loss + self._weight * adapter.orthogonality()).backward()
        return float(loss.detach())

    def trained_ranks(self, adapter: NestedAdapter) -> np.ndarray:
        """The ranks chosen last."""
        return adapter.schema.r_max if self.ranks is None else self.ranks


class Trainer:
    """Trains an adapter on a workload, step by step."""

    def __init__(self, workload: Workload, adapter: NestedAdapter, optimizer: NestedOptimizer, strategy: Strategy):
        self.workload = workload
        self.adapter = adapter
        self.optimizer = optimizer
        self.strategy = strategy
        self.sensitivity = Sensitivity(adapter)

    def factors(self) -> Factors:
        """The adapter as it is worth sending: the averages of the iterates, all components."""
        return self.adapter.factors(self.strategy.sent(self.optimizer.averages))

    def curvature(self, factors: Factors, step: int) -> Curvature | None:
        """The curvature at these factors, on the batch of a step; None for the SVD form."""
        if self.adapter.form != "lora":
            return None
        batch = self.workload.batch(step)
        found = measure_curvature(self.workload, self.adapter, self.optimizer, factors, batch, step)
        return replace(found, steps=self.strategy.steps)

    def train(self, first_step: int, steps: int, on_step: Callable[[Batch, float], None]) -> None:
        """Do ``steps`` steps, numbered from ``first_step``, telling each batch and its mean loss in nats.

        Raises:
            TrainingError: the loss is not finite; the step was not taken.
        """
        for step in range(first_step, first_step + steps):
            batch = self.workload.batch(step)
            self.optimizer.zero_grad()
            loss = self.strategy.backward(self.workload, self.adapter, batch, step)
            if not np.isfinite(loss):
                raise TrainingError(
                    f"training diverged: the loss is {loss} at step {step}; start again in a new folder with a lower"
                    " --lr (rounds finished before are kept)"
                )
            self.strategy.after_backward()
            self.sensitivity.update()
            self.optimizer.step()
            self.strategy.after_step(step + 1, round_ends=step + 1 == first_step + steps)
            on_step(batch, loss)

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that the next step depends on, as flat tensors for a checkpoint."""
        parts = {
            "adapter": self.adapter.state(),
            "optimizer": self.optimizer.state(),
            "strategy": self.strategy.state(),
            "sensitivity": {"values": torch.from_numpy(self.sensitivity.values)},
        }
        return {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what ``state`` gave."""

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}

        self.adapter.load_state(part("adapter/"))
        self.optimizer.load_state(part("optimizer/"))
        self.strategy.load_state(part("strategy/"))
        self.sensitivity.values = state["sensitivity/values"].numpy().copy()
