"""A constant channel with additive white Gaussian noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from airlora.link._checks import check_positive, check_ratio_db, check_share, check_time
from airlora.link.base import LinkState
from airlora.link.slotted import Slots, SlottedLink


@dataclass(frozen=True)
class Awgn(SlottedLink):
    """Shannon's capacity of a channel that does not change: share · B · log2(1 + SNR).

    Attributes:
        snr_db: signal-to-noise ratio in dB.
        bandwidth_hz: bandwidth B in Hz.
        share: this device's fraction of the capacity, in (0, 1].

    Raises:
        SpecError: a value outside its physics.

    Source: C. E. Shannon, "Communication in the presence of noise", Proc. IRE 37(1), 1949, theorem 2.
    """

    snr_db: float = 10.0
    bandwidth_hz: float = 1e6
    share: float = 1.0

    def __post_init__(self) -> None:
        check_ratio_db("snr_db", self.snr_db)
        check_positive("bandwidth_hz", self.bandwidth_hz)
        check_share(self.share)

    def observe(self, t_s: float) -> LinkState:
        """The link's parameters; the rate is the capacity itself, since it never changes."""
        check_time("t_s", t_s)
        return LinkState(float(t_s), self.snr_db, self.bandwidth_hz, self._rate_bps)

    def capacity_bps(self, t_s: np.ndarray) -> np.ndarray:
        """The same capacity in bit/s at every time, shape of ``t_s``."""
        return np.full(np.shape(t_s), self._rate_bps)

    @property
    def _rate_bps(self) -> float:
        return self.share * self.bandwidth_hz * math.log2(1 + 10 ** (self.snr_db / 10))

    def _slots(self, start_s: float, duration_s: float) -> Iterator[Slots]:
        yield np.array([0.0, duration_s]), np.array([self._rate_bps])
