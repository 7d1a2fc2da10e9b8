"""The actor: from a state to the mean of a Gaussian."""

from __future__ import annotations

import torch
from torch import nn


def make_encoder(state_dim: int, width: int) -> nn.Sequential:
    """State (B, state_dim) -> features (B, width): Linear, LayerNorm, Mish, Linear, Mish."""
    return nn.Sequential(
        nn.Linear(state_dim, width), nn.LayerNorm(width), nn.Mish(), nn.Linear(width, width), nn.Mish()
    )


class Actor(nn.Module):
    """What remains of PPO's network when it only decides: encoder and mean.

    Args:
        state_dim, width, action_dim: sizes.
    """

    def __init__(self, state_dim: int, width: int, action_dim: int):
        super().__init__()
        self.encoder = make_encoder(state_dim, width)
        self.mean = nn.Linear(width, action_dim)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        """The squashed mean, (B, action_dim) in [−1, 1], of the states (B, state_dim)."""
        return torch.tanh(self.mean(self.encoder(state)))
