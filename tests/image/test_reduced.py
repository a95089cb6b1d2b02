"""Reduced decoding: training images are decoded at a smaller size, and show the same scene."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetune.data.batches.loaders import TrainLoader, eval_batches
from finetune.data.batches.options import ReadOptions
from finetune.data.batches.sampling import Sampling
from finetune.data.dataset import Split
from finetune.data.images import FileImages
from finetune.data.sources.named.drawn import draw_source
from finetune.errors import BadImageError
from finetune.image.decode import open_rgb
from finetune.image.preprocessing import Preprocessing
from finetune.image.transforms import EvalTransform, TrainTransform, reduced_side
from finetune.recipe.schema import AugmentSection

PREPROCESSING = Preprocessing(24, 28, "shorter", "bilinear", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
CROPPED = AugmentSection(crop="random_resized", scale=(0.5, 1.0))


@pytest.fixture
def scene() -> Callable[[int, int], Image.Image]:
    """A smooth image (width, height) that differs from its mirror images and rotations."""

    def make(width: int, height: int) -> Image.Image:
        across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
        channels = [220 * across, 200 * down**2, 120 + 100 * np.sin(5 * across + 3 * down)]
        return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))

    return make


def base(path: Path, **options: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    transform = TrainTransform(CROPPED, PREPROCESSING, **options)
    return transform.base(Split(FileImages([path]), np.zeros(1, np.int64)).open(0, transform.shorter))


def test_the_reduced_side_follows_from_the_recipe() -> None:
    def side(size: int, resize: int, low: float, high: float) -> int:
        preprocessing = Preprocessing(size, resize, "shorter", "bilinear", (0.5,), (0.5,))
        return reduced_side(AugmentSection(crop="random_resized", scale=(low, high)), preprocessing)

    assert side(224, 256, 0.08, 1.0) == 305
    assert side(224, 256, 1.0, 1.0) == 256
    assert side(224, 224, 1.0, 1.0) == 224
    # A square crop of the middle of the scale has as many pixels as the network sees.
    assert side(224, 224, 0.25, 0.25) == 448


@pytest.mark.parametrize(("crop", "decode"), [("none", "auto"), ("none", "full"), ("random_resized", "full")])
def test_images_that_are_not_reduced(crop: Any, decode: Any) -> None:
    assert TrainTransform(AugmentSection(crop=crop), PREPROCESSING, decode).shorter is None


def test_evaluation_images_are_not_reduced() -> None:
    assert EvalTransform(PREPROCESSING).shorter is None


@pytest.mark.parametrize(
    "size", [(640, 480), (480, 640), (3000, 30), (29, 29), (28, 28), (10, 400), (57, 57)]
)
@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_the_shorter_side_is_reduced(
    size: tuple[int, int], kind: str, scene: Callable[[int, int], Image.Image], tmp_path: Path
) -> None:
    path = tmp_path / f"a.{kind}"
    scene(*size).save(path)
    pixels = base(path)
    shorter = reduced_side(CROPPED, PREPROCESSING)
    assert shorter == 28
    assert min(pixels.shape[:2]) == min(min(size), shorter)
    # The aspect ratio stays, up to one pixel of the shorter side after decoding.
    wanted = size[0] / size[1]
    height, width = pixels.shape[:2]
    assert (width - 1) / (height + 1) <= wanted * 1.02
    assert (width + 1) / max(height - 1, 1) >= wanted * 0.98


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_same_scene_in_every_orientation(
    orientation: int, scene: Callable[[int, int], Image.Image], tmp_path: Path
) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    scene(400, 300).save(path, exif=exif, quality=95)
    pixels = base(path)
    whole = open_rgb(path).resize(pixels.shape[1::-1], Image.Resampling.BICUBIC)
    assert np.abs(pixels.astype(int) - np.asarray(whole)).mean() < 2


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_every_mode_of_jpeg(mode: str, scene: Callable[[int, int], Image.Image], tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    scene(400, 300).convert(mode).save(path, quality=95)
    pixels = base(path)
    whole = open_rgb(path).resize(pixels.shape[1::-1], Image.Resampling.BICUBIC)
    assert np.abs(pixels.astype(int) - np.asarray(whole)).mean() < 2


def test_several_images_in_one_file(scene: Callable[[int, int], Image.Image], tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    scene(400, 300).save(path, "MPO", save_all=True, append_images=[scene(300, 400)])
    pixels = base(path)
    whole = open_rgb(path).resize(pixels.shape[1::-1], Image.Resampling.BICUBIC)
    assert np.abs(pixels.astype(int) - np.asarray(whole)).mean() < 2


def test_a_jpeg_is_decoded_smaller(scene: Callable[[int, int], Image.Image], tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    scene(640, 480).save(path)
    assert open_rgb(path, 28).size == (80, 60)
    assert open_rgb(path, 61).size == (160, 120)
    assert open_rgb(path, 300).size == (640, 480)
    assert open_rgb(path, 1000).size == (640, 480)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_file_is_refused(
    share: float, scene: Callable[[int, int], Image.Image], tmp_path: Path
) -> None:
    path = tmp_path / "a.jpg"
    scene(640, 480).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(BadImageError, match="truncated"):
        base(path)


def test_small_images_are_bit_identical() -> None:
    """No image is enlarged, and images that are not reduced stay bit-identical."""
    split = draw_source(3, 4, 24).splits["train"]
    loaders = [
        TrainLoader(split, TrainTransform(CROPPED, PREPROCESSING, decode), ReadOptions(4), Sampling(1))
        for decode in ("auto", "full")
    ]
    for one, other in zip(*(loader.epoch(0) for loader in loaders), strict=True):
        np.testing.assert_array_equal(one.images, other.images)


def test_evaluation_sees_whole_images(scene: Callable[[int, int], Image.Image], tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    scene(640, 480).save(path)
    split = Split(FileImages([path]), np.zeros(1, np.int64))
    (batch,) = eval_batches(split, PREPROCESSING, ReadOptions(1))
    np.testing.assert_array_equal(batch.images[0], PREPROCESSING(open_rgb(path)))
