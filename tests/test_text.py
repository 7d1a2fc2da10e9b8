"""Text statistics against hand-computed values, and their properties."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlora.errors import StoreError
from airlora.workload.text import (
    TextStatistics,
    Vocabulary,
    describe,
    lexical_entropy,
    paper_lexical_entropy,
    paper_oov_rate,
    words,
)

BATCHES = st.lists(st.sampled_from("abcdefgh"), max_size=150)
SST2 = Path(__file__).parents[2] / "shared" / "data" / "sst2" / "train.tsv"
FEW = settings(max_examples=60, deadline=None)


# ------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don’t turn 'Lights_2' off!", ["don't", "turn", "lights", "2", "off"]),
        ("ÄRGER im Café, 20°C", ["ärger", "im", "café", "20", "c"]),
        ("Cafe\u0301", ["café"]),  # decomposed accent
        ("rock 'n' roll", ["rock", "n", "roll"]),
        ("включи свет", ["включи", "свет"]),
        (" \t\n", []),
        ("?!… — '' __", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


# ------------------------------------------------------------------ lexical entropy


def test_entropy_of_distinct_words_is_one() -> None:
    assert lexical_entropy(list("abcd")) == pytest.approx(1)


def test_entropy_of_one_repeated_word_is_zero() -> None:
    assert lexical_entropy(["a"] * 200) == pytest.approx(0, abs=1e-9)


def test_entropy_below_the_sample_size_is_the_plug_in_entropy() -> None:
    # a: 1/2, b: 1/4, c: 1/4 -> 1.5 bit of log2(4) = 2 bit
    assert lexical_entropy(["a", "b", "a", "c"]) == pytest.approx(0.75)


def test_entropy_of_a_sample_of_two_by_hand() -> None:
    # Of the 6 pairs out of a a b b, 4 hold both types (1 bit of 1) and 2 hold one (0 bit).
    assert lexical_entropy(["a", "a", "b", "b"], sample_words=2) == pytest.approx(4 / 6)


def test_entropy_equals_the_mean_over_all_samples() -> None:
    batch, n = list("aaabbcde"), 4

    def plug_in_bits(sample: tuple[str, ...]) -> float:
        return -sum(c / n * math.log2(c / n) for c in Counter(sample).values())

    samples = list(itertools.combinations(batch, n))
    expected = sum(map(plug_in_bits, samples)) / len(samples) / math.log2(n)
    assert lexical_entropy(batch, sample_words=n) == pytest.approx(expected)


def test_entropy_does_not_depend_on_the_length_of_the_batch() -> None:
    """Mean over batches of one source, 100 and 800 words: ours agrees, the paper's differs (it is not a rate)."""
    rng = random.Random(0)
    source = [f"w{i}" for i in range(400)]
    weights = [1 / (i + 1) for i in range(400)]  # Zipf

    def mean(measure, size: int) -> float:
        return sum(measure(rng.choices(source, weights, k=size)) for _ in range(60)) / 60

    assert mean(lexical_entropy, 100) == pytest.approx(mean(lexical_entropy, 800), abs=0.01)
    assert mean(paper_lexical_entropy, 100) > mean(paper_lexical_entropy, 800) + 0.05


def test_entropy_ranks_a_narrow_source_below_a_wide_one() -> None:
    rng = random.Random(1)
    narrow = rng.choices([f"w{i}" for i in range(20)], k=200)
    wide = rng.choices([f"w{i}" for i in range(2000)], k=200)
    assert lexical_entropy(narrow) + 0.2 < lexical_entropy(wide)
    # The paper's measure cannot tell them apart: both sources are even.
    assert paper_lexical_entropy(narrow) == pytest.approx(paper_lexical_entropy(wide), abs=0.03)


@pytest.mark.skipif(not SST2.exists(), reason="../shared/data/sst2 is absent")
def test_entropy_of_sst2_batches() -> None:
    """The figures in the module's docstring: batches of 8, 32 and 128 sentences, mean of 60."""
    sentences = [line.split("\t")[0] for line in SST2.read_text(encoding="utf-8").splitlines()]
    rng = random.Random(0)
    batches = {
        size: [[word for text in rng.sample(sentences, size) for word in words(text)] for _ in range(60)]
        for size in (8, 32, 128)
    }
    ours = [sum(map(lexical_entropy, batches[size])) / 60 for size in batches]
    papers = [sum(map(paper_lexical_entropy, batches[size])) / 60 for size in batches]
    assert ours == pytest.approx([0.94, 0.94, 0.94], abs=0.005)
    assert papers == pytest.approx([0.96, 0.92, 0.87], abs=0.005)


def test_entropy_refuses_a_sample_below_two_words() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        lexical_entropy(["a", "b"], sample_words=1)


@FEW
@given(BATCHES)
def test_entropy_is_between_zero_and_one(batch: list[str]) -> None:
    assert 0 <= lexical_entropy(batch) <= 1
    assert 0 <= paper_lexical_entropy(batch) <= 1


@FEW
@given(BATCHES, st.randoms(use_true_random=False))
def test_entropy_ignores_the_order_and_the_names_of_words(batch: list[str], rng: random.Random) -> None:
    shuffled = [word.upper() for word in batch]
    rng.shuffle(shuffled)
    assert lexical_entropy(shuffled) == pytest.approx(lexical_entropy(batch))
    assert paper_lexical_entropy(shuffled) == pytest.approx(paper_lexical_entropy(batch))


@FEW
@given(BATCHES, st.integers(2, 4))
def test_repeating_a_batch_never_raises_its_entropy(batch: list[str], times: int) -> None:
    once, repeated = lexical_entropy(batch), lexical_entropy(batch * times)
    assert repeated <= once + 1e-9
    if len(set(batch)) > 1:
        assert repeated < once


# ------------------------------------------------------------------ vocabulary


def test_oov_rate_counts_tokens_not_types() -> None:
    vocabulary = Vocabulary(["turn", "on"])
    assert vocabulary.oov_rate(["turn", "lamp", "on", "lamp"]) == 0.5


def test_every_word_is_new_to_an_empty_vocabulary() -> None:
    assert Vocabulary().oov_rate(["turn", "on"]) == 1


def test_oov_rate_falls_to_zero_on_repeated_text() -> None:
    vocabulary = Vocabulary()
    rates = []
    for batch in (["a", "b"], ["b", "c"], ["a", "b"], ["c", "a"]):
        rates.append(vocabulary.oov_rate(batch))
        vocabulary.update(batch)
    assert rates == [1, 0.5, 0, 0]


@FEW
@given(st.lists(st.text(max_size=5), max_size=30), st.lists(st.text(max_size=5), max_size=30))
def test_a_restored_vocabulary_answers_alike(known: list[str], batch: list[str]) -> None:
    vocabulary = Vocabulary(known)
    state = json.loads(json.dumps(vocabulary.to_json()))
    restored = Vocabulary.from_json(state)
    assert restored.oov_rate(batch) == vocabulary.oov_rate(batch)
    assert len(restored) == len(vocabulary) == len(set(known))
    assert restored.to_json() == state
    restored.update(batch)
    assert restored.oov_rate(batch) == 0


@pytest.mark.parametrize("state", [{}, {"words": "abc"}, {"words": [1]}, []])
def test_a_corrupt_vocabulary_state_is_refused(state: object) -> None:
    with pytest.raises(StoreError, match="vocabulary state"):
        Vocabulary.from_json(state)  # type: ignore[arg-type]


# ------------------------------------------------------------------ describe


def test_describe_by_hand() -> None:
    statistics = describe(["Turn on, turn OFF.", "Lights!"], Vocabulary(["turn"]), loss=1.25)
    # turn turn on off lights: 2/5 known; H = 0.4 log2(2.5) + 3 · 0.2 log2(5) bit of log2(5)
    entropy = (0.4 * math.log2(2.5) + 0.6 * math.log2(5)) / math.log2(5)
    assert statistics.lexical_entropy == pytest.approx(entropy)
    assert statistics.oov_rate == pytest.approx(3 / 5)
    assert statistics.mean_words == 2.5
    assert statistics.to_json()["loss"] == 1.25


def test_describe_leaves_the_vocabulary_as_it_is() -> None:
    vocabulary = Vocabulary()
    first, second = (describe(["turn on"], vocabulary, loss=0.0) for _ in range(2))
    assert first == second
    assert len(vocabulary) == 0


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], (0, 0, 0)),
        ([""], (0, 0, 0)),
        (["?!", "…"], (0, 0, 0)),
        (["stop"], (0, 1, 1)),
        (["stop", ""], (0, 1, 0.5)),
    ],
)
def test_a_batch_of_no_or_one_word_has_documented_values(texts: list[str], expected: tuple[float, ...]) -> None:
    statistics = describe(texts, Vocabulary(), loss=math.nan)
    assert (statistics.lexical_entropy, statistics.oov_rate, statistics.mean_words) == expected
    assert math.isnan(statistics.loss)


@pytest.mark.parametrize(
    "values", [(1.5, 0, 1), (-0.1, 0, 1), (0, 2, 1), (0, 0, -1), (0, 0, math.inf), (math.nan, 0, 1)]
)
def test_impossible_statistics_are_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="allowed"):
        TextStatistics(*values, loss=0.0)


# ------------------------------------------------------------------ the paper's definitions


def test_paper_entropy_by_hand() -> None:
    assert paper_lexical_entropy([7, 7, 7, 9, 9, 9]) == pytest.approx(1)
    # 3/4 and 1/4: 2 − 0.75 log2(3) bit of log2(2)
    assert paper_lexical_entropy([7, 7, 7, 9]) == pytest.approx(2 - 0.75 * math.log2(3))


@pytest.mark.parametrize("token_ids", [[], [5], [5, 5, 5]])
def test_paper_entropy_below_two_types_is_zero(token_ids: list[int]) -> None:
    assert paper_lexical_entropy(token_ids) == 0


def test_paper_oov_rate_by_hand() -> None:
    assert paper_oov_rate([3, 0, 0, 8], unk_token_id=0) == 0.5
    assert paper_oov_rate([], unk_token_id=0) == 0
    assert paper_oov_rate([3, 0, 0, 8], unk_token_id=None) == 0  # byte-level BPE has no unknown token
