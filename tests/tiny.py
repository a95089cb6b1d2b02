"""A tiny network that replaces a real backbone in tests, and images for it."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn
from torchvision import models

from finetune.recipe.load import parse_recipe
from finetune.recipe.schema import Recipe
from finetune.training.compute.precision import choose_compute, pick_device
from finetune.training.setup.prepare import Setup, load_data, prepare

# The backbone that :func:`stand_in` replaces: recipes name this one.
STANDS_FOR = "resnet18"


class TinyNetwork(nn.Module):
    """Three layers with BatchNorm, and a linear head."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        sizes = (3, 4, 6, 8)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                    nn.BatchNorm2d(after),
                    nn.ReLU(),
                )
                for before, after in itertools.pairwise(sizes)
            )
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(sizes[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.fc(self.pool(self.blocks(images)).flatten(1))
        return found


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have torchvision create a :class:`TinyNetwork` instead of a ResNet-18."""
    monkeypatch.setattr(models, "get_model", create)


def create(name: str, *, num_classes: int, **_options: Any) -> nn.Module:
    """Replaces ``torchvision.models.get_model``."""
    assert name == STANDS_FOR
    return TinyNetwork(num_classes)


def recipe(source: Path, train: str = "{}", *overrides: str) -> Recipe:
    """A recipe for the tiny network on images of 16 px, with this ``train`` section."""
    text = (
        f"data: {{source: {source}, image_size: 16, resize: 16, workers: 0}}\n"
        f"model: {{backbone: {STANDS_FOR}, weights: none}}\n"
        f"train: {train}\n"
    )
    return parse_recipe(text, "recipe.yaml", overrides)


def setup(of: Recipe) -> Setup:
    """The objects of a recipe, on the CPU."""
    compute = choose_compute(pick_device("cpu"), of.train)
    return prepare(of, load_data(of.data, of.seed), compute)


def draw_images(root: Path, counts: dict[str, tuple[int, int]]) -> Path:
    """Draw noise of 16 px in two classes, the second brighter. ``{"train": (12, 5)}``: images per class."""
    for split, both in counts.items():
        for label, count in enumerate(both):
            folder = root / split / "ab"[label]
            folder.mkdir(parents=True)
            for index in range(count):
                draw = np.random.default_rng([label, index, len(split)])
                pixels = draw.integers(60 * label, 160 + 60 * label, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return root
