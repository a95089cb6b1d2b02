"""Convert logits to probabilities with NumPy alone, so that torch and ONNX predictions agree. Torch-free."""

import numpy as np
from numpy.typing import NDArray


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Compute log-probabilities of (N, C) logits in float64.

    The largest logit of each row is subtracted first, to avoid overflow.
    """
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return np.asarray(shifted - log_total, dtype=np.float64)


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Compute probabilities of (N, C) logits in float64; each row sums to 1."""
    return np.exp(log_softmax(logits))


def surprise(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Compute -log p of each class, (N, C), in float64.

    Unlike ``-log_softmax(logits)``, it stays exact where p is so close to 1 that 1 - p is lost.
    """
    shifted = logits.astype(np.float64)
    best = shifted.argmax(axis=1)[:, None]
    shifted -= np.take_along_axis(shifted, best, axis=1)
    others = np.exp(shifted)
    np.put_along_axis(others, best, 0.0, axis=1)
    return np.asarray(np.log1p(others.sum(axis=1, keepdims=True)) - shifted, dtype=np.float64)


def ranked(logits: NDArray[np.floating], k: int) -> NDArray[np.intp]:
    """Return the ``k`` best classes of each row of (N, C) logits, best first; of equals, the lowest index."""
    return np.argsort(-logits, axis=1, kind="stable")[:, :k]


def in_digits(probability: float) -> str:
    """Format a probability with six significant digits. Further digits are noise that depends on the CPU."""
    return f"{probability:.6g}"
