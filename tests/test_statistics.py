"""Intervals and verdicts: known answers, and how often they are wrong where nothing differs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlora.compare.statistics import (
    Interval,
    bootstrap_intervals,
    false_alarm_rate,
    false_discovery_rates,
    mean_interval,
    paired_p_values,
    verdict,
)
from airlora.errors import InputError


def test_with_three_seeds_the_interval_is_the_range():
    # All three resamples equal to the smallest have probability 1/27, more than 2.5 %.
    interval = mean_interval([2.0, 3.0, 7.0])
    assert interval == Interval(4.0, 2.0, 7.0, 3)


def test_a_wide_sample_gives_the_normal_interval():
    sample = np.random.default_rng(1).normal(5.0, 2.0, size=400)
    interval = mean_interval(sample)
    half = 1.96 * sample.std() / math.sqrt(len(sample))
    assert interval.low == pytest.approx(sample.mean() - half, abs=0.15 * half)
    assert interval.high == pytest.approx(sample.mean() + half, abs=0.15 * half)


def test_one_seed_has_no_interval_and_no_verdict():
    interval = mean_interval([0.8])
    assert interval.mean == 0.8
    assert math.isnan(interval.low)
    assert verdict(interval) == "one seed"


def test_intervals_are_deterministic_and_rows_do_not_depend_on_each_other():
    samples = np.random.default_rng(0).normal(size=(5, 4))
    together = bootstrap_intervals(samples)
    assert together == bootstrap_intervals(samples)
    assert together[3] == mean_interval(samples[3])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=6))
def test_an_interval_holds_its_mean_and_stays_in_the_range(sample):
    interval = mean_interval(sample)
    slack = 1e-9 * (1 + max(map(abs, sample)))
    assert min(sample) - slack <= interval.low <= interval.mean + slack
    assert interval.mean - slack <= interval.high <= max(sample) + slack


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.1, 0.2, 0.15], "better"),
        ([-0.1, -0.2, -0.15], "worse"),
        ([0.1, -0.2, 0.15], "no difference shown"),
        ([0.0, 0.0, 0.0], "no difference shown"),
        ([0.0, 0.2, 0.1], "no difference shown"),
        ([0.1], "one seed"),
    ],
)
def test_verdicts(differences, expected):
    assert verdict(mean_interval(differences)) == expected


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_false_alarms_are_as_frequent_as_stated(seeds):
    differences = np.random.default_rng(7).normal(size=(1000, seeds))
    alarms = [verdict(interval) in ("better", "worse") for interval in bootstrap_intervals(differences)]
    assert np.mean(alarms) == pytest.approx(false_alarm_rate(seeds), abs=0.035)


def test_the_rate_of_a_number_of_seeds_that_was_not_simulated_is_the_next_lower_one_s():
    assert false_alarm_rate(7) == false_alarm_rate(6)
    assert false_alarm_rate(1) is None


def test_paired_p_values_against_the_t_distribution():
    # Mean 1, standard deviation 1, three seeds: t = sqrt(3), p = 2 P(T_2 > sqrt 3) = 1 - sqrt(3 / 5).
    (p_value,) = paired_p_values([[0.0, 1.0, 2.0]])
    assert p_value == pytest.approx(1 - math.sqrt(3 / 5))


def test_without_spread_there_is_no_p_value():
    assert np.isnan(paired_p_values([[0.5, 0.5], [0.0, 0.0]])).all()
    assert np.isnan(paired_p_values([[0.5]])).all()


def test_false_discovery_rates_by_hand():
    # Benjamini and Hochberg: smallest p × m / rank from there on.
    rates = false_discovery_rates([0.01, 0.04, np.nan, 0.03, 0.5])
    assert rates == pytest.approx([0.04, 0.04 * 4 / 3, np.nan, 0.04 * 4 / 3, 0.5], nan_ok=True)


@pytest.mark.parametrize(
    ("samples", "message"),
    [([1.0, 2.0], "rows, seeds"), (np.empty((2, 0)), "rows, seeds"), ([[1.0, np.nan]], "finite")],
)
def test_faults(samples, message):
    with pytest.raises(InputError, match=message):
        bootstrap_intervals(samples)
