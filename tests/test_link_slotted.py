"""Transmission over slots of constant capacity, against an in-memory link and Shannon's closed form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlora.errors import LinkError, SpecError
from airlora.link import Awgn, Delivery, LinkState, PastRate, make_link
from airlora.link.slotted import Slots, SlottedLink, cut_slots

SHANNON_BPS = 1e6 * math.log2(11)  # 10 dB over 1 MHz


@dataclass(frozen=True)
class Steps(SlottedLink):
    """Slots of 1 s with the rates given, then nothing, ``chunk`` slots at a time."""

    rates_bps: tuple[float, ...]
    chunk: int = 3
    share: float = 1.0

    def observe(self, t_s: float) -> LinkState:
        raise NotImplementedError

    def capacity_bps(self, t_s: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _slots(self, start_s: float, duration_s: float) -> Iterator[Slots]:
        edges_s = np.append(np.arange(len(self.rates_bps) + 1.0), np.inf)
        rates_bps = np.append(self.rates_bps, 0.0)
        for first in range(0, len(rates_bps), self.chunk):
            if edges_s[first] < start_s + duration_s and edges_s[min(first + self.chunk, len(rates_bps))] > start_s:
                part = edges_s[first : first + self.chunk + 1]
                yield cut_slots(part, rates_bps[first : first + self.chunk], start_s, duration_s)


def carried_bits(rates_bps: tuple[float, ...], start_s: float, stop_s: float) -> float:
    return sum(rate * max(0.0, min(k + 1, stop_s) - max(k, start_s)) for k, rate in enumerate(rates_bps))


rate_lists = st.lists(st.one_of(st.just(0.0), st.floats(0, 1e7)), min_size=1, max_size=12).map(tuple)
layer_lists = st.lists(st.integers(0, 500_000), max_size=8)
times = st.floats(0, 14)


def test_layers_cross_slots_and_an_outage() -> None:
    link = Steps((8000.0, 0.0, 4000.0))  # 1000 bytes, nothing, 500 bytes
    assert link.transmit([600, 400], 0.0, 9.0) == Delivery(2, 1000, 1000, 1.0, missed=False)
    assert link.transmit([600, 600], 0.0, 9.0) == Delivery(2, 1200, 1200, 2.4, missed=False)
    assert link.transmit([600, 600], 0.0, 2.0) == Delivery(1, 600, 1000, 2.0, missed=True)
    assert link.transmit([600, 600], 0.5, 9.0) == Delivery(1, 600, 1000, 9.0, missed=True)


def test_bytes_on_air_are_whole_bytes_of_the_cut_layer() -> None:
    assert Steps((100.0,)).transmit([100], 0.0, 1.0) == Delivery(0, 0, 12, 1.0, missed=True)  # 12.5 bytes


def test_a_huge_offer_does_not_blur_the_bytes_on_air() -> None:
    assert Steps((80.0,)).transmit([10**15, 10**18], 0.0, 5.0) == Delivery(0, 0, 10, 5.0, missed=True)


def test_nothing_offered_is_not_missed() -> None:
    assert Steps((0.0,)).transmit([], 0.0, 5.0) == Delivery(0, 0, 0, 0.0, missed=False)
    assert Steps((0.0,)).transmit([0, 0], 0.0, 0.0) == Delivery(2, 0, 0, 0.0, missed=False)


def test_empty_layers_before_the_cut_are_delivered() -> None:
    assert Steps((8.0,)).transmit([0, 1, 0, 9, 0], 0.0, 1.0) == Delivery(3, 1, 1, 1.0, missed=True)


def test_no_time_carries_nothing() -> None:
    assert Steps((8e9,)).transmit([1], 0.0, 0.0) == Delivery(0, 0, 0, 0.0, missed=True)


def test_fault_11_rate_zero_for_hours_then_the_link_returns() -> None:
    link = Steps((0.0,) * 10_800 + (8000.0,))
    assert link.transmit([1000], 0.0, 86_400.0) == Delivery(1, 1000, 1000, 10_801.0, missed=False)
    assert link.transmit([1001], 0.0, 86_400.0) == Delivery(0, 0, 1000, 86_400.0, missed=True)


@pytest.mark.parametrize(
    ("layers", "start_s", "deadline_s", "word"),
    [
        ([1], math.nan, 1.0, "start_s is nan"),
        ([1], 0.0, math.inf, "deadline_s is inf"),
        ([1], 0.0, -1.0, "deadline_s is -1.0"),
        ([3, -2], 0.0, 1.0, "a layer has -2 bytes"),
    ],
)
def test_impossible_transmissions_are_refused(layers: list[int], start_s: float, deadline_s: float, word: str) -> None:
    with pytest.raises(LinkError, match=word):
        Awgn().transmit(layers, start_s, deadline_s)


@settings(max_examples=150, deadline=None)
@given(rate_lists, layer_lists, times, times, st.integers(1, 5))
def test_exact_integral_whole_layers_and_airtime(rates, layers, start_s, deadline_s, chunk) -> None:
    sent = Steps(rates, chunk).transmit(layers, start_s, deadline_s)
    capacity_bytes = carried_bits(rates, start_s, start_s + deadline_s) / 8
    assert sent.bytes_on_air <= min(sum(layers), capacity_bytes + 1e-3)
    assert sent.bytes_on_air >= min(sum(layers), capacity_bytes - 1 - 1e-3)
    assert sent.bytes_delivered == sum(layers[: sent.layers_delivered]) <= sent.bytes_on_air
    assert sent.missed == (sent.layers_delivered < len(layers))
    assert 0 <= sent.airtime_s <= deadline_s
    if not sent.missed:  # it ends when the last bit is through, no earlier and no later
        assert carried_bits(rates, start_s, start_s + sent.airtime_s) == pytest.approx(8 * sum(layers), rel=1e-9, abs=1)
    else:
        assert sum(layers[: sent.layers_delivered + 1]) > sent.bytes_on_air


@settings(max_examples=100, deadline=None)
@given(rate_lists, layer_lists, times, times, times)
def test_a_longer_deadline_never_delivers_less(rates, layers, start_s, one_s, other_s) -> None:
    short = Steps(rates).transmit(layers, start_s, min(one_s, other_s))
    long = Steps(rates).transmit(layers, start_s, max(one_s, other_s))
    assert short.layers_delivered <= long.layers_delivered
    assert short.bytes_on_air <= long.bytes_on_air


@settings(max_examples=100, deadline=None)
@given(rate_lists, times, times, st.floats(0, 1))
def test_two_windows_carry_what_one_does(rates, start_s, deadline_s, fraction) -> None:
    link, endless = Steps(rates), [10**12]
    middle_s = fraction * deadline_s
    whole = link.transmit(endless, start_s, deadline_s).bytes_on_air
    first = link.transmit(endless, start_s, middle_s).bytes_on_air
    second = link.transmit(endless, start_s + middle_s, deadline_s - middle_s).bytes_on_air
    assert abs(whole - first - second) <= 1  # each window drops the fraction of a byte that it ends in


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_awgn_is_shannon(share: float) -> None:
    link = make_link(f"awgn:snr_db=10,bandwidth_hz=1e6,share={share}", seed=3)
    assert link == Awgn(10.0, 1e6, share)
    np.testing.assert_allclose(link.capacity_bps(np.zeros((2, 3))), np.full((2, 3), share * SHANNON_BPS), rtol=1e-15)
    assert link.observe(7.0) == LinkState(7.0, 10.0, 1e6, pytest.approx(share * SHANNON_BPS))
    sent = link.transmit([10**9], 0.3, 2.0)
    assert sent.bytes_on_air == int(share * SHANNON_BPS * 2 / 8)
    done = link.transmit([10_000, 20_000], 1e5, 2.0)
    assert done.airtime_s == pytest.approx(30_000 * 8 / (share * SHANNON_BPS), rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 10**7), st.floats(0, 1e6))
def test_awgn_exactly_at_the_deadline_counts(size_bytes: int, start_s: float) -> None:
    deadline_s = size_bytes * 8 / SHANNON_BPS
    assert not Awgn().transmit([size_bytes], start_s, deadline_s).missed
    assert Awgn().transmit([size_bytes + 1], start_s, deadline_s).missed


@pytest.mark.parametrize("link", ["awgn", "fading"])
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("snr_db=nan", "snr_db is nan; -100 to 100 dB are allowed"),
        ("snr_db=inf", "snr_db is inf"),
        ("snr_db=-inf", "snr_db is -inf"),
        ("snr_db=1e4", "snr_db is 10000.0"),
        ("bandwidth_hz=-1e6", "bandwidth_hz is -1000000.0; a finite number above 0"),
        ("bandwidth_hz=0", "bandwidth_hz is 0.0"),
        ("bandwidth_hz=nan", "bandwidth_hz is nan"),
        ("share=0", "share is 0.0; a fraction above 0 and up to 1"),
        ("share=1.1", "share is 1.1"),
        ("share=nan", "share is nan"),
        ("snr=10", "has no key 'snr'; its keys are: .*snr_db, bandwidth_hz"),
    ],
)
def test_fault_11_impossible_parameters_are_refused_before_the_run(link: str, setting: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make_link(f"{link}:{setting}", seed=0)


def test_unknown_link_lists_the_links() -> None:
    with pytest.raises(SpecError, match="unknown link 'wifi'; there are: awgn, fading, trace"):
        make_link("wifi:snr_db=1", seed=0)


def test_observation_at_no_time_is_refused() -> None:
    with pytest.raises(LinkError, match="t_s is nan"):
        Awgn().observe(math.nan)


def test_a_past_rate_is_what_was_carried_while_something_was_sent() -> None:
    link = Awgn(0.0, 8e6)  # 1 MB/s
    state = link.observe(0.0)
    assert PastRate.of(state, link.transmit([], 0.0, 1.0)) == ()
    (whole,) = PastRate.of(state, link.transmit([250_000], 0.0, 1.0))
    (cut,) = PastRate.of(state, link.transmit([4_000_000], 0.0, 1.0))
    assert whole.estimated_bps == cut.estimated_bps == state.rate_bps
    assert whole.carried_bps == pytest.approx(8e6)
    assert cut.carried_bps == pytest.approx(8e6)
