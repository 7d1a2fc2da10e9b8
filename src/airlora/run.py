"""The main job: a cloud adapts a model round by round, a link carries what it can, the edge gets better."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from airlora.adapter import export_peft
from airlora.checkpoint import read_checkpoint, write_checkpoint
from airlora.codec import Allocation, EdgeState, Update, encode, project
from airlora.config import RunConfig, load_config
from airlora.errors import OutputError, StoreError, TrainingError
from airlora.factors import Factors, Schema
from airlora.job import Job, build_job
from airlora.link import Delivery, Link, make_link
from airlora.policy import Observation, Policy, make_policy
from airlora.trajectory import Cloud, CloudRound, LiveCloud

REWARD_AIRTIME_WEIGHT = 0.1
REFERENCE_RANK = 8
_CHECKPOINT = "checkpoint.safetensors"


class Listener:
    """Who watches a run; override what is of interest."""

    def on_stage(self, stage: str) -> None:
        """Something that takes a while begins."""

    def on_start(self, job: Job, done: int) -> None:
        """Training begins, with ``done`` rounds done in an earlier sitting."""

    def on_step(self) -> None:
        """A training step was taken."""

    def on_round(self, row: dict[str, Any]) -> None:
        """A round was finished and saved."""


@dataclass
class Quality:
    """Measures factors on the validation split; an edge state that was seen before is not measured again."""

    job: Job
    limit: int
    _known: dict[tuple[str, str], float] = field(default_factory=dict)

    def of(self, factors: Factors, split: str = "validation") -> float:
        """Quality of these factors: on the validation split's fixed sample, or on a whole other split.

        Raises:
            TrainingError: it is not finite.
        """
        with self.job.adapter.serving(factors):
            value = self.job.workload.evaluate(split, self.limit if split == "validation" else None)
        if not np.isfinite(value):
            raise TrainingError(
                f"{self.job.workload.metric} on the {split} split is {value}: training diverged, or the base model is"
                " broken; start again in a new folder with a lower --lr (rounds finished before are kept)"
            )
        return value

    def of_edge(self, edge: EdgeState, split: str = "validation") -> float:
        """Quality of the edge's model."""
        key = (edge.id, split)
        if key not in self._known:
            self._known[key] = self.of(edge.factors(), split)
        return self._known[key]


def stored_config(out: Path) -> RunConfig:
    """The configuration of the run in a folder, to resume it with.

    Raises:
        OutputError: the folder holds no run that can be resumed.
    """
    _check_folder(out, resume=True)
    return load_config({}, out / "config.toml")


def finished_rounds(out: Path) -> int | None:
    """Rounds from which the run in a folder can be resumed; None if there is no run in it."""
    if not (out / "config.toml").is_file():
        return None
    path = out / _CHECKPOINT
    return int(read_checkpoint(path)[1]["round"]) if path.is_file() else 0


def run(config: RunConfig, out: Path, *, resume: bool = False, listener: Listener | None = None) -> dict[str, Any]:
    """Run a job to its end and return its summary.

    Writes into ``out`` the files of the command contract; whenever it is stopped the folder can be resumed.

    Raises:
        InputError: something the user gave cannot be used; nothing was written.
        StoreError: the folder cannot be resumed.
        TrainingError: training diverged; everything up to the last finished round is kept.
        KeyboardInterrupt: passed on; everything up to the last finished round is kept.
    """
    listener = listener or Listener()
    started = time.perf_counter()
    _check_folder(out, resume)
    policy = make_policy(config.policy, config.seed)
    link = make_link(config.link, config.seed)
    job = build_job(config, policy, link)
    quality = Quality(job, config.validation_limit)
    cloud = LiveCloud(job.trainer, config.steps_per_round, quality.of)
    play = Play(config, job, link, policy, cloud, quality)
    folder = RunFolder(out)
    folder.prepare(config, job)
    if folder.has_checkpoint:
        folder.load(play, cloud)
    else:
        listener.on_stage("measuring the base model")
        play.base_quality = quality.of_edge(play.edge)
        folder.save(play, cloud)
    listener.on_start(job, play.round)
    for _ in range(play.round, config.rounds):
        row, update = play.next_round(listener.on_step)
        folder.add_round(row, update)
        folder.save(play, cloud)
        listener.on_round(row)
    listener.on_stage("measuring on the test split")
    summary = summarise(play, folder.rows(), wall_s=play.wall_s + time.perf_counter() - started)
    folder.finish(summary, play)
    return summary


@dataclass
class Play:
    """One job over one link under one policy: the rounds, and what carries over between them.

    Attributes:
        round: the next round. edge: what the edge holds. contact_s: when a layer last arrived.
        base_quality: of the untouched model on the validation split.
        wall_s: computing time of earlier sittings.
    """

    config: RunConfig
    job: Job
    link: Link
    policy: Policy
    cloud: Cloud
    quality: Quality
    round: int = 0
    edge: EdgeState = field(init=False)
    contact_s: float = float("-inf")
    base_quality: float = float("nan")
    wall_s: float = 0.0

    def __post_init__(self) -> None:
        self.edge = self.job.initial_edge

    def next_round(self, on_step: Callable[[], None]) -> tuple[dict[str, Any], Update]:
        """Observe, train, decide, encode, transmit, apply, measure; returns the round's row and its update."""
        clock = _PhaseClock()
        t_s = self.round * self.config.period_s
        state = self.link.observe(t_s)
        cloud_round = self.cloud.advance(self.round, on_step)
        clock.lap("train_s")
        observation = Observation(
            round=self.round,
            rounds=self.config.rounds,
            link=state,
            deadline_s=self.config.deadline_s,
            text=cloud_round.text,
            schema=self.job.adapter.schema,
            trained_ranks=cloud_round.trained_ranks,
            sensitivity=cloud_round.sensitivity,
            energy=cloud_round.energy,
            held_ranks=self.edge.active_ranks,
            since_contact_s=t_s - self.contact_s,
        )
        allocation = project(self.policy.decide(observation), observation.schema, float("inf"))
        clock.lap("decision_s")
        update = encode(cloud_round.factors, self.edge, allocation, self.round)
        clock.lap("encode_s")
        delivery = self.link.transmit(update.layer_bytes, t_s, self.config.deadline_s)
        for layer in update.layers[: delivery.layers_delivered]:
            self.edge = self.edge.apply(layer)
        if delivery.layers_delivered:
            self.contact_s = t_s + delivery.airtime_s
        clock.lap("apply_s")
        edge_quality = self.quality.of_edge(self.edge)
        clock.lap("evaluate_s")
        row = self._row(observation, cloud_round, allocation, update, delivery, edge_quality, clock.laps)
        self.round += 1
        return row, update

    def _row(
        self,
        observation: Observation,
        cloud_round: CloudRound,
        allocation: Allocation,
        update: Update,
        delivery: Delivery,
        edge_quality: float,
        wall: dict[str, float],
    ) -> dict[str, Any]:
        names = [projection.name for projection in observation.schema.projections]
        t_s, deadline_s = observation.link.t_s, observation.deadline_s
        reference = self.link.transmit([observation.schema.plain_lora_bytes(REFERENCE_RANK)], t_s, deadline_s)
        gain = edge_quality - self.base_quality
        if not self.job.workload.higher_is_better:
            gain = -gain
        return {
            "round": self.round,
            "t_s": t_s,
            "link": {
                "snr_db": _number(observation.link.snr_db),
                "bandwidth_hz": _number(observation.link.bandwidth_hz),
                "rate_bps": _number(observation.link.rate_bps),
            },
            "text": {name: _number(value) for name, value in cloud_round.text.to_json().items()},
            "ranks": dict(zip(names, allocation.ranks.tolist(), strict=True)),
            "bits": dict(zip(names, allocation.bits.tolist(), strict=True)),
            "head_bits": allocation.head_bits,
            "budget_bytes": _number(allocation.budget_bytes),
            "bytes_offered": update.size_bytes,
            "bytes_delivered": delivery.bytes_delivered,
            "bytes_on_air": delivery.bytes_on_air,
            "layers_offered": len(update.layers),
            "layers_delivered": delivery.layers_delivered,
            "missed": delivery.missed,
            "airtime_s": delivery.airtime_s,
            "edge_ranks": dict(zip(names, self.edge.active_ranks.tolist(), strict=True)),
            "edge_quality": edge_quality,
            "cloud_quality": cloud_round.quality,
            "reward": gain - REWARD_AIRTIME_WEIGHT * delivery.airtime_s / deadline_s,
            "reference": {
                "bytes": reference.bytes_on_air,
                "airtime_s": reference.airtime_s,
                "delivered": not reference.missed,
            },
            "wall": wall,
        }


def summarise(play: Play, rows: list[dict[str, Any]], wall_s: float) -> dict[str, Any]:
    """The run in a few figures; the only place where the test split is touched."""
    workload, quality = play.job.workload, play.quality
    base = play.job.initial_edge.factors()
    cloud = play.job.trainer.factors().truncate(play.job.trainer.strategy.trained_ranks(play.job.adapter))
    head_only = train_head_only(play.job, play.config) if workload.head else None
    return {
        "metric": workload.metric,
        "higher_is_better": workload.higher_is_better,
        "base_quality": quality.of(base, "test"),
        "head_only_quality": quality.of(head_only, "test") if head_only else None,
        "cloud_quality": quality.of(cloud, "test"),
        "edge_quality": quality.of(play.edge.factors(), "test"),
        "validation": {
            "base_quality": play.base_quality,
            "cloud_quality": rows[-1]["cloud_quality"],
            "edge_quality": rows[-1]["edge_quality"],
        },
        "bytes_on_air": sum(row["bytes_on_air"] for row in rows),
        "rounds": len(rows),
        "missed": sum(row["missed"] for row in rows),
        "delivered": play.edge.delivered,
        "reference": {
            "bytes_on_air": sum(row["reference"]["bytes"] for row in rows),
            "missed": sum(not row["reference"]["delivered"] for row in rows),
            "rounds": len(rows),
        },
        "lr": play.job.lr,
        "wall_s": round(wall_s, 3),
        "seed": play.config.seed,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("airlora", "numpy", "torch", "transformers", "safetensors")},
        },
    }


def train_head_only(job: Job, config: RunConfig) -> Factors:
    """The same steps on the same batches with the adapter at rank 0: what the head alone can do."""
    workload = job.workload
    base = job.initial_edge.factors()
    with job.adapter.serving(base):
        optimizer = torch.optim.Adam(workload.head.values(), lr=job.lr)
        for step in range(config.rounds * config.steps_per_round):
            optimizer.zero_grad()
            workload.loss(workload.batch(step)).backward()
            optimizer.step()
        return Factors(base.schema, base.u, base.v, job.adapter.head_values())


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path):
        self.path = path
        self._rounds = path / "rounds.jsonl"
        self._checkpoint = path / _CHECKPOINT

    @property
    def has_checkpoint(self) -> bool:
        """Whether the run got as far as its first round."""
        return self._checkpoint.is_file()

    def prepare(self, config: RunConfig, job: Job) -> None:
        """Make the folder and write what is known before the first round; the configuration is written last."""
        if self.has_checkpoint:
            return
        try:
            (self.path / "updates").mkdir(parents=True, exist_ok=True)
            (self.path / "schema.json").write_text(json.dumps(job.adapter.schema.to_json()), encoding="utf-8")
            self._rounds.write_text("", encoding="utf-8")
            _replace(self.path / "config.toml", config.to_toml())
        except OSError as error:
            raise OutputError(f"output folder {str(self.path)!r} is not writable: {error}") from error

    def rows(self) -> list[dict[str, Any]]:
        """All rounds so far."""
        return [json.loads(line) for line in self._rounds.read_text(encoding="utf-8").splitlines()]

    def add_round(self, row: dict[str, Any], update: Update) -> None:
        """Append a round's row and keep its update."""
        update.save(self.path / "updates" / f"round-{row['round']:04d}.safetensors")
        with self._rounds.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def save(self, play: Play, cloud: LiveCloud) -> None:
        """Write the checkpoint from which the next round follows."""
        tensors, data = cloud.state()
        edge_tensors, edge_data = play.edge.to_tensors()
        tensors = {f"cloud/{name}": tensor for name, tensor in tensors.items()}
        tensors |= {f"edge/{name}": torch.tensor(array) for name, array in edge_tensors.items()}
        data = {
            "cloud": data,
            "edge": edge_data,
            "round": play.round,
            "contact_s": _number(play.contact_s),
            "base_quality": play.base_quality,
        }
        write_checkpoint(self._checkpoint, tensors, data)

    def load(self, play: Play, cloud: LiveCloud) -> None:
        """Go back to the last checkpoint; rows written after it are dropped.

        Raises:
            StoreError: checkpoint and rows do not fit each other or the job.
        """
        tensors, data = read_checkpoint(self._checkpoint)
        edge = json.loads(data["edge"]["schema"])
        if Schema.from_json(edge).id != play.edge.schema.id:
            raise StoreError(
                f"checkpoint {self._checkpoint} is of another model or adapter than config.toml builds now;"
                " restore the model, or start a new run in another folder"
            )
        cloud.load_state(_part(tensors, "cloud/"), data["cloud"])
        arrays = {name: tensor.numpy() for name, tensor in _part(tensors, "edge/").items()}
        play.edge = EdgeState.from_tensors(arrays, data["edge"])
        play.round = data["round"]
        play.contact_s = float("-inf") if data["contact_s"] is None else data["contact_s"]
        play.base_quality = data["base_quality"]
        try:
            lines = self._rounds.read_bytes().splitlines()[: play.round]
            rows = [json.loads(line) for line in lines]
            if [row["round"] for row in rows] != list(range(play.round)):
                raise ValueError(f"it holds {len(rows)} of the checkpoint's {play.round} rounds")
            play.wall_s = sum(sum(row["wall"].values()) for row in rows)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self._rounds} cannot be used ({error}); start a new run in another folder") from error
        _replace(self._rounds, "".join(line.decode() + "\n" for line in lines))

    def finish(self, summary: dict[str, Any], play: Play) -> None:
        """Write the summary, the adapter as the edge holds it, and the report."""
        from airlora.report import write_report

        export_peft(
            play.edge.factors(),
            self.path / "adapter",
            task_type=play.job.workload.task_type,
            modules_to_save=play.job.workload.modules_to_save,
            fan_in_fan_out=play.job.transposed,
            base_model=play.config.model,
        )
        (self.path / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        write_report(self.path)


class _PhaseClock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 6)
        self._last = now


def _check_folder(out: Path, resume: bool) -> None:
    try:
        if resume:
            if not (out / "config.toml").is_file():
                raise OutputError(f"{str(out)!r} holds no run to resume; leave out --resume to start one there")
        elif out.exists() and not out.is_dir():
            raise OutputError(f"output folder {str(out)!r} is a file; name a folder that is new or empty")
        elif out.exists() and any(out.iterdir()):
            raise OutputError(
                f"output folder {str(out)!r} is not empty; name another, or add --resume to continue the run in it"
            )
    except OSError as error:
        raise OutputError(f"output folder {str(out)!r} cannot be read: {error}") from error


def _replace(path: Path, text: str) -> None:
    """Write a file so that it is either the old one or the new one, whole."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _number(value: float) -> float | None:
    """JSON has no NaN and no infinity: null."""
    return float(value) if np.isfinite(value) else None
