"""Metrics as tables of a page: classes, confusions."""

from typing import Any

from finetune.evaluation.evaluate import Evaluation
from finetune.evaluation.metrics import METRICS, Metrics
from finetune.evaluation.text import too_few_groups

# Shades of the matrix's cells.
SHADES = 9


def class_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The table of classes; ``interval`` is that of the recall."""
    metrics = evaluation.metrics
    return [
        {
            "place": place,
            "entry": entry,
            "found": int(metrics.confusion[place, place]),
            "answers": int(metrics.confusion[:, place].sum()),
            "interval": evaluation.intervals.recall[place],
        }
        for place, entry in enumerate(metrics.per_class)
    ]


def numbers(evaluation: Evaluation) -> list[tuple[str, str, str, float]]:
    """The metrics: key, label, value with its interval in words, value."""
    metrics = evaluation.metrics
    ends = {**evaluation.intervals.metrics, "top1": (metrics.top1_low, metrics.top1_high)}
    return [
        (key, METRICS[key].label, METRICS[key].in_words(value, ends.get(key)), value)
        for key, value in metrics.values.items()
    ]


def about_groups(metrics: Metrics) -> str:
    """A sentence on what intervals count; empty if images have no groups."""
    if metrics.groups is None or metrics.images_interval is None:
        return ""
    low, high = metrics.images_interval
    few = f" But {too_few}." if (too_few := too_few_groups(metrics)) else ""
    return (
        f"Images of a group (data.group_by) are alike, so all intervals count the {metrics.groups:,} groups. "
        f"Counted by images, this one would be {100 * low:.1f} to {100 * high:.1f} %.{few}"
    )


def matrix(metrics: Metrics) -> list[list[tuple[int, int]]]:
    """Rows of (count, shade): shades are 0 to ``SHADES``, by the share of the row."""
    sums = metrics.confusion.sum(axis=1)
    return [
        [(int(count), -(-int(count) * SHADES // max(1, int(total)))) for count in row]
        for row, total in zip(metrics.confusion, sums, strict=True)
    ]
