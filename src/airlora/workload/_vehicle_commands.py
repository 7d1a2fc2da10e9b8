"""``builtin:vehicle-commands``: spoken commands to a car, labelled with their intent, by seed."""

from __future__ import annotations

import math
import random
from typing import Final

from airlora.workload._vehicle_templates import SLOTS, TEMPLATES
from airlora.workload.grammar import Slots, expand, misspell, shuffled

SPLITS: Final = ("train", "validation", "test")
_LEVELS = 10  # vocabulary breadths that a text can draw
_DRIFT_TEXTS = 640  # period of the slow drift of complexity along a split, in texts


def vehicle_templates() -> dict[str, dict[str, tuple[str, ...]]]:
    """Templates by split and intent: seven, two and three of each intent's twelve, disjoint.

    The division is fixed, so that every seed asks the same question: do the commands of unseen
    templates get the right intent?
    """
    rng = random.Random("vehicle-commands")
    out: dict[str, dict[str, tuple[str, ...]]] = {split: {} for split in SPLITS}
    for intent, templates in TEMPLATES.items():
        order = shuffled(templates, rng)
        held = len(order) // 4
        cuts = (0, held, held + max(1, len(order) // 6), len(order))
        for split, low, high in zip(("test", "validation", "train"), cuts, cuts[1:], strict=False):
            out[split][intent] = tuple(order[low:high])
    return out


def vehicle_commands(
    seed: int = 0,
    train: int = 3000,
    validation: int = 500,
    test: int = 1000,
    noise: float = 0.05,
    vocabulary: float = 1.0,
) -> dict[str, list[tuple[str, str]]]:
    """Commands with their intents, by split, from templates that no two splits share.

    Complexity varies inside each split: it drifts slowly with the position and jitters from text to text;
    a complex text draws from more of each word list and has more typing errors.

    Args:
        seed: of every draw; the splits' sizes do not change one another's texts.
        train: texts of the training split.
        validation: texts of the validation split.
        test: texts of the test split.
        noise: mean share of words with a typing error, 0 … 0.5 (a text has 0 to 2 × noise).
        vocabulary: share of the word lists in use, 0 < vocabulary ≤ 1.

    Returns:
        (text, intent) pairs by split name.

    Raises:
        ValueError: an argument outside its range.
    """
    check_commands(train, validation, test, noise, vocabulary)
    slots = [_narrowed((level + 1) / _LEVELS) for level in range(_LEVELS)]
    sizes = dict(zip(SPLITS, (train, validation, test), strict=True))
    return {
        split: _texts(templates, sizes[split], random.Random(f"{seed} {split}"), noise, vocabulary, slots)
        for split, templates in vehicle_templates().items()
    }


def check_commands(train: int, validation: int, test: int, noise: float, vocabulary: float) -> None:
    """Raise ValueError unless ``vehicle_commands`` can be generated with these arguments."""
    for name, value in zip(SPLITS, (train, validation, test), strict=True):
        if value < len(TEMPLATES):
            raise ValueError(f"{name}={value} texts cannot hold all {len(TEMPLATES)} intents; give {len(TEMPLATES)} or more")
    if not 0 <= noise <= 0.5:
        raise ValueError(f"noise={noise} must be in 0..0.5, the share of misspelt words")
    if not 0 < vocabulary <= 1:
        raise ValueError(f"vocabulary={vocabulary} must be above 0 and at most 1, the share of the word lists in use")


def _texts(
    templates: dict[str, tuple[str, ...]],
    count: int,
    rng: random.Random,
    noise: float,
    vocabulary: float,
    slots: list[Slots],
) -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    intents: list[str] = []
    for position in range(count):
        if not intents:  # every intent once before any comes again
            intents = shuffled(templates, rng)
        intent = intents.pop()
        drift = 0.5 - 0.5 * math.cos(2 * math.pi * position / _DRIFT_TEXTS)
        complexity = min(1.0, max(0.0, drift + 0.5 * (rng.random() - 0.5)))
        breadth = vocabulary * (0.2 + 0.8 * complexity)
        level = min(_LEVELS - 1, int(breadth * _LEVELS))
        core = templates[intent][int(rng.random() * len(templates[intent]))]
        text = expand(f"{{prelude}} {core} {{coda}}", slots[level], rng)
        out.append((misspell(text, 2 * noise * complexity, rng), intent))
    return out


def _narrowed(share: float) -> Slots:
    return {name: options[: max(1, math.ceil(share * len(options)))] for name, options in SLOTS.items()}
