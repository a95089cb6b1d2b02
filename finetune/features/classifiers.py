"""Shallow classifiers on features: linear SVM, logistic regression, nearest class mean, nearest neighbours.

All work on features scaled to zero mean and unit variance. Their setting (C, decay, number of neighbours) is
chosen by stratified cross-validation on the training images alone. The first three are linear: each becomes a
:class:`~finetune.features.solve.LinearHead` for the unscaled features. Scores that are not log-probabilities
are divided by a temperature fitted on held-out folds (Guo et al. 2017), which changes no prediction.
"""

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.data.holdout.folds import Folds, count_per_class, inner_folds
from finetune.errors import DataError
from finetune.features.softmax import Features, Targets
from finetune.features.solve import LinearHead, LinearProblem, choose_decay, cross_entropy, rows_of, solve

SVM_STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
NEIGHBOURS = (1, 5, 15)
# The tolerance of liblinear while strengths are compared.
ROUGH = 1e-2

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Classifier:
    """A classifier, fitted on all training images.

    Attributes:
        name: svm, logistic, class_mean or neighbours.
        setting: what cross-validation chose, such as "C 0.01".
        cv_hits: (N,) whether each training image is predicted right by the folds that leave it out.
        predict: computes classes (N,) from features (N, D).
        head: a linear layer with the same predictions; None for neighbours.
    """

    name: str
    setting: str
    cv_hits: npt.NDArray[np.bool_]
    predict: Callable[[Features], Targets]
    head: LinearHead | None

    @property
    def cv_top1(self) -> float:
        """Its accuracy on the held-out folds, a fraction."""
        return float(self.cv_hits.mean())


def fit_classifiers(
    features: Features, targets: Targets, num_classes: int, seed: int, groups: Targets | None = None
) -> list[Classifier]:
    """Fit the classifiers svm, logistic, class_mean and neighbours, in this order.

    Args:
        features: (N, D), of the training images.
        targets: (N,), in 0..num_classes-1.
        seed: of the folds.
        groups: (N,); no fold splits a group. None: there are no groups.

    Raises:
        DataError: a class has fewer than two images or groups, or all features are the same.
    """
    from sklearn.preprocessing import StandardScaler

    require_two_per_class(targets, num_classes, groups)
    if not np.ptp(features, axis=0).any():
        raise DataError("the features are the same for every image, so nothing can be learned from them")
    scaler = StandardScaler().fit(features.astype(np.float64))
    scaled = scaler.transform(features.astype(np.float64)).astype(np.float32)
    folds = inner_folds(targets, seed, groups)
    if not folds:
        raise DataError(
            "the groups of data.group_by cannot be divided into folds that each train on every class"
        )
    found = [
        _svm(scaled, targets, folds),
        _logistic(scaled, targets, num_classes, folds),
        _class_mean(scaled, targets, folds),
        _neighbours(scaled, targets, folds),
    ]

    def on_raw(predict: Callable[[Features], Targets]) -> Callable[[Features], Targets]:
        return lambda rows: predict(scaler.transform(rows.astype(np.float64)).astype(np.float32))

    return [
        dataclasses.replace(
            each,
            predict=on_raw(each.predict),
            head=None if each.head is None else _unscaled(each.head, scaler.mean_, scaler.scale_),
        )
        for each in found
    ]


def require_two_per_class(targets: Targets, num_classes: int, groups: Targets | None = None) -> None:
    """Check that each class can be cross-validated.

    Raises:
        DataError: a class has fewer than two images, or groups.
    """
    if int(np.bincount(targets, minlength=num_classes).min()) < 2:
        raise DataError("cross-validation needs two or more training images of each class")
    if groups is not None and int(count_per_class(targets, groups).min()) < 2:
        raise DataError(
            "cross-validation needs training images of two or more groups (data.group_by) in each class"
        )


def best_linear(found: list[Classifier]) -> Classifier:
    """Return the linear classifier with the best cross-validated accuracy; the first of equals."""
    return max((each for each in found if each.head is not None), key=lambda each: each.cv_top1)


def _svm(rows: Features, targets: Targets, folds: Folds) -> Classifier:
    from sklearn.model_selection import cross_val_predict
    from sklearn.svm import LinearSVC

    best, accuracy, held = SVM_STRENGTHS[0], -1.0, np.zeros((0, 0))
    with warnings.catch_warnings():
        # For the comparison, a strength at which liblinear does not converge is good enough.
        warnings.simplefilter("ignore")
        for strength in SVM_STRENGTHS:
            model = LinearSVC(C=strength, dual=True, tol=ROUGH, random_state=0)
            scores = _one_column_per_class(
                cross_val_predict(model, rows, targets, cv=folds, method="decision_function")
            )
            top1 = float((scores.argmax(1) == targets).mean())
            if top1 < accuracy:
                break
            if top1 > accuracy:
                best, accuracy, held = strength, top1, scores
        model = LinearSVC(C=best, dual=True, random_state=0).fit(rows, targets)
    head = LinearHead(*rows_of(model.coef_, model.intercept_), 0.0)
    return Classifier(
        "svm", f"C {best:g}", held.argmax(1) == targets, model.predict, _calibrated(head, held, targets)
    )


def _logistic(rows: Features, targets: Targets, num_classes: int, folds: Folds) -> Classifier:
    problem = LinearProblem(rows, targets, num_classes)
    chosen = choose_decay(problem, folds)
    assert chosen.held is not None  # there are folds
    hits = chosen.held.argmax(1) == targets
    head = solve(problem, chosen.decay, start=chosen.start)

    def predict(some: Features) -> Targets:
        classes: Targets = head.logits(some).argmax(1).astype(np.int64)
        return classes

    return Classifier("logistic", f"weight_decay {chosen.decay:.2g}", hits, predict, head)


def _class_mean(rows: Features, targets: Targets, folds: Folds) -> Classifier:
    scores = np.zeros((len(targets), int(targets.max()) + 1))
    for train, held in folds:
        scores[held] = _mean_head(_means(rows[train], targets[train])).logits(rows[held])
    model = _means(rows, targets)
    hits = scores.argmax(1) == targets
    return Classifier("class_mean", "", hits, model.predict, _calibrated(_mean_head(model), scores, targets))


def _neighbours(rows: Features, targets: Targets, folds: Folds) -> Classifier:
    from sklearn.model_selection import cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier

    fewest = min(len(train) for train, _ in folds)
    tried = {}
    for count in NEIGHBOURS:
        if count <= fewest:
            model = KNeighborsClassifier(count)
            tried[count] = cross_val_predict(model, rows, targets, cv=folds) == targets
    count = max(tried, key=lambda each: float(tried[each].mean()))
    model = KNeighborsClassifier(count).fit(rows, targets)
    return Classifier("neighbours", f"k {count}", tried[count], model.predict, None)


def _means(rows: Features, targets: Targets) -> Any:
    from sklearn.neighbors import NearestCentroid

    with warnings.catch_warnings():
        # It warns of features that do not vary within a class, but uses no deviations.
        warnings.simplefilter("ignore")
        return NearestCentroid().fit(rows, targets)


def _mean_head(model: Any) -> LinearHead:
    """The nearest mean m has the largest x.m - |m|^2 / 2."""
    means = np.asarray(model.centroids_, dtype=np.float64)
    return LinearHead(means, -0.5 * (means**2).sum(1), 0.0)


def _one_column_per_class(scores: npt.NDArray[np.floating]) -> Scores:
    """Convert scikit-learn's scores to one column per class."""
    wide = scores if scores.ndim == 2 else np.stack([-scores, scores], axis=1) / 2
    return wide.astype(np.float64)


def _calibrated(head: LinearHead, held: Scores, targets: Targets) -> LinearHead:
    """Divide ``head`` by the temperature at which the held-out scores have the least cross-entropy."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_t: float(cross_entropy(held / np.exp(log_t), targets).mean()),
        bounds=(-7.0, 7.0),
        method="bounded",
    )
    temperature = float(np.exp(found.x))
    return LinearHead(head.weight / temperature, head.bias / temperature, head.decay)


def _unscaled(head: LinearHead, mean: Scores, scale: Scores) -> LinearHead:
    """Convert ``head`` from features (x - mean) / scale to features x."""
    weight = head.weight / scale
    return LinearHead(weight, head.bias - weight @ mean, head.decay)
