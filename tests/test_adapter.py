"""The nested adapter: slicing, optimiser, mixture, regulariser, pruning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from airlora.adapter import (
    AdaLoraImportance,
    AdaLoraSchedule,
    NestedAdam,
    NestedAdapter,
    NestedMuon,
    NestedStrategy,
    PrefixMixture,
    Sensitivity,
    component_energy,
    find_targets,
)
from airlora.adapter.adalora import AdaLoraPruner
from airlora.adapter.curvature import measure_curvature
from airlora.adapter.optim import orthogonal
from airlora.errors import CompatibilityError, ModelError
from airlora.factors import Factors
from airlora.workload.base import Batch, Workload


class Block(nn.Module):
    def __init__(self, d_in: int, d_out: int):
        super().__init__()
        self.up = nn.Linear(d_in, d_out)
        self.down = nn.Linear(d_out, d_in)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.tanh(self.up(x)))


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(6, 10), Block(6, 10)])
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def make(form: str = "lora", max_rank: int = 4, **kwargs) -> tuple[Toy, NestedAdapter]:
    torch.manual_seed(1)
    model = Toy()
    head = {"head.weight": model.head.weight, "head.bias": model.head.bias} if kwargs.pop("head", False) else None
    targets = find_targets(model)
    return model, NestedAdapter(model, targets, max_rank=max_rank, alpha=2.0 * max_rank, form=form, head=head, **kwargs)


def shake(adapter: NestedAdapter) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in adapter.layers.values():
            for parameter in layer.component_parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


X = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("form", ["lora", "svd"])
def test_starts_at_the_pretrained_model(form):
    torch.manual_seed(1)
    base = Toy()(X)
    model, _ = make(form)
    assert torch.equal(model(X), base)


@pytest.mark.parametrize("form", ["lora", "svd"])
@pytest.mark.parametrize("ranks", [0, 1, 3, 4, [0, 2, 4, 1]])
def test_output_is_the_base_plus_the_active_components(form, ranks):
    model, adapter = make(form)
    shake(adapter)
    adapter.set_ranks(ranks)
    factors = adapter.factors().truncate(adapter.ranks)
    torch.manual_seed(1)
    reference = Toy()
    with torch.no_grad():
        for projection, u, v in zip(factors.schema.projections, factors.u, factors.v, strict=True):
            reference.get_submodule(projection.name).weight += torch.from_numpy(u @ v)
    assert torch.allclose(model(X), reference(X), atol=1e-5)


def test_the_scale_does_not_change_with_the_rank():
    _, adapter = make(max_rank=4)
    shake(adapter)
    whole = adapter.factors()
    adapter.set_ranks(2)
    assert np.array_equal(adapter.factors().u[0], whole.u[0])


def test_r_max_is_bounded_by_the_dimensions_and_prefixes_end_there():
    _, adapter = make(max_rank=64)
    assert {projection.r_max for projection in adapter.schema.projections} == {6}
    assert adapter.schema.prefixes == (1, 2, 4, 6)


def test_serving_answers_with_other_factors_and_gives_the_own_back():
    model, adapter = make(head=True)
    shake(adapter)
    before = model(X)
    zero = Factors(
        adapter.schema,
        tuple(np.zeros((p.d_out, 0), np.float32) for p in adapter.schema.projections),
        tuple(np.zeros((0, p.d_in), np.float32) for p in adapter.schema.projections),
        {name: np.zeros_like(value) for name, value in adapter.head_values().items()},
    )
    with adapter.serving(zero):
        assert torch.equal(model(X), torch.zeros(5, 3))
    assert torch.equal(model(X), before)
    with adapter.serving(adapter.factors()):
        assert torch.allclose(model(X), before, atol=1e-6)


def test_serving_refuses_another_schema():
    _, adapter = make()
    _, other = make(max_rank=2)
    with pytest.raises(CompatibilityError, match="schema"), adapter.serving(other.factors()):
        pass


def test_plain_adam_is_reproduced_when_everything_is_active():
    model, adapter = make()
    twin_model, twin = make()
    shake(adapter)
    shake(twin)
    ours = NestedAdam(adapter, 1e-2, rate_decay=0.0)
    parameters = [p for layer in twin.layers.values() for p in layer.component_parameters()]
    theirs = torch.optim.Adam(parameters, lr=1e-2)
    for _ in range(5):
        for optimizer, net in ((ours, model), (theirs, twin_model)):
            optimizer.zero_grad()
            net(X).square().sum().backward()
            optimizer.step()
    for mine, other in zip(adapter.layers.values(), twin.layers.values(), strict=True):
        assert torch.allclose(mine.left, other.left, atol=1e-6)
        assert torch.allclose(mine.right, other.right, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 4), (3, 17), (17, 3), (1, 5)])
def test_orthogonal_evens_out_the_singular_values(shape: tuple[int, int]):
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.randn(shape, generator=generator) * scale for scale in (1e-6, 1.0, 1e6)]
    matrices += [matrix.T.contiguous() for matrix in matrices]
    found = orthogonal(matrices)
    for matrix, direction in zip(matrices, found, strict=True):
        u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
        left, values, right = torch.linalg.svd(direction, full_matrices=False)
        assert 0.6 < values.min() <= values.max() < 1.3
        assert torch.allclose(left @ right, u @ vh, atol=1e-3)  # the same subspaces, the same orientation
    assert torch.equal(orthogonal([torch.zeros(shape)])[0], torch.zeros(shape))


def test_muon_moves_all_numbers_of_a_matrix_by_about_its_rate():
    model, adapter = make(head=True)
    shake(adapter)
    before = {name: tensor.clone() for name, tensor in adapter.state().items()}
    optimizer = NestedMuon(adapter, 1e-2, rate_decay=0.0)
    optimizer.rate_factor = 0.5
    model(X).square().sum().backward()
    optimizer.step()
    for name, layer in adapter.layers.items():
        for side in ("left", "right"):
            moved = getattr(layer, side).detach() - before[f"{name}.{side}"]
            assert moved.square().mean().sqrt().item() == pytest.approx(0.5e-2, rel=0.3)
            gradient = getattr(layer, side).grad
            assert (moved * gradient).sum() < 0


@pytest.mark.parametrize(("kind", "form"), [(NestedAdam, "svd"), (NestedMuon, "lora")])
def test_inactive_components_keep_values_moments_and_step_counts(kind, form):
    model, adapter = make(form)
    shake(adapter)
    optimizer = kind(adapter, 1e-2)

    def step(rank: int) -> None:
        adapter.set_ranks(rank)
        optimizer.zero_grad()
        model(X).square().sum().backward()
        optimizer.step()

    step(4)
    before = {name: tensor.clone() for name, tensor in {**adapter.state(), **optimizer.state()}.items()}
    for _ in range(3):
        step(2)
    after = {**adapter.state(), **optimizer.state()}
    for name, tensor in before.items():
        if name == "taken":
            continue
        assert torch.equal(after[name][2:], tensor[2:]), name
        assert not torch.equal(after[name][:2], tensor[:2]), name
    assert optimizer.state()["blocks.0.up.steps"].tolist() == [4, 4, 1, 1]


def test_component_rates_decay_by_the_power_law():
    model, adapter = make()
    shake(adapter)
    before = adapter.layers["blocks.0.up"].left.detach().clone()
    optimizer = NestedAdam(adapter, 1e-2, rate_decay=0.5)
    model(X).square().sum().backward()
    optimizer.step()
    moved = (adapter.layers["blocks.0.up"].left.detach() - before).abs().median(1).values
    assert torch.allclose(moved, 1e-2 * torch.arange(1, 5) ** -0.5, rtol=1e-3)


@pytest.mark.parametrize("kind", [NestedAdam, NestedMuon])
def test_optimizer_state_round_trip_gives_the_same_next_step(kind):
    model, adapter = make(head=True)
    optimizer = kind(adapter, 1e-2)

    def step(net, opt):
        opt.zero_grad()
        net(X).square().sum().backward()
        opt.step()

    step(model, optimizer)
    twin_model, twin = make(head=True)
    twin_optimizer = kind(twin, 1e-2)
    twin.load_state({name: tensor.clone() for name, tensor in adapter.state().items()})
    twin_optimizer.load_state({name: tensor.clone() for name, tensor in optimizer.state().items()})
    step(model, optimizer)
    step(twin_model, twin_optimizer)
    for name, tensor in adapter.state().items():
        assert torch.equal(twin.state()[name], tensor), name


def test_orthogonality_by_hand():
    _, adapter = make("svd")
    assert adapter.orthogonality().item() == pytest.approx(0, abs=1e-9)
    for layer in adapter.layers.values():
        layer.left.data[0] *= 2  # PᵀP gains 3 at one place: squared 9, in every projection
    assert adapter.orthogonality().item() == pytest.approx(9, rel=1e-5)


def test_mixture_trains_one_prefix_of_every_group_in_each_step_and_all_of_a_group_in_equal_turns():
    mixture = PrefixMixture((1, 2, 4, 8, 16, 32), passes=4, seed=5)
    drawn = [tuple(item.rank for item in mixture.draw(step, 8)) for step in range(40)]
    assert all(a in (1, 2) and b in (4, 8) and (c, d) == (16, 32) for a, b, c, d in drawn)
    assert [sum(rank in ranks for ranks in drawn) for rank in (1, 2, 4, 8)] == [20, 20, 20, 20]
    assert len({ranks[:2] for ranks in drawn}) == 4
    assert drawn == [tuple(item.rank for item in mixture.draw(step, 8)) for step in range(40)]


@pytest.mark.parametrize(("rows", "step"), [(32, 0), (8, 1), (3, 2), (1, 0)])
def test_one_pass_splits_the_rows_over_the_prefixes(rows, step):
    passes = PrefixMixture((1, 2, 4, 8), passes=1, seed=0).draw(step, rows)
    covered = sorted(index for item in passes for index in range(rows)[item.rows])
    assert covered == list(range(rows))
    assert sum(item.weight for item in passes) == pytest.approx(1)


def test_every_prefix_gets_rows_over_time_when_a_batch_is_smaller_than_the_mixture():
    mixture = PrefixMixture((1, 2, 4, 8), passes=1, seed=0)
    assert {item.rank for step in range(4) for item in mixture.draw(step, 1)} == {1, 2, 4, 8}


def test_mixture_refuses_more_passes_than_prefixes():
    with pytest.raises(ValueError, match=r"passes 5 must be in 1..4"):
        PrefixMixture((1, 2, 4, 8), passes=5, seed=0)


def test_nested_training_makes_the_first_component_useful():
    """A rank-4 map is learned; cut to rank 1 it must beat a rank-4 run that was not trained to be cut."""
    generator = torch.Generator().manual_seed(0)
    wanted = sum(
        (0.6**k) * torch.outer(torch.randn(6, generator=generator), torch.randn(6, generator=generator))
        for k in range(4)
    )

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(6, 6, bias=False)])
            self.blocks[0].weight.data.zero_()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.blocks[0](x)

    def train(mixture: PrefixMixture) -> float:
        model = Linear()
        adapter = NestedAdapter(model, find_targets(model), max_rank=4, alpha=4.0)
        optimizer = NestedAdam(adapter, 3e-2, rate_decay=0.0)
        data = torch.randn(64, 6, generator=torch.Generator().manual_seed(2))
        for step in range(300):
            optimizer.zero_grad()
            for item in mixture.draw(step, 64):
                adapter.set_ranks(item.rank)
                (item.weight * (model(data) - data @ wanted.T).square().mean()).backward()
            adapter.set_ranks(4)
            optimizer.step()
        adapter.set_ranks(1)
        return (model(data) - data @ wanted.T).square().mean().item()

    assert train(PrefixMixture((1, 2, 4), 3, 0)) < 0.7 * train(PrefixMixture((4,), 1, 0))


def test_sensitivity_is_the_first_order_effect_of_removing_a_component():
    model, adapter = make()
    shake(adapter)
    sensitivity = Sensitivity(adapter, decay=0.0)
    loss = model(X).square().mean()
    loss.backward()
    sensitivity.update()
    layer = adapter.layers["blocks.1.up"]
    with torch.no_grad():
        layer.left[2] *= 1 - 1e-3
        change = (loss - model(X).square().mean()).item() / 1e-3
    assert sensitivity.values[2, 2] == pytest.approx(abs(change), rel=0.05)


def test_component_energy_is_the_squared_norm():
    _, adapter = make("svd")
    shake(adapter)
    factors = adapter.factors()
    energy = component_energy(factors)
    assert energy[1, 2] == pytest.approx(np.linalg.norm(np.outer(factors.u[1][:, 2], factors.v[1][2])) ** 2, rel=1e-5)


def test_adalora_importance_by_hand():
    model, adapter = make("svd", max_rank=2)
    shake(adapter)
    importance = AdaLoraImportance(adapter, beta1=0.5, beta2=0.25)
    model(X).square().mean().backward()
    importance.update()
    layer = adapter.layers["blocks.0.up"]
    expected = torch.zeros(2)
    for parameter in layer.component_parameters():
        now = (parameter * parameter.grad).abs().detach()
        mean = 0.5 * now
        score = mean * 0.75 * (now - mean).abs()
        expected += score if score.ndim == 1 else score.mean(1)
    assert torch.allclose(importance.scores()["blocks.0.up"], expected)


def test_adalora_budget_is_cubic():
    schedule = AdaLoraSchedule(initial=48, target=16, total_steps=100, warmup=10, final=30, interval=5)
    assert [schedule.budget(step) for step in (0, 10, 40, 70, 100)] == [48, 48, 16 + 32 // 8, 16, 16]


def test_adalora_prunes_globally_and_keeps_a_prefix():
    model, adapter = make("svd", max_rank=3)
    shake(adapter)
    optimizer = NestedAdam(adapter, 1e-3)
    schedule = AdaLoraSchedule(initial=12, target=5, total_steps=20, warmup=2, final=5, interval=4)
    pruner = AdaLoraPruner(adapter, optimizer, schedule, initial_rank=3)
    for step in range(20):
        adapter.set_ranks(pruner.ranks(step))
        optimizer.zero_grad()
        model(X).square().mean().backward()
        pruner.importance.update()
        optimizer.step()
        pruner.after_step(step + 1, round_ends=False)
    assert pruner.kept.sum() == 5
    for layer, kept in zip(adapter.layers.values(), pruner.kept, strict=True):
        assert torch.count_nonzero(layer.gain[kept:]) == 0
        assert torch.count_nonzero(layer.gain[:kept]) == kept


def test_reordering_keeps_the_function():
    model, adapter = make("svd")
    shake(adapter)
    before = model(X)
    NestedAdam(adapter, 1e-3).reorder("blocks.0.up", [2, 0, 3, 1])
    assert torch.allclose(model(X), before, atol=1e-6)


def test_targets_are_found_inside_repeated_blocks_only_and_by_name():
    model = Toy()
    assert list(find_targets(model)) == ["blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down"]
    assert list(find_targets(model, ["down"])) == ["blocks.0.down", "blocks.1.down"]
    with pytest.raises(ModelError, match="'q_proj' matches no projection; there are: down, up"):
        find_targets(model, ["q_proj"])
    with pytest.raises(ModelError, match="no adaptable projection"):
        find_targets(nn.Sequential(nn.Linear(2, 2)))


def test_nested_strategy_reports_the_weighted_mean_loss():
    model, adapter = make()
    shake(adapter)

    class Fixed:
        def loss(self, batch, rows):
            return model(X[rows]).square().mean()

    class FakeBatch:
        targets = X

    strategy = NestedStrategy(PrefixMixture(adapter.schema.prefixes, 3, 0))
    expected = 0.0
    for rank in (1, 2, 4):
        adapter.set_ranks(rank)
        expected += model(X).square().mean().item() / 3
    assert strategy.backward(Fixed(), adapter, FakeBatch(), 0) == pytest.approx(expected, rel=1e-5)
    assert adapter.ranks.tolist() == [4, 4, 4, 4]


def test_averages_follow_the_iterates_with_a_warm_up():
    model, adapter = make(head=True)
    shake(adapter)
    optimizer = NestedAdam(adapter, 1e-2, average_decay=0.5)
    parameter = adapter.layers["blocks.1.down"].left
    expected = parameter.detach().clone()
    head = model.head.bias.detach().clone()
    for step in range(1, 5):
        optimizer.zero_grad()
        model(X).square().sum().backward()
        optimizer.step()
        decay = min(0.5, (step + 1) / (step + 10))
        expected = decay * expected + (1 - decay) * parameter.detach()
        head = decay * head + (1 - decay) * model.head.bias.detach()
    assert torch.allclose(optimizer.averages[parameter], expected, atol=1e-6)
    assert torch.allclose(optimizer.averages[model.head.bias], head, atol=1e-6)
    factors = adapter.factors(optimizer.averages)
    index = list(adapter.layers).index("blocks.1.down")
    assert np.allclose(factors.u[index], 2 * expected.numpy().T, atol=1e-6)


def test_squared_gradients_are_those_of_the_folded_factors():
    """One step from zero moments: bias corrected, the second moment is the squared gradient; u is s times B."""
    model, adapter = make(max_rank=3)
    shake(adapter)
    optimizer = NestedAdam(adapter, lr=1e-3)
    adapter.set_ranks([3, 2, 3, 0])
    model(X).square().sum().backward()
    optimizer.step()
    gradient_u, gradient_v = optimizer.squared_gradients()
    for row, (layer, rank) in enumerate(zip(adapter.layers.values(), [3, 2, 3, 0], strict=True)):
        for found, parameter, scale in ((gradient_u, layer.left, layer.scale), (gradient_v, layer.right, 1.0)):
            wanted = torch.zeros(3)
            if rank:
                wanted[:rank] = (parameter.grad[:rank] / scale).square().mean(1)
            np.testing.assert_allclose(found[row], wanted.numpy(), rtol=1e-4)


class Rows(Workload):
    """Whole rows of tokens, some of them padding."""

    def __init__(self, model, inputs, mask):
        self.model, self._inputs, self._mask = model, inputs, mask

    def batch(self, step):
        return Batch(
            {"input_ids": self._inputs[..., 0], "attention_mask": self._mask}, torch.zeros(len(self._mask)), ()
        )

    def loss(self, batch, rows=slice(None)):
        return self.model(self._inputs).square().mean()

    def evaluate(self, split, limit=None):
        raise AssertionError

    def validate(self, limit, apart=0):
        raise AssertionError


def test_inputs_are_sampled_from_tokens_that_are_no_padding_at_the_factors_given():
    model, adapter = make(max_rank=2)
    inputs = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(2))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
    workload = Rows(model, inputs, mask)
    batch = workload.batch(0)
    found = measure_curvature(workload, adapter, NestedAdam(adapter, lr=1e-3), adapter.factors(), batch, seed=0)
    wanted = inputs[mask.bool()].half().float().numpy()
    np.testing.assert_array_equal(found.inputs[0], wanted)  # the first projection sees the model's own inputs
    assert [x.shape for x in found.inputs] == [(9, 6), (9, 10), (9, 6), (9, 10)]
    shake(adapter)
    again = measure_curvature(workload, adapter, NestedAdam(adapter, lr=1e-3), adapter.factors(), batch, seed=0)
    assert not np.array_equal(again.inputs[2], found.inputs[2])  # behind the first block the factors count


def test_a_workload_that_gives_its_model_something_else_than_token_ids_is_sampled_too():
    model, adapter = make(max_rank=2)
    inputs = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(4))
    workload = Rows(model, inputs, None)
    batch = Batch({"inputs_embeds": inputs}, torch.zeros(2), ())
    found = measure_curvature(workload, adapter, NestedAdam(adapter, lr=1e-3), adapter.factors(), batch, seed=0)
    np.testing.assert_array_equal(found.inputs[0], inputs.reshape(8, 6).half().float().numpy())


def test_muon_refuses_the_svd_form():
    with pytest.raises(ValueError, match="svd"):
        NestedMuon(make("svd")[1], 1e-3)
