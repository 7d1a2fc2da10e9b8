"""AdaLoRA (Zhang et al. 2023): train more triplets than may be kept, and prune them by importance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from airlora.adapter.importance import AdaLoraImportance
from airlora.adapter.nested import NestedAdapter
from airlora.adapter.optim import NestedOptimizer


@dataclass(frozen=True)
class AdaLoraSchedule:
    """The cubic budget schedule of AdaLoRA (eq. 13), in kept triplets over all projections.

    b(t) = initial up to step ``warmup``; target + (initial − target) · (1 − (t − warmup) /
    (total − warmup − final))³ until step total − final; target from then on.
    """

    initial: int
    target: int
    total_steps: int
    warmup: int
    final: int
    interval: int

    def __post_init__(self) -> None:
        if not 0 < self.target <= self.initial:
            raise ValueError(f"target {self.target} triplets must be in 1..{self.initial}")
        if self.warmup + self.final >= self.total_steps:
            raise ValueError(
                f"warm-up {self.warmup} and final phase {self.final} leave none of {self.total_steps} steps to prune in"
            )

    def budget(self, step: int) -> int:
        """Triplets kept after ``step`` steps."""
        if step <= self.warmup:
            return self.initial
        if step >= self.total_steps - self.final:
            return self.target
        left = 1 - (step - self.warmup) / (self.total_steps - self.warmup - self.final)
        return int(self.target + (self.initial - self.target) * left**3)


class AdaLoraPruner:
    """Prunes the least important triplets of a nested adapter in SVD form while it trains.

    As in AdaLoRA a pruned triplet has its E set to zero, goes on training and may come back, until the
    final phase fixes the choice. The kept triplets of a projection are moved to the front, together with
    their moments, so that what is kept is a prefix.

    Attributes:
        kept: triplets kept of every projection, (projections,).
    """

    def __init__(
        self, adapter: NestedAdapter, optimizer: NestedOptimizer, schedule: AdaLoraSchedule, initial_rank: int
    ):
        if adapter.form != "svd":
            raise ValueError("AdaLoRA needs the SVD form of the adapter")
        self.schedule = schedule
        self.importance = AdaLoraImportance(adapter)
        self._adapter = adapter
        self._optimizer = optimizer
        self._initial = np.minimum(initial_rank, adapter.schema.r_max)
        self.kept = self._initial.copy()

    def ranks(self, step: int) -> np.ndarray:
        """Ranks to train at this step: all initial ones until the final phase, the kept ones in it."""
        final = step >= self.schedule.total_steps - self.schedule.final
        return self.kept if final else self._initial

    def after_step(self, step: int, round_ends: bool) -> None:
        """Prune when it is due; ``step`` counts the steps done."""
        last = self.schedule.total_steps - self.schedule.final
        due = step == last or step % self.schedule.interval == 0 or round_ends
        if self.schedule.warmup < step <= last and due:
            self._prune(self.schedule.budget(step))

    @torch.no_grad()
    def _prune(self, budget: int) -> None:
        scores = self.importance.scores()
        names = list(self._adapter.layers)
        everything = torch.cat([scores[name][:r] for name, r in zip(names, self._initial.tolist(), strict=True)])
        chosen = torch.zeros_like(everything, dtype=torch.bool)
        chosen[torch.topk(everything, min(budget, len(everything))).indices] = True
        for index, (name, keep) in enumerate(zip(names, chosen.split(self._initial.tolist()), strict=True)):
            layer = self._adapter.layers[name]
            rest = list(range(len(keep), layer.r_max))
            score = scores[name][: len(keep)]
            order = sorted(range(len(keep)), key=lambda k: (not keep[k], -float(score[k]), k)) + rest
            self._optimizer.reorder(name, order)
            self.importance.reorder(name, order)
            self.kept[index] = int(keep.sum())
            assert layer.gain is not None
            layer.gain[self.kept[index] :] = 0
            self._optimizer.averages[layer.gain][self.kept[index] :] = 0
