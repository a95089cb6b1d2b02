"""The solved head: L2-regularised softmax regression on features, solved exactly.

The objective is the one that SGD would minimise in the same phase: the mean cross-entropy, weighted by class
and of adjusted logits if the recipe says so, plus ``decay / 2`` times the squared weights. The bias is not
penalised, so offsets of the logits only move it: the head is solved without them, and its bias then less
them. The objective is convex: L-BFGS gets close to its minimum (:mod:`finetune.features.softmax`), and
Newton's method reaches it (:mod:`finetune.features.newton`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from finetune.data.holdout.folds import Folds
from finetune.features.newton import refine
from finetune.features.softmax import (
    Axes,
    Features,
    Minimum,
    Objective,
    Targets,
    Tolerance,
    extrapolate,
    mean_of,
    minimise,
)

log = logging.getLogger("finetune")

# Decays that cross-validation tries, as shares of the total variance of the features.
GRID = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
# The largest derivative at the minimum of a final head, and the tolerance for a head that is only compared
# with others or used as a start.
EXACT, ROUGH = 1e-6, Tolerance(share=1e-2)
STEPS, ROUGH_STEPS = 2000, 500
# Held-out losses closer than this, in nats per image, count as equal. Of equals, the stronger decay wins.
EQUAL = 1e-3


@dataclass(frozen=True)
class LinearHead:
    """``weight`` (C, D) and ``bias`` (C,), float64: logits are ``features @ weight.T + bias``.

    ``decay`` is the decay it was solved with.
    """

    weight: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    decay: float

    def logits(self, features: Features) -> npt.NDArray[np.float64]:
        """Compute logits (N, C)."""
        result: npt.NDArray[np.float64] = features @ self.weight.T + self.bias
        return result


@dataclass(frozen=True, eq=False)
class LinearProblem:
    """The data that a linear head is solved for.

    Attributes:
        features: (N, D).
        targets: (N,), in 0..num_classes-1; every class occurs.
        class_weights: (num_classes,), weights in the loss; None: all equal.
        offsets: (num_classes,), what the loss adds to the logits (logit adjustment, Menon et al. 2021); None:
            nothing.
    """

    features: Features
    targets: Targets
    num_classes: int
    class_weights: Sequence[float] | None = None
    offsets: Sequence[float] | None = None

    @cached_property
    def shift(self) -> npt.NDArray[np.float64]:
        """``offsets``, zeros for None: (num_classes,)."""
        return np.zeros(self.num_classes) if self.offsets is None else np.asarray(self.offsets, np.float64)

    @cached_property
    def row_weights(self) -> npt.NDArray[np.float64]:
        """The weight of each row in the loss: (N,), with a mean of 1."""
        if self.class_weights is None:
            return np.ones(len(self.targets))
        weights = np.asarray(self.class_weights, np.float64)[self.targets]
        result: npt.NDArray[np.float64] = weights / weights.mean()
        return result

    @cached_property
    def axes(self) -> Axes:
        """The principal axes of the features, computed once."""
        return Axes.of(self.features)


def solve(
    problem: LinearProblem, decay: float, *, rough: bool = False, start: Minimum | None = None
) -> LinearHead:
    """Minimise the mean cross-entropy, with the weights and offsets of ``problem``, + ``decay / 2 *
    |weight|^2``.

    Args:
        decay: above 0.
        rough: stop near the minimum, which is enough for a comparison.
        start: where the search starts, along the axes of ``problem``; None: at zero.
    """
    axes = problem.axes
    objective = Objective(
        axes.rows,
        axes.variances,
        problem.targets,
        problem.num_classes,
        decay / axes.scale**2,
        problem.class_weights,
    )
    found = minimise(objective.single_precision(), start=start, tolerance=ROUGH, max_steps=ROUGH_STEPS)
    if rough:
        return _head(problem, found, decay)
    found = refine(objective, found, tolerance=EXACT)
    if not found.converged:
        found = minimise(objective, start=found, tolerance=Tolerance(gradient=EXACT), max_steps=STEPS)
    if not found.converged:
        log.warning("the solved head did not converge in %d iterations; it is close to its minimum", STEPS)
    return _head(problem, found, decay)


def _head(problem: LinearProblem, found: Minimum, decay: float) -> LinearHead:
    weight, bias = found.on_features(problem.axes)
    return LinearHead(weight, bias - problem.shift, decay)


@dataclass(frozen=True)
class Chosen:
    """The decay that cross-validation chose.

    Attributes:
        top1: the held-out accuracy with it, a fraction; None without folds.
        start: the mean of the minima of the folds, along the axes: close to the minimum on all rows.
        held: (N, num_classes), the logits of each row from the fold that did not see it; None without folds.
    """

    decay: float
    top1: float | None
    start: Minimum | None = None
    held: npt.NDArray[np.float64] | None = None


def choose_decay(problem: LinearProblem, folds: Folds) -> Chosen:
    """Choose the decay with the least held-out loss: cross-entropy with the weights and offsets of
    ``problem``.

    Tries the decays of ``GRID``, the strongest first, until the held-out loss stops falling. Each fold starts
    where its previous minima point to, and runs until it reaches its own minimum, so that minima are compared
    and not the progress of a search.

    Args:
        folds: from :func:`~finetune.data.holdout.folds.inner_folds`; if empty, returns the middle of the
            grid.
    """
    total = total_variance(problem.features)
    if not folds:
        return Chosen(GRID[len(GRID) // 2] * total, None)
    targets = problem.targets
    rows, variances = problem.axes.rows.float(), problem.axes.variances
    parts = [(rows[torch.from_numpy(train)], rows[torch.from_numpy(held)]) for train, held in folds]
    minima: list[list[Minimum]] = [[] for _ in folds]
    best, least = Chosen(GRID[0] * total, None), np.inf
    for share in GRID:
        loss, scores = 0.0, np.zeros((len(targets), problem.num_classes))
        for (train, held), (train_rows, held_rows), before in zip(folds, parts, minima, strict=True):
            objective = Objective(
                train_rows, variances, targets[train], problem.num_classes, share, problem.class_weights
            )
            minimum = minimise(objective, start=extrapolate(before), tolerance=ROUGH, max_steps=ROUGH_STEPS)
            before.append(minimum)
            logits = minimum.logits(held_rows)
            loss += float((cross_entropy(logits, targets[held]) * problem.row_weights[held]).sum())
            scores[held] = logits - problem.shift
        if loss > least - EQUAL * len(targets):
            break
        start = mean_of([each[-1] for each in minima])
        top1 = float((scores.argmax(1) == targets).mean())
        best, least = Chosen(share * total, top1, start, scores), loss
    return best


def total_variance(features: Features) -> float:
    """Sum the variances of all features; 1 if all are constant."""
    return float(features.var(axis=0, dtype=np.float64).sum()) or 1.0


def rows_of(
    weight: npt.NDArray[np.float64], bias: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Convert scikit-learn's coefficients to one row per class: for two classes, w becomes -w/2 and +w/2."""
    if len(weight) > 1:
        return weight, bias
    return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2


def cross_entropy(logits: npt.NDArray[np.float64], targets: Targets) -> npt.NDArray[np.float64]:
    """Compute the cross-entropy of each row: (N,)."""
    from scipy.special import logsumexp

    result: npt.NDArray[np.float64] = logsumexp(logits, axis=1) - logits[np.arange(len(targets)), targets]
    return result
