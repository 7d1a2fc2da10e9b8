"""Numbers to bytes and back: IEEE floats, or symmetric integers with one scale a row.

The unit is a *row*: one component's column of u, one component's row of v, or one row of a head tensor.
A row of n numbers is stored as whole bytes, so that rows can be cut and joined without unpacking:

    bits 32, 16   n little-endian IEEE floats
    bits 8, 4     a bfloat16 scale (2 bytes), then n codes; two 4-bit codes a byte, the first in the low half

bfloat16 is the upper half of a float32: its range covers every float32, so that no scale overflows or
underflows to zero before the numbers themselves do; codes are chosen for the scale as rounded.
"""

from __future__ import annotations

import numpy as np

from airlora.errors import UpdateError

SCALE_BYTES = 2
CLIP_RATIOS = (1.0, 0.9, 0.8, 0.7, 0.6)
"""Candidates for the largest magnitude that a row can express, relative to its largest; the best is measured."""

_LARGEST_FLOAT16 = 65504.0


def row_bytes(numbers: int, bits: int) -> int:
    """Bytes that a row of this many numbers takes, its scale included."""
    return (numbers * bits + 7) // 8 + (SCALE_BYTES if bits < 16 else 0)


def encode_rows(x: np.ndarray, bits: int) -> np.ndarray:
    """Encode every row of ``x``.

    Args:
        x: (rows, n) float32.
        bits: one of ``BITS``. At 16, magnitudes above 65504 saturate.

    Returns:
        (rows, row_bytes(n, bits)) uint8.

    Raises:
        UpdateError: ``x`` holds NaN or infinity.
    """
    _refuse_nonfinite(x, "values to send")
    if bits == 32:
        return _as_bytes(x.astype("<f4"))
    if bits == 16:
        return _as_bytes(np.clip(x, -_LARGEST_FLOAT16, _LARGEST_FLOAT16).astype("<f2"))
    codes, scales = quantise(x, bits)
    upper = (scales.view(np.uint32) >> 16).astype("<u2")
    return np.hstack([_as_bytes(upper[:, None]), pack(codes) if bits == 4 else codes.view(np.uint8)])


def decode_rows(rows: np.ndarray, numbers: int, bits: int) -> np.ndarray:
    """Decode rows made by ``encode_rows``: one float32 multiplication a number, so both sides agree to the bit.

    Args:
        rows: (rows, row_bytes(numbers, bits)) uint8.
        numbers: n, the numbers a row.
        bits: one of ``BITS``.

    Returns:
        (rows, n) float32.

    Raises:
        UpdateError: a decoded number is NaN or infinite.
    """
    if bits >= 16:
        x = np.ascontiguousarray(rows).view("<f4" if bits == 32 else "<f2").astype(np.float32)
    else:
        upper = np.ascontiguousarray(rows[:, :SCALE_BYTES]).view("<u2").astype(np.uint32)  # (rows, 1)
        body = np.ascontiguousarray(rows[:, SCALE_BYTES:])
        codes = unpack(body, numbers) if bits == 4 else body.view(np.int8)
        with np.errstate(over="ignore", invalid="ignore"):
            x = codes.astype(np.float32) * (upper << 16).view(np.float32)
    _refuse_nonfinite(x, "received layer")
    return x


def quantise(x: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric integers with one scale a row: ``x ≈ codes * scales[:, None]``.

    The scale is the one of ``CLIP_RATIOS`` with the smallest squared error in that row. A row of zeros, or of
    numbers below the smallest bfloat16, has scale 0.

    Args:
        x: (rows, n) float32, finite.
        bits: 4 or 8; codes are in ±(2^(bits-1) - 1).

    Returns:
        codes (rows, n) int8 and scales (rows,) float32, each exactly a bfloat16.
    """
    largest_code = 2 ** (bits - 1) - 1
    peak = np.abs(x).max(axis=1, initial=0.0)  # (rows,)
    divisor = np.where(peak > 0, peak, np.float32(1))
    unit = x / divisor[:, None]  # in ±1: squares of very large and of denormal numbers stay finite and above zero
    best_error = np.full(x.shape[0], np.inf, np.float32)
    codes = np.zeros(x.shape, np.int8)
    scales = np.zeros(x.shape[0], np.float32)
    limits = peak * np.array(CLIP_RATIOS, np.float32)[:, None]  # (candidates, rows)
    candidates = _bfloat16(limits / np.float32(largest_code), largest_code)
    for candidate, step in zip(candidates, candidates / divisor, strict=True):
        rounded = unit / np.where(step > 0, step, np.float32(np.inf))[:, None]
        np.rint(rounded, out=rounded)
        np.clip(rounded, -largest_code, largest_code, out=rounded)
        residual = unit - rounded * step[:, None]
        error = np.einsum("rn,rn->r", residual, residual)
        better = error < best_error
        best_error[better] = error[better]
        codes[better] = rounded[better]
        scales[better] = candidate[better]
    return codes, scales


def pack(codes: np.ndarray) -> np.ndarray:
    """Pack 4-bit codes, (rows, n) int8, two a byte with the first in the low half: (rows, ceil(n / 2)) uint8."""
    halves = codes.view(np.uint8)
    packed = halves[:, 0::2] & 0x0F
    packed[:, : codes.shape[1] // 2] |= halves[:, 1::2] << 4
    return packed


def unpack(packed: np.ndarray, numbers: int) -> np.ndarray:
    """Undo ``pack``: (rows, ceil(numbers / 2)) uint8 to (rows, numbers) int8."""
    codes = np.empty((packed.shape[0], 2 * packed.shape[1]), np.int8)
    codes[:, 0::2] = (packed << 4).view(np.int8) >> 4  # an arithmetic shift: the sign is kept
    codes[:, 1::2] = packed.view(np.int8) >> 4
    return codes[:, :numbers]


def _bfloat16(x: np.ndarray, largest_code: int) -> np.ndarray:
    # Round to nearest, ties to even, but never so far that largest_code * scale overflows float32.
    ceiling = np.float32(np.finfo(np.float32).max / largest_code).view(np.uint32) >> 16
    bits = x.astype(np.float32).view(np.uint32)
    upper = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return (np.minimum(upper, ceiling) << 16).astype(np.uint32).view(np.float32)


def _as_bytes(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).view(np.uint8)


def _refuse_nonfinite(x: np.ndarray, what: str) -> None:
    finite = np.isfinite(x)
    if not finite.all():
        raise UpdateError(f"{what}: {x.size - int(finite.sum())} of {x.size} numbers are NaN or infinite; none may be")
