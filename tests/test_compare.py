"""The bench: a replayed arm is the run itself, nothing is computed twice, and a failing arm harms no other."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from airlora import cli
from airlora.adapter import NestedAdapter, find_targets
from airlora.compare import Comparison, run_comparison
from airlora.compare.command import Options, read_rates, resolve
from airlora.compare.estimate import JobTimes, as_text, total_seconds, unit_seconds
from airlora.compare.peers import FILE_KINDS, make_peer
from airlora.compare.plan import named, named_arm, rated, slug
from airlora.compare.provenance import describe
from airlora.compare.replay import Bench
from airlora.compare.suites import BUDGET_BPS, JOBS, SUITES, job
from airlora.compare.worker import check_finished, read_errors, run_unit
from airlora.config import RunConfig, load_config
from airlora.errors import InputError, OutputError
from airlora.factors import Projection, Schema
from airlora.job import load_workload
from airlora.link import make_link
from airlora.policy import make_policy
from airlora.run import run

SHARED = Path(__file__).parents[2] / "shared"
TINY = RunConfig(
    data="builtin:vehicle-commands,train=60,validation=40,test=40",
    rounds=2,
    steps_per_round=2,
    batch_size=8,
    max_rank=4,
    validation_limit=16,
)

PROJECTIONS = tuple(Projection(str(index), 512, 512, 32) for index in range(12))
TIMES = JobTimes(
    schema=Schema(PROJECTIONS, (1, 4, 32)), step_s=2.0, pass_s=1.0, round_s=0.75, validation_s=0.5, test_s=3.0
)
"""Of a job of this schema, measured nowhere."""


def comparison(policies: tuple[str, ...] = ("fit", "adalora"), **changes: object) -> Comparison:
    grid = Comparison(
        jobs={"tiny": TINY},
        links={"fast": "awgn:snr_db=10", "slow": "awgn:snr_db=10,share=0.02"},
        policies={policy: policy for policy in policies},
        seeds=(0,),
    )
    return replace(grid, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compare") / "out"
    for unit in comparison().units():
        run_unit(unit, out, {"commit": "abc", "versions": {}})
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
    for name in (
        "base_quality",
        "head_only_quality",
        "cloud_quality",
        "edge_quality",
        "metric",
        "seed",
        "lr",
        "head_lr",
        "rounds",
    ):
        assert measured[name] == summary[name], name
    assert measured["validation"] == summary["validation"]
    assert (measured["arm"], measured["arm_kind"], measured["steps_trained"]) == (policy, "policy", 4)


def modified(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_finished_arms_and_recordings_are_not_computed_again(finished):
    before = modified(finished)
    told: list[tuple[int, int]] = []
    run_comparison(list(comparison().units()), finished, 1, {}, lambda done, total: told.append((done, total)))
    assert modified(finished) == before
    assert told == [(4, 4)]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"lr": 0.25}, {"head_lr": 0.25}])
def test_a_recording_at_another_rate_is_refused(finished, changes, tmp_path):
    shutil.copytree(finished / "recordings", tmp_path / "recordings")
    (unit,) = comparison(("flood:bits=8",), jobs={"tiny": replace(TINY, **changes)}).units()
    with pytest.raises(InputError, match=f"was trained with {next(iter(changes))} .* this comparison has 0.25"):
        Bench(unit, tmp_path, {}).run_arm(unit.arms[0])


@pytest.mark.slow
def test_another_grid_in_the_same_folder_adds_arms_and_trains_nothing_again(finished):
    before = modified(finished)
    (unit,) = comparison(("fit", "flood")).units()
    run_unit(unit, finished, {})
    added = set(modified(finished)) - set(before)
    assert {path.relative_to(finished).parts[:5] for path in added} == {
        ("arms", "tiny", "seed-0", link, "flood") for link in ("fast", "slow")
    }
    assert {path: time for path, time in modified(finished).items() if path in before} == before


@pytest.mark.slow
def test_an_arm_of_the_same_name_but_another_configuration_is_refused(finished):
    grid = comparison(jobs={"tiny": replace(TINY, lr=0.5)})
    arms = [arm for unit in grid.units() for arm in unit.arms]
    with pytest.raises(OutputError, match=r"slow.adalora was run with another configuration|another configuration of"):
        check_finished(arms, finished)


@pytest.mark.slow
def test_a_failing_arm_harms_no_other_and_is_named_at_the_end(tmp_path, monkeypatch, capfd):
    toml = tmp_path / "tiny.toml"
    toml.write_text(replace(TINY, rounds=1).to_toml())
    monkeypatch.setattr("airlora.compare.command.write_reports", lambda out: None)
    monkeypatch.setattr("airlora.compare.command.results_table", lambda out: "the table")
    command = ["airlora", "compare", "--out", str(tmp_path / "out"), "--jobs", f"tiny={toml}", "--seeds", "1"]
    command += ["--links", "air=awgn:snr_db=10", "--policies", "fit", "--peers", "c3a:divide=7"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    told = capfd.readouterr()
    assert "2 arms to run, about" in told.out
    assert "failed: tiny · air · peft-c3a:divide=7 · seed 0: peer c3a: divide=7 does not divide" in told.out
    assert "1 arms failed, the others are kept" in told.err
    arms = tmp_path / "out" / "arms" / "tiny" / "seed-0" / "air"
    assert (arms / "fit" / "summary.json").exists()
    assert "give a divisor" in json.loads((arms / "peft-c3a_divide=7" / "error.json").read_text())["error"]
    made = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert made["command"].startswith("airlora compare --out")
    assert (made["seeds"], made["peers"]) == ([0], ["peft-c3a:divide=7"])


def test_arms_that_differ_in_what_they_send_share_one_training():
    peers = {kind: make_peer(f"lora:rank=2,file={kind}") for kind in FILE_KINDS}
    units = list(comparison(peers={**peers, "longer": make_peer("lora:rank=2,steps=2")}).units())
    assert [(unit.training, len(unit.arms)) for unit in units] == [
        ("nested", 2),
        ("adalora", 2),
        ("peft-lora:rank=2", 6),
        ("peft-lora:rank=2,steps=2", 2),
    ]


def test_every_rank_that_is_trained_alone_is_a_training_of_its_own():
    policies = ("fit", "flood", "fixed:rank=1,bits=2", "fixed:rank=1,bits=4", "fixed:rank=2")
    rates = {"tiny": {"fixed-1": {"lr": 0.5}}}
    units = list(comparison(policies, rates=rates).units())
    assert [(unit.training, len(unit.arms)) for unit in units] == [("nested", 4), ("fixed-1", 4), ("fixed-2", 2)]
    assert [{arm.config.lr for arm in unit.arms} for unit in units] == [{None}, {0.5}, {0.354}]


def test_tuned_rates_reach_jobs_and_peers():
    rates = {"tiny": {"nested": {"lr": 0.25, "head": 4.0}, "lora:rank=2": {"lr": 0.5, "head": 2.0}}}
    ours, theirs = comparison(("fit",), peers={"p": make_peer("lora:rank=2")}, rates=rates).units()
    assert {(arm.config.lr, arm.config.head_lr) for arm in ours.arms} == {(0.25, 1.0)}
    assert (theirs.arms[0].peer.lr, theirs.arms[0].peer.head) == (0.5, 2.0)
    given = comparison(("fit",), jobs={"tiny": replace(TINY, lr=0.1)}, rates=rates)
    config = next(iter(given.units())).arms[0].config
    assert (config.lr, config.head_lr) == (0.1, None)
    given = comparison(("fit",), jobs={"tiny": replace(TINY, head_lr=0.1)}, rates=rates)
    config = next(iter(given.units())).arms[0].config
    assert (config.lr, config.head_lr) == (0.25, 0.1)


def test_a_rank_that_was_not_tuned_takes_the_rate_of_the_nearest():
    rates = {"fixed-2": {"lr": 0.2, "head": 3.0}, "fixed-16": {"lr": 0.1, "head": 4.0}, "adalora-8": {"lr": 0.01}}
    near = rated(TINY, rates, make_policy("fixed:rank=5", 0))
    assert (near.lr, near.head_lr) == (0.126, pytest.approx(0.6))  # 0.2 √(2 / 5), and the head's own as it is
    assert rated(TINY, rates, make_policy("fixed:rank=32", 0)).lr == 0.0707
    assert rated(TINY, rates, make_policy("adalora:rank=3", 0)).lr == 0.01
    nested = rates | {"nested-8": {"lr": 0.3}, "nested-64": {"lr": 0.4}}  # of the largest prefix: TINY's
    assert rated(TINY, nested, make_policy("uniform:rank=2", 0)).lr == 0.3
    assert rated(replace(TINY, max_rank=48), nested, make_policy("fit", 0)).lr == 0.4
    assert rated(TINY, nested, make_policy("fit:alone=link", 0)).lr is None
    for untouched in ("fixed", "adalora", "fit", "uniform:rank=2"):
        assert rated(TINY, rates, make_policy(untouched, 0)) == TINY
    assert rated(replace(TINY, lr=0.3), rates, make_policy("fixed:rank=2", 0)).lr == 0.3


@pytest.mark.slow
def test_a_rank_that_follows_the_link_is_trained_at_its_own_rate(tmp_path):
    links = {"fast": "awgn:snr_db=10", "slow": "awgn:snr_db=10,share=0.02"}
    rates = {"tiny": {"fixed-1": {"lr": 0.02, "head": 2.0}, "fixed-4": {"lr": 0.001}}}
    (unit,) = comparison(("fixed",), links=links, rates=rates).units()
    run_unit(unit, tmp_path, {})
    ways = [json.loads((tmp_path / arm.folder / "summary.json").read_text()) for arm in unit.arms]
    assert [way["lr"] for way in ways] == [0.001, 0.02]
    assert ways[1]["head_lr"] == 0.04


def test_a_rates_file_is_checked(tmp_path):
    path = tmp_path / "rates.toml"
    path.write_text('[tiny]\nnested = {lr = 0.1, quality = 3.0}\n"lora:rank=1" = {lr = 1, head = 5}\n')
    assert read_rates(path) == {"tiny": {"nested": {"lr": 0.1}, "lora:rank=1": {"lr": 1.0, "head": 5.0}}}
    path.write_text("[tiny]\nnested = 0.1\n")
    with pytest.raises(InputError, match="needed is a table such as"):
        read_rates(path)


def test_names_and_slugs():
    assert named("air=awgn:snr_db=3", "link") == ("air", "awgn:snr_db=3")
    assert named("awgn:snr_db=3", "link") == ("awgn_snr_db=3", "awgn:snr_db=3")
    assert named_arm("uniform:rank=3", "policy") == ("uniform:rank=3", "uniform:rank=3")
    assert named_arm("ours=uniform:rank=3", "policy") == ("ours", "uniform:rank=3")
    assert slug("trace:a/b.csv,unit=Mbps") == "trace_a_b.csv_unit=Mbps"
    with pytest.raises(InputError, match="is not name=value"):
        named("air=", "link")


def test_an_empty_grid_is_refused():
    with pytest.raises(InputError, match="at least one of: policies, peers"):
        comparison(policies=())
    with pytest.raises(InputError, match="at least one of: links"):
        comparison(links={})


def test_what_was_asked_for_adds_up_over_sittings(tmp_path):
    rates = {"tiny": {"nested": {"lr": 0.5}}, "of another job": {"nested": {"lr": 0.1}}}
    describe(comparison(("fit",), rates=rates), "first", "quick", tmp_path, {"commit": "a", "versions": {}})
    describe(comparison(("flood",), seeds=(0, 1)), "second", None, tmp_path, {"commit": "b", "versions": {}})
    made = json.loads((tmp_path / "comparison.json").read_text())
    assert (made["command"], made["commands"], made["suite"]) == ("second", ["first", "second"], "quick")
    assert (list(made["arms"]), made["seeds"], made["commit"]) == (["fit", "flood"], [0, 1], "b")
    assert made["rates"] == {"tiny": {"nested": {"lr": 0.5}}}


def test_an_estimate_by_hand(tmp_path):
    ours, theirs = comparison(("fit",), peers={"p": make_peer("lora:rank=2,steps=2")}).units()
    # starting 6; base and head alone 4 · 1 / 2 + 2 · 3; recording 4 · 2 + 2 · 0.5 + 3; two arms of 2 · 0.75 + 3
    assert unit_seconds(ours, tmp_path, TIMES) == pytest.approx(6 + 8 + 12 + 9)
    # starting 6; training 4 · 2 · 1; fp32 and fp16 measured in 2 rounds, and on test
    assert unit_seconds(theirs, tmp_path, TIMES) == pytest.approx(6 + 8 + 2 + 6)
    assert total_seconds([5, 3, 4, 1], parallel=2) == 7
    assert [as_text(s) for s in (42, 600, 9000)] == ["42 s", "10 min", "2.5 h"]


def test_a_training_that_looks_at_the_edge_is_counted_for_every_link(tmp_path):
    (unit,) = comparison(("fit:steer=0.5",)).units()
    assert unit_seconds(unit, tmp_path, TIMES) == pytest.approx(6 + 8 + 2 * 12 + 9)


def test_what_the_links_choose_to_train_is_counted_if_it_is_not_there(tmp_path):
    """One rank takes 4 · 1 + 2 · 0.5 + 3; the fast link carries all components, the slow one few."""
    (unit,) = comparison(("fit:alone=link",)).units()
    assert unit_seconds(unit, tmp_path, TIMES) == pytest.approx(6 + 8 + 8 + 12 + 9)
    for name, left in (("nested", 8), ("fixed-32", 0)):
        folder = tmp_path / unit.recordings / name
        folder.mkdir(parents=True)
        (folder / "complete.json").touch()
        assert unit_seconds(unit, tmp_path, TIMES) == pytest.approx(6 + 8 + left + 9)
    links = {name: f"awgn:snr_db=10,share={share}" for name, share in (("fast", 1), ("slower", 0.05), ("slow", 0.04))}
    (growing,) = comparison(("fit:alone=grow",), links=links).units()
    assert unit_seconds(growing, tmp_path, TIMES) == pytest.approx(6 + 8 + 2 * 8 + 3 * 4.5)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["fit:steer=0.75", "fixed:rank=2,bits=3,rounding=0.5"])
def test_a_training_that_looks_at_the_edge_is_the_runs_own_on_every_link(tmp_path, policy, monkeypatch):
    """It is not recorded: each arm trains on its own link, as a run of the same configuration does."""
    monkeypatch.setattr("airlora.report.write_report", lambda folder: folder)
    (unit,) = comparison((policy,)).units()
    run_unit(unit, tmp_path / "out", {"commit": "abc", "versions": {}})
    assert not list((tmp_path / "out" / unit.recordings).glob("*/round-*"))
    for arm in unit.arms:
        folder = tmp_path / "out" / arm.folder
        summary = run(load_config({}, folder / "config.toml"), tmp_path / arm.link)
        measured = json.loads((folder / "summary.json").read_text())
        rows = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
        lived = [json.loads(line) for line in (tmp_path / arm.link / "rounds.jsonl").read_text().splitlines()]
        for name in ("bytes_on_air", "edge_quality", "cloud_quality", "edge_ranks"):
            assert [row[name] for row in rows] == [row[name] for row in lived]
        assert (measured["edge_quality"], measured["cloud_quality"]) == (
            summary["edge_quality"],
            summary["cloud_quality"],
        )
        assert measured["training_s"] > 0


@pytest.mark.slow
def test_arms_of_one_training_are_shared_out_and_give_what_one_process_gives(tmp_path, finished, monkeypatch):
    monkeypatch.setattr("airlora.compare.worker._FEWEST_ARMS", 1)
    grid = comparison(("fit", "flood"))
    units = list(grid.units())
    assert [len(unit.arms) for unit in units] == [4]
    seen = []
    run_comparison(
        units, tmp_path, 2, {"commit": "abc", "versions": {}}, lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (4, 4)
    assert read_errors(units, tmp_path) == []
    for link in ("fast", "slow"):
        mine, other = (
            json.loads((folder / "arms/tiny/seed-0" / link / "fit/summary.json").read_text())
            for folder in (tmp_path, finished)
        )
        assert mine["edge_quality"] == other["edge_quality"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root in which everything is there, and empty."""
    names = (
        "data/sst2",
        "data/clinc150",
        "data/clinc10",
        "data/trec",
        "data/cola",
        "models/minilm",
        "models/stories260K",
        "traces",
    )
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    for name in ("data/tinyshakespeare.txt", "traces/links_1s.csv.gz"):
        (tmp_path / name).touch()
    return tmp_path


def test_the_paper_suite_covers_budgets_from_a_hundredth_to_one(root):
    links = SUITES["paper"].comparison(root, None, {}).links
    budgets = sorted(make_link(spec, 0).observe(0.0).rate_bps / BUDGET_BPS for spec in links.values())
    assert (budgets[0], budgets[-1]) == pytest.approx((0.01, 1), rel=1e-3)
    assert np.diff(np.log10(budgets)).max() < 0.5


def test_a_deadline_makes_a_link_mean_one_budget_for_every_job(root):
    for name in JOBS:
        config = job(root, name)
        assert config.deadline_s <= config.period_s
    deadlines = {name: job(root, name).deadline_s for name in JOBS}
    assert deadlines["shakespeare"] == pytest.approx(1.0, rel=1e-3)
    assert deadlines["sst2"] == pytest.approx(4 * (331_776 + 770) * 8 / BUDGET_BPS, rel=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared models and data beside the project")
def test_the_deadline_is_that_of_the_real_adapter():
    config = job(SHARED, "shakespeare")
    workload = load_workload(config)
    adapter = NestedAdapter(workload.model, find_targets(workload.model), max_rank=8, alpha=16)
    assert config.deadline_s * BUDGET_BPS / 8 == pytest.approx(adapter.schema.plain_lora_bytes(), rel=1e-3)


def test_the_bytes_suite_offers_every_kind_of_file_and_trains_each_peer_once(root):
    grid = SUITES["bytes"].comparison(root, 1, {})
    assert {config.rounds for config in grid.jobs.values()} == {1}
    files: dict[str, set[str]] = {}
    for peer in grid.peers.values():
        files.setdefault(peer.training_key, set()).add(peer.file)
    assert all(kinds == set(FILE_KINDS) for kinds in files.values())
    methods = {key.removeprefix("peft-").partition(":")[0] for key in files}
    assert methods == {"lora", "adalora", "dora", "eva", "vera", "c3a", "lokr", "ia3"}
    ranks = {key for key in files if key.startswith("peft-lora:") and "steps" not in key}
    assert ranks == {f"peft-lora:rank={rank}" for rank in (1, 2, 4, 8, 16, 32, 64)}


def test_every_link_of_the_links_suite_says_whether_its_source_is_held_out(root):
    links = SUITES["links"].comparison(root, 1, {}).links
    held = {name for name in links if name.startswith("held_")}
    seen = {name for name, spec in links.items() if "trace=driving/B_2019.12.16_14.23.32" in spec}
    assert held | seen == set(links)
    assert not held & seen


def test_options_choose_among_a_suites_own_and_replace_them(root):
    whole = SUITES["paper"].comparison(root, None, {})
    chosen = resolve(
        Options(
            Path("out"),
            "paper",
            jobs=("sst2",),
            links=("wide_15dB", "mine=awgn:snr_db=1"),
            policies=("mine=fit:bits=8",),
            peers=("none",),
            seeds=2,
            first_seed=3,
            data_root=root,
        )
    )
    assert list(chosen.jobs) == ["sst2"]
    assert chosen.links == {"wide_15dB": whole.links["wide_15dB"], "mine": "awgn:snr_db=1"}
    assert (chosen.policies, chosen.peers, chosen.seeds) == ({"mine": "fit:bits=8"}, {}, (3, 4))
    assert resolve(Options(Path("out"), "paper", data_root=root)) == whole


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"suite": "everything"}, "unknown suite 'everything'; there are: paper, rules, links, bytes, quick"),
        ({"suite": "paper"}, "suite 'paper' needs real data; give --data-root"),
        ({"suite": "paper", "data_root": Path("nowhere")}, r"job 'sst2' needs nowhere.* lay it out with"),
        ({"jobs": ("sst2",), "links": ("awgn",), "policies": ("fit",)}, "job 'sst2' needs --data-root"),
        ({"suite": "quick", "seeds": 0}, "--seeds 0"),
        ({"suite": "quick", "first_seed": -1}, "--first-seed -1"),
    ],
)
def test_what_a_comparison_lacks_is_named(options, complaint):
    with pytest.raises(InputError, match=complaint):
        resolve(Options(Path("out"), **options))


def test_the_list_states_what_every_suite_holds(monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["airlora", "compare", "--list"])
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    told = " ".join(capfd.readouterr().out.split())
    assert all(name in told for name in SUITES)
    assert "mahimahi" in told
    assert "3 min" in told


@pytest.mark.slow
def test_errors_of_arms_that_have_finished_since_are_forgotten(finished, tmp_path):
    (unit,) = comparison(("fit",)).units()
    folder = finished / unit.arms[0].folder
    (folder / "error.json").write_text("{}")
    assert read_errors([unit], finished) == []
    (folder / "error.json").unlink()
    assert read_errors([unit], tmp_path) == []
