"""Statistics of a batch's text: how rich its words are, and how many were never seen before.

Two numbers of the policy's observation are computed here. The definitions of the AirLLM paper (entropy over token types
normalised by the log of its own support; share of UNK tokens) stay available as ``paper_lexical_entropy`` and
``paper_oov_rate``, but they carry little: the first is near 1 and falls with the batch's length (SST-2, batches of
8, 32 and 128 sentences: 0.96, 0.92, 0.87), the second is always 0 for a byte-level tokenizer. ``lexical_entropy``
compares samples of one fixed size instead (0.94 at all three lengths; ``tests/test_text.py`` repeats the measurement),
and ``Vocabulary.oov_rate`` counts words that the training text had not shown so far.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from airlora.errors import StoreError

ENTROPY_SAMPLE_WORDS = 64
"""Size of the sample in which ``lexical_entropy`` is measured: about 8 short commands, so most batches reach it."""

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


@dataclass(frozen=True)
class TextStatistics:
    """Complexity of one batch of text.

    Attributes:
        lexical_entropy: see ``lexical_entropy``; 0 … 1.
        oov_rate: see ``Vocabulary.oov_rate``; 0 … 1.
        mean_words: words in a text, mean over the batch.
        loss: training loss of the batch in nats, NaN before the first step.
    """

    lexical_entropy: float
    oov_rate: float
    mean_words: float
    loss: float

    def __post_init__(self) -> None:
        for name in ("lexical_entropy", "oov_rate"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; allowed: 0 … 1")
        if not 0 <= self.mean_words < math.inf:
            raise ValueError(f"mean_words is {self.mean_words}; allowed: finite and at least 0")

    def to_json(self) -> dict[str, float]:
        """The four numbers by name; ``loss`` may be NaN."""
        return asdict(self)


class Vocabulary:
    """The words of the text trained on so far; it grows and never forgets."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        self._words = set(words)

    def __len__(self) -> int:
        return len(self._words)

    def __contains__(self, word: object) -> bool:
        return word in self._words

    def oov_rate(self, words: Sequence[str]) -> float:
        """Share of the word tokens that are out of the vocabulary, 0 … 1; 0 without words.

        A word that is new and occurs twice counts twice. Against an empty vocabulary every word is new: 1.
        """
        if not words:
            return 0.0
        return sum(word not in self._words for word in words) / len(words)

    def update(self, words: Iterable[str]) -> None:
        """Add the words."""
        self._words.update(words)

    def to_json(self) -> dict[str, list[str]]:
        """The words in sorted order, so that equal vocabularies give equal files."""
        return {"words": sorted(self._words)}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Vocabulary:
        """The inverse of ``to_json``.

        Raises:
            StoreError: ``state`` is not what ``to_json`` wrote.
        """
        found = state.get("words") if isinstance(state, Mapping) else None
        if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
            raise StoreError('vocabulary state is not {"words": [string, …]}; restore the file or start a new run')
        return cls(found)


def words(text: str) -> list[str]:
    """Lower-cased words of ``text``: runs of Unicode letters and digits, with apostrophes inside a run.

    The text is brought to NFC, the typographic apostrophe ’ to ', and matched by ``[^\\W_]+(?:'[^\\W_]+)*``:
    ``words("Don’t turn 'Lights_2' off!") == ["don't", "turn", "lights", "2", "off"]``. A script without spaces
    between words gives one word a run.
    """
    return _WORD.findall(unicodedata.normalize("NFC", text).lower().replace("’", "'"))


def lexical_entropy(words: Sequence[str], sample_words: int = ENTROPY_SAMPLE_WORDS) -> float:
    """Expected entropy of a random sample of the batch's words, as a share of the largest possible, 0 … 1.

    With N words, word type i occurring fᵢ times and n = min(``sample_words``, N), the sample is drawn without
    replacement, so that type i occurs K ~ Hypergeometric(N, fᵢ, n) times in it, and the value is

        1 / log2(n) · Σᵢ Σₖ P(K = k) · (k/n) · log2(n/k).

    1: all words are distinct; 0: all are the same, or there are fewer than two. Example: ``a b a c`` (N = n = 4) has
    an entropy of 1.5 bit of at most 2, so 0.75. Repeating a batch never raises the value. For N ≥ ``sample_words``
    the expectation over batches of one source does not depend on the batch's length, while the entropy of the whole
    batch grows with it and its share of log2(N) falls with it. With fewer words the value is that share.

    Source: rarefaction (Hurlbert 1971, doi:10.2307/1934145), as in the HD-D measure of lexical diversity
    (McCarthy and Jarvis 2007), applied to entropy.

    Raises:
        ValueError: ``sample_words`` is below 2.
    """
    if sample_words < 2:
        raise ValueError(f"sample_words is {sample_words}; allowed: at least 2")
    total = len(words)
    sample = min(sample_words, total)
    if sample < 2:
        return 0.0
    types_by_count = Counter(Counter(words).values())
    entropy_bits = 0.0
    for count, types in types_by_count.items():
        for k in range(max(1, sample - (total - count)), min(count, sample) + 1):
            log_probability = (
                _log_binomial(count, k) + _log_binomial(total - count, sample - k) - _log_binomial(total, sample)
            )
            entropy_bits += types * math.exp(log_probability) * k / sample * math.log2(sample / k)
    return min(max(entropy_bits / math.log2(sample), 0.0), 1.0)


def describe(texts: Sequence[str], vocabulary: Vocabulary, loss: float) -> TextStatistics:
    """Statistics of one batch, before its words enter ``vocabulary``, which is left as it is.

    Call ``vocabulary.update`` after training on the batch. A batch without words (no texts, empty texts, punctuation
    only) gives 0 for entropy, OOV rate and mean length; a batch of one word gives entropy 0.

    Args:
        texts: the batch.
        vocabulary: words of the text trained on so far.
        loss: training loss of the batch in nats, NaN before the first step.
    """
    found = [word for text in texts for word in words(text)]
    return TextStatistics(
        lexical_entropy=lexical_entropy(found),
        oov_rate=vocabulary.oov_rate(found),
        mean_words=len(found) / max(len(texts), 1),
        loss=float(loss),
    )


def paper_lexical_entropy(token_ids: Iterable[Hashable]) -> float:
    """Entropy over token types divided by the log of the number of types, 0 … 1; 0 below two types.

    It measures evenness alone: any batch in which every type occurs equally often gives 1, however few types there are.

    Source: AirLLM, state of the decision process.
    """
    counts = Counter(token_ids)
    if len(counts) < 2:
        return 0.0
    total = counts.total()
    entropy = -sum(count / total * math.log(count / total) for count in counts.values())
    return min(entropy / math.log(len(counts)), 1.0)


def paper_oov_rate(token_ids: Sequence[int], unk_token_id: int | None) -> float:
    """Share of tokens that are the unknown token, 0 … 1; 0 without tokens or for a tokenizer without such a token.

    A byte-level BPE tokenizer covers every string, so its rate is always 0.

    Source: AirLLM, state of the decision process.
    """
    if not len(token_ids) or unk_token_id is None:
        return 0.0
    return sum(int(token) == unk_token_id for token in token_ids) / len(token_ids)


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
