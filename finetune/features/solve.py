"""A linear head, solved exactly: L2-regularised softmax regression on features.

The objective is the one that SGD on the same phase would lower: the mean cross-entropy over the images
(weighted by class where the recipe says so) plus ``decay / 2`` times the squared weights; the bias is free.
It is convex, and has one minimum (:mod:`finetune.features.softmax`), which
L-BFGS comes near to and Newton's method finds (:mod:`finetune.features.newton`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from finetune.data.holdout.folds import Folds
from finetune.features.newton import refine
from finetune.features.softmax import Axes, Enough, Features, Minimum, Targets, ahead, mean_of, minimise

log = logging.getLogger("finetune")

# What cross-validation tries, as shares of the features' total variance, so that their scale plays no part.
GRID = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
# When a head is near enough its minimum: one that is kept, by its largest derivative, and one that is only
# compared with others, or that the way to the minimum starts from.
EXACT, ROUGH = 1e-6, Enough(share=1e-2)
STEPS, ROUGH_STEPS = 2000, 500
# Held-out losses nearer to each other than this, in nats an image, tell nothing: of equals the stronger.
EQUAL = 1e-3


@dataclass(frozen=True)
class LinearHead:
    """``weight`` (C, D) and ``bias`` (C,), float64: logits are ``features @ weight.T + bias``.

    ``decay`` is the strength that it was solved with.
    """

    weight: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    decay: float

    def logits(self, features: Features) -> npt.NDArray[np.float64]:
        """(N, C)."""
        result: npt.NDArray[np.float64] = features @ self.weight.T + self.bias
        return result


def solve(
    features: Features,
    targets: Targets,
    num_classes: int,
    decay: float,
    class_weights: Sequence[float] | None = None,
    *,
    rough: bool = False,
    axes: Axes | None = None,
    start: Minimum | None = None,
) -> LinearHead:
    """The minimum of mean cross-entropy + ``decay / 2 * |weight|^2``.

    Args:
        features: (N, D).
        targets: (N,), in 0..num_classes-1; every class is there at least once.
        decay: above 0.
        class_weights: (num_classes,), or None for equal ones.
        rough: near the minimum is good enough, as for a comparison.
        axes: of ``features``, where they are at hand.
        start: where to set out from, along ``axes``.
    """
    axes = axes or Axes.of(features)
    strength = decay / axes.scale**2
    found = minimise(
        axes.rows.float(),
        axes.variances,
        targets,
        num_classes,
        strength,
        class_weights,
        start=start,
        enough=ROUGH,
        steps=ROUGH_STEPS,
    )
    if rough:
        return LinearHead(*found.on_features(axes), decay)
    found = refine(axes, targets, strength, class_weights, found, enough=EXACT)
    if not found.reached:
        found = minimise(
            axes.rows,
            axes.variances,
            targets,
            num_classes,
            strength,
            class_weights,
            start=found,
            enough=Enough(plain=EXACT),
            steps=STEPS,
        )
    if not found.reached:
        log.warning("the linear head is not at its minimum after %d iterations", STEPS)
    return LinearHead(*found.on_features(axes), decay)


@dataclass(frozen=True)
class Chosen:
    """A strength, and the share of held-out rows whose class was found with it; None where none was held.

    ``start`` is the mean of the folds' minima with that strength, along the axes: near that of all rows.
    """

    decay: float
    top1: float | None
    start: Minimum | None = None


def choose_decay(
    features: Features,
    targets: Targets,
    num_classes: int,
    folds: Folds,
    class_weights: Sequence[float] | None = None,
    *,
    axes: Axes | None = None,
) -> Chosen:
    """The strength with the least held-out cross-entropy, by cross-validation.

    Those of ``GRID`` are tried from the strongest on for as long as the held-out loss falls. Each fold sets
    out from where its minima of the strengths before lead to (the weights grow by about as much with each),
    and goes on until it is at its own: what is compared are minima, not how far a search came.

    Args:
        folds: of :func:`~finetune.data.holdout.folds.inner_folds`; without any, it is the middle of the grid.
        axes: of ``features``, where they are at hand.
    """
    total = total_variance(features)
    if not folds:
        return Chosen(GRID[len(GRID) // 2] * total, None)
    axes = axes or Axes.of(features)
    rows = axes.rows.float()
    parts = [(rows[torch.from_numpy(train)], rows[torch.from_numpy(held)]) for train, held in folds]
    minima: list[list[Minimum]] = [[] for _ in folds]
    best, least = Chosen(GRID[0] * total, None), np.inf
    for share in GRID:
        loss, found = 0.0, 0
        for (train, held), (rest, kept), before in zip(folds, parts, minima, strict=True):
            minimum = minimise(
                rest,
                axes.variances,
                targets[train],
                num_classes,
                share,
                class_weights,
                start=ahead(before),
                enough=ROUGH,
                steps=ROUGH_STEPS,
            )
            before.append(minimum)
            logits = minimum.logits(kept)
            loss += float(cross_entropy(logits, targets[held]).sum())
            found += int((logits.argmax(1) == targets[held]).sum())
        if loss > least - EQUAL * len(targets):
            break
        start = mean_of([each[-1] for each in minima])
        best, least = Chosen(share * total, found / len(targets), start), loss
    return best


def total_variance(features: Features) -> float:
    """The sum of the variances of all features; 1 where they are all constant."""
    return float(features.var(axis=0, dtype=np.float64).sum()) or 1.0


def rows_of(
    weight: npt.NDArray[np.float64], bias: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """scikit-learn's coefficients with a row for each class: the one row w of two classes as -w/2, +w/2."""
    if len(weight) > 1:
        return weight, bias
    return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2


def cross_entropy(logits: npt.NDArray[np.float64], targets: Targets) -> npt.NDArray[np.float64]:
    """Of each row: (N,)."""
    from scipy.special import logsumexp

    result: npt.NDArray[np.float64] = logsumexp(logits, axis=1) - logits[np.arange(len(targets)), targets]
    return result
