"""A conditional DDIM over rank vectors: schedule, denoiser, guided sampler, reward-weighted training.

Forward process, with ᾱ_t = Π (1 − β_s):   x_t = √ᾱ_t · x0 + √(1 − ᾱ_t) · ε,   ε ~ N(0, I)
One step back, with η = 0:                 x̂0 = (x_t − √(1 − ᾱ_t) · ε̂) / √ᾱ_t, clipped to [−1, 1]
                                           ε̂' = (x_t − √ᾱ_t · x̂0) / √(1 − ᾱ_t)
                                           x_s = √ᾱ_s · x̂0 + √(1 − ᾱ_s) · ε̂'

Sources: Ho et al. 2020 (eqs. 4, 14); Song et al. 2021, "Denoising diffusion implicit models" (eq. 12); Ho & Salimans
2022, "Classifier-free diffusion guidance" (eq. 6, w counted so that 1 is the conditional model).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from airlora.errors import TrainingError
from airlora.policy.settings import DdimSettings

NoiseModel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(x_t (B, M), step t (B,) int64, condition (B, C)) -> predicted noise (B, M)."""


def alpha_bars(settings: DdimSettings) -> torch.Tensor:
    """ᾱ_t for t = 0 … train_steps − 1, float32: β is linear in √β."""
    ends = (settings.beta_start**0.5, settings.beta_end**0.5)
    betas = torch.linspace(*ends, settings.train_steps, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


def add_noise(x0: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """x_t of x0 (B, M) and noise (B, M), for ᾱ_t (B, 1) or a scalar."""
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise


def guided_noise(
    model: NoiseModel, x: torch.Tensor, step: torch.Tensor, condition: torch.Tensor, guidance: float
) -> torch.Tensor:
    """ε_uncond + w · (ε_cond − ε_uncond) in one pass over both; the unconditional model sees zeros."""
    both = model(x.repeat(2, 1), step.repeat(2), torch.cat([condition, torch.zeros_like(condition)]))
    conditional, unconditional = both.chunk(2)
    return unconditional + guidance * (conditional - unconditional)


def step_back(
    x: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor, alpha_bar_next: torch.Tensor
) -> torch.Tensor:
    """One deterministic step from noise level ᾱ_t to the smaller one ᾱ_s (scalars), x and predicted noise (B, M)."""
    x0 = ((x - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt()).clamp(-1, 1)
    noise = (x - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()
    return add_noise(x0, noise, alpha_bar_next)


@torch.no_grad()
def sample(model: NoiseModel, settings: DdimSettings, condition: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """x0 (B, M) in [−1, 1] under the condition (B, C), a pure function of the noise (B, M).

    The steps are t = T − T/K, T − 2T/K, …, 0 for T training and K sampling steps; they begin from ``noise_scale`` times
    the noise.
    """
    levels = alpha_bars(settings)
    stride = settings.train_steps // settings.sample_steps
    x = settings.noise_scale * noise
    for t in range(settings.train_steps - stride, -1, -stride):
        step = torch.full((len(x),), t)
        predicted = guided_noise(model, x, step, condition, settings.guidance)
        x = step_back(x, predicted, levels[t], levels[t - stride] if t else torch.ones(()))
    return x


def reward_weights(rewards: torch.Tensor, strength: float) -> torch.Tensor:
    """clamp(1 + strength · z, 0.1, 10) of rewards (B,), z standardised in the batch; 1 where all rewards are equal."""
    if rewards.min() == rewards.max():
        return torch.ones_like(rewards)
    exact = rewards.double()
    z = (exact - exact.mean()) / exact.std(correction=0)
    return (1 + strength * z).clamp(0.1, 10).float()


def training_loss(
    model: NoiseModel,
    settings: DdimSettings,
    x0: torch.Tensor,
    condition: torch.Tensor,
    rewards: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Noise-prediction error, weighted by reward, of a batch x0 (B, M), condition (B, C), rewards (B,).

    Steps, noise and which conditions are zeroed come from the generator.
    """
    step = torch.randint(settings.train_steps, (len(x0),), generator=generator)
    noise = torch.randn(x0.shape, generator=generator)
    kept = torch.rand(len(x0), 1, generator=generator) >= settings.condition_dropout
    x = add_noise(x0, noise, alpha_bars(settings)[step, None])
    errors = F.mse_loss(model(x, step, condition * kept), noise, reduction="none").mean(1)  # (B,)
    return (reward_weights(rewards, settings.reward_weight) * errors).mean()


class Denoiser(nn.Module):
    """Predicts the noise in x_t: an MLP over x_t ⊕ condition with a time embedding and residual blocks.

    Args:
        size: length M of x. condition_dim: length C of the condition.
        settings: width, blocks, time_dim.
    """

    def __init__(self, size: int, condition_dim: int, settings: DdimSettings):
        super().__init__()
        width = settings.width
        self.time_dim = settings.time_dim
        self.entry = nn.Linear(size + condition_dim, width)
        self.time = nn.Sequential(nn.Linear(settings.time_dim, width), nn.Mish(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Mish(), nn.Linear(width, width)) for _ in range(settings.blocks)
        )
        self.exit = nn.Linear(width, size)

    def forward(self, x: torch.Tensor, step: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Noise (B, M) in x (B, M) at step (B,) under the condition (B, C)."""
        h = self.entry(torch.cat([x, condition], 1)) + self.time(time_embedding(step, self.time_dim))
        for block in self.blocks:
            h = h + block(h)
        return self.exit(h)


def time_embedding(step: torch.Tensor, size: int) -> torch.Tensor:
    """Sines and cosines of the step (B,) at ``size`` / 2 frequencies from 1 down to 1e-4, (B, size)."""
    frequencies = torch.exp(-math.log(1e4) * torch.arange(size // 2) / max(size // 2 - 1, 1))
    angles = step[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


class DdimLearner:
    """A denoiser and its optimiser.

    Args:
        size: length M of x0. condition_dim: length C of the condition.
        settings: hyperparameters. seed: of the initial weights.
    """

    def __init__(self, size: int, condition_dim: int, settings: DdimSettings, seed: int):
        self.settings = settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.denoiser = Denoiser(size, condition_dim, settings)
        self.optimizer = torch.optim.Adam(self.denoiser.parameters(), lr=settings.lr)

    def sample(self, condition: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """See ``sample``."""
        return sample(self.denoiser, self.settings, condition, noise)

    def update(
        self, x0: torch.Tensor, condition: torch.Tensor, rewards: torch.Tensor, generator: torch.Generator
    ) -> float:
        """One step on a batch; returns its loss.

        Raises:
            TrainingError: the loss is not finite; the step was not taken.
        """
        loss = training_loss(self.denoiser, self.settings, x0, condition, rewards, generator)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"training of the DDIM diverged: its loss is {value}; start again with a lower lr in [ddim]"
            )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return value
