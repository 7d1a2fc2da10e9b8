"""A recorded link, played back."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import numpy as np

from airlora.errors import SpecError
from airlora.link._checks import check_positive, check_share, check_time
from airlora.link.base import LinkState
from airlora.link.recording import CsvLayout, Recording, is_mahimahi, join, parse_csv, parse_mahimahi, read_text
from airlora.link.slotted import Slots, SlottedLink, cut_slots

Unit = Literal["bps", "kbps", "Mbps", "Gbps", "B/s", "kB/s", "MB/s"]

BPS: dict[str, float] = {"bps": 1, "kbps": 1e3, "Mbps": 1e6, "Gbps": 1e9, "B/s": 8, "kB/s": 8e3, "MB/s": 8e6}
"""Unit of a rate -> bit/s."""

_TIME_COLUMN = "t_s"
_SNR_COLUMN = "sinr_db"
_CHUNK_SLOTS = 4096  # a loop shorter than this is laid out several times at once

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trace(SlottedLink):
    """The capacity that was recorded in a CSV or mahimahi file (gzip or plain), read when the link is built.

    Rows are selected by ``source``, ``trace`` and ``tech``. When several traces are left, they are played one after the
    other in the file's order. Gaps and blanks: see ``airlora.link.recording``. Outside a recording that does not
    loop the capacity is 0.

    Attributes:
        path: the file.
        column: the rate's column; ``unit``: its unit (decimal prefixes).
        source: only rows with this value in the column ``source``; ``trace``, ``tech``: likewise.
        offset_s: the run starts this far into the recording, in s, ≥ 0.
        end: after the last sample ``stop`` (capacity 0) or ``loop`` (from its first sample again).
        share: this device's fraction of the capacity, in (0, 1].
        time_column: time in s; where a file has no ``t_s``, rows are 1 s apart.
        interval_s: rows are this far apart, in s; no time column is read then.
        snr_column: SNR in dB; where a file has no ``sinr_db``, it is not measured (NaN).
        estimate_window_s: the observed rate is the mean capacity over this past, in s.
        format: ``csv``, ``mahimahi``, or ``auto``: by content.

    Raises:
        SpecError: a value outside its range, or one that the file's format has no use for.
        DataError: the file cannot be read, or not as asked.
    """

    path: Path
    column: str = "dl_mbps"
    unit: Unit = "Mbps"
    source: str | None = None
    trace: str | None = None
    tech: str | None = None
    offset_s: float = 0.0
    end: Literal["stop", "loop"] = "stop"
    share: float = 1.0
    time_column: str = _TIME_COLUMN
    interval_s: float | None = None
    snr_column: str = _SNR_COLUMN
    estimate_window_s: float = 5.0
    format: Literal["auto", "csv", "mahimahi"] = "auto"
    _recording: Recording = field(init=False, repr=False, compare=False)
    _layout: Slots = field(init=False, repr=False, compare=False)  # as ``_lay_out`` returns it

    def __post_init__(self) -> None:
        check_share(self.share)
        check_positive("estimate_window_s", self.estimate_window_s)
        for name, found, allowed in (
            ("unit", self.unit, tuple(BPS)),
            ("end", self.end, ("stop", "loop")),
            ("format", self.format, ("auto", "csv", "mahimahi")),
        ):
            if found not in allowed:
                raise SpecError(f"{name} is {found!r}; allowed: {', '.join(allowed)}")
        if self.interval_s is not None:
            check_positive("interval_s", self.interval_s)
            if self.time_column != _TIME_COLUMN:
                raise SpecError(f"interval_s and time_column={self.time_column} exclude each other; give one of them")
        if not (math.isfinite(self.offset_s) and self.offset_s >= 0):
            raise SpecError(f"offset_s is {self.offset_s}; a finite time of 0 s or more is needed")

        recording = self._read()
        if self.end == "stop" and self.offset_s >= recording.duration_s:
            raise SpecError(
                f"offset_s is {self.offset_s:g}, but {self.path} has {recording.duration_s:g} s as selected; "
                "start earlier, or play it with end=loop"
            )
        object.__setattr__(self, "_recording", recording)
        object.__setattr__(self, "_layout", _lay_out(recording, self.share, self.end == "loop"))

    def observe(self, t_s: float) -> LinkState:
        """The last whole slot's SNR and the mean capacity over the window that ends with it.

        A sample counts once its slot is over, so nothing of the future shows. Nothing lies before the recording's
        first sample, in a loop neither: there the rate is NaN. The bandwidth is never known (NaN).
        """
        check_time("t_s", t_s)
        now_s = t_s + self.offset_s
        known_until_s, snr_db = self._last_slot(now_s)
        window_s = min(self.estimate_window_s, known_until_s)
        rate_bps = math.nan
        if window_s > 0:
            rate_bps = self._mean_bps(known_until_s - window_s - self.offset_s, window_s)
        return LinkState(float(t_s), snr_db, math.nan, rate_bps)

    def capacity_bps(self, t_s: np.ndarray) -> np.ndarray:
        """Capacity in bit/s recorded for the times given, same shape."""
        at_s = np.asarray(t_s, dtype=float) + self.offset_s
        if self.end == "loop":
            at_s = at_s % self._recording.duration_s
        edges_s, rates_bps = self._layout
        return rates_bps[np.clip(np.searchsorted(edges_s, at_s, side="right") - 1, 0, len(rates_bps) - 1)]

    def _last_slot(self, now_s: float) -> tuple[float, float]:
        """Time at which the last whole slot before ``now_s`` ended (≤ 0: there was none) and its SNR in dB."""
        recording = self._recording
        if now_s <= 0 or (self.end == "stop" and now_s > recording.duration_s):
            return now_s, math.nan
        passes = math.floor(now_s / recording.duration_s)
        within_s = now_s - passes * recording.duration_s
        slot = max(int(np.searchsorted(recording.edges_s[:-1], within_s, side="right")) - 1, 0)  # the one that runs now
        ended_s = passes * recording.duration_s + float(recording.edges_s[slot])
        return ended_s, float(recording.snr_db[slot - 1]) if ended_s > 0 else math.nan

    def _slots(self, start_s: float, duration_s: float) -> Iterator[Slots]:
        edges_s, rates_bps = self._layout
        start_s += self.offset_s
        if self.end == "stop":
            yield cut_slots(edges_s, rates_bps, start_s, duration_s)
            return
        length_s = float(edges_s[-1])
        chunk = math.floor(start_s / length_s)
        while chunk * length_s < start_s + duration_s:
            yield cut_slots(chunk * length_s + edges_s, rates_bps, start_s, duration_s)
            chunk += 1

    def _read(self) -> Recording:
        text = read_text(self.path)
        name = f"trace file {self.path}"
        if self.format == "mahimahi" or (self.format == "auto" and is_mahimahi(text)):
            self._refuse_columns()
            return parse_mahimahi(text, name)
        filters = {"source": self.source, "trace": self.trace, "tech": self.tech}
        layout = CsvLayout(
            column=self.column,
            bps=BPS[self.unit],
            filters={column: value for column, value in filters.items() if value is not None},
            time_column=self.time_column if self.interval_s is None else None,
            interval_s=1.0 if self.interval_s is None else self.interval_s,
            snr_column=self.snr_column,
            optional=frozenset((_TIME_COLUMN, _SNR_COLUMN)),
        )
        recordings = parse_csv(text, name, layout)
        if len(recordings) > 1:
            _log.info("%s: %d traces are played one after the other; choose one with trace=", name, len(recordings))
        return join(recordings.values())

    def _refuse_columns(self) -> None:
        """A mahimahi trace has no columns: refuse what would select some."""
        columns = ("column", "unit", "source", "trace", "tech", "time_column", "interval_s", "snr_column")
        for option in fields(self):
            if option.name in columns and getattr(self, option.name) != option.default:
                raise SpecError(f"{option.name} has no meaning for {self.path}, a mahimahi trace; leave it out")


def _lay_out(recording: Recording, share: float, loop: bool) -> Slots:
    """Edges in s and this device's capacity in bit/s of the slots that playing refers to.

    A recording that stops gets a slot of capacity 0 on either side, out to infinity. One that loops is repeated until
    a chunk is worth its overhead; time is then counted in chunks.
    """
    rates_bps = share * recording.rates_bps
    if not loop:
        return np.concatenate([[-np.inf], recording.edges_s, [np.inf]]), np.concatenate([[0.0], rates_bps, [0.0]])
    passes = max(1, _CHUNK_SLOTS // len(rates_bps))
    starts_s = np.arange(passes)[:, None] * recording.duration_s
    edges_s = np.append((starts_s + recording.edges_s[:-1]).ravel(), passes * recording.duration_s)
    return edges_s, np.tile(rates_bps, passes)
