"""What the encoder's drafts are judged by."""

from contextlib import contextmanager

import numpy as np
import pytest

from airlora.codec import encode
from airlora.play import Quality
from airlora.workload.base import Validation
from codec_samples import blank_edge, deliver, random_factors, small_schema, uniform

SCHEMA = small_schema()
BEFORE = blank_edge(SCHEMA)
AFTER = deliver(BEFORE, encode(random_factors(SCHEMA), BEFORE, uniform(SCHEMA, 2, 4, 4), 0))
NAN = float("nan")


class _Job:
    """One whose model in the states before and after an update is given, as (objective, quality) on some rows."""

    def __init__(self, before: dict[int, tuple[float, float]], after: dict[int, tuple[float, float]], metric: str):
        self.adapter = self.workload = self
        self.initial_edge = BEFORE
        self.higher_is_better = metric == "accuracy"
        self.measured: list[int] = []
        self._states = before, after

    @contextmanager
    def serving(self, factors):
        self._now = self._states[bool(any(u.any() for u in factors.u))]
        yield

    def validate(self, rows: int, apart: int = 0) -> Validation:
        self.measured.append(rows + apart)
        rows += apart
        objective, quality = self._now[rows]
        return Validation(objective, quality, quality)


@pytest.mark.parametrize(
    ("few", "many", "is_worse"),
    [
        ((0.50, 0.80), None, False),
        ((0.505, 0.795), None, False),
        ((0.50, 0.78), (0.50, 0.795), False),  # one row of 50, one of 200
        ((0.50, 0.78), (0.50, 0.78), True),
        ((0.52, 0.80), (0.505, 0.80), False),
        ((0.52, 0.80), (0.52, 0.90), True),
        ((0.50, 0.78), (0.52, 0.80), True),
        ((NAN, 0.80), (NAN, 0.80), True),
        ((0.40, NAN), (0.40, NAN), True),
    ],
)
def test_worse_is_what_is_worse_on_few_rows_and_on_all(few, many, is_worse) -> None:
    job = _Job({50: (0.5, 0.8), 200: (0.5, 0.8)}, {50: few, 200: many}, "accuracy")
    assert Quality(job, 200, guard_limit=50).is_worse(AFTER, BEFORE) == is_worse
    assert job.measured == ([50, 50, 200, 200] if many else [50, 50])  # all rows only where few do worse


@pytest.mark.parametrize("guard_limit", [None, 200, 500])
def test_without_a_smaller_guard_nothing_is_measured_twice(guard_limit: int | None) -> None:
    job = _Job({200: (0.5, 0.8)}, {200: (0.5, 0.7)}, "accuracy")
    quality = Quality(job, 200, guard_limit=guard_limit)
    assert quality.is_worse(AFTER, BEFORE)
    assert quality.of_edge(AFTER) == 0.7
    assert (quality.loss(AFTER), quality.rough_worth(AFTER)) == (0.5, pytest.approx(-0.1))
    assert job.measured == [200, 200]


def test_where_lower_is_better_signs_turn_and_what_was_broken_can_only_get_better() -> None:
    job = _Job({64: (3.0, 3.0)}, {64: (2.9, 2.9)}, "nll")
    quality = Quality(job, 64)
    assert not quality.is_worse(AFTER, BEFORE)
    assert quality.is_worse(BEFORE, AFTER)
    assert quality.rough_worth(AFTER) == pytest.approx(0.1)
    broken = Quality(_Job({64: (NAN, NAN)}, {64: (3.0, 3.0)}, "nll"), 64)
    assert not broken.is_worse(AFTER, BEFORE)
    assert broken.is_worse(BEFORE, AFTER)
    assert (broken.loss(BEFORE), broken.rough_worth(AFTER)) == (np.inf, -np.inf)


def test_bytes_are_priced_on_as_many_rows_as_rounds_are_measured_on_and_on_others() -> None:
    job = _Job({50: (0.5, 0.8), 400: (0.5, 0.6)}, {50: (0.5, 0.7), 400: (0.5, 0.9)}, "accuracy")
    quality = Quality(job, 200, guard_limit=50)
    assert quality.rough_worth(AFTER) == pytest.approx(-0.1)
    assert quality.worth(AFTER) == pytest.approx(0.3)
    assert job.measured == [50, 50, 400, 400]  # 400: 200 rows apart from 200
