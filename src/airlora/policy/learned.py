"""Policies that were trained by ``airlora policy train``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from airlora.codec import BITS, Allocation
from airlora.errors import CompatibilityError, StoreError
from airlora.policy.base import AloneWhere, Observation, Policy, check_training
from airlora.policy.checkpoint import POLICY_FILE, PolicyCard, load_policy, read_policy
from airlora.policy.rules import check_airtime_weight
from airlora.policy.stream_policy import DEFAULT_AIRTIME_WEIGHT, SHIPPED, load_stream_policy


class Decider:
    """A trained policy that decides without chance: the mean of its Gaussian, and fixed noise for the DDIM.

    Args:
        card, tensors: from ``load_policy``. where: for messages.

    Raises:
        StoreError: the tensors do not fit the card.
    """

    def __init__(self, card: PolicyCard, tensors: dict[str, np.ndarray], where: str = "policy"):
        import torch  # the base install has none

        from airlora.policy.ddim import Denoiser
        from airlora.policy.networks import Actor

        self.card = card
        size, latent = len(card.r_max), card.ppo.latent_dim
        modules: dict[str, torch.nn.Module] = {
            "actor": Actor(4 + size, card.ppo.width, latent if card.kind == "airllm" else size)
        }
        if card.kind == "airllm":
            modules["denoiser"] = Denoiser(size, latent, card.ddim)
        try:
            for name, module in modules.items():
                own = {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}/")}
                module.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in own.items()})
        except (RuntimeError, TypeError) as error:
            raise StoreError(f"{where}: tensors do not fit its description ({error}); train it again") from error
        self._actor = modules["actor"].requires_grad_(False)
        self._denoiser = modules["denoiser"].requires_grad_(False) if "denoiser" in modules else None
        self._noise = torch.randn(1, size, generator=torch.Generator().manual_seed(0))

    def x0(self, state: np.ndarray) -> np.ndarray:
        """The decision (M,) in [−1, 1] in a state (4 + M,); NaN where the networks give it."""
        import torch

        from airlora.policy.ddim import sample

        action: torch.Tensor = self._actor(torch.from_numpy(np.asarray(state, np.float32))[None])
        if self._denoiser is not None:
            action = sample(self._denoiser, self.card.ddim, action, self._noise)
        x0: np.ndarray = action[0].numpy()
        return x0

    def ranks(self, state: np.ndarray) -> np.ndarray:
        """Ranks (M,) int64 in r_min … r_max, whatever the networks give."""
        return self.card.decoder.ranks(self.x0(state))


@dataclass(frozen=True)
class _Learned(Policy):
    """A policy trained in paper mode, used in a run's rounds.

    Its state is made of the round's: lexical entropy and OOV rate as a run measures them, and the ranks that the edge
    holds. Ranks above those trained are cut.

    Attributes:
        folder: where ``airlora policy train`` wrote it.
        bits: bits per number; the process has no action for them.

    Raises:
        StoreError: no policy there, or a corrupt or foreign file. CompatibilityError: of another kind.
    """

    kind: ClassVar[Literal["airllm", "ppo"]]

    folder: Path
    bits: int = 16
    decider: Decider = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ValueError(f"bits={self.bits}; allowed: {', '.join(map(str, BITS))}")
        object.__setattr__(self, "decider", _load_paper(self.folder, self.kind))

    def decide(self, observation: Observation) -> Allocation:
        """The trained policy's ranks.

        Raises:
            CompatibilityError: it was trained for another number of projections.
        """
        card, schema = self.decider.card, observation.schema
        if len(card.r_max) != len(schema.projections):
            raise CompatibilityError(
                f"policy {str(self.folder)!r} decides for {len(card.r_max)} projections, the model has"
                f" {len(schema.projections)}; train one for this model and these targets"
            )
        state = card.scale.vector(
            snr_db=observation.link.snr_db,
            bandwidth_hz=observation.link.bandwidth_hz,
            entropy=observation.text.lexical_entropy,
            oov_rate=observation.text.oov_rate,
            rank_fractions=observation.held_ranks / np.array(card.r_max),
        )
        ranks = np.minimum(self.decider.ranks(state), observation.trained_ranks)
        return Allocation(
            ranks, np.full(len(ranks), self.bits), self.bits if schema.head else 0, observation.budget_bytes
        )


def _load_paper(folder: Path, kind: str) -> Decider:
    card, tensors = load_policy(folder)
    if card.kind != kind:
        raise CompatibilityError(
            f"{str(folder)!r} holds a policy of kind {card.kind!r}; use it as {card.kind}:{folder}"
        )
    return Decider(card, tensors, str(folder / POLICY_FILE))


@dataclass(frozen=True)
class Ppo(_Learned):
    """PPO alone, acting on the rank vector."""

    kind = "ppo"


@dataclass(frozen=True)
class AirLlm(Policy):
    """AirLLM: PPO's coarse latent, refined by a conditional DDIM.

    Attributes:
        folder: where ``airlora policy train`` wrote it, in either mode; None takes the one in the package, which was
            trained in stream mode and decides for any model.
        bits: of a policy trained in paper mode only: bits per number, 16 by default.
        airtime_weight: of one trained in stream mode only: λ, what a whole deadline of airtime costs in units of all
            that the cloud learns, 0.1 by default.
        steer, alone: see ``Policy``.

    Raises:
        StoreError: no policy there, or a corrupt or foreign file. CompatibilityError: of another kind.
    """

    folder: Path | None = None
    bits: int | None = None
    airtime_weight: float | None = None
    steer: float = 0.0
    alone: AloneWhere = "never"
    _decide: Callable[[Observation], Allocation] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_training(self.steer, self.alone)
        folder = self.folder or SHIPPED
        decide: Callable[[Observation], Allocation]
        if read_policy(folder)[0].get("mode") == "stream":
            if self.bits is not None:
                raise ValueError(f"bits={self.bits} is for policies of paper mode; this one chooses them itself")
            weight = DEFAULT_AIRTIME_WEIGHT if self.airtime_weight is None else self.airtime_weight
            check_airtime_weight(weight)
            decider = load_stream_policy(folder)
            decide = partial(decider.decide, airtime_weight=weight)
        else:
            if self.airtime_weight is not None:
                raise ValueError(f"airtime_weight={self.airtime_weight} is for policies of stream mode")
            decide = _PaperAirLlm(folder, 16 if self.bits is None else self.bits).decide
        object.__setattr__(self, "_decide", decide)

    def decide(self, observation: Observation) -> Allocation:
        """The trained policy's allocation.

        Raises:
            CompatibilityError: it was trained in paper mode, for another number of projections.
        """
        return self._decide(observation)


@dataclass(frozen=True)
class _PaperAirLlm(_Learned):
    kind = "airllm"
