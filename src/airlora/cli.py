"""The command line: ``airlora run``, ``compare``, ``report``, ``inspect``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import click
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from airlora import __version__
from airlora.errors import AirLoraError, InputError

app = typer.Typer(
    name="airlora",
    help="Fine-tune LoRA adapters in the cloud and send them over the air, round by round, to an edge model.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
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
        str | None, typer.Option(help="SPEC of the policy: uniform, fit, flood, greedy, adalora, random. [fit]")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds. [20]")] = None,
    steps_per_round: Annotated[int | None, typer.Option(help="Training steps a round. [20]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows a step. [32]")] = None,
    deadline_s: Annotated[float | None, typer.Option(help="Time to transmit a round's update, in s. [1]")] = None,
    round_period_s: Annotated[float | None, typer.Option(help="From round to round, in s. [the deadline]")] = None,
    max_rank: Annotated[int | None, typer.Option(help="Largest rank of a projection. [16]")] = None,
    alpha: Annotated[float | None, typer.Option(help="Scale × max-rank. [2 × max-rank]")] = None,
    lr: Annotated[str | None, typer.Option(help="Learning rate, or auto. [auto]")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens a text or window at most. [128]")] = None,
    passes: Annotated[
        int | None, typer.Option(help="Training passes a step, each at another rank; 1 is cheapest. [3]")
    ] = None,
    validation_limit: Annotated[
        int | None, typer.Option(help="Validation rows (or windows) measured each round. [512]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random. [0]")] = None,
    text_column: Annotated[str | None, typer.Option(help="Name or 0-based index of the text column.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Name or 0-based index of the label column.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of text files. [utf-8]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda. [auto]")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with any of these; options here win.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the output folder.")] = False,
) -> None:
    """Adapt a model round by round and send each round's update over a link to the edge.

    Exit codes: 0 done (missed deadlines included), 1 internal error, 2 bad input, 130 interrupted.
    """
    given = {key: value for key, value in locals().items() if key not in ("out", "config", "resume")}
    _need("torch", "transformers", "peft", "matplotlib")
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
    out: Annotated[Path, typer.Option(help="Output folder; with --resume, what is there is not computed again.")],
    jobs: Annotated[list[str], typer.Option(help="NAME=FILE.toml with the keys of `airlora run`; repeat for more.")],
    links: Annotated[list[str], typer.Option(help="NAME=SPEC or SPEC; repeat for more.")],
    policies: Annotated[list[str], typer.Option(help="SPEC of a policy; repeat for more.")],
    seeds: Annotated[int, typer.Option(help="Seeds 0 … N-1.")] = 3,
    parallel: Annotated[int, typer.Option(help="Processes, one thread each.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Continue in the output folder.")] = False,
) -> None:
    """Run policies over links on jobs: the same batches, link realisations and deadlines for every policy."""
    _need("torch", "transformers", "peft", "matplotlib")
    from airlora.compare import Comparison, read_results, results_markdown, results_table, run_comparison, write_csv
    from airlora.compare.plan import named
    from airlora.config import load_config
    from airlora.link import make_link
    from airlora.policy import make_policy

    if out.exists() and any(out.iterdir()) and not resume:
        raise InputError(f"output folder {str(out)!r} is not empty; name another, or add --resume")
    if seeds < 1 or parallel < 1:
        raise InputError(f"--seeds {seeds} and --parallel {parallel} must be at least 1")
    files = dict(named(job, "job") for job in jobs)
    comparison = Comparison(
        jobs={name: load_config({}, Path(file)) for name, file in files.items()},
        links=dict(named(link, "link") for link in links),
        policies=tuple(policies),
        seeds=tuple(range(seeds)),
    )
    for spec in comparison.links.values():
        make_link(spec, 0)
    for spec in comparison.policies:
        make_policy(spec, 0)
    out.mkdir(parents=True, exist_ok=True)
    with Progress(console=_console) as progress:
        task = progress.add_task("arms", total=None)
        try:
            run_comparison(
                comparison, out, parallel, lambda done, total: progress.update(task, completed=done, total=total)
            )
        except KeyboardInterrupt:
            _errors.print("interrupted; finished arms are kept: continue with --resume")
            raise typer.Exit(_INTERRUPTED) from None
    results = read_results(out)
    write_csv(results, out / "summary.csv")
    (out / "summary.md").write_text(results_markdown(results), encoding="utf-8")
    _console.print(results_table(results))
    _console.print(f"summary: {out / 'summary.csv'} and summary.md", soft_wrap=True, highlight=False)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Output folder of a run.")]) -> None:
    """Draw report.html of a run again, finished or not."""
    _need("matplotlib")
    from airlora.report import write_report

    _console.print(f"report: {write_report(folder)}", soft_wrap=True, highlight=False)


@app.command()
def inspect(update: Annotated[Path, typer.Argument(help="A file from a run's updates folder.")]) -> None:
    """Show what an update holds, layer by layer (its schema is read from the run's folder)."""
    from rich.table import Table

    from airlora.codec import Update, inspect_update
    from airlora.factors import Schema

    if not update.is_file():
        raise InputError(f"update {str(update)!r} does not exist; name a file of a run's updates folder")
    schema_path = update.resolve().parent.parent / "schema.json"
    try:
        schema = Schema.from_json(json.loads(schema_path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{schema_path} is not a run's schema ({error}); the update must lie in updates/") from error
    loaded = Update.load(update)
    rows: list[dict[str, Any]] = inspect_update(loaded.layers, schema)
    table = Table(title=f"{update.name}: {loaded.size_bytes} bytes in {len(rows)} layers, parent {loaded.parent}")
    for column in ("layer", "kind", "what", "from", "to", "bits", "bytes"):
        table.add_column(column, justify="right" if column not in ("kind", "what") else "left")
    for row in rows:
        names = row["names"]
        what = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names)})"
        cells = (row["layer"], row["kind"], what, row["start"], row["stop"], row["bits"], row["bytes"])
        table.add_row(*(escape(str(cell)) for cell in cells))
    _console.print(table)


def _need(*packages: str) -> None:
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise InputError(f"this command needs {missing[0]}; install it with: pip install 'airlora[train]'")
