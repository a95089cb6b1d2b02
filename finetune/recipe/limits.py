"""Bounds that the recipe and the card of a checkpoint share."""

from typing import Any

# Pixels.
IMAGE_SIZE = (8, 4096)
RESIZE = (8, 8192)
CHANNELS = (1, 64)
# Units of a hidden layer.
HIDDEN = (1, 65536)


def is_whole(value: Any, bounds: tuple[int, int]) -> bool:
    """Whether ``value`` is an integer (not a boolean) within ``bounds``, both included."""
    return type(value) is int and bounds[0] <= value <= bounds[1]
