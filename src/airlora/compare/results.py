"""The figures of a comparison: one row an arm, and a table over seeds."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

_COLUMNS = (
    "job",
    "link",
    "policy",
    "seed",
    "metric",
    "budget_ratio",
    "base_quality",
    "head_only_quality",
    "cloud_quality",
    "edge_quality",
    "mean_edge_validation",
    "bytes_on_air",
    "missed",
    "rounds",
)


def read_results(folder: Path) -> list[dict[str, Any]]:
    """One row for every finished arm of a comparison's folder.

    ``budget_ratio`` is the median over rounds of what the link could carry before the deadline, over the
    bytes of a plain fp32 LoRA of rank 8; ``mean_edge_validation`` the edge's quality averaged over rounds.
    """
    results = []
    for path in sorted(folder.glob("arms/*/*/*/*/summary.json")):
        summary = json.loads(path.read_text(encoding="utf-8"))
        lines = (path.parent / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        ratio = np.median([row["capacity_bytes"] for row in rows]) / summary["plain_lora_bytes"]
        summary |= {
            "budget_ratio": float(ratio),
            "mean_edge_validation": float(np.mean([row["edge_quality"] for row in rows])),
            "bytes_on_air": sum(row["bytes_on_air"] for row in rows),
            "missed": sum(row["missed"] for row in rows),
            "rounds": len(rows),
        }
        results.append({column: summary[column] for column in _COLUMNS})
    return results


def write_csv(results: Iterable[dict[str, Any]], path: Path) -> None:
    """Write the rows as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(results)


def aggregate(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean, smallest and largest edge quality over seeds, and means of the rest, for every job, link and policy."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in results:
        groups[row["job"], row["link"], row["policy"]].append(row)
    table = []
    for (job, link, policy), rows in groups.items():
        edges = [row["edge_quality"] for row in rows]
        numbers = {
            key: float(np.mean([row[key] for row in rows]))
            for key in (
                "budget_ratio",
                "base_quality",
                "cloud_quality",
                "mean_edge_validation",
                "bytes_on_air",
                "missed",
            )
        }
        heads = [row["head_only_quality"] for row in rows if row["head_only_quality"] is not None]
        table.append(
            {
                "job": job,
                "link": link,
                "policy": policy,
                "seeds": len(rows),
                "metric": rows[0]["metric"],
                "rounds": rows[0]["rounds"],
                **numbers,
                "head_only_quality": float(np.mean(heads)) if heads else None,
                "edge_quality": float(np.mean(edges)),
                "edge_low": min(edges),
                "edge_high": max(edges),
            }
        )
    return sorted(table, key=lambda row: (row["job"], row["budget_ratio"], row["link"], row["policy"]))


_HEADINGS = (
    "job",
    "link",
    "budget",
    "policy",
    "base",
    "head",
    "cloud",
    "edge at the end (range)",
    "edge, mean of rounds",
    "kB on air",
    "missed",
)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    def quality(value: float | None) -> str:
        if value is None:
            return "–"
        return f"{100 * value:.1f}" if row["metric"] == "accuracy" else f"{value:.3f}"

    return (
        row["job"],
        row["link"],
        f"{row['budget_ratio']:.2g}",
        row["policy"],
        quality(row["base_quality"]),
        quality(row["head_only_quality"]),
        quality(row["cloud_quality"]),
        f"{quality(row['edge_quality'])} ({quality(row['edge_low'])}–{quality(row['edge_high'])})",
        quality(row["mean_edge_validation"]),
        f"{row['bytes_on_air'] / 1e3:.1f}",
        f"{row['missed']:.1f}/{row['rounds']}",
    )


def results_table(results: Iterable[dict[str, Any]]) -> Table:
    """The aggregated figures for the terminal."""
    table = Table(*_HEADINGS)
    for row in aggregate(results):
        table.add_row(*_cells(row))
    return table


def results_markdown(results: Iterable[dict[str, Any]]) -> str:
    """The aggregated figures as a Markdown table; quality on the test split, the mean of rounds on validation."""
    lines = ["| " + " | ".join(_HEADINGS) + " |", "|" + "---|" * len(_HEADINGS)]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in aggregate(results)]
    return "\n".join(lines) + "\n"
