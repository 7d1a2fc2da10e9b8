"""Hyperparameters of the learned policies, AirLLM's by default."""

from __future__ import annotations

from dataclasses import dataclass

from airlora.errors import InputError


@dataclass(frozen=True)
class PpoSettings:
    """PPO (Schulman et al. 2017).

    Attributes:
        latent_dim: size of the coarse latent that AirLLM's actor draws; PPO alone draws one number a projection.
        width: of both layers of the encoder.
        log_std: initial logarithm of the Gaussian's standard deviation, before tanh.
        gamma, gae_lambda: discount, and decay of generalised advantage estimation.
        clip: of the probability ratio.
        epochs: passes over a roll-out.
        batch_size: of a minibatch at most; a roll-out of one 15-step episode is one batch of 15.
        rollout_episodes: episodes between two updates.
        entropy_weight, value_weight: in the loss.
        max_grad_norm: gradients are scaled down to this norm.
        lr: of Adam.
        normalise_rewards: divide rewards by a running standard deviation of the discounted returns (of
            Stable-Baselines3's ``VecNormalize``); not the paper's.
    """

    latent_dim: int = 16
    width: int = 256
    log_std: float = -0.5
    gamma: float = 0.95
    gae_lambda: float = 0.95
    clip: float = 0.2
    epochs: int = 4
    batch_size: int = 64
    rollout_episodes: int = 1
    entropy_weight: float = 0.01
    value_weight: float = 0.5
    max_grad_norm: float = 1.0
    lr: float = 1e-4
    normalise_rewards: bool = False

    def __post_init__(self) -> None:
        _at_least(self, 1, "latent_dim", "width", "epochs", "rollout_episodes")
        _at_least(self, 2, "batch_size")
        _at_least(self, 0, "entropy_weight", "value_weight", "lr")
        _fraction(self, "gamma", "gae_lambda", "clip")
        if not self.max_grad_norm > 0:
            raise InputError(f"max_grad_norm is {self.max_grad_norm}; it must be above 0")


@dataclass(frozen=True)
class DdimSettings:
    """The conditional DDIM (Song et al. 2021; guidance: Ho & Salimans 2022) and how it is trained.

    Attributes:
        train_steps: diffusion steps. beta_start, beta_end: their noise, linear in √β.
        sample_steps: deterministic steps of a decision; they divide ``train_steps``.
        guidance: w in ε_uncond + w · (ε_cond − ε_uncond).
        condition_dropout: probability with which the condition is zeroed in training.
        width, blocks: of the denoiser. time_dim: of the sinusoidal time embedding.
        reward_weight: a sample weighs clamp(1 + reward_weight · z, 0.1, 10), z its reward standardised in the batch.
        capacity: of the replay. warmup: transitions before the first update.
        updates: an episode. batch_size: of each. lr: of Adam.
        noise_scale: of the noise that sampling begins from, 0 … 1; below 1 more of a decision is the latent's, which
            PPO steers. Not the paper's.
    """

    train_steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 2e-2
    sample_steps: int = 50
    guidance: float = 1.5
    condition_dropout: float = 0.1
    width: int = 512
    blocks: int = 2
    time_dim: int = 64
    reward_weight: float = 0.1
    capacity: int = 10_000
    warmup: int = 128
    updates: int = 4
    batch_size: int = 64
    lr: float = 5e-5
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        _at_least(self, 1, "train_steps", "sample_steps", "width", "blocks", "capacity", "warmup", "batch_size")
        _at_least(self, 0, "updates", "guidance", "reward_weight", "lr")
        _fraction(self, "condition_dropout", "noise_scale")
        if self.train_steps % self.sample_steps:
            raise InputError(f"sample_steps is {self.sample_steps}; it must divide train_steps, {self.train_steps}")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise InputError(f"beta_start {self.beta_start} and beta_end {self.beta_end} must ascend within (0, 1)")
        if self.time_dim < 2 or self.time_dim % 2:
            raise InputError(f"time_dim is {self.time_dim}; an even number from 2 is needed")
        if self.warmup > self.capacity:
            raise InputError(f"warmup is {self.warmup}, above the replay's capacity {self.capacity}; lower it")


def _at_least(settings: object, least: int, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if not least <= value < float("inf"):
            raise InputError(f"{name} is {value}; it must be finite and at least {least}")


def _fraction(settings: object, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value <= 1:
            raise InputError(f"{name} is {value}; it must be in 0 … 1")
