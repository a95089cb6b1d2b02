"""Metrics as tables of a page: classes, confusions."""

from typing import Any

from finetune.evaluation.metrics import Metrics
from finetune.evaluation.resampling import wilson

# Shades of the matrix's cells.
SHADES = 9


def class_row(metrics: Metrics, place: int) -> dict[str, Any]:
    """A row of the table of classes."""
    entry, found = metrics.per_class[place], int(metrics.confusion[place, place])
    answers = int(metrics.confusion[:, place].sum())
    interval = wilson(found, entry.support) if entry.support else None
    return {"place": place, "entry": entry, "found": found, "answers": answers, "interval": interval}


def class_rows(metrics: Metrics) -> list[dict[str, Any]]:
    """The table of classes."""
    return [class_row(metrics, place) for place in range(len(metrics.classes))]


def matrix(metrics: Metrics) -> list[list[tuple[int, int]]]:
    """Rows of (count, shade): shades are 0 to ``SHADES``, by the share of the row."""
    sums = metrics.confusion.sum(axis=1)
    return [
        [(int(count), -(-int(count) * SHADES // max(1, int(total)))) for count in row]
        for row, total in zip(metrics.confusion, sums, strict=True)
    ]
