"""What a policy for any model sees: a few numbers for the round, and a token for each projection.

Everything is scale-free and clipped, so that a state far outside training is one at the edge of it. What was not
measured is 0, with a flag beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np

from airlora.link.base import PastRate
from airlora.policy.base import Observation
from airlora.policy.rules import LEAN_BITS, WIDE_BITS
from airlora.policy.stream_costs import CostGrid

BLOCKS = 7
"""Blocks of components told apart: those that end at 1, 2, 4 … 64; what lies beyond joins the last."""
REFERENCE_BITS = 4
_KINDS = (
    ("q_proj", "query", "q_lin"),
    ("k_proj", "key", "k_lin"),
    ("v_proj", "value", "v_lin"),
    ("out_proj", "o_proj", "attention.output", "out_lin", "c_attn", "attn.c_proj"),
    ("fc1", "intermediate", "up_proj", "gate_proj", "lin1", "c_fc"),
    ("fc2", "output", "down_proj", "lin2", "mlp.c_proj"),
)
"""Parts of names by which a projection's kind is told, first match; the last kind is "other"."""

LEAST_LOAD, LARGEST_LOAD = 0.005, 20.0
"""Range of a round's mean budget over the bytes of a plain fp32 LoRA of rank 8 in training; a larger budget is seen as
one at the end of it."""

GLOBAL_SIZE = 28
TOKEN_SIZE = 2 + len(_KINDS) + 1 + 3 + 3 * BLOCKS
_LIMIT = 3.0

FeatureGroup = Literal["link", "text"]
_GROUPS: dict[FeatureGroup, list[int]] = {
    "link": [*range(11), 20, *range(24, 28)],
    "text": [*range(14, 18)],
}
"""Of the numbers of a round, those that tell of the link (what it measures, estimates, carried) and of the text."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """An observation as arrays.

    Attributes:
        round: (GLOBAL_SIZE,) float32. projections: (M, TOKEN_SIZE) float32.
    """

    round: np.ndarray
    projections: np.ndarray


@dataclass(eq=False)
class View:
    """An observation with what is derived from it once and used by features and decoding alike.

    Attributes:
        observation: of the round.
        airtime_weight: λ, what a whole deadline of airtime costs in units of the final gain.
        relative: see ``CostGrid``.
        hidden: groups of features that are 0, to learn what they are worth.
    """

    observation: Observation
    airtime_weight: float

    relative: tuple[np.ndarray, np.ndarray] | None = None
    hidden: tuple[FeatureGroup, ...] = ()

    @cached_property
    def grid(self) -> CostGrid:
        """Costs of all projections."""
        return CostGrid(self.observation.costs, self.relative)

    @cached_property
    def head_bits(self) -> int:
        """Bits of the head: ``REFERENCE_BITS``, 0 without one."""
        return REFERENCE_BITS if self.observation.schema.head else 0

    @cached_property
    def fit_bits(self) -> int:
        """Bits of the rule ``fit``."""
        return WIDE_BITS if self.totals[-1] <= self.observation.budget_bytes else LEAN_BITS

    @cached_property
    def totals(self) -> np.ndarray:
        """(K,) bytes of updates of uniform ranks 1 … K at ``REFERENCE_BITS``."""
        return self.grid.totals(self._reference, self.head_bits)

    @property
    def _reference(self) -> np.ndarray:
        return np.full(len(self.observation.schema.projections), REFERENCE_BITS)

    @cached_property
    def tokens(self) -> Tokens:
        """Features."""
        return Tokens(_clip(self._round()), _clip(self._projections()))

    def _round(self) -> np.ndarray:
        o, link, schema = self.observation, self.observation.link, self.observation.schema
        plain, whole = schema.plain_lora_bytes(), float(self.totals[-1])
        budget, seen = o.budget_bytes, min(o.budget_bytes, LARGEST_LOAD * plain)
        shannon = link.bandwidth_hz * np.log2(1 + 10 ** (min(link.snr_db, 100.0) / 10))
        waited = o.since_contact_s / o.deadline_s
        fitting = int(np.searchsorted(self.totals, budget, side="right"))
        values = [
            (link.snr_db - 10) / 15,
            np.isfinite(link.snr_db),
            (_log10(link.bandwidth_hz) - 5) / 2,
            np.isfinite(link.bandwidth_hz),
            np.isfinite(budget),
            budget == 0,
            _log10(seen / whole) if np.isfinite(budget) else 0.0,
            _log10(seen / plain) if np.isfinite(budget) else 0.0,
            _log10(link.rate_bps / shannon) if shannon > 0 else 0.0,
            np.log1p(waited) / 2 if np.isfinite(waited) else 0.0,
            np.isfinite(waited),
            o.round / max(o.rounds, 1),
            1 / (1 + o.round),
            np.log(max(o.rounds - o.round, 1)) / 3,
            o.text.lexical_entropy,
            o.text.oov_rate,
            np.log1p(o.text.mean_words) / 4,
            o.text.loss / 5,
            _log10(whole / (plain / 8)),
            float(np.mean(o.held_ranks / schema.r_max)),
            fitting / len(self.totals),
            _log10(self.totals[0] / whole),
            self.grid.head_bytes(self.head_bits) / whole,
            np.log10(self.airtime_weight + 0.01) + 1,
            *surprise(o.past_rates),
        ]
        features = np.array(values, np.float64)
        for group in self.hidden:
            features[_GROUPS[group]] = 0.0
        return features

    def _projections(self) -> np.ndarray:
        o, costs = self.observation, self.observation.costs
        schema = o.schema
        count, largest = o.energy.shape
        order = np.arange(count)
        numbers = schema.numbers_per_component
        blocks = np.minimum(np.ceil(np.log2(np.arange(largest) + 1)).astype(int), BLOCKS - 1)  # (K,) of each component
        own = np.arange(largest) < schema.r_max[:, None]  # (M, K)
        change = np.hypot(costs.change_u, costs.change_v) / np.maximum(np.hypot(costs.rms_u, costs.rms_v), 1e-30)
        each_bytes = self.grid.table(self._reference)[order, schema.r_max - 1]  # (M, K)
        energy = _by_block(o.energy, blocks) / max(float(o.energy.sum()), 1e-30) * count
        cost = _by_block(each_bytes, blocks) / float(self.totals[-1]) * count
        moved = _by_block(change * own, blocks) / np.maximum(_by_block(own.astype(float), blocks), 1)
        sensitivity = np.abs(o.sensitivity).sum(axis=1)
        features = [
            2 * order / max(count - 1, 1) - 1,
            np.log2(numbers / numbers.mean()),
            *_kinds(tuple(p.name for p in schema.projections)),
            np.log2((sensitivity + 1e-12) / (sensitivity.mean() + 1e-12)) / 2,
            o.held_ranks / schema.r_max,
            o.trained_ranks / schema.r_max,
            *(np.log10(energy + 1e-3) / 2).T,
            *moved.T,
            *(np.log10(cost + 1e-3) / 2).T,
        ]
        return np.stack([np.broadcast_to(feature, count) for feature in features], axis=1)


def surprise(past: Sequence[PastRate]) -> tuple[float, float, float, float]:
    """What earlier transmissions carried over what was estimated, log10 within ±1.5: whether there is any, of the last
    one, mean, root mean square."""
    ratios = [
        float(np.clip(np.log10(max(rate.carried_bps, 1.0) / max(rate.estimated_bps, 1.0)), -1.5, 1.5))
        for rate in past
        if rate.estimated_bps == rate.estimated_bps
    ]
    if not ratios:
        return 0.0, 0.0, 0.0, 0.0
    return 1.0, ratios[-1], float(np.mean(ratios)), float(np.sqrt(np.mean(np.square(ratios))))


def _by_block(values: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """(M, BLOCKS) sums of (M, K) values by block."""
    return values @ (blocks[:, None] == np.arange(BLOCKS))


@lru_cache(maxsize=64)
def _kinds(names: tuple[str, ...]) -> np.ndarray:
    """(kinds, M) 1 for the kind of each name."""
    found = np.zeros((len(_KINDS) + 1, len(names)))
    for index, name in enumerate(names):
        kinds = (kind for kind, parts in enumerate(_KINDS) if any(part in name for part in parts))
        found[next(kinds, len(_KINDS)), index] = 1
    return found


def _log10(value: float) -> float:
    return float(np.log10(max(value, 1e-12))) if value == value else 0.0


def _clip(values: np.ndarray) -> np.ndarray:
    return np.clip(np.nan_to_num(values, nan=0.0, posinf=_LIMIT, neginf=-_LIMIT), -_LIMIT, _LIMIT).astype(np.float32)
