"""Shallow classifiers on features: linear SVM, logistic regression, nearest class mean, nearest neighbours.

All are scikit-learn's, on features scaled to zero mean and unit variance. What is to be set (C, the decay,
the number of neighbours) is chosen by stratified cross-validation on the training images alone. The first
three are linear: each becomes a :class:`~finetune.features.solve.LinearHead` on the features as they are,
with the scaling folded in. Scores that are no log-probabilities are divided by a temperature (Guo et al.
2017), fitted on held-out folds; it changes no prediction.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.data.holdout.folds import Folds, inner_folds, per_class
from finetune.errors import DataError
from finetune.features.softmax import Axes, Features, Targets
from finetune.features.solve import LinearHead, choose_decay, cross_entropy, rows_of, solve

SVM_STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
NEIGHBOURS = (1, 5, 15)
# While strengths are compared, a rough minimum tells as much.
ROUGH = 1e-2

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Classifier:
    """One classifier, fitted on all training images.

    Attributes:
        name: svm, logistic, class_mean or neighbours.
        setting: what cross-validation chose, in words.
        cv_top1: its mean accuracy on the held-out folds, a fraction.
        predict: features (N, D) to classes (N,), by scikit-learn.
        head: the same predictions as a linear layer; None for neighbours.
    """

    name: str
    setting: str
    cv_top1: float
    predict: Callable[[Features], Targets]
    head: LinearHead | None


def fit_all(
    features: Features, targets: Targets, num_classes: int, seed: int, groups: Targets | None = None
) -> list[Classifier]:
    """Each classifier, in the order of the docstring above.

    Args:
        features: (N, D) of the training images.
        targets: (N,), in 0..num_classes-1.
        seed: of the folds.
        groups: (N,), which no fold divides; None: there are none.

    Raises:
        DataError: a class with fewer than two images, or groups, or features that are all the same.
    """
    from sklearn.preprocessing import StandardScaler

    require_two(targets, num_classes, groups)
    if not np.ptp(features, axis=0).any():
        raise DataError("a probe needs features that differ, and these are the same for every image")
    scaler = StandardScaler().fit(features.astype(np.float64))
    scaled = scaler.transform(features.astype(np.float64)).astype(np.float32)
    folds = inner_folds(targets, seed, groups)
    if not folds:
        raise DataError("the groups of data.group_by cannot be put so that a probe learns every class")
    found = [
        _svm(scaled, targets, num_classes, folds),
        _logistic(scaled, targets, num_classes, folds),
        _class_mean(scaled, targets, folds),
        _neighbours(scaled, targets, folds),
    ]

    def on_raw(predict: Callable[[Features], Targets]) -> Callable[[Features], Targets]:
        return lambda rows: predict(scaler.transform(rows.astype(np.float64)).astype(np.float32))

    return [
        Classifier(
            each.name,
            each.setting,
            each.cv_top1,
            on_raw(each.predict),
            None if each.head is None else _unscaled(each.head, scaler.mean_, scaler.scale_),
        )
        for each in found
    ]


def require_two(targets: Targets, num_classes: int, groups: Targets | None = None) -> None:
    """See that each class can be cross-validated on.

    Raises:
        DataError: one has fewer than two images, or groups.
    """
    if int(np.bincount(targets, minlength=num_classes).min()) < 2:
        raise DataError("a probe needs two or more training images of each class, to cross-validate on")
    if groups is not None and int(per_class(targets, groups).min()) < 2:
        raise DataError(
            "a probe needs training images of two or more groups (data.group_by) of each class, to "
            "cross-validate on"
        )


def best_linear(found: list[Classifier]) -> Classifier:
    """The linear one with the best cross-validated accuracy; of equals the first."""
    return max((each for each in found if each.head is not None), key=lambda each: each.cv_top1)


def _svm(rows: Features, targets: Targets, num_classes: int, folds: Folds) -> Classifier:
    from sklearn.model_selection import cross_val_predict
    from sklearn.svm import LinearSVC

    best, accuracy, held = SVM_STRENGTHS[0], -1.0, np.zeros((0, 0))
    with warnings.catch_warnings():
        # A strength at which liblinear does not settle is no worse for the comparison.
        warnings.simplefilter("ignore")
        for strength in SVM_STRENGTHS:
            model = LinearSVC(C=strength, dual=True, tol=ROUGH, random_state=0)
            scores = _two_columns(
                cross_val_predict(model, rows, targets, cv=folds, method="decision_function")
            )
            top1 = float((scores.argmax(1) == targets).mean())
            if top1 < accuracy:
                break
            if top1 > accuracy:
                best, accuracy, held = strength, top1, scores
        model = LinearSVC(C=best, dual=True, random_state=0).fit(rows, targets)
    head = LinearHead(*rows_of(model.coef_, model.intercept_), 0.0)
    return Classifier("svm", f"C {best:g}", accuracy, model.predict, _cooled(head, held, targets))


def _logistic(rows: Features, targets: Targets, num_classes: int, folds: Folds) -> Classifier:
    axes = Axes.of(rows)
    chosen = choose_decay(rows, targets, num_classes, folds, axes=axes)
    assert chosen.top1 is not None  # there are folds
    head = solve(rows, targets, num_classes, chosen.decay, axes=axes, start=chosen.start)

    def predict(some: Features) -> Targets:
        classes: Targets = head.logits(some).argmax(1).astype(np.int64)
        return classes

    return Classifier("logistic", f"weight_decay {chosen.decay:.2g}", chosen.top1, predict, head)


def _class_mean(rows: Features, targets: Targets, folds: Folds) -> Classifier:
    scores = np.zeros((len(targets), int(targets.max()) + 1))
    for train, held in folds:
        scores[held] = _of_means(_means(rows[train], targets[train])).logits(rows[held])
    model = _means(rows, targets)
    accuracy = float((scores.argmax(1) == targets).mean())
    return Classifier("class_mean", "", accuracy, model.predict, _cooled(_of_means(model), scores, targets))


def _neighbours(rows: Features, targets: Targets, folds: Folds) -> Classifier:
    from sklearn.model_selection import cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier

    fewest = min(len(train) for train, _ in folds)
    tried = {}
    for count in NEIGHBOURS:
        if count <= fewest:
            model = KNeighborsClassifier(count)
            tried[count] = float((cross_val_predict(model, rows, targets, cv=folds) == targets).mean())
    count = max(tried, key=lambda each: tried[each])
    model = KNeighborsClassifier(count).fit(rows, targets)
    return Classifier("neighbours", f"k {count}", tried[count], model.predict, None)


def _means(rows: Features, targets: Targets) -> Any:
    from sklearn.neighbors import NearestCentroid

    with warnings.catch_warnings():
        # A feature that never varies within a class does no harm here: the deviations are not used.
        warnings.simplefilter("ignore")
        return NearestCentroid().fit(rows, targets)


def _of_means(model: Any) -> LinearHead:
    """Nearest of the means m: the largest of x.m - |m|^2 / 2."""
    means = np.asarray(model.centroids_, dtype=np.float64)
    return LinearHead(means, -0.5 * (means**2).sum(1), 0.0)


def _two_columns(scores: npt.NDArray[np.floating]) -> Scores:
    """scikit-learn's scores with a column for each class."""
    wide = scores if scores.ndim == 2 else np.stack([-scores, scores], axis=1) / 2
    return wide.astype(np.float64)


def _cooled(head: LinearHead, held: Scores, targets: Targets) -> LinearHead:
    """``head`` over the temperature that makes the softmax of held-out scores fit best."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_t: float(cross_entropy(held / np.exp(log_t), targets).mean()),
        bounds=(-7.0, 7.0),
        method="bounded",
    )
    temperature = float(np.exp(found.x))
    return LinearHead(head.weight / temperature, head.bias / temperature, head.decay)


def _unscaled(head: LinearHead, mean: Scores, scale: Scores) -> LinearHead:
    """``head`` of features (x - mean) / scale as one of x."""
    weight = head.weight / scale
    return LinearHead(weight, head.bias - weight @ mean, head.decay)
