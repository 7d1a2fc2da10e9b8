"""The paper's shapes on a GPU: a training step of OPT-1.3B (random bfloat16 weights), ours against PEFT's.

    python benchmarks/paper_shapes.py [--out FILE.json] [--device cuda] [--layers 24] [--hidden 2048]

SST-2's form: 32 texts of 128 tokens, two classes, LoRA on all six projections of every layer (144 of them) and the head
trained in full; adapters in float32 under autocast. Every arm starts from a fresh model. Prints seconds a step (median
of device-synchronised steps in turn with the reference's) and the peak of allocated memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from peft import LoraConfig, inject_adapter_in_model
from rich.console import Console
from rich.table import Table

from airlora.adapter import NestedAdam, NestedAdapter, NestedStrategy, PrefixMixture, find_targets
from airlora.workload.base import Batch

RANK = 8
BATCH, LENGTH = 32, 128
WARM_UP, STEPS = 3, 15


class Texts:
    """A classifier over random tokens: what ``NestedStrategy`` needs of a workload."""

    def __init__(self, options: argparse.Namespace):
        device = torch.device(options.device)
        config = transformers.OPTConfig(
            hidden_size=options.hidden,
            ffn_dim=4 * options.hidden,
            num_hidden_layers=options.layers,
            num_attention_heads=options.hidden // 64,
            word_embed_proj_dim=options.hidden,
            num_labels=2,
        )
        torch.manual_seed(0)
        with device:
            self.model = transformers.OPTForSequenceClassification(config).to(torch.bfloat16).eval()
        self.head = {name: p for name, p in self.model.named_parameters() if name.startswith("score")}
        for parameter in self.head.values():
            parameter.data = parameter.data.float()
        ids = torch.randint(10, config.vocab_size, (BATCH, LENGTH), device=device)
        targets = torch.randint(0, 2, (BATCH,), device=device)
        self.batch = Batch({"input_ids": ids}, targets, ())

    def loss(self, batch: Batch, rows: slice = slice(None)) -> torch.Tensor:
        """Mean cross-entropy of the rows."""
        inputs = {name: value[rows] for name, value in batch.inputs.items()}
        with torch.autocast(batch.targets.device.type, dtype=torch.bfloat16):
            logits = self.model(**inputs).logits.float()
        return F.cross_entropy(logits, batch.targets[rows])


Step = Callable[[], None]


def peft_step(options: argparse.Namespace) -> Step:
    """PEFT's LoRA with torch's Adam."""
    texts = Texts(options)
    targets = list(find_targets(texts.model))
    for parameter in texts.model.parameters():
        parameter.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=4 * RANK, target_modules=targets), texts.model)
    trained = [p for name, p in texts.model.named_parameters() if "lora_" in name]
    for parameter in trained:
        parameter.data = parameter.data.float()
    trained += [p.requires_grad_(True) for p in texts.head.values()]
    optimizer = torch.optim.Adam(trained, lr=5e-5)

    def step() -> None:
        optimizer.zero_grad()
        texts.loss(texts.batch).backward()
        optimizer.step()

    return step


def nested_step(options: argparse.Namespace, rank: int, form: str = "lora", passes: int = 0) -> Step:
    """Ours: one pass at a rank, the SVD form with its regulariser, or a mixture of prefixes in several passes."""
    texts = Texts(options)
    targets = find_targets(texts.model)
    adapter = NestedAdapter(texts.model, targets, max_rank=RANK, alpha=4 * RANK, form=form, head=texts.head)  # type: ignore[arg-type]
    optimizer = NestedAdam(adapter, 5e-5)
    mixture = NestedStrategy(PrefixMixture(adapter.schema.prefixes, passes, seed=0)) if passes else None
    done = 0

    def step() -> None:
        nonlocal done
        optimizer.zero_grad()
        if mixture:
            mixture.backward(texts, adapter, texts.batch, done)  # type: ignore[arg-type]
        else:
            adapter.set_ranks(rank)
            loss = texts.loss(texts.batch)
            if form == "svd":
                loss = loss + 0.01 * adapter.orthogonality()
            loss.backward()
        optimizer.step()
        done += 1

    return step


def seconds(step: Step, device: str) -> float:
    """Of one step, all of its work on the device included."""
    synchronize = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    synchronize()
    started = time.perf_counter()
    step()
    synchronize()
    return time.perf_counter() - started


def main() -> None:
    """Measure every arm in turn with PEFT's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--hidden", type=int, default=2048)
    options = parser.parse_args()
    cuda = options.device.startswith("cuda")
    arms: dict[str, Callable[[], Step]] = {
        f"PEFT LoRA, rank {RANK}": lambda: peft_step(options),
        f"nested, rank {RANK}": lambda: nested_step(options, RANK),
        "nested, rank 1": lambda: nested_step(options, 1),
        f"SVD form, rank {RANK}, orthogonality (paper mode)": lambda: nested_step(options, RANK, "svd"),
        "mixture of prefixes, 3 passes (airlora run)": lambda: nested_step(options, RANK, passes=3),
    }
    reference = peft_step(options)
    for _ in range(WARM_UP):
        reference()
    shared = torch.cuda.memory_allocated() if cuda else 0
    rows = []
    for name, make in arms.items():
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        step = make()
        for _ in range(WARM_UP):
            step()
        peak = (torch.cuda.max_memory_allocated() - shared) / 1e9 if cuda else float("nan")
        times, ratios = [], []
        for _ in range(STEPS):
            reference_s = seconds(reference, options.device)
            times.append(seconds(step, options.device))
            ratios.append(times[-1] / reference_s)
        row = {"arm": name, "step_s": statistics.median(times), "ratio": statistics.median(ratios)}
        rows.append({**row, "ratio_min": min(ratios), "ratio_max": max(ratios), "peak_gb": peak})
        del step
    card = torch.cuda.get_device_name() if cuda else "CPU"
    table = Table(title=f"OPT, {options.layers} layers of {options.hidden}, {BATCH} × {LENGTH} tokens, {card}")
    for column in ("step", "ms", "of PEFT's", "min … max", "peak GB"):
        table.add_column(column)
    for row in rows:
        spread = f"{row['ratio_min']:.2f} … {row['ratio_max']:.2f}"
        cells = (f"{1e3 * row['step_s']:.0f}", f"{row['ratio']:.2f}", spread, f"{row['peak_gb']:.1f}")
        table.add_row(str(row["arm"]), *cells)
    Console(width=120).print(table)
    if options.out:
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        options.out.write_text(json.dumps({"device": card, "versions": versions, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
