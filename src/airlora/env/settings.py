"""The configuration of a decision process, and of a policy's training on it."""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomli_w

from airlora.config import RunConfig
from airlora.errors import InputError
from airlora.policy.decode import Decoding
from airlora.policy.settings import DdimSettings, PpoSettings


@dataclass(frozen=True)
class PaperConfig:
    """AirLLM's decision process; the paper's values by default, but for model, data and link.

    Attributes:
        model, data, task, targets, text_column, label_column, encoding, device: as of ``airlora run``.
        links: SPECs; each step draws one of them and observes it at step × deadline_s.
        batch_size, max_length: of the adapter's training. lr: its learning rate, None for the automatic one.
        min_rank, max_rank: range of every projection's rank. alpha: the update is scaled by alpha / max_rank.
        orthogonality: weight of the regulariser of the factors.
        deadline_s: T_max in s. bits: per number transmitted.
        count_head: the classification head counts as transmitted.
        cost_weight: λ. miss_penalty: of a decision that misses the deadline, times its cost.
        episode_steps: until the time limit, at least 2.
        snr_low_db, snr_high_db: range of the state's SNR in dB.
        bandwidth_high_hz: range of its bandwidth is 0 … this; None takes the largest of the links' at the start.
        text: definition of H and ζ: the paper's, over tokens, or ours, over words.
        decoding: from [−1, 1] to ranks (see ``RankDecoder``).
        validation_limit: rows or windows of the validation split that are measured.
        seed: of initial factors, batches and channel.
    """

    model: str = "builtin:tiny-opt"
    data: str = "builtin:vehicle-commands"
    task: Literal["auto", "classify", "lm"] = "auto"
    targets: str = "auto"
    links: tuple[str, ...] = ("awgn:snr_db=10,bandwidth_hz=1e8",)
    batch_size: int = 32
    max_length: int = 128
    lr: float | None = 5e-5
    min_rank: int = 1
    max_rank: int = 8
    alpha: float = 32.0
    orthogonality: float = 0.01
    deadline_s: float = 1.0
    bits: int = 32
    count_head: bool = True
    cost_weight: float = 0.1
    miss_penalty: float = 10.0
    episode_steps: int = 15
    snr_low_db: float = -5.0
    snr_high_db: float = 15.0
    bandwidth_high_hz: float | None = None
    text: Literal["paper", "words"] = "paper"
    decoding: Decoding = "floor"
    validation_limit: int = 512
    seed: int = 0
    text_column: str | None = None
    label_column: str | None = None
    encoding: str = "utf-8"
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.links:
            raise InputError("links is empty; give at least one SPEC")
        if not 1 <= self.min_rank <= self.max_rank:
            raise InputError(f"min_rank is {self.min_rank}; it must be in 1 … max_rank, {self.max_rank}")
        if self.episode_steps < 2:
            raise InputError(f"episode_steps is {self.episode_steps}; PPO standardises advantages and needs 2 or more")
        if self.bits < 1:
            raise InputError(f"bits is {self.bits}; it must be at least 1")
        for name in ("orthogonality", "cost_weight", "miss_penalty"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)}; it must be a finite number from 0")
        if not -float("inf") < self.snr_low_db < self.snr_high_db < float("inf"):
            raise InputError(f"snr_low_db {self.snr_low_db} must be below snr_high_db {self.snr_high_db}, both finite")
        if self.bandwidth_high_hz is not None and not 0 < self.bandwidth_high_hz < float("inf"):
            raise InputError(f"bandwidth_high_hz is {self.bandwidth_high_hz}; it must be a finite number above 0")
        self.job()

    def job(self) -> RunConfig:
        """Model, data and training as a run would have them (and their checks)."""
        shared = {f.name for f in dataclasses.fields(RunConfig)} & {f.name for f in dataclasses.fields(self)}
        return RunConfig(**{name: getattr(self, name) for name in shared})


@dataclass(frozen=True)
class TrainingConfig:
    """A policy's training.

    Attributes:
        agent: AirLLM, or PPO alone.
        episodes: at most.
        validate_every: environment steps between two measurements of the adapter's validation quality, taken at the end
            of an episode.
        patience: stop after that many measurements without a better one, once the mean reward since the last one
            exceeds min(−λ, −0.5).
        checkpoint_every: episodes between two checkpoints.
        environment, ppo, ddim: of what is trained, on what.
    """

    agent: Literal["airllm", "ppo"] = "airllm"
    episodes: int = 1000
    validate_every: int = 100
    patience: int = 5
    checkpoint_every: int = 10
    environment: PaperConfig = field(default_factory=PaperConfig)
    ppo: PpoSettings = field(default_factory=PpoSettings)
    ddim: DdimSettings = field(default_factory=DdimSettings)

    def __post_init__(self) -> None:
        for name in ("episodes", "validate_every", "patience", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")

    def to_toml(self) -> str:
        """All values; ``auto`` stands for None."""
        return to_toml(self)


def to_toml(settings: Any) -> str:
    """All values of a settings dataclass; ``auto`` stands for None."""
    return tomli_w.dumps(_without_none(dataclasses.asdict(settings)))


def read_training_config(values: Mapping[str, Any], file: Path | None = None) -> TrainingConfig:
    """Defaults, overridden by a TOML file, overridden by ``values`` (nested as in the file, None left out).

    Raises:
        InputError: the file cannot be read, or a key or a value is not allowed.
    """
    config: TrainingConfig = read_settings(TrainingConfig, values, file)
    return config


def read_settings(
    cls: Any,
    values: Mapping[str, Any],
    file: Path | None = None,
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
) -> Any:
    """An instance of a dataclass from a TOML file and values, as ``read_training_config``.

    ``defaults`` of nested tables stand in for those of their dataclasses.
    """
    merged: dict[str, Any] = {}
    if file is not None:
        try:
            merged = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"config {str(file)!r} cannot be read: {error}") from error
    for key, value in values.items():
        if isinstance(value, Mapping):
            if not isinstance(merged.setdefault(key, {}), dict):
                raise InputError(f"{key} is {merged[key]!r}; a table is needed")
            merged[key] |= {name: item for name, item in value.items() if item is not None}
        elif value is not None:
            merged[key] = value
    for key, table in (defaults or {}).items():
        if isinstance(merged.get(key, {}), dict):
            merged[key] = {**table, **merged.get(key, {})}
    return _build(cls, merged, "")


def _build(cls: Any, values: Mapping[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise InputError(f"configuration has no key {where + unknown[0]!r}; there are: {', '.join(hints)}")
    return cls(**{key: _convert(value, hints[key], where + key) for key, value in values.items()})


def _convert(value: Any, hint: Any, name: str) -> Any:
    options = typing.get_args(hint)
    if type(None) in options:
        if value in ("auto", None):
            return None
        hint = next(option for option in options if option is not type(None))
        options = typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return _build(hint, value, f"{name}.")
    if typing.get_origin(hint) is Literal and value in options:
        return value
    if typing.get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(_convert(item, options[0], name) for item in value)
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    elif isinstance(hint, type) and type(value) is hint:
        return value
    allowed = ", ".join(map(repr, options)) if typing.get_origin(hint) is Literal else getattr(hint, "__name__", hint)
    raise InputError(f"{name} is {value!r}; allowed: {allowed}")


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, dict) else "auto" if value is None else _plain(value)
        for key, value in values.items()
    }


def _plain(value: Any) -> Any:
    """Tables in lists too."""
    if isinstance(value, list | tuple):
        return [_without_none(item) if isinstance(item, dict) else item for item in value]
    return value
