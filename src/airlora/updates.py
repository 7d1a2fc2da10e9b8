"""The updates that a run keeps, and the edge states that they build on. No torch."""

from __future__ import annotations

import json
from pathlib import Path

from airlora.codec import EdgeState, Update
from airlora.codec.files import read_tensors, write_tensors
from airlora.errors import CompatibilityError, InputError
from airlora.factors import Schema

_SCHEMA_FILE, _HEAD_FILE, _HEAD_KIND = "schema.json", "base_head.safetensors", "airlora-head-1"


def write_initial_state(folder: Path, initial: EdgeState) -> None:
    """Keep in a run's folder what its updates build on: the schema, and the head of the base model.

    Raises:
        OSError: the schema cannot be written.
        StoreError: the head cannot be written.
    """
    (folder / _SCHEMA_FILE).write_text(json.dumps(initial.schema.to_json()), encoding="utf-8")
    write_tensors(folder / _HEAD_FILE, _HEAD_KIND, initial.factors().head, {})


def update_path(folder: Path, round_index: int) -> Path:
    """Where a run's folder keeps the update of a round."""
    return folder / "updates" / f"round-{round_index:04d}.safetensors"


def parent_state(path: Path, update: Update) -> EdgeState:
    """The edge state that an update builds on, from the earlier updates of its run.

    Args:
        path: of the update, ``RUN/updates/round-NNNN.safetensors``.
        update: what it holds.

    Raises:
        InputError: the folder is not that of a run, or the rounds before do not lead there.
        StoreError: an earlier update was changed after it was written.
    """
    folder = path.resolve().parent.parent
    state = _initial_state(folder)
    try:
        rows = [json.loads(line) for line in (folder / "rounds.jsonl").read_text(encoding="utf-8").splitlines()]
        delivered = {int(row["round"]): int(row["layers_delivered"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / 'rounds.jsonl'} cannot be used ({error}); inspect updates in their run") from error
    for index, layers in sorted(delivered.items()):
        if state.id == update.parent:
            break
        earlier = Update.load(update_path(folder, index))
        for layer in earlier.layers[:layers]:
            state = _applied(state, layer, path)
    if state.id != update.parent:
        raise InputError(
            f"{path} builds on state {update.parent[:16]}, the rounds before it lead to {state.id[:16]};"
            " inspect updates in the folder of their run"
        )
    return state


def _initial_state(folder: Path) -> EdgeState:
    path = folder / _SCHEMA_FILE
    try:
        schema = Schema.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a run's schema ({error}); the update must lie in updates/ of its run"
        ) from error
    return EdgeState.initial(schema, read_tensors(folder / _HEAD_FILE, _HEAD_KIND)[0])


def _applied(state: EdgeState, layer: bytes, path: Path) -> EdgeState:
    try:
        return state.apply(layer)
    except CompatibilityError as error:
        raise InputError(f"the rounds before {path} do not follow each other ({error})") from error
