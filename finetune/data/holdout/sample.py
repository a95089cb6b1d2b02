"""A sample of images with their classes in proportion."""

import numpy as np
from numpy.typing import NDArray

from finetune.data.holdout.splits import split_stratified


def sample(targets: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """Return the places of about ``most`` images, sorted, or of all if there are no more.

    Each class gives its share, and at least one image. The same arguments give the same places.

    Args:
        targets: (N,), the class of each image.
    """
    if len(targets) <= most:
        return np.arange(len(targets), dtype=np.int64)
    return split_stratified(targets, most / len(targets), seed, leave=0)[1]
