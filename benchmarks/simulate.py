"""What policies gain beyond ``fit`` in simulated rounds, over drawn links or recorded ones.

    python benchmarks/simulate.py RECORDINGS --policies airllm --policies flood [--traces FILE --source mahimahi]

Plays the built-in jobs of seed 100 (``airlora.env.stream_settings.HELD_OUT_JOBS``), which are recorded in RECORDINGS
first if they are not there yet. Episodes are drawn by seed, as in training but from 0 on; with ``--traces`` their links
are stretches of a source's recordings, at a share whose median budget is drawn as in training. Means over the rounds,
paired by episode, ± standard error; *lean* are the links with a mean budget below a tenth of a plain LoRA of rank 8.
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

from airlora.env.stream import LinkMaker, StreamEnv
from airlora.env.stream_baseline import play_rule
from airlora.env.stream_links import LARGEST_LOAD, LEAST_LOAD, draw_link
from airlora.env.stream_record import record_job
from airlora.env.stream_settings import HELD_OUT_JOBS
from airlora.env.surrogate import Surrogate
from airlora.link import Link, make_link
from airlora.policy import make_policy

AIRTIME_WEIGHT = 0.1
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


def with_error(values: np.ndarray) -> str:
    """Mean ± standard error."""
    return f"{values.mean():+.3f} ± {values.std(ddof=1) / np.sqrt(len(values)):.3f}" if len(values) > 1 else "–"


def main() -> None:
    """Read the command line, play, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--policies", action="append", required=True, help="SPEC; may be given several times")
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--traces", type=Path, help="file of recorded links, see benchmarks/prepare.py")
    parser.add_argument("--source", default="mahimahi")
    options = parser.parse_args()
    console = Console(width=140)
    jobs = [Surrogate(record_job(job.run_config(), options.recordings / job.name)) for job in HELD_OUT_JOBS]
    make = recorded(options.traces, options.source) if options.traces else draw_link
    env = StreamEnv(jobs, airtime_weights=(AIRTIME_WEIGHT,), make_link=make)
    episodes = range(options.episodes)
    rule = [play_rule(env, make_policy("fit", 0), episode) for episode in episodes]
    lean = np.array([mean_load(env, episode) for episode in episodes]) < LEAN
    table = Table(title="beyond fit")
    for column in ("policy", "gain", "airtime", f"reward at λ = {AIRTIME_WEIGHT}", "gain, lean", "gain, wide"):
        table.add_column(column, no_wrap=True)
    for spec in options.policies:
        policy = make_policy(spec, 0)
        played = [play_rule(env, policy, episode) for episode in episodes]
        gain, airtime = (
            np.array([float((own[part] - base[part]).mean()) for own, base in zip(played, rule, strict=True)])
            for part in (0, 1)
        )
        reward = gain - AIRTIME_WEIGHT * airtime
        table.add_row(spec, *(with_error(values) for values in (gain, airtime, reward, gain[lean], gain[~lean])))
    base_gain, base_airtime = (np.mean([own[part].mean() for own in rule]) for part in (0, 1))
    console.print(f"fit: gain {base_gain:.3f}, airtime {base_airtime:.2f}; {len(episodes)} episodes, {lean.sum()} lean")
    console.print(table)


if __name__ == "__main__":
    main()
