"""Numbers as people read them; an unknown number (NaN) is a dash."""

from __future__ import annotations

import math

UNKNOWN = "–"
NBSP = "\u00a0"
"""Between a number and its unit, so that no line breaks there."""


def bytes_text(size_bytes: float) -> str:
    """Bytes in decimal units with three figures: ``512 B``, ``21.4 kB``, ``1.24 MB``."""
    return _scaled(size_bytes, "B")


def rate_text(rate_bps: float) -> str:
    """A rate in bit/s in decimal units with three figures: ``850 kbit/s``."""
    return _scaled(rate_bps, "bit/s")


def seconds_text(seconds: float) -> str:
    """A duration: ``12 ms``, ``4.31 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if not math.isfinite(seconds):
        return UNKNOWN
    if seconds == 0:
        return f"0{NBSP}s"
    if seconds < 0.9995:
        return f"{_figures(seconds * 1e3)}{NBSP}ms"
    if seconds < 119.5:
        return f"{_figures(seconds)}{NBSP}s"
    whole = round(seconds)
    if whole < 7200:
        return f"{whole // 60}{NBSP}min {whole % 60:02d}{NBSP}s"
    return f"{whole // 3600}{NBSP}h {whole % 3600 // 60:02d}{NBSP}min"


def quality_text(quality: float, metric: str) -> str:
    """An accuracy as a percentage, a negative log-likelihood in nats."""
    if not math.isfinite(quality):
        return UNKNOWN
    return f"{100 * quality:.1f}{NBSP}%" if metric == "accuracy" else f"{quality:.3f}{NBSP}nats"


def ratio_text(ratio: float) -> str:
    """A factor without its sign: ``0.42``, ``1.8``, ``19``."""
    return _figures(ratio, 2) if math.isfinite(ratio) else UNKNOWN


def number_text(value: float, figures: int = 3) -> str:
    """A plain number with so many significant figures."""
    return f"{value:.{figures}g}" if math.isfinite(value) else UNKNOWN


def count_text(count: int, noun: str) -> str:
    """A count with its noun: ``no rounds``, ``1 round``, ``20 rounds``."""
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def unit_of(largest: float, base: str) -> tuple[float, str]:
    """Scale and name of the decimal unit for values up to ``largest``: (1e3, "kB")."""
    for scale, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if largest >= scale:
            return scale, prefix + base
    return 1.0, base


def _scaled(value: float, base: str) -> str:
    if not math.isfinite(value):
        return UNKNOWN
    scale, unit = unit_of(abs(value) * 1.0005, base)  # 999.7 kB rounds to 1.00 MB
    return f"{value:.0f}{NBSP}{unit}" if scale == 1 else f"{_figures(value / scale)}{NBSP}{unit}"


def _figures(value: float, figures: int = 3) -> str:
    """Fixed-point text with so many significant figures, never an exponent."""
    value = float(f"{value:.{figures}g}")  # 9.996 is 10.0 before its decimals are counted
    if value == 0:
        return "0"
    decimals = max(0, figures - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}".replace(",", NBSP)
