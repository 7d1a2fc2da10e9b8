"""Causal language modelling: windows of one running text."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from airlora.errors import DataError
from airlora.workload.base import Batch, Validation, Workload, rows_apart, rows_of_step
from airlora.workload.data import Dataset
from airlora.workload.models import LoadedModel, autocast, context_tokens


class LanguageModelWorkload(Workload):
    """Adapts a causal language model to a text; quality is the mean NLL in nats a token.

    Documents of a split are joined by the tokenizer's end-of-text token. Training rows are windows of
    ``context`` tokens; the windows' start shifts from epoch to epoch, so that every position is
    predicted with long and short contexts. Evaluation windows are contiguous and do not overlap.
    """

    metric = "nll"
    task_type = "CAUSAL_LM"
    modules_to_save = ()

    def __init__(self, loaded: LoadedModel, dataset: Dataset, *, batch_size: int, context: int, seed: int):
        self.model = loaded.model
        self.head = {}
        self.base_fingerprint = loaded.fingerprint
        self._tokenizer = loaded.tokenizer
        self.unk_token_id = loaded.tokenizer.unk_token_id
        self._device = loaded.device
        self._batch_size = batch_size
        self._seed = seed
        self._tokens = {split: self._encode(texts) for split, texts in dataset.texts.items()}
        self._context = context_tokens(loaded.model, context)
        for split, tokens in self._tokens.items():
            if len(tokens) < 2:
                raise DataError(f"split {split!r} has {len(tokens)} tokens; at least 2 are needed to predict one")

    def _encode(self, texts: tuple[str, ...]) -> np.ndarray:
        noisy = logging.getLogger("transformers.tokenization_utils_base")
        level = noisy.level
        noisy.setLevel(logging.ERROR)  # the text is longer than the model on purpose: it is cut into windows below
        encoded: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        noisy.setLevel(level)
        end = self._tokenizer.eos_token_id
        joined: list[int] = []
        for document in encoded:
            if joined and end is not None:
                joined.append(end)
            joined.extend(document)
        return np.array(joined, dtype=np.int64)

    def batch(self, step: int) -> Batch:
        """``batch_size`` windows of the training text."""
        tokens = self._tokens["train"]
        length = min(self._context, len(tokens) - 1)
        rows = max(1, (len(tokens) - 1) // length - 1)
        epoch = step * self._batch_size // rows
        shift = int(np.random.default_rng([self._seed, epoch, 1]).integers(0, length)) if rows > 1 else 0
        starts = rows_of_step(self._seed, step, self._batch_size, rows) * length + shift
        window = tokens[np.minimum(starts, len(tokens) - 1 - length)[:, None] + np.arange(length + 1)]
        texts = tuple(self._tokenizer.batch_decode(window[:, :-1]))
        return self._to_batch(window, texts)

    def _to_batch(self, window: np.ndarray, texts: tuple[str, ...]) -> Batch:
        ids = torch.from_numpy(window).to(self._device)
        return Batch({"input_ids": ids[:, :-1].contiguous()}, ids[:, 1:].contiguous(), texts)

    def _token_losses(self, batch: Batch, rows: slice, reduction: str) -> torch.Tensor:
        inputs: dict[str, Any] = {name: value[rows] for name, value in batch.inputs.items()}
        with autocast(self.model):
            logits = self.model(**inputs, use_cache=False).logits.float()
        return F.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), batch.targets[rows].reshape(-1), reduction=reduction
        )

    def loss(self, batch: Batch, rows: slice = slice(None)) -> torch.Tensor:
        """Mean NLL of the rows' tokens, in nats."""
        return self._token_losses(batch, rows, "mean")

    def evaluate(self, split: str, limit: int | None = None) -> float:
        """Mean NLL a token over the split's windows (``limit`` of them, evenly spaced)."""
        starts = self._starts(split)
        return self._mean_loss(split, starts[_evenly(len(starts), limit)])

    def validate(self, limit: int, apart: int = 0) -> Validation:
        """Mean NLL a token over windows of the validation split, as all three; see ``Workload``."""
        starts = self._starts("validation")
        rows = _evenly(len(starts), limit)
        if apart:
            rows = rows_apart(len(starts), _evenly(len(starts), apart), limit, self._seed)
        loss = self._mean_loss("validation", starts[rows])
        return Validation(loss, loss, loss)

    def _starts(self, split: str) -> np.ndarray:
        tokens = self._tokens[split]
        length = min(self._context, len(tokens) - 1)
        return np.arange(0, len(tokens) - length, length)

    @torch.inference_mode()
    def _mean_loss(self, split: str, starts: np.ndarray) -> float:
        tokens = self._tokens[split]
        length = min(self._context, len(tokens) - 1)
        total, count = 0.0, 0
        for begin in range(0, len(starts), self._batch_size):
            window = tokens[starts[begin : begin + self._batch_size, None] + np.arange(length + 1)]
            batch = self._to_batch(window, ())
            total += float(self._token_losses(batch, slice(None), "sum"))
            count += batch.targets.numel()
        return total / count


def _evenly(count: int, limit: int | None) -> np.ndarray:
    """``limit`` of so many, evenly spaced; all if there is none."""
    return np.linspace(0, count - 1, min(limit or count, count)).astype(int)
