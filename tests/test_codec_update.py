"""Encoding: pure, in priority order, within the budget, and everything is delivered over some rounds."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlora.codec import Allocation, EdgeState, Update, encode, inspect_update, update_bytes
from airlora.errors import CompatibilityError, StoreError, UpdateError
from airlora.factors import Schema
from codec_samples import allocations, blank_edge, model_schema, random_factors, small_schema, uniform

SCHEMA = small_schema()


def deliver(edge: EdgeState, update: Update) -> EdgeState:
    for layer in update.layers:
        edge = edge.apply(layer)
    return edge


def test_encoding_twice_gives_the_same_bytes_and_changes_nothing() -> None:
    factors, edge, allocation = random_factors(SCHEMA), blank_edge(SCHEMA), uniform(SCHEMA, 4, 4, 8)
    before = [array.copy() for array in (*factors.u, *factors.v, *factors.head.values())]
    first, second = encode(factors, edge, allocation, 0), encode(factors, edge, allocation, 0)
    assert first == second
    for array, copy in zip((*factors.u, *factors.v, *factors.head.values()), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_memory_order_of_the_factors_does_not_matter() -> None:
    factors = random_factors(SCHEMA)
    turned = type(factors)(SCHEMA, tuple(np.asfortranarray(u) for u in factors.u), factors.v, factors.head)
    for bits in (4, 8, 16, 32):
        allocation = uniform(SCHEMA, 6, bits, bits)
        assert encode(turned, blank_edge(SCHEMA), allocation, 0) == encode(factors, blank_edge(SCHEMA), allocation, 0)


@settings(max_examples=60, deadline=None)
@given(allocations(SCHEMA, st.floats(0, 3000) | st.just(np.inf)))
def test_an_update_stays_within_its_budget_and_applies(allocation: Allocation) -> None:
    update = encode(random_factors(SCHEMA), blank_edge(SCHEMA), allocation, 0)
    assert update.size_bytes <= allocation.budget_bytes
    edge = deliver(blank_edge(SCHEMA), update)
    assert (edge.active_ranks <= allocation.ranks).all()
    if update.size_bytes == update_bytes(SCHEMA, allocation):
        assert edge.active_ranks.tolist() == allocation.ranks.tolist()


def test_priority_is_head_then_blocks_in_schema_order() -> None:
    schema = model_schema()
    rows = inspect_update(
        encode(random_factors(schema), blank_edge(schema), uniform(schema, 5, 8, 16), 6).layers, schema
    )
    assert [row["layer"] for row in rows] == list(range(len(rows)))
    assert {row["round"] for row in rows} == {6}
    heads = [row for row in rows if row["kind"] == "head"]
    assert rows[: len(heads)] == heads
    assert [(row["start"], row["stop"], row["names"]) for row in heads] == [
        (0, 15, ["weight"]),
        (15, 25, ["weight", "bias"]),
    ]
    blocks = rows[len(heads) :]
    spans = [(row["start"], row["stop"]) for row in blocks]
    assert spans == sorted(spans)
    assert set(spans) == {(0, 1), (1, 2), (2, 4), (4, 5)}
    for span in set(spans):
        names = [name for row in blocks if (row["start"], row["stop"]) == span for name in row["names"]]
        assert names == [projection.name for projection in schema.projections]
    assert all(row["bits"] == [8] for row in blocks)


def test_inspection_counts_every_byte_and_refuses_rubbish() -> None:
    update = encode(random_factors(SCHEMA), blank_edge(SCHEMA), uniform(SCHEMA, 6, 4, 4), 0)
    rows = inspect_update(update.layers, SCHEMA)
    assert sum(row["bytes"] for row in rows) == update.size_bytes == sum(update.layer_bytes)
    with pytest.raises(UpdateError):
        inspect_update([b"rubbish"], SCHEMA)


def test_a_head_that_needs_three_rounds_is_delivered_over_three_rounds() -> None:
    schema = model_schema()
    allocation = uniform(schema, 0, 32, 32, budget_bytes=5200)  # a 12.4 kB head, a row a layer
    edge, factors, unseen = blank_edge(schema), random_factors(schema), []
    for round_index in range(3):
        update = encode(factors, edge, allocation, round_index)
        assert 4500 < update.size_bytes <= 5200
        edge = deliver(edge, update)
        unseen.append(int((edge.head_rounds < 0).sum()))
    assert unseen[0] > unseen[1] > unseen[2] == 0
    np.testing.assert_array_equal(edge.factors().head["weight"], factors.head["weight"])
    # In the fourth round the rows of the first are the stalest.
    edge = deliver(edge, encode(factors, edge, allocation, 3))
    assert edge.head_rounds[0] == 3


def test_a_block_that_exceeds_the_budget_rotates_over_the_projections() -> None:
    schema = model_schema()
    allocation = uniform(schema, 1, 16, 0, budget_bytes=6000)
    edge, factors = blank_edge(schema), random_factors(schema)
    assert update_bytes(schema, allocation) > 3 * 6000
    for round_index in range(5):
        edge = deliver(edge, encode(factors, edge, allocation, round_index))
    assert edge.active_ranks.tolist() == [1] * 30
    oldest = int(edge.component_rounds[:, 0].argmin())
    edge = deliver(edge, encode(factors, edge, allocation, 5))
    assert edge.component_rounds[oldest, 0] == 5


def test_a_lost_layer_comes_first_in_its_class_in_the_next_round() -> None:
    schema = model_schema()
    edge, factors, allocation = blank_edge(schema), random_factors(schema), uniform(schema, 1, 16, 16)
    first = encode(factors, edge, allocation, 0)
    names = [row["names"] for row in inspect_update(first.layers, schema)]
    for layer in first.layers[:-2]:
        edge = edge.apply(layer)
    again = [row["names"] for row in inspect_update(encode(factors, edge, allocation, 1).layers, schema)]
    assert again == names[-2:] + names[:-2]


def test_a_head_larger_than_the_budget_does_not_starve_the_components() -> None:
    schema = model_schema()
    edge, factors = blank_edge(schema), random_factors(schema)
    head_bytes = update_bytes(schema, uniform(schema, 0, 16, 16))
    allocation = uniform(schema, 1, 16, 16, budget_bytes=0.8 * head_bytes)
    for round_index in range(10):
        edge = deliver(edge, encode(factors, edge, allocation, round_index))
    assert edge.active_ranks.min() == 1
    assert edge.head_rounds.min() >= 0


def test_no_block_is_sent_on_a_projection_whose_lower_block_is_left_out() -> None:
    schema = model_schema()
    for budget in (500, 2000, 5000, 12000, 30000):
        update = encode(random_factors(schema), blank_edge(schema), uniform(schema, 16, 16, 16, budget), 0)
        edge = deliver(blank_edge(schema), update)  # refuses a block without the lower ones
        assert edge.delivered


def test_nothing_to_send_is_an_empty_update() -> None:
    update = encode(random_factors(SCHEMA), blank_edge(SCHEMA), uniform(SCHEMA, 0, 4, 0), 0)
    assert (update.layers, update.size_bytes) == ((), 0)
    update = encode(random_factors(SCHEMA), blank_edge(SCHEMA), uniform(SCHEMA, 6, 32, 32, budget_bytes=0), 0)
    assert update.layers == ()


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
    with pytest.raises(ValueError, match="round 5 must be in 6"):
        encode(factors, held, uniform(SCHEMA, 1, 4, 4), 5)
    factors.head["weight"][0, 0] = np.inf
    with pytest.raises(UpdateError, match="head: values to send"):
        encode(factors, edge, uniform(SCHEMA, 1, 4, 4), 0)


@pytest.mark.parametrize(
    ("what", "allocation"),
    [
        ("ranks", Allocation(np.array([1, 7, 1]), np.full(3, 4), 4, np.inf)),
        ("ranks", Allocation(np.array([1.0, 2.0, 1.0]), np.full(3, 4), 4, np.inf)),
        ("ranks", Allocation(np.array([1, -1, 1]), np.full(3, 4), 4, np.inf)),
        ("bits", Allocation(np.array([1, 1, 1]), np.full(3, 5), 4, np.inf)),
        ("head_bits", Allocation(np.array([1, 1, 1]), np.full(3, 4), 3, np.inf)),
        ("budget_bytes", Allocation(np.array([1, 1, 1]), np.full(3, 4), 4, np.nan)),
        ("budget_bytes", Allocation(np.array([1, 1, 1]), np.full(3, 4), 4, -1)),
    ],
)
def test_an_impossible_allocation_is_refused_with_the_remedy(what: str, allocation: Allocation) -> None:
    with pytest.raises(ValueError, match=rf"allocation {what} = .* codec.project"):
        encode(random_factors(SCHEMA), blank_edge(SCHEMA), allocation, 0)


def test_save_and_load(tmp_path) -> None:
    update = encode(random_factors(SCHEMA), blank_edge(SCHEMA), uniform(SCHEMA, 6, 4, 4), 9)
    update.save(tmp_path / "update.safetensors")
    assert Update.load(tmp_path / "update.safetensors") == update
    empty = Update((), update.parent, SCHEMA.id, 10)
    empty.save(tmp_path / "empty.safetensors")
    assert Update.load(tmp_path / "empty.safetensors") == empty
    blank_edge(SCHEMA).save(tmp_path / "edge.safetensors")
    with pytest.raises(StoreError, match="not 'airlora-update-1'"):
        Update.load(tmp_path / "edge.safetensors")


def test_the_codec_needs_no_torch() -> None:
    code = "import sys, airlora.codec; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'peft')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
