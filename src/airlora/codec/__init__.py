"""Factors and an allocation to layers of bytes and back, with the state of the edge. numpy only, no torch."""

from airlora.codec.allocation import BITS, Allocation
from airlora.codec.budget import largest_uniform_rank, project, update_bytes
from airlora.codec.edge import EdgeState
from airlora.codec.update import Update, encode, inspect_update

__all__ = [
    "BITS",
    "Allocation",
    "EdgeState",
    "Update",
    "encode",
    "inspect_update",
    "largest_uniform_rank",
    "project",
    "update_bytes",
]
