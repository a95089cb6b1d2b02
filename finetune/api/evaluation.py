"""The numbers of an evaluation, as ``Model.evaluate`` returns them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.api.working_point import CostsInput, Wish, measure
from finetune.decision.wanted import Sets, Wanted

if TYPE_CHECKING:
    from finetune.evaluation.evaluate import Evaluation
    from finetune.evaluation.metrics import Metrics
    from finetune.evaluation.promises import AbstainCheck, Images, SetsCheck
    from finetune.evaluation.working_point import CostResult, ThresholdResult
    from finetune.training.trained import Trained


@dataclass(frozen=True)
class EvaluationResult:
    """The numbers of an evaluation. Rates are fractions from 0 to 1.

    Attributes:
        evaluation: the metrics, and the logits and images that they come from.
        run: the run directory.
        checkpoint: ``best`` or ``last``.
        counts: the number of images that are missing, changed, new or left out.
        trained: the network that was evaluated.
    """

    evaluation: "Evaluation"
    run: Path
    checkpoint: str
    counts: dict[str, int]
    trained: "Trained"

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
        """The lower end of the accuracy's 95 % interval, by groups where images have groups."""
        return self.metrics.top1_low

    @property
    def top1_high(self) -> float:
        """The upper end of the accuracy's 95 % interval, by groups where images have groups."""
        return self.metrics.top1_high

    @property
    def n(self) -> int:
        """The number of images."""
        return self.metrics.n

    def working_point(
        self,
        class_name: str | None = None,
        *,
        recall: float | None = None,
        precision: float | None = None,
        costs: CostsInput | None = None,
    ) -> "ThresholdResult | CostResult | None":
        """Measure a working point on these images. A threshold is chosen on the run's val images.

        Args:
            class_name: the class that a threshold is for, against the rest. Alone, it gives the curves only.
            recall: the threshold is the highest that has at least this recall on val.
            precision: the threshold is the lowest that has at least this precision on val.
            costs: a YAML file, or ``{true class: {predicted class: cost}}``: the decided class has the least
                expected cost.

        Returns:
            Rates with intervals, curves and areas of a threshold; or costs. Without arguments, those of the
            working point that the run keeps; None if it keeps none.

        Raises:
            UserError: the class is unknown, a number is out of range, or settings do not go together.
            DataError: the checkpoint keeps no logits of val, and its images are not found.
        """
        return measure(self.trained, self.evaluation, Wish(class_name, recall, precision, None, costs))

    def predictions(self) -> Iterator[list[Any]]:
        """Rows, header first: path, label, predicted, correct, probability, one probability per class."""
        return self.evaluation.predictions()

    def prediction_sets(self, coverage: float, sets: Sets = "smallest") -> "SetsCheck":
        """Measure the coverage and the size of the prediction sets that ``predict`` gives, on these images.

        Raises:
            UserError: ``coverage`` or ``sets`` is out of range, or the model keeps no scores of val.
        """
        from finetune.errors import printable
        from finetune.evaluation.promises import check_sets

        Wanted(coverage=coverage, sets=sets)
        names = tuple(map(printable, self.metrics.classes))
        return check_sets(self._images(), self.trained.card.decision.scores(), coverage, sets, names)

    def abstaining(self, accuracy: float) -> "AbstainCheck":
        """Measure what share ``predict`` answers for an accuracy, and how accurately, on these images.

        Raises:
            UserError: ``accuracy`` is not a share, or the model keeps no scores of val.
        """
        from finetune.evaluation.promises import check_abstaining

        Wanted(abstain=accuracy)
        return check_abstaining(self._images(), self.trained.card.decision.kept_answers(), accuracy)

    def _images(self) -> "Images":
        from finetune.evaluation.promises import Images

        found = self.evaluation.collected
        return Images(found.calibrated, found.targets, found.groups)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that ``finetune eval --json`` prints."""
        about = {"checkpoint": self.checkpoint, "run": str(self.run), "images": self.counts}
        return self.evaluation.to_dict() | about
