"""The random resized crop of training."""

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from finetune.image.pixels import Pixels, map_triples
from finetune.image.preprocessing import Preprocessing
from finetune.image.view import Box, View, stand_in
from finetune.recipe.schema import AugmentSection

# torch resizes 8-bit pixels two to three times as fast as Pillow with these. The results differ by one level
# at most.
RESIZED_BY_TORCH = ("bilinear", "bicubic")


class RandomResizedCrop:
    """Crops a random part of the image, and resizes it to the size that the network takes.

    Under resize_mode ``squash`` and ``pad``, evaluation shows the whole of a wide image. The part then has
    the aspect ratio of the image, varied by ``ratio``, and is squashed or padded, too. So the largest part is
    what evaluation shows.
    """

    def __init__(self, augment: AugmentSection, preprocessing: Preprocessing) -> None:
        self._crop = v2.RandomResizedCrop(1, scale=augment.scale, ratio=augment.ratio)
        self._preprocessing = preprocessing

    def __call__(self, view: View) -> View:
        top, left, height, width = self._draw(*view.pixels.shape[:2])
        part = view.pixels[top : top + height, left : left + width].copy()
        return View(self._fit(part))

    def _draw(self, height: int, width: int) -> Box:
        if self._preprocessing.resize_mode == "shorter":
            return self._draw_part(height, width)
        # Drawn from a square, which is then scaled to the image.
        side = max(height, width)
        top, left, part_height, part_width = self._draw_part(side, side)
        top, part_height = _scaled(top, part_height, side, height)
        left, part_width = _scaled(left, part_width, side, width)
        return top, left, part_height, part_width

    def _draw_part(self, height: int, width: int) -> Box:
        drawn = self._crop.make_params([stand_in(3, height, width)])
        # If the image has no room for the ratio, torchvision rounds the shorter side down to 0.
        return drawn["top"], drawn["left"], max(1, drawn["height"]), max(1, drawn["width"])

    def _fit(self, part: Pixels) -> Pixels:
        size = self._preprocessing.image_size
        if self._preprocessing.resize_mode != "pad":
            return self._resize(part, size, size)
        width, height = self._preprocessing.resized(part.shape[1], part.shape[0])
        canvas = np.empty((size, size, part.shape[2]), dtype=np.uint8)
        canvas[:] = self._preprocessing.mean_colour
        top, left = (size - height) // 2, (size - width) // 2
        canvas[top : top + height, left : left + width] = self._resize(part, height, width)
        return canvas

    def _resize(self, part: Pixels, height: int, width: int) -> Pixels:
        interpolation = self._preprocessing.interpolation
        if interpolation not in RESIZED_BY_TORCH:

            def resized(image: Image.Image, _: int = 0) -> Image.Image:
                method = v2.InterpolationMode(interpolation)
                found: Image.Image = v2.functional.resize(image, [height, width], method)
                return found

            if self._preprocessing.reads == "bands":
                return map_triples(part, resized)
            return np.asarray(resized(Image.fromarray(part)))
        # In this order, torch sees the channels-last format, for which it has a kernel.
        batch = torch.from_numpy(part).unsqueeze(0).permute(0, 3, 1, 2)
        resized_batch = torch.nn.functional.interpolate(
            batch, (height, width), mode=interpolation, antialias=True
        )
        return resized_batch[0].permute(1, 2, 0).numpy()


def _scaled(start: int, length: int, side: int, wanted: int) -> tuple[int, int]:
    """Scale the span (start, length) of a side to a side of ``wanted`` pixels; at least one pixel long."""
    first = min(round(start * wanted / side), wanted - 1)
    return first, max(1, round((start + length) * wanted / side) - first)
