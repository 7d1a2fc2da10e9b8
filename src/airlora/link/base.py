"""What a link is: a capacity over simulated time, seen through past measurements only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LinkState:
    """What the sender knows of the link before it decides, at simulated time ``t_s``.

    Attributes:
        t_s: simulated time in s.
        snr_db: signal-to-noise ratio in dB, NaN where it was not measured.
        bandwidth_hz: bandwidth in Hz, NaN where it is unknown.
        rate_bps: estimate of this device's throughput in bit/s, from the past only; NaN with no past.
    """

    t_s: float
    snr_db: float
    bandwidth_hz: float
    rate_bps: float


@dataclass(frozen=True)
class Delivery:
    """What became of one transmission.

    Attributes:
        layers_delivered: leading layers that arrived whole before the deadline.
        bytes_delivered: their size in bytes.
        bytes_on_air: bytes that were sent, the cut-off layer included.
        airtime_s: from the start until the last byte was sent, at most the deadline, in s.
        missed: some offered layer did not arrive in time.
    """

    layers_delivered: int
    bytes_delivered: int
    bytes_on_air: int
    airtime_s: float
    missed: bool


@dataclass(frozen=True)
class PastRate:
    """What was estimated before a transmission, and what the link carried then.

    Attributes:
        estimated_bps: throughput in bit/s, NaN where there was no estimate.
        carried_bps: bits on air over airtime, in bit/s.
    """

    estimated_bps: float
    carried_bps: float

    @classmethod
    def of(cls, state: LinkState, delivery: Delivery) -> tuple[PastRate, ...]:
        """That of one transmission; nothing where nothing was sent."""
        if not delivery.airtime_s:
            return ()
        return (cls(state.rate_bps, 8 * delivery.bytes_on_air / delivery.airtime_s),)


class Link(ABC):
    """A link is a pure function of simulated time (and of its seed): it keeps no state."""

    share: float

    @abstractmethod
    def observe(self, t_s: float) -> LinkState:
        """The state known at ``t_s``, estimated from what lies before ``t_s``."""

    @abstractmethod
    def capacity_bps(self, t_s: np.ndarray) -> np.ndarray:
        """This device's capacity in bit/s (its share included) at the times given, same shape."""

    @abstractmethod
    def transmit(self, layer_bytes: Sequence[int], start_s: float, deadline_s: float) -> Delivery:
        """Send whole layers in order from ``start_s`` until ``deadline_s`` later, or until all are sent."""
