"""One file that a run can be resumed from, replaced as a whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from airlora.errors import StoreError

_VERSION = 1
_KEY = "airlora-checkpoint"


def write_checkpoint(path: Path, tensors: dict[str, torch.Tensor], data: dict[str, Any]) -> None:
    """Write tensors and plain data so that the file is either the old one or the new one, whole.

    Raises:
        StoreError: it cannot be written.
    """
    temporary = path.with_suffix(".tmp")
    # One key: safetensors writes several in no fixed order.
    metadata = {_KEY: json.dumps({"version": _VERSION, **data}, sort_keys=True)}
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata=metadata)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise StoreError(f"cannot write {path} ({error}); free space there, then go on with --resume") from error


def read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what ``write_checkpoint`` wrote.

    Raises:
        StoreError: the file is missing, corrupt or of another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            data = json.loads((file.metadata() or {})[_KEY])
            if data["version"] != _VERSION:
                raise StoreError(
                    f"{path} is of version {data['version']!r}, this program reads {_VERSION};"
                    " start a new run in another folder"
                )
            return {name: file.get_tensor(name) for name in file.keys()}, data  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise StoreError(f"checkpoint {path} cannot be read ({error}); start a new run in another folder") from error
