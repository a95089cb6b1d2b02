from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Scene = Callable[..., Image.Image]


@pytest.fixture(scope="session")
def scene() -> Scene:
    """An image that depends on the number: coloured clouds of several sizes, as in a photograph."""

    def make(number: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
        rng = np.random.default_rng(number)
        layers = np.zeros((size[1], size[0], 3))
        for side, strength in ((3, 60), (7, 35), (16, 20)):
            noise = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            grown = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
            layers += (np.asarray(grown, dtype=np.float64) - 127.5) * strength / 64
        return Image.fromarray(np.clip(128 + layers * 0.6, 0, 255).astype(np.uint8))

    return make


@pytest.fixture
def clean(tmp_path: Path, scene: Scene) -> Path:
    """Two classes with 12, 16 and 16 images each in train, val and test; nothing is wrong with them."""
    root = tmp_path / "photos"
    number = 0
    for split, count in {"train": 12, "val": 16, "test": 16}.items():
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                number += 1
                scene(number).save(root / split / name / f"{index:02}.jpg", quality=92)
    return root
