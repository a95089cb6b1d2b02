"""Format an evaluation for the screen, as plain lines with whole class names. Torch-free."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune.errors import BadImageError, printable
from finetune.evaluation.calibration_check import CalibrationCheck
from finetune.evaluation.columns import align_columns
from finetune.evaluation.matrix import format_confusion
from finetune.evaluation.metrics import CALIBRATION_BINS, METRICS, Metrics
from finetune.evaluation.resampling import FEWEST_GROUPS, FEWEST_TO_DIFFER

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
    """Format top-1 with its interval: ``93.75 % [84.5 to 97.6] (n = 400 in 31 groups)``."""
    return (
        f"{METRICS['top1'].in_words(metrics.top1, (metrics.top1_low, metrics.top1_high))} ({metrics.counted})"
    )


def about_groups(metrics: Metrics) -> list[str]:
    """Say what groups do to the interval of top-1; nothing if images have no groups."""
    if metrics.groups is None or metrics.images_interval is None:
        return []
    low, high = metrics.images_interval
    found = [f"counted by images, it would be [{100 * low:.1f} to {100 * high:.1f}]"]
    return [*found, too_few] if (too_few := too_few_groups(metrics)) else found


def too_few_groups(metrics: Metrics) -> str:
    """Say that there are too few groups for an interval that can be trusted; empty if there are enough."""
    if metrics.groups is None or metrics.groups >= FEWEST_GROUPS:
        return ""
    number = "1 group is" if metrics.groups == 1 else f"{metrics.groups} groups are"
    return f"{number} too few for an interval that can be trusted: it takes at least {FEWEST_GROUPS}"


def by_groups(groups: int | None) -> str:
    """Say what a comparison counts; empty if images have no groups."""
    if groups is None:
        return ""
    few = (
        "" if groups >= FEWEST_TO_DIFFER else f". They are too few: it takes {FEWEST_TO_DIFFER} for p < 0.05"
    )
    return f"intervals and p are by the {groups:,} groups of data.group_by, not by images{few}"


def _headline(evaluation: "Evaluation") -> str:
    metrics = evaluation.metrics
    ends = evaluation.intervals.metrics
    lines = [("split", evaluation.split)]
    for name, value in metrics.values.items():
        if name == "top1":
            lines.append((METRICS[name].label, accuracy(metrics)))
            lines += [("", text) for text in about_groups(metrics)]
        elif name == "ece":
            lines += _calibration(evaluation.calibration)
        else:
            lines.append((METRICS[name].label, METRICS[name].in_words(value, ends.get(name))))
    lines.append(("computed in", evaluation.precision))
    width = max(len(label) for label, _ in lines)
    return "\n".join(f"{label:{width}}  {text}" for label, text in lines)


def _calibration(check: CalibrationCheck) -> list[tuple[str, str]]:
    found = [(METRICS["ece"].label, f"{check.after}  (expected, {CALIBRATION_BINS} bins)")]
    if check.before is not None and check.calibration is not None:
        found.append(("temperature", check.calibration.in_words))
        if check.calibration.split:
            found.append(("error without it", str(check.before)))
    return found


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
