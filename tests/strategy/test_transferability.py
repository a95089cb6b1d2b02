"""LogME and the H-score, against closed forms and slow reference computations."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf

from finetune.strategy.probing.transferability import h_score, log_me

Data = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]


def blobs(n: int = 60, d: int = 5, classes: int = 3, apart: float = 1.0, seed: int = 0) -> Data:
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % classes
    means = apart * rng.standard_normal((classes, d))
    return means[targets] + rng.standard_normal((n, d)) + 0.3, targets


def log_evidence(features: npt.NDArray[np.float64], labels: npt.NDArray[Any], p: Sequence[float]) -> float:
    """The log density of labels in linear regression; ``p``: log-precisions of weights and noise."""
    alpha, beta = np.exp(p)
    covariance = np.eye(len(labels)) / beta + features @ features.T / alpha
    return float(multivariate_normal(np.zeros(len(labels)), covariance).logpdf(labels))


@pytest.mark.parametrize(("n", "d"), [(60, 5), (40, 12), (90, 2)])
def test_log_me_is_the_largest_evidence(n: int, d: int) -> None:
    features, targets = blobs(n, d)
    best = []
    for each in range(3):
        labels = (targets == each).astype(float)
        found = minimize(
            lambda p, labels=labels: -log_evidence(features, labels, p),
            [0.0, 0.0],
            method="Nelder-Mead",
            options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 4000},
        )
        best.append(-found.fun / n)
    assert log_me(features, targets) == pytest.approx(np.mean(best), abs=1e-5)


def test_log_me_with_more_features_than_images() -> None:
    features, targets = blobs(20, 50)
    assert np.isfinite(log_me(features, targets))


def test_both_rise_with_the_distance_of_the_classes() -> None:
    scores = [
        (log_me(*blobs(300, 8, apart=apart)), h_score(*blobs(300, 8, apart=apart))) for apart in (0, 1, 4)
    ]
    assert scores == sorted(scores)
    assert [h for _, h in scores] == sorted(h for _, h in scores)


def test_a_rotation_changes_neither_score() -> None:
    features, targets = blobs(80, 6)
    turned = features @ np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0]
    assert log_me(turned, targets) == pytest.approx(log_me(features, targets), rel=1e-6)
    assert h_score(turned, targets) == pytest.approx(h_score(features, targets), rel=1e-9)


def test_the_h_score_is_the_trace_of_its_definition() -> None:
    features, targets = blobs(70, 6, classes=4)
    means = np.stack([features[targets == each].mean(axis=0) for each in range(4)])[targets]
    expected = np.trace(np.linalg.inv(np.cov(features.T, bias=True)) @ np.cov(means.T, bias=True))
    assert h_score(features, targets) == pytest.approx(expected, rel=1e-9)
    # A linear map, or a feature that is there twice, changes nothing.
    mixed = np.hstack([features @ np.diag([1, 5, 0.1, 3, 2, 7]), features[:, :1]])
    assert h_score(mixed, targets) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(70, 6), (30, 50)])
def test_the_shrunk_h_score_is_the_trace_of_its_definition(n: int, d: int) -> None:
    features, targets = blobs(n, d, classes=4)
    covariance, shrinkage = ledoit_wolf(features)
    means = np.stack([features[targets == each].mean(axis=0) for each in range(4)])[targets]
    expected = (1 - shrinkage) * np.trace(np.linalg.inv(covariance) @ np.cov(means.T, bias=True))
    assert h_score(features, targets, shrinkage) == pytest.approx(expected, rel=1e-9)


def test_shrinking_distinguishes_labels_from_chance_with_many_features() -> None:
    features, targets = blobs(40, 80, classes=2, apart=0.7)
    chance = np.random.default_rng(2).permutation(targets)
    assert h_score(features, targets) == pytest.approx(1.0)
    assert h_score(features, chance) == pytest.approx(1.0)
    assert h_score(features, targets, 0.3) > h_score(features, chance, 0.3) + 0.1


def test_the_h_score_is_0_without_and_maximal_with_full_separation() -> None:
    targets = np.arange(30) % 3
    points = np.eye(3)[targets]
    assert h_score(points, targets) == pytest.approx(2.0)
    alike = np.repeat(np.random.default_rng(0).standard_normal((10, 4)), 3, axis=0)
    assert h_score(alike, targets) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("score", [log_me, h_score])
def test_features_without_a_score_are_refused(score: object) -> None:
    assert callable(score)
    features, targets = blobs(12)
    with pytest.raises(ValueError, match="two classes"):
        score(features, np.zeros(12, dtype=np.int64))
    with pytest.raises(ValueError, match="shape"):
        score(features, targets[:-1])
    with pytest.raises(ValueError, match="infinite"):
        score(features * np.inf, targets)
