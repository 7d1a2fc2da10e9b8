"""Measures by hand-computed answers, and Bjøntegaard's difference where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlora.compare.bjontegaard import pareto_front, rate_difference
from airlora.compare.measures import (
    RadioPower,
    area_under_gain,
    bytes_to_gain,
    gain,
    reception_energy_j,
    reward,
    time_average,
)
from airlora.errors import InputError


def test_gain_turns_the_sign_where_lower_is_better():
    assert gain([0.5, 0.8], 0.6, higher_is_better=True) == pytest.approx([-0.1, 0.2])
    assert gain([3.0, 2.5], 2.9, higher_is_better=False) == pytest.approx([-0.1, 0.4])


def test_time_average_counts_the_base_until_the_first_update_has_arrived():
    # 0 … 2 s: base 0; 2 … 11 s: 1; 11 … 20 s: 3.
    assert time_average([0, 10], [2, 1], [1.0, 3.0], 0.0, 5.0) == pytest.approx((2 * 0 + 9 * 1 + 9 * 3) / 20)


def test_time_average_of_one_round_uses_the_deadline_as_its_period():
    assert time_average([7], [1], [2.0], 1.0, 4.0) == pytest.approx((1 * 1.0 + 3 * 2.0) / 4)


def test_rounds_that_are_not_equally_far_apart_weigh_by_time():
    assert time_average([0, 1, 9], [0, 0, 0], [1.0, 2.0, 3.0], 0.0, 1.0) == pytest.approx((1 + 8 * 2 + 8 * 3) / 17)


@settings(max_examples=30)
@given(
    quality=st.lists(st.floats(-5, 5), min_size=1, max_size=12),
    airtime=st.floats(0, 1),
    base=st.floats(-5, 5),
)
def test_time_average_lies_between_its_values(quality, airtime, base):
    rounds = len(quality)
    average = time_average(np.arange(rounds), np.full(rounds, airtime), quality, base, 1.0)
    assert min(*quality, base) - 1e-9 <= average <= max(*quality, base) + 1e-9


def test_bytes_to_gain_is_the_sum_up_to_the_first_round_that_gets_there():
    sent, gains = [100, 50, 70, 10], [0.2, 0.91, 0.5, 1.0]
    assert bytes_to_gain(sent, gains, 1.0, 0.9) == 150
    assert bytes_to_gain(sent, gains, 1.0, 0.95) == 230
    assert bytes_to_gain(sent, gains, 1.2, 0.95) is None


@pytest.mark.parametrize("target", [0.0, -0.3])
def test_without_a_gain_of_the_cloud_there_is_no_target(target):
    assert bytes_to_gain([1], [5.0], target, 0.9) is None
    assert area_under_gain([1], [5.0], target, 100) is None


def test_area_under_gain_by_hand():
    # A file is 1000 bytes; over 1 … 1000 bytes (three decades): nothing until 10 bytes, half until 100, then all.
    assert area_under_gain([10, 90], [0.5, 1.0], 1.0, 1000, (1e-3, 1.0)) == pytest.approx((0 + 0.5 + 1.0) / 3)


def test_reward_by_hand():
    assert reward([0.5, 2.0], [1.0, 3.0], 4.0, 2.0, 0.1) == pytest.approx((0.25 - 0.025 + 0.75 - 0.1) / 2)
    assert reward([0.5, 2.0], [1.0, 3.0], 4.0, 2.0, 0.0) == pytest.approx(0.5)
    assert reward([0.5], [1.0], 0.0, 2.0, 1.0) is None


def test_area_under_gain_clips_to_its_range():
    everything_at_once = area_under_gain([1], [2.0], 2.0, 1000, (0.01, 10.0))
    assert everything_at_once == pytest.approx(1.0)
    assert area_under_gain([10**9], [2.0], 2.0, 1000, (0.01, 10.0)) == pytest.approx(0.0)
    assert area_under_gain([0, 0], [0.0, 0.0], 2.0, 1000) == pytest.approx(0.0)


def test_a_worse_model_than_the_base_has_a_negative_area():
    assert area_under_gain([100], [-1.0], 2.0, 1000, (0.1, 10.0)) == pytest.approx(-0.5)


@settings(max_examples=30)
@given(st.integers(1, 10**6), st.floats(1.1, 50))
def test_fewer_bytes_for_the_same_gains_never_lower_the_area(size, factor):
    gains = [0.1, 0.6, 1.0]
    frugal = area_under_gain([size] * 3, gains, 1.0, 10**5)
    wasteful = area_under_gain([size * factor] * 3, gains, 1.0, 10**5)
    assert frugal is not None
    assert wasteful is not None
    assert frugal >= wasteful - 1e-12


def test_energy_is_base_power_over_airtime_and_so_much_a_bit():
    power = RadioPower("test", base_w=2.0, w_per_mbps=0.5)
    assert reception_energy_j(3.0, 250_000, power) == pytest.approx(2 * 3 + 0.5 * 2)  # 250 kB are 2 Mbit


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bytes_to_gain([1], [1.0], 1.0, 1.5), "at most 1"),
        (lambda: bytes_to_gain([1, 2], [1.0], 1.0, 0.9), "one value a round"),
        (lambda: time_average([], [], [], 0.0, 1.0), "one value a round"),
        (lambda: area_under_gain([1], [1.0], 1.0, 10, (1.0, 1.0)), "ascend"),
        (lambda: RadioPower("x", -1.0, 0.0), "not negative"),
        (lambda: pareto_front([1, -1], [0, 1]), "finite and not negative"),
        (lambda: pareto_front([1, 2], [0, float("nan")]), "finite"),
        (lambda: pareto_front([1, 2], [0]), "one quality a rate"),
    ],
)
def test_faults(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_pareto_front_drops_what_costs_more_and_is_no_better():
    front = pareto_front([4, 1, 2, 3, 0, 2], [0.9, 0.1, 0.5, 0.4, 0.0, 0.6])
    assert front.tolist() == [[1, 0.1], [2, 0.6], [4, 0.9]]


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_a_constant_ratio_of_rates_is_found_exactly(factor):
    rate, quality = np.array([1e3, 2e3, 5e3, 3e4]), np.array([0.1, 0.5, 0.7, 0.8])
    found = rate_difference(factor * rate, quality, rate, quality)
    assert found.mean == pytest.approx(factor - 1)
    assert found.worst == pytest.approx(factor - 1)
    assert (found.low_quality, found.high_quality, found.points) == (0.1, 0.8, (4, 4))


def test_curves_that_are_straight_in_log_rate_have_a_closed_form():
    # log10 rate is q for one and 2 q for the other over 0 … 1: mean log ratio 1/2, worst at q = 1.
    quality = np.linspace(0, 1, 5)
    found = rate_difference(10 ** (2 * quality), quality, 10**quality, quality)
    assert found.mean == pytest.approx(10**0.5 - 1)
    assert (found.worst, found.worst_quality) == (pytest.approx(9.0), 1.0)


def test_the_worst_point_can_hide_behind_a_good_mean():
    quality = np.array([0.0, 1.0, 2.0])
    found = rate_difference([100, 500, 1500], quality, [100, 1000, 1000 * 3], quality)
    assert found.mean is not None
    assert found.mean < 0
    assert found.worst == pytest.approx(0.0, abs=1e-9)
    assert found.worst_quality == 0.0


def test_only_the_common_qualities_count():
    found = rate_difference([10, 100, 1000], [0, 1, 2], [20, 200, 2000], [1, 2, 3])
    assert (found.low_quality, found.high_quality) == (1, 2)
    assert found.mean == pytest.approx(4.0)


@settings(max_examples=30)
@given(
    st.lists(st.floats(0.5, 6), min_size=3, max_size=6, unique_by=lambda x: round(x, 2)),
    st.lists(st.floats(0.5, 6), min_size=3, max_size=6, unique_by=lambda x: round(x, 2)),
)
def test_swapping_the_curves_inverts_the_ratio(first, second):
    a, b = 10 ** np.sort(first), 10 ** np.sort(second)
    qa, qb = np.linspace(0, 1, len(a)), np.linspace(0.2, 1.4, len(b))
    there, back = rate_difference(a, qa, b, qb), rate_difference(b, qb, a, qa)
    assert there.mean is not None
    assert back.mean is not None
    assert (1 + there.mean) * (1 + back.mean) == pytest.approx(1.0)
    assert there.worst is not None
    assert there.worst >= there.mean - 1e-9


@pytest.mark.parametrize(
    ("curves", "reason"),
    [
        (([10, 20], [0, 1], [10, 20], [2, 3]), "no quality that both reach"),
        (([10], [1], [10, 20], [0, 3]), "fewer than two points on the Pareto front (method)"),
        (([10, 20], [0, 1], [10, 20], [1, 1]), "fewer than two points on the Pareto front (reference)"),
        (([0, 20], [0, 1], [10, 20], [0, 1]), "(method)"),
    ],
)
def test_an_undefined_difference_says_why(curves, reason):
    found = rate_difference(*curves)
    assert found.mean is None
    assert found.worst is None
    assert reason in found.reason
