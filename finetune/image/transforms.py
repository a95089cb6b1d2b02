"""The transforms of evaluation and training images, from a decoded image to the pixels of a view.

A transform has two steps. The first computes the *base*: the part that all views of an image share, 8 bits
per value. It can be cached. The second draws a *view* from the base, in the size that the network takes.
Batches of views are then normalised together (:mod:`finetune.data.batches.normalize`).

Randomness is keyed: a view depends on the image and the key alone. torchvision's transforms draw from torch's
global generator, which is therefore seeded for each view and restored afterwards. So several threads must not
draw views at the same time.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from PIL import Image

from finetune.errors import UserError, require_known
from finetune.image.augmentations import AUGMENTATIONS, Augmentation
from finetune.image.decode import reduced, reduced_size
from finetune.image.pixels import ImageOrBands, Pixels, map_triples
from finetune.image.preprocessing import Preprocessing
from finetune.image.view import View, seeded
from finetune.recipe.schema import AugmentSection


class EvalTransform:
    """The preprocessing of evaluation. There is one view per image."""

    # Training alone decodes images at a reduced size.
    shorter = None

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def base(self, image: ImageOrBands) -> Pixels:
        """Resize and crop or pad an image: uint8 (S, S, 3 or bands)."""
        return np.asarray(self.preprocessing.geometry(image))

    @property
    def base_facts(self) -> dict[str, Any]:
        """Everything besides the image that :meth:`base` depends on, JSON-ready."""
        return _geometry(self.preprocessing)

    def view(self, base: Pixels, key: int) -> View:
        """The only view, whatever the key."""
        return View(self.preprocessing.colours(base))


class TrainTransform:
    """Applies the augmentations of a recipe, in the order of :data:`AUGMENTATIONS`.

    With ``crop: none``, images are resized and cropped as in evaluation. With ``crop: random_resized`` and
    ``decode: auto``, large images are first reduced to :func:`reduced_side`. Areas that a rotation or shift
    uncovers take the mean colour, and erased rectangles become 0; both are 0 for the network. With all
    augmentations off, the result is bit-identical to ``preprocessing(image)``. Images with bands of their own
    get the same augmentation in every band.

    Raises:
        UserError: an augmentation needs colours, and the images have bands of their own.
    """

    def __init__(
        self, augment: AugmentSection, preprocessing: Preprocessing, decode: Literal["auto", "full"] = "auto"
    ) -> None:
        require_known("crop", augment.crop, ("none", "random_resized"))
        require_known("decode", decode, ("auto", "full"))
        self.preprocessing = preprocessing
        self._crops = augment.crop == "random_resized"
        self.shorter = reduced_side(augment, preprocessing) if self._crops and decode == "auto" else None
        chosen = [each for each in AUGMENTATIONS if each.is_on(augment)]
        if preprocessing.reads == "bands":
            _require_bands(chosen, preprocessing.channels)
        self._augmentations = [each.create(augment, preprocessing) for each in chosen]

    def base(self, image: ImageOrBands) -> Pixels:
        """Compute the base of an image of any size: uint8 (height, width, 3 or bands)."""
        if not self._crops:
            image = self.preprocessing.geometry(image)
        elif self.shorter is not None:
            shorter = self.shorter
            if isinstance(image, Image.Image):
                image = reduced(image, shorter)
            elif min(image.shape[:2]) > shorter:
                image = map_triples(image, lambda triple, _: reduced(triple, shorter))
        return np.asarray(image)

    def view(self, base: Pixels, key: int) -> View:
        """Draw the view of ``key``."""
        view = View(base)
        with seeded(key):
            for apply in self._augmentations:
                view = apply(view)
        return replace(view, pixels=self.preprocessing.colours(view.pixels))

    @property
    def base_facts(self) -> dict[str, Any]:
        """Everything besides the image that :meth:`base` depends on, JSON-ready."""
        return {"shorter": self.shorter} if self._crops else _geometry(self.preprocessing)

    def base_bytes(self, width: int, height: int) -> int:
        """The size in bytes of the base of an image of ``width`` x ``height`` pixels."""
        if not self._crops:
            width = height = self.preprocessing.image_size
        elif self.shorter is not None and min(width, height) > self.shorter:
            width, height = reduced_size(width, height, self.shorter)
        return width * height * (self.preprocessing.channels if self.preprocessing.reads == "bands" else 3)


Transform = EvalTransform | TrainTransform


def reduced_side(augment: AugmentSection, preprocessing: Preprocessing) -> int:
    """The shorter side, in pixels, to which large images are reduced before random crops.

    A square crop that covers the middle of ``scale`` still has as many pixels as the network sees. Only
    smaller crops are enlarged. The side is never shorter than the ``resize`` of evaluation.
    """
    middle = sum(augment.scale) / 2
    return max(preprocessing.resize, math.ceil(preprocessing.image_size / math.sqrt(middle)))


def _require_bands(augmentations: Sequence[Augmentation], bands: int) -> None:
    if unsuitable := [each for each in augmentations if each.needs_colours]:
        suitable = [key for each in AUGMENTATIONS if not each.needs_colours for key in each.keys]
        raise UserError(
            f"train.augment.{unsuitable[0].keys[0]}: needs colours, and these images have {bands} bands of "
            f"their own. Leave it out; {', '.join(suitable)}, mixup and cutmix treat all bands alike."
        )


def _geometry(preprocessing: Preprocessing) -> dict[str, Any]:
    facts = preprocessing.to_dict()
    names = ("image_size", "resize", "resize_mode", "interpolation")
    fill = {"fill": list(preprocessing.mean_colour)} if preprocessing.resize_mode == "pad" else {}
    return {name: facts[name] for name in names} | fill
