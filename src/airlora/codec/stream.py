"""The bit stream of a layer: integers through one ANS coder (Duda 2013), constriction's with its default precision.

The writer collects what it is given and encodes it last to first, as a stack coder must; the reader then gets
it first to last. Layout: docs/format.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import constriction
import numpy as np

from airlora.codec.tables import LAPLACE, LARGEST_COSTED, SymbolTable, cost_bits, symbol_table
from airlora.errors import UpdateError

COLUMN_TABLES = 16
"""Widths of the Laplace tables that the differences within a column are coded with."""
_LARGEST_EXPONENT = 23
"""Escaped magnitudes have at most 23 bits beyond their leading one."""
_SWEEPS = 2
_UNIFORMS: Any = constriction.stream.model.Uniform()


@cache
def _uniform(size: int) -> Any:
    return constriction.stream.model.Uniform(size)


@dataclass(eq=False)
class Ledger:
    """Where the bits of a layer's body went, filled while it is read.

    Attributes:
        bits: by what they are for: pieces, modes, steps, tables, symbols, exact.
        modes: (vectors,) of its vectors.
        steps: (vectors,) grid index of their steps, where they have one.
        vector_bits: (vectors,) bits of their symbols and exact stages.
    """

    bits: dict[str, float] = field(default_factory=dict)
    modes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    steps: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    vector_bits: np.ndarray = field(default_factory=lambda: np.zeros(0))


class StreamWriter:
    """Collects integers and turns them into bytes."""

    def __init__(self) -> None:
        self._operations: list[tuple[Any, ...]] = []

    def uniform(self, value: int, size: int) -> None:
        """One of ``size`` equally likely values."""
        if size > 1:
            self._operations.append((value, _uniform(size)))

    def uniforms(self, values: np.ndarray, sizes: np.ndarray) -> None:
        """Values (n,) int32, each of its own size (n,) int32."""
        several = sizes > 1
        if not several.all():
            values, sizes = values[several], sizes[several]
        if len(values):
            self._operations.append((values, _UNIFORMS, sizes))

    def choices(self, values: np.ndarray, table: Any) -> None:
        """Values (n,) int32 of a small alphabet with a table of its own."""
        if len(values):
            self._operations.append((values, table))

    def symbols(self, values: np.ndarray, table: SymbolTable) -> None:
        """Integers (n,) int32; those beyond the table's limit follow them, Elias-gamma coded.

        Raises:
            ValueError: an integer is too large.
        """
        outside = np.abs(values) > table.limit
        index = np.where(outside, 2 * table.limit + 1, values + table.limit)
        self._operations.append((index.astype(np.int32), table.model))
        for value in values[outside].tolist():
            rest = abs(value) - table.limit
            exponent = rest.bit_length() - 1
            if exponent > _LARGEST_EXPONENT:
                raise ValueError(f"a symbol of {value} is beyond what the format holds, 2^24")
            self.uniform(int(value < 0), 2)
            self.uniform(exponent, _LARGEST_EXPONENT + 1)
            self.uniform(rest - (1 << exponent), 1 << exponent)

    def column(self, values: np.ndarray, size: int) -> None:
        """Integers (n,) in 0 … ``size`` - 1 that are like their neighbours: the first, then the differences."""
        if not len(values):
            return
        self.uniform(int(values[0]), size)
        if len(values) > 1:
            differences = np.diff(values).astype(np.int32)
            width = _column_table(differences)
            self.uniform(width, COLUMN_TABLES)
            self.symbols(differences, symbol_table(LAPLACE, width))

    def finish(self) -> bytes:
        """The stream as little-endian 32-bit words."""
        coder = constriction.stream.stack.AnsCoder()
        for operation in reversed(self._operations):
            coder.encode_reverse(*operation)
        return coder.get_compressed().astype("<u4").tobytes()


class StreamReader:
    """Reads what a ``StreamWriter`` wrote. Any bytes decode to something; ``finish`` tells whether they were a stream.

    Args:
        data: the bytes.
        ledger: where ``charge`` adds bits, if they are to be counted.

    Attributes:
        ledger: the same.

    Raises:
        UpdateError: the length is not a multiple of four.
    """

    def __init__(self, data: bytes | memoryview, ledger: Ledger | None = None) -> None:
        if len(data) % 4:
            raise UpdateError(f"a layer's body has {len(data)} bytes, not a multiple of 4; receive it again")
        words = np.frombuffer(data, "<u4").astype(np.uint32)
        if len(words) and not words[-1]:
            raise UpdateError("a layer's body ends in a zero word; receive it again")
        self._coder = constriction.stream.stack.AnsCoder(words)
        self.ledger = ledger
        self._left = 8.0 * len(data)

    def charge(self, label: str) -> None:
        """Add the bits read since the last charge to the ledger."""
        if self.ledger is not None:
            left = float(self._coder.num_valid_bits())
            self.ledger.bits[label] = self.ledger.bits.get(label, 0.0) + self._left - left
            self._left = left

    def uniform(self, size: int) -> int:
        """One of ``size`` equally likely values."""
        return int(self._coder.decode(_uniform(size))) if size > 1 else 0

    def uniforms(self, sizes: np.ndarray) -> np.ndarray:
        """Values (n,) int32, each of its own size (n,) int32."""
        several = sizes > 1
        if several.all():
            return np.asarray(self._coder.decode(_UNIFORMS, sizes)) if len(sizes) else np.zeros(0, np.int32)
        values = np.zeros(len(sizes), np.int32)
        if several.any():
            values[several] = self._coder.decode(_UNIFORMS, sizes[several])
        return values

    def choices(self, count: int, table: Any) -> np.ndarray:
        """Values (count,) int32 of a small alphabet with a fixed table."""
        return np.asarray(self._coder.decode(table, count)) if count else np.zeros(0, np.int32)

    def symbols(self, count: int, table: SymbolTable) -> np.ndarray:
        """Integers (count,) int32."""
        index = self._coder.decode(table.model, count)
        values = index - np.int32(table.limit)
        escapes = index > 2 * table.limit
        for position in np.flatnonzero(escapes).tolist() if escapes.any() else ():
            negative = self.uniform(2)
            exponent = self.uniform(_LARGEST_EXPONENT + 1)
            magnitude = table.limit + (1 << exponent) + self.uniform(1 << exponent)
            values[position] = -magnitude if negative else magnitude
        return values

    def column(self, count: int, size: int, what: str) -> np.ndarray:
        """Integers (count,) int64 in 0 … ``size`` - 1; ``what`` names them in errors.

        Raises:
            UpdateError: one is out of range.
        """
        if not count:
            return np.zeros(0, np.int64)
        values = np.full(count, self.uniform(size), np.int64)
        if count > 1:
            width = self.uniform(COLUMN_TABLES)
            values[1:] += np.cumsum(self.symbols(count - 1, symbol_table(LAPLACE, width)), dtype=np.int64)
            if values.min() < 0 or values.max() >= size:
                raise UpdateError(f"a layer's {what} reach from {values.min()} to {values.max()}, not 0…{size - 1}")
        return values

    def finish(self) -> None:
        """Check that the stream ends here.

        Raises:
            UpdateError: bytes are left, or there were too few.
        """
        if not self._coder.is_empty():
            raise UpdateError("a layer's body does not end where its numbers do; receive it again")


def smoothest(bits: np.ndarray) -> np.ndarray:
    """A column of values that is cheap together with what the values stand for.

    Every second value is set to the best between its neighbours, then the others, a few times.

    Args:
        bits: (n, values), cost of each value at each place of the column.

    Returns:
        (n,) int64.
    """
    count, size = bits.shape
    column = bits.argmin(axis=1)
    if count == 1:
        return column
    for _ in range(_SWEEPS):
        table = _column_table(np.diff(column))
        middle = LARGEST_COSTED
        by_difference = cost_bits()[LAPLACE, table, middle - size : middle + size + 1]
        between = by_difference[size + np.arange(size)[:, None] - np.arange(size)]  # (of the place, of a neighbour)
        for start in (0, 1):
            total = bits[start::2].copy()
            before, after = column[1 - start : count - 1 : 2], column[start + 1 :: 2]
            total[1 - start :] += between[:, before].T
            total[: len(after)] += between.T[:, after].T
            column[start::2] = total.argmin(axis=1)
    return column


def _column_table(differences: np.ndarray) -> int:
    """The cheapest Laplace table of a column's differences (n,)."""
    costs = cost_bits()[LAPLACE, :COLUMN_TABLES, differences + LARGEST_COSTED]  # (n, tables)
    return int(costs.sum(axis=0).argmin())
