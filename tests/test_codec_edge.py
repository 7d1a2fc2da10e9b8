"""The edge's state: what layers do to it, which ones it refuses, how it gets back in step, and its file."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlora.codec import EdgeHistory, EdgeState, Update, encode
from airlora.codec.files import write_tensors
from airlora.errors import CompatibilityError, StoreError, UpdateError
from airlora.factors import Factors, HeadTensor, Schema
from codec_samples import (
    LossJudge,
    blank_edge,
    deliver,
    random_factors,
    same_arrays,
    small_schema,
    trained_factors,
    uniform,
)

SCHEMA = small_schema()
FACTORS, ROUNDS = random_factors(SCHEMA), trained_factors(SCHEMA, 5)
PICKLE = b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94."


def send(edge: EdgeState, round_index: int, rank: int = 6, bits: int = 4, head_bits: int = 4) -> Update:
    """A round's update of a slowly changing cloud."""
    return encode(ROUNDS[round_index], edge, uniform(SCHEMA, rank, bits, head_bits), round_index)


def test_initial_state_is_the_shipped_head_no_components_and_the_seeded_v() -> None:
    edge = EdgeState.initial(SCHEMA, FACTORS.head)
    assert not edge.delivered
    assert edge.factors().ranks.tolist() == [0, 0, 0]
    for name, tensor in edge.factors().head.items():
        np.testing.assert_array_equal(tensor, FACTORS.head[name])
    np.testing.assert_array_equal(edge.v[1], SCHEMA.initial_v(1))
    assert not any(u.any() for u in edge.u)


def test_a_new_round_without_the_tail_keeps_it_stored() -> None:
    edge = deliver(blank_edge(SCHEMA), send(blank_edge(SCHEMA), 0))
    assert edge.active_ranks.tolist() == [4, 6, 2]
    update = encode(
        ROUNDS[1], edge, uniform(SCHEMA, 2, 4, 0), 1, LossJudge(lambda state: float(state.active_ranks.sum()))
    )
    after = deliver(edge, update)
    assert after.active_ranks.tolist() == [1, 1, 1]  # fewer is better, says the measure
    assert after.stored_ranks.tolist() == [4, 6, 2]
    np.testing.assert_array_equal(after.u[1][:, 2:], edge.u[1][:, 2:])
    assert after.component_rounds[1].tolist() == [1, 1, 0, 0, 0, 0]


def test_states_are_values() -> None:
    edge = blank_edge(SCHEMA)
    before = {name: array.copy() for name, array in edge.to_tensors()[0].items()}
    later = deliver(edge, send(edge, 0))
    for name, array in edge.to_tensors()[0].items():
        np.testing.assert_array_equal(array, before[name])
    for array in later.to_tensors()[0].values():
        assert not array.flags.writeable
    factors = later.factors()
    factors.u[0][:] = 0
    factors.head["bias"][:] = 0
    assert np.abs(later.u[0]).max() > 0
    assert np.abs(later.head).max() > 0


def test_the_id_is_a_chain_of_the_layers() -> None:
    edge = blank_edge(SCHEMA)
    states = [deliver(edge, send(edge, 0), count) for count in range(len(send(edge, 0).layers) + 1)]
    assert len({state.id for state in states}) == len(states) > 3
    assert deliver(edge, send(edge, 0)).id == states[-1].id
    assert EdgeState.initial(SCHEMA, FACTORS.head).id != edge.id
    with pytest.raises(CompatibilityError):
        EdgeState.initial(SCHEMA, FACTORS.head).apply(send(edge, 0).layers[0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), max_size=20))
def test_07_lost_doubled_reordered_and_stale_layers_are_refused_and_never_desynchronise(
    arrivals: list[tuple[int, int]],
) -> None:
    """Layers of two updates arrive in any order: the edge is always at a state that the cloud knows."""
    start = blank_edge(SCHEMA)
    first = send(start, 0)
    second = send(deliver(start, first), 1)
    known = [deliver(start, first, count) for count in range(len(first.layers) + 1)]
    known += [deliver(known[-1], second, count) for count in range(1, len(second.layers) + 1)]
    by_id = {state.id: state for state in known}
    edge = start
    for update, layer in arrivals:
        layers = (first, second)[update].layers
        try:
            edge = edge.apply(layers[layer % len(layers)])
        except CompatibilityError:
            continue
        assert same_arrays(edge, by_id[edge.id])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=4, max_size=4))
def test_half_delivered_updates_are_continued_from_the_acknowledged_state(delivered: list[int]) -> None:
    edge = blank_edge(SCHEMA)
    for round_index, count in enumerate(delivered):
        edge = deliver(edge, send(edge, round_index), count)
    edge = deliver(edge, send(edge, 4, bits=16, head_bits=16))
    for want, found in zip(ROUNDS[4].u, edge.factors().u, strict=True):
        np.testing.assert_array_equal(found, want.astype(np.float16).astype(np.float32))


def test_39_a_residual_on_the_wrong_parent_is_refused() -> None:
    edge = deliver(blank_edge(SCHEMA), send(blank_edge(SCHEMA), 0))
    residual = send(edge, 1).layers[0]
    for other in (blank_edge(SCHEMA), deliver(edge, send(edge, 1)), deliver(edge, send(edge, 2), 1)):
        with pytest.raises(CompatibilityError, match=f"a layer for state {edge.id[:16]}, this edge is at"):
            other.apply(residual)


def test_an_older_round_on_a_newer_state_is_refused() -> None:
    edge = deliver(blank_edge(SCHEMA), encode(FACTORS, blank_edge(SCHEMA), uniform(SCHEMA, 2, 4, 4), 7))
    older = replace(edge, component_rounds=np.minimum(edge.component_rounds, 3), head_rounds=edge.head_rounds * 0)
    late = encode(FACTORS, older, uniform(SCHEMA, 2, 4, 4), 4).layers[0]
    with pytest.raises(UpdateError, match="a layer of round 4 builds on one of round 7"):
        edge.apply(late)


def test_30_a_layer_for_another_base_model_is_refused() -> None:
    other = replace(SCHEMA, base_fingerprint="another model")
    layer = encode(random_factors(other), blank_edge(other), uniform(other, 1, 8, 8), 0).layers[0]
    with pytest.raises(CompatibilityError, match="a layer for schema"):
        blank_edge(SCHEMA).apply(layer)


def test_a_head_of_other_shapes_is_refused() -> None:
    with pytest.raises(CompatibilityError, match="do not fit the schema's"):
        EdgeState.initial(SCHEMA, {"weight": np.zeros((5, 7))})


@pytest.mark.parametrize("bits", [2, 8, 16])
def test_38_empty_head_tensors_are_carried(bits: int) -> None:
    schema = replace(SCHEMA, head=(HeadTensor("weight", (3, 0)), HeadTensor("bias", (0,)), HeadTensor("none", (0, 4))))
    edge = deliver(
        blank_edge(schema), encode(random_factors(schema), blank_edge(schema), uniform(schema, 1, 4, bits), 0)
    )
    assert edge.head_rounds.tolist() == [0, 0, 0, 0]


def test_what_stays_keeps_the_sign_of_its_zeros() -> None:
    head = {tensor.name: np.full(tensor.shape, -0.0, np.float32) for tensor in SCHEMA.head}
    edge = EdgeState.initial(SCHEMA, head)
    factors = Factors(SCHEMA, FACTORS.u, FACTORS.v, head)
    after = deliver(edge, encode(factors, edge, uniform(SCHEMA, 1, 4, 4), 0))
    assert after.head_rounds.tolist() == [0] * 7
    assert np.signbit(after.head).all()


def test_34_applied_but_nothing_changed_is_detected() -> None:
    edge = blank_edge(SCHEMA)
    zero_u = Factors(SCHEMA, tuple(u * 0 for u in FACTORS.u), FACTORS.v, edge.factors().head)
    after = deliver(edge, encode(zero_u, edge, uniform(SCHEMA, 6, 4, 4), 0))
    assert after.id != edge.id
    assert after.active_ranks.max() == 6
    assert after.acts_like(edge)
    assert not deliver(edge, encode(FACTORS, edge, uniform(SCHEMA, 1, 4, 0), 0)).acts_like(edge)
    assert not deliver(edge, encode(FACTORS, edge, uniform(SCHEMA, 0, 4, 4), 0)).acts_like(edge)


class TestHistory:
    """An edge that keeps the states that it reported."""

    def receive(self, history: EdgeHistory, update: Update, layers: int | None = None) -> EdgeHistory:
        for layer in update.layers[:layers]:
            history = history.apply(layer)
        return history

    def test_a_lost_acknowledgement_takes_the_edge_back_to_the_state_that_is_named(self) -> None:
        history = EdgeHistory.start(blank_edge(SCHEMA))
        known = history.current
        history = self.receive(history, send(known, 0)).acknowledge()
        known = history.current  # this report arrives
        history = self.receive(history, send(known, 1), 3).acknowledge()  # this one is lost
        assert history.current.id != known.id
        update = send(known, 2)
        history = self.receive(history, update)
        assert same_arrays(history.current, deliver(known, update))

    def test_repeated_and_late_layers_do_not_take_it_back(self) -> None:
        history = EdgeHistory.start(blank_edge(SCHEMA))
        update = send(history.current, 0)
        history = self.receive(history, update)
        for layer in update.layers:
            with pytest.raises(CompatibilityError, match=r"this edge is at .* of round 0; drop it"):
                history.apply(layer)

    def test_a_cloud_that_knows_nothing_starts_from_the_initial_state(self) -> None:
        history = EdgeHistory.start(blank_edge(SCHEMA), limit=1)
        for round_index in range(3):
            history = self.receive(history, send(history.current, round_index)).acknowledge()
        update = send(blank_edge(SCHEMA), 3)
        assert same_arrays(self.receive(history, update).current, deliver(blank_edge(SCHEMA), update))

    def test_an_edge_that_lost_everything_is_served_from_the_initial_state(self) -> None:
        update = send(deliver(blank_edge(SCHEMA), send(blank_edge(SCHEMA), 0)), 1)
        history = EdgeHistory.start(blank_edge(SCHEMA))
        with pytest.raises(CompatibilityError, match="report the state"):
            history.apply(update.layers[0])
        assert self.receive(history, send(blank_edge(SCHEMA), 2)).current.round == 2

    def test_a_state_that_was_reported_too_long_ago_is_forgotten(self) -> None:
        history = EdgeHistory.start(blank_edge(SCHEMA), limit=2)
        history = self.receive(history, send(history.current, 0)).acknowledge()
        old = history.current
        for round_index in (1, 2):
            history = self.receive(history, send(history.current, round_index)).acknowledge()
        assert len(history.acknowledged) == 2
        with pytest.raises(CompatibilityError, match=f"for state {old.id[:16]}"):
            history.apply(send(old, 3).layers[0])
        with pytest.raises(ValueError, match="limit 0 must be at least 1"):
            EdgeHistory.start(old, limit=0)


def test_save_and_load_give_an_equal_state_that_goes_on_equally(tmp_path) -> None:
    edge = blank_edge(SCHEMA)
    *layers, last = send(edge, 2).layers
    for layer in layers:
        edge = edge.apply(layer)
    edge.save(tmp_path / "edge.safetensors")
    loaded = EdgeState.load(tmp_path / "edge.safetensors")
    assert loaded.schema == edge.schema
    assert loaded.id == edge.id
    assert same_arrays(loaded, edge)
    assert loaded.apply(last).id == edge.apply(last).id
    assert same_arrays(loaded.apply(last), edge.apply(last))
    assert [path.name for path in tmp_path.iterdir()] == ["edge.safetensors"]


def test_a_damaged_state_file_is_refused_wherever_the_damage_is(tmp_path) -> None:
    path = tmp_path / "edge.safetensors"
    blank_edge(SCHEMA).save(path)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in [0, 3, 9, len(data) - 1, *rng.integers(0, len(data), 150)]:
        broken = bytearray(data)
        broken[position] ^= 0x10
        path.write_bytes(broken)
        with pytest.raises(StoreError):
            EdgeState.load(path)
    for size in (0, 8, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(StoreError):
            EdgeState.load(path)


@pytest.mark.parametrize("kind", [EdgeState, Update])
def test_36_a_pickle_is_refused(tmp_path, kind: type[EdgeState] | type[Update]) -> None:
    (tmp_path / "pickle").write_bytes(PICKLE)
    with pytest.raises(StoreError, match="not a readable safetensors file"):
        kind.load(tmp_path / "pickle")


def test_missing_foreign_and_incomplete_files_are_refused(tmp_path) -> None:
    with pytest.raises(StoreError, match="is not a file"):
        EdgeState.load(tmp_path / "none")
    send(blank_edge(SCHEMA), 0).save(tmp_path / "update")
    with pytest.raises(StoreError, match="not 'airlora-edge-state-2'"):
        EdgeState.load(tmp_path / "update")
    tensors, metadata = blank_edge(SCHEMA).to_tensors()
    del tensors["v_0001"]
    write_tensors(tmp_path / "partial", "airlora-edge-state-2", tensors, metadata)
    with pytest.raises(StoreError, match="v_0001"):
        EdgeState.load(tmp_path / "partial")
    tensors["v_0001"] = np.zeros((2, 2), np.float32)
    write_tensors(tmp_path / "misshapen", "airlora-edge-state-2", tensors, metadata)
    with pytest.raises(StoreError, match=r"v_0001 is float32 \(2, 2\), the schema asks for float32 \(6, 11\)"):
        EdgeState.load(tmp_path / "misshapen")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("id", "00", "has not 32 hex digits"),
        ("id", "x" * 32, "non-hexadecimal"),
        ("schema", "[" * 100_000, "recursion"),
        ("schema", '{"projections": []}', "prefixes"),
        ("schema", "NaN", "not usable"),
        ("schema", "1" * 5000, "not usable"),
    ],
)
def test_29_hostile_metadata_with_a_right_digest_is_refused(tmp_path, key: str, value: str, message: str) -> None:
    tensors, metadata = blank_edge(SCHEMA).to_tensors()
    write_tensors(tmp_path / "edge", "airlora-edge-state-2", tensors, {**metadata, key: value})
    with pytest.raises(StoreError, match=message):
        EdgeState.load(tmp_path / "edge")


def test_29_hostile_json_in_an_update_is_refused(tmp_path) -> None:
    for value in ("[" * 100_000, '{"ranks": [1%s], "bits": [], "head_bits": 1, "budget_bytes": 0}' % ("0" * 100), "[]"):
        metadata = {"parent": "", "schema_id": "", "round": "0", "allocation": value}
        write_tensors(tmp_path / "update", "airlora-update-2", {}, metadata)
        with pytest.raises(StoreError, match="not a complete update"):
            Update.load(tmp_path / "update")


def test_33_a_stored_state_with_nan_is_refused(tmp_path) -> None:
    tensors, metadata = blank_edge(SCHEMA).to_tensors()
    tensors["v_0001"] = np.full((6, 11), np.nan, np.float32)
    write_tensors(tmp_path / "edge", "airlora-edge-state-2", tensors, metadata)
    with pytest.raises(StoreError, match="it holds NaN or infinity"):
        EdgeState.load(tmp_path / "edge")


def test_a_folder_that_cannot_be_written_is_named(tmp_path) -> None:
    with pytest.raises(StoreError, match="cannot write"):
        blank_edge(SCHEMA).save(tmp_path / "missing" / "edge")


def test_31_32_states_and_factors_that_do_not_fit_their_schema_are_refused() -> None:
    edge = blank_edge(SCHEMA)
    with pytest.raises(CompatibilityError, match="2 u and 3 v for 3 projections"):
        replace(edge, u=edge.u[:2])
    with pytest.raises(CompatibilityError, match=r"active ranks .* exceed 0"):
        replace(edge, active_ranks=np.array([5, 6, 2]))
    renamed = Schema(
        (replace(SCHEMA.projections[0], name="renamed"), *SCHEMA.projections[1:]), SCHEMA.prefixes, SCHEMA.head
    )
    with pytest.raises(CompatibilityError, match="factors of schema"):
        encode(random_factors(renamed), edge, uniform(SCHEMA, 1, 4, 4), 0)
