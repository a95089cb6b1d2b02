"""An evaluation as text for the screen: plain lines, whole class names whether piped or not. Torch-free."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from finetune.errors import BadImageError, printable
from finetune.evaluation.metrics import Metrics

if TYPE_CHECKING:
    from finetune.evaluation.evaluate import Evaluation

# A larger confusion matrix fits no screen; its largest entries are listed instead.
LARGEST_MATRIX = 20
MOST_CONFUSED = 10
SKIPPED_SHOWN = 20


def summary(evaluation: "Evaluation") -> str:
    """All numbers of an evaluation."""
    metrics = evaluation.metrics
    blocks = [_headline(evaluation), _per_class(metrics)]
    blocks.append(_matrix(metrics) if len(metrics.classes) <= LARGEST_MATRIX else _most_confused(metrics))
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
    rows = [["class", "precision", "recall", "F1", "pictures"]]
    for entry in metrics.per_class:
        rates = [f"{100 * rate:.1f} %" for rate in (entry.precision, entry.recall, entry.f1)]
        # Without a picture of the class there is nothing to be right about.
        rows.append([printable(entry.name), *(rates if entry.support else ["-"] * 3), f"{entry.support:,}"])
    return _columns(rows)


def _matrix(metrics: Metrics) -> str:
    names = [printable(name) for name in metrics.classes]
    numbers = [str(index + 1) for index in range(len(names))]
    rows = [["true \\ predicted", *numbers]]
    for index, (name, counts) in enumerate(zip(names, metrics.confusion.tolist(), strict=True)):
        rows.append([f"{index + 1} {name}", *(str(count) if count else "." for count in counts)])
    return _columns(rows)


def _most_confused(metrics: Metrics) -> str:
    errors = metrics.confusion * (1 - np.eye(len(metrics.classes), dtype=np.int64))
    rows = [["true", "predicted", "pictures"]]
    for place in np.argsort(-errors, axis=None, kind="stable")[:MOST_CONFUSED]:
        true, predicted = divmod(int(place), len(metrics.classes))
        if errors[true, predicted]:
            pair = [printable(metrics.classes[index]) for index in (true, predicted)]
            rows.append([*pair, str(errors[true, predicted])])
    return "most confused\n" + _columns(rows) if len(rows) > 1 else "no picture is in the wrong class"


def _skipped(bad: Sequence[BadImageError]) -> str:
    lines = [f"{len(bad):,} pictures could not be read and are in none of the numbers:"]
    lines += [f"  {printable(str(error))}" for error in bad[:SKIPPED_SHOWN]]
    if len(bad) > SKIPPED_SHOWN:
        lines.append(f"  and {len(bad) - SKIPPED_SHOWN:,} more, which --json names")
    return "\n".join(lines)


def _columns(rows: list[list[str]]) -> str:
    """Rows in aligned columns: text to the left, numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    left = [
        not any(row[i][:1].isdigit() or row[i][:1] in "-." for row in rows[1:]) for i in range(len(widths))
    ]
    left[0] = True
    return "\n".join(
        "  ".join(
            c.ljust(w) if lead else c.rjust(w) for c, w, lead in zip(row, widths, left, strict=True)
        ).rstrip()
        for row in rows
    )
