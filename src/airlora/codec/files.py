"""Safetensors files with a digest, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from airlora.errors import StoreError

_DIGEST = "sha256"
_FORMAT = "format"
_KEY = "airlora"
"""All metadata is JSON under one key: safetensors writes several keys in no fixed order."""


def write_tensors(path: Path, kind: str, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write one safetensors file; ``kind`` and a digest of everything in it join the metadata.

    Raises:
        StoreError: the file cannot be written.
    """
    tensors = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}  # it writes memory order
    complete = {**metadata, _FORMAT: kind}
    complete[_DIGEST] = _digest(tensors, complete)
    temporary = path.with_name(path.name + ".part")
    try:
        with open(temporary, "wb") as file:
            file.write(save(tensors, metadata={_KEY: json.dumps(complete, sort_keys=True)}))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}; free or choose another place") from error


def read_tensors(path: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read what ``write_tensors`` wrote: (tensors, metadata).

    Raises:
        StoreError: the file is missing, is no safetensors file, is of another kind, or was changed.
    """
    if not path.is_file():
        raise StoreError(f"{path} is not a file; name one that AirLoRA wrote")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = _strings(json.loads((file.metadata() or {}).get(_KEY, "{}")))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise StoreError(f"{path} is not a readable safetensors file ({error}); fetch or write it again") from error
    if metadata.get(_FORMAT) != kind:
        raise StoreError(f"{path} is of format {metadata.get(_FORMAT)!r}, not {kind!r}; name the right file")
    if metadata.pop(_DIGEST, "") != _digest(tensors, metadata):
        raise StoreError(f"{path} was changed after it was written: its digest is wrong; fetch or write it again")
    del metadata[_FORMAT]
    return tensors, metadata


def file_kind(path: Path) -> str:
    """What a safetensors file says it is, by its header alone; empty if it is not one that AirLoRA wrote."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = _strings(json.loads((file.metadata() or {}).get(_KEY, "{}")))
    except (SafetensorError, OSError, ValueError, RecursionError):
        return ""
    return metadata.get(_FORMAT, "")


def _strings(metadata: object) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is not a JSON object of strings")
    return metadata


def _digest(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(repr(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype.str} {tensor.shape}".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()
