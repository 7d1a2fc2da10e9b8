"""The state of AirLLM's decision process as a vector."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StateScale:
    """Scales what is known to [0, 1]; what lies outside a range counts as its end, what was not measured as 0.

    Attributes:
        snr_low_db, snr_high_db: range of the SNR, in dB.
        bandwidth_high_hz: the bandwidth's range is 0 … this, in Hz.
    """

    snr_low_db: float
    snr_high_db: float
    bandwidth_high_hz: float

    def __post_init__(self) -> None:
        if not -math.inf < self.snr_low_db < self.snr_high_db < math.inf:
            raise ValueError(f"snr range {self.snr_low_db} … {self.snr_high_db} dB must ascend and be finite")
        if not 0 < self.bandwidth_high_hz < math.inf:
            raise ValueError(f"bandwidth_high_hz is {self.bandwidth_high_hz}; it must be finite and above 0")

    def vector(
        self, *, snr_db: float, bandwidth_hz: float, entropy: float, oov_rate: float, rank_fractions: np.ndarray
    ) -> np.ndarray:
        """The state, (4 + M,) float32 in [0, 1]: SNR, bandwidth, lexical entropy H, out-of-vocabulary rate ζ, r/r_max.

        Args:
            snr_db: signal-to-noise ratio in dB, NaN if unknown.
            bandwidth_hz: in Hz, NaN if unknown.
            entropy, oov_rate: of the batch, 0 … 1.
            rank_fractions: (M,) current ranks over r_max.

        Source: AirLLM, state of the decision process.
        """
        snr = (snr_db - self.snr_low_db) / (self.snr_high_db - self.snr_low_db)
        head = [snr, bandwidth_hz / self.bandwidth_high_hz, entropy, oov_rate]
        values = np.concatenate([head, np.asarray(rank_fractions, np.float64)])
        return np.clip(np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0).astype(np.float32)
