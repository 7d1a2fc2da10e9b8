"""The folder of a policy's training: its configuration, its metrics, and whether training may begin or go on in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airlora.errors import OutputError, StoreError

_CONFIG_FILE = "config.toml"
_METRICS_FILE = "metrics.jsonl"
_PLAYS_FILE = "teachers.jsonl"
_CHECKPOINT_FILE = "training.safetensors"


class TrainingFolder:
    """``config.toml``, ``metrics.jsonl``, in stream mode ``teachers.jsonl``, and the checkpoint of one training.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path):
        self.path = path
        self.checkpoint = path / _CHECKPOINT_FILE
        self._metrics = path / _METRICS_FILE
        self._plays = path / _PLAYS_FILE

    def check(self, resume: bool) -> None:
        """Refuse a folder that a new training cannot begin in.

        Raises:
            OutputError: it is a file, or not empty.
        """
        if not resume and self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise OutputError(
                f"output folder {str(self.path)!r} is not empty; name another, or add --resume to continue in it"
            )

    def prepare(self, config_toml: str) -> None:
        """Make the folder and write the configuration.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / _CONFIG_FILE).write_text(config_toml, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"output folder {str(self.path)!r} is not writable: {error}") from error

    def stored_config(self) -> Path:
        """The configuration's file.

        Raises:
            OutputError: there is none.
        """
        if not (self.path / _CONFIG_FILE).is_file():
            raise OutputError(
                f"{str(self.path)!r} holds no policy training; name a folder that `airlora policy train` wrote"
            )
        return self.path / _CONFIG_FILE

    def append_metrics(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows to ``metrics.jsonl``.

        Raises:
            StoreError: it cannot be written.
        """
        _append(self._metrics, rows)

    def append_plays(self, row: dict[str, Any]) -> None:
        """Add a row to ``teachers.jsonl``.

        Raises:
            StoreError: it cannot be written.
        """
        _append(self._plays, [row])

    def plays(self) -> list[dict[str, Any]]:
        """The rows of ``teachers.jsonl``; one that was cut off by a stop is dropped from it.

        Raises:
            StoreError: it cannot be read.
        """
        if not self._plays.exists():
            return []
        try:
            text = self._plays.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]
            if whole != text:
                self._plays.write_text(whole, encoding="utf-8")
            return [json.loads(line) for line in whole.splitlines()]
        except (OSError, ValueError) as error:
            raise StoreError(f"{self._plays} cannot be used ({error}); train in another folder") from error

    def keep_metrics(self, count: int) -> None:
        """Drop all rows of ``metrics.jsonl`` after the first ``count``; 0 begins it anew.

        Raises:
            StoreError: it holds fewer.
            OSError: it cannot be read or written.
        """
        lines = self._metrics.read_text(encoding="utf-8").splitlines()[:count] if count else []
        if len(lines) < count:
            raise StoreError(f"{_METRICS_FILE} has {len(lines)} rows, the checkpoint {count}")
        self._metrics.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}; free space there") from error
