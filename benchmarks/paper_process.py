"""The paper's experiment, scaled down: arms in AirLLM's decision process at fixed SNRs.

    python benchmarks/paper_process.py JOB.toml OUT --arms airllm --arms ppo --snrs -5 --snrs 15 --seeds 3
    python benchmarks/paper_process.py JOB.toml OUT --table [--page docs/paper-mode.md]

JOB.toml holds fields of ``airlora.env.PaperConfig``. The bandwidth is chosen so that ``--lowest-rank`` is the mean rank
in time at −5 dB; 1.4, as for OPT-1.3B over 100 MHz, makes it 17.8 at 15 dB. Every arm of a seed sees the same batches,
initial factors and channel, and plays the same number of decisions: a policy that learns does so while the adapter
trains, as in the paper. One process plays one arm at one SNR with one seed; what is in OUT is not played again.

Rules that are told the capacity of the step: ``fit`` the largest uniform rank in time; ``greedy`` the components of the
largest smoothed sensitivity a number, in order, until the deadline is full; ``adalora`` (Zhang et al. 2023) trains all
components, prunes to what is in time by its importance after every step from a tenth of the decisions on, and sends
what is kept and in time. Rules that are not: ``random`` each rank uniform; ``fixed-R`` rank R always.

Policies that learn: ``airllm`` and ``ppo`` with the paper's values, ``airllm-ours``; a value is changed by
``+table.key=value``, as in ``airllm+ddim.guidance=1.0``.

Quality is measured at the end on ``validation_limit`` rows or windows of the validation split, and as many of the test
split.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

from airlora.adapter import NestedAdam, Trainer
from airlora.adapter.adalora import AdaLoraPruner, AdaLoraSchedule
from airlora.adapter.training import AdaLoraStrategy
from airlora.compare.markdown import table as markdown_table
from airlora.compare.markdown import write_block
from airlora.env.folder import TrainingFolder
from airlora.env.paper import PaperEnv
from airlora.env.settings import PaperConfig, TrainingConfig, read_settings, read_training_config
from airlora.env.training import PolicyTraining, summarise_steps
from airlora.errors import InputError

LOWEST_SNR_DB = -5.0
TAIL = 25
"""Episodes at the end whose means are reported."""

LEARNED: dict[str, dict[str, Any]] = {
    "airllm": {},
    "ppo": {"agent": "ppo"},
    "airllm-ours": {
        "ppo": {"normalise_rewards": True},
        "ddim": {"noise_scale": 0.0, "reward_weight": 1.0, "updates": 16},
        "environment": {"decoding": "bins"},
    },
}
"""What differs from the paper's values."""
RULES = ("fit", "greedy", "adalora", "random")

Row = dict[str, Any]


def played(env: PaperEnv, choose: Callable[[], np.ndarray], episodes: int) -> Iterator[list[tuple[float, Row]]]:
    """The steps of each episode, by a rule."""
    env.reset()
    for _ in range(episodes):
        steps, truncated = [], False
        while not truncated:
            _, reward, _, truncated, info = env.step(env.decoder.centres(choose()))
            steps.append((float(reward), info))
        env.reset()
        yield steps


def rule(name: str, env: PaperEnv) -> Callable[[], np.ndarray]:
    """Ranks (M,) of the next step."""
    count, r_max = len(env.schema.projections), env.schema.r_max
    if name == "fit":
        return lambda: np.minimum(env.affordable_rank(), r_max)
    if name == "random":
        rng = np.random.default_rng([env.config.seed, 19])
        return lambda: rng.integers(env.config.min_rank, r_max + 1)
    if name == "greedy":
        return greedy(env)
    rank = int(name.removeprefix("fixed-"))
    return lambda: np.minimum(np.full(count, rank), r_max)


def greedy(env: PaperEnv) -> Callable[[], np.ndarray]:
    """By smoothed sensitivity a number; a component follows those before it, and what was never trained is worth the
    mean of what was."""
    sizes = env.schema.numbers_per_component + 1

    def choose() -> np.ndarray:
        values = env.trainer.sensitivity.values[:, : env.config.max_rank]
        known = values > 0
        values = np.where(known, values, values[known].mean() if known.any() else 1.0) / sizes[:, None]
        ranks = np.full(len(sizes), env.config.min_rank)
        while True:
            offers = [
                (-values[m, ranks[m]], m)
                for m in range(len(ranks))
                if ranks[m] < env.schema.r_max[m] and env.cost(ranks + (np.arange(len(ranks)) == m)) <= 1
            ]
            if not offers:
                return ranks
            ranks[min(offers)[1]] += 1

    return choose


def adalora(env: PaperEnv, episodes: int) -> Iterator[list[tuple[float, Row]]]:
    """AdaLoRA in the process: it trains every component and sends the kept ones."""
    config = env.config
    env.reset()
    total = episodes * config.episode_steps
    whole = int(env.schema.r_max.sum())
    kept = min(whole, max(len(env.schema.projections) * config.min_rank, affordable_components(env)))
    optimizer = NestedAdam(env.adapter, env.lr, rate_decay=0.0, average_decay=0.0)
    schedule = AdaLoraSchedule(kept, kept, total, total // 10, max(total // 5, 1), 1)
    pruner = AdaLoraPruner(env.adapter, optimizer, schedule, config.max_rank)
    strategy = AdaLoraStrategy(pruner, config.orthogonality)
    env.trainer = Trainer(env.workload, env.adapter, optimizer, strategy)
    pruner.kept = np.minimum(env.affordable_rank(), env.schema.r_max)  # until scores are known
    yield from played(env, lambda: in_time(env, pruner), episodes)


def in_time(env: PaperEnv, pruner: AdaLoraPruner) -> np.ndarray:
    """The kept components (M,), less the least important ones while they miss the deadline: AdaLoRA's budget counts
    components, and those of wide projections have more numbers."""
    ranks = np.maximum(pruner.kept, env.config.min_rank)
    scores = [own.numpy() for own in pruner.importance.scores().values()]
    while env.cost(ranks) > 1 and (ranks > env.config.min_rank).any():
        offers = [(scores[m][rank - 1], m) for m, rank in enumerate(ranks) if rank > env.config.min_rank]
        ranks[min(offers)[1]] -= 1
    return ranks


def affordable_components(env: PaperEnv) -> int:
    """Components over all projections in time at the first step, each of the mean size."""
    ranks = np.zeros(len(env.schema.projections), np.int64)
    fixed = env.cost(ranks)
    one = (env.cost(ranks + 1) - fixed) / len(ranks)
    return int(max(0.0, 1 - fixed) / one)


def bandwidth_hz(config: PaperConfig, lowest_rank: float) -> float:
    """So that ``lowest_rank`` meets the deadline at ``LOWEST_SNR_DB``."""
    env = PaperEnv(**dataclasses.asdict(config))
    numbers = lowest_rank * int((env.schema.numbers_per_component + 1).sum())
    numbers += env.schema.head_size if config.count_head else 0
    return numbers * config.bits / config.deadline_s / float(np.log2(1 + 10 ** (LOWEST_SNR_DB / 10)))


def learns(arm: str) -> bool:
    """Whether the arm is a policy that learns while it plays."""
    return arm.split("+")[0] in LEARNED


def learned_settings(arm: str) -> dict[str, Any]:
    """Of ``airllm+ppo.lr=3e-4``: the arm's settings, and what is changed of them.

    Raises:
        InputError: a change is not of the form table.key=value, with a value of TOML.
    """
    name, *changes = arm.split("+")
    settings = copy.deepcopy(LEARNED[name])
    for change in changes:
        key, _, value = change.partition("=")
        table_name, _, own = key.partition(".")
        try:
            settings.setdefault(table_name, {})[own] = tomllib.loads(f"value = {value}")["value"]
        except (tomllib.TOMLDecodeError, TypeError) as error:
            raise InputError(f"{change!r} is not table.key=value, as in ddim.guidance=1.0") from error
    return settings


def training_config(arm: str, settings: Row, episodes: int) -> TrainingConfig:
    """Of an arm that learns: as many episodes, without early stopping.

    Raises:
        InputError: there is no such key, or its value is not allowed.
    """
    changes = learned_settings(arm)
    return read_training_config(
        {
            **changes,
            "episodes": episodes,
            "patience": episodes * settings["episode_steps"],
            "environment": {**settings, "lr": settings["lr"] or "auto", **changes.get("environment", {})},
        }
    )


def check(arm: str, settings: Row, episodes: int) -> None:
    """Refuse an arm before anything is played.

    Raises:
        InputError: there is no such arm, or what it changes is not allowed.
    """
    if learns(arm):
        training_config(arm, settings, episodes)
    elif arm not in RULES and not re.fullmatch(r"fixed-[1-9]\d*", arm):
        raise InputError(f"there is no arm {arm!r}; there are: {', '.join((*LEARNED, *RULES, 'fixed-R'))}")


def play(folder: Path, arm: str, settings: Row, episodes: int) -> Row:
    """Play one arm; writes ``result.json`` and, for what learns, a training's folder."""
    episode_rows: list[Row] = []
    if learns(arm):
        config = training_config(arm, settings, episodes)
        training = PolicyTraining(config, TrainingFolder(folder))
        training.folder.prepare(config.to_toml())
        training.folder.keep_metrics(0)
        while not training.done:
            episode_rows += training.iterate()
        training.save()
        env = training.env
    else:
        env = PaperEnv(**settings)
        steps = adalora(env, episodes) if arm == "adalora" else played(env, rule(arm, env), episodes)
        episode_rows = [summarise_steps(own) for own in steps]
    result = {
        "arm": arm,
        "metric": env.workload.metric,
        "higher_is_better": env.workload.higher_is_better,
        "episodes": episodes,
        "bandwidth_hz": float(settings["bandwidth_high_hz"]),
        "rewards": [row["reward"] for row in episode_rows],
        "numbers": [row["numbers"] for row in episode_rows],
        "mean_rank": [row["mean_rank"] for row in episode_rows],
        "missed": [row["violations"] / row["steps"] for row in episode_rows],
        "validation": env.validate(),
        "test": env.workload.evaluate("test", env.config.validation_limit),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
    return result


def results(out: Path) -> Iterator[tuple[float, str, int, Row]]:
    """(SNR in dB, arm, seed, result) of what was played."""
    for file in sorted(out.glob("snr*/*/seed*/result.json")):
        snr, arm, seed = file.parts[-4:-1]
        yield float(snr[3:]), arm, int(seed[4:]), json.loads(file.read_text(encoding="utf-8"))


def mean_spread(values: list[float], digits: int = 3) -> str:
    """Mean ± standard deviation."""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def steps_to_deadlines(missed: list[float], episode_steps: int, window: int = 10) -> int | None:
    """Decisions until at most a tenth of those of ``window`` episodes missed the deadline; None if never."""
    means = np.convolve(missed, np.ones(window) / window, "valid")
    reached = np.flatnonzero(means <= 0.1)
    return int((reached[0] + window) * episode_steps) if len(reached) else None


HEADINGS = (
    "SNR, dB",
    "arm",
    "seeds",
    "reward",
    "mean rank",
    "numbers a step",
    "missed",
    "validation",
    "test",
    "steps to 10 % missed",
)


def rows(out: Path, arms: list[str], episode_steps: int) -> list[list[str]]:
    """Means over seeds under ``HEADINGS``, ascending in SNR, in the order of ``arms``."""
    cells: dict[tuple[float, str], dict[int, Row]] = {}
    for snr, arm, seed, result in results(out):
        if arm in arms:
            cells.setdefault((snr, arm), {})[seed] = result
    found = []
    for (snr, arm), by_seed in sorted(cells.items(), key=lambda item: (item[0][0], arms.index(item[0][1]))):
        tails = {
            key: [float(np.mean(result[key][-TAIL:])) for result in by_seed.values()]
            for key in ("rewards", "mean_rank", "numbers", "missed")
        }
        percent = next(iter(by_seed.values()))["metric"] == "accuracy"
        scale, digits = (100, 1) if percent else (1, 3)
        quality = {
            split: mean_spread([scale * result[split] for result in by_seed.values()], digits)
            for split in ("validation", "test")
        }
        reached = [steps_to_deadlines(result["missed"], episode_steps) for result in by_seed.values()]
        found.append(
            [
                f"{snr:g}",
                arm,
                str(len(by_seed)),
                mean_spread(tails["rewards"], 2),
                mean_spread(tails["mean_rank"], 2),
                f"{np.mean(tails['numbers']):,.0f}",
                f"{100 * np.mean(tails['missed']):.0f} %",
                quality["validation"],
                quality["test"],
                ", ".join("–" if steps is None else str(steps) for steps in reached) if learns(arm) else "",
            ]
        )
    return found


def in_terminal(found: list[list[str]]) -> Table:
    """What is printed."""
    shown = Table()
    for heading in HEADINGS:
        shown.add_column(heading, no_wrap=True)
    for row in found:
        shown.add_row(*row)
    return shown


def in_page(found: list[list[str]]) -> str:
    """What a page of documentation has, in Markdown: the arm as code, a minus as one."""
    return markdown_table(
        HEADINGS,
        [[f"`{cell}`" if at == 1 else re.sub("^-", "−", cell) for at, cell in enumerate(row)] for row in found],
    )


def main() -> None:
    """Read the command line, play what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--arms", action="append", help=f"of {', '.join((*LEARNED, *RULES, 'fixed-R'))}")
    parser.add_argument("--snrs", action="append", type=float, help="in dB; -5, 0, 5, 10, 15")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--lowest-rank", type=float, default=1.4)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="play nothing, print what there is")
    parser.add_argument(
        "--page", type=Path, help="also write it into this page, between its marks <!-- results:OUT -->"
    )
    options = parser.parse_args()
    name = options.out.resolve().name
    console = Console(width=160)
    arms = options.arms or ["fit", "greedy", "adalora", "fixed-4", "random", "ppo", "airllm", "airllm-ours"]
    try:
        config = read_settings(PaperConfig, {}, options.job)
        for arm in arms:
            check(arm, dataclasses.asdict(config), options.episodes)
        if options.page:
            write_block(options.page, name, None)
    except (InputError, OSError) as error:
        parser.error(str(error))
    if not options.table:
        hz = bandwidth_hz(config, options.lowest_rank)
        snrs = options.snrs or [-5.0, 0.0, 5.0, 10.0, 15.0]
        with ProcessPoolExecutor(options.parallel) as pool:
            waiting = {}
            for seed, arm, snr in ((seed, arm, snr) for seed in range(options.seeds) for arm in arms for snr in snrs):
                folder = options.out / f"snr{snr:g}" / arm / f"seed{seed}"
                if not (folder / "result.json").exists():
                    link = f"awgn:snr_db={snr:g},bandwidth_hz={hz:.9g}"
                    own = dataclasses.replace(config, links=(link,), bandwidth_high_hz=hz, seed=seed)
                    waiting[pool.submit(play, folder, arm, dataclasses.asdict(own), options.episodes)] = folder
            for done in as_completed(waiting):
                result = done.result()
                console.print(
                    f"{waiting[done]}: reward {np.mean(result['rewards'][-TAIL:]):.3f}, test {result['test']:.4f}"
                )
    others = [] if options.arms else sorted({arm for _, arm, _, _ in results(options.out)} - set(arms))
    found = rows(options.out, [*arms, *others], config.episode_steps)
    console.print(in_terminal(found))
    if options.page:
        write_block(options.page, name, in_page(found))


if __name__ == "__main__":
    main()
