"""Which linear maps of a model are adapted."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from airlora.errors import ModelError


def shape_of(module: nn.Module) -> tuple[int, int]:
    """(d_out, d_in) of an adaptable module; GPT-2's ``Conv1D`` stores its weight transposed."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    d_out, d_in = weight.shape[::-1] if isinstance(module, Conv1D) else weight.shape
    return int(d_out), int(d_in)


def find_targets(model: nn.Module, names: Iterable[str] | None = None) -> dict[str, nn.Module]:
    """Full name -> module of every projection to adapt, in the model's order.

    With no names, every linear map inside a repeated block (an element of an ``nn.ModuleList``) is
    taken: that is q, k, v, attention output and the feed-forward maps of OPT, Llama, GPT-2, BERT,
    RoBERTa and Qwen alike, and never embeddings, poolers or heads. A name given selects every such
    module whose full name is that name or ends in ``.name``.

    Raises:
        ModelError: nothing matches; the message lists the names there are.
    """
    blocks = {name + "." for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    found: dict[str, nn.Module] = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and any(name.startswith(block) for block in blocks)
    }
    if not found:
        raise ModelError(
            f"{type(model).__name__} has no adaptable projection: no linear map inside a repeated block was found"
        )
    if names is None:
        return found
    chosen: dict[str, nn.Module] = {}
    for wanted in names:
        hits = {name: module for name, module in found.items() if name == wanted or name.endswith("." + wanted)}
        if not hits:
            kinds = sorted({name.rsplit(".", 1)[-1] for name in found})
            raise ModelError(f"target {wanted!r} matches no projection; there are: {', '.join(kinds)}")
        chosen.update(hits)
    return {name: module for name, module in found.items() if name in chosen}
