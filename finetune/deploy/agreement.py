"""Check that an exported file computes the same logits as the network, on real images."""

import itertools
import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.deploy.predict import Classifier
from finetune.errors import BadImageError, ExportError, UserError, first_line
from finetune.training.evaluation_images import images_to_evaluate
from finetune.training.trained import Trained

log = logging.getLogger("finetune")

# The largest accepted difference between two logits, relative to the largest logit. It is far above fp32
# rounding (1e-6), and far below the effect of another resize, normalisation or a forgotten eval mode (1e-1).
TOLERANCE = 1e-3
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
    """

    difference: float
    scale: float
    n: int


def check_agreement(model: Classifier, exported: Classifier, images: NDArray[np.float32]) -> Agreement:
    """Compare the logits of both on ``images``, in batches of the sizes in :data:`BATCHES` in turn.

    Raises:
        ExportError: the cards differ, a logit is not finite, a difference exceeds the tolerance, or the
            predicted class differs although its margin is more than twice the tolerance.
    """
    if exported.card != model.card:
        raise ExportError("the exported file describes another model than the run")
    expected, found = [], []
    sizes = itertools.cycle(BATCHES)
    while len(images):
        batch, images = np.split(images, [next(sizes)])
        expected.append(model.outputs(batch).logits)
        found.append(exported.outputs(batch).logits)
    return compare(np.concatenate(expected), np.concatenate(found))


def compare(expected: NDArray[np.float32], found: NDArray[np.float32]) -> Agreement:
    """Compare (N, C) logits, with the errors of :func:`check_agreement`."""
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
    return Agreement(difference, scale, len(expected))


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
