"""Decide, at the end of a run, what is made of the logits of its best checkpoint."""

import logging

import numpy as np
from numpy.typing import NDArray

from finetune.decision.abstain import Answers
from finetune.decision.calibration import Calibration, calibrated, fit_temperature
from finetune.decision.conformal import Conformal
from finetune.decision.decision import Decision
from finetune.evaluation.evaluate import Collected
from finetune.recipe.schema import TrainSection

log = logging.getLogger("finetune")


def decide(train: TrainSection, val: Collected, groups: NDArray[np.int64] | None = None) -> Decision:
    """Fit what the recipe asks for on val, and keep what thresholds are chosen from.

    Args:
        val: the logits of the best checkpoint for the images of val, not calibrated.
        groups: (N,) the group of each image; None: images have no groups.
    """
    calibration = Calibration()
    if train.calibrate == "temperature":
        calibration = Calibration(fit_temperature(val.logits, val.targets), "val", len(val.targets))
    logits = calibrated(val.logits, calibration.temperature)
    return Decision(
        calibration,
        conformal=Conformal.of(logits, val.targets, groups),
        answers=Answers.of(logits, val.targets),
    )
