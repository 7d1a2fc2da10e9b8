"""Nested-rank adapter: low-rank updates of which the first r components are a model of their own.

Two parametrisations of the update of a weight, both with the constant scale s = alpha / r_max:

* ``svd``  s · P[:, :r] · diag(E[:r]) · Q[:r, :]  (AdaLoRA and AirLLM): P, Q start orthonormal, E at 0;
* ``lora`` s · B[:, :r] · A[:r, :]  (LoRA): A starts uniform of variance 1 / d_in, B at 0.

Both start at the pretrained model. The active rank r of a projection may change before any step; a
lower rank slices the factors, so it costs less time. Parameters are float32 and are kept component
first, so that the active part of each is one contiguous slice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from airlora.adapter.targets import shape_of
from airlora.errors import CompatibilityError
from airlora.factors import Factors, HeadTensor, Projection, Schema

Form = Literal["lora", "svd"]
Values = Mapping[nn.Parameter, torch.Tensor]


class NestedLinear(nn.Module):
    """A frozen linear map plus a low-rank update of which the first ``rank`` components are active.

    Attributes:
        left: (r_max, d_out), transposed P or B. right: (r_max, d_in), Q or A.
        gain: (r_max,), E of the SVD form; None in the LoRA form.
        rank: components active now, 0 … r_max.
    """

    def __init__(
        self, base: nn.Module, scale: float, left: torch.Tensor, right: torch.Tensor, gain: torch.Tensor | None = None
    ):
        super().__init__()
        device = next(base.parameters()).device
        self.base = base
        self.r_max = self.rank = len(right)
        self.scale = scale
        self.left = nn.Parameter(left.contiguous().to(device))
        self.right = nn.Parameter(right.contiguous().to(device))
        self.gain = None if gain is None else nn.Parameter(gain.to(device))
        self._served: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Base output plus the active update; x (..., d_in) -> (..., d_out)."""
        y = self.base(x)
        if self._served is not None:
            left, right = self._served
            scale = 1.0
        else:
            left, right = self.left[: self.rank], self.right[: self.rank]
            scale = self.scale
        if not len(right):
            return y
        z = F.linear(x, right.to(x.dtype))
        if self._served is None and self.gain is not None:
            z = z * self.gain[: self.rank].to(x.dtype)
        flat = torch.addmm(y.reshape(-1, y.shape[-1]), z.reshape(-1, z.shape[-1]), left.to(x.dtype), alpha=scale)
        return flat.view_as(y)

    def component_parameters(self) -> list[nn.Parameter]:
        """Parameters whose first dimension is the component."""
        return [self.left, self.right] + ([self.gain] if self.gain is not None else [])

    @torch.no_grad()
    def folded(self, values: Values | None = None) -> tuple[np.ndarray, np.ndarray]:
        """All r_max components as (u (d_out, r_max), v (r_max, d_in)), the scale and the gain folded into u."""
        read = _reader(values)
        left = read(self.left) * self.scale
        if self.gain is not None:
            left = left * read(self.gain)[:, None]
        return left.T.contiguous().cpu().numpy(), read(self.right).cpu().numpy().copy()

    def serve(self, factors: tuple[np.ndarray, np.ndarray] | None) -> None:
        """Answer with other factors (u (d_out, r), v (r, d_in)) until called with None."""
        if factors is None:
            self._served = None
        else:
            u, v = (torch.tensor(array, device=self.left.device) for array in factors)
            self._served = (u.T.contiguous(), v)


class NestedAdapter:
    """The nested adapter of a whole model, and its trained head if it has one.

    Args:
        model: the base model; its parameters are frozen, its targets are replaced in place.
        targets: full name -> module, from ``find_targets``.
        max_rank: largest rank of a projection (less where the projection is narrower).
        alpha: the update is scaled by alpha / r_max of each projection.
        prefixes: ranks to be trained as models of their own; by default the powers of two and max_rank.
        form: parametrisation.
        seed: of the initial factors.
        head: parameters trained in full, by name (none for language models).
        base_fingerprint: goes into the schema.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: dict[str, nn.Module],
        *,
        max_rank: int,
        alpha: float,
        prefixes: Sequence[int] | None = None,
        form: Form = "lora",
        seed: int = 0,
        head: dict[str, nn.Parameter] | None = None,
        base_fingerprint: str = "",
    ):
        self.form: Form = form
        self.head = dict(head or {})
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in self.head.values():
            parameter.requires_grad_(True)
        self.schema = make_schema(
            targets,
            max_rank=max_rank,
            prefixes=prefixes,
            head=self.head,
            base_fingerprint=base_fingerprint,
            init_seed=seed if form == "lora" else None,
        )
        projections = self.schema.projections
        generator = torch.Generator().manual_seed(seed)
        self.layers: dict[str, NestedLinear] = {}
        for index, (projection, module) in enumerate(zip(projections, targets.values(), strict=True)):
            scale, gain = alpha / projection.r_max, None
            if form == "svd":
                left, right = (
                    _orthonormal(d, projection.r_max, generator) for d in (projection.d_out, projection.d_in)
                )
                gain = torch.zeros(projection.r_max)
            else:
                left = torch.zeros(projection.r_max, projection.d_out)
                right = torch.from_numpy(self.schema.initial_v(index))
            layer = NestedLinear(module, scale, left, right, gain)
            parent, _, child = projection.name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer)
            self.layers[projection.name] = layer

    def set_ranks(self, ranks: int | Sequence[int] | np.ndarray) -> None:
        """Activate the first ``ranks`` components, of all projections or of each (clipped to r_max)."""
        each = [ranks] * len(self.layers) if isinstance(ranks, int) else ranks
        for layer, rank in zip(self.layers.values(), each, strict=True):
            layer.rank = min(int(rank), layer.r_max)

    @property
    def ranks(self) -> np.ndarray:
        """Active rank of every projection, (projections,)."""
        return np.array([layer.rank for layer in self.layers.values()])

    def head_values(self, values: Values | None = None) -> dict[str, np.ndarray]:
        """The head's tensors as float32 copies."""
        read = _reader(values)
        return {name: read(p).detach().float().cpu().numpy().copy() for name, p in self.head.items()}

    def factors(self, values: Values | None = None) -> Factors:
        """All r_max components of every projection, and the head, as the seam's value (copies).

        ``values`` stand in for parameters, as the optimiser's averages do.
        """
        folded = [layer.folded(values) for layer in self.layers.values()]
        return Factors(self.schema, tuple(u for u, _ in folded), tuple(v for _, v in folded), self.head_values(values))

    @contextmanager
    def serving(self, factors: Factors) -> Iterator[None]:
        """Within the block the model answers with these factors and this head, as the edge would.

        Raises:
            CompatibilityError: the factors belong to another schema.
        """
        if factors.schema.id != self.schema.id:
            raise CompatibilityError(f"factors of schema {factors.schema.id}, the adapter has {self.schema.id}")
        own_head = {name: parameter.detach().clone() for name, parameter in self.head.items()}
        try:
            for layer, u, v in zip(self.layers.values(), factors.u, factors.v, strict=True):
                layer.serve((u, v))
            self._set_head({name: torch.tensor(array) for name, array in factors.head.items()})
            yield
        finally:
            for layer in self.layers.values():
                layer.serve(None)
            self._set_head(own_head)

    def _set_head(self, values: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, value in values.items():
                self.head[name].copy_(value)

    def orthogonality(self) -> torch.Tensor:
        """Mean over projections of ‖PᵀP − I‖²_F + ‖QQᵀ − I‖²_F on the active part (AdaLoRA, eq. 4)."""
        terms = []
        for layer in self.layers.values():
            identity = torch.eye(layer.rank, device=layer.left.device)
            for matrix in (layer.left[: layer.rank], layer.right[: layer.rank]):
                terms.append((matrix @ matrix.T - identity).square().sum())
        return torch.stack(terms).sum() / len(self.layers)

    def reorder(self, name: str, order: Sequence[int]) -> None:
        """Permute the components of one projection (not its optimiser state: see ``NestedOptimizer.reorder``)."""
        index = torch.as_tensor(list(order))
        with torch.no_grad():
            for parameter in self.layers[name].component_parameters():
                parameter.copy_(parameter[index.to(parameter.device)])

    def state(self) -> dict[str, torch.Tensor]:
        """Everything trained, as flat tensors for a checkpoint."""
        state = {f"head.{name}": parameter.detach() for name, parameter in self.head.items()}
        for name, layer in self.layers.items():
            for key, parameter in layer.named_parameters(recurse=False):
                state[f"{name}.{key}"] = parameter.detach()
        return state

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what ``state`` gave."""
        with torch.no_grad():
            for name, value in self.state().items():
                value.copy_(state[name])


def make_schema(
    targets: Mapping[str, nn.Module],
    *,
    max_rank: int,
    prefixes: Sequence[int] | None = None,
    head: Mapping[str, nn.Parameter] | None = None,
    base_fingerprint: str = "",
    init_seed: int | None = None,
) -> Schema:
    """The schema of an adapter for these targets; see ``NestedAdapter`` for the arguments."""
    shapes = {name: shape_of(module) for name, module in targets.items()}
    projections = tuple(Projection(name, *shape, min(max_rank, *shape)) for name, shape in shapes.items())
    largest = max(projection.r_max for projection in projections)
    wanted = prefixes if prefixes is not None else [2**k for k in range(largest.bit_length())]
    return Schema(
        projections=projections,
        prefixes=tuple(sorted({min(r, largest) for r in wanted} | {largest})),
        head=tuple(HeadTensor(name, tuple(parameter.shape)) for name, parameter in (head or {}).items()),
        base_fingerprint=base_fingerprint,
        init_seed=init_seed,
    )


def _orthonormal(size: int, r_max: int, generator: torch.Generator) -> torch.Tensor:
    """(r_max, size) with orthonormal rows."""
    return torch.linalg.qr(torch.randn(size, r_max, generator=generator))[0].T


def _reader(values: Values | None) -> Callable[[nn.Parameter], torch.Tensor]:
    if values is None:
        return lambda parameter: parameter
    return lambda parameter: values[parameter]
