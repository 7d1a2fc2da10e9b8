"""Recorded links: files read into slots of constant rate.

Two formats are known. **CSV** has a header and a row per sample. **mahimahi** (R. Netravali et al., "Mahimahi: accurate
record-and-replay for HTTP", USENIX ATC 2015) has an integer per line: a time in ms at which one packet could be sent.

What was not measured is not invented. A sample holds until the next one, but no longer than ``MAX_HOLD`` times the
usual spacing of its recording; after that the capacity is 0 until the next sample. A blank (or NaN) rate counts as a
row that is not there, and so does a row that a filter leaves out. Time 0 is a recording's first measured sample.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from airlora.errors import DataError

MAX_HOLD = 5
"""A sample holds at most this many times the median spacing of its recording."""

MAHIMAHI_PACKET_BYTES = 1500
_MAHIMAHI_DIGITS = 12  # of a time in ms: 31 years

_LISTED = 10  # values that a message lists at most


@dataclass(frozen=True, eq=False)
class Recording:
    """A recorded link from time 0 to its end.

    Attributes:
        edges_s: (slots + 1,) increasing, from 0.
        rates_bps: (slots,) capacity in bit/s, finite and ≥ 0.
        snr_db: (slots,) NaN where it was not measured.
    """

    edges_s: np.ndarray
    rates_bps: np.ndarray
    snr_db: np.ndarray

    def __post_init__(self) -> None:
        slots = len(self.rates_bps)
        if not slots or len(self.edges_s) != slots + 1 or len(self.snr_db) != slots:
            raise DataError(f"a recording of {slots} rates needs {slots + 1} edges and {slots} SNRs, and at least 1")
        if self.edges_s[0] != 0 or not np.isfinite(self.edges_s).all() or not (np.diff(self.edges_s) > 0).all():
            raise DataError("the edges of a recording must increase from 0")
        if not np.isfinite(self.rates_bps).all() or (self.rates_bps < 0).any():
            raise DataError("the rates of a recording must be finite and 0 or more")

    @property
    def duration_s(self) -> float:
        """Length in s."""
        return float(self.edges_s[-1])


@dataclass(frozen=True)
class CsvLayout:
    """Where a CSV file keeps what is needed.

    Attributes:
        column: the rate's column; ``bps``: bit/s in one of its units.
        filters: column -> the value that its rows must have, applied in order.
        time_column: column of the time in s, or None: rows are ``interval_s`` apart.
        snr_column: column of the SNR in dB, or None.
        optional: columns of the above that may be absent (then rows are ``interval_s`` apart, the SNR is not measured).
    """

    column: str
    bps: float
    filters: Mapping[str, str]
    time_column: str | None
    interval_s: float
    snr_column: str | None
    optional: frozenset[str]


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, unpacked where it is gzip.

    Raises:
        DataError: missing, unreadable, empty, cut off, not UTF-8, or named ``.gz`` without being gzip.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        elif path.suffix == ".gz":
            raise DataError(f"trace file {path} is not gzip; compress it, or name it without .gz")
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"trace file {path} cannot be read: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise DataError(f"trace file {path} is damaged gzip ({error}); fetch it again") from error
    except UnicodeDecodeError as error:
        raise DataError(f"trace file {path} is not UTF-8 text (byte {error.start}); convert it") from error
    if not text.strip():
        raise DataError(f"trace file {path} is empty; a CSV or mahimahi trace is needed")
    return text


def is_mahimahi(text: str) -> bool:
    """Whether the first line is a bare integer, as in a mahimahi trace (a CSV starts with its header)."""
    return text.lstrip().partition("\n")[0].strip().isdecimal()


def parse_mahimahi(text: str, name: str) -> Recording:
    """Read a mahimahi trace: a packet's bits flow in the millisecond that ends at its time; the last time is the end.

    Raises:
        DataError: a line that is no integer, times that decrease, or no time above 0; ``name`` names the file.
    """
    times: list[int] = []
    for number, line in enumerate(text.splitlines(), start=1):
        word = line.strip()
        if not word:
            continue
        if not word.isdecimal() or len(word) > _MAHIMAHI_DIGITS:
            raise DataError(f"{name}, line {number}: {word[:40]!r} is no time; one integer of milliseconds is needed")
        times.append(int(word))
        if len(times) > 1 and times[-1] < times[-2]:
            raise DataError(f"{name}, line {number}: time {times[-1]} ms is below {times[-2]} ms before it; sort it")
    if not times or times[-1] == 0:
        raise DataError(f"{name} has no time above 0 ms; its last line is the length of the trace")
    ends_ms, packets = np.unique(np.maximum(times, 1), return_counts=True)
    rates = packets * (MAHIMAHI_PACKET_BYTES * 8 * 1000.0)
    return _with_gaps((ends_ms - 1) / 1000, ends_ms / 1000, rates, np.full(len(rates), math.nan))


def parse_csv(text: str, name: str, layout: CsvLayout) -> dict[tuple[str, ...], Recording]:
    """Read the rows that pass the filters, one recording per value of the columns ``source`` and ``trace``.

    Returns:
        (source, trace), or what there is of both -> recording, in the file's order.

    Raises:
        DataError: an unknown column, no row left, or a bad number; ``name`` names the file.
    """
    reader = csv.reader(io.StringIO(text, newline=""))
    samples: dict[tuple[str, ...], list[tuple[float, float, float]]] = {}  # key -> (s, bit/s, dB)
    rows_of: dict[tuple[str, ...], int] = {}
    seen: dict[str, dict[str, None]] = {column: {} for column in layout.filters}  # values under the filters before
    try:
        header = [cell.strip() for cell in next(reader)]
        places = _find_columns(header, name, layout)
        filters = [(places[column], value, seen[column]) for column, value in layout.filters.items()]
        keys = [header.index(column) for column in ("source", "trace") if column in header]
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                found = f"{len(row)} cells where the header has {len(header)}"
                raise DataError(f"{name}, line {reader.line_num} has {found}; repair it")
            key = tuple([row[place] for place in keys])
            index = rows_of[key] = rows_of.get(key, -1) + 1
            if not _passes(row, filters):
                continue
            where = f"{name}, line {reader.line_num}"
            rate = _number(row[places[layout.column]], f"{where}: {layout.column}")
            kept = samples.setdefault(key, [])
            if math.isnan(rate):
                continue
            if rate < 0:
                raise DataError(f"{where}: {layout.column} is {rate:g}; a rate of 0 or more is needed")
            time_s, snr_db = index * layout.interval_s, math.nan
            if layout.time_column in places:
                time_s = _number(row[places[layout.time_column]], f"{where}: {layout.time_column}")
                if math.isnan(time_s) or (kept and time_s <= kept[-1][0]):
                    found = "blank" if math.isnan(time_s) else f"{time_s:g} after {kept[-1][0]:g}"
                    raise DataError(f"{where}: {layout.time_column} is {found}; times must increase within a trace")
            if layout.snr_column in places:
                snr_db = _number(row[places[layout.snr_column]], f"{where}: {layout.snr_column}")
            kept.append((time_s, rate * layout.bps, snr_db))
    except csv.Error as error:
        raise DataError(f"{name}, line {reader.line_num} is not CSV: {error}") from error
    if not samples:
        raise DataError(_nothing_left(name, layout.filters, seen))
    measured = {key: _hold(rows, layout.interval_s) for key, rows in samples.items() if rows}
    if not measured:
        raise DataError(f"{name}: column {layout.column!r} is blank in every row selected; choose another one or trace")
    return measured


def join(recordings: Iterable[Recording]) -> Recording:
    """The recordings one after the other."""
    parts = list(recordings)
    starts = np.cumsum([0.0] + [part.duration_s for part in parts])
    edges = [part.edges_s[:-1] + start for part, start in zip(parts, starts[:-1], strict=True)]
    return Recording(
        np.concatenate([*edges, starts[-1:]]),
        np.concatenate([part.rates_bps for part in parts]),
        np.concatenate([part.snr_db for part in parts]),
    )


def _find_columns(header: list[str], name: str, layout: CsvLayout) -> dict[str | None, int]:
    """Column -> its place; optional columns that are absent are left out."""
    wanted = [layout.column, *layout.filters, layout.time_column, layout.snr_column]
    for column in wanted:
        if column is not None and column not in header and column not in layout.optional:
            raise DataError(f"{name} has no column {column!r}; its columns are: {_list(header)}")
    return {column: header.index(column) for column in wanted if column in header}


def _passes(row: list[str], filters: list[tuple[int, str, dict[str, None]]]) -> bool:
    """Whether the cells have the values wanted; takes note of the values seen, for a message."""
    for place, value, seen in filters:
        found = row[place]
        seen[found] = None
        if found != value:
            return False
    return True


def _nothing_left(name: str, filters: Mapping[str, str], seen: Mapping[str, Mapping[str, None]]) -> str:
    under = ""
    for column, value in filters.items():
        if value not in seen[column]:
            return f"{name} has no row with {column} {value!r}{under}; there are: {_list(list(seen[column]))}"
        under = f" under {column} {value!r}"
    return f"{name} has no rows below its header; a row per sample is needed"


def _list(values: list[str]) -> str:
    more = f" … ({len(values)} in all)" if len(values) > _LISTED else ""
    return (", ".join(values[:_LISTED]) or "none") + more


def _number(cell: str, what: str) -> float:
    """The number in a cell; NaN where it is blank."""
    if not cell.strip():
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        raise DataError(f"{what} is {cell[:40]!r}; a number or a blank is needed") from None
    if math.isinf(value):
        raise DataError(f"{what} is {cell[:40]!r}; a finite number or a blank is needed")
    return value


def _hold(samples: list[tuple[float, float, float]], interval_s: float) -> Recording:
    """Samples (time, rate, SNR) as slots: each holds until the next or for ``MAX_HOLD`` spacings, the last for one."""
    starts_s, rates_bps, snr_db = np.array(samples).T
    starts_s -= starts_s[0]
    spacing_s = float(np.median(np.diff(starts_s))) if len(samples) > 1 else interval_s
    ends_s = np.append(np.minimum(starts_s[1:], starts_s[:-1] + MAX_HOLD * spacing_s), starts_s[-1] + spacing_s)
    return _with_gaps(starts_s, ends_s, rates_bps, snr_db)


def _with_gaps(starts_s: np.ndarray, ends_s: np.ndarray, rates_bps: np.ndarray, snr_db: np.ndarray) -> Recording:
    """Ordered slots (slots,) that do not overlap, with slots of rate 0 and SNR NaN where they leave time out."""
    points = np.concatenate([[0.0], np.column_stack([starts_s, ends_s]).ravel()])  # gap, slot, gap, slot, …
    rates = np.column_stack([np.zeros_like(rates_bps), rates_bps]).ravel()
    snrs = np.column_stack([np.full_like(snr_db, math.nan), snr_db]).ravel()
    kept = np.diff(points) > 0
    return Recording(np.concatenate([points[:-1][kept], points[-1:]]), rates[kept], snrs[kept])
