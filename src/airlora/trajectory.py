"""The cloud's side of a job, round by round: trained live, or replayed from a recording.

With a fixed mixture of prefixes the cloud's trajectory does not depend on what is sent, so one recording
serves every policy and every link of a comparison.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from airlora.adapter import Trainer, component_energy
from airlora.codec import EdgeState
from airlora.curvature import Curvature, QuantiserSteps
from airlora.errors import StoreError, TrainingError
from airlora.factors import Factors, Schema
from airlora.workload.base import Batch
from airlora.workload.text import TextStatistics, Vocabulary, describe, words

OnStep = Callable[[], None]
"""Called after every training step."""


@dataclass(frozen=True, eq=False)
class CloudRound:
    """What the cloud has after one round of training.

    Attributes:
        factors: the whole adapter, all components.
        text: statistics of the round's text, before it entered the vocabulary; ``loss`` is the mean
            training loss of the round in nats.
        trained_ranks, sensitivity, energy: see ``policy.Observation``.
        quality: of the whole adapter, on the validation split.
        curvature: at these factors; None where training gives none (the SVD form).
    """

    factors: Factors
    text: TextStatistics
    trained_ranks: np.ndarray
    sensitivity: np.ndarray
    energy: np.ndarray
    quality: float
    curvature: Curvature | None = None


class Cloud(ABC):
    """Where the rounds' adapters come from."""

    @abstractmethod
    def advance(self, round_index: int, held: EdgeState, on_step: OnStep, expected_bytes: float = nan) -> CloudRound:
        """Train (or replay) one round; rounds are asked for in order.

        Args:
            round_index: from 0. held: what the edge is known to hold. on_step: called after every step.
            expected_bytes: what the link is expected to carry in a round; NaN while nothing is known.
        """


class LiveCloud(Cloud):
    """Trains.

    Args:
        trainer: of the job.
        steps_per_round: training steps a round.
        evaluate: quality of given factors on the validation split.
    """

    def __init__(self, trainer: Trainer, steps_per_round: int, evaluate: Callable[[Factors], float]):
        self._trainer = trainer
        self._steps = steps_per_round
        self._evaluate = evaluate
        self.vocabulary = Vocabulary()

    def advance(self, round_index: int, held: EdgeState, on_step: OnStep, expected_bytes: float = nan) -> CloudRound:
        """Train ``steps_per_round`` steps.

        Raises:
            TrainingError: a loss or a number of the adapter is not finite.
        """
        texts: list[str] = []
        losses: list[float] = []

        def keep(batch: Batch, loss: float) -> None:
            texts.extend(batch.texts)
            losses.append(loss)
            on_step()

        self._trainer.strategy.begin_round(held.stored_factors(), held.active_ranks, expected_bytes)
        self._trainer.train(round_index * self._steps, self._steps, keep)
        text = describe(texts, self.vocabulary, float(np.mean(losses)))
        self.vocabulary.update(word for row in texts for word in words(row))
        adapter = self._trainer.adapter
        trained = self._trainer.strategy.trained_ranks(adapter)
        factors = self._trainer.factors()
        with np.errstate(over="ignore", invalid="ignore"):
            energy = component_energy(factors)
        if not all(np.isfinite(array).all() for array in (energy, *factors.head.values())):
            raise TrainingError(
                f"training diverged: numbers of the adapter overflow after round {round_index}; start again in a new"
                " folder with a lower --lr (rounds finished before are kept)"
            )
        return CloudRound(
            factors=factors,
            text=text,
            trained_ranks=trained,
            sensitivity=self._trainer.sensitivity.values.copy(),
            energy=energy,
            quality=self._evaluate(factors.truncate(trained)),
            curvature=self._trainer.curvature(factors, (round_index + 1) * self._steps - 1),
        )

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and plain data that the next round depends on."""
        return self._trainer.state(), {"vocabulary": self.vocabulary.to_json()}

    def load_state(self, tensors: dict[str, torch.Tensor], data: dict[str, Any]) -> None:
        """Restore what ``state`` gave."""
        self._trainer.load_state(tensors)
        self.vocabulary = Vocabulary.from_json(data["vocabulary"])


class RecordedCloud(Cloud):
    """Replays what ``record_round`` wrote."""

    def __init__(self, folder: Path, schema: Schema):
        self._folder = folder
        self._schema = schema

    def advance(self, round_index: int, held: EdgeState, on_step: OnStep, expected_bytes: float = nan) -> CloudRound:
        """Read one round; neither what the edge holds nor what the link carries matters.

        Raises:
            StoreError: the recording is missing, or of another schema.
        """
        path = self._folder / f"round-{round_index:04d}.safetensors"
        try:
            tensors = load_file(path)
            data = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        except OSError as error:
            raise StoreError(f"recording {path} cannot be read ({error}); record the job again") from error
        if data["schema_id"] != self._schema.id:
            raise StoreError(f"recording {path} is of schema {data['schema_id']}, the job has {self._schema.id}")
        count = len(self._schema.projections)
        factors = Factors(
            self._schema,
            tuple(tensors[f"u.{index}"] for index in range(count)),
            tuple(tensors[f"v.{index}"] for index in range(count)),
            {tensor.name: tensors[f"head.{tensor.name}"] for tensor in self._schema.head},
        )
        curvature = None
        if "gradient_u" in tensors:
            inputs = tuple(tensors[f"inputs.{index}"].astype(np.float32) for index in range(count))
            steps = None
            if "steps_u" in tensors:
                steps = QuantiserSteps(tensors["steps_u"], tensors["steps_v"], tensors["steps_head"])
            curvature = Curvature(self._schema, tensors["gradient_u"], tensors["gradient_v"], inputs, steps)
        return CloudRound(
            factors=factors,
            curvature=curvature,
            text=TextStatistics(**data["text"]),
            trained_ranks=tensors["trained_ranks"],
            sensitivity=tensors["sensitivity"],
            energy=tensors["energy"],
            quality=data["quality"],
        )


def record_round(folder: Path, round_index: int, cloud_round: CloudRound) -> None:
    """Write one round for ``RecordedCloud``; the JSON comes last, so a round with one is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    factors = cloud_round.factors
    tensors = {f"u.{index}": np.ascontiguousarray(u) for index, u in enumerate(factors.u)}
    tensors |= {f"v.{index}": np.ascontiguousarray(v) for index, v in enumerate(factors.v)}
    tensors |= {f"head.{name}": array for name, array in factors.head.items()}
    tensors |= {name: getattr(cloud_round, name) for name in ("trained_ranks", "sensitivity", "energy")}
    if curvature := cloud_round.curvature:
        tensors |= {"gradient_u": curvature.gradient_u, "gradient_v": curvature.gradient_v}
        # Half the size; a sample's second moments need no more digits.
        tensors |= {f"inputs.{index}": x.astype(np.float16) for index, x in enumerate(curvature.inputs)}
        if steps := curvature.steps:
            tensors |= {"steps_u": steps.u, "steps_v": steps.v, "steps_head": steps.head}
    path = folder / f"round-{round_index:04d}.safetensors"
    save_file(tensors, path)
    data = {"schema_id": factors.schema.id, "text": cloud_round.text.to_json(), "quality": cloud_round.quality}
    path.with_suffix(".json").write_text(json.dumps(data), encoding="utf-8")
