"""What policies gain beyond ``fit`` in simulated rounds, over drawn links or recorded ones.

    python benchmarks/simulate.py RECORDINGS --policies airllm --policies flood [--traces FILE --source mahimahi]

Plays the built-in jobs that are held out (``airlora.env.stream_settings.HELD_OUT_JOBS``), recorded in RECORDINGS
first if they are not there yet. Episodes are drawn by seed, as in training but from 0 on; with ``--traces`` their links
are stretches of a source's recordings, at a share whose median budget is drawn as in training. Means over the rounds,
paired by episode, ± standard error; *lean* are the links with a mean budget below a tenth of a plain LoRA of rank 8.
``--headroom`` plays every variation of ``fit`` of the teacher too, and shows for each λ the best of them in all
episodes and the best in each: what a policy could gain that knew which to choose, and keeps to it within an episode.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from airlora.codec import Allocation
from airlora.env.stream import LinkMaker, StreamEnv
from airlora.env.stream_baseline import play_rule
from airlora.env.stream_links import draw_link
from airlora.env.stream_record import record_job
from airlora.env.stream_settings import HELD_OUT_JOBS
from airlora.env.stream_teacher import EVERYTHING, VARIATIONS
from airlora.env.surrogate import Surrogate
from airlora.link import Link, make_link
from airlora.policy import Observation, Policy, make_policy
from airlora.policy.stream_action import StreamDecoder
from airlora.policy.tokens import LARGEST_LOAD, LEAST_LOAD, View

AIRTIME_WEIGHTS = (0.0, 0.1, 1.0)
Played = tuple[np.ndarray, np.ndarray]
"""Gain and airtime over the deadline of each round."""
LEAN = 0.1
LONGEST_OFFSET_S = 200


def recorded(file: Path, source: str) -> LinkMaker:
    """Draws stretches of the recordings of a source."""
    rows = pd.read_csv(file)
    rows = rows[(rows["source"] == source) & rows["dl_mbps"].notna()]
    medians_bps = [(str(trace), 1e6 * float(own["dl_mbps"].median())) for trace, own in rows.groupby("trace")]

    def draw(rng: np.random.Generator, plain_bytes: int, rounds: int, deadline_s: float, period_s: float) -> Link:
        trace, median_bps = medians_bps[int(rng.integers(len(medians_bps)))]
        budget = plain_bytes * float(np.exp(rng.uniform(np.log(LEAST_LOAD), np.log(LARGEST_LOAD))))
        share = min(1.0, budget * 8 / deadline_s / max(median_bps, 1.0))
        offset_s = int(rng.integers(10, LONGEST_OFFSET_S))
        spec = f"trace:{file},source={source},trace={trace},end=loop,share={share:.6g},offset_s={offset_s}"
        return make_link(spec, 0)

    return draw


def mean_load(env: StreamEnv, episode: int) -> float:
    """Mean estimated budget over the bytes of a plain LoRA."""
    env.begin(episode)
    rates = [env.link.observe(t_s).rate_bps for t_s in env.starts_s]
    observation = env.view.observation
    return float(np.nanmean(rates)) * observation.deadline_s / 8 / observation.schema.plain_lora_bytes()


def differences(played: list[Played], rule: list[Played]) -> np.ndarray:
    """(episodes, 2) means over the rounds of gain and airtime beyond the rule's."""
    return np.array([np.mean(own, axis=1) - np.mean(base, axis=1) for own, base in zip(played, rule, strict=True)])


class Variation(Policy):
    """One action of the residual decoding in every round."""

    def __init__(self, number: float, rank: float, bits: float):
        self._number, self._offsets = number, np.array([rank, bits])

    def decide(self, observation: Observation) -> Allocation:
        """Around ``fit``."""
        offsets = np.tile(self._offsets, (len(observation.energy), 1))
        return StreamDecoder("residual").allocation(View(observation, 0.0), self._number, offsets)


def headroom(env: StreamEnv, episodes: range, rule: list[Played]) -> Table:
    """Of the teacher's variations, what the best is worth beyond ``fit``, and the best in each episode."""
    actions = [*VARIATIONS, EVERYTHING]
    beyond = np.array(
        [differences([play_rule(env, Variation(*action), episode) for episode in episodes], rule) for action in actions]
    )  # (actions, episodes, 2)
    table = Table(title="variations of fit, beyond fit")
    for column in ("λ", "best in all: budget's number, rank, bits", "reward", "best in each: reward"):
        table.add_column(column, no_wrap=True)
    for weight in AIRTIME_WEIGHTS:
        reward = beyond[..., 0] - weight * beyond[..., 1]
        best = int(reward.mean(axis=1).argmax())
        action = ", ".join(f"{number:g}" for number in actions[best])
        table.add_row(f"{weight:g}", action, with_error(reward[best]), with_error(reward.max(axis=0)))
    return table


def with_error(values: np.ndarray, digits: int = 3) -> str:
    """Mean ± standard error."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return "–" if np.isnan(error) else f"{values.mean():+.{digits}f} ± {error:.{digits}f}"


def main() -> None:
    """Read the command line, play, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--policies", action="append", default=[], help="SPEC; may be given several times")
    parser.add_argument("--headroom", action="store_true")
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--first-episode", type=int, default=0, help="seed of the first episode")
    parser.add_argument("--traces", type=Path, help="file of recorded links, see benchmarks/prepare.py")
    parser.add_argument("--source", default="mahimahi")
    options = parser.parse_args()
    console = Console(width=170)
    jobs = [Surrogate(record_job(job, options.recordings / job.name)) for job in HELD_OUT_JOBS]
    make = recorded(options.traces, options.source) if options.traces else draw_link
    env = StreamEnv(jobs, airtime_weights=AIRTIME_WEIGHTS[:1], make_link=make)
    episodes = range(options.first_episode, options.first_episode + options.episodes)
    rule = [play_rule(env, make_policy("fit", 0), episode) for episode in episodes]
    lean = np.array([mean_load(env, episode) for episode in episodes]) < LEAN
    table = Table(title="beyond fit")
    rewards = [f"reward, λ = {weight:g}" for weight in AIRTIME_WEIGHTS[1:]]
    for column in ("policy", "gain", "airtime", *rewards, "gain, lean", "gain, wide"):
        table.add_column(column, no_wrap=True)
    for spec in options.policies:
        beyond = differences([play_rule(env, make_policy(spec, 0), episode) for episode in episodes], rule)
        gain, airtime = beyond.T
        cells = (gain, airtime, *(gain - weight * airtime for weight in AIRTIME_WEIGHTS[1:]), gain[lean], gain[~lean])
        table.add_row(spec, *(with_error(values) for values in cells))
    base_gain, base_airtime = (np.mean([own[part].mean() for own in rule]) for part in (0, 1))
    console.print(f"fit: gain {base_gain:.3f}, airtime {base_airtime:.2f}; {len(episodes)} episodes, {lean.sum()} lean")
    if options.policies:
        console.print(table)
    if options.headroom:
        console.print(headroom(env, episodes, rule))


if __name__ == "__main__":
    main()
