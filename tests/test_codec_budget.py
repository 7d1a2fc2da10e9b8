"""Budget arithmetic: exact sizes, and projections that never exceed a budget whatever is proposed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlora.codec import BITS, Allocation, encode, largest_uniform_rank, project, update_bytes
from airlora.errors import CompatibilityError
from airlora.factors import Schema
from codec_samples import INF, allocations, blank_edge, model_schema, random_factors, small_schema, uniform

SCHEMA, MODEL = small_schema(), model_schema()
FACTORS, MODEL_FACTORS = random_factors(SCHEMA), random_factors(MODEL)
anything = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-3, 40).map(float)
budgets = st.floats(0, 4000) | anything


@settings(max_examples=80, deadline=None)
@given(allocations(SCHEMA, st.just(INF) | st.integers(2500, 10000).map(float)))
def test_update_bytes_is_the_size_of_the_encoded_update(allocation: Allocation) -> None:
    size = update_bytes(SCHEMA, allocation)
    if size <= allocation.budget_bytes:
        assert encode(FACTORS, blank_edge(SCHEMA), allocation, 0).size_bytes == size


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("rank", [0, 1, 5, 16])
def test_update_bytes_on_the_shapes_of_a_model(rank: int, bits: int) -> None:
    allocation = uniform(MODEL, rank, bits, bits)
    assert encode(MODEL_FACTORS, blank_edge(MODEL), allocation, 0).size_bytes == update_bytes(MODEL, allocation)


def test_most_of_an_update_is_its_numbers() -> None:
    numbers = 16 * int(MODEL.numbers_per_component.sum()) + MODEL.head_size
    assert update_bytes(MODEL, uniform(MODEL, 16, 32, 32)) < 4 * numbers * 1.02
    assert update_bytes(MODEL, uniform(MODEL, 16, 4, 4)) < numbers / 2 * 1.06  # 2 bytes of scale for 64 of codes


@settings(max_examples=150, deadline=None)
@given(
    st.lists(anything, min_size=3, max_size=3), st.lists(anything, min_size=3, max_size=3), anything, budgets, budgets
)
def test_whatever_is_proposed_the_update_fits(
    ranks: list[float], bits: list[float], head_bits: float, own: float, budget: float
) -> None:
    projected = project(Allocation(np.array(ranks), np.array(bits), head_bits, own), SCHEMA, budget)  # type: ignore
    limit = min((max(b, 0.0) for b in (own, budget) if not np.isnan(b)), default=INF)
    assert projected.budget_bytes == limit
    assert projected.ranks.dtype == projected.bits.dtype == np.int64
    assert encode(FACTORS, blank_edge(SCHEMA), projected, 0).size_bytes <= limit
    for before, after, r_max in zip(ranks, projected.ranks, SCHEMA.r_max, strict=True):
        assert 0 <= after <= r_max
        assert np.isnan(before) or after <= max(before + 0.5, 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 200_000), st.integers(0, 16), st.sampled_from(BITS), st.sampled_from((0, *BITS)))
def test_projection_on_the_shapes_of_a_model_fits_and_wastes_no_feasible_proposal(
    budget: int, rank: int, bits: int, head_bits: int
) -> None:
    proposal = uniform(MODEL, rank, bits, head_bits)
    projected = project(proposal, MODEL, budget)
    assert encode(MODEL_FACTORS, blank_edge(MODEL), projected, 0).size_bytes <= budget
    if update_bytes(MODEL, uniform(MODEL, rank, bits, head_bits, budget)) <= budget:
        assert projected.ranks.tolist() == proposal.ranks.tolist()
        assert projected.bits.tolist() == proposal.bits.tolist()
        assert projected.head_bits == head_bits


def test_values_become_the_nearest_that_can_be_sent() -> None:
    garbage = Allocation(np.array([np.nan, 2.6, 99.0]), np.array([np.nan, 5.0, 64.0]), 9, -np.nan)
    projected = project(garbage, SCHEMA, INF)
    assert projected.ranks.tolist() == [0, 3, 2]
    assert projected.bits.tolist() == [4, 8, 32]
    assert projected.head_bits == 16
    assert projected.budget_bytes == INF


def test_ranks_go_first_then_bits_then_the_encoder_leaves_layers_out() -> None:
    proposal = Allocation(np.array([4, 5, 0]), np.array([32, 8, 16]), 16, INF)
    seen = []
    for budget in range(1400, -1, -4):
        projected = project(proposal, SCHEMA, budget)
        step = (projected.ranks.tolist(), projected.bits.tolist(), projected.head_bits)
        if not seen or seen[-1] != step:
            seen.append(step)
    assert seen == [
        ([4, 5, 0], [32, 8, 16], 16),
        ([4, 4, 0], [32, 8, 16], 16),
        ([2, 2, 0], [32, 8, 16], 16),
        ([1, 1, 0], [32, 8, 16], 16),
        ([1, 1, 0], [16, 8, 16], 16),
        ([1, 1, 0], [8, 8, 8], 8),
        ([1, 1, 0], [4, 4, 4], 4),
        ([0, 0, 0], [4, 4, 4], 0),
    ]


def test_a_budget_of_zero_or_below_a_layer_sends_nothing_explicitly() -> None:
    for budget in (0, -5, 60, -INF):
        projected = project(uniform(MODEL, 16, 32, 32), MODEL, budget)
        assert (projected.ranks == 0).all()
        assert projected.head_bits == 0
        assert encode(MODEL_FACTORS, blank_edge(MODEL), projected, 0).layers == ()


def test_below_the_smallest_whole_update_something_is_still_sent() -> None:
    whole = update_bytes(MODEL, uniform(MODEL, 1, 4, 4))
    for budget in (300, 1000, whole // 2, whole - 1):
        projected = project(uniform(MODEL, 8, 16, 16), MODEL, budget)
        assert 0 < encode(MODEL_FACTORS, blank_edge(MODEL), projected, 0).size_bytes <= budget


def test_no_head_below_a_head_bits_of_zero() -> None:
    assert project(uniform(MODEL, 8, 16, 0), MODEL, 1e5).head_bits == 0


def test_a_proposal_for_another_model_is_refused() -> None:
    with pytest.raises(CompatibilityError, match="for 30 projections; use a policy that was made for this model"):
        project(uniform(SCHEMA, 1, 4, 4), MODEL, 1e5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 120_000), st.sampled_from(BITS), st.sampled_from((0, *BITS)))
def test_largest_uniform_rank_fits_and_the_next_does_not(budget: int, bits: int, head_bits: int) -> None:
    rank = largest_uniform_rank(MODEL, budget, bits, head_bits)
    if rank:
        assert update_bytes(MODEL, uniform(MODEL, rank, bits, head_bits, budget)) <= budget
    for larger in range(rank + 1, 17):
        assert update_bytes(MODEL, uniform(MODEL, larger, bits, head_bits, budget)) > budget


def test_largest_uniform_rank_is_not_only_a_trained_prefix() -> None:
    assert 5 not in MODEL.prefixes
    assert largest_uniform_rank(MODEL, update_bytes(MODEL, uniform(MODEL, 5, 8, 8)), 8, 8) == 5
    assert largest_uniform_rank(MODEL, INF, 32, 32) == 16
    assert largest_uniform_rank(MODEL, 0, 4, 0) == 0


def test_an_untrained_smaller_prefix_is_never_cut_to() -> None:
    schema = Schema(MODEL.projections, (8, 16), MODEL.head)
    projected = project(uniform(schema, 16, 32, 32), schema, 30_000)
    assert projected.ranks.tolist() == [8] * 30
    assert projected.bits.tolist() == [4] * 30
