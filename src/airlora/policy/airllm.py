"""The agents: AirLLM (PPO draws a coarse latent, a DDIM makes the ranks of it), and PPO alone.

One iteration of AirLLM, as the paper alternates:

1. Roll out: state -> PPO's latent -> tanh -> DDIM -> environment. The DDIM is part of the environment here: frozen,
   its noise from a generator of its own.
2. Update PPO on the roll-out.
3. Update the DDIM on the replay of (squashed latent, x0, reward), once it holds ``warmup`` transitions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, SupportsFloat

import gymnasium
import numpy as np
import torch

from airlora.policy.ddim import DdimLearner
from airlora.policy.ppo import PpoLearner, load_optimizer, optimizer_state, part
from airlora.policy.replay import Replay
from airlora.policy.settings import DdimSettings, PpoSettings

AgentKind = Literal["airllm", "ppo"]


class Refine(gymnasium.Wrapper):
    """Lets an agent act on a coarse latent z ∈ [−1, 1]^C: the DDIM turns it into the environment's action.

    Args:
        env: actions in [−1, 1]^M. If it has ``replayed``, that gives the x0 to imitate for an action; else the action.
        ddim: makes actions; the wrapper does not train it.
        latent_dim: C.
    """

    def __init__(self, env: gymnasium.Env, ddim: DdimLearner, latent_dim: int):
        super().__init__(env)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (latent_dim,), np.float32)
        self.transitions: list[tuple[np.ndarray, np.ndarray, float]] = []
        self._ddim = ddim
        self._generator = torch.Generator()
        self._replayed = getattr(env.unwrapped, "replayed", lambda action: action)

    def restart(self, seed: int) -> None:
        """Begin the DDIM's noise anew from a seed, and forget the transitions."""
        self._generator.manual_seed(seed)
        self.transitions = []

    def step(self, action: np.ndarray) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Refine the latent, step, and keep (latent, x0, reward) in ``transitions``."""
        latent = np.asarray(action, np.float32)
        noise = torch.randn(1, self.env.action_space.shape[0], generator=self._generator)  # type: ignore[index]
        x0 = self._ddim.sample(torch.from_numpy(latent)[None], noise)[0].numpy()
        observation, reward, terminated, truncated, info = self.env.step(x0)
        self.transitions.append((latent, self._replayed(x0), float(reward)))
        return observation, reward, terminated, truncated, info


class Agent:
    """Trains a policy on an environment, an iteration (a roll-out and its updates) at a time.

    Args:
        kind: ``airllm``, or ``ppo`` to act on the environment directly.
        env: actions in [−1, 1]^M, episodes of ``episode_steps`` steps.
        ppo, ddim: hyperparameters.
        episode_steps: of the environment.
        seed: of everything random here.
    """

    def __init__(
        self,
        kind: AgentKind,
        env: gymnasium.Env,
        ppo: PpoSettings,
        ddim: DdimSettings,
        *,
        episode_steps: int,
        seed: int,
    ):
        self.kind = kind
        self.iterations = 0
        self._seed = seed
        shape = env.action_space.shape
        assert shape is not None
        self.ddim: DdimLearner | None = None
        if kind == "airllm":
            self.ddim = DdimLearner(shape[0], ppo.latent_dim, ddim, self._draw_seed(0))
            self.replay = Replay(ddim.capacity, ppo.latent_dim, shape[0])
            env = self._refine = Refine(env, self.ddim, ppo.latent_dim)
        self.ppo = PpoLearner(env, ppo, episode_steps, self._draw_seed(1))

    def iterate(self) -> dict[str, float]:
        """One iteration; returns PPO's metrics, and for AirLLM ``ddim_loss`` (NaN in the warm-up) and ``replay``.

        Raises:
            TrainingError: a loss is not finite.
        """
        self.iterations += 1
        if self.ddim is None:
            metrics = self.ppo.learn(self._draw_seed(2))
        else:
            self._refine.restart(self._draw_seed(3))
            metrics = self.ppo.learn(self._draw_seed(2))
            for transition in self._refine.transitions:
                self.replay.add(*transition)
            metrics |= {"ddim_loss": self._update_ddim(self.ddim), "replay": len(self.replay)}
        return metrics

    def _update_ddim(self, ddim: DdimLearner) -> float:
        settings = ddim.settings
        if len(self.replay) < settings.warmup:
            return float("nan")
        generator = torch.Generator().manual_seed(self._draw_seed(4))
        losses = []
        for _ in range(settings.updates):
            condition, x0, rewards = self.replay.sample(settings.batch_size, generator)
            losses.append(ddim.update(x0, condition, rewards, generator))
        return float(np.mean(losses)) if losses else float("nan")

    def _draw_seed(self, stream: int) -> int:
        """A seed for one purpose in one iteration: a pure function of the agent's seed."""
        return int(np.random.SeedSequence([self._seed, 0xA1, stream, self.iterations]).generate_state(1)[0])

    def networks(self) -> dict[str, torch.Tensor]:
        """What decides: the tensors of the ``Actor`` and of the denoiser, flat."""
        tensors = {f"actor/{name}": value for name, value in self.ppo.actor_state().items()}
        if self.ddim is not None:
            tensors |= {f"denoiser/{name}": value for name, value in self.ddim.denoiser.state_dict().items()}
        return tensors

    def state(self) -> dict[str, torch.Tensor]:
        """All that the next iteration depends on but the environment, flat."""
        parts = {"ppo": self.ppo.state(), "agent": {"iterations": torch.tensor(self.iterations)}}
        if self.ddim is not None:
            parts["denoiser"] = self.ddim.denoiser.state_dict()
            parts["ddim_optimizer"] = optimizer_state(self.ddim.optimizer)
            parts["replay"] = self.replay.state()
        return {f"{name}/{key}": value for name, values in parts.items() for key, value in values.items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore what ``state`` gave."""
        self.iterations = int(state["agent/iterations"])
        self.ppo.load_state(part(state, "ppo/"))
        if self.ddim is not None:
            self.ddim.denoiser.load_state_dict(part(state, "denoiser/"))
            load_optimizer(self.ddim.optimizer, part(state, "ddim_optimizer/"))
            self.replay.load_state(part(state, "replay/"))
