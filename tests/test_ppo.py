"""PPO's wiring: bootstrapping at a time limit by hand, squashing, a task to learn, determinism, divergence."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from airlora.errors import InputError, TrainingError
from airlora.policy.networks import Actor
from airlora.policy.ppo import LATENT_LIMIT, PpoLearner, Squash
from airlora.policy.settings import PpoSettings


class Target(gymnasium.Env):
    """Reward −‖action − target‖²; the observation is noise. Cut after ``steps`` steps, or ended there."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, steps: int = 5, terminates: bool = False, reward: float | None = None):
        self.length, self.terminates, self.fixed = steps, terminates, reward
        self.count = self.done = 0
        self.actions: list[np.ndarray] = []

    def _observation(self) -> np.ndarray:
        return np.random.default_rng(self.count).random(3, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.done = 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.actions.append(action)
        self.count += 1
        self.done += 1
        reward = -float(((action - [0.5, -0.5]) ** 2).sum()) if self.fixed is None else self.fixed
        over = self.done == self.length
        return self._observation(), reward, over and self.terminates, over and not self.terminates, {}


FROZEN = PpoSettings(width=16, lr=0.0, rollout_episodes=2, gamma=0.9, gae_lambda=0.8)


def advantages_by_hand(learner: PpoLearner, bootstrap: bool) -> np.ndarray:
    """GAE of two episodes of three steps, reward 1, from the critic's values of the observations."""
    policy = learner.algorithm.policy
    states = np.stack([np.random.default_rng(count).random(3, np.float32) for count in range(7)])
    with torch.no_grad():
        values = policy.predict_values(torch.from_numpy(states))[:, 0].numpy()
    advantages = np.zeros(6)
    for first in (0, 3):
        carried = 0.0
        for step in (2, 1, 0):
            t = first + step
            next_value = values[t + 1] if step < 2 or bootstrap else 0.0
            delta = 1.0 + 0.9 * next_value - values[t]
            carried = delta + 0.9 * 0.8 * carried
            advantages[t] = carried
    return advantages


@pytest.mark.parametrize("terminates", [False, True])
def test_a_time_limit_bootstraps_and_an_end_does_not(terminates: bool) -> None:
    learner = PpoLearner(Target(3, terminates, reward=1.0), FROZEN, episode_steps=3, seed=0)
    learner.learn(1)
    found = learner.algorithm.rollout_buffer.advantages
    assert np.abs(found[:, 0] - advantages_by_hand(learner, bootstrap=not terminates)).max() < 1e-5
    assert np.abs(found[:, 0] - advantages_by_hand(learner, bootstrap=terminates)).max() > 1e-3


def test_the_environment_sees_the_squashed_sample_and_ppo_the_one_before() -> None:
    env = Target(4)
    learner = PpoLearner(env, PpoSettings(width=16), episode_steps=4, seed=0)
    learner.learn(1)
    samples = learner.algorithm.rollout_buffer.actions.reshape(4, 2)
    assert np.allclose(np.stack(env.actions), np.tanh(samples))
    with torch.no_grad():
        log_std = torch.full((2,), -0.5)
        first = torch.from_numpy(np.random.default_rng(0).random((1, 3), np.float32))
        mean = PpoLearner(Target(4), PpoSettings(width=16), episode_steps=4, seed=0).algorithm.policy
        expected = torch.distributions.Normal(mean.get_distribution(first).distribution.mean[0], log_std.exp())
        density = expected.log_prob(torch.from_numpy(samples[0])).sum()
    assert float(learner.algorithm.rollout_buffer.log_probs[0, 0]) == pytest.approx(float(density), abs=1e-5)


def test_clipping_to_the_latent_s_bounds_changes_no_decision() -> None:
    squash = Squash(Target())
    assert squash.action(np.array([LATENT_LIMIT, -LATENT_LIMIT])).tolist() == [1.0, -1.0]
    assert squash.action_space.high.tolist() == [LATENT_LIMIT] * 2


def test_ppo_learns_a_trivial_task() -> None:
    learner = PpoLearner(Target(8), PpoSettings(width=32, lr=3e-3, rollout_episodes=8), episode_steps=8, seed=0)
    for seed in range(40):
        metrics = learner.learn(seed)
    actor = Actor(3, 32, 2)
    actor.load_state_dict(learner.actor_state())
    states = torch.rand(32, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        error = (actor(states) - torch.tensor([0.5, -0.5])).abs().mean()
        policy = torch.tanh(learner.algorithm.policy.get_distribution(states).distribution.mean)
    assert float(error) < 0.25  # 0.5 at the start
    assert torch.allclose(actor(states), policy)
    assert metrics["entropy"] < 1.84  # that of two Gaussians of log-std −0.5


def test_hyperparameters_reach_the_algorithm() -> None:
    learner = PpoLearner(Target(15), PpoSettings(), episode_steps=15, seed=0)
    algorithm = learner.algorithm
    assert (algorithm.gamma, algorithm.gae_lambda, algorithm.n_epochs) == (0.95, 0.95, 4)
    assert (algorithm.n_steps, algorithm.batch_size) == (15, 15)  # one roll-out, one batch
    assert (algorithm.ent_coef, algorithm.vf_coef, algorithm.max_grad_norm) == (0.01, 0.5, 1.0)
    assert algorithm.policy.log_std.tolist() == [-0.5, -0.5]
    kinds = [type(layer).__name__ for layer in learner.algorithm.policy.features_extractor.encoder]  # type: ignore[union-attr, arg-type]
    assert kinds == ["Linear", "LayerNorm", "Mish", "Linear", "Mish"]


@pytest.mark.parametrize(("episodes", "batch"), [(1, 15), (4, 60), (5, 25), (20, 60)])
def test_no_minibatch_is_cut_off(episodes: int, batch: int) -> None:
    learner = PpoLearner(Target(15), PpoSettings(width=8, rollout_episodes=episodes), episode_steps=15, seed=0)
    assert learner.algorithm.batch_size == batch
    assert learner.algorithm.n_steps % batch == 0


@pytest.mark.parametrize("normalise", [False, True])
def test_equal_seeds_give_equal_learners_and_a_restored_one_goes_on_alike(normalise: bool) -> None:
    settings = PpoSettings(width=8, normalise_rewards=normalise)

    def learner() -> PpoLearner:
        return PpoLearner(Target(5, reward=None), settings, episode_steps=5, seed=3)

    first, second, third = learner(), learner(), PpoLearner(Target(5), settings, 5, seed=4)
    assert first.learn(1) == second.learn(1)
    third.load_state(first.state())
    third.algorithm.get_env().envs[0].unwrapped.count = 5  # type: ignore[union-attr]
    assert first.learn(2) == third.learn(2)
    for ours, theirs in zip(first.state().values(), third.state().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_normalised_rewards_are_as_large_as_the_returns_differ_whatever_their_unit() -> None:
    class Scaled(gymnasium.RewardWrapper):
        def reward(self, reward: Any) -> float:
            return 1000.0 * float(reward)

    settings = PpoSettings(width=8, normalise_rewards=True)
    learners = [PpoLearner(env, settings, episode_steps=5, seed=3) for env in (Target(5), Scaled(Target(5)))]
    for seed in range(3):
        for learner in learners:
            learner.learn(seed)
    ours, theirs = (learner.algorithm.rollout_buffer.rewards for learner in learners)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)


def test_equal_rewards_are_no_division_by_zero() -> None:
    learner = PpoLearner(Target(5, reward=-1.0), PpoSettings(width=8), episode_steps=5, seed=0)
    metrics = [learner.learn(seed) for seed in range(3)][-1]
    assert all(np.isfinite(metrics[name]) for name in ("approx_kl", "clip_fraction", "value_loss", "entropy"))


def test_a_reward_that_is_not_a_number_is_a_clear_error() -> None:
    learner = PpoLearner(Target(5, reward=float("nan")), PpoSettings(width=8), episode_steps=5, seed=0)
    with pytest.raises(TrainingError, match=r"PPO diverged.*lower lr"):
        learner.learn(0)


@pytest.mark.parametrize(("key", "value"), [("gamma", 1.2), ("batch_size", 1), ("width", 0), ("max_grad_norm", 0.0)])
def test_impossible_settings_are_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(InputError, match=key):
        PpoSettings(**{key: value})  # type: ignore[arg-type]
