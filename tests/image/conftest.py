from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def noise() -> Callable[[int, int], Image.Image]:
    """An RGB image (width, height) of noise; the same for the same size."""

    def make(width: int, height: int) -> Image.Image:
        rng = np.random.default_rng(width * 100_003 + height)
        return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))

    return make
