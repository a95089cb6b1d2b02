"""The styles of the classes on a map: which ones have a colour and a shape of their own."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.disk.figure import COLOURS, MARKERS

# With more classes, only so many have a colour and a shape of their own: nobody can tell more apart.
MOST_CLASSES = 20


@dataclass(frozen=True)
class PointStyle:
    """A colour and a shape: places in ``COLOURS`` and ``MARKERS``. No two classes share both."""

    colour: int
    marker: int


def point_styles(
    targets: NDArray[np.int64], wrong: NDArray[np.bool_], num_classes: int
) -> dict[int, PointStyle]:
    """Choose the style of each class on a map; a class without one is drawn in grey.

    Up to 20 classes all have one. Of more, those with the most mistakes have one; of equals, those with the
    most images.

    Args:
        targets: (N,), the classes of the points.
        wrong: (N,), whether a point is a mistake.
    """
    counts = np.bincount(targets, minlength=num_classes)
    mistakes = np.bincount(targets[wrong], minlength=num_classes)
    chosen = [each for each in np.lexsort((np.arange(num_classes), -counts, -mistakes)) if counts[each]]
    present = sorted(int(each) for each in chosen[:MOST_CLASSES])
    return {
        index: PointStyle(place % len(COLOURS), (place + place // len(COLOURS)) % len(MARKERS))
        for place, index in enumerate(present)
    }
