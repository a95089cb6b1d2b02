"""Views: the key decides, randomness is restored, and evaluation and training agree."""

import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from finetune.data.batches.batch import PixelBatch
from finetune.data.batches.normalize import Normalizer
from finetune.image.preprocessing import Interpolation, Preprocessing, ResizeMode
from finetune.image.random_crop import RESIZED_BY_TORCH
from finetune.image.transforms import EvalTransform, TrainTransform, Transform
from finetune.image.view import seeded
from finetune.recipe.schema import AugmentSection, ColorJitter, RandAugment

Noise = Callable[[int, int], Image.Image]
PREPROCESSING = Preprocessing(24, 28, "shorter", "bilinear", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
EVERYTHING: dict[str, Any] = {
    "crop": "random_resized",
    "flip": True,
    "vertical_flip": True,
    "rotation": 20.0,
    "translate": 0.1,
    "color_jitter": ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1),
    "random_erasing": 0.5,
}
ONE_BY_ONE = [
    *({name: value} for name, value in EVERYTHING.items()),
    {"randaugment": RandAugment()},
    {"trivial_augment": True},
    EVERYTHING | {"randaugment": RandAugment(num_ops=3, magnitude=20)},
]


class One:
    """Transforms and normalises one image, as a loader does, in a batch of one."""

    def __init__(self, transform: Transform) -> None:
        self.transform = transform
        self.normalize = Normalizer(transform.preprocessing, torch.device("cpu"))

    def __call__(self, image: Image.Image, key: int) -> torch.Tensor:
        view = self.transform.view(self.transform.base(image), key)
        pixels = torch.from_numpy(np.ascontiguousarray(view.pixels)[None].copy())
        erased = () if view.erased is None else ((0, view.erased),)
        images: torch.Tensor = self.normalize(PixelBatch(pixels, torch.zeros(1), (0,), erased)).images
        return images[0]


def transform(preprocessing: Preprocessing = PREPROCESSING, **augment: Any) -> One:
    return One(TrainTransform(AugmentSection(**augment), preprocessing))


@pytest.mark.parametrize("size", [(40, 30), (24, 24), (9, 50)])
def test_without_augmentation_views_equal_evaluation(size: tuple[int, int], noise: Noise) -> None:
    image = noise(*size)
    expected = PREPROCESSING(image)
    for made in (transform()(image, 7), One(EvalTransform(PREPROCESSING))(image, 0)):
        assert made.dtype == torch.float32
        np.testing.assert_array_equal(made.numpy(), expected)


@pytest.mark.parametrize("augment", ONE_BY_ONE)
def test_the_key_decides_the_view(augment: dict[str, Any], noise: Noise) -> None:
    made, image = transform(**augment), noise(50, 40)
    seen = set()
    for key in range(12):
        torch.manual_seed(key + 99)
        first = made(image, key)
        second = made(image, key)
        assert first.shape == (3, 24, 24)
        assert torch.equal(first, second)
        seen.add(first.numpy().tobytes())
    assert len(seen) >= 2


@pytest.mark.parametrize("augment", ONE_BY_ONE)
def test_a_pickled_transform_draws_the_same_views(augment: dict[str, Any], noise: Noise) -> None:
    made, image = transform(**augment), noise(50, 40)
    again = pickle.loads(pickle.dumps(made))
    assert all(torch.equal(made(image, key), again(image, key)) for key in range(5))


@pytest.mark.parametrize("augment", ONE_BY_ONE)
def test_the_random_state_of_the_caller_is_restored(augment: dict[str, Any], noise: Noise) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    transform(**augment)(noise(50, 40), 5)
    assert torch.equal(torch.rand(3), expected)


def test_the_random_state_is_restored_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="RGB"):
        transform(rotation=1.0)(Image.new("CMYK", (30, 30)), 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_pixels_are_normalised_as_in_evaluation(noise: Noise) -> None:
    """A flip moves pixels and changes no value."""
    image = noise(24, 24)
    upright, mirrored = PREPROCESSING(image), PREPROCESSING(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    made = transform(flip=True)
    results = [made(image, key).numpy() for key in range(20)]
    flipped = [np.array_equal(result, mirrored) for result in results]
    assert all(was or np.array_equal(result, upright) for was, result in zip(flipped, results, strict=True))
    assert 3 < sum(flipped) < 17


def test_vertical_flip(noise: Noise) -> None:
    image = noise(24, 24)
    upside_down = PREPROCESSING(image.transpose(Image.Transpose.FLIP_TOP_BOTTOM))
    results = [transform(vertical_flip=True)(image, key).numpy() for key in range(20)]
    assert any(np.array_equal(result, upside_down) for result in results)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_random_resized_crop_equals_torchvisions(interpolation: Any, noise: Noise) -> None:
    preprocessing = Preprocessing(24, 28, "shorter", interpolation, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    augment = AugmentSection(crop="random_resized", scale=(0.2, 0.9), ratio=(0.5, 2.0))
    reference = v2.RandomResizedCrop(
        24,
        scale=(0.2, 0.9),
        ratio=(0.5, 2.0),
        interpolation=v2.InterpolationMode(interpolation),
        antialias=True,
    )
    # Low contrast: no value is clipped between the two passes, whose order differs.
    image = noise(60, 45).point(lambda value: value // 2 + 64)
    made = TrainTransform(augment, preprocessing, decode="full")
    of_pillow, of_torch = [], []
    for key in range(30):
        drawn = made.view(made.base(image), key).pixels
        torch.manual_seed(key)
        of_pillow.append(drawn.astype(int) - np.asarray(reference(image)).astype(int))
        torch.manual_seed(key)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        of_torch.append(drawn != reference(tensor).permute(1, 2, 0).numpy())
    if interpolation in RESIZED_BY_TORCH:
        assert not np.any(of_torch)
        assert np.abs(of_pillow).max() <= 1
    else:
        assert not np.any(of_pillow)


def test_a_shift_uncovers_zeros() -> None:
    """0 after normalisation, up to the rounding of 8 bits."""
    made = transform(translate=0.5)
    white = Image.new("RGB", (24, 24), (255, 255, 255))
    uncovered = [result[:, result.amin(0) < 0.5] for result in (made(white, key) for key in range(10))]
    pixels = torch.cat(uncovered, dim=1)
    assert pixels.shape[1] > 100
    assert pixels.abs().max() < 0.5 / 255 / 0.2 + 1e-6


def test_a_rotation_turns_around_the_centre() -> None:
    preprocessing = Preprocessing(25, 25, "shorter", "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    image = Image.new("RGB", (25, 25))
    image.paste((255, 255, 255), (10, 10, 15, 15))
    made = transform(preprocessing, rotation=180.0)
    results = torch.stack([made(image, key)[0] for key in range(20)])
    places = torch.arange(25.0)
    for result in results:
        mass = result.sum()
        assert abs((result.sum(0) * places).sum() / mass - 12) < 0.3
        assert abs((result.sum(1) * places).sum() / mass - 12) < 0.3
    assert len({result.numpy().tobytes() for result in results}) > 10


def test_erased_rectangles_are_zeros(noise: Noise) -> None:
    made = transform(random_erasing=1.0)
    image = noise(24, 24)
    plain = torch.from_numpy(PREPROCESSING(image))
    changed = made(image, 3)
    erased = changed != plain
    assert 10 < erased.sum() < erased.numel()
    assert (changed[erased] == 0).all()


def test_seeded_draws_equal_those_of_manual_seed() -> None:
    with seeded(123):
        drawn = torch.rand(4)
    torch.manual_seed(123)
    assert torch.equal(drawn, torch.rand(4))


# Where evaluation shows the whole of a wide image, the largest training crop does, too.

WHOLE: dict[str, Any] = {"crop": "random_resized", "scale": (1.0, 1.0), "ratio": (1.0, 1.0)}


def shaped(mode: ResizeMode, interpolation: Interpolation = "bilinear") -> Preprocessing:
    return Preprocessing(24, 24, mode, interpolation, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


@pytest.mark.parametrize("mode", ["squash", "pad"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(96, 24), (24, 96), (40, 40), (7, 5), (1, 30)])
def test_the_largest_crop_shows_what_evaluation_shows(
    mode: ResizeMode, interpolation: Interpolation, size: tuple[int, int], noise: Noise
) -> None:
    # Low contrast: no value is clipped between the two passes, whose order differs.
    image = noise(*size).point(lambda value: value // 2 + 64)
    preprocessing = shaped(mode, interpolation)
    made = TrainTransform(AugmentSection(**WHOLE), preprocessing, decode="full")
    expected = np.asarray(preprocessing.geometry(image)).astype(int)
    for key in range(3):
        difference = np.abs(made.view(made.base(image), key).pixels - expected)
        assert difference.max() <= (1 if interpolation in RESIZED_BY_TORCH else 0)


@pytest.mark.parametrize("mode", ["squash", "pad"])
def test_a_crop_of_a_long_image_reaches_its_ends(mode: ResizeMode) -> None:
    """A square crop of the height of the image would show a quarter of it."""
    ramp = np.broadcast_to(np.linspace(0, 255, 160).astype(np.uint8)[None, :, None], (40, 160, 3))
    image = Image.fromarray(np.ascontiguousarray(ramp))
    augment = AugmentSection(crop="random_resized", scale=(0.7, 1.0))
    spans = {}
    for each in (mode, "shorter"):
        made = TrainTransform(augment, shaped(each), decode="full")
        rows = [made.view(made.base(image), key).pixels[12, :, 0].astype(int) for key in range(20)]
        spans[each] = np.mean([row.max() - row.min() for row in rows])
    assert spans[mode] > 180
    assert spans["shorter"] < 100


def test_the_padding_of_a_crop_is_zeros(noise: Noise) -> None:
    made = One(TrainTransform(AugmentSection(crop="random_resized", scale=(0.1, 1.0)), shaped("pad")))
    for key in range(20):
        border = made(noise(120, 24), key)[:, 0]
        assert border.abs().max() < 0.5 / 255 / 0.2 + 1e-6


def test_the_base_depends_on_the_padding_colour(noise: Noise) -> None:
    """Cached images include the padding."""
    other = dataclasses.replace(shaped("pad"), mean=(0.1, 0.2, 0.3))
    assert EvalTransform(shaped("pad")).base_facts != EvalTransform(other).base_facts
    assert (
        EvalTransform(shaped("squash")).base_facts
        == EvalTransform(dataclasses.replace(shaped("squash"), mean=(0.1, 0.2, 0.3))).base_facts
    )
