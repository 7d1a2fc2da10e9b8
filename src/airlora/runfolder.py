"""The files of one run, and how it goes on after it was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from airlora.adapter import export_peft
from airlora.checkpoint import read_checkpoint, write_checkpoint
from airlora.codec import EdgeState, Update
from airlora.config import RunConfig, load_config
from airlora.errors import OutputError, StoreError
from airlora.factors import Schema
from airlora.job import Job
from airlora.link import PastRate
from airlora.play import Play, finite_or_none
from airlora.trajectory import LiveCloud
from airlora.updates import update_path, write_initial_state

_CHECKPOINT = "checkpoint.safetensors"


def check_folder(out: Path, resume: bool) -> None:
    """Refuse a folder that a run cannot start in, or be resumed from.

    Raises:
        OutputError: it is a file, not empty, not readable, or holds no run to resume.
    """
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


def stored_config(out: Path) -> RunConfig:
    """The configuration of the run in a folder, to resume it with.

    Raises:
        OutputError: the folder holds no run that can be resumed.
    """
    check_folder(out, resume=True)
    return load_config({}, out / "config.toml")


def finished_rounds(out: Path) -> int | None:
    """Rounds from which the run in a folder can be resumed; None if there is no run in it."""
    if not (out / "config.toml").is_file():
        return None
    path = out / _CHECKPOINT
    return int(read_checkpoint(path)[1]["round"]) if path.is_file() else 0


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
            write_initial_state(self.path, job.initial_edge)
            self._rounds.write_text("", encoding="utf-8")
            _replace(self.path / "config.toml", config.to_toml())
        except OSError as error:
            raise OutputError(f"output folder {str(self.path)!r} is not writable: {error}") from error

    def rows(self) -> list[dict[str, Any]]:
        """All rounds so far."""
        return [json.loads(line) for line in self._rounds.read_text(encoding="utf-8").splitlines()]

    def add_round(self, row: dict[str, Any], update: Update) -> None:
        """Append a round's row and keep its update."""
        update.save(update_path(self.path, row["round"]))
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
            "contact_s": finite_or_none(play.contact_s),
            "past_rates": [[finite_or_none(rate.estimated_bps), rate.carried_bps] for rate in play.past_rates],
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
        play.past_rates = tuple(
            PastRate(float("nan") if estimated is None else estimated, carried)
            for estimated, carried in data.get("past_rates", [])  # a run of 0.1.0 kept none
        )
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
        """Write the summary and the adapter as the edge holds it."""
        export_peft(
            play.edge.factors(),
            self.path / "adapter",
            task_type=play.job.workload.task_type,
            modules_to_save=play.job.workload.modules_to_save,
            fan_in_fan_out=play.job.transposed,
            base_model=play.config.model,
        )
        (self.path / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def _replace(path: Path, text: str) -> None:
    """Write a file so that it is either the old one or the new one, whole."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
