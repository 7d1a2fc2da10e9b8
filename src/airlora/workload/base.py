"""What a workload is: a model, its data, its objective and its measure of quality."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

Metric = Literal["accuracy", "nll"]


@dataclass(frozen=True, eq=False)
class Batch:
    """One training batch: the model's inputs, the targets, and the text they came from.

    Attributes:
        inputs: arguments of the model, each (rows, tokens).
        targets: class index (rows,) or next-token targets (rows, tokens) with -100 where there is none.
        texts: the rows as text, for text statistics.
    """

    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Validation:
    """What a model does on some rows of the validation split.

    Attributes:
        objective: smooth, lower is better; 0.01 of it is a hundredth of a nat of language modelling, or as much as a
            point of accuracy. No update may make it, or the quality, worse than the encoder tolerates.
        quality: as ``Workload.evaluate``.
        smooth_quality: the quality without its jumps, by which bytes are priced: what makes a model only surer of what
            it says does not count.
    """

    objective: float
    quality: float
    smooth_quality: float


class Workload(ABC):
    """A model and the job it is adapted to.

    Attributes:
        model: the Transformers model, in evaluation mode (no dropout) and on its device.
        head: parameters trained in full, by name.
        metric: what ``evaluate`` measures: accuracy in 0 … 1, or nll in nats a token.
        modules_to_save: module names that hold the head, for the PEFT export.
        base_fingerprint: identifies the base model.
        unk_token_id: the tokenizer's token for what it does not know; None if it has none.
    """

    model: nn.Module
    head: dict[str, nn.Parameter]
    metric: Metric
    task_type: str
    modules_to_save: tuple[str, ...]
    base_fingerprint: str
    unk_token_id: int | None = None

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger quality is a better one."""
        return self.metric == "accuracy"

    @abstractmethod
    def batch(self, step: int) -> Batch:
        """The training batch of a step: a pure function of the workload's seed and the step."""

    @abstractmethod
    def loss(self, batch: Batch, rows: slice = slice(None)) -> torch.Tensor:
        """Mean loss in nats of some rows of a batch under the model as it is now."""

    @abstractmethod
    def evaluate(self, split: str, limit: int | None = None) -> float:
        """Quality on a split (or on ``limit`` of its rows, always the same ones) of the model as it is now."""

    @abstractmethod
    def validate(self, limit: int, apart: int = 0) -> Validation:
        """What the encoder measures, on ``limit`` rows of the validation split, always the same ones.

        Args:
            limit: how many rows: of all of them those that ``evaluate`` takes.
            apart: above 0: none of those that ``evaluate`` takes of so many, as long as there are others.
        """


def rows_apart(rows: int, sample: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """``limit`` of so many rows, drawn once by seed from those outside a sample; where they end, from the sample."""
    others = np.random.default_rng([seed, 8]).permutation(np.setdiff1d(np.arange(rows), sample))
    return np.concatenate([others, sample])[:limit]


def epoch_order(seed: int, epoch: int, rows: int) -> np.ndarray:
    """The order of the rows in one epoch: a pure function of seed and epoch."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def rows_of_step(seed: int, step: int, batch_size: int, rows: int) -> np.ndarray:
    """Row indices of one step's batch, (batch_size,), walking through shuffled epochs without gaps."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // rows
    orders = {epoch: epoch_order(seed, epoch, rows) for epoch in np.unique(epochs).tolist()}
    return np.array([orders[e][p] for e, p in zip(epochs.tolist(), (positions % rows).tolist(), strict=True)])
