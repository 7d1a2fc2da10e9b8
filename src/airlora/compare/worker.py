"""Running a comparison: one process a unit, nothing computed twice, and a failing arm harms no other."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

from airlora.compare.plan import Arm, Unit
from airlora.compare.replay import Bench, write_json
from airlora.errors import AirLoraError, OutputError, StoreError

_POLL_S = 2.0
_FEWEST_ARMS = 6
"""Arms for which it is worth starting one more process on a training that is recorded already."""


def run_comparison(
    units: Sequence[Unit],
    out: Path,
    parallel: int,
    provenance: dict[str, Any],
    on_progress: Callable[[int, int], None],
) -> None:
    """Run every arm that has no summary yet; an arm that fails leaves ``error.json`` in its folder.

    Args:
        units: the arms.
        out: folder; what is there already is kept and not computed again.
        parallel: processes, one unit each.
        provenance: commit and versions, noted in every summary.
        on_progress: told (arms done, arms in all) now and then.

    Raises:
        OutputError: the folder holds an arm of the same name that was configured otherwise.
        StoreError: a process was killed.
    """
    arms = [arm for unit in units for arm in unit.arms]
    check_finished(arms, out)

    def report() -> None:
        on_progress(sum(is_done(arm, out) for arm in arms), len(arms))

    report()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(parallel, mp_context=context, initializer=_end_with_parent) as pool:
        # The first of many arms records the training that they share; the others follow, side by side.
        pending = {}

        def submit(unit: Unit, first: int) -> None:
            part, rest = replace(unit, arms=unit.arms[:first]), replace(unit, arms=unit.arms[first:])
            pending[pool.submit(run_unit, part, out, provenance)] = rest

        for unit in units:
            if left := tuple(waiting_arms(unit, out)):
                submit(replace(unit, arms=left), 1 if parallel > 1 and len(left) > 2 * _FEWEST_ARMS else len(left))
        while pending:
            finished, _ = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            for future in finished:
                rest = pending.pop(future)
                try:
                    future.result()
                except BrokenProcessPool as error:
                    raise StoreError(
                        "a process of the comparison was killed (out of memory?); finished arms are kept: continue with"
                        " --resume, with a smaller --parallel"
                    ) from error
                for part in _parts(rest, parallel):
                    submit(part, len(part.arms))
            report()


def _parts(unit: Unit, parallel: int) -> Iterator[Unit]:
    """The arms of a unit in parts that run side by side."""
    size = max(_FEWEST_ARMS, -(-len(unit.arms) // parallel))
    for at in range(0, len(unit.arms), size):
        yield replace(unit, arms=unit.arms[at : at + size])


def is_done(arm: Arm, out: Path) -> bool:
    """Whether an arm has finished."""
    return (out / arm.folder / "summary.json").exists()


def waiting_arms(unit: Unit, out: Path) -> list[Arm]:
    """Arms of a unit that have not finished."""
    return [arm for arm in unit.arms if not is_done(arm, out)]


def check_finished(arms: Sequence[Arm], out: Path) -> None:
    """Refuse to mix arms: a finished one must have been run as it is asked for now.

    Raises:
        OutputError: one was not.
    """
    for arm in arms:
        path = out / arm.folder / "config.toml"
        if is_done(arm, out) and path.read_text(encoding="utf-8") != arm.config.to_toml():
            raise OutputError(
                f"{path.parent} was run with another configuration of {arm.job!r}, {arm.link!r} or {arm.name!r};"
                " give it another name, or another --out"
            )


def run_unit(unit: Unit, out: Path, provenance: dict[str, Any]) -> None:
    """Run the arms of a unit that have not finished, whatever becomes of each."""
    waiting = waiting_arms(unit, out)
    if not waiting:
        return
    bench = Bench(unit, out, provenance)
    for arm in waiting:
        try:
            bench.run_arm(arm)
        except Exception as error:  # an arm that fails is a result; the others go on
            message = " ".join(str(error).split())
            if not isinstance(error, AirLoraError):
                message = f"{type(error).__name__}: {message}"
            data = {"job": arm.job, "link": arm.link, "arm": arm.name, "seed": arm.config.seed, "error": message}
            write_json(out / arm.folder / "error.json", {**data, "traceback": traceback.format_exc()})


def read_errors(units: Sequence[Unit], out: Path) -> list[dict[str, Any]]:
    """What became of the arms that failed: job, link, arm, seed, error, traceback."""
    paths = [out / arm.folder / "error.json" for unit in units for arm in waiting_arms(unit, out)]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def _end_with_parent() -> None:
    """End this process when the one that started it is killed, so that nobody writes beside a resumed comparison."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
