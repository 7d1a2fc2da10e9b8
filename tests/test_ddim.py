"""The DDIM: against diffusers, against closed forms, on a toy, and what decoding does to self-imitation."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from airlora.errors import InputError, TrainingError
from airlora.policy.ddim import (
    DdimLearner,
    Denoiser,
    add_noise,
    alpha_bars,
    guided_noise,
    reward_weights,
    sample,
    step_back,
    time_embedding,
    training_loss,
)
from airlora.policy.decode import RankDecoder
from airlora.policy.replay import Replay
from airlora.policy.settings import DdimSettings

DEFAULT = DdimSettings()
SMALL = DdimSettings(train_steps=100, sample_steps=20, width=64, time_dim=16, lr=2e-3, batch_size=64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_denoiser(seed: int = 0, size: int = 5, condition: int = 3) -> Denoiser:
    return DdimLearner(size, condition, SMALL, seed).denoiser.requires_grad_(False)


# the schedule


def test_the_schedule_is_linear_in_the_root_of_beta() -> None:
    betas = 1 - torch.exp(torch.diff(torch.log(alpha_bars(DEFAULT).double()), prepend=torch.zeros(1)))
    steps = torch.diff(betas.sqrt())
    assert betas[0] == pytest.approx(1e-4, rel=1e-2)
    assert betas[-1] == pytest.approx(2e-2, rel=1e-3)
    assert torch.allclose(steps, steps.mean(), rtol=0.05)


@pytest.mark.filterwarnings("ignore")
def test_schedule_and_sampler_agree_with_diffusers() -> None:
    schedulers = pytest.importorskip("diffusers.schedulers.scheduling_ddim", reason="the oracle is not installed")
    oracle = schedulers.DDIMScheduler(
        num_train_timesteps=1000, beta_start=1e-4, beta_end=2e-2, beta_schedule="scaled_linear", clip_sample=True
    )
    assert torch.allclose(oracle.alphas_cumprod, alpha_bars(DEFAULT), rtol=1e-4, atol=1e-7)
    oracle.set_timesteps(50)
    denoiser = DdimLearner(7, 3, DEFAULT, 0).denoiser.requires_grad_(False)
    condition, noise = torch.randn(4, 3, generator=generator(1)), torch.randn(4, 7, generator=generator(2))
    x = noise
    for t in oracle.timesteps:
        predicted = guided_noise(denoiser, x, torch.full((4,), int(t)), condition, 1.5)
        x = oracle.step(predicted, int(t), x, eta=0.0, use_clipped_model_output=True).prev_sample
    assert (sample(denoiser, DEFAULT, condition, noise) - x).abs().max() <= 1e-4


# closed forms


def test_one_step_back_with_the_true_noise_inverts_the_forward_process() -> None:
    x0, noise = torch.rand(6, 5, generator=generator(0)) * 2 - 1, torch.randn(6, 5, generator=generator(1))
    levels = alpha_bars(DEFAULT)
    for t in (0, 10, 300, 999):
        x = add_noise(x0, noise, levels[t])
        assert torch.allclose(step_back(x, noise, levels[t], torch.ones(())), x0, atol=1e-4)
        assert torch.allclose(
            step_back(x, noise, levels[t], levels[t // 2]), add_noise(x0, noise, levels[t // 2]), atol=1e-4
        )


def test_the_sampler_finds_the_only_point_there_is() -> None:
    """The optimal denoiser of a data set of one point is (x_t − √ᾱ x0) / √(1 − ᾱ)."""
    point, levels = torch.tensor([[0.5, -0.25, 1.0]]), alpha_bars(DEFAULT)

    def optimal(x: torch.Tensor, step: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        level = levels[step, None]
        return (x - level.sqrt() * point) / (1 - level).sqrt()

    found = sample(optimal, DEFAULT, torch.zeros(8, 1), torch.randn(8, 3, generator=generator()))
    assert torch.allclose(found, point.expand(8, 3), atol=1e-4)


@pytest.mark.parametrize("weight", [0.0, 1.0, 1.5])
def test_guidance_interpolates_between_the_unconditional_and_the_conditional(weight: float) -> None:
    denoiser = small_denoiser()
    x, step, condition = torch.randn(4, 5, generator=generator()), torch.arange(4), torch.ones(4, 3)
    conditional, unconditional = denoiser(x, step, condition), denoiser(x, step, torch.zeros(4, 3))
    expected = weight * conditional + (1 - weight) * unconditional
    assert not torch.allclose(conditional, unconditional)
    assert torch.allclose(guided_noise(denoiser, x, step, condition, weight), expected, atol=1e-5)


def test_the_sample_is_a_function_of_the_noise_and_stays_in_its_range() -> None:
    denoiser, condition = small_denoiser(), torch.randn(16, 3, generator=generator(1))
    noise = torch.randn(16, 5, generator=generator(2))
    first = sample(denoiser, SMALL, condition, noise)
    assert torch.equal(first, sample(denoiser, SMALL, condition, noise))
    assert not torch.equal(first, sample(denoiser, SMALL, condition, -noise))
    assert first.abs().max() <= 1


def test_without_noise_the_condition_alone_decides() -> None:
    denoiser, quiet = Denoiser(4, 2, SMALL), replace(SMALL, noise_scale=0.0)
    condition, noise = torch.randn(3, 2, generator=generator()), torch.randn(3, 4, generator=generator())
    assert torch.equal(sample(denoiser, quiet, condition, noise), sample(denoiser, SMALL, condition, 0 * noise))


def test_a_time_embedding_tells_all_steps_apart() -> None:
    embedded = time_embedding(torch.arange(1000), 64)
    assert embedded.shape == (1000, 64)
    assert torch.pdist(embedded).min() > 1e-2
    assert torch.allclose(embedded[0], torch.cat([torch.zeros(32), torch.ones(32)]))


# training


def test_reward_weights_are_the_paper_s() -> None:
    weights = reward_weights(torch.tensor([-1.0, 0.0, 1.0]), 0.1)
    z = math.sqrt(1.5)
    assert torch.allclose(weights, torch.tensor([1 - 0.1 * z, 1.0, 1 + 0.1 * z]))
    strong = reward_weights(torch.tensor([0.0] * 400 + [1.0]), 5.0)
    assert strong.max() == 10
    assert reward_weights(torch.tensor([0.0] + [1.0] * 400), 5.0).min() == pytest.approx(0.1)


@given(reward=st.floats(-1e6, 1e6), count=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_equal_rewards_and_a_single_transition_weigh_one(reward: float, count: int) -> None:
    assert reward_weights(torch.full((count,), reward), 0.1).tolist() == [1.0] * count


def test_the_condition_is_dropped_as_often_as_asked() -> None:
    seen: list[torch.Tensor] = []

    def spy(x: torch.Tensor, step: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        seen.append(condition)
        return x

    count = 20_000
    training_loss(spy, DEFAULT, torch.zeros(count, 2), torch.ones(count, 3), torch.zeros(count), generator())
    dropped = (seen[0] == 0).all(1).float().mean()
    assert set(seen[0].sum(1).tolist()) == {0.0, 3.0}  # all of a condition or nothing
    assert float(dropped) == pytest.approx(0.1, abs=0.01)


def test_one_transition_can_be_learned() -> None:
    replay = Replay(10, 3, 2)
    replay.add(np.ones(3), np.array([0.5, -0.5]), -1.0)
    condition, x0, rewards = replay.sample(64, generator())
    assert condition.shape == (1, 3)
    learner = DdimLearner(2, 3, SMALL, 0)
    assert math.isfinite(learner.update(x0, condition, rewards, generator()))


def test_a_loss_that_is_not_a_number_is_an_error_and_changes_nothing() -> None:
    learner = DdimLearner(2, 3, SMALL, 0)
    before = [parameter.clone() for parameter in learner.denoiser.parameters()]
    with pytest.raises(TrainingError, match="DDIM diverged: its loss is nan"):
        learner.update(torch.full((4, 2), float("nan")), torch.zeros(4, 3), torch.zeros(4), generator())
    assert all(torch.equal(a, b) for a, b in zip(before, learner.denoiser.parameters(), strict=True))


def test_the_right_rank_vector_is_learned_for_each_condition() -> None:
    """Two conditions, two rank vectors: after training each condition gives its own."""
    decoder = RankDecoder(1, np.full(4, 8), "bins")
    wanted = {1.0: np.array([1, 8, 3, 6]), -1.0: np.array([7, 2, 5, 1])}
    condition = torch.tensor([[sign] for sign in (1.0, -1.0)] * 32)
    x0 = torch.from_numpy(np.stack([decoder.centres(wanted[float(c)]) for c in condition[:, 0]])).float()
    learner, random = DdimLearner(4, 1, SMALL, 0), generator()
    for _ in range(600):
        learner.update(x0, condition, torch.zeros(64), random)
    noise = torch.randn(64, 4, generator=generator(5))
    ranks = decoder.ranks(learner.sample(condition, noise).numpy())
    right = np.stack([wanted[float(c)] for c in condition[:, 0]])
    assert np.abs(ranks - right).mean() < 0.2


def test_reward_weighting_moves_the_mixture_towards_what_paid() -> None:
    """Two decisions under one condition, one paid more: a strong weight draws it more often than the other."""
    strong = DdimSettings(train_steps=100, sample_steps=20, width=64, time_dim=16, lr=2e-3, reward_weight=0.95)
    x0 = torch.tensor([[0.6], [-0.6]]).repeat(32, 1)
    learner, random = DdimLearner(1, 1, strong, 0), generator()
    for _ in range(400):
        learner.update(x0, torch.zeros(64, 1), (x0[:, 0] > 0).float(), random)
    drawn = learner.sample(torch.zeros(400, 1), torch.randn(400, 1, generator=generator(5)))
    assert float((drawn > 0).float().mean()) > 0.65  # in proportion to the weights it would be 0.95, without them 0.5


# replay


def test_the_replay_forgets_the_oldest() -> None:
    replay = Replay(3, 1, 1)
    for value in range(5):
        replay.add(np.array([value]), np.array([value]), value)
    _, _, rewards = replay.sample(10, generator())
    assert len(replay) == 3
    assert sorted(rewards.tolist()) == [2.0, 3.0, 4.0]


@pytest.mark.parametrize("added", [0, 2, 5])
def test_a_restored_replay_goes_on_as_the_original(added: int) -> None:
    replay, copy = Replay(3, 1, 1), Replay(3, 1, 1)
    for value in range(added):
        replay.add(np.array([value]), np.array([value]), value)
    copy.load_state(replay.state())
    for one in (replay, copy):
        one.add(np.array([9.0]), np.array([9.0]), 9.0)
    for ours, theirs in zip(replay.sample(3, generator()), copy.sample(3, generator()), strict=True):
        assert torch.equal(ours, theirs)


# decoding


def test_the_floor_is_the_paper_s_formula() -> None:
    decoder = RankDecoder(1, np.array([8]), "floor")
    x0 = np.linspace(-1, 1, 201)[:, None]
    assert decoder.ranks(x0)[:, 0].tolist() == [1 + math.floor((x + 1) / 2 * 7 + 1e-12) for x in x0[:, 0]]
    assert decoder.ranks(np.array([0.999])).tolist() == [7]  # the largest rank is a single point
    assert decoder.ranks(np.array([1.0])).tolist() == [8]


def test_bins_are_equally_wide() -> None:
    decoder = RankDecoder(1, np.array([8]), "bins")
    x0 = (np.arange(8000) + 0.5) / 4000 - 1
    assert np.bincount(decoder.ranks(x0[:, None])[:, 0]).tolist() == [0] + [1000] * 8


@pytest.mark.parametrize("decoding", ["floor", "bins"])
def test_centres_decode_to_their_rank(decoding: str) -> None:
    decoder = RankDecoder(1, np.array([8, 4, 1]), decoding)  # type: ignore[arg-type]
    for rank in range(1, 9):
        ranks = np.minimum(rank, [8, 4, 1])
        assert decoder.ranks(decoder.centres(ranks)).tolist() == ranks.tolist()


@pytest.mark.parametrize("decoding", ["floor", "bins"])
@given(x0=arrays(np.float32, (3,), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)))
@settings(max_examples=60, deadline=None)
def test_whatever_the_networks_give_is_a_rank(decoding: str, x0: np.ndarray) -> None:
    decoder = RankDecoder(1, np.array([8, 4, 1]), decoding)  # type: ignore[arg-type]
    ranks = decoder.ranks(x0)
    assert ((ranks >= 1) & (ranks <= decoder.r_max)).all()
    assert np.isfinite(decoder.replayed(x0)).all()
    assert (ranks[np.isnan(x0)] == 1).all()


def imitate(decoder: RankDecoder, replay_decoded: bool, generations: int = 7, noise: float = 0.03) -> list[float]:
    """Mean rank of every generation of a perfect imitator of its own decisions, but for a little noise."""
    random = np.random.default_rng(0)
    x0 = decoder.centres(np.full((4000, 1), 4))
    means = []
    for _ in range(generations):
        x0 = x0 + random.normal(0, noise, x0.shape)
        ranks = decoder.ranks(x0)
        means.append(float(ranks.mean()))
        lower_edge = 2 * (ranks - decoder.r_min) / (decoder.r_max - decoder.r_min) - 1
        x0 = lower_edge if replay_decoded else decoder.replayed(x0)
    return means


def test_replaying_floored_ranks_is_a_ratchet_downwards() -> None:
    """Why paper mode replays x0 as it was before the floor."""
    means = imitate(RankDecoder(1, np.array([8]), "floor"), replay_decoded=True)
    assert means[0] == pytest.approx(4.0, abs=0.01)
    assert all(later < earlier for earlier, later in pairwise(means))
    assert means[-1] < 2


@pytest.mark.parametrize("decoding", ["floor", "bins"])
def test_imitating_what_the_replay_keeps_holds_the_mean_rank(decoding: str) -> None:
    means = imitate(RankDecoder(1, np.array([8]), decoding), replay_decoded=False)  # type: ignore[arg-type]
    assert np.abs(np.array(means) - 4).max() < 0.05


# settings


@pytest.mark.parametrize(
    ("key", "value"),
    [("sample_steps", 51), ("condition_dropout", 1.5), ("warmup", 20_000), ("beta_end", 1e-5), ("time_dim", 63)],
)
def test_impossible_settings_are_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(InputError, match=key):
        DdimSettings(**{key: value})  # type: ignore[arg-type]
