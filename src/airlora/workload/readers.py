"""From one file to raw rows: .tsv, .csv, .json, .jsonl and .parquet become tables, .txt a string.

Nothing is interpreted here: which column holds what is decided in ``airlora.workload.columns``.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airlora.errors import DataError

log = logging.getLogger(__name__)

TABLE_EXTENSIONS = (".tsv", ".csv", ".json", ".jsonl", ".parquet")
EXTENSIONS = (*TABLE_EXTENSIONS, ".txt")
SPLIT_NAMES = {"train": "train", "validation": "validation", "val": "validation", "dev": "validation", "test": "test"}
"""Name of a file or JSON key -> split."""


@dataclass(frozen=True)
class Table:
    """Rows of one split as they stand in a file.

    Attributes:
        name: the file, and the split inside it where it holds several; for messages.
        columns: names, or None while it is unknown whether the first row is a header.
        rows: equally many cells each; a cell is a string in .tsv and .csv, any JSON value otherwise.
        numbers: the 1-based row of the file (.jsonl: line; .json, .parquet: element) at which each row starts.
    """

    name: str
    columns: tuple[str, ...] | None
    rows: tuple[tuple[Any, ...], ...]
    numbers: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.rows:
            raise DataError(f"{self.name} is empty: 0 rows found; give a file with rows of text")
        width = len(self.rows[0] if self.columns is None else self.columns)
        for number, row in zip(self.numbers, self.rows, strict=True):
            if len(row) != width:
                raise DataError(
                    f"{self.name}: row {number} has {_count(len(row), 'column')}, the rows before have {width}; "
                    "correct that row (.tsv: no quoting, .csv: quote cells that hold a comma or a line break)"
                )


def read_tables(path: Path, encoding: str) -> dict[str, Table]:
    """Read a table: {split: table} for a .json object with splits, else {"": table}.

    Raises:
        DataError: the file is unreadable, empty, mis-encoded, malformed, or its extension is not a table's.
    """
    extension = path.suffix.lower()
    if extension == ".parquet":
        return {"": _read_parquet(path)}
    if extension == ".json":
        return _read_json(path, encoding)
    if extension == ".jsonl":
        return {"": _records(str(path), *_parse_lines(path, encoding))}
    if extension == ".csv":
        numbers, rows = _parse_csv(path, encoding)
    elif extension == ".tsv":
        lines = _lines(read_text(path, encoding))
        numbers, rows = [number for number, _ in lines], [tuple(line.split("\t")) for _, line in lines]
    else:
        raise DataError(f"{path} has the unknown extension {path.suffix!r}; allowed: {', '.join(EXTENSIONS)}")
    return {"": Table(str(path), None, tuple(rows), tuple(numbers))}


def read_text(path: Path, encoding: str) -> str:
    """Decode a whole file; a byte-order mark is dropped.

    Raises:
        DataError: the file is unreadable, blank, or not in ``encoding``.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; give a readable file") from error
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        raise DataError(
            f"{path} is not {encoding}: byte 0x{data[error.start]:02x} at offset {error.start} cannot be decoded; "
            f"give its encoding, such as --encoding {'utf-16' if utf16 else 'latin-1'}"
        ) from error
    except (LookupError, ValueError) as error:
        raise DataError(f"unknown text encoding {encoding!r}; give one such as --encoding utf-8 or latin-1") from error
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise DataError(f"{path} is empty: {_count(len(data), 'byte')} and no text found; give a file with text")
    return text


def _lines(text: str) -> list[tuple[int, str]]:
    """(1-based number, line) of the lines that are not blank; only \\n and \\r\\n end a line."""
    lines = enumerate(text.split("\n"), start=1)
    return [(number, line.removesuffix("\r")) for number, line in lines if line.strip(" \r")]


def _parse_csv(path: Path, encoding: str) -> tuple[list[int], list[tuple[str, ...]]]:
    reader = csv.reader(io.StringIO(read_text(path, encoding), newline=""), strict=True)
    numbers, rows = [], []
    start = 1
    try:
        for row in reader:
            if row:
                numbers.append(start)
                rows.append(tuple(row))
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}: row {start} is not valid CSV ({error}); correct its quotes or use .tsv") from error
    return numbers, rows


def _parse_lines(path: Path, encoding: str) -> tuple[list[int], list[Any]]:
    numbers, values = [], []
    for number, line in _lines(read_text(path, encoding)):
        numbers.append(number)
        values.append(_parse_json(line, f"{path}: row {number}"))
    return numbers, values


def _parse_json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what} is not valid JSON ({error}); correct it") from error


def _read_json(path: Path, encoding: str) -> dict[str, Table]:
    value = _parse_json(read_text(path, encoding), str(path))
    if isinstance(value, list):
        return {"": _records(str(path), range(1, len(value) + 1), value)}
    keys = list(value) if isinstance(value, dict) else []
    ignored = [key for key in keys if key not in SPLIT_NAMES]
    if len(ignored) == len(keys):
        found = (
            f"an object with the keys {', '.join(map(repr, keys[:8])) or 'none'}"
            if isinstance(value, dict)
            else "one value"
        )
        raise DataError(
            f"{path} holds {found}; allowed: a list of rows, or {{split: rows}} with train, validation, test"
        )
    if ignored:
        log.info("%s: splits %s are ignored; only train, validation and test are read", path, ", ".join(ignored))
    tables: dict[str, Table] = {}
    for key in keys:
        if key in ignored:
            continue
        name, rows = f"{path}[{key}]", value[key]
        if not isinstance(rows, list):
            raise DataError(f"{name} is {type(rows).__name__}; allowed: a list of rows")
        if SPLIT_NAMES[key] in tables:
            raise DataError(f"{path} holds the {SPLIT_NAMES[key]} split twice, {key!r} the second time; keep one")
        tables[SPLIT_NAMES[key]] = _records(name, range(1, len(rows) + 1), rows)
    return tables


def _records(name: str, numbers: Sequence[int], values: Sequence[Any]) -> Table:
    """A table of objects (columns: their keys), pairs (text, label), longer lists (no names) or strings (text)."""
    kinds = {type(value) for value in values}
    if kinds == {dict}:
        columns = tuple(dict.fromkeys(key for value in values for key in value))
        rows: Iterator[tuple[Any, ...]] = (tuple(value.get(column) for column in columns) for value in values)
        return Table(name, columns, tuple(rows), tuple(numbers))
    if kinds == {str}:
        return Table(name, ("text",), tuple((value,) for value in values), tuple(numbers))
    if kinds <= {list}:
        columns = ("text", "label")
        pairs = all(len(value) == len(columns) for value in values)
        return Table(name, columns if pairs else None, tuple(map(tuple, values)), tuple(numbers))
    found = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise DataError(
        f"{name} has rows of type {found}; allowed: all objects, all lists such as [text, label], all strings"
    )


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{path}: reading .parquet needs pyarrow; run: pip install 'airlora[train]'") from error
    try:
        content = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as .parquet ({_first_line(error)}); give an intact file") from error
    columns = [column.to_pylist() for column in content.columns]
    return Table(
        str(path), tuple(content.column_names), tuple(zip(*columns, strict=True)), tuple(range(1, content.num_rows + 1))
    )


def read_hub(name: str) -> dict[str, Table]:
    """Read a hub data set, {split: table}; class indices become class names where the data set states them.

    Raises:
        DataError: the ``datasets`` package is absent, the hub cannot be reached, or it has no such data set.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{name!r} is no file or folder here; to read it as a hub data set run: pip install 'airlora[hub]'"
        ) from error
    try:
        content = datasets.load_dataset(name)
    except Exception as error:  # the hub's client raises errors of several packages
        raise DataError(
            f"{name!r} is no file or folder here and cannot be read as a hub data set ({_first_line(error)}); "
            "check the name and the network"
        ) from error
    ignored = [key for key in content if key not in SPLIT_NAMES]
    if ignored:
        log.info("%s: splits %s are ignored; only train, validation and test are read", name, ", ".join(ignored))
    return {SPLIT_NAMES[key]: _hub_table(f"{name}[{key}]", content[key]) for key in content if key in SPLIT_NAMES}


def _hub_table(name: str, split: Any) -> Table:
    columns = tuple(split.column_names)
    classes = {column: list(getattr(split.features[column], "names", ())) for column in columns}

    def cell(column: str, value: Any) -> Any:
        if not classes[column] or not isinstance(value, int):
            return value
        return classes[column][value] if value >= 0 else None  # −1 marks an unlabelled row

    rows = tuple(tuple(cell(column, row[column]) for column in columns) for row in split)
    return Table(name, columns, rows, tuple(range(1, len(rows) + 1)))


def _first_line(error: BaseException) -> str:
    """First line of a foreign error's message, so that ours stays one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
