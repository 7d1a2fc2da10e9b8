"""Rayleigh and Rician flat fading with the Doppler spectrum of isotropic scattering.

The complex gain is a sum of sinusoids with random angles of arrival and phases, after C. Xiao, Y. R. Zheng and
N. C. Beaulieu, "Novel sum-of-sinusoids simulation models for Rayleigh and Rician fading channels", IEEE Trans.
Wireless Commun. 5(12), 2006. It is a closed form in t, so the link has a value at any time, negative ones too, and
needs no state: a resumed run sees the same channel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from airlora.errors import SpecError
from airlora.link._checks import check_positive, check_ratio_db, check_share, check_time
from airlora.link.base import LinkState
from airlora.link.slotted import Slots, SlottedLink, cut_slots

SCATTERERS = 64
"""Sinusoids of the diffuse part; the fourth moment of the amplitude is 2 − 1/64, where Rayleigh's is 2."""

SLOTS_PER_DOPPLER_CYCLE = 64
"""A slot lasts 1 / (64 f_d), about a tenth of the coherence time 9 / (16 π f_d); neighbours correlate at 0.998."""

MAX_DOPPLER_HZ = 1e5

_ROWS = _COLUMNS = 32
_BLOCK = _ROWS * _COLUMNS  # slots that are computed together, on a fixed grid of the time axis
_STREAM = 0x6661_6465  # "fade": keeps these draws apart from others that start from the same seed


@dataclass(frozen=True)
class Fading(SlottedLink):
    """A flat fading channel: share · B · log2(1 + SNR · |h(t)|²) with E|h|² = 1, constant within a slot.

    The autocorrelation of the diffuse part is Clarke's, J0(2π f_d τ). With ``doppler_hz=0`` nothing moves: one gain,
    drawn by the seed, holds for all time (quasi-static fading; another seed is another place).

    Attributes:
        kind: ``rayleigh`` (no line of sight) or ``rician`` (line of sight plus diffuse part).
        snr_db: mean signal-to-noise ratio in dB.
        bandwidth_hz: bandwidth B in Hz; the channel is flat over it.
        doppler_hz: maximum Doppler shift f_d = speed · carrier / c in Hz, 0 to 1e5.
        k_db: Rician K factor, power of the line of sight over the diffuse power, in dB; needed by ``rician`` only.
        share: this device's fraction of the capacity, in (0, 1].
        estimate_window_s: the observed rate is the mean capacity over this past, in s.
        seed: draws angles and phases, ≥ 0. None means 0 here; ``make_link`` puts the run's seed in its place.

    Raises:
        SpecError: a value outside its physics.
    """

    kind: Literal["rayleigh", "rician"] = "rayleigh"
    snr_db: float = 10.0
    bandwidth_hz: float = 1e6
    doppler_hz: float = 10.0
    k_db: float | None = None
    share: float = 1.0
    estimate_window_s: float = 1.0
    seed: int | None = None
    _omega: np.ndarray = field(init=False, repr=False, compare=False)  # (paths,) Doppler shifts in rad/s
    _rows: np.ndarray = field(init=False, repr=False, compare=False)  # (_ROWS, paths) at each row's first slot
    _columns: np.ndarray = field(init=False, repr=False, compare=False)  # (paths, _COLUMNS) at each slot in a row

    def __post_init__(self) -> None:
        if self.kind not in ("rayleigh", "rician"):
            raise SpecError(f"kind is {self.kind!r}; allowed: rayleigh, rician")
        check_ratio_db("snr_db", self.snr_db)
        check_positive("bandwidth_hz", self.bandwidth_hz)
        if not 0 <= self.doppler_hz <= MAX_DOPPLER_HZ:
            raise SpecError(f"doppler_hz is {self.doppler_hz}; 0 to {MAX_DOPPLER_HZ:g} Hz are allowed")
        if (self.k_db is None) == (self.kind == "rician"):
            raise SpecError(f"k_db is {self.k_db} with kind={self.kind}; rician needs a K factor, rayleigh has none")
        if self.k_db is not None:
            check_ratio_db("k_db", self.k_db)
        check_share(self.share)
        check_positive("estimate_window_s", self.estimate_window_s)
        if self.seed is not None and self.seed < 0:
            raise SpecError(f"seed is {self.seed}; an integer of 0 or more is needed")

        cosines, gains = _draw_paths(self.k_db, self.seed or 0)
        omega = 2 * math.pi * self.doppler_hz * cosines
        row_s = np.arange(_ROWS)[:, None] * _COLUMNS * self._slot_s
        column_s = np.arange(_COLUMNS) * self._slot_s
        object.__setattr__(self, "_omega", omega)
        object.__setattr__(self, "_rows", gains * np.exp(1j * omega * row_s))
        object.__setattr__(self, "_columns", np.exp(1j * omega[:, None] * column_s))

    def observe(self, t_s: float) -> LinkState:
        """The SNR of the last whole slot before ``t_s`` and the mean capacity over the window that ends with it.

        The channel exists before time 0, so the first observation has a past too.
        """
        check_time("t_s", t_s)
        slot = math.floor(t_s / self._slot_s) - 1
        rate_bps = float(self.capacity_bps(np.array(t_s)))
        if self.doppler_hz:
            known_until_s = (slot + 1) * self._slot_s
            rate_bps = self._mean_bps(known_until_s - self.estimate_window_s, self.estimate_window_s)
        power = float(self._block_power(slot // _BLOCK)[slot % _BLOCK])
        return LinkState(float(t_s), self.snr_db + 10 * math.log10(power), self.bandwidth_hz, rate_bps)

    def capacity_bps(self, t_s: np.ndarray) -> np.ndarray:
        """Capacity in bit/s of the slots that hold the times given, same shape."""
        slots = np.floor(np.asarray(t_s) / self._slot_s).astype(np.int64)
        rates = np.empty(slots.shape)
        for block in np.unique(slots // _BLOCK):
            inside = slots // _BLOCK == block
            rates[inside] = self._block_bps(int(block))[slots[inside] % _BLOCK]
        return rates

    @property
    def _slot_s(self) -> float:
        """Length of a slot in s (with no Doppler shift any length does)."""
        return 1 / (SLOTS_PER_DOPPLER_CYCLE * self.doppler_hz) if self.doppler_hz else 1.0

    def _block_power(self, block: int) -> np.ndarray:
        """|h|² in the middle of the block's slots, (_BLOCK,).

        Slot times form a grid, row + column, and exp(jω(a + b)) = exp(jωa) · exp(jωb): the sum over the paths at all
        of them is one matrix product, with a single exponential per path and block.
        """
        middle_s = (block * _BLOCK + 0.5) * self._slot_s
        gain = (self._rows * np.exp(1j * self._omega * middle_s)) @ self._columns  # (_ROWS, _COLUMNS) complex
        return (gain.real**2 + gain.imag**2).ravel()

    def _block_bps(self, block: int) -> np.ndarray:
        """Capacity in bit/s of the block's slots, (_BLOCK,)."""
        snr = 10 ** (self.snr_db / 10) * self._block_power(block)
        return self.share * self.bandwidth_hz * np.log1p(snr) / math.log(2)

    def _slots(self, start_s: float, duration_s: float) -> Iterator[Slots]:
        if not self.doppler_hz:
            yield np.array([0.0, duration_s]), self._block_bps(0)[:1]
            return
        first = math.floor(start_s / self._slot_s) // _BLOCK
        last = math.floor((start_s + duration_s) / self._slot_s) // _BLOCK
        for block in range(first, last + 1):
            edges_s = np.arange(block * _BLOCK, (block + 1) * _BLOCK + 1) * self._slot_s
            yield cut_slots(edges_s, self._block_bps(block), start_s, duration_s)


def _draw_paths(k_db: float | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of the angles of arrival, (paths,), and complex gains, (paths,), of total power 1."""
    generator = np.random.default_rng([seed, _STREAM])
    offsets = generator.uniform(-math.pi, math.pi, SCATTERERS)
    phases = generator.uniform(-math.pi, math.pi, SCATTERERS)
    cosines = np.cos((2 * math.pi * np.arange(1, SCATTERERS + 1) + offsets) / SCATTERERS)
    gains = np.exp(1j * phases) / math.sqrt(SCATTERERS)
    if k_db is None:
        return cosines, gains
    k = 10 ** (k_db / 10)
    angle, phase = generator.uniform(-math.pi, math.pi, 2)
    cosines = np.append(cosines, math.cos(angle))
    gains = np.append(gains / math.sqrt(1 + k), np.exp(1j * phase) * math.sqrt(k / (1 + k)))
    return cosines, gains
