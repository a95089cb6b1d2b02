"""Heat-maps over the images that a network sees: what speaks for the predicted class."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from finetune.data.dataset import Split
from finetune.errors import BadImageError
from finetune.explain.heatmaps import heat_maps
from finetune.model.layers.table import LayerTable
from finetune.page.thumbnails import first_colours
from finetune.training.trained import Trained

# Images in memory at a time.
CHUNK = 16
# How opaque the hottest part is. What is below this heat stays grey.
MOST = 0.8
LEAST = 0.12
COLOURS = "inferno"


def heated(
    trained: Trained, table: LayerTable, split: Split, places: Sequence[int], targets: Sequence[int]
) -> dict[int, Image.Image]:
    """What the network sees of some images, in grey, and over it what speaks for a class.

    Args:
        table: the layers of the network.
        places: of the images, in ``split``. Images that cannot be read are left out.
        targets: the class to explain, for each of them.

    Raises:
        FinetuneError: the network has no heat-map.
    """
    found = {}
    preprocessing = trained.card.preprocessing
    for start in range(0, len(places), CHUNK):
        read = []
        for place, target in list(zip(places, targets, strict=True))[start : start + CHUNK]:
            try:
                read.append((place, target, preprocessing.geometry(split.image(place, preprocessing.bands))))
            except BadImageError:
                continue
        if not read:
            continue
        images = torch.from_numpy(np.stack([preprocessing.normalize(image) for *_, image in read]))
        classes = torch.tensor([target for _, target, _ in read])
        maps = heat_maps(
            trained.module, table, images.to(trained.device), classes.to(trained.device), "gradient"
        )
        for (place, _, image), heat in zip(read, maps, strict=True):
            found[place] = overlay(first_colours(image), heat)
    return found


def overlay(image: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """Lay a map (S, S), 0 to 1, over an image of that size, which becomes grey."""
    from matplotlib import colormaps

    grey = np.asarray(image.convert("L").convert("RGB"), dtype=np.float32)
    warm = np.clip((heat - LEAST) / (1 - LEAST), 0, 1)
    colours = colormaps[COLOURS](0.4 + 0.55 * warm)[:, :, :3].astype(np.float32) * 255
    opacity = MOST * warm[:, :, None] ** 0.75
    return Image.fromarray((grey * (1 - opacity) + colours * opacity).astype(np.uint8))
