"""Decide, at the end of a run, what is made of the logits of its best checkpoint."""

import logging

from finetune.decision.abstain import Answers
from finetune.decision.calibration import NOT_WANTED, Calibration, calibrate
from finetune.decision.conformal import Conformal
from finetune.decision.decision import Decision
from finetune.evaluation.evaluate import Collected
from finetune.recipe.schema import TrainSection

log = logging.getLogger("finetune")


def decide(train: TrainSection, val: Collected) -> Decision:
    """Fit what the recipe asks for on val, and keep what thresholds are chosen from.

    Args:
        val: the logits of the best checkpoint for the images of val, not calibrated.
    """
    if train.calibrate == "temperature":
        calibration = calibrate(val.logits, val.targets, val.groups)
    else:
        calibration = Calibration(reason=NOT_WANTED)
    log.info("temperature of the probabilities: %s", calibration.in_words)
    logits = calibration.of(val.logits)
    return Decision(
        calibration,
        conformal=Conformal.of(logits, val.targets, val.groups),
        answers=Answers.of(logits, val.targets),
    )
