"""The numbers of a layer to and from the bit stream: every vector is what the edge holds, or zero, plus whole steps.

Both sides compute a new value with one float32 multiplication and one float32 addition a number, so they agree to
the bit. A layer's vectors (columns of u, rows of v, rows of the head) are handled together, end to end in flat
arrays; what is said about each of them (mode, step, table) is coded in columns, a column for each side and mode.
Layout: docs/format.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from airlora.codec.float16 import from_ordinal, ordinal, reach
from airlora.codec.parts import SIDES, Part
from airlora.codec.steps import EXACT_STEP_PER_CHANGE, FINEST_EXACT_STEP, GRID, STEPS, step_index
from airlora.codec.stream import Ledger, StreamReader, StreamWriter, smoothest
from airlora.codec.tables import GAUSSIAN, LAPLACE, LARGEST_COSTED, SHAPES, WIDTHS, categorical, cost_bits, symbol_table
from airlora.errors import TrainingError, UpdateError

SAME, ZERO, RESIDUAL, FRESH, EXACT_RESIDUAL, EXACT_FRESH = range(6)
"""Modes of a vector: it stays; it becomes zero; steps are added to what is held; steps are added to zero; and both of
these followed by what is missing to the nearest float16."""
MODES = 6
_SPLITS = (4, 64, 128, 192, 252)
"""Choices of how often, of 256, the second of two values occurs."""
_LARGEST_SYMBOL = 2**23


@dataclass(frozen=True, eq=False)
class Layout:
    """The vectors of a layer, end to end; empty ones do not count.

    Attributes:
        sides: (vectors,) int64, index into ``SIDES``.
        lengths: (vectors,) int64, numbers in each vector, at least 1.
    """

    sides: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Layout:
        """That of some parts."""
        full = [part for part in parts if part.length]
        counts = [part.count for part in full]
        sides = np.repeat(np.array([SIDES.index(part.side) for part in full], np.int64), counts)
        return cls(sides, np.repeat(np.array([part.length for part in full], np.int64), counts))

    @cached_property
    def starts(self) -> np.ndarray:
        """(vectors,) int64, where each vector starts."""
        return np.cumsum(self.lengths) - self.lengths

    def sums(self, numbers: np.ndarray) -> np.ndarray:
        """Sum of the numbers (n,) of each vector: (vectors,)."""
        return np.add.reduceat(numbers, self.starts) if len(self.starts) else np.zeros(0, numbers.dtype)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Values (vectors,) repeated for each of their numbers: (n,)."""
        return np.repeat(values, self.lengths)

    def pick(self, numbers: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """The numbers of some vectors, end to end."""
        starts, ends = self.starts[vectors].tolist(), (self.starts + self.lengths)[vectors].tolist()
        return np.concatenate([numbers[a:b] for a, b in zip(starts, ends, strict=True)])

    def put(self, numbers: np.ndarray, vectors: np.ndarray, values: np.ndarray) -> None:
        """Undo ``pick``: write the values of some vectors into their places."""
        at = 0
        for start, length in zip(self.starts[vectors].tolist(), self.lengths[vectors].tolist(), strict=True):
            numbers[start : start + length] = values[at : at + length]
            at += length


def write_numbers(
    stream: StreamWriter,
    layout: Layout,
    held: np.ndarray,
    target: np.ndarray,
    steps: np.ndarray,
    exact: np.ndarray,
    rounded: np.ndarray | None = None,
) -> np.ndarray:
    """Encode vectors and return what the edge will hold: (n,) float32.

    Args:
        stream: where to.
        layout: of the vectors.
        held: (n,) float32, the edge's values.
        target: (n,) float32, the cloud's, finite.
        steps: (vectors,) int64, grid index of each vector's step (see ``steps``); negative leaves it as it is held.
        exact: (vectors,) bool, send the rest too, so that the result is the target rounded to float16.
        rounded: (vectors,) bool, the target is whole steps from what is held or from zero: whichever it is.

    Raises:
        TrainingError: values are too large for their steps.
    """
    modes, symbols, steps = _choose(layout, held, target, steps, exact, rounded)
    tables = _tables(layout, modes, symbols)
    for side in range(len(SIDES)):
        _write_modes(stream, modes[layout.sides == side])
    for vectors in _classes(layout, modes):
        stream.column(steps[vectors], STEPS)
        _write_split(stream, tables[vectors] % SHAPES)
        stream.column(tables[vectors] // SHAPES, WIDTHS)
    for table, vectors in _by_table(modes, tables):
        stream.symbols(layout.pick(symbols, vectors), symbol_table(table % SHAPES, table // SHAPES))
    new, change, scale = _values(layout, modes, steps, held, symbols)
    rest = _rest(layout, modes)
    if rest is not None:
        low, sizes = reach(new[rest], change[rest], scale[rest])
        wanted = ordinal(target[rest])
        stream.uniforms(wanted - low, sizes)
        new[rest] = from_ordinal(wanted)
    return new


def read_numbers(stream: StreamReader, layout: Layout, held: np.ndarray) -> np.ndarray:
    """Decode what ``write_numbers`` wrote for vectors of which the edge holds ``held`` (n,) float32.

    Raises:
        UpdateError: it cannot have been written by ``write_numbers``.
    """
    modes = np.zeros(len(layout.sides), np.int64)
    steps, tables = np.zeros_like(modes), np.zeros_like(modes)
    for side in range(len(SIDES)):
        mine = layout.sides == side
        modes[mine] = _read_modes(stream, int(mine.sum()))
    stream.charge("modes")
    for vectors in _classes(layout, modes):
        steps[vectors] = stream.column(len(vectors), STEPS, "steps")
        stream.charge("steps")
        shapes = _read_split(stream, len(vectors))
        tables[vectors] = SHAPES * stream.column(len(vectors), WIDTHS, "widths") + shapes
        stream.charge("tables")
    symbols = np.zeros(len(held), np.int32)
    for table, vectors in _by_table(modes, tables):
        count = int(layout.lengths[vectors].sum())
        layout.put(symbols, vectors, stream.symbols(count, symbol_table(table % SHAPES, table // SHAPES)))
    stream.charge("symbols")
    new, change, scale = _values(layout, modes, steps, held, symbols)
    if not np.isfinite(new).all():
        raise UpdateError("a layer's numbers are NaN or infinite; none may be")
    rest = _rest(layout, modes)
    if rest is not None:
        low, sizes = reach(new[rest], change[rest], scale[rest])
        new[rest] = from_ordinal(low + stream.uniforms(sizes))
        stream.charge("exact")
    if stream.ledger:
        _note(stream.ledger, layout, modes, steps, tables, symbols, None if rest is None else np.log2(sizes))
    return new


def _rest(layout: Layout, modes: np.ndarray) -> np.ndarray | slice | None:
    """Which of the numbers (n,) have an exact stage; None if none has."""
    exact = modes >= EXACT_RESIDUAL
    if not exact.any():
        return None
    return slice(None) if exact.all() else layout.spread(exact)


def _note(
    ledger: Ledger,
    layout: Layout,
    modes: np.ndarray,
    steps: np.ndarray,
    tables: np.ndarray,
    symbols: np.ndarray,
    exact_bits: np.ndarray | None,
) -> None:
    table = layout.spread(tables)
    place = np.clip(symbols, -LARGEST_COSTED, LARGEST_COSTED) + LARGEST_COSTED
    bits = cost_bits()[table % SHAPES, table // SHAPES, place] * layout.spread(modes >= RESIDUAL)
    if exact_bits is not None:
        bits[layout.spread(modes >= EXACT_RESIDUAL)] += exact_bits
    ledger.modes, ledger.steps, ledger.vector_bits = modes, steps, layout.sums(bits)


def _choose(
    layout: Layout,
    held: np.ndarray,
    target: np.ndarray,
    steps: np.ndarray,
    exact: np.ndarray,
    rounded: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Modes (vectors,), symbols (n,) int32, steps (vectors,): the cheaper of residual and fresh; residual on a tie."""
    wide = target.astype(np.float64)
    change = wide - held
    energy, moved = layout.sums(wide * wide), layout.sums(change * change)
    if exact.any():
        steps = _exact_steps(steps, exact, energy, moved, layout.lengths)
    residual = moved <= energy
    scale = np.where(steps < 0, np.inf, GRID[steps])
    if rounded is not None and rounded.any():
        errors = [
            layout.sums(np.abs(x - np.rint(x))) for x in (change / layout.spread(scale), wide / layout.spread(scale))
        ]
        residual = np.where(rounded, errors[0] <= errors[1], residual)
    wanted = change if residual.all() else np.where(layout.spread(residual), change, wide)
    numbers = np.rint(wanted / layout.spread(scale))
    largest = max(float(numbers.max(initial=0)), -float(numbers.min(initial=0)))
    if largest >= _LARGEST_SYMBOL:
        raise TrainingError(
            f"training diverged: values of {largest:.3g} quantiser steps cannot be sent; start again with a lower --lr"
            " (rounds finished before are kept)"
        )
    symbols = numbers.astype(np.int32)
    some = layout.sums((symbols != 0).astype(np.int64)) > 0
    modes = np.where(residual, np.where(some, RESIDUAL, SAME), np.where(some, FRESH, ZERO))
    modes[(energy == 0) & (steps >= 0)] = ZERO
    if exact.any():
        rounded = from_ordinal(ordinal(target))
        differs = layout.sums((rounded != held).astype(np.int64)) > 0
        nonzero = layout.sums((rounded != 0).astype(np.int64)) > 0
        exactly = np.where(residual, EXACT_RESIDUAL, EXACT_FRESH)
        modes = np.where(exact, np.where(nonzero, exactly, ZERO), modes)
        modes = np.where(exact & ~differs, SAME, modes)
    modes[steps < 0] = SAME
    modes[(modes == ZERO) & (layout.sums((held != 0).astype(np.int64)) == 0)] = SAME
    if (modes < RESIDUAL).any():
        symbols[layout.spread(modes < RESIDUAL)] = 0
    return modes, symbols, steps


def _exact_steps(
    steps: np.ndarray, exact: np.ndarray, energy: np.ndarray, moved: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Finer steps for small changes that are sent exactly: a few spacings of float16 at least."""
    with np.errstate(divide="ignore"):
        change, rms = np.sqrt(np.minimum(moved, energy) / lengths), np.sqrt(energy / lengths)
        finer = step_index(np.maximum(EXACT_STEP_PER_CHANGE * change, FINEST_EXACT_STEP * rms))
    return np.where(exact & (steps >= 0), np.minimum(steps, finer), steps)


def _tables(layout: Layout, modes: np.ndarray, symbols: np.ndarray) -> np.ndarray:
    """For each vector, SHAPES · width + shape of its table: the cheapest, with what it costs to say so."""
    tables = np.zeros(len(modes), np.int64)
    if not symbols.any():
        return tables
    bits = _histogram_bits(layout, symbols)
    for vectors in _classes(layout, modes):
        mine = bits[vectors]  # (vectors, SHAPES, WIDTHS)
        laplace = np.mean(mine[:, LAPLACE].min(axis=1) < mine[:, GAUSSIAN].min(axis=1))
        share = np.clip(np.array([1 - laplace, laplace]), 1 / 64, 1)
        mine = mine - np.log2(share, dtype=np.float32)[:, None]
        widths = smoothest(mine.min(axis=1))
        tables[vectors] = SHAPES * widths + mine[np.arange(len(vectors)), :, widths].argmin(axis=1)
    return tables


def _histogram_bits(layout: Layout, symbols: np.ndarray) -> np.ndarray:
    """Bits of the symbols of each vector in each table: (vectors, SHAPES, WIDTHS) float32."""
    symbols = np.clip(symbols, -LARGEST_COSTED, LARGEST_COSTED)
    first = int(symbols.min())
    span = int(symbols.max()) - first + 1
    count = len(layout.lengths)
    place = symbols - first + layout.spread(np.arange(count) * span)
    histograms = np.bincount(place, minlength=count * span).reshape(count, span).astype(np.float32)
    costs = cost_bits()[:, :, LARGEST_COSTED + first : LARGEST_COSTED + first + span]
    return (histograms @ costs.reshape(-1, span).T).reshape(count, SHAPES, WIDTHS)


def _classes(layout: Layout, modes: np.ndarray) -> list[np.ndarray]:
    """The vectors of each side and mode that sends symbols, where there are any."""
    keys = layout.sides * MODES + modes
    return [np.flatnonzero(keys == key) for key in np.unique(keys).tolist() if key % MODES >= RESIDUAL]


def _by_table(modes: np.ndarray, tables: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(table, vectors) of each table in use, ascending."""
    coded = np.flatnonzero(modes >= RESIDUAL)
    return [(int(table), coded[tables[coded] == table]) for table in np.unique(tables[coded])]


def _values(
    layout: Layout, modes: np.ndarray, steps: np.ndarray, held: np.ndarray, symbols: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(new values, symbol × step, step), (n,) float32 each."""
    scale = layout.spread(GRID[np.maximum(steps, 0)])
    with np.errstate(over="ignore", invalid="ignore"):
        change = symbols.astype(np.float32) * scale
        from_zero = (modes == FRESH) | (modes == EXACT_FRESH) | (modes == ZERO)
        base = np.where(layout.spread(from_zero), np.float32(0), held) if from_zero.any() else held
        new = base + change
    same = modes == SAME
    if same.any():  # not held + 0, which would lose the sign of a zero
        new = np.where(layout.spread(same), held, new)
    return new, change, scale


@cache
def _two_valued(size: int, first: int, second: int, split: int) -> Any:
    """A table in which one value is the most frequent and another takes a chosen share of the rest."""
    frequencies = np.full(size, 4 if size > 2 else 0)
    room = 256 - int(frequencies.sum()) + int(frequencies[first] + frequencies[second])
    frequencies[second] = max(room * _SPLITS[split] // 256, 1)
    frequencies[first] = room - frequencies[second]
    return categorical(frequencies, 256)


def _write_modes(stream: StreamWriter, modes: np.ndarray) -> None:
    if not len(modes):
        return
    order = np.argsort(-np.bincount(modes, minlength=MODES), kind="stable")
    first, second = int(order[0]), int(order[1])
    share = float((modes == second).mean())
    split = min(range(3), key=lambda index: abs(_SPLITS[index] / 256 - share))
    stream.uniform(first, MODES)
    stream.uniform((second - first - 1) % MODES, MODES - 1)
    stream.uniform(split, 3)
    stream.choices(modes.astype(np.int32), _two_valued(MODES, first, second, split))


def _read_modes(stream: StreamReader, count: int) -> np.ndarray:
    if not count:
        return np.zeros(0, np.int32)
    first = stream.uniform(MODES)
    second = (first + 1 + stream.uniform(MODES - 1)) % MODES
    return stream.choices(count, _two_valued(MODES, first, second, stream.uniform(3)))


def _write_split(stream: StreamWriter, shapes: np.ndarray) -> None:
    split = int(np.abs(np.array(_SPLITS) / 256 - shapes.mean()).argmin())
    stream.uniform(split, len(_SPLITS))
    stream.choices(shapes.astype(np.int32), _two_valued(2, 0, 1, split))


def _read_split(stream: StreamReader, count: int) -> np.ndarray:
    return stream.choices(count, _two_valued(2, 0, 1, stream.uniform(len(_SPLITS))))
