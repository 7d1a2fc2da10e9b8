"""The configuration of a policy's training in stream mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from airlora.config import RunConfig
from airlora.env.settings import read_settings, to_toml
from airlora.errors import InputError
from airlora.policy.settings import DdimSettings, PpoSettings
from airlora.policy.stream_action import StreamDecoding
from airlora.policy.stream_family import LATENT_DIM, Refinement
from airlora.policy.tokens import FeatureGroup


@dataclass(frozen=True)
class StreamJob:
    """A job that is recorded.

    Attributes:
        base_data: text that the base model is trained on first, all of its weights, so that the job begins where a
            user's does. The built-in model alone gives text that it was not trained on 8.5 nats a token, so that a
            tenth of a nat is little of what there is to gain.
        base_steps: steps of that; 0 takes the model as it is.
        model, data, …: as of ``airlora run``, small by default.
    """

    model: str = "builtin:tiny-opt"
    data: str = "builtin:vehicle-commands"
    targets: str = "auto"
    rounds: int = 12
    steps_per_round: int = 24
    batch_size: int = 16
    max_length: int = 48
    max_rank: int = 16
    validation_limit: int = 128
    seed: int = 0
    base_data: str = ""
    base_steps: int = 0

    def __post_init__(self) -> None:
        self.run_config()
        if self.base_steps < 0 or (self.base_steps > 0) != bool(self.base_data):
            raise InputError(
                f"base_steps is {self.base_steps} and base_data {self.base_data!r}; give both, or leave both out"
            )

    def run_config(self) -> RunConfig:
        """As a run's; of a model that is trained first, before that."""
        own = asdict(self)
        del own["base_data"], own["base_steps"]
        return RunConfig(**own)

    @property
    def name(self) -> str:
        """For folders and people."""
        parts = [self.data.partition(":")[2] or self.data, str(self.max_rank), str(self.seed)]
        if self.targets != "auto":
            parts.insert(1, self.targets)
        if self.base_steps:
            parts.append(f"after {self.base_steps}")
        return "-".join("".join(c if c.isalnum() else "_" for c in part) for part in parts)


def _commands(**changes: Any) -> StreamJob:
    return replace(StreamJob(validation_limit=256), **changes)


def _logs(seed: int = 0, base_steps: int = 0, **changes: Any) -> StreamJob:
    base_data = f"builtin:vehicle-logs,seed={900 + seed}" if base_steps else ""
    own = StreamJob(
        data="builtin:vehicle-logs",
        steps_per_round=8,
        max_length=64,
        seed=seed,
        base_data=base_data,
        base_steps=base_steps,
    )
    return replace(own, **changes)


_ATTENTION = "q_proj,k_proj,v_proj,out_proj"
_FEED_FORWARD = "fc1,fc2"

SHIPPED_JOBS = (
    _commands(),
    _commands(seed=1, targets="q_proj,v_proj,fc1", max_rank=32),
    _commands(seed=2, max_rank=8),
    _commands(seed=3, targets=_ATTENTION, max_rank=32),
    _commands(seed=4, targets=_FEED_FORWARD),
    _logs(),
    _logs(seed=1, targets="q_proj,v_proj", max_rank=8, base_steps=16),
    _logs(seed=2, max_rank=32, base_steps=32),
    _logs(seed=3, targets=_FEED_FORWARD, base_steps=32),
    _logs(seed=4, targets=_ATTENTION, max_rank=32, base_steps=16),
    _commands(seed=5, max_rank=64),
    _logs(seed=5, max_rank=64, base_steps=32),
)
"""Built-in jobs of two objectives, five shapes and four largest ranks."""

HELD_OUT_JOBS = (_commands(seed=100), _logs(seed=100), _logs(seed=101, max_rank=32, base_steps=24))
"""For evaluation."""

STREAM_PPO = PpoSettings(
    latent_dim=LATENT_DIM,
    width=64,
    log_std=-2.0,
    gamma=1.0,
    gae_lambda=1.0,
    batch_size=384,
    rollout_episodes=1,
    entropy_weight=0.0,
    lr=3e-4,
)
"""Episodes are short, and what is gained stays: nothing is discounted. With rewards that are differences within a
group the critic knows next to nothing, so that a λ of GAE below 1 would discount too."""
STREAM_DDIM = DdimSettings(
    width=64,
    time_dim=32,
    sample_steps=10,
    capacity=6000,
    updates=0,
    batch_size=64,
    lr=1e-4,
    reward_weight=0.5,
    noise_scale=0.0,
)
"""After the imitation the DDIM stays as it is, and the latent alone decides: updates on its own decisions made the
policy worse (docs/policy.md)."""


@dataclass(frozen=True)
class StreamTrainingConfig:
    """All of a training.

    Attributes:
        jobs: recorded once, all of as many rounds; each episode plays one of them.
        recordings: folder of the recordings; None takes ``recordings`` in the output folder.
        airtime_weights: λ; each episode plays one of them, and the policy is told which.
        deadline_s: of a round, in s. decoding: of actions (``StreamDecoder``).
        episodes: in all. environments: that play at once, an episode each an iteration.
        group: so many of them play the same episode, and a reward counts as its difference from their mean.
        pool: different links.
        imitation_steps, imitation_updates: rounds to collect, and steps on them, before reinforcement.
        teacher_episodes: that find the tuned rule which the actor imitates first; 0 begins at ``fit``.
        hidden: groups of features that the policy does not see. refine: what makes rank and bits of its latent.
        checkpoint_every: iterations between two checkpoints.
        seed: of everything random.
        ppo, ddim: hyperparameters.
    """

    jobs: tuple[StreamJob, ...] = SHIPPED_JOBS
    recordings: str | None = None
    airtime_weights: tuple[float, ...] = (0.0, 0.1, 0.1, 1.0)
    deadline_s: float = 1.0
    decoding: StreamDecoding = "residual"
    episodes: int = 3840
    environments: int = 64
    group: int = 8
    pool: int = 1000
    imitation_steps: int = 4000
    imitation_updates: int = 6400
    teacher_episodes: int = 400
    hidden: tuple[FeatureGroup, ...] = ()
    refine: Refinement = "ddim"
    checkpoint_every: int = 25
    seed: int = 0
    ppo: PpoSettings = field(default_factory=lambda: STREAM_PPO)
    ddim: DdimSettings = field(default_factory=lambda: STREAM_DDIM)

    def __post_init__(self) -> None:
        for name in ("episodes", "environments", "group", "pool", "checkpoint_every", "imitation_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not self.jobs or len({job.rounds for job in self.jobs}) > 1:
            raise InputError(
                f"jobs have {sorted({job.rounds for job in self.jobs})} rounds; at least one job, and all of as many"
                " rounds, are needed"
            )
        if self.jobs[0].rounds < 2:
            raise InputError("rounds is 1; PPO standardises advantages and needs 2 or more")
        if not self.airtime_weights or not all(0 <= weight <= 100 for weight in self.airtime_weights):
            raise InputError(f"airtime_weights is {self.airtime_weights}; at least one, each in 0 … 100")
        if self.environments % self.group:
            raise InputError(f"group is {self.group}; it must divide environments, {self.environments}")
        if self.ppo.latent_dim != LATENT_DIM:
            raise InputError(f"latent_dim is {self.ppo.latent_dim}; in stream mode it is {LATENT_DIM}")

    @property
    def iterations(self) -> int:
        """Roll-outs in all."""
        return -(-self.episodes // (self.environments * self.ppo.rollout_episodes))

    def to_toml(self) -> str:
        """All values; ``auto`` stands for None."""
        return to_toml(self)


def read_stream_config(values: Mapping[str, Any], file: Path | None = None) -> StreamTrainingConfig:
    """Defaults, overridden by a TOML file, overridden by ``values`` (nested as in the file, None left out).

    Tables ``[ppo]`` and ``[ddim]`` begin from this mode's defaults.

    Raises:
        InputError: the file cannot be read, or a key or a value is not allowed.
    """
    defaults = {"ppo": asdict(STREAM_PPO), "ddim": asdict(STREAM_DDIM)}
    config: StreamTrainingConfig = read_settings(StreamTrainingConfig, values, file, defaults)
    return config
