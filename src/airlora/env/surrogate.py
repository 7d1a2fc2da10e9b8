"""What an edge gains that holds a mixture of versions: exact where it was measured, a fitted estimate between.

For an edge that holds one version at one number of bits, cut to one prefix, the estimate is the measured gain. For any
other it is the sum of what each component added in its own version, averaged over projections, less what the mixture
costs: a linear function, without a constant, of three numbers that are 0 in the measured states.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from airlora.codec import BITS
from airlora.env.stream_table import MEASURED_BITS, JobTable

_RIDGE = 1e-3
_COLUMNS = np.minimum(np.searchsorted(MEASURED_BITS, BITS), len(MEASURED_BITS) - 1)
"""Of each of ``BITS``, its column among ``MEASURED_BITS``."""


@dataclass(frozen=True, eq=False)
class Held:
    """What an edge holds, by version (0: as before the first round).

    Attributes:
        version: (M, K) int64. bits: (M, K) int64, values of ``BITS``.
        active: (M,) int64 components in use.
        head_version, head_bits: of the head.
    """

    version: np.ndarray
    bits: np.ndarray
    active: np.ndarray
    head_version: int
    head_bits: int

    @classmethod
    def nothing(cls, table: JobTable) -> Held:
        """Before the first round."""
        shape = table.energy.shape[1:]
        return cls(np.zeros(shape, np.int64), np.full(shape, 4), np.zeros(shape[0], np.int64), 0, 4)

    @property
    def stored(self) -> np.ndarray:
        """(M,) components ever received, without a gap."""
        return np.cumprod(self.version > 0, axis=1).sum(axis=1)


def bits_column(bits: np.ndarray | int) -> np.ndarray:
    """Where ``MEASURED_BITS`` has these bits, values of ``BITS``: what is finer than the last counts as it."""
    return _COLUMNS[np.searchsorted(BITS, bits)]


class Surrogate:
    """The gain of any ``Held`` of one job.

    Args:
        table: of the job; its mixtures fit the correction.
        weights: (3,) of the correction, in place of a fit.
    """

    def __init__(self, table: JobTable, weights: np.ndarray | None = None):
        self.table = table
        self._rows = np.arange(table.energy.shape[1])
        share = np.sqrt(table.energy[-1].sum(axis=1))
        self._share = share / share.sum()  # (M,)
        self.weights = self._fit(np.arange(len(table.mixed_gain))) if weights is None else weights

    def gains(self, held: Held, actives: np.ndarray) -> np.ndarray:
        """Gain (A,) of what is held at each of several active ranks (A, M)."""
        columns = bits_column(held.bits)
        head = self.table.head_gain[held.head_version, int(bits_column(held.head_bits))]
        parts, features = self._features(held.version, columns, actives, held.head_version)
        return head + parts + features @ self.weights

    def gain(self, held: Held) -> float:
        """Gain of what is held."""
        return float(self.gains(held, held.active[None])[0])

    def held_out_error(self, folds: int = 5) -> tuple[float, float]:
        """(mean absolute, root mean square) error of the gain of measured mixtures that the fit did not see."""
        order = np.random.default_rng(0).permutation(len(self.table.mixed_gain))
        errors = []
        for fold in np.array_split(order, folds):
            seen = np.setdiff1d(order, fold)
            other = Surrogate(self.table, self._fit(seen))
            errors += [other.gain(self.mixture(index)) - self.table.mixed_gain[index] for index in fold.tolist()]
        return float(np.mean(np.abs(errors))), float(np.sqrt(np.mean(np.square(errors))))

    def _features(
        self, version: np.ndarray, columns: np.ndarray, actives: np.ndarray, head_version: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """(what components add (A,), corrections (A, 3)); ``columns`` (M, K) index ``MEASURED_BITS``."""
        table, share = self.table, self._share
        components = np.arange(version.shape[1])
        added = table.component_gain[version, columns, components]  # (M, K)
        risk = np.abs(added) * table.disagreement[version[:, :1], version, self._rows[:, None], components]
        zero = np.zeros((len(added), 1))
        at = self._rows, actives
        sums = np.concatenate([zero, np.cumsum(added, axis=1)], 1)[at]  # (A, M)
        risks = np.concatenate([zero, np.cumsum(risk, axis=1)], 1)[at]
        parts = sums @ share
        spread = np.sqrt(np.square(sums - parts[:, None]) @ share)
        first = table.head_gain[head_version, 0] - table.head_gain[version[:, 0], 0] if table.schema.head else 0.0
        return parts, np.stack([risks @ share, spread, np.full(len(parts), np.mean(np.abs(first)))], 1)

    def mixture(self, index: int) -> Held:
        """One of those that the table has measured."""
        table = self.table
        head_version, head_column = table.mixed_head[index].tolist()
        bits = np.array(MEASURED_BITS)[table.mixed_bits[index]]
        return Held(
            table.mixed_version[index], bits, table.mixed_active[index], head_version, MEASURED_BITS[head_column]
        )

    def _fit(self, chosen: np.ndarray) -> np.ndarray:
        """Ridge regression of what the sum over components leaves unexplained."""
        rows, targets = [], []
        for index in chosen.tolist():
            held = self.mixture(index)
            head = self.table.head_gain[held.head_version, int(bits_column(held.head_bits))]
            parts, features = self._features(held.version, bits_column(held.bits), held.active[None], held.head_version)
            rows.append(features[0])
            targets.append(self.table.mixed_gain[index] - head - parts[0])
        x, y = np.array(rows).reshape(-1, 3), np.array(targets)
        return np.linalg.solve(x.T @ x + _RIDGE * np.eye(3), x.T @ y)
