"""The bench: the same jobs, batches and link realisations for every policy."""

from airlora.compare.plan import Arm, Comparison, Unit
from airlora.compare.results import results_table, write_parquet, write_reports
from airlora.compare.worker import run_comparison

__all__ = [
    "Arm",
    "Comparison",
    "Unit",
    "results_table",
    "run_comparison",
    "write_parquet",
    "write_reports",
]
