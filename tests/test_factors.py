"""The seam's values: what a schema and factors must satisfy, and the schema's identity."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from airlora.errors import CompatibilityError
from airlora.factors import Factors, HeadTensor, Projection, Schema, _splitmix64
from codec_samples import model_schema, random_factors, small_schema

SCHEMA = small_schema()


@pytest.mark.parametrize("r_max", [0, -1, 4])
def test_a_projections_rank_is_bounded_by_its_shape(r_max: int) -> None:
    Projection("p", 5, 3, 3)
    with pytest.raises(ValueError, match=f"p: r_max {r_max} must be in 1..3"):
        Projection("p", 5, 3, r_max)


@pytest.mark.parametrize("prefixes", [(0, 1, 6), (1, 2, 4), (1, 1, 6), (2, 1, 6), (1, 8), (6, 6)])
def test_prefixes_ascend_to_the_largest_rank(prefixes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must ascend from at least 1 to the largest r_max, 6"):
        replace(SCHEMA, prefixes=prefixes)


def test_a_schema_needs_projections_prefixes_and_unique_names() -> None:
    with pytest.raises(ValueError, match="at least one projection"):
        Schema((), (1,))
    with pytest.raises(ValueError, match="must ascend"):
        Schema(SCHEMA.projections, ())
    with pytest.raises(ValueError, match="unique"):
        Schema((SCHEMA.projections[0], SCHEMA.projections[0]), (4,))
    with pytest.raises(ValueError, match="unique"):
        replace(SCHEMA, head=(HeadTensor("a", (2,)),))  # a projection has that name


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_has_64_bits(seed: int) -> None:
    with pytest.raises(ValueError, match=f"init_seed {seed} must be in"):
        replace(SCHEMA, init_seed=seed)


def test_sizes_by_hand() -> None:
    assert SCHEMA.r_max.tolist() == [4, 6, 2]
    assert SCHEMA.numbers_per_component.tolist() == [16, 17, 8]
    assert SCHEMA.head_size == 5 * 7 + 5 + 1
    assert SCHEMA.plain_lora_bytes() == 4 * (4 * 16 + 6 * 17 + 2 * 8 + 41)  # rank 8 is cut to each r_max
    assert SCHEMA.plain_lora_bytes(1, bytes_per_number=2) == 2 * (16 + 17 + 8 + 41)


def test_json_round_trip_keeps_the_schema_and_its_id() -> None:
    for schema in (SCHEMA, model_schema(), replace(SCHEMA, head=(), base_fingerprint="0f" * 8)):
        again = Schema.from_json(json.loads(json.dumps(schema.to_json())))
        assert again == schema
        assert again.id == schema.id


def test_the_id_is_stable() -> None:
    # stored updates and checkpoints carry it: a change breaks them all
    assert Schema((Projection("a", 3, 2, 2),), (1, 2)).id == "7217ca0295fd0314"


def test_anything_that_differs_gives_another_id() -> None:
    a, b, c = SCHEMA.projections
    others = [
        replace(SCHEMA, projections=(b, a, c)),
        replace(SCHEMA, projections=(replace(a, name="z"), b, c)),
        replace(SCHEMA, projections=(replace(a, d_out=10), b, c)),
        replace(SCHEMA, projections=(replace(a, r_max=3), b, c)),
        replace(SCHEMA, prefixes=(1, 2, 6)),
        replace(SCHEMA, head=SCHEMA.head[::-1]),
        replace(SCHEMA, head=()),
        replace(SCHEMA, base_fingerprint="other"),
        replace(SCHEMA, init_seed=4),
        replace(SCHEMA, init_seed=None),
    ]
    assert len({schema.id for schema in (SCHEMA, *others)}) == len(others) + 1
    assert all(len(schema.id) == 16 for schema in others)


def test_v_starts_where_its_seed_says() -> None:
    """Stored by value: both sides compute it, so it may never change. Uniform of variance 1 / d_in."""
    schema = Schema((Projection("a", 900, 400, 64), Projection("b", 900, 400, 64)), (64,), init_seed=5)
    a, b = schema.initial_v(0), schema.initial_v(1)
    assert a.shape == (64, 400)
    assert a.dtype == np.float32
    assert hashlib.sha256(a.tobytes() + b.tobytes()).hexdigest()[:16] == "fa94d8b9500af2d6"
    assert abs(a.var() * 400 - 1) < 0.02
    assert abs(a.mean()) < 0.001
    assert np.abs(a).max() <= np.sqrt(3 / 400)
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(a[:-1].ravel(), a[1:].ravel())[0, 1]) < 0.02
    assert not np.array_equal(replace(schema, init_seed=6).initial_v(0), a)
    assert not replace(schema, init_seed=None).initial_v(0).any()


def test_splitmix64_by_its_published_first_values() -> None:
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]  # of the generator seeded with 0
    assert _splitmix64(np.array([1, 2, 3], np.uint64)).tolist() == published


def test_rows_of_the_head_by_hand() -> None:
    assert [(tensor.rows, tensor.row_size) for tensor in SCHEMA.head] == [(5, 7), (1, 5), (1, 1)]
    assert SCHEMA.head_rows == 7
    assert [HeadTensor("x", shape).rows for shape in ((3, 0), (0,), (0, 4), (2, 3, 4))] == [3, 1, 0, 2]
    assert HeadTensor("x", (2, 3, 4)).row_size == 12
    assert SCHEMA.size == 4 * 16 + 6 * 17 + 2 * 8 + 41


def test_factors_must_fit_their_schema() -> None:
    good = random_factors(SCHEMA)
    with pytest.raises(CompatibilityError, match="factors for 2 projections, the schema has 3"):
        Factors(SCHEMA, good.u[:2], good.v[:2], good.head)
    with pytest.raises(CompatibilityError, match=r"a: u .* do not fit"):
        Factors(SCHEMA, (good.u[0][:, :3], *good.u[1:]), good.v, good.head)  # ranks of u and v differ
    with pytest.raises(CompatibilityError, match=r"a: u .* do not fit"):
        Factors(SCHEMA, (good.u[0].T, *good.u[1:]), good.v, good.head)
    wide_u, wide_v = np.zeros((5, 3), np.float32), np.zeros((3, 3), np.float32)
    with pytest.raises(CompatibilityError, match=r"c: u .* with r ≤ 2"):
        Factors(SCHEMA, (*good.u[:2], wide_u), (*good.v[:2], wide_v), good.head)
    with pytest.raises(CompatibilityError, match="head tensors"):
        Factors(SCHEMA, good.u, good.v, {})
    with pytest.raises(CompatibilityError, match="head tensors"):
        Factors(SCHEMA, good.u, good.v, {**good.head, "bias": np.zeros(4, np.float32)})


def test_truncation_keeps_the_first_components() -> None:
    whole = random_factors(SCHEMA)
    assert whole.ranks.tolist() == [4, 6, 2]
    cut = whole.truncate([2, 0, 5])
    assert cut.ranks.tolist() == [2, 0, 2]  # never more than there are
    for u, v, kept_u, kept_v, r in zip(whole.u, whole.v, cut.u, cut.v, [2, 0, 2], strict=True):
        assert np.array_equal(kept_u, u[:, :r])
        assert np.array_equal(kept_v, v[:r])
        assert np.allclose(kept_u @ kept_v, sum((np.outer(u[:, k], v[k]) for k in range(r)), np.zeros((len(u), 1))))
    assert cut.head is whole.head
    assert np.shares_memory(cut.u[0], whole.u[0])
