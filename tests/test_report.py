"""The report of a run: complete, offline, honest about what is missing, equal for equal input."""

import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from airlora.errors import OutputError
from airlora.factors import Schema
from airlora.report import summary_table, write_report
from airlora.report.heatmaps import rank_table
from airlora.report.projections import MAX_KINDS, kinds_of
from airlora.report.records import read_run
from airlora.report.units import bytes_text, quality_text, seconds_text

KINDS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "fc1", "fc2")
SECTIONS = ("quality", "link", "ranks", "text", "comparison", "time", "rounds", "configuration")


def names_of(layers: int, kinds: tuple[str, ...] = KINDS) -> list[str]:
    return [f"model.decoder.layers.{layer}.{kind}" for layer in range(layers) for kind in kinds]


def make_run(folder: Path, rounds: int = 20, names: list[str] | None = None, seed: int = 0, width: int = 128) -> Path:
    """Write a folder as ``airlora run`` does, for a run that learns over a fading link."""
    generator = np.random.default_rng(seed)
    names = names_of(2, KINDS[:2]) if names is None else names
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("config.toml").write_text(
        'model = "builtin:tiny-opt"\ndata = "builtin:vehicle-commands"\ntask = "classify"\n'
        'link = "fading:snr_db=8,bandwidth_hz=1e5"\npolicy = "greedy"\ntargets = ["q_proj", "v_proj"]\n'
        f"rounds = {rounds}\ndeadline_s = 1.0\nround_period_s = 1.0\nmax_rank = 16\nseed = {seed}\nresume = false\n"
    )
    schema = {
        "projections": [[name, width, width, 16] for name in names],
        "prefixes": [1, 2, 4, 8, 16],
        "head": [["score.weight", [12, width]]],
        "base_fingerprint": "5f2c9a",
        "init_seed": 0,
    }
    folder.joinpath("schema.json").write_text(json.dumps(schema))
    plain = 4 * (8 * 2 * width * len(names) + 12 * width)
    rows, edge, cloud, held = [], 0.31, 0.31, np.zeros(len(names), int)
    depth = np.linspace(0.4, 1.2, len(names))
    for number in range(rounds):
        rate = 2.6e5 * float(generator.gamma(3.0, 0.4))
        ranks = np.clip((16 * depth * generator.beta(2, 4, len(names)) + number / 8).round(), 0, 16).astype(int)
        bits = generator.choice([4, 8, 16], len(names), p=[0.6, 0.3, 0.1])
        offered = int(0.9 * generator.uniform(0.4, 1.1) * 2.6e5 / 8)
        on_air = min(offered, int(rate / 8))
        missed = on_air < offered
        layers = 6
        arrived = int(layers * on_air / offered)
        held = np.maximum(held, ranks * arrived // layers)
        cloud += (0.88 - cloud) * 0.18 + float(generator.normal(0, 0.006))
        edge += (cloud - edge) * (0.25 if missed else 0.8)
        rows.append(
            {
                "round": number,
                "t_s": float(number),
                "link": {"snr_db": 8 + float(generator.normal(0, 3)), "bandwidth_hz": 1e5, "rate_bps": rate * 1.08},
                "text": {
                    "lexical_entropy": 0.82 + float(generator.normal(0, 0.02)),
                    "oov_rate": 0.4 * math.exp(-number / 5),
                    "mean_words": 7.5 + float(generator.normal(0, 0.3)),
                    "loss": 2.4 * math.exp(-number / 7) + 0.2,
                },
                "ranks": dict(zip(names, ranks.tolist(), strict=True)),
                "bits": dict(zip(names, bits.tolist(), strict=True)),
                "head_bits": 8,
                "budget_bytes": None,
                "bytes_offered": offered,
                "bytes_delivered": offered * arrived // layers,
                "bytes_on_air": on_air,
                "layers_offered": layers,
                "layers_delivered": arrived,
                "missed": missed,
                "airtime_s": min(1.0, 8 * offered / rate),
                "edge_ranks": dict(zip(names, held.tolist(), strict=True)),
                "edge_quality": edge,
                "cloud_quality": cloud,
                "reward": edge - 0.02 * missed,
                "reference": {
                    "bytes": min(plain, int(rate / 8)),
                    "airtime_s": min(1.0, 8 * plain / rate),
                    "delivered": 8 * plain <= rate,
                },
                "wall": {"decision_s": 0.004, "train_s": 1.9, "encode_s": 0.12, "evaluate_s": 0.31},
            }
        )
    folder.joinpath("rounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if rounds:
        missed_rounds = sum(row["missed"] for row in rows)
        summary = {
            "metric": "accuracy",
            "higher_is_better": True,
            "base_quality": 0.305,
            "head_only_quality": 0.52,
            "cloud_quality": cloud + 0.004,
            "edge_quality": edge - 0.003,
            "validation": {"base_quality": 0.31, "cloud_quality": cloud, "edge_quality": edge},
            "bytes_on_air": sum(row["bytes_on_air"] for row in rows),
            "rounds": rounds,
            "missed": missed_rounds,
            "delivered": True,
            "wall_s": 2.334 * rounds,
            "seed": seed,
            "versions": {"airlora": "0.1.0", "numpy": "2.1.0", "torch": "2.6.0"},
            "reference": {
                "bytes": plain * len(rows),
                "bytes_on_air": sum(row["reference"]["bytes"] for row in rows),
                "missed": sum(not row["reference"]["delivered"] for row in rows),
                "rounds": rounds,
            },
        }
        folder.joinpath("summary.json").write_text(json.dumps(summary))
    return folder


def edit_rows(folder: Path, change) -> None:
    """Rewrite each row of rounds.jsonl with ``change(row)``."""
    path = folder / "rounds.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        change(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class PageParser(HTMLParser):
    """What a browser would do with a page: its tags, its text, its ids, what it would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(value)
            if key in ("href", "src", "xlink:href", "srcset", "action"):
                self.targets.append(value)
            assert not key.startswith("on"), f"script in {tag} {key}"

    def handle_data(self, data):
        self.words += data


def report_of(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def words_of(page: str) -> str:
    return re.sub(r"\s+", " ", PageParser(page).words)  # \s includes the no-break space before a unit


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "demo", names=names_of(4))


@pytest.fixture(scope="module")
def page(finished: Path) -> str:
    return report_of(finished)


def test_every_section_is_on_the_page_and_in_the_contents(page: str) -> None:
    parser = PageParser(page)
    for section in SECTIONS:
        assert section in parser.ids
        assert f"#{section}" in parser.targets
    assert "complete" in parser.words


def test_the_page_fetches_nothing(page: str) -> None:
    parser = PageParser(page)
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in parser.targets)
    assert not {"script", "link", "iframe", "object", "img"} & set(parser.tags)
    addresses = re.findall(r'(\S+=")?(https?://[^"\s]+)', page)
    assert {name.rstrip('="') for name, _ in addresses} == {"xmlns", "xmlns:xlink"}
    assert not re.findall(r"@import|url\((?!#)", page)


def test_ids_are_unique_and_every_reference_has_its_target(page: str) -> None:
    ids = PageParser(page).ids
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', page)
    assert set(used) <= set(ids)


def test_every_chart_has_a_text_alternative(page: str) -> None:
    for opening in re.findall(r"<svg\b[^>]*>", page):
        label = re.search(r'role="img" aria-labelledby="(\S+) (\S+)"', opening)
        assert label is not None
        assert f'<title id="{label[1]}">' in page
        assert f'<desc id="{label[2]}">' in page


def test_key_figures_are_those_of_the_files(finished: Path, page: str) -> None:
    rows = [json.loads(line) for line in finished.joinpath("rounds.jsonl").read_text().splitlines()]
    summary = json.loads(finished.joinpath("summary.json").read_text())
    sent, plain = summary["bytes_on_air"], summary["reference"]["bytes"]
    words = words_of(page)
    assert f"improved: from 30.5 % to {100 * summary['edge_quality']:.1f} % accuracy" in words
    assert f"{sent / 1e3:.0f} kB sent over 20 rounds" in words
    assert f"{plain / sent:.1f}× fewer" in words
    assert f"{sum(row['missed'] for row in rows)} of 20" in words
    assert "not trained in this run" in words
    assert "airlora compare" in words


def test_equal_folders_give_equal_pages(finished: Path, page: str, tmp_path: Path) -> None:
    assert report_of(make_run(tmp_path / finished.name, names=names_of(4))) == page
    assert report_of(finished) == page


def test_drawing_leaves_the_callers_matplotlib_settings_alone(tmp_path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 31.0, "axes.facecolor": "red"}):
        loud = report_of(make_run(tmp_path / "run", rounds=2))
        assert matplotlib.rcParams["font.size"] == 31.0
    assert report_of(tmp_path / "run") == loud


def test_missed_rounds_are_counted_named_and_marked(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", rounds=6)
    edit_rows(folder, lambda row: row.update(missed=row["round"] in (1, 2, 4)))
    page = report_of(folder)
    assert "Missed in 3 rounds (1–2, 4)" in words_of(page)
    table = page[page.index('<section id="rounds">') :]
    assert table.count("<td>missed</td>") == 3
    edit_rows(folder, lambda row: row.update(missed=False))
    words = words_of(report_of(folder))
    assert "Missed in no rounds." in words
    assert "deadline missed" not in words


def test_an_unmeasured_link_is_said_and_its_snr_not_drawn(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", rounds=4)
    edit_rows(folder, lambda row: row["link"].update(snr_db=None, bandwidth_hz=None, rate_bps=None))
    page = report_of(folder)
    assert "The link gave no estimate in any round." in words_of(page)
    assert "Signal-to-noise ratio" not in page
    assert ">nan<" not in page.lower()


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_a_partly_measured_snr_says_how_often_it_is_missing(tmp_path: Path, unknown: float | None) -> None:
    folder = make_run(tmp_path / "run", rounds=4)
    edit_rows(folder, lambda row: row["link"].update(snr_db=unknown if row["round"] == 0 else 3.0 * row["round"]))
    assert "Between 3.0 and 9.0 dB. Not measured in 1 round." in words_of(report_of(folder))


def test_unknown_quality_text_and_reward_become_dashes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", rounds=3)

    def forget(row):
        row.update(edge_quality=None, cloud_quality=math.nan, reward=None)
        row["text"].update(lexical_entropy=None, oov_rate=None, mean_words=None, loss=math.nan)

    edit_rows(folder, forget)
    page = report_of(folder)
    assert "Text length was not measured." in page
    assert ">nan<" not in page.lower()


def test_an_interrupted_run_says_where_it_stopped(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", rounds=8)
    folder.joinpath("summary.json").unlink()
    words = words_of(report_of(folder))
    assert "interrupted after round 7" in words
    assert "The run stopped early" in words
    assert "validation split, last round" in words
    assert "test split" not in words


def test_a_half_written_last_row_is_left_out_and_said(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", rounds=4)
    folder.joinpath("summary.json").unlink()
    path = folder / "rounds.jsonl"
    path.write_text(path.read_text()[:-40])
    words = words_of(report_of(folder))
    assert "interrupted after round 2" in words
    assert "The last line of rounds.jsonl was cut off" in words


def test_a_summary_older_than_the_rounds_is_not_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", rounds=5)
    summary = json.loads(folder.joinpath("summary.json").read_text())
    folder.joinpath("summary.json").write_text(json.dumps({**summary, "rounds": 3}))
    words = words_of(report_of(folder))
    assert "summary.json is about 3 rounds, but rounds.jsonl holds 5" in words
    assert "interrupted after round 4" in words


def test_zero_rounds_is_a_page_that_says_so(tmp_path: Path) -> None:
    page = report_of(make_run(tmp_path / "run", rounds=0))
    words = words_of(page)
    assert "No round was finished" in words
    assert "interrupted before round 0 ended" in words
    assert "builtin:tiny-opt" in words
    assert "<svg" not in page


def test_nothing_sent_has_no_ratio(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", rounds=2)
    nothing = {"bytes_offered": 0, "bytes_delivered": 0, "bytes_on_air": 0, "airtime_s": 0.0, "missed": False}
    edit_rows(folder, lambda row: row.update(nothing, layers_offered=0, layers_delivered=0))
    summary = json.loads(folder.joinpath("summary.json").read_text())
    summary.update(delivered=False, edge_quality=summary["base_quality"], bytes_on_air=0)
    folder.joinpath("summary.json").write_text(json.dumps(summary))
    words = words_of(report_of(folder))
    assert "Nothing reached the edge: its model stays at 30.5 % accuracy" in words
    assert "fewer" not in words


def test_a_worse_edge_is_reported_as_worse(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", rounds=2)
    summary = json.loads(folder.joinpath("summary.json").read_text())
    summary.update(metric="nll", higher_is_better=False, base_quality=2.0, edge_quality=2.5, cloud_quality=1.5)
    folder.joinpath("summary.json").write_text(json.dumps(summary))
    words = words_of(report_of(folder))
    assert "got worse: from 2.000 nats to 2.500 nats negative log-likelihood" in words
    assert "lower is better" in words


def test_more_bytes_than_the_plain_resend_is_said(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", rounds=2)
    plain = Schema.from_json(json.loads(folder.joinpath("schema.json").read_text())).plain_lora_bytes(8)
    edit_rows(folder, lambda row: row.update(bytes_on_air=4 * plain))
    assert "4.0× more" in words_of(report_of(folder))


def test_hostile_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    attack = "</title></svg><script>alert(1)</script><img src=x onerror=alert(1)>"
    names = [f"{attack}.{layer}.q" for layer in range(2)]
    names += ["$\\frac{", 'id="x" url(#y)', "层.投影", "&amp;lt;", "]]>--><!--"]
    folder = make_run(tmp_path / "<script>", rounds=2, names=names)
    config = folder / "config.toml"
    config.write_text(config.read_text().replace("greedy", "<script>alert(2)</script>"))
    summary = json.loads(folder.joinpath("summary.json").read_text())
    summary["versions"][attack] = attack
    folder.joinpath("summary.json").write_text(json.dumps(summary))
    page = report_of(folder)
    parser = PageParser(page)
    assert not {"script", "img"} & set(parser.tags)
    assert parser.tags.count("html") == 1
    assert "<script>alert(2)</script>" in parser.words
    assert "$\\frac{" in parser.words
    assert 'id="x" url(#y)' in parser.words


@pytest.mark.parametrize("name", ["config.toml", "schema.json", "rounds.jsonl"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = make_run(tmp_path / "run", rounds=1)
    folder.joinpath(name).unlink()
    with pytest.raises(OutputError, match=rf"has no {re.escape(name)}; give a folder") as caught:
        write_report(folder)
    assert "\n" not in str(caught.value)
    assert not folder.joinpath("report.html").exists()


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"has no config\.toml"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.toml", "rounds = ", r"config\.toml is not a run's configuration"),
        ("config.toml", "rounds = 2", r"config\.toml is not a run's configuration \(no key 'deadline_s'\)"),
        ("config.toml", "deadline_s = 0.0", r"deadline_s is 0\.0, allowed: finite and above 0"),
        ("schema.json", "{}", r"schema\.json is not a run's schema \(no key 'projections'\)"),
        ("schema.json", "[1", r"schema\.json is not a run's schema"),
        ("rounds.jsonl", "{}\n", r"rounds\.jsonl line 1 is not a round \(no key 'link'\)"),
        ("rounds.jsonl", "nonsense\n", r"rounds\.jsonl line 1 is not a round"),
        ("rounds.jsonl", b"\xff\xfe\n", r"rounds\.jsonl cannot be read"),
        ("summary.json", "{}", r"summary\.json is not a run's summary \(no key 'base_quality'\); delete it"),
        ("summary.json", "[]", r"summary\.json is not a run's summary"),
    ],
)
def test_a_broken_file_is_named_with_its_fault(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    folder = make_run(tmp_path / "run", rounds=1)
    folder.joinpath(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(OutputError, match=message) as caught:
        write_report(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"round": 7}, "round 7 where 0 should be"),
        ({"airtime_s": -1.0}, r"airtime_s is -1\.0, allowed: finite and at least 0"),
        ({"t_s": math.inf}, "t_s is inf"),
        ({"edge_quality": "good"}, "'good' is not a number"),
        ({"wall": []}, "line 1 is not a round"),
    ],
)
def test_an_impossible_row_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    folder = make_run(tmp_path / "run", rounds=1)
    edit_rows(folder, lambda row: row.update(change))
    with pytest.raises(OutputError, match=message):
        write_report(folder)


def test_an_unwritable_page_is_an_output_error_and_leaves_no_scrap(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", rounds=1)
    folder.joinpath("report.html").mkdir()
    with pytest.raises(OutputError, match=r"report\.html cannot be written"):
        write_report(folder)
    assert not list(folder.glob(".report*"))


def test_many_rounds_and_projections_stay_small(tmp_path: Path) -> None:
    kinds = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    page = report_of(make_run(tmp_path / "run", rounds=150, names=names_of(28, kinds)))
    assert len(page) < 1_500_000
    assert page.count("28 layers; mean rank") == 2 * len(kinds)  # caption and text alternative


def test_rank_table_keeps_names_apart_from_what_is_unknown() -> None:
    table = rank_table(["a", "b"], [{"a": 1, "b": 2}, {"a": 3}])
    np.testing.assert_array_equal(table, [[1, 3], [2, np.nan]])


def test_kinds_are_the_shortest_telling_ends_of_the_names() -> None:
    ends = ("attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense")
    kinds = kinds_of([*(f"bert.encoder.layer.{i}.{end}" for i in (10, 2, 1) for end in ends), "pooler.dense"])
    assert [kind.label for kind in kinds] == [
        "query", "attention.output.dense", "intermediate.dense", "output.dense", "other projections",
    ]  # fmt: skip
    assert kinds[0].row_labels == ("1", "2", "10")
    assert kinds[0].rows[2] == "bert.encoder.layer.10.attention.self.query"
    assert kinds[-1].row_labels == ("pooler.dense",)


def test_experts_are_rows_of_their_kind() -> None:
    (kind,) = kinds_of([f"model.layers.{layer}.experts.{expert}.up" for layer in range(2) for expert in range(3)])
    assert kind.row_labels == ("0.0", "0.1", "0.2", "1.0", "1.1", "1.2")


def test_too_many_kinds_share_the_last_group() -> None:
    kinds = kinds_of([f"layers.{layer}.kind_{kind}" for kind in "abcdefghijklmnopqrstuvwxyz" for layer in range(2)])
    assert len(kinds) == MAX_KINDS
    assert kinds[-1].label == "other projections"


@given(st.lists(st.text("ab0.1:", max_size=8), unique=True, min_size=1, max_size=40))
def test_every_name_is_in_exactly_one_kind(names: list[str]) -> None:
    kinds = kinds_of(names)
    assert sorted(row for kind in kinds for row in kind.rows) == sorted(names)
    assert len({kind.label for kind in kinds}) == len(kinds)
    assert all(len(set(kind.row_labels)) == len(kind.rows) for kind in kinds)


def test_units_read_as_people_write_them() -> None:
    space = "\u00a0"
    assert bytes_text(512) == f"512{space}B"
    assert bytes_text(21_449) == f"21.4{space}kB"
    assert bytes_text(999_800) == f"1.00{space}MB"
    assert bytes_text(math.nan) == "–"
    assert seconds_text(0.0124) == f"12.4{space}ms"
    assert seconds_text(200) == f"3{space}min 20{space}s"
    assert seconds_text(7500) == f"2{space}h 05{space}min"
    assert quality_text(0.8312, "accuracy") == f"83.1{space}%"
    assert quality_text(2.3141, "nll") == f"2.314{space}nats"


def test_terminal_table_shows_the_summary(finished: Path) -> None:
    summary = json.loads(finished.joinpath("summary.json").read_text())
    console = Console(width=100, file=io.StringIO())
    console.print(summary_table(summary))
    text = console.file.getvalue().replace("\u00a0", " ")
    plain, sent = summary["reference"]["bytes"], summary["bytes_on_air"]
    resent = f"{plain / 1e6:.2f} MB ({plain / sent:.1f} × this run)"
    for expected in ("30.5 %", "52.0 %", "429 kB", "3 of 20 rounds", resent, "0 of 20", "46.7 s"):
        assert expected in text
    assert "nothing reached" not in text


def test_terminal_table_of_a_run_that_delivered_nothing(finished: Path) -> None:
    summary = json.loads(finished.joinpath("summary.json").read_text())
    summary.update(delivered=False, bytes_on_air=0, head_only_quality=None, metric="nll", higher_is_better=False)
    console = Console(width=100, file=io.StringIO())
    console.print(summary_table(summary))
    text = console.file.getvalue()
    assert "nothing reached the edge" in text
    assert "lower is better" in text
    assert "head only" not in text
    assert "this run" not in text


def test_reading_a_run_sums_its_rounds(finished: Path) -> None:
    run = read_run(finished)
    summary = json.loads(finished.joinpath("summary.json").read_text())
    assert run.bytes_on_air == summary["bytes_on_air"]
    assert run.missed == summary["missed"]
    assert run.reference.bytes_on_air == summary["reference"]["bytes_on_air"]
    assert len(run.rounds) - run.reference_arrivals == summary["reference"]["missed"]


def test_importing_the_report_imports_neither_matplotlib_nor_torch() -> None:
    import subprocess
    import sys

    code = "import sys, airlora.report; print([m for m in ('matplotlib', 'torch') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
