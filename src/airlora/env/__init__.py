"""Decision processes as Gymnasium environments, and training and evaluating policies on them.

Importing this package registers ``airlora/Paper-v0`` and ``airlora/Stream-v0``;
``gymnasium.make("airlora.env:airlora/Paper-v0")`` does both.
"""

import gymnasium

from airlora.env.evaluation import evaluate_policy
from airlora.env.paper import PaperEnv
from airlora.env.settings import PaperConfig, TrainingConfig
from airlora.env.stream import StreamEnv
from airlora.env.stream_evaluation import evaluate_stream_policy
from airlora.env.stream_settings import StreamJob, StreamTrainingConfig
from airlora.env.stream_training import train_stream_policy
from airlora.env.training import train_policy

__all__ = [
    "PaperConfig",
    "PaperEnv",
    "StreamEnv",
    "StreamJob",
    "StreamTrainingConfig",
    "TrainingConfig",
    "evaluate_policy",
    "evaluate_stream_policy",
    "train_policy",
    "train_stream_policy",
]

gymnasium.register("airlora/Paper-v0", entry_point="airlora.env.paper:PaperEnv")
gymnasium.register("airlora/Stream-v0", entry_point="airlora.env.stream:StreamEnv")
