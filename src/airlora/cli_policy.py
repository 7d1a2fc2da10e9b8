"""``airlora policy train`` and ``airlora policy eval``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from airlora.bar import progress_bar
from airlora.errors import InputError
from airlora.extras import need

app = typer.Typer(help="Train a policy that chooses ranks, and replay it.", rich_markup_mode=None)
_console = Console()
_INTERRUPTED = 130
_PACKAGES = ("torch", "transformers", "gymnasium", "stable_baselines3")


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Output folder; must be new or empty, unless --resume.")],
    mode: Annotated[str, typer.Option(help="Decision process: paper or stream.")] = "paper",
    model: Annotated[str | None, typer.Option(help="As of `airlora run`. [builtin:tiny-opt]")] = None,
    data: Annotated[str | None, typer.Option(help="As of `airlora run`. [builtin:vehicle-commands]")] = None,
    task: Annotated[str | None, typer.Option(help="auto, classify or lm. [auto]")] = None,
    targets: Annotated[str | None, typer.Option(help="Projections to adapt. [auto: all]")] = None,
    link: Annotated[
        list[str] | None,
        typer.Option(help="SPEC; of several, each step draws one. [awgn:snr_db=10,bandwidth_hz=1e8]"),
    ] = None,
    agent: Annotated[str | None, typer.Option(help="airllm, or ppo alone. [airllm]")] = None,
    episodes: Annotated[int | None, typer.Option(help="Episodes at most. [1000]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows a training step. [32]")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens a text or window at most. [128]")] = None,
    max_rank: Annotated[int | None, typer.Option(help="Largest rank of a projection. [8]")] = None,
    alpha: Annotated[float | None, typer.Option(help="Scale × max-rank. [32]")] = None,
    lr: Annotated[str | None, typer.Option(help="Learning rate of the adapter, or auto. [5e-5]")] = None,
    deadline_s: Annotated[float | None, typer.Option(help="T_max, in s. [1]")] = None,
    bits: Annotated[int | None, typer.Option(help="Bits per number transmitted. [32]")] = None,
    decoding: Annotated[str | None, typer.Option(help="From [-1, 1] to ranks: floor or bins. [floor]")] = None,
    text: Annotated[str | None, typer.Option(help="Text statistics: paper or words. [paper]")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random. [0]")] = None,
    text_column: Annotated[str | None, typer.Option(help="Name or 0-based index of the text column.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Name or 0-based index of the label column.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of text files. [utf-8]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda. [auto]")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with any hyperparameter; options here win.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue in the output folder.")] = False,
) -> None:
    """Train a policy in AirLLM's decision process, or in the rounds of a run (stream).

    The defaults shown are those of paper mode, the paper's. Stream mode takes --out, --episodes, --seed, --config and
    --resume, and one job of its own in the place of those of the shipped policy: --model, --data, --targets,
    --batch-size, --max-length, --max-rank.

    Exit codes: 0 done, 1 internal error, 2 bad input, 130 interrupted.
    """
    given = {key: value for key, value in locals().items() if key not in ("out", "mode", "config", "resume")}
    need(*_PACKAGES)
    from airlora.env.settings import read_training_config
    from airlora.env.training import stored_training_config, train_policy

    if mode == "stream":
        _train_stream(out, given, config, resume)
        return
    if mode != "paper":
        raise InputError(f"--mode is {mode!r}; allowed: paper, stream")
    if resume:
        others = [key for key, value in given.items() if value is not None and key != "episodes"]
        if others or config is not None:
            raise InputError(
                "--resume takes its configuration from the folder; give --out, --resume and --episodes only"
            )
        resolved = stored_training_config(out)
        if episodes is not None:
            resolved = dataclasses.replace(resolved, episodes=episodes)
    else:
        top = {key: given.pop(key) for key in ("agent", "episodes")}
        given["links"] = given.pop("link")
        resolved = read_training_config({**top, "environment": given}, config)
    try:
        with progress_bar(_console) as progress:
            bar = progress.add_task("loading model and data", total=resolved.episodes)
            done = train_policy(
                resolved,
                out,
                resume=resume,
                on_episode=lambda row, _: progress.update(
                    bar,
                    completed=row["episode"] + 1,
                    description=f"reward {row['reward']:.3f} · mean rank {row['mean_rank']:.2f}"
                    f" · {row['violations']}/{row['steps']} missed",
                ),
            )
    except KeyboardInterrupt:
        _console.print(f"interrupted; go on from the last checkpoint with --out {out} --resume", markup=False)
        raise typer.Exit(_INTERRUPTED) from None
    _console.print(f"{done} episodes; replay with: airlora policy eval {out}", markup=False, soft_wrap=True)


_JOB_KEYS = ("model", "data", "targets", "batch_size", "max_length", "max_rank")


def _train_stream(out: Path, given: dict[str, Any], config: Path | None, resume: bool) -> None:
    from airlora.env.stream_settings import read_stream_config
    from airlora.env.stream_training import Watcher, stored_stream_config, train_stream_policy

    job = {key: given.pop(key) for key in _JOB_KEYS}
    top = {key: given.pop(key) for key in ("episodes", "seed", "deadline_s")}
    others = [key for key, value in given.items() if value is not None]
    if others:
        raise InputError(f"--{others[0].replace('_', '-')} is not of stream mode; put what there is into --config FILE")
    chosen = {key: value for key, value in job.items() if value is not None}
    if resume:
        if config is not None or chosen or top["seed"] is not None or top["deadline_s"] is not None:
            raise InputError(
                "--resume takes its configuration from the folder; give --out, --mode, --resume and --episodes only"
            )
        resolved = stored_stream_config(out)
        if top["episodes"] is not None:
            resolved = dataclasses.replace(resolved, episodes=top["episodes"])
    else:
        resolved = read_stream_config({**top, "jobs": [chosen] if chosen else None}, config)

    class Shown(Watcher):
        def on_stage(self, stage: str) -> None:
            progress.update(bar, description=stage)

        def on_progress(self, stage: str, done: int, total: int) -> None:
            if total != progress.tasks[bar].total:  # what follows takes its own time
                progress.reset(bar, total=total, completed=done)
            progress.update(bar, description=stage, completed=done)

        def on_iteration(self, row: dict[str, Any], iterations: int) -> None:
            earned = f"over fit {row['advantage']:+.4f} · gain {row['gain']:.3f} · airtime {row['airtime']:.3f}"
            self.on_progress(earned, row["iteration"] + 1, iterations)

    try:
        with progress_bar(_console) as progress:
            bar = progress.add_task("loading", total=resolved.iterations)
            done = train_stream_policy(resolved, out, resume=resume, watcher=Shown())
    except KeyboardInterrupt:
        _console.print(f"interrupted; go on with --mode stream --out {out} --resume", markup=False)
        raise typer.Exit(_INTERRUPTED) from None
    _console.print(
        f"{done} iterations; judge it with: airlora policy eval {out} --mode stream", markup=False, soft_wrap=True
    )


@app.command("eval")
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Output folder of a training.")],
    mode: Annotated[str, typer.Option(help="Decision process that it was trained in: paper or stream.")] = "paper",
    episodes: Annotated[int | None, typer.Option(help="Episodes to play: 20; stream mode: links a job, 6.")] = None,
    link: Annotated[list[str] | None, typer.Option(help="SPECs instead of those trained on.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the channel. [the training's]")] = None,
    rules: Annotated[bool, typer.Option("--rules", help="Play random ranks and the largest that fits, too.")] = False,
    airtime_weight: Annotated[float | None, typer.Option(help="Stream mode: λ of the policy. [0.1]")] = None,
) -> None:
    """Replay a trained policy without chance; prints a table and writes eval.json into the folder.

    In stream mode: real rounds on jobs and links that it was not trained on, beside the rules fit and flood.
    """
    need(*_PACKAGES)
    if episodes is not None and episodes < 1:
        raise InputError(f"--episodes is {episodes}; it must be at least 1")
    if mode == "stream":
        _evaluate_stream(folder, episodes, link, seed, airtime_weight)
        return
    if mode != "paper" or airtime_weight is not None:
        raise InputError(f"--mode is {mode!r}; allowed: paper, stream (which alone has --airtime-weight)")
    episodes = 20 if episodes is None else episodes
    from airlora.env.evaluation import EVALUATION_FILE, evaluate_policy

    result = evaluate_policy(folder, episodes=episodes, links=link or (), seed=seed, rules=rules)
    _console.print(_table(result))
    _console.print(f"written: {folder / EVALUATION_FILE}", markup=False, soft_wrap=True)


def _evaluate_stream(
    folder: Path, episodes: int | None, link: list[str] | None, seed: int | None, airtime_weight: float | None
) -> None:
    from airlora.env.evaluation import EVALUATION_FILE
    from airlora.env.stream_evaluation import evaluate_stream_policy
    from airlora.policy.stream_policy import DEFAULT_AIRTIME_WEIGHT

    with _console.status("loading") as status:
        result = evaluate_stream_policy(
            folder,
            episodes=6 if episodes is None else episodes,
            links=link or (),
            recordings=folder / "recordings",
            seed=seed or 0,
            airtime_weight=DEFAULT_AIRTIME_WEIGHT if airtime_weight is None else airtime_weight,
            on_stage=status.update,
        )
    weight = result["airtime_weight"]
    table = Table(title=f"{result['episodes']} episodes of {', '.join(result['jobs'])}; λ = {weight:g}")
    table.add_column("policy")
    for name in ("gain", "airtime", "bytes a round", "reward λ=0", "λ=0.1", "λ=1", f"ours over it, λ={weight:g}"):
        table.add_column(name, justify="right")
    for spec, arm in result["arms"].items():
        over = result["over"].get(spec)
        paired = f"{over['reward'][0]:+.4f} ± {over['reward'][1]:.4f}" if over else ""
        rewards = (f"{arm[f'reward_{value:g}']:.4f}" for value in (0.0, 0.1, 1.0))
        cells = (f"{arm['gain']:.4f}", f"{arm['airtime']:.3f}", f"{arm['bytes_on_air']:.0f}", *rewards, paired)
        table.add_row("airllm" if over is None else spec, *cells)
    _console.print(table)
    _console.print(f"written: {folder / EVALUATION_FILE}", markup=False, soft_wrap=True)


def _table(result: dict[str, Any]) -> Table:
    table = Table(title=f"{result['episodes']} episodes, seed {result['seed']}, over {', '.join(result['links'])}")
    table.add_column("policy")
    for name in ("reward", "loss", "cost", "missed", "mean rank", "numbers", result["metric"]):
        table.add_column(name, justify="right")
    for name, arm in result["arms"].items():
        loss = "–" if arm["loss"] is None else f"{arm['loss']:.4f}"
        missed = f"{arm['violations']}/{arm['steps']}"
        cells = (f"{arm['reward']:.4f}", loss, f"{arm['cost']:.3f}", missed, f"{arm['mean_rank']:.2f}")
        table.add_row(name, *cells, f"{arm['numbers']:.0f}", f"{arm['validation']:.4f}")
    return table
