"""``builtin:vehicle-commands``: spoken commands to a car, labelled with their intent, by seed."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass
from typing import Final

from airlora.workload._vehicle_templates import LINES
from airlora.workload._vehicle_words import ACTION_SLOTS, SLOTS
from airlora.workload.grammar import Slots, expand, misspell, pick, shuffled

_ACTION = re.compile(r"\{(" + "|".join(ACTION_SLOTS) + r")\}")
_CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")

SPLITS: Final = ("train", "validation", "test")
_LEVELS = 10  # vocabulary breadths that a text can draw
_DRIFT_TEXTS = 640  # period of the slow drift of complexity along a split, in texts


@dataclass(frozen=True)
class Template:
    """One wording of an intent.

    Attributes:
        text: with slots for places, persons, amounts, …
        rarity: how rare its action words are, 0 (the commonest) … 1.
    """

    text: str
    rarity: float


def vehicle_templates() -> dict[str, dict[str, tuple[Template, ...]]]:
    """Templates by split and intent: about 60, 15 and 25 % of each intent's, disjoint.

    A template is a line of ``LINES`` with its action words and alternatives fixed. Where an intent has
    enough of them, one template of every line is trained on, so that most unseen templates are new
    combinations of known words. The division is fixed: every seed asks the same question.
    """
    rng = random.Random("vehicle-commands")
    out: dict[str, dict[str, tuple[Template, ...]]] = {split: {} for split in SPLITS}
    for intent, lines in LINES.items():
        order: list[Template] = []
        known: list[Template] = []
        for line in lines:  # the first template of every line is the last to be held out
            first, *others = shuffled(_variants(line), rng)
            known.append(first)
            order += others
        order = [*shuffled(order, rng), *known]
        cuts = (0, round(0.25 * len(order)), round(0.4 * len(order)), len(order))
        for split, low, high in zip(("test", "validation", "train"), cuts, cuts[1:], strict=False):
            out[split][intent] = tuple(order[low:high])
    return out


def _variants(line: str) -> list[Template]:
    """Every choice of a line's action words and alternatives."""
    done, todo = [], [Template(line, 0.0)]
    while todo:
        text, rarity = (template := todo.pop()).text, template.rarity
        if match := _ACTION.search(text):
            words = ACTION_SLOTS[match.group(1)]
            parts = [(word, max(rarity, rank / len(words))) for rank, word in enumerate(words)]
        elif match := _CHOICE.search(text):
            parts = [(part, rarity) for part in match.group(1).split("|")]
        else:
            done.append(template)
            continue
        todo += [Template(text[: match.start()] + part + text[match.end() :], level) for part, level in parts]
    return done


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
        if value < len(LINES):
            raise ValueError(f"{name}={value} texts cannot hold all {len(LINES)} intents; give {len(LINES)} or more")
    if not 0 <= noise <= 0.5:
        raise ValueError(f"noise={noise} must be in 0..0.5, the share of misspelt words")
    if not 0 < vocabulary <= 1:
        raise ValueError(f"vocabulary={vocabulary} must be above 0 and at most 1, the share of the word lists in use")


def _texts(
    templates: dict[str, tuple[Template, ...]],
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
        usable = [template for template in templates[intent] if template.rarity <= breadth]
        core = pick(usable or templates[intent], rng).text
        text = expand(f"{{prelude}} {core} {{coda}}", slots[level], rng)
        out.append((misspell(text, 2 * noise * complexity, rng), intent))
    return out


def _narrowed(share: float) -> Slots:
    return {name: options[: max(1, math.ceil(share * len(options)))] for name, options in SLOTS.items()}
