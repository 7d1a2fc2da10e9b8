"""Writing an adapter as a plain PEFT LoRA that any loader reads alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from airlora.factors import Factors


def export_peft(
    factors: Factors,
    folder: Path,
    *,
    task_type: str,
    modules_to_save: tuple[str, ...] = (),
    fan_in_fan_out: bool = False,
    base_model: str = "",
) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``.

    The scale is folded into B, with alpha_pattern = rank_pattern and global alpha = r, so that the scaling
    of every module is 1 for every loader. Projections of rank 0 are left out; as PEFT refuses an empty
    adapter, one all-zero rank-1 projection is written when nothing is left.

    Args:
        factors: what to write.
        folder: made if missing.
        task_type: PEFT's name of the task, ``SEQ_CLS`` or ``CAUSAL_LM``.
        modules_to_save: modules that hold the head.
        fan_in_fan_out: the base keeps its weights transposed (GPT-2's Conv1D).
        base_model: noted in the configuration.
    """
    from peft import LoraConfig

    kept: dict[str, tuple[np.ndarray, np.ndarray]] = {
        projection.name: (u, v)
        for projection, u, v in zip(factors.schema.projections, factors.u, factors.v, strict=True)
        if v.shape[0]
    }
    if not kept:
        first = factors.schema.projections[0]
        kept = {first.name: (np.zeros((first.d_out, 1), np.float32), np.zeros((1, first.d_in), np.float32))}
    ranks = {name: v.shape[0] for name, (_, v) in kept.items()}
    rank = max(ranks.values())
    pattern = {name: r for name, r in ranks.items() if r != rank}
    options: dict[str, Any] = {"modules_to_save": list(modules_to_save)} if modules_to_save else {}
    config = LoraConfig(
        task_type=task_type,
        r=rank,
        lora_alpha=rank,
        rank_pattern=pattern,
        alpha_pattern=dict(pattern),
        target_modules=sorted(kept),
        fan_in_fan_out=fan_in_fan_out,
        base_model_name_or_path=base_model,
        inference_mode=True,
        **options,
    )
    tensors = {f"base_model.model.{name}": array for name, array in factors.head.items()}
    for name, (u, v) in kept.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = v
        tensors[f"base_model.model.{name}.lora_B.weight"] = u
    folder.mkdir(parents=True, exist_ok=True)
    config.target_modules = sorted(kept)  # PEFT keeps a set; a list has one order
    config.save_pretrained(str(folder))
    contiguous = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in sorted(tensors.items())}
    save_file(contiguous, folder / "adapter_model.safetensors", metadata={"format": "pt"})
