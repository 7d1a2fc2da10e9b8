"""The report of a comparison: one offline HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from airlora.compare import cells, equal_quality_cells, tables
from airlora.compare.measures import AREA_RANGE, LTE_PHONE
from airlora.report.drawing import Chart
from airlora.report.page import document
from airlora.report.units import count_text, ratio_text

if TYPE_CHECKING:
    from airlora.compare.figures import Charts
    from airlora.compare.results import Findings

_VERDICT_STYLES = {
    "better": "background:#dcf1e9;color:#00553f",
    "worse": "background:#fbe8d3;color:#7a3a00",
    "no difference shown": "color:#5b6875",
    "one seed": "color:#5b6875",
}


def render(found: Findings, charts: Charts) -> str:
    """The page as text; equal findings give an equal page."""
    pareto = _lead("Up and to the left is better for accuracy, down and to the left for nats.")
    sections = [
        _section("links", "Links and budgets", _links(found)),
        _section(
            "pareto", "Quality against bytes", pareto + _figures(charts.pareto, "max-width:820px;margin-top:16px")
        ),
        _section("gain", "By link", _by_job(charts.gain)),
        _section("verdicts", "Verdicts", _verdicts(found)),
        _section("rates", "Bytes at equal quality", _rates(found)),
        *([] if found.matches.empty else [_section("matches", "The smallest that is no worse", _matches(found))]),
        *([_section("time", "Over time", _by_job(charts.time))] if charts.time else []),
        _section("all", "All figures", _all(found)),
        _section("measures", "How this was measured", _MEASURED),
    ]
    return document(f"AirLoRA comparison: {found.name}", _header(found), sections)


def _header(found: Findings) -> str:
    policies = found.means.loc[found.means["arm_kind"] == "policy", "arm"].nunique()
    facts = [
        *([f"suite {found.suite}"] if found.suite else []),
        cells.commits_text(found),
        cells.seeds_text(found),
        count_text(found.arms["job"].nunique(), "job"),
        count_text(found.arms["link"].nunique(), "link"),
        "1 policy" if policies == 1 else f"{policies or 'no'} policies",
        count_text(found.means["arm"].nunique() - policies, "peer"),
        *(f"{name} {version}" for name, version in sorted(found.versions.items())),
    ]
    return (
        f'<p class="kicker">AirLoRA comparison</p><h1>{escape(found.name)}</h1>'
        f'<p class="facts">{"".join(f"<span>{escape(fact)}</span>" for fact in facts)}</p>'
        + "".join(f'<p style="overflow-wrap:anywhere"><code>{escape(text)}</code></p>' for text in found.commands)
    )


def _links(found: Findings) -> str:
    jobs = list(dict.fromkeys(found.means["job"]))
    budgets = found.means.groupby(["link", "job"])["budget_ratio"].median()
    order = sorted(found.means["link"].unique(), key=lambda link: (budgets[link].median(), link))
    rows = [
        [link, *(ratio_text(budgets.get((link, job), float("nan"))) for job in jobs), found.links.get(link, "")]
        for link in order
    ]
    lead = (
        "Budget: what the link carries before the deadline (median over rounds), over the bytes of a plain fp32 LoRA of"
        " rank 8. At 1 such a file just fits into a round."
    )
    return _lead(lead) + _table(("link", *(f"budget, {job}" for job in jobs), "SPEC"), rows)


def _verdicts(found: Findings) -> str:
    parts = []
    for job in dict.fromkeys(found.means["job"]):
        for measure, title in tables.PAIR_MEASURES.items():
            head, rows = cells.verdict_rows(found, job, measure)
            if rows:
                parts.append(_heading(f"{job}: {title}") + _table(head, rows, verdicts=True))
    if not parts:
        return _lead("There is only one arm: nothing to compare.")
    lead = (
        f"Paired differences at equal job, link and seed against {found.reference()} (in reward, against"
        f" {found.reference(tables.PRICED)}): positive is better, in points of accuracy or in nats. A verdict is given"
        " where the bootstrap 95 % interval over seeds excludes 0."
        f" {cells.multiplicity_text(found)} Every pair of arms, with intervals and p-values, is in pairs.csv."
    )
    return _lead(lead) + "".join(parts)


def _rates(found: Findings) -> str:
    parts = []
    for job in dict.fromkeys(found.means["job"]):
        rows = equal_quality_cells.rate_rows(found, job)
        if rows:
            parts.append(_heading(job) + _table(equal_quality_cells.RATE_HEADINGS, rows, style="white-space:nowrap"))
    if not parts:
        return _lead("There are no two curves: a curve needs several links, or several arms of one family.")
    lead = (
        "Bjøntegaard: bytes on air that a curve needs beyond the reference for the same quality at the end (test"
        " split), averaged over the qualities that both reach; negative is better. The worst point is the largest"
        " excess in the overlap, in any seed. Where a Pareto front has only two or three points the figure is rough."
    )
    return _lead(lead) + "".join(parts)


def _matches(found: Findings) -> str:
    lead = (
        "For each fp16 file of a peer the smallest update of a policy that is no worse on the validation split, in the"
        " mean over seeds, and what the two differ by on the test split, which had no part in the choice: positive is"
        " better. Other kinds of file are in matches.csv."
    )
    parts = [_lead(lead)]
    for job in dict.fromkeys(found.means["job"]):
        if rows := equal_quality_cells.match_rows(found, job):
            parts.append(
                _heading(job)
                + _table(equal_quality_cells.MATCH_HEADINGS, rows, verdicts=True, style="white-space:nowrap")
            )
    return "".join(parts)


def _all(found: Findings) -> str:
    lead = (
        "Means over seeds. kB and misses are of all rounds together; ≥ marks a mean in which seeds that never got there"
        " count with all they sent. Single seeds are in summary.csv, rounds in results.parquet."
    )
    parts = [_lead(lead)]
    for job in dict.fromkeys(found.means["job"]):
        metric = str(found.means.loc[found.means["job"] == job, "metric"].iloc[0])
        rows = [row[1:] for row in cells.mean_rows(found) if row[0] == job]
        parts.append(_heading(f"{job}: {metric} in {cells.unit(metric)}"))
        parts.append(_table(cells.HEADINGS[1:], rows, style="white-space:nowrap"))
    return "".join(parts)


_MEASURED = (
    '<p class="lead">base, head, cloud and edge at the end are measured once, on the test split; everything over rounds'
    " on the validation split. <em>edge over time</em> weighs each quality by how long the edge had it."
    " <em>kB to 90 %</em> is what was on air until the edge first had 90 % of the gain of the best cloud model of its"
    " job and seed. <em>gain area</em> is the mean share of that gain over the logarithm of bytes on air, from"
    f" {AREA_RANGE[0]:g} to {AREA_RANGE[1]:g} plain fp32 LoRA files of rank 8. <em>reward</em> is the mean over"
    " rounds of the share of that gain, less λ × airtime over deadline. Bytes on air include partial layers."
    " <em>decision</em> and <em>training</em> are real time on the machine that made this; arms that share a cloud"
    f" share its training time. Energy (energy_j in summary.csv) is a model: {LTE_PHONE.base_w:.2f} W while receiving"
    f" and {LTE_PHONE.w_per_mbps * 1e3:.0f} mW a Mbit/s ({LTE_PHONE.name}; Huang et al., MobiSys 2012)."
    " Definitions and sources: docs/measures.md.</p>"
)


_OPEN_ROWS = 40
"""Rows up to which a table is shown at once."""


def _section(slug: str, title: str, body: str) -> str:
    return f'<section id="{slug}"><h2>{escape(title)}</h2>{body}</section>'


def _lead(text: str) -> str:
    return f'<p class="lead">{escape(text)}</p>'


def _heading(text: str) -> str:
    return f'<h3 style="margin-top:18px">{escape(text)}</h3>'


def _figures(charts: Sequence[Chart], style: str, notes: bool = True) -> str:
    return "".join(
        f'<figure style="{style}"><figcaption><h3>{escape(chart.title)}</h3>'
        + (f"<p>{escape(chart.note)}</p>" if notes else "")
        + f"</figcaption>{chart.svg}</figure>"
        for chart in charts
    )


def _by_job(charts: dict[str, list[Chart]]) -> str:
    """A grid of charts a job; their note, which is the same for all, stands above once."""
    notes = dict.fromkeys(chart.note for group in charts.values() for chart in group)
    grids = (f'<div class="charts">{_figures(group, "", notes=False)}</div>' for group in charts.values())
    return "".join(_lead(note) for note in notes) + "".join(grids)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], verdicts: bool = False, style: str = "") -> str:
    top = "<thead><tr>" + "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head) + "</tr></thead>"
    body = "".join(
        f'<tr><th scope="row" style="white-space:nowrap">{escape(first)}</th>'
        + "".join(_verdict_cell(cell) if verdicts else f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    table = f'<div class="scroll"><table style="{style}">{top}<tbody>{body}</tbody></table></div>'
    count = body.count("<tr>")
    return table if count <= _OPEN_ROWS else f"<details><summary>Show {count} rows</summary>{table}</details>"


def _verdict_cell(text: str) -> str:
    """The verdict and the difference, with the interval on a line of its own."""
    style = next((style for word, style in _VERDICT_STYLES.items() if text.startswith(word)), "")
    said, bracket, interval = text.partition(" [")
    below = f'<br><span style="font-size:12px;opacity:.85">[{escape(interval)}</span>' if bracket else ""
    return f'<td style="padding-left:8px;white-space:nowrap;{style}">{escape(said)}{below}</td>'
