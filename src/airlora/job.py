"""From a configuration to the things that a run is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from transformers.pytorch_utils import Conv1D

from airlora.adapter import (
    AdaLoraPruner,
    AdaLoraSchedule,
    AdaLoraStrategy,
    GrowingStrategy,
    NestedAdam,
    NestedAdapter,
    NestedMuon,
    NestedOptimizer,
    NestedStrategy,
    PrefixMixture,
    RoundingStrategy,
    SteeredStrategy,
    Trainer,
    find_targets,
    make_schema,
)
from airlora.adapter.training import Strategy
from airlora.codec import Allocation, Costs, EdgeState, largest_uniform_rank, quantiser_steps
from airlora.config import RunConfig
from airlora.factors import Schema
from airlora.link import Link
from airlora.plugins import find_plugins, registry_for
from airlora.policy import AdaLora, AirLlm, Fit, Fixed, Policy
from airlora.policy.rules import LEAN_BITS, WIDE_BITS, Alone
from airlora.rates import RANK_EXPONENT, automatic_head_lr, automatic_lr
from airlora.spec import build
from airlora.workload.base import Workload
from airlora.workload.classify import ClassificationWorkload
from airlora.workload.data import Dataset, load_data
from airlora.workload.lm import LanguageModelWorkload
from airlora.workload.models import LoadedModel, load_model

RATE_DECAY = 0.4
"""Component k trains at lr · k^-RATE_DECAY in nested training; see LOG.md."""


@dataclass(frozen=True, eq=False)
class Job:
    """A workload and the adapter that is trained on it.

    Attributes:
        policy: the one that it was built for, see ``resolve_policy``.
        workload, adapter, trainer: of the cloud.
        initial_edge: what the edge holds before the first round.
        lr, head_lr: learning rates in use; the head's is 0 where there is none.
        transposed: the base keeps its weights as (d_in, d_out), as GPT-2 does.
    """

    policy: Policy
    workload: Workload
    adapter: NestedAdapter
    trainer: Trainer
    initial_edge: EdgeState
    lr: float
    head_lr: float
    transposed: bool


def build_job(config: RunConfig, policy: Policy, link: Link) -> Job:
    """Load data and model, put the adapter in, and choose how to train it for this policy.

    Raises:
        InputError: something the user gave cannot be used (see ``airlora.errors``).
    """
    torch.set_num_threads(1)
    workload = load_workload(config)
    targets = find_targets(workload.model, config.target_names)
    transposed = any(isinstance(module, Conv1D) for module in targets.values())
    max_rank, alpha, prefixes = config.max_rank, config.adapter_alpha, None
    schema = make_schema(targets, max_rank=config.max_rank, head=workload.head)
    policy = resolve_policy(policy, link, schema, config)
    if isinstance(policy, Fixed | Alone):
        assert policy.rank is not None
        rank, whole = min(policy.rank, int(schema.r_max.max())), max_rank
        max_rank = whole if isinstance(policy, Alone) and policy.grows else rank
        alpha, prefixes = alpha * max_rank / whole, [rank * 2**k for k in range((max_rank // rank).bit_length())]
    pruned = policy.training == "adalora"
    adapter = NestedAdapter(
        workload.model,
        targets,
        max_rank=max_rank,
        alpha=alpha,
        prefixes=prefixes,
        form="svd" if pruned else "lora",
        seed=config.seed,
        head=workload.head,
        base_fingerprint=workload.base_fingerprint,
    )
    lr = config.lr
    if lr is None:
        lr = automatic_lr(workload.model, prefixes[0] if prefixes else None, pruned=pruned)
    head_lr = automatic_head_lr(workload, lr) if config.head_lr is None else config.head_lr
    optimizer: NestedOptimizer
    if isinstance(policy, Fixed | Alone):
        optimizer = NestedMuon(adapter, lr, rate_decay=0.0, head_lr=head_lr)
    else:
        optimizer = NestedAdam(adapter, lr, rate_decay=0.0 if pruned else RATE_DECAY, head_lr=head_lr)
    strategy: Strategy
    if isinstance(policy, AdaLora):
        strategy = _adalora(config, policy, adapter, optimizer)
    elif isinstance(policy, Fixed) and policy.rounding:
        strategy = _rounding(config, policy, adapter, optimizer)
    elif isinstance(policy, Alone) and policy.grows:
        strategy = _growing(policy.rank, lr, adapter.schema, optimizer)
    else:
        mixture = PrefixMixture(adapter.schema.prefixes, min(config.passes, len(adapter.schema.prefixes)), config.seed)
        strategy = SteeredStrategy(mixture, policy.steer) if policy.steer else NestedStrategy(mixture)
    return Job(
        policy=policy,
        workload=workload,
        adapter=adapter,
        trainer=Trainer(workload, adapter, optimizer, strategy),
        initial_edge=EdgeState.initial(adapter.schema, adapter.head_values()),
        lr=lr,
        head_lr=head_lr if workload.head else 0.0,
        transposed=transposed,
    )


def load_workload(config: RunConfig) -> Workload:
    """The model, the data and the objective of a job, the model as it was pretrained.

    ``config.data`` may name a workload that plugs in (group ``airlora.workloads``, see ``airlora.plugins``).

    Raises:
        InputError: something the user gave cannot be used.
    """
    if config.data.partition(":")[0] in find_plugins("airlora.workloads"):
        registry = registry_for(config.data, {}, "airlora.workloads", WorkloadPlugin)
        plugin: WorkloadPlugin = build(registry, config.data, "workload")
        return plugin.load(config)
    dataset = load_data(
        config.data,
        task=config.task,
        text_column=config.text_column,
        label_column=config.label_column,
        encoding=config.encoding,
        seed=config.seed,
    )
    labels = len(dataset.labels) if dataset.task == "classify" else None
    loaded = load_model(config.model, num_labels=labels, device=config.device, dtype=config.dtype)
    return make_workload(config, loaded, dataset)


class WorkloadPlugin(ABC):
    """What the entry point of a workload names: a frozen dataclass whose fields are the keys of ``--data NAME:…``."""

    @abstractmethod
    def load(self, config: RunConfig) -> Workload:
        """The workload for a run's configuration (its seed, batch size, lengths and device)."""


def resolve_policy(policy: Policy, link: Link, schema: Schema, config: RunConfig) -> Policy:
    """Fill in what a policy leaves open until link and model are known: the rank that it trains for.

    It is the largest uniform rank that fits the budget estimated before the first round, at least 1; half of the
    largest rank while nothing is known of the link. Where a policy asks for it (``alone``), one rank is trained alone,
    unless nothing is known of the link or it carries too little.

    Args:
        schema: of the model at its largest ranks.
    """
    expected_bytes = link.observe(0.0).rate_bps * config.deadline_s / 8
    if isinstance(policy, AdaLora | Fixed) and policy.rank is None:
        unknown = np.isnan(expected_bytes)
        rank = config.max_rank // 2 if unknown else _fitting_rank(schema, expected_bytes, policy.bits)
        return replace(policy, rank=max(1, rank))
    if isinstance(policy, Fit | AirLlm) and policy.alone != "never":
        nested, whole = replace(policy, alone="never"), int(schema.r_max.max())
        alone = partial(Alone, nested, least_bits=policy.bits or LEAN_BITS)
        if np.isnan(expected_bytes) or (policy.alone == "auto" and schema.head):
            return nested
        if policy.alone == "link":
            return alone(whole) if _fitting_rank(schema, expected_bytes, WIDE_BITS) == whole else nested
        rank = _rank_alone(schema, expected_bytes)
        return alone(rank, grows=rank < whole) if rank >= min(FEWEST_ALONE, whole) else nested
    return policy


def _fitting_rank(schema: Schema, budget_bytes: float, bits: int) -> int:
    """The largest uniform rank, 0 … max(r_max), whose first update fits so many bytes; they are not NaN."""
    return largest_uniform_rank(Costs.nominal(schema), budget_bytes, bits, bits if schema.head else 0)


ALONE_ROOM = 4.0
"""By how much a whole update at ``WIDE_BITS`` may exceed what a round carries, where one rank is trained alone: rounds
share it, residuals take a third of it later, and lower bits half; see LOG.md."""

FEWEST_ALONE = 8
"""Components from which on one rank alone is worth more than the prefixes of a nested adapter, see LOG.md."""


def _rank_alone(schema: Schema, expected_bytes: float) -> int:
    """The rank to train alone, at least 1, where a round is expected to carry so many bytes."""
    return max(1, _fitting_rank(schema, ALONE_ROOM * expected_bytes, WIDE_BITS))


def make_workload(config: RunConfig, loaded: LoadedModel, dataset: Dataset) -> Workload:
    """The workload that the data set's task asks for."""
    if dataset.task == "classify":
        return ClassificationWorkload(
            loaded, dataset, batch_size=config.batch_size, max_length=config.max_length, seed=config.seed
        )
    return LanguageModelWorkload(
        loaded, dataset, batch_size=config.batch_size, context=config.max_length, seed=config.seed
    )


def _rounding(config: RunConfig, policy: Fixed, adapter: NestedAdapter, optimizer: NestedOptimizer) -> RoundingStrategy:
    schema = adapter.schema
    edge = EdgeState.initial(schema, adapter.head_values())
    bits = np.full(len(schema.projections), policy.bits)
    whole = Allocation(schema.r_max, bits, policy.bits if schema.head else 0, float("inf"))
    total = config.rounds * config.steps_per_round
    begin = max(total - round(policy.rounding * total), total - config.steps_per_round)
    return RoundingStrategy(
        adapter, optimizer, lambda factors, curvature: quantiser_steps(factors, edge, whole, curvature), begin, total
    )


def _growing(rank: int, lr: float, schema: Schema, optimizer: NestedOptimizer) -> GrowingStrategy:
    def learning_rate(now: int) -> float:
        return lr * (now / rank) ** RANK_EXPONENT

    return GrowingStrategy(rank, optimizer, lambda expected_bytes: _rank_alone(schema, expected_bytes), learning_rate)


def _adalora(config: RunConfig, policy: AdaLora, adapter: NestedAdapter, optimizer: NestedOptimizer) -> AdaLoraStrategy:
    schema, rank = adapter.schema, policy.rank
    assert rank is not None
    initial_rank = min(int(np.ceil(policy.initial * rank)), config.max_rank)
    steps = config.rounds * config.steps_per_round
    schedule = AdaLoraSchedule(
        initial=int(np.minimum(initial_rank, schema.r_max).sum()),
        target=int(np.minimum(rank, schema.r_max).sum()),
        total_steps=steps,
        warmup=int(policy.warmup * steps),
        final=int(policy.final * steps),
        interval=policy.interval,
    )
    return AdaLoraStrategy(AdaLoraPruner(adapter, optimizer, schedule, initial_rank))
