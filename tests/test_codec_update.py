"""Encoding: pure, in priority order, within the budget, with every prefix valid and the tails chosen by measuring."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlora.codec import Allocation, EdgeState, Update, encode
from airlora.codec.choice import LayerChoice, layers_not_held_back, price_layers
from airlora.codec.costs import Costs
from airlora.codec.layers import CAP, DROP, KEEP, BlockPiece, HeadPiece
from airlora.codec.plan import last_round, plan
from airlora.codec.targets import Targets
from airlora.errors import CompatibilityError, StoreError, TrainingError
from airlora.factors import Factors, Schema
from codec_samples import (
    INF,
    TOLERANCE,
    LossJudge,
    allocations,
    blank_edge,
    deliver,
    model_schema,
    random_factors,
    same_arrays,
    small_schema,
    trained_factors,
    uniform,
)

SCHEMA, MODEL = small_schema(), model_schema()
FACTORS, ROUNDS = random_factors(SCHEMA), trained_factors(SCHEMA, 3)
MODEL_FACTORS = trained_factors(MODEL, 1)[0]


def infos(edge: EdgeState, update: Update) -> list:
    """What each layer says."""
    found = []
    for layer in update.layers:
        info, edge = edge.read(layer)
        found.append(info)
    return found


def test_40_encoding_twice_gives_the_same_bytes_and_changes_nothing() -> None:
    factors, edge, allocation = random_factors(SCHEMA), blank_edge(SCHEMA), uniform(SCHEMA, 4, 4, 8)
    arrays = (*factors.u, *factors.v, *factors.head.values(), allocation.ranks, allocation.bits)
    before = [array.copy() for array in arrays]
    state_before = replace(edge)
    first, second = encode(factors, edge, allocation, 0), encode(factors, edge, allocation, 0)
    assert first == second
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert same_arrays(edge, state_before)


@pytest.mark.parametrize("bits", [2, 4, 16])
def test_memory_order_of_the_factors_does_not_matter(bits: int) -> None:
    turned = Factors(SCHEMA, tuple(map(np.asfortranarray, FACTORS.u)), FACTORS.v, FACTORS.head)
    allocation = uniform(SCHEMA, 6, bits, bits)
    assert encode(turned, blank_edge(SCHEMA), allocation, 0) == encode(FACTORS, blank_edge(SCHEMA), allocation, 0)


@settings(max_examples=60, deadline=None)
@given(allocations(SCHEMA, st.floats(0, 1500) | st.just(INF)), allocations(SCHEMA), st.data())
def test_the_edge_follows_the_encoder_bit_for_bit_and_any_prefix_applies(
    first: Allocation, second: Allocation, data: st.DataObject
) -> None:
    """Two rounds, the first cut off anywhere: the states that the encoder computed are those that the edge reaches."""
    edge = blank_edge(SCHEMA)
    for round_index, allocation in enumerate((first, second)):
        factors = ROUNDS[round_index]
        costs = Costs.measure(factors, edge)
        choice = LayerChoice(
            Targets(factors, allocation, costs, edge),
            edge,
            round_index,
            None,
            allocation.budget_bytes,
            allocation.carried_bytes,
        )
        for pieces in plan(SCHEMA, allocation, costs):
            choice.add_class(pieces)
        update = encode(factors, edge, allocation, round_index)
        assert update.layers == choice.layers
        assert update.size_bytes <= allocation.budget_bytes
        assert same_arrays(deliver(edge, update), choice.state)
        edge = deliver(edge, update, data.draw(st.integers(0, len(update.layers))))
        got = edge.factors()
        assert (got.ranks <= SCHEMA.r_max).all()
        assert all(np.isfinite(array).all() for array in (*got.u, *got.v, *got.head.values()))


@settings(max_examples=30, deadline=None)
@given(allocations(SCHEMA))
def test_what_is_not_asked_for_stays_as_the_edge_holds_it(allocation: Allocation) -> None:
    """Components beyond the ranks, and those of 0 bits, do not change; nor does a head of 0 bits."""
    edge = deliver(blank_edge(SCHEMA), encode(ROUNDS[0], blank_edge(SCHEMA), uniform(SCHEMA, 6, 4, 4), 0))
    after = deliver(edge, encode(ROUNDS[1], edge, allocation, 1))
    each = allocation.bits.ndim == 2
    for index, rank in enumerate(allocation.ranks.tolist()):
        left = [k for k in range(SCHEMA.r_max[index]) if k >= rank or (each and not allocation.bits[index, k])]
        assert (after.u[index][:, left] == edge.u[index][:, left]).all()
        assert (after.v[index][left] == edge.v[index][left]).all()
    assert allocation.head_bits or (after.head == edge.head).all()


@pytest.mark.parametrize(("bits", "bound"), [(2, 0.5), (3, 0.23), (4, 0.11), (6, 0.03), (8, 0.008), (16, 3e-4)])
def test_error_of_every_matrix_is_that_of_a_uniform_quantiser(bits: int, bound: float) -> None:
    """A step of 5.25 · 2^-bits root mean squares leaves an error of step / sqrt(12), relative; residuals keep it."""
    assert bits == 16 or bound >= 5.25 * 2**-bits / 12**0.5
    schema = replace(MODEL, projections=MODEL.projections[:6])
    edge = blank_edge(schema)
    for round_index, factors in enumerate(trained_factors(schema, 3)):
        edge = deliver(edge, encode(factors, edge, uniform(schema, 16, bits, bits), round_index))
        got = edge.factors()
        for want, found in zip((*factors.u, *factors.v), (*got.u, *got.v), strict=True):
            each = np.sqrt(np.square(want - found).sum() / np.square(want).sum())
            assert each <= bound
        assert np.linalg.norm(factors.head["weight"] - got.head["weight"]) <= bound * np.linalg.norm(
            factors.head["weight"]
        )


@pytest.mark.parametrize("held", ["nothing", "the round before", "white noise"])
def test_a_frozen_cloud_at_16_bits_is_exact_in_one_round_whatever_is_held(held: str) -> None:
    schema = replace(MODEL, projections=MODEL.projections[:6])
    before, factors = trained_factors(schema, 2)
    edge = blank_edge(schema)
    if held != "nothing":
        first = before if held == "the round before" else random_factors(schema)
        edge = deliver(edge, encode(first, edge, uniform(schema, 16, 3, 3), 0))
    edge = deliver(edge, encode(factors, edge, uniform(schema, 16, 16, 16), 1))
    got = edge.factors()
    for want, found in zip((*factors.u, *factors.v), (*got.u, *got.v), strict=True):
        np.testing.assert_array_equal(found, want.astype(np.float16).astype(np.float32))
    for name, tensor in factors.head.items():
        np.testing.assert_array_equal(got.head[name], tensor.astype(np.float16).astype(np.float32))
    again = encode(factors, edge, uniform(schema, 16, 16, 16), 2)
    assert again.size_bytes < 40 * len(again.layers) + 100  # nothing is left to say


def test_priority_is_head_and_first_block_then_the_later_blocks_in_schema_order() -> None:
    update = encode(MODEL_FACTORS, blank_edge(MODEL), uniform(MODEL, 5, 8, 8), 6)
    pieces = [piece for info in infos(blank_edge(MODEL), update) for piece in info.pieces]
    heads = [piece for piece in pieces if isinstance(piece, HeadPiece)]
    assert pieces[: len(heads)] == heads
    assert heads[0].first == 0
    assert sum(piece.count for piece in heads) == 25
    blocks = [piece for piece in pieces if isinstance(piece, BlockPiece)]
    assert [piece.start for piece in blocks] == sorted(piece.start for piece in blocks)
    for start, stop in ((0, 1), (1, 2), (2, 4), (4, 5)):
        touched = [item for piece in blocks if piece.start == start for item in piece.touched()]
        assert touched == [(index, stop) for index in range(30)]
    assert {info.tail for info in infos(blank_edge(MODEL), update)} == {KEEP}


def test_layers_are_about_4_kb_or_an_eighth_of_a_small_budget() -> None:
    sizes = encode(MODEL_FACTORS, blank_edge(MODEL), uniform(MODEL, 16, 6, 6), 0).layer_bytes
    assert max(sizes) < 4096 * 1.05
    assert np.mean(sizes) > 2500
    sizes = encode(MODEL_FACTORS, blank_edge(MODEL), uniform(MODEL, 2, 4, 4, budget_bytes=4000), 0).layer_bytes
    assert max(sizes) < 512 * 1.15
    expecting = replace(uniform(MODEL, 16, 4, 4), expected_bytes=4000.0)  # everything, though little of it will arrive
    sizes = encode(MODEL_FACTORS, blank_edge(MODEL), expecting, 0).layer_bytes
    assert sum(sizes) > 20_000
    assert max(sizes[:8]) < 512 * 1.15


@pytest.mark.parametrize("expected_bytes", [0.0, 400.0, 4000.0])
def test_layers_beyond_what_is_expected_grow_with_what_comes_before(expected_bytes: float) -> None:
    """So that they are few, each is measured, and what arrives beyond expectation is still nearly all applied."""
    everything = uniform(MODEL, 16, 16, 16)
    update = encode(MODEL_FACTORS, blank_edge(MODEL), replace(everything, expected_bytes=expected_bytes), 0)
    sizes = np.array(update.layer_bytes)
    before = np.cumsum(sizes) - sizes
    late = before > expected_bytes
    whole = encode(MODEL_FACTORS, blank_edge(MODEL), everything, 0)
    assert (sizes[late] < before[late] / 8 + max(whole.layer_bytes)).all()
    assert late.sum() <= 8 * np.log(sizes.sum() / max(expected_bytes, sizes[0]))
    got, want = (deliver(blank_edge(MODEL), each).factors() for each in (update, whole))
    for array, expected in zip((*got.u, *got.v), (*want.u, *want.v), strict=True):
        np.testing.assert_array_equal(array, expected)


def test_what_a_round_cannot_carry_comes_first_in_its_class_in_the_next() -> None:
    edge, allocation = blank_edge(MODEL), uniform(MODEL, 1, 8, 8)
    first = encode(MODEL_FACTORS, edge, allocation, 0)
    lost = infos(edge, first)[-1].pieces[0]
    edge = deliver(edge, first, len(first.layers) - 1)
    again = encode(MODEL_FACTORS, edge, allocation, 1)
    pieces = {index for index, _ in infos(edge, again)[0].pieces[0].touched()}
    assert pieces & {index for index, _ in lost.touched()}


def test_a_budget_too_small_for_a_round_is_served_over_several() -> None:
    edge, allocation = blank_edge(MODEL), uniform(MODEL, 1, 8, 8, budget_bytes=3000)
    for round_index in range(9):
        update = encode(MODEL_FACTORS, edge, allocation, round_index)
        assert update.size_bytes <= 3000
        edge = deliver(edge, update)
    assert edge.active_ranks.tolist() == [1] * 30
    assert edge.head_rounds.min() >= 0


def test_no_block_is_sent_on_a_projection_whose_lower_block_is_left_out() -> None:
    for budget in (300, 2000, 5000, 12000, 30000):
        update = encode(MODEL_FACTORS, blank_edge(MODEL), uniform(MODEL, 16, 16, 16, budget), 0)
        edge = deliver(blank_edge(MODEL), update)  # refuses a block without the lower ones
        assert edge.delivered


def test_nothing_to_send_is_an_empty_update() -> None:
    update = encode(FACTORS, blank_edge(SCHEMA), uniform(SCHEMA, 0, 4, 0), 0)
    assert (update.layers, update.size_bytes) == ((), 0)
    assert encode(FACTORS, blank_edge(SCHEMA), uniform(SCHEMA, 6, 16, 16, budget_bytes=0), 0).layers == ()


def held_at(rank: int) -> EdgeState:
    return deliver(blank_edge(MODEL), encode(MODEL_FACTORS, blank_edge(MODEL), uniform(MODEL, rank, 4, 4), 0))


@pytest.mark.parametrize(("tail_helps", "active"), [(True, 16), (False, 4)])
def test_the_tail_is_kept_or_dropped_as_it_measures(tail_helps: bool, active: int) -> None:
    def loss(state: EdgeState) -> float:
        rank = int(state.active_ranks.max())
        return 0.1 - 0.001 * (rank if tail_helps else -rank) - 0.1 * (state.round == 1)

    edge = held_at(16)
    update = encode(random_factors(MODEL), edge, uniform(MODEL, 4, 4, 4), 1, LossJudge(loss))
    after = deliver(edge, update)
    assert set(after.active_ranks.tolist()) == {active}
    assert after.stored_ranks.tolist() == [16] * 30
    assert infos(edge, update)[0].tail == (KEEP if tail_helps else DROP)


def test_classes_that_make_it_worse_wait_for_one_that_makes_it_better() -> None:
    """Ranks 1 and 2 alone are bad, rank 4 is good: one layer brings all three; no prefix is worse than before."""
    edge = blank_edge(MODEL)

    def loss(state: EdgeState) -> float:
        return {0: 1.0, 1: 3.0, 2: 2.0, 4: 0.5}[int(state.active_ranks.max())]

    update = encode(MODEL_FACTORS, edge, uniform(MODEL, 4, 4, 0), 0, LossJudge(loss))
    assert [len(info.pieces) > 2 for info in infos(edge, update)] == [True]
    losses = [loss(deliver(edge, update, count)) for count in range(len(update.layers) + 1)]
    assert losses == [1.0, 0.5]


def test_a_last_class_that_makes_it_worse_is_left_out() -> None:
    edge = blank_edge(MODEL)
    judge = LossJudge(lambda state: float(state.active_ranks.max() > 2))
    update = encode(MODEL_FACTORS, edge, uniform(MODEL, 4, 4, 0), 0, judge)
    assert int(deliver(edge, update).active_ranks.max()) == 2


def test_the_best_prefix_becomes_active_in_the_end() -> None:
    edge = blank_edge(MODEL)
    best = {0: 1.0, 1: 0.9, 2: 0.5, 4: 0.5 + TOLERANCE, 8: 0.6, 16: 0.7}
    judge = LossJudge(lambda state: best[int(state.active_ranks.max())])
    update = encode(MODEL_FACTORS, edge, uniform(MODEL, 16, 4, 0), 0, judge)
    after = deliver(edge, update)
    assert set(after.active_ranks.tolist()) == {2}
    assert after.stored_ranks.tolist() == [16] * 30
    last = infos(edge, update)[-1]
    assert (last.tail, last.cap, last.pieces) == (CAP, 2, ())
    assert len(update.layers[-1]) <= 40


def fading_loss(state: EdgeState) -> float:
    """Of each projection, every further component wins half of what the one before it won."""
    return float(np.exp2(-state.active_ranks).mean())


def fading_worth(state: EdgeState) -> float:
    """Beyond the untouched model."""
    return 1 - fading_loss(state)


FADING = LossJudge(fading_loss, fading_worth)


@given(st.floats(-6.0, 0.0), st.integers(0, 6))
def test_with_a_price_an_update_ends_where_it_wins_most_beyond_its_price(exponent: float, held: int) -> None:
    price = 10**exponent
    edge = blank_edge(SCHEMA)
    if held:
        edge = deliver(edge, encode(ROUNDS[0], edge, uniform(SCHEMA, held, 4, 4), 0))
    allocation = uniform(SCHEMA, 6, 4, 4)
    whole = encode(ROUNDS[1], edge, allocation, 1, FADING)
    priced = encode(ROUNDS[1], edge, replace(allocation, byte_price=price), 1, FADING)
    assert priced.layers == whole.layers[: len(priced.layers)]
    states = [edge]
    for layer in whole.layers:
        states.append(states[-1].apply(layer))
    won = np.array([1 - fading_loss(state) for state in states])
    ages = [[1 - last_round(piece, edge) for piece in info.pieces] for info in infos(edge, whole)]
    costs = price_layers(price, whole.layer_bytes, ages)
    worth = won / won.max() - costs if won.max() > 0 else np.zeros(len(states))
    first = [all(getattr(piece, "start", 0) == 0 for piece in info.pieces) for info in infos(edge, whole)]
    least = sum(first) if not held and costs[sum(first)] <= 0.4 else 0
    assert len(priced.layers) >= least
    assert worth[len(priced.layers)] == worth[least:].max()


def test_an_edge_that_waited_longer_is_sent_more_at_the_same_price() -> None:
    blank, allocation = blank_edge(SCHEMA), uniform(SCHEMA, 6, 4, 4)
    edge = deliver(blank, encode(ROUNDS[0], blank, allocation, 0))

    def fresh(state: EdgeState) -> float:
        """Components of a round after the first, with a falling return."""
        return float(np.mean(state.component_rounds > 0)) ** 0.5

    judge = LossJudge(lambda state: 1 - fresh(state), lambda state: 1 + fresh(state))
    whole = encode(ROUNDS[1], edge, allocation, 1, judge).size_bytes
    priced = replace(allocation, byte_price=0.6 / whole)
    sizes = [encode(ROUNDS[1], edge, priced, index, judge).size_bytes for index in (1, 2, 4, 8)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[1] < sizes[3] == whole


def test_a_layer_costs_less_the_longer_the_edge_waits_for_it() -> None:
    costs = price_layers(1e-3, [100, 200, 100], [[1], [3, 3], [1, 3]])
    assert costs.tolist() == pytest.approx([0, 0.1, 0.2, 0.275])
    assert price_layers(1e-3, [], []).tolist() == [0]


@given(st.floats(1e-3, 1.0), st.floats(1e-3, 10.0))
def test_what_waits_at_that_price_costs_least_of_gaps_and_bytes_together(growth: float, price: float) -> None:
    """A gap that grows evenly: sent as soon as it exceeds its price, against every fixed period."""

    def cost_per_round(period: int) -> float:
        return (price + growth * period * (period - 1) / 2) / period

    waits = next(k for k in range(1, 200) if growth * k >= price_layers(price, [1], [[k]])[1])
    assert cost_per_round(waits) == pytest.approx(min(map(cost_per_round, range(1, 200))))


def test_what_the_edge_lacks_of_its_first_components_is_held_back_only_where_it_is_dear() -> None:
    costs = np.array([0.0, 0.2, 0.4, 0.6])
    assert [layers_not_held_back(costs * scale, [False, True, False]) for scale in (0.1, 1, 1.1)] == [2, 2, 0]
    assert layers_not_held_back(costs, [False, False, False]) == layers_not_held_back(costs[:1], []) == 0

    def sent(edge: EdgeState, round_index: int, price: float) -> Update:
        """Of an update that wins nothing over what the edge has."""
        idle = LossJudge(lambda state: 0.0, lambda state: 1.0 if state.id == edge.id else 0.5)
        allocation = replace(uniform(SCHEMA, 6, 4, 4), byte_price=price)
        return encode(ROUNDS[round_index], edge, allocation, round_index, idle)

    blank = blank_edge(SCHEMA)
    first = encode(ROUNDS[0], blank, uniform(SCHEMA, 1, 4, 4), 0)
    assert len(sent(blank, 0, 0.39 / first.size_bytes).layers) == len(first.layers)
    assert not sent(blank, 0, 0.5 / first.size_bytes).layers
    assert not sent(deliver(blank, first), 1, 0.39 / first.size_bytes).layers  # it lacks nothing of these any more


def test_a_price_leaves_all_out_that_wins_less_and_nothing_where_it_is_0() -> None:
    edge, allocation = blank_edge(SCHEMA), uniform(SCHEMA, 6, 4, 4)
    whole = encode(ROUNDS[0], edge, allocation, 0, FADING)
    sizes = [
        encode(ROUNDS[0], edge, replace(allocation, byte_price=price), 0, FADING).size_bytes
        for price in (0.0, 1e-3, 5e-3, 1.0)
    ]
    assert sizes[0] == whole.size_bytes > sizes[1] > sizes[2] >= sizes[3] == 0
    unmeasured = encode(ROUNDS[0], edge, replace(allocation, byte_price=1.0), 0)
    assert unmeasured.layers == encode(ROUNDS[0], edge, allocation, 0).layers


def test_bytes_are_priced_by_what_is_exact_not_by_what_seems() -> None:
    """On few rows nothing seems to win beyond the first layer: with all of them, all is sent that wins its price."""
    edge, allocation = blank_edge(SCHEMA), replace(uniform(SCHEMA, 6, 4, 4), byte_price=1e-7)
    lucky = LossJudge(fading_loss, fading_worth, seems=lambda state: float(state.id != edge.id))
    assert encode(ROUNDS[0], edge, allocation, 0, lucky).layers == encode(ROUNDS[0], edge, allocation, 0, FADING).layers
    hopeful = LossJudge(fading_loss, lambda state: -1.0 if state.id == edge.id else 1.0, seems=fading_worth)
    dear = replace(allocation, byte_price=1e-3)
    assert len(encode(ROUNDS[0], edge, dear, 0, hopeful).layers) < len(encode(ROUNDS[0], edge, dear, 0, FADING).layers)


def test_where_nothing_is_worth_anything_there_is_no_price() -> None:
    edge, allocation = blank_edge(SCHEMA), uniform(SCHEMA, 6, 4, 4)
    ruined = LossJudge(fading_loss, lambda state: -1.0)
    priced = encode(ROUNDS[0], edge, replace(allocation, byte_price=1e-7), 0, ruined)
    assert priced.layers == encode(ROUNDS[0], edge, allocation, 0, FADING).layers


def test_with_a_price_only_what_is_sent_can_become_active() -> None:
    """The loss falls up to rank 2 and hardly from there: the update ends there, and no prefix is activated after."""

    def loss(state: EdgeState) -> float:
        return float(np.exp(-4 * state.active_ranks).mean())

    edge, allocation = blank_edge(SCHEMA), replace(uniform(SCHEMA, 6, 4, 4), byte_price=1e-5)
    update = encode(ROUNDS[0], edge, allocation, 0, LossJudge(loss, lambda state: 1 - loss(state)))
    assert deliver(edge, update).active_ranks.max() == 2
    assert all(info.tail != CAP for info in infos(edge, update))


def test_33_values_far_beyond_what_training_gives_are_refused() -> None:
    factors = random_factors(SCHEMA)
    factors.v[0][:] *= np.float32(1e30)
    with pytest.raises(TrainingError, match="quantiser steps cannot be sent; start again with a lower --lr"):
        encode(factors, blank_edge(SCHEMA), uniform(SCHEMA, 6, 4, 4), 0)


@settings(max_examples=60, deadline=None)
@given(allocations(SCHEMA, st.floats(100, 900) | st.just(INF)), allocations(SCHEMA), st.integers(0, 2**32 - 1))
def test_whatever_is_measured_the_end_is_no_worse_than_the_start(
    allocation: Allocation, held: Allocation, seed: int
) -> None:
    """Losses that jump about: every kind of choice is made; the update fits, applies, and ends within the tolerance."""
    edge = deliver(blank_edge(SCHEMA), encode(ROUNDS[0], blank_edge(SCHEMA), held, 0))

    def loss(state: EdgeState) -> float:
        return float(np.random.default_rng([seed, int(state.id[:8], 16)]).normal(0, 0.02))

    update = encode(ROUNDS[1], edge, allocation, 1, LossJudge(loss))
    assert update.size_bytes <= allocation.budget_bytes
    assert loss(deliver(edge, update)) <= loss(edge) + TOLERANCE


def test_what_cannot_be_encoded_is_refused() -> None:
    factors, edge = random_factors(SCHEMA), blank_edge(SCHEMA)
    other = Schema(SCHEMA.projections, SCHEMA.prefixes, SCHEMA.head, base_fingerprint="another")
    with pytest.raises(CompatibilityError, match="factors of schema"):
        encode(random_factors(other), edge, uniform(SCHEMA, 1, 4, 4), 0)
    with pytest.raises(CompatibilityError, match="for 3 projections"):
        encode(factors, edge, Allocation(np.array([1]), np.array([4]), 4, np.inf), 0)
    with pytest.raises(ValueError, match="exceed the factors'"):
        encode(factors.truncate([1, 1, 1]), edge, uniform(SCHEMA, 2, 4, 4), 0)
    held = deliver(edge, encode(factors, edge, uniform(SCHEMA, 1, 4, 4), 5))
    with pytest.raises(ValueError, match="round 4 must be in 5"):
        encode(factors, held, uniform(SCHEMA, 1, 4, 4), 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["u", "v", "head"])
def test_33_nan_and_infinity_are_refused_and_named(value: float, where: str) -> None:
    factors = random_factors(SCHEMA)
    array, name = {"u": (factors.u[1], "b"), "v": (factors.v[2], "c"), "head": (factors.head["weight"], "weight")}[
        where
    ]
    array[0, 0] = value
    with pytest.raises(TrainingError, match=f"NaN or infinite in 1 tensors, the first in {name}"):
        encode(factors, blank_edge(SCHEMA), uniform(SCHEMA, 6, 4, 4), 0)


def test_33_denormals_and_values_beyond_float16_are_carried() -> None:
    factors = random_factors(SCHEMA)
    factors.u[0][:] *= np.float32(1e-38)
    factors.v[1][:] *= np.float32(1e6)
    edge = deliver(blank_edge(SCHEMA), encode(factors, blank_edge(SCHEMA), uniform(SCHEMA, 6, 4, 4), 0))
    assert all(np.isfinite(array).all() for array in (*edge.u, *edge.v))
    assert np.linalg.norm(edge.v[1] - factors.v[1]) < 0.12 * np.linalg.norm(factors.v[1])
    edge = deliver(blank_edge(SCHEMA), encode(factors, blank_edge(SCHEMA), uniform(SCHEMA, 6, 16, 16), 0))
    assert np.abs(edge.v[1]).max() == 65504  # float16 saturates
    np.testing.assert_array_equal(np.sign(edge.v[1]), np.sign(factors.v[1]))


@pytest.mark.parametrize(
    ("what", "allocation"),
    [
        ("ranks", Allocation(np.array([1, 7, 1]), np.full(3, 4), 4, np.inf)),
        ("ranks", Allocation(np.array([1.0, 2.0, 1.0]), np.full(3, 4), 4, np.inf)),
        ("ranks", Allocation(np.array([1, -1, 1]), np.full(3, 4), 4, np.inf)),
        ("bits", Allocation(np.array([1, 1, 1]), np.full(3, 5), 4, np.inf)),
        ("bits", Allocation(np.array([1, 1, 1]), np.full(3, 0), 4, np.inf)),
        ("bits", Allocation(np.array([1, 1, 1]), np.full((3, 6), 32), 4, np.inf)),
        ("head_bits", Allocation(np.array([1, 1, 1]), np.full(3, 4), 5, np.inf)),
        ("budget_bytes", Allocation(np.array([1, 1, 1]), np.full(3, 4), 4, np.nan)),
        ("budget_bytes", Allocation(np.array([1, 1, 1]), np.full(3, 4), 4, -1)),
    ],
)
def test_an_impossible_allocation_is_refused_with_the_remedy(what: str, allocation: Allocation) -> None:
    with pytest.raises(ValueError, match=rf"(?s)allocation {what} = .* codec.project"):
        encode(random_factors(SCHEMA), blank_edge(SCHEMA), allocation, 0)


def test_save_and_load(tmp_path) -> None:
    update = encode(random_factors(SCHEMA), blank_edge(SCHEMA), uniform(SCHEMA, 6, 4, 4), 9)
    update.save(tmp_path / "update.safetensors")
    assert Update.load(tmp_path / "update.safetensors") == update
    first = (tmp_path / "update.safetensors").read_bytes()
    update.save(tmp_path / "update.safetensors")
    assert (tmp_path / "update.safetensors").read_bytes() == first
    empty = Update((), update.parent, SCHEMA.id, 10)
    empty.save(tmp_path / "empty.safetensors")
    assert Update.load(tmp_path / "empty.safetensors") == empty
    blank_edge(SCHEMA).save(tmp_path / "edge.safetensors")
    with pytest.raises(StoreError, match="not 'airlora-update-2'"):
        Update.load(tmp_path / "edge.safetensors")


def test_the_codec_needs_no_torch() -> None:
    code = "import sys, airlora.codec; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'peft')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
