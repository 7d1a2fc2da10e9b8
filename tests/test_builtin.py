"""The built-in model and data: grammar, commands, logs, the shipped asset."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlora.errors import InputError, SpecError
from airlora.workload._vehicle_logs import faults
from airlora.workload.builtin import (
    BUILTIN_DATA,
    builtin_model_path,
    load_builtin_data,
    vehicle_commands,
    vehicle_logs,
    vehicle_templates,
)
from airlora.workload.grammar import alternatives, expand, misspell, shuffled

SPLITS = ("train", "validation", "test")
SCRIPTS = Path(__file__).parents[1] / "scripts"
ASSET_BYTES = 4_000_000
HELD_OUT_PERPLEXITY = 3.5  # the model card states 2.94; a uniform model over the vocabulary has 1024


def words(texts: list[tuple[str, str]]) -> list[str]:
    return [word for text, _ in texts for word in re.findall(r"\w+", text.lower())]


def entropy_bits(tokens: list[str]) -> float:
    counts = np.array(list(Counter(tokens).values()))
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())


def oov_rate(texts: list[tuple[str, str]], known: set[str]) -> float:
    tokens = words(texts)
    return sum(token not in known for token in tokens) / len(tokens)


# ------------------------------------------------------------------ grammar


def test_a_bound_slot_repeats_and_a_free_one_is_drawn_anew() -> None:
    slots = {"letter": tuple("abcdefghijklmnop")}
    for seed in range(20):
        first, second = expand("{letter#1} {letter#1}", slots, random.Random(seed)).split()
        assert first == second
    free = [expand("{letter} {letter}", slots, random.Random(seed)).split() for seed in range(20)]
    assert any(first != second for first, second in free)


def test_a_binding_is_shared_by_the_sentences_of_a_text() -> None:
    bound: dict[str, str] = {}
    slots = {"name": ("Anna", "Tom", "Paul", "Ben")}
    rng = random.Random(3)
    assert expand("{name#1}", slots, rng, bound) == expand("{name#1}", slots, rng, bound) == bound["name#1"]


def test_choices_articles_and_spaces() -> None:
    rng = random.Random(0)
    drawn = {expand("a {thing} (now|) , please", {"thing": ("apple", "pear")}, rng) for _ in range(200)}
    assert drawn == {f"{thing}{now}, please" for thing in ("an apple", "a pear") for now in (" now", "")}


def test_alternatives_split_outside_parentheses_only() -> None:
    assert alternatives("one (a|b) | two\n | ") == ("one (a|b)", "two", "")


@pytest.mark.parametrize("template", ["open {Slot}", "a | b", "(never closed|"])
def test_a_malformed_template_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="closes nothing"):
        expand(template, {}, random.Random(0))


@given(st.integers(0, 10**6), st.floats(0.01, 1.0))
@settings(max_examples=50, deadline=None)
def test_misspelling_keeps_word_count_first_letters_and_short_words(seed: int, rate: float) -> None:
    text = "please open the left window at 20 degrees or so"
    before, after = text.split(" "), misspell(text, rate, random.Random(seed)).split(" ")
    assert len(after) == len(before)
    for old, new in zip(before, after, strict=True):
        assert new[0] == old[0]
        assert abs(len(new) - len(old)) <= 1
        if len(old) < 3 or not old.isalpha():
            assert new == old


def test_misspelling_rate_is_the_share_of_words_changed() -> None:
    text = " ".join(["window"] * 20_000)
    changed = sum(word != "window" for word in misspell(text, 0.2, random.Random(0)).split(" ")) / 20_000
    assert changed == pytest.approx(0.2, abs=0.02)
    assert misspell(text, 0.0, random.Random(0)) == text


@given(st.lists(st.integers()), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_shuffling_permutes(items: list[int], seed: int) -> None:
    assert sorted(shuffled(items, random.Random(seed))) == sorted(items)


# ------------------------------------------------------------------ vehicle-commands


def test_commands_repeat_by_seed_and_differ_between_seeds() -> None:
    assert vehicle_commands(seed=3) == vehicle_commands(seed=3)
    assert vehicle_commands(seed=3)["train"] != vehicle_commands(seed=4)["train"]


def test_sizes_of_other_splits_do_not_change_a_split() -> None:
    small, large = vehicle_commands(train=100, test=200), vehicle_commands(train=100, test=300)
    assert small["train"] == large["train"]
    assert small["test"] == large["test"][:200]


def test_templates_of_the_splits_are_disjoint() -> None:
    templates = vehicle_templates()
    by_split = {split: {template.text for group in templates[split].values() for template in group} for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not by_split[one] & by_split[other]
    assert sum(map(len, by_split.values())) == sum(
        len(group) for split in SPLITS for group in templates[split].values()
    )


def test_every_intent_is_in_every_split_about_equally_often() -> None:
    data = vehicle_commands()
    assert {split: len(texts) for split, texts in data.items()} == {"train": 3000, "validation": 500, "test": 1000}
    intents = set(vehicle_templates()["train"])
    assert len(intents) >= 24
    for texts in data.values():
        counts = Counter(label for _, label in texts)
        assert set(counts) == intents
        assert max(counts.values()) - min(counts.values()) <= 1


def test_no_text_is_empty_or_keeps_a_slot() -> None:
    for texts in vehicle_commands(noise=0.0).values():
        assert all(text.strip() and not re.search(r"[{}|()#]", text) for text, _ in texts)


def test_a_clean_command_never_has_two_intents() -> None:
    data = vehicle_commands(noise=0.0)
    labels: dict[str, set[str]] = {}
    for text, label in itertools.chain.from_iterable(data.values()):
        labels.setdefault(text, set()).add(label)
    assert not {text: found for text, found in labels.items() if len(found) > 1}


def test_noise_raises_oov_and_entropy() -> None:
    known = set(words(vehicle_commands(noise=0.0)["train"]))
    texts = [vehicle_commands(noise=noise)["test"] for noise in (0.0, 0.05, 0.2)]
    oov = [oov_rate(split, known) for split in texts]
    assert oov[0] < 0.01
    assert oov[0] + 0.01 < oov[1] < oov[2] - 0.05
    entropy = [entropy_bits(words(split)) for split in texts]
    assert entropy[0] < entropy[1] < entropy[2]


def test_vocabulary_raises_entropy() -> None:
    entropy = [entropy_bits(words(vehicle_commands(noise=0.0, vocabulary=v)["train"])) for v in (0.1, 0.5, 1.0)]
    assert entropy[0] + 0.1 < entropy[1] < entropy[2] - 0.1


def test_complexity_drifts_along_the_training_stream() -> None:
    known = set(words(vehicle_commands(noise=0.0)["train"]))
    train = vehicle_commands(noise=0.1)["train"]
    calm, rich = train[:64], train[288:352]  # the trough and the crest of a period of 640 texts
    assert oov_rate(calm, known) + 0.05 < oov_rate(rich, known)


@pytest.mark.parametrize(
    "arguments", [{"noise": 0.6}, {"noise": -0.1}, {"vocabulary": 0.0}, {"vocabulary": 1.1}, {"test": 3}]
)
def test_impossible_commands_are_refused(arguments: dict[str, float]) -> None:
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        vehicle_commands(**arguments)  # type: ignore[arg-type]


# ------------------------------------------------------------------ vehicle-logs


def test_logs_repeat_by_seed_with_the_lengths_asked_for() -> None:
    logs = vehicle_logs(seed=1, characters=40_000)
    assert logs == vehicle_logs(seed=1, characters=40_000)
    assert logs != vehicle_logs(seed=2, characters=40_000)
    assert {split: len(text) for split, text in logs.items()} == {"train": 36_000, "validation": 2_000, "test": 2_000}


def test_splits_share_facts_and_no_record() -> None:
    logs = vehicle_logs()
    records = {split: set(text.split("\n")) for split, text in logs.items()}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not records[one] & records[other]
    known = {(fault.code, fault.part) for fault in faults()}
    for text in logs.values():
        found = set(re.findall(r"part (\S+) from \w+(?: Parts)? clears (\w{3}-\d{3})", text))
        assert found
        assert {(code, part) for part, code in found} <= known


def test_every_fault_has_its_own_code_component_and_part() -> None:
    for name in ("code", "component", "part"):
        assert len({getattr(fault, name) for fault in faults()}) == len(faults()) >= 100


def test_the_training_text_states_nearly_all_facts() -> None:
    text = vehicle_logs()["train"]
    stated = [fault.code in text and fault.part in text for fault in faults()]
    assert np.mean(stated) > 0.95


def test_too_short_logs_are_refused() -> None:
    with pytest.raises(ValueError, match="characters=100"):
        vehicle_logs(characters=100)


# ------------------------------------------------------------------ names


def test_a_spec_gives_the_data_set_with_its_values() -> None:
    built = load_builtin_data("builtin:vehicle-commands,noise=0.2,seed=5,train=100,validation=50,test=60")
    assert built.task == "classify"
    assert built.load() == vehicle_commands(seed=5, train=100, validation=50, test=60, noise=0.2)
    assert load_builtin_data("builtin:vehicle-logs").task == "lm"
    assert {data.task for data in BUILTIN_DATA.values()} == {"classify", "lm"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("builtin:boats", "vehicle-commands, vehicle-logs"),
        ("builtin:vehicle-commands,colour=red", "noise, vocabulary, seed, train, validation, test"),
        ("builtin:vehicle-commands,noise=2", r"noise=2\.0 must be in 0\.\.0\.5"),
        ("builtin:vehicle-logs,characters=many", "a number"),
    ],
)
def test_a_wrong_spec_is_refused_with_what_there_is(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_builtin_data(spec)


def test_an_unknown_model_is_refused_with_the_names() -> None:
    with pytest.raises(InputError, match="tiny-opt"):
        builtin_model_path("builtin:huge-opt")


# ------------------------------------------------------------------ the shipped model


@pytest.fixture(scope="module")
def tiny() -> Path:
    pytest.importorskip("transformers")
    return builtin_model_path("builtin:tiny-opt")


def test_the_asset_is_small_and_holds_no_pickle(tiny: Path) -> None:
    files = {path.name for path in tiny.iterdir()}
    assert files == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"}
    assert sum(path.stat().st_size for path in tiny.iterdir()) <= ASSET_BYTES


def test_the_asset_loads_in_both_auto_classes(tiny: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3
    text = "Turn the lamp on, naïve Ömer ☂!"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    language = AutoModelForCausalLM.from_pretrained(tiny)
    classifier = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=7)
    batch = tokenizer(["open it", "a much longer text than that"], padding=True, return_tensors="pt")
    assert language(**batch).logits.shape == (*batch["input_ids"].shape, len(tokenizer))
    assert classifier(**batch).logits.shape == (2, 7)
    for model in (language, classifier):
        assert {str(parameter.dtype) for parameter in model.parameters()} == {"torch.float32"}
        assert model.config.pad_token_id == tokenizer.pad_token_id


def test_padding_does_not_change_the_class_scores(tiny: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=5).eval()
    with torch.no_grad():
        alone = model(**tokenizer(["open it"], return_tensors="pt")).logits
        padded = model(**tokenizer(["open it", "a much longer text"], padding=True, return_tensors="pt")).logits
    torch.testing.assert_close(alone[0], padded[0], atol=1e-5, rtol=1e-4)


def test_perplexity_on_unseen_everyday_english_is_as_the_card_says(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.syspath_prepend(SCRIPTS)
    from everyday_english import documents  # type: ignore[import-not-found]

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = AutoModelForCausalLM.from_pretrained(tiny).eval()
    texts = list(itertools.islice(documents(seed=10_000), 150))
    ids = [token for text in texts for token in (*tokenizer(text)["input_ids"], tokenizer.eos_token_id)]
    rows = torch.tensor(ids[: len(ids) // 128 * 128]).view(-1, 128)  # (blocks, 128)
    with torch.no_grad():
        perplexity = math.exp(model(input_ids=rows, labels=rows).loss.item())
    assert perplexity < HELD_OUT_PERPLEXITY < len(tokenizer) / 100
