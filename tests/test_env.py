"""AirLLM's decision process: state, cost, reward and penalty to the letter; its life as a Gymnasium environment."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from airlora.env import PaperConfig, PaperEnv
from airlora.env.settings import TrainingConfig, read_training_config
from airlora.errors import InputError, SpecError, TrainingError
from airlora.policy.paper_state import StateScale
from airlora.workload.text import paper_lexical_entropy

CONFIG = PaperConfig(
    data="builtin:vehicle-commands,train=120,validation=60,test=60",
    links=("awgn:snr_db=10,bandwidth_hz=3e5",),
    targets="q_proj,v_proj",
    batch_size=4,
    max_length=32,
    lr=1e-3,
    validation_limit=32,
)
CAPACITY = 3e5 * math.log2(11)


def make(**changes: Any) -> PaperEnv:
    return PaperEnv(**asdict(replace(CONFIG, **changes)))


@pytest.fixture(scope="module")
def shared_env() -> PaperEnv:
    return make()


@pytest.fixture
def env(shared_env: PaperEnv) -> PaperEnv:
    """A process that begins anew; making one costs more."""
    shared_env.reset(seed=0)
    return shared_env


def at_rank(env: PaperEnv, *ranks: int) -> np.ndarray:
    return env.decoder.centres(np.resize(ranks, env.action_space.shape))  # type: ignore[arg-type]


def adapter_state(env: PaperEnv) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in env.trainer.state().items()}


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# Gymnasium


def test_it_is_a_gymnasium_environment() -> None:
    env = gymnasium.make("airlora.env:airlora/Paper-v0", **asdict(CONFIG))
    check_env(env.unwrapped, skip_render_check=True)
    check_env_sb3(env.unwrapped)
    assert isinstance(env.unwrapped, PaperEnv)
    assert env.observation_space.shape == (4 + env.action_space.shape[0],)  # type: ignore[index]


def test_an_episode_is_cut_after_15_steps_and_never_ends(env: PaperEnv) -> None:
    for _ in range(2):
        env.reset()
        flags = [env.step(at_rank(env, 1))[2:4] for _ in range(15)]
        assert flags == [(False, False)] * 14 + [(False, True)]


def test_the_adapter_goes_on_from_episode_to_episode_and_a_seed_begins_anew(env: PaperEnv) -> None:
    start = adapter_state(env)
    first = [env.step(at_rank(env, 2))[1] for _ in range(15)]
    trained = adapter_state(env)
    last = env.reset()[0]
    assert same(trained, adapter_state(env))
    assert np.array_equal(last, env.reset()[0])  # a second reset changes nothing
    assert env.steps == 15
    env.reset(seed=0)
    assert same(start, adapter_state(env))
    assert [env.step(at_rank(env, 2))[1] for _ in range(15)] == first


# state


def test_the_state_is_snr_bandwidth_entropy_oov_and_ranks(env: PaperEnv) -> None:
    observation, _ = env.reset()
    batch = env.workload.batch(0)
    tokens = batch.inputs["input_ids"][batch.inputs["attention_mask"].bool()].tolist()
    assert observation[:4] == pytest.approx([0.75, 1.0, paper_lexical_entropy(tokens), 0.0])
    assert not observation[4:].any()
    observation = env.step(at_rank(env, 2, 4))[0]
    assert observation[4:].tolist() == np.resize([2 / 8, 4 / 8], len(observation) - 4).tolist()


def test_our_text_statistics_take_the_paper_s_place() -> None:
    env = make(text="words")
    observation, _ = env.reset()
    assert observation[3] == 1.0  # every word is new
    after = env.step(at_rank(env, 1))[0]
    assert 0 < after[3] < 1


@pytest.mark.parametrize(
    ("snr_db", "bandwidth_hz", "expected"),
    [(40.0, 1e3, (1.0, 1e-5)), (-40.0, 1e12, (0.0, 1.0)), (math.nan, math.nan, (0.0, 0.0)), (5.0, 5e7, (0.5, 0.5))],
)
def test_a_state_far_outside_training_stays_in_range(
    snr_db: float, bandwidth_hz: float, expected: tuple[float, float]
) -> None:
    scale = StateScale(-5, 15, 1e8)
    vector = scale.vector(
        snr_db=snr_db, bandwidth_hz=bandwidth_hz, entropy=math.nan, oov_rate=2.0, rank_fractions=np.array([2.0, -1.0])
    )
    assert vector == pytest.approx([*expected, 0.0, 1.0, 1.0, 0.0])
    assert vector.dtype == np.float32


def test_each_step_draws_one_of_the_links() -> None:
    env = make(links=("awgn:snr_db=-5,bandwidth_hz=1e5", "awgn:snr_db=15,bandwidth_hz=2e5"))
    env.reset()
    seen = [tuple(env.step(at_rank(env, 1))[0][:2].tolist()) for _ in range(30)]
    assert set(seen) == {(0.0, 0.5), (1.0, 1.0)}
    env.reset(seed=0)
    assert [tuple(env.step(at_rank(env, 1))[0][:2].tolist()) for _ in range(30)] == seen
    env.reset(seed=1)
    assert [tuple(env.step(at_rank(env, 1))[0][:2].tolist()) for _ in range(30)] != seen


# reward


def test_numbers_and_cost_are_the_paper_s_and_the_head_counts(env: PaperEnv) -> None:
    ranks = np.resize([3, 5], len(env.schema.projections))
    numbers = sum(int(r) * (p.d_out + p.d_in + 1) for r, p in zip(ranks, env.schema.projections, strict=True))
    assert env.numbers(ranks) == numbers + env.schema.head_size
    assert env.cost(ranks) == pytest.approx((numbers + env.schema.head_size) * 32 / CAPACITY)
    assert make(count_head=False).numbers(ranks) == numbers


def test_a_decision_in_time_trains_and_costs_its_airtime(env: PaperEnv) -> None:
    before = adapter_state(env)
    env.adapter.set_ranks(2)
    with torch.no_grad():
        loss = float(env.workload.loss(env.workload.batch(0)))
    _, reward, _, _, info = env.step(at_rank(env, 2))
    cost = env.cost(np.full(len(env.schema.projections), 2))
    assert info["cost"] == pytest.approx(cost)
    assert info["loss"] == pytest.approx(loss, rel=1e-5)
    assert reward == pytest.approx(-loss - 0.1 * cost, rel=1e-5)
    assert not info["missed"]
    assert not same(before, adapter_state(env))


def test_a_missed_deadline_trains_nothing_and_is_punished() -> None:
    env = make(links=("awgn:snr_db=10,bandwidth_hz=1e4",))
    env.reset()
    before = adapter_state(env)
    _, reward, _, _, info = env.step(at_rank(env, 8))
    assert info["cost"] > 1
    assert info["missed"]
    assert info["loss"] is None
    assert reward == pytest.approx(-10.1 * info["cost"])
    assert same(before, adapter_state(env))
    assert env.steps == 1  # the data and the channel go on


def test_exactly_at_the_deadline_is_in_time(env: PaperEnv) -> None:
    ranks = np.full(len(env.schema.projections), 3)
    env._capacity_bps = env.numbers(ranks) * 32.0
    assert env.cost(ranks) == 1.0
    assert not env.step(at_rank(env, 3))[4]["missed"]


def test_an_outage_has_a_finite_reward() -> None:
    env = make(links=("awgn:snr_db=40,bandwidth_hz=1e3", "awgn:snr_db=-100,bandwidth_hz=1"))
    env.reset()
    rewards = [env.step(at_rank(env, 8))[1] for _ in range(10)]
    assert np.isfinite(rewards).all()
    assert min(rewards) == pytest.approx(-10.1e6)


@pytest.mark.parametrize("action", [math.nan, math.inf, -math.inf, 7.0])
def test_an_action_that_is_no_action_becomes_valid_ranks(env: PaperEnv, action: float) -> None:
    info = env.step(np.full(env.action_space.shape, action, np.float32))[4]  # type: ignore[arg-type]
    assert info["ranks"].tolist() == [8 if action > 1 else 1] * len(info["ranks"])


def test_the_affordable_rank_is_the_largest_that_is_in_time(env: PaperEnv) -> None:
    env.reset()
    for rank in range(1, 8):
        env._capacity_bps = env.numbers(np.full(len(env.schema.projections), rank)) * 32.0
        assert env.affordable_rank() == rank
    env._capacity_bps = 1.0
    assert env.affordable_rank() == 1


# training


def test_only_the_chosen_components_move(env: PaperEnv) -> None:
    before = adapter_state(env)
    for _ in range(2):  # the head starts at 0, so that in the first step nothing else has a gradient
        env.step(at_rank(env, 2, 3))
    after = adapter_state(env)
    for index, projection in enumerate(env.schema.projections):
        rank = (2, 3)[index % 2]
        for factor in ("left", "right", "gain"):
            name = f"adapter/{projection.name}.{factor}"
            assert torch.equal(before[name][rank:], after[name][rank:])
        assert (after[f"adapter/{projection.name}.gain"][:rank] != 0).all()


def test_the_adapter_learns_along_a_sensible_policy(env: PaperEnv) -> None:
    losses = [env.step(at_rank(env, 3))[4]["loss"] for _ in range(60)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.2


def test_a_language_model_has_a_process_too() -> None:
    env = make(data="builtin:vehicle-logs,characters=20000")
    env.reset()
    _, reward, _, _, info = env.step(at_rank(env, 1))
    assert env.schema.head_size == 0
    assert reward == pytest.approx(-info["loss"] - 0.1 * info["cost"])
    assert env.validate() == pytest.approx(info["loss"], abs=1.0)


def test_a_diverged_adapter_is_a_clear_error() -> None:
    env = make(lr=1e30)
    env.reset()

    def steps() -> None:
        for _ in range(5):
            env.step(at_rank(env, 2))

    with pytest.raises(TrainingError, match="diverged"):
        steps()


def test_a_restored_process_goes_on_as_the_original(env: PaperEnv) -> None:
    env.reset()
    for _ in range(15):
        env.step(at_rank(env, 1, 3))
    other = make()
    other.load_state(*env.state())
    assert np.array_equal(env.reset()[0], other.reset()[0])
    for _ in range(3):
        ours, theirs = env.step(at_rank(env, 2)), other.step(at_rank(env, 2))
        assert np.array_equal(ours[0], theirs[0])
        assert ours[1] == theirs[1]
    assert env.validate() == other.validate()


# configuration


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"min_rank": 9}, "min_rank"),
        ({"episode_steps": 1}, "episode_steps"),
        ({"links": ()}, "links"),
        ({"bits": 0}, "bits"),
        ({"cost_weight": -1.0}, "cost_weight"),
        ({"snr_low_db": 20.0}, "snr_low_db"),
        ({"deadline_s": 0.0}, "deadline_s"),
    ],
)
def test_impossible_values_are_refused_by_name(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        replace(CONFIG, **changes)


def test_a_link_that_is_none_is_refused() -> None:
    with pytest.raises(SpecError, match="unknown link"):
        make(links=("awgnn:snr_db=3",))


def test_a_configuration_survives_its_file(tmp_path: Any) -> None:
    config = TrainingConfig(agent="ppo", episodes=3, environment=replace(CONFIG, lr=None))
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert read_training_config({}, tmp_path / "config.toml") == config
    changed = read_training_config({"episodes": 5, "environment": {"seed": 2}}, tmp_path / "config.toml")
    assert changed == replace(config, episodes=5, environment=replace(config.environment, seed=2))


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"environment": {"rank": 3}}, "environment.rank"),
        ({"ddim": {"guidance": "much"}}, "ddim.guidance"),
        ({"agent": "sac"}, "agent is 'sac'; allowed: 'airllm', 'ppo'"),
        ({"episodes": 2.5}, "episodes"),
    ],
)
def test_unknown_keys_and_values_are_refused_by_name(values: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        read_training_config(values)
