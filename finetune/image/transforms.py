"""What training images go through: augmentation by the recipe, then the evaluation's own normalisation.

An image goes two steps. What all its looks have in common comes first, and can be kept: its *base*, 8-bit
RGB. One *look* is drawn from that, 8 bits too, with the side that the network sees. Whole batches of looks
are then normalised at once (:mod:`finetune.data.batches.normalize`).

Randomness is keyed: what comes out depends on the image and the key alone. torchvision's v2 transforms draw
from torch's global generator, so it is seeded for each image and put back afterwards; for that reason these
objects must not be called from several threads at once.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from finetune.errors import UserError, require_known
from finetune.image.decode import reduced, reduced_size
from finetune.image.preprocessing import Preprocessing
from finetune.image.threes import ImageOrBands, Pixels, by_threes, in_threes
from finetune.recipe.schema import AugmentSection

INTERPOLATION = {
    "nearest": v2.InterpolationMode.NEAREST,
    "bilinear": v2.InterpolationMode.BILINEAR,
    "bicubic": v2.InterpolationMode.BICUBIC,
    "lanczos": v2.InterpolationMode.LANCZOS,
}
# What torch resizes 8-bit pixels by, two to three times as fast as Pillow. At most one level apart from it.
RESIZED_BY_TORCH = ("bilinear", "bicubic")


# What is drawn between colours, or counts on there being three of them.
OF_COLOURS = ("color_jitter", "randaugment", "trivial_augment")

# Top, left, height and width in pixels.
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class View:
    """One look of an image: uint8 (S, S, depth), and what is to be erased of it.

    ``depth`` is 3 for colours, 1 for grey, or the number of a file's own bands.
    """

    pixels: Pixels
    erased: Box | None = None


class Transform(Protocol):
    """What a reader does with each image. ``shorter`` is the size that it may be decoded at, if any."""

    preprocessing: Preprocessing
    shorter: int | None

    def base(self, image: ImageOrBands) -> Pixels:
        """An image of any size -> what all its looks have in common: uint8 (height, width, 3 or bands)."""
        ...

    def view(self, base: Pixels, key: int) -> View:
        """The look that ``key`` names."""
        ...


class EvalTransform:
    """The evaluation's own preprocessing."""

    shorter: int | None = None

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def base(self, image: ImageOrBands) -> Pixels:
        """Resized and cut out: uint8, shape (S, S, 3 or bands)."""
        return np.asarray(self.preprocessing.geometry(image))

    @property
    def base_facts(self) -> dict[str, Any]:
        """All that :meth:`base` depends on beside the image, JSON-ready."""
        return _geometry(self.preprocessing)

    def view(self, base: Pixels, key: int) -> View:
        """The only one there is."""
        return View(self.preprocessing.colours(base))


class TrainTransform:
    """Augmentation, in this order: crop, flips, rotation and shift, colour jitter, RandAugment or
    TrivialAugment, normalisation, random erasing.

    ``crop: none`` is the evaluation's own resize and centre crop. ``crop: random_resized`` cuts a part out of
    the image, which under ``decode: auto`` is brought down to :func:`reduced_side` before. Where evaluation
    shows the whole of a wide image, squashed or padded, the part has the image's own proportions (but for
    what ``ratio`` varies) and is squashed or padded as well: the largest part is what evaluation sees. What
    a rotation or shift uncovers takes the mean colour, as do erased rectangles: both are 0 for the network.
    With everything off, the bits are those of ``preprocessing(image)``. Of images with bands of their own,
    every band goes through the same.

    Raises:
        UserError: an augmentation of colours, for images with bands of their own.
    """

    def __init__(
        self, augment: AugmentSection, preprocessing: Preprocessing, decode: Literal["auto", "full"] = "auto"
    ) -> None:
        require_known("crop", augment.crop, ("none", "random_resized"))
        require_known("decode", decode, ("auto", "full"))
        self.preprocessing = preprocessing
        crops = augment.crop == "random_resized"
        self.shorter = reduced_side(augment, preprocessing) if crops and decode == "auto" else None
        self._crop = v2.RandomResizedCrop(1, scale=augment.scale, ratio=augment.ratio) if crops else None
        self._augment = augment
        self._pixels = _pixel_transforms(augment, preprocessing)
        self._by_bands = preprocessing.reads == "bands"
        self._erase = v2.RandomErasing(p=augment.random_erasing) if augment.random_erasing else None

    def base(self, image: ImageOrBands) -> Pixels:
        """An image of any size -> what all its looks have in common: uint8 (height, width, 3 or bands)."""
        if self._crop is None:
            image = self.preprocessing.geometry(image)
        elif self.shorter is not None:
            shorter = self.shorter
            if isinstance(image, Image.Image):
                image = reduced(image, shorter)
            elif min(image.shape[:2]) > shorter:
                image = by_threes(image, lambda three, _: reduced(three, shorter))
        return np.asarray(image)

    def view(self, base: Pixels, key: int) -> View:
        """The look that ``key`` names."""
        with seeded(key):
            pixels = base
            if self._crop is not None:
                pixels = self._cut(base, *self._part(self._crop, *base.shape[:2]))
            if self._augment.flip and float(torch.rand(1)) < 0.5:
                # NumPy would copy pixel by pixel.
                pixels = torch.from_numpy(_writable(pixels)).flip(1).numpy()
            if self._augment.vertical_flip and float(torch.rand(1)) < 0.5:
                pixels = pixels[::-1]
            if self._pixels:
                pixels = self._changed(pixels)
            return View(self.preprocessing.colours(pixels), self._box())

    @property
    def base_facts(self) -> dict[str, Any]:
        """All that :meth:`base` depends on beside the image, JSON-ready."""
        return _geometry(self.preprocessing) if self._crop is None else {"shorter": self.shorter}

    def base_bytes(self, width: int, height: int) -> int:
        """What :meth:`base` of an image of that size takes."""
        if self._crop is None:
            width = height = self.preprocessing.image_size
        elif self.shorter is not None and min(width, height) > self.shorter:
            width, height = reduced_size(width, height, self.shorter)
        return width * height * (self.preprocessing.channels if self._by_bands else 3)

    def _changed(self, pixels: Pixels) -> Pixels:
        """What the transforms of pixels make of it: the same draws for all bands."""
        if not self._by_bands:
            return np.asarray(_through(self._pixels[0], Image.fromarray(pixels)))
        before = torch.default_generator.get_state()

        def change(three: Image.Image, which: int) -> Image.Image:
            torch.default_generator.set_state(before)
            return _through(self._pixels[which], three)

        return by_threes(pixels, change)

    def _part(self, crop: v2.RandomResizedCrop, height: int, width: int) -> Box:
        """Draw the part of an image of that size that is cut out."""
        if self.preprocessing.resize_mode == "shorter":
            return _drawn(crop, height, width)
        # Drawn of a square, and stretched with it to the image.
        side = max(height, width)
        first, second, high, broad = _drawn(crop, side, side)
        top, tall = _stretched(first, high, side, height)
        left, wide = _stretched(second, broad, side, width)
        return top, left, tall, wide

    def _cut(self, base: Pixels, top: int, left: int, height: int, width: int) -> Pixels:
        """That part of an image, brought to the size that the network sees."""
        part = base[top : top + height, left : left + width].copy()
        size = self.preprocessing.image_size
        if self.preprocessing.resize_mode != "pad":
            return self._resize(part, size, size)
        wide, tall = self.preprocessing.resized(width, height)
        canvas = np.empty((size, size, part.shape[2]), dtype=np.uint8)
        canvas[:] = self.preprocessing.mean_colour
        top, left = (size - tall) // 2, (size - wide) // 2
        canvas[top : top + tall, left : left + wide] = self._resize(part, tall, wide)
        return canvas

    def _resize(self, part: Pixels, height: int, width: int) -> Pixels:
        interpolation = self.preprocessing.interpolation
        if interpolation not in RESIZED_BY_TORCH:

            def resized(image: Image.Image, _: int = 0) -> Image.Image:
                found: Image.Image = v2.functional.resize(
                    image, [height, width], INTERPOLATION[interpolation]
                )
                return found

            return by_threes(part, resized) if self._by_bands else np.asarray(resized(Image.fromarray(part)))
        # In this order: torch then sees channels-last format, for which it has a kernel.
        batch = torch.from_numpy(part).unsqueeze(0).permute(0, 3, 1, 2)
        cut = torch.nn.functional.interpolate(batch, (height, width), mode=interpolation, antialias=True)
        return cut[0].permute(1, 2, 0).numpy()

    def _box(self) -> Box | None:
        """What is erased, if anything."""
        if self._erase is None or float(torch.rand(1)) >= self._erase.p:
            return None
        side = self.preprocessing.image_size
        drawn = self._erase.make_params([_shaped(self.preprocessing.channels, side, side)])
        # No value: none of the rectangles that were drawn fits.
        return None if drawn["v"] is None else (drawn["i"], drawn["j"], drawn["h"], drawn["w"])


def reduced_side(augment: AugmentSection, preprocessing: Preprocessing) -> int:
    """The shorter side, in pixels, that large images are brought down to before random parts are cut out.

    A square crop that covers the middle of ``scale`` still has all the pixels that the network sees; only
    smaller ones are enlarged. Never less than what evaluation resizes to.
    """
    middle = sum(augment.scale) / 2
    return max(preprocessing.resize, math.ceil(preprocessing.image_size / math.sqrt(middle)))


@contextmanager
def seeded(key: int) -> Iterator[None]:
    """Within, torch's CPU generator starts from ``key``; afterwards it is where it was before."""
    generator = torch.default_generator
    before = generator.get_state()
    # Not torch.manual_seed, which would seed the GPUs too.
    generator.manual_seed(key)
    try:
        yield
    finally:
        generator.set_state(before)


def _geometry(preprocessing: Preprocessing) -> dict[str, Any]:
    facts = preprocessing.to_dict()
    names = ("image_size", "resize", "resize_mode", "interpolation")
    fill = {"fill": list(preprocessing.mean_colour)} if preprocessing.resize_mode == "pad" else {}
    return {name: facts[name] for name in names} | fill


def _drawn(crop: v2.RandomResizedCrop, height: int, width: int) -> Box:
    """A part of an image of that size, of one pixel at least."""
    drawn = crop.make_params([_shaped(3, height, width)])
    # Of a ratio that the image has no room for, torchvision rounds the shorter side down to nothing.
    return drawn["top"], drawn["left"], max(1, drawn["height"]), max(1, drawn["width"])


def _stretched(start: int, length: int, side: int, wanted: int) -> tuple[int, int]:
    """A stretch of one side, as start and length, on a side of another length; one pixel at least."""
    first = min(round(start * wanted / side), wanted - 1)
    return first, max(1, round((start + length) * wanted / side) - first)


def _writable(pixels: Pixels) -> Pixels:
    """The same, for torch, which takes no other."""
    return pixels if pixels.flags.writeable else pixels.copy()


def _shaped(*shape: int) -> Tensor:
    """All that v2 wants to know of an image to draw what is done with it: its shape."""
    return torch.empty(shape, device="meta")


def _through(transforms: Sequence[v2.Transform], image: Image.Image) -> Image.Image:
    for transform in transforms:
        image = transform(image)
    return image


def _pixel_transforms(augment: AugmentSection, preprocessing: Preprocessing) -> list[list[v2.Transform]]:
    """For colours; or for each three bands, which differ in the fill: none, where there is nothing to do."""
    if preprocessing.reads == "bands" and (named := [name for name in OF_COLOURS if getattr(augment, name)]):
        raise UserError(
            f"train.augment.{named[0]}: made for colours, and these images have {preprocessing.channels} "
            "bands of their own. Leave it out; crop, flip, vertical_flip, rotation, translate, "
            "random_erasing, mixup and cutmix treat all bands alike."
        )
    fills = in_threes(preprocessing.mean_colour)
    found = [_transforms_of(augment, preprocessing, list(fill)) for fill in fills]
    return found if found[0] else []


def _transforms_of(
    augment: AugmentSection, preprocessing: Preprocessing, mean_colour: list[int]
) -> list[v2.Transform]:
    # Pillow has no Lanczos filter for anything but resizing.
    nearest = preprocessing.interpolation == "nearest"
    interpolation = v2.InterpolationMode.NEAREST if nearest else v2.InterpolationMode.BILINEAR
    transforms: list[v2.Transform] = []
    if augment.rotation or augment.translate:
        transforms.append(
            v2.RandomAffine(
                degrees=augment.rotation,
                translate=(augment.translate, augment.translate) if augment.translate else None,
                interpolation=interpolation,
                fill=mean_colour,
            )
        )
    if jitter := augment.color_jitter:
        transforms.append(
            v2.ColorJitter(
                brightness=jitter.brightness,
                contrast=jitter.contrast,
                saturation=jitter.saturation,
                hue=jitter.hue,
            )
        )
    if augment.randaugment:
        transforms.append(
            v2.RandAugment(
                num_ops=augment.randaugment.num_ops,
                magnitude=augment.randaugment.magnitude,
                interpolation=interpolation,
                fill=mean_colour,
            )
        )
    if augment.trivial_augment:
        transforms.append(v2.TrivialAugmentWide(interpolation=interpolation, fill=mean_colour))
    return transforms
