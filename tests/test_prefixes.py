"""Real jobs: no prefix of any update leaves the edge worse than it was before the update, beyond the stated bound."""

from pathlib import Path

import pytest

from airlora.config import RunConfig
from airlora.job import build_job
from airlora.link import make_link
from airlora.play import Play, Quality
from airlora.policy import make_policy
from airlora.trajectory import LiveCloud

LINK = "fading:snr_db=6,bandwidth_hz=4e4,doppler_hz=0.2"  # from round to round a few hundred bytes to some 20 kB

pytestmark = pytest.mark.slow


def worst_fall(config: RunConfig) -> tuple[float, int, float]:
    """Over all prefixes of all updates: the largest fall of quality below the state before the update, in points or
    nats; the layers looked at; and the gain at the end."""
    policy, link = make_policy(config.policy, config.seed), make_link(config.link, config.seed)
    job = build_job(config, policy, link)
    quality = Quality(job, config.validation_limit)
    play = Play(config, job, link, policy, LiveCloud(job.trainer, config.steps_per_round, quality.of), quality)
    play.base_quality = quality.of_edge(play.edge)
    sign = 1 if job.workload.higher_is_better else -1
    worst, layers = 0.0, 0
    for _ in range(config.rounds):
        edge = play.edge
        before = quality.of_edge(edge)
        _, update = play.next_round(lambda: None)
        for layer in update.layers:
            edge = edge.apply(layer)
            worst = max(worst, sign * (before - quality.of_edge(edge)))
            layers += 1
    return worst, layers, sign * (quality.of_edge(play.edge) - play.base_quality)


@pytest.mark.parametrize("policy", ["fit", "fixed:rank=8,bits=3"])
def test_language_modelling_never_falls_by_more_than_two_hundredths_of_a_nat(shared: Path, policy: str) -> None:
    config = RunConfig(
        model=str(shared / "models/stories260K"),
        data=str(shared / "data/tinyshakespeare.txt"),
        link=LINK,
        policy=policy,
        rounds=6,
        steps_per_round=8,
        batch_size=8,
        max_rank=16,
        validation_limit=64,
    )
    worst, layers, gain = worst_fall(config)
    assert layers > 25
    assert gain > 0.8
    assert worst <= 0.02


@pytest.mark.parametrize("policy", ["fit", "fixed:rank=4,bits=3"])
def test_classification_never_falls_by_more_than_a_point(policy: str) -> None:
    config = RunConfig(link=LINK, policy=policy, rounds=6, steps_per_round=12, validation_limit=512)
    worst, layers, gain = worst_fall(config)
    assert layers > 25
    assert gain > 0.1
    assert worst <= 0.01 + 1e-9
