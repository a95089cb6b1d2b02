"""LogME and the H-score: how well features would transfer to labels, without training. NumPy only."""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MOST_STEPS = 100
# The fixed-point iteration stops at this relative change of the ratio of the two precisions.
CONVERGED = 1e-5


def log_me(features: npt.NDArray[np.floating], targets: npt.NDArray[np.integer]) -> float:
    """LogME (You et al. 2021, "LogME: Practical assessment of pre-trained models for transfer learning").

    For each class, the 0/1 labels are regressed on the features by Bayesian linear regression (MacKay 1992).
    The score is the log evidence per image, maximised over the two precisions and averaged over the classes.
    Higher is better. Only scores for the same images are comparable. The maximum is found by the fixed-point
    iteration that the paper proves to converge, in the basis of the singular vectors.

    Args:
        features: (N, D), finite. They are not centred, and no bias is added.
        targets: (N,) class indices; classes without images are ignored.

    Raises:
        ValueError: there are fewer than two classes, or the shapes do not match.
    """
    f, y = _checked(features, targets)
    n, d = len(f), int(f.shape[1])
    u, s, _ = np.linalg.svd(f, full_matrices=False)
    rank = int((s > s.max(initial=0.0) * max(n, d) * np.finfo(np.float64).eps).sum())
    u, squares = u[:, :rank], s[:rank] ** 2
    evidences = [_evidence(u, squares, (y == each).astype(np.float64), d) for each in np.unique(y)]
    return float(np.mean(evidences)) / len(f)


def h_score(
    features: npt.NDArray[np.floating], targets: npt.NDArray[np.integer], shrinkage: float = 0.0
) -> float:
    """The H-score (Bao et al. 2019, "An information-theoretic approach to transferability"): the trace of
    cov(f)^-1 cov(E[f | y]).

    The score sums, over all directions, the share of the variance that lies between the classes. It ranges
    from 0 (the class means coincide) to the number of classes minus 1 (each class is a point). Higher is
    better. Directions without variance are left out. With as many features as images, the score is maximal
    for any labels unless the covariance is shrunk (Ibrahim et al. 2022, "Newer is not always better:
    Rethinking transferability metrics"): cov becomes (1 - a) cov + a v I, where v is the mean variance of the
    features, and the covariance of the class means is multiplied by 1 - a.

    Args:
        features: (N, D), finite.
        targets: (N,) class indices.
        shrinkage: a, from 0 (the plain score) to below 1, for instance from scikit-learn's
            ``ledoit_wolf_shrinkage`` (Ledoit and Wolf 2004).

    Raises:
        ValueError: there are fewer than two classes, or the shapes do not match.
    """
    f, y = _checked(features, targets)
    centred = f - f.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    # In a basis in which the features are white, only the covariance of the class means matters.
    varying = s > s.max(initial=0.0) * max(f.shape) * np.finfo(np.float64).eps
    white, variance = u[:, varying], (1 - shrinkage) * s[varying] ** 2
    weights = variance / (variance + shrinkage * float((s**2).sum()) / f.shape[1])
    total = 0.0
    for each in np.unique(y):
        own = y == each
        total += float(weights @ white[own].sum(axis=0) ** 2) / int(own.sum())
    return total


def _evidence(u: Floats, squares: Floats, labels: Floats, d: int) -> float:
    """Maximise the log evidence over the two precisions, for one column of labels.

    ``u`` (N, R) and ``squares`` (R,) are the left singular vectors and squared singular values of the
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
    # Each direction beyond the rank contributes log(alpha).
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
        raise ValueError("features are infinite or not a number")
    return f, targets
