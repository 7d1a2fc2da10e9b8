"""Learning rates where none is given."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from airlora.workload.base import Workload

LOGIT_STEP = 0.7
"""By how much one step of Adam on the head moves a logit at most, by which the head's rate is chosen; see LOG.md."""
RANK_EXPONENT = -0.5
"""Power of the rank that the rate of one rank trained alone follows; see LOG.md."""
UNSEEN_HEAD_LR_RATIO = 5.0
"""Rate of a head over the adapter's where no layer of it is seen at work."""


def automatic_lr(model: nn.Module, rank: int | None = None, *, pruned: bool = False) -> float:
    """Of the adapter: 0.5 / hidden size, three times that under AdaLoRA's pruning; 0.3 / (hidden size · √rank) for one
    rank; see LOG.md."""
    hidden = int(getattr(getattr(model, "config", None), "hidden_size", 64))
    scale = 0.3 * rank**RANK_EXPONENT if rank else 1.5 if pruned else 0.5
    return float(f"{scale / hidden:.2g}")


def automatic_head_lr(workload: Workload, lr: float) -> float:
    """Of the head: ``LOGIT_STEP`` over the size of what it reads; 0 where there is no head.

    A step of Adam moves every weight by about the rate, hence a logit by no more than the rate times the L1 norm of the
    layer's input. That norm is taken on the first training batch before training, the median over rows and positions,
    of the layer of the head where it is largest. A head in which no layer with a matrix of weights is seen at work has
    ``UNSEEN_HEAD_LR_RATIO`` times the adapter's ``lr``.
    """
    if not workload.head:
        return 0.0
    largest = _largest_input(workload)
    return float(f"{LOGIT_STEP / largest if largest else UNSEEN_HEAD_LR_RATIO * lr:.2g}")


@torch.no_grad()
def _largest_input(workload: Workload) -> float:
    matrices = {id(parameter) for parameter in workload.head.values() if parameter.ndim == 2}
    norms = [0.0]

    def see(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs:
            norms.append(float(inputs[0].float().abs().sum(dim=-1).median()))

    layers = [m for m in workload.model.modules() if any(id(p) in matrices for p in m.parameters(recurse=False))]
    hooks = [layer.register_forward_pre_hook(see) for layer in layers]
    try:
        workload.loss(workload.batch(0))
    finally:
        for hook in hooks:
            hook.remove()
    return max(norms)
