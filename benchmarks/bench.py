"""What nested training costs beside PEFT's LoRA, and how fast the codec is: ``make bench``.

Times are CPU time of one thread, so that a busy machine disturbs them less. Each variant of a training step is
measured against PEFT's in turn, A B A B, in one process, on the same batches; its ratio is the median over the repeats,
with the smallest and the largest beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from rich.console import Console
from rich.table import Table

from airlora.adapter import NestedAdam, NestedAdapter, NestedStrategy, PrefixMixture, Trainer, find_targets
from airlora.adapter.curvature import SAMPLES
from airlora.codec import BITS, Allocation, EdgeState, encode
from airlora.curvature import Curvature
from airlora.factors import Factors, Projection, Schema
from airlora.workload.base import Batch
from airlora.workload.classify import ClassificationWorkload
from airlora.workload.data import load_data
from airlora.workload.models import load_model

MODEL, DATA = "builtin:tiny-opt", "builtin:vehicle-commands"
RANK, MAX_RANK, BATCH_SIZE, PASSES, LR = 8, 16, 32, 3, 1e-3
ORTHOGONALITY_WEIGHT = 0.1
Step = Callable[[Batch], None]


@dataclass(frozen=True)
class Ratio:
    """CPU time of a step in ms, and over that of the step it is compared with: median, smallest, largest."""

    name: str
    against: str
    step_ms: float
    ratio: float
    ratio_min: float
    ratio_max: float


@dataclass(frozen=True)
class Throughput:
    """Codec speed in MB/s of the numbers as float32; ``curved``: encoding with curvature."""

    bits: int
    encode_mb_s: float
    curved_mb_s: float
    decode_mb_s: float
    size_bytes: int


def workload() -> ClassificationWorkload:
    """A fresh copy of the same model and data."""
    data = load_data(DATA)
    loaded = load_model(MODEL, num_labels=len(data.labels), device="cpu")
    return ClassificationWorkload(loaded, data, batch_size=BATCH_SIZE, max_length=128, seed=0)


def peft_step() -> Step:
    """LoRA of PEFT at ``RANK`` on the same targets and the head, with torch's Adam."""
    job = workload()
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=list(find_targets(job.model)))
    inject_adapter_in_model(config, job.model)
    for parameter in job.head.values():
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam([p for p in job.model.parameters() if p.requires_grad], lr=LR)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        job.loss(batch).backward()
        optimizer.step()

    return step


def nested(form: str = "lora") -> tuple[ClassificationWorkload, NestedAdapter, NestedAdam]:
    """A nested adapter with rank to spare, on the same targets and the head."""
    job = workload()
    targets = find_targets(job.model)
    adapter = NestedAdapter(job.model, targets, max_rank=MAX_RANK, alpha=2 * MAX_RANK, form=form, head=job.head)
    return job, adapter, NestedAdam(adapter, LR)


def nested_step(rank: int, form: str = "lora", orthogonality: bool = False) -> Step:
    """One pass at one rank."""
    job, adapter, optimizer = nested(form)
    adapter.set_ranks(rank)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        loss = job.loss(batch)
        if orthogonality:
            loss = loss + ORTHOGONALITY_WEIGHT * adapter.orthogonality()
        loss.backward()
        optimizer.step()

    return step


def mixture_step(passes: int) -> Step:
    """A whole training step of ``airlora run``: a mixture of prefixes, with the sensitivities."""
    job, adapter, optimizer = nested()
    strategy = NestedStrategy(PrefixMixture(adapter.schema.prefixes, passes, seed=0))
    trainer = Trainer(job, adapter, optimizer, strategy)
    done = 0

    def step(batch: Batch) -> None:
        nonlocal done
        job.batch = lambda step: batch  # type: ignore[method-assign]  # fetching it is not measured
        trainer.train(done, 1, lambda batch, loss: None)
        done += 1

    return step


def compare(name: str, step: Step, against: str, reference: Step, batches: list[Batch], repeats: int) -> Ratio:
    """Measure two steps in turn."""
    ratios, times = [], []
    for repeat in range(repeats + 1):
        reference_s = cpu_s(lambda: run(reference, batches))
        step_s = cpu_s(lambda: run(step, batches))
        if repeat:  # the first is a warm-up
            ratios.append(step_s / reference_s)
            times.append(1e3 * step_s / len(batches))
    return Ratio(name, against, statistics.median(times), statistics.median(ratios), min(ratios), max(ratios))


def run(step: Step, batches: list[Batch]) -> None:
    """One step a batch."""
    for batch in batches:
        step(batch)


def cpu_s(call: Callable[[], object]) -> float:
    """CPU time of a call in s."""
    start = time.process_time()
    call()
    return time.process_time() - start


def bench_steps(repeats: int) -> list[Ratio]:
    """All variants of a training step."""
    job = workload()
    batches = [job.batch(step) for step in range(4)]
    peft = peft_step()
    rows = [
        compare(name, step, "PEFT LoRA, rank 8", peft, batches, repeats)
        for name, step in [
            *((f"nested, rank {rank}", nested_step(rank)) for rank in (1, RANK, MAX_RANK)),
            ("airlora run, 1 pass", mixture_step(1)),
            (f"airlora run, {PASSES} passes", mixture_step(PASSES)),
        ]
    ]
    name = "SVD form, rank 8"
    plain, regular = nested_step(RANK, "svd"), nested_step(RANK, "svd", orthogonality=True)
    return [*rows, compare(f"{name}, orthogonality", regular, name, plain, batches, repeats)]


def minilm_schema() -> Schema:
    """The 36 linear maps of MiniLM-L6 at rank 16."""
    shapes = {"query": (384, 384), "key": (384, 384), "value": (384, 384), "out": (384, 384)}
    shapes |= {"up": (1536, 384), "down": (384, 1536)}
    projections = (Projection(f"{i}.{name}", *shape, MAX_RANK) for i in range(6) for name, shape in shapes.items())
    return Schema(tuple(projections), (1, 2, 4, 8, 16), init_seed=0)


def bench_codec(repeats: int) -> list[Throughput]:
    """A whole update of MiniLM's shapes at rank 16, new to the edge, encoded and applied."""
    schema = minilm_schema()
    rng = np.random.default_rng(0)
    decay = 2.0 ** (-np.arange(MAX_RANK) / 6)
    factors = Factors(
        schema,
        tuple((rng.normal(0, 0.02, (p.d_out, MAX_RANK)) * decay).astype(np.float32) for p in schema.projections),
        tuple(
            (schema.initial_v(i) + rng.normal(0, 0.03, (MAX_RANK, p.d_in))).astype(np.float32)
            for i, p in enumerate(schema.projections)
        ),
    )
    edge = EdgeState.initial(schema, {})
    megabytes = 4 * schema.size / 1e6
    gradients = np.ones((2, len(schema.projections), MAX_RANK), np.float32)
    inputs = tuple(rng.normal(size=(SAMPLES, p.d_in)).astype(np.float32) for p in schema.projections)
    curvature = Curvature(schema, *gradients, inputs)
    rows = []
    for bits in BITS:
        allocation = Allocation(schema.r_max, np.full(len(schema.r_max), bits), 0, float("inf"))
        update = encode(factors, edge, allocation, 0)

        def decode(layers: tuple[bytes, ...] = update.layers) -> None:
            state = edge
            for layer in layers:
                state = state.apply(layer)

        encode_s = [cpu_s(lambda a=allocation: encode(factors, edge, a, 0)) for _ in range(repeats)]
        decode_s = [cpu_s(decode) for _ in range(repeats)]
        curved_s = [cpu_s(lambda a=allocation: encode(factors, edge, a, 0, None, curvature)) for _ in range(repeats)]
        speeds = (megabytes / statistics.median(times) for times in (encode_s, curved_s, decode_s))
        rows.append(Throughput(bits, *speeds, size_bytes=update.size_bytes))
    return rows


def bench_import(repeats: int) -> float:
    """Median CPU time of ``import airlora.codec`` in a fresh interpreter, in s."""
    code = "import time; start = time.process_time(); import airlora.codec; print(time.process_time() - start)"
    runs = [subprocess.run([sys.executable, "-c", code], check=True, capture_output=True) for _ in range(repeats)]
    return statistics.median(float(done.stdout) for done in runs)


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="measurements of each figure [15]")
    parser.add_argument("--out", type=Path, default=Path("runs/bench.json"), help="JSON to write [runs/bench.json]")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()

    steps = bench_steps(options.repeats)
    table = Table(title=f"A training step: {MODEL}, {DATA}, batch {BATCH_SIZE}, CPU time of one thread")
    for column in ("step", "ms", "times", "min … max", "of"):
        table.add_column(column, justify="left" if column in ("step", "of") else "right")
    for row in steps:
        spread = f"{row.ratio_min:.2f} … {row.ratio_max:.2f}"
        table.add_row(row.name, f"{row.step_ms:.1f}", f"{row.ratio:.3f}", spread, row.against)
    console.print(table)

    codec = bench_codec(options.repeats)
    table = Table(title="The codec: MiniLM-L6 at rank 16, all new; MB/s of the numbers as float32, CPU time")
    for column in ("bits", "encode MB/s", "with curvature", "decode MB/s", "update kB"):
        table.add_column(column, justify="right")
    for speed in codec:
        cells = (speed.encode_mb_s, speed.curved_mb_s, speed.decode_mb_s, speed.size_bytes / 1e3)
        table.add_row(str(speed.bits), *(f"{cell:.1f}" for cell in cells))
    console.print(table)

    import_s = bench_import(5)
    console.print(f"import airlora.codec: {import_s:.2f} s")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "steps": [asdict(row) for row in steps],
        "codec": [asdict(row) for row in codec],
        "import_codec_s": import_s,
        "repeats": options.repeats,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "peft", "numpy")},
        },
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    console.print(f"written: {options.out}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
