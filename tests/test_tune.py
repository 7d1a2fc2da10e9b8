"""The search of learning rates begins where it is told to, and walks uphill by factors of two."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from airlora.compare.command import Options, read_rates

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "tune.py"
TUNE = runpy.run_path(str(SCRIPT))
Rate = TUNE["Rate"]


def test_the_search_walks_up_the_adapters_rate_first_and_then_the_heads():
    best = Rate(0.04, 2.0)  # the head's own rate is 0.08

    def score(rate) -> float:
        heads = abs(rate.lr * rate.head / (best.lr * best.head) - 1)
        return -abs(rate.lr / best.lr - 1) - heads

    assert TUNE["climb"](Rate(0.01, 2.0), score, True) == (best, 0.0)
    without_head, quality = TUNE["climb"](Rate(0.01), lambda rate: -abs(rate.lr - 0.04), False)
    assert (without_head, quality) == (Rate(0.04), 0.0)


def test_a_file_gives_both_rates_to_start_from(tmp_path, monkeypatch):
    (tmp_path / "start.toml").write_text(
        '[commands]\nnested-8 = {lr = 0.01, head = 3.0}\n"lora:rank=8" = {lr = 0.02, head = 4.0}\n'
        '"lora:rank=4" = {lr = 0.03}\n'
    )
    first = {}

    def score(trials, rate):
        first.setdefault(trials.task.arm, rate)
        return 0.0

    monkeypatch.setattr(TUNE["Trials"], "score", score)
    peers = ("lora:rank=8", "lora:rank=4", "vera:rank=64")
    options = Options(out=tmp_path, suite="quick", policies=("fit",), peers=peers)
    for task in TUNE["find_tasks"](options, read_rates(tmp_path / "start.toml")):
        _, best, _ = TUNE["tune"](task, tmp_path / "none.jsonl")
        assert best == first[task.arm]
    assert first["nested-8"] == Rate(0.01, 3.0)
    assert first["lora:rank=8"] == Rate(0.02, 4.0)
    built_in = first["vera:rank=64"]  # the head's own rate is the built-in one for everybody
    assert first["lora:rank=4"].lr == 0.03
    assert 0.03 * first["lora:rank=4"].head == pytest.approx(built_in.lr * built_in.head, rel=1e-3)


def test_a_file_that_holds_no_rates_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "start.toml").write_text("[commands]\nnested-8 = 0.01\n")
    argv = [str(SCRIPT), "quick", "--out", str(tmp_path / "out.toml"), "--start", str(tmp_path / "start.toml")]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "needed is a table such as" in capsys.readouterr().err
