"""Steps and rounding errors are placed where the loss feels them least, and nothing of it reaches the format."""

import numpy as np
import pytest

from airlora.codec import Allocation, Costs, encode
from airlora.codec.compensation import Rounding, compensate, rounded
from airlora.codec.steps import GRID, step_index, weighted_steps
from airlora.curvature import Curvature
from airlora.errors import CompatibilityError
from airlora.factors import Factors, Schema
from codec_samples import blank_edge, deliver, model_schema, same_arrays, small_schema, trained_factors, uniform

SCHEMA, MODEL = small_schema(), model_schema()
ROUNDS = trained_factors(MODEL, 2)


def curvature(schema: Schema, seed: int = 0, samples: int = 64) -> Curvature:
    """Gradients that differ by factors, and inputs that live in few directions."""
    rng = np.random.default_rng(seed)
    shape = (len(schema.projections), schema.prefixes[-1])
    inputs = []
    for projection in schema.projections:
        spectrum = 0.8 ** np.arange(projection.d_in)
        mixing = np.linalg.qr(rng.normal(size=(projection.d_in, projection.d_in)))[0]
        inputs.append((rng.normal(size=(samples, projection.d_in)) * spectrum @ mixing).astype(np.float32))
    gradients = np.exp2(rng.normal(0, 2, (2, *shape))).astype(np.float32)
    return Curvature(schema, gradients[0], gradients[1], tuple(inputs))


def output_error(factors: Factors, got: Factors, found: Curvature) -> float:
    """Mean squared error of u v x over all projections, relative to that of leaving u v out."""
    wrong = right = 0.0
    for u, v, gu, gv, x in zip(factors.u, factors.v, got.u, got.v, found.inputs, strict=True):
        wrong += float(np.square((u @ v - gu @ gv) @ x.T).sum())
        right += float(np.square(u @ v @ x.T).sum())
    return wrong / right


def one(u: np.ndarray, v: np.ndarray, inputs: np.ndarray, step: float) -> np.ndarray:
    """Targets for u of a single projection on an empty edge, v fine enough to be exact."""
    steps = np.full(len(u), step_index(np.array(step)))
    fine = np.full(len(u), step_index(np.array(2.0**-20)))
    zero_u, zero_v = np.zeros_like(u), np.zeros_like(v)
    return compensate([Rounding(u, v, zero_u, zero_v, steps, fine, inputs)])[0]


def test_components_that_see_unrelated_inputs_have_nothing_to_make_up_for() -> None:
    rng = np.random.default_rng(0)
    u = rng.normal(size=(4, 9)).astype(np.float32)
    v = np.eye(4, dtype=np.float32)
    inputs = np.eye(4, dtype=np.float32)
    np.testing.assert_allclose(one(u, v, inputs, 0.5), u, atol=1e-5)


def test_the_second_of_two_equal_components_makes_up_for_the_first() -> None:
    """Both see the same input, so only their sum counts: the second is asked for what the first was rounded by."""
    u = np.array([[0.3], [0.4]], np.float32)
    v = np.array([[1.0], [1.0]], np.float32)
    targets = one(u, v, np.ones((8, 1), np.float32), 1.0)
    first = float(np.rint(targets[0, 0]))
    # The fit of two equal components is not unique; whatever it is, the targets sum to what is meant and missing.
    assert first + targets[1, 0] == pytest.approx(0.7, abs=1e-3)


def test_u_is_fitted_to_the_rounded_v() -> None:
    """v has one component, rounded to half its size: u is doubled."""
    v, u = np.array([[0.7]], np.float32), np.array([[1.0, -2.0]], np.float32)
    one_step = np.array([step_index(np.array(1.0))])
    tiny = np.array([step_index(np.array(2.0**-20))])
    held = np.zeros((1, 1), np.float32)
    rounding = Rounding(u, v, np.zeros_like(u), held, tiny, one_step, np.ones((4, 1), np.float32))
    np.testing.assert_allclose(compensate([rounding])[0], 0.7 * u, rtol=1e-5)


def test_components_that_were_never_trained_stay_zero_and_are_sent() -> None:
    """As after a first round of one step, in which the last block of prefixes was not drawn."""
    found, factors = curvature(MODEL), ROUNDS[0]
    half = MODEL.prefixes[-1] // 2
    factors = Factors(MODEL, tuple(u * (np.arange(u.shape[1]) < half) for u in factors.u), factors.v, factors.head)
    count = len(MODEL.projections)
    allocation = Allocation(MODEL.r_max, np.full(count, 4), 4 * bool(MODEL.head), float("inf"))
    got = deliver(blank_edge(MODEL), encode(factors, blank_edge(MODEL), allocation, 0, None, found)).factors()
    assert not any(u[:, half:].any() for u in got.u)
    assert output_error(factors, got, found) < 0.05


def test_rounding_is_that_of_the_format() -> None:
    """Whole steps from what is held, or from zero where that is nearer; a negative step leaves what is held."""
    held = np.array([[10.0, 10.0], [10.0, 10.0], [1.5, 2.5]], np.float32)
    target = np.array([[10.4, 9.4], [0.4, 1.2], [7.0, 7.0]], np.float32)
    index = int(step_index(np.array(1.0)))
    assert GRID[index] == 1
    got = rounded(target, held, np.array([index, index, -1]))
    assert got.tolist() == [[10.0, 9.0], [0.0, 1.0], [1.5, 2.5]]


@pytest.mark.parametrize(("bits", "growth"), [(2, 1.25), (3, 1.1), (4, 1.04)])
def test_outputs_are_nearer_for_few_bytes(bits: int, growth: float) -> None:
    """Inputs of few directions: an error below a third, for corrections that make u a little larger."""
    found = curvature(MODEL)
    allocation = uniform(MODEL, 16, bits, 4)
    blind = Curvature(MODEL, found.gradient_u, found.gradient_v, tuple(x[:0] for x in found.inputs))
    sizes, errors = [], []
    for given in (blind, found):
        update = encode(ROUNDS[0], blank_edge(MODEL), allocation, 0, None, given)
        sizes.append(update.size_bytes)
        errors.append(output_error(ROUNDS[0], deliver(blank_edge(MODEL), update).factors(), found))
    assert errors[1] < errors[0] / 3
    assert sizes[1] < growth * sizes[0]


def test_steps_are_inverse_to_the_gradients() -> None:
    """g · step² is the same for all components sent, and the steps' factors have a geometric mean of 1."""
    rng = np.random.default_rng(1)
    rms = [np.exp2(rng.normal(0, 0.2, (3, 4))) for _ in range(2)]
    gradient = [np.exp2(rng.normal(0, 0.4, (3, 4))) for _ in range(2)]
    numbers = [np.array([5, 7, 9]), np.array([4, 6, 8])]
    factors = weighted_steps(rms, gradient, numbers)
    for rank in (1, 2, 4):
        felt = [(g * (r * f[:, rank - 1]) ** 2)[:, :rank] for g, r, f in zip(gradient, rms, factors, strict=True)]
        np.testing.assert_allclose(np.stack(felt), felt[0][0, 0], rtol=1e-9)
        logs = [(np.log(f[:, rank - 1, :rank]) * n[:, None]).sum() for f, n in zip(factors, numbers, strict=True)]
        assert sum(logs) == pytest.approx(0, abs=1e-9)


def test_unknown_gradients_and_components_that_are_not_sent_have_the_nominal_step() -> None:
    rms, gradient = np.array([[1.0, 2.0, 0.0]]), np.array([[4.0, 0.0, 1.0]])
    u, v = weighted_steps((rms, rms), (gradient, gradient), (np.array([2]), np.array([2])))
    assert (u == 1).all()
    assert (v == 1).all()


def test_encoding_with_curvature_is_pure_and_any_edge_can_follow() -> None:
    found = curvature(MODEL)
    before = [array.copy() for array in (*ROUNDS[1].u, *ROUNDS[1].v, *found.inputs)]
    edge = deliver(blank_edge(MODEL), encode(ROUNDS[0], blank_edge(MODEL), uniform(MODEL, 8, 3, 3), 0, None, found))
    first, second = (encode(ROUNDS[1], edge, uniform(MODEL, 16, 3, 3), 1, None, found) for _ in range(2))
    assert first == second
    assert all((a == b).all() for a, b in zip(before, (*ROUNDS[1].u, *ROUNDS[1].v, *found.inputs), strict=True))
    after = deliver(edge, first)
    assert (after.active_ranks == MODEL.r_max).all()
    assert not same_arrays(after, edge)


def test_an_exact_update_is_the_float16_rounding_whatever_the_curvature() -> None:
    edge = deliver(
        blank_edge(MODEL), encode(ROUNDS[0], blank_edge(MODEL), uniform(MODEL, 16, 16, 16), 0, None, curvature(MODEL))
    )
    for got, wanted in zip((*edge.u, *edge.v), (*ROUNDS[0].u, *ROUNDS[0].v), strict=True):
        assert (got == wanted.astype(np.float16).astype(np.float32)).all()


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_estimated_costs_follow_the_weighted_steps(bits: int) -> None:
    found = curvature(MODEL)
    found = Curvature(MODEL, found.gradient_u, found.gradient_v, tuple(x[:0] for x in found.inputs))
    allocation = uniform(MODEL, 16, bits, bits)
    size = encode(ROUNDS[0], blank_edge(MODEL), allocation, 0, None, found).size_bytes
    assert Costs.measure(ROUNDS[0], blank_edge(MODEL), found).update_bytes(allocation) == pytest.approx(size, rel=0.06)


def test_a_projection_without_a_sample_is_rounded_as_it_is() -> None:
    u = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    v = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    assert (one(u, v, np.zeros((0, 4), np.float32), 0.5) == u).all()
    assert (one(u, v, np.zeros((7, 4), np.float32), 0.5) == u).all()


def test_curvature_of_another_schema_is_refused() -> None:
    with pytest.raises(CompatibilityError, match="curvature of schema"):
        encode(ROUNDS[0], blank_edge(MODEL), uniform(MODEL, 1, 4, 4), 0, None, curvature(SCHEMA))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gradient_u": -np.ones((3, 6), np.float32)}, "not negative"),
        ({"gradient_v": np.full((3, 6), np.nan, np.float32)}, "finite"),
        ({"gradient_u": np.ones((2, 6), np.float32)}, "must be"),
        ({"inputs": ()}, "samples, d_in"),
        ({"inputs": tuple(np.full((1, p.d_in), np.inf, np.float32) for p in SCHEMA.projections)}, "infinity"),
    ],
)
def test_curvature_is_checked(change: dict[str, object], message: str) -> None:
    good = curvature(SCHEMA)
    values = {name: getattr(good, name) for name in ("schema", "gradient_u", "gradient_v", "inputs")}
    with pytest.raises(ValueError, match=message):
        Curvature(**{**values, **change})


@pytest.mark.parametrize("scale_u", [1e-38, 1e-20, 1.0, 1e5])
@pytest.mark.parametrize("scale_v", [1e-38, 1e-20, 1.0, 1e5])
def test_extreme_factors_are_sent_like_any_others(scale_u: float, scale_v: float) -> None:
    """Denormals, large numbers, and one component of v that is zero."""
    u = tuple((a * scale_u).astype(np.float32) for a in ROUNDS[0].u)
    v = tuple((a * scale_v * (np.arange(len(a)) != 2)[:, None]).astype(np.float32) for a in ROUNDS[0].v)
    factors = Factors(MODEL, u, v, ROUNDS[0].head)
    update = encode(factors, blank_edge(MODEL), uniform(MODEL, 16, 4, 4), 0, None, curvature(MODEL))
    got = deliver(blank_edge(MODEL), update).factors()
    assert all(np.isfinite(array).all() for array in (*got.u, *got.v))
