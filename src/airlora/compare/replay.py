"""Running one arm from recordings: a policy through our codec, or a peer's file sent whole."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import nan
from pathlib import Path
from typing import Any

from filelock import FileLock

from airlora.codec import EdgeState
from airlora.compare.peer_training import load_round, record_peer, test_quality
from airlora.compare.plan import Arm, Unit, rated, slug
from airlora.config import RunConfig
from airlora.errors import InputError
from airlora.factors import Schema
from airlora.job import build_job, resolve_policy
from airlora.link import Link, make_link
from airlora.play import Play, Quality, finite_or_none, train_head_only
from airlora.policy import Policy, make_policy
from airlora.trajectory import Cloud, CloudRound, LiveCloud, OnStep, RecordedCloud, record_round


@dataclass
class Bench:
    """What the arms of one unit share.

    Args:
        unit: the arms.
        out: the comparison's folder.
        provenance: commit and versions, for the summaries.
    """

    unit: Unit
    out: Path
    provenance: dict[str, Any]
    _measuring: dict[str, Quality] = field(default_factory=dict)

    def run_arm(self, arm: Arm) -> None:
        """Run one arm and write its files, ``summary.json`` last.

        Raises:
            AirLoraError: a policy, a link or a recording cannot be used, or training diverged.
        """
        started = time.perf_counter()
        folder = self.out / arm.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.toml").write_text(arm.config.to_toml(), encoding="utf-8")
        replay = _PolicyReplay(self, arm) if arm.peer is None else _PeerReplay(self, arm)
        last: dict[str, Any] = {}
        with (folder / "rounds.jsonl").open("w", encoding="utf-8") as file:
            for last in replay.rounds():
                last["capacity_bytes"] = capacity_bytes(replay.link, last["t_s"], arm.config.deadline_s)
                file.write(json.dumps(last, allow_nan=False) + "\n")
        references = self.references
        summary = {
            "job": arm.job,
            "link": arm.link,
            "arm": arm.name,
            "arm_kind": arm.kind,
            "seed": arm.config.seed,
            **{key: value for key, value in references.items() if key != "validation_base_quality"},
            **replay.totals(),
            "edge_quality": replay.edge_test_quality(),
            "validation": {
                "base_quality": references["validation_base_quality"],
                "cloud_quality": last["cloud_quality"],
                "edge_quality": last["edge_quality"],
            },
            "rounds": arm.config.rounds,
            "deadline_s": arm.config.deadline_s,
            "wall_s": round(time.perf_counter() - started, 3),
            **self.provenance,
        }
        write_json(folder / "summary.json", summary)
        (folder / "error.json").unlink(missing_ok=True)

    @property
    def config(self) -> RunConfig:
        """Of the unit's job; its link and policy are the first arm's."""
        return replace(self.unit.arms[0].config, policy="fit")

    @property
    def recordings(self) -> Path:
        """Where trajectories are kept."""
        return self.out / self.unit.recordings

    def measuring(self, policy: Policy) -> Quality:
        """Measures edges of a policy's training; its job is never trained.

        What is trained decides where the edge starts, so there is one job for each.

        Args:
            policy: its rank resolved.
        """
        key = policy.tuning_key
        if key not in self._measuring:
            config = rated(self.config, self.unit.rates, policy)
            job = build_job(config, policy, make_link(config.link, self.unit.seed))
            self._measuring[key] = Quality(
                job, self.config.validation_limit, self.config.test_limit, self.config.guard_limit
            )
        return self._measuring[key]

    @cached_property
    def schema(self) -> Schema:
        """Of the job at its largest rank, for policies that choose theirs by it."""
        return self.measuring(make_policy("fit", self.unit.seed)).job.adapter.schema

    @cached_property
    def references(self) -> dict[str, Any]:
        """What every arm of this job and seed is compared with, measured once."""
        path = self.recordings / "references.json"
        if not path.exists():
            quality = self.measuring(make_policy("fit", self.unit.seed))
            job = quality.job
            head_only = train_head_only(job, self.config) if job.workload.head else None
            references = {
                "metric": job.workload.metric,
                "higher_is_better": job.workload.higher_is_better,
                "base_quality": quality.of_edge(job.initial_edge, "test"),
                "head_only_quality": None if head_only is None else quality.of(head_only, "test"),
                "validation_base_quality": quality.of_edge(job.initial_edge),
                "plain_lora_bytes": job.adapter.schema.plain_lora_bytes(),
            }
            write_json(path, references)
        return dict(json.loads(path.read_text(encoding="utf-8")))


class _PolicyReplay:
    """An arm of ours: a recorded cloud under a policy, a link and the codec."""

    def __init__(self, bench: Bench, arm: Arm):
        config = arm.config
        self._config = config
        self.link = make_link(config.link, config.seed)
        policy = make_policy(config.policy, config.seed)
        policy = resolve_policy(policy, self.link, bench.schema, config)
        config = rated(config, bench.unit.rates, policy)
        self._quality = bench.measuring(policy)
        job = self._quality.job
        schema = job.adapter.schema
        self._training = _Training(config, policy, self.link) if policy.live and config.rounds > 1 else None
        cloud: Cloud | None = self._training
        if cloud is None:
            recording = _record_policy(bench, config, policy, self.link)
            self._trained = json.loads((recording / "complete.json").read_text(encoding="utf-8"))
            cloud = RecordedCloud(recording, schema)
        self._play = Play(config, job, self.link, policy, cloud, self._quality)
        self._play.base_quality = self._quality.of_edge(self._play.edge)

    def rounds(self) -> Iterator[dict[str, Any]]:
        """Every round's row."""
        for index in range(self._config.rounds):
            row, _ = self._play.next_round(lambda: None)
            row["wall"]["train_s"] = (self._training.train_s if self._training else self._trained["train_s"])[index]
            yield row

    def edge_test_quality(self) -> float:
        """Of what the edge holds now."""
        return self._quality.of_edge(self._play.edge, "test")

    def totals(self) -> dict[str, Any]:
        """Figures of the training."""
        trained = self._training.totals(self._quality) if self._training else self._trained
        kept = {key: value for key, value in trained.items() if key != "train_s"}
        return {**kept, "file_bytes": None}


class _PeerReplay:
    """A peer: its newest file is offered whole each round, and counts only when all of it arrives in time."""

    def __init__(self, bench: Bench, arm: Arm):
        assert arm.peer is not None
        self._peer = arm.peer
        self._config = arm.config
        self._half = arm.peer.file != "fp32"
        self._references = bench.references
        self._folder = bench.recordings / slug(bench.unit.training)
        self._held: int | None = None
        self._edge_quality: float = self._references["validation_base_quality"]
        self.link = make_link(arm.config.link, arm.config.seed)
        record_peer(arm.peer, arm.config, self._folder)
        self._trained = json.loads((self._folder / "complete.json").read_text(encoding="utf-8"))

    def rounds(self) -> Iterator[dict[str, Any]]:
        """Every round's row."""
        config = self._config
        for index in range(config.rounds):
            t_s = index * config.period_s
            state = self.link.observe(t_s)
            recorded = load_round(self._folder, index)
            size = recorded.file_bytes[self._peer.file]
            delivery = self.link.transmit([size], t_s, config.deadline_s)
            if delivery.layers_delivered:
                self._held = index
                self._edge_quality = recorded.quality["fp16" if self._half else "fp32"]
            yield {
                "round": index,
                "t_s": t_s,
                "link": {
                    "snr_db": finite_or_none(state.snr_db),
                    "bandwidth_hz": finite_or_none(state.bandwidth_hz),
                    "rate_bps": finite_or_none(state.rate_bps),
                },
                "bytes_offered": size,
                "bytes_delivered": delivery.bytes_delivered,
                "bytes_on_air": delivery.bytes_on_air,
                "layers_offered": 1,
                "layers_delivered": delivery.layers_delivered,
                "missed": delivery.missed,
                "airtime_s": delivery.airtime_s,
                "edge_quality": self._edge_quality,
                "cloud_quality": recorded.quality["fp32"],
                "ranks": {},
                "bits": {},
                "wall": {"train_s": recorded.train_s, "decision_s": 0.0},
            }

    def edge_test_quality(self) -> float:
        """Of the file that arrived last, or of the base model."""
        if self._held is None:
            return float(self._references["base_quality"])
        return test_quality(self._folder, self._held, self._config.rounds, self._half, self._config)

    def totals(self) -> dict[str, Any]:
        """Figures of the training, and the size of the last round's file."""
        kept = {key: value for key, value in self._trained.items() if key != "cloud_quality_fp16"}
        last = load_round(self._folder, self._config.rounds - 1)
        return {**kept, "file_bytes": last.file_bytes[self._peer.file]}


def _record_policy(bench: Bench, config: RunConfig, policy: Policy, link: Link) -> Path:
    """The folder of the trajectory that this policy needs, made if it is not there; of processes that need the same
    one, the first makes it."""
    folder = bench.recordings / policy.training_key
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "complete.json").exists():
            training = _Training(config, policy, link)
            for index in range(config.rounds):
                record_round(folder, index, training.advance(index, training.job.initial_edge, lambda: None))
            write_json(folder / "complete.json", training.totals(bench.measuring(policy)))
    done, job = json.loads((folder / "complete.json").read_text(encoding="utf-8")), bench.measuring(policy).job
    for name, value in (("lr", job.lr), ("head_lr", job.head_lr)):
        if done.get(name, value) != value:
            raise InputError(
                f"recording {folder} was trained with {name} {done[name]:g}, this comparison has {value:g}; give"
                " another --out, or the rates that it was made with"
            )
    return folder


class _Training(Cloud):
    """A cloud that trains, and what a summary says of it.

    Its job is its own: training changes the parameters, and AdaLoRA another form of them.
    """

    def __init__(self, config: RunConfig, policy: Policy, link: Link):
        self.job = build_job(config, policy, link)
        self.train_s: list[float] = []
        self._steps = config.rounds * config.steps_per_round
        quality = Quality(self.job, config.validation_limit)
        self._cloud = LiveCloud(self.job.trainer, config.steps_per_round, quality.of)
        self._clock = _TrainingClock(self.job.trainer)
        self._last: CloudRound | None = None

    def advance(self, round_index: int, held: EdgeState, on_step: OnStep, expected_bytes: float = nan) -> CloudRound:
        """Train a round."""
        before = self._clock.total_s
        self._last = self._cloud.advance(round_index, held, on_step, expected_bytes)
        self.train_s.append(round(self._clock.total_s - before, 3))
        return self._last

    def totals(self, quality: Quality) -> dict[str, Any]:
        """Figures of the whole training, ``cloud_quality`` on the test split."""
        assert self._last is not None
        return {
            "cloud_quality": quality.of(self._last.factors.truncate(self._last.trained_ranks), "test"),
            "lr": self.job.lr,
            "head_lr": self.job.head_lr,
            "steps_trained": self._steps,
            "training_s": round(self._clock.total_s, 3),
            "train_s": self.train_s,
        }


class _TrainingClock:
    """Counts the seconds that a trainer trains, without those of measuring quality."""

    def __init__(self, trainer: Any):
        self.total_s = 0.0
        train = trainer.train

        def timed(*args: Any) -> None:
            started = time.perf_counter()
            train(*args)
            self.total_s += time.perf_counter() - started

        trainer.train = timed


def capacity_bytes(link: Link, t_s: float, deadline_s: float) -> int:
    """Bytes that the link would have carried from ``t_s`` to the deadline, whatever was offered."""
    return link.transmit([2**62], t_s, deadline_s).bytes_on_air


def write_json(path: Path, data: Any) -> None:
    """Write a file that is either whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
