"""Probability tables of quantised numbers: discretised Gaussian and Laplace distributions on a grid of widths.

A vector of symbols is coded with the table that suits it best, named by its shape and width, so that no table is
transmitted. Frequencies are integers that sum to ``TOTAL``; how they come about is in docs/format.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import ceil, erfc, exp, log2, sqrt
from typing import Any

import constriction
import numpy as np

TOTAL = 1 << 16
WIDTHS = 45
"""Widths of a shape: standard deviation 2^(i/4 - 3) steps, from 1/8 to 256."""
SHAPES = 2
GAUSSIAN, LAPLACE = range(SHAPES)
ESCAPE_BITS = 5.58
"""Bits of an escape's sign and exponent; as many more as the exponent follow."""


def width_of(index: int) -> float:
    """Standard deviation, in steps, that width ``index`` stands for."""
    return 2.0 ** (index / 4 - 3)


def width_index(deviation: float) -> int:
    """Index of the nearest width, on a log scale, of a standard deviation in steps (above 0)."""
    return min(max(round(4 * (log2(deviation) + 3)), 0), WIDTHS - 1)


@dataclass(frozen=True, eq=False)
class SymbolTable:
    """One distribution over the symbols -limit … limit and, last, the escape for anything larger.

    Attributes:
        limit: largest magnitude with a symbol of its own.
        frequencies: (2 limit + 2,) int64, at least 1 each, sum ``TOTAL``.
        model: the same for the entropy coder.
    """

    limit: int
    frequencies: np.ndarray
    model: Any


@cache
def symbol_table(shape: int, width: int) -> SymbolTable:
    """The table of a shape and a width index."""
    deviation = width_of(width)
    if shape == GAUSSIAN:
        limit = ceil(4.5 * deviation) + 1

        def tail(x: float) -> float:
            return 0.5 * erfc(x / (deviation * sqrt(2)))

    else:
        limit = ceil(6 * deviation) + 1

        def tail(x: float) -> float:
            return 0.5 * exp(-x * sqrt(2) / deviation)

    tails = [tail(k + 0.5) for k in range(limit + 1)]  # P(X > k + 1/2)
    side = [max(1, int((tails[k - 1] - tails[k]) * TOTAL)) for k in range(1, limit + 1)]
    escape = max(1, int(2 * tails[limit] * TOTAL))
    zero = TOTAL - 2 * sum(side) - escape
    frequencies = np.array([*reversed(side), zero, *side, escape])
    return SymbolTable(limit, frequencies, categorical(frequencies, TOTAL))


@cache
def mean_bits(width: int) -> float:
    """Entropy of the Gaussian table of a width, in bits a number."""
    table = symbol_table(0, width)
    p = table.frequencies / TOTAL
    return float(-(p * np.log2(p)).sum())


def categorical(frequencies: np.ndarray, total: int) -> Any:
    """The coder's model of integer frequencies; ``total`` is a power of two, so their ratios are exact."""
    return constriction.stream.model.Categorical(np.asarray(frequencies, np.float64) / total, perfect=False)


LARGEST_COSTED = ceil(6 * width_of(WIDTHS - 1)) + 1
"""Magnitudes above it cost what it costs, for the purpose of choosing a table."""


@cache
def cost_bits() -> np.ndarray:
    """Bits of every symbol in every table: (SHAPES, WIDTHS, 2 LARGEST_COSTED + 1) float32, symbol 0 in the middle."""
    magnitudes = np.abs(np.arange(-LARGEST_COSTED, LARGEST_COSTED + 1))
    costs = np.empty((SHAPES, WIDTHS, len(magnitudes)), np.float32)
    for shape in range(SHAPES):
        for width in range(WIDTHS):
            table = symbol_table(shape, width)
            bits = -np.log2(table.frequencies / TOTAL)
            inside = magnitudes <= table.limit
            suffix = ESCAPE_BITS + np.floor(np.log2(np.maximum(magnitudes[~inside] - table.limit, 1)))
            costs[shape, width, inside] = bits[:-1]
            costs[shape, width, ~inside] = bits[-1] + suffix
    return costs
