"""The policy of stream mode: tokens, decoding, networks over any number of projections, files, faults, commands."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from airlora.cli import app
from airlora.codec import Allocation, Costs, project
from airlora.env import stream_training
from airlora.env.stream import StreamEnv
from airlora.env.stream_baseline import AgainstRule
from airlora.env.stream_settings import (
    SHIPPED_JOBS,
    STREAM_DDIM,
    STREAM_PPO,
    StreamJob,
    StreamTrainingConfig,
    read_stream_config,
)
from airlora.env.surrogate import Surrogate
from airlora.errors import CompatibilityError, InputError, SpecError, StoreError
from airlora.factors import HeadTensor, Projection, Schema
from airlora.link import LinkState, PastRate
from airlora.policy import Fit, Observation, make_policy, stream_agent
from airlora.policy.ddim import sample
from airlora.policy.stream_action import StreamDecoder, budget_fraction
from airlora.policy.stream_agent import StreamAgent
from airlora.policy.stream_costs import WIDTHS
from airlora.policy.stream_family import LATENT_DIM, family_member
from airlora.policy.stream_networks import Batch, StreamActor, TokenDenoiser, TokenEncoder
from airlora.policy.stream_policy import (
    SHIPPED,
    StreamCard,
    StreamDecider,
    load_stream_policy,
    save_stream_policy,
)
from airlora.policy.tokens import GLOBAL_SIZE, LARGEST_LOAD, TOKEN_SIZE, View, surprise
from airlora.workload.text import TextStatistics
from stream_samples import small_table

PPO = replace(STREAM_PPO, width=16)
DDIM = replace(STREAM_DDIM, width=16, time_dim=8, sample_steps=5, updates=1, warmup=8)
STATES = {
    "usual": LinkState(3.0, 10.0, 1e6, 2e5),
    "40 dB over 1 kHz": LinkState(3.0, 40.0, 1e3, 1.3e4),
    "nothing measured": LinkState(3.0, math.nan, math.nan, math.nan),
    "outage": LinkState(3.0, math.nan, 1e6, 0.0),
    "absurd": LinkState(3.0, 1e300, 1e300, 1e300),
}


def schema(names: list[str], d_out: int = 32, d_in: int = 32, r_max: int = 4, head: bool = True) -> Schema:
    prefixes = (*(r for r in (1, 2, 4, 8, 16, 32) if r < r_max), r_max)
    tensors = (HeadTensor("score", (5, d_in)),) if head else ()
    return Schema(tuple(Projection(name, d_out, d_in, r_max) for name in names), prefixes, tensors)


def observation(of: Schema, link: LinkState = STATES["usual"], seed: int = 0, **changes: Any) -> Observation:
    rng = np.random.default_rng(seed)
    shape = (len(of.projections), of.prefixes[-1])
    own = rng.uniform(0.5, 1.0, (2, *shape))
    costs = Costs(of, own[0] * 0.3, own[1] * 0.3, own[0], own[1], np.array([2, 3, 4, 6, 8, 16]) * 20.0 * bool(of.head))
    values: dict[str, Any] = {
        "round": 3,
        "rounds": 20,
        "link": link,
        "deadline_s": 1.0,
        "text": TextStatistics(0.9, 0.1, 8.0, 2.0),
        "schema": of,
        "trained_ranks": of.r_max,
        "sensitivity": rng.uniform(0.1, 1, shape),
        "energy": rng.uniform(0.1, 1, shape),
        "held_ranks": np.minimum(2, of.r_max),
        "since_contact_s": 1.0,
        "costs": costs,
    }
    return Observation(**{**values, **changes})


def opt(layers: int = 4) -> list[str]:
    kinds = ("self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj", "fc1", "fc2")
    return [f"model.decoder.layers.{layer}.{kind}" for layer in range(layers) for kind in kinds]


def bert(layers: int = 12) -> list[str]:
    kinds = (
        *(f"attention.self.{kind}" for kind in ("query", "key", "value")),
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    )
    return [f"bert.encoder.layer.{layer}.{kind}" for layer in range(layers) for kind in kinds]


def card(**changes: Any) -> StreamCard:
    return replace(StreamCard("airllm", "stream", "residual", GLOBAL_SIZE, TOKEN_SIZE, PPO, DDIM, {}), **changes)


def networks(seed: int = 0) -> dict[str, np.ndarray]:
    torch.manual_seed(seed)
    modules = {"actor": StreamActor(PPO.width, LATENT_DIM), "denoiser": TokenDenoiser(LATENT_DIM, DDIM)}
    return {f"{part}/{key}": value.numpy() for part, own in modules.items() for key, value in own.state_dict().items()}


# tokens


@pytest.mark.parametrize("link", STATES.values(), ids=STATES)
def test_features_are_finite_and_bounded_whatever_the_link_says(link: LinkState) -> None:
    tokens = View(observation(schema(opt(1)), link), 0.1).tokens
    assert tokens.round.shape == (GLOBAL_SIZE,)
    assert tokens.projections.shape == (6, TOKEN_SIZE)
    for values in (tokens.round, tokens.projections):
        assert np.isfinite(values).all()
        assert np.abs(values).max() <= 3


def test_a_budget_beyond_those_trained_on_is_seen_as_the_largest_of_them() -> None:
    of = schema(opt(1))
    carried = of.plain_lora_bytes() * 8 * LARGEST_LOAD  # bit/s, over a deadline of 1 s
    largest, beyond, below = (
        View(observation(of, LinkState(1.0, math.nan, math.nan, carried * times)), 0.1).tokens.round
        for times in (1.0, 1000.0, 0.5)
    )
    np.testing.assert_allclose(largest, beyond)
    assert not np.allclose(largest, below)


def test_the_past_shows_how_far_estimates_erred() -> None:
    assert surprise(()) == (0, 0, 0, 0)
    assert surprise([PastRate(math.nan, 1e6)]) == (0, 0, 0, 0)  # the first round may have no estimate
    past = [PastRate(1e6, 1e7), PastRate(1e6, 1e5), PastRate(1e6, 1e6)]
    known, last, mean, spread = surprise(past)
    assert (known, last) == (1, 0)
    assert mean == pytest.approx(0)
    assert spread == pytest.approx(math.sqrt(2 / 3))
    assert surprise([PastRate(1e6, 0.0)])[1] == -1.5
    assert surprise([PastRate(0.0, 1e6)])[1] == 1.5
    plain, other = (View(observation(schema(opt(1)), past_rates=p), 0.1).tokens for p in ((), tuple(past)))
    assert (plain.round != other.round).sum() == 2


def test_features_do_not_depend_on_the_scale_of_the_adapter() -> None:
    of = schema(opt(1))
    plain = observation(of)
    costs = plain.costs
    scaled = Costs(of, *(1e3 * getattr(costs, n) for n in ("change_u", "change_v", "rms_u", "rms_v")), costs.head)
    other = observation(of, energy=1e12 * plain.energy, sensitivity=50 * plain.sensitivity, costs=scaled)
    ours, theirs = View(plain, 0.1).tokens, View(other, 0.1).tokens
    np.testing.assert_allclose(ours.round, theirs.round, atol=1e-5)
    np.testing.assert_allclose(ours.projections, theirs.projections, atol=1e-5)


def test_kinds_are_told_by_name() -> None:
    kinds = View(observation(schema([*opt(1), *bert(1), "strange"])), 0.1).tokens.projections[:, 2:9]
    assert (kinds.sum(axis=1) == 1).all()
    found = kinds.argmax(axis=1).tolist()
    assert found == [1, 2, 0, 3, 4, 5, 0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("group", "other"), [("link", "text"), ("text", "link")])
def test_what_is_hidden_tells_nothing_and_the_rest_is_as_before(group: Any, other: Any) -> None:
    def seen(hidden: tuple[Any, ...], **changes: Any) -> np.ndarray:
        return View(observation(schema(opt(1)), **changes), 0.1, hidden=hidden).tokens.round

    changed: dict[str, dict[str, Any]] = {
        "link": {"link": LinkState(3.0, -2.0, 5e5, 1e4), "past_rates": (PastRate(1e5, 2e5),)},
        "text": {"text": TextStatistics(0.2, 0.7, 30.0, 0.5)},
    }
    np.testing.assert_array_equal(seen((group,)), seen((group,), **changed[group]))
    assert not np.array_equal(seen(()), seen((), **changed[group]))
    assert not np.array_equal(seen((group,)), seen((group,), **changed[other]))


def test_the_airtime_weight_is_seen() -> None:
    of = observation(schema(opt(1)))
    sums = [View(of, weight).tokens.round.sum() for weight in (0.0, 0.1, 1.0)]
    assert sums[0] < sums[1] < sums[2]


def test_the_airtime_weight_prices_the_bytes_of_every_decision() -> None:
    of = observation(schema(opt(1)), LinkState(0.0, 5.0, 1e6, 1e5))
    for weight in (0.0, 0.1, 1.0):
        allocation = make_policy(f"airllm:airtime_weight={weight}", 0).decide(of)
        assert allocation.byte_price == pytest.approx(weight / of.budget_bytes)


# actions


def test_the_budgets_number_means_nothing_all_or_everything() -> None:
    assert budget_fraction(0.0) == 1
    assert budget_fraction(-1.0) == 0
    assert budget_fraction(1.0) == math.inf
    assert budget_fraction(math.nan) == 1
    middle = [budget_fraction(number) for number in np.linspace(-0.8, 0.8, 9)]
    assert middle == sorted(middle)
    assert middle[0] == pytest.approx(1 / 16)
    assert middle[-1] == pytest.approx(4)


@pytest.mark.parametrize("rate_bps", [1e3, 2e4, 1e5, 1e7])
def test_zeros_decode_to_the_rule_fit(rate_bps: float) -> None:
    view = View(observation(schema(opt(2)), LinkState(3.0, 5.0, 1e6, rate_bps)), 0.1)
    ours, rule = StreamDecoder().allocation(view, 0.0, np.zeros((12, 2))), Fit().decide(view.observation)
    assert np.abs(ours.ranks - rule.ranks).max() <= 1
    assert (ours.bits == rule.bits).all()
    assert (ours.head_bits, ours.budget_bytes) == (rule.head_bits, rule.budget_bytes)


@pytest.mark.parametrize("rate_bps", [1e3, 1e4, 2e4, 1e5, 1e7])
def test_no_less_is_offered_than_one_component_of_all_takes_if_the_link_carries_it(rate_bps: float) -> None:
    view = View(observation(schema(opt(2)), LinkState(3.0, 5.0, 1e6, rate_bps)), 1.0)
    estimate, zeros = view.observation.budget_bytes, np.zeros((12, 2))
    found = StreamDecoder().allocation(view, -0.79, zeros)
    first = replace(found, ranks=np.ones(12, np.int64))
    assert budget_fraction(-0.79) * estimate <= found.budget_bytes <= estimate
    assert found.budget_bytes >= min(estimate, view.observation.costs.update_bytes(first))
    assert StreamDecoder().allocation(view, -0.9, zeros).budget_bytes == 0
    assert StreamDecoder("absolute").allocation(view, -0.79, zeros).budget_bytes < estimate / 15


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["residual", "absolute"]),
    st.lists(st.floats(-1e3, 1e3) | st.just(math.nan) | st.just(math.inf), min_size=13, max_size=13),
    st.sampled_from(list(STATES)),
)
def test_anything_decodes_to_an_allocation_within_the_budget(decoding: Any, numbers: list[float], state: str) -> None:
    of = schema(opt(1))
    view = View(observation(of, STATES[state]), 0.1)
    found = StreamDecoder(decoding).allocation(view, numbers[0], np.array(numbers[1:]).reshape(6, 2))
    assert found.ranks.dtype == np.int64
    assert ((found.ranks >= 0) & (found.ranks <= of.r_max)).all()
    assert np.isin(found.bits, WIDTHS).all()
    assert found.budget_bytes >= 0
    sent = project(found, view.observation.costs, math.inf)
    assert sent.budget_bytes <= found.budget_bytes


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["residual", "absolute"]),
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from(WIDTHS)), min_size=6, max_size=6),
)
def test_what_is_replayed_decodes_to_itself(decoding: Any, chosen: list[tuple[int, int]]) -> None:
    view = View(observation(schema(opt(1)), STATES["absurd"]), 0.1)
    ranks, bits = np.array(chosen).T
    decoder = StreamDecoder(decoding)
    again = decoder.allocation(view, 0.0, decoder.replayed(view, Allocation(ranks, bits, 4, math.inf)))
    assert again.bits.tolist() == bits.tolist()
    assert again.ranks.tolist() == ranks.tolist()


def test_the_family_is_the_rule_at_zero_and_moves_in_its_directions() -> None:
    view = View(observation(schema(opt(2))), 0.1)
    decoder = StreamDecoder()
    assert not family_member(decoder, view, 0.0, np.zeros(LATENT_DIM)).any()
    bits, rank, depth = (family_member(decoder, view, 0.0, row) for row in 0.5 * np.eye(LATENT_DIM)[:3])
    assert (bits == [0.0, 0.5]).all()
    assert (rank == [0.5, 0.0]).all()
    assert (np.diff(depth[:, 0]) > 0).all()


# networks


def stream_env(*counts: int) -> StreamEnv:
    return StreamEnv([Surrogate(small_table(count, seed=count)) for count in counts], airtime_weights=(0.1,))


def vector_of(env: StreamEnv, job: int) -> torch.Tensor:
    seed = next(s for s in range(100) if env.reset(seed=s) and env.job is env.jobs[job])
    return torch.from_numpy(env.reset(seed=seed)[0])[None]


def test_padding_changes_neither_features_nor_decisions() -> None:
    own = vector_of(stream_env(3), 0)
    padded = torch.cat([own[:, :1] * 3 / 5, own[:, 1:], torch.zeros(1, 2 * TOKEN_SIZE)], 1)
    assert Batch.split(padded).mask[0, :, 0].tolist() == [1, 1, 1, 0, 0]
    torch.manual_seed(0)
    encoder, denoiser = TokenEncoder(16), TokenDenoiser(LATENT_DIM, DDIM)
    torch.testing.assert_close(encoder(own), encoder(padded))
    latent, noise = torch.randn(1, LATENT_DIM), torch.randn(1, 10)
    narrow = sample(denoiser.bind(own), DDIM, latent, noise[:, :6])
    wide = sample(denoiser.bind(padded), DDIM, latent, noise)
    torch.testing.assert_close(narrow, wide[:, :6], atol=1e-5, rtol=1e-5)


def test_equal_projections_are_decided_equally_in_any_order() -> None:
    of = schema(opt(1))
    view = View(observation(of), 0.1)
    decider = StreamDecider(card(), networks())
    plain = decider.action(view)[1]
    order = np.array([3, 1, 5, 0, 2, 4])
    shuffled = View(observation(of), 0.1)
    shuffled.__dict__["tokens"] = replace(view.tokens, projections=view.tokens.projections[order])
    np.testing.assert_allclose(decider.action(shuffled)[1], plain[order], atol=1e-5)


# files


def test_a_saved_policy_decides_as_before(tmp_path: Path) -> None:
    save_stream_policy(tmp_path, card(), networks())
    ours, again = StreamDecider(card(), networks()), load_stream_policy(tmp_path)
    assert again.card == card()
    for state in STATES.values():
        of = observation(schema(opt(1)), state)
        left, right = ours.decide(of, 0.1), again.decide(of, 0.1)
        assert left.ranks.tolist() == right.ranks.tolist()
        assert left.bits.tolist() == right.bits.tolist()
        assert left.budget_bytes == right.budget_bytes


def test_a_missing_corrupt_or_foreign_policy_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no policy"):
        make_policy(f"airllm:{tmp_path}", 0)
    save_stream_policy(tmp_path, card(), networks())
    path = tmp_path / "policy.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(StoreError, match="changed"):
        make_policy(f"airllm:{tmp_path}", 0)
    path.write_bytes(whole)
    with pytest.raises(CompatibilityError, match="airllm"):
        make_policy(f"ppo:{tmp_path}", 0)
    save_stream_policy(tmp_path, card(), {"actor/other": np.zeros(3, np.float32)})
    with pytest.raises(StoreError, match="do not fit"):
        make_policy(f"airllm:{tmp_path}", 0)
    save_stream_policy(tmp_path, card(ppo=replace(PPO, width=8)), networks())
    with pytest.raises(StoreError, match="do not fit"):
        make_policy(f"airllm:{tmp_path}", 0)


def test_a_policy_for_other_features_is_refused() -> None:
    with pytest.raises(ValueError, match="numbers a round"):
        card(global_size=3)
    with pytest.raises(StoreError, match="stream mode"):
        load_from(asdict(card()) | {"token_size": 3})
    for unknown in ({"hidden": ["weather"]}, {"refine": "magic"}):
        with pytest.raises(StoreError, match="not known to this version"):
            load_from(asdict(card()) | unknown)


def load_from(description: dict[str, Any]) -> StreamDecider:
    import tempfile

    from airlora.policy.checkpoint import write_policy

    with tempfile.TemporaryDirectory() as folder:
        write_policy(Path(folder), description, networks())
        return load_stream_policy(Path(folder))


def test_options_of_the_other_mode_are_refused(tmp_path: Path) -> None:
    save_stream_policy(tmp_path, card(), networks())
    with pytest.raises(SpecError, match="paper mode"):
        make_policy(f"airllm:{tmp_path},bits=8", 0)
    with pytest.raises(SpecError, match="airtime_weight"):
        make_policy(f"airllm:{tmp_path},airtime_weight=-1", 0)


def test_networks_that_answer_nan_still_decide_within_the_budget() -> None:
    broken = {name: np.full_like(value, np.nan) for name, value in networks().items()}
    of = observation(schema(opt(1)))
    found = StreamDecider(card(), broken).decide(of, 0.1)
    rule = Fit().decide(of)
    assert found.budget_bytes == rule.budget_bytes
    assert found.bits.tolist() == rule.bits.tolist()


# the shipped policy


@pytest.mark.parametrize(
    "names", [opt(4), bert(12), [f"h.{i}.attn.c_attn" for i in range(2)], ["x"]], ids=["opt", "bert", "gpt2", "one"]
)
@pytest.mark.parametrize("link", STATES.values(), ids=STATES)
def test_the_shipped_policy_decides_for_any_model_over_any_link(names: list[str], link: LinkState) -> None:
    policy = make_policy("airllm", 0)
    of = schema(names, 48, 32, 16, head="bert" in names[0])
    first = policy.decide(observation(of, link))
    again = policy.decide(observation(of, link))
    assert first.ranks.shape == (len(names),)
    assert first.ranks.tolist() == again.ranks.tolist()
    sent = project(first, observation(of, link).costs, math.inf)
    assert sent.ranks.tolist() == first.ranks.tolist() or first.budget_bytes < math.inf


@pytest.mark.parametrize("airtime_weight", [0, 0.1, 1])
@pytest.mark.parametrize("load", [1, 10, 100, 10_000])
def test_the_shipped_policy_sends_over_a_link_that_carries_more_than_everything(
    load: float, airtime_weight: float
) -> None:
    """Beyond what it is trained on an earlier one sent two bits, or offered nothing."""
    of = schema(opt(2), 48, 32, 16)
    rate_bps = of.plain_lora_bytes() * 8.0 * load
    for state in (LinkState(1.0, math.nan, math.nan, rate_bps), LinkState(1.0, 10.0, rate_bps / 3.46, rate_bps)):
        sent = make_policy(f"airllm:airtime_weight={airtime_weight}", 0).decide(observation(of, state))
        assert sent.ranks.min() >= 4
        assert sent.bits.min() >= 3
        assert sent.budget_bytes > 0


def test_the_shipped_policy_is_small_and_says_what_it_was_trained_on() -> None:
    assert (SHIPPED / "policy.safetensors").stat().st_size < 1_000_000
    trained = load_stream_policy(SHIPPED).card.trained
    assert trained["jobs"] == [asdict(job) for job in SHIPPED_JOBS]
    assert all(name.startswith("builtin:") for job in trained["jobs"] for name in (job["model"], job["data"]))
    assert all(job["base_data"].startswith("builtin:") or not job["base_steps"] for job in trained["jobs"])


# training


def make_agent(seed: int = 0) -> StreamAgent:
    env = stream_env(2, 3)
    envs = [AgainstRule(StreamEnv(env.jobs), range(6)) for _ in range(3)]
    return StreamAgent(envs, PPO, DDIM, episode_steps=4, seed=seed)


def test_what_the_actor_is_taught_comes_out_of_a_ddim_that_does_too_little_or_too_much(monkeypatch: Any) -> None:
    """A DDIM that turns a latent into 0.8 times the bits and 1.3 times the rank, whatever it sees."""
    agent, env = make_agent(), stream_env(2, 3)
    env.reset(seed=0)

    def respond(denoiser: Any, settings: Any, latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        each = torch.stack([1.3 * latents[:, 1], 0.8 * latents[:, 0]], dim=1)  # rank, bits
        return each.repeat(1, noise.shape[1] // 2)

    monkeypatch.setattr(stream_agent, "sample", respond)
    observations = torch.from_numpy(env.vector())[None]
    torch.testing.assert_close(agent._response(observations), torch.tensor([0.8, 1.3]))
    taught = torch.tensor([[0.2, 0.3, -0.5]])  # the budget's number, rank, bits
    agent._clone(observations, taught, 2000, torch.Generator().manual_seed(0))
    policy = agent.ppo.algorithm.policy
    with torch.no_grad():
        number, bits, rank = torch.tanh(policy.action_net(policy.features_extractor(observations)))[0, :3].tolist()
    assert (number, 1.3 * rank, 0.8 * bits) == pytest.approx((0.2, 0.3, -0.5), abs=0.01)


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_an_agent_goes_on_from_its_state_as_if_never_stopped() -> None:
    whole, stopped = make_agent(), make_agent()
    for agent in (whole, stopped):
        agent.imitate(stream_env(2, 3), 20, 2)
        agent.iterate()
    state = {name: value.clone() for name, value in stopped.state().items()}
    resumed = make_agent()
    resumed.load_state(state)
    assert whole.iterate() == resumed.iterate()
    assert equal(whole.state(), resumed.state())


def test_a_groups_rewards_are_differences_from_its_mean() -> None:
    envs = [AgainstRule(StreamEnv(stream_env(2, 3).jobs), range(6), group=2) for _ in range(4)]
    agent = StreamAgent(envs, replace(PPO, log_std=0.0), DDIM, episode_steps=4, seed=0, group=2)
    agent.iterate()
    rewards = agent.ppo.algorithm.rollout_buffer.rewards
    assert np.abs(rewards).max() > 0
    np.testing.assert_allclose(rewards[:, 0::2], -rewards[:, 1::2], atol=1e-6)


def test_without_a_ddim_the_family_decides() -> None:
    env = stream_env(3)
    agent = StreamAgent([AgainstRule(env, range(4))], PPO, DDIM, episode_steps=4, seed=0, refine="family")
    agent.imitate(stream_env(3), 20, 2, lambda _: np.array([0.2, 0.3, -0.4]))
    assert np.isnan(agent.iterate()["ddim_loss"])
    tensors = {name: value.detach().numpy() for name, value in agent.networks().items()}
    env.reset(seed=0)
    number, x0 = StreamDecider(card(refine="family"), tensors).action(env.view)
    with torch.no_grad():
        latent = StreamDecider(card(refine="family"), tensors)._actor(torch.from_numpy(env.vector())[None])[0, 1:]
    np.testing.assert_array_equal(x0, family_member(env.decoder, env.view, number, latent.numpy()))


def bits_meant(agent: StreamAgent, bits: float) -> float:
    """Mean bits, in [−1, 1], that the DDIM makes of a latent."""
    observations = torch.from_numpy(stream_env(3).reset(seed=1)[0])[None]
    latent = torch.zeros(1, LATENT_DIM)
    latent[0, 0] = bits
    with torch.no_grad():
        x0 = sample(agent.denoiser.bind(observations), agent.settings, latent, torch.zeros(1, 6))
    return float(x0.reshape(3, 2)[:, 1].mean())


def test_the_ddim_learns_the_family_it_imitates() -> None:
    agent = StreamAgent([AgainstRule(stream_env(3), range(4))], PPO, replace(DDIM, lr=5e-4), episode_steps=4, seed=0)
    agent.imitate(stream_env(3), 200, 500)
    assert bits_meant(agent, -0.8) < -0.3
    assert bits_meant(agent, 0.8) > 0.3


def test_the_rates_of_the_imitation_fall_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a rate that stays, all ranks are off by as much as the last updates happened to move them."""
    rates: list[float] = []

    class Watched(torch.optim.Adam):
        def step(self, closure: Any = None) -> Any:
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    make_agent().imitate(stream_env(2, 3), 20, 16, lambda _: np.zeros(3))
    ddim, actor = np.array(rates[:16]), np.array(rates[16:])
    np.testing.assert_allclose(ddim / ddim[0], 1 - np.arange(16) / 16)
    np.testing.assert_allclose(actor / actor[0], 1 - np.arange(4) / 4)


def test_guidance_is_no_ratchet_when_the_ddim_imitates_itself() -> None:
    ddim = replace(DDIM, lr=5e-4, updates=40, reward_weight=0.0)
    envs = [AgainstRule(stream_env(3), range(4)) for _ in range(4)]
    agent = StreamAgent(envs, replace(PPO, lr=0.0, log_std=-1.0), ddim, episode_steps=4, seed=0)
    agent.imitate(stream_env(3), 200, 500)
    spreads = []
    for _ in range(7):
        spreads.append(bits_meant(agent, 0.4) - bits_meant(agent, -0.4))
        agent.iterate()
    assert max(spreads) == spreads[0]


# commands


CONFIG = """
episodes = 4
environments = 2
group = 2
pool = 4
imitation_steps = 12
imitation_updates = 2
teacher_episodes = 2
checkpoint_every = 1

[[jobs]]
data = "builtin:vehicle-logs,characters=20000"
targets = "q_proj"
rounds = 3
steps_per_round = 2
batch_size = 4
max_length = 24
max_rank = 2
validation_limit = 4

[ppo]
width = 16

[ddim]
width = 16
time_dim = 8
sample_steps = 5
warmup = 4
updates = 1
"""


def test_commands_train_resume_run_and_judge(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(CONFIG)
    out = tmp_path / "out"
    call = CliRunner().invoke

    def check(*arguments: str) -> str:
        result = call(app, list(arguments), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    check("policy", "train", "--mode", "stream", "--out", str(out), "--config", str(tmp_path / "small.toml"))
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [0, 1]
    assert rows[0].keys() >= {"advantage", "reward", "gain", "airtime", "approx_kl", "clip_fraction", "ddim_loss"}

    check("policy", "train", "--mode", "stream", "--out", str(out), "--resume", "--episodes", "6")
    resumed = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(resumed) == 3
    assert resumed[:2] == rows

    run = ("--data", "builtin:vehicle-logs,characters=20000", "--targets", "q_proj", "--rounds", "2")
    small = ("--steps-per-round", "1", "--batch-size", "2", "--max-rank", "2", "--link", "awgn:bandwidth_hz=3e4")
    check("run", "--out", str(tmp_path / "run"), "--policy", f"airllm:{out}", *run, *small)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["rounds"] == 2


def test_a_training_that_is_stopped_among_its_teachers_goes_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.toml").write_text(CONFIG)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    arguments = ["policy", "train", "--mode", "stream", "--out"]
    play = stream_training.play_variations
    played: list[int] = []

    def watched(env: StreamEnv, episode: int, most: int = 100) -> Any:
        if len(played) == most:
            raise KeyboardInterrupt
        played.append(episode)
        return play(env, episode)

    config = ["--config", str(tmp_path / "small.toml")]
    monkeypatch.setattr(stream_training, "play_variations", watched)
    assert CliRunner().invoke(app, [*arguments, str(whole), *config]).exit_code == 0
    in_all, played[:] = list(played), []
    monkeypatch.setattr(stream_training, "play_variations", partial(watched, most=3))
    assert CliRunner().invoke(app, [*arguments, str(stopped), *config]).exit_code == 130
    with (stopped / "teachers.jsonl").open("a") as file:
        file.write('{"airtime_weight": 0.0, "epis')  # as a kill leaves it
    monkeypatch.setattr(stream_training, "play_variations", watched)
    result = CliRunner().invoke(app, [*arguments, str(stopped), "--resume"], catch_exceptions=False)
    assert result.exit_code == 0
    assert played == in_all
    for name in ("policy.safetensors", "teachers.jsonl"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()


def test_teachers_of_another_training_are_refused(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(CONFIG)
    out = tmp_path / "out"
    arguments = ["policy", "train", "--mode", "stream", "--out", str(out)]
    assert CliRunner().invoke(app, [*arguments, "--config", str(tmp_path / "small.toml")]).exit_code == 0
    (out / "training.safetensors").unlink()
    rows = (out / "teachers.jsonl").read_text()
    for wrong in (rows.replace('"episode": 10001', '"episode": 7'), "{}\n", "not JSON\n"):
        (out / "teachers.jsonl").write_text(wrong)
        with pytest.raises(StoreError, match="train in another folder"):
            CliRunner().invoke(app, [*arguments, "--resume"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mode", "other"), "paper, stream"),
        (("--mode", "stream", "--bits", "8"), "not of stream mode"),
        (("--mode", "stream", "--resume", "--seed", "1"), "from the folder"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["policy", "train", "--out", str(tmp_path / "out"), *arguments])
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)


def test_a_configuration_is_read_back_and_checked(tmp_path: Path) -> None:
    config = StreamTrainingConfig(jobs=(StreamJob(seed=3), StreamJob(targets="q_proj")), episodes=7)
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml())
    assert read_stream_config({}, path) == config
    with pytest.raises(InputError, match="rounds"):
        StreamTrainingConfig(jobs=(StreamJob(), StreamJob(rounds=3)))
    with pytest.raises(InputError, match="latent_dim"):
        StreamTrainingConfig(ppo=replace(STREAM_PPO, latent_dim=4))
