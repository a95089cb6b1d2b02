"""What training pictures go through: augmentation by the recipe, then the evaluation's own normalisation.

Randomness is keyed: what comes out depends on the picture and the key alone. torchvision's v2 transforms draw
from torch's global generator, so it is seeded for each picture and put back afterwards; for that reason these
objects must not be called from several threads at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from finetune.data.preprocessing import Preprocessing
from finetune.recipe.schema import AugmentSection

INTERPOLATION = {
    "nearest": v2.InterpolationMode.NEAREST,
    "bilinear": v2.InterpolationMode.BILINEAR,
    "bicubic": v2.InterpolationMode.BICUBIC,
    "lanczos": v2.InterpolationMode.LANCZOS,
}


class EvalTransform:
    """The evaluation's own preprocessing, as a tensor."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing

    def __call__(self, image: Image.Image, key: int = 0) -> Tensor:
        """float32, shape (channels, S, S). The key plays no part."""
        return torch.from_numpy(self.preprocessing(image))


class TrainTransform:
    """Augmentation, in this order: crop, flips, rotation and shift, colour jitter, RandAugment or
    TrivialAugment, normalisation, random erasing.

    ``crop: none`` is the evaluation's own resize and centre crop. What a rotation or shift uncovers takes the
    mean colour, as do erased rectangles: both are 0 for the network. With everything off, the bits are those
    of ``preprocessing(image)``.
    """

    def __init__(self, augment: AugmentSection, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        self._crop = _crop(augment, preprocessing)
        self._pixels = _pixel_transforms(augment, preprocessing)
        self._erase = v2.RandomErasing(p=augment.random_erasing) if augment.random_erasing else None

    def __call__(self, image: Image.Image, key: int) -> Tensor:
        """An RGB picture of any size -> float32, shape (channels, S, S)."""
        with seeded(key):
            image = self._crop(image) if self._crop else self.preprocessing.geometry(image)
            for transform in self._pixels:
                image = transform(image)
            tensor = torch.from_numpy(self.preprocessing.normalize(image))
            return self._erase(tensor) if self._erase else tensor


class BatchMixer:
    """mixup (Zhang et al. 2018), cutmix (Yun et al. 2019), or for each batch one of the two, evenly.

    Each picture is mixed with the one before it in the batch. A batch of one picture stays as it is.
    """

    def __init__(self, mixup_alpha: float, cutmix_alpha: float, num_classes: int) -> None:
        self.num_classes = num_classes
        self._ways: list[v2.Transform] = []
        if mixup_alpha:
            self._ways.append(v2.MixUp(alpha=mixup_alpha, num_classes=num_classes))
        if cutmix_alpha:
            self._ways.append(v2.CutMix(alpha=cutmix_alpha, num_classes=num_classes))

    def __call__(self, images: Tensor, targets: Tensor, key: int) -> tuple[Tensor, Tensor]:
        """Images (N, 3, S, S) and class numbers (N,) -> mixed images, targets (N, num_classes) float32."""
        if len(images) < 2 or not self._ways:
            return images, torch.nn.functional.one_hot(targets, self.num_classes).float()
        with seeded(key):
            way = self._ways[int(torch.randint(len(self._ways), ()))]
            mixed, soft = way(images, targets)
        return mixed, soft


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


def _crop(augment: AugmentSection, preprocessing: Preprocessing) -> v2.Transform | None:
    if augment.crop == "none":
        return None
    return v2.RandomResizedCrop(
        preprocessing.image_size,
        scale=augment.scale,
        ratio=augment.ratio,
        interpolation=INTERPOLATION[preprocessing.interpolation],
        antialias=True,
    )


def _pixel_transforms(augment: AugmentSection, preprocessing: Preprocessing) -> list[v2.Transform]:
    mean_colour = list(preprocessing.mean_colour)
    # Pillow has no Lanczos filter for anything but resizing.
    nearest = preprocessing.interpolation == "nearest"
    interpolation = v2.InterpolationMode.NEAREST if nearest else v2.InterpolationMode.BILINEAR
    transforms: list[v2.Transform] = []
    if augment.flip:
        transforms.append(v2.RandomHorizontalFlip())
    if augment.vertical_flip:
        transforms.append(v2.RandomVerticalFlip())
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
