"""The bench: a replayed arm is the run itself, and nothing is computed twice."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from airlora.compare import Comparison, read_results, run_comparison, write_csv
from airlora.compare.plan import named, slug
from airlora.compare.results import aggregate, results_markdown
from airlora.compare.worker import run_unit
from airlora.config import RunConfig, load_config
from airlora.errors import InputError
from airlora.run import run

TINY = RunConfig(
    data="builtin:vehicle-commands,train=60,validation=40,test=40",
    rounds=3,
    steps_per_round=2,
    batch_size=8,
    max_rank=4,
    validation_limit=16,
)


def comparison(policies: tuple[str, ...] = ("fit", "adalora")) -> Comparison:
    return Comparison(
        jobs={"tiny": TINY},
        links={"fast": "awgn:snr_db=10", "slow": "awgn:snr_db=10,share=0.02"},
        policies=policies,
        seeds=(0,),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compare") / "out"
    for unit in comparison().units():
        run_unit(unit, out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize(("link", "policy"), [("slow", "fit"), ("fast", "adalora")])
def test_a_replayed_arm_equals_the_run_of_the_same_configuration(finished, tmp_path, link, policy, monkeypatch):
    monkeypatch.setattr("airlora.report.write_report", lambda folder: folder)
    arm = finished / "arms" / "tiny" / "seed-0" / link / policy
    summary = run(load_config({}, arm / "config.toml"), tmp_path / "run")
    replayed = [json.loads(line) for line in (arm / "rounds.jsonl").read_text().splitlines()]
    lived = [json.loads(line) for line in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    for row in replayed:
        del row["capacity_bytes"]
    for row in (*replayed, *lived):
        del row["wall"]
    assert replayed == lived
    measured = json.loads((arm / "summary.json").read_text())
    for name in ("base_quality", "head_only_quality", "cloud_quality", "edge_quality", "metric", "seed", "lr"):
        assert measured[name] == summary[name], name


@pytest.mark.slow
def test_finished_arms_and_recordings_are_not_computed_again(finished):
    files = [path for path in sorted(finished.rglob("*")) if path.is_file()]
    before = [(path, path.stat().st_mtime_ns) for path in files]
    told: list[tuple[int, int]] = []
    run_comparison(comparison(), finished, parallel=1, on_progress=lambda done, total: told.append((done, total)))
    assert [(path, path.stat().st_mtime_ns) for path in files] == before
    assert told[0] == told[-1] == (4, 4)


@pytest.mark.slow
def test_results_state_the_budget_and_count_every_arm(finished, tmp_path):
    results = read_results(finished)
    assert len(results) == 4
    ratio = {row["link"]: row["budget_ratio"] for row in results}
    assert ratio["slow"] == pytest.approx(0.02 * ratio["fast"], rel=1e-3)
    write_csv(results, tmp_path / "summary.csv")
    with (tmp_path / "summary.csv").open(newline="") as file:
        assert [row["policy"] for row in csv.DictReader(file)] == [row["policy"] for row in results]


def test_aggregation_by_hand():
    rows = [
        {
            "job": "j",
            "link": "l",
            "policy": "p",
            "seed": seed,
            "metric": "nll",
            "budget_ratio": 0.5,
            "base_quality": 3.0,
            "head_only_quality": None,
            "cloud_quality": 2.0,
            "edge_quality": quality,
            "mean_edge_validation": 2.5,
            "bytes_on_air": 2000,
            "missed": seed,
            "rounds": 4,
        }
        for seed, quality in enumerate((2.2, 2.4))
    ]
    (row,) = aggregate(rows)
    assert row["edge_quality"] == pytest.approx(2.3)
    assert (row["edge_low"], row["edge_high"], row["missed"], row["seeds"]) == (2.2, 2.4, 0.5, 2)
    assert "| 2.300 (2.200–2.400) | 2.500 | 2.0 | 0.5/4 |" in results_markdown(rows)


def test_names_and_slugs():
    assert named("air=awgn:snr_db=3", "link") == ("air", "awgn:snr_db=3")
    assert named("awgn:snr_db=3", "link") == ("awgn_snr_db=3", "awgn:snr_db=3")
    assert slug("trace:a/b.csv,unit=Mbps") == "trace_a_b.csv_unit=Mbps"
    with pytest.raises(InputError, match="is not name=value"):
        named("air=", "link")


def test_an_empty_grid_is_refused():
    with pytest.raises(InputError, match="policies"):
        comparison(policies=())
