"""Stream mode's process: tables, surrogate, simulated rounds, links, reward; and learning on a toy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from airlora.codec import Allocation
from airlora.env.stream import StreamEnv
from airlora.env.stream_baseline import AgainstRule, play_rule
from airlora.env.stream_links import Loaded, draw_link, draw_period
from airlora.env.stream_record import record_job, recorded_config
from airlora.env.stream_settings import StreamJob
from airlora.env.stream_sim import simulate_round
from airlora.env.stream_table import MEASURED_BITS, JobTable
from airlora.env.stream_teacher import EVERYTHING, KNOTS, VARIATIONS, Teacher, fit_teacher, play_variations, room_of
from airlora.env.surrogate import Held, Surrogate, bits_column
from airlora.errors import InputError, StoreError
from airlora.job import build_job
from airlora.link import Awgn, Link, make_link
from airlora.policy import make_policy
from airlora.policy.rules import Fit
from airlora.policy.stream_action import budget_fraction
from airlora.policy.stream_costs import CostGrid
from airlora.policy.tokens import LARGEST_LOAD, LEAST_LOAD, View
from stream_samples import PREFIXES, small_table

TABLE = small_table()
JOB = Surrogate(TABLE)


def steady(rate_bps: float) -> Any:
    """Every episode over the same constant link."""
    return lambda rng, plain, rounds, deadline_s, period_s: Awgn(0.0, rate_bps)  # 0 dB: 1 bit/s a Hz


def uniform(version: int, rank: int, bits: int) -> Held:
    shape = TABLE.energy.shape[1:]
    return Held(np.full(shape, version), np.full(shape, bits), np.full(shape[0], rank), version, bits)


# the surrogate


@given(st.integers(1, TABLE.rounds), st.integers(0, 3), st.sampled_from(MEASURED_BITS))
def test_the_surrogate_is_exact_where_the_gain_was_measured(version: int, prefix: int, bits: int) -> None:
    rank = (0, *PREFIXES)[prefix]
    measured = TABLE.gain[version, prefix, MEASURED_BITS.index(bits)]
    assert JOB.gain(uniform(version, rank, bits)) == pytest.approx(measured, abs=1e-12)


def test_an_edge_with_nothing_gains_nothing() -> None:
    assert JOB.gain(Held.nothing(TABLE)) == 0


def test_the_fit_finds_what_mixtures_cost() -> None:
    assert Surrogate(small_table(mixtures=60)).weights[0] == pytest.approx(-0.3, abs=0.02)
    mean, root = Surrogate(small_table(mixtures=60)).held_out_error()
    assert 0 <= mean <= root < 0.01


def test_bits_finer_than_measured_count_as_the_finest() -> None:
    assert bits_column(np.array([2, 3, 4, 6, 8, 16])).tolist() == [0, 1, 2, 3, 3, 3]


# tables


def test_a_table_is_read_back_as_written_and_a_foreign_file_refused(tmp_path: Path) -> None:
    TABLE.save(tmp_path)
    again = JobTable.load(tmp_path)
    assert again.schema == TABLE.schema
    assert again.name == TABLE.name
    np.testing.assert_array_equal(again.change_u, TABLE.change_u)
    with pytest.raises(StoreError):
        JobTable.load(tmp_path / "missing")
    path = tmp_path / "table.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StoreError):
        JobTable.load(tmp_path)


def test_a_table_of_another_shape_is_refused() -> None:
    with pytest.raises(StoreError, match="do not fit"):
        replace(TABLE, gain=TABLE.gain[1:])


def test_costs_fall_with_what_the_edge_holds() -> None:
    shape = TABLE.energy.shape[1:]
    bits = np.full(shape, 4)
    widths = np.full(shape[0], 4)
    sizes = []
    for version in range(TABLE.rounds + 1):
        costs = TABLE.costs(TABLE.rounds - 1, np.full(shape, version), bits, version)
        sizes.append(costs.update_bytes(Allocation(TABLE.schema.r_max, widths, 4, np.inf)))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.6 * sizes[0]


def test_the_cost_grid_agrees_with_the_codec() -> None:
    costs = TABLE.costs(2, np.full(TABLE.energy.shape[1:], 1), np.full(TABLE.energy.shape[1:], 4), 1)
    grid = CostGrid(costs)
    bits = np.array([3, 4, 8])
    ranks = np.array([4, 2, 1])
    found = grid.components(ranks, bits)
    for index, (rank, width) in enumerate(zip(ranks, bits, strict=True)):
        np.testing.assert_allclose(found[index, :rank], costs.component_bytes(index, rank, int(width)))
        assert not found[index, rank:].any()
    total = grid.totals(np.full(3, 4), 4)
    codec = [costs.update_bytes(Allocation(np.full(3, rank), np.full(3, 4), 4, np.inf)) for rank in (1, 2, 3, 4)]
    np.testing.assert_allclose(total, codec, rtol=0.15)


# a round


def send(
    held: Held, ranks: int, budget: float = np.inf, rate_bps: float = 1e6, round_index: int = 1, price: float = 0.0
) -> Any:
    grid = CostGrid(TABLE.costs(round_index, held.version, held.bits, held.head_version))
    allocation = Allocation(np.full(3, ranks), np.full(3, 4), 4, budget, byte_price=price)
    return simulate_round(JOB, grid, round_index, held, allocation, Awgn(0.0, rate_bps), 0.0, 1.0)


def test_a_whole_update_gives_the_measured_state() -> None:
    outcome = send(Held.nothing(TABLE), 4)
    assert not outcome.delivery.missed
    assert (outcome.held.version == 2).all()
    assert (outcome.held.active == 4).all()
    assert outcome.held.head_version == 2
    assert outcome.gain == pytest.approx(TABLE.gain[2, 3, MEASURED_BITS.index(4)])
    assert outcome.delivery.bytes_on_air == outcome.offered_bytes


def test_a_budget_is_kept_and_what_is_stale_goes_first() -> None:
    first = send(Held.nothing(TABLE), 1, budget=75.0)
    assert 0 < first.offered_bytes <= 75
    fresh = first.held.version[:, 0] > 0
    assert 0 < fresh.sum() < 3
    second = send(first.held, 1, budget=75.0, round_index=2)
    newly = second.held.version[:, 0] == 3
    assert newly[~fresh].any()


def test_an_outage_changes_nothing_and_costs_the_whole_deadline() -> None:
    held = send(Held.nothing(TABLE), 2).held
    grid = CostGrid(TABLE.costs(2, held.version, held.bits, held.head_version))
    link = Loaded(Awgn(0.0, 1e6), 1.0, (0.0,), 1.0)
    outcome = simulate_round(JOB, grid, 2, held, Allocation(np.full(3, 4), np.full(3, 4), 4, np.inf), link, 0.0, 1.0)
    assert outcome.delivery.missed
    assert outcome.delivery.airtime_s == 1.0
    assert outcome.gain == JOB.gain(held)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.floats(0, 3000), st.floats(1, 1e5))
def test_a_round_never_exceeds_its_budget_or_the_link(seed: int, rank: int, budget: float, rate: float) -> None:
    held = Held.nothing(TABLE)
    for index in range(3):
        outcome = send(held, rank, budget, rate, index)
        assert outcome.offered_bytes <= budget
        assert outcome.delivery.bytes_on_air * 8 <= rate + 8
        assert (outcome.held.active <= outcome.held.stored).all()
        held = outcome.held


def test_the_dearer_a_byte_the_fewer_are_offered() -> None:
    nothing = Held.nothing(TABLE)
    whole = send(nothing, 4)
    outcomes = [send(nothing, 4, price=price) for price in (1e-9, 1e-3, 3e-3, 1.0)]
    offered = [outcome.offered_bytes for outcome in outcomes]
    assert offered == sorted(offered, reverse=True)
    assert offered[0] == whole.offered_bytes > offered[2] > offered[-1] == 0
    assert outcomes[-1].gain == 0
    prefixes = [send(nothing, 4, budget=budget) for budget in range(whole.offered_bytes)]  # other ends of layers, too
    worth = [outcome.gain / whole.gain - 3e-3 * outcome.offered_bytes for outcome in (outcomes[2], *prefixes)]
    assert worth[0] >= max(worth) - 0.05


def test_first_components_that_win_nothing_are_sent_where_they_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the encoder does (``codec.choice.layers_not_held_back``)."""
    nothing = Held.nothing(TABLE)
    first = send(nothing, 1, round_index=0).offered_bytes
    monkeypatch.setattr(Surrogate, "gain", lambda self, held: 1.0)
    monkeypatch.setattr(Surrogate, "gains", lambda self, held, actives: np.full(len(actives), 0.998))
    assert send(nothing, 4, price=0.39 / first, round_index=0).offered_bytes == first
    assert send(nothing, 4, price=0.41 / first, round_index=0).offered_bytes == 0
    held = replace(nothing, version=np.ones_like(nothing.version), head_version=1)
    assert send(held, 4, price=0.39 / first).offered_bytes == 0


def test_an_edge_that_waited_longer_is_sent_more_at_the_same_price(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by the encoder (``codec.choice.price_layers``): the first layers win much, later ones less."""
    monkeypatch.setattr(Surrogate, "gain", lambda self, held: 0.5)

    def gains(self: Surrogate, held: Held, actives: np.ndarray) -> np.ndarray:
        return np.full(len(actives), 0.5 + 0.5 * np.mean(held.version == 4) ** 0.5)

    monkeypatch.setattr(Surrogate, "gains", gains)
    offered = []
    for version in (3, 2, 1):
        held = replace(Held.nothing(TABLE), version=np.full((3, 4), version), head_version=version)
        offered.append(send(held, 4, price=3e-3, round_index=3).offered_bytes)
    assert offered[0] < offered[1] < offered[2]


# links


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_links_are_drawn_by_seed_within_the_loads_stated(seed: int) -> None:
    plain = 100_000
    ours, again = (draw_link(np.random.default_rng(seed), plain, 6, 1.0, 1.0) for _ in range(2))
    assert ours.observe(3.0) == again.observe(3.0) or np.isnan(ours.observe(3.0).snr_db)
    state = ours.link.observe(0.0)
    if isinstance(ours.link, Awgn):
        assert LEAST_LOAD * 0.99 <= state.rate_bps / 8 / plain <= LARGEST_LOAD * 1.01


def test_in_an_outage_nothing_is_carried_and_once_it_fills_the_window_the_estimate_is_zero() -> None:
    left = (*[1.0] * 20, 1.0, 0.0, 0.0, 1.0)
    link = Loaded(Awgn(10.0, 1e6), 1.0, left, 2.0, snr_known=False)
    whole = Awgn(10.0, 1e6).observe(0.0).rate_bps
    estimates = [link.observe(float(t_s)).rate_bps / whole for t_s in range(6)]
    np.testing.assert_allclose(estimates, [1, 1, 0.5, 0, 0.5, 1])
    assert np.isnan(link.observe(1.0).snr_db)
    assert link.observe(1.0).bandwidth_hz == 1e6
    assert link.transmit([100], 1.0, 1.9).missed
    assert not link.transmit([100], 1.0, 2.1).missed  # it is back before the deadline
    assert not link.transmit([], 1.0, 1.9).missed
    np.testing.assert_array_equal(link.capacity_bps(np.array([0.5, 1.5, 3.1])) > 0, [True, False, True])


@settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 100.0), st.integers(0, 11))
def test_an_outage_is_of_its_own_slot_whatever_the_slots_length(slot_s: float, out: int) -> None:
    left = (*[1.0] * 20, *(float(index != out) for index in range(12)), 1.0)
    link = Loaded(Awgn(10.0, 1e6), slot_s, left, slot_s)
    for index in range(12):
        missed = link.transmit([1], index * slot_s, slot_s / 2).missed
        assert missed == (index == out)
        estimate = link.observe(index * slot_s).rate_bps
        assert (estimate < 1.0) == (index == out + 1)  # bit/s: rounding may leave a sliver of the slot before


def test_outages_last_for_a_moment_or_for_many_rounds() -> None:
    """Of 300 links: how many are ever out, for which part of the time, and how long the longest outage of each is."""
    shares, longest = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        out = np.array(draw_link(rng, 100_000, 12, 1.0, draw_period(rng, 1.0)).left) == 0
        if out.any():
            edges = np.flatnonzero(np.diff(np.concatenate([[0], out, [0]])))
            shares.append(out.mean())
            longest.append(np.max(edges[1::2] - edges[::2]) / 4)
    assert 45 < len(shares) < 90
    assert 0.1 < np.mean(shares) < 0.35
    assert min(longest) < 4 < 40 < max(longest)


def test_a_load_of_others_changes_the_rate_slot_by_slot_and_shows_in_the_past_only() -> None:
    left = (*[1.0] * 20, 0.5, 2.0, 4.0)
    link = Loaded(Awgn(0.0, 8e6), 0.25, left, 1.0)
    np.testing.assert_allclose(
        link.capacity_bps(np.array([-0.1, 0.1, 0.3, 0.6, 9.0])), np.array([8, 4, 16, 32, 32]) * 1e6
    )
    assert link.transmit([10**7], 0.0, 0.5).bytes_on_air == pytest.approx((4e6 + 16e6) * 0.25 / 8)
    assert link.transmit([10**7], 0.1, 0.3).bytes_on_air == pytest.approx((4e6 * 0.15 + 16e6 * 0.15) / 8)
    assert link.observe(0.0).rate_bps == pytest.approx(8e6)
    assert link.observe(0.5).rate_bps == pytest.approx((8 * 2 + 4 + 16) * 1e6 / 4)
    assert link.observe(0.5).snr_db == 0


def test_drawn_links_err_as_recorded_ones_do() -> None:
    """log10 of what is carried over what was estimated; mahimahi's recordings have a standard deviation of 0.38."""
    found = []
    for seed in range(100):
        link = draw_link(np.random.default_rng(seed), 100_000, 6, 1.0, 2.0)
        for t_s in np.arange(6) * 2.0:
            estimate, carried = link.observe(t_s).rate_bps, 8 * link.transmit([10**9], t_s, 1.0).bytes_on_air
            if estimate and carried:
                found.append(np.log10(carried / estimate))
    assert 0.2 < np.std(found) < 0.4
    assert abs(np.mean(found)) < 0.05


# the environment


@pytest.mark.filterwarnings("ignore:.*A Box observation space.*")
def test_it_passes_the_checkers() -> None:
    check_env(StreamEnv([JOB]), skip_render_check=True)
    check_env_sb3(StreamEnv([JOB]))
    assert isinstance(gymnasium.make("airlora.env:airlora/Stream-v0", recordings=[JOB]).unwrapped, StreamEnv)


def test_the_reward_is_the_gain_less_what_the_airtime_costs() -> None:
    env = StreamEnv([JOB], airtime_weights=(0.5,), make_link=steady(8 * 400.0))
    env.reset(seed=0)
    rank = np.full(3, 4)
    reward, terminated, info = env.send(Allocation(rank, np.full(3, 4), 4, 300.0))
    assert not terminated
    airtime = info["bytes_on_air"] / 400.0
    assert 0 < airtime < 1
    assert info["airtime"] == pytest.approx(airtime)
    assert reward == pytest.approx(JOB.gain(env.held) - 0.5 * airtime)


def test_sending_nothing_costs_nothing_and_gains_nothing() -> None:
    env = StreamEnv([JOB], airtime_weights=(1.0,))
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape, np.float32)  # type: ignore[arg-type]
    action[0] = -1
    rewards = []
    terminated = False
    while not terminated:
        _, reward, terminated, _, _ = env.step(action)
        rewards.append(reward)
    assert rewards == [0.0] * TABLE.rounds


def test_episodes_follow_from_their_seed() -> None:
    env, other = StreamEnv([JOB]), StreamEnv([JOB])
    other.reset(seed=8)
    for seed in (7, 3):
        ours, theirs = env.reset(seed=seed)[0], other.reset(seed=seed)[0]
        np.testing.assert_array_equal(ours, theirs)
        action = env.action_space.sample()
        np.testing.assert_array_equal(env.step(action)[0], other.step(action)[0])


def test_the_zero_action_is_the_rule_fit() -> None:
    env = StreamEnv([JOB])
    for seed in range(8):
        env.reset(seed=seed)
        terminated = False
        while not terminated:
            ours = env.allocation(0.0, np.zeros((3, 2)))
            rule = Fit().decide(env.view.observation)
            if ours.bits.tolist() == rule.bits.tolist():
                sizes = [env.view.observation.costs.update_bytes(each) for each in (ours, rule)]
                frames = 36 * (len(TABLE.schema.prefixes) + 1)  # one a class and the head's; their number is estimated
                assert abs(sizes[0] - sizes[1]) <= frames
            assert ours.budget_bytes == rule.budget_bytes
            whole = env.view.totals[-1] / env.view.observation.budget_bytes if ours.budget_bytes else np.inf
            if not 0.7 < whole < 1.3:  # in between, the estimate of the frames decides
                assert ours.bits.tolist() == rule.bits.tolist()
            _, terminated, _ = env.send(ours)


def test_a_rule_measured_against_itself_earns_nothing() -> None:
    env = AgainstRule(StreamEnv([JOB]), range(5))
    env.reset(seed=1)
    zero = np.zeros(env.action_space.shape, np.float32)  # type: ignore[arg-type]
    assert [env.step(zero)[1] for _ in range(TABLE.rounds)] == [0.0] * TABLE.rounds


def test_environments_of_a_group_play_the_same_episode_and_the_next_group_another() -> None:
    envs = [AgainstRule(StreamEnv([JOB]), range(1000), group=2) for _ in range(4)]
    first, second, third, fourth = (env.reset(seed=6 + index)[0] for index, env in enumerate(envs))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(third, fourth)
    assert not np.array_equal(first, third)


def test_other_policies_can_be_the_baseline() -> None:
    gain, airtime = play_rule(StreamEnv([JOB], make_link=steady(1e7)), Fit(bits=8), 0)
    assert gain[-1] == pytest.approx(1.0)
    assert (airtime < 1).all()


def test_no_recordings_are_refused() -> None:
    with pytest.raises(InputError, match="at least one recording"):
        StreamEnv([])


def test_an_observation_tells_of_the_last_eight_transmissions() -> None:
    table = small_table(rounds=12)
    env = StreamEnv([Surrogate(table)], make_link=steady(1e7))
    env.reset(seed=0)
    known = []
    for _ in range(11):
        known.append(len(env.view.observation.past_rates))
        env.send(Allocation(np.full(3, 4), np.full(3, 4), 4, np.inf))
    assert known == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8]
    assert env.view.observation.past_rates[-1].carried_bps == pytest.approx(1e7)
    nothing = Allocation(np.zeros(3, np.int64), np.full(3, 4), 0, 0.0)
    before = env.view.observation.past_rates
    env.reset(seed=0)
    env.send(nothing)
    assert env.view.observation.past_rates == ()
    assert before


# the teacher

TERMS = len(KNOTS) + 1
"""What the reward of a variation is linear in."""


def test_what_the_teacher_learns_with_little_room_it_does_not_promise_with_much() -> None:
    """What pays on lean links alone is not taught on wide ones, nor beyond the widest."""
    reward = np.zeros((len(VARIATIONS), TERMS))
    reward[1, 0] = 0.1
    teacher = Teacher(reward, np.zeros(len(VARIATIONS)), np.eye(TERMS), 0.1, np.zeros(0))
    np.testing.assert_array_equal(teacher.choose(KNOTS[0] - 3, ()), VARIATIONS[1])
    for room in (KNOTS[1], KNOTS[-1], KNOTS[-1] + 3):
        np.testing.assert_array_equal(teacher.choose(room, ()), VARIATIONS[0])


def test_the_teacher_is_not_taken_in_by_the_luckiest_variation() -> None:
    """Two variations of equal promise: the one that was measured exactly is taught, and fit where neither is sure."""
    count = len(VARIATIONS)
    reward, spread = np.zeros((count, TERMS)), np.zeros(count)
    reward[[1, 2], :-1] = 0.01
    spread[1] = 1.0
    sure = Teacher(reward, spread, np.eye(TERMS) / 100, 0.1, np.zeros(0))
    np.testing.assert_array_equal(sure.choose(-1.0, ()), VARIATIONS[2])
    spread[2] = 1.0
    unsure = Teacher(reward, spread, np.eye(TERMS) / 100, 0.1, np.zeros(0))
    np.testing.assert_array_equal(unsure.choose(-1.0, ()), VARIATIONS[0])


@pytest.mark.parametrize(("reward", "everything"), [(0.2, True), (-0.1, False), (0.0, False)])
def test_where_the_estimate_is_zero_the_teacher_offers_everything_or_nothing(reward: float, everything: bool) -> None:
    count = len(VARIATIONS)
    teacher = Teacher(np.zeros((count, TERMS)), np.zeros(count), np.eye(TERMS), 0.1, np.full(10, reward))
    chosen = teacher.choose(-np.inf, ())
    np.testing.assert_array_equal(chosen, EVERYTHING if everything else VARIATIONS[0])
    assert budget_fraction(EVERYTHING[0]) == np.inf


def test_the_teacher_offers_less_the_more_airtime_costs() -> None:
    teachers = []
    for weight in (0.0, 0.1, 1.0):
        env = StreamEnv([JOB], airtime_weights=(weight,))
        teachers.append(fit_teacher([play_variations(env, episode) for episode in range(20)]))
    assert teachers[0].reward.shape == (len(VARIATIONS), TERMS)
    np.testing.assert_array_equal(teachers[0].reward[0], 0)  # fit beyond fit
    numbers = [teacher.choose(-1.0, ())[0] for teacher in teachers]
    assert numbers == sorted(numbers, reverse=True)
    np.testing.assert_array_equal(teachers[0].choose(math.nan, ()), VARIATIONS[0])


@pytest.mark.parametrize("share", [0.01, 1.0, 100.0])
def test_room_counts_the_components_that_fit(share: float) -> None:
    env = StreamEnv([JOB])
    env.begin(0)
    own, one_bytes = env.view.observation, float(env.view.totals[0])

    def room(rate_bps: float) -> float:
        return room_of(View(replace(own, link=replace(own.link, rate_bps=rate_bps)), 0.0))

    assert room(share * one_bytes * 8 / own.deadline_s) == pytest.approx(math.log10(share))
    assert room(0.0) == -math.inf
    assert math.isnan(room(math.nan))


# a job that begins from a trained base


def test_a_base_model_is_trained_before_its_job_is_recorded(tmp_path: Path) -> None:
    small = StreamJob(
        data="builtin:vehicle-logs", rounds=2, steps_per_round=2, batch_size=4, max_rank=2, validation_limit=4
    )
    trained = replace(small, base_data="builtin:vehicle-logs,seed=7", base_steps=2)
    plain, table = (record_job(job, tmp_path / job.name) for job in (small, trained))
    assert table.base_quality < plain.base_quality - 0.5
    folder = tmp_path / trained.name
    config = recorded_config(trained, folder)
    assert build_job(config, make_policy("fit", 0), make_link("awgn", 0)).workload.base_fingerprint == (
        table.schema.base_fingerprint
    )
    again = record_job(trained, folder, on_stage=lambda stage: pytest.fail(f"{stage} again"))
    assert again.base_quality == table.base_quality
    with pytest.raises(InputError, match="base_data"):
        replace(small, base_steps=2)


# a toy where waiting pays


@dataclass(frozen=True)
class _Toll(Link):
    """Carries anything, and any transmission takes the whole deadline."""

    share: float = 1.0

    def observe(self, t_s: float) -> Any:
        return Awgn(0.0, 1e7).observe(t_s)

    def capacity_bps(self, t_s: np.ndarray) -> np.ndarray:
        return np.full(np.shape(t_s), 1e7)

    def transmit(self, layer_bytes: Sequence[int], start_s: float, deadline_s: float) -> Any:
        found = Awgn(0.0, 1e7).transmit(layer_bytes, start_s, deadline_s)
        return replace(found, airtime_s=deadline_s if sum(layer_bytes) else 0.0)


def test_ppo_learns_to_stay_silent_where_sending_costs_more_than_it_gains() -> None:
    from airlora.env.stream_settings import STREAM_DDIM, STREAM_PPO
    from airlora.policy.stream_agent import StreamAgent

    def make() -> StreamEnv:
        return StreamEnv([JOB], airtime_weights=(3.0,), make_link=lambda *_: _Toll())

    ddim = replace(STREAM_DDIM, sample_steps=5, width=16, time_dim=8, updates=1)
    ppo = replace(STREAM_PPO, width=16, lr=3e-3, log_std=-0.5, batch_size=64)
    envs = [AgainstRule(make(), range(4)) for _ in range(16)]
    agent = StreamAgent(envs, ppo, ddim, episode_steps=TABLE.rounds, seed=0)
    first = agent.iterate()
    last = [agent.iterate() for _ in range(40)][-1]
    assert first["airtime"] > 0.85
    assert last["airtime"] < 0.3
    assert last["advantage"] > 1.5
