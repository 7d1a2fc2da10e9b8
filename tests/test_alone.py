"""All components as one rank alone, where the link carries them all (``alone=link``)."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from airlora.adapter import NestedMuon
from airlora.codec import Allocation
from airlora.compare.plan import Comparison
from airlora.compare.worker import run_comparison
from airlora.config import RunConfig
from airlora.errors import InputError
from airlora.job import Job, build_job
from airlora.link import make_link
from airlora.link.base import LinkState
from airlora.policy import Observation, Policy, make_policy
from airlora.policy.rules import Alone
from airlora.run import run

WIDE, LEAN = "awgn:snr_db=10,bandwidth_hz=1e6", "awgn:snr_db=10,bandwidth_hz=1e4"
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


def built(policy: str, link: str, data: str = CONFIG.data) -> Job:
    """At the built-in learning rates."""
    config = replace(CONFIG, data=data, policy=policy, link=link, lr=None)
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
    assert built("fit:alone=auto", WIDE).policy == built("fit:alone=auto", LEAN, logs).policy == make_policy("fit", 0)
    assert built("fit:alone=auto", WIDE, logs).policy == Alone(make_policy("fit", 0), 4)
    assert make_policy(RunConfig().policy, 0).alone == "auto"


@pytest.mark.parametrize("rate_bps", [math.nan, 0.0])
def test_a_link_of_which_nothing_is_known_carries_nothing(rate_bps: float, monkeypatch: pytest.MonkeyPatch) -> None:
    link = make_link(WIDE, 0)
    monkeypatch.setattr(type(link), "observe", lambda self, t_s: LinkState(t_s, math.nan, math.nan, rate_bps))
    assert build_job(CONFIG, make_policy("fit:alone=link", 0), link).policy == make_policy("fit", 0)


def test_nothing_is_trained_alone_unless_it_is_asked_for() -> None:
    assert built("fit:alone=never", WIDE).policy == built("fit", WIDE).policy == make_policy("fit", 0)


class Asks(Policy):
    """For one component of everything, at three bits."""

    def decide(self, observation: Observation) -> Allocation:
        count = len(observation.schema.projections)
        return Allocation(np.ones(count, np.int64), np.full(count, 3), 3, 500.0, byte_price=0.5)


def test_no_part_of_a_rank_that_is_trained_alone_is_asked_for() -> None:
    seen = SimpleNamespace(trained_ranks=np.full(3, 4), schema=SimpleNamespace(projections=(None,) * 3))
    allocation = Alone(Asks(), 4).decide(seen)  # type: ignore[arg-type]
    assert allocation.ranks.tolist() == [4, 4, 4]
    assert (allocation.bits.tolist(), allocation.budget_bytes, allocation.byte_price) == ([3, 3, 3], 500.0, 0.5)


@pytest.mark.parametrize("spec", ["fit:alone=always", "airllm:alone=yes"])
def test_where_is_checked(spec: str) -> None:
    with pytest.raises(InputError, match="alone"):
        make_policy(spec, 0)


@pytest.mark.slow
def test_a_comparison_gives_what_runs_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over both links, in processes that need the same recordings."""
    monkeypatch.setattr("airlora.report.write_report", lambda folder: folder)
    monkeypatch.setattr("airlora.compare.worker._FEWEST_ARMS", 1)
    names = ("fit:alone=link", "airllm:alone=link", "fit", "fixed:rank=4")
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
