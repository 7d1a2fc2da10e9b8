"""Stable-Baselines3's PPO, wired as AirLLM has it.

Details that decide what is computed:

* Actor and critic share the encoder; each is one linear layer on it. Initial weights are Stable-Baselines3's
  (orthogonal), Adam's ε is its 1e-5, advantages are standardised in each minibatch.
* The actor draws an unbounded Gaussian and the wrapper ``Squash`` applies tanh: PPO's log-probability is that of the
  sample before it. Stable-Baselines3 wants bounds: at ±``LATENT_LIMIT`` tanh is 1 in single precision, so its
  clipping to them changes no decision.
* A roll-out is ``rollout_episodes`` whole episodes; with one of 15 steps an epoch is a single batch of 15.
* A time limit is a truncation: the last reward gets γ · V(last state) (Pardo et al. 2018).
* Every random number of an episode follows from the seed that it is given, so that no generator needs to be saved.
"""

from __future__ import annotations

from collections.abc import Mapping

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from airlora.errors import TrainingError
from airlora.policy.networks import make_encoder
from airlora.policy.settings import PpoSettings

LATENT_LIMIT = 10.0
"""tanh of it is 1 in float32."""

_LOGGED = ("approx_kl", "clip_fraction", "explained_variance", "value_loss", "policy_gradient_loss")


class Squash(gymnasium.ActionWrapper):
    """Lets an agent act on unbounded numbers: tanh takes them to the [−1, 1] of the environment's actions."""

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        shape = env.action_space.shape
        assert shape is not None
        self.action_space = gymnasium.spaces.Box(-LATENT_LIMIT, LATENT_LIMIT, shape, np.float32)

    def action(self, action: np.ndarray) -> np.ndarray:
        """tanh."""
        return np.tanh(np.asarray(action, np.float32))


class EncoderExtractor(BaseFeaturesExtractor):
    """``make_encoder`` as Stable-Baselines3 wants it."""

    def __init__(self, observation_space: gymnasium.Space, width: int):
        super().__init__(observation_space, width)
        assert observation_space.shape is not None
        self.encoder = make_encoder(observation_space.shape[0], width)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Features (B, width) of the states (B, state_dim)."""
        return self.encoder(observations)


class PpoLearner:
    """PPO on one environment, or on several at once, a roll-out at a time.

    Args:
        env: its actions are in [−1, 1]; its episodes have ``episode_steps`` steps. Several at once squash themselves.
        settings: hyperparameters.
        episode_steps: steps of every episode, at least 2 (advantages are standardised).
        seed: of the initial weights.
        extractor: from an observation to ``settings.width`` features; its ``encoder`` does the work.
    """

    def __init__(
        self,
        env: gymnasium.Env | VecEnv,
        settings: PpoSettings,
        episode_steps: int,
        seed: int,
        extractor: type[EncoderExtractor] = EncoderExtractor,
    ):
        self.settings = settings
        environments = env if isinstance(env, VecEnv) else DummyVecEnv([lambda: Squash(env)])
        self._normaliser: VecNormalize | None = None
        if settings.normalise_rewards:
            environments = self._normaliser = VecNormalize(environments, norm_obs=False, gamma=settings.gamma)
        self._steps = settings.rollout_episodes * episode_steps
        set_random_seed(seed)
        # Batches of a size that divides the roll-out, so that none is cut off.
        rollout = self._steps * environments.num_envs
        batches = -(-rollout // settings.batch_size)
        while rollout % batches:
            batches += 1
        self.algorithm = PPO(
            ActorCriticPolicy,
            environments,
            learning_rate=settings.lr,
            n_steps=self._steps,
            batch_size=rollout // batches,
            n_epochs=settings.epochs,
            gamma=settings.gamma,
            gae_lambda=settings.gae_lambda,
            clip_range=settings.clip,
            ent_coef=settings.entropy_weight,
            vf_coef=settings.value_weight,
            max_grad_norm=settings.max_grad_norm,
            policy_kwargs={
                "features_extractor_class": extractor,
                "features_extractor_kwargs": {"width": settings.width},
                "net_arch": [],
                "log_std_init": settings.log_std,
            },
            device="cpu",
        )
        self.algorithm.set_logger(Logger(None, []))

    def learn(self, seed: int) -> dict[str, float]:
        """One roll-out and the update on it; its draws follow from ``seed``.

        Returns:
            approx_kl, clip_fraction, explained_variance (NaN where returns do not vary), value_loss,
            policy_gradient_loss, entropy (nats) and std (of the Gaussian, mean over dimensions).

        Raises:
            TrainingError: the loss or a weight is not finite.
        """
        set_random_seed(seed)
        try:
            # No interval: what is logged stays readable below. (Its annotation leaves None out, its code does not.)
            self.algorithm.learn(self._steps, log_interval=None, reset_num_timesteps=False)  # type: ignore[arg-type]
        except ValueError as error:  # torch's distributions refuse NaN with one
            if "nan" not in str(error):
                raise
            raise TrainingError(_diverged("an output of the actor is NaN")) from error
        values = self.algorithm.logger.name_to_value
        weights = torch.cat([parameter.detach().flatten() for parameter in self.algorithm.policy.parameters()])
        if not np.isfinite(values["train/loss"]) or not torch.isfinite(weights).all():
            raise TrainingError(_diverged(f"its loss is {values['train/loss']}"))
        metrics = {name: float(values[f"train/{name}"]) for name in _LOGGED}
        return {**metrics, "entropy": -float(values["train/entropy_loss"]), "std": float(values["train/std"])}

    def actor_state(self) -> dict[str, torch.Tensor]:
        """The tensors of an ``Actor`` that decides as this one does in the mean."""
        policy = self.algorithm.policy
        assert isinstance(policy.features_extractor, EncoderExtractor)
        parts = {"encoder": policy.features_extractor.encoder, "mean": policy.action_net}
        return {
            f"{part}.{name}": value for part, module in parts.items() for name, value in module.state_dict().items()
        }

    def state(self) -> dict[str, torch.Tensor]:
        """Weights and the optimiser's state, flat."""
        policy = self.algorithm.policy
        weights = {f"policy/{name}": parameter.detach() for name, parameter in policy.named_parameters()}
        returns = {} if self._normaliser is None else _moments(self._normaliser)
        optimizer = {f"optimizer/{name}": value for name, value in optimizer_state(policy.optimizer).items()}
        return weights | optimizer | {f"returns/{name}": value for name, value in returns.items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore what ``state`` gave."""
        policy = self.algorithm.policy
        with torch.no_grad():
            for name, parameter in policy.named_parameters():
                parameter.copy_(state[f"policy/{name}"])
        load_optimizer(policy.optimizer, part(state, "optimizer/"))
        if self._normaliser is not None:
            moments = self._normaliser.ret_rms
            moments.mean, moments.var = state["returns/mean"].numpy(), state["returns/variance"].numpy()
            moments.count = float(state["returns/count"])
            self._normaliser.returns[:] = state["returns/running"].numpy()


def _moments(normaliser: VecNormalize) -> dict[str, torch.Tensor]:
    moments = normaliser.ret_rms
    values = {"mean": moments.mean, "variance": moments.var, "count": moments.count, "running": normaliser.returns}
    return {name: torch.from_numpy(np.array(value, np.float64)) for name, value in values.items()}


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimiser's tensors as ``INDEX.name``; empty before its first step."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, values in state.items() for name, value in values.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, torch.Tensor]) -> None:
    """Restore what ``optimizer_state`` gave."""
    nested: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in state.items():
        index, _, name = key.partition(".")
        nested.setdefault(int(index), {})[name] = value.clone()
    optimizer.load_state_dict({"state": nested, "param_groups": optimizer.state_dict()["param_groups"]})


def part(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The entries whose name starts with ``prefix``, without it."""
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def _diverged(what: str) -> str:
    return f"training of PPO diverged: {what}; start again with a lower lr in [ppo]"
