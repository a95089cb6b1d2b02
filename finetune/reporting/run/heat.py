"""Heat-maps over the images that a network sees: what speaks for the predicted class."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from finetune.data.dataset import Split
from finetune.errors import BadImageError
from finetune.explain.heatmaps.compute import heat_mapper
from finetune.explain.heatmaps.files import overlay
from finetune.model.build import find_own_layers
from finetune.page.thumbnails import first_colours
from finetune.training.trained import Trained

# Images in memory at a time.
CHUNK = 16


def heated(
    trained: Trained, split: Split, places: Sequence[int], targets: Sequence[int]
) -> dict[int, Image.Image]:
    """What the network sees of some images, in grey, and over it what speaks for a class.

    Args:
        places: of the images, in ``split``. Images that cannot be read are left out.
        targets: the class to explain, for each of them.

    Raises:
        FinetuneError: the network has no heat-map.
    """
    found = {}
    preprocessing = trained.card.preprocessing
    size = preprocessing.image_size
    table = find_own_layers(trained.module, trained.card.architecture)
    maps_of = heat_mapper(trained.module, table, (preprocessing.channels, size, size), "gradient")
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
        maps = maps_of(images.to(trained.device), classes)
        for (place, _, image), heat in zip(read, maps, strict=True):
            pixels = np.asarray(first_colours(image), dtype=np.uint8)
            found[place] = Image.fromarray(overlay(pixels, heat))
    return found
