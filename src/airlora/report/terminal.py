"""The short table that a run prints when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from airlora.report.records import as_float
from airlora.report.units import bytes_text, count_text, quality_text, ratio_text, seconds_text


def summary_table(summary: Mapping[str, Any]) -> Table:
    """Key figures of a run for the terminal.

    Args:
        summary: the content of ``summary.json``.

    Returns:
        A table of two columns: what, and its value with a unit.
    """
    metric = summary["metric"]
    table = Table(title="AirLoRA run", show_header=False, title_justify="left", title_style="bold")
    table.add_column(style="dim")
    table.add_column(justify="right")

    def add(label: str, value: str) -> None:
        table.add_row(label, Text(value))  # Text: a value in brackets is no markup

    better = "higher" if summary["higher_is_better"] else "lower"
    name = "accuracy" if metric == "accuracy" else "negative log-likelihood"
    add("metric", f"{name}, test split, {better} is better")
    add("before training", quality_text(as_float(summary["base_quality"]), metric))
    if summary.get("head_only_quality") is not None:
        add("head only", quality_text(as_float(summary["head_only_quality"]), metric))
    add("edge", quality_text(as_float(summary["edge_quality"]), metric))
    add("cloud", quality_text(as_float(summary["cloud_quality"]), metric))
    if not summary["delivered"]:
        add("delivered", "nothing reached the edge")
    add("bytes on air", bytes_text(summary["bytes_on_air"]))
    add("missed deadlines", f"{summary['missed']} of {count_text(summary['rounds'], 'round')}")
    reference = summary["reference"]
    add("plain fp32 LoRA r8, resent", _reference(summary["bytes_on_air"], reference))
    add("its arrivals in time", f"{reference['rounds'] - reference['missed']} of {reference['rounds']}")
    add("computing time", seconds_text(as_float(summary["wall_s"])))
    return table


def _reference(bytes_on_air: int, reference: Mapping[str, Any]) -> str:
    text = bytes_text(reference["bytes"])
    if bytes_on_air:
        text += f" ({ratio_text(reference['bytes'] / bytes_on_air)} × this run)"
    return text
