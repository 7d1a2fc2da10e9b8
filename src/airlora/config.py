"""The configuration of a run: one flat value, from defaults, a TOML file and the command line."""

from __future__ import annotations

import dataclasses
import re
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tomli_w

from airlora.errors import InputError

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes (its output folder does not).

    Attributes:
        model, data: what is adapted to what (see the command's help).
        task: ``classify``, ``lm``, or ``auto`` from the data.
        targets: projections to adapt, comma separated, or ``auto``.
        link, policy: SPECs.
        rounds, steps_per_round, batch_size: of training.
        deadline_s: time to transmit an update, in s; round_period_s: from one round's start to the next.
        max_rank: largest rank of a projection; alpha: the update is scaled by alpha / max_rank.
        lr: learning rate of the first component.
        head_lr: of the head; by default by the size of its inputs (``airlora.rates.automatic_head_lr``).
        max_length: tokens a text (classify) or a window (lm) at most.
        passes: training passes a step (see ``PrefixMixture``).
        validation_limit: rows (classify) or windows (lm) of the validation split used each round.
        guard_limit: how many the encoder measures after every layer, None for ``validation_limit``; what does worse
            there is measured on ``validation_limit`` rows, and with a price the ends that look best on as many others.
        test_limit: rows or windows of the test split measured at the end; None for all.
        seed: of batches, initial factors, link and policy.
        text_column, label_column, encoding: how to read the data.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: of the base model's weights: ``float32``, ``bfloat16``, or ``auto`` (bfloat16 on a GPU). Adapter and head
            are float32 in any case.
    """

    model: str = "builtin:tiny-opt"
    data: str = "builtin:vehicle-commands"
    task: Literal["auto", "classify", "lm"] = "auto"
    targets: str = "auto"
    link: str = "awgn:snr_db=10,bandwidth_hz=1e6"
    policy: str = "airllm:airtime_weight=0,alone=auto"
    rounds: int = 20
    steps_per_round: int = 20
    batch_size: int = 32
    deadline_s: float = 1.0
    round_period_s: float | None = None
    max_rank: int = 16
    alpha: float | None = None
    lr: float | None = None
    head_lr: float | None = None
    max_length: int = 128
    passes: int = 3
    validation_limit: int = 512
    guard_limit: int | None = None
    test_limit: int | None = None
    seed: int = 0
    text_column: str | None = None
    label_column: str | None = None
    encoding: str = "utf-8"
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"

    def __post_init__(self) -> None:
        for name in ("rounds", "steps_per_round", "batch_size", "max_rank", "max_length", "passes", "validation_limit"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("guard_limit", "test_limit"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise InputError(f"{name} is {limit}; it must be at least 1")
        for name in ("deadline_s", "round_period_s", "alpha", "lr", "head_lr"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{name} is {value}; it must be a finite number above 0")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed is {self.seed}; it must be in 0 … 2^63 − 1")
        if self.target_names == []:
            raise InputError(f"targets is {self.targets!r}; give auto, or names such as q_proj,v_proj")
        if not _DEVICE.fullmatch(self.device):
            raise InputError(f"device is {self.device!r}; allowed: auto, cpu, cuda, cuda:0, cuda:1, …")
        if self.round_period_s is not None and self.round_period_s < self.deadline_s:
            raise InputError(
                f"round_period_s is {self.round_period_s}, shorter than deadline_s {self.deadline_s};"
                " a round must end before the next begins"
            )

    @property
    def period_s(self) -> float:
        """Seconds from one round's start to the next."""
        return self.deadline_s if self.round_period_s is None else self.round_period_s

    @property
    def adapter_alpha(self) -> float:
        """Alpha, by default twice the largest rank."""
        return 2.0 * self.max_rank if self.alpha is None else self.alpha

    @property
    def target_names(self) -> list[str] | None:
        """Projections asked for, None for all."""
        return None if self.targets == "auto" else [name.strip() for name in self.targets.split(",") if name.strip()]

    def to_toml(self) -> str:
        """The resolved configuration; ``auto`` stands where nothing was chosen."""
        values = {key: "auto" if value is None else value for key, value in dataclasses.asdict(self).items()}
        return tomli_w.dumps(values)


def load_config(values: Mapping[str, Any], file: Path | None = None) -> RunConfig:
    """Defaults, overridden by a TOML file, overridden by ``values`` (those that are not None).

    Raises:
        InputError: the file cannot be read, or a key or a value is not allowed.
    """
    merged: dict[str, Any] = {}
    if file is not None:
        try:
            merged.update(tomllib.loads(file.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"config {str(file)!r} cannot be read: {error}") from error
    merged.update({key: value for key, value in values.items() if value is not None})
    hints = typing.get_type_hints(RunConfig)
    unknown = sorted(set(merged) - set(hints))
    if unknown:
        raise InputError(f"configuration has no key {unknown[0]!r}; its keys are: {', '.join(hints)}")
    return RunConfig(**{key: _coerce(key, value, hints[key]) for key, value in merged.items()})


def _coerce(key: str, value: Any, hint: Any) -> Any:
    options = typing.get_args(hint)
    if type(None) in options:
        if value in ("auto", None):
            return None
        hint = next(option for option in options if option is not type(None))
        options = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        if value not in options:
            raise InputError(f"{key} is {value!r}; allowed: {', '.join(options)}")
        return value
    try:
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise ValueError
        if (hint is str and isinstance(value, float)) or (hint is int and float(value) != int(float(value))):
            raise ValueError
        return hint(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{key} is {value!r}; {hint.__name__} is needed") from None
