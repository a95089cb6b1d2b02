"""Check that an exported file computes what the network computes, on real images."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.decision.decision import Decision
from finetune.deploy.predict import Classifier, Outputs
from finetune.errors import BadImageError, ExportError, UserError, first_line
from finetune.training.evaluation_images import images_to_evaluate
from finetune.training.trained import Trained

log = logging.getLogger("finetune")

# The largest accepted difference between two logits, relative to the largest logit. It is far above fp32
# rounding (1e-6), and far below the effect of another resize, normalisation or a forgotten eval mode (1e-1).
TOLERANCE = 1e-3
# The largest accepted difference between a probability and the one that the file's own logits give: float32
# rounding is 1e-7, and a temperature that is one hundredth larger changes a probability of 0.9 by 2e-3.
PROBABILITY_TOLERANCE = 1e-5
# The least accepted difference between two scores of novelty: where all images are alike, they are near 0.
LEAST_NOVELTY = 1e-5
# A batch size that tracing has fixed fails for at least one of these.
BATCHES = (1, 3)
IMAGES = 12


@dataclass(frozen=True)
class Agreement:
    """The result of a comparison.

    Attributes:
        difference: the largest difference between two logits.
        scale: the largest logit.
        n: the number of images.
        probabilities: the largest difference between two probabilities.
        novelty: the largest difference between two scores of how unlike the training images an image is; None
            if the model knows none.
    """

    difference: float
    scale: float
    n: int
    probabilities: float
    novelty: float | None = None


def check_agreement(model: Classifier, exported: Classifier, images: NDArray[np.float32]) -> Agreement:
    """Compare the outputs of both on ``images``, in batches of the sizes in :data:`BATCHES` in turn.

    Raises:
        ExportError: the cards differ, an output is missing or not finite, a difference exceeds its tolerance,
            the probabilities of the file are not those of its logits and the card's temperature, or the
            predicted class differs although its margin is more than twice the tolerance.
    """
    if exported.card != model.card:
        raise ExportError("the exported file describes another model than the run")
    expected, found = [], []
    sizes = itertools.cycle(BATCHES)
    while len(images):
        batch, images = np.split(images, [next(sizes)])
        expected.append(model.outputs(batch))
        found.append(exported.outputs(batch))
    ours, theirs = _joined(expected), _joined(found)
    difference, scale = compare_logits(ours.logits, theirs.logits)
    probabilities = _compare_probabilities(model.card.decision, ours, theirs)
    novelty = _compare_novelty(ours.novelty, theirs.novelty)
    return Agreement(difference, scale, len(ours.logits), probabilities, novelty)


def compare_logits(expected: NDArray[np.float32], found: NDArray[np.float32]) -> tuple[float, float]:
    """Return the largest difference between two (N, C) logits, and the largest logit.

    Raises as :func:`check_agreement`.
    """
    if expected.shape != found.shape or not np.isfinite(expected).all() or not np.isfinite(found).all():
        raise ExportError(
            "the exported file or the model computes logits of another shape or logits that are not finite"
        )
    scale = float(np.abs(expected).max())
    allowed = TOLERANCE * scale
    difference = float(np.abs(expected.astype(np.float64) - found).max())
    best = np.sort(expected, axis=1)
    clear = best[:, -1] - best[:, -2] > 2 * allowed
    changed = int((clear & (expected.argmax(axis=1) != found.argmax(axis=1))).sum())
    if difference > allowed or changed:
        raise ExportError(
            f"the exported file does not compute what the model computes: logits differ by up to "
            f"{difference:.3g}; {allowed:.3g} is allowed (a thousandth of the largest logit, {scale:.3g}). "
            f"The class changes for {changed} of {len(expected)} images. No file was written."
        )
    return difference, scale


def _compare_probabilities(decision: Decision, expected: Outputs, found: Outputs) -> float:
    """The largest difference between two probabilities.

    Logits may differ by rounding. The probabilities of the file have to be those of its own logits.
    """
    if found.probabilities is None or found.probabilities.shape != found.logits.shape:
        raise ExportError("the exported file computes no probabilities. No file was written.")
    error = _largest_difference(decision.probabilities(found.logits), found.probabilities)
    if not error <= PROBABILITY_TOLERANCE:
        raise ExportError(
            f"the exported file does not compute calibrated probabilities: they differ by up to {error:.3g} "
            f"from those of its logits at the temperature {decision.calibration.temperature:.4g}; "
            f"{PROBABILITY_TOLERANCE:.0e} is allowed. No file was written."
        )
    return _largest_difference(decision.probabilities(expected.logits), found.probabilities)


def _compare_novelty(expected: NDArray[np.float32] | None, found: NDArray[np.float32] | None) -> float | None:
    """The largest difference between two (N,) scores; None if there are none."""
    if expected is None and found is None:
        return None
    if expected is None or found is None or expected.shape != found.shape:
        raise ExportError(
            "only one of the exported file and the model computes how unlike the training images an image "
            "is. No file was written."
        )
    difference = _largest_difference(expected, found)
    allowed = max(TOLERANCE * float(np.abs(expected).max()), LEAST_NOVELTY)
    if not difference <= allowed:
        raise ExportError(
            "the exported file does not compute what the model computes: the scores of how unlike the "
            f"training images an image is differ by up to {difference:.3g}; {allowed:.3g} is allowed. No "
            "file was written."
        )
    return difference


def _largest_difference(expected: NDArray[np.floating], found: NDArray[np.floating]) -> float:
    return float(np.abs(expected.astype(np.float64) - found).max())


def _joined(batches: Sequence[Outputs]) -> Outputs:
    """The outputs of all batches; an output that one batch lacks is None."""

    def together(name: str) -> Any:
        values = [getattr(each, name) for each in batches]
        return None if any(value is None for value in values) else np.concatenate(values)

    return Outputs(together("logits"), together("probabilities"), together("novelty"))


def check_images(trained: Trained) -> tuple[NDArray[np.float32], str]:
    """Return (:data:`IMAGES`, channels, S, S) preprocessed images to compare on, and their origin.

    The images are spread over the val split of the run (``val``). If that cannot be read, they are seeded
    noise (``random``), with a warning.
    """
    preprocessing = trained.card.preprocessing
    try:
        val = images_to_evaluate(trained, "val").images
    except UserError as error:
        reason = first_line(error)
    else:
        images: list[NDArray[np.float32]] = []
        for index in _spread(len(val)):
            try:
                images.append(preprocessing(val.image(index, preprocessing.bands)))
            except BadImageError as error:
                log.warning("not used for the check: %s", error)
            if len(images) == IMAGES:
                break
        if images:
            repeated = [images[i % len(images)] for i in range(IMAGES)]
            return np.stack(repeated), "val"
        reason = "none of its images can be read"
    log.warning("cannot read the val split of the run (%s); the export is checked on random images", reason)
    shape = (IMAGES, preprocessing.channels, preprocessing.image_size, preprocessing.image_size)
    noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return noise, "random"


def _spread(n: int) -> list[int]:
    """All of 0 to n - 1, evenly spaced ones first, because the images of a split are ordered by class."""
    first: list[int] = np.linspace(0, n - 1, min(n, IMAGES)).round().astype(int).tolist()
    return first + sorted(set(range(n)) - set(first))
