"""How much each component matters: first-order sensitivity, and AdaLoRA's importance score."""

from __future__ import annotations

import numpy as np
import torch

from airlora.adapter.nested import NestedAdapter
from airlora.factors import Factors


class Sensitivity:
    """Smoothed first-order sensitivity of every component.

    Scaling component k by (1 − ε) changes the loss by −ε · Σ left[k] · ∂L/∂left[k]; the absolute value
    of that sum, in nats, is what removing the component would cost to first order (Molchanov et al.
    2019, eq. 4, without the square). It is averaged over steps with weight ``decay``.
    """

    def __init__(self, adapter: NestedAdapter, decay: float = 0.9):
        self._adapter = adapter
        self._decay = decay
        r_max = int(adapter.schema.r_max.max())
        self.values = np.zeros((len(adapter.layers), r_max), dtype=np.float32)  # (projections, largest r_max)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the gradients of one step (call between backward and the optimiser's step)."""
        for row, layer in zip(self.values, self._adapter.layers.values(), strict=True):
            if layer.left.grad is not None:
                sums = (layer.left * layer.left.grad).sum(1).abs().cpu().numpy()
                row[: layer.r_max] = self._decay * row[: layer.r_max] + (1 - self._decay) * sums


def component_energy(factors: Factors) -> np.ndarray:
    """Squared Frobenius norm of every component, (projections, largest r_max); 0 beyond a projection's rank."""
    energy = np.zeros((len(factors.u), int(factors.schema.r_max.max())), dtype=np.float32)
    for row, u, v in zip(energy, factors.u, factors.v, strict=True):
        row[: len(v)] = (u**2).sum(0) * (v**2).sum(1)
    return energy


class AdaLoraImportance:
    """AdaLoRA's importance of every triplet (P_k, E_k, Q_k) (Zhang et al. 2023, eqs. 8-12).

    Per number: I = |w · ∂L/∂w|, smoothed to Ī with beta1; its uncertainty Ū smooths |I − Ī| with beta2;
    s = Ī · Ū. A triplet's score is s(E_k) plus the means of s over its column of P and its row of Q.
    """

    def __init__(self, adapter: NestedAdapter, beta1: float = 0.85, beta2: float = 0.85):
        self._adapter = adapter
        self._betas = (beta1, beta2)
        self._averages = {
            name: [(torch.zeros_like(p), torch.zeros_like(p)) for p in layer.component_parameters()]
            for name, layer in adapter.layers.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take in the gradients of one step (call between backward and the optimiser's step)."""
        beta1, beta2 = self._betas
        for name, layer in self._adapter.layers.items():
            for parameter, (mean, spread) in zip(layer.component_parameters(), self._averages[name], strict=True):
                if parameter.grad is not None:
                    importance = (parameter * parameter.grad).abs()
                    mean.lerp_(importance, 1 - beta1)
                    spread.lerp_((importance - mean).abs(), 1 - beta2)

    def scores(self) -> dict[str, torch.Tensor]:
        """Score of every triplet, (r_max,) a projection."""
        scores = {}
        for name, averages in self._averages.items():
            parts = [mean * spread for mean, spread in averages]
            scores[name] = torch.stack([part if part.ndim == 1 else part.mean(1) for part in parts]).sum(0)
        return scores

    def reorder(self, name: str, order: list[int]) -> None:
        """Permute one projection's components."""
        for mean, spread in self._averages[name]:
            mean.copy_(mean[order])
            spread.copy_(spread[order])

    def state(self) -> dict[str, torch.Tensor]:
        """The running averages as flat tensors for a checkpoint."""
        return {
            f"{name}.{index}.{kind}": tensor
            for name, averages in self._averages.items()
            for index, pair in enumerate(averages)
            for kind, tensor in zip(("mean", "spread"), pair, strict=True)
        }

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what ``state`` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
