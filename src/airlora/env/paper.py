"""AirLLM's decision process: choose the ranks of one training step of an adapter, and pay for sending it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch

from airlora.adapter import ChosenRanksStrategy, NestedAdam, NestedAdapter, Trainer, find_targets
from airlora.env.settings import PaperConfig
from airlora.errors import InputError, TrainingError
from airlora.job import load_workload
from airlora.link import make_link
from airlora.policy.decode import RankDecoder
from airlora.policy.paper_state import StateScale
from airlora.rates import automatic_lr
from airlora.workload.base import Batch
from airlora.workload.text import Vocabulary, describe, paper_lexical_entropy, paper_oov_rate, words

LARGEST_COST = 1e6
"""The cost of a decision is capped here, so that an outage gives a finite reward."""


class PaperEnv(gymnasium.Env):
    """AirLLM's decision process (arXiv 2507.11515).

    * Observation (4 + M,) in [0, 1]: see ``StateScale.vector``. The ranks are those of the last decision, 0 before it.
    * Action (M,) in [−1, 1]: one number a projection, decoded to ranks by ``RankDecoder``; NaN counts as −1.
    * Cost c = numbers · bits / (C · T_max) with numbers = Σ r_m (d_in + d_out + 1) plus the head's, and C the link's
      capacity in bit/s.
    * c ≤ 1: one training step at those ranks; reward = −loss − λ·c, the loss of the batch before the step, in nats.
      c > 1: no step; reward = −10·c − λ·c.
    * An episode is cut after ``episode_steps`` (a truncation). ``reset()`` begins the next one where the last ended:
      the adapter, the data and the channel go on. ``reset(seed=…)`` begins anew, with an untrained adapter, and with
      a channel that follows from the seed. Batches and initial factors follow from the configuration's.

    ``info`` has ``loss`` (None when missed), ``cost``, ``missed``, ``ranks`` (M,), ``numbers`` and ``capacity_bps``.

    Attributes:
        workload, adapter, trainer, lr: what is trained, and how. schema, decoder, scale: what states and actions mean.
        steps: decisions since the beginning, missed ones too.

    Args:
        settings: fields of ``PaperConfig``.

    Raises:
        InputError: something in the configuration cannot be used.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium's name)

    def __init__(self, **settings: Any):
        self.config = config = PaperConfig(**settings)
        torch.set_num_threads(1)
        job = config.job()
        self.workload = load_workload(job)
        self.adapter = NestedAdapter(
            self.workload.model,
            find_targets(self.workload.model, job.target_names),
            max_rank=config.max_rank,
            alpha=config.alpha,
            form="svd",
            seed=config.seed,
            head=self.workload.head,
            base_fingerprint=self.workload.base_fingerprint,
        )
        self.schema = self.adapter.schema
        self.lr = automatic_lr(self.workload.model) if config.lr is None else config.lr
        self._initial = {name: value.clone() for name, value in self.adapter.state().items()}
        if config.min_rank > self.schema.r_max.min():
            raise InputError(
                f"min_rank is {config.min_rank}, above the largest possible rank {self.schema.r_max.min()} of the"
                " narrowest projection; lower it, or leave that one out with --targets"
            )
        self.decoder = RankDecoder(config.min_rank, self.schema.r_max, config.decoding)
        self._begin_anew(config.seed)
        bandwidth_hz = config.bandwidth_high_hz or max(
            (link.observe(0.0).bandwidth_hz for link in self._links), key=np.nan_to_num
        )
        self.scale = StateScale(
            config.snr_low_db, config.snr_high_db, bandwidth_hz if np.isfinite(bandwidth_hz) else 1.0
        )
        count = len(self.schema.projections)
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (4 + count,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (count,), np.float32)

    def _begin_anew(self, seed: int) -> None:
        self._seed = seed
        self._links = [make_link(spec, seed) for spec in self.config.links]
        self.adapter.load_state(self._initial)
        optimizer = NestedAdam(self.adapter, self.lr, rate_decay=0.0, average_decay=0.0)
        self._strategy = ChosenRanksStrategy(self.config.orthogonality)
        self.trainer = Trainer(self.workload, self.adapter, optimizer, self._strategy)
        self._vocabulary = Vocabulary()
        self.steps = 0
        self._episode_steps = 0
        self._ranks = np.zeros(len(self.schema.projections), np.int64)
        self._observation: np.ndarray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin the next episode, or with a seed the whole process; returns (observation, {})."""
        super().reset(seed=seed)
        if seed is not None:
            self._begin_anew(seed)
        self._episode_steps = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Decide; returns (observation, reward, False, truncated, info).

        Raises:
            TrainingError: the loss is not finite.
        """
        self._observe()  # also where nobody looked, the channel of this step is needed
        ranks = self.decoder.ranks(np.asarray(action))
        cost = self.cost(ranks)
        missed = cost > 1
        loss = None if missed else self._train(ranks)
        task = self.config.miss_penalty * cost if loss is None else loss
        reward = -task - self.config.cost_weight * cost
        info = {
            "loss": loss,
            "cost": cost,
            "missed": missed,
            "ranks": ranks,
            "numbers": self.numbers(ranks),
            "capacity_bps": self._capacity_bps,
        }
        self._ranks = ranks
        self.steps += 1
        self._episode_steps += 1
        self._observation = None
        return self._observe(), reward, False, self._episode_steps >= self.config.episode_steps, info

    def numbers(self, ranks: np.ndarray) -> int:
        """Numbers to transmit at these ranks (M,)."""
        head = self.schema.head_size if self.config.count_head else 0
        return int(ranks @ (self.schema.numbers_per_component + 1)) + head

    def cost(self, ranks: np.ndarray) -> float:
        """Airtime over deadline at these ranks (M,) over the channel of this step, at most ``LARGEST_COST``."""
        bits = self.numbers(ranks) * self.config.bits
        room = self._capacity_bps * self.config.deadline_s
        return bits / room if bits < LARGEST_COST * room else LARGEST_COST

    def affordable_rank(self) -> int:
        """The largest uniform rank that meets this step's deadline; the smallest rank if none does."""
        for rank in range(self.config.max_rank, self.config.min_rank, -1):
            if self.cost(np.minimum(rank, self.schema.r_max)) <= 1:
                return rank
        return self.config.min_rank

    def replayed(self, x0: np.ndarray) -> np.ndarray:
        """The action that an imitator should learn for the action x0; see ``RankDecoder.replayed``."""
        return self.decoder.replayed(x0)

    def validate(self) -> float:
        """Quality of the adapter at the ranks it was last trained at, on the validation split's sample.

        Raises:
            TrainingError: it is not finite.
        """
        self.adapter.set_ranks(self._strategy.ranks if self._strategy.ranks is not None else 0)
        quality = self.workload.evaluate("validation", self.config.validation_limit)
        if not np.isfinite(quality):
            raise TrainingError(f"validation {self.workload.metric} is {quality}: training diverged; lower --lr")
        return quality

    def _train(self, ranks: np.ndarray) -> float:
        losses: list[float] = []

        def keep(batch: Batch, loss: float) -> None:
            losses.append(loss)
            if self.config.text == "words":
                self._vocabulary.update(word for text in batch.texts for word in words(text))

        self._strategy.ranks = ranks
        self.trainer.train(self.steps, 1, keep)
        return losses[0]

    def _observe(self) -> np.ndarray:
        """The state of this step: a pure function of seed, step, ranks and vocabulary."""
        if self._observation is None:
            rng = np.random.default_rng([self._seed, 17, self.steps])
            link = self._links[int(rng.integers(len(self._links)))]
            t_s = self.steps * self.config.deadline_s
            state = link.observe(t_s)
            self._capacity_bps = float(link.capacity_bps(np.array(t_s)))
            entropy, oov_rate = self._text(self.workload.batch(self.steps))
            self._observation = self.scale.vector(
                snr_db=state.snr_db,
                bandwidth_hz=state.bandwidth_hz,
                entropy=entropy,
                oov_rate=oov_rate,
                rank_fractions=self._ranks / self.schema.r_max,
            )
        return self._observation.copy()

    def _text(self, batch: Batch) -> tuple[float, float]:
        """(H, ζ) of a batch."""
        if self.config.text == "words":
            found = describe(batch.texts, self._vocabulary, float("nan"))
            return found.lexical_entropy, found.oov_rate
        ids = batch.inputs["input_ids"]
        mask = batch.inputs.get("attention_mask")
        tokens = (ids if mask is None else ids[mask.bool()]).flatten().tolist()
        return paper_lexical_entropy(tokens), paper_oov_rate(tokens, self.workload.unk_token_id)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and plain data that the next episode depends on; only between two episodes."""
        trained = self._strategy.ranks
        return self.trainer.state(), {
            "seed": self._seed,
            "steps": self.steps,
            "ranks": self._ranks.tolist(),
            "trained_ranks": None if trained is None else trained.tolist(),
            "vocabulary": self._vocabulary.to_json(),
        }

    def load_state(self, tensors: dict[str, torch.Tensor], data: Mapping[str, Any]) -> None:
        """Restore what ``state`` gave; the next call is ``reset()``."""
        self._begin_anew(data["seed"])
        self.trainer.load_state(tensors)
        self.steps = data["steps"]
        self._ranks = np.array(data["ranks"], np.int64)
        self._strategy.ranks = None if data["trained_ranks"] is None else np.array(data["trained_ranks"], np.int64)
        self._vocabulary = Vocabulary.from_json(data["vocabulary"])
