"""Fading statistics against their closed forms (T. S. Rappaport, "Wireless Communications", small-scale fading)."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy.special import exp1, j0

from airlora.errors import SpecError
from airlora.link import Awgn, Fading, make_link
from airlora.link.fading import SLOTS_PER_DOPPLER_CYCLE

DOPPLER_HZ = 10.0
SLOT_S = 1 / (SLOTS_PER_DOPPLER_CYCLE * DOPPLER_HZ)


def power(link: Fading, t_s: np.ndarray) -> np.ndarray:
    """|h(t)|², recovered from the capacity through Shannon's formula."""
    capacity = link.capacity_bps(t_s) / (link.share * link.bandwidth_hz)
    return np.expm1(capacity * math.log(2)) / 10 ** (link.snr_db / 10)


@pytest.fixture(scope="module")
def rayleigh_power() -> np.ndarray:
    """(seeds, slots): 40 channels of 100 s, 1000 Doppler cycles each."""
    t_s = (np.arange(1000 * SLOTS_PER_DOPPLER_CYCLE) + 0.5) * SLOT_S
    return np.stack([power(Fading(doppler_hz=DOPPLER_HZ, seed=seed), t_s) for seed in range(40)])


def test_rayleigh_power_is_exponential(rayleigh_power: np.ndarray) -> None:
    assert rayleigh_power.mean() == pytest.approx(1.0, abs=0.02)
    assert np.mean(rayleigh_power**2) == pytest.approx(2.0, abs=0.06)  # second moment of Exp(1)
    for threshold in (0.01, 0.1, 0.5, 1.0, 2.0, 4.0):
        expected = 1 - math.exp(-threshold)
        assert np.mean(rayleigh_power < threshold) == pytest.approx(expected, abs=0.01, rel=0.05)


def test_rayleigh_is_rayleigh_over_seeds_at_one_instant() -> None:
    draws = np.array([power(Fading(seed=seed), np.array(3.7)) for seed in range(1500)])
    gap = np.abs(np.sort(1 - np.exp(-draws)) - (np.arange(len(draws)) + 0.5) / len(draws)).max()
    assert gap < 1.63 / math.sqrt(len(draws))  # Kolmogorov–Smirnov, 1 % level


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
def test_ergodic_capacity_and_outage_probability(rayleigh_power: np.ndarray, snr_db: float) -> None:
    snr = 10 ** (snr_db / 10)
    link = Fading(snr_db=snr_db, doppler_hz=DOPPLER_HZ, seed=0)
    t_s = (np.arange(rayleigh_power.shape[1]) + 0.5) * SLOT_S
    np.testing.assert_allclose(power(link, t_s), rayleigh_power[0], rtol=1e-9)  # one channel at every SNR
    capacity = np.log2(1 + snr * rayleigh_power)  # bit/s/Hz
    assert capacity.mean() == pytest.approx(math.exp(1 / snr) * exp1(1 / snr) / math.log(2), rel=0.01)
    needed = 0.5 * math.log2(1 + snr)
    outage = 1 - math.exp(-(2**needed - 1) / snr)
    assert np.mean(capacity < needed) == pytest.approx(outage, abs=0.01)


def test_autocorrelation_of_the_power_is_clarkes(rayleigh_power: np.ndarray) -> None:
    """For a Gaussian gain the autocovariance of |h|² is J0(2π f_d τ)²."""
    centred = rayleigh_power - 1
    for cycles in (1 / 8, 1 / 4, 3 / 8, 1 / 2, 1, 3 / 2):
        lag = int(cycles * SLOTS_PER_DOPPLER_CYCLE)
        found = np.mean(centred[:, lag:] * centred[:, :-lag])
        assert found == pytest.approx(j0(2 * math.pi * cycles) ** 2, abs=0.04)


def test_autocorrelation_of_the_gain_is_clarkes() -> None:
    """Σ |c|² exp(jωτ) over the paths is the time-averaged autocorrelation of one channel, exactly."""
    link = Fading(doppler_hz=DOPPLER_HZ, seed=5)
    lags_s = np.linspace(0, 1 / DOPPLER_HZ, 21)
    found = np.mean(np.exp(1j * link._omega[:, None] * lags_s), axis=0)
    np.testing.assert_allclose(found, j0(2 * math.pi * DOPPLER_HZ * lags_s), atol=0.1)


@pytest.mark.parametrize("level", [0.3, 0.5, 1.0, 1.5])
def test_level_crossing_rate(rayleigh_power: np.ndarray, level: float) -> None:
    above = rayleigh_power > level**2
    crossings = np.sum(above[:, 1:] & ~above[:, :-1], axis=1) / (rayleigh_power.shape[1] * SLOT_S)
    expected = math.sqrt(2 * math.pi) * DOPPLER_HZ * level * math.exp(-(level**2))
    assert crossings.mean() == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("k_db", [0.0, 6.0, 12.0])
def test_rician_moments(k_db: float) -> None:
    k = 10 ** (k_db / 10)
    t_s = (np.arange(300 * SLOTS_PER_DOPPLER_CYCLE) + 0.5) * SLOT_S
    links = [Fading("rician", doppler_hz=DOPPLER_HZ, k_db=k_db, seed=seed) for seed in range(40)]
    found = np.stack([power(link, t_s) for link in links])
    assert found.mean() == pytest.approx(1.0, abs=0.03)
    assert found.var() == pytest.approx((1 + 2 * k) / (1 + k) ** 2, rel=0.08)


def test_rician_with_a_strong_line_of_sight_is_awgn() -> None:
    t_s = np.linspace(0, 10, 500)
    np.testing.assert_allclose(Fading("rician", k_db=100.0).capacity_bps(t_s), Awgn().capacity_bps(t_s), rtol=1e-4)


def test_capacity_is_constant_within_a_slot_and_moves_little_between_slots() -> None:
    link = Fading(doppler_hz=DOPPLER_HZ, seed=1)
    starts_s = np.arange(-2000, 2000) * SLOT_S
    inside = np.stack([link.capacity_bps(starts_s + part * SLOT_S) for part in (0.01, 0.5, 0.99)])
    assert np.ptp(inside, axis=0).max() == 0
    found = power(link, starts_s + 0.5 * SLOT_S)
    assert np.corrcoef(found[1:], found[:-1])[0, 1] > 0.99


def test_transmission_integrates_the_capacity_before_and_after_time_zero() -> None:
    link = Fading(doppler_hz=DOPPLER_HZ, share=0.5, seed=2)
    for start_s, deadline_s in ((-3.0, 5.0), (0.0, 0.01), (12.34, 7.0)):
        fine = 200_000
        t_s = start_s + (np.arange(fine) + 0.5) / fine * deadline_s
        expected = link.capacity_bps(t_s).mean() * deadline_s / 8
        assert link.transmit([10**12], start_s, deadline_s).bytes_on_air == pytest.approx(expected, rel=2e-4, abs=2)


def test_a_long_deadline_is_integrated_in_bounded_chunks() -> None:
    link = Fading(doppler_hz=DOPPLER_HZ, seed=2)
    chunks = [(edges_s[-1] - edges_s[0], len(rates_bps)) for edges_s, rates_bps in link._slots(0.3, 500.0)]
    assert sum(length_s for length_s, _ in chunks) == pytest.approx(500.0, rel=1e-12)
    assert max(size for _, size in chunks) <= 1024


def test_same_seed_same_link_whatever_was_asked_before() -> None:
    t_s = np.array([99.0, -4.0, 0.5, 0.5])
    fresh, used = make_link("fading:doppler_hz=30", 7), make_link("fading:doppler_hz=30", 7)
    used.transmit([10**6], 3.0, 4.0)
    used.observe(50.0)
    assert fresh == used
    np.testing.assert_array_equal(fresh.capacity_bps(t_s), used.capacity_bps(t_s))
    np.testing.assert_array_equal(fresh.capacity_bps(t_s)[:2], used.capacity_bps(t_s[:2]))
    assert not np.array_equal(make_link("fading:doppler_hz=30", 8).capacity_bps(t_s), fresh.capacity_bps(t_s))


def test_a_seed_in_the_spec_wins_over_the_runs() -> None:
    assert make_link("fading:seed=4", seed=9) == Fading(seed=4)
    assert make_link("fading", seed=9) == Fading(seed=9)
    assert make_link("fading:seed=none", seed=9) == Fading(seed=9)


def test_observation_is_the_mean_capacity_of_the_past_window() -> None:
    link = Fading(doppler_hz=DOPPLER_HZ, estimate_window_s=2.0, seed=3)
    state = link.observe(5 + 0.5 * SLOT_S)  # in the middle of a slot: what is known ends at 5 s
    past_s = 5 - (np.arange(2 * DOPPLER_HZ * SLOTS_PER_DOPPLER_CYCLE) + 0.5) * SLOT_S
    assert state.rate_bps == pytest.approx(link.capacity_bps(past_s).mean(), rel=1e-9)
    last_power = power(link, past_s[:1])[0]
    assert state.snr_db == pytest.approx(10 + 10 * math.log10(last_power))
    assert state.bandwidth_hz == 1e6


def test_the_first_observation_has_a_past() -> None:
    assert math.isfinite(Fading().observe(0.0).rate_bps)


def test_doppler_zero_is_one_gain_for_all_time() -> None:
    link = Fading(doppler_hz=0.0, seed=11)
    rates = link.capacity_bps(np.array([-1e4, 0.0, 0.5, 3e5]))
    np.testing.assert_allclose(rates, rates[0], rtol=1e-12)
    state = link.observe(40.0)
    assert state.rate_bps == pytest.approx(rates[0])
    assert 1e6 * math.log2(1 + 10 ** (state.snr_db / 10)) == pytest.approx(rates[0])
    assert link.transmit([10**12], 0.0, 1e5).bytes_on_air == pytest.approx(rates[0] * 1e5 / 8)
    assert dataclasses.replace(link, seed=12).observe(0.0).snr_db != pytest.approx(state.snr_db)


def test_far_outside_training_40_db_and_1_khz() -> None:
    link = Fading(snr_db=40.0, doppler_hz=1000.0, seed=0)
    expected = 1e6 * math.exp(1e-4) * exp1(1e-4) / math.log(2)
    assert link.observe(100.0).rate_bps == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fading:kind=nakagami", "kind is 'nakagami'; allowed: rayleigh, rician"),
        ("fading:kind=rician", "k_db is None with kind=rician; rician needs a K factor"),
        ("fading:k_db=3", "k_db is 3.0 with kind=rayleigh"),
        ("fading:kind=rician,k_db=nan", "k_db is nan"),
        ("fading:doppler_hz=-1", "doppler_hz is -1.0; 0 to 100000 Hz"),
        ("fading:doppler_hz=nan", "doppler_hz is nan"),
        ("fading:estimate_window_s=0", "estimate_window_s is 0.0"),
        ("fading:seed=-1", "seed is -1"),
        ("fading:_omega=1", "has no key '_omega'"),
    ],
)
def test_impossible_parameters_are_refused(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make_link(spec, seed=0)
