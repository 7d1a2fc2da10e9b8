"""Links: the capacity of the radio over simulated time, and what a transmission of layers gets through.

A link is built from a SPEC, ``make_link("fading:kind=rician,k_db=6,snr_db=10", seed=0)``, or as a plain dataclass.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from airlora.link.awgn import Awgn
from airlora.link.base import Delivery, Link, LinkState, PastRate
from airlora.link.fading import Fading
from airlora.link.trace import Trace
from airlora.plugins import registry_for
from airlora.spec import build

__all__ = ["LINKS", "Awgn", "Delivery", "Fading", "Link", "LinkState", "PastRate", "Trace", "make_link"]

LINKS: dict[str, type[Link]] = {"awgn": Awgn, "fading": Fading, "trace": Trace}
"""SPEC name -> link."""


def make_link(spec: str, seed: int) -> Link:
    """Build the link that a SPEC names.

    Args:
        spec: ``awgn:…``, ``fading:…``, ``trace:FILE,…``, or a link that plugs in (``airlora.plugins``).
        seed: the run's seed, ≥ 0; a random link takes it unless its SPEC has a ``seed=`` of its own.

    Raises:
        SpecError: an unknown link or key, or a value outside its physics.
        DataError: a trace file that cannot be read as asked.
    """
    link: Any = build(registry_for(spec, LINKS, "airlora.links", Link), spec, "link")
    if any(field.name == "seed" for field in dataclasses.fields(link)) and link.seed is None:
        link = dataclasses.replace(link, seed=seed)
    return link
