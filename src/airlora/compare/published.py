"""Published comparisons: the rows of a comparison's folder, small enough to stand beside the page that they make.

``FOLDER/NAME`` holds ``results.parquet`` (a row a round), ``finals.csv`` (a row an arm and seed) and
``comparison.json``: enough for every table and plot, without the recordings and the arms' own files; and
``pareto-JOB.svg``, quality against bytes. Comparisons of several sittings or machines become one: seeds, jobs or arms
that came later are added.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd

from airlora.compare.figures import pareto_charts
from airlora.compare.plan import OF_AN_ARM
from airlora.compare.replay import write_json
from airlora.compare.results import gather, read_findings, read_made, read_tables
from airlora.errors import OutputError

_KEY = ["job", "link", "arm", "seed"]
_OUT_OPTION = re.compile(r"(--out[ =])('[^']*'|\S+)")


def publish(out: Path, folder: Path) -> Path:
    """Add the finished arms of comparison ``out`` to ``folder/NAME``, NAME being that of ``out``; returns it.

    An arm that is there already is replaced. In the commands OUT stands for the path of ``out``.

    Raises:
        OutputError: ``out`` has no finished arm, or what is published there has another job, link, arm or learning
            rate of the same name.
        StoreError: a file is not what ``airlora compare`` writes.
    """
    gather(out)
    target = folder / out.resolve().name
    made = read_made(out)
    made["commands"] = [_OUT_OPTION.sub(r"\1OUT", command) for command in made["commands"]]
    made["command"] = made["commands"][-1]
    rounds, finals = read_tables(out)
    if target.exists():
        earlier = read_made(target)
        if name := _contradiction(earlier, made):
            raise OutputError(f"{target} has another {name}; remove that folder, or give this comparison another name")
        made = _together(earlier, made)
        old_rounds, old_finals = read_tables(target)
        rounds, finals = _replaced(old_rounds, rounds), _replaced(old_finals, finals)
    target.mkdir(parents=True, exist_ok=True)
    rounds, finals = (table.sort_values(_KEY, kind="stable") for table in (rounds, finals))
    rounds.to_parquet(target / "results.parquet", index=False, compression="zstd")
    finals.to_csv(target / "finals.csv", index=False)
    write_json(target / "comparison.json", made)
    return target


def draw_published(folder: Path) -> None:
    """Draw the figures of a published comparison, which stand beside its rows."""
    for chart in pareto_charts(read_findings(folder)):
        drawn = chart.svg.replace("<svg ", '<svg style="background: white" ', 1)  # a dark page would hide its ink
        (folder / f"{chart.slug}.svg").write_text(drawn, encoding="utf-8")


def _contradiction(earlier: dict[str, Any], made: dict[str, Any]) -> str | None:
    """What has one name in both and is not the same."""
    parts = [("jobs", _jobs(earlier), _jobs(made)), *((part, earlier[part], made[part]) for part in ("links", "arms"))]
    shared = earlier["jobs"].keys() & made["jobs"].keys()
    parts += [(f"rates of {job}", *(side["rates"].get(job, {}) for side in (earlier, made))) for job in sorted(shared)]
    for part, old, new in parts:
        for name in sorted(old.keys() & new.keys()):
            if old[name] != new[name]:
                return f"{name!r} among its {part}"
    return None


def _jobs(made: dict[str, Any]) -> dict[str, Any]:
    """Without what every arm has its own of."""
    return {
        name: {key: value for key, value in job.items() if key not in OF_AN_ARM} for name, job in made["jobs"].items()
    }


def _together(earlier: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    both = {**earlier, **made}
    both |= {part: {**earlier[part], **made[part]} for part in ("jobs", "links", "arms")}
    both["rates"] = dict(earlier["rates"])
    for job, rates in made["rates"].items():
        both["rates"][job] = {**both["rates"].get(job, {}), **rates}
    both |= {part: sorted({*earlier[part], *made[part]}) for part in ("seeds", "peers")}
    return both | {"commands": list(dict.fromkeys([*earlier["commands"], *made["commands"]]))}


def _replaced(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Rows of both; of an arm that both have, the new ones."""
    again = old.set_index(_KEY).index.isin(new.set_index(_KEY).index)
    return pd.concat([old[~again], new])
