"""Plain PEFT adapter files: what tensors they hold, and which of them should not be there. No torch."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from airlora.codec.inspection import looks_like_embedding
from airlora.errors import InputError

WEIGHTS = "adapter_model.safetensors"
_BYTES_PER_NUMBER = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_ADAPTER_MARKS = ("lora_", "ia3_", "vera_", "hada_", "lokr_", "oft_", "c3a_", "trainable_tokens", "prompt_embeddings")
_LARGE_SHARE = 0.5


@dataclass(frozen=True)
class AdapterTensor:
    """One tensor of an adapter file.

    Attributes:
        name: as stored.
        dtype: safetensors' name of the type.
        shape: of the tensor.
        kind: ``lora_A``, ``lora_B``, … for an adapter's parts; ``embedding``, ``base weight``, or ``head``.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    kind: str

    @property
    def size_bytes(self) -> int:
        """Bytes of its numbers; types that are not known count as one byte a number."""
        return prod(self.shape) * _BYTES_PER_NUMBER.get(self.dtype, 1)


@dataclass(frozen=True)
class AdapterFile:
    """The tensors of an adapter file, without their numbers.

    Attributes:
        path: the file.
        tensors: in the order of their names.
    """

    path: Path
    tensors: tuple[AdapterTensor, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all numbers."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    @property
    def bytes_by_kind(self) -> dict[str, int]:
        """Bytes by kind, largest first."""
        found: Counter[str] = Counter()
        for tensor in self.tensors:
            found[tensor.kind] += tensor.size_bytes
        return dict(found.most_common())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may be there by mistake, a sentence each."""
        found = []
        for kind, why in (
            (
                "embedding",
                "PEFT adds embeddings when the vocabulary was resized; save with save_embedding_layers=False",
            ),
            ("base weight", "the base model has it already; save the adapter alone"),
        ):
            mine = [tensor for tensor in self.tensors if tensor.kind == kind]
            if mine:
                size = sum(tensor.size_bytes for tensor in mine)
                found.append(f"{len(mine)} {kind} tensors of {size} bytes, the first {mine[0].name}: {why}")
        head = sum(tensor.size_bytes for tensor in self.tensors if tensor.kind == "head")
        if head > _LARGE_SHARE * max(self.size_bytes, 1):
            found.append(f"the head's tensors are {head} of {self.size_bytes} bytes; is all of it trained?")
        return tuple(found)


def read_adapter(path: Path) -> AdapterFile:
    """List the tensors of a PEFT adapter; only the header of the file is read.

    Args:
        path: the folder that PEFT saved, or its safetensors file.

    Raises:
        InputError: no such file, a pickle, no safetensors file, or one without an adapter in it.
    """
    file = path / WEIGHTS if path.is_dir() else path
    if path.is_dir() and not file.is_file() and (path / "adapter_model.bin").is_file():
        raise InputError(f"{path} holds adapter_model.bin, a pickle, which is not opened; save it as safetensors")
    if not file.is_file():
        raise InputError(f"{str(file)!r} does not exist; name an update, or an adapter's file or folder")
    heads = _heads(file.parent / "adapter_config.json")
    try:
        with safe_open(file, framework="numpy") as stored:
            names = sorted(stored.keys())
            slices = [(name, stored.get_slice(name)) for name in names]
            tensors = tuple(_tensor(name, part.get_dtype(), tuple(part.get_shape()), heads) for name, part in slices)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{file} is not a readable safetensors file ({error}); name another or write it again"
        ) from error
    if not any(mark in tensor.name for tensor in tensors for mark in _ADAPTER_MARKS):
        raise InputError(f"{file} holds {len(tensors)} tensors but no adapter's; name an update or a PEFT adapter")
    return AdapterFile(file, tensors)


def _heads(config: Path) -> tuple[str, ...]:
    """Modules that the adapter's configuration says are saved whole."""
    try:
        data = json.loads(config.read_text(encoding="utf-8"))
        return tuple(str(name) for name in data.get("modules_to_save") or ())
    except (OSError, ValueError, AttributeError, TypeError):
        return ()


def _tensor(name: str, dtype: str, shape: tuple[int, ...], heads: tuple[str, ...]) -> AdapterTensor:
    return AdapterTensor(name, dtype, shape, _kind(name, heads))


def _kind(name: str, heads: tuple[str, ...]) -> str:
    parts = name.split(".")
    for part in parts:
        if part.startswith(_ADAPTER_MARKS):
            return part
    if looks_like_embedding(name):
        return "embedding"
    if "modules_to_save" in parts or any(head in parts for head in (*heads, "classifier", "score")):
        return "head"
    return "base weight"
