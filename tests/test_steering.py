"""Nested training steered by what the edge holds."""

from dataclasses import replace

import numpy as np
import pytest

from airlora.adapter import SteeredStrategy
from airlora.config import RunConfig
from airlora.errors import InputError
from airlora.job import Job, build_job
from airlora.link import make_link
from airlora.play import Play, Quality
from airlora.policy import make_policy
from airlora.trajectory import LiveCloud

CONFIG = RunConfig(
    data="builtin:vehicle-commands,train=200,validation=64,test=64",
    rounds=2,
    steps_per_round=4,
    batch_size=4,
    validation_limit=64,
    max_rank=4,
    lr=3e-3,
    policy="fit:steer=0.75",
)


def built(config: RunConfig) -> Job:
    return build_job(config, make_policy(config.policy, 0), make_link(config.link, 0))


def ranks_trained(job: Job, active: np.ndarray, steps: int) -> list[list[list[int]]]:
    """Ranks of every pass of every step."""
    seen: list[list[list[int]]] = []
    workload, strategy = job.trainer.workload, job.trainer.strategy
    strategy.begin_round(job.initial_edge.stored_factors(), active)

    class Spy:
        def loss(self, batch):
            seen[-1].append(job.adapter.ranks.tolist())
            return workload.loss(batch)

    for step in range(steps):
        seen.append([])
        strategy.backward(Spy(), job.adapter, workload.batch(step), step)  # type: ignore[arg-type]
        assert (job.adapter.ranks >= np.array(seen[-1]).max(axis=0)).all()  # what has a gradient is moved
    return seen


def test_the_ranks_of_the_edge_are_trained_in_every_step_and_every_prefix_in_turn() -> None:
    job = built(CONFIG)
    assert isinstance(job.trainer.strategy, SteeredStrategy)
    active = np.arange(len(job.adapter.schema.projections)) % 4 + 1
    passes = ranks_trained(job, active, 12)
    assert all(step[0] == active.tolist() and len(step) == 2 for step in passes)
    assert {step[1][0] for step in passes} == set(job.adapter.schema.prefixes)


def test_a_weight_of_one_trains_nothing_else() -> None:
    job = built(replace(CONFIG, policy="fit:steer=1"))
    active = np.full(len(job.adapter.schema.projections), 2)
    assert all(step == [active.tolist()] for step in ranks_trained(job, active, 3))


def test_before_anything_arrived_the_mixture_is_trained() -> None:
    steered, plain = built(CONFIG), built(replace(CONFIG, policy="fit"))
    nothing = np.zeros(len(plain.adapter.schema.projections), np.int64)
    for job in (steered, plain):
        job.trainer.strategy.begin_round(job.initial_edge.stored_factors(), nothing)
        job.trainer.train(0, 4, lambda *_: None)
    for a, b in zip(steered.trainer.factors().u, plain.trainer.factors().u, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_edge_of_a_run_reaches_the_training() -> None:
    job = built(CONFIG)
    policy, link = make_policy(CONFIG.policy, 0), make_link("awgn:snr_db=60,bandwidth_hz=1e9", 0)
    quality = Quality(job, 64)
    play = Play(CONFIG, job, link, policy, LiveCloud(job.trainer, 4, quality.of), quality)
    seen = []
    begin = job.trainer.strategy.begin_round
    job.trainer.strategy.begin_round = lambda held, active, _: (seen.append(active), begin(held, active))[-1]  # type: ignore[method-assign]
    edges = []
    for _ in range(2):
        edges.append(play.edge.active_ranks)
        play.next_round(lambda: None)
    for a, b in zip(seen, edges, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_steered_training_is_live_and_has_a_recording_of_its_own() -> None:
    steered, plain = make_policy("fit:steer=0.75", 0), make_policy("fit", 0)
    assert steered.live
    assert not plain.live
    assert steered.tuning_key == plain.tuning_key == plain.training_key == "nested"
    assert steered.training_key != plain.training_key
    assert make_policy("airllm:steer=0.5", 0).live


@pytest.mark.parametrize("spec", ["fit:steer=1.5", "fit:steer=-1", "airllm:steer=2"])
def test_a_weight_is_checked(spec: str) -> None:
    with pytest.raises(InputError, match="steer"):
        make_policy(spec, 0)
