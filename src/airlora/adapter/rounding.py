"""Training one rank on the values that the encoder will round to (quantisation-aware training)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from airlora.adapter.nested import NestedAdapter, Values
from airlora.adapter.optim import NestedOptimizer
from airlora.adapter.training import Strategy
from airlora.curvature import Curvature, QuantiserSteps
from airlora.factors import Factors
from airlora.workload.base import Batch, Workload

AVERAGE_DECAY = 0.9
"""Weight of the past in the running average while values are rounded; see LOG.md."""
FIRST_RATE = 0.6
"""Rate at the first step with rounded values, relative to the one before; it falls to zero from there."""

StepRule = Callable[[Factors, Curvature], QuantiserSteps]
"""The encoder's choice of steps for these factors."""

Lattice = dict[nn.Parameter, tuple[torch.Tensor, torch.Tensor]]
"""For each parameter where its numbers start from, and their step."""


class RoundingStrategy(Strategy):
    """Trains all components in every step; the last steps of a job with rounded values.

    From step ``begin`` on, gradients are those at the rounded values and move the values behind them (straight-through
    estimator: Bengio et al. 2013, arXiv:1308.3432). What is rounded to is fixed at ``begin``: whole steps of the
    encoder's size from what the edge holds, or from zero if that is nearer, vector by vector. The iterates start anew
    from their averages, and the rate falls to zero by the last step.

    Args:
        adapter, optimizer: of the cloud, in the LoRA form.
        rule: the encoder's choice of steps.
        begin: first step with rounded values; ``total``: steps of the job.
    """

    def __init__(self, adapter: NestedAdapter, optimizer: NestedOptimizer, rule: StepRule, begin: int, total: int):
        self._adapter = adapter
        self._optimizer = optimizer
        self._rule = rule
        self._begin = begin
        self._total = total
        self._held: Factors | None = None
        self._steps: QuantiserSteps | None = None
        self._lattice: Lattice = {}

    def begin_round(self, held: Factors, active: np.ndarray, expected_bytes: float = float("nan")) -> None:
        """Remember what the edge holds."""
        self._held = held

    def backward(self, workload: Workload, adapter: NestedAdapter, batch: Batch, step: int) -> float:
        """One pass at the whole rank, at the rounded values from ``begin`` on."""
        adapter.set_ranks(adapter.schema.r_max)
        if step >= self._begin:
            if not self._lattice:
                self._start()
            self._optimizer.rate_factor = FIRST_RATE * (1 - (step - self._begin) / (self._total - self._begin))
        with self._rounded():
            loss = workload.loss(batch)
            loss.backward()
        return float(loss.detach())

    def trained_ranks(self, adapter: NestedAdapter) -> np.ndarray:
        """The whole rank."""
        return adapter.schema.r_max

    def sent(self, averages: Values) -> Values:
        """The averages, rounded once that has begun."""
        return {parameter: self._round(parameter, value) for parameter, value in averages.items()}

    @property
    def steps(self) -> QuantiserSteps | None:
        """None before ``begin``."""
        return self._steps

    def _start(self) -> None:
        adapter, optimizer = self._adapter, self._optimizer
        factors = adapter.factors(optimizer.averages)
        unseen = tuple(np.zeros((0, projection.d_in), np.float32) for projection in adapter.schema.projections)
        self._steps = self._rule(factors, Curvature(adapter.schema, *optimizer.squared_gradients(), unseen))
        optimizer.adopt_averages(AVERAGE_DECAY)
        self._lattice = self._make_lattice(factors, self._steps)

    def _make_lattice(self, factors: Factors, steps: QuantiserSteps) -> Lattice:
        held = self._held
        assert held is not None
        lattice = {}
        for index, layer in enumerate(self._adapter.layers.values()):
            rank = layer.r_max
            for parameter, wanted, there, step, scale in (
                (layer.left, factors.u[index].T, held.u[index].T, steps.u[index, :rank], layer.scale),
                (layer.right, factors.v[index], held.v[index], steps.v[index, :rank], 1.0),
            ):
                lattice[parameter] = _lattice(wanted / scale, there[:rank] / scale, step / scale, parameter)
        for step, (name, parameter) in zip(steps.head, self._adapter.head.items(), strict=True):
            lattice[parameter] = _lattice(factors.head[name], held.head[name], step, parameter)
        return lattice

    def _round(self, parameter: nn.Parameter, value: torch.Tensor) -> torch.Tensor:
        if parameter not in self._lattice:
            return value
        base, step = self._lattice[parameter]
        rounded = base + step * torch.round((value - base) / step)
        return torch.where(step > 0, rounded, value)

    @contextmanager
    def _rounded(self) -> Iterator[None]:
        """Within the block the parameters have their rounded values."""
        latent = {parameter: parameter.detach().clone() for parameter in self._lattice}
        try:
            with torch.no_grad():
                for parameter, value in latent.items():
                    parameter.copy_(self._round(parameter, value))
            yield
        finally:
            with torch.no_grad():
                for parameter, value in latent.items():
                    parameter.copy_(value)

    def state(self) -> dict[str, torch.Tensor]:
        """What is rounded to."""
        if self._steps is None:
            return {}
        parts = {name: torch.from_numpy(getattr(self._steps, name)) for name in ("u", "v", "head")}
        lattice = list(self._lattice.values())
        parts |= {f"base.{index}": base for index, (base, _) in enumerate(lattice)}
        return parts | {f"step.{index}": step for index, (_, step) in enumerate(lattice)}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what ``state`` gave."""
        if not state:
            return
        self._steps = QuantiserSteps(*(state[name].numpy().copy() for name in ("u", "v", "head")))
        layers = self._adapter.layers.values()
        parameters = [p for layer in layers for p in (layer.left, layer.right)] + list(self._adapter.head.values())
        for index, parameter in enumerate(parameters):
            base, step = (state[f"{part}.{index}"].to(parameter.device) for part in ("base", "step"))
            self._lattice[parameter] = base, step


def _lattice(
    wanted: np.ndarray, held: np.ndarray, step: np.ndarray, parameter: nn.Parameter
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the rows of a parameter start from (what is held, or zero if nearer), and their steps."""
    rows = wanted.reshape(len(wanted) if wanted.ndim > 1 else 1, -1)
    there = held.reshape(rows.shape)
    nearer = np.square(rows - there).sum(axis=1) <= np.square(rows).sum(axis=1)
    base = np.where(nearer[:, None], there, 0).reshape(wanted.shape)
    steps = np.broadcast_to(step.reshape(-1, *[1] * (wanted.ndim - 1)), wanted.shape)
    device = parameter.device
    return torch.tensor(base, dtype=torch.float32, device=device), torch.tensor(
        steps, dtype=torch.float32, device=device
    )
