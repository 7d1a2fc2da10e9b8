"""A small invented job for stream mode: no model, no training."""

from __future__ import annotations

import numpy as np

from airlora.codec import BITS
from airlora.env.stream_table import MEASURED_BITS, JobTable
from airlora.env.surrogate import Surrogate
from airlora.factors import HeadTensor, Projection, Schema

PREFIXES = (1, 2, 4)


def small_schema(projections: int = 3, head: bool = True) -> Schema:
    return Schema(
        tuple(Projection(f"layers.{i}.self_attn.q_proj", 24 + 8 * i, 16, 4) for i in range(projections)),
        PREFIXES,
        (HeadTensor("score", (3, 16)),) if head else (),
    )


def small_table(
    projections: int = 3, rounds: int = 4, head: bool = True, mixtures: int = 12, seed: int = 0
) -> JobTable:
    """Gains rise with version, rank and bits; a mixture gains what its parts do less 0.3 of its disagreement."""
    rng = np.random.default_rng(seed)
    schema = small_schema(projections, head)
    shape = (projections, PREFIXES[-1])
    rms_u, rms_v = rng.uniform(0.5, 1, (2, rounds, *shape))
    gap = np.abs(np.arange(1, rounds + 1)[:, None] - np.arange(rounds + 1)) / (rounds + 1)  # (T, T + 1)
    change_u, change_v = (gap[:, :, None, None] * rms[:, None] for rms in (rms_u, rms_v))
    version = np.arange(rounds + 1) / rounds
    rank = np.array([0.2 if head else 0.0, 0.6, 0.8, 1.0])
    bits = np.array([0.7, 0.95, 0.99, 1.0])
    table = JobTable(
        schema=schema,
        name="invented",
        base_quality=4.0,
        final_quality=2.0,
        higher_is_better=False,
        text=np.tile([0.9, 0.1, 8.0, 2.0], (rounds, 1)),
        cloud_gain=version[1:],
        sensitivity=rng.uniform(0.1, 1, (rounds, *shape)),
        energy=rng.uniform(0.1, 1, (rounds, *shape)),
        rms_u=rms_u,
        gradient_u=1 / rms_u**2,
        gradient_v=1 / rms_v**2,
        rms_v=rms_v,
        change_u=change_u,
        change_v=change_v,
        head_bytes=gap[:, :, None] * np.array([float(width) * 6 for width in BITS]) * head,
        gain=version[:, None, None] * rank[:, None] * bits,
        mixed_version=np.sort(rng.integers(1, rounds + 1, (mixtures, *shape)))[:, :, ::-1],
        mixed_bits=np.full((mixtures, *shape), MEASURED_BITS.index(4)),
        mixed_active=np.full((mixtures, projections), PREFIXES[-1]),
        mixed_head=np.tile([rounds, MEASURED_BITS.index(4)], (mixtures, 1)),
        mixed_gain=np.zeros(mixtures),
    )
    plain = Surrogate(table, np.array([-0.3, 0.0, 0.0]))
    table.mixed_gain[:] = [plain.gain(plain.mixture(index)) for index in range(mixtures)]
    return table
