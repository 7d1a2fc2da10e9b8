"""A small generative grammar: templates with slots and choices become text, by seed.

A template is text with two constructs, both nestable: ``{slot}`` is replaced by one of the slot's
alternatives (templates themselves), ``(a|b|c)`` by one of the parts (an empty part drops it).
``{slot#1}`` draws once and repeats the same value wherever the same ``slot#1`` stands in one text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import TypeVar

T = TypeVar("T")
Slots = Mapping[str, Sequence[str]]

_SLOT = re.compile(r"\{([a-z_]+)(#\w+)?\}")
_CHOICE = re.compile(r"\(([^(){}]*\|[^(){}]*)\)")
_TOP_BAR = re.compile(r"\|(?![^()]*\))")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")
_SPACES = re.compile(r" {2,}")
_SPACE_BEFORE = re.compile(r" (?=[,.?!;])")
_KEYS = "qwertyuiop asdfghjkl zxcvbnm"


def alternatives(text: str) -> tuple[str, ...]:
    """Split ``"one | two (a|b) | three"`` at the bars outside parentheses; a readable way to write a slot."""
    return tuple(part.strip() for part in _TOP_BAR.split(text.replace("\n", " ")))


def expand(template: str, slots: Slots, rng: random.Random, bound: MutableMapping[str, str] | None = None) -> str:
    """Draw one text from a template.

    Args:
        template: see the module's docstring.
        slots: alternatives by slot name; a slot must not contain itself.
        rng: source of every draw.
        bound: values already drawn for ``slot#key`` references; extended in place, so that several
            sentences may share them.

    Returns:
        The text, with single spaces and "an" before vowels.

    Raises:
        KeyError: a slot that is not in ``slots``.
    """
    text = _draw(template, slots, rng, {} if bound is None else bound)
    text = _SPACE_BEFORE.sub("", _SPACES.sub(" ", text.strip()))
    return _ARTICLE.sub(r"\1n ", text)


def _draw(template: str, slots: Slots, rng: random.Random, bound: MutableMapping[str, str]) -> str:
    def slot(match: re.Match[str]) -> str:
        name, key = match.groups()
        if key and name + key in bound:
            return bound[name + key]
        value = _draw(pick(slots[name], rng), slots, rng, bound)
        if key:
            bound[name + key] = value
        return value

    def choice(match: re.Match[str]) -> str:
        return pick(match.group(1).split("|"), rng)

    while "{" in template or "|" in template:
        # slots first: a choice that holds one is drawn once its slot is text
        drawn = _CHOICE.sub(choice, _SLOT.sub(slot, template))
        if drawn == template:
            raise ValueError(f"template {template!r} has a brace or bar that closes nothing; write {{slot}} or (a|b)")
        template = drawn
    return template


def pick(options: Sequence[T], rng: random.Random) -> T:
    """One of the options, each as likely."""
    # random() is the one draw whose sequence Python guarantees between versions
    return options[int(rng.random() * len(options))]


def misspell(text: str, rate: float, rng: random.Random) -> str:
    """Give each word of three letters or more a typing error with a probability.

    The errors are a swapped, dropped, doubled or mistyped (neighbouring key) letter; the word's first
    letter stays.

    Args:
        text: words separated by single spaces.
        rate: probability of an error in a word, 0 … 1.
        rng: source of every draw.
    """
    if rate <= 0:
        return text
    return " ".join(
        _mistype(word, rng) if len(word) >= 3 and word.isalpha() and rng.random() < rate else word
        for word in text.split(" ")
    )


def _mistype(word: str, rng: random.Random) -> str:
    at = 1 + int(rng.random() * (len(word) - 1))
    kind = int(rng.random() * 4)
    if kind == 0:  # swap with the letter before, unless that is the first
        at = max(at, 2)
        return word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :] if len(word) > 2 else word
    if kind == 1:
        return word[:at] + word[at + 1 :]
    if kind == 2:
        return word[:at] + word[at] + word[at:]
    key = _KEYS.find(word[at].lower())
    near = [_KEYS[i] for i in (key - 1, key + 1) if key >= 0 and 0 <= i < len(_KEYS) and _KEYS[i] != " "]
    return word[:at] + (pick(near, rng) if near else "") + word[at + 1 :]


def shuffled(items: Iterable[T], rng: random.Random) -> list[T]:
    """The items in a random order (Fisher–Yates over ``rng.random()``)."""
    out = list(items)
    for last in range(len(out) - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        out[last], out[other] = out[other], out[last]
    return out
