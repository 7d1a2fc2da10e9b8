"""Synthetic links for training in stream mode: each episode draws one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from airlora.link import Awgn, Fading, LinkState
from airlora.link.slotted import Slots, SlottedLink
from airlora.policy.tokens import LARGEST_LOAD, LEAST_LOAD

LONGEST_PERIOD = 60.0
"""Longest time from round to round, in deadlines."""
LONGEST_OUTAGE = 100.0
"""Largest mean length of outages, in deadlines."""

_SLOTS = 4
"""Slots of a changing load in a deadline."""
_BEFORE = 20
"""Slots of it before time 0."""


@dataclass(frozen=True)
class Loaded(SlottedLink):
    """A link whose capacity others use too, as much as they happen to, and that is out at times: its signal says
    nothing about either.

    Attributes:
        link: with no one else. slot_s: over which the load is constant, in s.
        left: of each slot, what is left of the capacity over its mean, 0 in an outage; the first ``_BEFORE`` are before
            time 0, and the last one goes on.
        window_s: the observed rate is the mean over this past, in s; after as long an outage it is 0.
        snr_known, bandwidth_known: whether they are measured.
    """

    link: SlottedLink
    slot_s: float
    left: tuple[float, ...]
    window_s: float
    snr_known: bool = True
    bandwidth_known: bool = True

    @property
    def share(self) -> float:  # type: ignore[override]
        """Of the link."""
        return self.link.share

    def observe(self, t_s: float) -> LinkState:
        """As the link's, with a rate that was measured under load, and less of the signal if less is known."""
        state = self.link.observe(t_s)
        return replace(
            state,
            rate_bps=self._mean_bps(t_s - self.window_s, self.window_s),
            snr_db=state.snr_db if self.snr_known else math.nan,
            bandwidth_hz=state.bandwidth_hz if self.bandwidth_known else math.nan,
        )

    def capacity_bps(self, t_s: np.ndarray) -> np.ndarray:
        """What is left at the times given, in bit/s."""
        return self.link.capacity_bps(t_s) * np.vectorize(self._left_at, otypes=[float])(t_s)

    def _slots(self, start_s: float, duration_s: float) -> Iterator[Slots]:
        at, end_s = start_s, start_s + duration_s
        while at < end_s:
            until_s = min((math.floor(at / self.slot_s + 1e-9) + 1) * self.slot_s, end_s)
            for edges_s, rates_bps in self.link._slots(at, until_s - at):
                yield edges_s + (at - start_s), rates_bps * self._left_at(at)
            at = until_s

    def _left_at(self, t_s: float) -> float:
        return self.left[min(max(math.floor(t_s / self.slot_s + 1e-9) + _BEFORE, 0), len(self.left) - 1)]


def _draw_left(rng: np.random.Generator, slots: int) -> np.ndarray:
    """(slots,) log-normal factors that follow each other as a first-order autoregression: of a spread of 0.08 … 0.8
    (standard deviation of log10) and a memory of 1/8 … 64 deadlines, both log-uniform."""
    spread = math.exp(rng.uniform(math.log(0.08), math.log(0.8)))
    memory = math.exp(-1 / (_SLOTS * math.exp(rng.uniform(math.log(1 / 8), math.log(64)))))
    noise = rng.standard_normal(slots)
    logs = [noise[0]]
    for fresh in noise[1:]:
        logs.append(memory * logs[-1] + math.sqrt(1 - memory**2) * fresh)
    return 10.0 ** (spread * np.array(logs) - spread**2 * math.log(10) / 2)


def _draw_outages(rng: np.random.Generator, slots: int) -> np.ndarray:
    """(slots,) bool, whether the link is out: a two-state Markov chain (Gilbert's), out for 5 … 30 % of the time, and
    for 1/4 … ``LONGEST_OUTAGE`` deadlines on average, log-uniform."""
    share = rng.uniform(0.05, 0.3)
    ends = 1 / (_SLOTS * math.exp(rng.uniform(math.log(1 / _SLOTS), math.log(LONGEST_OUTAGE))))
    begins = ends * share / (1 - share)
    out = [rng.random() < share]
    for draw in rng.random(slots - 1):
        out.append(draw >= ends if out[-1] else draw < begins)
    return np.array(out)


def draw_period(rng: np.random.Generator, deadline_s: float) -> float:
    """Time from round to round in s, log-uniform in 1 … ``LONGEST_PERIOD`` deadlines."""
    return deadline_s * math.exp(rng.uniform(0.0, math.log(LONGEST_PERIOD)))


def draw_link(rng: np.random.Generator, plain_bytes: int, rounds: int, deadline_s: float, period_s: float) -> Loaded:
    """A link whose mean budget is log-uniform in ``LEAST_LOAD`` … ``LARGEST_LOAD`` times ``plain_bytes``.

    One in five is an AWGN channel, the others fade: Rayleigh or Rician (K 0 … 12 dB), Doppler shift log-uniform in
    0.02 … 20 cycles a deadline. The mean SNR is uniform in −5 … 25 dB; of half the links neither it nor the bandwidth
    is measured, of another quarter the bandwidth is not. Estimates are means over the last 1 … 5 deadlines. Seven in
    eight carry a changing load of others (``Loaded``), so that estimates err as they do on recorded links. One in four
    is out at times, for a moment or for many rounds.
    """
    snr_db = float(rng.uniform(-5, 25))
    budget = plain_bytes * math.exp(rng.uniform(math.log(LEAST_LOAD), math.log(LARGEST_LOAD)))
    share = math.exp(rng.uniform(math.log(0.05), 0.0))
    bandwidth_hz = budget * 8 / deadline_s / math.log2(1 + 10 ** (snr_db / 10)) / share
    window_s = deadline_s * math.exp(rng.uniform(0.0, math.log(5.0)))
    link: SlottedLink
    if rng.random() < 0.2:
        link = Awgn(snr_db, bandwidth_hz, share)
    else:
        rician = rng.random() < 0.5
        link = Fading(
            kind="rician" if rician else "rayleigh",
            snr_db=snr_db,
            bandwidth_hz=bandwidth_hz,
            doppler_hz=math.exp(rng.uniform(math.log(0.02), math.log(20.0))) / deadline_s,
            k_db=float(rng.uniform(0, 12)) if rician else None,
            share=share,
            estimate_window_s=window_s,
            seed=int(rng.integers(2**31)),
        )
    slots = _BEFORE + math.ceil(((rounds - 1) * period_s + deadline_s) / deadline_s * _SLOTS)
    left = _draw_left(rng, slots) if rng.random() < 0.875 else np.ones(slots)
    if rng.random() < 0.25:
        left = np.where(_draw_outages(rng, slots), 0.0, left)
    known = rng.random()
    return Loaded(
        link,
        deadline_s / _SLOTS,
        tuple(left.tolist()),
        window_s,
        snr_known=bool(known < 0.5),
        bandwidth_known=bool(known < 0.25),
    )
