"""What the loss feels of an error in a factor: the second value that crosses the seam between torch and the codec.

The cloud measures it where it trains; the encoder uses it to place quantisation errors where they matter least. It is
never sent, and an update can be encoded without it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from airlora.factors import Schema


@dataclass(frozen=True, eq=False)
class QuantiserSteps:
    """Quantiser steps that training has rounded to: the encoder keeps them, as other ones would round anew.

    Attributes:
        u, v: (projections, largest r_max) float32, of column k of u and row k of v; 0: not rounded.
        head: (head tensors,) float32; 0: not rounded.
    """

    u: np.ndarray
    v: np.ndarray
    head: np.ndarray


@dataclass(frozen=True, eq=False)
class Curvature:
    """Squared gradients of every component and a sample of the inputs of every projection.

    Attributes:
        gradient_u: (projections, largest r_max) float32, mean squared gradient of the loss by a number of u's column k,
            in nats² per squared unit of u: a diagonal of the empirical Fisher matrix, averaged over the column. 0 where
            nothing is known.
        gradient_v: the same by a number of v's row k.
        inputs: one array a projection, (samples, d_in) float32: inputs x of the map, of tokens drawn from training
            text. Their second moments say which errors of u v cancel in u v x.
        steps: what the factors are rounded to already, relative to what the edge held or to zero, whichever is nearer;
            None where training rounds nothing.

    Raises:
        ValueError: shapes do not fit the schema, or something is not finite or a squared gradient negative.
    """

    schema: Schema
    gradient_u: np.ndarray
    gradient_v: np.ndarray
    inputs: tuple[np.ndarray, ...]
    steps: QuantiserSteps | None = None

    def __post_init__(self) -> None:
        shape = (len(self.schema.projections), self.schema.prefixes[-1])
        for name in ("gradient_u", "gradient_v"):
            found = getattr(self, name)
            if found.shape != shape or not np.isfinite(found).all() or (found < 0).any():
                raise ValueError(f"{name} {found.shape} must be {shape}, finite and not negative")
        widths = [projection.d_in for projection in self.schema.projections]
        if [x.shape[-1] if x.ndim == 2 else -1 for x in self.inputs] != widths:
            raise ValueError(f"inputs {[x.shape for x in self.inputs]} must be (samples, d_in) with d_in {widths}")
        if self.steps is not None:
            found = [getattr(self.steps, name).shape for name in ("u", "v", "head")]
            if found != [shape, shape, (len(self.schema.head),)]:
                raise ValueError(f"steps {found} must be {shape} twice and ({len(self.schema.head)},)")
        if not all(np.isfinite(x).all() for x in self.inputs):
            raise ValueError("inputs hold NaN or infinity")
