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

    With ``passes`` ≥ 2 each step trains the smallest and the largest prefix (the sandwich rule of Yu &
    Huang 2019, slimmable networks) and passes − 2 of those between on the whole batch, the ones between
    taken in turn from a seeded shuffle; its cost is about ``passes`` plain steps. With 1 the rows of the
    batch are split over all prefixes, at the cost of one plain step.

    Attributes:
        prefixes: ranks to train, ascending.
        passes: forward and backward passes a step, 1 … len(prefixes).
        seed: of the shuffles.
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
        between = self.prefixes[1:-1]
        count = self.passes - 2
        ranks = [self.prefixes[0], self.prefixes[-1]]
        if count:
            ranks += [between[index] for index in _in_turn(self.seed, step, count, len(between))]
        return tuple(Pass(rank, slice(None), 1 / self.passes) for rank in sorted(ranks))


def _in_turn(seed: int, step: int, count: int, size: int) -> list[int]:
    """``count`` different indices of ``size``, walking through seeded shuffles so that all get equal turns."""
    positions = range(step * count, (step + 1) * count)
    chosen: list[int] = []
    for position in positions:
        order = np.random.default_rng([seed, 3, position // size]).permutation(size).tolist()
        index = order[position % size]
        if index in chosen:  # two shuffles meet inside one step: take the next one not used yet
            index = next(i for i in order if i not in chosen)
        chosen.append(index)
    return chosen
