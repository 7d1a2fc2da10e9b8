"""Recording a job for stream mode: train it once, and measure what its versions are worth."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from airlora.codec import Allocation, Costs, EdgeState, encode
from airlora.codec.edge import flatten_head
from airlora.config import RunConfig
from airlora.env.stream_settings import StreamJob
from airlora.env.stream_table import MEASURED_BITS, TABLE_FILE, JobTable
from airlora.errors import TrainingError
from airlora.factors import Factors, Schema
from airlora.job import build_job, make_workload
from airlora.link import make_link
from airlora.play import Quality
from airlora.policy.rules import Fit
from airlora.trajectory import CloudRound, LiveCloud, RecordedCloud, record_round
from airlora.workload.data import load_data
from airlora.workload.models import load_model

MIXTURES = 60
"""Random mixtures of versions that are measured, for the surrogate's correction and its error."""
BASE_LR = 5e-4
"""Learning rate (AdamW) of a base model that is trained before its job."""
_RECORD_FILE = "record.json"
_BASE = "base"


def recorded_config(job: StreamJob, folder: Path) -> RunConfig:
    """The run's configuration of a job that is recorded in ``folder``, with the base model that it began from."""
    return replace(job.run_config(), model=str(folder / _BASE)) if job.base_steps else job.run_config()


def record_job(job: StreamJob, folder: Path, on_stage: Callable[[str], None] = lambda _: None) -> JobTable:
    """The tables of a job, from its folder, or trained and measured now.

    Raises:
        InputError: the job cannot be used. TrainingError: training diverged, or taught nothing.
        StoreError: the folder holds something unreadable.
    """
    described = json.dumps(asdict(job), sort_keys=True)
    if (folder / TABLE_FILE).exists() and (folder / _RECORD_FILE).read_text(encoding="utf-8") == described:
        return JobTable.load(folder)
    config = recorded_config(job, folder)
    if job.base_steps:
        on_stage(f"{job.name}: the base model, {job.base_steps} steps on {job.base_data}")
        _train_base(job, folder / _BASE)
    built = build_job(config, Fit(), make_link(config.link, config.seed))
    quality = Quality(built, config.validation_limit)
    cloud = LiveCloud(built.trainer, config.steps_per_round, quality.of)
    for index in range(config.rounds):
        on_stage(f"{config.data}, seed {config.seed}: round {index + 1} of {config.rounds}")
        record_round(folder, index, cloud.advance(index, built.initial_edge, lambda: None))
    recorded = RecordedCloud(folder, built.adapter.schema)
    rounds = [recorded.advance(index, built.initial_edge, lambda: None) for index in range(config.rounds)]
    on_stage(f"{config.data}, seed {config.seed}: measuring")
    table = _Measurement(config, rounds, built.initial_edge, quality).table()
    table.save(folder)
    (folder / _RECORD_FILE).write_text(described, encoding="utf-8")
    return table


def _train_base(job: StreamJob, folder: Path) -> None:
    """Train all weights of the base model as a language model, and write it as a Transformers folder."""
    torch.set_num_threads(1)
    loaded = load_model(job.model, num_labels=None, device="cpu")
    workload = make_workload(job.run_config(), loaded, load_data(job.base_data, task="lm"))
    model: Any = loaded.model
    optimizer = torch.optim.AdamW(model.parameters(), lr=BASE_LR)
    for step in range(job.base_steps):
        optimizer.zero_grad()
        workload.loss(workload.batch(step)).backward()
        optimizer.step()
    model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)


@dataclass
class _Measurement:
    config: RunConfig
    rounds: list[CloudRound]
    initial: EdgeState
    quality: Quality

    @property
    def schema(self) -> Schema:
        return self.initial.schema

    def table(self) -> JobTable:
        rounds, schema = self.rounds, self.schema
        higher = self.quality.job.workload.higher_is_better
        base, final = self.quality.of(self.initial.factors()), rounds[-1].quality
        if (final > base) != higher or final == base:
            raise TrainingError(
                f"{self.config.data}: quality is {base} before training and {final} after it; record more rounds or"
                " steps, so that there is something to send"
            )
        held = [
            self._edge(rounds[version - 1].factors) if version else self.initial for version in range(len(rounds) + 1)
        ]
        costs = [[Costs.measure(current.factors, edge, current.curvature) for edge in held] for current in rounds]
        received = [[self._received(current, bits) for bits in MEASURED_BITS] for current in rounds]

        def gain(value: float) -> float:
            return (value - base) / (final - base)

        ranks = (0, *schema.prefixes)
        gains = np.zeros((len(rounds) + 1, len(ranks), len(MEASURED_BITS)))
        for version, each in enumerate(received, 1):
            for column, factors in enumerate(each):
                for row, rank in enumerate(ranks):
                    if rank or schema.head:
                        gains[version, row, column] = gain(self.quality.of(factors.truncate([rank] * len(factors.u))))
        mixed = self._mixtures(received)
        return JobTable(
            schema=schema,
            name=f"{self.config.data}, seed {self.config.seed}",
            base_quality=base,
            final_quality=final,
            higher_is_better=higher,
            text=np.array([list(current.text.to_json().values()) for current in rounds]),
            cloud_gain=np.array([gain(current.quality) for current in rounds]),
            sensitivity=np.stack([current.sensitivity for current in rounds]),
            energy=np.stack([current.energy for current in rounds]),
            rms_u=np.stack([row[0].rms_u for row in costs]),
            rms_v=np.stack([row[0].rms_v for row in costs]),
            gradient_u=np.array([row[0].gradient_u for row in costs]),
            gradient_v=np.array([row[0].gradient_v for row in costs]),
            change_u=np.array([[cost.change_u for cost in row] for row in costs]),
            change_v=np.array([[cost.change_v for cost in row] for row in costs]),
            head_bytes=np.array([[cost.head for cost in row] for row in costs]),
            gain=gains,
            mixed_version=np.stack([m.version for m in mixed]),
            mixed_bits=np.stack([m.bits for m in mixed]),
            mixed_active=np.stack([m.active for m in mixed]),
            mixed_head=np.array([m.head for m in mixed]),
            mixed_gain=np.array([gain(self.quality.of(m.factors(received, self.initial))) for m in mixed]),
        )

    def _edge(self, factors: Factors) -> EdgeState:
        return replace(self.initial, u=factors.u, v=factors.v, head=flatten_head(self.schema, factors.head))

    def _received(self, current: CloudRound, bits: int) -> Factors:
        """What an edge holds that received all of a round at these bits."""
        count = len(self.schema.projections)
        widths = np.full(count, bits)
        allocation = Allocation(self.schema.r_max, widths, bits if self.schema.head else 0, float("inf"))
        edge = self.initial
        for layer in encode(current.factors, edge, allocation, 0, None, current.curvature).layers:
            edge = edge.apply(layer)
        return edge.factors()

    def _mixtures(self, received: list[list[Factors]]) -> list[_Mixture]:
        """States as partial deliveries leave them: blocks and projections of different rounds and bits."""
        rng = np.random.default_rng([self.config.seed, 23])
        schema = self.schema
        count, largest, prefixes = len(schema.projections), schema.prefixes[-1], schema.prefixes
        found = []
        for _ in range(MIXTURES):
            version = np.zeros((count, largest), np.int64)
            bits = np.full((count, largest), MEASURED_BITS.index(4))
            head = (0, MEASURED_BITS.index(4))
            newest = int(rng.integers(1, len(received) + 1))
            for sent in np.unique(np.append(rng.integers(1, newest + 1, 2), newest)).tolist():
                width = int(rng.choice(len(MEASURED_BITS), p=(0.1, 0.25, 0.5, 0.15)))
                whole = int(rng.integers(len(prefixes) + 1))  # classes that arrive whole; of the next one a part
                rank = np.full(count, prefixes[whole - 1] if whole else 0)
                if whole < len(prefixes) and rng.random() < 0.7:
                    part = rng.random(count) < rng.random()
                    rank = np.where(part, prefixes[whole], rank)
                # Without a gap: the first prefix must be there before the second can be.
                reached = np.arange(largest) < np.minimum(rank, schema.r_max)[:, None]
                version[reached], bits[reached] = sent, width
                if whole or rng.random() < 0.5:
                    head = (sent, width)
            stored = np.cumprod(version > 0, axis=1).sum(axis=1)
            cap = int(rng.choice(np.append(prefixes, [largest] * 4)))
            found.append(_Mixture(version, bits, np.minimum(stored, cap), head))
        return found


@dataclass(frozen=True, eq=False)
class _Mixture:
    version: np.ndarray
    bits: np.ndarray
    active: np.ndarray
    head: tuple[int, int]

    def factors(self, received: list[list[Factors]], initial: EdgeState) -> Factors:
        u, v = [], []
        for index, rank in enumerate(self.active.tolist()):
            sources = [
                received[s - 1][b] for s, b in zip(self.version[index, :rank], self.bits[index, :rank], strict=True)
            ]
            d_out, d_in = initial.u[index].shape[0], initial.v[index].shape[1]
            u.append(
                np.stack([f.u[index][:, k] for k, f in enumerate(sources)], 1)
                if rank
                else np.zeros((d_out, 0), np.float32)
            )
            v.append(
                np.stack([f.v[index][k] for k, f in enumerate(sources)]) if rank else np.zeros((0, d_in), np.float32)
            )
        version, width = self.head
        head = received[version - 1][width].head if version else initial.factors().head
        return Factors(initial.schema, tuple(u), tuple(v), head)
