"""A trained policy as one file: safetensors with its description as JSON and a digest of both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from airlora.codec.files import read_tensors, write_tensors
from airlora.errors import CompatibilityError, InputError, StoreError
from airlora.policy.decode import Decoding, RankDecoder
from airlora.policy.paper_state import StateScale
from airlora.policy.settings import DdimSettings, PpoSettings

POLICY_FILE = "policy.safetensors"
_FORMAT = "airlora-policy-1"


@dataclass(frozen=True)
class PolicyCard:
    """What must be known to use a policy's tensors.

    Attributes:
        kind: the agent. mode: the decision process that it was trained in.
        r_min, r_max, decoding: of its ``RankDecoder``; it decides for len(r_max) projections.
        scale: of its state.
        ppo, ddim: hyperparameters.
        trained: what it was trained on, for people.
    """

    kind: Literal["airllm", "ppo"]
    mode: Literal["paper"]
    r_min: int
    r_max: tuple[int, ...]
    decoding: Decoding
    scale: StateScale
    ppo: PpoSettings
    ddim: DdimSettings
    trained: dict[str, Any]

    def __post_init__(self) -> None:
        if self.kind not in ("airllm", "ppo") or self.mode != "paper":
            raise ValueError(f"kind {self.kind!r}, mode {self.mode!r}; allowed: airllm or ppo, paper")

    @property
    def decoder(self) -> RankDecoder:
        """From x0 to ranks."""
        return RankDecoder(self.r_min, np.array(self.r_max, np.int64), self.decoding)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PolicyCard:
        """The inverse of ``to_json``."""
        nested = {"scale": StateScale, "ppo": PpoSettings, "ddim": DdimSettings}
        values = {name: nested[name](**value) if name in nested else value for name, value in data.items()}
        return cls(**{**values, "r_max": tuple(values["r_max"])})


def save_policy(folder: Path, card: PolicyCard, tensors: Mapping[str, np.ndarray]) -> None:
    """Write ``policy.safetensors``, whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    write_policy(folder, card.to_json(), tensors)


def load_policy(folder: Path) -> tuple[PolicyCard, dict[str, np.ndarray]]:
    """Read what ``save_policy`` wrote.

    Raises:
        StoreError: the folder holds no policy, or a corrupt or foreign file.
        CompatibilityError: it is one of stream mode.
    """
    data, tensors = read_policy(folder)
    if data.get("mode") == "stream":
        raise CompatibilityError(
            f"{policy_path(folder)} was trained in stream mode; use it as airllm:{folder}, or evaluate it with"
            " --mode stream"
        )
    try:
        return PolicyCard.from_json(data), tensors
    except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
        raise StoreError(f"{policy_path(folder)} does not describe a policy ({error}); train it again") from error


def policy_path(folder: Path) -> Path:
    """The file of the policy in a folder."""
    return folder / POLICY_FILE


def write_policy(folder: Path, description: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Write ``policy.safetensors`` of any mode, whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    write_tensors(policy_path(folder), _FORMAT, contiguous, {"policy": json.dumps(description, sort_keys=True)})


def read_policy(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(description, tensors) of a policy of any mode.

    Raises:
        StoreError: the folder holds no policy, or a corrupt or foreign file.
    """
    path = policy_path(folder)
    if not path.is_file():
        raise StoreError(f"{str(folder)!r} holds no {POLICY_FILE}; name a folder that `airlora policy train` wrote")
    tensors, metadata = read_tensors(path, _FORMAT)
    try:
        data = json.loads(metadata["policy"])
        if not isinstance(data, dict):
            raise ValueError("its description is no JSON object")
        return data, tensors
    except (KeyError, ValueError) as error:
        raise StoreError(f"{path} does not describe a policy ({error}); train it again") from error
