"""An evaluation as text for the screen: plain lines, whole class names whether piped or not. Torch-free."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune.errors import BadImageError, printable
from finetune.evaluation.columns import in_columns
from finetune.evaluation.matrix import confusion
from finetune.evaluation.metrics import Metrics

if TYPE_CHECKING:
    from finetune.evaluation.evaluate import Evaluation

SKIPPED_SHOWN = 20


def summary(evaluation: "Evaluation", width: int | None = None) -> str:
    """All numbers of an evaluation; the confusion matrix in ``width`` cells, where that is given."""
    metrics = evaluation.metrics
    blocks = [
        _headline(evaluation),
        _per_class(metrics),
        confusion(metrics.confusion, metrics.classes, width),
    ]
    if evaluation.collected.bad:
        blocks.append(_skipped(evaluation.collected.bad))
    return "\n\n".join(blocks)


def accuracy(metrics: Metrics) -> str:
    """Top-1 with its interval: ``93.75 % [91.0 to 95.7] (n = 400)``."""
    low, high = 100 * metrics.top1_low, 100 * metrics.top1_high
    return f"{100 * metrics.top1:.2f} % [{low:.1f} to {high:.1f}] (n = {metrics.n:,})"


def _headline(evaluation: "Evaluation") -> str:
    metrics = evaluation.metrics
    lines = [f"split              {evaluation.split}", f"top-1              {accuracy(metrics)}"]
    if metrics.top5 is not None:
        lines.append(f"top-5              {100 * metrics.top5:.2f} %")
    return "\n".join(
        [
            *lines,
            f"balanced accuracy  {100 * metrics.balanced_accuracy:.2f} %",
            f"macro F1           {100 * metrics.macro_f1:.2f} %",
            f"loss               {metrics.loss:.4f}",
            f"calibration error  {metrics.ece:.4f}  (expected, 15 bins)",
            f"computed in        {evaluation.precision}",
        ]
    )


def _per_class(metrics: Metrics) -> str:
    rows = [["class", "precision", "recall", "F1", "images"]]
    for entry in metrics.per_class:
        rates = [f"{100 * rate:.1f} %" for rate in (entry.precision, entry.recall, entry.f1)]
        # Without an image of the class there is nothing to be right about.
        rows.append([printable(entry.name), *(rates if entry.support else ["-"] * 3), f"{entry.support:,}"])
    return in_columns(rows, text=1)


def _skipped(bad: Sequence[BadImageError]) -> str:
    lines = [f"{len(bad):,} images could not be read and are in none of the numbers:"]
    lines += [f"  {printable(str(error))}" for error in bad[:SKIPPED_SHOWN]]
    if len(bad) > SKIPPED_SHOWN:
        lines.append(f"  and {len(bad) - SKIPPED_SHOWN:,} more, which --json names")
    return "\n".join(lines)
