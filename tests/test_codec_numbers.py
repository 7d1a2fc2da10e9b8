"""Tables, bit stream, float16 and the numbers of a layer: exact round trips, whatever the values."""

import hashlib
from math import ceil, erfc, exp, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from airlora.codec.float16 import from_ordinal, ordinal, reach
from airlora.codec.numbers import Layout, read_numbers, write_numbers
from airlora.codec.parts import HEAD, Part, U, V
from airlora.codec.steps import GRID, STEP_PER_RMS, STEPS, relative_steps, step_index
from airlora.codec.stream import COLUMN_TABLES, StreamReader, StreamWriter, smoothest
from airlora.codec.tables import (
    GAUSSIAN,
    LAPLACE,
    LARGEST_COSTED,
    SHAPES,
    TOTAL,
    WIDTHS,
    cost_bits,
    mean_bits,
    symbol_table,
    width_of,
)
from airlora.errors import TrainingError, UpdateError

ALL_TABLES = [(shape, width) for shape in range(SHAPES) for width in range(WIDTHS)]


def test_the_frequencies_of_all_tables_are_what_they_always_were() -> None:
    digest = hashlib.sha256()
    for shape, width in ALL_TABLES:
        frequencies = symbol_table(shape, width).frequencies
        assert frequencies.sum() == TOTAL
        assert frequencies.min() >= 1
        assert (frequencies[:-1] == frequencies[:-1][::-1]).all()
        digest.update(frequencies.astype("<u4").tobytes())
    assert digest.hexdigest()[:32] == "c6867f50e1840751d40b0cb6249b34ca"


def test_no_frequency_hangs_on_the_last_bits_of_erfc_or_exp() -> None:
    """Each is at least 1e-5 from where it would round to another integer: libraries differ by less than 1e-10."""
    for shape, width in ALL_TABLES:
        deviation, limit = width_of(width), symbol_table(shape, width).limit
        assert limit == ceil((4.5 if shape == GAUSSIAN else 6) * deviation) + 1
        x = [k + 0.5 for k in range(limit + 1)]
        if shape == GAUSSIAN:
            tails = np.array([erfc(value / (deviation * sqrt(2))) for value in x]) / 2
        else:
            tails = np.array([exp(-value * sqrt(2) / deviation) for value in x]) / 2
        for frequency in (*((tails[:-1] - tails[1:]) * TOTAL), 2 * tails[-1] * TOTAL):
            assert frequency < 0.99 or abs(frequency - round(frequency)) > 1e-5


def test_a_table_of_the_right_width_costs_the_entropy_of_its_distribution() -> None:
    rng = np.random.default_rng(0)
    for width in (12, 18, 24):
        symbols = np.rint(rng.normal(0, width_of(width), 200_000)).astype(int)
        costs = cost_bits()[:, :, symbols + LARGEST_COSTED].mean(axis=2)
        assert np.unravel_index(costs.argmin(), costs.shape) == (GAUSSIAN, width)
        assert costs[GAUSSIAN, width] == pytest.approx(mean_bits(width), rel=0.005)
    assert mean_bits(24) == pytest.approx(np.log2(width_of(24) * sqrt(2 * np.pi * np.e)), abs=0.01)


def test_the_grid_of_steps_by_hand() -> None:
    assert len(GRID) == STEPS
    assert GRID[160] == 1
    assert GRID[164] == 2
    assert GRID[0] == 2.0**-40
    assert GRID[161] == np.float32(1.1892071)
    assert step_index(np.array([1.0, 1.1, 0.0, 2.0, np.inf])).tolist() == [160, 161, 0, 164, 255]
    assert list(STEP_PER_RMS.values()) == [1.3125, 0.65625, 0.328125, 0.08203125, 0.0205078125, 0.0205078125]


def test_water_filling_gives_strong_components_finer_steps() -> None:
    steps = relative_steps(np.array([4.0, 1.0, 0.25]), np.ones(3))
    assert steps[0, 0] == 1
    assert np.allclose(steps[1, :2], [0.5**0.5, 2**0.5])
    assert np.allclose(steps[2], [0.5, 1, 2])
    assert np.allclose(np.prod(steps[2]), 1)


integers = st.integers(-(2**23) + 1, 2**23 - 1) | st.integers(-40, 40)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_stream_reads_what_was_written(data: st.DataObject) -> None:
    table = symbol_table(*data.draw(st.sampled_from(ALL_TABLES)))
    symbols = np.array(data.draw(st.lists(integers, max_size=20)), np.int32)
    size = data.draw(st.integers(1, 300))
    column = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=20)), np.int64)
    sizes = np.array(data.draw(st.lists(st.integers(1, 2**17), max_size=10)), np.int32)
    values = np.array([data.draw(st.integers(0, s - 1)) for s in sizes.tolist()], np.int32)
    writer = StreamWriter()
    writer.symbols(symbols, table)
    writer.column(column, size)
    writer.uniforms(values, sizes)
    writer.uniform(size - 1, size)
    reader = StreamReader(writer.finish())
    assert reader.symbols(len(symbols), table).tolist() == symbols.tolist()
    assert reader.column(len(column), size, "values").tolist() == column.tolist()
    assert reader.uniforms(sizes).tolist() == values.tolist()
    assert reader.uniform(size) == size - 1
    reader.finish()


def test_a_stream_that_is_too_long_too_short_or_not_words_is_refused() -> None:
    writer = StreamWriter()
    writer.symbols(np.arange(-20, 20, dtype=np.int32), symbol_table(LAPLACE, 16))
    data = writer.finish()
    with pytest.raises(UpdateError, match="not a multiple of 4"):
        StreamReader(data[:-1])
    with pytest.raises(UpdateError, match="ends in a zero word"):
        StreamReader(data + bytes(4))
    for changed in (data[:-4], data[4:], b"\1\0\0\0" + data):
        reader = StreamReader(changed)
        reader.symbols(40, symbol_table(LAPLACE, 16))
        with pytest.raises(UpdateError, match="does not end where its numbers do"):
            reader.finish()


def test_a_symbol_beyond_the_format_is_refused() -> None:
    with pytest.raises(ValueError, match="beyond what the format holds"):
        StreamWriter().symbols(np.array([2**25], np.int32), symbol_table(GAUSSIAN, 0))


def test_a_column_out_of_range_is_refused() -> None:
    writer = StreamWriter()
    writer.uniform(250, 252)
    writer.uniform(15, COLUMN_TABLES)
    writer.symbols(np.array([5, -6], np.int32), symbol_table(LAPLACE, 15))
    with pytest.raises(UpdateError, match=r"a layer's steps reach from 249 to 255, not 0…251"):
        StreamReader(writer.finish()).column(3, 252, "steps")


def test_a_smooth_column_costs_no_more_than_the_cheapest_values() -> None:
    rng = np.random.default_rng(0)
    bits = np.abs(np.arange(30) - rng.normal(15, 2, 40)[:, None]).astype(np.float32)

    def written(column: np.ndarray) -> float:
        writer = StreamWriter()
        writer.column(column, 30)
        return 8 * len(writer.finish()) + float(bits[np.arange(40), column].sum())

    assert written(smoothest(bits)) < 0.8 * written(bits.argmin(axis=1))
    assert smoothest(bits[:1]).tolist() == bits[:1].argmin(axis=1).tolist()


FLOAT16 = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)


def test_float16_as_integers_are_in_order_and_come_back() -> None:
    finite = np.unique(FLOAT16[np.isfinite(FLOAT16)])
    ordinals = ordinal(finite)
    assert (np.diff(ordinals) == 1).all()
    assert ordinals[[0, -1]].tolist() == [-31743, 31743]
    np.testing.assert_array_equal(from_ordinal(ordinals), finite)
    assert ordinal(np.float32([1e9, -np.inf, 0.0, -0.0])).tolist() == [31743, -31743, 0, 0]


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(np.float32, 8, elements=st.floats(-1e5, 1e5, width=32)),
    hnp.arrays(np.float32, 8, elements=st.floats(-1e5, 1e5, width=32)),
    st.integers(60, 200),
)
def test_a_quantised_target_is_always_within_reach(target: np.ndarray, held: np.ndarray, index: int) -> None:
    step = np.full(8, GRID[index])
    for base in (held, np.zeros(8, np.float32)):
        symbols = np.rint((target.astype(np.float64) - base) / step)
        if np.abs(symbols).max() < 2**23:
            change = symbols.astype(np.float32) * step
            low, sizes = reach(base + change, change, step)
            offset = ordinal(target) - low
            assert ((offset >= 0) & (offset < sizes)).all()


def round_trip(
    held: list[np.ndarray], target: list[np.ndarray], steps: list[int], exact: list[bool]
) -> list[np.ndarray]:
    """Vectors (alternately of u, v and the head) there and back; checks that both sides agree."""
    layout = Layout.of([Part((U, V, HEAD)[i % 3], 0, 0, 1, len(x)) for i, x in enumerate(target)])
    flat_held = np.concatenate([*held, np.zeros(0, np.float32)])
    keep = [i for i, x in enumerate(target) if len(x)]
    writer = StreamWriter()
    wrote = write_numbers(
        writer,
        layout,
        flat_held,
        np.concatenate([*target, np.zeros(0, np.float32)]),
        np.array([steps[i] for i in keep], np.int64),
        np.array([exact[i] for i in keep], bool),
    )
    reader = StreamReader(writer.finish())
    read = read_numbers(reader, layout, flat_held)
    reader.finish()
    assert read.tobytes() == wrote.tobytes()
    return np.split(read, np.cumsum([len(x) for x in target])[:-1])


vectors = st.integers(0, 9).flatmap(
    lambda n: st.tuples(
        *[hnp.arrays(np.float32, n, elements=st.floats(-100, 100, width=32) | st.just(0.0))] * 2,
        st.integers(-1, 200),
        st.booleans(),
    )
)


@settings(max_examples=150, deadline=None)
@given(st.lists(vectors, min_size=1, max_size=7))
def test_38_any_vectors_come_back_within_half_a_step_or_exactly(cases: list) -> None:
    """Constant, empty, single, zero and mixed vectors, held or new, at any step."""
    held, target, steps, exact = map(list, zip(*cases, strict=True))
    steps = [step if step < 0 else max(step, 100) for step in steps]  # below 2^-15, it is refused
    for found, was, want, step, is_exact in zip(
        round_trip(held, target, steps, exact), *map(list, (held, target, steps, exact)), strict=True
    ):
        if step < 0:
            np.testing.assert_array_equal(found, was)
        elif is_exact:
            np.testing.assert_array_equal(found, want.astype(np.float16).astype(np.float32))
        else:
            assert (np.abs(found.astype(np.float64) - want) <= 0.5001 * GRID[step] + 1e-4).all()


@pytest.mark.parametrize("size", [1, 2, 300])
def test_38_outliers_and_constants_by_hand(size: int) -> None:
    constant = np.full(size, 3.0, np.float32)
    outlier = constant.copy()
    outlier[-1] = -1e5
    zero = np.zeros(size, np.float32)
    found = round_trip([zero, zero, constant, constant], [constant, outlier, zero, constant], [148] * 4, [False] * 4)
    assert np.abs(found[0] - 3).max() <= 1 / 16
    assert np.abs(found[1] - outlier).max() <= 1 / 16
    assert not found[2].any()
    np.testing.assert_array_equal(found[3], constant)


def test_values_of_too_many_steps_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"values of 1\.1e\+12 quantiser steps cannot be sent"):
        round_trip([np.zeros(2, np.float32)], [np.full(2, 1.0, np.float32)], [0], [False])


def test_the_cheaper_of_residual_and_fresh_is_sent() -> None:
    rng = np.random.default_rng(0)
    old, change, other = rng.normal(0, 1, (3, 2000)).astype(np.float32)

    def size(target: np.ndarray) -> int:
        layout = Layout.of([Part(U, 0, 0, 1, 2000)])
        writer = StreamWriter()
        write_numbers(writer, layout, old, target, np.array([154]), np.array([False]))
        return len(writer.finish())

    fresh = size(other)
    assert size(old + change * 0.1) < 0.3 * fresh
    assert size(old * 100) < size(other * 100 + old) * 1.1
    assert size(old) <= 8
