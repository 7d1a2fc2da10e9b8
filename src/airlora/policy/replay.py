"""What the DDIM imitates: decisions, the condition they were made under, and what they earned."""

from __future__ import annotations

import numpy as np
import torch


class Replay:
    """A ring of (condition, x0, reward); the oldest is overwritten.

    Args:
        capacity: transitions kept.
        condition_dim: length of a condition.
        size: length of x0.
    """

    def __init__(self, capacity: int, condition_dim: int, size: int):
        self.condition_dim, self.size = condition_dim, size
        self._condition = torch.zeros(capacity, condition_dim)
        self._x0 = torch.zeros(capacity, size)
        self._reward = torch.zeros(capacity)
        self._added = 0

    def __len__(self) -> int:
        return min(self._added, len(self._reward))

    def add(self, condition: np.ndarray, x0: np.ndarray, reward: float) -> None:
        """Keep one transition: condition (condition_dim,), x0 (size,)."""
        at = self._added % len(self._reward)
        self._condition[at] = torch.from_numpy(np.asarray(condition, np.float32))
        self._x0[at] = torch.from_numpy(np.asarray(x0, np.float32))
        self._reward[at] = reward
        self._added += 1

    def sample(self, batch_size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``batch_size`` transitions (fewer if there are fewer) without repetition: (condition, x0, reward)."""
        chosen = torch.randperm(len(self), generator=generator)[:batch_size]
        return self._condition[chosen], self._x0[chosen], self._reward[chosen]

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint must hold."""
        count = len(self)
        return {
            "condition": self._condition[:count],
            "x0": self._x0[:count],
            "reward": self._reward[:count],
            "added": torch.tensor(self._added),
        }

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what ``state`` gave."""
        self._added = int(state["added"])
        for name in ("condition", "x0", "reward"):
            getattr(self, f"_{name}")[: len(self)] = state[name]
