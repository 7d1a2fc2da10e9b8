"""Transmission over a capacity that is constant within slots, integrated exactly."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np

from airlora.errors import LinkError
from airlora.link._checks import check_time
from airlora.link.base import Delivery, Link

Slots = tuple[np.ndarray, np.ndarray]
"""Consecutive slots: edges in s (slots + 1,), non-decreasing, and capacity in bit/s (slots,)."""


def cut_slots(edges_s: np.ndarray, rates_bps: np.ndarray, start_s: float, duration_s: float) -> Slots:
    """The slots that meet [start, start + duration], cut to it, with edges counted from ``start_s``.

    Args:
        edges_s: (slots + 1,) non-decreasing; the outer ones may be infinite.
        rates_bps: (slots,) capacity in bit/s.
        start_s: where the window starts; it overlaps the slots.
        duration_s: length of the window in s.
    """
    first = int(np.clip(np.searchsorted(edges_s, start_s, side="right") - 1, 0, len(rates_bps) - 1))
    stop = int(np.clip(np.searchsorted(edges_s, start_s + duration_s, side="left"), first + 1, len(rates_bps)))
    return np.clip(edges_s[first : stop + 1] - start_s, 0.0, duration_s), rates_bps[first:stop]


class SlottedLink(Link):
    """A link with a capacity constant within slots; subclasses say which slots, this class sends over them."""

    @abstractmethod
    def _slots(self, start_s: float, duration_s: float) -> Iterator[Slots]:
        """Bounded chunks of slots that tile [start, start + duration] in order, with edges counted from ``start_s``."""

    def transmit(self, layer_bytes: Sequence[int], start_s: float, deadline_s: float) -> Delivery:
        """Send whole layers in order from ``start_s`` until ``deadline_s`` later, or until all are sent.

        The capacity is integrated slot by slot without time steps. A layer arrives at the instant its last bit has
        been carried; an arrival exactly at the deadline counts. Where the deadline cuts a layer off, its whole bytes
        carried so far count in ``bytes_on_air``, and ``airtime_s`` is the deadline: the sender tries until then, also
        through an outage. With nothing to send nothing is missed.

        Args:
            layer_bytes: size of each layer in bytes, ≥ 0.
            start_s: simulated time of the first bit, in s.
            deadline_s: length of the window in s, ≥ 0.

        Raises:
            LinkError: a negative or non-finite time or size.
        """
        check_time("start_s", start_s)
        check_time("deadline_s", deadline_s)
        if deadline_s < 0:
            raise LinkError(f"deadline_s is {deadline_s}; a time of 0 s or more is needed")
        if any(size < 0 for size in layer_bytes):
            raise LinkError(f"a layer has {min(layer_bytes)} bytes; 0 or more are needed")
        ends_bytes = np.cumsum(np.asarray(layer_bytes, dtype=np.int64))  # (layers,) bytes until the layer is whole
        layers = len(ends_bytes)
        total_bytes = int(ends_bytes[-1]) if layers else 0
        if total_bytes == 0:
            return Delivery(layers, 0, 0, 0.0, missed=False)

        total_bits = 8.0 * total_bytes
        enough_bits = total_bits - _rounding_bits(total_bits)
        carried_bits = 0.0
        for edges_s, rates_bps in self._slots(start_s, deadline_s) if deadline_s else ():
            bits = carried_bits + np.cumsum(np.diff(edges_s) * rates_bps)  # (slots,) carried by the end of each slot
            if bits[-1] >= enough_bits:
                slot = int(np.searchsorted(bits, enough_bits))  # its rate is above 0: bits rose here
                before = float(bits[slot - 1]) if slot else carried_bits
                airtime_s = float(edges_s[slot]) + (total_bits - before) / float(rates_bps[slot])
                return Delivery(layers, total_bytes, total_bytes, min(airtime_s, float(deadline_s)), missed=False)
            carried_bits = float(bits[-1])

        sent_bytes = int((carried_bits + _rounding_bits(carried_bits)) / 8)
        delivered = int(np.searchsorted(ends_bytes, sent_bytes, side="right"))
        whole_bytes = int(ends_bytes[delivered - 1]) if delivered else 0
        return Delivery(delivered, whole_bytes, sent_bytes, float(deadline_s), missed=True)

    def _mean_bps(self, start_s: float, duration_s: float) -> float:
        """Mean capacity in bit/s over [start, start + duration], duration above 0."""
        bits = sum(float(np.diff(edges_s) @ rates_bps) for edges_s, rates_bps in self._slots(start_s, duration_s))
        return bits / duration_s


def _rounding_bits(bits: float) -> float:
    """What floating point may lose of a sum of bits, so that an arrival exactly at the deadline counts."""
    return 1e-6 + 1e-12 * bits
