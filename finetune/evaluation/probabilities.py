"""Logits -> probabilities, in NumPy alone, so that every way of predicting computes them alike."""

import numpy as np
from numpy.typing import NDArray


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log-probabilities of (N, C) logits, computed in float64.

    The largest logit of each row is subtracted first, so that nothing overflows.
    """
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.asarray(shifted - log_total, dtype=np.float64)


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities of (N, C) logits, computed in float64; each row sums to 1."""
    return np.exp(log_softmax(logits))


def ranked(logits: NDArray[np.floating], k: int) -> NDArray[np.intp]:
    """The ``k`` best classes of each row of (N, C) logits, best first; of equals, the lowest index first."""
    return np.argsort(-logits, axis=1, kind="stable")[:, :k]


def in_digits(probability: float) -> str:
    """A probability as tables hold it, to six significant digits: more are noise, and change with the CPU."""
    return f"{probability:.6g}"
