"""AirLLM in stream mode: PPO draws a coarse latent and how much of the budget to use, a DDIM over tokens refines it.

First the DDIM imitates allocations around the rule ``fit`` (``stream_family``). Then, an iteration at a time:

1. Roll out in several environments: observation -> PPO's Gaussian -> tanh -> (budget's number, latent); latent and
   tokens -> DDIM -> rank and bits of each projection.
2. Update PPO on the roll-out.
3. If it is to learn on (``updates``), update the DDIM on the replay, weighted by PPO's advantages: what an action
   earned beyond what its state promised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn, VecEnvWrapper

from airlora.errors import TrainingError
from airlora.policy.ddim import sample, training_loss
from airlora.policy.ppo import LATENT_LIMIT, EncoderExtractor, PpoLearner, load_optimizer, optimizer_state, part
from airlora.policy.replay import Replay
from airlora.policy.settings import DdimSettings, PpoSettings
from airlora.policy.stream_action import StreamDecoder
from airlora.policy.stream_family import JITTER, Refinement, family_member
from airlora.policy.stream_networks import NUMBERS, TokenDenoiser, TokenEncoder
from airlora.policy.tokens import GLOBAL_SIZE, TOKEN_SIZE, View

_HEAD = 1 + GLOBAL_SIZE
_CLONE_LR, _CLONE_BETA = 1e-3, 0.05
_RESPONSES, _RESPONSE_AT = 100, 0.3
"""Observations on which the DDIM's response is measured, and to which latent."""
_IMITATION = 30.0
"""Learning rate of the DDIM in the imitation over its later one."""


Teaching = Callable[[View], np.ndarray]


class TokenExtractor(EncoderExtractor):
    """``TokenEncoder`` as Stable-Baselines3 wants it."""

    def __init__(self, observation_space: gymnasium.Space, width: int):
        super().__init__(observation_space, width)
        self.encoder = TokenEncoder(width)  # type: ignore[assignment]


class RefineMany(VecEnvWrapper):
    """Lets an agent act with (budget's number, latent) before tanh, in several ``StreamEnv`` at once.

    Args:
        venv: the environments. denoiser, settings: make rank and bits; not trained here. latent_dim: C.
        group: so many environments, one after another, play the same episode: from each reward the mean of their
            rewards in that round is taken, so that luck with job and link cancels.
        refine: by the denoiser, or by ``family_member``.

    Attributes:
        transitions: of each step, observations (N, D), latents (N, C) and what to imitate (N, 2 · capacity). The
            latents are those that mean it without guidance: guidance w takes z for w · z, and who imitated that as z
            would drift outwards by w with every generation.
        infos: of each step, of each environment.
    """

    def __init__(
        self,
        venv: DummyVecEnv,
        denoiser: TokenDenoiser,
        settings: DdimSettings,
        latent_dim: int,
        *,
        group: int = 1,
        refine: Refinement = "ddim",
    ):
        space = gymnasium.spaces.Box(-LATENT_LIMIT, LATENT_LIMIT, (1 + latent_dim,), np.float32)
        super().__init__(venv, action_space=space)
        self._denoiser, self._settings, self._group = denoiser, settings, group
        self._refine = refine
        self._generator = torch.Generator()
        self._streams: list[Any] = [env.unwrapped for env in venv.envs]

    def restart(self, seed: int) -> None:
        """Begin the DDIM's noise anew from a seed, and forget what was kept."""
        self._generator.manual_seed(seed)
        self.transitions: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.infos: list[dict[str, Any]] = []

    def reset(self) -> np.ndarray:
        """Of all environments."""
        self._observations = np.asarray(self.venv.reset())
        return self._observations

    def step_async(self, actions: np.ndarray) -> None:
        """Refine and act."""
        squashed = np.tanh(actions.astype(np.float32))
        numbers, latents = squashed[:, 0], squashed[:, 1:]
        x0 = self._sampled(latents) if self._refine == "ddim" else self._family(numbers, latents)
        imitated = []
        for env, number, own in zip(self._streams, numbers, x0, strict=True):
            count = len(env.job.table.schema.projections)
            imitated.append(env.replayed(env.allocation(float(number), own.reshape(-1, 2)[:count])))
        meant = np.clip(latents * max(self._settings.guidance, 1.0), -1, 1)
        self.transitions.append((self._observations, meant, np.stack(imitated)))
        self.venv.step_async(np.concatenate([numbers[:, None], x0], axis=1))

    @torch.no_grad()
    def _sampled(self, latents: np.ndarray) -> np.ndarray:
        bound = self._denoiser.bind(torch.from_numpy(self._observations))
        size = self._streams[0].action_space.shape[0] - 1
        noise = torch.randn(len(latents), size, generator=self._generator)
        x0: np.ndarray = sample(bound, self._settings, torch.from_numpy(latents), noise).numpy()
        return x0

    def _family(self, numbers: np.ndarray, latents: np.ndarray) -> np.ndarray:
        x0 = np.zeros((len(latents), self._streams[0].action_space.shape[0] - 1), np.float32)
        for row, env, number, latent in zip(x0, self._streams, numbers, latents, strict=True):
            own = family_member(env.decoder, env.view, float(number), latent).ravel()
            row[: len(own)] = own
        return x0

    def step_wait(self) -> VecEnvStepReturn:
        """What came of it."""
        observations, rewards, dones, infos = self.venv.step_wait()
        self._observations = np.asarray(observations)
        self.infos += infos
        if self._group > 1:
            by_episode = rewards.reshape(-1, self._group)
            rewards = (by_episode - by_episode.mean(axis=1, keepdims=True)).ravel()
        return observations, rewards, dones, infos


class StreamAgent:
    """Trains on several environments an iteration (a roll-out and its updates) at a time.

    Args:
        envs: wrapped ``StreamEnv`` of one capacity, with episodes of ``episode_steps`` steps; an episode follows from
            the seed of its ``reset``.
        ppo, ddim: hyperparameters.
        episode_steps: of the environments.
        seed: of everything random here.
        group, refine: see ``RefineMany``; the first divides the number of environments.
    """

    def __init__(
        self,
        envs: Sequence[gymnasium.Env],
        ppo: PpoSettings,
        ddim: DdimSettings,
        *,
        episode_steps: int,
        seed: int,
        group: int = 1,
        refine: Refinement = "ddim",
    ):
        self.settings = ddim
        self.iterations = 0
        self._seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._draw_seed(0))
            self.denoiser = TokenDenoiser(ppo.latent_dim, ddim)
        self._optimizer = torch.optim.Adam(self.denoiser.parameters(), lr=ddim.lr)
        venv = DummyVecEnv([lambda env=env: env for env in envs])  # type: ignore[misc]
        self._vec = RefineMany(venv, self.denoiser, ddim, ppo.latent_dim, group=group, refine=refine)
        self._group, self._refine = group, refine
        size = int(self._vec.observation_space.shape[0])  # type: ignore[index]
        numbers = int(envs[0].action_space.shape[0]) - 1  # type: ignore[index]
        self._latent_dim = ppo.latent_dim
        self.replay = Replay(ddim.capacity, ppo.latent_dim + size, numbers)
        self.ppo = PpoLearner(self._vec, ppo, episode_steps, self._draw_seed(1), TokenExtractor)

    def imitate(
        self,
        env: Any,
        transitions: int,
        updates: int,
        teacher: Teaching | None = None,
        on_progress: Callable[[str, int, int], None] = lambda *_: None,
    ) -> float:
        """Teach the DDIM the family around the rule, and the actor a teacher, on states that members of the family
        reach and, in every other episode, on those that the teacher reaches.

        Args:
            env: a ``StreamEnv``. transitions: to collect. updates: steps of the DDIM, of four batches each; the actor
                has a quarter as many.
            teacher: view -> the budget's number, rank and bits of all; None leaves the actor at the rule.
            on_progress: told a stage, what is done of it, and how much there is.

        Returns:
            Mean of the DDIM's last losses.
        """
        rng = np.random.default_rng(self._draw_seed(5))
        replay = Replay(transitions, self.replay.condition_dim, self.replay.size)
        taught: list[np.ndarray] = []
        terminated, vector, followed = True, np.zeros(0), False
        for step in range(transitions):
            on_progress("playing rounds to imitate", step, transitions)
            if terminated:
                vector, _ = env.reset(seed=int(rng.integers(2**31)))
                followed = teacher is not None and not followed
            latent = np.clip(rng.normal(0, 0.5, self._latent_dim), -1, 1)
            number = float(np.clip(rng.normal(0, 0.4), -1, 1))
            x0 = family_member(env.decoder, env.view, number, latent)
            allocation = env.decoder.allocation(env.view, number, x0)
            padded = np.zeros(self.replay.size)
            padded[: x0.size] = np.clip(x0 + rng.normal(0, JITTER, x0.shape), -1, 1).ravel()
            replay.add(np.concatenate([latent, vector]), padded, 0.0)
            if teacher is not None:
                taught.append(teacher(env.view))
                if followed:
                    offsets = np.tile(taught[-1][1:], (len(x0), 1))
                    allocation = StreamDecoder("residual").allocation(env.view, float(taught[-1][0]), offsets)
            _, terminated, _ = env.send(allocation)
            vector = env.vector()
        generator = torch.Generator().manual_seed(self._draw_seed(6))
        losses = []
        for step, left in enumerate(_falling(updates if self._refine == "ddim" else 0)):
            on_progress("updates of the DDIM", step, updates)
            rate = _IMITATION * self.settings.lr * left
            losses.append(self._update(replay, 4 * self.settings.batch_size, generator, rate))
        self._optimizer = torch.optim.Adam(self.denoiser.parameters(), lr=self.settings.lr)
        if taught:
            observations = replay.state()["condition"][:, self._latent_dim :]
            on_progress("updates of the actor", 0, updates // 4)
            self._clone(observations, torch.from_numpy(np.array(taught, np.float32)), updates // 4, generator)
        return float(np.mean(losses[-100:])) if losses else float("nan")

    def _clone(
        self, observations: torch.Tensor, taught: torch.Tensor, updates: int, generator: torch.Generator
    ) -> None:
        """Regress the actor's mean on what was taught (B, 3), the other coordinates of the latent on 0: on the median,
        as between two choices that are taught in much the same state the mean is neither."""
        policy = self.ppo.algorithm.policy
        targets = torch.zeros(len(taught), 1 + self._latent_dim)
        response = self._response(observations[:_RESPONSES]) if self._refine == "ddim" else torch.ones(2)
        targets[:, 0], targets[:, 1:3] = taught[:, 0], (taught[:, [2, 1]] / response).clamp(-0.95, 0.95)
        targets = torch.atanh(targets)
        optimizer = torch.optim.Adam(
            [*policy.features_extractor.parameters(), *policy.action_net.parameters()], lr=_CLONE_LR
        )
        for left in _falling(updates):
            for group in optimizer.param_groups:
                group["lr"] = _CLONE_LR * left
            chosen = torch.randint(len(taught), (128,), generator=generator)
            mean = policy.action_net(policy.features_extractor(observations[chosen]))
            loss = torch.nn.functional.smooth_l1_loss(mean, targets[chosen], beta=_CLONE_BETA)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    @torch.no_grad()
    def _response(self, observations: torch.Tensor) -> torch.Tensor:
        """(2,) how far the latent's bits and rank of all move those of the DDIM, over how far they are meant to: more
        than 1 by guidance, the less the better it imitates; a mean over observations (B, D)."""
        moved = torch.zeros(2)
        for observation in observations:
            count = round(float(observation[0]) * self.replay.size / NUMBERS)
            own = torch.cat([torch.ones(1), observation[1 : _HEAD + count * TOKEN_SIZE]])[None]
            for coordinate, number in ((0, 1), (1, 0)):  # of the latent; of a projection's numbers, rank and bits
                latents = torch.zeros(2, self._latent_dim)
                latents[0, coordinate], latents[1, coordinate] = -_RESPONSE_AT, _RESPONSE_AT
                bound = self.denoiser.bind(own.expand(2, -1))
                x0 = sample(bound, self.settings, latents, torch.zeros(2, NUMBERS * count))
                less, more = x0.reshape(2, count, NUMBERS).mean(dim=1)[:, number]
                moved[coordinate] += (more - less) / (2 * _RESPONSE_AT * len(observations))
        return moved.clamp(0.5, 3.0)

    def iterate(self) -> dict[str, float]:
        """One iteration; returns PPO's metrics, ``ddim_loss`` (NaN in the warm-up), and means over the roll-out:
        ``advantage`` over the rule, ``reward``, ``gain``, ``airtime``.

        Raises:
            TrainingError: a loss is not finite.
        """
        self.iterations += 1
        self._vec.seed(self._draw_seed(3) % 2**31 // self._group * self._group)
        self._vec.restart(self._draw_seed(4))
        self.ppo.algorithm._last_obs = None  # so that the roll-out begins with a reset, by those seeds
        metrics = self.ppo.learn(self._draw_seed(2))
        infos = self._vec.infos
        self._remember()
        metrics["ddim_loss"] = self._update_ddim()
        for name in ("advantage", "reward", "gain", "airtime"):
            metrics[name] = float(np.mean([info[name] for info in infos]))
        return metrics

    def _remember(self) -> None:
        buffer = self.ppo.algorithm.rollout_buffer
        advantages = buffer.advantages.reshape(
            buffer.n_envs, buffer.buffer_size
        ).T  # flattened environment by environment
        for (observations, latents, imitated), earned in zip(self._vec.transitions, advantages, strict=True):
            conditions = np.concatenate([latents, observations], axis=1)
            for condition, x0, advantage in zip(conditions, imitated, earned, strict=True):
                self.replay.add(condition, x0, float(advantage))

    def _update_ddim(self) -> float:
        if len(self.replay) < self.settings.warmup or self._refine != "ddim":
            return float("nan")
        generator = torch.Generator().manual_seed(self._draw_seed(7))
        size = self.settings.batch_size
        losses = [self._update(self.replay, size, generator) for _ in range(self.settings.updates)]
        return float(np.mean(losses)) if losses else float("nan")

    def _update(self, replay: Replay, batch_size: int, generator: torch.Generator, lr: float | None = None) -> float:
        """A step on a batch of states with one number of projections, so that nothing is padded."""
        condition, x0, rewards = replay.sample(batch_size, generator)
        latent, observations = condition[:, : self._latent_dim], condition[:, self._latent_dim :]
        same = observations[:, 0] == observations[0, 0]
        count = round(float(observations[0, 0]) * x0.shape[1] / 2)
        tokens = (observations.shape[1] - _HEAD) // (x0.shape[1] // 2)
        own = torch.cat([torch.ones(int(same.sum()), 1), observations[same, 1 : _HEAD + count * tokens]], 1)
        bound = self.denoiser.bind(own)
        loss = training_loss(bound, self.settings, x0[same, : 2 * count], latent[same], rewards[same], generator)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise TrainingError(
                f"training of the DDIM diverged: its loss is {value}; start again with a lower lr in [ddim]"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = lr or self.settings.lr
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return value

    def _draw_seed(self, stream: int) -> int:
        """A seed for one purpose in one iteration: a pure function of the agent's seed."""
        return int(np.random.SeedSequence([self._seed, 0xA2, stream, self.iterations]).generate_state(1)[0])

    def networks(self) -> dict[str, torch.Tensor]:
        """What decides: the tensors of the ``StreamActor`` and of the denoiser, flat."""
        tensors = {f"actor/{name}": value for name, value in self.ppo.actor_state().items()}
        return tensors | {f"denoiser/{name}": value for name, value in self.denoiser.state_dict().items()}

    def state(self) -> dict[str, torch.Tensor]:
        """All that the next iteration depends on, flat."""
        parts = {
            "ppo": self.ppo.state(),
            "agent": {"iterations": torch.tensor(self.iterations)},
            "denoiser": self.denoiser.state_dict(),
            "ddim_optimizer": optimizer_state(self._optimizer),
            "replay": self.replay.state(),
        }
        return {f"{name}/{key}": value for name, values in parts.items() for key, value in values.items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore what ``state`` gave."""
        self.iterations = int(state["agent/iterations"])
        self.ppo.load_state(part(state, "ppo/"))
        self.denoiser.load_state_dict(part(state, "denoiser/"))
        load_optimizer(self._optimizer, part(state, "ddim_optimizer/"))
        self.replay.load_state(part(state, "replay/"))


def _falling(updates: int) -> Iterator[float]:
    """What multiplies a learning rate in each update of the imitation: from 1 down to 0 in a line. At a rate that does
    not fall, all ranks are a few percent too low or too high, as the last updates happened to be (LOG.md)."""
    return (1 - update / updates for update in range(updates))
