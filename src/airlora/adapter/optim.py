"""Optimisers for nested ranks, averaged: only the active components move, each with its own step count and rate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from airlora.adapter.nested import NestedAdapter, NestedLinear


@dataclass(eq=False)
class Active:
    """What a step works on: for each parameter its active components, (rank, …) each.

    Attributes:
        values, averages, gradients: of the parameters. first, second: their moments.
        rates: (rank, 1) or (rank,), Adam's: negative, bias corrected. epsilons: likewise.
    """

    values: list[torch.Tensor] = field(default_factory=list)
    averages: list[torch.Tensor] = field(default_factory=list)
    gradients: list[torch.Tensor] = field(default_factory=list)
    first: list[torch.Tensor] = field(default_factory=list)
    second: list[torch.Tensor] = field(default_factory=list)
    rates: list[torch.Tensor] = field(default_factory=list)
    epsilons: list[torch.Tensor] = field(default_factory=list)


class NestedOptimizer(ABC):
    """What the optimisers of a nested adapter and its head share; subclasses say which way its matrices move.

    Any optimiser with momentum moves a sliced-out component by its old momentum, and Adam cancels any scaling of a
    component's gradient. So here a component that is not active keeps its values and its moments, bias correction
    counts the component's own steps, and the rate of component k = 1, 2, … is multiplied by k^-rate_decay: the first
    components, which serve the low ranks, want a larger rate. A head is trained by Adam.

    The iterates are averaged as they come (Polyak & Juditsky 1992), with weight min(average_decay,
    (t + 1) / (t + 10)) on the past; ``averages`` is what is worth sending. At a constant rate that is worth more
    than a doubling of the rank (see LOG.md).

    Args:
        adapter: what is trained.
        lr: rate of the first component.
        rate_decay: exponent of the decay over components; 0 gives every component ``lr``.
        gain_lr_ratio: rate of E over the rate of P and Q in the SVD form.
        head_lr: rate of the head; by default ``lr``.
        average_decay: weight of the past in the running average of the iterates; 0 keeps the last iterate.
        betas: weights of the past in the first and the second moment. eps: of Adam.

    Attributes:
        averages: the running average of every parameter.
        lr, head_lr: as given; ``lr`` may be changed between steps.
        average_decay: as given; may be changed between steps.
        rate_factor: of all rates, 1 at first; may be changed between steps.
    """

    def __init__(
        self,
        adapter: NestedAdapter,
        lr: float,
        *,
        rate_decay: float = 0.4,
        gain_lr_ratio: float = 1.0,
        head_lr: float | None = None,
        average_decay: float = 0.98,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ):
        self.adapter = adapter
        self.betas = betas
        self.eps = eps
        self._gain_lr_ratio = gain_lr_ratio
        largest = max(layer.r_max for layer in adapter.layers.values())
        self._component_rates = lr * torch.arange(1, largest + 1, dtype=torch.float64) ** -rate_decay
        self._taken_steps = torch.zeros(len(adapter.layers), largest, dtype=torch.int64)
        self._steps = {
            name: steps[: layer.r_max]
            for (name, layer), steps in zip(adapter.layers.items(), self._taken_steps, strict=True)
        }
        self._moments = {
            parameter: (torch.zeros_like(parameter), torch.zeros_like(parameter))
            for layer in adapter.layers.values()
            for parameter in layer.component_parameters()
        }
        self.averages = {parameter: parameter.detach().clone() for parameter in self._parameters()}
        self.average_decay = average_decay
        self.rate_factor = 1.0
        self._taken = 0
        self.head_lr = lr if head_lr is None else head_lr
        self._head = (
            torch.optim.Adam(adapter.head.values(), lr=self.head_lr, betas=betas, eps=eps) if adapter.head else None
        )

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self._moments:
            parameter.grad = None
        if self._head is not None:
            self._head.zero_grad(set_to_none=True)

    @torch.no_grad()
    def step(self, ranks: Sequence[int] | None = None) -> None:
        """One step on the first ``ranks[m]`` components of every projection (by default the active ones)."""
        active = Active()
        layers = list(self.adapter.layers.values())
        each = [layer.rank for layer in layers] if ranks is None else [int(rank) for rank in ranks]
        each = [rank if layer.left.grad is not None else 0 for layer, rank in zip(layers, each, strict=True)]
        scales = self._advance(each)
        for index, (layer, rank) in enumerate(zip(layers, each, strict=True)):
            if not rank:
                continue
            rate, epsilon = (table[index, :rank] for table in scales[layer.left.device])
            for parameter in layer.component_parameters():
                assert parameter.grad is not None
                m, v = self._moments[parameter]
                active.values.append(parameter[:rank])
                active.averages.append(self.averages[parameter][:rank])
                active.gradients.append(parameter.grad[:rank])
                active.first.append(m[:rank])
                active.second.append(v[:rank])
                if parameter.ndim == 1:
                    active.rates.append(rate * self._gain_lr_ratio)
                    active.epsilons.append(epsilon)
                else:
                    active.rates.append(rate[:, None])
                    active.epsilons.append(epsilon[:, None])
        values, averages = active.values, active.averages
        if values:
            beta1, beta2 = self.betas
            torch._foreach_lerp_(active.first, active.gradients, 1 - beta1)
            torch._foreach_mul_(active.second, beta2)
            torch._foreach_addcmul_(active.second, active.gradients, active.gradients, 1 - beta2)
            torch._foreach_add_(values, self._updates(active))
        if self._head is not None:
            self._head.param_groups[0]["lr"] = self.rate_factor * self.head_lr
            self._head.step()
            values += [parameter.detach() for parameter in self.adapter.head.values()]
            averages += [self.averages[parameter] for parameter in self.adapter.head.values()]
        self._taken += 1
        decay = min(self.average_decay, (self._taken + 1) / (self._taken + 10))
        if averages:
            torch._foreach_lerp_(averages, values, 1 - decay if self.average_decay else 1.0)

    @abstractmethod
    def _updates(self, active: Active) -> list[torch.Tensor]:
        """What is added to each parameter's active components, after its moments took in this step's gradient."""

    def _advance(self, ranks: Sequence[int]) -> dict[torch.device, tuple[torch.Tensor, torch.Tensor]]:
        """Count a step of the first ``ranks[m]`` components; by device, rates (negative) and epsilons, bias corrected:
        (projections, largest r_max) float32 each. Made at once, for on a GPU every copy there takes its time."""
        size = self._taken_steps.shape[1]
        self._taken_steps += torch.arange(size) < torch.tensor(ranks)[:, None]
        steps = self._taken_steps.clamp_min(1).double()
        bias1, bias2 = (1 - beta**steps for beta in self.betas)
        rates = (-self.rate_factor * self._component_rates * bias2.sqrt() / bias1).float()
        epsilons = (self.eps * bias2.sqrt()).float()
        devices = {layer.left.device for layer in self.adapter.layers.values()}
        return {device: (rates.to(device), epsilons.to(device)) for device in devices}

    @property
    def lr(self) -> float:
        """Rate of the first component."""
        return float(self._component_rates[0])

    @lr.setter
    def lr(self, value: float) -> None:
        """Change it, and those of the other components with it; a head's stays."""
        self._component_rates *= value / self.lr

    @torch.no_grad()
    def adopt_averages(self, average_decay: float) -> None:
        """Go on from the averages, and average anew from there with another weight of the past."""
        for parameter, average in self.averages.items():
            parameter.copy_(average)
        self.average_decay = average_decay
        self._taken = 0

    @torch.no_grad()
    def squared_gradients(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean squared gradient of each component of the folded u and v: (projections, largest r_max) float32 each.

        They are the second moments, bias corrected; 0 for components that were never active. LoRA form only.
        """
        shape = (len(self.adapter.layers), int(self.adapter.schema.r_max.max()))
        found = np.zeros((2, *shape), np.float32)
        for row, (name, layer) in enumerate(self.adapter.layers.items()):
            assert layer.gain is None
            bias = (1 - self.betas[1] ** self._steps[name].double()).clamp_min(1e-12)
            for side, parameter, scale in ((0, layer.left, layer.scale), (1, layer.right, 1.0)):
                mean = self._moments[parameter][1].mean(1).double().cpu() / bias / scale**2
                found[side, row, : layer.r_max] = mean.numpy()
        found = np.nan_to_num(found)  # a moment that overflows is as large as can be, not infinite
        return found[0], found[1]

    def _parameters(self) -> list[nn.Parameter]:
        return [*self._moments, *self.adapter.head.values()]

    def reorder(self, name: str, order: Sequence[int]) -> None:
        """Permute the components of one projection together with their moments and step counts."""
        self.adapter.reorder(name, order)
        index = torch.as_tensor(list(order))
        self._steps[name].copy_(self._steps[name][index])
        for parameter in self.adapter.layers[name].component_parameters():
            for tensor in (*self._moments[parameter], self.averages[parameter]):
                tensor.copy_(tensor[index.to(tensor.device)])

    def state(self) -> dict[str, torch.Tensor]:
        """Moments, averages and step counts as flat tensors for a checkpoint."""
        state = {f"{name}.steps": steps for name, steps in self._steps.items()}
        state["taken"] = torch.tensor(self._taken)
        for name, layer in self.adapter.layers.items():
            for key, parameter in _named(layer):
                state[f"{name}.{key}.m"], state[f"{name}.{key}.v"] = self._moments[parameter]
                state[f"{name}.{key}.average"] = self.averages[parameter]
        for name, parameter in self.adapter.head.items():
            assert self._head is not None
            for key, value in self._head.state.get(parameter, {}).items():
                state[f"head.{name}.{key}"] = value
            state[f"average.head.{name}"] = self.averages[parameter]
        return state

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what ``state`` gave."""
        for name, layer in self.adapter.layers.items():
            self._steps[name].copy_(state[f"{name}.steps"])
            for key, parameter in _named(layer):
                for moment, kind in zip(self._moments[parameter], "mv", strict=True):
                    moment.copy_(state[f"{name}.{key}.{kind}"])
                self.averages[parameter].copy_(state[f"{name}.{key}.average"])
        self._taken = int(state["taken"])
        for name, parameter in self.adapter.head.items():
            assert self._head is not None
            self.averages[parameter].copy_(state[f"average.head.{name}"])
            prefix = f"head.{name}."
            found = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
            if found:
                self._head.state[parameter] = {
                    key: value.clone() if key == "step" else value.clone().to(parameter.device)
                    for key, value in found.items()
                }


class NestedAdam(NestedOptimizer):
    """Adam (Kingma & Ba 2015): every number moves by about its rate, whatever its gradient's scale."""

    def _updates(self, active: Active) -> list[torch.Tensor]:
        denominators = torch._foreach_sqrt(active.second)
        torch._foreach_add_(denominators, active.epsilons)
        updates = torch._foreach_div(active.first, denominators)
        torch._foreach_mul_(updates, active.rates)
        return list(updates)


class NestedMuon(NestedOptimizer):
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): the momentum of each matrix, made orthogonal.

    All directions in which the components of a projection can move get the same share of a step, also those in which
    the gradient is small. A step moves the numbers of a matrix by about ``lr`` in the root mean square.

    Raises:
        ValueError: the adapter is not of the LoRA form.
    """

    def __init__(self, adapter: NestedAdapter, lr: float, **settings: Any):
        if adapter.form != "lora":
            raise ValueError(f"Muon trains the LoRA form; the adapter is of the {adapter.form} form")
        super().__init__(adapter, lr, **settings)

    def _updates(self, active: Active) -> list[torch.Tensor]:
        momenta = torch._foreach_lerp(active.gradients, active.first, self.betas[0])  # Nesterov's
        shares = {rank: self._component_rates[:rank, None].float() for rank in {len(momentum) for momentum in momenta}}
        updates = []
        for direction in orthogonal(momenta):
            size = max(direction.shape) ** 0.5
            updates.append(-self.rate_factor * size * shares[len(direction)].to(direction.device) * direction)
        return updates


_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5


def orthogonal(matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """About the nearest semi-orthogonal matrix of each (rows, columns), all singular values within 0.7 … 1.2.

    Five steps of the quintic Newton-Schulz iteration of Jordan et al. (2024); matrices of one shape together.
    """
    a, b, c = _NEWTON_SCHULZ
    shapes: dict[tuple[torch.Size, torch.device], list[int]] = {}
    for index, matrix in enumerate(matrices):
        shapes.setdefault((matrix.shape, matrix.device), []).append(index)
    found: list[torch.Tensor] = list(matrices)
    for (shape, _), indices in shapes.items():
        x = torch.stack([matrices[index] for index in indices])
        x = x / x.flatten(1).norm(dim=1).clamp_min(1e-30)[:, None, None]
        tall = shape[0] > shape[1]
        x = x.mT if tall else x
        for _ in range(_NEWTON_SCHULZ_STEPS):
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
        for index, one in zip(indices, x.mT if tall else x, strict=True):
            found[index] = one
    return found


def _named(layer: NestedLinear) -> list[tuple[str, nn.Parameter]]:
    return [(key, parameter) for key, parameter in layer.named_parameters(recurse=False)]
