"""The agents on a toy, and trained policies as files and as policies of a run."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from airlora.codec import Costs, encode, project
from airlora.codec.files import write_tensors
from airlora.errors import CompatibilityError, SpecError, StoreError
from airlora.factors import HeadTensor, Projection, Schema
from airlora.link import LinkState
from airlora.policy import POLICIES, Observation, make_policy
from airlora.policy.airllm import Agent, AgentKind, Refine
from airlora.policy.checkpoint import POLICY_FILE, PolicyCard, load_policy, save_policy
from airlora.policy.ddim import DdimLearner
from airlora.policy.learned import Decider
from airlora.policy.paper_state import StateScale
from airlora.policy.settings import DdimSettings, PpoSettings
from airlora.workload.text import TextStatistics
from codec_samples import blank_edge, random_factors

COUNT = 4
PPO = PpoSettings(width=16, latent_dim=3, lr=1e-3)
DDIM = DdimSettings(train_steps=100, sample_steps=10, width=32, time_dim=16, warmup=8, batch_size=16, lr=1e-3)
SCHEMA = Schema(
    tuple(Projection(f"block.{index}", 12, 10, 8) for index in range(COUNT)),
    (1, 2, 4, 8),
    (HeadTensor("head", (3, 5)),),
)


class Toy(gymnasium.Env):
    """Reward −mean |action − target|; 5 steps an episode."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (4 + COUNT,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (COUNT,), np.float32)

    def __init__(self) -> None:
        self.count = 0
        self.actions: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        return np.full(4 + COUNT, 0.5, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.actions.append(action)
        self.count += 1
        reward = -float(np.abs(action - 0.5).mean())
        return np.full(4 + COUNT, 0.5, np.float32), reward, False, self.count % 5 == 0, {}


def agent(kind: AgentKind = "airllm", seed: int = 0, env: gymnasium.Env | None = None) -> Agent:
    return Agent(kind, env or Toy(), PPO, DDIM, episode_steps=5, seed=seed)


def card(kind: AgentKind = "airllm", **changes: Any) -> PolicyCard:
    scale = StateScale(-5, 15, 1e6)
    made = PolicyCard(kind, "paper", 1, (8,) * COUNT, "floor", scale, PPO, DDIM, {"model": "toy"})
    return replace(made, **changes)


def stored(folder: Path, kind: AgentKind = "airllm", fill: float | None = None, **changes: Any) -> Path:
    tensors = {name: tensor.numpy().copy() for name, tensor in agent(kind).networks().items()}
    if fill is not None:
        tensors = {name: np.full_like(tensor, fill) for name, tensor in tensors.items()}
    folder.mkdir(exist_ok=True)
    save_policy(folder, card(kind, **changes), tensors)
    return folder


def observe(schema: Schema = SCHEMA, budget_bytes: float = 1e9, snr_db: float = 5.0, **changes: Any) -> Observation:
    count, largest = len(schema.projections), int(schema.r_max.max())
    made = Observation(
        round=0,
        rounds=3,
        link=LinkState(0.0, snr_db, 1e6, 8 * budget_bytes),
        deadline_s=1.0,
        text=TextStatistics(0.9, 0.1, 7.0, 1.0),
        schema=schema,
        trained_ranks=schema.r_max,
        sensitivity=np.ones((count, largest), np.float32),
        energy=np.ones((count, largest), np.float32),
        costs=Costs.nominal(schema),
        held_ranks=np.zeros(count, np.int64),
        since_contact_s=math.inf,
    )
    return replace(made, **changes)


# agents


def test_the_ddim_is_part_of_the_environment_and_frozen_in_a_roll_out() -> None:
    ddim = DdimLearner(COUNT, 3, DDIM, 0)
    before = [parameter.clone() for parameter in ddim.denoiser.parameters()]
    env = Toy()
    refine = Refine(env, ddim, 3)
    refine.reset()
    refine.restart(7)
    latents = np.random.default_rng(0).uniform(-1, 1, (5, 3)).astype(np.float32)
    rewards = [refine.step(latent)[1] for latent in latents]
    assert all(torch.equal(a, b) for a, b in zip(before, ddim.denoiser.parameters(), strict=True))
    noise = torch.Generator().manual_seed(7)
    for latent, action, reward, kept in zip(latents, env.actions, rewards, refine.transitions, strict=True):
        expected = ddim.sample(torch.from_numpy(latent)[None], torch.randn(1, COUNT, generator=noise))[0]
        assert np.array_equal(action, expected.numpy())
        assert np.array_equal(kept[0], latent)
        assert np.array_equal(kept[1], action)
        assert kept[2] == reward


def test_the_ddim_starts_to_learn_after_the_warm_up() -> None:
    learner = agent()
    assert learner.ddim is not None
    weights = [learner.ddim.denoiser.exit.weight.clone()]
    losses = []
    for _ in range(3):
        losses.append(learner.iterate()["ddim_loss"])
        weights.append(learner.ddim.denoiser.exit.weight.clone())
    assert [math.isfinite(loss) for loss in losses] == [False, True, True]  # 5, 10, 15 transitions; warm-up 8
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    assert len(learner.replay) == 15


def test_ppo_alone_acts_on_the_environment_directly() -> None:
    env = Toy()
    learner = agent("ppo", env=env)
    metrics = learner.iterate()
    samples = learner.ppo.algorithm.rollout_buffer.actions.reshape(5, COUNT)
    assert np.allclose(np.stack(env.actions), np.tanh(samples))
    assert "ddim_loss" not in metrics
    assert not any(name.startswith("denoiser") for name in learner.networks())


@pytest.mark.parametrize("kind", ["airllm", "ppo"])
def test_equal_seeds_give_equal_agents(kind: AgentKind) -> None:
    torch.manual_seed(123)  # what others did to the global generators does not matter
    first = agent(kind)
    metrics = [first.iterate() for _ in range(3)]
    torch.manual_seed(321)
    second = agent(kind)
    assert repr([second.iterate() for _ in range(3)]) == repr(metrics)  # NaN in the warm-up
    other = agent(kind, seed=1)
    assert other.iterate()["policy_gradient_loss"] != metrics[0]["policy_gradient_loss"]


@pytest.mark.parametrize("kind", ["airllm", "ppo"])
def test_a_restored_agent_goes_on_as_the_original(kind: AgentKind) -> None:
    first, second = agent(kind), agent(kind, seed=0)
    for _ in range(2):
        first.iterate()
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    for _ in range(2):
        assert first.iterate() == second.iterate()
    ours, theirs = first.state(), second.state()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_airllm_learns_a_toy() -> None:
    """With a strong reward weight the actions move towards what pays."""
    strong = replace(DDIM, reward_weight=1.0, updates=16, warmup=40, batch_size=64)
    learner = Agent("airllm", env := Toy(), replace(PPO, rollout_episodes=8), strong, episode_steps=5, seed=0)
    for _ in range(25):
        learner.iterate()
    errors = np.abs(np.stack(env.actions) - 0.5).mean(1)
    assert errors[-200:].mean() < 0.9 * errors[:200].mean()


# a policy as a file


@pytest.mark.parametrize("kind", ["airllm", "ppo"])
def test_a_stored_policy_decides_as_the_agent_does_in_the_mean(kind: AgentKind, tmp_path: Path) -> None:
    learner = agent(kind)
    learner.iterate()
    save_policy(tmp_path, card(kind), {name: value.numpy() for name, value in learner.networks().items()})
    decider = Decider(*load_policy(tmp_path))
    assert decider.card == card(kind)
    state = np.linspace(0, 1, 4 + COUNT, dtype=np.float32)
    mean = torch.from_numpy(np.tanh(learner.ppo.algorithm.predict(state, deterministic=True)[0]))[None]
    if learner.ddim is not None:
        noise = torch.randn(1, COUNT, generator=torch.Generator().manual_seed(0))
        mean = learner.ddim.sample(mean, noise)
    assert np.allclose(decider.x0(state), mean[0].detach().numpy(), atol=1e-5)
    assert np.array_equal(decider.x0(state), decider.x0(state))


def test_a_missing_policy_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds no policy\.safetensors.*policy train"):
        make_policy(f"airllm:{tmp_path}", 0)


def test_a_corrupt_policy_is_a_clear_error(tmp_path: Path) -> None:
    path = stored(tmp_path) / POLICY_FILE
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="digest is wrong"):
        make_policy(f"airllm:{tmp_path}", 0)
    path.write_bytes(data[:100])
    with pytest.raises(StoreError, match="not a readable safetensors file"):
        make_policy(f"airllm:{tmp_path}", 0)


def test_a_foreign_file_is_a_clear_error(tmp_path: Path) -> None:
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / POLICY_FILE)
    with pytest.raises(StoreError, match="format"):
        make_policy(f"airllm:{tmp_path}", 0)


@pytest.mark.parametrize(
    "text", ["{", "{}", "[]", json.dumps({**card().to_json(), "mode": "other"}), json.dumps({"extra": 1})]
)
def test_a_policy_without_a_proper_description_is_a_clear_error(text: str, tmp_path: Path) -> None:
    write_tensors(tmp_path / POLICY_FILE, "airlora-policy-1", {}, {"policy": text})
    with pytest.raises(StoreError, match="does not describe a policy"):
        load_policy(tmp_path)


def test_tensors_that_do_not_fit_the_description_are_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="do not fit its description"):
        make_policy(f"airllm:{stored(tmp_path, r_max=(8,) * (COUNT + 1))}", 0)


def test_a_policy_of_the_other_kind_says_how_to_use_it(tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match="use it as airllm:"):
        make_policy(f"ppo:{stored(tmp_path)}", 0)


def test_a_policy_for_another_number_of_projections_is_a_clear_error(tmp_path: Path) -> None:
    policy = make_policy(f"airllm:{stored(tmp_path)}", 0)
    other = Schema(SCHEMA.projections[:3], SCHEMA.prefixes)
    with pytest.raises(CompatibilityError, match="decides for 4 projections, the model has 3"):
        policy.decide(observe(other))


# in a run


def test_learned_policies_are_registered_with_their_options(tmp_path: Path) -> None:
    assert {"airllm", "ppo"} <= POLICIES.keys()
    folder = stored(tmp_path)
    assert make_policy(f"airllm:{folder}", 0).decide(observe()).bits.tolist() == [16] * COUNT
    assert make_policy(f"airllm:folder={folder},bits=4", 0).decide(observe()).head_bits == 4
    with pytest.raises(SpecError, match="bits=5; allowed"):
        make_policy(f"airllm:{folder},bits=5", 0)
    with pytest.raises(SpecError, match="needs a value for 'folder'"):
        make_policy("ppo", 0)


def test_no_head_bits_without_a_head_and_no_rank_above_the_trained(tmp_path: Path) -> None:
    policy = make_policy(f"airllm:{stored(tmp_path)}", 0)
    headless = Schema(SCHEMA.projections, SCHEMA.prefixes)
    assert policy.decide(observe(headless)).head_bits == 0
    assert policy.decide(observe(trained_ranks=np.full(COUNT, 2))).ranks.max() <= 2


def test_a_policy_trained_at_other_ranks_decides_within_its_own(tmp_path: Path) -> None:
    policy = make_policy(f"ppo:{stored(tmp_path, 'ppo', r_max=(2,) * COUNT)}", 0)
    assert policy.decide(observe(held_ranks=np.full(COUNT, 8))).ranks.max() <= 2


@pytest.mark.parametrize("kind", ["airllm", "ppo"])
def test_networks_full_of_nan_decide_the_smallest_ranks(kind: AgentKind, tmp_path: Path) -> None:
    policy = make_policy(f"{kind}:{stored(tmp_path, kind, fill=math.nan)}", 0)
    assert policy.decide(observe()).ranks.tolist() == [1] * COUNT


@pytest.mark.parametrize(("snr_db", "bandwidth_hz"), [(40.0, 1e3), (-60.0, 1e12), (math.nan, math.nan)])
def test_a_link_far_outside_training_gives_valid_ranks(snr_db: float, bandwidth_hz: float, tmp_path: Path) -> None:
    policy = make_policy(f"airllm:{stored(tmp_path)}", 0)
    ranks = policy.decide(observe(link=LinkState(0.0, snr_db, bandwidth_hz, math.nan))).ranks
    assert ((ranks >= 1) & (ranks <= 8)).all()


@given(budget_bytes=st.floats(0, 20_000), fill=st.sampled_from([None, 0.3, -0.3, math.nan, math.inf]))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_update_never_exceeds_the_budget(budget_bytes: float, fill: float | None, tmp_path: Path) -> None:
    policy = make_policy(f"ppo:{stored(tmp_path, 'ppo', fill)}", 0)
    factors, edge = random_factors(SCHEMA, 0), blank_edge(SCHEMA)
    allocation = project(policy.decide(observe(budget_bytes=budget_bytes)), Costs.measure(factors, edge), math.inf)
    update = encode(factors, edge, allocation, 0)
    assert update.size_bytes <= budget_bytes
