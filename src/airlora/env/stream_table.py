"""A recorded job as tables: what any update of it would cost, and what the edge would gain.

The cloud's trajectory does not depend on what is sent (see ``trajectory``), so one recording serves any number of
policies and links. Version s of the adapter is what the cloud had after round s - 1; version 0 is what the edge holds
before the first round. Quality is a *gain*: 0 for the untouched model, 1 for the cloud's after the last round.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from airlora.codec import BITS, Costs
from airlora.codec.files import read_tensors, write_tensors
from airlora.codec.steps import STEP_PER_RMS
from airlora.errors import StoreError
from airlora.factors import Schema
from airlora.workload.text import TextStatistics

TABLE_FILE = "table.safetensors"
MEASURED_BITS = (2, 3, 4, 8)
"""Bits at which the gain is measured; 6 and 16 count as 8."""
_FORMAT = "airlora-job-table-1"


@dataclass(frozen=True, eq=False)
class JobTable:
    """Tables of T rounds for M projections of up to K components, B prefixes.

    Attributes:
        schema: of the adapter.
        name: of the job, for people.
        base_quality, final_quality: at gain 0 and 1, on the validation sample.
        higher_is_better: of the quality.
        text: (T, 4) the ``TextStatistics`` of each round.
        cloud_gain: (T,) of the whole adapter after each round.
        sensitivity, energy: (T, M, K), see ``policy.Observation``.
        rms_u, rms_v, gradient_u, gradient_v: (T, M, K) see ``codec.Costs``, of version t + 1.
        change_u, change_v: (T, T + 1, M, K) the same, from version s to version t + 1.
        head_bytes: (T, T + 1, len(BITS)) bytes of the head, from version s to version t + 1.
        gain: (T + 1, B + 1, len(MEASURED_BITS)) of every version cut to rank 0 and to each prefix, at each bits.
        mixed_version, mixed_bits: (N, M, K) measured mixtures of versions: version and index into ``MEASURED_BITS``.
        mixed_active: (N, M) their active ranks. mixed_head: (N, 2) version and bits index of their heads.
        mixed_gain: (N,) measured.
    """

    schema: Schema
    name: str
    base_quality: float
    final_quality: float
    higher_is_better: bool
    text: np.ndarray
    cloud_gain: np.ndarray
    sensitivity: np.ndarray
    energy: np.ndarray
    rms_u: np.ndarray
    rms_v: np.ndarray
    gradient_u: np.ndarray
    gradient_v: np.ndarray
    change_u: np.ndarray
    change_v: np.ndarray
    head_bytes: np.ndarray
    gain: np.ndarray
    mixed_version: np.ndarray
    mixed_bits: np.ndarray
    mixed_active: np.ndarray
    mixed_head: np.ndarray
    mixed_gain: np.ndarray

    def __post_init__(self) -> None:
        rounds, count, largest = self.energy.shape
        wanted = (rounds, rounds + 1, count, largest)
        if (count, largest) != (len(self.schema.projections), self.schema.prefixes[-1]):
            raise StoreError(f"a job table for {count} projections, its schema has {len(self.schema.projections)}")
        if self.change_u.shape != wanted or self.gain.shape[:2] != (rounds + 1, len(self.schema.prefixes) + 1):
            raise StoreError(f"job table {self.name!r}: shapes {self.change_u.shape} and {self.gain.shape} do not fit")

    @property
    def rounds(self) -> int:
        """T."""
        return len(self.energy)

    def statistics(self, round_index: int) -> TextStatistics:
        """Of the text of a round."""
        return TextStatistics(*(float(value) for value in self.text[round_index]))

    @cached_property
    def component_gain(self) -> np.ndarray:
        """(T + 1, bits, K) what component k adds, interpolated between prefixes; the head's share is not in it."""
        ranks = np.array([0, *self.schema.prefixes])
        each = np.arange(ranks[-1] + 1)
        curves = np.stack(
            [[np.interp(each, ranks, curve) for curve in version.T] for version in self.gain]
        )  # (T + 1, bits, K + 1)
        return np.diff(curves, axis=2)

    @cached_property
    def head_gain(self) -> np.ndarray:
        """(T + 1, bits) gain at rank 0."""
        return self.gain[:, 0, :]

    @cached_property
    def relative_steps(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """``Costs.relative_steps`` of each round."""
        nothing = np.zeros(self.rms_u.shape[1:], np.int64)
        return [self.costs(index, nothing, nothing, 0).relative_steps for index in range(self.rounds)]

    @cached_property
    def disagreement(self) -> np.ndarray:
        """(T + 1, T + 1, M, K) relative change between two versions, 0 … 1; the first index is the reference."""
        count = self.rounds + 1
        found = np.zeros((count, count, *self.energy.shape[1:]))
        size = np.maximum(np.square(self.rms_u), 1e-300), np.maximum(np.square(self.rms_v), 1e-300)
        relative = np.sqrt(
            (np.square(self.change_u) / size[0][:, None] + np.square(self.change_v) / size[1][:, None]) / 2
        )  # (T, T + 1, M, K)
        found[1:, :] = relative
        lower = np.tril_indices(count, -1)
        found[lower[1], lower[0]] = found[lower]
        return np.minimum(found, 1.0)

    def costs(self, round_index: int, version: np.ndarray, bits: np.ndarray, head_version: int) -> Costs:
        """Costs of the adapter of a round on an edge that holds versions (M, K) at bits (M, K), values of ``BITS``.

        What the edge holds is off by its own quantisation, uniform within a step.
        """
        held = np.array([STEP_PER_RMS[width] for width in BITS])[np.searchsorted(BITS, bits)] / np.sqrt(12)
        held = np.where(version > 0, np.minimum(held, 1.0), 0.0)
        changes = []
        at = version[None], np.arange(version.shape[0])[:, None], np.arange(version.shape[1])
        for change, rms in ((self.change_u, self.rms_u), (self.change_v, self.rms_v)):
            own = rms[round_index]
            moved = change[round_index][at][0]
            changes.append(np.minimum(np.hypot(moved, held * own), own))
        return Costs(
            self.schema,
            changes[0],
            changes[1],
            self.rms_u[round_index],
            self.rms_v[round_index],
            self.head_bytes[round_index, head_version],
            self.gradient_u[round_index],
            self.gradient_v[round_index],
        )

    def save(self, folder: Path) -> None:
        """Write ``table.safetensors``.

        Raises:
            StoreError: it cannot be written.
        """
        arrays: dict[str, np.ndarray] = {}
        plain: dict[str, Any] = {"schema": self.schema.to_json()}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                arrays[field.name] = np.ascontiguousarray(value)
            elif field.name != "schema":
                plain[field.name] = value
        write_tensors(folder / TABLE_FILE, _FORMAT, arrays, {"job": json.dumps(plain, sort_keys=True)})

    @classmethod
    def load(cls, folder: Path) -> JobTable:
        """Read what ``save`` wrote.

        Raises:
            StoreError: it is missing, changed, or no job table.
        """
        arrays, metadata = read_tensors(folder / TABLE_FILE, _FORMAT)
        try:
            values: dict[str, Any] = {**json.loads(metadata["job"]), **arrays}
            return cls(schema=Schema.from_json(values.pop("schema")), **values)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{folder / TABLE_FILE} is not a job table ({error}); record the job again") from error
