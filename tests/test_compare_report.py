"""The tables, figures and pages of a comparison, from a folder whose right answers are known."""

from __future__ import annotations

import io
import json
import re
import runpy
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from airlora.compare import equal_quality, tables
from airlora.compare.cells import (
    budget_cells,
    budget_groups,
    difference,
    kilobytes,
    measure_tables,
    multiplicity_text,
    percent,
    seeds_text,
    verdict_rows,
)
from airlora.compare.equal_quality_cells import match_rows, rate_rows
from airlora.compare.figures import _round_ticks as round_ticks
from airlora.compare.figures import arm_styles, pareto_charts
from airlora.compare.markdown import block_arms, replace_block, results_block, results_page
from airlora.compare.published import publish
from airlora.compare.results import gather, read_findings, results_table, write_reports
from airlora.errors import InputError, OutputError, StoreError

ROUNDS = 4
FILE_BYTES = 10_000
LINKS = {"weak": ("awgn:snr_db=-5", 0.1), "strong": ("awgn:snr_db=15", 1.0)}


def write_arm(
    out: Path,
    job: str,
    link: str,
    arm: str,
    seed: int,
    gains: list[float],
    bytes_on_air: list[int],
    capacity: float,
    metric: str = "accuracy",
    test_gain: float | None = None,
) -> None:
    """One finished arm, as the harness writes it; its last gain holds on the test split unless that has its own."""
    sign, base = (1, 0.2) if metric == "accuracy" else (-1, 3.0)
    peer = arm.startswith("peft-")
    folder = out / "arms" / job / f"seed-{seed}" / link / re.sub(r"[^\w.=-]+", "_", arm)
    folder.mkdir(parents=True)
    rows = [
        {
            "round": index,
            "t_s": float(index),
            "link": {"snr_db": None, "rate_bps": 1e5},
            "ranks": {} if peer else {"a": 2, "b": 0},
            "bits": {} if peer else {"a": 4, "b": 8},
            "bytes_offered": sent,
            "bytes_delivered": sent,
            "bytes_on_air": sent,
            "capacity_bytes": capacity * FILE_BYTES,
            "missed": index == 0,
            "airtime_s": 0.5,
            "edge_quality": base + sign * gained,
            "cloud_quality": base + sign * 0.5,
            "wall": {"decision_s": 0.002, "train_s": 1.0},
        }
        for index, (gained, sent) in enumerate(zip(gains, bytes_on_air, strict=True))
    ]
    summary: dict[str, Any] = {
        "job": job,
        "link": link,
        "arm": arm,
        "arm_kind": "peer" if peer else "policy",
        "seed": seed,
        "metric": metric,
        "higher_is_better": sign > 0,
        "base_quality": base,
        "head_only_quality": None if metric == "nll" else base + 0.1,
        "cloud_quality": base + sign * 0.5,
        "edge_quality": base + sign * (gains[-1] if test_gain is None else test_gain),
        "validation": {"base_quality": base},
        "deadline_s": 1.0,
        "plain_lora_bytes": FILE_BYTES,
        "training_s": 12.0,
        "steps_trained": 40,
        "commit": "abc1234",
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "rounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_comparison(out: Path, links: dict[str, str]) -> None:
    made = {
        "commands": ["airlora compare --out OUT --seeds 3"],
        "versions": {"torch": "2.13.0", "airlora": "0.1"},
        "suite": None,
        "links": links,
        "jobs": {"intents": {"lr": None}, "stories": {"lr": None}},
        "arms": {},
        "peers": [],
        "seeds": [0, 1, 2],
        "rates": {"intents": {"nested": {"lr": 1.0}}},
    }
    (out / "comparison.json").write_text(json.dumps(made))


def fill(out: Path, seeds: int = 3) -> Path:
    """Two jobs over two links: ``fit`` beats ``uniform`` by 0.1 in every seed, and the peer gains nothing."""
    for job, metric in (("intents", "accuracy"), ("stories", "nll")):
        for link, (_, capacity) in LINKS.items():
            size = int(500 * capacity)
            top = 0.3 if link == "weak" else 0.4
            for seed in range(seeds):
                wiggle = 0.01 * seed
                fit = [0.0, 0.1, 0.2, top + wiggle]
                worse = [0.0, 0.1, 0.1, top + wiggle - 0.1]
                write_arm(out, job, link, "fit", seed, fit, [size] * ROUNDS, capacity, metric)
                write_arm(out, job, link, "uniform:rank=2", seed, worse, [2 * size] * ROUNDS, capacity, metric)
                write_arm(out, job, link, "peft-lora:rank=8", seed, [0.0] * 4, [4 * size] * ROUNDS, capacity, metric)
    write_comparison(out, {name: spec for name, (spec, _) in LINKS.items()})
    return out


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fill(tmp_path_factory.mktemp("measured") / "small")
    write_reports(folder)
    return folder


def test_results_parquet_has_one_row_a_round_with_the_agreed_columns(out):
    table = pd.read_parquet(out / "results.parquet")
    assert len(table) == 2 * 2 * 3 * 3 * ROUNDS
    agreed = """job link arm arm_kind seed round t_s metric higher_is_better base_quality cloud_quality edge_quality
        bytes_offered bytes_delivered bytes_on_air capacity_bytes airtime_s deadline_s missed decision_s train_s
        mean_rank mean_bits snr_db rate_bps plain_lora_bytes"""
    assert list(table.columns) == re.findall(r"\w+", agreed)
    ours = table[table["arm_kind"] == "policy"]
    assert (ours["mean_rank"] == 1.0).all()
    assert (ours["mean_bits"] == 4.0).all(), "a projection that sends nothing has no bits"
    assert table.loc[table["arm_kind"] == "peer", "mean_rank"].isna().all()


def test_summary_csv_has_one_row_an_arm_and_seed_by_hand(out):
    table = pd.read_csv(out / "summary.csv").set_index(["job", "link", "arm", "seed"])
    row = table.loc[("intents", "weak", "fit", 0)]
    assert row["budget_ratio"] == pytest.approx(0.1)
    assert row["edge_quality"] == pytest.approx(0.5)
    # 0.2 for 1.5 s (round 0 brings nothing), then 0.3 and 0.4 for 1 s each, 0.5 for the last half second.
    assert row["mean_edge_quality"] == pytest.approx((1.5 * 0.2 + 0.3 + 0.4 + 0.5 * 0.5) / 4)
    assert (row["bytes_on_air"], row["bytes_per_round"], row["missed"], row["airtime_s"]) == (200, 50, 1, 2.0)
    assert row["energy_j"] == pytest.approx(1.28804 * 2 + 0.05197 * 200 * 8e-6)
    assert pd.isna(row["bytes_to_90"])
    strong = table.loc[("stories", "strong", "fit", 2)]
    assert strong["edge_quality"] == pytest.approx(3.0 - 0.42)
    assert pd.isna(strong["bytes_to_90"]), "0.42 of 0.5 is 84 %"


def test_costs_of_a_gain_count_seeds_that_never_get_there_with_all_they_sent(tmp_path):
    for seed, gains in enumerate(([0.5, 0.5], [0.0, 0.5], [0.0, 0.1])):
        write_arm(tmp_path, "j", "l", "fit", seed, gains, [100, 300], 1.0)
    write_comparison(tmp_path, {})
    gather(tmp_path)
    (row,) = read_findings(tmp_path).means.to_dict("records")
    assert row["reached_90"] == 2
    assert row["bytes_to_90"] == pytest.approx((100 + 400 + 400) / 3)


def test_means_have_intervals_over_seeds(out):
    table = pd.read_csv(out / "means.csv").set_index(["job", "link", "arm"])
    row = table.loc[("intents", "strong", "fit")]
    assert (row["edge_quality"], row["seeds"]) == (pytest.approx(0.61), 3)
    assert (row["edge_quality_low"], row["edge_quality_high"]) == (pytest.approx(0.60), pytest.approx(0.62))


@pytest.mark.parametrize("job", ["intents", "stories"])
def test_paired_differences_remove_what_seeds_have_in_common(out, job):
    pairs = read_findings(out).pairs
    rows = tables.against(pairs[(pairs["job"] == job) & (pairs["measure"] == "edge_quality")], "fit")
    rows = rows.set_index(["arm", "link"])
    assert set(rows.index.get_level_values("link")) == {"weak", "strong", tables.ALL_LINKS}
    for link in ("weak", "strong", tables.ALL_LINKS):
        row = rows.loc[("uniform:rank=2", link)]
        assert row["difference"] == pytest.approx(-0.1)
        assert row["verdict"] == "worse"
        assert (row["low"], row["high"]) == (pytest.approx(-0.1), pytest.approx(-0.1))


def test_turning_a_pair_around_turns_its_verdict(out):
    pairs = read_findings(out).pairs
    rows = tables.against(pairs, "uniform:rank=2")
    fit = rows[(rows["arm"] == "fit") & (rows["measure"] == "edge_quality")]
    assert set(fit["verdict"]) == {"better"}
    assert (fit["low"] <= fit["high"] + 1e-12).all()
    assert len(fit) == 2 * 3


def test_an_arm_that_lacks_a_seed_is_compared_over_the_others(tmp_path):
    for seed in range(3):
        write_arm(tmp_path, "j", "l", "fit", seed, [0.3], [100], 1.0)
        if seed:
            write_arm(tmp_path, "j", "l", "random", seed, [0.2 + 0.01 * seed], [100], 1.0)
    write_comparison(tmp_path, {})
    gather(tmp_path)
    pairs = read_findings(tmp_path).pairs
    assert set(pairs["seeds"]) == {2}


def test_rate_differences_over_links_and_by_hand(tmp_path):
    # Equal qualities at twice the bytes over each link: +100 %, everywhere.
    for link, gained, size in (("a", 0.1, 100), ("b", 0.2, 300), ("c", 0.3, 900)):
        for seed in range(2):
            write_arm(tmp_path, "j", link, "fit", seed, [gained], [size], 1.0, "nll")
            write_arm(tmp_path, "j", link, "uniform", seed, [gained], [2 * size], 1.0, "nll")
    write_comparison(tmp_path, {})
    gather(tmp_path)
    rates = read_findings(tmp_path).rates.set_index(["curve", "other"])
    row = rates.loc[("uniform", "fit")]
    assert (row["mean"], row["worst"]) == (pytest.approx(1.0), pytest.approx(1.0))
    assert (row["low_quality"], row["high_quality"]) == (pytest.approx(2.7), pytest.approx(2.9))
    assert (row["defined"], row["points"]) == (2, 3)
    assert rates.loc[("fit", "uniform")]["mean"] == pytest.approx(-0.5)


def test_over_one_link_a_family_is_the_curve(tmp_path):
    for rank, gained in ((1, 0.1), (2, 0.2), (4, 0.3)):
        write_arm(tmp_path, "j", "open", f"uniform:rank={rank},bits=4", 0, [gained], [100 * rank], 1.0)
        write_arm(tmp_path, "j", "open", f"peft-lora:rank={rank},file=fp16", 0, [gained], [400 * rank], 1.0)
        write_arm(tmp_path, "j", "open", f"peft-lora:rank={rank},file=fp16,steps=3", 0, [gained], [800 * rank], 1.0)
    write_comparison(tmp_path, {"open": "awgn:snr_db=60"})
    gather(tmp_path)
    rates = read_findings(tmp_path).rates.set_index(["curve", "other"])
    assert rates.loc[("uniform", "peft-lora:file=fp16")]["mean"] == pytest.approx(-0.75)
    assert rates.loc[("peft-lora:file=fp16,steps=3", "peft-lora:file=fp16")]["mean"] == pytest.approx(1.0)
    # The best of all peers is the cheaper of the two at every quality.
    assert rates.loc[("uniform", "peft:file=fp16")]["mean"] == pytest.approx(-0.75)


def fill_open(out: Path, seeds: int = 2) -> Path:
    """One open link: a policy with a quarter of the bytes of fp16 files, an eighth of those of fp32 ones."""
    for seed in range(seeds):
        for rank, gained in ((1, 0.1), (2, 0.2), (4, 0.3)):
            write_arm(out, "j", "open", f"fixed:rank={rank},bits=4", seed, [gained], [100 * rank], 1.0)
            for method in ("lora", "dora"):
                for file, size in (("fp32", 800), ("fp16", 400)):
                    arm = f"peft-{method}:rank={rank},file={file}"
                    write_arm(out, "j", "open", arm, seed, [gained], [size * rank], 1.0)
    write_comparison(out, {"open": "awgn:snr_db=60"})
    gather(out)
    return out


def test_over_one_link_policies_are_held_against_every_kind_of_file(tmp_path):
    found = read_findings(fill_open(tmp_path))
    rows = {(row[0], row[1]): row[2] for row in rate_rows(found, "j")}
    assert rows["fixed", "peft:file=fp16"] == "-75 % [-75 %, -75 %]"
    assert rows["fixed", "peft:file=fp32"] == "-88 % [-88 %, -88 %]"
    assert rows["peft:file=fp32", "peft:file=fp16"] == "+100 % [+100 %, +100 %]"
    assert ("peft-lora:file=fp16", "peft:file=fp32") not in rows, "peers are held against one kind of file"


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_the_smallest_that_is_no_worse_is_chosen_on_validation_and_judged_on_test(tmp_path, metric):
    def fill(arm: str, seed: int, gained: float, size: int, test_gain: float) -> None:
        write_arm(tmp_path, "j", "open", arm, seed, [gained], [size], 1.0, metric, test_gain)

    for seed, wiggle in enumerate((-0.01, 0.01)):
        fill("fixed:rank=1,bits=4", seed, 0.19, 100, 0.9)  # what would win on the test split
        fill("fixed:rank=2,bits=4", seed, 0.21 + wiggle, 200, 0.15)  # no worse in the mean alone
        fill("fixed:rank=4,bits=4", seed, 0.30, 400, 0.3)
        fill("uniform:rank=4,bits=4", seed, 0.1, 400, 0.1)
        fill("peft-lora:rank=2,file=fp16", seed, 0.2, 1000, 0.2)
        fill("peft-lora:rank=2,file=fp32", seed, 0.2, 2000, 0.2)
    fill("peft-dora:rank=2,file=fp16", 1, 0.22, 1100, 0.2)
    write_comparison(tmp_path, {"open": "awgn:snr_db=60"})
    write_reports(tmp_path)
    found = read_findings(tmp_path)
    rows = found.matches.set_index(["curve", "peer"])
    for file, ratio in (("fp16", 0.2), ("fp32", 0.1)):
        row = rows.loc[("fixed", f"peft-lora:rank=2,file={file}")]
        assert (row["arm"], row["ratio"], row["seeds"]) == ("fixed:rank=2,bits=4", pytest.approx(ratio), 2)
        assert (row["difference"], row["verdict"]) == (pytest.approx(-0.05), "worse")
    assert rows.loc[("fixed", "peft-dora:rank=2,file=fp16")]["arm"] == "fixed:rank=2,bits=4", "of the seed in common"
    assert pd.isna(rows.loc[("uniform", "peft-lora:rank=2,file=fp16")]["arm"])
    assert len(pd.read_csv(tmp_path / "matches.csv")) == len(rows) == 2 * 3
    cells_of = {(row[0], row[2]): row[3:] for row in match_rows(found, "j")}
    worse = "worse -5.0 [-5.0, -5.0]" if metric == "accuracy" else "worse -0.050 [-0.050, -0.050]"
    assert cells_of["peft-lora:rank=2,file=fp16", "fixed"] == ["fixed:rank=2,bits=4", "0.2", "-80 %", worse]
    assert cells_of["peft-lora:rank=2,file=fp16", "uniform"] == ["none", "–", "–", "–"]
    assert ("peft-lora:rank=2,file=fp32", "fixed") not in cells_of, "one kind of file in tables"
    for text in ((tmp_path / "report.html").read_text(encoding="utf-8"), results_page([tmp_path])):
        assert "smallest that is no worse" in text


def test_over_several_links_nothing_is_matched(out):
    assert read_findings(out).matches.empty
    assert "smallest that is no worse" not in (out / "report.html").read_text(encoding="utf-8")


def test_the_readme_of_a_comparison_over_one_link_says_bytes_at_equal_quality(tmp_path):
    out = fill_open(tmp_path)
    block = results_block(out)
    headings = "| job | curve | against `peft:file=fp16` | against `peft:file=fp32` | no worse than each fp16 file |"
    assert headings in block
    matched = "-75 % (-75 % … -75 %), 6 of 6 files; 0 better, 0 worse"
    assert f"| j | `fixed` | -75 % [-75 %, -75 %] | -88 % [-88 %, -88 %] | {matched} |" in block
    assert block.count("\n| j |") == 1
    assert "commit abc1234, `airlora compare --out OUT --seeds 3`; seeds 0, 1" in block
    # A seed whose fronts do not overlap defines nothing, and the figure says so.
    for rank in (1, 2):
        write_arm(out, "j", "open", f"fixed:rank={rank},bits=4", 2, [0.4 + 0.01 * rank], [100 * rank], 1.0)
        write_arm(out, "j", "open", f"peft-dora:rank={rank},file=fp16", 2, [0.1 * rank], [400 * rank], 1.0)
    write_arm(out, "k", "open", "fixed:rank=1,bits=4", 0, [0.1], [100], 1.0)
    gather(out)
    block = results_block(out)
    assert "| j | `fixed` | -75 % [-75 %, -75 %] (2 of 3) | -88 % [-88 %, -88 %] |" in block
    assert "| k" not in block, "one point is no curve"
    for rank in (1, 2):
        write_arm(out, "l", "open", f"fixed:rank={rank},bits=4", 0, [0.1 * rank], [100 * rank], 1.0)
        for method in ("lora", "dora"):
            arm = f"peft-{method}:rank={rank},file=fp16"
            write_arm(out, "l", "open", arm, 0, [0.1 * rank], [200 * rank], 1.0)
    gather(out)
    matched = "-50 % (-50 % … -50 %), 4 of 4 files"
    row = f"| l, seed 0 (one seed: no interval and no verdict) | `fixed` | -50 % | – | {matched} |"
    assert row in results_block(out)


def test_reports_are_the_same_when_written_again(tmp_path):
    for seed in range(2):
        for rank in (1, 4):
            write_arm(
                tmp_path, "j", "open", f"uniform:rank={rank}", seed, [0.1 * rank + 0.01 * seed], [100 * rank], 1.0
            )
    write_comparison(tmp_path, {"open": "awgn:snr_db=60"})
    names = ["summary.csv", "means.csv", "pairs.csv", "rates.csv", "matches.csv", "report.html", "figures/pareto-j.svg"]
    write_reports(tmp_path)
    first = {name: (tmp_path / name).read_bytes() for name in names}
    write_reports(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in names} == first
    assert not list((tmp_path / "figures").glob("time-*")), "one round has no curve over time"


def test_the_report_needs_nothing_from_outside_and_says_what_made_it(out):
    page = (out / "report.html").read_text(encoding="utf-8")
    addresses = set(re.findall(r'(?:src|href)="([^"]+)"', page)) - set(re.findall(r'href="(#[^"]+)"', page))
    assert not addresses
    assert "url(http" not in page
    for text in ("airlora compare --out OUT --seeds 3", "abc1234", "torch 2.13.0", "seeds 0, 1, 2", "fewer than 5"):
        assert text in page
    for text in ("accuracy (%, higher is better)", "NLL (nats, lower is better)", "SNR -5 dB (budget 0.10)"):
        assert text in page
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))


def test_every_figure_is_a_png_and_a_well_formed_svg(out):
    names = {f"pareto-{job}" for job in ("intents", "stories")}
    names |= {f"{kind}-{job}-{link}" for kind in ("time", "gain") for job in ("intents", "stories") for link in LINKS}
    assert {path.stem for path in (out / "figures").glob("*.png")} == names
    assert {path.stem for path in (out / "figures").glob("*.svg")} == names
    for path in (out / "figures").iterdir():
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        else:
            assert path.read_bytes().startswith(b"\x89PNG")


def test_ticks_of_a_stretched_scale_are_round_and_apart():
    ticks = round_ticks(0.0, 92.5, lambda quality: float(np.arcsinh((quality - 91.7) / 0.9)))
    assert ticks == [0, 50, 70, 80, 86, 90, 91, 92]


@pytest.mark.parametrize(
    ("worst", "ticks"), [(0.9, ["90", "92", "94", "96", "98", "100"]), (0.2, ["50", "80", "90", "95", "98", "99"])]
)
def test_quality_is_stretched_towards_the_best_where_an_arm_falls_far_short(tmp_path, worst, ticks):
    fill(tmp_path)
    gather(tmp_path)
    found = read_findings(tmp_path)
    means = found.means[found.means["job"] == "intents"].copy()
    means["cloud_quality"], means["base_quality"] = 1.0, 0.1
    means["edge_quality"] = np.linspace(worst, 0.99, len(means))
    means[["edge_quality_low", "edge_quality_high"]] = np.nan
    (chart,) = pareto_charts(replace(found, means=means))
    labels = re.findall(r">([^<>]*)</text>", chart.svg)
    assert [label for label in labels if label in ticks] == ticks


def test_one_seed_has_no_verdicts_and_says_so(tmp_path):
    fill(tmp_path, seeds=1)
    gather(tmp_path)
    found = read_findings(tmp_path)
    assert seeds_text(found) == "seed 0 (one seed: no interval and no verdict)"
    assert multiplicity_text(found) == "With one seed there are no verdicts.\n"
    assert set(found.pairs["verdict"]) == {"one seed"}
    assert found.means["edge_quality_low"].isna().all()


def test_verdict_rows_put_policies_first_and_all_links_last(out):
    head, rows = verdict_rows(read_findings(out), "intents", "edge_quality")
    assert head == ["against fit", "weak", "strong", "all links"]
    assert [row[0] for row in rows] == ["uniform:rank=2", "peft-lora:rank=8"]
    assert rows[0][1] == "worse -10.0 [-10.0, -10.0]"


def test_the_terminal_has_a_table_a_job_with_a_row_an_arm(out):
    tables = results_table(out)
    assert [table.row_count for table in tables.renderables] == [3, 3]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(tables)
    assert "61.0 (" in console.export_text()


def test_the_page_holds_the_tables_and_the_notes(out, tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "introduction.md").write_text("Read me first.\n")
    (notes / "small.md").write_text("What this says against us.\n")
    (notes / "appendix.md").write_text("## Other things\n")
    page = results_page([out], notes)
    order = ["# Results", "Read me first.", "## small", "airlora compare --out OUT", "commit abc1234", "### intents"]
    order += [
        "| arm | weak (0.1) | strong (1) |",
        "| fit | 51.0 [50.0, 52.0] | 61.0",
        "worse -10.0",
        "### stories",
        "pairs were tested",
        "What this says",
        "## Other",
    ]
    positions = [page.index(text) for text in order]
    assert positions == sorted(positions)


def test_readme_blocks_are_replaced_and_nothing_else(out):
    text = (
        "before\n<!-- results:small -->\nold\n<!-- /results -->\nafter\n<!-- results:x -->\nkept\n<!-- /results -->\n"
    )
    new = replace_block(text, "small", results_block(out))
    assert new.startswith("before\n<!-- results:small -->\n`intents`: accuracy")
    assert "old" not in new
    assert new.endswith("<!-- /results -->\nafter\n<!-- results:x -->\nkept\n<!-- /results -->\n")
    assert "| arm | end, 0.1 | end, 1 | over time, 0.1 | over time, 1 | kB, 0.1 | kB, 1 |" in new
    assert "| `fit` | 51.0 | 61.0 | 31.4 | 32.6 | 0.05 | 0.5 |" in new
    assert replace_block(new, "small", results_block(out)) == new
    with pytest.raises(InputError, match="results:other"):
        replace_block(text, "other", "")


def test_a_readme_block_may_name_the_arms_that_it_shows(out):
    text = "<!-- results:small fit peft-lora:rank=8 -->\nold\n<!-- /results -->\n"
    assert block_arms(text, "small") == ["fit", "peft-lora:rank=8"]
    assert block_arms("<!-- results:small -->\n<!-- /results -->\n", "small") == []
    assert block_arms(text, "other") is None
    block = results_block(out, ["fit", "peft-lora:rank=8"])
    assert "| `fit` | 51.0" in block
    assert "`uniform:rank=2`" not in block
    assert "2 of 3 arms; all are in docs/results.md." in block
    new = replace_block(text, "small", block)
    assert new.startswith("<!-- results:small fit peft-lora:rank=8 -->\n`intents`: accuracy")
    with pytest.raises(InputError, match=r"no arm 'flood'; there are: fit, uniform:rank=2, peft-lora:rank=8"):
        results_block(out, ["flood"])


def test_links_are_grouped_by_the_order_of_magnitude_of_their_budget(out):
    budgets = {"none": 0.0, "lean": 0.02, "middling": 0.2, "ample": 1.7, "open": float("inf")}
    means = pd.DataFrame({"job": "intents", "link": list(budgets), "budget_ratio": list(budgets.values())})
    groups = budget_groups(replace(read_findings(out), means=means), "intents")
    assert groups == {0: ["none"], 0.01: ["lean"], 0.1: ["middling"], 1: ["ample"], float("inf"): ["open"]}


def test_the_script_publishes_and_writes_docs_and_readme(out, tmp_path, monkeypatch):
    script = Path(__file__).parents[1] / "benchmarks" / "results_page.py"
    docs, readme = tmp_path / "results.md", tmp_path / "README.md"
    docs.write_text("# Results\n\n## earlier\n\nkept\n")
    readme.write_text("<!-- results:small -->\n<!-- /results -->\n")
    for outs in ([str(out)], []):  # the second time from what is published alone
        monkeypatch.setattr(sys, "argv", [str(script), *outs, "--docs", str(docs), "--readme", str(readme)])
        runpy.run_path(str(script), run_name="__main__")
        page = docs.read_text()
        assert [line for line in page.splitlines() if line.startswith("## ")] == ["## earlier", "## small"]
        shown = re.sub(r"!\[.*\]\((.*)\)\n\n", "", page)
        assert shown.endswith(results_page([out]).partition("## small")[2])
        for name in re.findall(r"!\[.*\]\((.*)\)", page):
            assert ElementTree.parse(tmp_path / name).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        assert page.count("](results/small/pareto-") == 2
        assert "`stories`: nll" in readme.read_text()


@pytest.mark.slow
def test_the_pages_of_this_project_are_those_of_its_published_rows():
    root = Path(__file__).parents[1]
    folders = sorted(path.parent for path in (root / "docs" / "results").glob("*/comparison.json"))
    page, readme = ((root / name).read_text(encoding="utf-8") for name in ("docs/results.md", "README.md"))
    remedy = "write it with benchmarks/results_page.py"
    same = results_page(folders, root / "docs" / "notes", page) == page  # not in the assert: a diff would take minutes
    assert same, f"docs/results.md: {remedy}"
    for folder in folders:
        arms = block_arms(readme, folder.name)
        if arms is not None:
            same = replace_block(readme, folder.name, results_block(folder, arms)) == readme
            assert same, f"README.md, {folder.name}: {remedy}"


def test_over_one_link_all_measures_stand_side_by_side(out):
    found = read_findings(out)
    ((_, headings, rows),) = measure_tables(replace(found, means=found.means[found.means["link"] == "weak"]), "intents")
    assert headings[:4] == ["arm", "cloud", "edge at the end [95 %]", "edge over time [95 %]"]
    assert [row[0] for row in rows] == ["fit", "uniform:rank=2", "peft-lora:rank=8"]


def test_a_figure_of_fewer_seeds_is_marked_and_does_not_count_among_means(tmp_path):
    out = fill(tmp_path / "small")
    shutil.rmtree(out / "arms" / "intents" / "seed-2" / "weak" / "fit")
    gather(out)
    found = read_findings(out)
    title, _, rows = next(measure_tables(found, "intents"))
    assert rows[0] == ["fit", "50.5 [50.0, 51.0] †", "61.0 [60.0, 62.0]"], title
    head, (fit, *_) = budget_cells(found, "intents")
    assert dict(zip(head, fit, strict=True))["end, 0.1"] == "–"
    assert dict(zip(head, fit, strict=True))["end, 1"] == "61.0"


@pytest.mark.parametrize("typed", ["--out {}", "--out={}", "--out '{} (new)'"])
def test_a_published_comparison_names_no_path_of_its_folder(tmp_path, typed):
    out = fill(tmp_path / "a", seeds=1)  # a name that is part of every word
    made = json.loads((out / "comparison.json").read_text())
    command = f"airlora compare quick {typed.format(out)} --resume"
    (out / "comparison.json").write_text(json.dumps({**made, "command": command, "commands": [command]}))
    made = json.loads((publish(out, tmp_path / "published") / "comparison.json").read_text())
    assert made["command"] == made["commands"][0]
    assert re.sub("[ =]", " ", made["command"]) == "airlora compare quick --out OUT --resume"


def test_a_commit_of_digits_and_every_figure_survive_the_file(tmp_path):
    out = fill(tmp_path / "small", seeds=1)
    for path in out.glob("arms/*/*/*/*/summary.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "commit": "0012345", "edge_quality": 0.1 + 0.2}))
    gather(out)
    found = read_findings(out)
    assert found.commits == ("0012345",)
    assert set(found.arms["edge_quality"]) == {0.1 + 0.2}


def test_sittings_published_one_after_the_other_are_one_comparison(tmp_path):
    whole, first, second = (tmp_path / name / "small" for name in ("whole", "first", "second"))
    for folder, seeds in ((whole, 3), (first, 2), (second, 3)):
        fill(folder, seeds)
    for path in second.glob("arms/*/seed-1"):
        shutil.rmtree(path)  # seed 0 is there in both sittings
    at_once, in_two = (tmp_path / name / "results" / "small" for name in ("at-once", "in-two"))
    for source, target in ((whole, at_once), (first, in_two), (second, in_two)):
        assert publish(source, target.parent) == target
    for part in ("arms", "rounds"):
        pd.testing.assert_frame_equal(getattr(read_findings(at_once), part), getattr(read_findings(in_two), part))
    assert results_page([at_once]) == results_page([in_two])


def test_what_an_arm_has_its_own_of_does_not_tell_jobs_apart(tmp_path):
    out = fill(tmp_path / "small", seeds=1)
    publish(out, tmp_path / "published")
    made = json.loads((out / "comparison.json").read_text())
    jobs = {name: {**job, "policy": "flood", "seed": 7} for name, job in made["jobs"].items()}
    (out / "comparison.json").write_text(json.dumps({**made, "jobs": jobs}))
    publish(out, tmp_path / "published")


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("links", {"weak": "awgn:snr_db=-9"}, "another 'weak' among its links"),
        ("jobs", {"intents": {"lr": 1.0}}, "another 'intents' among its jobs"),
        ("rates", {"intents": {"nested": {"lr": 2.0}}}, "another 'nested' among its rates of intents"),
    ],
)
def test_another_grid_is_not_mixed_into_what_is_published(tmp_path, part, change, message):
    out = fill(tmp_path / "small", seeds=1)
    target = publish(out, tmp_path / "published")
    before = {path: path.read_bytes() for path in target.iterdir()}
    made = json.loads((out / "comparison.json").read_text())
    (out / "comparison.json").write_text(json.dumps({**made, part: {**made[part], **change}}))
    with pytest.raises(OutputError, match=message):
        publish(out, tmp_path / "published")
    assert {path: path.read_bytes() for path in target.iterdir()} == before


def test_arms_are_told_apart_by_style():
    names = ["fit", "uniform:rank=1", "uniform:rank=2", "peft-lora:rank=8", "peft-dora:rank=8", "peft-lora:rank=4"]
    arms = pd.DataFrame({"arm": names, "arm_kind": ["policy"] * 3 + ["peer"] * 3})
    styles = arm_styles(arms)
    assert len({(style.colour, style.marker) for style in styles.values()}) == len(names)
    assert styles["uniform:rank=1"].colour == styles["uniform:rank=2"].colour
    assert [styles[name].line()["mfc"] == "white" for name in names] == [False] * 3 + [True] * 3


def test_families_leave_out_the_keys_of_size():
    assert equal_quality.family("fit") == "fit"
    assert equal_quality.family("uniform:rank=4,bits=3") == "uniform"
    assert equal_quality.family("peft-lora:rank=4,file=fp16,steps=3") == "peft-lora:steps=3"


@pytest.mark.parametrize(
    ("arms", "expected"),
    [
        ([("flood", "policy"), ("fit", "policy")], "fit"),
        ([("uniform:rank=1", "policy"), ("peft-lora:rank=8,file=fp32", "peer")], "peft-lora:rank=8,file=fp32"),
        ([("peft-ia3", "peer"), ("greedy", "policy")], "greedy"),
        ([("peft-ia3", "peer")], "peft-ia3"),
    ],
)
def test_the_reference_arm(arms, expected):
    assert tables.reference_arm(pd.DataFrame(arms, columns=["arm", "arm_kind"])) == expected


def test_in_reward_the_reference_is_the_rule_that_is_told_the_price():
    arms = pd.DataFrame({"arm": ["airllm", "fit:airtime_weight=0.1", "fit"], "arm_kind": "policy"})
    assert tables.reference_arm(arms, tables.PRICED) == "fit:airtime_weight=0.1"
    assert tables.reference_arm(arms) == tables.reference_arm(arms.drop(index=1), tables.PRICED) == "fit"


def test_more_reward_is_better_where_less_nll_is(out):
    pairs = tables.against(read_findings(out).pairs, "fit").set_index(["job", "measure", "link", "arm"])
    for job in ("intents", "stories"):
        row = pairs.loc[(job, tables.PRICED, "weak", "uniform:rank=2")]
        # Shares of the cloud's 0.5: 0.2 less in two of four rounds; the airtime is the same.
        assert (row["difference"], row["verdict"], row["metric"]) == (pytest.approx(-0.1), "worse", "reward")


def test_numbers_as_written():
    shown = ["-50 %", "-99 %", "-99.7 %", "+200 %", "×4.6", "–"]
    assert [percent(ratio) for ratio in (-0.5, -0.994, -0.997, 2.0, 3.6, None)] == shown
    assert (kilobytes(1234567), kilobytes(1359.5), kilobytes(0)) == ("1\u00a0230", "1.36", "0")
    assert (difference(-0.0001, "accuracy"), difference(0.0123, "nll"), difference(-0.05, "accuracy")) == (
        "0.0",
        "+0.012",
        "-5.0",
    )


def test_seeds_are_named_with_how_much_they_are_worth(out):
    assert seeds_text(read_findings(out)).startswith("seeds 0, 1, 2 (fewer than 5")


def test_a_folder_without_finished_arms_is_refused(tmp_path):
    with pytest.raises(OutputError, match="no finished arm"):
        write_reports(tmp_path)


def test_files_of_another_version_are_refused(tmp_path):
    write_arm(tmp_path, "j", "l", "fit", 0, [0.1], [10], 1.0)
    with pytest.raises(StoreError, match=r"comparison\.json cannot be read"):
        write_reports(tmp_path)
    write_comparison(tmp_path, {})
    (path,) = tmp_path.glob("arms/*/*/*/*/summary.json")
    summary = json.loads(path.read_text())
    del summary["validation"]
    path.write_text(json.dumps(summary))
    with pytest.raises(StoreError, match="not a finished arm of this version"):
        gather(tmp_path)
