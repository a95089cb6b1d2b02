"""A linear head, solved exactly: L2-regularised softmax regression on features, by L-BFGS.

The objective is the one that SGD on the same phase would lower: the mean cross-entropy over the pictures
(weighted by class where the recipe says so) plus ``decay / 2`` times the squared weights; the bias is free.
It is convex, and has one minimum. scikit-learn finds it (Liu and Nocedal 1989).
"""

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.data.holdout.folds import Folds

Features = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Targets = npt.NDArray[np.int64]

log = logging.getLogger("finetune")

# What cross-validation tries, as shares of the features' total variance, so that their scale plays no part.
GRID = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
MAX_ITERATIONS = 2000
# While strengths are compared, a rough minimum tells as much.
ROUGH = 100


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
) -> LinearHead:
    """The minimum of mean cross-entropy + ``decay / 2 * |weight|^2``.

    Args:
        features: (N, D).
        targets: (N,), in 0..num_classes-1; every class is there at least once.
        decay: above 0.
        class_weights: (num_classes,), or None for equal ones.
        rough: near the minimum is good enough, as for a comparison.
    """
    from sklearn.linear_model import LogisticRegression

    # Of unit variance, in which L-BFGS gets on best; the minimum is the same one.
    scale = math.sqrt(total_variance(features))
    tolerance, steps = (1e-3, ROUGH) if rough else (1e-6, MAX_ITERATIONS)
    model = LogisticRegression(tol=tolerance, max_iter=steps)
    rows = features.astype(np.float64) / scale
    if not _fit(model, rows, targets, num_classes, decay / scale**2, class_weights) and not rough:
        log.warning("the linear head is not at its minimum after %d iterations", MAX_ITERATIONS)
    weight, bias = rows_of(model.coef_, model.intercept_)
    return LinearHead(weight / scale, bias, decay)


@dataclass(frozen=True)
class Chosen:
    """A strength, and the share of held-out rows whose class was found with it; None where none was held."""

    decay: float
    top1: float | None


def choose_decay(
    features: Features,
    targets: Targets,
    num_classes: int,
    folds: Folds,
    class_weights: Sequence[float] | None = None,
) -> Chosen:
    """The strength with the least held-out cross-entropy, by cross-validation.

    Those of ``GRID`` are tried from the strongest on until the held-out loss rises. Each starts from zero:
    from the minimum of the one before it, a rough search would stay there, and the weakest look as good.

    Args:
        folds: of :func:`~finetune.data.holdout.folds.inner_folds`; without any, it is the middle of the grid.
    """
    from sklearn.linear_model import LogisticRegression

    total = total_variance(features)
    if not folds:
        return Chosen(GRID[len(GRID) // 2] * total, None)
    rows = features.astype(np.float32) / np.float32(math.sqrt(total))
    best, least = Chosen(GRID[0] * total, None), np.inf
    for share in GRID:
        loss, found = 0.0, 0
        for train, held in folds:
            model = LogisticRegression(tol=1e-3, max_iter=ROUGH)
            _fit(model, rows[train], targets[train], num_classes, share, class_weights)
            head = LinearHead(*rows_of(model.coef_, model.intercept_), share)
            logits = head.logits(rows[held])
            loss += float(cross_entropy(logits, targets[held]).sum())
            found += int((logits.argmax(1) == targets[held]).sum())
        if loss > least:
            break
        best, least = Chosen(share * total, found / len(targets)), loss
    return best


def _fit(
    model: Any,
    features: Features,
    targets: Targets,
    num_classes: int,
    decay: float,
    class_weights: Sequence[float] | None,
) -> bool:
    """Fit scikit-learn's ``model`` to the objective above; whether it came to the minimum."""
    from sklearn.exceptions import ConvergenceWarning

    weights = None if class_weights is None else np.asarray(class_weights, dtype=np.float64)[targets]
    total = len(targets) if weights is None else float(weights.sum())
    # Of two classes scikit-learn fits one row w, which stands for -w/2 and +w/2: half the squared length.
    model.C = (2.0 if num_classes == 2 else 1.0) / (decay * total)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(features, targets, sample_weight=weights)
    return not any(issubclass(each.category, ConvergenceWarning) for each in caught)


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
