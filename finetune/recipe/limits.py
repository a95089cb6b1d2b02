"""Bounds that a recipe and the description of a trained model share."""

from typing import Any

# Pixels.
IMAGE_SIZE = (8, 4096)
RESIZE = (8, 8192)
CHANNELS = (1, 64)
# Units of a hidden layer.
HIDDEN = (1, 65536)


def is_whole(value: Any, bounds: tuple[int, int]) -> bool:
    """Whether ``value`` is a whole number within ``bounds``, both included; no boolean is."""
    return type(value) is int and bounds[0] <= value <= bounds[1]
