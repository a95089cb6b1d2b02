"""The gain of one classifier over another on the same images."""

import math

import numpy as np
import numpy.typing as npt


def paired_gain(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return how much more often ``first`` is correct than ``second``, and the standard error of that."""
    gain = float(first.mean() - second.mean())
    return gain, math.sqrt(max(float((first != second).mean()) - gain**2, 0.0) / len(first))
