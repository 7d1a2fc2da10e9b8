"""What a comparison consists of: every policy over every link on every job, for every seed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from airlora.config import RunConfig
from airlora.errors import InputError


@dataclass(frozen=True)
class Arm:
    """One run of a comparison: a job's configuration with its link, policy and seed filled in."""

    job: str
    link: str
    policy: str
    config: RunConfig

    @property
    def folder(self) -> Path:
        """Where its files go, relative to the comparison's folder."""
        return Path("arms") / self.job / f"seed-{self.config.seed}" / self.link / slug(self.policy)


@dataclass(frozen=True)
class Unit:
    """All arms of one job and one seed: they share data, model and the cloud's trajectory, so one process runs them."""

    job: str
    seed: int
    arms: tuple[Arm, ...]

    @property
    def recordings(self) -> Path:
        """Where the cloud's trajectories are kept, relative to the comparison's folder."""
        return Path("recordings") / self.job / f"seed-{self.seed}"


@dataclass(frozen=True)
class Comparison:
    """The grid.

    Attributes:
        jobs: name -> configuration (its link, policy and seed are replaced).
        links: name -> SPEC.
        policies: SPECs.
        seeds: of batches, initial factors and links.
    """

    jobs: dict[str, RunConfig]
    links: dict[str, str]
    policies: tuple[str, ...]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        for what in ("jobs", "links", "policies", "seeds"):
            if not getattr(self, what):
                raise InputError(f"a comparison needs at least one of: {what}")

    def units(self) -> Iterator[Unit]:
        """One unit a job and seed."""
        for seed in self.seeds:
            for job, config in self.jobs.items():
                arms = tuple(
                    Arm(job, link, policy, replace(config, link=spec, policy=policy, seed=seed))
                    for link, spec in self.links.items()
                    for policy in self.policies
                )
                yield Unit(job, seed, arms)


def named(text: str, what: str) -> tuple[str, str]:
    """Split ``name=value``; a value without a name is named after itself.

    Raises:
        InputError: the name or the value is empty.
    """
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[\w.-]+", name):
        name, value = slug(text), text
    if not name or not value:
        raise InputError(f"{what} {text!r} is not name=value")
    return name, value


def slug(text: str) -> str:
    """A file name for a SPEC."""
    return re.sub(r"[^\w.=-]+", "_", text).strip("_")
