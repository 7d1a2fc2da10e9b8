"""Rules: each against its definition, and none over the budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlora.codec import Allocation, Costs, encode, project
from airlora.errors import SpecError
from airlora.factors import Factors, HeadTensor, Projection, Schema
from airlora.link import LinkState
from airlora.policy import Observation, make_policy
from airlora.policy.rules import AdaLora
from airlora.workload.text import TextStatistics
from codec_samples import INF, blank_edge, model_schema, random_factors, small_schema

NAN = float("nan")
RULES = ("uniform", "fit", "flood", "random", "greedy", "adalora")
SCHEMA = small_schema()
HEADLESS = Schema(SCHEMA.projections, SCHEMA.prefixes)


def observe(
    schema: Schema = SCHEMA,
    budget_bytes: float = INF,
    *,
    round_index: int = 0,
    sensitivity: np.ndarray | None = None,
    trained_ranks: np.ndarray | None = None,
    deadline_s: float = 0.5,
) -> Observation:
    count, largest = len(schema.projections), int(schema.r_max.max())
    return Observation(
        round=round_index,
        rounds=20,
        link=LinkState(0.0, 10.0, 1e6, 8 * budget_bytes / deadline_s),
        deadline_s=deadline_s,
        text=TextStatistics(0.9, 0.1, 7.0, 1.0),
        schema=schema,
        trained_ranks=schema.r_max if trained_ranks is None else trained_ranks,
        sensitivity=np.ones((count, largest), np.float32) if sensitivity is None else sensitivity,
        energy=np.ones((count, largest), np.float32),
        held_ranks=np.zeros(count, np.int64),
        since_contact_s=INF,
        costs=Costs.nominal(schema),
    )


def decide(spec: str, observation: Observation, seed: int = 0) -> Allocation:
    return make_policy(spec, seed).decide(observation)


def update_bytes(schema: Schema, allocation: Allocation) -> float:
    return Costs.nominal(schema).update_bytes(allocation)


def uniform_bytes(schema: Schema, rank: int, bits: int, budget_bytes: float) -> float:
    ranks = np.minimum(rank, schema.r_max)
    head_bits = bits if schema.head else 0
    return update_bytes(schema, Allocation(ranks, np.full(len(ranks), bits), head_bits, budget_bytes))


# the observation


def test_the_budget_is_rate_times_deadline_in_bytes() -> None:
    assert observe(budget_bytes=1234.0, deadline_s=0.25).budget_bytes == pytest.approx(1234.0)
    assert observe(budget_bytes=0.0).budget_bytes == 0
    assert observe(budget_bytes=NAN).budget_bytes == INF  # the rate is unknown


# uniform and flood


def test_uniform_sends_its_rank_and_bits_whatever_the_link_says() -> None:
    for budget in (0.0, 1000.0, NAN):
        allocation = decide("uniform:3,bits=8", observe(budget_bytes=budget))
        assert allocation.ranks.tolist() == [3, 3, 2]  # the third projection has r_max 2
        assert allocation.bits.tolist() == [8, 8, 8]
        assert allocation.head_bits == 8
        assert allocation.budget_bytes == INF


def test_flood_offers_everything_without_a_budget() -> None:
    allocation = decide("flood", observe(budget_bytes=10.0))
    assert allocation.ranks.tolist() == SCHEMA.r_max.tolist()
    assert allocation.bits.tolist() == [4, 4, 4]
    assert allocation.head_bits == 4
    assert allocation.budget_bytes == INF
    assert allocation.expected_bytes == pytest.approx(10)  # in layers of a size that can arrive


def test_fixed_sends_the_rank_that_was_trained_within_its_share_of_the_estimate() -> None:
    """The policy's own rank was resolved before the training; what counts is what was trained."""
    trained = np.array([3, 3, 2])
    allocation = decide("fixed:rank=3,bits=3,margin=0.5", observe(budget_bytes=600.0, trained_ranks=trained))
    assert allocation.ranks.tolist() == [3, 3, 2]
    assert allocation.bits.tolist() == [3, 3, 3]
    assert allocation.head_bits == 3
    assert allocation.budget_bytes == pytest.approx(300)


def test_policies_share_a_training_where_they_can() -> None:
    keys = {spec: make_policy(spec, 0).training_key for spec in (*RULES, "fixed", "fixed:rank=4", "adalora:rank=2")}
    assert {keys[spec] for spec in RULES if spec != "adalora"} == {"nested"}
    assert keys["fixed"] == "fixed"
    assert keys["fixed:rank=4"] == "fixed-4"
    assert keys["adalora:rank=2"] == "adalora-2"


@pytest.mark.parametrize("spec", ["uniform", "flood", "fit", "fixed", "greedy", "random", "adalora"])
def test_there_are_no_head_bits_without_a_head(spec: str) -> None:
    assert decide(spec, observe(HEADLESS, 5000.0)).head_bits == 0


# fit


@pytest.mark.parametrize("schema", [SCHEMA, HEADLESS, model_schema()], ids=["small", "headless", "model"])
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_fit_takes_the_largest_rank_that_fits(schema: Schema, bits: int) -> None:
    largest = int(schema.r_max.max())
    for rank in range(1, largest + 1):
        for budget in (uniform_bytes(schema, rank, bits, INF) + extra for extra in (-1.0, 0.0, 1.0)):
            fitting = [r for r in range(1, largest + 1) if uniform_bytes(schema, r, bits, budget) <= budget]
            allocation = decide(f"fit:bits={bits}", observe(schema, budget))
            expected = max(fitting, default=1)
            assert allocation.ranks.tolist() == np.minimum(expected, schema.r_max).tolist()
            assert set(allocation.bits.tolist()) == {bits}


def test_fit_sends_everything_while_the_rate_is_unknown() -> None:
    allocation = decide("fit", observe(budget_bytes=NAN))
    assert allocation.ranks.tolist() == SCHEMA.r_max.tolist()
    assert allocation.budget_bytes == INF


def test_fit_counts_the_head() -> None:
    budget = float(uniform_bytes(HEADLESS, 6, 4, INF))
    headless, headed = (decide("fit", observe(schema, budget)) for schema in (HEADLESS, SCHEMA))
    assert headless.ranks.max() == 6
    assert headed.ranks.max() < 6


def test_fit_keeps_rank_1_for_a_budget_that_is_too_small_for_it() -> None:
    smallest = uniform_bytes(SCHEMA, 1, 4, INF)
    allocation = decide("fit", observe(budget_bytes=smallest / 2))
    assert allocation.ranks.tolist() == [1, 1, 1]
    update = encode(random_factors(SCHEMA), blank_edge(SCHEMA), project(allocation, Costs.nominal(SCHEMA), INF), 0)
    assert 0 < update.size_bytes <= smallest / 2  # what does fit is sent


def test_fits_margin_is_a_fraction_of_the_budget() -> None:
    whole = decide("fit", observe(budget_bytes=800.0))
    assert decide("fit:margin=0.5", observe(budget_bytes=1600.0)).ranks.tolist() == whole.ranks.tolist()
    assert decide("fit:margin=0.5", observe(budget_bytes=1600.0)).budget_bytes == 800.0


def test_fit_prices_bytes_by_the_airtime_that_they_take() -> None:
    """λ buys a whole budget, for a round."""
    assert decide("fit", observe(budget_bytes=800.0)).byte_price == 0
    assert decide("fit:airtime_weight=0.4", observe(budget_bytes=800.0)).byte_price == pytest.approx(0.4 / 800)
    assert decide("fit:airtime_weight=0.4,margin=2", observe(budget_bytes=800.0)).byte_price == pytest.approx(0.4 / 800)
    assert decide("fit:airtime_weight=0.4", observe(budget_bytes=NAN)).byte_price == 0  # nothing is known
    assert decide("fit:airtime_weight=0.4", observe(budget_bytes=0.0)).byte_price == 0


# greedy


def two_projections() -> Schema:
    """Blocks 0-1, 1-2, 2-4; a component costs 30 numbers in "wide" and 10 in "narrow"."""
    return Schema((Projection("wide", 20, 10, 4), Projection("narrow", 6, 4, 4)), (1, 2, 4))


# Sensitivity per number. wide: 6/30 = 0.2, 3/30 = 0.1, (0.6 + 0)/60 = 0.01;
# narrow: 0.5/10 = 0.05, 4/10 = 0.4 (behind the first), (0.1 + 0.1)/20 = 0.01, a tie that the first projection wins.
VALUES = np.array([[6, 3, 0.6, 0], [0.5, 4, 0.1, 0.1]], np.float32)
ORDER = [(1, 0), (2, 0), (2, 1), (2, 2), (4, 2), (4, 4)]


def test_greedy_takes_blocks_by_sensitivity_per_number() -> None:
    schema = two_projections()
    for ranks in ORDER:
        wanted = Allocation(np.array(ranks), np.array([4, 4]), 0, INF)
        budget = float(update_bytes(schema, wanted))
        found = decide("greedy", observe(schema, budget, sensitivity=VALUES))
        assert found.ranks.tolist() == list(ranks)
        assert found.budget_bytes == budget


def test_greedy_passes_over_a_block_that_does_not_fit() -> None:
    schema = two_projections()
    assert VALUES[0, 0] / 30 > VALUES[1, 0] / 10  # "wide" comes first, but only "narrow" fits
    budget = float(update_bytes(schema, Allocation(np.array([0, 1]), np.array([4, 4]), 0, INF)))
    assert decide("greedy", observe(schema, budget, sensitivity=VALUES)).ranks.tolist() == [0, 1]


def test_greedy_never_takes_a_later_block_before_an_earlier_one() -> None:
    schema = two_projections()
    values = np.zeros((2, 4), np.float32)
    values[1, 3] = 100.0  # only reached through everything before it
    for budget in range(0, 700, 20):
        ranks = decide("greedy", observe(schema, float(budget), sensitivity=values)).ranks
        assert set(ranks.tolist()) <= {0, 1, 2, 4}
    assert decide("greedy", observe(schema, INF, sensitivity=values)).ranks.tolist() == [4, 4]


def test_greedy_stops_at_the_trained_ranks() -> None:
    ranks = decide("greedy", observe(trained_ranks=np.array([3, 1, 0]))).ranks
    assert ranks.tolist() == [3, 1, 0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60_000), st.integers(0, 100))
def test_greedy_uses_its_budget_and_needs_no_reduction(budget: int, seed: int) -> None:
    schema = model_schema()
    values = np.random.default_rng(seed).random((len(schema.projections), 16)).astype(np.float32)
    found = decide("greedy", observe(schema, float(budget), sensitivity=values))
    nothing = Allocation(np.zeros_like(found.ranks), found.bits, found.head_bits, found.budget_bytes)
    if update_bytes(schema, nothing) > budget:  # not even the head fits: both are offered, piece by piece
        assert (found.ranks == 1).all()
        return
    assert update_bytes(schema, found) <= budget
    assert project(found, Costs.nominal(schema), INF).ranks.tolist() == found.ranks.tolist()
    for index, rank in enumerate(found.ranks.tolist()):  # no further block fits
        if rank < schema.r_max[index]:
            more = found.ranks.copy()
            more[index] = next(p for p in schema.prefixes if p > rank)
            assert update_bytes(schema, Allocation(more, found.bits, found.head_bits, found.budget_bytes)) > budget


# random


def test_random_is_a_function_of_seed_and_round() -> None:
    def draw(spec: str, seed: int, round_index: int) -> list[int]:
        return decide(spec, observe(model_schema(), round_index=round_index), seed).ranks.tolist()

    assert draw("random", 0, 3) == draw("random", 0, 3)
    assert draw("random", 0, 3) != draw("random", 0, 4)
    assert draw("random", 0, 3) != draw("random", 1, 3)
    assert draw("random:seed=7", 0, 3) == draw("random:seed=7", 1, 3) == draw("random", 7, 3)


def test_random_draws_every_trained_rank_and_no_other() -> None:
    trained = np.array([4, 6, 0])
    draws = np.array([decide("random", observe(round_index=t, trained_ranks=trained)).ranks for t in range(200)])
    assert [sorted(set(column)) for column in draws.T.tolist()] == [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6], [0]]


def test_random_draws_bits_where_none_are_given() -> None:
    bits = np.array([decide("random:bits=none", observe(round_index=t)).bits for t in range(60)])
    assert sorted(set(bits.ravel().tolist())) == [4, 8, 16]
    assert set(decide("random", observe()).bits.tolist()) == {4}


# adalora


def test_adalora_sends_what_training_kept() -> None:
    kept = np.array([4, 0, 1])
    allocation = decide("adalora:bits=8", observe(budget_bytes=3000.0, trained_ranks=kept))
    assert allocation.ranks.tolist() == kept.tolist()
    assert allocation.bits.tolist() == [8, 8, 8]
    assert allocation.budget_bytes == 3000.0
    assert AdaLora.training == "adalora"


# SPECs


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("best", "unknown policy 'best'; there are: adalora, airllm, fit, fixed, flood, greedy, ppo, random, uniform"),
        ("fit:rank=3", "'fit' has no key 'rank'; its keys are: bits, margin"),
        ("uniform:bits=5", "bits=5; allowed: 2, 3, 4, 6, 8, 16"),
        ("uniform:-1", "rank=-1 must be at least 0"),
        ("fit:airtime_weight=-1", "0 … 100"),
        ("fit:margin=0", "margin=0.0 must be finite and above 0"),
        ("fit:margin=inf", "margin=inf"),
        ("fit:margin=nan", "margin=nan"),
        ("random:seed=-1", "seed=-1 must be at least 0"),
        ("fixed:rank=0", "rank=0 must be at least 1"),
        ("fixed:margin=0", "margin=0"),
        ("adalora:rank=0", "rank=0 must be at least 1"),
        ("adalora:warmup=0.6,final=0.4", "sum to less than 1"),
        ("adalora:warmup=nan", "warmup=nan"),
        ("adalora:initial=inf", "initial=inf"),
        ("adalora:interval=0", "interval=0"),
    ],
)
def test_a_wrong_spec_is_refused_with_what_is_allowed(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=r"^(unknown )?policy") as caught:
        make_policy(spec, 0)
    assert message in str(caught.value)


# all of them

RATES = st.just(NAN) | st.just(0.0) | st.floats(1e-300, 1e-3) | st.floats(0, 1e6) | st.floats(1e9, 1e300)


@st.composite
def small_factors(draw: st.DrawFn) -> Factors:
    shapes = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3))
    projections = tuple(Projection(f"p{i}", a, b, min(a, b, 6)) for i, (a, b) in enumerate(shapes))
    largest = max(projection.r_max for projection in projections)
    prefixes = tuple(sorted({1, min(2, largest), largest}))
    head = (HeadTensor("weight", (3, 4)), HeadTensor("bias", (3,))) if draw(st.booleans()) else ()
    return random_factors(Schema(projections, prefixes, head), seed=draw(st.integers(0, 99)))


@pytest.mark.parametrize("spec", [*RULES, "random:bits=none", "fit:bits=16", "greedy:bits=16"])
@settings(max_examples=60, deadline=None)
@given(factors=small_factors(), rate_bps=RATES, deadline_s=st.floats(1e-3, 100), seed=st.integers(0, 99))
def test_what_is_sent_never_exceeds_the_estimated_budget(
    spec: str, factors: Factors, rate_bps: float, deadline_s: float, seed: int
) -> None:
    schema = factors.schema
    rng = np.random.default_rng(seed)
    seen = observe(
        schema,
        rate_bps * deadline_s / 8,
        deadline_s=deadline_s,
        sensitivity=rng.random((len(schema.projections), int(schema.r_max.max()))).astype(np.float32),
        trained_ranks=rng.integers(0, schema.r_max + 1) if spec == "adalora" else None,
    )
    proposal = decide(spec, seen, seed)
    projected = project(proposal, Costs.measure(factors, blank_edge(schema)), INF)
    update = encode(factors, blank_edge(schema), projected, 0)
    if spec in ("uniform", "flood"):
        assert projected.budget_bytes == INF  # the deadline cuts, not the estimate
    else:
        assert proposal.budget_bytes == seen.budget_bytes
        assert update.size_bytes <= seen.budget_bytes
    assert (projected.ranks <= seen.trained_ranks).all()
