"""The user's data: from a builtin, a file, a folder or a hub data set to three checked splits.

A split that the source lacks is taken from its train split (``airlora.workload.splits``): of a table 10 % of the rows,
drawn with the seed and stratified by label; of a .txt file the last 5 % of the characters. One table alone is so split
80/10/10, one .txt file 90/5/5. Validation never comes from test.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from airlora.errors import DataError
from airlora.workload.columns import choose_columns, find_column, label_cells, listed, name_columns, text_cells
from airlora.workload.readers import EXTENSIONS, SPLIT_NAMES, Table, read_hub, read_tables, read_text
from airlora.workload.splits import HELD_OUT_ROWS_PERCENT, HELD_OUT_TEXT_PERCENT, hold_out_rows, hold_out_text

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Texts in three splits, with their classes if the task is classification.

    Attributes:
        task: "classify" (a class for each text) or "lm" (causal language modelling).
        labels: the classes of train in sorted order (numbers by value); empty for lm.
        texts: split -> texts, in the order of the source; for lm one element a document.
        targets: split -> (texts,) int64 index into ``labels``; empty for lm.
    """

    task: Literal["classify", "lm"]
    labels: tuple[str, ...]
    texts: dict[str, tuple[str, ...]]
    targets: dict[str, np.ndarray]

    def __post_init__(self) -> None:
        if set(self.texts) != set(SPLITS):
            raise DataError(f"a data set has the splits {', '.join(SPLITS)}; found {', '.join(self.texts) or 'none'}")
        for split, texts in self.texts.items():
            if not texts or not all(text.strip() for text in texts):
                raise DataError(f"the {split} split has {len(texts)} texts, some blank or none; give texts")
        if self.task == "lm":
            if self.labels or self.targets:
                raise DataError(f"language modelling takes no labels; found {len(self.labels)}")
            return
        if len(set(self.labels)) != len(self.labels) or len(self.labels) < 2:
            raise DataError(f"classification needs 2 or more different classes; found {self.labels}")
        for split, texts in self.texts.items():
            target = self.targets.get(split, np.empty(0))
            if target.dtype != np.int64 or target.shape != (len(texts),):
                raise DataError(f"targets of {split} are {target.dtype} {target.shape}; needed: int64 ({len(texts)},)")
            if target.min() < 0 or target.max() >= len(self.labels):
                raise DataError(
                    f"targets of {split} are {target.min()} … {target.max()}; allowed: 0 … {len(self.labels) - 1}"
                )


def load_data(
    source: str,
    *,
    task: Literal["auto", "classify", "lm"] = "auto",
    text_column: str | None = None,
    label_column: str | None = None,
    encoding: str = "utf-8",
    seed: int = 0,
) -> Dataset:
    """Read a data set; equal arguments and equal files give equal splits in equal order.

    Args:
        source: ``builtin:NAME[,key=value…]``; a file (.tsv without quoting, .csv, .json, .jsonl, .parquet, or .txt for
            language modelling); a folder with train, validation (or val, dev) and test of those kinds; or a hub data
            set's id, if no such path exists.
        task: "auto" is language modelling for .txt and for a table without a label column, else classification.
            "lm" uses the text column of a table, a document a row.
        text_column, label_column: name or 0-based index; found by themselves when unambiguous.
        encoding: of text files.
        seed: of the split of a source that lacks one.

    Raises:
        DataError: the source is missing, empty, mis-encoded, malformed, lacks the columns, or cannot be split.
        SpecError: an unknown builtin, or a key or value it does not have.
    """
    if task not in ("auto", "classify", "lm"):
        raise DataError(f"unknown task {task!r}; allowed: auto, classify, lm")
    content = _read_builtin(source) if source.startswith("builtin:") else _read_source(source, encoding)
    if "train" not in content:
        raise DataError(f"{source} has no train split; found {', '.join(content)}; add train.EXT")
    documents = {split: text for split, text in content.items() if isinstance(text, str)}
    tables = {split: table for split, table in content.items() if isinstance(table, Table)}
    if documents and tables:
        raise DataError(f"{source} mixes .txt with tables; give all splits as .txt, or all as tables")
    if tables:
        return _from_tables(tables, task, text_column, label_column, seed)
    for option, column in (("--text-column", text_column), ("--label-column", label_column)):
        if column is not None:
            raise DataError(f"{source} is plain text without columns; leave out {option} {column}")
    if task == "classify":
        raise DataError(f"{source} is plain text without labels; use --task lm, or give a table with labels")
    return _from_documents(documents, source)


def _read_source(source: str, encoding: str) -> dict[str, Table | str]:
    path = Path(source)
    if source and path.is_dir():
        files = _split_files(path)
    elif source and path.exists():
        files = {"train": path}
    elif _is_hub_id(source):
        return dict(read_hub(source))
    else:
        raise DataError(f"{source!r} does not exist; give a file, a folder, builtin:NAME or the id of a hub data set")
    content: dict[str, Table | str] = {}
    for split, file in files.items():
        if file.suffix.lower() == ".txt":
            content[split] = read_text(file, encoding)
            continue
        tables = read_tables(file, encoding)
        if "" in tables:
            content[split] = tables[""]
        elif path.is_dir():
            raise DataError(f"{file} holds splits of its own ({', '.join(tables)}); give that file, not its folder")
        else:
            content.update(tables)
    return content


def _split_files(folder: Path) -> dict[str, Path]:
    """{split: file} of a folder; a second file for a split, or only one of an unknown extension, is refused."""
    names = sorted(file.name for file in folder.iterdir())
    files: dict[str, Path] = {}
    unknown: dict[str, Path] = {}
    for file in map(folder.joinpath, names):
        split = SPLIT_NAMES.get(file.stem)
        if split is None or not file.is_file():
            continue
        if file.suffix.lower() not in EXTENSIONS:
            unknown[split] = file
        elif split in files:
            raise DataError(f"{folder} has two files for {split}, {files[split].name} and {file.name}; keep one")
        else:
            files[split] = file
    for split, file in unknown.items():
        if split not in files:
            raise DataError(f"{file} has the unknown extension {file.suffix!r}; allowed: {', '.join(EXTENSIONS)}")
    if not files:
        raise DataError(
            f"{folder} has no split files; found {', '.join(names[:8]) or 'nothing'}; needed: train.EXT, "
            f"validation.EXT (or val, dev) and test.EXT, with EXT one of {', '.join(EXTENSIONS)}"
        )
    return files


def _read_builtin(source: str) -> dict[str, Table | str]:
    from airlora.workload.builtin import load_builtin_data

    content = load_builtin_data(source).load()
    return {
        split: rows
        if isinstance(rows, str)
        else Table(f"{source}[{split}]", ("text", "label"), tuple(rows), tuple(range(1, len(rows) + 1)))
        for split, rows in content.items()
    }


def _is_hub_id(source: str) -> bool:
    """``owner/name``, or ``name``, without a file's extension."""
    suffix = Path(source).suffix.lower()
    return _HUB_ID.fullmatch(source) is not None and suffix not in EXTENSIONS and ("/" in source or not suffix)


def _from_tables(
    tables: Mapping[str, Table], task: str, text_column: str | None, label_column: str | None, seed: int
) -> Dataset:
    if task == "lm" and label_column is not None:
        raise DataError(f"--task lm uses no labels; leave out --label-column {label_column}, or use --task classify")
    train = name_columns(tables["train"], (text_column, label_column))
    text, label = choose_columns(train, text_column, label_column, wants_label=task != "lm")
    if label is None and task == "classify":
        raise DataError(
            f"{train.name}: no label column among {listed(train.columns or ())}; name it with --label-column "
            "(a name or a 0-based index), or use --task lm"
        )
    if label is None and task == "auto":
        log.warning("%s: no label column found; column %r is read for language modelling", train.name, text)
    named = {split: train if split == "train" else name_columns(table, (), train) for split, table in tables.items()}
    texts = {split: text_cells(table, find_column(table, text)) for split, table in named.items()}
    if label is None:
        classes = {split: [""] * len(cells) for split, cells in texts.items()}
    else:
        classes = {split: label_cells(table, find_column(table, label)) for split, table in named.items()}
    _check_classes(named, classes)

    missing = [split for split in SPLITS if split not in tables]
    if missing:
        _log_missing(train.name, missing, f"{HELD_OUT_ROWS_PERCENT} % of its rows each, seed {seed}")
        rows = hold_out_rows(classes["train"], missing, seed, train.name)
        texts |= {split: [texts["train"][row] for row in rows[split]] for split in rows}
        classes |= {split: [classes["train"][row] for row in rows[split]] for split in rows}
    ordered = {split: tuple(texts[split]) for split in SPLITS}
    if label is None:
        return Dataset("lm", (), ordered, {})
    labels = _sorted_labels(classes["train"])
    index = {name: position for position, name in enumerate(labels)}
    targets = {split: np.array([index[name] for name in classes[split]], dtype=np.int64) for split in SPLITS}
    return Dataset("classify", labels, ordered, targets)


def _from_documents(documents: Mapping[str, str], source: str) -> Dataset:
    missing = [split for split in SPLITS if split not in documents]
    if missing:
        _log_missing(source, missing, f"{HELD_OUT_TEXT_PERCENT} % of its characters each, from the end")
        documents = {**documents, **hold_out_text(documents["train"], missing, source)}
    return Dataset("lm", (), {split: (documents[split],) for split in SPLITS}, {})


def _check_classes(tables: Mapping[str, Table], classes: Mapping[str, Sequence[str]]) -> None:
    """Refuse a single class, and a class that train lacks; without labels every class is the empty string."""
    known = set(classes["train"])
    if known == {""}:
        return
    if len(known) == 1:
        raise DataError(
            f"{tables['train'].name} has one class, {min(known)!r}, in all {len(classes['train'])} rows; 2 or more are "
            "needed: check --label-column, or use --task lm"
        )
    for split, names in classes.items():
        for number, name in zip(tables[split].numbers, names, strict=True):
            if name not in known:
                raise DataError(
                    f"{tables[split].name}: row {number} has the label {name!r}, which train lacks; train has "
                    f"{len(known)} classes: {', '.join(_sorted_labels(known)[:8])}; add it to train or delete the row"
                )


def _sorted_labels(names: Iterable[str]) -> tuple[str, ...]:
    """Unique labels: by value if all are numbers, else as strings."""
    unique = sorted(set(names))
    try:
        return tuple(sorted(unique, key=float))
    except ValueError:
        return tuple(unique)


def _log_missing(name: str, missing: Sequence[str], how: str) -> None:
    log.info("%s has no %s split: taken from train (%s)", name, " and no ".join(missing), how)
