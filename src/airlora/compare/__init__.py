"""The bench: the same jobs, batches and link realisations for every policy."""

from airlora.compare.plan import Arm, Comparison, Unit
from airlora.compare.results import gather, results_table, write_reports
from airlora.compare.worker import run_comparison

__all__ = [
    "Arm",
    "Comparison",
    "Unit",
    "gather",
    "results_table",
    "run_comparison",
    "write_reports",
]
