"""The charts of a report that are drawn over rounds, bytes or time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from airlora.codec.allocation import BITS
from airlora.report import drawing
from airlora.report.drawing import CLOUD, EDGE, EXTRA, INK, MUTED, REFERENCE, SHADES, Chart, bars, by_round, draw, line
from airlora.report.records import RunRecord
from airlora.report.units import bytes_text, count_text, quality_text, seconds_text, unit_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE_IN = (5.4, 3.4)


def quality_charts(run: RunRecord) -> list[Chart]:
    """Edge and cloud quality (validation split) against bytes on air and against simulated time."""
    sent = np.cumsum([item.bytes_on_air for item in run.rounds])
    scale, unit = unit_of(float(sent[-1]), "B")
    ends_s = [item.t_s + item.airtime_s for item in run.rounds]
    last = run.rounds[-1]
    note = (
        f"Validation split, after each round. The last round ends with {quality_text(last.edge_quality, run.metric)}"
        f" on the edge and {quality_text(last.cloud_quality, run.metric)} in the cloud."
    )
    if run.missed:
        note += " A cross marks a round that missed its deadline."
    return [
        _quality(run, "quality-bytes", "Quality against bytes sent", note, sent / scale, f"sent so far ({unit})"),
        _quality(run, "quality-time", "Quality against simulated time", note, ends_s, "simulated time (s)"),
    ]


def _quality(run: RunRecord, slug: str, title: str, note: str, x: object, x_label: str) -> Chart:
    factor = 100 if run.metric == "accuracy" else 1

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        x_values = np.asarray(x, dtype=float)
        edge = factor * np.array([item.edge_quality for item in run.rounds])
        cloud = factor * np.array([item.cloud_quality for item in run.rounds])
        base = factor * run.base_validation_quality
        if math.isfinite(base):
            axes.axhline(base, color=MUTED, lw=1.2, ls=(0, (2, 2)), label="before training")
        line(axes, x_values, cloud, color=CLOUD, ls="--", lw=1.5, marker="s", ms=3.2, label="cloud")
        line(axes, x_values, edge, color=EDGE, marker="o", label="edge", zorder=3)
        missed = np.array([item.missed for item in run.rounds])
        if missed.any():
            style: dict[str, Any] = {"ls": "", "marker": "X", "ms": 8.5, "mfc": INK, "mec": "white", "zorder": 4}
            axes.plot(x_values[missed], edge[missed], label="deadline missed", **style)
        axes.set_xlim(left=0)
        axes.set_xlabel(x_label)
        better = "higher" if run.higher_is_better else "lower"
        name = "accuracy (%" if run.metric == "accuracy" else "negative log-likelihood (nats"
        axes.set_ylabel(f"{name}, {better} is better)")
        drawing.legend(axes, columns=4)

    return draw(slug, title, note, _SIZE_IN, paint)


def link_charts(run: RunRecord) -> list[Chart]:
    """The link's rate against what the rounds needed, and its SNR where that was measured."""
    estimated = np.array([item.rate_bps for item in run.rounds])
    needed = np.array([8 * item.bytes_offered for item in run.rounds]) / run.deadline_s
    achieved = np.array(
        [8 * item.bytes_on_air / item.airtime_s if item.airtime_s > 0 else np.nan for item in run.rounds]
    )
    rates = np.concatenate([estimated, needed, achieved])
    scale, unit = unit_of(float(np.max(rates, initial=0, where=np.isfinite(rates))), "bit/s")
    rounds = [item.index for item in run.rounds]

    def paint_rate(axes: Axes) -> None:
        line(axes, rounds, estimated / scale, color=EDGE, marker="o", label="estimated before the round")
        line(axes, rounds, achieved / scale, color=EXTRA, ls=":", marker="s", ms=3.5, label="carried")
        line(axes, rounds, needed / scale, color=CLOUD, ls="--", marker="^", label="needed by the update")
        axes.set_ylabel(f"rate ({unit})")
        drawing.log_if_wide(axes, rates / scale)

    note = (
        "What the sender expected of the link, what the link carried while it was sending, and what the whole update"
        " needed to arrive before the deadline. An update that needs more than the link carries is cut off."
    )
    if not np.isfinite(estimated).any():
        note += " The link gave no estimate in any round."
    charts = [_over_rounds(run, "rate", "Rate: expected, carried, needed", note, paint_rate, columns=2)]
    snr_db = np.array([item.snr_db for item in run.rounds])
    if np.isfinite(snr_db).any():

        def paint_snr(axes: Axes) -> None:
            line(axes, rounds, snr_db, color=EDGE, marker="o", label="SNR")
            axes.set_ylabel("signal-to-noise ratio (dB)")

        known = np.isfinite(snr_db)
        note = f"Between {snr_db[known].min():.1f} and {snr_db[known].max():.1f} dB."
        if not known.all():
            note += f" Not measured in {count_text(int((~known).sum()), 'round')}."
        charts.append(_over_rounds(run, "snr", "Signal-to-noise ratio", note, paint_snr))
    return charts


def delivery_charts(run: RunRecord) -> list[Chart]:
    """Bytes offered, on air and delivered, and the airtime against the deadline."""
    offered = np.array([item.bytes_offered for item in run.rounds])
    scale, unit = unit_of(float(offered.max()), "B")

    def paint_bytes(axes: Axes) -> None:
        bars(axes, run.rounds, offered / scale, color=SHADES[5], ec=SHADES[3], label="offered, not sent")
        bars(axes, run.rounds, [i.bytes_on_air / scale for i in run.rounds], color=SHADES[3], label="sent, cut off")
        bars(axes, run.rounds, [i.bytes_delivered / scale for i in run.rounds], color=SHADES[0], label="delivered")
        axes.set_ylabel(f"update ({unit})")

    def paint_airtime(axes: Axes) -> None:
        bars(axes, run.rounds, [item.airtime_s for item in run.rounds], color=SHADES[2], label="airtime")
        axes.axhline(run.deadline_s, color=INK, lw=1.3, ls="--", label="deadline")
        axes.set_ylabel("airtime (s)")

    layers = sum(item.layers_delivered for item in run.rounds), sum(item.layers_offered for item in run.rounds)
    delivered = sum(item.bytes_delivered for item in run.rounds)
    missed = [item.index for item in run.rounds if item.missed]
    misses = f"Missed in {count_text(len(missed), 'round')}" + (f" ({_rounds_text(missed)})." if missed else ".")
    return [
        _over_rounds(
            run,
            "bytes",
            "Offered, sent and delivered",
            f"{layers[0]} of {layers[1]} layers arrived whole: {bytes_text(delivered)} of {bytes_text(offered.sum())}"
            " offered. What was sent of a layer that was cut off counts as sent.",
            paint_bytes,
        ),
        _over_rounds(
            run,
            "airtime",
            "Airtime and deadline misses",
            f"{misses} {seconds_text(run.airtime_s)} on air in all.",
            paint_airtime,
        ),
    ]


def allocation_charts(run: RunRecord) -> list[Chart]:
    """Components that the policy chose to send each round, by bits a number, and mean ranks."""
    counts = np.zeros((len(BITS), len(run.rounds)))  # (bits, rounds)
    for column, item in enumerate(run.rounds):
        for name, rank in item.ranks.items():
            if rank and item.bits.get(name) in BITS:
                counts[BITS.index(item.bits[name]), column] += rank

    def paint(axes: Axes) -> None:
        bottom = np.zeros(len(run.rounds))
        for row, bits in enumerate(BITS):
            if counts[row].any():
                bars(axes, run.rounds, counts[row], bottom, color=SHADES[-1 - row], label=f"{bits} bit")
                bottom += counts[row]
        axes.set_ylabel("components chosen (sum of ranks)")

    def paint_mean(axes: Axes) -> None:
        rounds, projections = [item.index for item in run.rounds], len(run.schema.projections)
        chosen = [sum(item.ranks.values()) / projections for item in run.rounds]
        active = [sum(item.edge_ranks.values()) / projections for item in run.rounds]
        line(axes, rounds, chosen, color=CLOUD, ls="--", lw=1.5, marker="s", ms=3.2, label="chosen")
        line(axes, rounds, active, color=EDGE, marker="o", label="active on the edge")
        axes.set_ylim(bottom=0)
        axes.set_ylabel("mean rank")

    note = "Sum of the chosen ranks over all projections, by the bits in which each of their numbers is sent."
    mean_note = "Mean over all projections: chosen for the round, and active on the edge after it."
    return [
        _over_rounds(run, "precision", "Components chosen, by precision", note, paint, columns=4),
        _over_rounds(run, "mean-rank", "Mean rank", mean_note, paint_mean),
    ]


def text_charts(run: RunRecord) -> list[Chart]:
    """Complexity of the text that each round trained on, its length, and the training loss."""
    rounds = [item.index for item in run.rounds]

    def paint_complexity(axes: Axes) -> None:
        entropy = [item.lexical_entropy for item in run.rounds]
        line(axes, rounds, entropy, color=EDGE, marker="o", label="lexical entropy")
        oov = [item.oov_rate for item in run.rounds]
        line(axes, rounds, oov, color=CLOUD, ls="--", marker="s", ms=3.5, label="out-of-vocabulary rate")
        axes.set_ylim(0, 1)
        axes.set_ylabel("share (0 to 1)")

    def paint_loss(axes: Axes) -> None:
        line(axes, rounds, [item.loss for item in run.rounds], color=EXTRA, marker="o", label="training loss")
        axes.set_ylabel("loss (nats)")

    words = np.array([item.mean_words for item in run.rounds])
    known = words[np.isfinite(words)]
    length = f"{known.min():.1f} to {known.max():.1f} words a text." if known.size else "Text length was not measured."
    return [
        _over_rounds(
            run,
            "text",
            "Text complexity",
            "How rich the words of the round's text are (entropy of its words, as a share of the largest possible)"
            f" and how many were not seen before. {length}",
            paint_complexity,
            columns=2,
        ),
        _over_rounds(run, "loss", "Training loss", "On the text of the round, while the cloud trained.", paint_loss),
    ]


def wall_charts(run: RunRecord) -> list[Chart]:
    """Real computing time by phase: in all, and over the rounds."""
    phases = sorted({phase for item in run.rounds for phase in item.wall})
    seconds = np.array([[item.wall.get(phase, 0.0) for item in run.rounds] for phase in phases])  # (phases, rounds)
    seconds = np.nan_to_num(seconds)
    if not phases or not seconds.any():
        return []
    order = np.argsort(-seconds.sum(axis=1), kind="stable")
    phases, seconds = [phases[row].removesuffix("_s").replace("_", " ") for row in order], seconds[order]
    totals = seconds.sum(axis=1)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.barh(range(len(phases)), totals, color=SHADES[2], height=0.62)
        for row, total in enumerate(totals):
            axes.annotate(
                seconds_text(total), (total, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9
            )
        axes.set_yticks(range(len(phases)), phases)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.18 * totals.max())
        axes.set_xlabel("computing time (s)")
        axes.grid(visible=False, axis="y")

    def paint_rounds(axes: Axes) -> None:
        if len(phases) > 1:
            bars(axes, run.rounds, seconds.sum(axis=0), color=SHADES[3], label="other phases")
        bars(axes, run.rounds, seconds[0], color=SHADES[0], label=phases[0])
        axes.set_ylabel("computing time (s)")

    height_in = min(1.2 + 0.32 * len(phases), 5.0)
    total_note = f"{seconds_text(totals.sum())} in all rounds."
    return [
        draw("wall", "Computing time by phase", total_note, (_SIZE_IN[0], max(height_in, 2.4)), paint),
        _over_rounds(
            run,
            "wall-rounds",
            "Computing time over the rounds",
            f"Mean {seconds_text(totals.sum() / len(run.rounds))} a round.",
            paint_rounds,
            mark_missed=False,
        ),
    ]


def reference_charts(run: RunRecord) -> list[Chart]:
    """This run beside resending a plain fp32 LoRA of rank 8: bytes so far, and airtime."""
    rounds = [item.index for item in run.rounds]
    ours = np.cumsum([item.bytes_on_air for item in run.rounds])
    theirs = np.cumsum([item.reference.bytes_on_air for item in run.rounds])
    scale, unit = unit_of(float(max(ours[-1], theirs[-1])), "B")

    def paint_bytes(axes: Axes) -> None:
        line(axes, rounds, theirs / scale, color=REFERENCE, ls="--", marker="s", ms=3.5, label="plain fp32 LoRA r8")
        line(axes, rounds, ours / scale, color=EDGE, marker="o", label="this run")
        axes.set_ylabel(f"sent so far ({unit})")
        drawing.log_if_wide(axes, [ours[-1], theirs[-1]])

    def paint_airtime(axes: Axes) -> None:
        plain = np.array([item.reference.airtime_s for item in run.rounds])
        late = np.array([not item.reference.delivered for item in run.rounds])
        axes.plot(rounds, plain, color=REFERENCE, lw=1.1, ls="--", label="plain fp32 LoRA r8")
        if late.any():
            style: dict[str, Any] = {"ls": "", "marker": "X", "ms": 7, "mfc": REFERENCE, "mec": "white"}
            axes.plot(np.array(rounds)[late], plain[late], label="its arrival too late", **style)
        line(axes, rounds, [item.airtime_s for item in run.rounds], color=EDGE, marker="o", label="this run")
        axes.axhline(run.deadline_s, color=INK, lw=1.2, ls=":", label="deadline")
        axes.set_ylim(bottom=0)
        axes.set_ylabel("airtime (s)")

    return [
        _over_rounds(
            run,
            "reference-bytes",
            "Bytes sent so far",
            f"{bytes_text(ours[-1])} in this run, {bytes_text(theirs[-1])} for the plain resend"
            " (cut off at each deadline).",
            paint_bytes,
            mark_missed=False,
        ),
        _over_rounds(
            run,
            "reference-airtime",
            "Airtime a round",
            f"{run.reference_arrivals} of {count_text(len(rounds), 'plain transmission')} would have arrived in time.",
            paint_airtime,
            columns=2,
            mark_missed=False,
        ),
    ]


def _over_rounds(
    run: RunRecord,
    slug: str,
    title: str,
    note: str,
    paint: Callable[[Axes], None],
    columns: int = 3,
    mark_missed: bool = True,
) -> Chart:
    def paint_figure(figure: Figure) -> None:
        axes = figure.subplots()
        paint(axes)
        by_round(axes, run.rounds, mark_missed)
        if axes.get_legend_handles_labels()[0]:
            drawing.legend(axes, columns)

    return draw(slug, title, note, _SIZE_IN, paint_figure)


def _rounds_text(numbers: list[int]) -> str:
    """``[3, 4, 5, 9]`` as ``3–5, 9``; only the first few spans are named."""
    spans = drawing.spans(numbers)
    text = ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in spans[:8])
    return text + (", …" if len(spans) > 8 else "")
