"""A finished or interrupted run, read back from its folder and checked."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airlora.errors import OutputError
from airlora.factors import Schema


@dataclass(frozen=True)
class Reference:
    """What resending a plain fp32 LoRA of rank 8 would have done in one round, over the same link realisation.

    Attributes:
        bytes_on_air: bytes sent before the deadline.
        airtime_s: airtime until the last byte, at most the deadline, in s.
        delivered: the whole adapter arrived in time.
    """

    bytes_on_air: int
    airtime_s: float
    delivered: bool


@dataclass(frozen=True)
class Round:
    """One row of ``rounds.jsonl``; a number that was not measured is NaN.

    Attributes:
        index: the round, from 0; ``t_s``: its start in simulated time, in s.
        snr_db, rate_bps: the link as the sender saw it before the round, in dB and bit/s.
        lexical_entropy, oov_rate, mean_words, loss: the round's text; shares of 1, words, nats.
        ranks, bits: chosen for the round, by projection; ``edge_ranks``: active on the edge after it.
        bytes_offered, bytes_delivered, bytes_on_air, layers_offered, layers_delivered: the transmission.
        airtime_s: time on air, in s; ``missed``: some offered layer did not arrive in time.
        edge_quality, cloud_quality: on the validation split, in the run's metric.
        reward: what the policy was told; ``wall``: real time by phase, in s.
    """

    index: int
    t_s: float
    snr_db: float
    rate_bps: float
    lexical_entropy: float
    oov_rate: float
    mean_words: float
    loss: float
    ranks: Mapping[str, int]
    bits: Mapping[str, int]
    edge_ranks: Mapping[str, int]
    bytes_offered: int
    bytes_delivered: int
    bytes_on_air: int
    layers_offered: int
    layers_delivered: int
    missed: bool
    airtime_s: float
    edge_quality: float
    cloud_quality: float
    reward: float
    reference: Reference
    wall: Mapping[str, float]

    def __post_init__(self) -> None:
        counts = ("bytes_offered", "bytes_delivered", "bytes_on_air", "layers_offered", "layers_delivered")
        for name in ("t_s", "airtime_s", *counts):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, allowed: finite and at least 0")

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Round:
        """Read a row.

        Raises:
            KeyError: a key is missing.
            TypeError, ValueError: a value has the wrong type.
        """
        link, text, reference = row["link"], row["text"], row["reference"]
        return cls(
            index=int(row["round"]),
            t_s=float(row["t_s"]),
            snr_db=as_float(link["snr_db"]),
            rate_bps=as_float(link["rate_bps"]),
            lexical_entropy=as_float(text["lexical_entropy"]),
            oov_rate=as_float(text["oov_rate"]),
            mean_words=as_float(text["mean_words"]),
            loss=as_float(text["loss"]),
            ranks={name: int(rank) for name, rank in row["ranks"].items()},
            bits={name: int(bits) for name, bits in row["bits"].items()},
            edge_ranks={name: int(rank) for name, rank in row["edge_ranks"].items()},
            bytes_offered=int(row["bytes_offered"]),
            bytes_delivered=int(row["bytes_delivered"]),
            bytes_on_air=int(row["bytes_on_air"]),
            layers_offered=int(row["layers_offered"]),
            layers_delivered=int(row["layers_delivered"]),
            missed=bool(row["missed"]),
            airtime_s=float(row["airtime_s"]),
            edge_quality=as_float(row["edge_quality"]),
            cloud_quality=as_float(row["cloud_quality"]),
            reward=as_float(row["reward"]),
            reference=Reference(
                bytes_on_air=int(reference["bytes"]),
                airtime_s=float(reference["airtime_s"]),
                delivered=bool(reference["delivered"]),
            ),
            wall={phase: as_float(seconds) for phase, seconds in row["wall"].items()},
        )


@dataclass(frozen=True)
class RunRecord:
    """All that a run folder says about its run.

    Attributes:
        name: the folder's name.
        config: the resolved configuration; ``schema``: what was adapted.
        rounds: the finished rounds, in order.
        deadline_s: time for one round's transmission, in s.
        summary: ``summary.json``, or None for a run that did not reach its end.
        notices: what in the folder could not be used, and why; for the reader of the report.
    """

    name: str
    config: Mapping[str, Any]
    schema: Schema
    rounds: tuple[Round, ...]
    deadline_s: float
    summary: Mapping[str, Any] | None
    notices: tuple[str, ...]

    @property
    def metric(self) -> str:
        """``accuracy`` or ``nll``; before there is a summary, a classification head tells which."""
        if self.summary is not None:
            return str(self.summary["metric"])
        return "accuracy" if self.schema.head else "nll"

    @property
    def higher_is_better(self) -> bool:
        """Whether more of the metric is better."""
        return self.metric == "accuracy" if self.summary is None else bool(self.summary["higher_is_better"])

    @property
    def base_validation_quality(self) -> float:
        """Quality before the first round on the validation split, NaN while there is no summary."""
        if self.summary is None:
            return math.nan
        return as_float(self.summary["validation"]["base_quality"])

    @property
    def missed(self) -> int:
        """Rounds in which some offered layer did not arrive in time."""
        return sum(item.missed for item in self.rounds)

    @property
    def bytes_on_air(self) -> int:
        """Bytes sent in all rounds, partial layers included."""
        return sum(item.bytes_on_air for item in self.rounds)

    @property
    def airtime_s(self) -> float:
        """Time on air in all rounds, in s."""
        return sum(item.airtime_s for item in self.rounds)

    @property
    def reference(self) -> Reference:
        """The plain resend over all rounds; ``delivered`` says whether every round's arrived."""
        rounds = [item.reference for item in self.rounds]
        return Reference(
            bytes_on_air=sum(item.bytes_on_air for item in rounds),
            airtime_s=sum(item.airtime_s for item in rounds),
            delivered=all(item.delivered for item in rounds),
        )

    @property
    def reference_arrivals(self) -> int:
        """Rounds in which the plain resend would have arrived whole and in time."""
        return sum(item.reference.delivered for item in self.rounds)


def as_float(value: Any) -> float:
    """A recorded number; null becomes NaN.

    Raises:
        TypeError: the value is neither a number nor null.
    """
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def read_run(folder: Path) -> RunRecord:
    """Read a run folder.

    Raises:
        OutputError: ``config.toml``, ``schema.json`` or ``rounds.jsonl`` is missing, or a file is not a run's.
    """
    try:
        config = tomllib.loads(_read(folder, "config.toml"))
        deadline_s = as_float(config["deadline_s"])
        if not 0 < deadline_s < math.inf:
            raise ValueError(f"deadline_s is {deadline_s}, allowed: finite and above 0")
    except (ValueError, KeyError, TypeError) as error:  # TOMLDecodeError is a ValueError
        raise OutputError(
            f"{folder / 'config.toml'} is not a run's configuration ({_reason(error)}); restore the file or run again"
        ) from error
    try:
        schema = Schema.from_json(json.loads(_read(folder, "schema.json")))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise OutputError(
            f"{folder / 'schema.json'} is not a run's schema ({_reason(error)}); restore the file or run again"
        ) from error
    rounds, cut_off = _read_rounds(folder)
    notices = []
    if cut_off:
        notices.append("The last line of rounds.jsonl was cut off while it was written; that round is left out.")
    summary = _read_summary(folder) if (folder / "summary.json").exists() else None
    if summary is not None and summary["rounds"] != len(rounds):
        notices.append(
            f"summary.json is about {summary['rounds']} rounds, but rounds.jsonl holds {len(rounds)}:"
            " the two belong to different states of the run, so the summary is left out."
        )
        summary = None
    return RunRecord(
        name=folder.resolve().name,
        config=config,
        schema=schema,
        rounds=rounds,
        deadline_s=deadline_s,
        summary=summary,
        notices=tuple(notices),
    )


def _read_rounds(folder: Path) -> tuple[tuple[Round, ...], bool]:
    lines = _read(folder, "rounds.jsonl").split("\n")
    rest = lines.pop()  # what follows the last newline: nothing, or a row that the run could not finish writing
    rounds = []
    for number, line in enumerate(lines, start=1):
        try:
            rounds.append(Round.from_row(json.loads(line)))
            if rounds[-1].index != number - 1:
                raise ValueError(f"round {rounds[-1].index} where {number - 1} should be")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OutputError(
                f"{folder / 'rounds.jsonl'} line {number} is not a round ({_reason(error)});"
                " restore the file or run again"
            ) from error
    return tuple(rounds), bool(rest.strip())


def _read_summary(folder: Path) -> dict[str, Any]:
    try:
        summary = json.loads(_read(folder, "summary.json"))
        for key in ("base_quality", "cloud_quality", "edge_quality", "rounds"):
            as_float(summary[key])
        for key in ("higher_is_better", "delivered"):
            if not isinstance(summary[key], bool):
                raise TypeError(f"{key} is {summary[key]!r}, allowed: true, false")
        as_float(summary.get("head_only_quality"))
        as_float(summary["validation"]["base_quality"])
        summary["versions"].items()
        if summary["metric"] not in ("accuracy", "nll"):
            raise ValueError(f"metric is {summary['metric']!r}, allowed: accuracy, nll")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(
            f"{folder / 'summary.json'} is not a run's summary ({_reason(error)}); delete it to report the rounds alone"
        ) from error
    return summary


def _read(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise OutputError(f"{folder} has no {name}; give a folder that airlora run has written") from error
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"{folder / name} cannot be read ({error}); check the file and its permissions") from error


def _reason(error: Exception) -> str:
    return f"no key {error}" if isinstance(error, KeyError) else str(error)
