"""Range checks that links share: one line with the value found and the values allowed."""

from __future__ import annotations

import math

from airlora.errors import LinkError, SpecError

SNR_LIMIT_DB = 100.0
"""Signal-to-noise ratios (and Rician K factors) beyond ±100 dB are no radio's: a slip of the unit."""


def check_positive(name: str, value: float) -> None:
    """Refuse a link parameter that is not finite and above 0 (``SpecError``)."""
    if not (math.isfinite(value) and value > 0):
        raise SpecError(f"{name} is {value}; a finite number above 0 is needed")


def check_ratio_db(name: str, value: float) -> None:
    """Refuse a ratio in dB that is NaN, infinite or absurd (``SpecError``)."""
    if not abs(value) <= SNR_LIMIT_DB:
        raise SpecError(f"{name} is {value}; -{SNR_LIMIT_DB:g} to {SNR_LIMIT_DB:g} dB are allowed")


def check_share(value: float) -> None:
    """Refuse a share of the capacity outside (0, 1] (``SpecError``)."""
    if not 0 < value <= 1:
        raise SpecError(f"share is {value}; a fraction above 0 and up to 1 is needed")


def check_time(name: str, value: float) -> None:
    """Refuse a simulated time that is NaN or infinite (``LinkError``)."""
    if not math.isfinite(value):
        raise LinkError(f"{name} is {value}; a finite time in s is needed")
