"""Training a peer with PEFT, and keeping the file it would send after every round.

A recording of one peer, job and seed:

    round-0004/adapter_model.safetensors, adapter_config.json   as ``save_pretrained`` writes them
    round-0004.json      bytes of each kind of file, validation quality in fp32 and fp16, training seconds
    complete.json        written last: learning rates, steps, test quality after the last round
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zstandard
from safetensors.torch import load_file, save
from torch import nn
from transformers.pytorch_utils import Conv1D

from airlora.adapter import find_targets
from airlora.adapter.targets import shape_of
from airlora.compare.peers import FILE_KINDS, Eva, FileKind, Peer, Target
from airlora.config import RunConfig
from airlora.errors import ModelError, StoreError, TrainingError
from airlora.job import load_workload
from airlora.workload.base import Workload

MAX_GRADIENT_NORM = 1.0
"""Of the clipping, as in the Transformers trainer."""

_EVA_BATCHES = 16
_ZSTD_LEVEL = 19


@dataclass(frozen=True)
class PeerRound:
    """What one round of a peer left behind.

    Attributes:
        file_bytes: kind of file -> bytes of weights and configuration together.
        quality: ``fp32`` and ``fp16`` -> quality on the validation split.
        train_s: seconds of training.
    """

    file_bytes: dict[FileKind, int]
    quality: dict[str, float]
    train_s: float


class PeerTraining:
    """One peer on one job, trained from the start.

    Args:
        peer: what to train.
        config: the job; its seed sets batches and initial weights.

    Raises:
        ModelError: the method cannot adapt this model.
    """

    def __init__(self, peer: Peer, config: RunConfig):
        torch.set_num_threads(1)
        self.peer = peer
        self.config = config
        self.workload = load_workload(config)
        self.total_steps = self._steps_until(config.rounds)
        self.lr = peer.rate(int(getattr(getattr(self.workload.model, "config", None), "hidden_size", 64)))
        self.head_ratio = 1.0 if peer.head is None else peer.head
        self.model = _adapted(peer, self.workload, config, self.total_steps)
        trained = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        head = [p for name, p in trained.items() if "modules_to_save" in name]
        adapter = [p for name, p in trained.items() if "modules_to_save" not in name]
        groups = [{"params": adapter, "lr": self.lr}]
        if head:
            groups.append({"params": head, "lr": self.lr * self.head_ratio})
        self._trained = list(trained.values())
        self._optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        total = self.total_steps if peer.schedule == "linear" else None
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: 1.0 if total is None else max(0.0, 1 - step / total)
        )

    def _steps_until(self, rounds: int) -> int:
        return round(rounds * self.config.steps_per_round * self.peer.steps)

    def train_round(self, index: int) -> float:
        """Train one round's steps, on the batches that every arm sees; returns the mean loss in nats.

        Raises:
            TrainingError: the loss is not finite.
        """
        losses = []
        for step in range(self._steps_until(index), self._steps_until(index + 1)):
            self._optimizer.zero_grad()
            loss = self.workload.loss(self.workload.batch(step))
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"peer {self.peer.spec} diverged: its loss is {float(loss)} at step {step}; give a lower lr"
                    f" (it was {self.lr:g})"
                )
            (loss + _adalora_orthogonality(self.model)).backward()
            nn.utils.clip_grad_norm_(self._trained, MAX_GRADIENT_NORM)
            self._optimizer.step()
            self._schedule.step()
            if self.peer.method == "adalora":
                self.model.base_model.update_and_allocate(step)
            losses.append(float(loss.detach()))
        if not all(torch.isfinite(parameter).all() for parameter in self._trained):
            raise TrainingError(f"peer {self.peer.spec} diverged: numbers overflow in round {index}; give a lower lr")
        return float(np.mean(losses)) if losses else float("nan")

    def quality(self, split: str, half: bool = False) -> float:
        """Quality of the adapter as it would be saved now, in fp32 or cast to fp16.

        Raises:
            TrainingError: it is not finite.
        """
        with _as_sent(self._trained, half, self._prune):
            limit = self.config.validation_limit if split == "validation" else self.config.test_limit
            value = self.workload.evaluate(split, limit)
        if not np.isfinite(value):
            raise TrainingError(f"peer {self.peer.spec}: {self.workload.metric} is {value}; give a lower lr")
        return value

    def _prune(self) -> None:
        """Zero what AdaLoRA has pruned but goes on training until it prunes again: its file leaves it out."""
        pattern = getattr(self.model.peft_config["default"], "rank_pattern", None)
        if self.peer.method == "adalora" and pattern:
            base = self.model.base_model
            base.rankallocator.mask_using_rank_pattern(base.model, pattern)

    def save_round(self, folder: Path, index: int, train_s: float) -> PeerRound:
        """Write the round's file, and its figures last."""
        files = folder / f"round-{index:04d}"
        with _without_hints():
            self.model.save_pretrained(str(files), save_embedding_layers=False)
        (files / "README.md").unlink(missing_ok=True)
        done = PeerRound(
            file_bytes=file_bytes(files),
            quality={"fp32": self.quality("validation"), "fp16": self.quality("validation", half=True)},
            train_s=round(train_s, 3),
        )
        (folder / f"round-{index:04d}.json").write_text(json.dumps(vars(done)), encoding="utf-8")
        return done


def record_peer(peer: Peer, config: RunConfig, folder: Path) -> None:
    """Train a peer once, and keep every round's file and figures; nothing is done if that is there already.

    Raises:
        ModelError: the method cannot adapt this model.
        TrainingError: training diverged.
    """
    if (folder / "complete.json").exists():
        return
    training = PeerTraining(peer, config)
    trained_s = 0.0
    for index in range(config.rounds):
        started = time.perf_counter()
        training.train_round(index)
        train_s = time.perf_counter() - started
        trained_s += train_s
        training.save_round(folder, index, train_s)
    complete = {
        "cloud_quality": training.quality("test"),
        "cloud_quality_fp16": training.quality("test", half=True),
        "lr": training.lr,
        "head_lr": training.lr * training.head_ratio,
        "steps_trained": training.total_steps,
        "trained_numbers": sum(p.numel() for p in training._trained),
        "training_s": round(trained_s, 3),
    }
    (folder / "complete.json").write_text(json.dumps(complete), encoding="utf-8")


def load_round(folder: Path, index: int) -> PeerRound:
    """Read a recorded round's figures.

    Raises:
        StoreError: they are missing or not readable.
    """
    path = folder / f"round-{index:04d}.json"
    try:
        return PeerRound(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"recording {path} cannot be read ({error}); delete its folder and run again") from error


def test_quality(folder: Path, index: int, rounds: int, half: bool, config: RunConfig) -> float:
    """Test quality of the file of one round, loaded as the edge loads it, measured once and then read.

    Args:
        folder: of the recording.
        index: of the round whose file the edge holds; ``rounds``: of the recording.
        half: the file was cast to fp16.
        config: of the job.
    """
    complete = json.loads((folder / "complete.json").read_text(encoding="utf-8"))
    if index == rounds - 1:
        return float(complete["cloud_quality_fp16" if half else "cloud_quality"])
    path = folder / f"round-{index:04d}.test-{'fp16' if half else 'fp32'}.json"
    if not path.exists():
        value = _quality_of_file(folder / f"round-{index:04d}", half, config)
        path.write_text(json.dumps(value), encoding="utf-8")
    return float(json.loads(path.read_text(encoding="utf-8")))


def file_bytes(files: Path) -> dict[FileKind, int]:
    """Bytes of a saved adapter, weights and configuration, in each kind of file."""
    weights, settings = files / "adapter_model.safetensors", (files / "adapter_config.json").read_bytes()
    half = save({name: _cast(tensor) for name, tensor in load_file(weights).items()}, metadata={"format": "pt"})
    compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
    sizes = (
        weights.stat().st_size + len(settings),
        len(half) + len(settings),
        len(compressor.compress(half)) + len(compressor.compress(settings)),
    )
    return dict(zip(FILE_KINDS, sizes, strict=True))


def _quality_of_file(files: Path, half: bool, config: RunConfig) -> float:
    from peft import PeftModel

    workload = load_workload(config)
    with _without_hints():
        model = PeftModel.from_pretrained(workload.model, str(files), is_trainable=True)
    model.eval()
    with _as_sent([p for p in model.parameters() if p.requires_grad], half, prune=lambda: None):
        return workload.evaluate("test", config.test_limit)


def _adapted(peer: Peer, workload: Workload, config: RunConfig, total_steps: int) -> Any:
    """The workload's model with PEFT's layers put in (the workload goes on using it) and only them trainable."""
    from peft import get_peft_model, initialize_lora_eva_weights

    targets = tuple(
        Target(name, *shape_of(module), transposed=isinstance(module, Conv1D))
        for name, module in find_targets(workload.model, config.target_names).items()
    )
    options: dict[str, Any] = {"target_modules": [target.name for target in targets], "task_type": workload.task_type}
    if workload.modules_to_save:
        options["modules_to_save"] = list(workload.modules_to_save)
    torch.manual_seed(config.seed)
    try:
        with _without_hints():
            model: Any = get_peft_model(workload.model, peer.peft_config(targets, total_steps, options))
            if isinstance(peer, Eva):
                batches = [workload.batch(step).inputs for step in range(_EVA_BATCHES)]
                initialize_lora_eva_weights(
                    model,
                    dataloader=batches,
                    prepare_model_inputs_fn=_token_mask,
                    prepare_layer_inputs_fn=_rows_of_tokens,
                    show_progress_bar=False,
                )
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ModelError(f"peer {peer.spec} cannot adapt {type(workload.model).__name__}: {error}") from error
    model.eval()  # no dropout, as for every arm
    # The name goes into the file that is sent: that of a folder on this machine would make its size this machine's.
    model.peft_config["default"].base_model_name_or_path = Path(config.model).name
    return model


def _token_mask(inputs: dict[str, torch.Tensor], config: Any) -> torch.Tensor:
    """Which tokens EVA looks at, (rows × tokens,): all but padding."""
    return inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool().reshape(-1)


def _rows_of_tokens(layer_input: Any, mask: torch.Tensor, name: str) -> torch.Tensor:
    """The tokens' inputs to a layer, (tokens, d_in); PEFT's own function fails where OPT flattens rows and tokens."""
    hidden = layer_input if isinstance(layer_input, torch.Tensor) else layer_input[0]
    return hidden.reshape(len(mask), -1)[mask]


def _adalora_orthogonality(model: Any) -> torch.Tensor | float:
    """AdaLoRA's regulariser as ``AdaLoraModel.forward`` adds it to a model's own loss; 0 for every other method."""
    config = model.peft_config["default"]
    if config.peft_type != "ADALORA":
        return 0.0
    terms = []
    for name, parameter in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            gram = parameter @ parameter.T if "lora_A" in name else parameter.T @ parameter
            terms.append(torch.linalg.norm(gram - torch.eye(len(gram), device=gram.device)))
    return config.orth_reg_weight * torch.stack(terms).mean()


def _cast(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


@contextmanager
def _without_hints() -> Iterator[None]:
    """Within the block PEFT's warnings are not shown: hints to interactive users, and rank 0 taken for a lost shard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _as_sent(parameters: list[nn.Parameter], half: bool, prune: Callable[[], None]) -> Iterator[None]:
    """Within the block the parameters are what a file holds: pruned as it is, and cast to fp16 if ``half``."""
    kept = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            prune()
            for parameter in parameters if half else ():
                parameter.copy_(parameter.half())
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)
