"""Sequence classification: short texts, one label each, a trained head."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from airlora.workload.base import Batch, Validation, Workload, rows_apart, rows_of_step
from airlora.workload.data import Dataset
from airlora.workload.models import LoadedModel, autocast, context_tokens

_ROWS_AT_ONCE_CPU, _ROWS_AT_ONCE = 16, 64
"""Rows that are measured at once: a CPU is as fast with few, which need less padding."""
_NOISE = 0.25
"""Of the smooth quality: standard deviation of a margin's noise over the root mean square of the margins."""
_NODES = 24
"""Of the quadrature over the noise of the right label's logit."""


class ClassificationWorkload(Workload):
    """Adapts a model and its classification head to labelled texts; quality is accuracy in 0 … 1."""

    metric = "accuracy"
    task_type = "SEQ_CLS"

    def __init__(self, loaded: LoadedModel, dataset: Dataset, *, batch_size: int, max_length: int, seed: int):
        self.model = loaded.model
        self.head = loaded.head
        self.modules_to_save = loaded.head_modules
        self.base_fingerprint = loaded.fingerprint
        self.labels = dataset.labels
        self._device = loaded.device
        self._batch_size = batch_size
        self._seed = seed
        self._texts = dataset.texts
        self._targets = dataset.targets
        self._pad = loaded.tokenizer.pad_token_id
        self.unk_token_id = loaded.tokenizer.unk_token_id
        longest = context_tokens(loaded.model, max_length)
        self._tokens = {
            split: loaded.tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]
            for split, texts in dataset.texts.items()
        }

    def _collate(self, split: str, rows: np.ndarray) -> Batch:
        sequences = [self._tokens[split][row] or [self._pad] for row in rows]
        length = max(len(sequence) for sequence in sequences)
        ids = torch.full((len(rows), length), self._pad)
        mask = torch.zeros(len(rows), length, dtype=torch.int64)
        for index, sequence in enumerate(sequences):
            ids[index, : len(sequence)] = torch.tensor(sequence)
            mask[index, : len(sequence)] = 1
        return Batch(
            {"input_ids": ids.to(self._device), "attention_mask": mask.to(self._device)},
            torch.from_numpy(self._targets[split][rows]).to(self._device),
            tuple(self._texts[split][row] for row in rows),
        )

    def batch(self, step: int) -> Batch:
        """``batch_size`` labelled training texts."""
        return self._collate("train", rows_of_step(self._seed, step, self._batch_size, len(self._texts["train"])))

    def _logits(self, batch: Batch, rows: slice) -> torch.Tensor:
        with autocast(self.model):
            return self.model(**{name: value[rows] for name, value in batch.inputs.items()}).logits.float()

    def loss(self, batch: Batch, rows: slice = slice(None)) -> torch.Tensor:
        """Mean cross-entropy of the rows, in nats."""
        return F.cross_entropy(self._logits(batch, rows), batch.targets[rows])

    @torch.inference_mode()
    def evaluate(self, split: str, limit: int | None = None) -> float:
        """Accuracy over the split (or ``limit`` rows drawn once by seed), batched by length to waste no padding."""
        hits = rows = 0
        for batch in self._batches(split, self._sample(split, limit)):
            hits += int((self._logits(batch, slice(None)).argmax(-1) == batch.targets).sum())
            rows += len(batch.targets)
        return hits / rows

    @torch.inference_mode()
    def validate(self, limit: int, apart: int = 0) -> Validation:
        """One minus the mean probability of the right label, accuracy, and accuracy under noise; see ``Workload``.

        The first is as smooth as the loss where accuracy jumps by whole rows, and bounded like accuracy: early in
        training the cross-entropy can rise, as the model gets sure of itself, while accuracy rises too. It goes on
        falling while a model only gets surer; so bytes are priced by ``noisy_accuracy``, with noise in proportion to
        the margins (the right label's logit less the largest other): whatever the scale of the logits.
        """
        rows = self._sample("validation", limit)
        if apart:
            rows = rows_apart(len(self._texts["validation"]), self._sample("validation", apart), limit, self._seed)
        right, hits, found, margins = 0.0, 0, [], []
        for batch in self._batches("validation", rows):
            logits, label = self._logits(batch, slice(None)), batch.targets[:, None]
            right += float(logits.softmax(-1).gather(1, label).sum())
            hits += int((logits.argmax(-1) == batch.targets).sum())
            leads = (logits.gather(1, label) - logits).double()
            margins.append(leads.scatter(1, label, torch.inf).amin(-1))
            others = torch.arange(logits.shape[1], device=logits.device) != label
            found.append(leads[others].view(len(logits), logits.shape[1] - 1))
        margin = torch.cat(margins)
        noise = _NOISE * float(margin.square().mean().sqrt())
        return Validation(1 - right / len(margin), hits / len(margin), noisy_accuracy(torch.cat(found), noise))

    def _sample(self, split: str, limit: int | None) -> np.ndarray:
        total = len(self._texts[split])
        if limit is None or limit >= total:
            return np.arange(total)
        return np.random.default_rng([self._seed, 7]).choice(total, limit, replace=False)

    def _batches(self, split: str, rows: np.ndarray) -> Iterator[Batch]:
        rows = rows[np.argsort([len(self._tokens[split][row]) for row in rows], kind="stable")]
        at_once = _ROWS_AT_ONCE_CPU if self._device.type == "cpu" else _ROWS_AT_ONCE
        for begin in range(0, len(rows), at_once):
            yield self._collate(split, rows[begin : begin + at_once])


def noisy_accuracy(leads: torch.Tensor, noise: float) -> float:
    """Share of right answers, in expectation, if every logit had independent Gaussian noise.

    Given the noise t of the right label's logit, it wins with probability Π Φ(lead + t), in units of a logit's noise;
    Gauss-Hermite quadrature over t. A model that knows nothing, all logits equal, has 1 / (number of labels).

    Args:
        leads: (rows, labels - 1), float64: by how much the right label's logit exceeds each other one.
        noise: standard deviation of the noise of a lead, √2 times that of a logit; 0 breaks ties only.
    """
    scaled = leads / max(noise / 2**0.5, 1e-300)
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    wins = sum(w * torch.special.log_ndtr(scaled + t).sum(-1).exp() for t, w in zip(nodes, weights, strict=True))
    return float(torch.as_tensor(wins).mean()) / float(weights.sum())
