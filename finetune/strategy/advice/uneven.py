"""Classes of uneven size: which correction, if any, makes a solved head fairer to the small ones.

Compared are the plain loss, ``class_weights: balanced`` and ``logit_adjust`` (Menon et al. 2021), by the
balanced accuracy of a head that is cross-validated on the frozen features: the mean over the classes of the
share of their images that it gets right.
"""

import numpy as np

from finetune.data.holdout.folds import inner_folds
from finetune.features.softmax import Targets
from finetune.features.solve import LinearProblem, choose_decay
from finetune.strategy.advice.facts import Corrected, Correction, Uneven
from finetune.strategy.advice.sample import learnable, paired_balanced_gain
from finetune.strategy.probing.frozen_features import FeatureRows
from finetune.training.setup.loss import balanced_weights, is_uneven, logit_offsets

# With 1, the minimum of the loss is the best classifier by balanced accuracy (Menon et al. 2021, theorem 1).
TAU = 1.0


def measure_uneven(rows: FeatureRows, seed: int) -> Uneven | None:
    """Cross-validate the corrections on the features of training images.

    Returns:
        None if the classes are even, or cannot be cross-validated.
    """
    rows, classes = learnable(rows)
    counts = np.bincount(rows.targets, minlength=classes)
    if classes < 2 or not is_uneven(counts):
        return None
    folds = inner_folds(rows.targets, seed, rows.groups)
    if not folds:
        return None
    plain = choose_decay(LinearProblem(rows.features, rows.targets, classes), folds).held
    weights = balanced_weights(counts).tolist()
    weighted = choose_decay(LinearProblem(rows.features, rows.targets, classes, weights), folds).held
    assert plain is not None  # there are folds
    assert weighted is not None
    # Offsets of the logits only move the bias of a solved head, so its held-out logits are known.
    guesses: dict[Correction, Targets] = {
        "none": plain.argmax(1),
        "class_weights": weighted.argmax(1),
        "logit_adjust": (plain - logit_offsets(counts, TAU)).argmax(1),
    }
    right = {name: guess == rows.targets for name, guess in guesses.items()}
    return Uneven(
        n=len(rows.targets),
        ratio=float(counts.max() / counts.min()),
        tried={
            name: Corrected(
                paired_balanced_gain(hits, np.zeros_like(hits), rows.targets, rows.groups)[0],
                float(hits.mean()),
                *paired_balanced_gain(hits, right["none"], rows.targets, rows.groups),
            )
            for name, hits in right.items()
        },
    )
