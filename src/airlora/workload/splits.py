"""Taking validation and test out of train: of rows stratified and seeded, of running text contiguous."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from airlora.errors import DataError

HELD_OUT_ROWS_PERCENT = 10
HELD_OUT_TEXT_PERCENT = 5


def hold_out_rows(classes: Sequence[str], missing: Sequence[str], seed: int, name: str) -> dict[str, np.ndarray]:
    """Rows for train and for each missing split: 10 % of every class, rounded, and at least one row.

    Args:
        classes: (rows,) class of each row; all equal to split without stratification.
        missing: splits to take out, in this order.
        seed: of the draw.
        name: where the rows came from, for messages.

    Returns:
        split -> (rows of the split,) int64 row indices in rising order; every row is in exactly one split.

    Raises:
        DataError: a class has too few rows to be in train and in every missing split.
    """
    generator = np.random.default_rng(seed)
    labels = np.asarray(classes)
    parts: dict[str, list[np.ndarray]] = {split: [] for split in ("train", *missing)}
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        if len(rows) <= len(missing):
            raise DataError(
                f"{name}: class {str(label)!r} has {len(rows)} of the {len(missing) + 1} or more rows needed to be in "
                f"train and in {' and '.join(missing)}; add rows, merge classes, or give files for those splits"
            )
        held = max(1, round(len(rows) * HELD_OUT_ROWS_PERCENT / 100))
        for split in missing:
            parts[split].append(rows[:held])
            rows = rows[held:]
        parts["train"].append(rows)
    return {split: np.sort(np.concatenate(rows)) for split, rows in parts.items()}


def hold_out_text(text: str, missing: Sequence[str], name: str) -> dict[str, str]:
    """``text`` cut into train and the missing splits, 5 % of the characters each, in this order from its end.

    Raises:
        DataError: a part would be blank.
    """
    cuts = [len(text) * (100 - HELD_OUT_TEXT_PERCENT * left) // 100 for left in range(len(missing), 0, -1)]
    bounds = zip([0, *cuts], [*cuts, len(text)], strict=True)
    parts = {split: text[start:end] for split, (start, end) in zip(("train", *missing), bounds, strict=True)}
    for split, part in parts.items():
        if not part.strip():
            raise DataError(
                f"{name}: {len(text)} characters leave the {split} split blank; give more text, or a folder with "
                f"{', '.join(f'{split}.txt' for split in parts)}"
            )
    return parts
