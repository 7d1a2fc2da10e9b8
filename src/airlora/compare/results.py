"""What a comparison found: its folder read, its tables written, its report drawn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Group
from rich.table import Table

from airlora.compare import cells, equal_quality, tables
from airlora.errors import OutputError, StoreError

_FINALS = (
    "job",
    "link",
    "arm",
    "seed",
    "base_quality",
    "head_only_quality",
    "cloud_quality",
    "edge_quality",
    "training_s",
    "steps_trained",
    "commit",
)


@dataclass(frozen=True)
class Findings:
    """A finished comparison, as read from its folder.

    Attributes:
        name: of the folder. commands (of all sittings), suite, versions: what made it. links: name -> SPEC.
        rounds: one row a round (results.parquet). arms: one row an arm and seed. means: one row an arm.
        pairs: paired differences. rates: Bjøntegaard's rate differences. matches: smallest arms that are no worse.
    """

    name: str
    commands: tuple[str, ...]
    suite: str
    versions: dict[str, str]
    links: dict[str, str]
    rounds: pd.DataFrame
    arms: pd.DataFrame
    means: pd.DataFrame
    pairs: pd.DataFrame
    rates: pd.DataFrame
    matches: pd.DataFrame

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds, ascending."""
        return tuple(sorted(int(seed) for seed in self.arms["seed"].unique()))

    def seeds_of(self, job: str) -> tuple[int, ...]:
        """Those of one job, ascending."""
        return tuple(sorted(int(seed) for seed in self.arms.loc[self.arms["job"] == job, "seed"].unique()))

    @property
    def commits(self) -> tuple[str, ...]:
        """Those that its arms were made at, by their first seed."""
        return tuple(dict.fromkeys(self.arms.sort_values("seed", kind="stable")["commit"]))

    def reference(self, measure: str = "edge_quality") -> str:
        """The arm that verdicts by a measure are stated against."""
        return tables.reference_arm(self.arms, measure)


def gather(out: Path) -> None:
    """Gather every finished arm into ``results.parquet``, one row a round, and ``finals.csv``, one row an arm.

    Quality is on the validation split in the one and on the test split in the other; ``mean_rank`` and ``mean_bits``
    are over projections (bits over those that sent something), ``decision_s`` and ``train_s`` real time.

    Raises:
        OutputError: no arm has finished.
        StoreError: a file of an arm lacks something.
    """
    rows: list[dict[str, Any]] = []
    finals: list[dict[str, Any]] = []
    for path, summary in _summaries(out):
        lines = (path.parent / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
        try:
            rows += [_row(summary, json.loads(line)) for line in lines]
            finals.append({name: summary[name] for name in _FINALS})
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"{path.parent} is not a finished arm of this version ({error!r}); run it again"
            ) from error
    pd.DataFrame(rows).to_parquet(out / "results.parquet", index=False)
    pd.DataFrame(finals).to_csv(out / "finals.csv", index=False)


def _row(summary: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    ranks = np.array(list(row["ranks"].values()), dtype=float)
    bits = np.array(list(row["bits"].values()), dtype=float)
    link, wall = row["link"], row["wall"]
    return {
        **{name: summary[name] for name in ("job", "link", "arm", "arm_kind", "seed")},
        "round": row["round"],
        "t_s": row["t_s"],
        "metric": summary["metric"],
        "higher_is_better": summary["higher_is_better"],
        "base_quality": summary["validation"]["base_quality"],
        "cloud_quality": row["cloud_quality"],
        "edge_quality": row["edge_quality"],
        **{name: row[name] for name in ("bytes_offered", "bytes_delivered", "bytes_on_air", "capacity_bytes")},
        "airtime_s": row["airtime_s"],
        "deadline_s": summary["deadline_s"],
        "missed": row["missed"],
        "decision_s": wall["decision_s"],
        "train_s": wall["train_s"],
        "mean_rank": float(ranks.mean()) if ranks.size else np.nan,
        "mean_bits": float(bits[ranks > 0].mean()) if (ranks > 0).any() else np.nan,
        "snr_db": np.nan if link["snr_db"] is None else link["snr_db"],
        "rate_bps": np.nan if link["rate_bps"] is None else link["rate_bps"],
        "plain_lora_bytes": summary["plain_lora_bytes"],
    }


def read_findings(out: Path) -> Findings:
    """Read what ``gather`` or ``publish`` wrote and work out the tables.

    Raises:
        OutputError: it holds no finished arm. StoreError: a file is not what ``airlora compare`` writes.
    """
    rounds, finals = read_tables(out)
    made = read_made(out)
    try:
        arms = tables.measure_arms(rounds, finals)
        return Findings(
            name=out.resolve().name,
            commands=tuple(made["commands"]),
            suite=made["suite"] or "",
            versions=dict(made["versions"]),
            links=dict(made["links"]),
            rounds=rounds,
            arms=arms,
            means=tables.over_seeds(arms),
            pairs=tables.paired_differences(arms),
            rates=equal_quality.rate_differences(arms),
            matches=equal_quality.matches(arms),
        )
    except KeyError as error:
        raise StoreError(f"{out} lacks {error}; it is not a comparison of this version, run it again") from error


def write_reports(out: Path) -> None:
    """Write results.parquet, finals.csv, summary.csv, means.csv, pairs.csv, rates.csv, matches.csv, report.html and
    figures/.

    Raises:
        OutputError: no arm has finished. StoreError: a file is not what ``airlora compare`` writes.
        InputError: Matplotlib is not installed.
    """
    from airlora.compare.figures import draw_figures
    from airlora.compare.page import render

    gather(out)
    found = read_findings(out)
    found.arms.to_csv(out / "summary.csv", index=False)
    found.means.to_csv(out / "means.csv", index=False)
    found.pairs.to_csv(out / "pairs.csv", index=False)
    found.rates.to_csv(out / "rates.csv", index=False)
    found.matches.to_csv(out / "matches.csv", index=False)
    charts = draw_figures(found, out / "figures")
    (out / "report.html").write_text(render(found, charts), encoding="utf-8")


def results_table(out: Path) -> Group:
    """What fits a terminal: a table a job, edge quality at the end (and kB on air a round), means over seeds."""
    found = read_findings(out)
    parts = []
    for job in dict.fromkeys(found.means["job"]):
        first = found.means[found.means["job"] == job].iloc[0]
        better = "higher" if first["higher_is_better"] else "lower"
        headings, rows = cells.quality_cells(found, job)
        grid = Table(*headings, title=f"{job}: {first['metric']} at the end, {better} is better (kB a round)")
        for row in rows:
            grid.add_row(*row)
        parts.append(grid)
    return Group(*parts)


def read_tables(out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(rounds, finals) of a comparison's folder; errors as ``read_findings``."""
    if not (out / "finals.csv").exists():
        raise OutputError(f"{out} holds no finished arm; run airlora compare --out {out} first")
    text = dict.fromkeys(("job", "link", "arm", "commit"), str)  # a commit may be all digits
    finals = pd.read_csv(out / "finals.csv", dtype=text)
    return pd.read_parquet(out / "results.parquet"), finals


def read_made(out: Path) -> dict[str, Any]:
    """``comparison.json`` of a comparison's folder: what was asked for, and what made it.

    Raises:
        StoreError: it cannot be read.
    """
    return _json(out / "comparison.json")


def _summaries(out: Path) -> list[tuple[Path, dict[str, Any]]]:
    paths = sorted(out.glob("arms/*/*/*/*/summary.json"))
    if not paths:
        raise OutputError(f"{out} holds no finished arm; run airlora compare --out {out} first")
    return [(path, _json(path)) for path in paths]


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({error}); it is not a comparison of this version") from error
