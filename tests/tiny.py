"""A network that is built, traced and trained in a blink, in the place of a real one; images to match."""

import itertools
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor, nn

# The name that recipes ask for it by, where :func:`create` is in its place.
STANDS_FOR = "resnet18"


class TinyNetwork(nn.Module):
    """Three layers with BatchNorm, and a head behind dropout."""

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


def create(name: str, *, num_classes: int, **_options: object) -> nn.Module:
    """In place of ``torchvision.models.get_model``."""
    assert name == STANDS_FOR
    return TinyNetwork(num_classes)


def draw_images(root: Path, counts: dict[str, tuple[int, int]]) -> Path:
    """``{"train": (12, 5)}``: so many images of noise of two classes, one a little brighter; 16 px."""
    for split, both in counts.items():
        for label, count in enumerate(both):
            folder = root / split / "ab"[label]
            folder.mkdir(parents=True)
            for index in range(count):
                draw = np.random.default_rng([label, index, len(split)])
                pixels = draw.integers(60 * label, 160 + 60 * label, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return root
