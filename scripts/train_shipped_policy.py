"""Train the policy that ships in the package (``--policy airllm`` with no folder), and put it there.

    python scripts/train_shipped_policy.py OUT [--episodes N]

Jobs: ``airlora.env.stream_settings.SHIPPED_JOBS`` (built-in model and data only, seeds 0 … 5). Links:
``airlora.env.stream_links.draw_link``, episodes 10000 … of the pool. Seed 0, all else by default but for PPO, which has
one roll-out: more of them made the policy worse on episodes that nothing was chosen by (LOG.md). OUT gets what
``airlora policy train --mode stream`` writes, and can be resumed; judge it with ``airlora policy eval OUT --mode
stream`` and ``benchmarks/simulate.py``.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from airlora.env.stream_settings import StreamTrainingConfig
from airlora.env.stream_training import Watcher, stored_stream_config, train_stream_policy
from airlora.policy.checkpoint import POLICY_FILE
from airlora.policy.stream_policy import SHIPPED, load_stream_policy


class _Printed(Watcher):
    def on_stage(self, stage: str) -> None:
        print(stage, flush=True)

    def on_progress(self, stage: str, done: int, total: int) -> None:
        if done % 100 == 0:
            print(f"{stage}: {done}/{total}", flush=True)

    def on_iteration(self, row: dict[str, Any], iterations: int) -> None:
        if row["iteration"] % 10 == 9:
            print(f"{row['iteration'] + 1}/{iterations}: over fit {row['advantage']:+.4f}", flush=True)


def main() -> None:
    """Train or resume, and copy the policy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--episodes", type=int, default=StreamTrainingConfig.environments)
    arguments = parser.parse_args()
    resume = arguments.out.exists()
    config = stored_stream_config(arguments.out) if resume else StreamTrainingConfig()
    config = replace(config, episodes=arguments.episodes)
    train_stream_policy(config, arguments.out, resume=resume, watcher=_Printed())
    load_stream_policy(arguments.out)  # what is shipped can be read
    SHIPPED.mkdir(exist_ok=True)
    shutil.copyfile(arguments.out / POLICY_FILE, SHIPPED / POLICY_FILE)
    print(f"shipped: {SHIPPED / POLICY_FILE}")


if __name__ == "__main__":
    main()
