"""What each part of the policy of stream mode is worth: trained without it, and played in simulated rounds.

    python benchmarks/ablate.py TRAINING RECORDINGS OUT [--variants NAME]… [--seeds 3] [--traces FILE]

TRAINING is a folder of ``scripts/train_shipped_policy.py``. All variants take its configuration, its recordings and
what its teachers played, which are rules, so that no variant changes them. RECORDINGS are those of ``simulate.py``, as
are the links. Each variant is trained with so many seeds in OUT/NAME-SEED and plays the same episodes, told each λ;
what is there is not computed again, so processes may share OUT as long as no two have the same variant. Prints tables
of the reward: beyond ``fit``, beyond ``whole``, and of ``whole`` beyond the rule that is told the same λ, on which jobs
and over lean links or wide ones. A mean over training seeds has the standard error over episodes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console

from airlora.compare.markdown import table as markdown_table
from airlora.compare.markdown import write_block
from airlora.compare.replay import write_json
from airlora.env.stream import LinkMaker, StreamEnv
from airlora.env.stream_baseline import play_rule
from airlora.env.stream_links import draw_link
from airlora.env.stream_record import record_job
from airlora.env.stream_settings import HELD_OUT_JOBS, StreamTrainingConfig
from airlora.env.stream_training import stored_stream_config, train_stream_policy
from airlora.env.surrogate import Surrogate
from airlora.errors import InputError
from airlora.policy import make_policy
from simulate import AIRTIME_WEIGHTS, LEAN, mean_load, recorded, with_error

WHOLE = "whole"
TEACHERS_FILE = "teachers.jsonl"
ROLL_OUTS = 60
TURNS = 16
"""Steps of the DDIM after each roll-out, where it learns in turn with PPO."""


def variants(config: StreamTrainingConfig) -> dict[str, StreamTrainingConfig]:
    """By name, what is trained: without features, without a part, or with what the policy in the package is without."""
    long = replace(config, episodes=ROLL_OUTS * config.environments)
    turns = replace(config.ddim, updates=TURNS)
    return {
        WHOLE: config,
        "no-text": replace(config, hidden=("text",)),
        "no-link": replace(config, hidden=("link",)),
        "no-ddim": replace(config, refine="family"),
        "no-guidance": replace(config, ddim=replace(config.ddim, guidance=1.0)),
        "ppo": long,
        "ppo-turns": replace(long, ddim=turns),
        "ppo-turns-unweighted": replace(long, ddim=replace(turns, reward_weight=0.0)),
        "no-warm-start": replace(long, ddim=turns, imitation_updates=0, teacher_episodes=0),
        "ppo-alone": replace(long, refine="family", imitation_updates=0, teacher_episodes=0),
    }


def train(config: StreamTrainingConfig, training: Path, folder: Path, console: Console) -> None:
    """Train in ``folder``, or go on there, with the recordings and the teachers of ``training``."""
    folder.mkdir(parents=True, exist_ok=True)
    if config.teacher_episodes and not (folder / TEACHERS_FILE).exists():
        shutil.copyfile(training / TEACHERS_FILE, folder / TEACHERS_FILE)
    with console.status(f"training {folder.name}"):
        train_stream_policy(config, folder, resume=True)


class Plays:
    """What a policy gains and what airtime it takes, told each λ, kept in a file of its folder.

    Args:
        env: plays them. episodes: seeds. source: of the links, for the file's name.
    """

    def __init__(self, env: StreamEnv, episodes: range, source: str):
        self._env, self._episodes = env, episodes
        self._file = f"played-{source}-{episodes.start}-{len(episodes)}.json"

    def are_in(self, folder: Path) -> bool:
        """Whether nothing is left to be played."""
        return (folder / self._file).exists()

    def of(self, spec: str, folder: Path) -> np.ndarray:
        """(λ, episodes, 2) means over the rounds of gain and airtime."""
        file = folder / self._file
        if not self.are_in(folder):
            found = [self._told(spec, weight) for weight in AIRTIME_WEIGHTS]
            write_json(file, found)
        return np.array(json.loads(file.read_text(encoding="utf-8")))

    def _told(self, spec: str, weight: float) -> list[list[float]]:
        policy = f"{spec}{',' if ':' in spec else ':'}airtime_weight={weight:g}"
        played = (play_rule(self._env, make_policy(policy, 0), episode) for episode in self._episodes)
        return [np.mean(own, axis=1).tolist() for own in played]


def reward(played: np.ndarray, weight: float) -> np.ndarray:
    """(…,) of (…, 2), at a λ."""
    gained: np.ndarray = played[..., 0] - weight * played[..., 1]
    return gained


def beyond_rule(played: np.ndarray, fit: np.ndarray, *, told: bool) -> np.ndarray:
    """(λ, …, episodes) rewards of (…, λ, episodes, 2), less those of ``fit`` (λ, episodes, 2), told λ or not."""
    rules = fit if told else fit[:1].repeat(len(AIRTIME_WEIGHTS), axis=0)
    return np.stack(
        [reward(played[..., at, :, :], weight) - reward(rules[at], weight) for at, weight in enumerate(AIRTIME_WEIGHTS)]
    )


def table(first: list[str], rows: dict[str, list[str]]) -> str:
    """In Markdown, with a column a λ after the ``first`` ones."""
    headings = ["", *first, *(f"λ = {weight:g}" for weight in AIRTIME_WEIGHTS)]
    return markdown_table(
        headings, [[name, *(cell.replace("-", "−") for cell in cells)] for name, cells in rows.items()]
    )


def beyond_fit(played: dict[str, np.ndarray], fit: np.ndarray) -> str:
    """Rewards beyond ``fit`` of each variant (seeds, λ, episodes, 2): the mean ± the standard error over episodes, and
    from the least training seed to the best."""
    rows = {"`fit`, told": ["0", *(with_error(own, 4) for own in beyond_rule(fit, fit, told=False)[1:])]}
    for name, own in played.items():
        rows[name] = []
        for each in beyond_rule(own, fit, told=False):  # (seeds, episodes)
            by_seed = each.mean(axis=1)
            spread = f" ({by_seed.min():+.4f} … {by_seed.max():+.4f})" if len(by_seed) > 1 else ""
            rows[name].append(with_error(each.mean(axis=0), 4) + spread)
    return table([], rows)


def beyond_whole(played: dict[str, np.ndarray], fit: np.ndarray) -> str:
    """Rewards of each variant beyond those of ``WHOLE`` of the same training seeds."""
    whole, rows = beyond_rule(played[WHOLE], fit, told=True), {}
    for name, own in played.items():
        if name != WHOLE:
            differences = beyond_rule(own, fit, told=True) - whole[:, : len(own)]  # (λ, seeds, episodes)
            rows[name] = [str(len(own)), *(with_error(each.mean(axis=0), 4) for each in differences)]
    return table(["training seeds"], rows)


def groups(env: StreamEnv, episodes: range) -> dict[str, np.ndarray]:
    """By job and kind of link, which episodes (episodes,) bool are of it."""
    job, lean = np.zeros(len(episodes), int), np.zeros(len(episodes), bool)
    for index, episode in enumerate(episodes):
        lean[index] = mean_load(env, episode) < LEAN
        job[index] = env.jobs.index(env.job)
    found = {"all": np.ones(len(episodes), bool)}
    for index, of in enumerate(HELD_OUT_JOBS):
        found |= {f"{of.name}, lean": (job == index) & lean, f"{of.name}, wide": (job == index) & ~lean}
    return found


def by_job(whole: np.ndarray, fit: np.ndarray, found: dict[str, np.ndarray]) -> str:
    """Rewards (seeds, λ, episodes, 2) beyond the rule told the same, in each group."""
    beyond = beyond_rule(whole, fit, told=True).mean(axis=1)  # (λ, episodes)
    rows = {name: [str(own.sum()), *(with_error(each[own]) for each in beyond)] for name, own in found.items()}
    return table(["episodes"], rows)


def main() -> None:
    """Train what is not there, play, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("training", type=Path)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--variants", action="append", help="NAME; may be given several times; all by default")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds, from 0 on")
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--first-episode", type=int, default=0, help="seed of the first episode")
    parser.add_argument("--traces", type=Path, help="file of recorded links, see benchmarks/prepare.py; played too")
    parser.add_argument("--source", default="mahimahi")
    parser.add_argument("--table", action="store_true", help="train nothing, print what there is")
    parser.add_argument("--page", type=Path, help="also write it there, between the marks <!-- results:OUT -->")
    options = parser.parse_args()
    console, block = Console(width=170, highlight=False), options.out.resolve().name
    if not (options.training / TEACHERS_FILE).is_file():
        parser.error(
            f"{options.training} has no {TEACHERS_FILE}; name a folder that scripts/train_shipped_policy.py wrote"
        )
    if options.traces and not options.traces.is_file():
        parser.error(f"no file {options.traces}; lay it out with benchmarks/prepare.py")
    if options.page:
        try:
            write_block(options.page, block, None)
        except (InputError, OSError) as error:
            parser.error(str(error))
    config = replace(stored_stream_config(options.training), recordings=str(options.training / "recordings"))
    known = variants(config)
    chosen = options.variants or list(known)
    if unknown := set(chosen) - set(known):
        parser.error(f"unknown variants {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    jobs = [Surrogate(record_job(job, options.recordings / job.name)) for job in HELD_OUT_JOBS]
    makers: dict[str, LinkMaker] = {"drawn": draw_link}
    if options.traces:
        makers[options.source] = recorded(options.traces, options.source)
    episodes = range(options.first_episode, options.first_episode + options.episodes)
    environments = {
        source: StreamEnv(jobs, airtime_weights=AIRTIME_WEIGHTS[:1], make_link=make) for source, make in makers.items()
    }
    plays = {source: Plays(env, episodes, source) for source, env in environments.items()}
    found: dict[str, dict[str, list[np.ndarray]]] = {source: {} for source in plays}
    for name in chosen:
        for seed in range(options.seeds):
            folder = options.out / f"{name}-{seed}"
            if not all(own.are_in(folder) for own in plays.values()):
                if options.table:
                    continue
                train(replace(known[name], seed=seed), options.training, folder, console)
            for source, own in plays.items():
                with console.status(f"playing {folder.name}, {source}"):
                    found[source].setdefault(name, []).append(own.of(f"airllm:{folder}", folder))
    parts = []
    for source, own in plays.items():
        fit = own.of("fit", options.out / "fit")
        stacked = {name: np.stack(own) for name, own in found[source].items()}
        told = f"{source}, episodes {episodes.start} to {episodes.stop - 1}, reward told λ"
        parts += [f"{told}, beyond `fit`:\n", beyond_fit(stacked, fit)]
        if WHOLE in stacked:
            parts += [f"{told}, beyond {WHOLE}:\n", beyond_whole(stacked, fit)]
            parts += [f"{told}, {WHOLE} beyond the rule told the same:\n"]
            parts += [by_job(stacked[WHOLE], fit, groups(environments[source], episodes))]
    text = "\n".join(parts)
    print(text)
    if options.page:
        write_block(options.page, block, text)


if __name__ == "__main__":
    main()
