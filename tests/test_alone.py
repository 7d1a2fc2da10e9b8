"""One rank alone: all components where the link carries them (``alone=link``), or as many as it carries."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from airlora.adapter import NestedMuon
from airlora.codec import Allocation, Costs
from airlora.compare.plan import Comparison
from airlora.compare.worker import run_comparison
from airlora.config import RunConfig
from airlora.errors import InputError
from airlora.factors import Factors
from airlora.job import Job, build_job
from airlora.link import make_link
from airlora.link.base import LinkState, PastRate
from airlora.play import Play, Quality
from airlora.policy import Observation, Policy, make_policy
from airlora.policy.rules import Alone
from airlora.run import run
from airlora.trajectory import LiveCloud

WIDE, LEAN, LEANEST = (f"awgn:snr_db=10,bandwidth_hz={bandwidth_hz}" for bandwidth_hz in ("1e6", "1e4", "2e3"))
CONFIG = RunConfig(
    data="builtin:vehicle-commands,train=200,validation=64,test=64",
    rounds=2,
    steps_per_round=4,
    batch_size=4,
    validation_limit=64,
    max_rank=4,
    lr=3e-3,
    link=WIDE,
    policy="fit:alone=link",
)


def built(policy: str, link: str, data: str = CONFIG.data, **changes: Any) -> Job:
    """At the built-in learning rates."""
    config = replace(CONFIG, data=data, policy=policy, link=link, lr=None, **changes)
    return build_job(config, make_policy(policy, 0), make_link(link, 0))


@pytest.mark.parametrize("name", ["fit", "airllm"])
def test_a_link_that_carries_all_components_has_them_trained_as_one_rank(name: str) -> None:
    job = built(f"{name}:alone=link", WIDE)
    assert isinstance(job.policy, Alone)
    assert job.policy.inner == make_policy(name, 0)
    assert (job.policy.rank, job.adapter.schema.prefixes) == (4, (4,))
    assert isinstance(job.trainer.optimizer, NestedMuon)
    assert job.policy.training_key == make_policy("fixed:rank=4", 0).training_key
    assert job.lr == built("fixed:rank=4", WIDE).lr != built(name, WIDE).lr


def test_a_link_that_does_not_has_every_prefix_trained() -> None:
    job = built("fit:alone=link", LEAN)
    assert job.policy == make_policy("fit", 0)
    assert job.adapter.schema.prefixes == (1, 2, 4)


def test_left_to_itself_that_is_for_language_modelling() -> None:
    logs = "builtin:vehicle-logs,characters=20000"
    fit = make_policy("fit", 0)
    assert built("fit:alone=auto", WIDE).policy == built("fit:alone=auto", LEAN).policy == fit
    assert built("fit:alone=auto", WIDE, logs).policy == Alone(fit, 4)
    assert built("fit:alone=auto", LEANEST, logs).policy == fit
    assert built("fit:alone=auto", LEANEST, logs, max_rank=32).policy == fit
    growing = built("fit:alone=auto", "awgn:snr_db=10,bandwidth_hz=3e4", logs, max_rank=32).policy
    assert isinstance(growing, Alone)
    assert growing.grows
    assert 8 <= growing.rank < 32
    assert make_policy(RunConfig().policy, 0).alone == "auto"


@pytest.mark.parametrize("rate_bps", [math.nan, 0.0])
def test_a_link_of_which_nothing_is_known_carries_nothing(rate_bps: float, monkeypatch: pytest.MonkeyPatch) -> None:
    link = make_link(WIDE, 0)
    monkeypatch.setattr(type(link), "observe", lambda self, t_s: LinkState(t_s, math.nan, math.nan, rate_bps))
    fit = make_policy("fit", 0)
    assert build_job(CONFIG, make_policy("fit:alone=link", 0), link).policy == fit
    assert build_job(CONFIG, make_policy("fit:alone=grow", 0), link).policy == fit


def test_nothing_is_trained_alone_unless_it_is_asked_for() -> None:
    assert built("fit:alone=never", WIDE).policy == built("fit", WIDE).policy == make_policy("fit", 0)


def train(job: Job, first: int, expected_bytes: float, steps: int = 2) -> None:
    """A round."""
    edge = job.initial_edge
    job.trainer.strategy.begin_round(edge.stored_factors(), edge.active_ranks, expected_bytes)
    job.trainer.train(first, steps, lambda *_: None)


@pytest.fixture
def growing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Job]:
    """Jobs from rank 1 on, with all four components in the adapter."""
    monkeypatch.setattr("airlora.job.FEWEST_ALONE", 1)
    return _growing


def _growing() -> Job:
    job = built("fit:alone=grow", LEANEST)
    assert (job.policy, job.adapter.schema.prefixes) == (Alone(make_policy("fit", 0), 1, grows=True), (1, 2, 4))
    return job


def test_a_rank_grows_with_what_a_round_carries_and_is_not_given_up_again(growing: Callable[[], Job]) -> None:
    job = growing()
    schema, strategy = job.adapter.schema, job.trainer.strategy
    whole = Costs.nominal(schema).update_bytes(Allocation(schema.r_max, np.full(len(schema.r_max), 4), 4, math.inf))
    trained = []
    for index, expected in enumerate((math.nan, 0.0, 0.15 * whole, 0.26 * whole, 0.0)):
        train(job, 2 * index, expected)
        trained.append(strategy.trained_ranks(job.adapter).tolist())
    assert trained == [[rank] * len(schema.projections) for rank in (1, 1, 2, 4, 4)]


def test_rank_one_until_it_grows_is_that_of_a_training_of_rank_one(growing: Callable[[], Job]) -> None:
    job, plain = growing(), built("fixed:rank=1", LEANEST)
    for one in (job, plain):
        train(one, 0, math.nan)
    assert job.lr == plain.lr
    first = job.trainer.factors().truncate(np.ones(len(job.adapter.schema.projections), np.int64))
    for ours, theirs in zip(
        (*first.u, *first.v), (*plain.trainer.factors().u, *plain.trainer.factors().v), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_what_comes_in_changes_nothing_until_it_is_trained_at_the_rate_of_its_rank(growing: Callable[[], Job]) -> None:
    job, whole = growing(), built("fixed:rank=4", WIDE)
    train(job, 0, math.nan)
    before = job.trainer.factors()
    train(job, 2, math.inf, steps=0)
    assert job.trainer.strategy.trained_ranks(job.adapter).tolist() == [4] * len(before.ranks)
    after = job.trainer.factors()
    for u, now in zip(before.u, after.u, strict=True):
        np.testing.assert_array_equal(u, now)
        assert not now[:, 1:].any()
    optimizer = job.trainer.optimizer
    assert optimizer.lr == pytest.approx(whole.lr, rel=0.05)  # built-in rates have two digits
    assert optimizer.head_lr == job.head_lr
    job.trainer.train(2, 1, lambda *_: None)
    assert all(u[:, 1:].any() for u in job.trainer.factors().u)


def test_a_checkpoint_keeps_the_rank(growing: Callable[[], Job]) -> None:
    """After it, training goes on to the bit."""
    whole, cut = growing(), growing()
    for index, expected in enumerate((math.nan, math.inf, math.nan)):
        train(whole, 2 * index, expected)
    for index, expected in enumerate((math.nan, math.inf)):
        train(cut, 2 * index, expected)
    resumed = growing()
    resumed.trainer.load_state({name: value.clone() for name, value in cut.trainer.state().items()})
    train(resumed, 4, math.nan)
    for one, other in zip(whole.trainer.factors().u, resumed.trainer.factors().u, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_expected_is_the_mean_of_the_estimate_and_of_what_rounds_carried(growing: Callable[[], Job]) -> None:
    job = growing()
    quality = Quality(job, 64)
    link = make_link(LEANEST, 0)
    play = Play(CONFIG, job, link, job.policy, LiveCloud(job.trainer, 2, quality.of), quality)
    told: list[float] = []
    begin = job.trainer.strategy.begin_round

    def listen(held: Factors, active: np.ndarray, expected_bytes: float = math.nan) -> None:
        told.append(expected_bytes)
        begin(held, active, expected_bytes)

    job.trainer.strategy.begin_round = listen  # type: ignore[method-assign]
    play.next_round(lambda: None)
    play.past_rates = (PastRate(8e3, 16e3), PastRate(8e3, 80e3))
    play.next_round(lambda: None)
    assert math.isnan(told[0])
    estimate = link.observe(CONFIG.period_s).rate_bps
    assert told[1] == pytest.approx((16e3 + 80e3 + estimate) / 3 * CONFIG.deadline_s / 8)


@dataclass(frozen=True)
class Asks(Policy):
    """For one component of everything, at so many bits."""

    bits: tuple[int, ...]

    def decide(self, observation: Observation) -> Allocation:
        count = len(observation.schema.projections)
        return Allocation(np.ones(count, np.int64), np.resize(self.bits, count), 0, 500.0, byte_price=0.5)


def answer(policy: Alone, carried: float) -> Allocation:
    """Of all four components trained alone, where the link is expected to carry that many times them at three bits."""
    schema = built("fit", WIDE).adapter.schema
    costs, ranks = Costs.nominal(schema), schema.r_max
    whole = costs.update_bytes(Allocation(ranks, np.full(len(ranks), 3), 0, math.inf))
    seen = SimpleNamespace(
        trained_ranks=ranks, schema=schema, costs=costs, budget_bytes=carried * whole, byte_price=lambda weight: 0.0
    )
    return policy.decide(seen)  # type: ignore[arg-type]


def test_no_part_of_a_rank_that_is_trained_alone_is_asked_for() -> None:
    allocation = answer(Alone(Asks((3,)), 4), 0.5)
    assert set(allocation.ranks.tolist()) == {4}
    assert (set(allocation.bits.tolist()), allocation.budget_bytes, allocation.byte_price) == ({3}, 500.0, 0.5)
    assert allocation.keeps_ranks


def test_bits_that_buy_no_components_are_not_saved() -> None:
    """Where all of it is carried at three bits, a learned policy's two are three; more stay."""
    assert answer(Alone(Asks((2, 8)), 4), 10).bits[:2].tolist() == [3, 8]
    assert set(answer(Alone(Asks((2,)), 4), 1.01).bits.tolist()) == {3}
    assert set(answer(Alone(Asks((2,)), 4), 0.99).bits.tolist()) == {2}


def test_a_users_bits_are_kept() -> None:
    policy = built("fit:bits=2,alone=link", WIDE).policy
    assert isinstance(policy, Alone)
    assert set(answer(policy, 10).bits.tolist()) == {2}


@pytest.mark.parametrize("spec", ["fit:alone=always", "airllm:alone=yes"])
def test_where_is_checked(spec: str) -> None:
    with pytest.raises(InputError, match="alone"):
        make_policy(spec, 0)


@pytest.mark.slow
def test_a_comparison_gives_what_runs_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over both links, in processes that need the same recordings."""
    monkeypatch.setattr("airlora.report.write_report", lambda folder: folder)
    monkeypatch.setattr("airlora.compare.worker._FEWEST_ARMS", 1)
    names = ("fit:alone=link", "airllm:alone=link", "fit", "fixed:rank=4", "airllm:alone=grow")
    links = {"wide": WIDE, "lean": LEAN}
    grid = Comparison({"tiny": CONFIG}, links, {name: name for name in names}, (0,))
    units = list(grid.units())
    out = tmp_path / "out"
    run_comparison(units, out, 2, {"commit": "abc", "versions": {}}, lambda *_: None)
    recorded = sorted(path.parent.name for path in out.glob("recordings/*/*/*/complete.json"))
    assert recorded == ["fixed-4", "nested"]
    for unit in units:
        for arm in unit.arms:
            rows = (out / arm.folder / "rounds.jsonl").read_text().splitlines()
            summary, measured = run(arm.config, tmp_path / arm.folder), out / arm.folder / "summary.json"
            lived = (tmp_path / arm.folder / "rounds.jsonl").read_text().splitlines()
            for name in ("bytes_on_air", "edge_quality", "cloud_quality", "edge_ranks"):
                assert [json.loads(row)[name] for row in rows] == [json.loads(row)[name] for row in lived]
            assert summary["edge_quality"] == json.loads(measured.read_text())["edge_quality"]
