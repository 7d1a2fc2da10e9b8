"""The model and the data sets that ship in the package, so that the first run needs no download.

``builtin:tiny-opt`` is a language model of about a million parameters pretrained on everyday English
(its card lies beside it); ``builtin:vehicle-commands`` and ``builtin:vehicle-logs`` are generated, by
seed, from a domain it has never seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from airlora.errors import InputError
from airlora.spec import build
from airlora.workload._vehicle_commands import check_commands, vehicle_commands, vehicle_templates
from airlora.workload._vehicle_logs import check_logs, vehicle_logs

__all__ = [
    "BUILTIN_DATA",
    "BUILTIN_MODELS",
    "VehicleCommands",
    "VehicleLogs",
    "builtin_model_path",
    "load_builtin_data",
    "vehicle_commands",
    "vehicle_logs",
    "vehicle_templates",
]

_PREFIX = "builtin:"
_ASSETS = Path(__file__).parent / "assets"

BUILTIN_MODELS: tuple[str, ...] = ("tiny-opt",)


@dataclass(frozen=True)
class VehicleCommands:
    """``builtin:vehicle-commands``: intent of a spoken command to a car; see ``vehicle_commands``."""

    task: ClassVar[Literal["classify"]] = "classify"

    noise: float = 0.05
    vocabulary: float = 1.0
    seed: int = 0
    train: int = 3000
    validation: int = 500
    test: int = 1000

    def __post_init__(self) -> None:
        check_commands(self.train, self.validation, self.test, self.noise, self.vocabulary)

    def load(self) -> dict[str, list[tuple[str, str]]]:
        """(text, intent) pairs by split name."""
        return vehicle_commands(self.seed, self.train, self.validation, self.test, self.noise, self.vocabulary)


@dataclass(frozen=True)
class VehicleLogs:
    """``builtin:vehicle-logs``: workshop log text over a fixed body of facts; see ``vehicle_logs``."""

    task: ClassVar[Literal["lm"]] = "lm"

    seed: int = 0
    characters: int = 400_000

    def __post_init__(self) -> None:
        check_logs(self.characters)

    def load(self) -> dict[str, str]:
        """Contiguous text by split name."""
        return vehicle_logs(self.seed, self.characters)


BUILTIN_DATA: dict[str, type] = {"vehicle-commands": VehicleCommands, "vehicle-logs": VehicleLogs}
"""Dataclass by name; each has ``task`` ("classify" or "lm") and ``load()``."""


def load_builtin_data(spec: str) -> VehicleCommands | VehicleLogs:
    """The data set that ``builtin:NAME,key=value,...`` names (``builtin:`` may be left out).

    Returns:
        The checked description; ``load()`` generates the data.

    Raises:
        SpecError: an unknown name or key, or an impossible value.
    """
    name, _, values = spec.removeprefix(_PREFIX).partition(",")
    # a SPEC parts its name from its values by a colon; here the colon comes after "builtin"
    built: VehicleCommands | VehicleLogs = build(BUILTIN_DATA, f"{name}:{values}", "built-in data set")
    return built


def builtin_model_path(name: str) -> Path:
    """Folder of a model that ships in the package.

    Args:
        name: ``builtin:NAME`` or ``NAME``.

    Raises:
        InputError: no such model.
    """
    name = name.removeprefix(_PREFIX)
    if name not in BUILTIN_MODELS:
        raise InputError(f"unknown built-in model {name!r}; there are: {', '.join(BUILTIN_MODELS)}")
    return _ASSETS / name
