"""Links, policies and workloads of other distributions, found by their entry points.

A distribution declares, for instance,

    [project.entry-points."airlora.links"]
    tunnel = "my_package:Tunnel"

and ``tunnel`` is then a name in a SPEC like the built-in ones, which win over a plug-in of the same name. What an
entry point names is a frozen dataclass whose fields are the SPEC's keys; see docs/plugins.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from airlora.errors import SpecError
from airlora.spec import split_spec

GROUPS = ("airlora.links", "airlora.policies", "airlora.workloads")


def find_plugins(group: str) -> dict[str, EntryPoint]:
    """Name -> entry point of a group, none of them loaded."""
    return {point.name: point for point in entry_points(group=group)}


def registry_for(spec: str, built_in: Mapping[str, type], group: str, base: type) -> Mapping[str, Any]:
    """The registry in which a SPEC is looked up: the built-in one, or that plus the plug-ins of a group.

    Only the plug-in that the SPEC names is loaded, so that a broken one harms nobody else.

    Raises:
        SpecError: the plug-in cannot be loaded, or is not a dataclass derived from ``base``.
    """
    name = split_spec(spec)[0]
    found = {} if name in built_in else find_plugins(group)
    loaded: dict[str, Any] = {**found, **built_in}
    if name in found:
        loaded[name] = _load(found[name], base)
    return loaded


def plugin_versions() -> dict[str, str]:
    """Distribution -> version of everything that plugs in."""
    points = [point for group in GROUPS for point in entry_points(group=group)]
    return {point.dist.name: point.dist.version for point in points if point.dist is not None}


def _load(point: EntryPoint, base: type) -> type:
    where = f"plug-in {point.name!r} ({point.value}" + (f" of {point.dist.name})" if point.dist else ")")
    try:
        loaded = point.load()
    except Exception as error:  # whatever another's module raises when it is imported
        raise SpecError(f"{where} cannot be loaded: {type(error).__name__}: {error}; update or uninstall it") from error
    if not (isinstance(loaded, type) and dataclasses.is_dataclass(loaded) and issubclass(loaded, base)):
        raise SpecError(f"{where} is {loaded!r}; it must be a dataclass derived from {base.__module__}.{base.__name__}")
    return loaded
