"""Peers: PEFT's own methods, their files, and what a link makes of a file that is resent whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from airlora.compare.peer_training import PeerTraining, _quality_of_file, file_bytes, load_round, record_peer
from airlora.compare.peers import PEERS, PREFIX, Target, make_peer
from airlora.compare.plan import Comparison
from airlora.compare.worker import read_errors, run_unit
from airlora.config import RunConfig
from airlora.errors import ModelError, SpecError, StoreError

COMMANDS = RunConfig(
    data="builtin:vehicle-commands,train=60,validation=40,test=40",
    rounds=2,
    steps_per_round=6,
    batch_size=4,
    max_rank=4,
    validation_limit=16,
)
LOGS = replace(COMMANDS, data="builtin:vehicle-logs,characters=20000", max_length=16, validation_limit=8)

SPECS = ("lora:rank=2", "dora:rank=2", "eva:rank=2", "adalora:rank=2", "vera:rank=8", "c3a", "lokr:rank=2", "ia3")


@pytest.fixture(scope="module", params=SPECS)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, RunConfig]:
    folder = tmp_path_factory.mktemp("peer")
    # EVA's masks differ with padding; every other method does not care what the task is.
    config = COMMANDS if request.param.startswith(("eva", "lora")) else LOGS
    record_peer(make_peer(request.param), config, folder)
    return request.param, folder, config


@pytest.mark.slow
def test_the_saved_file_is_what_was_measured(recorded):
    _, folder, config = recorded
    complete = json.loads((folder / "complete.json").read_text())
    assert _quality_of_file(folder / "round-0001", False, config) == pytest.approx(complete["cloud_quality"], abs=1e-6)
    half = _quality_of_file(folder / "round-0001", True, config)
    assert half == pytest.approx(complete["cloud_quality_fp16"], abs=1e-6)


@pytest.mark.slow
def test_the_bytes_are_those_of_real_files(recorded):
    _, folder, _ = recorded
    files = folder / "round-0001"
    sizes = file_bytes(files)
    assert sizes == load_round(folder, 1).file_bytes
    assert sizes["fp32"] == sum(path.stat().st_size for path in files.iterdir())
    assert sorted(path.name for path in files.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    numbers = json.loads((folder / "complete.json").read_text())["trained_numbers"]
    if not recorded[0].startswith("adalora"):  # which sends less than it trains
        # half of the bytes of the numbers, but for the digits of the header's offsets
        assert sizes["fp32"] - sizes["fp16"] == pytest.approx(2 * numbers, abs=200)
    assert sizes["fp16+zstd"] < sizes["fp16"]


@pytest.mark.slow
def test_adalora_sends_the_mean_rank_that_it_promises():
    training = PeerTraining(make_peer("adalora:rank=2"), LOGS)
    for index in range(LOGS.rounds):
        training.train_round(index)
    kept = training.model.peft_config["default"].rank_pattern.values()
    assert sum(map(sum, kept)) == 2 * len(kept)


@pytest.mark.slow
def test_eva_redistributes_ranks_and_keeps_their_sum():
    training = PeerTraining(make_peer("eva:rank=3"), COMMANDS)
    ranks = [len(p) for name, p in training.model.named_parameters() if "lora_A" in name]
    assert sum(ranks) == 3 * 24
    assert len(set(ranks)) > 1


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_steps_and_schedule(schedule):
    training = PeerTraining(make_peer(f"lora:rank=1,lr=0.01,head=5,steps=1.5,schedule={schedule}"), COMMANDS)
    assert training.total_steps == 18
    training.train_round(0)
    left = 0.5 if schedule == "linear" else 1.0
    rates = [group["lr"] for group in training._optimizer.param_groups]
    assert rates == pytest.approx([0.01 * left, 0.05 * left])


@pytest.mark.slow
def test_measuring_in_half_precision_leaves_the_training_alone():
    training = PeerTraining(make_peer("adalora:rank=1"), LOGS)
    training.train_round(0)
    before = [p.detach().clone() for p in training._trained]
    training.quality("validation", half=True)
    assert all(torch.equal(a, b) for a, b in zip(before, training._trained, strict=True))


@pytest.mark.slow
def test_a_file_counts_only_when_all_of_it_arrives_and_is_resent_anew(tmp_path):
    """Rounds of 1 s over a link that carries the file in rounds 0 and 2, half of it in round 1 and nothing after."""
    peer = make_peer("lora:rank=1")
    config = replace(LOGS, rounds=4, steps_per_round=2)
    record_peer(peer, config, tmp_path / "ahead")
    size = load_round(tmp_path / "ahead", 0).file_bytes["fp16"]
    trace = tmp_path / "link.csv"
    rates = (2 * size, size // 2, 2 * size, 0)
    trace.write_text("t_s,dl_mbps\n" + "".join(f"{t},{rate * 8 / 1e6:.9f}\n" for t, rate in enumerate(rates)))
    out = tmp_path / "out"
    grid = Comparison({"logs": config}, {"link": f"trace:{trace}"}, {}, (0,), {"peft-lora:rank=1": peer})
    (unit,) = grid.units()
    run_unit(unit, out, {})
    assert read_errors([unit], out) == []
    folder = out / unit.arms[0].folder
    rows = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    assert [row["missed"] for row in rows] == [False, True, False, True]
    assert [row["bytes_delivered"] for row in rows] == [size, 0, size, 0]
    assert [row["bytes_on_air"] for row in rows] == [size, size // 2, size, 0]
    assert rows[0]["airtime_s"] == pytest.approx(0.5)
    assert rows[1]["airtime_s"] == 1
    recording = out / unit.recordings / "peft-lora_rank=1"
    quality = [load_round(recording, index).quality["fp16"] for index in range(4)]
    assert [row["edge_quality"] for row in rows] == [quality[0], quality[0], quality[2], quality[2]]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["edge_quality"] == _quality_of_file(recording / "round-0002", True, config)
    assert (summary["arm_kind"], summary["file_bytes"], summary["steps_trained"]) == ("peer", size, 8)


def targets(*shapes: tuple[int, int], transposed: bool = False) -> tuple[Target, ...]:
    return tuple(Target(f"layers.{index}.w", *shape, transposed) for index, shape in enumerate(shapes))


def test_ia3_scales_the_input_of_the_maps_that_come_back_from_the_wide_layer():
    shapes = targets((64, 64), (172, 64), (64, 172))
    config = make_peer("ia3").peft_config(shapes, 10, {"target_modules": [t.name for t in shapes]})
    assert set(config.feedforward_modules) == {"layers.2.w"}


def test_c3a_takes_the_largest_blocks_that_fit():
    shapes = targets((64, 64), (64, 64), (172, 64))
    config = make_peer("c3a:divide=2").peft_config(shapes, 10, {"target_modules": ["w"]})
    assert (config.block_size, config.block_size_pattern) == (32, {"layers.2.w": 2})
    with pytest.raises(ModelError, match=r"divide=8 does not divide 4, the largest block of layers\.2\.w"):
        make_peer("c3a:divide=8").peft_config(shapes, 10, {"target_modules": ["w"]})


@pytest.mark.parametrize("method", ["c3a", "lokr"])
def test_a_method_that_cannot_run_on_an_architecture_says_so(method):
    with pytest.raises(ModelError, match=f"PEFT has no {method} for GPT-2's Conv1D; leave it out"):
        make_peer(method).peft_config(targets((64, 64), transposed=True), 10, {})


@given(
    method=st.sampled_from(sorted(PEERS)),
    file=st.sampled_from(["fp32", "fp16", "fp16+zstd"]),
    lr=st.one_of(st.none(), st.sampled_from([0.1, 5e-4])),
    steps=st.sampled_from([1.0, 0.5, 3.0]),
)
def test_a_spec_describes_a_peer_completely(method, file, lr, steps):
    peer = PEERS[method](file=file, lr=lr, steps=steps)
    assert make_peer(peer.spec) == peer
    assert replace(peer, file="fp32").training_key == peer.training_key
    assert make_peer(peer.tuning_key) == PEERS[method](steps=steps)


def test_rates_fill_in_what_a_spec_leaves_open():
    rates = {"lora:rank=4": {"lr": 0.03, "head": 5.0}, "lora:rank=4,steps=2": {"lr": 0.02}}
    assert make_peer("lora:rank=4").rated(rates) == make_peer("lora:rank=4,lr=0.03,head=5")
    assert make_peer("lora:rank=4,lr=0.1").rated(rates) == make_peer("lora:rank=4,lr=0.1,head=5")
    assert make_peer("lora:rank=4,steps=2").rated(rates).lr == 0.02
    assert make_peer("lora:rank=4,steps=3").rated(rates).lr == 0.03
    assert make_peer("lora:rank=8").rated(rates) == make_peer("lora:rank=8")


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("bitfit", "unknown peer 'bitfit'; there are: adalora, c3a, dora, eva, ia3, lokr, lora, vera"),
        ("lora:rank=0", "rank=0 must be at least 1"),
        ("lora:lr=0", "lr=0.0 must be a finite number above 0"),
        ("lora:file=int4", "allowed: fp32, fp16, fp16\\+zstd"),
        ("ia3:rank=3", "has no key 'rank'"),
    ],
)
def test_a_wrong_spec_is_refused(spec, complaint):
    with pytest.raises(SpecError, match=complaint):
        make_peer(spec)


def test_a_missing_recording_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"round-0003\.json cannot be read .* delete its folder and run again"):
        load_round(tmp_path, 3)


def test_the_names_of_peers_and_policies_differ():
    assert make_peer("adalora:rank=4").training_key.startswith(PREFIX)
