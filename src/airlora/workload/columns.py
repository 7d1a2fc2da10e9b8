"""Which column of a table is the text and which the label, and what their cells mean."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from airlora.errors import DataError
from airlora.workload.readers import Table

TEXT_NAMES = (
    *("text", "sentence", "utterance", "utterances", "review", "question", "query", "command"),
    *("content", "comment", "message", "tweet", "document"),
)
LABEL_NAMES = ("label", "labels", "intent", "category", "class", "target", "sentiment", "topic", "tag")
_REMEDY = "name them with --text-column and --label-column (a name or a 0-based index)"


def name_columns(table: Table, asked: Iterable[str | None], like: Table | None = None) -> Table:
    """Give every column a name: from the header, which leaves the rows, or else "0", "1", ….

    The first row is a header if it holds a column name that is ``asked`` for, or a usual name (``TEXT_NAMES``,
    ``LABEL_NAMES``) that its column does not repeat, or words above a column of numbers.

    Args:
        table: a table whose ``columns`` may be None.
        asked: the columns that the user named.
        like: the named train table, to decide alike for the other splits.

    Raises:
        DataError: a header with a repeated name, without rows below it, or other than that of ``like``; names where
            ``like`` has none.
    """
    headerless = like is not None and like.columns == _positions(len(like.columns or ()))
    if like is not None and headerless and table.columns is not None:
        raise DataError(
            f"{table.name} has {listed(table.columns)}, but {like.name} has no header; name the columns in all splits"
        )
    if table.columns is None:
        first = tuple(str(cell).strip() for cell in table.rows[0])
        if like is not None and not headerless and set(first) != set(like.columns or ()):
            raise DataError(
                f"{table.name}: its first row is not the header of {like.name}; found {listed(first)}; needed: "
                f"{listed(like.columns or ())}"
            )
        has_header = _is_header(table, set(asked)) if like is None else not headerless
        if has_header:
            table = replace(table, columns=first, rows=table.rows[1:], numbers=table.numbers[1:])
        else:
            table = replace(table, columns=_positions(len(first)))
    columns = table.columns or ()
    repeated = [name for name in columns if columns.count(name) > 1 and name]
    if repeated:
        raise DataError(f"{table.name} has the column {repeated[0]!r} twice; rename one of them")
    return table


def choose_columns(
    table: Table, text_column: str | None, label_column: str | None, *, wants_label: bool
) -> tuple[str, str | None]:
    """Names of the text column and of the label column (None if there is none, or none is wanted).

    What the user asks for is taken; else a usual name; else, of two columns, the label is the one whose values repeat
    (each twice or more on average; the more often of two such, the second of equals) and the text the other.

    Raises:
        DataError: a column asked for is absent, or the columns found are ambiguous.
    """
    columns = table.columns or ()
    text = None if text_column is None else find_column(table, text_column)
    label = None if label_column is None else find_column(table, label_column)
    if text is not None and text == label:
        raise DataError(f"{table.name}: column {text!r} is asked for as both text and label; {_REMEDY}")
    if label is None and (wants_label or text is None):
        label = _find_label(table, text)
    if text is None:
        named = [name for name in columns if name != label and _usual(name) in TEXT_NAMES]
        candidates = named or [name for name in columns if name != label]
        if len(candidates) != 1:
            raise DataError(f"{table.name}: cannot tell which column is the text; found {listed(columns)}; {_REMEDY}")
        text = candidates[0]
    return text, label if wants_label else None


def find_column(table: Table, column: str) -> str:
    """The name of ``column``, given by name or by 0-based index.

    Raises:
        DataError: there is no such column; the message lists those there are.
    """
    columns = table.columns or ()
    if column in columns:
        return column
    if column.isdecimal() and int(column) < len(columns):
        return columns[int(column)]
    raise DataError(f"{table.name} has no column {column!r}; found {listed(columns)}; {_REMEDY}")


def listed(columns: Iterable[Any]) -> str:
    """Column names for a message, in one line."""
    shown = tuple(str(column) for column in columns)
    if shown == _positions(len(shown)):
        return f"{len(shown)} columns without a header (0 … {len(shown) - 1})" if len(shown) > 1 else "one column (0)"
    return f"the columns {', '.join(' '.join(name.split())[:40] for name in shown)}"


def text_cells(table: Table, column: str) -> list[str]:
    """The texts of a column.

    Raises:
        DataError: a cell is blank, missing or not a string; the message gives its row in the file.
    """
    texts = []
    for number, cell in _cells(table, column):
        if _is_missing(cell) or (isinstance(cell, str) and not cell.strip()):
            raise DataError(
                f"{table.name}: row {number} has no text (column {column!r}); fill the cell or delete the row"
            )
        if not isinstance(cell, str):
            raise DataError(
                f"{table.name}: row {number} has {type(cell).__name__} {str(cell)[:40]!r} as text (column {column!r}); "
                "a string is needed; choose another --text-column"
            )
        texts.append(cell)
    return texts


def label_cells(table: Table, column: str) -> list[str]:
    """The labels of a column as strings: 1 and 1.0 become "1", true becomes "true"; outer spaces go.

    Raises:
        DataError: a label is missing, NaN or not a string, number or truth value; the message gives its row.
    """
    labels = []
    for number, cell in _cells(table, column):
        where = f"{table.name}: row {number}"
        if (isinstance(cell, float) and math.isnan(cell)) or (isinstance(cell, str) and cell.strip().lower() == "nan"):
            raise DataError(f"{where} has the label NaN (column {column!r}); give a class name or delete the row")
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            raise DataError(f"{where} has no label (column {column!r}); fill the cell or delete the row")
        if not isinstance(cell, str | int | float):
            raise DataError(
                f"{where} has the label {str(cell)[:40]!r} (column {column!r}, {type(cell).__name__}); "
                "a string or a number is needed; choose another --label-column"
            )
        if isinstance(cell, bool):
            cell = str(cell).lower()
        elif isinstance(cell, float) and cell.is_integer():
            cell = int(cell)
        labels.append(str(cell).strip())
    return labels


def _is_header(table: Table, asked: set[str | None]) -> bool:
    first, rest = table.rows[0], table.rows[1:]
    if not all(isinstance(cell, str) for cell in first):
        return False
    names = [cell.strip() for cell in first]
    if any(name in asked for name in names if not name.isdecimal()):
        return True
    for column, name in enumerate(names):
        below = [row[column] for row in rest]
        if _usual(name) in TEXT_NAMES + LABEL_NAMES and first[column] not in below:
            return True
        if len(below) > 1 and name and not _is_number(name) and all(map(_is_number, below)):
            return True
    return False


def _find_label(table: Table, text: str | None) -> str | None:
    columns = table.columns or ()
    others = [name for name in columns if name != text and (text is not None or _usual(name) not in TEXT_NAMES)]
    named = [name for name in others if _usual(name) in LABEL_NAMES]
    if len(named) > 1:
        raise DataError(f"{table.name}: cannot tell which column is the label; found {listed(columns)}; {_REMEDY}")
    if named:
        return named[0]
    if len(columns) != 2:
        return None
    distinct = {name: len({str(cell) for _, cell in _cells(table, name)}) for name in others}
    repeating = [name for name, count in distinct.items() if 2 * count <= len(table.rows)]
    return min(reversed(repeating), key=distinct.__getitem__, default=None)  # of equals, the second


def _cells(table: Table, column: str) -> Iterator[tuple[int, Any]]:
    position = (table.columns or ()).index(column)
    return ((number, row[position]) for number, row in zip(table.numbers, table.rows, strict=True))


def _usual(name: str) -> str:
    return name.strip().lower()


def _positions(width: int) -> tuple[str, ...]:
    return tuple(map(str, range(width)))


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _is_number(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True
