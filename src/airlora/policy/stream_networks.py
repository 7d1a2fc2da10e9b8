"""Networks that are shared over projections: the same weights decide for any number of them.

An observation is a vector of 1 + GLOBAL_SIZE + capacity · TOKEN_SIZE numbers: how much of the capacity is used, the
numbers of the round, the tokens, and zeros (padding, in training only).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from airlora.policy.ddim import time_embedding
from airlora.policy.settings import DdimSettings
from airlora.policy.tokens import GLOBAL_SIZE, TOKEN_SIZE, Tokens

NUMBERS = 2
"""What is decided for a projection: rank and bits."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Observations of several rounds, of up to M projections each.

    Attributes:
        round: (B, GLOBAL_SIZE). tokens: (B, M, TOKEN_SIZE). mask: (B, M, 1) 1 for a projection, 0 for padding.
    """

    round: torch.Tensor
    tokens: torch.Tensor
    mask: torch.Tensor

    @classmethod
    def split(cls, observations: torch.Tensor) -> Batch:
        """Of vectors (B, 1 + GLOBAL_SIZE + M · TOKEN_SIZE)."""
        tokens = observations[:, 1 + GLOBAL_SIZE :].reshape(len(observations), -1, TOKEN_SIZE)
        capacity = tokens.shape[1]
        counts = torch.round(observations[:, :1] * capacity)
        mask = (torch.arange(capacity) < counts).to(observations.dtype)[:, :, None]
        return cls(observations[:, 1 : 1 + GLOBAL_SIZE], tokens, mask)

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """Mean (B, W) over the projections of x (B, M, W)."""
        return (x * self.mask).sum(1) / self.mask.sum(1).clamp_min(1)


def observation_vector(tokens: Tokens) -> torch.Tensor:
    """(1, 1 + GLOBAL_SIZE + M · TOKEN_SIZE) without padding."""
    parts = [np.ones(1, np.float32), tokens.round, tokens.projections.ravel()]
    return torch.from_numpy(np.concatenate(parts))[None]


class TokenEncoder(nn.Module):
    """Observations -> features: an MLP on each token, its mean over projections, and an MLP on that and the round."""

    def __init__(self, width: int):
        super().__init__()
        self.token = nn.Sequential(nn.Linear(TOKEN_SIZE, width), nn.Mish(), nn.Linear(width, width), nn.Mish())
        self.whole = nn.Sequential(
            nn.Linear(GLOBAL_SIZE + width, width), nn.LayerNorm(width), nn.Mish(), nn.Linear(width, width), nn.Mish()
        )

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Features (B, width) of observations (B, …)."""
        batch = Batch.split(observations)
        return self.whole(torch.cat([batch.round, batch.pool(self.token(batch.tokens))], 1))


class StreamActor(nn.Module):
    """What remains of PPO's network when it only decides: the budget's number and the coarse latent."""

    def __init__(self, width: int, latent_dim: int):
        super().__init__()
        self.encoder = TokenEncoder(width)
        self.mean = nn.Linear(width, 1 + latent_dim)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """The squashed mean, (B, 1 + latent_dim) in [−1, 1]."""
        return torch.tanh(self.mean(self.encoder(observations)))


class TokenDenoiser(nn.Module):
    """Predicts the noise in x_t, two numbers a projection, under the latent and what is known of round and projection.

    Projections see each other through the mean of a hidden layer.
    """

    def __init__(self, latent_dim: int, settings: DdimSettings):
        super().__init__()
        width = settings.width
        self.time_dim = settings.time_dim
        self.entry = nn.Linear(NUMBERS, width)
        self.latent = nn.Linear(latent_dim, width)
        self.context = nn.Sequential(nn.Linear(TOKEN_SIZE + GLOBAL_SIZE, width), nn.Mish(), nn.Linear(width, width))
        self.time = nn.Sequential(nn.Linear(settings.time_dim, width), nn.Mish(), nn.Linear(width, width))
        self.pooled = nn.Linear(width, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Mish(), nn.Linear(width, width)) for _ in range(settings.blocks)
        )
        self.exit = nn.Linear(width, NUMBERS)

    def bind(self, observations: torch.Tensor) -> BoundDenoiser:
        """The noise model of ``ddim.sample`` and ``ddim.training_loss`` for these observations (B, …)."""
        batch = Batch.split(observations)
        spread = batch.round[:, None].expand(-1, batch.tokens.shape[1], -1)
        return BoundDenoiser(self, batch, self.context(torch.cat([batch.tokens, spread], 2)))


class BoundDenoiser:
    """A denoiser with its observations; B and M are theirs."""

    def __init__(self, denoiser: TokenDenoiser, batch: Batch, context: torch.Tensor):
        self._denoiser, self._batch, self._context = denoiser, batch, context

    def __call__(self, x: torch.Tensor, step: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        """Noise (n · B, 2 M) in x (n · B, 2 M) at step (n · B,) under the latent (n · B, C), observations repeated."""
        own, batch, context = self._denoiser, self._batch, self._context
        times = len(x) // len(context)
        if times > 1:
            batch = Batch(batch.round, batch.tokens, batch.mask.repeat(times, 1, 1))
            context = context.repeat(times, 1, 1)
        whole = own.latent(latent) + own.time(time_embedding(step, own.time_dim))  # (n · B, width)
        h = own.entry(x.reshape(len(x), -1, NUMBERS)) + context + whole[:, None]
        h = h + own.pooled(batch.pool(h))[:, None]
        for block in own.blocks:
            h = h + block(h)
        return own.exit(h).flatten(1)
