"""The edge's state: what layers do to it, which ones it refuses, and its file."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlora.codec import Allocation, EdgeState, encode
from airlora.codec.files import write_tensors
from airlora.errors import CompatibilityError, StoreError, UpdateError
from airlora.factors import Factors, HeadTensor, Schema
from codec_samples import blank_edge, model_schema, random_factors, small_schema, uniform

SCHEMA = small_schema()


def apply_all(edge: EdgeState, layers: tuple[bytes, ...]) -> EdgeState:
    for layer in layers:
        edge = edge.apply(layer)
    return edge


def assert_same(a: Factors, b: Factors) -> None:
    for x, y in zip((*a.u, *a.v, *a.head.values()), (*b.u, *b.v, *b.head.values()), strict=True):
        np.testing.assert_array_equal(x, y)


def test_initial_state_is_the_shipped_head_and_no_components() -> None:
    head = random_factors(SCHEMA).head
    edge = EdgeState.initial(SCHEMA, head)
    assert not edge.delivered
    assert edge.factors().ranks.tolist() == [0, 0, 0]
    for name, tensor in edge.factors().head.items():
        np.testing.assert_array_equal(tensor, head[name])


def test_a_whole_update_at_32_bits_is_exact() -> None:
    factors = random_factors(SCHEMA)
    edge = apply_all(blank_edge(SCHEMA), encode(factors, blank_edge(SCHEMA), uniform(SCHEMA, 6, 32, 32), 0).layers)
    assert edge.delivered
    assert_same(edge.factors(), factors)


@pytest.mark.parametrize(("bits", "bound"), [(4, 0.13), (8, 0.009), (16, 3e-4), (32, 0.0)])
def test_error_of_the_weight_update_on_the_shapes_of_a_model(bits: int, bound: float) -> None:
    schema = model_schema()
    factors = random_factors(schema)
    edge = apply_all(blank_edge(schema), encode(factors, blank_edge(schema), uniform(schema, 16, bits, bits), 0).layers)
    got = edge.factors()
    for u, v, u_got, v_got in zip(factors.u, factors.v, got.u, got.v, strict=True):
        assert np.linalg.norm(u - u_got) <= bound * np.linalg.norm(u)
        assert np.linalg.norm(v - v_got) <= bound * np.linalg.norm(v)
        assert np.linalg.norm(u @ v - u_got @ v_got) <= 1.5 * bound * np.linalg.norm(u @ v)


def test_every_prefix_of_an_update_is_an_adapter_of_one_round_per_projection() -> None:
    schema = model_schema()
    ranks = np.array([16, 5, 0, 3, 8, 1] * 5)
    edge = blank_edge(schema)
    first, second = random_factors(schema, 1), random_factors(schema, 2)
    edge = apply_all(edge, encode(first, edge, uniform(schema, 16, 32, 32), 0).layers)
    layers = encode(second, edge, Allocation(ranks, np.full(30, 32), 32, np.inf), 1).layers
    assert len(layers) > 20
    for layer in layers:
        edge = edge.apply(layer)
        got = edge.factors()
        for m in range(len(schema.projections)):
            rank = int(got.ranks[m])
            assert rank in (1, 2, 4, 5, 3, 8, 16)
            source = second if edge.component_rounds[m, 0] == 1 else first
            assert rank <= ranks[m] or source is first
            np.testing.assert_array_equal(got.u[m], source.u[m][:, :rank])
            np.testing.assert_array_equal(got.v[m], source.v[m][:rank])
    assert edge.active_ranks.tolist() == [rank or 16 for rank in ranks]


def test_a_new_round_makes_the_old_tail_inactive_but_keeps_it() -> None:
    old, new = random_factors(SCHEMA, 1), random_factors(SCHEMA, 2)
    edge = blank_edge(SCHEMA)
    edge = apply_all(edge, encode(old, edge, uniform(SCHEMA, 6, 32, 0), 3).layers)
    assert edge.active_ranks.tolist() == [4, 6, 2]
    layers = encode(new, edge, uniform(SCHEMA, 6, 32, 0), 5).layers
    reached = []
    for layer in layers:
        edge = edge.apply(layer)
        reached.append(edge.active_ranks.tolist())
        if len(reached) == 1:
            np.testing.assert_array_equal(edge.u[1][:, 1:], old.u[1][:, 1:])
            assert edge.component_rounds[1].tolist() == [5, 3, 3, 3, 3, 3]
    assert reached == [[1, 1, 1], [2, 2, 2], [4, 4, 2], [4, 6, 2]]
    assert_same(edge.factors(), Factors(SCHEMA, new.u, new.v, edge.factors().head))


def test_states_are_values() -> None:
    edge = blank_edge(SCHEMA)
    layers = encode(random_factors(SCHEMA), edge, uniform(SCHEMA, 2, 8, 8), 0).layers
    before = [array.copy() for array in edge.to_tensors()[0].values()]
    later = edge.apply(layers[0]).apply(layers[1])
    for array, copy in zip(edge.to_tensors()[0].values(), before, strict=True):
        np.testing.assert_array_equal(array, copy)
    with pytest.raises(ValueError, match="read-only"):
        later.u[0][0, 0] = 1
    factors = later.factors()
    factors.u[0][:] = 0
    factors.head["bias"][:] = 0
    assert np.abs(later.u[0]).max() > 0
    assert np.abs(later.head).max() > 0


def test_the_id_is_a_chain_of_the_layers() -> None:
    edge = blank_edge(SCHEMA)
    a, b, *_ = encode(random_factors(SCHEMA), edge, uniform(SCHEMA, 2, 8, 8), 0).layers
    assert edge.apply(a).apply(b).id == edge.apply(a).apply(b).id
    ids = {edge.id, edge.apply(a).id, edge.apply(b).id, edge.apply(a).apply(b).id, edge.apply(b).apply(a).id}
    assert len(ids) == 5
    assert EdgeState.initial(SCHEMA, random_factors(SCHEMA).head).id != edge.id


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(5)), st.lists(st.integers(0, 4), max_size=3))
def test_reordered_dropped_and_doubled_layers_never_mix_rounds(order: list[int], extra: list[int]) -> None:
    old, new = random_factors(SCHEMA, 1), random_factors(SCHEMA, 2)
    edge = blank_edge(SCHEMA)
    edge = apply_all(edge, encode(old, edge, uniform(SCHEMA, 6, 32, 32), 0).layers)
    layers = encode(new, edge, uniform(SCHEMA, 6, 32, 32), 1).layers
    assert len(layers) == 5
    for index in (*order, *extra):
        try:
            edge = edge.apply(layers[index])
        except CompatibilityError:
            continue
        got = edge.factors()
        for m, rank in enumerate(got.ranks):
            assert any(np.array_equal(got.u[m], source.u[m][:, :rank]) for source in (old, new))
            assert any(np.array_equal(got.v[m], source.v[m][:rank]) for source in (old, new))


def test_layers_that_do_not_follow_are_refused_and_said_why() -> None:
    edge = blank_edge(SCHEMA)
    factors = random_factors(SCHEMA)
    old = encode(factors, edge, uniform(SCHEMA, 2, 8, 8), 0).layers
    new = encode(factors, edge, uniform(SCHEMA, 2, 8, 8), 4).layers
    assert len(new) == 3
    with pytest.raises(CompatibilityError, match="need the lower ones"):
        edge.apply(new[2])
    with pytest.raises(CompatibilityError, match="need the lower ones"):
        apply_all(edge, old).apply(new[2])
    for layer in new:
        with pytest.raises(CompatibilityError, match="applied already"):
            apply_all(edge, new).apply(layer)
    with pytest.raises(CompatibilityError, match="layer of round 0, this edge is at 4"):
        apply_all(edge, new).apply(old[0])


def test_a_layer_for_another_schema_is_refused() -> None:
    other = Schema(SCHEMA.projections, SCHEMA.prefixes, SCHEMA.head, base_fingerprint="another model")
    layer = encode(random_factors(other), blank_edge(other), uniform(other, 1, 8, 8), 0).layers[0]
    with pytest.raises(CompatibilityError, match="a layer for schema"):
        blank_edge(SCHEMA).apply(layer)


def test_a_head_of_other_shapes_is_refused() -> None:
    with pytest.raises(CompatibilityError, match="do not fit the schema's"):
        EdgeState.initial(SCHEMA, {"weight": np.zeros((5, 7))})


def test_empty_head_tensors_are_carried() -> None:
    schema = Schema(SCHEMA.projections, SCHEMA.prefixes, (HeadTensor("weight", (3, 0)), HeadTensor("bias", (0,))))
    for bits in (4, 8, 16, 32):
        edge = blank_edge(schema)
        edge = apply_all(edge, encode(random_factors(schema), edge, uniform(schema, 1, bits, bits), 0).layers)
        assert edge.head_rounds.tolist() == [0, 0, 0, 0]


def test_save_and_load_give_an_equal_state_that_goes_on_equally(tmp_path) -> None:
    edge = blank_edge(SCHEMA)
    factors = random_factors(SCHEMA)
    *layers, last = encode(factors, edge, uniform(SCHEMA, 6, 4, 16), 2).layers
    edge = apply_all(edge, tuple(layers))
    edge.save(tmp_path / "edge.safetensors")
    loaded = EdgeState.load(tmp_path / "edge.safetensors")
    assert loaded.schema == edge.schema
    assert loaded.id == edge.id
    for a, b in zip(edge.to_tensors()[0].values(), loaded.to_tensors()[0].values(), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert loaded.apply(last).id == edge.apply(last).id
    assert_same(loaded.apply(last).factors(), edge.apply(last).factors())
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


def test_missing_foreign_and_pickled_files_are_refused(tmp_path) -> None:
    with pytest.raises(StoreError, match="is not a file"):
        EdgeState.load(tmp_path / "none")
    encode(random_factors(SCHEMA), blank_edge(SCHEMA), uniform(SCHEMA, 1, 4, 4), 0).save(tmp_path / "update")
    with pytest.raises(StoreError, match="not 'airlora-edge-state-1'"):
        EdgeState.load(tmp_path / "update")
    (tmp_path / "pickle").write_bytes(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94.")
    with pytest.raises(StoreError, match="not a readable safetensors file"):
        EdgeState.load(tmp_path / "pickle")
    tensors, metadata = blank_edge(SCHEMA).to_tensors()
    del tensors["v_0001"]
    write_tensors(tmp_path / "partial", "airlora-edge-state-1", tensors, metadata)
    with pytest.raises(StoreError, match="v_0001"):
        EdgeState.load(tmp_path / "partial")
    tensors["v_0001"] = np.zeros((2, 2), np.float32)
    write_tensors(tmp_path / "misshapen", "airlora-edge-state-1", tensors, metadata)
    with pytest.raises(StoreError, match=r"v_0001 is float32 \(2, 2\), the schema asks for float32 \(6, 11\)"):
        EdgeState.load(tmp_path / "misshapen")


def test_a_folder_that_cannot_be_written_is_named(tmp_path) -> None:
    with pytest.raises(StoreError, match="cannot write"):
        blank_edge(SCHEMA).save(tmp_path / "missing" / "edge")


def test_nan_is_not_applied() -> None:
    factors = random_factors(SCHEMA)
    factors.v[1][0, 3] = np.nan
    with pytest.raises(UpdateError, match="b: values to send: 1 of 66 numbers are NaN"):
        encode(factors, blank_edge(SCHEMA), uniform(SCHEMA, 6, 16, 0), 0)
