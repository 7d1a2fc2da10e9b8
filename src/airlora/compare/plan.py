"""What a comparison consists of: every arm over every link on every job, for every seed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from airlora.compare.peers import Peer
from airlora.config import RunConfig
from airlora.errors import InputError
from airlora.policy import Policy, make_policy
from airlora.rates import RANK_EXPONENT

ArmKind = Literal["policy", "peer"]

Rates = dict[str, dict[str, dict[str, float]]]
"""Tuned learning rates: job -> a policy's training and its rank (``nested-16``, ``fixed-8``; see ``trained_rank``) or a
peer's ``tuning_key`` -> ``lr`` and ``head`` (its ratio)."""
JobRates = Mapping[str, Mapping[str, float]]
"""Those of one job."""

OF_AN_ARM = ("link", "policy", "seed")
"""Of a job's configuration, what each arm has its own of."""


@dataclass(frozen=True)
class Arm:
    """One run of a comparison: a job's configuration with its link, its arm and its seed filled in.

    Attributes:
        job, link, name: what the tables call them.
        config: its ``policy`` is the SPEC of the policy, or for a peer the SPEC of how it is trained and sent.
        peer: how PEFT trains and saves it, with its learning rate filled in; None for a policy.
    """

    job: str
    link: str
    name: str
    config: RunConfig
    peer: Peer | None = None

    @property
    def kind(self) -> ArmKind:
        """``policy`` (our codec sends what a policy decides) or ``peer`` (a file of PEFT is sent whole)."""
        return "policy" if self.peer is None else "peer"

    @property
    def folder(self) -> Path:
        """Where its files go, relative to the comparison's folder."""
        return Path("arms") / self.job / f"seed-{self.config.seed}" / self.link / slug(self.name)


@dataclass(frozen=True)
class Unit:
    """Arms of one job and seed that one process runs, because one training serves them all.

    Attributes:
        training: ``training_key`` of the policies, or of the peer.
        rates: tuned ones of the job, for policies whose rank follows the link.
    """

    job: str
    seed: int
    training: str
    arms: tuple[Arm, ...]
    rates: JobRates = field(default_factory=dict)

    @property
    def recordings(self) -> Path:
        """Where the cloud's trajectories are kept, relative to the comparison's folder."""
        return Path("recordings") / self.job / f"seed-{self.seed}"


@dataclass(frozen=True)
class Comparison:
    """A grid.

    Attributes:
        jobs: name -> configuration (its link, policy and seed are replaced).
        links: name -> SPEC.
        policies: name -> SPEC.
        peers: name -> peer, its learning rate left open or not.
        seeds: of batches, initial factors and links.
        rates: tuned learning rates (see ``Rates``); they fill in what jobs and peers leave open.
    """

    jobs: dict[str, RunConfig]
    links: dict[str, str]
    policies: dict[str, str]
    seeds: tuple[int, ...]
    peers: dict[str, Peer] = field(default_factory=dict)
    rates: Rates = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what in ("jobs", "links", "seeds"):
            if not getattr(self, what):
                raise InputError(f"a comparison needs at least one of: {what}")
        if not self.policies and not self.peers:
            raise InputError("a comparison needs at least one of: policies, peers")

    def units(self) -> Iterator[Unit]:
        """One unit for every training of policies or of a peer, for each job and seed."""
        for seed in self.seeds:
            for job, given in self.jobs.items():
                config, rates = replace(given, seed=seed), self.rates.get(job, {})
                trainings: dict[str, list[Arm]] = {}
                for link, spec in self.links.items():
                    for name, policy in self.policies.items():
                        made = make_policy(policy, seed)
                        tuned_config = rated(replace(config, link=spec, policy=policy), rates, made)
                        trainings.setdefault(made.training_key, []).append(Arm(job, link, name, tuned_config))
                for name, peer in self.peers.items():
                    tuned = peer.rated(rates)
                    trainings.setdefault(tuned.training_key, []).extend(
                        Arm(job, link, name, replace(config, link=spec, policy=tuned.spec), tuned)
                        for link, spec in self.links.items()
                    )
                for key, arms in trainings.items():
                    yield Unit(job, seed, key, tuple(arms), rates)


def rated(config: RunConfig, rates: JobRates, policy: Policy) -> RunConfig:
    """Fill in what was tuned for a policy's training, where the configuration has no learning rate.

    A rank that was not tuned takes the rate of the nearest one that was, of one rank alone in proportion to the
    built-in rates of both (``rates.automatic_lr``). A policy whose rank is open stays as it is.

    Args:
        config: of a job.
        rates: of that job, see ``Rates``.
        policy: its rank resolved, where there is one.
    """
    tuned = _of_nearest_rank(rates, policy, config.max_rank) or rates.get(policy.tuning_key)
    if not tuned or config.lr is not None:
        return config
    head_lr = tuned["lr"] * tuned["head"] if "head" in tuned and config.head_lr is None else config.head_lr
    return replace(config, lr=tuned["lr"], head_lr=head_lr)


def _of_nearest_rank(rates: JobRates, policy: Policy, max_rank: int) -> dict[str, float]:
    rank = trained_rank(policy, max_rank)
    found = ((re.fullmatch(rf"{policy.training}-(\d+)", key), rate) for key, rate in rates.items())
    tuned = {int(match[1]): rate for match, rate in found if match}
    if rank is None or not tuned:
        return {}
    nearest = min(sorted(tuned), key=lambda other: abs(math.log(other / rank)))
    rate = tuned[nearest]
    if nearest == rank or policy.training != "fixed":
        return dict(rate)
    factor = (rank / nearest) ** RANK_EXPONENT
    scaled = {"lr": float(f"{rate['lr'] * factor:.3g}")}
    # The head's own rate does not follow the adapter's rank.
    return scaled | ({"head": rate["lr"] * rate["head"] / scaled["lr"]} if "head" in rate else {})


def trained_rank(policy: Policy, max_rank: int) -> int | None:
    """By which the rate of a policy's training is known: that of one rank alone, the mean one that is kept, or the
    largest prefix; None where the link will say."""
    if policy.training != "nested":
        return getattr(policy, "rank", None)
    return max_rank if policy.alone == "never" else None


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


def named_arm(text: str, what: str) -> tuple[str, str]:
    """Split ``name=SPEC``; a SPEC without a name is shown as it is written.

    Raises:
        InputError: the name or the SPEC is empty.
    """
    name, spec = named(text, what)
    return (text, text) if spec == text else (name, spec)


def slug(text: str) -> str:
    """A file name for a SPEC."""
    return re.sub(r"[^\w.=-]+", "_", text).strip("_")
