"""Which prefixes of a nested adapter one training step trains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass: at this rank, on these rows, with this weight in the loss."""

    rank: int
    rows: slice
    weight: float


@dataclass(frozen=True)
class PrefixMixture:
    """A fixed mixture of prefixes, the same whatever is sent, so that every prefix becomes a good model.

    With ``passes`` ≥ 2 the prefixes are cut into as many groups of neighbours, and each step trains one prefix of every
    group on the whole batch, those of a group in turns; its cost is about ``passes`` plain steps. (Training the
    smallest and the largest in every step, the sandwich rule of Yu & Huang 2019, starves the ranks between: LOG.md.)
    With 1 the rows of the batch are split over all prefixes, at 1.5 times the cost of a plain step.

    Attributes:
        prefixes: ranks to train, ascending.
        passes: forward and backward passes a step, 1 … len(prefixes).
        seed: of the order of turns.
    """

    prefixes: tuple[int, ...]
    passes: int
    seed: int

    def __post_init__(self) -> None:
        if not 1 <= self.passes <= len(self.prefixes):
            raise ValueError(f"passes {self.passes} must be in 1..{len(self.prefixes)}, the number of prefixes")

    def draw(self, step: int, batch_rows: int) -> tuple[Pass, ...]:
        """The passes of one step: a pure function of seed and step."""
        if self.passes == 1:
            edges = np.linspace(0, batch_rows, len(self.prefixes) + 1).round().astype(int)
            # A batch smaller than the mixture serves its prefixes in turn.
            turn = np.roll(self.prefixes, step)
            return tuple(
                Pass(int(rank), slice(int(begin), int(end)), (end - begin) / batch_rows)
                for rank, begin, end in zip(turn, edges[:-1], edges[1:], strict=True)
                if end > begin
            )
        return tuple(
            Pass(self._turn(group, step, index), slice(None), 1 / self.passes)
            for index, group in enumerate(np.array_split(self.prefixes, self.passes))
        )

    def _turn(self, group: np.ndarray, step: int, index: int) -> int:
        """The prefix of a group whose turn it is: each once in every ``len(group)`` steps, in shuffled order."""
        cycle, position = divmod(step, len(group))
        order = np.random.default_rng([self.seed, 3, index, cycle]).permutation(len(group))
        return int(group[order[position]])
