"""Allocations around a rule that the DDIM imitates before it learns from rewards.

Each coordinate of the latent moves ranks or bits in one way, so that PPO's first steps in it are meaningful; the
latent 0 is the rule itself.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from airlora.policy.stream_action import StreamDecoder
from airlora.policy.tokens import View

Refinement = Literal["ddim", "family"]
"""What makes rank and bits of a latent: the DDIM that learned to, or ``family_member`` itself."""
LATENT_DIM = 8
JITTER = 0.04
"""Standard deviation of the noise on what is imitated."""
_TILT = 0.5


def family_member(decoder: StreamDecoder, view: View, number: float, latent: np.ndarray) -> np.ndarray:
    """x0 (M, 2) of a latent (LATENT_DIM,) in [−1, 1].

    Coordinates: bits of all; rank of all; rank by depth, by kind (attention against the others), by how much changed,
    by sensitivity a byte; bits by depth, by sensitivity a byte.
    """
    o = view.observation
    count = len(o.schema.projections)
    depth = np.linspace(-1, 1, count) if count > 1 else np.zeros(1)
    attention = np.array([1.0 if "attn" in p.name or "attention" in p.name else -1.0 for p in o.schema.projections])
    change = o.costs.change_v.sum(axis=1) / np.maximum(o.costs.rms_v.sum(axis=1), 1e-30)
    worth = np.log(np.abs(o.sensitivity).sum(axis=1) / o.schema.numbers_per_component + 1e-12)
    directions = (depth, attention, _standardised(change), _standardised(worth))
    rank = latent[1] + _TILT * sum(z * direction for z, direction in zip(latent[2:6], directions, strict=True))
    bits = latent[0] + _TILT * (latent[6] * depth + latent[7] * directions[3])
    offsets = np.clip(np.stack([rank, bits], axis=1), -1, 1)
    if decoder.decoding == "residual":
        return offsets
    return decoder.replayed(view, StreamDecoder("residual").allocation(view, number, offsets))


def _standardised(values: np.ndarray) -> np.ndarray:
    spread = values.std()
    return np.clip((values - values.mean()) / spread, -1, 1) if spread > 1e-9 else np.zeros_like(values)
