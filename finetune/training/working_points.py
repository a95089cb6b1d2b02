"""Choose a working point on val, and measure it on an evaluation of the same run."""

from finetune.decision.working_point import Costs, Goal, Threshold
from finetune.evaluation.evaluate import Evaluation
from finetune.evaluation.working_point import (
    CostResult,
    Decided,
    ThresholdRates,
    ThresholdResult,
    threshold_for,
)
from finetune.training.trained import Trained
from finetune.training.val_logits import val_logits


def decided_on_val(trained: Trained) -> Decided:
    """The calibrated probabilities of the run's val images. Raises as :func:`val_logits`."""
    val = val_logits(trained)
    logits = trained.card.decision.calibrated(val.logits)
    return Decided.of_logits("val", logits, val.targets, trained.card.classes, val.groups)


def decided_on(trained: Trained, evaluation: Evaluation) -> Decided:
    """The calibrated probabilities of the images of an evaluation."""
    found, classes = evaluation.collected, trained.card.classes
    return Decided.of_logits(evaluation.split, found.calibrated, found.targets, classes, found.groups)


def measure_goal(
    trained: Trained, evaluation: Evaluation, class_name: str, goal: Goal | None
) -> ThresholdResult:
    """Choose the threshold of a class on val, and measure it on an evaluation.

    Without a goal, there are only the curves and their areas.

    Raises:
        DataError: the checkpoint keeps no logits of val, and its images are not found.
    """
    val, images = decided_on_val(trained), decided_on(trained, evaluation)
    point, is_reached = (None, False) if goal is None else threshold_for(val, class_name, goal)
    return _measured(val, images, class_name, point, goal, is_reached=is_reached)


def measure_costs(trained: Trained, evaluation: Evaluation, costs: Costs) -> CostResult:
    """Measure costs on an evaluation."""
    images = decided_on(trained, evaluation)
    return CostResult(costs, False, images.cost(costs), images)


def measure_kept(trained: Trained, evaluation: Evaluation) -> ThresholdResult | CostResult | None:
    """Measure the working point that the run keeps; None if it keeps none. Raises as :func:`measure_goal`."""
    point = trained.card.decision.working_point
    images = decided_on(trained, evaluation)
    if isinstance(point, Costs):
        return CostResult(point, True, images.cost(point), images)
    if point is None:
        return None
    val = decided_on_val(trained)
    return _measured(val, images, point.class_name, point, point.goal, is_reached=True, is_kept=True)


def _measured(
    val: Decided,
    images: Decided,
    class_name: str,
    point: Threshold | None,
    goal: Goal | None,
    *,
    is_reached: bool,
    is_kept: bool = False,
) -> ThresholdResult:
    return ThresholdResult(
        class_name,
        goal,
        point,
        is_reached,
        is_kept,
        None if point is None else ThresholdRates.of(val, point),
        None if point is None else ThresholdRates.of(images, point),
        images,
        images.one_class(class_name),
        val.one_class(class_name),
    )
