"""The numbers of an evaluation, as ``Model.evaluate`` returns them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune.evaluation.evaluate import Evaluation
    from finetune.evaluation.metrics import Metrics


@dataclass(frozen=True)
class EvaluationResult:
    """The numbers of an evaluation. Rates are fractions from 0 to 1.

    Attributes:
        evaluation: the metrics, and the logits and images that they come from.
        run: the run directory.
        checkpoint: ``best`` or ``last``.
        counts: the number of images that are missing, changed, new or left out.
    """

    evaluation: "Evaluation"
    run: Path
    checkpoint: str
    counts: dict[str, int]

    @property
    def metrics(self) -> "Metrics":
        """All metrics: ``loss``, ``per_class``, ``confusion``; others by name, ``metrics["macro_f1"]``."""
        return self.evaluation.metrics

    @property
    def split(self) -> str:
        """train, val, test, or all for other images without splits."""
        return self.evaluation.split

    @property
    def top1(self) -> float:
        """The accuracy."""
        return self.metrics.top1

    @property
    def top1_low(self) -> float:
        """The lower end of the accuracy's 95 % Wilson interval."""
        return self.metrics.top1_low

    @property
    def top1_high(self) -> float:
        """The upper end of the accuracy's 95 % Wilson interval."""
        return self.metrics.top1_high

    @property
    def n(self) -> int:
        """The number of images."""
        return self.metrics.n

    def predictions(self) -> Iterator[list[Any]]:
        """Rows, header first: path, label, predicted, correct, probability, one probability per class."""
        return self.evaluation.predictions()

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that ``finetune eval --json`` prints."""
        about = {"checkpoint": self.checkpoint, "run": str(self.run), "images": self.counts}
        return self.evaluation.to_dict() | about
