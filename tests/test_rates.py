"""Learning rates where none is given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from airlora.config import RunConfig
from airlora.job import build_job, load_workload
from airlora.link import make_link
from airlora.policy import make_policy
from airlora.rates import LOGIT_STEP, automatic_head_lr
from airlora.workload.base import Workload

COMMANDS = RunConfig(data="builtin:vehicle-commands,train=120,validation=60,test=60", batch_size=8, max_length=48)
LOGS = RunConfig(data="builtin:vehicle-logs,characters=20000", batch_size=4, max_length=32)


def workload_of(model: nn.Module, head: dict[str, nn.Parameter], inputs: torch.Tensor) -> Workload:
    """No more of a workload than its rates look at."""
    return cast(
        Workload, SimpleNamespace(model=model, head=head, batch=lambda step: step, loss=lambda _: model(inputs))
    )


def test_the_rate_is_a_logit_step_over_the_size_of_what_the_head_reads() -> None:
    workload = load_workload(COMMANDS)
    model: Any = workload.model
    batch = workload.batch(0)
    with torch.no_grad():
        hidden = model.model(**batch.inputs).last_hidden_state
    expected = LOGIT_STEP / hidden.abs().sum(-1).median()
    assert automatic_head_lr(workload, 1.0) == pytest.approx(float(expected), rel=0.05)  # two digits


def test_no_logit_moves_by_more_than_the_step_in_half_of_the_rows() -> None:
    torch.manual_seed(0)
    model, inputs = nn.Linear(40, 5), torch.randn(101, 40) * torch.rand(101, 1) * 9
    workload = workload_of(model, dict(model.named_parameters()), inputs)
    optimizer = torch.optim.Adam([model.weight], lr=automatic_head_lr(workload, 1.0))
    before = model(inputs).detach()
    nn.functional.cross_entropy(model(inputs), torch.arange(101) % 5).backward()
    optimizer.step()
    moved = (model(inputs).detach() - before).abs().amax(dim=1)
    assert 0.01 * LOGIT_STEP < float(moved.median()) <= 1.05 * LOGIT_STEP


def test_of_several_layers_the_one_with_the_largest_inputs_counts() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    inputs = torch.full((5, 4), 25.0)
    for names in (("0.weight", "2.weight"), ("2.weight", "0.weight")):
        head = {name: model.get_parameter(name) for name in names}
        assert automatic_head_lr(workload_of(model, head, inputs), 1.0) == pytest.approx(LOGIT_STEP / 100)
    last = automatic_head_lr(workload_of(model, {"2.weight": model.get_parameter("2.weight")}, inputs), 1.0)
    assert last >= 0.95 * LOGIT_STEP / 3  # tanh


@pytest.mark.parametrize("inputs", [torch.zeros(3, 4), torch.ones(3, 4)])
def test_a_head_that_is_not_seen_at_work_follows_the_adapter(inputs: torch.Tensor) -> None:
    model = nn.Linear(4, 2)
    name = "bias" if inputs.any() else "weight"  # a layer without a matrix of its own to train; one that reads zeros
    head = {name: model.get_parameter(name)}
    assert automatic_head_lr(workload_of(model, head, inputs), 0.01) == 0.05


def test_nothing_is_left_in_the_model() -> None:
    workload = load_workload(COMMANDS)
    automatic_head_lr(workload, 1.0)
    assert not any(module._forward_pre_hooks for module in workload.model.modules())
    assert all(parameter.grad is None for parameter in workload.model.parameters())


@pytest.mark.parametrize("policy", ["fit", "fixed:rank=2", "adalora:rank=2"])
def test_every_training_of_ours_has_the_same_head_rate(policy: str) -> None:
    link = make_link("awgn", 0)
    job = build_job(COMMANDS, make_policy(policy, 0), link)
    assert job.head_lr == automatic_head_lr(load_workload(COMMANDS), job.lr)
    assert job.trainer.optimizer.head_lr == job.head_lr


def test_without_a_head_its_rate_is_zero() -> None:
    assert automatic_head_lr(load_workload(LOGS), 1.0) == 0
    assert build_job(LOGS, make_policy("fit", 0), make_link("awgn", 0)).head_lr == 0


def test_what_adalora_prunes_trains_at_three_times_the_rate_of_nested_ranks() -> None:
    nested, pruned = (build_job(COMMANDS, make_policy(spec, 0), make_link("awgn", 0)) for spec in ("fit", "adalora"))
    assert pruned.lr == pytest.approx(3 * nested.lr, rel=0.05)  # two digits
    assert pruned.head_lr == nested.head_lr
