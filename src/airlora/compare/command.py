"""The door behind ``airlora compare``: from its options to a finished folder."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from airlora.compare.estimate import as_text, estimate
from airlora.compare.peers import PREFIX, Peer, make_peer
from airlora.compare.plan import Comparison, Rates, Unit, named, named_arm
from airlora.compare.provenance import describe, provenance
from airlora.compare.results import results_table, write_reports
from airlora.compare.suites import JOBS, SUITES, job
from airlora.compare.worker import check_finished, read_errors, run_comparison, waiting_arms
from airlora.config import RunConfig, load_config
from airlora.errors import InputError, OutputError
from airlora.link import make_link
from airlora.policy import make_policy

NOTHING = "none"
"""``--peers none``: none of a suite's peers."""


@dataclass(frozen=True)
class Options:
    """What was given on the command line; an empty list leaves a suite's own, and None leaves its default.

    Attributes:
        out: output folder. suite: name of a ready suite.
        jobs, links, policies, peers: see ``resolve``. seeds: how many, from first_seed on.
        data_root: folder of real data. rates: TOML file of tuned learning rates.
        parallel: processes. resume: the folder may hold finished arms. command: as typed.
    """

    out: Path
    suite: str | None = None
    jobs: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    seeds: int | None = None
    data_root: Path | None = None
    rates: Path | None = None
    parallel: int = 1
    resume: bool = False
    command: str = ""
    first_seed: int = 0

    def __post_init__(self) -> None:
        if (self.seeds is not None and self.seeds < 1) or self.parallel < 1:
            raise InputError(f"--seeds {self.seeds} and --parallel {self.parallel} must be at least 1")
        if self.first_seed < 0:
            raise InputError(f"--first-seed {self.first_seed} must be at least 0")
        if self.suite is not None and self.suite not in SUITES:
            raise InputError(f"unknown suite {self.suite!r}; there are: {', '.join(SUITES)}")


def compare(options: Options, console: Console) -> int:
    """Run a comparison and write its reports; returns how many arms failed.

    Raises:
        InputError: an option cannot be used; nothing was computed.
        KeyboardInterrupt: passed on; finished arms are kept.
    """
    out = options.out
    if out.exists() and any(out.iterdir()) and not options.resume:
        raise OutputError(f"output folder {str(out)!r} is not empty; name another, or add --resume")
    comparison = resolve(options)
    check_specs(comparison)
    units = list(comparison.units())
    check_finished([arm for unit in units for arm in unit.arms], out)
    out.mkdir(parents=True, exist_ok=True)
    made = provenance()
    describe(comparison, options.command, options.suite, out, made)
    _announce(units, options, console)
    with Progress(console=console) as progress:
        task = progress.add_task("arms", total=None)
        run_comparison(
            units,
            out,
            options.parallel,
            made,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    errors = read_errors(units, out)
    if any(out.glob("arms/*/*/*/*/summary.json")):
        write_reports(out)
        console.print(results_table(out))
        console.print(f"summary.csv, results.parquet and report.html: {out}", soft_wrap=True, highlight=False)
    for error in errors:
        where = " · ".join((error["job"], error["link"], error["arm"], f"seed {error['seed']}"))
        console.print(f"[red]failed:[/red] {escape(where)}: {escape(error['error'])}", soft_wrap=True, highlight=False)
    return len(errors)


def resolve(options: Options) -> Comparison:
    """The grid that the options ask for.

    With a suite, an option that is given replaces the suite's own list: ``--jobs`` and ``--links`` may name some of
    its jobs and links, ``none`` stands for no policies or no peers. Without one all lists but the peers are needed.

    * a job is NAME=FILE.toml (the keys of ``airlora run``), the name of a real job (with ``--data-root``), or what
      ``--data`` of ``airlora run`` takes: a built-in name, a path, a hub id;
    * a link is NAME=SPEC or SPEC; a policy or a peer is NAME=SPEC or SPEC.

    Raises:
        InputError: something is missing or unknown.
    """
    rates = read_rates(options.rates) if options.rates else {}
    given_policies = dict(named_arm(text, "policy") for text in options.policies if text != NOTHING)
    given_peers = dict(_named_peer(text) for text in options.peers if text != NOTHING)
    if options.suite is None:
        jobs = dict(_job(text, options.data_root) for text in options.jobs)
        links = dict(named(text, "link") for text in options.links)
        seeds = tuple(range(options.first_seed, options.first_seed + (options.seeds or 3)))
        return Comparison(jobs, links, given_policies, seeds, given_peers, rates)
    ready = SUITES[options.suite].comparison(options.data_root, options.seeds, rates, options.first_seed)
    return replace(
        ready,
        jobs={
            name: config
            for text in options.jobs or ready.jobs
            for name, config in [(text, ready.jobs[text]) if text in ready.jobs else _job(text, options.data_root)]
        },
        links={
            name: spec
            for text in options.links or ready.links
            for name, spec in [(text, ready.links[text]) if text in ready.links else named(text, "link")]
        },
        policies=given_policies if options.policies else ready.policies,
        peers=given_peers if options.peers else ready.peers,
    )


def check_specs(comparison: Comparison) -> None:
    """Build every link and policy once, so that a wrong SPEC is refused before anything is computed.

    Raises:
        InputError: one cannot be built.
    """
    for spec in comparison.links.values():
        make_link(spec, 0)
    for spec in comparison.policies.values():
        make_policy(spec, 0)


def read_rates(path: Path) -> Rates:
    """Tuned learning rates, as ``benchmarks/tune.py`` writes them.

    Raises:
        InputError: the file cannot be read, or an entry is not a table with ``lr`` (and ``head``).
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"rates {str(path)!r} cannot be read: {error}") from error
    rates: Rates = {}
    for job_name, entries in data.items():
        for arm, entry in entries.items() if isinstance(entries, Mapping) else [("", None)]:
            if not isinstance(entry, Mapping) or "lr" not in entry or set(entry) - {"lr", "head", "quality"}:
                raise InputError(
                    f"rates {str(path)!r}: [{job_name}] {arm!r} is {entry!r}; needed is a table such as"
                    ' "lora:rank=8" = {lr = 0.005, head = 1.0}'
                )
            known = {key: float(value) for key, value in entry.items() if key != "quality"}
            rates.setdefault(job_name, {})[arm] = known
    return rates


def suites_table() -> Table:
    """What ``--list`` shows."""
    table = Table(title="ready suites (times on 2 cores)", show_lines=True)
    for heading in ("suite", "what it asks", "budgets covered", "reductions", "time, seeds"):
        table.add_column(heading, overflow="fold")
    for suite in SUITES.values():
        name = suite.name + ("\n(--data-root)" if suite.needs_data else "")
        table.add_row(name, suite.about, suite.budgets, suite.reductions, f"{suite.estimate}, {suite.seeds}")
    return table


def _announce(units: Sequence[Unit], options: Options, console: Console) -> None:
    waiting = sum(len(waiting_arms(unit, options.out)) for unit in units)
    if not waiting:
        return
    if options.suite:
        suite = SUITES[options.suite]
        console.print(f"{suite.name}: {suite.about}", soft_wrap=True, highlight=False)
        console.print(f"reductions: {suite.reductions}", soft_wrap=True, highlight=False)
        console.print(f"budgets (link over plain fp32 LoRA of rank 8): {suite.budgets}", highlight=False)
    untuned = sorted({arm.name for unit in units for arm in unit.arms if arm.peer is not None and arm.peer.lr is None})
    if untuned:
        console.print(
            f"learning rate not tuned, the built-in one is used: {', '.join(untuned)}", soft_wrap=True, highlight=False
        )
    with console.status("measuring a training step of each job") as status:
        seconds = estimate(
            units, options.out, options.parallel, lambda name: status.update(f"measuring a training step of {name}")
        )
    processes = "1 process" if options.parallel == 1 else f"{options.parallel} processes"
    console.print(f"{waiting} arms to run, about {as_text(seconds)} on {processes}", highlight=False)


def _job(text: str, data_root: Path | None) -> tuple[str, RunConfig]:
    name, value = named(text, "job")
    if value in JOBS:
        if data_root is None:
            raise InputError(f"job {value!r} needs --data-root, a folder made by benchmarks/prepare.py")
        return name, job(data_root, value)
    if value.endswith(".toml"):
        return name, load_config({}, Path(value))
    return name, RunConfig(data=value)


def _named_peer(text: str) -> tuple[str, Peer]:
    name, spec = named_arm(text, "peer")
    peer = make_peer(spec)
    return (PREFIX + name.removeprefix(PREFIX) if name == spec else name), peer
