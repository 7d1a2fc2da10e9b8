"""Projection names sorted into layers × kinds, for drawing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

MAX_KINDS = 16


@dataclass(frozen=True)
class Kind:
    """The projections of one kind, such as all ``q_proj``.

    Attributes:
        label: the shortest end of the names that tells this kind from the others.
        rows: name of each projection, in layer order.
        row_labels: layer of each projection (``3``; ``3.17`` for expert 17 of layer 3), or its name.
        layered: whether the rows are layers of one kind, rather than projections that stand alone.
    """

    label: str
    rows: tuple[str, ...]
    row_labels: tuple[str, ...]
    layered: bool

    def __post_init__(self) -> None:
        if not self.rows or len(self.rows) != len(self.row_labels):
            raise ValueError(f"kind {self.label!r}: {len(self.rows)} rows need as many labels, at least one")


def kinds_of(names: Sequence[str]) -> tuple[Kind, ...]:
    """Group projections whose names differ only in their layer numbers.

    Names that stand alone, and the smallest groups beyond ``MAX_KINDS``, share one last group.

    Returns:
        Kinds in order of first appearance; every name is in exactly one.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[_template(name)].append(name)
    by_size = sorted((template for template in groups if len(groups[template]) > 1), key=lambda t: -len(groups[t]))
    kept = [template for template in groups if template in set(by_size[: MAX_KINDS - 1])]
    kinds = []
    for template in kept:
        rows = sorted(groups[template], key=_layer)
        labels = tuple(".".join(part for part in name.split(".") if part.isdecimal()) for name in rows)
        kinds.append(Kind(_label(template, kept), tuple(rows), _strip_common(labels), layered=True))
    rest = tuple(name for template, members in groups.items() if template not in kept for name in members)
    if rest:
        kinds.append(Kind("other projections" if kinds else "projections", rest, rest, layered=False))
    return tuple(kinds)


def _layer(name: str) -> tuple[int, ...]:
    """The numbers that stand alone between dots: ``layers.3.fc1`` is in layer (3,)."""
    return tuple(int(part) for part in name.split(".") if part.isdecimal())


def _template(name: str) -> str:
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


def _label(template: str, templates: Sequence[str]) -> str:
    parts = template.split(".")
    for count in range(1, len(parts)):
        end = ".".join(parts[-count:])
        if "*" in parts[-count:]:
            break
        if not any(other != template and other.endswith(f".{end}") for other in templates):
            return end
    tail = template.rpartition("*.")[2]
    return tail if [other.rpartition("*.")[2] for other in templates].count(tail) == 1 else template


def _strip_common(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Drop leading and trailing numbers that all labels share: ``0.5``, ``1.5`` become ``0``, ``1``."""
    parts = [label.split(".") for label in labels]
    while len({tuple(part[:1]) for part in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [part[1:] for part in parts]
    while len({tuple(part[-1:]) for part in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [part[:-1] for part in parts]
    return tuple(".".join(part) for part in parts)
