"""``airlora policy train`` and ``eval``, and a trained policy in ``airlora run``."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

import airlora.report
from airlora.cli import app
from airlora.config import RunConfig
from airlora.env import PaperConfig, TrainingConfig, evaluate_policy, train_policy
from airlora.env.folder import TrainingFolder
from airlora.env.training import PolicyTraining, Progress, stored_training_config
from airlora.errors import InputError, OutputError, StoreError, TrainingError
from airlora.policy.checkpoint import POLICY_FILE
from airlora.policy.settings import DdimSettings, PpoSettings
from airlora.run import run

DATA = "builtin:vehicle-commands,train=60,validation=40,test=40"
ENVIRONMENT = PaperConfig(
    data=DATA, targets="q_proj", links=("awgn:snr_db=10,bandwidth_hz=2e5",), batch_size=4, max_length=24, lr=1e-3
)
CONFIG = TrainingConfig(
    episodes=4,
    validate_every=30,
    checkpoint_every=1,
    environment=replace(ENVIRONMENT, episode_steps=6, validation_limit=16),
    ppo=PpoSettings(width=16, latent_dim=4),
    ddim=DdimSettings(train_steps=100, sample_steps=5, width=32, time_dim=16, warmup=8),
)
ROW = {
    *("episode", "steps", "reward", "loss", "cost", "violations", "mean_rank", "numbers", "approx_kl"),
    *("clip_fraction", "explained_variance", "value_loss", "policy_gradient_loss", "entropy", "std", "ddim_loss"),
    *("replay", "validation", "wall"),
}


def rows(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "wall"} for row in found]


def same_files(folder: Path, other: Path) -> None:
    """Equal in everything but real time."""
    assert rows(folder) == rows(other)
    assert (folder / POLICY_FILE).read_bytes() == (other / POLICY_FILE).read_bytes()
    ours, theirs = (load_file(path / "training.safetensors") for path in (folder, other))
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy") / "airllm"
    assert train_policy(CONFIG, folder) == 4
    return folder


def test_training_writes_a_row_an_episode_a_policy_and_a_checkpoint(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "config.toml",
        "metrics.jsonl",
        POLICY_FILE,
        "training.safetensors",
    }
    found = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["episode"] for row in found] == [0, 1, 2, 3]
    assert all(row.keys() == ROW for row in found)
    assert [row["ddim_loss"] is None for row in found] == [True, False, False, False]  # 6, 12, … transitions; warm-up 8
    assert [row["validation"] is None for row in found].count(False) == 0  # 24 steps; measured every 30
    assert stored_training_config(trained) == CONFIG


def test_equal_configurations_give_equal_files(trained: Path, tmp_path: Path) -> None:
    train_policy(CONFIG, tmp_path / "again")
    same_files(trained, tmp_path / "again")


@pytest.mark.parametrize("agent", ["airllm", "ppo"])
def test_a_resumed_training_ends_as_one_that_was_not_interrupted(agent: Any, trained: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, agent=agent, checkpoint_every=2, environment=replace(CONFIG.environment, text="words"))
    train_policy(config, tmp_path / "whole")
    seen = 0

    def interrupt(row: dict[str, Any], total: int) -> None:
        nonlocal seen
        seen += 1
        if seen == 3:  # one episode after the checkpoint
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_policy(config, tmp_path / "stopped", on_episode=interrupt)
    assert len(rows(tmp_path / "stopped")) == 2
    assert train_policy(stored_training_config(tmp_path / "stopped"), tmp_path / "stopped", resume=True) == 4
    same_files(tmp_path / "whole", tmp_path / "stopped")


def test_several_episodes_a_roll_out_give_a_row_each(tmp_path: Path) -> None:
    config = replace(CONFIG, agent="ppo", validate_every=12, ppo=replace(CONFIG.ppo, rollout_episodes=2))
    train_policy(config, tmp_path / "out")
    found = rows(tmp_path / "out")
    assert [row["episode"] for row in found] == [0, 1, 2, 3]
    assert [row["validation"] is None for row in found] == [True, False, True, False]
    assert found[0]["approx_kl"] == found[1]["approx_kl"]


# early stopping


def progress_after(qualities: list[float], reward: float, higher_is_better: bool = True) -> list[bool]:
    progress, stopped = Progress(), []
    for quality in qualities:
        progress.rewards = [reward] * 3
        progress.measured(quality, higher_is_better, TrainingConfig(patience=2))
        stopped.append(progress.stopped)
    return stopped


def test_training_stops_after_stale_measurements_once_the_reward_is_high() -> None:
    assert progress_after([0.5, 0.6, 0.6, 0.6], reward=-0.4) == [False, False, False, True]
    assert progress_after([0.5, 0.6, 0.6, 0.6], reward=-0.6) == [False] * 4  # not above min(−λ, −0.5)
    assert progress_after([0.5, 0.5, 0.6, 0.6, 0.6], reward=-0.4) == [False] * 4 + [True]
    assert progress_after([2.0, 1.9, 1.8, 1.7], reward=-0.4, higher_is_better=False) == [False] * 4


def test_a_stopped_training_stays_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Progress, "measured", lambda self, *_: setattr(self, "stopped", True))
    config = replace(CONFIG, agent="ppo", validate_every=6)
    assert train_policy(config, tmp_path / "out") == 1
    assert train_policy(config, tmp_path / "out", resume=True) == 1


# folders that cannot be used


def test_a_folder_that_is_not_empty_is_refused(trained: Path) -> None:
    with pytest.raises(OutputError, match="not empty"):
        train_policy(CONFIG, trained)


def test_a_folder_without_a_training_cannot_be_resumed_or_replayed(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no policy training"):
        stored_training_config(tmp_path)
    with pytest.raises(StoreError, match="holds no policy"):
        evaluate_policy(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "rows", "other"])
def test_a_damaged_checkpoint_is_a_clear_error(damage: str, tmp_path: Path) -> None:
    config = replace(CONFIG, agent="ppo", episodes=2)
    train_policy(config, tmp_path / "out")
    if damage == "cut":
        path = tmp_path / "out" / "training.safetensors"
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "rows":
        (tmp_path / "out" / "metrics.jsonl").write_text("")
    else:
        config = replace(config, environment=replace(config.environment, targets="v_proj"))
    training = PolicyTraining(config, TrainingFolder(tmp_path / "out"))
    with pytest.raises(StoreError):
        training.load()


def test_a_diverging_adapter_is_a_clear_error(tmp_path: Path) -> None:
    config = replace(CONFIG, environment=replace(CONFIG.environment, lr=1e30, links=("awgn:snr_db=30",)))
    with pytest.raises(TrainingError, match="diverged"):
        train_policy(config, tmp_path / "out")


# evaluation


def test_replaying_is_deterministic_and_begins_with_an_untrained_adapter(trained: Path) -> None:
    first = evaluate_policy(trained, episodes=2, rules=True)
    assert json.loads((trained / "eval.json").read_text()) == first
    assert evaluate_policy(trained, episodes=2, rules=True) == first
    (trained / "eval.json").unlink()
    arms = first["arms"]
    assert list(arms) == ["airllm", "random", "fit"]
    assert all(arm["steps"] == 12 for arm in arms.values())
    assert arms["fit"]["violations"] == 0
    assert arms["fit"]["reward"] > arms["random"]["reward"] - 10
    other = evaluate_policy(trained, episodes=1, links=("awgn:snr_db=-5,bandwidth_hz=1e4",), seed=3)
    (trained / "eval.json").unlink()
    assert other["arms"]["airllm"]["violations"] == 6


# the commands


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["policy", *arguments])


def test_train_and_eval_from_the_command_line(tmp_path: Path) -> None:
    config = tmp_path / "small.toml"
    config.write_text(replace(CONFIG, episodes=1).to_toml())
    out = tmp_path / "out"
    link = "awgn:snr_db=5,bandwidth_hz=3e5"
    result = invoke(
        "train", "--out", str(out), "--config", str(config), "--agent", "ppo", "--link", link, "--lr", "auto"
    )
    assert result.exit_code == 0, result.output
    assert "1 episodes" in result.output
    stored = stored_training_config(out)
    assert (stored.agent, stored.environment.links, stored.environment.lr) == ("ppo", (link,), None)
    result = invoke("train", "--out", str(out), "--resume", "--episodes", "2")
    assert result.exit_code == 0, result.output
    assert len(rows(out)) == 2
    result = invoke("eval", str(out), "--episodes", "1", "--rules")
    assert result.exit_code == 0, result.output
    assert all(name in result.output for name in ("ppo", "random", "fit"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--mode", "dream"), "--mode is 'dream'; allowed: paper, stream"),
        (("train", "--agent", "sac"), "agent is 'sac'"),
        (("train", "--link", "awgn:snr=3"), "no key 'snr'"),
        (("train", "--resume", "--seed", "1"), "--resume takes its configuration from the folder"),
        (("train", "--episodes", "0"), "episodes is 0"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    result = invoke(*arguments, "--out", str(tmp_path / "out"))
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_trained_policy_runs(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airlora.report, "write_report", lambda folder: None)
    config = RunConfig(
        data=DATA,
        targets="q_proj",
        policy=f"airllm:{trained},bits=8",
        link="awgn:snr_db=10,bandwidth_hz=1e5",
        rounds=2,
        steps_per_round=2,
        batch_size=4,
        max_rank=8,
        max_length=24,
        validation_limit=16,
    )
    summary = run(config, tmp_path / "run")
    found = [json.loads(line) for line in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    assert summary["rounds"] == len(found) == 2
    assert all(set(row["bits"].values()) <= {3, 4, 6, 8} for row in found)
    assert all(1 <= rank <= 8 for row in found for rank in row["ranks"].values())


def test_policies_import_neither_torch_nor_gymnasium_nor_stable_baselines() -> None:
    code = (
        "import sys, airlora.cli, airlora.policy, airlora.policy.checkpoint\n"
        "print([name for name in ('torch', 'gymnasium', 'stable_baselines3', 'transformers') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"
