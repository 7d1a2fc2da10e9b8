"""A policy trained in stream mode: its file, and its decisions without chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from airlora.codec import Allocation
from airlora.errors import InputError, StoreError
from airlora.policy.base import Observation
from airlora.policy.checkpoint import policy_path, read_policy, write_policy
from airlora.policy.settings import DdimSettings, PpoSettings
from airlora.policy.stream_action import StreamDecoder, StreamDecoding
from airlora.policy.stream_family import Refinement, family_member
from airlora.policy.tokens import GLOBAL_SIZE, TOKEN_SIZE, FeatureGroup, View

SHIPPED = Path(__file__).parent / "assets"
"""Folder of the policy in the package."""
DEFAULT_AIRTIME_WEIGHT = 0.1


@dataclass(frozen=True)
class StreamCard:
    """What must be known to use a stream policy's tensors.

    Attributes:
        kind, mode: airllm, stream.
        decoding: of its actions.
        global_size, token_size: of its observations.
        ppo, ddim: hyperparameters.
        trained: what it was trained on, for people.
        hidden: groups of features that it does not see.
        refine: what makes rank and bits of the latent: the DDIM, or ``family_member`` without one.
    """

    kind: Literal["airllm"]
    mode: Literal["stream"]
    decoding: StreamDecoding
    global_size: int
    token_size: int
    ppo: PpoSettings
    ddim: DdimSettings
    trained: dict[str, Any]
    hidden: tuple[FeatureGroup, ...] = ()
    refine: Refinement = "ddim"

    def __post_init__(self) -> None:
        if self.kind != "airllm" or self.mode != "stream":
            raise ValueError(f"kind {self.kind!r}, mode {self.mode!r}; allowed: airllm, stream")
        if (self.global_size, self.token_size) != (GLOBAL_SIZE, TOKEN_SIZE):
            raise ValueError(
                f"it reads {self.global_size} numbers a round and {self.token_size} a projection, this version makes"
                f" {GLOBAL_SIZE} and {TOKEN_SIZE}"
            )
        if not set(self.hidden) <= set(get_args(FeatureGroup)) or self.refine not in get_args(Refinement):
            raise ValueError(f"hidden {self.hidden}, refine {self.refine!r} are not known to this version")
        StreamDecoder(self.decoding)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StreamCard:
        """The inverse of ``asdict``."""
        nested = {"ppo": PpoSettings, "ddim": DdimSettings}
        values = {name: nested[name](**value) if name in nested else value for name, value in data.items()}
        return cls(**{**values, "hidden": tuple(values.get("hidden", ()))})


def save_stream_policy(folder: Path, card: StreamCard, tensors: Mapping[str, np.ndarray]) -> None:
    """Write ``policy.safetensors``, whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    write_policy(folder, asdict(card), tensors)


def load_stream_policy(folder: Path) -> StreamDecider:
    """Read what ``save_stream_policy`` wrote.

    Raises:
        StoreError: the folder holds no policy, or a corrupt or foreign file.
    """
    data, tensors = read_policy(folder)
    try:
        card = StreamCard.from_json(data)
    except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
        raise StoreError(f"{policy_path(folder)} is no policy of stream mode ({error}); train it again") from error
    return StreamDecider(card, tensors, str(policy_path(folder)))


class StreamDecider:
    """Decides by the mean of PPO's Gaussian and the mode of the DDIM's noise, for any number of projections.

    Args:
        card, tensors: of the policy. where: for messages.

    Raises:
        StoreError: the tensors do not fit the card.
    """

    def __init__(self, card: StreamCard, tensors: Mapping[str, np.ndarray], where: str = "policy"):
        import torch  # the base install has none

        from airlora.policy.stream_networks import StreamActor, TokenDenoiser

        self.card = card
        self.decoder = StreamDecoder(card.decoding)
        self._actor = StreamActor(card.ppo.width, card.ppo.latent_dim).requires_grad_(False)
        self._denoiser = TokenDenoiser(card.ppo.latent_dim, card.ddim).requires_grad_(False)
        modules: dict[str, torch.nn.Module] = {"actor": self._actor, "denoiser": self._denoiser}
        try:
            for name, module in modules.items():
                own = {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}/")}
                module.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in own.items()})
        except (RuntimeError, TypeError) as error:
            raise StoreError(f"{where}: tensors do not fit its description ({error}); train it again") from error

    def action(self, view: View) -> tuple[float, np.ndarray]:
        """(the budget's number, x0 (M, 2)) in [−1, 1]; NaN where the networks give it."""
        import torch

        from airlora.policy.ddim import sample
        from airlora.policy.stream_networks import NUMBERS, observation_vector

        with torch.no_grad():
            observation = observation_vector(view.tokens)
            action = self._actor(observation)  # (1, 1 + C)
            number = float(action[0, 0])
            if self.card.refine == "family":
                return number, family_member(self.decoder, view, number, action[0, 1:].numpy())
            size = NUMBERS * len(view.tokens.projections)
            # The mode of the noise, for every projection: what differs between them is what is known of them.
            x0 = sample(self._denoiser.bind(observation), self.card.ddim, action[:, 1:], torch.zeros(1, size))
        return number, x0[0].numpy().reshape(-1, NUMBERS)

    def decide(self, observation: Observation, airtime_weight: float) -> Allocation:
        """What to send.

        Args:
            observation: of the round.
            airtime_weight: λ, what a whole deadline of airtime costs, 1 being all that the cloud learns.
        """
        view = View(observation, airtime_weight, hidden=self.card.hidden)
        return self.decoder.allocation(view, *self.action(view))
