"""What made a comparison: the command, the commit, the versions and the device."""

from __future__ import annotations

import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import airlora
from airlora.compare.plan import OF_AN_ARM, Comparison, Rates
from airlora.compare.replay import write_json
from airlora.plugins import plugin_versions

_PACKAGES = ("airlora", "numpy", "torch", "transformers", "peft", "safetensors")


def provenance() -> dict[str, Any]:
    """``commit``, of the checkout that the package is run from, else its version; and ``versions``."""
    return {"commit": _commit(), "versions": _versions()}


def describe(comparison: Comparison, command: str, suite: str | None, out: Path, made: dict[str, Any]) -> None:
    """Write or extend ``comparison.json``: what was asked for, in all sittings together."""
    path = out / "comparison.json"
    before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    arms = {**before.get("arms", {}), **comparison.policies}
    arms |= {name: peer.spec for name, peer in comparison.peers.items()}
    jobs = {
        name: {key: value for key, value in vars(config).items() if key not in OF_AN_ARM}
        for name, config in comparison.jobs.items()
    }
    commands = [text for text in before.get("commands", []) if text != command]
    data = {
        "command": command,
        "commands": [*commands, command],
        "suite": suite or before.get("suite"),
        **made,
        "jobs": {**before.get("jobs", {}), **jobs},
        "links": {**before.get("links", {}), **comparison.links},
        "arms": arms,
        "peers": sorted({*before.get("peers", []), *comparison.peers}),
        "seeds": sorted({*before.get("seeds", []), *comparison.seeds}),
        "rates": {**before.get("rates", {}), **_rates(comparison)},
    }
    write_json(path, data)


def _rates(comparison: Comparison) -> Rates:
    """Of its jobs alone: a file may know others, and theirs may change."""
    return {job: comparison.rates[job] for job in comparison.jobs if job in comparison.rates}


def _commit() -> str:
    root = Path(airlora.__file__).resolve().parents[2]
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--tags"]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            pass  # no git on this machine: the version says less, but something
    return airlora.__version__


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = airlora.__version__ if name == "airlora" else "not installed"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {**versions, "device": device, **plugin_versions()}
