"""Statistics of a batch's text: how rich its words are, and how many were never seen before."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class TextStatistics:
    """Complexity of one batch of text.

    Attributes:
        lexical_entropy: see ``lexical_entropy``; 0 … 1.
        oov_rate: see ``oov_rate``; 0 … 1.
        mean_words: words in a text, mean over the batch.
        loss: training loss of the batch in nats, NaN before the first step.
    """

    lexical_entropy: float
    oov_rate: float
    mean_words: float
    loss: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)
