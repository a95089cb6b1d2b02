"""Format an evaluation for the screen, as plain lines with whole class names. Torch-free."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune.errors import BadImageError, printable
from finetune.evaluation.columns import align_columns
from finetune.evaluation.matrix import format_confusion
from finetune.evaluation.metrics import METRICS, Metrics

if TYPE_CHECKING:
    from finetune.evaluation.evaluate import Evaluation

SKIPPED_SHOWN = 20


def summary(evaluation: "Evaluation", width: int | None = None) -> str:
    """Format all numbers of an evaluation; ``width`` limits the confusion matrix, in terminal cells."""
    metrics = evaluation.metrics
    blocks = [
        _headline(evaluation),
        _per_class(metrics),
        format_confusion(metrics.confusion, metrics.classes, width),
    ]
    if evaluation.collected.bad:
        blocks.append(_skipped(evaluation.collected.bad))
    return "\n\n".join(blocks)


def accuracy(metrics: Metrics) -> str:
    """Format top-1 with its interval: ``93.75 % [91.0 to 95.7] (n = 400)``."""
    low, high = 100 * metrics.top1_low, 100 * metrics.top1_high
    return f"{100 * metrics.top1:.2f} % [{low:.1f} to {high:.1f}] (n = {metrics.n:,})"


def _headline(evaluation: "Evaluation") -> str:
    metrics = evaluation.metrics
    measured = {METRICS[name].label: METRICS[name].in_words(value) for name, value in metrics.values.items()}
    measured[METRICS["top1"].label] = accuracy(metrics)
    lines = {"split": evaluation.split, **measured, "computed in": evaluation.precision}
    width = max(len(metric.label) for metric in METRICS.values())
    return "\n".join(f"{label:{width}}  {text}" for label, text in lines.items())


def _per_class(metrics: Metrics) -> str:
    rows = [["class", "precision", "recall", "F1", "images"]]
    for entry in metrics.per_class:
        rates = [f"{100 * rate:.1f} %" for rate in (entry.precision, entry.recall, entry.f1)]
        # Rates of a class without images mean nothing.
        rows.append([printable(entry.name), *(rates if entry.support else ["-"] * 3), f"{entry.support:,}"])
    return align_columns(rows, text=1)


def _skipped(bad: Sequence[BadImageError]) -> str:
    lines = [f"{len(bad):,} images could not be read and are in none of the numbers:"]
    lines += [f"  {printable(str(error))}" for error in bad[:SKIPPED_SHOWN]]
    if len(bad) > SKIPPED_SHOWN:
        lines.append(f"  and {len(bad) - SKIPPED_SHOWN:,} more, which --json names")
    return "\n".join(lines)
