"""From what is known of link, text and adapter to what is sent."""

from dataclasses import fields, replace
from typing import Any

from airlora.plugins import registry_for
from airlora.policy.base import REMEMBERED_RATES, Observation, Policy, Training
from airlora.policy.learned import AirLlm, Ppo
from airlora.policy.rules import AdaLora, Fit, Fixed, Flood, Greedy, Random, Uniform
from airlora.spec import build

POLICIES: dict[str, type] = {
    "uniform": Uniform,
    "fit": Fit,
    "fixed": Fixed,
    "flood": Flood,
    "random": Random,
    "greedy": Greedy,
    "adalora": AdaLora,
    "ppo": Ppo,
    "airllm": AirLlm,
}


def make_policy(spec: str, seed: int) -> Policy:
    """Build the policy that a SPEC names; one that draws takes ``seed`` unless the SPEC gives its own.

    Raises:
        SpecError: an unknown name or key, or an impossible value.
    """
    policy: Any = build(registry_for(spec, POLICIES, "airlora.policies", Policy), spec, "policy")
    if any(field.name == "seed" for field in fields(policy)) and policy.seed is None:
        policy = replace(policy, seed=seed)
    return policy


__all__ = [
    "POLICIES",
    "REMEMBERED_RATES",
    "AdaLora",
    "AirLlm",
    "Fit",
    "Fixed",
    "Flood",
    "Greedy",
    "Observation",
    "Policy",
    "Ppo",
    "Random",
    "Training",
    "Uniform",
    "make_policy",
]
