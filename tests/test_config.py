"""The configuration: defaults < file < options, checked before anything is computed."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest

from airlora.config import RunConfig, load_config
from airlora.errors import InputError


def write(folder: Path, text: str) -> Path:
    file = folder / "job.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_defaults_give_way_to_the_file_and_the_file_to_options(tmp_path: Path) -> None:
    file = write(tmp_path, "rounds = 5\nseed = 3\nlink = 'fading'\n")
    config = load_config({"seed": 4, "rounds": None, "policy": "flood"}, file)
    assert config == RunConfig(rounds=5, seed=4, link="fading", policy="flood")
    assert load_config({}) == RunConfig()


def test_toml_round_trip(tmp_path: Path) -> None:
    configs = [
        RunConfig(),
        RunConfig(lr=1e-05, alpha=8, deadline_s=0.1, round_period_s=2.5, targets="q_proj,v_proj", device="cuda:1"),
        RunConfig(text_column='a "quoted" näme', label_column="1", encoding="latin-1", seed=2**63 - 1),
    ]
    for config in configs:
        text = config.to_toml()
        assert set(tomllib.loads(text)) == {field.name for field in dataclasses.fields(RunConfig)}
        assert load_config({}, write(tmp_path, text)) == config


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"lr": "1e-3"}, {"lr": 1e-3}),  # the command line gives a string
        ({"lr": "auto", "alpha": "auto", "round_period_s": "auto"}, {}),
        ({"deadline_s": 2}, {"deadline_s": 2.0}),
        ({"rounds": 5.0}, {"rounds": 5}),
        ({"text_column": 0}, {"text_column": "0"}),  # a column's index
    ],
)
def test_coercion(values: dict[str, Any], expected: dict[str, Any]) -> None:
    config = load_config(values)
    assert config == RunConfig(**expected)
    for key, value in expected.items():
        assert type(getattr(config, key)) is type(value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"round": 3}, "configuration has no key 'round'; its keys are: model, data, task"),
        ({"rounds": 0}, "rounds is 0; it must be at least 1"),
        ({"rounds": 2.5}, "rounds is 2.5; int is needed"),
        ({"rounds": "many"}, "rounds is 'many'; int is needed"),
        ({"rounds": True}, "rounds is True; int is needed"),
        ({"rounds": float("inf")}, "rounds is inf; int is needed"),
        ({"rounds": float("nan")}, "rounds is nan; int is needed"),
        ({"lr": 0.0}, "lr is 0.0; it must be a finite number above 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"alpha": float("inf")}, "alpha is inf"),
        ({"lr": "fast"}, "lr is 'fast'; float is needed"),
        ({"deadline_s": -1.0}, "deadline_s is -1.0"),
        ({"deadline_s": "auto"}, "deadline_s is 'auto'; float is needed"),
        ({"deadline_s": 2.0, "round_period_s": 1.0}, "round_period_s is 1.0, shorter than deadline_s 2.0"),
        ({"task": "translate"}, "task is 'translate'; allowed: auto, classify, lm"),
        ({"seed": -1}, "seed is -1; it must be in 0"),
        ({"seed": 2**63}, "it must be in 0"),
        ({"targets": ["q_proj"]}, "targets is ['q_proj']; str is needed"),
        ({"targets": " , "}, "targets is ' , '; give auto, or names"),
        ({"policy": {"name": "fit"}}, "str is needed"),
        ({"encoding": 8.0}, "encoding is 8.0; str is needed"),
        ({"dtype": "float16"}, "dtype is 'float16'; allowed: auto, float32, bfloat16"),
        ({"guard_limit": 0}, "guard_limit is 0; it must be at least 1"),
        ({"device": "gpu"}, "device is 'gpu'; allowed: auto, cpu, cuda"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_config(values)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["rounds = ", "rounds = 1\nrounds = 2\n"])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"config '.*job.toml' cannot be read"):
        load_config({}, write(tmp_path, text))


def test_a_file_that_is_missing_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_config({}, tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot be read"):
        load_config({}, tmp_path)
    file = tmp_path / "latin.toml"
    file.write_bytes(b"model = '\xe9'\n")
    with pytest.raises(InputError, match="cannot be read"):
        load_config({}, file)


def test_a_table_in_the_file_is_an_unknown_key(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="configuration has no key 'run'"):
        load_config({}, write(tmp_path, "[run]\nrounds = 3\n"))


def test_derived_values() -> None:
    config = RunConfig(max_rank=4, deadline_s=0.5, targets="q_proj, v_proj,")
    assert (config.adapter_alpha, config.period_s, config.target_names) == (8.0, 0.5, ["q_proj", "v_proj"])
    config = RunConfig(alpha=3.0, round_period_s=2.0)
    assert (config.adapter_alpha, config.period_s, config.target_names) == (3.0, 2.0, None)
