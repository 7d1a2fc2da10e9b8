"""The command line: ``airlora run``, ``policy``, ``compare``, ``report``, ``inspect``."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import click
import typer
from rich.console import Console
from rich.markup import escape

from airlora import __version__, cli_policy
from airlora.errors import AirLoraError, InputError
from airlora.extras import need

app = typer.Typer(
    name="airlora",
    help="Fine-tune LoRA adapters in the cloud and send them over the air, round by round, to an edge model.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(cli_policy.app, name="policy")
_INTERRUPTED = 130
_console = Console()
_errors = Console(stderr=True, soft_wrap=True, highlight=False)


def main() -> None:
    """Entry point: errors become one line and an exit code."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except click.ClickException as error:  # an unknown option, a missing argument
        _fail(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _errors.print("interrupted")
        sys.exit(_INTERRUPTED)
    except AirLoraError as error:
        _fail(str(error), 2 if isinstance(error, InputError) else 1)
    except OSError as error:  # a full disk, a folder that was taken away
        _fail(str(error), 1)


def _fail(message: str, code: int) -> NoReturn:
    _errors.print(f"[red]error:[/red] {escape(' '.join(message.split()))}")
    sys.exit(code)


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="Output folder; must be new or empty, unless --resume.")],
    model: Annotated[
        str | None, typer.Option(help="builtin:NAME, a Transformers folder, or a hub id. [builtin:tiny-opt]")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="builtin:NAME, a file, a folder of splits, or a hub data set. [builtin:vehicle-commands]"),
    ] = None,
    task: Annotated[str | None, typer.Option(help="auto, classify or lm. [auto]")] = None,
    targets: Annotated[str | None, typer.Option(help="Projections to adapt, as q_proj,v_proj. [auto: all]")] = None,
    link: Annotated[
        str | None, typer.Option(help="SPEC of the link: awgn, fading or trace. [awgn:snr_db=10,bandwidth_hz=1e6]")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="SPEC of the policy: airllm, fit, fixed, flood, … [airllm:airtime_weight=0,alone=auto]"),
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds. [20]")] = None,
    steps_per_round: Annotated[int | None, typer.Option(help="Training steps a round. [20]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows a step. [32]")] = None,
    deadline_s: Annotated[float | None, typer.Option(help="Time to transmit a round's update, in s. [1]")] = None,
    round_period_s: Annotated[float | None, typer.Option(help="From round to round, in s. [the deadline]")] = None,
    max_rank: Annotated[int | None, typer.Option(help="Largest rank of a projection. [16]")] = None,
    alpha: Annotated[float | None, typer.Option(help="Scale × max-rank. [2 × max-rank]")] = None,
    lr: Annotated[str | None, typer.Option(help="Learning rate, or auto. [auto]")] = None,
    head_lr: Annotated[
        str | None, typer.Option(help="Learning rate of the head, or auto: by the size of its inputs. [auto]")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens a text or window at most. [128]")] = None,
    passes: Annotated[
        int | None, typer.Option(help="Training passes a step, each at another rank; 1 is cheapest. [3]")
    ] = None,
    validation_limit: Annotated[
        int | None, typer.Option(help="Validation rows (or windows) measured each round. [512]")
    ] = None,
    guard_limit: Annotated[
        int | None, typer.Option(help="Rows that the encoder measures after every layer [default: --validation-limit].")
    ] = None,
    test_limit: Annotated[
        int | None, typer.Option(help="Rows or windows of the test split measured at the end [default: all].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random. [0]")] = None,
    text_column: Annotated[str | None, typer.Option(help="Name or 0-based index of the text column.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Name or 0-based index of the label column.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of text files. [utf-8]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda. [auto]")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of the base model: auto (bfloat16 on a GPU), float32, bfloat16. [auto]")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with any of these; options here win.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the output folder.")] = False,
) -> None:
    """Adapt a model round by round and send each round's update over a link to the edge.

    Exit codes: 0 done (missed deadlines included), 1 internal error, 2 bad input, 130 interrupted.
    """
    given = {key: value for key, value in locals().items() if key not in ("out", "config", "resume")}
    need("torch", "transformers", "peft", "matplotlib")
    from airlora.config import load_config
    from airlora.progress import run_with_progress
    from airlora.runfolder import finished_rounds, stored_config

    if resume and (config is not None or any(value is not None for value in given.values())):
        raise InputError("--resume takes its configuration from the folder; give --out and --resume alone")
    resolved = stored_config(out) if resume else load_config(given, config)
    try:
        summary = run_with_progress(resolved, out, resume, _console)
    except KeyboardInterrupt:
        done = finished_rounds(out)
        if done is None:
            _errors.print("interrupted before anything was written; give the command again")
        else:
            _errors.print(f"interrupted; {done} rounds are kept: continue with --out {escape(str(out))} --resume")
        raise typer.Exit(_INTERRUPTED) from None
    from airlora.report.terminal import summary_table

    _console.print(summary_table(summary))
    _console.print(f"report: {out / 'report.html'}", soft_wrap=True, highlight=False)


@app.command()
def compare(
    suite: Annotated[str | None, typer.Argument(help="A ready suite: see --list.", show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option(help="Output folder; with --resume, what is there is not computed again.")
    ] = None,
    jobs: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE.toml (keys of `airlora run`), a real job's name, or data; repeat for more."),
    ] = None,
    links: Annotated[list[str] | None, typer.Option(help="NAME=SPEC or SPEC; repeat for more.")] = None,
    policies: Annotated[list[str] | None, typer.Option(help="SPEC of a policy, or NAME=SPEC; repeat for more.")] = None,
    peers: Annotated[
        list[str] | None,
        typer.Option(help="SPEC of what PEFT trains and resends, as lora:rank=8,file=fp16; repeat for more."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds, K … K+N-1. [3]")] = None,
    first_seed: Annotated[int, typer.Option(help="K, the first of them.")] = 0,
    parallel: Annotated[int, typer.Option(help="Processes, one thread each.")] = 1,
    data_root: Annotated[Path | None, typer.Option(help="Folder of real data, from benchmarks/prepare.py.")] = None,
    rates: Annotated[Path | None, typer.Option(help="TOML file of learning rates, from benchmarks/tune.py.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue in the output folder.")] = False,
    show_list: Annotated[bool, typer.Option("--list", help="Show the ready suites.")] = False,
) -> None:
    """Run policies and peers over links on jobs: the same batches, link realisations and deadlines for every arm.

    Exit codes: 0 done, 1 an arm failed or an internal error, 2 bad input, 130 interrupted.
    """
    need("torch", "transformers", "peft", "matplotlib", "zstandard", "pandas", "scipy")
    from airlora.compare import command

    if show_list:
        _console.print(command.suites_table())
        return
    if out is None:
        raise InputError("a comparison needs --out, a folder to write into")
    options = command.Options(
        out=out,
        suite=suite,
        jobs=tuple(jobs or ()),
        links=tuple(links or ()),
        policies=tuple(policies or ()),
        peers=tuple(peers or ()),
        seeds=seeds,
        first_seed=first_seed,
        data_root=data_root,
        rates=rates,
        parallel=parallel,
        resume=resume,
        command=shlex.join(["airlora", *sys.argv[1:]]),
    )
    try:
        failed = command.compare(options, _console)
    except KeyboardInterrupt:
        _errors.print("interrupted; finished arms are kept: continue with --resume")
        raise typer.Exit(_INTERRUPTED) from None
    if failed:
        _fail(f"{failed} arms failed, the others are kept; --resume tries them again", 1)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Output folder of a run.")]) -> None:
    """Draw report.html of a run again, finished or not."""
    need("matplotlib")
    from airlora.report import write_report

    _console.print(f"report: {write_report(folder)}", soft_wrap=True, highlight=False)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A file of a run's updates folder, or a PEFT adapter (file or folder).")],
) -> None:
    """Show what an update or an adapter holds, where its bytes went, and what in it may be a mistake."""
    from airlora.cli_inspect import show

    show(path, _console)
