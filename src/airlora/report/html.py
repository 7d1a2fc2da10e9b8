"""The report of a run as one HTML page that needs nothing from outside."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from airlora.errors import OutputError
from airlora.report import figures, heatmaps
from airlora.report.drawing import Chart
from airlora.report.page import document
from airlora.report.records import RunRecord, as_float, read_run
from airlora.report.units import (
    NBSP,
    UNKNOWN,
    bytes_text,
    count_text,
    number_text,
    quality_text,
    rate_text,
    ratio_text,
    seconds_text,
)

REPORT_NAME = "report.html"


def write_report(folder: Path) -> Path:
    """Draw ``report.html`` from the files of a run folder, finished or interrupted.

    Equal files give an equal page, byte for byte.

    Args:
        folder: what ``airlora run --out`` wrote; needs config.toml, schema.json and rounds.jsonl.

    Returns:
        The page's path.

    Raises:
        OutputError: a file is missing or not what a run writes, or the page cannot be written.
        InputError: Matplotlib is not installed.
    """
    page = render(read_run(folder))
    path, unfinished = folder / REPORT_NAME, folder / f".{REPORT_NAME}.tmp"
    try:
        unfinished.write_text(page, encoding="utf-8", newline="\n")
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written ({error.strerror}); check the folder's permissions") from error
    return path


def render(run: RunRecord) -> str:
    """The page as text."""
    title = f"AirLoRA run: {run.name}"
    header = _header(run)
    if not run.rounds:
        empty = "No round was finished, so there is nothing to draw yet. Resume the run, or start it again."
        sections = [_section("result", "Result", empty, ())]
    else:
        sections = [
            _section("quality", "Quality", _quality_text(run), figures.quality_charts(run)),
            _section(
                "link",
                "Link and deliveries",
                "Tinted rounds missed their deadline: some offered layer did not arrive in time.",
                [*figures.link_charts(run), *figures.delivery_charts(run)],
            ),
            _section(
                "ranks",
                "Ranks",
                "Rank of every projection in every round. Left: what the policy chose for the round."
                " Right: what the edge has active after it.",
                [*figures.allocation_charts(run), *heatmaps.rank_charts(run)],
            ),
            _section("text", "Text", "What each round trained on, as the policy saw it.", figures.text_charts(run)),
            _section("comparison", "Compared with resending a plain LoRA", *_comparison(run)),
            _section(
                "time",
                "Computing time",
                "Real time on the machine that ran this; it is not part of the simulated clock.",
                figures.wall_charts(run),
            ),
            _section("rounds", "All rounds", _rounds_table(run), ()),
        ]
    sections.append(_section("configuration", "Configuration", _configuration(run), ()))
    return document(title, header, sections)


def _section(slug: str, title: str, text: str, charts: Iterable[Chart]) -> str:
    if text and not text.startswith("<"):
        text = f'<p class="lead">{text}</p>'
    drawn = "".join(
        f"<figure><figcaption><h3>{escape(chart.title)}</h3><p>{escape(chart.note)}</p></figcaption>{chart.svg}</figure>"
        for chart in charts
    )
    grid = f'<div class="charts">{drawn}</div>' if drawn else ""
    return f'<section id="{slug}"><h2>{escape(title)}</h2>{text}{grid}</section>'


def _header(run: RunRecord) -> str:
    facts = [str(run.config[key]) for key in ("model", "data", "link", "policy") if run.config.get(key)]
    if "seed" in run.config:
        facts.append(f"seed {run.config['seed']}")
    state = '<span class="state done">complete</span>'
    if run.summary is None:
        text = f"interrupted after round {run.rounds[-1].index}" if run.rounds else "interrupted before round 0 ended"
        state = f'<span class="state open">{text}</span>'
    return (
        f'<p class="kicker">AirLoRA run report {state}</p><h1>{escape(run.name)}</h1>'
        f'<p class="facts">{"".join(f"<span>{escape(fact)}</span>" for fact in facts)}</p>'
        + "".join(f'<p class="notice">{escape(notice)}</p>' for notice in run.notices)
        + (f'<p class="headline">{_headline(run)}</p>{_key_figures(run)}' if run.rounds else "")
    )


def _headline(run: RunRecord) -> str:
    count = count_text(len(run.rounds), "round")
    cost = f"<strong>{bytes_text(run.bytes_on_air)}</strong> sent over {count}"
    if run.summary is None:
        edge = quality_text(run.rounds[-1].edge_quality, run.metric)
        return f"The run stopped early. The edge model stands at <strong>{edge}</strong> (validation) with {cost}."
    base, final = as_float(run.summary["base_quality"]), as_float(run.summary["edge_quality"])
    before, after = quality_text(base, run.metric), f"<strong>{quality_text(final, run.metric)}</strong>"
    what = "accuracy" if run.metric == "accuracy" else "negative log-likelihood"
    if not run.summary["delivered"]:
        return f"Nothing reached the edge: its model stays at {after} {what} on the test split, with {cost}."
    gain = (final - base) * (1 if run.higher_is_better else -1)
    if not math.isfinite(gain):
        return f"The edge model ends at {after} {what} on the test split, with {cost}."
    verb = "improved" if gain > 0 else "did not change" if gain == 0 else "got worse"
    return f"The edge model {verb}: from {before} to {after} {what} on the test split, with {cost}."


def _key_figures(run: RunRecord) -> str:
    metric, count = run.metric, len(run.rounds)
    last = run.rounds[-1]
    if run.summary is None:
        quality = quality_text(last.edge_quality, metric)
        detail = f"cloud {quality_text(last.cloud_quality, metric)}; validation split, last round"
    else:
        before, after = as_float(run.summary["base_quality"]), as_float(run.summary["edge_quality"])
        quality = f"{_bare(before, metric)} → {quality_text(after, metric)}"
        detail = f"cloud {quality_text(as_float(run.summary['cloud_quality']), metric)}; test split"
        head_only = run.summary.get("head_only_quality")
        if head_only is not None:
            detail = f"head alone {quality_text(as_float(head_only), metric)}, {detail}"
    theirs = run.schema.plain_lora_bytes(8) * count
    ratio = theirs / run.bytes_on_air if run.bytes_on_air else math.nan
    fewer = f"{ratio_text(ratio)}× fewer" if not ratio < 1 else f"{ratio_text(1 / ratio)}× more"
    cards = [
        ("edge quality" if run.summary is None else "edge, before → after", quality, detail),
        ("bytes on air", bytes_text(run.bytes_on_air), f"{bytes_text(run.bytes_on_air / count)} a round on average"),
        (
            "deadlines missed",
            f"{run.missed} of {count}",
            f"{seconds_text(run.airtime_s)} on air in all",
        ),
        (
            "against plain resending",
            fewer if math.isfinite(ratio) else UNKNOWN,
            f"a whole fp32 LoRA of rank 8 every round: {bytes_text(theirs)}",
        ),
        (
            "plain resends in time",
            f"{run.reference_arrivals} of {count}",
            f"over the same link; {bytes_text(run.schema.plain_lora_bytes(8))} each",
        ),
    ]
    return (
        '<dl class="cards">'
        + "".join(
            f'<div><dt>{escape(label)}</dt><dd class="value">{escape(value)}</dd><dd>{escape(note)}</dd></div>'
            for label, value, note in cards
        )
        + "</dl>"
    )


def _bare(quality: float, metric: str) -> str:
    """A quality without its unit, to stand before an arrow."""
    return quality_text(quality, metric).partition(NBSP)[0]


def _quality_text(run: RunRecord) -> str:
    text = "Measured on the validation split after each round: the edge model is the one that counts."
    if run.summary is not None:
        text += " The test split is used once, at the end, for the figures above."
    return text


def _comparison(run: RunRecord) -> tuple[str, list[Chart]]:
    plain, count = run.reference, len(run.rounds)
    rows = [
        ("Sent", bytes_text(run.bytes_on_air), bytes_text(plain.bytes_on_air)),
        ("Sent, a round", bytes_text(run.bytes_on_air / count), bytes_text(plain.bytes_on_air / count)),
        ("Airtime", seconds_text(run.airtime_s), seconds_text(plain.airtime_s)),
        ("Complete in time", f"{count - run.missed} of {count}", f"{run.reference_arrivals} of {count}"),
        (
            "Edge quality, last round (validation)",
            quality_text(run.rounds[-1].edge_quality, run.metric),
            "not trained in this run",
        ),
    ]
    text = (
        '<p class="lead">The usual way is to resend the whole adapter, a plain fp32 PEFT LoRA of rank 8, every round.'
        " Its transmissions are worked out here over the same link realisation and deadline."
        " Its quality is <strong>not trained in this run</strong>: <code>airlora compare</code> does that."
        " Where it is cut off by the deadline, only what was sent counts, and nothing of it can be used;"
        " layers of this run that arrived before a miss are used.</p>"
    )
    return text + _table(("", "this run", "plain fp32 LoRA, rank 8"), rows), figures.reference_charts(run)


def _rounds_table(run: RunRecord) -> str:
    head = (
        "round", "start (s)", "rate estimate", "offered", "delivered", "on air", "layers", "airtime", "deadline",
        "edge", "cloud", "reward",
    )  # fmt: skip
    rows = [
        (
            str(item.index),
            number_text(item.t_s, 6),
            rate_text(item.rate_bps),
            bytes_text(item.bytes_offered),
            bytes_text(item.bytes_delivered),
            bytes_text(item.bytes_on_air),
            f"{item.layers_delivered}/{item.layers_offered}",
            seconds_text(item.airtime_s),
            "missed" if item.missed else "met",
            quality_text(item.edge_quality, run.metric),
            quality_text(item.cloud_quality, run.metric),
            number_text(item.reward),
        )
        for item in run.rounds
    ]
    table = _table(head, rows)
    return f"<details><summary>Show {count_text(len(rows), 'round')} as a table</summary>{table}</details>"


def _configuration(run: RunRecord) -> str:
    schema = run.schema
    adapter = {
        "projections": len(schema.projections),
        "trained ranks": ", ".join(map(str, schema.prefixes)),
        "numbers in the head": schema.head_size,
        "schema id": schema.id,
        "base fingerprint": schema.base_fingerprint or UNKNOWN,
    }
    parts = [("Options, as resolved", run.config), ("Adapter", adapter)]
    if run.summary is not None:
        parts.append(("Versions", run.summary["versions"]))
    tables = "".join(f"<div><h3>{title}</h3>{_pairs(values)}</div>" for title, values in parts)
    return f'<div class="tables">{tables}</div>'


def _pairs(values: Mapping[str, Any]) -> str:
    return _table(None, [(str(key), _plain(value)) for key, value in values.items()])


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return UNKNOWN if value is None else str(value)


def _table(head: Sequence[str] | None, rows: Iterable[Sequence[str]]) -> str:
    top = ""
    if head is not None:
        top = "<thead><tr>" + "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head) + "</tr></thead>"
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    )
    return f'<div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>'
