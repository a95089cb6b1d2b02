"""Decide, at the end of a run, what is made of the logits of its best checkpoint."""

import logging

from finetune.decision.calibration import Calibration, fit_temperature
from finetune.decision.decision import Decision
from finetune.evaluation.evaluate import Collected
from finetune.recipe.schema import TrainSection

log = logging.getLogger("finetune")


def decide(train: TrainSection, val: Collected) -> Decision:
    """Fit what the recipe asks for on val.

    Args:
        val: the logits of the best checkpoint for the images of val, not calibrated.
    """
    if train.calibrate == "none":
        return Decision()
    return Decision(Calibration(fit_temperature(val.logits, val.targets), "val", len(val.targets)))
