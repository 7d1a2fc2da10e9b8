"""Between the diffusion's numbers in [−1, 1] and ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Decoding = Literal["floor", "bins"]


@dataclass(frozen=True, eq=False)
class RankDecoder:
    """Turns x0 ∈ [−1, 1]^M into ranks, and says which x0 a replay should keep.

    * ``floor`` (AirLLM): r = r_min + ⌊(x0 + 1)/2 · (r_max − r_min)⌋. r_max needs x0 = 1 exactly, and the lower edge of
      a rank's interval decodes to itself, so that replaying decoded ranks is a ratchet downwards: the replay keeps x0
      as it was before the floor.
    * ``bins``: r_max − r_min + 1 bins of equal width, one a rank; the replay keeps the centre of the bin, which
      decodes to its own rank with half a bin to spare on both sides.

    Attributes:
        r_min: smallest rank of every projection.
        r_max: (M,) int64, largest ranks, each at least ``r_min``.
        decoding: how.
    """

    r_min: int
    r_max: np.ndarray
    decoding: Decoding

    def __post_init__(self) -> None:
        if self.decoding not in ("floor", "bins"):
            raise ValueError(f"decoding is {self.decoding!r}; allowed: floor, bins")
        if not 0 <= self.r_min <= int(self.r_max.min()):
            raise ValueError(f"r_min is {self.r_min}; it must be in 0 … {int(self.r_max.min())}, the least r_max")

    def ranks(self, x0: np.ndarray) -> np.ndarray:
        """Ranks (…, M) int64 of x0 (…, M); values outside [−1, 1] count as its ends, NaN as −1."""
        unit = (_valid(x0) + 1) / 2  # (…, M) in [0, 1]
        span = self.r_max - self.r_min
        if self.decoding == "floor":
            return (self.r_min + np.floor(unit * span)).astype(np.int64)
        return (self.r_min + np.minimum(np.floor(unit * (span + 1)), span)).astype(np.int64)

    def centres(self, ranks: np.ndarray) -> np.ndarray:
        """The x0 (…, M) in the middle of the values that decode to these ranks, (…, M)."""
        span = self.r_max - self.r_min
        above = np.clip(ranks, self.r_min, self.r_max) - self.r_min
        if self.decoding == "bins":
            return 2 * (above + 0.5) / (span + 1) - 1
        # The last interval of the floor is the point x0 = 1.
        return 2 * np.minimum(above + 0.5, span) / np.maximum(span, 1) - 1

    def replayed(self, x0: np.ndarray) -> np.ndarray:
        """The x0 (…, M) that a replay should keep for the decision x0 (…, M)."""
        return _valid(x0) if self.decoding == "floor" else self.centres(self.ranks(x0))


def _valid(x0: np.ndarray) -> np.ndarray:
    return np.clip(np.nan_to_num(np.asarray(x0, np.float64), nan=-1.0, posinf=1.0, neginf=-1.0), -1.0, 1.0)
