"""Do the paths of real model shapes work, and what memory do they take? Random weights, a few steps each.

    python benchmarks/random_models.py FOLDER [NAME ...]

Builds each model with random weights and the built-in tokenizer in FOLDER (OPT-1.3B takes 5 GB of disk), runs
``airlora run`` on it for two rounds of two steps, and prints seconds and peak memory. The folders are deleted again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
import transformers
from rich.console import Console
from rich.table import Table

from airlora.workload.builtin import builtin_model_path

SHAPES: dict[str, transformers.PretrainedConfig] = {
    "gpt2": transformers.GPT2Config(),
    "qwen2.5-0.5b": transformers.Qwen2Config(
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    ),
    "tinyllama-1.1b": transformers.LlamaConfig(
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
    ),
    "opt-1.3b": transformers.OPTConfig(
        hidden_size=2048, ffn_dim=8192, num_hidden_layers=24, num_attention_heads=32, word_embed_proj_dim=2048
    ),
}

RUN = {
    "data": "builtin:vehicle-logs,characters=20000",
    "link": "awgn:snr_db=10,bandwidth_hz=1e8",
    "rounds": "2",
    "steps-per-round": "2",
    "batch-size": "2",
    "max-length": "32",
    "max-rank": "8",
    "validation-limit": "4",
}


def build(config: transformers.PretrainedConfig, folder: Path) -> int:
    """Write a model of that shape with random weights; returns its number of parameters."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(builtin_model_path("tiny-opt")).save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    """Build, run and measure each shape in a process of its own."""
    folder, names = Path(sys.argv[1]), sys.argv[2:] or list(SHAPES)
    if names[0] == "--build":
        print(build(SHAPES[names[1]], folder / names[1] / "model"))
        return
    table = Table("model", "parameters", "seconds", "peak memory", "adapter r8 fp32", "bytes on air", "edge nll (base)")
    for name in names:
        built = subprocess.run(
            [sys.executable, __file__, str(folder), "--build", name], check=True, capture_output=True, text=True
        )
        started = time.perf_counter()
        out = folder / name / "run"
        command = [sys.executable, "-m", "airlora", "run", "--model", str(folder / name / "model"), "--out", str(out)]
        options = [part for option, value in RUN.items() for part in (f"--{option}", value)]
        process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{name}: the run failed")
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        rows = [json.loads(line) for line in (out / "rounds.jsonl").read_text(encoding="utf-8").splitlines()]
        table.add_row(
            name,
            f"{int(built.stdout.split()[-1]) / 1e6:.0f} M",
            f"{time.perf_counter() - started:.0f}",
            f"{usage.ru_maxrss * 1024 / 1e9:.1f} GB",
            f"{rows[0]['reference']['bytes'] / 1e6:.1f} MB",
            f"{summary['bytes_on_air'] / 1e6:.1f} MB",
            f"{summary['edge_quality']:.3f} ({summary['base_quality']:.3f})",
        )
        shutil.rmtree(folder / name)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
