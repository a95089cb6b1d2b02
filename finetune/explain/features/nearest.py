"""The most similar images: nearest neighbours by the cosine similarity of their features."""

import numpy as np
from numpy.typing import NDArray

# Similarities are compared in steps of one millionth, which is about what float32 features carry. So copies
# of an image are equally similar, in whatever order the products are summed.
STEPS = 1_000_000
# Similarities in memory at a time.
CHUNK = 1 << 22


def nearest(
    query: NDArray[np.float32], pool: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the ``k`` rows of ``pool`` most similar to each row of ``query``.

    Args:
        query: (Q, D).
        pool: (N, D).
        k: at least 1; with fewer than ``k`` rows in the pool, all of them are found.

    Returns:
        Indices into the pool, (Q, min(k, N)), the most similar first; of equals, the lowest index. And their
        cosine similarities, -1 to 1, rounded to six digits. A row of zeros is similar to nothing: 0.
    """
    k = min(k, len(pool))
    keys = np.empty((len(query), k), dtype=np.int64)
    rows = max(1, min(len(pool), CHUNK // max(1, query.shape[1])))
    step = max(1, CHUNK // rows)
    for start in range(0, len(query), step):
        own = _unit(query[start : start + step])
        best = np.empty((len(own), 0), dtype=np.int64)
        for first in range(0, len(pool), rows):
            part = _unit(pool[first : first + rows])
            places = np.arange(first, first + len(part))
            # One number holds similarity and index: the smaller, the nearer.
            likeness = np.rint(np.clip(own @ part.T, -1.0, 1.0) * STEPS).astype(np.int64)
            best = np.concatenate([best, (STEPS - likeness) * len(pool) + places], axis=1)
            if best.shape[1] > k:
                best = np.partition(best, k - 1, axis=1)[:, :k]
        keys[start : start + step] = np.sort(best, axis=1)
    similarities = np.round(1.0 - (keys // max(1, len(pool))) / STEPS, 6)
    return keys % max(1, len(pool)), similarities


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scale each row to length 1, in double precision; rows of zeros stay."""
    wide = rows.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    np.divide(wide, lengths, out=wide, where=lengths > 0)
    return wide
