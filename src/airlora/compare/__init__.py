"""The bench: the same jobs, batches and link realisations for every policy."""

from airlora.compare.plan import Arm, Comparison, Unit
from airlora.compare.results import read_results, results_markdown, results_table, write_csv
from airlora.compare.worker import run_comparison

__all__ = [
    "Arm",
    "Comparison",
    "Unit",
    "read_results",
    "results_markdown",
    "results_table",
    "run_comparison",
    "write_csv",
]
