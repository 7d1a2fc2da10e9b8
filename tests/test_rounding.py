"""Training on rounded values: what is trained is what the encoder sends, to the bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import airlora.run
from airlora.codec import Allocation, EdgeState, encode
from airlora.codec.steps import GRID
from airlora.config import RunConfig
from airlora.errors import InputError
from airlora.job import Job, build_job
from airlora.link import make_link
from airlora.play import Play, Quality
from airlora.policy import make_policy
from airlora.trajectory import CloudRound, LiveCloud, RecordedCloud, record_round

CONFIG = RunConfig(
    data="builtin:vehicle-commands,train=200,validation=64,test=64",
    rounds=1,
    steps_per_round=10,
    batch_size=4,
    validation_limit=64,
    max_rank=4,
    lr=3e-3,
    policy="fixed:rank=2,bits=2,rounding=0.5",
)


def cloud_of(config: RunConfig) -> tuple[Job, LiveCloud]:
    policy, link = make_policy(config.policy, 0), make_link(config.link, 0)
    job = build_job(config, policy, link)
    return job, LiveCloud(job.trainer, config.steps_per_round, lambda factors: 0.0)


def send(now: CloudRound, edge: EdgeState, bits: int, round_index: int) -> EdgeState:
    schema = edge.schema
    whole = Allocation(schema.r_max, np.full(len(schema.projections), bits), bits, float("inf"))
    for layer in encode(now.factors, edge, whole, round_index, curvature=now.curvature).layers:
        edge = edge.apply(layer)
    return edge


def same(edge: EdgeState, now: CloudRound) -> None:
    got = edge.factors()
    for ours, theirs in ((got.u, now.factors.u), (got.v, now.factors.v)):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    for name, tensor in got.head.items():
        np.testing.assert_allclose(tensor, now.factors.head[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bits", [2, 3])
def test_the_edge_gets_exactly_the_values_that_were_trained(bits: int) -> None:
    job, cloud = cloud_of(replace(CONFIG, policy=f"fixed:rank=2,bits={bits},rounding=0.5"))
    now = cloud.advance(0, job.initial_edge, lambda: None)
    assert now.curvature is not None
    assert now.curvature.steps is not None
    edge = send(now, job.initial_edge, bits, 0)
    same(edge, now)
    steps = now.curvature.steps
    assert np.isin(steps.u, GRID).all()
    assert (steps.u > 0).all()
    for index, u in enumerate(edge.u):
        whole = u.T / steps.u[index][:, None]
        np.testing.assert_allclose(whole, np.rint(whole), atol=1e-3)


def test_later_rounds_are_rounded_from_what_the_edge_holds() -> None:
    job, cloud = cloud_of(replace(CONFIG, rounds=2, policy="fixed:rank=2,bits=3,rounding=0.3"))
    first = cloud.advance(0, job.initial_edge, lambda: None)
    assert first.curvature is not None
    assert first.curvature.steps is None  # rounding begins in the last round
    edge = send(first, job.initial_edge, 3, 0)
    second = cloud.advance(1, edge, lambda: None)
    assert second.curvature is not None
    assert second.curvature.steps is not None
    same(send(second, edge, 3, 1), second)


def test_without_rounding_a_training_is_as_it_was() -> None:
    """The first half of the steps is the same, whatever the second half will do."""
    plain, cloud = cloud_of(replace(CONFIG, policy="fixed:rank=2,bits=2", steps_per_round=5))
    cloud.advance(0, plain.initial_edge, lambda: None)
    rounded, _ = cloud_of(CONFIG)
    rounded.trainer.strategy.begin_round(rounded.initial_edge.stored_factors(), rounded.initial_edge.active_ranks)
    rounded.trainer.train(0, 5, lambda *_: None)
    for a, b in zip(plain.trainer.factors().u, rounded.trainer.factors().u, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_recording_keeps_the_steps(tmp_path) -> None:
    job, cloud = cloud_of(CONFIG)
    now = cloud.advance(0, job.initial_edge, lambda: None)
    record_round(tmp_path, 0, now)
    again = RecordedCloud(tmp_path, job.adapter.schema).advance(0, job.initial_edge, lambda: None)
    assert again.curvature is not None
    same(send(again, job.initial_edge, 2, 0), now)


def test_a_checkpoint_at_the_end_still_sends_what_was_trained() -> None:
    job, cloud = cloud_of(CONFIG)
    now = cloud.advance(0, job.initial_edge, lambda: None)
    other, _ = cloud_of(CONFIG)
    other.trainer.load_state({name: value.clone() for name, value in job.trainer.state().items()})
    for a, b in zip(now.factors.v, other.trainer.factors().v, strict=True):
        np.testing.assert_array_equal(a, b)
    assert other.trainer.strategy.steps is not None


def test_iterates_are_kept_when_a_step_fails() -> None:
    """Rounded values stand in for the iterates only while gradients are computed."""
    job, _ = cloud_of(replace(CONFIG, steps_per_round=2, policy="fixed:rank=2,bits=2,rounding=1"))
    strategy = job.trainer.strategy
    strategy.begin_round(job.initial_edge.stored_factors(), job.initial_edge.active_ranks)
    job.trainer.train(0, 1, lambda *_: None)
    before = [layer.left.detach().clone() for layer in job.adapter.layers.values()]

    class Broken:
        def loss(self, batch):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        strategy.backward(Broken(), job.adapter, job.workload.batch(1), 1)  # type: ignore[arg-type]
    for value, layer in zip(before, job.adapter.layers.values(), strict=True):
        assert torch.equal(value, layer.left)


def test_a_run_trains_rounded_at_its_end_and_delivers(tmp_path) -> None:
    summary = airlora.run.run(replace(CONFIG, rounds=2, lr=1e-2), tmp_path / "a")
    assert summary["delivered"]


def test_rounding_is_a_training_of_its_own_at_the_rate_of_its_rank() -> None:
    assert make_policy("fixed:rank=2,bits=2,rounding=0.3", 0).live
    assert not make_policy("fixed:rank=2,bits=2", 0).live
    plain, rounded = (make_policy(f"fixed:rank=2,bits=2{more}", 0) for more in ("", ",rounding=0.3"))
    assert plain.training_key != rounded.training_key
    assert plain.tuning_key == rounded.tuning_key == "fixed-2"


def test_a_share_of_steps_is_checked() -> None:
    with pytest.raises(InputError, match="rounding"):
        make_policy("fixed:rank=2,rounding=1.5", 0)


def test_play_hands_the_edge_to_the_cloud() -> None:
    # A cloud that ends a round worse than the edge sends nothing, and would say nothing here.
    config = replace(CONFIG, rounds=2, steps_per_round=12, policy="fixed:rank=2,bits=3,rounding=0.5")
    policy, link = make_policy(config.policy, 0), make_link("awgn:snr_db=60,bandwidth_hz=1e9", 0)
    job = build_job(config, policy, link)
    quality = Quality(job, 64)
    play = Play(config, job, link, policy, LiveCloud(job.trainer, 12, quality.of), quality)
    rows = [play.next_round(lambda: None)[0] for _ in range(2)]
    assert all(row["layers_offered"] for row in rows)
    assert rows[-1]["edge_quality"] == rows[-1]["cloud_quality"]


def test_steps_of_another_shape_are_refused() -> None:
    job, cloud = cloud_of(CONFIG)
    found = cloud.advance(0, job.initial_edge, lambda: None).curvature
    assert found is not None
    assert found.steps is not None
    with pytest.raises(ValueError, match="steps"):
        replace(found, steps=replace(found.steps, head=found.steps.head[:0]))
