"""Ready comparisons, each made to fit six hours on two cores.

Real data, models and traces are never part of the package: ``--data-root`` names a folder that
``benchmarks/prepare.py`` lays out, with ``data/NAME``, ``models/NAME`` and ``traces/links_1s.csv.gz``.

**Budget** is what a link carries before the deadline over the bytes of a plain fp32 LoRA of rank 8 (head included). A
job's deadline is in proportion to those bytes, so that a link means one budget for every job: a link of ``BUDGET_BPS``
has budget 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airlora.compare.peers import FILE_KINDS, PREFIX, make_peer
from airlora.compare.plan import Comparison, Rates
from airlora.config import RunConfig
from airlora.errors import InputError

BUDGET_BPS = 1.48e6
"""Rate in bit/s at which a plain fp32 LoRA of rank 8 just arrives: 185 kB, that of stories260K, in 1 s."""

RULES = (
    "fit",
    "fit:airtime_weight=0.1",
    "flood",
    "greedy",
    "random",
    "fixed",
    "adalora:rank=8",
    "uniform:rank=8,bits=16",
)
"""The rules that the suites over AWGN links compare."""

RULES_ON_TRACES = (
    "fit",
    "fit:airtime_weight=0.1",
    "flood",
    "fixed",
    "adalora:rank=8",
    "uniform:rank=8,bits=16",
)
"""The rules that the suite over recorded links compares."""

LEARNED = ("airllm:airtime_weight=0", "airllm")
"""The policy of the package at the two prices of airtime that ``fit`` is compared at: 0, and 0.1, its own."""

ALONE = ("fit:alone=auto", RunConfig().policy)
"""What a run takes by itself, and the rule so: a language job's one rank alone where the link carries much."""

RESENT = (
    "lora:rank=8,file=fp32",
    "lora:rank=8",
    "lora:rank=8,file=fp16+zstd",
    "lora:rank=1",
    "adalora:rank=4",
    "dora:rank=8",
    "eva:rank=8",
    "vera:rank=64",
)
"""What is resent whole in the suites over links, fp16 where nothing else is said."""

_NARROW_DB = (-5, 0, 5, 10, 15)
_WIDE_DB = (0, 5, 15)
_TRACE_BUDGETS = (0.01, 0.1, 1.0)


@dataclass(frozen=True)
class Suite:
    """A ready comparison.

    Attributes:
        name: on the command line.
        about: what it asks.
        reductions: what was made smaller than the original work so that it fits the time.
        budgets: budgets that its links cover, as text.
        estimate: its time, as text, for the list (a run measures its own before it starts).
        seeds: how many by default.
        needs_data: whether it needs ``--data-root``.
        build: (data root, seeds, rates) -> the grid.
    """

    name: str
    about: str
    reductions: str
    budgets: str
    estimate: str
    seeds: int
    needs_data: bool
    build: Callable[[Path, tuple[int, ...], Rates], Comparison]

    def comparison(self, data_root: Path | None, seeds: int | None, rates: Rates, first_seed: int = 0) -> Comparison:
        """The grid, with so many seeds (None: as many as the suite has) from ``first_seed`` on.

        Raises:
            InputError: the data root is needed and not given, or lacks something.
        """
        if self.needs_data and data_root is None:
            raise InputError(
                f"suite {self.name!r} needs real data; give --data-root, a folder made by benchmarks/prepare.py"
            )
        return self.build(data_root or Path(), tuple(range(first_seed, first_seed + (seeds or self.seeds))), rates)


def job(root: Path, name: str, **changes: Any) -> RunConfig:
    """The configuration of a real job, its deadline in proportion to its plain adapter.

    Raises:
        InputError: its data or its model is not under ``root``.
    """
    if name not in _JOBS:
        raise InputError(f"unknown job {name!r}; there are: {', '.join(_JOBS)}")
    values = {**_JOBS[name], **changes}
    for key, folder in (("data", "data"), ("model", "models")):
        path = root / folder / values[key]
        if not path.exists():
            raise InputError(f"job {name!r} needs {path}; lay it out with benchmarks/prepare.py")
        values[key] = str(path)
    return RunConfig(deadline_s=_deadline_s(values.pop("plain_bytes")), **values)


def _deadline_s(plain_bytes: int) -> float:
    return float(f"{plain_bytes * 8 / BUDGET_BPS:.4g}")


_MINILM = {
    "model": "minilm",
    "dtype": "float32",
    "max_length": 64,
    "batch_size": 16,
    "rounds": 10,
    "round_period_s": 60.0,
    "guard_limit": 50,
}
_MINILM_PLAIN = 331_776  # numbers of rank 8 on the six projections of all six layers, without the head

_JOBS: dict[str, dict[str, Any]] = {
    "shakespeare": {
        "model": "stories260K",
        "dtype": "float32",
        "data": "tinyshakespeare.txt",
        "batch_size": 8,
        "rounds": 20,
        "steps_per_round": 20,
        "round_period_s": 30.0,
        "max_rank": 32,
        "validation_limit": 64,
        "guard_limit": 16,
        "plain_bytes": 184_960,
    },
    "sst2": {
        **_MINILM,
        "data": "sst2",
        "steps_per_round": 12,
        "validation_limit": 200,
        "plain_bytes": 4 * (_MINILM_PLAIN + 2 * 385),
    },
    "cola": {
        **_MINILM,
        "data": "cola",
        "steps_per_round": 12,
        "validation_limit": 200,
        "plain_bytes": 4 * (_MINILM_PLAIN + 2 * 385),
    },
    "trec": {
        **_MINILM,
        "data": "trec",
        "steps_per_round": 12,
        "validation_limit": 200,
        "plain_bytes": 4 * (_MINILM_PLAIN + 6 * 385),
    },
    "clinc10": {
        **_MINILM,
        "data": "clinc10",
        "steps_per_round": 10,
        "validation_limit": 200,
        "plain_bytes": 4 * (_MINILM_PLAIN + 10 * 385),
    },
    "clinc150": {
        **_MINILM,
        "data": "clinc150",
        "batch_size": 32,
        "steps_per_round": 15,
        "validation_limit": 200,
        "plain_bytes": 4 * (_MINILM_PLAIN + 150 * 385),
    },
}
"""Real jobs by name; ``plain_bytes``: of a plain fp32 LoRA of rank 8 and the head."""

JOBS = tuple(_JOBS)
"""Names of the real jobs."""


def _awgn(snr_db: float, bandwidth_hz: float) -> str:
    return f"awgn:snr_db={snr_db:g},bandwidth_hz={bandwidth_hz:g}"


def _paper(root: Path, seeds: tuple[int, ...], rates: Rates) -> Comparison:
    # log2(1 + SNR) is 0.396 at −5 dB and 5.028 at 15 dB: the narrow band has budget 0.01 at the lower end, the wide one
    # budget 1 at the upper end; at 0 dB, 0.2, a saved LoRA of rank 1 in fp16 arrives and one of rank 8 does not.
    links = {f"narrow_{snr}dB": _awgn(snr, 0.01 * BUDGET_BPS / 0.3964) for snr in _NARROW_DB}
    links |= {f"wide_{snr}dB": _awgn(snr, BUDGET_BPS / 5.0278) for snr in _WIDE_DB}
    jobs = {"sst2": job(root, "sst2", rounds=4, steps_per_round=30), "clinc150": job(root, "clinc150")}
    return Comparison(jobs, links, _policies(*RULES, *LEARNED), seeds, _peers(*RESENT), rates)


def _rules(root: Path, seeds: tuple[int, ...], rates: Rates) -> Comparison:
    shape = {"rounds": 5, "validation_limit": 64, "guard_limit": 16, "test_limit": 1000}
    steps = {"clinc10": 20, "sst2": 24, "clinc150": 30}
    jobs = {name: job(root, name, **shape, steps_per_round=count) for name, count in steps.items()}
    bandwidth_hz = BUDGET_BPS / 3.4594  # log2(1 + SNR) at 10 dB: budget 1
    links = {
        f"{snr}dB_{share:g}": f"awgn:snr_db={snr},bandwidth_hz={bandwidth_hz:.6g},share={share:g}"
        for snr in (10, 0)
        for share in (1.0, 0.05)
    }
    return Comparison(jobs, links, _policies(*RULES), seeds, {}, rates)


_TRACES = (  # name, source, trace, offset in s, median rate in bit/s over the 600 s from there
    ("held_5g", "raca5g", "driving/B_2020.02.13_15.02.01", 100, 25.5e6),
    ("held_umts", "mahimahi", "TMobile-UMTS-driving.down", 100, 1.656e6),
    ("held_lte", "mahimahi", "ATT-LTE-driving.down", 100, 5.778e6),
    ("held_satellite", "satcell", "mob_all_area1/015", 100, 207e6),
)


def _links(root: Path, seeds: tuple[int, ...], rates: Rates) -> Comparison:
    file = root / "traces" / "links_1s.csv.gz"
    if not file.exists():
        raise InputError(f"suite 'links' needs {file}; lay it out with benchmarks/prepare.py")
    links = {
        f"{name}_{budget:g}": f"trace:{file},source={source},trace={trace},offset_s={offset},"
        f"share={min(1.0, budget * BUDGET_BPS / median_bps):.4g}"
        for name, source, trace, offset, median_bps in _TRACES
        for budget in _TRACE_BUDGETS
    }
    trec = job(root, "trec", rounds=5, steps_per_round=24, round_period_s=120.0)
    jobs = {"shakespeare": job(root, "shakespeare"), "trec": trec}
    return Comparison(jobs, links, _policies(*RULES_ON_TRACES, *LEARNED, *ALONE), seeds, _peers(*RESENT), rates)


def _bytes(root: Path, seeds: tuple[int, ...], rates: Rates) -> Comparison:
    once = {"rounds": 1, "max_rank": 64}
    jobs = {
        "shakespeare": job(root, "shakespeare", **once, steps_per_round=400, validation_limit=256, guard_limit=64),
        "clinc150": job(
            root, "clinc150", **once, batch_size=32, steps_per_round=120, validation_limit=500, guard_limit=125
        ),
        "sst2": job(root, "sst2", **once, batch_size=16, steps_per_round=120, validation_limit=500, guard_limit=125),
    }
    ranks = (1, 2, 4, 8, 16, 32, 64)
    grid = [f"fixed:rank={rank},bits={bits}" for rank in ranks for bits in (2, 3, 4)]
    grid += [f"fixed:rank={rank},bits=2,rounding=0.3" for rank in ranks]
    grid += [f"fixed:rank={rank},bits=3,rounding=0.3" for rank in ranks if rank <= 8]
    grid += [f"uniform:rank={rank},bits={bits}" for rank in ranks for bits in (3, 4)]
    methods = [f"lora:rank={rank}" for rank in ranks]
    methods += ["adalora:rank=8", "dora:rank=8", "eva:rank=8", "vera:rank=64", "c3a:divide=1", "lokr:rank=4", "ia3"]
    peers = [f"{method}{',' if ':' in method else ':'}file={kind}" for method in methods for kind in FILE_KINDS]
    return Comparison(jobs, {"open": _awgn(60, 1e9)}, _policies(*grid), seeds, _peers(*peers), rates)


def _quick(root: Path, seeds: tuple[int, ...], rates: Rates) -> Comparison:
    config = RunConfig(
        data="builtin:vehicle-commands,train=1500,validation=200,test=400",
        rounds=6,
        steps_per_round=16,
        batch_size=16,
        validation_limit=200,
        guard_limit=50,
        max_rank=8,
        passes=2,
    )
    links = {f"awgn_{budget:g}": _awgn(10, budget * QUICK_BUDGET_HZ) for budget in (0.01, 0.1, 1.0)}
    peers = _peers("lora:rank=8", "lora:rank=1")
    return Comparison({"commands": config}, links, _policies("fit", "uniform:rank=8,bits=16"), seeds, peers, rates)


QUICK_BUDGET_HZ = 646_500
"""Bandwidth at 10 dB that carries a plain fp32 LoRA of rank 8 of the built-in job, 279,552 bytes, in 1 s."""


def _policies(*specs: str) -> dict[str, str]:
    return {spec: spec for spec in specs}


def _peers(*specs: str) -> dict[str, Any]:
    return {PREFIX + spec: make_peer(spec) for spec in specs}


SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite(
            name="paper",
            about="SST-2, the paper's job, and the harder CLINC150 with MiniLM over AWGN links of −5 … 15 dB",
            reductions="MiniLM (22.7 M parameters) for OPT-1.3B, 120 steps of 16 texts in four rounds and 150 of 32 in"
            " ten, 200 validation rows a round; the wide band at 0, 5 and 15 dB; AdaLoRA keeps a mean rank of 8 on"
            " every link",
            budgets="0.01, 0.025, 0.05, 0.09, 0.13 (narrow), 0.2, 0.41 and 1 (wide)",
            estimate="about 5.7 h",
            seeds=3,
            needs_data=True,
            build=_paper,
        ),
        Suite(
            name="rules",
            about="every rule on MiniLM: ten intents and all 150 of CLINC150, and SST-2, at 10 and 0 dB",
            reductions="100, 120 and 150 steps in five rounds, 64 validation rows a round, 1,000 test rows;"
            " AdaLoRA keeps a mean rank of 8 on every link",
            budgets="0.014, 0.05, 0.29 and 1",
            estimate="about 1 h",
            seeds=3,
            needs_data=True,
            build=_rules,
        ),
        Suite(
            name="links",
            about="tinyshakespeare with stories260K and TREC with MiniLM over recorded links, all held out from"
            " training a policy: 5G (source raca5g), UMTS and LTE (mahimahi), satellite (satcell)",
            reductions="four recordings of ten minutes each, 64 validation windows or 200 rows a round; TREC's 120"
            " steps in five rounds, tinyshakespeare's 400 in twenty; AdaLoRA keeps a mean rank of 8 on every link",
            budgets="0.01, 0.1 and 1 on each recording (0.89 for 1 on UMTS)",
            estimate="about 4.6 h",
            seeds=3,
            needs_data=True,
            build=_links,
        ),
        Suite(
            name="bytes",
            about="quality against bytes: one round of all steps over an open link, our ranks × bits (each rank trained"
            " alone, and nested) against what PEFT saves, in fp32, fp16 and fp16+zstd",
            reductions="120 steps of 32 texts (CLINC150) and of 16 (SST-2) with MiniLM, 400 of 8 × 128 tokens with"
            " stories260K; methods other than LoRA at one shape each",
            budgets="unlimited",
            estimate="about 5.5 h",
            seeds=3,
            needs_data=True,
            build=_bytes,
        ),
        Suite(
            name="quick",
            about="the built-in job over three links, two rules and two peers: does everything work?",
            reductions="96 steps of 16 texts on a model of a million parameters; no claim rests on it",
            budgets="0.01, 0.1 and 1",
            estimate="3 min",
            seeds=3,
            needs_data=False,
            build=_quick,
        ),
    )
}
"""Ready comparisons by name."""
