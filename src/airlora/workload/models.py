"""Loading a base model: built in, a Transformers folder, or a hub id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from airlora.errors import ModelError
from airlora.workload.builtin import builtin_model_path

_HEAD_MODULES = ("classifier", "score")
_HEAD_SEED = 0


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A base model ready to be adapted.

    Attributes:
        model: in evaluation mode, on ``device``.
        tokenizer: its tokenizer, with a pad token.
        head: parameters of the classification head, by name; empty for language models. Their initial
            values are the same on every machine: zeros in the last linear map, seeded Gaussians before it.
        head_modules: modules that hold them.
        fingerprint: of the base: configuration and a sample of every tensor, the head left out.
    """

    model: nn.Module
    tokenizer: Any
    device: torch.device
    head: dict[str, nn.Parameter]
    head_modules: tuple[str, ...]
    fingerprint: str


def load_model(source: str, *, num_labels: int | None, device: str = "auto", dtype: str = "auto") -> LoadedModel:
    """Load a causal language model (``num_labels`` None) or a sequence classifier.

    Args:
        source: ``builtin:NAME``, a folder with config.json, weights and tokenizer, or a hub id.
        num_labels: classes of the head.
        device: ``auto`` (GPU if there is one), ``cpu``, ``cuda`` …
        dtype: ``float32``, ``bfloat16``, or ``auto``: bfloat16 on a GPU, float32 on a CPU.

    Raises:
        ModelError: the folder is missing or incomplete, or the hub id cannot be had.
    """
    chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device {device!r} is not there: PyTorch finds no GPU; use --device cpu")
    kind = ("bfloat16" if chosen.type == "cuda" else "float32") if dtype == "auto" else dtype
    path = _resolve(source)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    cls: Any = (
        transformers.AutoModelForCausalLM if num_labels is None else transformers.AutoModelForSequenceClassification
    )
    options: dict[str, Any] = {} if num_labels is None else {"num_labels": num_labels, "ignore_mismatched_sizes": True}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        model, loading = cls.from_pretrained(path, dtype=getattr(torch, kind), output_loading_info=True, **options)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ImportError,
        RuntimeError,
        SafetensorError,
    ) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"model {source!r} cannot be loaded: {first}; it needs config.json, weights and a tokenizer"
        ) from error
    _check_tokenizer(tokenizer, model, source, Path(path))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise ModelError(f"the tokenizer of {source!r} has no pad, end or unknown token; add a pad token to it")
    model.config.pad_token_id = tokenizer.pad_token_id
    _refuse_bidirectional(model, source, num_labels)
    fresh = set(loading["missing_keys"]) | {key for key, *_ in loading.get("mismatched_keys", ())}
    lacking = sorted(key for key in fresh if num_labels is None or not _may_be_new(key, model.base_model_prefix))
    if lacking:
        raise ModelError(
            f"{source!r} lacks {len(lacking)} weights of {type(model).__name__}, among them {lacking[0]!r};"
            " give a complete model folder"
        )
    head = {
        name: parameter
        for name, parameter in model.named_parameters()
        if num_labels is not None and (name in fresh or name.split(".")[0] in _HEAD_MODULES)
    }
    _initialise_head(head, fresh)
    model.eval()
    return LoadedModel(
        model=model.to(chosen),
        tokenizer=tokenizer,
        device=chosen,
        head=head,
        head_modules=tuple(dict.fromkeys(_head_module(name) for name in head)),
        fingerprint=fingerprint(model, exclude=set(head)),
    )


def _resolve(source: str) -> str:
    kind, _, name = source.partition(":")
    if kind == "builtin":
        return str(builtin_model_path(name))
    path = Path(source)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{source!r} is not a Transformers folder: it has no config.json")
        return source
    if path.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise ModelError(f"model {source!r} is not a folder; give builtin:NAME, a Transformers folder or a hub id")
    return source


def _check_tokenizer(tokenizer: Any, model: Any, source: str, folder: Path) -> None:
    """Refuse a tokenizer that Transformers made up, as it does where a folder has none, or that is another model's."""
    files = {"tokenizer.json", "tokenizer.model", *tokenizer.vocab_files_names.values()}
    if folder.is_dir() and tokenizer.vocab_files_names and not any((folder / name).is_file() for name in files):
        raise ModelError(f"{source!r} has no tokenizer; put one of these files there: {', '.join(sorted(files))}")
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(f"the tokenizer of {source!r} has {len(tokenizer)} tokens, the model {rows}; give it its own")


def _refuse_bidirectional(model: nn.Module, source: str, num_labels: int | None) -> None:
    """A masked language model sees the token that it is asked to predict: its NLL would mean nothing."""
    config: Any = model.config
    if num_labels is None and config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.is_decoder:
        raise ModelError(
            f"{source!r} is a {config.model_type}, which reads in both directions; language modelling needs a causal"
            " model such as OPT, Llama or GPT-2 (or use --task classify)"
        )


def _may_be_new(key: str, base_prefix: str) -> bool:
    """Whether a base model may lack this weight: a head outside it, or the pooler that leads to the head."""
    return not key.startswith(base_prefix + ".") or ".pooler." in key


def _head_module(parameter: str) -> str:
    first = parameter.split(".")[0]
    return first if first in _HEAD_MODULES else parameter.rpartition(".")[0]


def _initialise_head(head: dict[str, nn.Parameter], fresh: set[str]) -> None:
    generator = torch.Generator().manual_seed(_HEAD_SEED)
    matrices = [name for name in head if name in fresh and head[name].ndim > 1]
    with torch.no_grad():
        for name, parameter in head.items():
            parameter.data = parameter.data.float()
            if name in matrices[:-1]:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
            elif name in fresh:
                parameter.zero_()


def autocast(model: nn.Module) -> torch.autocast:
    """Mixed precision where the base is bfloat16, since adapter and head are float32; nothing elsewhere."""
    base: Any = model
    return torch.autocast(base.device.type, dtype=torch.bfloat16, enabled=base.dtype == torch.bfloat16)


def context_tokens(model: nn.Module, wanted: int) -> int:
    """``wanted``, or the most tokens that the model has positions for if that is less."""
    config: Any = model.config
    longest = int(getattr(config, "max_position_embeddings", None) or wanted)
    for name, module in model.named_modules():
        # RoBERTa counts positions from its padding index on.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            longest -= int(module.padding_idx) + 1
    return min(wanted, longest)


def fingerprint(model: nn.Module, exclude: Container[str] = ()) -> str:
    """First 16 hex digits of a SHA-256 over the configuration's shape and a sample of every base tensor.

    The sample is rounded to bfloat16, so that a base has one fingerprint on CPU and on GPU.
    """
    digest = hashlib.sha256()
    config: Any = model.config
    keys = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")
    shape = {key: getattr(config, key, None) for key in keys}
    digest.update(json.dumps(shape, sort_keys=True).encode())
    for name, parameter in sorted(model.named_parameters()):
        if name in exclude:
            continue
        flat = parameter.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 64)][:64].bfloat16().float().cpu().numpy()
        digest.update(name.encode() + repr(tuple(parameter.shape)).encode() + sample.astype("<f4").tobytes())
    return digest.hexdigest()[:16]
