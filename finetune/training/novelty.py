"""Learn, at the end of a run, which images are unlike its training images."""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finetune.data.dataset import Split
from finetune.data.holdout.sample import sample
from finetune.data.keys import key
from finetune.decision.novelty import Novelty, nearest_scores, unit_rows
from finetune.evaluation.evaluate import Collected
from finetune.features.cut import inference_form
from finetune.features.last_layer import tap_last_layer
from finetune.training.run.signals import Signals
from finetune.training.setup.prepare import Setup
from finetune.training.validation import collect_images

log = logging.getLogger("finetune")

# The number of training images whose features are kept. docs/measured/novelty.md says what more of them gain.
MOST_IMAGES = 500


@dataclass(frozen=True)
class Learned:
    """The logits of val, and what is known of images that are unlike the training images.

    Attributes:
        val: bit for bit those of :func:`finetune.training.validation.collect`.
        novelty: the threshold that keeps 95 % of val; None: nothing is known.
        reference: (M, D) features of training images, of length 1, in half precision; None: likewise.
    """

    val: Collected
    novelty: Novelty | None
    reference: Tensor | None


def learn_novelty(setup: Setup, train: Split, val: Split, signals: Signals) -> Learned:
    """Run the evaluated network over val and, if ``train.novelty`` asks for it, over some of ``train``.

    At most 500 images of ``train`` are used, as evaluation sees them. The seed of the recipe decides which;
    each class gives its share. Nothing is known if a feature is not finite.

    Raises:
        StoppedError: a signal arrived.
    """
    tapped = tap_last_layer(setup.evaluated, setup.card.architecture)
    recorded = tapped.record()
    module = inference_form(tapped.module)
    collected = collect_images(setup, val, module, signals)
    of_val = recorded.take()
    if setup.recipe.train.novelty == "none":
        return Learned(collected, None, None)
    seed = key(setup.recipe.seed, "novelty")
    collect_images(setup, train.subset(sample(train.targets, MOST_IMAGES, seed)), module, signals)
    # Scores come from what the file holds, also here.
    reference = unit_rows(recorded.take()).astype(np.float16)
    scores = nearest_scores(of_val, reference, Novelty.neighbours_of(len(reference)))
    if not np.isfinite(scores).all():
        log.warning("train.novelty: features are not finite, so no image will be marked as unlike the others")
        return Learned(collected, None, None)
    novelty = Novelty.of(scores, len(reference))
    if novelty.threshold is None:
        log.info(
            "val has %d images, and a threshold that keeps 95 %% of them needs 19: images get a score of how "
            "unlike the training images they are, but no mark",
            len(scores),
        )
    return Learned(collected, novelty, torch.from_numpy(reference))
