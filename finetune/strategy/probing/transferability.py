"""How well features would transfer to labels, without training: LogME and the H-score. NumPy only."""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MOST_STEPS = 100
# Relative change of the ratio of the two precisions at which their fixed point is reached.
CONVERGED = 1e-5


def log_me(features: npt.NDArray[np.floating], targets: npt.NDArray[np.integer]) -> float:
    """LogME (You et al. 2021, "LogME: Practical assessment of pre-trained models for transfer learning").

    For each class the maximum, over the two precisions, of the log evidence of a Bayesian linear regression
    of its 0/1 labels on the features (MacKay 1992), an image; then the mean over the classes. Higher is
    better; comparable only between features of the same images. The maximum is found by the fixed-point
    iteration that the paper proves to converge, in the basis of the singular vectors.

    Args:
        features: (N, D), finite; not centred, and no bias is added.
        targets: (N,) class indices; classes without an image do not count.

    Raises:
        ValueError: fewer than two classes, or arrays that do not fit.
    """
    f, y = _checked(features, targets)
    n, d = len(f), int(f.shape[1])
    u, s, _ = np.linalg.svd(f, full_matrices=False)
    rank = int((s > s.max(initial=0.0) * max(n, d) * np.finfo(np.float64).eps).sum())
    u, squares = u[:, :rank], s[:rank] ** 2
    evidences = [_evidence(u, squares, (y == each).astype(np.float64), d) for each in np.unique(y)]
    return float(np.mean(evidences)) / len(f)


def log_evidence(features: npt.NDArray[np.floating], labels: Floats, alpha: float, beta: float) -> float:
    """The log evidence of a linear regression with known precisions: ``labels`` (N,) are normal with mean 0
    and covariance I/beta + F F'/alpha, F = ``features`` (N, D).

    ``alpha`` is the precision of the weights' prior, ``beta`` that of the noise, both positive.
    """
    f = np.asarray(features, dtype=np.float64)
    n, d = len(f), int(f.shape[1])
    precision = alpha * np.eye(d) + beta * f.T @ f
    mean = beta * np.linalg.solve(precision, f.T @ labels)
    misfit = float(((labels - f @ mean) ** 2).sum())
    return 0.5 * (
        d * math.log(alpha)
        + n * math.log(beta)
        - beta * misfit
        - alpha * float(mean @ mean)
        - float(np.linalg.slogdet(precision)[1])
        - n * math.log(2 * math.pi)
    )


def h_score(
    features: npt.NDArray[np.floating], targets: npt.NDArray[np.integer], shrinkage: float = 0.0
) -> float:
    """The H-score (Bao et al. 2019, "An information-theoretic approach to transferability"): the trace of
    cov(f)^-1 cov(E[f | y]).

    The share of the features' variance, direction by direction, that lies between the classes, summed: from 0
    (the class means coincide) to the number of classes less 1 (the classes are points). Higher is better.
    Directions in which the features do not vary are left out. With as many features as images the score is
    at its maximum whatever the labels are, unless their covariance is shrunk (Ibrahim et al. 2022, "Newer is
    not always better: Rethinking transferability metrics"): cov becomes (1 - a) cov + a v I, with v the
    features' mean variance, and the covariance of the class means is multiplied by 1 - a.

    Args:
        features: (N, D), finite.
        targets: (N,) class indices.
        shrinkage: a, from 0 (the plain score) to below 1; Ledoit and Wolf (2004) say how much, which is
            scikit-learn's ``ledoit_wolf_shrinkage``.

    Raises:
        ValueError: fewer than two classes, or arrays that do not fit.
    """
    f, y = _checked(features, targets)
    centred = f - f.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    # In the basis in which the features are white, the covariance of the class means is all that is left.
    varying = s > s.max(initial=0.0) * max(f.shape) * np.finfo(np.float64).eps
    white, variance = u[:, varying], (1 - shrinkage) * s[varying] ** 2
    kept = variance / (variance + shrinkage * float((s**2).sum()) / f.shape[1])
    total = 0.0
    for each in np.unique(y):
        own = y == each
        total += float(kept @ white[own].sum(axis=0) ** 2) / int(own.sum())
    return total


def _evidence(u: Floats, squares: Floats, labels: Floats, d: int) -> float:
    """The log evidence at its best precisions, for one column of labels.

    ``u`` holds the left singular vectors, (N, R), ``squares`` the squared singular values, (R,), of N x D
    features.
    """
    n = len(labels)
    projected = (u.T @ labels) ** 2
    outside = max(float(labels @ labels) - float(projected.sum()), 0.0)
    alpha = beta = 1.0
    for _ in range(MOST_STEPS):
        ratio = alpha / beta
        gamma = float((squares / (ratio + squares)).sum())
        length = float((squares * projected / (ratio + squares) ** 2).sum())
        misfit = outside + float((projected * (ratio / (ratio + squares)) ** 2).sum())
        alpha = gamma / max(length, 1e-12)
        beta = (n - gamma) / max(misfit, 1e-12)
        if beta <= 0 or abs(alpha / beta - ratio) <= CONVERGED * ratio:
            break
    beta = max(beta, 1e-12)
    length = float((beta**2 * squares * projected / (alpha + beta * squares) ** 2).sum())
    misfit = outside + float((projected * (alpha / (alpha + beta * squares)) ** 2).sum())
    # Directions beyond the rank add log(alpha) once to each side.
    log_det = float(np.log(alpha + beta * squares).sum()) + (d - len(squares)) * math.log(alpha)
    return 0.5 * (
        d * math.log(alpha)
        + n * math.log(beta)
        - beta * misfit
        - alpha * length
        - log_det
        - n * math.log(2 * math.pi)
    )


def _checked(
    features: npt.NDArray[np.floating], targets: npt.NDArray[np.integer]
) -> tuple[Floats, npt.NDArray[np.integer]]:
    f = np.asarray(features, dtype=np.float64)
    if f.ndim != 2 or f.shape[:1] != targets.shape:
        raise ValueError(f"features of shape {f.shape} and targets of shape {targets.shape}")
    if len(np.unique(targets)) < 2:
        raise ValueError("scores need at least two classes")
    if not np.isfinite(f).all():
        raise ValueError("features that are infinite or not a number")
    return f, targets
