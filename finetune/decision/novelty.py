"""None of these: how unlike the training images an image is, by its nearest neighbours (Sun et al. 2022).

The score of an image is one minus the cosine between its features and those of its k-th nearest training
image. Features are the input of the last layer of the head. A threshold keeps most of val: images above it
are marked. docs/measured/novelty.md compares this score with others.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The neighbour that counts. With fewer training images, the last one counts.
NEIGHBOURS = 5
# The share of val that is not marked.
KEPT = 0.95
# Features with a smaller length have no direction.
LEAST_LENGTH = 1e-12
# A threshold lies above the score that it keeps: scores of a run and of its exported file differ by rounding.
MARGIN = 0.01


@dataclass(frozen=True)
class Novelty:
    """The threshold above which an image is unlike the training images.

    Attributes:
        threshold: of the score; None: val has too few images for one, so none is marked.
        n: the number of images of val that it was chosen on.
        images: the number of training images whose features are kept, at least 1.
        neighbours: which of the nearest of them counts, 1 to ``images``.
    """

    threshold: float | None
    n: int
    images: int
    neighbours: int

    @classmethod
    def of(cls, scores: NDArray[np.float32], images: int) -> "Novelty":
        """Choose the threshold on the (N,) scores of val, with the features of ``images`` training images."""
        return cls(choose_threshold(scores), len(scores), images, cls.neighbours_of(images))

    @staticmethod
    def neighbours_of(images: int) -> int:
        """Which neighbour counts if the features of ``images`` training images are kept."""
        return min(NEIGHBOURS, images)

    def is_novel(self, score: float) -> bool | None:
        """Whether an image with this score is unlike the training images; None: there is no threshold."""
        return None if self.threshold is None else score > self.threshold

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def read_novelty(value: Any) -> Novelty | None:
    """Read the result of :meth:`Novelty.to_dict`; None: the model knows no score.

    Raises:
        ValueError: an entry is missing, has the wrong type or is out of range.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError("must be a mapping")
    threshold, counts = value.get("threshold"), [value.get(name) for name in ("n", "images", "neighbours")]
    is_number = isinstance(threshold, float | int) and not isinstance(threshold, bool)
    if threshold is not None and not (is_number and math.isfinite(threshold)):
        raise ValueError(f"threshold must be a number or null, not {threshold!r}")
    whole = [each for each in counts if isinstance(each, int) and not isinstance(each, bool)]
    if len(whole) < len(counts):
        raise ValueError("n, images and neighbours must be whole numbers")
    n, images, neighbours = whole
    if n < 0 or not 1 <= neighbours <= images:
        raise ValueError("neighbours must be from 1 to images, and n at least 0")
    return Novelty(None if threshold is None else float(threshold), n, images, neighbours)


def unit_rows(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale (N, D) features to length 1; features of length 0 stay."""
    rows = features.astype(np.float32)
    found: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), LEAST_LENGTH)
    return found


def nearest_scores(
    features: NDArray[np.floating], reference: NDArray[np.floating], neighbours: int
) -> NDArray[np.float32]:
    """Compute the (N,) scores of (N, D) features, from 0 (as a training image) to 2.

    Args:
        reference: (M, D) features of training images, of length 1.
        neighbours: which of the nearest counts, 1 to M.
    """
    distances = 1 - unit_rows(features) @ reference.astype(np.float32).T
    found: NDArray[np.float32] = np.partition(distances, neighbours - 1, axis=1)[:, neighbours - 1]
    # Rounding can take a distance of 0 below it.
    return np.maximum(found, 0)


def choose_threshold(scores: NDArray[np.floating]) -> float | None:
    """Return the threshold that keeps 95 % of images like those of val, from the (N,) scores of val.

    It is the finite-sample quantile of conformal prediction (Vovk et al. 2005): a new image of the same kind
    exceeds it with a chance of at most 5 %, over the draw of val and of the image. None: val has fewer than
    19 images, with which no score is high enough. Between two scores, the threshold is half-way, but at most
    1 % above the lower one.
    """
    rank = math.ceil((len(scores) + 1) * KEPT)
    if rank > len(scores):
        return None
    ordered = np.sort(scores.astype(np.float64))
    kept = float(ordered[rank - 1])
    above = ordered[ordered > kept]
    most = abs(kept) * MARGIN
    return kept + (min(float(above[0] - kept) / 2, most) if len(above) else most)
