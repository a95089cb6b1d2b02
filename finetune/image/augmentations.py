"""The table of augmentations, in the order in which they are applied.

To add an augmentation: add its field to ``AugmentSection`` (off by default), its entry to
:data:`AUGMENTATIONS`, and a test. mixup and cutmix mix whole batches (:mod:`finetune.data.batches.mixing`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from finetune.image.pixels import map_triples, triples
from finetune.image.preprocessing import Preprocessing
from finetune.image.random_crop import RandomResizedCrop
from finetune.image.view import View, stand_in
from finetune.recipe.schema import AugmentSection

# Applies an augmentation to a view. It draws from torch's global generator.
Apply = Callable[[View], View]


@dataclass(frozen=True)
class Augmentation:
    """An augmentation that a recipe can ask for.

    Attributes:
        keys: the keys of ``train.augment`` that turn it on. It is on unless all have their default values.
        create: creates the function that applies it.
        parameters: further keys, which have no effect while it is off.
        needs_colours: whether it mixes colours, or expects three of them.
    """

    keys: tuple[str, ...]
    create: Callable[[AugmentSection, Preprocessing], Apply]
    parameters: tuple[str, ...] = ()
    needs_colours: bool = False

    def is_on(self, augment: AugmentSection) -> bool:
        """Whether the recipe asks for it."""
        fields = AugmentSection.model_fields
        return any(getattr(augment, key) != fields[key].default for key in self.keys)


class Flip:
    """Mirrors half of the views along an axis: 0 upside down, 1 left to right."""

    def __init__(self, axis: int) -> None:
        self._axis = axis

    def __call__(self, view: View) -> View:
        if float(torch.rand(1)) >= 0.5:
            return view
        # torch copies rows, NumPy single pixels. torch takes writable arrays only.
        pixels = view.pixels if view.pixels.flags.writeable else view.pixels.copy()
        return View(torch.from_numpy(pixels).flip(self._axis).numpy())


class PixelTransform:
    """Applies a torchvision transform of PIL images.

    Args:
        create: creates the transform for one triple of bands, given its fill colour.
    """

    def __init__(self, preprocessing: Preprocessing, create: Callable[[list[float]], v2.Transform]) -> None:
        self._by_bands = preprocessing.reads == "bands"
        self._transforms = [create(list(fill)) for fill in triples(preprocessing.mean_colour)]

    def __call__(self, view: View) -> View:
        if not self._by_bands:
            return View(np.asarray(self._transforms[0](Image.fromarray(view.pixels))))
        before = torch.default_generator.get_state()

        def change(triple: Image.Image, number: int) -> Image.Image:
            # The same draws for all bands.
            torch.default_generator.set_state(before)
            changed: Image.Image = self._transforms[number](triple)
            return changed

        return View(map_triples(view.pixels, change))


class RandomErasing:
    """Draws a rectangle to erase (Zhong et al. 2020). Normalisation sets it to 0."""

    def __init__(self, augment: AugmentSection, preprocessing: Preprocessing) -> None:
        self._erase = v2.RandomErasing(p=augment.random_erasing)
        self._shape = (preprocessing.channels, preprocessing.image_size, preprocessing.image_size)

    def __call__(self, view: View) -> View:
        if float(torch.rand(1)) >= self._erase.p:
            return view
        drawn = self._erase.make_params([stand_in(*self._shape)])
        # No value means that no drawn rectangle fits.
        box = None if drawn["v"] is None else (drawn["i"], drawn["j"], drawn["h"], drawn["w"])
        return View(view.pixels, box)


def _affine(augment: AugmentSection, preprocessing: Preprocessing) -> Apply:
    def create(fill: list[float]) -> v2.Transform:
        return v2.RandomAffine(
            degrees=augment.rotation,
            translate=(augment.translate, augment.translate) if augment.translate else None,
            interpolation=_interpolation(preprocessing),
            fill=fill,
        )

    return PixelTransform(preprocessing, create)


def _color_jitter(augment: AugmentSection, preprocessing: Preprocessing) -> Apply:
    jitter = augment.color_jitter
    assert jitter is not None
    return PixelTransform(
        preprocessing,
        lambda _: v2.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue),
    )


def _randaugment(augment: AugmentSection, preprocessing: Preprocessing) -> Apply:
    policy = augment.randaugment
    assert policy is not None

    def create(fill: list[float]) -> v2.Transform:
        return v2.RandAugment(
            policy.num_ops, policy.magnitude, interpolation=_interpolation(preprocessing), fill=fill
        )

    return PixelTransform(preprocessing, create)


def _trivial_augment(augment: AugmentSection, preprocessing: Preprocessing) -> Apply:
    def create(fill: list[float]) -> v2.Transform:
        return v2.TrivialAugmentWide(interpolation=_interpolation(preprocessing), fill=fill)

    return PixelTransform(preprocessing, create)


def _interpolation(preprocessing: Preprocessing) -> v2.InterpolationMode:
    # Pillow's bicubic and Lanczos filters only resize.
    nearest = preprocessing.interpolation == "nearest"
    return v2.InterpolationMode.NEAREST if nearest else v2.InterpolationMode.BILINEAR


AUGMENTATIONS = (
    Augmentation(("crop",), RandomResizedCrop, parameters=("scale", "ratio")),
    Augmentation(("flip",), lambda *_: Flip(axis=1)),
    Augmentation(("vertical_flip",), lambda *_: Flip(axis=0)),
    Augmentation(("rotation", "translate"), _affine),
    Augmentation(("color_jitter",), _color_jitter, needs_colours=True),
    Augmentation(("randaugment",), _randaugment, needs_colours=True),
    Augmentation(("trivial_augment",), _trivial_augment, needs_colours=True),
    Augmentation(("random_erasing",), RandomErasing),
)
# The keys of augmentations that images with bands of their own cannot have.
COLOUR_KEYS = tuple(key for each in AUGMENTATIONS if each.needs_colours for key in each.keys)
