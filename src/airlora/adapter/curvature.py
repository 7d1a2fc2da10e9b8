"""Measuring what the codec needs to know of the loss: squared gradients and sampled inputs."""

from __future__ import annotations

import numpy as np
import torch

from airlora.adapter.nested import NestedAdapter, NestedLinear
from airlora.adapter.optim import NestedOptimizer
from airlora.curvature import Curvature
from airlora.factors import Factors
from airlora.workload.base import Batch, Workload

SAMPLES = 256
"""Tokens whose inputs are kept of every projection: a few times the largest rank, whose products they estimate."""


def measure_curvature(
    workload: Workload, adapter: NestedAdapter, optimizer: NestedOptimizer, factors: Factors, batch: Batch, seed: int
) -> Curvature:
    """The curvature at these factors: the optimiser's second moments, and inputs of the batch's tokens.

    Takes one forward pass. Padding is never sampled.

    Args:
        workload, adapter, optimizer: of the cloud, in the LoRA form.
        factors: what the model answers with.
        batch: texts to sample tokens from; at most ``SAMPLES`` of them, without replacement.
        seed: of the sample.
    """
    mask = batch.inputs.get("attention_mask")
    if mask is None:  # nothing is padded
        mask = torch.ones(next(iter(batch.inputs.values())).shape[:2], device=batch.targets.device)
    tokens = np.flatnonzero(mask.reshape(-1).cpu().numpy())
    chosen = np.random.default_rng([seed, 5]).permutation(len(tokens))[:SAMPLES]
    places = torch.from_numpy(np.sort(tokens[chosen])).to(mask.device)
    limit = torch.finfo(torch.half).max
    found: dict[NestedLinear, np.ndarray] = {}

    def keep(layer: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(layer, NestedLinear)
        x = arguments[0].detach().reshape(-1, arguments[0].shape[-1])
        # A model may drop the padding, or look at one token only: then there is nothing to choose from.
        at = places if len(x) == mask.numel() else slice(SAMPLES)
        # float16, as they are recorded: equal runs, replayed or not
        found[layer] = x[at].clamp(-limit, limit).half().float().cpu().numpy()

    hooks = [layer.register_forward_pre_hook(keep) for layer in adapter.layers.values()]
    try:
        with adapter.serving(factors), torch.inference_mode():
            workload.loss(batch)
    finally:
        for hook in hooks:
            hook.remove()
    gradient_u, gradient_v = optimizer.squared_gradients()
    inputs = [found.get(layer, np.zeros((0, layer.right.shape[1]), np.float32)) for layer in adapter.layers.values()]
    return Curvature(adapter.schema, gradient_u, gradient_v, tuple(inputs))
