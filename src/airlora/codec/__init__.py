"""Factors and an allocation to layers of bytes and back, with the state of the edge. numpy only, no torch."""

from airlora.codec.allocation import BITS, Allocation
from airlora.codec.budget import largest_uniform_rank, project
from airlora.codec.choice import Judge
from airlora.codec.costs import Costs
from airlora.codec.edge import EdgeState
from airlora.codec.history import EdgeHistory
from airlora.codec.inspection import UpdateReport, inspect_update
from airlora.codec.targets import quantiser_steps
from airlora.codec.update import Update, encode

__all__ = [
    "BITS",
    "Allocation",
    "Costs",
    "EdgeHistory",
    "EdgeState",
    "Judge",
    "Update",
    "UpdateReport",
    "encode",
    "inspect_update",
    "largest_uniform_rank",
    "project",
    "quantiser_steps",
]
