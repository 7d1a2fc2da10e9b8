"""SPECs: ``name:first,key=value,key=value`` on the command line, frozen dataclasses in the program.

A registry maps a name to a dataclass. The part after the colon that has no ``=`` fills the
dataclass's first field; the others are its keyword arguments, converted by their annotation.
Range checks live in the dataclass's ``__post_init__`` (raise ``SpecError`` or ``ValueError`` there).
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airlora.errors import SpecError


def split_spec(text: str) -> tuple[str, str | None, dict[str, str]]:
    """Split a SPEC into (name, first positional value or None, {key: value}).

    Raises:
        SpecError: an empty name, a repeated key, or a positional value that is not first.
    """
    name, _, rest = text.partition(":")
    name = name.strip()
    if not name:
        raise SpecError(f"SPEC {text!r} has no name; write name:key=value,key=value")
    first: str | None = None
    values: dict[str, str] = {}
    for position, part in enumerate(rest.split(",") if rest.strip() else []):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            if position or not key:
                raise SpecError(f"SPEC {text!r}: {part!r} is not key=value; only the first part may be a bare value")
            first = key
            continue
        if key in values:
            raise SpecError(f"SPEC {text!r} gives {key!r} twice; give it once")
        values[key] = value
    return name, first, values


def build(registry: Mapping[str, type], text: str, kind: str) -> Any:
    """Build the dataclass that a SPEC names.

    Args:
        registry: name -> dataclass.
        text: the SPEC.
        kind: what is being built, for messages ("link", "policy").

    Raises:
        SpecError: an unknown name or key, a missing required value, or an impossible value.
    """
    name, first, values = split_spec(text)
    if name not in registry:
        raise SpecError(f"unknown {kind} {name!r}; there are: {', '.join(sorted(registry))}")
    cls = registry[name]
    fields = [field for field in dataclasses.fields(cls) if field.init]
    names = [field.name for field in fields]
    if first is not None:
        if not fields:
            raise SpecError(f"{kind} {name!r} takes no value, found {first!r}")
        if names[0] in values:
            raise SpecError(f"{kind} {name!r} gets {names[0]!r} twice: {first!r} and {values[names[0]]!r}")
        values[names[0]] = first
    unknown = [key for key in values if key not in names]
    if unknown:
        raise SpecError(f"{kind} {name!r} has no key {unknown[0]!r}; its keys are: {', '.join(names) or 'none'}")
    hints = typing.get_type_hints(cls)
    arguments = {key: _convert(value, hints[key], f"{kind} {name!r}: {key}") for key, value in values.items()}
    missing = [
        field.name
        for field in fields
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and field.name not in arguments
    ]
    if missing:
        raise SpecError(f"{kind} {name!r} needs a value for {missing[0]!r}; its keys are: {', '.join(names)}")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise SpecError(f"{kind} {text!r}: {error}") from error


def _convert(text: str, hint: Any, what: str) -> Any:
    options = typing.get_args(hint)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        if text.lower() in ("none", "auto") and type(None) in options:
            return None
        hint = next(option for option in options if option is not type(None))
        options = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        if text not in options:
            raise SpecError(f"{what} is {text!r}; allowed: {', '.join(map(str, options))}")
        return text
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise SpecError(f"{what} is {text!r}; allowed: true, false")
        return text.lower() == "true"
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            raise SpecError(f"{what} is {text!r}; a number ({hint.__name__}) is needed") from None
    if hint is Path:
        return Path(text)
    return text
