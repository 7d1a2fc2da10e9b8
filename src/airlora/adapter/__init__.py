"""Nested-rank LoRA inside a Transformers model: training, importance, export."""

from airlora.adapter.adalora import AdaLoraPruner, AdaLoraSchedule
from airlora.adapter.export import export_peft
from airlora.adapter.importance import AdaLoraImportance, Sensitivity, component_energy
from airlora.adapter.mixture import PrefixMixture
from airlora.adapter.nested import NestedAdapter, NestedLinear, make_schema
from airlora.adapter.optim import NestedAdam, NestedMuon, NestedOptimizer
from airlora.adapter.rounding import RoundingStrategy
from airlora.adapter.targets import find_targets
from airlora.adapter.training import (
    AdaLoraStrategy,
    ChosenRanksStrategy,
    GrowingStrategy,
    NestedStrategy,
    SteeredStrategy,
    Trainer,
)

__all__ = [
    "AdaLoraImportance",
    "AdaLoraPruner",
    "AdaLoraSchedule",
    "AdaLoraStrategy",
    "ChosenRanksStrategy",
    "GrowingStrategy",
    "NestedAdam",
    "NestedAdapter",
    "NestedLinear",
    "NestedMuon",
    "NestedOptimizer",
    "NestedStrategy",
    "PrefixMixture",
    "RoundingStrategy",
    "Sensitivity",
    "SteeredStrategy",
    "Trainer",
    "component_energy",
    "export_peft",
    "find_targets",
    "make_schema",
]
