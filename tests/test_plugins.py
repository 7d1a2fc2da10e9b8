"""Plug-ins: what docs/plugins.md shows is installed and runs beside the built-in arms."""

from __future__ import annotations

import csv
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from airlora import cli
from airlora.errors import SpecError
from airlora.link import Awgn, make_link
from airlora.plugins import find_plugins, plugin_versions
from airlora.policy import Fit, make_policy

PAGE = Path(__file__).parent.parent / "docs" / "plugins.md"


def install(folder: Path, module: str, source: str, points: dict[str, dict[str, str]]) -> None:
    """What pip leaves of a distribution: a module and its dist-info folder."""
    info = folder / f"{module}-1.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.5\n")
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    (folder / f"{module}.py").write_text(source, encoding="utf-8")


@pytest.fixture
def frugal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = PAGE.read_text(encoding="utf-8")
    source, project = (re.search(rf"```{kind}\n(.*?)```", page, re.S).group(1) for kind in ("python", "toml"))
    install(tmp_path / "site", "frugal", source, tomllib.loads(project)["project"]["entry-points"])
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "frugal", raising=False)


@pytest.mark.usefixtures("frugal")
def test_a_plugin_is_named_in_a_spec_like_a_built_in_one():
    policy = make_policy("every-other:rank=4", seed=0)
    assert (type(policy).__name__, policy.rank) == ("EveryOther", 4)
    assert make_link("basement:walls=2", seed=0).observe(0.0).rate_bps == Awgn(snr_db=8).observe(0.0).rate_bps
    assert plugin_versions()["frugal"] == "1.5"
    with pytest.raises(SpecError, match="has no key 'height'; its keys are: walls, share"):
        make_link("basement:height=2", seed=0)
    with pytest.raises(SpecError, match=r"unknown link 'cellar'; there are: awgn, basement, fading, trace"):
        make_link("cellar", seed=0)


@pytest.mark.slow
@pytest.mark.usefixtures("frugal")
def test_plugins_stand_in_the_same_tables(tmp_path, monkeypatch):
    job = tmp_path / "job.toml"
    job.write_text(
        'data = "logs:characters=30000"\nrounds = 2\nsteps_per_round = 1\nbatch_size = 2\nmax_rank = 2\n'
        "validation_limit = 4\nmax_length = 16\n"
    )
    command = ["airlora", "compare", "--out", str(tmp_path / "out"), "--jobs", f"logs={job}", "--seeds", "1"]
    command += ["--links", "home=basement:walls=2", "--policies", "fit", "--policies", "every-other:rank=1"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    with (tmp_path / "out" / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["job"], row["link"], row["arm"]) for row in rows} == {
        ("logs", "home", "fit"),
        ("logs", "home", "every-other:rank=1"),
    }
    folder = tmp_path / "out" / "arms" / "logs" / "seed-0" / "home" / "every-other_rank=1"
    lines = (folder / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["bytes_on_air"] > 0 for line in lines] == [True, False]
    assert json.loads((folder / "summary.json").read_text())["versions"]["frugal"] == "1.5"


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("raise RuntimeError('too old')", r"cannot be loaded: RuntimeError: too old; update or uninstall it"),
        ("class Bad: pass", r"must be a dataclass derived from airlora\.link\.base\.Link"),
        ("def Bad(): pass", r"must be a dataclass derived from airlora\.link\.base\.Link"),
    ],
)
def test_a_broken_plugin_is_named_and_harms_nobody_else(source, complaint, tmp_path, monkeypatch):
    module = f"broken_{abs(hash(source))}"
    install(tmp_path, module, source, {"airlora.links": {"bad": f"{module}:Bad"}})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert make_link("awgn:snr_db=3", seed=0) == Awgn(snr_db=3)
    with pytest.raises(SpecError, match=rf"plug-in 'bad' \({module}:Bad of {module}\).*{complaint}"):
        make_link("bad", seed=0)


def test_a_built_in_name_wins(tmp_path, monkeypatch):
    install(tmp_path, "usurper", "raise SystemError", {"airlora.policies": {"fit": "usurper:Fit"}})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "fit" in find_plugins("airlora.policies")
    assert make_policy("fit", seed=0) == Fit()
